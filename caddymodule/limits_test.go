package caddymodule

import (
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

// admits reports whether every limiter admits as much as r says, for a source that
// nothing was counted for.
func (c *counters) admits(name string, r rates) bool {
	source := ratelimit.Named(name)
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
	before := &rates{failedKeys: 1, exchanges: 2, registrations: 3, calls: 4}
	after := &rates{failedKeys: 5, exchanges: 6, registrations: 7, calls: 8}

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
	body, r, err := new(Limits).check()
	if want := (bodyLimits{64 << 10, 30 * time.Second}); err != nil || body != want {
		t.Errorf("limits of a body are %+v, %v, want %+v", body, err, want)
	}
	if want := (rates{failedKeys: 30, exchanges: 60, registrations: 600, calls: 600}); *r != want {
		t.Errorf("limits per minute are %+v, want %+v", *r, want)
	}
	none := 0
	_, r, err = (&Limits{FailedKeysPerMinute: &none, ExchangesPerMinute: &none, RegistrationsPerMinute: &none, CallsPerMinute: &none}).check()
	if err != nil || *r != (rates{}) {
		t.Errorf("limits per minute are %+v, %v, want none", *r, err)
	}
	c := newCounters(r)
	for _, l := range []*ratelimit.Limiter{c.failedKeys, c.exchanges, c.proofs, c.registrations, c.calls} {
		for range 10_000 {
			if ok, _ := l.Allow(ratelimit.Named("a")); !ok {
				t.Fatal("something is limited")
			}
		}
	}
}
