package authserver

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// state returns the numbers of commands in progress and in the queues.
func (l *limiter) state() (running, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, queue := range l.queues {
		waiting += queue.Len()
	}
	for g := range groups {
		running += l.running[g]
	}
	return running, waiting
}

// unreserved returns a ticket where all commands are of the same group.
func unreserved(connections, queue int) ticket {
	return ticket{groupBackEnd, limits{connections: connections, awaitingUser: connections, queue: queue}}
}

// later is a deadline that no test reaches.
var later = time.Now().Add(time.Hour)

// Configurations with different limits share a limiter. A command that leaves the queue makes room
// in it and gets the error of its context. In the end, nothing is counted any more.
func TestLimiter(t *testing.T) {
	t.Parallel()
	var l limiter
	for range 2 {
		if err := l.acquire(t.Context(), later, unreserved(2, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.acquire(t.Context(), later, unreserved(2, 0)); !errors.Is(err, errQueueFull) {
		t.Fatalf("without a queue: %v", err)
	}
	// With the higher limit of a newer configuration, one more may begin.
	if err := l.acquire(t.Context(), later, unreserved(3, 0)); err != nil {
		t.Fatal(err)
	}

	gone, leave := context.WithCancel(t.Context())
	left, granted := make(chan error), make(chan error)
	go func() { left <- l.acquire(gone, later, unreserved(3, 2)) }()
	poll.Until(t, "the first command in the queue", func() bool { _, waiting := l.state(); return waiting == 1 })
	go func() { granted <- l.acquire(t.Context(), later, unreserved(3, 2)) }()
	poll.Until(t, "the second command in the queue", func() bool { _, waiting := l.state(); return waiting == 2 })
	if err := l.acquire(t.Context(), later, unreserved(3, 2)); !errors.Is(err, errQueueFull) {
		t.Fatalf("with a full queue: %v", err)
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatalf("left the queue with %v", err)
	}
	if err := l.acquire(gone, later, unreserved(9, 9)); !errors.Is(err, context.Canceled) {
		t.Fatalf("came with an ended context: %v", err)
	}
	l.release(groupBackEnd)
	if err := <-granted; err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l.release(groupBackEnd)
	}
	if running, waiting := l.state(); running != 0 || waiting != 0 {
		t.Errorf("%d in progress, %d waiting", running, waiting)
	}
}

// A command whose caller or timeout does not let it wait any longer leaves the queue. It was not
// sent.
func TestQueueTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &switchable{does: hanging}
		in := stub("primary", server)
		in.MaxConnections, in.MaxQueue = 1, 1
		s := newServers(t, Config{Instances: []Instance{in}, Timeout: 30 * time.Second})
		var first sync.WaitGroup
		first.Go(func() { _, _ = register(t.Context(), s, request) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := register(ctx, s, request)
		checkFailure(t, "queued", err, ErrNotSent)
		if running, waiting := s.instances[0].state.limiter.state(); running != 1 || waiting != 0 || server.count() != 1 {
			t.Errorf("%d in progress, %d waiting, %d sent", running, waiting, server.count())
		}
		first.Wait()
	})
}

// With the limits of two configurations, the end of one command can make room for two commands.
func TestLimiterMakesRoomForTwo(t *testing.T) {
	t.Parallel()
	small := limits{connections: 2, awaitingUser: 1, queue: 1}
	large := limits{connections: 4, reserved: 3, awaitingUser: 1, queue: 1}
	var l limiter
	for _, g := range []group{groupAwaitsUser, groupBackEnd} {
		if w, err := l.enter(ticket{g, small}); w != nil || err != nil {
			t.Fatal(w, err)
		}
	}
	var waiters []*waiter
	for _, c := range []ticket{{groupBackEnd, small}, {groupFrontEnd, large}} {
		w, err := l.enter(c)
		if w == nil || err != nil {
			t.Fatalf("%+v does not wait: %v", c, err)
		}
		waiters = append(waiters, w)
	}
	l.release(groupAwaitsUser)
	for _, w := range waiters {
		select {
		case <-w.granted:
		default:
			t.Errorf("%+v waits", w.ticket)
		}
	}
}

// Only a login that contains no approval may wait for a user. All other commands are in the group of
// the caller.
func TestGroups(t *testing.T) {
	t.Parallel()
	for name, sample := range samples {
		wantFront, wantBack := groupFrontEnd, groupBackEnd
		if name == "authUser (OTP)" {
			wantFront, wantBack = groupAwaitsUser, groupAwaitsUser
		}
		front, back := groupOf(t.Context(), sample.soapCall), groupOf(ForBackEnd(t.Context()), sample.soapCall)
		if front != wantFront || back != wantBack {
			t.Errorf("%s: %d and %d", name, front, back)
		}
	}
}

// highest records the highest number that there was at the same time.
type highest struct{ now, most atomic.Int64 }

func (h *highest) add() {
	n := h.now.Add(1)
	for old := h.most.Load(); n > old && !h.most.CompareAndSwap(old, n); old = h.most.Load() {
	}
}

// Under concurrency, no limit is ever exceeded: neither for all commands, nor for those of front
// ends, nor for those that may wait for a user.
func TestLimiterUnderStorm(t *testing.T) {
	t.Parallel()
	const callers, rounds = 16, 200
	limits := limits{connections: 5, reserved: 2, awaitingUser: 1, queue: callers}
	var l limiter
	var all, unreserved, awaiting highest
	var wg sync.WaitGroup
	for i := range callers {
		counted := []*highest{&all}
		g := group(i % int(groups))
		if g != groupBackEnd {
			counted = append(counted, &unreserved)
		}
		if g == groupAwaitsUser {
			counted = append(counted, &awaiting)
		}
		wg.Go(func() {
			for round := range rounds {
				ctx, cancel := context.WithCancel(t.Context())
				if (i+round)%5 == 0 {
					go cancel()
				}
				if l.acquire(ctx, later, ticket{g, limits}) == nil {
					for _, h := range counted {
						h.add()
					}
					runtime.Gosched()
					for _, h := range counted {
						h.now.Add(-1)
					}
					l.release(g)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if all.most.Load() > 5 || unreserved.most.Load() > 3 || awaiting.most.Load() > 1 {
		t.Errorf("%d at a time, %d without back ends, %d waiting for a person", all.most.Load(), unreserved.most.Load(), awaiting.most.Load())
	}
	if running, waiting := l.state(); running != 0 || waiting != 0 {
		t.Errorf("%d in progress, %d waiting", running, waiting)
	}
}

// visitor is a command in the model of the limiter.
type visitor struct {
	ticket ticket
	waiter *waiter // nil if it could begin at once
	began  bool
}

// fits reports whether one more command may begin.
func fits(c ticket, present []*visitor) bool {
	total, unreserved, awaiting := 1, 1, 1
	for _, v := range present {
		if !v.began {
			continue
		}
		total++
		if v.ticket.group != groupBackEnd {
			unreserved++
		}
		if v.ticket.group == groupAwaitsUser {
			awaiting++
		}
	}
	return total <= c.limits.connections &&
		(c.group == groupBackEnd || unreserved <= c.limits.connections-c.limits.reserved) &&
		(c.group != groupAwaitsUser || awaiting <= c.limits.awaitingUser)
}

// The limiter agrees with a simple model, whatever commands arrive, end and give up, and whatever
// limits they have: no limit is exceeded, commands begin as soon as they may and in the order of
// their arrival, a command is refused only if the queue of its group is full, all queued commands
// begin in the end, and nothing is left of those that gave up.
func TestLimiterModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		// There are few different limits, so that many commands share a queue.
		configurations := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) limits {
			connections := rapid.IntRange(1, 6).Draw(rt, "connections")
			return limits{
				connections:  connections,
				reserved:     rapid.IntRange(0, connections-1).Draw(rt, "reserved"),
				awaitingUser: rapid.IntRange(1, connections).Draw(rt, "waiting"),
				queue:        rapid.IntRange(0, 4).Draw(rt, "queue"),
			}
		}), 1, 3).Draw(rt, "configurations")
		var l limiter
		var present []*visitor // in the order of arrival

		begin := func() {
			for _, v := range present {
				v.began = v.began || fits(v.ticket, present)
			}
		}
		remove := func(v *visitor) {
			present = slices.DeleteFunc(present, func(o *visitor) bool { return o == v })
			begin()
		}
		pick := func(rt *rapid.T, fit func(*visitor) bool) *visitor {
			some := slices.DeleteFunc(slices.Clone(present), func(v *visitor) bool { return !fit(v) })
			if len(some) == 0 {
				rt.Skip()
			}
			return rapid.SampledFrom(some).Draw(rt, "who")
		}
		check := func(rt *rapid.T) {
			var running, queued [groups]int
			for i, v := range present {
				granted := v.waiter == nil
				if !granted {
					select {
					case <-v.waiter.granted:
						granted = true
					default:
					}
				}
				if granted != v.began {
					rt.Fatalf("%d of %d, %+v: granted is %v", i, len(present), v.ticket, granted)
				}
				if v.began {
					running[v.ticket.group]++
				} else {
					queued[v.ticket.group]++
				}
			}
			if l.running != running || l.queued != queued {
				rt.Fatalf("%v in progress and %v waiting, want %v and %v", l.running, l.queued, running, queued)
			}
			for _, queue := range l.queues {
				if queue.Len() == 0 {
					rt.Fatal("an empty queue is left")
				}
			}
			if _, waiting := l.state(); waiting != queued[groupBackEnd]+queued[groupFrontEnd]+queued[groupAwaitsUser] {
				rt.Fatalf("%d in the queues", waiting)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"arrive": func(rt *rapid.T) {
				c := ticket{group(rapid.IntRange(0, int(groups)-1).Draw(rt, "group")), rapid.SampledFrom(configurations).Draw(rt, "limits")}
				ahead := 0 // in its queue
				for _, v := range present {
					if !v.began && v.ticket.group == c.group {
						ahead++
					}
				}
				v := &visitor{ticket: c, began: fits(c, present)}
				var err error
				v.waiter, err = l.enter(c)
				if full := !v.began && ahead >= c.limits.queue; full != errors.Is(err, errQueueFull) || full && v.waiter != nil {
					rt.Fatalf("%+v behind %d: %v", c, ahead, err)
				}
				if err == nil {
					present = append(present, v)
				}
			},
			"end": func(rt *rapid.T) {
				v := pick(rt, func(v *visitor) bool { return v.began })
				l.release(v.ticket.group)
				remove(v)
			},
			"give up": func(rt *rapid.T) {
				// This includes commands that may have begun already.
				v := pick(rt, func(v *visitor) bool { return v.waiter != nil })
				l.leave(v.waiter)
				remove(v)
			},
			"": check,
		})
		for len(present) > 0 {
			i := slices.IndexFunc(present, func(v *visitor) bool { return v.began })
			if i < 0 {
				rt.Fatalf("%d commands wait although none is in progress", len(present))
			}
			l.release(present[i].ticket.group)
			remove(present[i])
			check(rt)
		}
		if running, waiting := l.state(); running != 0 || waiting != 0 || len(l.queues) != 0 {
			rt.Fatalf("%d in progress, %d waiting, %d queues", running, waiting, len(l.queues))
		}
	})
}
