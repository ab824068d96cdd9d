package authserver

import (
	"errors"
	"fmt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// Refusal is the error of a command that the authentication server refused with a
// well-formed answer.
type Refusal struct {
	Instance string
	Codes    soap.ResultCodes
	// Stack is the error stack in the server's order. Where the server repeated values of
	// the command, they are replaced by "[…]".
	Stack []soap.StackEntry
}

// Error returns the instance and the status, without the error stack.
func (e *Refusal) Error() string {
	return fmt.Sprintf("instance %s refused: %s (%d)", e.Instance, e.Codes.StatusCodeEnum, e.Codes.StatusCode)
}

// BackendFault reports whether the codes say that the instance is broken and not that it
// refused the command.
func (e *Refusal) BackendFault() bool { return e.Codes.BackendFault() }

// CallError is the error of a command that got no usable answer.
type CallError struct {
	// Instance is empty if the command could not be encoded.
	Instance  string
	Operation string
	// Reason is ErrNotSent, ErrNoAnswer, ErrBadAnswer, ErrTimeout or ErrUndecided.
	Reason error
	// Cause is the underlying error. It never contains a value of the command. With
	// ErrNotSent it can be a *soap.FieldError or a *breaker.OpenError, with ErrBadAnswer a
	// *soap.Fault.
	Cause error
}

func (e *CallError) Error() string {
	return fmt.Sprintf("calling %s on instance %q: %v: %v", e.Operation, e.Instance, e.Reason, e.Cause)
}

// Unwrap returns the reason and the cause.
func (e *CallError) Unwrap() []error { return []error{e.Reason, e.Cause} }

// The reasons of a CallError. Only ErrNotSent makes certain that the authentication server
// did not act on the command.
var (
	// ErrNotSent means that no byte of the command was sent.
	ErrNotSent = errors.New("command was not sent")
	// ErrNoAnswer means that the command was sent and then the connection was lost or the
	// caller's context was canceled.
	ErrNoAnswer = errors.New("connection lost after the command was sent")
	// ErrBadAnswer means that the answer cannot be used: it is an HTTP error, a SOAP
	// Fault, not XML, longer than a limit or the answer to another operation, or its
	// result codes are incomplete or contradict each other.
	ErrBadAnswer = errors.New("unusable answer")
	// ErrTimeout means that no complete answer came in time after the command was sent.
	ErrTimeout = errors.New("no answer in time")
	// ErrUndecided means that several instances were searched for a pending request, that
	// none returned it, and that at least one could not say whether it has it.
	ErrUndecided = errors.New("not every instance could answer")
)

var (
	_ error = (*Refusal)(nil)
	_ error = (*CallError)(nil)
)
