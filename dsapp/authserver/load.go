package authserver

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// group is whom a command is for, or what it waits for. Each group has a queue of
// its own, so that a full one refuses nobody of another.
type group uint8

const (
	// groupBackEnd may use all connections.
	groupBackEnd group = iota
	// groupFrontEnd leaves free those that are reserved for back ends.
	groupFrontEnd
	// groupPerson is for commands that the server may answer only when a person
	// does, whoever sends them. They leave the reserved connections free, too, and
	// have a limit of their own within the others.
	groupPerson
	groups
)

// backEnd is the key of what ForBackEnd puts into a context.
type backEnd struct{}

// ForBackEnd marks the commands that are made with the context as those of a back
// end: they may use the connections that are reserved for back ends, and front
// ends do not fill their queue. That is priority, not authorisation: every command
// can be made with or without it.
func ForBackEnd(ctx context.Context) context.Context {
	return context.WithValue(ctx, backEnd{}, true)
}

// groupOf says to which group a command belongs.
func groupOf(ctx context.Context, c soap.Call) group {
	switch {
	case c.AwaitsUser():
		return groupPerson
	case ctx.Value(backEnd{}) != nil:
		return groupBackEnd
	}
	return groupFrontEnd
}

// limits are those of one instance.
type limits struct {
	connections int // commands in progress
	reserved    int // of these, for back ends only
	waiting     int // of these, at most so many that wait for a person
	queue       int // commands of one group that wait for their turn
}

// claim is what decides when a command may begin. The limits belong to it because
// configurations that follow each other share one load.
type claim struct {
	group  group
	limits limits
}

// load is what one authentication server is busy with: the commands in progress
// and those that wait for their turn. The zero load is an idle one.
type load struct {
	mu       sync.Mutex
	running  [groups]int
	queued   [groups]int
	arrivals uint64
	// queues hold those that wait, in the order of their arrival. None is empty.
	// Those in one queue differ in nothing else: only the first can be the next.
	queues map[claim]*list.List // of *waiter
}

// waiter is a command that waits for its turn.
type waiter struct {
	claim   claim
	arrival uint64
	place   *list.Element
	granted chan struct{}
}

var errQueueFull = errors.New("too many commands are waiting")

// acquire waits for a command's turn and counts it as in progress. It fails at
// once if the queue of its group is full.
func (l *load) acquire(ctx context.Context, c claim) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w, err := l.enter(c)
	if w == nil {
		return err
	}
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
		l.leave(w)
		return fmt.Errorf("waiting for a connection: %w", ctx.Err())
	}
}

// enter lets a command begin or, if it may not, gives it a place in its queue. The
// waiter is nil if it need not wait, or cannot.
func (l *load) enter(c claim) (*waiter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Nobody is passed over: whoever waits may not begin now.
	if l.admits(c) {
		l.running[c.group]++
		return nil, nil
	}
	if l.queued[c.group] >= c.limits.queue {
		return nil, errQueueFull
	}
	if l.queues[c] == nil {
		if l.queues == nil {
			l.queues = make(map[claim]*list.List)
		}
		l.queues[c] = list.New()
	}
	w := &waiter{claim: c, arrival: l.arrivals, granted: make(chan struct{})}
	w.place = l.queues[c].PushBack(w)
	l.queued[c.group]++
	l.arrivals++
	return w, nil
}

// leave ends the waiting of a command that does not want its turn any more.
func (l *load) leave(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.granted:
		// It was granted in the same moment: for the next one.
		l.end(w.claim.group)
	default:
		l.dequeue(w)
	}
}

// release ends a command that acquire counted.
func (l *load) release(g group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(g)
}

// end takes a command from those in progress and lets others begin. The caller
// holds mu.
func (l *load) end(g group) {
	l.running[g]--
	for next := l.next(); next != nil; next = l.next() {
		l.dequeue(next)
		l.running[next.claim.group]++
		close(next.granted)
	}
}

// next is the first that arrived of those who may begin; nil if nobody may. The
// caller holds mu.
func (l *load) next() (first *waiter) {
	for c, queue := range l.queues {
		w := queue.Front().Value.(*waiter)
		if l.admits(c) && (first == nil || w.arrival < first.arrival) {
			first = w
		}
	}
	return first
}

// dequeue removes a command from those that wait. The caller holds mu.
func (l *load) dequeue(w *waiter) {
	queue := l.queues[w.claim]
	if queue.Remove(w.place); queue.Len() == 0 {
		delete(l.queues, w.claim)
	}
	l.queued[w.claim.group]--
}

// admits reports whether a command may begin now. The caller holds mu.
func (l *load) admits(c claim) bool {
	unreserved := l.running[groupFrontEnd] + l.running[groupPerson]
	switch {
	case unreserved+l.running[groupBackEnd] >= c.limits.connections:
		return false
	case c.group == groupBackEnd:
		return true
	case unreserved >= c.limits.connections-c.limits.reserved:
		return false
	}
	return c.group != groupPerson || l.running[groupPerson] < c.limits.waiting
}
