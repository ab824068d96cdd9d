package authserver

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// group decides which connections a command may use. Each group has a queue of its own, so
// that a full queue does not affect the other groups.
type group uint8

const (
	// groupBackEnd is for commands of back ends. They may use all connections.
	groupBackEnd group = iota
	// groupFrontEnd is for commands of front ends. They may not use the connections that
	// are reserved for back ends.
	groupFrontEnd
	// groupAwaitsUser is for commands of either that the server may answer only after a
	// user has approved them. They may not use the reserved connections, and only
	// limits.awaitingUser of the others.
	groupAwaitsUser
	groups // the number of groups
)

// backEnd is the key of the context value of ForBackEnd.
type backEnd struct{}

// ForBackEnd returns a context for commands of a back end. Such commands may use the
// connections that are reserved for back ends, and do not share a queue with commands of
// front ends. ForBackEnd only gives priority. It is no authorization: every command may be
// sent with or without it.
func ForBackEnd(ctx context.Context) context.Context {
	return context.WithValue(ctx, backEnd{}, true)
}

// groupOf returns the group of a command.
func groupOf(ctx context.Context, c soap.Call) group {
	switch {
	case c.AwaitsUser():
		return groupAwaitsUser
	case ctx.Value(backEnd{}) != nil:
		return groupBackEnd
	}
	return groupFrontEnd
}

// limits are the numbers of commands that one instance may get.
type limits struct {
	connections  int // commands in progress
	reserved     int // of the connections, those that only back ends may use
	awaitingUser int // of the connections, those that groupAwaitsUser may use
	queue        int // queued commands of one group
}

// ticket decides when a command may begin. It includes the limits, because a limiter can
// serve two configurations with different limits at the same time.
type ticket struct {
	group  group
	limits limits
}

// limiter counts the commands in progress on one authentication server and queues those that
// have to wait. Its zero value is ready to use.
type limiter struct {
	mu       sync.Mutex
	running  [groups]int
	queued   [groups]int
	arrivals uint64
	// queues contain the waiting commands in the order of their arrival. No queue is
	// empty. All commands in a queue have the same ticket, so that only the first one can
	// be the next to begin.
	queues map[ticket]*list.List // of *waiter
}

// waiter is a queued command.
type waiter struct {
	ticket  ticket
	arrival uint64
	place   *list.Element
	granted chan struct{} // closed when the command may begin
}

var errQueueFull = errors.New("too many commands are waiting")

// acquire waits until a command may begin, and counts it as in progress. It fails at once if
// the queue of the command's group is full.
func (l *limiter) acquire(ctx context.Context, deadline time.Time, t ticket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w, err := l.enter(t)
	if w == nil {
		return err
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	select {
	case <-w.granted:
		return nil
	case <-ctx.Done():
		l.leave(w)
		return fmt.Errorf("waiting for a connection: %w", ctx.Err())
	}
}

// enter counts a command as in progress or, if it may not begin yet, puts it into its queue.
// It returns nil if the command need not wait, or if the queue is full.
func (l *limiter) enter(t ticket) (*waiter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// This does not overtake queued commands: none of them may begin now.
	if l.admits(t) {
		l.running[t.group]++
		return nil, nil
	}
	if l.queued[t.group] >= t.limits.queue {
		return nil, errQueueFull
	}
	if l.queues[t] == nil {
		if l.queues == nil {
			l.queues = make(map[ticket]*list.List)
		}
		l.queues[t] = list.New()
	}
	w := &waiter{ticket: t, arrival: l.arrivals, granted: make(chan struct{})}
	w.place = l.queues[t].PushBack(w)
	l.queued[t.group]++
	l.arrivals++
	return w, nil
}

// leave removes a command that has given up waiting.
func (l *limiter) leave(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.granted:
		// The command was allowed to begin before leave got the lock. Let the next one
		// begin instead.
		l.end(w.ticket.group)
	default:
		l.dequeue(w)
	}
}

// counts returns the numbers of commands in progress and of queued ones.
func (l *limiter) counts() (running, queued int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for g := range groups {
		running += l.running[g]
		queued += l.queued[g]
	}
	return running, queued
}

// release ends a command for which acquire succeeded.
func (l *limiter) release(g group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(g)
}

// end removes a command from those in progress and lets queued ones begin. The caller holds
// mu.
func (l *limiter) end(g group) {
	l.running[g]--
	for next := l.next(); next != nil; next = l.next() {
		l.dequeue(next)
		l.running[next.ticket.group]++
		close(next.granted)
	}
}

// next returns the queued command that arrived first among those that may begin, or nil if
// none may. The caller holds mu.
func (l *limiter) next() (first *waiter) {
	for t, queue := range l.queues {
		w := queue.Front().Value.(*waiter)
		if l.admits(t) && (first == nil || w.arrival < first.arrival) {
			first = w
		}
	}
	return first
}

// dequeue removes a command from its queue. The caller holds mu.
func (l *limiter) dequeue(w *waiter) {
	queue := l.queues[w.ticket]
	if queue.Remove(w.place); queue.Len() == 0 {
		delete(l.queues, w.ticket)
	}
	l.queued[w.ticket.group]--
}

// admits reports whether a command may begin now. The caller holds mu.
func (l *limiter) admits(t ticket) bool {
	unreserved := l.running[groupFrontEnd] + l.running[groupAwaitsUser]
	switch {
	case unreserved+l.running[groupBackEnd] >= t.limits.connections:
		return false
	case t.group == groupBackEnd:
		return true
	case unreserved >= t.limits.connections-t.limits.reserved:
		return false
	}
	return t.group != groupAwaitsUser || l.running[groupAwaitsUser] < t.limits.awaitingUser
}
