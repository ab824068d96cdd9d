package authserver

import (
	"errors"
	"fmt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// Refusal is a well-formed answer that is not a success: the authentication
// server understood the command and said no.
type Refusal struct {
	Instance string
	Codes    soap.ResultCodes
	// Stack is in the server's order. Values of the command that the server
	// repeated in it are blotted out.
	Stack []soap.StackEntry
}

// Error names the codes, not the error stack.
func (e *Refusal) Error() string {
	return fmt.Sprintf("instance %s refused: %s (%d)", e.Instance, e.Codes.StatusCodeEnum, e.Codes.StatusCode)
}

// BackendFault reports whether the refusal says that the instance itself is not
// working.
func (e *Refusal) BackendFault() bool { return e.Codes.BackendFault() }

// CallError is a command that got no usable answer.
type CallError struct {
	Instance  string // empty if no instance could be chosen
	Operation string
	// Reason is one of ErrNotSent, ErrNoAnswer, ErrBadAnswer, ErrTimeout and
	// ErrUndecided.
	Reason error
	// Cause is the underlying error; it never holds a value of the command. It is a
	// *soap.FieldError, with ErrNotSent, or a *soap.Fault, with ErrBadAnswer, among
	// others.
	Cause error
}

func (e *CallError) Error() string {
	return fmt.Sprintf("calling %s on instance %q: %v: %v", e.Operation, e.Instance, e.Reason, e.Cause)
}

// Unwrap gives both the reason and the cause.
func (e *CallError) Unwrap() []error { return []error{e.Reason, e.Cause} }

// Why a command got no usable answer. Only after ErrNotSent is it certain that
// the authentication server did not act on the command.
var (
	// ErrNotSent means that no byte of the command was sent.
	ErrNotSent = errors.New("command was not sent")
	// ErrNoAnswer means that the connection was lost after the command was sent.
	ErrNoAnswer = errors.New("connection lost after the command was sent")
	// ErrBadAnswer means that the answer was not that of the command: not XML,
	// over a limit, of another operation, with result codes that are incomplete or
	// contradict each other, an HTTP error or a SOAP Fault.
	ErrBadAnswer = errors.New("unusable answer")
	// ErrTimeout means that no complete answer came in time after the command was sent.
	ErrTimeout = errors.New("no answer in time")
	// ErrUndecided means that a pending request was looked for, that no instance
	// gave it, and that not every one could say whether it has it.
	ErrUndecided = errors.New("not every instance could answer")
)

var (
	_ error = (*Refusal)(nil)
	_ error = (*CallError)(nil)
)
