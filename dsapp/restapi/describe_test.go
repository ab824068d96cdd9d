package restapi

import (
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// Every service, member and answer is described in whole sentences, with examples that the
// service accepts and statuses that are documented.
func TestServicesAreDescribed(t *testing.T) {
	t.Parallel()
	sentence := func(where, text string) {
		if text == "" || !strings.HasSuffix(text, ".") || strings.ContainsAny(text, "|\n") {
			t.Errorf("%s: %q is no sentence", where, text)
		}
	}
	status := func(where, name string) {
		if !slices.ContainsFunc(Statuses(), func(s Status) bool { return s.Name == name }) {
			t.Errorf("%s: status %q is not documented", where, name)
		}
	}
	for _, s := range Services() {
		sentence(s.Path, s.Purpose)
		if !slices.Contains(Flows(), s.Flow) {
			t.Errorf("%s: flow %q", s.Path, s.Flow)
		}
		for _, r := range s.Refusals {
			status(s.Path, r.Status)
			sentence(s.Path+" "+r.Status, r.When)
			sentence(s.Path+" "+r.Status, r.Then)
		}
		var example members
		for _, m := range s.Members {
			sentence(s.Path+" "+m.Name, m.Text)
			if m.Example != "" {
				example = example.with(m.Name, m.Example)
			} else if m.Required {
				t.Errorf("%s: %s has no example", s.Path, m.Name)
			}
		}
		if _, err := s.prepare(example); err != nil {
			t.Errorf("%s: the example is refused: %v", s.Path, err)
		}
		for _, name := range s.ExactlyOne {
			if !slices.ContainsFunc(s.Members, func(m Member) bool { return m.Name == name && !m.Required }) {
				t.Errorf("%s: %s is no optional member", s.Path, name)
			}
		}
		results := s.Results
		for len(results) > 0 {
			sentence(s.Path+" "+results[0].Name, results[0].Text)
			results = append(results[1:], results[0].Members...)
		}
	}
	for _, a := range Answers() {
		sentence(string(a.Outcome), a.When)
		sentence(string(a.Outcome), a.Then)
		if a.Outcome != Refused {
			status(string(a.Outcome), a.Status)
		}
	}
	for _, s := range Statuses() {
		sentence(s.Name, s.When)
	}
}

// Every outcome is described once, in the order of the HTTP status, and says truly which
// answers tell when to come back.
func TestAnswersAreDescribed(t *testing.T) {
	t.Parallel()
	var outcomes []Outcome
	statuses := make([]int, 0, len(outcomes))
	for _, a := range Answers() {
		outcomes, statuses = append(outcomes, a.Outcome), append(statuses, a.HTTPStatus)
	}
	for _, o := range []Outcome{
		Success, Refused, Invalid, Unauthenticated, Forbidden, NotFound, MethodNotAllowed, TooLarge, TooSlow, UnsupportedMedia,
		Limited, Unavailable, BadAnswer, Timeout, Internal, TooEarly, UnderWay, KeyReused,
	} {
		if !slices.Contains(outcomes, o) {
			t.Errorf("outcome %s is not described", o)
		}
	}
	slices.Sort(outcomes)
	if twice := len(slices.Compact(outcomes)) != len(statuses); twice || !slices.IsSorted(statuses) {
		t.Errorf("outcomes %q, statuses %d", outcomes, statuses)
	}
	for kind, outcome := range map[gateway.FailureKind]Outcome{
		gateway.Unavailable: Unavailable, gateway.BadAnswer: BadAnswer, gateway.Timeout: Timeout, gateway.Busy: Limited, gateway.Internal: Internal,
		gateway.KeyReused: KeyReused,
	} {
		answer := errorAnswer(&Service{}, &gateway.Failure{Kind: kind, Err: errCause})
		for _, a := range Answers() {
			if a.Outcome == outcome && (answer.outcome != outcome || a.RetryAfter != (answer.retryAfter > 0)) {
				t.Errorf("%s: outcome %s, Retry-After %s, described: %t", kind, answer.outcome, answer.retryAfter, a.RetryAfter)
			}
		}
	}
}
