// Package clock has a clock that tests set.
package clock

import (
	"sync"
	"time"
)

// Clock stands still until it is advanced. It may be used by several goroutines.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// New returns a clock that shows a whole second of the year 2023, in UTC.
func New() *Clock { return &Clock{now: time.Unix(1_700_000_000, 0).UTC()} }

// Now returns what the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock forward.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
