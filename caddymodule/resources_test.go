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

// fakeStore counts how often it is closed.
type fakeStore struct {
	closed  atomic.Int32
	lost    atomic.Bool
	closing chan struct{} // If it is not nil, Close receives from it.
}

func (t *fakeStore) Damaged() bool { return t.lost.Load() }

func (t *fakeStore) Ready() (time.Time, error) { return time.Time{}, nil }

func (t *fakeStore) Close() error {
	if t.closing != nil {
		<-t.closing
	}
	t.closed.Add(1)
	return nil
}

// fakeOpener opens stores and records them.
type fakeOpener struct {
	mu     sync.Mutex
	opened []*fakeStore
	err    error         // the error of open
	gate   chan struct{} // If it is not nil, open receives from it.
}

func (s *fakeOpener) open() (*fakeStore, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	s.opened = append(s.opened, new(fakeStore))
	return s.opened[len(s.opened)-1], nil
}

func (s *fakeOpener) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.opened)
}

func mustLease(t *testing.T, pool *caddy.UsagePool, key string, s *fakeOpener) *lease[*fakeStore] {
	t.Helper()
	l, err := newLease(pool, key, s.open)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustGet(t *testing.T, l *lease[*fakeStore]) *fakeStore {
	t.Helper()
	v, err := l.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A resource is opened with its first use and not before, once for all configurations with
// the same key, and closed with the last one.
func TestResourceOpensOnFirstUseAndIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(fakeOpener)
		a, b := mustLease(t, pool, "k", s), mustLease(t, pool, "k", s)
		if s.count() != 0 {
			t.Fatal("opened before use")
		}
		if mustGet(t, a) != mustGet(t, b) || s.count() != 1 {
			t.Fatal("not shared")
		}
		other := mustLease(t, pool, "other", s)
		if mustGet(t, other) == mustGet(t, a) {
			t.Fatal("shared under another key")
		}
		a.release()
		synctest.Wait()
		if s.opened[0].closed.Load() != 0 {
			t.Fatal("closed while another configuration uses it")
		}
		b.release()
		other.release()
		synctest.Wait()
		if s.opened[0].closed.Load() != 1 || s.opened[1].closed.Load() != 1 {
			t.Fatal("not closed once with the last configuration")
		}
	})
}

// A lost value is closed once, and the resource is opened again when it is needed.
func TestLostResourceIsOpenedAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(fakeOpener)
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
		if next == lost || mustGet(t, l) != next || s.count() != 2 {
			t.Fatalf("opened %d times", s.count())
		}
		l.release()
		synctest.Wait()
		if lost.closed.Load() != 1 || next.closed.Load() != 1 {
			t.Fatal("not closed once each")
		}
	})
}

// Concurrent callers share one attempt to open a resource. Each waits until its own context
// ends.
func TestResourceOpensOnceForConcurrentCallers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), &fakeOpener{gate: make(chan struct{})}
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
		if s.count() != 1 {
			t.Errorf("opened %d times", s.count())
		}
		l.release()
		synctest.Wait()
	})
}

// After a failed attempt, the next call tries to open the resource again.
func TestResourceOpeningIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), &fakeOpener{err: errors.New("locked")}
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

// The requests of a replaced configuration keep the resource open. It is closed once, after
// the last of them.
func TestResourceClosesAfterTheLastRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(fakeOpener)
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
		time.Sleep(2 * drainTimeout) // No timer may close it a second time.
		if v.closed.Load() != 1 {
			t.Fatal("closed again")
		}
	})
}

// A request that does not end keeps the resource open for drainTimeout only. Its late end
// does no harm.
func TestResourceClosesAfterTheDrainTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(fakeOpener)
		l := mustLease(t, pool, "k", s)
		l.beginRequest()
		v := mustGet(t, l)
		l.release()
		time.Sleep(drainTimeout - time.Second)
		synctest.Wait()
		if v.closed.Load() != 0 {
			t.Fatal("closed before the drain timeout")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if v.closed.Load() != 1 {
			t.Fatal("open after the drain timeout")
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

// A configuration is replaced by one without the resource and then loaded again while one
// of its first requests still runs: the resource is not opened a second time.
func TestDrainingResourceIsUsedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(fakeOpener)
		first := mustLease(t, pool, "k", s)
		first.beginRequest()
		v := mustGet(t, first)
		first.release()
		again := mustLease(t, pool, "k", s)
		if mustGet(t, again) != v || s.count() != 1 {
			t.Fatal("opened twice")
		}
		first.endRequest()
		time.Sleep(2 * drainTimeout)
		synctest.Wait()
		if v.closed.Load() != 0 {
			t.Fatal("closed while the newer configuration uses it")
		}
		again.release()
		synctest.Wait()
		if v.closed.Load() != 1 {
			t.Fatal("not closed")
		}
	})
}

// A request can reach a configuration after its clean-up. It opens the resource again, which
// is closed when the request ends.
func TestLateRequestOpensAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(fakeOpener)
		l := mustLease(t, pool, "k", s)
		mustGet(t, l)
		l.release()
		synctest.Wait()
		l.beginRequest()
		late := mustGet(t, l)
		if s.count() != 2 || late.closed.Load() != 0 {
			t.Fatal("late request got a closed resource")
		}
		l.endRequest()
		synctest.Wait()
		if late.closed.Load() != 1 {
			t.Fatal("not closed after the late request")
		}
		// Use without a request ends after the drain timeout.
		stray := mustGet(t, l)
		time.Sleep(2 * drainTimeout)
		synctest.Wait()
		if stray.closed.Load() != 1 {
			t.Fatal("not closed after the drain timeout")
		}
	})
}

// A value that is opened after the last configuration has ended is closed at once.
func TestResourceOpenedTooLateIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), &fakeOpener{gate: make(chan struct{})}
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
		if s.opened[0].closed.Load() != 1 {
			t.Fatal("leaked")
		}
	})
}

// Releasing a lease does not wait for the resource to be closed.
func TestReleaseDoesNotWaitForClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pool, s := caddy.NewUsagePool(), new(fakeOpener)
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

// Cleanup can release a lease that was never made.
func TestReleasingNothing(t *testing.T) {
	t.Parallel()
	var l *lease[*fakeStore]
	l.release()
}
