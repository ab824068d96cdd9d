package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// state is what the store keeps of a registration, and whether the authentication server has
// completed the activation.
type state struct {
	exists, done                                  bool
	attempts, activations, devices, confirmations int
}

// decision is the content of an answer.
type decision string

const (
	granted    decision = "granted"
	turnedDown decision = "refused"
	gone       decision = "not found by the authentication server"
)

// operation returns the states that a call passes through in the store, from the one before the
// call to the one after it, and the answer.
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

// staleProof is a proof for the handshake of a process that has ended.
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

// counters are the uses that are left of a registration, as the methods of a store tell them.
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

// tracked is an acknowledged registration. Only one goroutine at a time uses it.
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

// usable reports whether a right proof can still be granted.
func (r *tracked) usable() bool {
	return slices.ContainsFunc(r.states, func(s state) bool {
		_, answer := rightProof(s)
		return answer == granted
	})
}

// entitled reports whether a device can still be added.
func (r *tracked) entitled() bool {
	return slices.ContainsFunc(r.states, func(s state) bool { return s.devices > 0 })
}

// expired reports whether the registration ends too soon to judge answers.
func (r *tracked) expired() bool { return time.Until(r.expires) < time.Minute }

// settle keeps the states in which the outcome of an operation is possible. It returns false if
// there are none.
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
