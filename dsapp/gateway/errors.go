package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// ResultCodes are the codes of an answer as a client gets them.
type ResultCodes = soap.ResultCodes

// The codes of the answers that the gateway gives itself. Those of an
// authentication server are relayed as they came.
var (
	// refusedCodes is the one answer to everything that is wrong with a proof or
	// with the registration it is for.
	refusedCodes = soap.FailureCodes("STAT_INVCREDENTIALS", 1000)
	existsCodes  = soap.FailureCodes("STAT_EXISTS", -14)
	// notFoundCodes are those with which an authentication server answers
	// everyone but the first who retrieves a request.
	notFoundCodes = soap.FailureCodes("STAT_NOT_FOUND", -13)
)

// Refusal is the well-formed "no" of the gateway or of an authentication
// server. Which of the two said it cannot be told from the codes.
type Refusal struct {
	Codes ResultCodes
	// Concealed is the status that an authentication server gave, if the client is
	// to be told Codes instead.
	Concealed string
}

// Status is the name of the status that is the reason, for logs.
func (e *Refusal) Status() string { return cmp.Or(e.Concealed, e.Codes.StatusCodeEnum) }

// Error names the codes.
func (e *Refusal) Error() string {
	return fmt.Sprintf("refused: %s (%d)", e.Codes.StatusCodeEnum, e.Codes.StatusCode)
}

// InvalidError is a request that breaks a rule on one of its members. Its text
// never holds the member's value.
type InvalidError struct {
	Member Member
	// Problem completes the sentence "<member> ...", such as "must not be empty".
	Problem string
}

// Error is the member and its problem.
func (e *InvalidError) Error() string { return string(e.Member) + " " + e.Problem }

// FailureKind tells what kept an operation from having an outcome.
type FailureKind string

// The kinds of failures.
const (
	// Unavailable means that nothing was done: no instance could be reached, not
	// every instance that may hold a request could be asked for it, or the store
	// is needed and down.
	Unavailable FailureKind = "unavailable"
	// BadAnswer means that an instance was called and gave no usable answer, or
	// that the connection to it was lost. What it did is unknown.
	BadAnswer FailureKind = "bad_answer"
	// Timeout means that an instance was called and did not answer in time. What
	// it did is unknown.
	Timeout FailureKind = "timeout"
	// Busy means that too much is being done already.
	Busy FailureKind = "busy"
	// Internal is everything else. Repeating the request is no remedy.
	Internal FailureKind = "internal"
)

// Failure is an operation without an outcome.
type Failure struct {
	Kind FailureKind
	// RetryAfter is how long a client should wait before it asks again; 0 if
	// asking again is not advised.
	RetryAfter time.Duration
	// Err is the cause, for the log. It holds no value of the request.
	Err error
}

// Error is the kind and the cause.
func (e *Failure) Error() string { return string(e.Kind) + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Failure) Unwrap() error { return e.Err }

const (
	// retryUnavailable is in the order of the time after which an instance that
	// failed is tried again.
	retryUnavailable = 5 * time.Second
	// retryBusy is longer than one exchange computes.
	retryBusy = time.Second
)

// retryAfter is how long to wait after err: until the circuit breaker that refused
// lets a call through, if that is known.
func retryAfter(err error) time.Duration {
	if open, ok := errors.AsType[*breaker.OpenError](err); ok {
		return open.RetryAfter
	}
	return retryUnavailable
}

// activationError turns an error of the activation service into one of this package.
func activationError(err error) error {
	if errors.Is(err, activation.ErrRefused) {
		return &Refusal{Codes: refusedCodes}
	}
	if invalid, ok := errors.AsType[*activation.InvalidError](err); ok {
		return &InvalidError{Member: Member(invalid.Member), Problem: invalid.Problem}
	}
	switch {
	case errors.Is(err, activation.ErrBusy):
		return &Failure{Kind: Busy, RetryAfter: retryBusy, Err: err}
	case errors.Is(err, activation.ErrUnavailable):
		return &Failure{Kind: Unavailable, RetryAfter: retryAfter(err), Err: err}
	}
	return &Failure{Kind: Internal, Err: err}
}

// ownershipError turns an error of the ownership service into one of this package.
func ownershipError(err error) error {
	if errors.Is(err, ownership.ErrUnavailable) {
		return &Failure{Kind: Unavailable, RetryAfter: retryAfter(err), Err: err}
	}
	return &Failure{Kind: Internal, Err: err}
}

// serverError turns an error of an authentication server into one of this package.
func serverError(err error) error {
	if refusal, ok := errors.AsType[*authserver.Refusal](err); ok {
		return &Refusal{Codes: refusal.Codes}
	}
	if _, ok := errors.AsType[*soap.FieldError](err); ok {
		// No instance will ever be given this command.
		return &Failure{Kind: Internal, Err: err}
	}
	switch {
	case errors.Is(err, authserver.ErrNotSent), errors.Is(err, authserver.ErrUndecided):
		return &Failure{Kind: Unavailable, RetryAfter: retryAfter(err), Err: err}
	case errors.Is(err, authserver.ErrTimeout):
		return &Failure{Kind: Timeout, Err: err}
	case errors.Is(err, authserver.ErrNoAnswer), errors.Is(err, authserver.ErrBadAnswer):
		return &Failure{Kind: BadAnswer, Err: err}
	}
	return &Failure{Kind: Internal, Err: err}
}

// loginError is serverError for a login. Where unknown users are hidden, refusals are
// all the same: most statuses tell which users exist. That the server is broken tells
// nothing of that kind, and that a pending login is not there a phone has to know.
func (g *Gateway) loginError(err error, pending bool) error {
	refusal, refused := errors.AsType[*authserver.Refusal](err)
	if !g.hideUnknownUsers || !refused || refusal.BackendFault() || pending && refusal.Codes.StatusCodeEnum == notFoundCodes.StatusCodeEnum {
		return serverError(err)
	}
	return &Refusal{Codes: refusedCodes, Concealed: refusal.Codes.StatusCodeEnum}
}

// badAnswer is an answer of an authentication server that cannot be used. The
// text names the instance and never holds a value of the answer.
func badAnswer(format string, arguments ...any) error {
	return &Failure{Kind: BadAnswer, Err: fmt.Errorf(format, arguments...)}
}
