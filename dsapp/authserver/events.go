package authserver

import (
	"errors"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// AttemptOutcome is what came of an attempt. It is one of a fixed set, so that it can be a
// metric label.
type AttemptOutcome string

// The outcomes.
const (
	// AttemptSuccess is a command that the instance carried out.
	AttemptSuccess AttemptOutcome = "success"
	// AttemptRefused is a command that the instance refused.
	AttemptRefused AttemptOutcome = "refused"
	// AttemptNotHere is a search for a pending request that the instance does not have.
	AttemptNotHere AttemptOutcome = "not_here"
	// AttemptOutOfOrder is an answer that says that the instance itself is out of order.
	AttemptOutOfOrder AttemptOutcome = "out_of_order"
	// AttemptFault is a SOAP Fault.
	AttemptFault AttemptOutcome = "fault"
	// AttemptBadAnswer is an answer that cannot be used.
	AttemptBadAnswer AttemptOutcome = "bad_answer"
	// AttemptTimeout is a command that was sent and got no complete answer in time.
	AttemptTimeout AttemptOutcome = "timeout"
	// AttemptNoAnswer is a command that was sent and then lost its connection or its caller.
	AttemptNoAnswer AttemptOutcome = "no_answer"
	// AttemptNotSent is a command of which no byte was sent: there was no connection, or the
	// caller left, or the time ran out before.
	AttemptNotSent AttemptOutcome = "not_sent"
	// AttemptBreakerOpen is a command that the circuit breaker kept away from the instance.
	AttemptBreakerOpen AttemptOutcome = "breaker_open"
	// AttemptQueueFull is a command that found its queue full.
	AttemptQueueFull AttemptOutcome = "queue_full"
)

// Attempt is one attempt to carry out a command on one instance.
type Attempt struct {
	// Instance is the name of the instance.
	Instance string
	// Command is the name of the command.
	Command string
	Outcome AttemptOutcome
	Start   time.Time
	// Duration includes the time in the queue.
	Duration time.Duration
}

// BreakerChange is the opening or closing of the circuit breaker of an instance.
type BreakerChange struct {
	// Instance is the name of the instance.
	Instance string
	// Opened says that the breaker opened; otherwise it closed.
	Opened bool
}

// attemptOutcome returns the outcome of an attempt.
func (r *attemptResult) attemptOutcome() AttemptOutcome {
	switch {
	case r.reason == nil && r.answer.Codes.Success():
		return AttemptSuccess
	case r.reason == nil && r.notHere:
		return AttemptNotHere
	case r.reason == nil && r.answer.Codes.BackendFault():
		return AttemptOutOfOrder
	case r.reason == nil:
		return AttemptRefused
	case errors.Is(r.reason, ErrTimeout):
		return AttemptTimeout
	case errors.Is(r.reason, ErrNoAnswer):
		return AttemptNoAnswer
	case breaker.IsOpen(r.cause):
		return AttemptBreakerOpen
	case errors.Is(r.cause, errQueueFull):
		return AttemptQueueFull
	case errors.Is(r.reason, ErrNotSent):
		return AttemptNotSent
	}
	if _, ok := errors.AsType[*soap.Fault](r.cause); ok {
		return AttemptFault
	}
	return AttemptBadAnswer
}
