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

// ResultCodes are the codes of an answer to a client.
type ResultCodes = soap.ResultCodes

// The codes of the gateway's own answers. Those of an authentication server are relayed
// unchanged.
var (
	// refusedCodes answer every refused proof, whatever is wrong with it or with its
	// registration.
	refusedCodes = soap.FailureCodes("STAT_INVCREDENTIALS", 1000)
	existsCodes  = soap.FailureCodes("STAT_EXISTS", -14)
	// notFoundCodes are the codes with which an authentication server answers everyone
	// but the first to retrieve a request.
	notFoundCodes = soap.FailureCodes("STAT_NOT_FOUND", -13)
)

// Refusal is an operation that the gateway or an authentication server refused. The
// codes do not show which of the two it was.
type Refusal struct {
	Codes ResultCodes
	// Concealed is the status of the authentication server if the client gets Codes
	// instead of it, else empty.
	Concealed string
}

// Status returns the name of the real status, for logs.
func (e *Refusal) Status() string { return cmp.Or(e.Concealed, e.Codes.StatusCodeEnum) }

// Error returns a text with the codes.
func (e *Refusal) Error() string {
	return fmt.Sprintf("refused: %s (%d)", e.Codes.StatusCodeEnum, e.Codes.StatusCode)
}

// InvalidError is a request with an invalid member. Its text never contains the value
// of the member.
type InvalidError struct {
	Member Member
	// Problem completes the sentence "<member> ...", such as "must not be empty".
	Problem string
}

// Error returns the member and its problem.
func (e *InvalidError) Error() string { return string(e.Member) + " " + e.Problem }

// FailureKind says why an operation failed.
type FailureKind string

// The kinds of failures.
const (
	// Unavailable means that nothing was done. No instance could be reached, or not all
	// instances that may hold a request could be asked for it, or the store is needed
	// and cannot be used.
	Unavailable FailureKind = "unavailable"
	// BadAnswer means that an instance was called and gave no usable answer, or
	// that the connection to it was lost. What it did is unknown.
	BadAnswer FailureKind = "bad_answer"
	// Timeout means that an instance was called and did not answer in time. What
	// it did is unknown.
	Timeout FailureKind = "timeout"
	// Busy means that too many exchanges are under way.
	Busy FailureKind = "busy"
	// UnderWay means that the first call with the same idempotency key is under way.
	UnderWay FailureKind = "under_way"
	// KeyReused means that the idempotency key was used with another body.
	KeyReused FailureKind = "key_reused"
	// Internal is every other failure. Repeating the request does not help.
	Internal FailureKind = "internal"
)

// Failure is an operation that was neither carried out nor refused, as far as is known.
type Failure struct {
	Kind FailureKind
	// RetryAfter is how long a client should wait before it repeats the request; 0 if it
	// should not repeat it.
	RetryAfter time.Duration
	// Err is the cause, for the log. It contains no value of the request.
	Err error
}

// Error returns the kind and the cause.
func (e *Failure) Error() string { return string(e.Kind) + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Failure) Unwrap() error { return e.Err }

const (
	// retryUnavailable is about the time after which an instance that failed is tried
	// again.
	retryUnavailable = 5 * time.Second
	// retryBusy is longer than the computation of one exchange.
	retryBusy = time.Second
)

// retryAfter returns how long to wait after err. If a circuit breaker refused the call
// it is the time until the breaker lets a call through.
func retryAfter(err error) time.Duration {
	if open, ok := errors.AsType[*breaker.OpenError](err); ok {
		return open.RetryAfter
	}
	return retryUnavailable
}

// fromActivation converts an error of the activation service into one of this package.
func fromActivation(err error) error {
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

// fromOwnership converts an error of the ownership service into one of this package.
func fromOwnership(err error) error {
	if errors.Is(err, ownership.ErrUnavailable) {
		return &Failure{Kind: Unavailable, RetryAfter: retryAfter(err), Err: err}
	}
	return &Failure{Kind: Internal, Err: err}
}

// fromServer converts an error of an authentication server into one of this package.
func fromServer(err error) error {
	if refusal, ok := errors.AsType[*authserver.Refusal](err); ok {
		return &Refusal{Codes: refusal.Codes}
	}
	if _, ok := errors.AsType[*soap.FieldError](err); ok {
		// The command cannot be encoded, so no instance ever gets it.
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

// loginError is fromServer for a login. With HideUnknownUsers all refusals become the
// same one, because most statuses tell which users exist. Two do not and are relayed:
// that the server does not work, and that the pending login does not exist, which the
// phone has to know.
func (g *Gateway) loginError(err error, pending bool) error {
	refusal, refused := errors.AsType[*authserver.Refusal](err)
	if !g.hideUnknownUsers || !refused || refusal.BackendFault() || pending && refusal.Codes.StatusCodeEnum == notFoundCodes.StatusCodeEnum {
		return fromServer(err)
	}
	return &Refusal{Codes: refusedCodes, Concealed: refusal.Codes.StatusCodeEnum}
}

// badAnswerf returns the error for an answer of an authentication server that cannot be
// used. The text must name the instance and must not contain a value of the answer.
func badAnswerf(format string, arguments ...any) error {
	return &Failure{Kind: BadAnswer, Err: fmt.Errorf(format, arguments...)}
}
