package authserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// sighting is what an attempt to carry out a command on an instance saw.
type sighting struct {
	// asked says that breaker and queue let the command through.
	asked bool
	// sent says that bytes of the command may have left.
	sent bool
	// reached says that an answer was read to its end.
	reached bool
	answer  *soap.Answer
	// err is why there is no answer, or why its values cannot be used.
	err error
	// gone says that the caller left.
	gone bool
	// ended is what ended the attempt; nil if it ended by itself.
	ended error
	// connecting says that it had no connection then.
	connecting bool
	// hasty says that most of its time had gone by in the queue.
	hasty bool
	// answering says that the instance answered another command meanwhile.
	answering bool
}

// verdict is what a sighting means.
type verdict struct {
	// outcome is for the breaker.
	outcome breaker.Outcome
	// reason and cause are those of a *CallError; nil with an answer that can be used.
	reason, cause error
	answer        *soap.Answer
	// unknown says that the command may have been carried out: it was sent, and the
	// server did not say what became of it.
	unknown bool
	// next says that another instance may be asked, after an unknown outcome once.
	next bool
	// elsewhere says that the instance merely does not have what is looked for.
	elsewhere bool
}

// judge says what a sighting means for a command that is looked for elsewhere after
// these statuses.
func judge(c *soap.Row, elsewhere []string, s *sighting) verdict {
	fault, faulted := errors.AsType[*soap.Fault](s.err)
	switch {
	case !s.sent:
		v := verdict{reason: ErrNotSent, cause: s.err, next: true}
		// Time that ran out only says something about the connection if it was
		// what the command waited for: it may have been spent in the queue.
		if s.asked && !s.gone && (s.ended == nil || s.connecting && !s.hasty) {
			v.outcome = breaker.Failed
		}
		return v
	// An answer that cannot be read may also be a cut one: the server ends it when it
	// sees the connection closing, and that can arrive before it is closed.
	case !s.reached, s.answer == nil && !faulted && s.ended != nil:
		v := verdict{unknown: true, next: c.Retry == soap.RetryOnce, outcome: breaker.Failed}
		v.reason, v.cause = lost(s.ended, s.err)
		// A server that answers other commands works: it waits for the person.
		if s.gone || errors.Is(v.reason, ErrTimeout) && (s.hasty || c.Waits && s.answering) {
			v.outcome = breaker.Inconclusive
		}
		return v
	case faulted && fault.Sender:
		return verdict{reason: ErrBadAnswer, cause: s.err, outcome: breaker.Worked}
	case faulted:
		return verdict{reason: ErrBadAnswer, cause: s.err, next: c.Retry != soap.RetryNotSent, outcome: breaker.Failed}
	case s.answer == nil:
		return verdict{reason: ErrBadAnswer, cause: s.err, unknown: true, next: c.Retry == soap.RetryOnce, outcome: breaker.Failed}
	case s.err != nil:
		return verdict{
			reason: ErrBadAnswer, cause: s.err, answer: s.answer,
			unknown: true, next: c.Retry == soap.RetryOnce, outcome: breaker.Worked,
		}
	case s.answer.Codes.BackendFault():
		return verdict{answer: s.answer, next: c.Retry != soap.RetryNotSent, outcome: breaker.Failed}
	}
	return verdict{
		answer: s.answer, outcome: breaker.Worked,
		elsewhere: !s.answer.Codes.Success() && slices.Contains(elsewhere, s.answer.Codes.StatusCodeEnum),
	}
}

// lost says why an answer did not arrive. What a transport reports about a
// malformed answer quotes it; such an error is replaced.
func lost(ended, err error) (reason, cause error) {
	switch {
	case errors.Is(ended, context.DeadlineExceeded):
		return ErrTimeout, ended
	case ended != nil:
		return ErrNoAnswer, ended
	}
	if timeout, ok := errors.AsType[net.Error](err); ok {
		if timeout.Timeout() {
			return ErrTimeout, err
		}
		return ErrNoAnswer, err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrNoAnswer, io.ErrUnexpectedEOF
	}
	return ErrNoAnswer, fmt.Errorf("connection or HTTP failure (%T)", err)
}

// failure is the error of a command that an instance got; nil if it succeeded.
func (v *verdict) failure(instance string, c *soap.Row) error {
	switch {
	case v.reason != nil:
		return &CallError{Instance: instance, Operation: c.String(), Reason: v.reason, Cause: v.cause}
	case !v.answer.Codes.Success():
		return &Refusal{Instance: instance, Codes: v.answer.Codes, Stack: v.answer.Stack}
	}
	return nil
}
