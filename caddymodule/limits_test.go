package caddymodule

import "testing"

func (c *counters) admits(limit int) bool {
	for range limit {
		if ok, _ := c.registrations.Allow("a"); !ok {
			return false
		}
	}
	ok, _ := c.registrations.Allow("a")
	return !ok
}

// The limits are those of the newest configuration that runs: a reload changes
// them, and one that fails half-way brings the old ones back.
func TestLimitsFollowTheConfiguration(t *testing.T) {
	t.Parallel()
	before, after := &rates{registrations: 2}, &rates{registrations: 5}

	reloaded := newCounters(before)
	reloaded.start(before)
	reloaded.start(after)
	reloaded.stop(before)
	if !reloaded.admits(5) {
		t.Error("limits of the replaced configuration")
	}

	rolledBack := newCounters(before)
	rolledBack.start(before)
	rolledBack.start(after)
	rolledBack.stop(after)
	rolledBack.stop(after)
	if !rolledBack.admits(2) {
		t.Error("limits of the configuration that failed")
	}
}
