package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// state is what the store keeps of a registration, and whether the
// authentication server has completed it.
type state struct {
	exists, done                                  bool
	attempts, activations, devices, confirmations int
}

// decision is what an answer says.
type decision string

const (
	granted    decision = "granted"
	turnedDown decision = "refused"
	gone       decision = "not found by the authentication server"
)

// operation tells what a call does to a state: the states that are stored on the
// way, from the one before to the one after it, and what is answered.
type operation func(s state) (way []state, answer decision)

func rightProof(s state) ([]state, decision) {
	if !s.exists || s.attempts >= crashAttempts {
		return []state{s}, turnedDown
	}
	taken := s
	taken.attempts++
	if s.activations >= crashActivations {
		return []state{s, taken}, turnedDown
	}
	proven := s
	proven.activations++
	proven.devices++
	return []state{s, taken, proven}, granted
}

func wrongProof(s state) ([]state, decision) {
	if !s.exists || s.attempts >= crashAttempts {
		return []state{s}, turnedDown
	}
	taken := s
	taken.attempts++
	return []state{s, taken}, turnedDown
}

// staleProof belongs to a handshake that died with its process.
func staleProof(s state) ([]state, decision) { return []state{s}, turnedDown }

func deviceAdded(s state) ([]state, decision) {
	if !s.exists || s.devices == 0 {
		return []state{s}, turnedDown
	}
	used := s
	used.devices--
	if s.done {
		return []state{s, used}, gone
	}
	return []state{s, used}, granted
}

func confirmed(s state) ([]state, decision) {
	if !s.exists || s.activations == 0 || s.confirmations >= crashAttempts {
		return []state{s}, turnedDown
	}
	counted := s
	counted.confirmations++
	if s.done {
		return []state{s, counted}, gone
	}
	completed := counted
	completed.done = true
	return []state{s, counted, completed, {done: true}}, granted
}

// counters is what the store's methods tell of a state.
type counters struct {
	exists                                        bool
	attempts, activations, devices, confirmations int // that are left
}

func (s state) counters() counters {
	if !s.exists {
		return counters{}
	}
	c := counters{exists: true, attempts: crashAttempts - s.attempts, devices: s.devices}
	if c.attempts > 0 {
		c.activations = crashActivations - s.activations
	}
	if s.activations > 0 {
		c.confirmations = crashAttempts - s.confirmations
	}
	return c
}

// tracked is an acknowledged registration. One goroutine at a time uses it.
type tracked struct {
	testbed.Registration
	expires time.Time
	states  []state
	history []string
	broken  bool        // an answer was wrong: nothing is known any more
	waiting *exchanging // whose handshake is kept, unless its process has ended

	device     *sandbox.Device
	deviceCode string
	signature  string // for the device added last
}

// usable tells whether a right proof may still be granted.
func (r *tracked) usable() bool {
	return slices.ContainsFunc(r.states, func(s state) bool {
		_, answer := rightProof(s)
		return answer == granted
	})
}

// entitled tells whether a device may still be added.
func (r *tracked) entitled() bool {
	return slices.ContainsFunc(r.states, func(s state) bool { return s.devices > 0 })
}

// expired tells whether the end of the registration is too near to judge answers.
func (r *tracked) expired() bool { return time.Until(r.expires) < time.Minute }

// settle keeps the states that explain the reply to an operation.
func (r *tracked) settle(name string, do operation, f fate, seen decision) bool {
	if f == unsent {
		return true
	}
	before := r.states
	var after []state
	for _, s := range before {
		way, answer := do(s)
		switch {
		case f == unanswered:
			after = append(after, way...)
		case answer == seen:
			after = append(after, way[len(way)-1])
		}
	}
	line := fmt.Sprintf("%s: %s", name, cmp.Or(string(seen), "no answer"))
	r.history = append(r.history, line)
	r.states = distinct(after)
	return len(after) > 0
}

func distinct(states []state) []state {
	var kept []state
	for _, s := range states {
		if !slices.Contains(kept, s) {
			kept = append(kept, s)
		}
	}
	return kept
}
