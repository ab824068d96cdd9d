package caddymodule

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// thing is a resource that records what is done to it.
type thing struct {
	closed  atomic.Int32
	lost    atomic.Bool
	closing chan struct{} // if not nil, Close waits for it
}

func (t *thing) Lost() bool { return t.lost.Load() }

func (t *thing) Close() error {
	if t.closing != nil {
		<-t.closing
	}
	t.closed.Add(1)
	return nil
}

// shop opens things and keeps them.
type shop struct {
	mu     sync.Mutex
	things []*thing
	err    error
	gate   chan struct{}
}

func (s *shop) open() (*thing, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	s.things = append(s.things, new(thing))
	return s.things[len(s.things)-1], nil
}

func (s *shop) opened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.things)
}

func mustLease(t *testing.T, pool *caddy.UsagePool, key string, s *shop) *lease[*thing] {
	t.Helper()
	l, err := newLease(pool, key, s.open)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustGet(t *testing.T, l *lease[*thing]) *thing {
	t.Helper()
	v, err := l.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Loading a configuration opens nothing; the first use does, once for all
// configurations with the key.
func TestResourceOpensOnFirstUseAndIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(shop)
		a, b := mustLease(t, pool, "k", s), mustLease(t, pool, "k", s)
		if s.opened() != 0 {
			t.Fatal("opened before use")
		}
		if mustGet(t, a) != mustGet(t, b) || s.opened() != 1 {
			t.Fatal("not shared")
		}
		other := mustLease(t, pool, "other", s)
		if mustGet(t, other) == mustGet(t, a) {
			t.Fatal("shared under another key")
		}
		a.release()
		synctest.Wait()
		if s.things[0].closed.Load() != 0 {
			t.Fatal("closed while another configuration uses it")
		}
		b.release()
		other.release()
		synctest.Wait()
		if s.things[0].closed.Load() != 1 || s.things[1].closed.Load() != 1 {
			t.Fatal("not closed once with the last configuration")
		}
	})
}

// What was lost is closed once, and opened anew when it is needed again.
func TestLostResourceIsOpenedAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(shop)
		l := mustLease(t, pool, "k", s)
		lost := mustGet(t, l)
		lost.lost.Store(true)
		s.err = errors.New("damaged")
		for range 2 {
			if _, err := l.get(t.Context()); !errors.Is(err, s.err) || lost.closed.Load() != 1 {
				t.Fatalf("closed %d times, error %v", lost.closed.Load(), err)
			}
		}
		s.err = nil
		next := mustGet(t, l)
		if next == lost || mustGet(t, l) != next || s.opened() != 2 {
			t.Fatalf("opened %d times", s.opened())
		}
		l.release()
		synctest.Wait()
		if lost.closed.Load() != 1 || next.closed.Load() != 1 {
			t.Fatal("not closed once each")
		}
	})
}

// Callers that come while a resource is being opened share the attempt, and each
// waits no longer than its own context.
func TestResourceOpensOnceForConcurrentCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), &shop{gate: make(chan struct{})}
		l := mustLease(t, pool, "k", s)
		var wg sync.WaitGroup
		var got sync.Map
		for range 10 {
			wg.Go(func() {
				v, err := l.get(t.Context())
				if err != nil {
					t.Error(err)
				}
				got.Store(v, true)
			})
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.get(impatient); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient caller: %v", err)
		}
		close(s.gate)
		wg.Wait()
		if s.opened() != 1 {
			t.Errorf("opened %d times", s.opened())
		}
		l.release()
		synctest.Wait()
	})
}

// A failed opening is not remembered.
func TestResourceOpeningIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), &shop{err: errors.New("locked")}
		l := mustLease(t, pool, "k", s)
		if _, err := l.get(t.Context()); !errors.Is(err, s.err) {
			t.Fatalf("err = %v", err)
		}
		s.err = nil
		mustGet(t, l)
		l.release()
		synctest.Wait()
	})
}

// The requests of a replaced configuration keep the resource open.
func TestResourceClosesAfterTheLastRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(shop)
		l := mustLease(t, pool, "k", s)
		l.beginRequest()
		l.beginRequest()
		v := mustGet(t, l)
		l.release()
		l.endRequest()
		synctest.Wait()
		if v.closed.Load() != 0 || mustGet(t, l) != v {
			t.Fatal("closed with a request in flight")
		}
		l.endRequest()
		synctest.Wait()
		if v.closed.Load() != 1 {
			t.Fatal("not closed after the last request")
		}
		time.Sleep(2 * drainTimeout) // no timer is left that could close anything twice
		if v.closed.Load() != 1 {
			t.Fatal("closed again")
		}
	})
}

// A request that never ends does not keep the resource open for ever, and the
// end it comes to after all does no harm.
func TestResourceClosesAtTheCeiling(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(shop)
		l := mustLease(t, pool, "k", s)
		l.beginRequest()
		v := mustGet(t, l)
		l.release()
		time.Sleep(drainTimeout - time.Second)
		synctest.Wait()
		if v.closed.Load() != 0 {
			t.Fatal("closed before the ceiling")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if v.closed.Load() != 1 {
			t.Fatal("open after the ceiling")
		}
		if _, exists := pool.References("k"); exists {
			t.Fatal("reference left in the pool")
		}
		l.endRequest()
		synctest.Wait()
		if v.closed.Load() != 1 {
			t.Fatal("closed twice")
		}
	})
}

// Configuration A, then B without the resource, then A again, while a request
// of the first A runs: the resource is not opened a second time.
func TestDrainingResourceIsRevived(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(shop)
		first := mustLease(t, pool, "k", s)
		first.beginRequest()
		v := mustGet(t, first)
		first.release()
		again := mustLease(t, pool, "k", s)
		if mustGet(t, again) != v || s.opened() != 1 {
			t.Fatal("opened twice")
		}
		first.endRequest()
		time.Sleep(2 * drainTimeout)
		synctest.Wait()
		if v.closed.Load() != 0 {
			t.Fatal("closed under the newer configuration")
		}
		again.release()
		synctest.Wait()
		if v.closed.Load() != 1 {
			t.Fatal("not closed")
		}
	})
}

// A request can reach a configuration after its cleanup. It is served, and what
// it opened is closed with it.
func TestLateRequestOpensAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(shop)
		l := mustLease(t, pool, "k", s)
		mustGet(t, l)
		l.release()
		synctest.Wait()
		l.beginRequest()
		late := mustGet(t, l)
		if s.opened() != 2 || late.closed.Load() != 0 {
			t.Fatal("late request got a closed resource")
		}
		l.endRequest()
		synctest.Wait()
		if late.closed.Load() != 1 {
			t.Fatal("not closed after the late request")
		}
		// Even without a request around it.
		stray := mustGet(t, l)
		time.Sleep(2 * drainTimeout)
		synctest.Wait()
		if stray.closed.Load() != 1 {
			t.Fatal("not closed after the ceiling")
		}
	})
}

// What a slow opening brings after the last configuration is gone is closed.
func TestResourceOpenedTooLateIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), &shop{gate: make(chan struct{})}
		l := mustLease(t, pool, "k", s)
		failed := make(chan error)
		go func() {
			_, err := l.get(t.Context())
			failed <- err
		}()
		synctest.Wait()
		l.release()
		synctest.Wait()
		close(s.gate)
		if err := <-failed; !errors.Is(err, errResourceClosed) {
			t.Fatalf("err = %v", err)
		}
		if s.things[0].closed.Load() != 1 {
			t.Fatal("leaked")
		}
	})
}

// Neither a reload nor the end of a request waits for a slow Close.
func TestReleaseDoesNotWaitForClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(shop)
		l := mustLease(t, pool, "k", s)
		v := mustGet(t, l)
		v.closing = make(chan struct{})
		l.release()
		l.release()
		next := mustLease(t, pool, "k", s)
		next.release()
		synctest.Wait()
		close(v.closing)
		synctest.Wait()
		if v.closed.Load() != 1 {
			t.Fatal("not closed once")
		}
	})
}

// Cleanup runs for modules that never got as far as taking a reference.
func TestReleasingNothing(t *testing.T) {
	t.Parallel()
	var l *lease[*thing]
	l.release()
}
