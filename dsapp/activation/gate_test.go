package activation

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// jobFunc is a job that a test watches.
type jobFunc func()

func (f jobFunc) run() { f() }

// No more than the configured number is computed at once; everybody gets a turn.
func TestGateBoundsComputing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(3)
		var mu sync.Mutex
		var now, most, done int
		turn := make(chan struct{})
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				err := g.compute(t.Context(), jobFunc(func() {
					mu.Lock()
					now++
					most = max(most, now)
					mu.Unlock()
					<-turn
					mu.Lock()
					now--
					done++
					mu.Unlock()
				}))
				if err != nil {
					t.Error(err)
				}
			})
		}
		for range 20 {
			synctest.Wait()
			turn <- struct{}{}
		}
		wg.Wait()
		if most != 3 || done != 20 {
			t.Errorf("%d at once, %d done", most, done)
		}
	})
}

// Waiting for a slot ends with the context, and then nothing is computed.
func TestGateWaitingEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		release := make(chan struct{})
		go func() {
			if err := g.compute(t.Context(), jobFunc(func() { <-release })); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		waiting := make(chan error)
		go func() { waiting <- g.compute(ctx, jobFunc(func() { t.Error("computed") })) }()
		synctest.Wait()
		cancel()
		if err := <-waiting; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		close(release)
		synctest.Wait()
		if err := g.compute(ctx, jobFunc(func() { t.Error("computed") })); !errors.Is(err, context.Canceled) {
			t.Errorf("a free slot under an ended context: %v", err)
		}
		if err := g.compute(t.Context(), jobFunc(func() {})); err != nil {
			t.Error(err)
		}
	})
}

// A panic gives the slot back.
func TestGateSurvivesPanic(t *testing.T) {
	t.Parallel()
	g := newGate(1)
	func() {
		defer func() { recover() }()
		g.compute(t.Context(), jobFunc(func() { panic("computing") }))
	}()
	if err := g.compute(t.Context(), jobFunc(func() {})); err != nil {
		t.Error(err)
	}
}

// One exchange computed and sixteen waiting are the limit; the next one is
// turned away at once, before it costs a proof anything, and all others are
// served.
func TestBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.MaxExchanges, c.MaxAttempts = 1, 1 })
	r := w.register(w.mdl("e3wfISG9"))
	p := w.begin(r.Identifier, r.Password)

	entered, release := make(chan struct{}), make(chan struct{})
	w.store.set(func() { w.store.before["Take"] = func() { entered <- struct{}{}; <-release } })
	results := make(chan error, 17)
	for range 17 {
		go func() {
			_, err := w.Prove(context.Background(), "unknown-id", form.ClientEvidence(strings.Repeat("0", 64)), home)
			results <- err
		}()
	}
	for range 17 {
		select {
		case <-entered:
		case err := <-results:
			t.Fatalf("turned away too early: %v", err)
		}
	}
	w.store.take()
	if _, err := w.Begin(t.Context(), "unknown-id", "1234", home); !same(err, ErrBusy) {
		t.Errorf("first call: %v", err)
	}
	if _, err := p.prove(); !same(err, ErrBusy) {
		t.Errorf("second call: %v", err)
	}
	if calls := w.store.take(); slices.Contains(calls, "Take") || slices.Contains(calls, "PutHandshake") {
		t.Errorf("the store was asked: %v", calls)
	}
	// The form of a request is judged first, so that a bad one is told so.
	var invalid *InvalidError
	if _, err := w.Prove(t.Context(), r.Identifier, form.ClientEvidence(strings.Repeat("x", 64)), home); !errors.As(err, &invalid) {
		t.Errorf("got %v", err)
	}
	close(release)
	for range 17 {
		if err := <-results; !same(err, ErrRefused) {
			t.Error(err)
		}
	}
	w.store.set(func() { delete(w.store.before, "Take") })
	if _, err := p.prove(); err != nil {
		t.Errorf("the handshake of a busy proof was used up: %v", err)
	}
}

// A failed call gives its place back.
func TestBusyEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.MaxExchanges = 1 })
	for _, method := range []string{"Load", "Take", "PutHandshake", "Settle"} {
		w.store.fail[method] = errors.New("connection refused")
		for range 40 {
			_, err := w.Begin(t.Context(), "unknown-id", "1234", home)
			if err == nil {
				_, err = w.Prove(t.Context(), "unknown-id", form.ClientEvidence(strings.Repeat("0", 64)), home)
			}
			if !errors.Is(err, ErrUnavailable) {
				t.Fatalf("%s: %v", method, err)
			}
		}
		delete(w.store.fail, method)
	}
}
