package caddymodule

import (
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

// admits reports whether every limiter admits as much as r says, for a source that
// nothing was counted for.
func (c *counters) admits(name string, r counts) bool {
	source := ratelimit.ApplicationSource(name)
	for limiter, limit := range map[*ratelimit.Limiter]int{
		c.failedKeys: r.failedKeys, c.exchanges: r.exchanges, c.proofs: r.exchanges, c.registrations: r.registrations, c.calls: r.calls,
	} {
		for range limit {
			if ok, _ := limiter.Allow(source); !ok {
				return false
			}
		}
		if ok, _ := limiter.Allow(source); ok {
			return false
		}
	}
	return true
}

// The limits are those of the newest configuration that runs: a reload changes
// them, and one that fails half-way brings the old ones back.
func TestLimitsFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	before := &counts{failedKeys: 1, exchanges: 2, registrations: 3, calls: 4}
	after := &counts{failedKeys: 5, exchanges: 6, registrations: 7, calls: 8}

	reloaded := newCounters(before)
	reloaded.start(before)
	reloaded.start(after)
	reloaded.stop(before)
	if !reloaded.admits("a", *after) {
		t.Error("limits of the replaced configuration")
	}

	rolledBack := newCounters(before)
	rolledBack.start(before)
	rolledBack.start(after)
	rolledBack.stop(after)
	rolledBack.stop(after)
	if !rolledBack.admits("a", *before) {
		t.Error("limits of the configuration that failed")
	}

	// What was counted stays counted.
	rolledBack.start(after)
	if rolledBack.admits("a", *after) || !rolledBack.admits("b", *after) {
		t.Error("a new configuration starts counting anew")
	}
}

// What an empty configuration means, and that 0 is no limit.
func TestDefaultsOfLimits(t *testing.T) {
	t.Parallel()
	r, err := new(Limits).counts()
	if want := (counts{30, 60, 600, 600, 64, 8}); err != nil || *r != want {
		t.Fatalf("limits are %+v, %v, want %+v", r, err, want)
	}
	none := 0
	r, err = (&Limits{
		FailedKeysPerMinute: &none, ExchangesPerMinute: &none, RegistrationsPerMinute: &none, CallsPerMinute: &none,
		RequestsInFlight: &none, CallsInFlight: &none,
	}).counts()
	if err != nil || *r != (counts{}) {
		t.Fatalf("limits are %+v, %v, want none", r, err)
	}
	c := newCounters(r)
	for _, l := range []*ratelimit.Limiter{c.failedKeys, c.exchanges, c.proofs, c.registrations, c.calls} {
		for range 10_000 {
			if ok, _ := l.Allow(ratelimit.ApplicationSource("a")); !ok {
				t.Fatal("something is limited")
			}
		}
	}
}
