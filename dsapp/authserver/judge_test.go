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

// The commands that the table of the operation manual tells apart, by what it calls
// them. "others" may wait for a person; "registrations" do not.
var judgedCommands = map[string]*soap.Row{
	"notification IDs": soap.UpdateDevicePNID.Row,
	"retrievals":       soap.GetPreparedSecureChallenge.Row,
	"cancels":          soap.CancelAuthUser.Row,
	"registrations":    soap.MDLRegister.Row,
	"others":           soap.AuthUser.Row,
}

// What an attempt means, fault by fault as in the table of docs/operation.md: for the
// breaker, for the certainty of the outcome, and for other instances.
func TestJudge(t *testing.T) {
	t.Parallel()
	codes := func(status string) *soap.Answer { return &soap.Answer{Codes: soap.FailureCodes(status, -1)} }
	done := &soap.Answer{Codes: soap.ResultCodes{ReturnCodeEnum: "RET_SUCCESS", StatusCodeEnum: "STAT_SUCCESS"}}
	nonsense := errors.New("document is no SOAP envelope")
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
		saw     sighting
		outcome breaker.Outcome
		reason  error // nil: the server's answer counts
		unknown bool
		next    []string // the commands that another instance may get
	}{
		// No connection.
		"refused, no TLS handshake":       {sighting{asked: true, err: io.EOF}, failed, ErrNotSent, false, every},
		"no TLS handshake in time":        {sighting{asked: true, err: os.ErrDeadlineExceeded}, failed, ErrNotSent, false, every},
		"no connection within timeout":    {sighting{asked: true, err: deadline, ended: deadline, connecting: true}, failed, ErrNotSent, false, every},
		"same, most of it in the queue":   {sighting{asked: true, err: deadline, ended: deadline, connecting: true, hasty: true}, unjudged, ErrNotSent, false, every},
		"no turn on a connection":         {sighting{asked: true, err: deadline, ended: deadline}, unjudged, ErrNotSent, false, every},
		"client gone before a connection": {sighting{asked: true, err: canceled, ended: canceled, gone: true, connecting: true}, unjudged, ErrNotSent, false, every},
		"open breaker":                    {sighting{err: &breaker.OpenError{}}, unjudged, ErrNotSent, false, every},
		"full queue":                      {sighting{err: errQueueFull}, unjudged, ErrNotSent, false, every},
		"too long in the queue":           {sighting{err: deadline}, unjudged, ErrNotSent, false, every},
		// Connection lost after the command was sent, cut answer.
		"connection lost":           {sighting{asked: true, sent: true, err: io.EOF}, failed, ErrNoAnswer, true, once},
		"same, others are answered": {sighting{asked: true, sent: true, err: io.EOF, answering: true}, failed, ErrNoAnswer, true, once},
		"cut answer":                {sighting{asked: true, sent: true, err: io.ErrUnexpectedEOF}, failed, ErrNoAnswer, true, once},
		"client gone":               {sighting{asked: true, sent: true, err: canceled, ended: canceled, gone: true}, unjudged, ErrNoAnswer, true, once},
		"client gone in the answer": {sighting{asked: true, sent: true, reached: true, err: nonsense, ended: canceled, gone: true}, unjudged, ErrNoAnswer, true, once},
		// Unusable answer.
		"no XML":                     {sighting{asked: true, sent: true, reached: true, err: nonsense}, failed, ErrBadAnswer, true, once},
		"values that cannot be used": {sighting{asked: true, sent: true, reached: true, answer: done, err: nonsense}, worked, ErrBadAnswer, true, once},
		"same, at the last moment":   {sighting{asked: true, sent: true, reached: true, answer: done, err: nonsense, ended: deadline}, worked, ErrBadAnswer, true, once},
		// No complete answer within timeout.
		"no answer in time":             {sighting{asked: true, sent: true, err: deadline, ended: deadline}, failed, ErrTimeout, true, once},
		"no header in time":             {sighting{asked: true, sent: true, err: os.ErrDeadlineExceeded}, failed, ErrTimeout, true, once},
		"answer ended with the time":    {sighting{asked: true, sent: true, reached: true, err: nonsense, ended: deadline}, failed, ErrTimeout, true, once},
		"most of the time in the queue": {sighting{asked: true, sent: true, err: deadline, ended: deadline, hasty: true}, unjudged, ErrTimeout, true, once},
		"client gone and too late":      {sighting{asked: true, sent: true, err: deadline, ended: deadline, gone: true}, unjudged, ErrTimeout, true, once},
		// Faults.
		"Fault that blames nobody":     {sighting{asked: true, sent: true, reached: true, err: &soap.Fault{}}, failed, ErrBadAnswer, false, harmless},
		"Fault that blames the server": {sighting{asked: true, sent: true, reached: true, err: &soap.Fault{Code: "Server"}}, failed, ErrBadAnswer, false, harmless},
		"Fault at the last moment":     {sighting{asked: true, sent: true, reached: true, err: &soap.Fault{}, ended: deadline}, failed, ErrBadAnswer, false, harmless},
		"Fault that blames the sender": {sighting{asked: true, sent: true, reached: true, err: &soap.Fault{Sender: true}}, worked, ErrBadAnswer, false, nil},
		// Answers.
		"STAT_COMMS":                   {sighting{asked: true, sent: true, reached: true, answer: codes("STAT_COMMS")}, failed, nil, false, harmless},
		"STAT_MEMORY":                  {sighting{asked: true, sent: true, reached: true, answer: codes("STAT_MEMORY")}, failed, nil, false, harmless},
		"STAT_OS_FAILURE":              {sighting{asked: true, sent: true, reached: true, answer: codes("STAT_OS_FAILURE")}, failed, nil, false, harmless},
		"STAT_LICENCE":                 {sighting{asked: true, sent: true, reached: true, answer: codes("STAT_LICENCE")}, failed, nil, false, harmless},
		"any other status":             {sighting{asked: true, sent: true, reached: true, answer: codes("STAT_LOCKED")}, worked, nil, false, nil},
		"success":                      {sighting{asked: true, sent: true, reached: true, answer: done}, worked, nil, false, nil},
		"success as the client leaves": {sighting{asked: true, sent: true, reached: true, answer: done, ended: canceled, gone: true}, worked, nil, false, nil},
	} {
		for command, c := range judgedCommands {
			got := judge(c, c.Elsewhere, &test.saw)
			if next := slices.Contains(test.next, command); got.outcome != test.outcome || got.reason != test.reason || got.unknown != test.unknown || got.next != next {
				t.Errorf("%s of %s: %+v", name, command, got)
			}
			if got.elsewhere || got.reason == nil && got.answer != test.saw.answer {
				t.Errorf("%s of %s: %+v", name, command, got)
			}
		}
	}
}

// A server that answers other commands while a login gets no answer works: it waits
// for the person.
func TestJudgeWaiting(t *testing.T) {
	t.Parallel()
	for command, c := range judgedCommands {
		got := judge(c, nil, &sighting{asked: true, sent: true, err: context.DeadlineExceeded, ended: context.DeadlineExceeded, answering: true})
		want := breaker.Failed
		if command == "others" {
			want = breaker.Inconclusive
		}
		if got.outcome != want || got.reason != ErrTimeout || !got.unknown {
			t.Errorf("%s: %+v", command, got)
		}
	}
}

// That an instance does not have what is looked for is a matter of each command; it
// says nothing where nothing is looked for.
func TestJudgeElsewhere(t *testing.T) {
	t.Parallel()
	for status, commands := range map[string][]string{
		"STAT_NOT_FOUND": {"retrievals", "cancels"}, "STAT_NOSUPPORT": {"cancels"}, "STAT_INVPARAM": nil,
	} {
		for command, c := range judgedCommands {
			saw := sighting{asked: true, sent: true, reached: true, answer: &soap.Answer{Codes: soap.FailureCodes(status, -1)}}
			if got := judge(c, c.Elsewhere, &saw); got.elsewhere != slices.Contains(commands, command) || got.next || got.outcome != breaker.Worked {
				t.Errorf("%s of %s: %+v", status, command, got)
			}
			if got := judge(c, nil, &saw); got.elsewhere || got.next {
				t.Errorf("%s of %s, not looked for: %+v", status, command, got)
			}
		}
	}
}
