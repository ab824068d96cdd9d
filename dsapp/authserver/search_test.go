package authserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// behaviors are what an instance can do when it is asked for a pending request, each with a
// letter.
var behaviors = map[rune]func(*sample) transport{
	's': func(s *sample) transport { return sending(s.succeed()) },
	'n': func(s *sample) transport { return sending(answering(s.answerWith(failed("STAT_NOT_FOUND", -13)))) },
	'o': func(s *sample) transport { return sending(answering(s.answerWith(failed("STAT_NOSUPPORT", -99)))) },
	'c': func(s *sample) transport { return sending(answering(s.answerWith(failed("STAT_COMMS", -10)))) },
	'i': func(s *sample) transport { return sending(answering(s.answerWith(failed("STAT_INVPARAM", -2)))) },
	'f': func(*sample) transport { return sending(answerFault("Server")) },
	'C': func(*sample) transport { return sending(answerFault("Client")) },
	'x': func(*sample) transport { return sending(answering("x")) },
	'l': func(*sample) transport { return dropping },
	'-': func(*sample) transport { return refusedDial },
}

// describe returns in a word or two how a command ended.
func describe(err error) string {
	if err == nil {
		return "success"
	}
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		return refusal.Codes.StatusCodeEnum
	}
	for word, reason := range map[string]error{
		"undecided": ErrUndecided, "not sent": ErrNotSent, "lost": ErrNoAnswer, "nonsense": ErrBadAnswer, "timeout": ErrTimeout,
	} {
		if errors.Is(err, reason) {
			return word
		}
	}
	return err.Error()
}

// How retrievals and cancellations with a wrapped key end depends on what the instances do, in
// their order. received says which of them receive the command.
func TestSearch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		deployment Deployment
		behavior   string
		received   string
		want       string
	}{
		// Replicated: the next instance is asked until one has the request.
		{DeploymentReplicated, "sss", "100", "success"},
		{DeploymentReplicated, "nsn", "110", "success"},
		{DeploymentReplicated, "nns", "111", "success"},
		{DeploymentReplicated, "-ns", "011", "success"},
		{DeploymentReplicated, "cns", "111", "success"},
		{DeploymentReplicated, "fns", "111", "success"},
		{DeploymentReplicated, "--s", "001", "success"},
		// The request does not exist if all instances say so.
		{DeploymentReplicated, "nnn", "111", "STAT_NOT_FOUND"},
		{DeploymentReplicated, "n", "1", "STAT_NOT_FOUND"},
		// The search is undecided if an instance cannot tell.
		{DeploymentReplicated, "-nn", "011", "undecided"},
		{DeploymentReplicated, "n-n", "101", "undecided"},
		{DeploymentReplicated, "nn-", "110", "undecided"},
		{DeploymentReplicated, "cnn", "111", "undecided"},
		{DeploymentReplicated, "nnf", "111", "undecided"},
		{DeploymentReplicated, "n--", "100", "undecided"},
		{DeploymentReplicated, "ccc", "111", "undecided"},
		{DeploymentReplicated, "fff", "111", "undecided"},
		{DeploymentReplicated, "fc", "11", "undecided"},
		{DeploymentReplicated, "-c-", "010", "undecided"},
		{DeploymentReplicated, "c", "1", "undecided"},
		{DeploymentReplicated, "---", "000", "not sent"},
		// An unknown outcome and every other status end the search.
		{DeploymentReplicated, "lss", "100", "lost"},
		{DeploymentReplicated, "nls", "110", "lost"},
		{DeploymentReplicated, "-xs", "010", "nonsense"},
		{DeploymentReplicated, "cls", "110", "lost"},
		{DeploymentReplicated, "nis", "110", "STAT_INVPARAM"},
		{DeploymentReplicated, "-is", "010", "STAT_INVPARAM"},
		{DeploymentReplicated, "nCs", "110", "nonsense"},
		// With a shared database the first answer counts.
		{DeploymentShared, "nss", "100", "STAT_NOT_FOUND"},
		{DeploymentShared, "-ns", "010", "STAT_NOT_FOUND"},
		{DeploymentShared, "cns", "110", "STAT_NOT_FOUND"},
		{DeploymentShared, "-cs", "011", "success"},
		{DeploymentShared, "iss", "100", "STAT_INVPARAM"},
		{DeploymentShared, "lss", "100", "lost"},
		{DeploymentShared, "ccf", "111", "undecided"},
		{DeploymentShared, "--c", "001", "undecided"},
		{DeploymentShared, "---", "000", "not sent"},
	} {
		for _, name := range []string{"getPreparedSecureChallenge", "getPreparedSignatureRequest", "cancelAuthUser", "cancelAuthSignatureRequest"} {
			test := test
			search(t, name, test.deployment, test.behavior, test.received, test.want)
			// To a cancellation, STAT_NOSUPPORT means the same as STAT_NOT_FOUND.
			if strings.HasPrefix(name, "cancel") {
				test.behavior = strings.ReplaceAll(test.behavior, "n", "o")
				test.want = strings.ReplaceAll(test.want, "STAT_NOT_FOUND", "STAT_NOSUPPORT")
				search(t, name, test.deployment, test.behavior, test.received, test.want)
			}
		}
	}
	search(t, "getPreparedSecureChallenge", DeploymentReplicated, "nos", "110", "STAT_NOSUPPORT")
	search(t, "cancelAuthUser", DeploymentReplicated, "non", "111", "STAT_NOT_FOUND")
	search(t, "cancelAuthUser", DeploymentReplicated, "nno", "111", "STAT_NOSUPPORT")
}

// search checks how a command ends and which instances receive it.
func search(t *testing.T, name string, deployment Deployment, behavior, received, want string) {
	t.Helper()
	sample := samples[name]
	var instances []Instance
	got := make([]int, len(behavior))
	for i, b := range behavior {
		instances = append(instances, stub(fmt.Sprint("i", i), transport(func(r *http.Request) (*http.Response, error) {
			if b != '-' {
				got[i]++
			}
			return behaviors[b](&sample)(r)
		})))
	}
	s := newServers(t, Config{Instances: instances, Deployment: deployment, Policy: PolicyFirst})
	_, err := sample.call(t.Context(), s, "")
	if counts := strings.Trim(fmt.Sprint(got), "[]"); strings.ReplaceAll(counts, " ", "") != received || describe(err) != want {
		t.Errorf("%s, %s, %s: received %s, %v", name, deployment, behavior, counts, err)
	}
	if failure, ok := errors.AsType[*CallError](err); ok && want == "undecided" {
		// Callers distinguish failures by the types that an error wraps, so it must wrap
		// nothing but ErrUndecided.
		_, refusal := errors.AsType[*Refusal](err)
		_, fault := errors.AsType[*soap.Fault](err)
		if errors.Is(err, ErrNotSent) || refusal || fault || failure.Cause == nil {
			t.Errorf("%s: %v is something else, too", behavior, err)
		}
		if i := strings.TrimPrefix(failure.Instance, "i"); !strings.Contains("-cf", string(behavior[i[0]-'0'])) {
			t.Errorf("%s: %v names an instance that could answer", behavior, err)
		}
	}
}

// A cancellation is sent to the instances that its Target names, in that order and to each once.
// Without Search, the first answer counts.
func TestCancelInstances(t *testing.T) {
	t.Parallel()
	sample := samples["cancelAuthUser"]
	notFound := answering(sample.answerWith(failed("STAT_NOT_FOUND", -13)))
	servers := &cluster{}
	down := servers.without(0)
	for name, test := range map[string]struct {
		instances  []Instance
		deployment Deployment
		names      []string
		search     bool
		handle     handler
		received   [3]int64
		want       string
	}{
		"two":               {nil, "", []string{"third", "first"}, true, notFound, [3]int64{1, 0, 1}, "STAT_NOT_FOUND"},
		"two, found":        {nil, "", []string{"third", "first"}, true, sample.succeed(), [3]int64{0, 0, 1}, "success"},
		"twice the same":    {nil, "", []string{"third", "third"}, true, notFound, [3]int64{0, 0, 1}, "STAT_NOT_FOUND"},
		"one":               {nil, "", []string{"second"}, false, notFound, [3]int64{0, 1, 0}, "STAT_NOT_FOUND"},
		"no search":         {nil, "", []string{"second", "third"}, false, notFound, [3]int64{0, 1, 0}, "STAT_NOT_FOUND"},
		"nowhere, search":   {nil, "", nil, true, notFound, [3]int64{1, 1, 1}, "STAT_NOT_FOUND"},
		"nowhere":           {nil, "", nil, false, notFound, [3]int64{1, 0, 0}, "STAT_NOT_FOUND"},
		"one is down":       {down, "", []string{"first", "second"}, true, notFound, [3]int64{0, 1, 0}, "undecided"},
		"only one, down":    {down, "", []string{"first"}, true, notFound, [3]int64{0, 0, 0}, "not sent"},
		"first down":        {down, "", nil, false, notFound, [3]int64{0, 1, 0}, "STAT_NOT_FOUND"},
		"one is gone":       {nil, "", []string{"gone", "second"}, true, notFound, [3]int64{0, 1, 0}, "undecided"},
		"one gone, found":   {nil, "", []string{"gone", "second"}, true, sample.succeed(), [3]int64{0, 1, 0}, "success"},
		"all are gone":      {nil, "", []string{"gone", "left"}, true, notFound, [3]int64{0, 0, 0}, "not sent"},
		"shared":            {nil, DeploymentShared, []string{"third", "first"}, true, notFound, [3]int64{0, 0, 1}, "STAT_NOT_FOUND"},
		"shared, gone":      {nil, DeploymentShared, []string{"gone"}, true, notFound, [3]int64{1, 0, 0}, "STAT_NOT_FOUND"},
		"shared, down":      {down, DeploymentShared, []string{"first"}, true, sample.succeed(), [3]int64{0, 1, 0}, "success"},
		"shared, no search": {nil, DeploymentShared, []string{"second"}, false, sample.succeed(), [3]int64{0, 1, 0}, "success"},
	} {
		if test.instances == nil {
			test.instances = servers.instances()
		}
		servers.begin(sending(test.handle))
		s := newServers(t, Config{Instances: test.instances, Deployment: test.deployment, Policy: PolicyFirst})
		_, _, err := Call(t.Context(), s, Target{Instances: test.names, Search: test.search}, soap.CancelAuthUser, cancelled)
		if got := servers.received(); got != test.received || describe(err) != test.want {
			t.Errorf("%s: received %v, %v", name, got, err)
		}
	}
}

// If the caller leaves before all instances were asked, the search is undecided.
func TestSearchCanceled(t *testing.T) {
	t.Parallel()
	sample := samples["getPreparedSecureChallenge"]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var instances []Instance
	asked := 0
	for _, name := range []string{"first", "second"} {
		instances = append(instances, stub(name, transport(func(r *http.Request) (*http.Response, error) {
			asked++
			response, err := behaviors['n'](&sample)(r)
			response.Body = &notifying{Reader: response.Body, closed: cancel}
			return response, err
		})))
	}
	_, err := sample.call(ctx, newServers(t, Config{Instances: instances}), "")
	if failure := checkFailure(t, "canceled", err, ErrUndecided); failure.Instance != "second" || asked != 1 {
		t.Errorf("%d asked: %+v", asked, failure)
	}
}

// notifying is a body that calls closed when it is closed.
type notifying struct {
	io.Reader
	closed func()
}

func (n *notifying) Close() error {
	n.closed()
	return nil
}

// Whatever the instances do, a search asks them in order and ends as a second implementation of
// the rules says.
func TestSearchModel(t *testing.T) {
	t.Parallel()
	letters := slices.Sorted(maps.Keys(behaviors))
	rapid.Check(t, func(rt *rapid.T) {
		behavior := string(rapid.SliceOfN(rapid.SampledFrom(letters), 1, 5).Draw(rt, "behavior"))
		deployment := rapid.SampledFrom([]Deployment{DeploymentReplicated, DeploymentShared}).Draw(rt, "deployment")
		name := rapid.SampledFrom([]string{"getPreparedSignatureRequest", "cancelAuthSignatureRequest"}).Draw(rt, "command")

		// The first instance that does none of these ends the search.
		passed := "-cf"
		if deployment == DeploymentReplicated {
			passed += "n"
			if name == "cancelAuthSignatureRequest" {
				passed += "o"
			}
		}
		last := strings.IndexFunc(behavior, func(b rune) bool { return !strings.ContainsRune(passed, b) })
		var want string
		asked := behavior
		if last >= 0 {
			asked = behavior[:last+1]
			want = map[byte]string{
				's': "success", 'n': "STAT_NOT_FOUND", 'o': "STAT_NOSUPPORT", 'i': "STAT_INVPARAM", 'l': "lost", 'x': "nonsense", 'C': "nonsense",
			}[behavior[last]]
		} else {
			switch denials := strings.Trim(behavior, "-cf"); {
			case strings.Trim(behavior, "-") == "":
				want = "not sent"
			case strings.ContainsAny(behavior, "-cf"):
				want = "undecided"
			default:
				want = map[byte]string{'n': "STAT_NOT_FOUND", 'o': "STAT_NOSUPPORT"}[denials[len(denials)-1]]
			}
		}
		received := ""
		for i, b := range behavior {
			if i < len(asked) && b != '-' {
				received += "1"
			} else {
				received += "0"
			}
		}
		search(t, name, deployment, behavior, received, want)
		if t.Failed() {
			rt.FailNow()
		}
	})
}
