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

// attempt is what was observed while an instance was to carry out a command.
type attempt struct {
	// admitted says that the breaker and the limiter let the command through.
	admitted bool
	// sent says that bytes of the command may have been sent.
	sent bool
	// answerRead says that the answer was read to its end.
	answerRead bool
	answer     *soap.Answer
	// err says why there is no answer, or why its values cannot be used.
	err error
	// callerGone says that the caller's context had ended.
	callerGone bool
	// ctxErr is why the attempt's own context ended; nil if it had not ended.
	ctxErr error
	// connecting says that the attempt was waiting for a connection when it ended.
	connecting bool
	// mostlyQueued says that the command spent most of its time in the queue.
	mostlyQueued bool
	// othersAnswered says that the instance answered another command in the meantime.
	othersAnswered bool
}

// attemptResult is what follows from an attempt.
type attemptResult struct {
	// outcome is what the attempt tells the breaker.
	outcome breaker.Outcome
	// reason and cause are those of a *CallError. They are nil if there is an answer that
	// can be used.
	reason, cause error
	answer        *soap.Answer
	// unknown says that the command may have been carried out: it was sent, and the
	// server did not say what became of it.
	unknown bool
	// mayAskNext says that another instance may get the command. After an unknown outcome
	// this holds only once.
	mayAskNext bool
	// notHere says that the instance answered that it does not have what the command is
	// about.
	notHere bool
}

// result decides what follows from an attempt to carry out a command. After a status in
// askNextOn, the next instance is asked.
func (a *attempt) result(c *soap.Row, askNextOn []string) attemptResult {
	fault, isFault := errors.AsType[*soap.Fault](a.err)
	switch {
	case !a.sent:
		r := attemptResult{reason: ErrNotSent, cause: a.err, mayAskNext: true}
		// A timeout is a failure of the instance only if the command was waiting for a
		// connection and had most of its time for that, rather than for the queue.
		if a.admitted && !a.callerGone && (a.ctxErr == nil || a.connecting && !a.mostlyQueued) {
			r.outcome = breaker.Failed
		}
		return r
	// An answer that cannot be parsed after the context ended is treated as lost: it may
	// have been cut off. A server that sees its connection being closed ends its answer,
	// and that end can still arrive.
	case !a.answerRead, a.answer == nil && !isFault && a.ctxErr != nil:
		r := attemptResult{unknown: true, mayAskNext: c.Retry == soap.RetryOnce, outcome: breaker.Failed}
		r.reason, r.cause = lostAnswer(a.ctxErr, a.err)
		// A server that answers other commands works: it is waiting for the user.
		if a.callerGone || errors.Is(r.reason, ErrTimeout) && (a.mostlyQueued || c.MayAwaitUser && a.othersAnswered) {
			r.outcome = breaker.Inconclusive
		}
		return r
	case isFault && fault.Sender:
		return attemptResult{reason: ErrBadAnswer, cause: a.err, outcome: breaker.Worked}
	case isFault:
		return attemptResult{reason: ErrBadAnswer, cause: a.err, mayAskNext: c.Retry != soap.RetryNotSent, outcome: breaker.Failed}
	case a.answer == nil:
		return attemptResult{reason: ErrBadAnswer, cause: a.err, unknown: true, mayAskNext: c.Retry == soap.RetryOnce, outcome: breaker.Failed}
	case a.err != nil:
		return attemptResult{
			reason: ErrBadAnswer, cause: a.err, answer: a.answer,
			unknown: true, mayAskNext: c.Retry == soap.RetryOnce, outcome: breaker.Worked,
		}
	case a.answer.Codes.BackendFault():
		return attemptResult{answer: a.answer, mayAskNext: c.Retry != soap.RetryNotSent, outcome: breaker.Failed}
	}
	return attemptResult{
		answer: a.answer, outcome: breaker.Worked,
		notHere: !a.answer.Codes.Success() && slices.Contains(askNextOn, a.answer.Codes.StatusCodeEnum),
	}
}

// lostAnswer returns why no complete answer arrived. The errors with which a transport
// reports a malformed answer quote it, so they are replaced.
func lostAnswer(ctxErr, err error) (reason, cause error) {
	switch {
	case errors.Is(ctxErr, context.DeadlineExceeded):
		return ErrTimeout, ctxErr
	case ctxErr != nil:
		return ErrNoAnswer, ctxErr
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

// err returns the *CallError or *Refusal of a failed attempt, or nil after a success.
func (r *attemptResult) err(instance string, c *soap.Row) error {
	switch {
	case r.reason != nil:
		return &CallError{Instance: instance, Operation: c.String(), Reason: r.reason, Cause: r.cause}
	case !r.answer.Codes.Success():
		return &Refusal{Instance: instance, Codes: r.answer.Codes, Stack: r.answer.Stack}
	}
	return nil
}
