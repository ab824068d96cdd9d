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

// statuses are the numbers of the statuses. Those from 9000 on are chosen by the sandbox, since
// the real ones are not public.
var statuses = [...]struct {
	name   string
	number int
}{
	{"STAT_ERROR", -1},
	{"STAT_INVPARAM", -2},
	{"STAT_MEMORY", -3},
	{"STAT_COMMS", -10},
	{"STAT_LICENCE", -11},
	{"STAT_OS_FAILURE", -12},
	{"STAT_NOT_FOUND", -13},
	{"STAT_EXISTS", -14},
	{"STAT_INVCREDENTIALS", 1000},
	{"STAT_GROUPCHK", 1002},
	{"STAT_EXP_CHALLENGE", 1004},
	{"STAT_PERMISSION", 1005},
	{"STAT_LOCALAUTH", 1006},
	{"STAT_LOCKED", 1007},
	{"STAT_LOCAL_PASSWORD_MISMATCH", 9001},
	{"STAT_USER_UNKNOWN", 9002},
	{"STAT_OTP_INCORRECT", 9003},
	{"STAT_DIGIPASS_NOT_AVAILABLE", 9004},
	{"STAT_DPERROR", 9005},
	{"STAT_NOSUPPORT", 9006},
	{"STAT_INVDATA", 9007},
}

// codesOf returns the result codes of a status. Unknown ones have the number 9000.
func codesOf(status string) resultCodes {
	if status == "STAT_SUCCESS" {
		return resultCodes{"RET_SUCCESS", status, 0, 0}
	}
	c := resultCodes{"RET_FAILURE", status, -1, 9000}
	for _, s := range statuses {
		if s.name == status {
			c.statusCode = s.number
		}
	}
	return c
}
