package authserver

import (
	"errors"
	"fmt"
)

// ResultCodes is the outcome every command of the authentication server
// reports. The numbers are relayed as they came: not every one is public.
type ResultCodes struct {
	ReturnCodeEnum string
	StatusCodeEnum string
	ReturnCode     int
	StatusCode     int
}

// FailureCodes are the codes of a command that failed for the reason that the
// status tells.
func FailureCodes(statusCodeEnum string, statusCode int) ResultCodes {
	return ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: statusCodeEnum, ReturnCode: -1, StatusCode: statusCode}
}

// Success reports whether the command succeeded. Every return code but 0 is a
// failure; in an answer that is taken the other codes say the same.
func (c ResultCodes) Success() bool { return c.ReturnCode == 0 }

// agree reports whether the codes are either all those of a success or all others.
// A code that is not known is no success. Which failure they mean is not compared:
// not every number is public.
func (c ResultCodes) agree() bool {
	success := c.Success()
	return success == (c.ReturnCodeEnum == "RET_SUCCESS") &&
		success == (c.StatusCodeEnum == "STAT_SUCCESS") &&
		success == (c.StatusCode == 0)
}

// StackEntry is one entry of the error stack. Its text can hold internal hints
// of the server: it is for the log, never for a client.
type StackEntry struct {
	Code        int
	Description string
}

// Refusal is a well-formed answer that is not a success: the authentication
// server understood the command and said no.
type Refusal struct {
	Instance string
	Codes    ResultCodes
	// Stack is in the server's order. Values of the command that the server
	// repeated in it are blotted out.
	Stack []StackEntry
}

// Error names the codes, not the error stack.
func (e *Refusal) Error() string {
	return fmt.Sprintf("instance %s refused: %s (%d)", e.Instance, e.Codes.StatusCodeEnum, e.Codes.StatusCode)
}

// BackendFault reports whether the refusal says that the instance itself is not
// working (lost database, no memory, licence, operating system), rather than
// that the command was wrong.
func (e *Refusal) BackendFault() bool { return e.Codes.backendFault() }

func (c ResultCodes) backendFault() bool {
	switch c.StatusCodeEnum {
	case "STAT_COMMS", "STAT_MEMORY", "STAT_OS_FAILURE", "STAT_LICENCE":
		return !c.Success()
	}
	return false
}

// Fault is a SOAP Fault, of either SOAP version. It is the cause of a CallError
// with ErrBadAnswer.
type Fault struct {
	// Code is the local part of the fault code, e.g. "Client" or "Receiver".
	Code string
	// String is the server's explanation. It is for the log, never for a client.
	// Values of the command that the server repeated in it are blotted out.
	String string
	// Sender says that the server blames the command, so that it would be
	// refused by every instance.
	Sender bool
}

// Error names the code, not the explanation.
func (f *Fault) Error() string { return fmt.Sprintf("SOAP Fault %q", f.Code) }

// FieldError is a value that no command can carry. It is the cause of a
// CallError with ErrNotSent.
type FieldError struct {
	// Field is the name of the attribute or element.
	Field string
	// Problem says what is wrong, without the value.
	Problem string
}

func (e *FieldError) Error() string { return e.Field + " " + e.Problem }

// CallError is a command that got no usable answer.
type CallError struct {
	Instance  string // empty if no instance could be chosen
	Operation string
	// Reason is one of ErrNotSent, ErrNoAnswer, ErrBadAnswer, ErrTimeout and
	// ErrUndecided.
	Reason error
	// Cause is the underlying error; it never holds a value of the command.
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
	_ error = (*Fault)(nil)
	_ error = (*FieldError)(nil)
	_ error = (*CallError)(nil)
)
