package caddymodule

import (
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

// admitExactly reports whether every limiter admits exactly as many calls as v says, for a
// source that nothing was counted for.
func (l *limiters) admitExactly(name string, v limitValues) bool {
	source := ratelimit.ApplicationSource(name)
	for limiter, limit := range map[*ratelimit.Limiter]int{
		l.failedKeys: v.failedKeys, l.exchanges: v.exchanges, l.proofs: v.exchanges, l.registrations: v.registrations, l.calls: v.calls,
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

// The limits of the latest running configuration apply: a reload changes them, and a
// configuration that fails to start restores the previous ones.
func TestLimitsFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	before := &limitValues{failedKeys: 1, exchanges: 2, registrations: 3, calls: 4}
	after := &limitValues{failedKeys: 5, exchanges: 6, registrations: 7, calls: 8}

	reloaded := newLimiters(before)
	reloaded.configStarted(before)
	reloaded.configStarted(after)
	reloaded.configStopped(before)
	if !reloaded.admitExactly("a", *after) {
		t.Error("limits of the replaced configuration")
	}

	rolledBack := newLimiters(before)
	rolledBack.configStarted(before)
	rolledBack.configStarted(after)
	rolledBack.configStopped(after)
	rolledBack.configStopped(after)
	if !rolledBack.admitExactly("a", *before) {
		t.Error("limits of the configuration that failed")
	}

	// Calls that were counted stay counted.
	rolledBack.configStarted(after)
	if rolledBack.admitExactly("a", *after) || !rolledBack.admitExactly("b", *after) {
		t.Error("a new configuration forgets what was counted")
	}
}

// Options that are not set have the documented defaults, and 0 means no limit.
func TestDefaultsOfLimits(t *testing.T) {
	t.Parallel()
	v, err := new(Limits).values()
	if want := (limitValues{30, 60, 600, 600, 64, 8}); err != nil || *v != want {
		t.Fatalf("limits are %+v, %v, want %+v", v, err, want)
	}
	none := 0
	v, err = (&Limits{
		FailedKeysPerMinute: &none, ExchangesPerMinute: &none, RegistrationsPerMinute: &none, CallsPerMinute: &none,
		RequestsInFlight: &none, CallsInFlight: &none,
	}).values()
	if err != nil || *v != (limitValues{}) {
		t.Fatalf("limits are %+v, %v, want none", v, err)
	}
	l := newLimiters(v)
	for _, limiter := range []*ratelimit.Limiter{l.failedKeys, l.exchanges, l.proofs, l.registrations, l.calls} {
		for range 10_000 {
			if ok, _ := limiter.Allow(ratelimit.ApplicationSource("a")); !ok {
				t.Fatal("something is limited")
			}
		}
	}
}
