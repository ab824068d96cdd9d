package authserver

import (
	"sync/atomic"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// State is what the gateway knows of one authentication server: the commands in progress,
// whether it can be reached, and its circuit breaker. It belongs to the server and not to a
// configuration: when a new configuration replaces an old one, the Servers of both use the
// same State. Together they keep to the limits, and the new ones do not call a server that
// the old ones found broken. The zero value is the State of an idle server that works.
type State struct {
	limiter      limiter
	reachability reachability
	breaker      breaker.Breaker
	answers      atomic.Uint64 // how many commands the server answered
	drained      atomic.Bool
}

// Drain drains the server, or ends that. While it is drained it gets no registration and no
// one-time password. A retrieval asks it after all others. It still gets every command about
// what it holds, so that this can be completed.
func (s *State) Drain(drained bool) { s.drained.Store(drained) }

// Status is what the gateway knows of one instance.
type Status struct {
	Name string
	// URL has the scheme and the host of the server only.
	URL string
	// Breaker is the state of the circuit breaker, and BreakerSince the time when it last
	// opened or closed, which is zero if it has never opened.
	Breaker      breaker.State
	BreakerSince time.Time
	// InUse is the number of commands in progress, Queued the number of those that wait
	// for a connection.
	InUse, Queued int
	// Drained says that the server is drained. See State.Drain.
	Drained bool
	// LastReached is when a command or a probe last reached the server, LastLost when one
	// last got no connection. Each is zero if that has not happened.
	LastReached, LastLost time.Time
	// Working says that the instance can be expected to carry out a command. It is false
	// while the breaker is open. With probes it is also false while the breaker is
	// half-open and no probe has reached the server since it was lost, because the next
	// trial is not expected to succeed. Without probes only a command can be the trial.
	Working bool
}

// Instances returns the status of every instance, in the order of the configuration.
func (s *Servers) Instances() []Status {
	all := make([]Status, len(s.instances))
	for i, in := range s.instances {
		all[i] = in.status()
	}
	return all
}

// Drain is State.Drain of the instance with that name. It reports whether there is one.
func (s *Servers) Drain(name string, drained bool) bool {
	in := s.instance(name)
	if in != nil {
		in.state.Drain(drained)
	}
	return in != nil
}

func (in *instance) status() Status {
	s := Status{
		Name:        in.name,
		URL:         in.origin,
		Drained:     in.state.drained.Load(),
		LastReached: timeOf(in.state.reachability.reachedAt.Load()),
		LastLost:    timeOf(in.state.reachability.lostAt.Load()),
	}
	s.InUse, s.Queued = in.state.limiter.counts()
	s.Breaker, s.BreakerSince = in.state.breaker.State()
	s.Working = s.Breaker == breaker.StateClosed ||
		s.Breaker == breaker.StateHalfOpen && (in.probe == nil || !in.state.reachability.lost())
	return s
}

// timeOf returns the time for nanoseconds since 1970, and the zero Time for 0.
func timeOf(nanoseconds int64) time.Time {
	if nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanoseconds)
}
