package authserver

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
)

// load is what one authentication server is busy with: the commands in progress
// and those that wait. The zero load is an idle one.
type load struct {
	mu      sync.Mutex
	running int
	waiting list.List // of *waiter, in the order of their arrival
}

// waiter is a command that waits until fewer than limit are in progress.
type waiter struct {
	limit   int
	granted chan struct{}
}

var errQueueFull = errors.New("too many commands are waiting")

// acquire waits until fewer than limit commands are in progress and counts one
// more. It fails at once if queue commands are waiting.
func (l *load) acquire(ctx context.Context, limit, queue int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	if l.running < limit && l.waiting.Len() == 0 {
		l.running++
		l.mu.Unlock()
		return nil
	}
	if l.waiting.Len() >= queue {
		l.mu.Unlock()
		return errQueueFull
	}
	w := &waiter{limit: limit, granted: make(chan struct{})}
	place := l.waiting.PushBack(w)
	l.mu.Unlock()

	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.granted:
		// It was granted in the same moment: for the next one.
		l.running--
	default:
		l.waiting.Remove(place)
	}
	l.grant()
	return fmt.Errorf("waiting for a connection: %w", ctx.Err())
}

// release ends a command that acquire counted.
func (l *load) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	l.grant()
}

// grant lets the first in the queue begin, and whoever else can. The caller
// holds mu.
func (l *load) grant() {
	for {
		first := l.waiting.Front()
		if first == nil {
			return
		}
		w := first.Value.(*waiter)
		if l.running >= w.limit {
			return
		}
		l.waiting.Remove(first)
		l.running++
		close(w.granted)
	}
}
