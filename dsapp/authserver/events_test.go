package authserver

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// Each attempt at an instance is told once, with its outcome. A failover tells two.
func TestAttempted(t *testing.T) {
	t.Parallel()
	codes := func(status string) transport { return sending(answering(refused("RET_FAILURE", status, -1, -77, ""))) }
	for name, test := range map[string]struct {
		transport transport
		failures  int // that open the breaker, before the attempt
		timeout   time.Duration
		want      []AttemptOutcome
	}{
		"success":      {transport: sending(answering(registered)), want: []AttemptOutcome{AttemptSuccess}},
		"refused":      {transport: codes("STAT_ERROR"), want: []AttemptOutcome{AttemptRefused}},
		"out of order": {transport: codes("STAT_COMMS"), want: []AttemptOutcome{AttemptOutOfOrder}},
		"fault":        {transport: sending(answerFault("Client")), want: []AttemptOutcome{AttemptFault}},
		"bad answer":   {transport: sending(answering("x")), want: []AttemptOutcome{AttemptBadAnswer}},
		"no answer":    {transport: dropping, want: []AttemptOutcome{AttemptNoAnswer}},
		"not sent":     {transport: refusedDial, want: []AttemptOutcome{AttemptNotSent, AttemptSuccess}},
		"open breaker": {transport: refusedDial, failures: 1, want: []AttemptOutcome{AttemptBreakerOpen, AttemptSuccess}},
		"no connection in time": {
			transport: func(r *http.Request) (*http.Response, error) { <-r.Context().Done(); return refusedDial(r) },
			timeout:   10 * time.Millisecond, want: []AttemptOutcome{AttemptNotSent, AttemptSuccess},
		},
	} {
		var got []Attempt
		config := Config{
			Instances: []Instance{stub("primary", test.transport), stub("secondary", sending(answering(registered)))},
			Timeout:   test.timeout,
			Attempted: func(_ context.Context, a Attempt) { got = append(got, a) },
		}
		if test.failures > 0 {
			config.Breaker = breaker.Settings{Failures: test.failures, Cooldown: time.Minute}
		}
		s := newServers(t, config)
		for range test.failures {
			_, _ = register(t.Context(), s, request)
		}
		got = nil
		_, _ = register(t.Context(), s, request)
		var outcomes []AttemptOutcome
		for i, a := range got {
			outcomes = append(outcomes, a.Outcome)
			if want := []string{"primary", "secondary"}[i]; a.Instance != want || a.Command != "PROVISIONCMD_MDL_REGISTER" || a.Start.IsZero() || a.Duration < 0 {
				t.Errorf("%s: %+v", name, a)
			}
		}
		if !slices.Equal(outcomes, test.want) {
			t.Errorf("%s: %v, want %v", name, outcomes, test.want)
		}
	}
}

// A full queue is told as such, and a search says that an instance does not have the request.
func TestAttemptOutcomes(t *testing.T) {
	t.Parallel()
	notFound := attempt{admitted: true, sent: true, answerRead: true, answer: &soap.Answer{Codes: soap.FailureCodes("STAT_NOT_FOUND", -13)}}
	for want, test := range map[AttemptOutcome]struct {
		attempt
		askNextOn []string
	}{
		AttemptQueueFull: {attempt: attempt{err: errQueueFull}},
		AttemptNotHere:   {attempt: notFound, askNextOn: []string{"STAT_NOT_FOUND"}},
		AttemptRefused:   {attempt: notFound},
		AttemptTimeout:   {attempt: attempt{admitted: true, sent: true, ctxErr: context.DeadlineExceeded, err: context.DeadlineExceeded}},
	} {
		r := test.result(soap.MDLRegister.Row, test.askNextOn)
		if got := r.attemptOutcome(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
