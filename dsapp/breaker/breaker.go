// Package breaker has a circuit breaker, which prevents calls to a server that does not work.
//
// A closed breaker admits every call. After a number of failures in a row it opens and
// refuses calls. After a cooldown it is half-open: it admits one call, the trial, to find out
// whether the server works again. If the trial fails, the cooldown starts again.
package breaker

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Settings are the settings of a Breaker.
type Settings struct {
	// Failures is the number of failures in a row that open the breaker, at least 1.
	Failures int
	// Cooldown is the time from the opening to the first trial, and between two trials.
	Cooldown time.Duration
}

// Outcome is what the end of a call says about the server.
type Outcome uint8

// The outcomes.
const (
	// Inconclusive is the outcome of a call that says nothing about the server: it was
	// not made, or the caller gave up.
	Inconclusive Outcome = iota
	// Worked is the outcome of a call that the server answered, whatever the answer.
	Worked
	// Failed is the outcome of a call that the server did not answer properly.
	Failed
	// Reached is the outcome of a call that reached the server, but does not show whether
	// the server works. An open breaker admits the next call at once to find that out.
	Reached
)

// Change is the change of the breaker's state that a call caused.
type Change uint8

// The changes.
const (
	Unchanged Change = iota
	Opened
	Closed
)

// State says which calls a breaker admits.
type State string

// The states.
const (
	// StateClosed admits every call.
	StateClosed State = "closed"
	// StateOpen admits no call.
	StateOpen State = "open"
	// StateHalfOpen admits a call, to find out whether the server works again.
	StateHalfOpen State = "half_open"
)

// OpenError is the error of a call that a breaker refused.
type OpenError struct {
	// RetryAfter is the time until the breaker admits a call.
	RetryAfter time.Duration
}

// Error returns a text with RetryAfter, rounded to milliseconds.
func (e *OpenError) Error() string {
	return fmt.Sprintf("circuit breaker is open for %s", e.RetryAfter.Round(time.Millisecond))
}

// IsOpen reports whether err wraps an *OpenError.
func IsOpen(err error) bool {
	_, open := errors.AsType[*OpenError](err)
	return open
}

// Breaker is the circuit breaker of one server. The zero value is closed. The settings are
// arguments of its methods, so that they can change at any time. Its methods can be called
// concurrently.
type Breaker struct {
	mu       sync.Mutex
	failures int // failures in a row, while closed
	open     bool
	retryAt  time.Time // time of the next trial, while open
	awaiting bool      // the result of AwaitsCall, while open
	changed  time.Time // time of the last opening or closing
	// generation counts the openings, closings and trials. The outcome of a call counts
	// only if no other opening, closing or trial came after its beginning.
	generation uint64
	opened     uint64 // generation of the last opening
}

// Call is a call that was admitted. End must be called once for it.
type Call struct {
	generation uint64
	trial      bool
}

// Trial reports whether the call is the trial of an open breaker.
func (c Call) Trial() bool { return c.trial }

// Begin admits a call or refuses it with an *OpenError.
func (b *Breaker) Begin(s Settings) (Call, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return Call{generation: b.generation}, nil
	}
	now := time.Now()
	if left := b.retryAt.Sub(now); left > 0 {
		return Call{}, &OpenError{RetryAfter: left}
	}
	// If the trial takes longer than the cooldown, another one is admitted.
	b.retryAt = now.Add(s.Cooldown)
	b.generation++
	return Call{generation: b.generation, trial: true}, nil
}

// End records the outcome of a call.
func (b *Breaker) End(c Call, o Outcome, s Settings) Change {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open && o == Worked && c.generation > b.opened {
		// This includes a trial that took so long that another one began: a server that
		// answers slowly works.
		b.open, b.failures = false, 0
		b.changed = time.Now()
		b.generation++
		return Closed
	}
	if c.generation != b.generation {
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

// Trip opens the breaker without counting failures. If the breaker is open and AwaitsCall is
// true, a new cooldown begins and AwaitsCall becomes false.
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
	b.changed = time.Now()
	b.retryAt = b.changed.Add(s.Cooldown)
	b.generation++
	b.opened = b.generation
}

// RetryAfter returns the time until the breaker admits a call, or 0 if it admits one now.
func (b *Breaker) RetryAfter() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open {
		return 0
	}
	return max(time.Until(b.retryAt), 0)
}

// State returns the state and when the breaker last opened or closed. The time is zero if it
// has never opened.
func (b *Breaker) State() (s State, changed time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.open:
		s = StateClosed
	case time.Until(b.retryAt) > 0:
		s = StateOpen
	default:
		s = StateHalfOpen
	}
	return s, b.changed
}

// AwaitsCall reports whether the breaker is open and a call with the outcome Reached was the
// last to say something about the server. The breaker then admits one call at a time until
// one works or fails.
func (b *Breaker) AwaitsCall() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open && b.awaiting
}

var _ error = (*OpenError)(nil)
