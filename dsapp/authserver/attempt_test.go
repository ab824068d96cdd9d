package authserver

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// retryClasses has a command of each class that the table in docs/operation.md distinguishes. Of
// the last two, whose Retry is the same, only "others" may wait for a user.
var retryClasses = map[string]*soap.Row{
	"notification IDs": soap.UpdateDevicePNID.Row,
	"retrievals":       soap.GetPreparedSecureChallenge.Row,
	"cancels":          soap.CancelAuthUser.Row,
	"registrations":    soap.MDLRegister.Row,
	"others":           soap.AuthUser.Row,
}

// What follows from an attempt is what the table in docs/operation.md says: for the breaker, for
// the certainty of the outcome, and for other instances.
func TestAttempt(t *testing.T) {
	t.Parallel()
	codes := func(status string) *soap.Answer { return &soap.Answer{Codes: soap.FailureCodes(status, -1)} }
	done := &soap.Answer{Codes: soap.ResultCodes{ReturnCodeEnum: "RET_SUCCESS", StatusCodeEnum: "STAT_SUCCESS"}}
	nonsense := errors.New("document is not a SOAP envelope")
	deadline, canceled := context.DeadlineExceeded, context.Canceled
	var (
		every    = []string{"notification IDs", "retrievals", "cancels", "registrations", "others"}
		harmless = []string{"notification IDs", "retrievals", "cancels"}
		once     = []string{"notification IDs"}
	)
	const (
		failed   = breaker.Failed
		worked   = breaker.Worked
		unjudged = breaker.Inconclusive
	)
	for name, test := range map[string]struct {
		attempt attempt
		outcome breaker.Outcome
		reason  error // nil: the server's answer counts
		unknown bool
		next    []string // the classes of which another instance may get a command
	}{
		// No connection.
		"refused, no TLS handshake":       {attempt{admitted: true, err: io.EOF}, failed, ErrNotSent, false, every},
		"no TLS handshake in time":        {attempt{admitted: true, err: os.ErrDeadlineExceeded}, failed, ErrNotSent, false, every},
		"no connection within timeout":    {attempt{admitted: true, err: deadline, ctxErr: deadline, connecting: true}, failed, ErrNotSent, false, every},
		"same, most of it in the queue":   {attempt{admitted: true, err: deadline, ctxErr: deadline, connecting: true, mostlyQueued: true}, unjudged, ErrNotSent, false, every},
		"no turn on a connection":         {attempt{admitted: true, err: deadline, ctxErr: deadline}, unjudged, ErrNotSent, false, every},
		"client gone before a connection": {attempt{admitted: true, err: canceled, ctxErr: canceled, callerGone: true, connecting: true}, unjudged, ErrNotSent, false, every},
		"open breaker":                    {attempt{err: &breaker.OpenError{}}, unjudged, ErrNotSent, false, every},
		"full queue":                      {attempt{err: errQueueFull}, unjudged, ErrNotSent, false, every},
		"too long in the queue":           {attempt{err: deadline}, unjudged, ErrNotSent, false, every},
		// Connection lost after the command was sent, cut answer.
		"connection lost":           {attempt{admitted: true, sent: true, err: io.EOF}, failed, ErrNoAnswer, true, once},
		"same, others are answered": {attempt{admitted: true, sent: true, err: io.EOF, othersAnswered: true}, failed, ErrNoAnswer, true, once},
		"cut answer":                {attempt{admitted: true, sent: true, err: io.ErrUnexpectedEOF}, failed, ErrNoAnswer, true, once},
		"client gone":               {attempt{admitted: true, sent: true, err: canceled, ctxErr: canceled, callerGone: true}, unjudged, ErrNoAnswer, true, once},
		"client gone in the answer": {attempt{admitted: true, sent: true, answerRead: true, err: nonsense, ctxErr: canceled, callerGone: true}, unjudged, ErrNoAnswer, true, once},
		// Unusable answer.
		"no XML":                     {attempt{admitted: true, sent: true, answerRead: true, err: nonsense}, failed, ErrBadAnswer, true, once},
		"values that cannot be used": {attempt{admitted: true, sent: true, answerRead: true, answer: done, err: nonsense}, worked, ErrBadAnswer, true, once},
		"same, at the last moment":   {attempt{admitted: true, sent: true, answerRead: true, answer: done, err: nonsense, ctxErr: deadline}, worked, ErrBadAnswer, true, once},
		// No complete answer within timeout.
		"no answer in time":             {attempt{admitted: true, sent: true, err: deadline, ctxErr: deadline}, failed, ErrTimeout, true, once},
		"no header in time":             {attempt{admitted: true, sent: true, err: os.ErrDeadlineExceeded}, failed, ErrTimeout, true, once},
		"answer ended with the time":    {attempt{admitted: true, sent: true, answerRead: true, err: nonsense, ctxErr: deadline}, failed, ErrTimeout, true, once},
		"most of the time in the queue": {attempt{admitted: true, sent: true, err: deadline, ctxErr: deadline, mostlyQueued: true}, unjudged, ErrTimeout, true, once},
		"client gone and too late":      {attempt{admitted: true, sent: true, err: deadline, ctxErr: deadline, callerGone: true}, unjudged, ErrTimeout, true, once},
		// Faults.
		"Fault that blames nobody":     {attempt{admitted: true, sent: true, answerRead: true, err: &soap.Fault{}}, failed, ErrBadAnswer, false, harmless},
		"Fault that blames the server": {attempt{admitted: true, sent: true, answerRead: true, err: &soap.Fault{Code: "Server"}}, failed, ErrBadAnswer, false, harmless},
		"Fault at the last moment":     {attempt{admitted: true, sent: true, answerRead: true, err: &soap.Fault{}, ctxErr: deadline}, failed, ErrBadAnswer, false, harmless},
		"Fault that blames the sender": {attempt{admitted: true, sent: true, answerRead: true, err: &soap.Fault{Sender: true}}, worked, ErrBadAnswer, false, nil},
		// Answers.
		"STAT_COMMS":                   {attempt{admitted: true, sent: true, answerRead: true, answer: codes("STAT_COMMS")}, failed, nil, false, harmless},
		"STAT_MEMORY":                  {attempt{admitted: true, sent: true, answerRead: true, answer: codes("STAT_MEMORY")}, failed, nil, false, harmless},
		"STAT_OS_FAILURE":              {attempt{admitted: true, sent: true, answerRead: true, answer: codes("STAT_OS_FAILURE")}, failed, nil, false, harmless},
		"STAT_LICENCE":                 {attempt{admitted: true, sent: true, answerRead: true, answer: codes("STAT_LICENCE")}, failed, nil, false, harmless},
		"any other status":             {attempt{admitted: true, sent: true, answerRead: true, answer: codes("STAT_LOCKED")}, worked, nil, false, nil},
		"success":                      {attempt{admitted: true, sent: true, answerRead: true, answer: done}, worked, nil, false, nil},
		"success as the client leaves": {attempt{admitted: true, sent: true, answerRead: true, answer: done, ctxErr: canceled, callerGone: true}, worked, nil, false, nil},
	} {
		for command, c := range retryClasses {
			got := test.attempt.result(c, c.AskNextOn)
			if next := slices.Contains(test.next, command); got.outcome != test.outcome || got.reason != test.reason || got.unknown != test.unknown || got.mayAskNext != next {
				t.Errorf("%s of %s: %+v", name, command, got)
			}
			if got.notHere || got.reason == nil && got.answer != test.attempt.answer {
				t.Errorf("%s of %s: %+v", name, command, got)
			}
		}
	}
}

// A login that gets no answer is no failure of the instance if the instance answered other
// commands in the meantime: it may be waiting for the user.
func TestAttemptAwaitingUser(t *testing.T) {
	t.Parallel()
	for command, c := range retryClasses {
		got := (&attempt{admitted: true, sent: true, err: context.DeadlineExceeded, ctxErr: context.DeadlineExceeded, othersAnswered: true}).result(c, nil)
		want := breaker.Failed
		if command == "others" {
			want = breaker.Inconclusive
		}
		if got.outcome != want || got.reason != ErrTimeout || !got.unknown {
			t.Errorf("%s: %+v", command, got)
		}
	}
}

// Each command has its own statuses after which the next instance is asked. They mean nothing if
// the command is not searching.
func TestAttemptNotHere(t *testing.T) {
	t.Parallel()
	for status, commands := range map[string][]string{
		"STAT_NOT_FOUND": {"retrievals", "cancels"}, "STAT_NOSUPPORT": {"cancels"}, "STAT_INVPARAM": nil,
	} {
		for command, c := range retryClasses {
			a := attempt{admitted: true, sent: true, answerRead: true, answer: &soap.Answer{Codes: soap.FailureCodes(status, -1)}}
			if got := a.result(c, c.AskNextOn); got.notHere != slices.Contains(commands, command) || got.mayAskNext || got.outcome != breaker.Worked {
				t.Errorf("%s of %s: %+v", status, command, got)
			}
			if got := a.result(c, nil); got.notHere || got.mayAskNext {
				t.Errorf("%s of %s, not searching: %+v", status, command, got)
			}
		}
	}
}
