package sandbox

import (
	"context"
	"fmt"
)

// A command describes the requests of one command and how they are carried out. Everything
// else (transport, envelope, Faults, simulated failures, counters) is the same for all
// commands.
type command struct {
	scenario  *scenario
	operation string
	cmd       string // subcommand, if the operation has subcommands
	answer    string // element of the answer; by default the operation's name and "Response"
	form      form
	component string // name of the value with the component type
	handle    func(s *Server, ctx context.Context, in values) ([]datum, error)
}

// name returns the name of the command for counters and simulated failures.
func (c *command) name() string {
	if c.cmd != "" {
		return c.cmd
	}
	return c.operation
}

// answerElement returns the local name of the element in the Body of the answer.
func (c *command) answerElement() string {
	if c.answer != "" {
		return c.answer
	}
	return c.operation + "Response"
}

// A form is one of the two forms that requests and answers of the interface have.
type form interface {
	// read checks the children of the operation element, without the subcommand, and
	// returns their values. The error is a *fault or a *refusal.
	read(children []*element) (values, error)
	// write writes the content of the element in the Body of an answer.
	write(w *writer, codes resultCodes, data []datum, stack []stackEntry)
}

// values are the values of a request. The name of a nested element's value is the path of
// the element. Optional values may be absent.
type values struct {
	text   map[string]string
	fields []RequestField // of the dataFieldList
}

// A datum is one value of an answer.
type datum struct {
	name   string // of a nested element: its path
	value  string
	secret bool // marked as masked if Variant.Masked is set
	masked bool // always marked as masked
}

// A stackEntry is one entry of the error stack.
type stackEntry struct {
	code int
	text string
}

// A refusal is an answer whose result codes are not those of success.
type refusal struct {
	status string
	stack  []stackEntry
}

func (r *refusal) Error() string { return r.status }

// refuse returns a refusal with one entry in its error stack. A code of 0 means the number
// of the status.
func refuse(status string, code int, text string) *refusal {
	if code == 0 {
		code = codesOf(status).statusCode
	}
	return &refusal{status: status, stack: []stackEntry{{code, text}}}
}

// A fault is an error that is answered with a SOAP Fault.
type fault struct {
	kind faultKind
	text string
}

func (f *fault) Error() string { return f.text }

type faultKind int

const (
	callerFault faultKind = iota
	serverFault
	versionFault
	mustUnderstandFault
)

// callerError returns the Fault for a request that breaks a rule of the interface. The text
// must contain only names of elements and attributes, no values.
func callerError(format string, args ...any) *fault {
	return &fault{callerFault, fmt.Sprintf(format, args...)}
}

type resultCodes struct {
	returnCodeEnum, statusCodeEnum string
	returnCode, statusCode         int
}

// codesOf returns the result codes of a status. The numbers from 9000 on are chosen by the
// sandbox, since the real ones are not public.
func codesOf(status string) resultCodes {
	c := resultCodes{"RET_FAILURE", status, -1, 9000}
	switch status {
	case "STAT_SUCCESS":
		return resultCodes{"RET_SUCCESS", status, 0, 0}
	case "STAT_ERROR":
		c.statusCode = -1
	case "STAT_INVPARAM":
		c.statusCode = -2
	case "STAT_MEMORY":
		c.statusCode = -3
	case "STAT_COMMS":
		c.statusCode = -10
	case "STAT_LICENCE":
		c.statusCode = -11
	case "STAT_OS_FAILURE":
		c.statusCode = -12
	case "STAT_NOT_FOUND":
		c.statusCode = -13
	case "STAT_EXISTS":
		c.statusCode = -14
	case "STAT_INVCREDENTIALS":
		c.statusCode = 1000
	case "STAT_GROUPCHK":
		c.statusCode = 1002
	case "STAT_EXP_CHALLENGE":
		c.statusCode = 1004
	case "STAT_PERMISSION":
		c.statusCode = 1005
	case "STAT_LOCALAUTH":
		c.statusCode = 1006
	case "STAT_LOCKED":
		c.statusCode = 1007
	case "STAT_LOCAL_PASSWORD_MISMATCH":
		c.statusCode = 9001
	case "STAT_USER_UNKNOWN":
		c.statusCode = 9002
	case "STAT_OTP_INCORRECT":
		c.statusCode = 9003
	case "STAT_DIGIPASS_NOT_AVAILABLE":
		c.statusCode = 9004
	case "STAT_DPERROR":
		c.statusCode = 9005
	case "STAT_NOSUPPORT":
		c.statusCode = 9006
	case "STAT_INVDATA":
		c.statusCode = 9007
	}
	return c
}
