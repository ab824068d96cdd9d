package breaker

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

var settings = Settings{Failures: 3, Cooldown: 5 * time.Second}

// refuses checks that the breaker refuses a call and when it will admit one.
func refuses(t *testing.T, b *Breaker, after time.Duration) {
	t.Helper()
	_, err := b.Begin(settings)
	open, ok := errors.AsType[*OpenError](err)
	if !ok || open.RetryAfter != after || b.RetryAfter() != after {
		t.Fatalf("%v, retry after %s, want %s", err, b.RetryAfter(), after)
	}
}

// call makes a call that must be admitted and checks whether it is a trial.
func call(t *testing.T, b *Breaker, trial bool, o Outcome, want Change) {
	t.Helper()
	c, err := b.Begin(settings)
	if err != nil || c.Trial() != trial {
		t.Fatalf("trial %v, %v", c.Trial(), err)
	}
	if got := b.End(c, o, settings); got != want {
		t.Fatalf("change %d, want %d", got, want)
	}
}

// Only failures in a row open the breaker. Inconclusive calls do not count.
func TestOpens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		for _, o := range []Outcome{Failed, Failed, Worked, Failed, Inconclusive, Failed, Inconclusive} {
			call(t, &b, false, o, Unchanged)
		}
		call(t, &b, false, Failed, Opened)
		refuses(t, &b, 5*time.Second)
		time.Sleep(3 * time.Second)
		refuses(t, &b, 2*time.Second)
	})
}

// After the cooldown, one call at a time is admitted as the trial.
func TestTrial(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		if b.Trip(settings) != Opened || b.Trip(settings) != Unchanged {
			t.Fatal("tripped twice")
		}
		time.Sleep(5 * time.Second)
		trial, err := b.Begin(settings)
		if err != nil || !trial.Trial() {
			t.Fatal(err)
		}
		refuses(t, &b, 5*time.Second)
		time.Sleep(time.Second)
		b.End(trial, Failed, settings)
		refuses(t, &b, 5*time.Second) // the cooldown starts at the failure

		time.Sleep(5 * time.Second)
		call(t, &b, true, Inconclusive, Unchanged) // the next call is a trial again
		call(t, &b, true, Worked, Closed)
		call(t, &b, false, Failed, Unchanged)
		call(t, &b, false, Failed, Unchanged)
		call(t, &b, false, Failed, Opened)
	})
}

// A trial that takes longer than the cooldown does not prevent the next trial. If it works in
// the end, the breaker closes.
func TestLongTrial(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		b.Trip(settings)
		time.Sleep(5 * time.Second)
		long, err := b.Begin(settings)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		second, err := b.Begin(settings)
		if err != nil || !second.Trial() {
			t.Fatal(err)
		}
		if b.End(long, Failed, settings) != Unchanged || b.RetryAfter() != 5*time.Second {
			t.Error("the failure of an overtaken trial counts")
		}
		time.Sleep(5 * time.Second)
		if _, err := b.Begin(settings); err != nil {
			t.Fatal(err)
		}
		if b.End(second, Worked, settings) != Closed {
			t.Error("still open")
		}
	})
}

// The outcomes of calls that began before the breaker opened or closed do not count.
func TestLateCalls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		early, _ := b.Begin(settings)
		b.Trip(settings)
		if b.End(early, Worked, settings) != Unchanged || b.RetryAfter() == 0 {
			t.Error("an earlier call closes the breaker")
		}
		time.Sleep(5 * time.Second)
		call(t, &b, true, Worked, Closed)
		for range settings.Failures {
			if b.End(early, Failed, settings) != Unchanged {
				t.Error("an earlier call opens the breaker again")
			}
		}
	})
}

// Changed settings apply from the next call on.
func TestChangedSettings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		call(t, &b, false, Failed, Unchanged)
		c, err := b.Begin(settings)
		if err != nil {
			t.Fatal(err)
		}
		if b.End(c, Failed, Settings{Failures: 2, Cooldown: time.Minute}) != Opened || b.RetryAfter() != time.Minute {
			t.Errorf("retry after %s", b.RetryAfter())
		}
	})
}

// Of any number of concurrent calls, one is the trial.
func TestOneTrial(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		b.Trip(settings)
		time.Sleep(5 * time.Second)
		var trials atomic.Int64
		var group sync.WaitGroup
		for range 64 {
			group.Go(func() {
				if _, err := b.Begin(settings); err == nil {
					trials.Add(1)
				}
			})
		}
		group.Wait()
		if trials.Load() != 1 {
			t.Errorf("%d trials", trials.Load())
		}
	})
}

// The breaker agrees with a model for random calls: a closed breaker admits every call; an
// open one admits at most one per cooldown, unless the call was inconclusive; only a trial
// that works closes it.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{
				wait:    time.Duration(rapid.IntRange(0, 7).Draw(t, "seconds")) * time.Second,
				begins:  rapid.Bool().Draw(t, "begins"),
				which:   rapid.IntRange(0, 3).Draw(t, "call"),
				outcome: rapid.SampledFrom([]Outcome{Inconclusive, Worked, Failed}).Draw(t, "outcome"),
			}
		}), 1, 60).Draw(rt, "steps")
		var wrong string
		synctest.Test(t, func(*testing.T) { wrong = runModel(steps) })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

type step struct {
	wait    time.Duration
	begins  bool
	which   int
	outcome Outcome
}

func runModel(steps []step) string {
	type begun struct {
		Call
		opening int // openings before the call
		closing int // closings before the call
	}
	var b Breaker
	var running []begun
	open, failures, openings, closings := false, 0, 0, 0
	var trial *Call // the latest trial, while it is running
	var retryAt time.Time
	for _, s := range steps {
		time.Sleep(s.wait)
		if s.begins || len(running) == 0 {
			c, err := b.Begin(settings)
			admitted := !open || !time.Now().Before(retryAt)
			if (err == nil) != admitted || c.Trial() != (open && admitted) {
				return "admitted or refused against the rule"
			}
			if err == nil {
				running = append(running, begun{c, openings, closings})
			}
			if c.Trial() {
				trial, retryAt = &c, time.Now().Add(settings.Cooldown)
			}
			continue
		}
		i := s.which % len(running)
		c := running[i]
		running = slices.Delete(running, i, i+1)
		want := Unchanged
		switch {
		case open && c.Trial() && c.opening == openings && c.closing == closings && s.outcome == Worked:
			open, failures, want, trial = false, 0, Closed, nil
			closings++
		case open && trial != nil && c.Call == *trial:
			trial = nil
			switch s.outcome {
			case Worked:
			case Failed:
				retryAt = time.Now().Add(settings.Cooldown)
			case Inconclusive:
				retryAt = time.Now()
			}
		case !open && c.opening == openings && c.closing == closings:
			switch s.outcome {
			case Worked:
				failures = 0
			case Failed:
				if failures++; failures == settings.Failures {
					open, failures, want = true, 0, Opened
					openings++
					retryAt = time.Now().Add(settings.Cooldown)
				}
			case Inconclusive:
			}
		}
		if b.End(c.Call, s.outcome, settings) != want {
			return "changed against the rule"
		}
	}
	return ""
}

func BenchmarkCall(b *testing.B) {
	var breaker Breaker
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			c, err := breaker.Begin(settings)
			if err != nil {
				b.Fatal(err)
			}
			breaker.End(c, Worked, settings)
		}
	})
}

// After the outcome Reached, the next call decides, however late it comes. Trip starts a new
// cooldown then.
func TestAwaitsCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		s := Settings{Failures: 1, Cooldown: time.Second}
		begin := func() Call {
			t.Helper()
			c, err := b.Begin(s)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		if b.AwaitsCall() {
			t.Error("a closed breaker awaits a call")
		}
		b.End(begin(), Failed, s)
		time.Sleep(s.Cooldown)
		b.End(begin(), Reached, s)
		time.Sleep(time.Hour)
		if !b.AwaitsCall() || b.RetryAfter() != 0 {
			t.Error("the next call does not decide")
		}
		if change := b.Trip(s); change != Unchanged || b.AwaitsCall() || b.RetryAfter() != s.Cooldown {
			t.Errorf("after the loss: %v, %v", change, b.RetryAfter())
		}
		time.Sleep(s.Cooldown)
		b.End(begin(), Reached, s)
		// One call at a time, until one decides.
		first := begin()
		if _, err := b.Begin(s); !IsOpen(err) {
			t.Errorf("a second call at the same time: %v", err)
		}
		b.End(first, Inconclusive, s)
		if !b.AwaitsCall() {
			t.Error("a call that tells nothing decided")
		}
		if change := b.End(begin(), Worked, s); change != Closed || b.AwaitsCall() {
			t.Errorf("after a call that worked: %v", change)
		}
	})
}
