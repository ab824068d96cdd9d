package activation

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
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
