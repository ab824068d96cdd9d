// Package breaker keeps calls away from a server that does not work. It is a
// circuit breaker: closed, it lets every call through; after so many failures in
// a row it opens and refuses calls at once; then it lets one call through now and
// again, to find out whether the server works again (half-open).
package breaker

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Settings say when a Breaker opens and how often it then lets a call through.
type Settings struct {
	// Failures in a row open the breaker, at least 1.
	Failures int
	// Cooldown is the time between the opening and the first call that is let
	// through, and between two such calls.
	Cooldown time.Duration
}

// Outcome is what a call tells about the server.
type Outcome uint8

// The outcomes.
const (
	// Inconclusive is a call that tells nothing: it was not made, or given up.
	Inconclusive Outcome = iota
	// Worked is a call that the server answered, whatever the answer.
	Worked
	// Failed is a call that the server did not answer as it should.
	Failed
	// Reached is a call that found the server and shows no more. If the breaker is
	// open, it awaits a call that shows whether the server works.
	Reached
)

// Change is what the outcome of a call changed.
type Change uint8

// The changes.
const (
	Unchanged Change = iota
	Opened
	Closed
)

// OpenError refuses a call.
type OpenError struct {
	// RetryAfter is the time until a call is let through.
	RetryAfter time.Duration
}

// Error tells the time in full milliseconds.
func (e *OpenError) Error() string {
	return fmt.Sprintf("circuit breaker is open for %s", e.RetryAfter.Round(time.Millisecond))
}

// IsOpen reports whether err says that a breaker refused a call.
func IsOpen(err error) bool {
	_, open := errors.AsType[*OpenError](err)
	return open
}

// Breaker is the breaker of one server. Its zero value is closed. Settings come
// with every call, so that they can change while it lives. Its methods can be
// called from several goroutines.
type Breaker struct {
	mu       sync.Mutex
	failures int // in a row, while closed
	open     bool
	retryAt  time.Time // while open
	awaiting bool      // while open: the next call is to decide
	// period counts the openings, closings and trials. Calls that began before
	// the last opening or closing met what was before: they do not count.
	period uint64
	opened uint64 // the period of the last opening
}

// Call is a call that was let through. Each has one End.
type Call struct {
	period uint64
	trial  bool
}

// Trial reports whether the call is the one that finds out whether the server
// works again.
func (c Call) Trial() bool { return c.trial }

// Begin lets a call through or refuses it with an *OpenError.
func (b *Breaker) Begin(s Settings) (Call, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return Call{period: b.period}, nil
	}
	now := time.Now()
	if left := b.retryAt.Sub(now); left > 0 {
		return Call{}, &OpenError{RetryAfter: left}
	}
	// A trial that takes long does not keep others from trying.
	b.retryAt = now.Add(s.Cooldown)
	b.period++
	return Call{period: b.period, trial: true}, nil
}

// End takes the outcome of a call.
func (b *Breaker) End(c Call, o Outcome, s Settings) Change {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open && o == Worked && c.period > b.opened {
		// Also of a trial that took so long that another one began: a server that
		// answers slowly works.
		b.open, b.failures = false, 0
		b.period++
		return Closed
	}
	if c.period != b.period {
		return Unchanged
	}
	switch {
	case b.open && o == Failed:
		b.retryAt, b.awaiting = time.Now().Add(s.Cooldown), false
	case b.open:
		b.retryAt = time.Time{}
		b.awaiting = b.awaiting || o == Reached
	case o == Worked:
		b.failures = 0
	case o == Failed:
		if b.failures++; b.failures >= s.Failures {
			b.trip(s)
			return Opened
		}
	}
	return Unchanged
}

// Trip opens the breaker without counting failures, for what is known from
// elsewhere. An open one stays as it is, but awaits no call any more.
func (b *Breaker) Trip(s Settings) Change {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open {
		if b.awaiting {
			b.awaiting, b.retryAt = false, time.Now().Add(s.Cooldown)
		}
		return Unchanged
	}
	b.trip(s)
	return Opened
}

// trip opens the breaker. The caller holds mu.
func (b *Breaker) trip(s Settings) {
	b.open, b.failures, b.awaiting = true, 0, false
	b.retryAt = time.Now().Add(s.Cooldown)
	b.period++
	b.opened = b.period
}

// RetryAfter is the time until the breaker lets the next call through, 0 if it
// does so now.
func (b *Breaker) RetryAfter() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return 0
	}
	return max(time.Until(b.retryAt), 0)
}

// AwaitsCall reports whether the breaker is open and awaits a call that shows whether the
// server, which was found again, works. Until then one call at a time is let through.
func (b *Breaker) AwaitsCall() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open && b.awaiting
}

var _ error = (*OpenError)(nil)
