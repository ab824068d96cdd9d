package authserver

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// state returns the commands in progress and those that wait.
func (l *load) state() (running, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running, l.waiting.Len()
}

// Configurations that share a load keep to their limits together, whoever leaves
// the queue gives up its place, and nothing stays counted.
func TestLoad(t *testing.T) {
	t.Parallel()
	var l load
	for range 2 {
		if err := l.acquire(t.Context(), 2, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.acquire(t.Context(), 2, 0); !errors.Is(err, errQueueFull) {
		t.Fatalf("without a queue: %v", err)
	}
	// A newer configuration with a higher limit may run one more.
	if err := l.acquire(t.Context(), 3, 0); err != nil {
		t.Fatal(err)
	}

	gone, leave := context.WithCancel(t.Context())
	left, granted := make(chan error), make(chan error)
	go func() { left <- l.acquire(gone, 3, 2) }()
	eventually(t, func() bool { _, waiting := l.state(); return waiting == 1 })
	go func() { granted <- l.acquire(t.Context(), 3, 2) }()
	eventually(t, func() bool { _, waiting := l.state(); return waiting == 2 })
	if err := l.acquire(t.Context(), 3, 2); !errors.Is(err, errQueueFull) {
		t.Fatalf("with a full queue: %v", err)
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatalf("left the queue with %v", err)
	}
	if err := l.acquire(gone, 9, 9); !errors.Is(err, context.Canceled) {
		t.Fatalf("came with an ended context: %v", err)
	}
	l.release()
	if err := <-granted; err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l.release()
	}
	if running, waiting := l.state(); running != 0 || waiting != 0 {
		t.Errorf("%d in progress, %d waiting", running, waiting)
	}
}

// Whatever the timing, never more than the limit are in progress.
func TestLoadUnderStorm(t *testing.T) {
	t.Parallel()
	const limit, callers, rounds = 3, 16, 200
	var l load
	var running, most atomic.Int64
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for round := range rounds {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+round)%5 == 0 {
					go cancel()
				}
				if l.acquire(ctx, limit, callers) == nil {
					n := running.Add(1)
					for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
					}
					running.Add(-1)
					l.release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if most.Load() > limit {
		t.Errorf("%d at a time", most.Load())
	}
	if running, waiting := l.state(); running != 0 || waiting != 0 {
		t.Errorf("%d in progress, %d waiting", running, waiting)
	}
}
