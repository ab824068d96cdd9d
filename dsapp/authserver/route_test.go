package authserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// answerFault answers with a Fault of either SOAP version.
func answerFault(code string) func(http.ResponseWriter, *http.Request, string) {
	body := "<Fault><faultcode>s:" + code + "</faultcode></Fault>"
	status := http.StatusInternalServerError
	switch code {
	case "Sender":
		status = http.StatusBadRequest
		fallthrough
	case "Receiver", "DataEncodingUnknown":
		body = "<Fault><Code><Value>s:" + code + "</Value></Code><Reason><Text>x</Text></Reason></Fault>"
	}
	return func(w http.ResponseWriter, _ *http.Request, _ string) { write(w, status, "text/xml", envelope(body)) }
}

// cluster is three authentication servers that all behave the same way, which
// can be changed.
type cluster struct {
	peers  []*peer
	handle atomic.Pointer[func(http.ResponseWriter, *http.Request, string)]
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{}
	for _, name := range []string{"first", "second", "third"} {
		c.peers = append(c.peers, newPeer(t, name, func(w http.ResponseWriter, r *http.Request, command string) {
			(*c.handle.Load())(w, r, command)
		}))
	}
	return c
}

// begin sets the behaviour and forgets what arrived before.
func (c *cluster) begin(handle func(http.ResponseWriter, *http.Request, string)) {
	c.handle.Store(&handle)
	for _, p := range c.peers {
		p.arrived.Store(0)
	}
}

// received is what each of the servers has got.
func (c *cluster) received() [3]int64 {
	return [3]int64{c.peers[0].arrived.Load(), c.peers[1].arrived.Load(), c.peers[2].arrived.Load()}
}

func (c *cluster) instances() []Instance {
	var list []Instance
	for _, p := range c.peers {
		list = append(list, p.Instance)
	}
	return list
}

// retryRow is a row of the reference's table on retry classes: what each of three
// servers receives of a command when all of them fail.
type retryRow struct {
	commands []string
	// lost: sent, outcome unknown. fault: a coded fault of the back end.
	lost, fault [3]int64
}

var (
	nowhere    = [3]int64{1, 0, 0} // else
	once       = [3]int64{1, 1, 0} // else
	everywhere = [3]int64{1, 1, 1}
)

var retryRows = []retryRow{
	{[]string{"updateDevicePNID"}, once, everywhere},
	{[]string{"getPreparedSecureChallenge", "getPreparedSignatureRequest"}, nowhere, everywhere},
	{[]string{"cancelAuthUser", "cancelAuthSignatureRequest"}, nowhere, everywhere},
	{[]string{"authUser (OTP)"}, nowhere, nowhere},
	{[]string{"authUser (completing)", "authSignature"}, nowhere, nowhere},
	{[]string{"MDL_REGISTER", "REGISTER", "dsappSRPRegister"}, nowhere, nowhere},
	{[]string{"dsappSRPGenerateEphemeralKey"}, nowhere, nowhere},
	{[]string{"dsappSRPGenerateActivationData"}, nowhere, nowhere},
	{[]string{"MDL_ADD_DEVICE"}, nowhere, nowhere},
	{[]string{"MDL_ACTIVATE", "ACTIVATE", "dsappSRPActivate"}, nowhere, nowhere},
}

// What each of three servers receives of each command when all fail in the same
// way: the table of the reference on retry classes, row by row, with its
// definition of a fault of the back end.
func TestRetryClasses(t *testing.T) {
	t.Parallel()
	// Where state is replicated, a retrieval or cancel goes on after these.
	goesOn := map[string][]string{
		"getPreparedSecureChallenge":  {"STAT_NOT_FOUND"},
		"getPreparedSignatureRequest": {"STAT_NOT_FOUND"},
		"cancelAuthUser":              {"STAT_NOT_FOUND", "STAT_NOSUPPORT"},
		"cancelAuthSignatureRequest":  {"STAT_NOT_FOUND", "STAT_NOSUPPORT"},
	}
	business := map[string]int{
		"STAT_NOT_FOUND": -13, "STAT_NOSUPPORT": -99, "STAT_EXISTS": -14, "STAT_INVPARAM": -2, "STAT_INVCREDENTIALS": 1000,
		"STAT_LOCKED": 1007, "STAT_EXP_CHALLENGE": 1004, "STAT_ERROR": -1, "STAT_ANYTHING": 4711,
	}
	seen := 0
	for _, row := range retryRows {
		for _, name := range row.commands {
			m, ok := methods[name]
			if !ok {
				t.Fatal(name)
			}
			seen++
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				all := newCluster(t)
				for _, deployment := range []Deployment{DeploymentReplicated, DeploymentShared} {
					s := newServers(t, Config{Instances: all.instances(), Deployment: deployment, Policy: PolicyFirst})
					check := func(what string, want [3]int64, handle func(http.ResponseWriter, *http.Request, string)) {
						t.Helper()
						all.begin(handle)
						_, err := m.call(t.Context(), s, "")
						if got := all.received(); got != want || err == nil {
							t.Errorf("%s, %s: received %v, %v", deployment, what, got, err)
						}
					}
					check("reset", row.lost, func(w http.ResponseWriter, _ *http.Request, _ string) { reset(hijack(w)) })
					check("closed", row.lost, func(w http.ResponseWriter, _ *http.Request, _ string) { _ = hijack(w).Close() })
					check("no SOAP", row.lost, func(w http.ResponseWriter, _ *http.Request, _ string) {
						write(w, http.StatusServiceUnavailable, "text/html", "<html/>")
					})
					check("no XML", row.lost, answering("<"))
					check("another operation", row.lost, answering(envelope("<logonResponse><results>"+success+"</results></logonResponse>")))
					check("no result codes", row.lost, answering(m.with("")))
					for _, code := range []string{"Server", "Receiver"} {
						check("Fault "+code, row.fault, answerFault(code))
					}
					for _, status := range []string{"STAT_COMMS", "STAT_MEMORY", "STAT_OS_FAILURE", "STAT_LICENCE"} {
						check(status, row.fault, answering(m.with(failed(status, -10))))
					}
					for _, code := range []string{"Client", "Sender", "VersionMismatch", "MustUnderstand"} {
						check("Fault "+code, nowhere, answerFault(code))
					}
					for status, code := range business {
						want := nowhere
						if deployment == DeploymentReplicated && slices.Contains(goesOn[name], status) {
							want = everywhere
						}
						check(status, want, answering(m.with(failed(status, code))))
					}

					// Nothing sent: every command goes to the next instance.
					all.begin(m.succeeding())
					down := all.instances()
					down[0] = newTestInstance(t, "first", deadAddress(t), nil)
					got, err := m.call(t.Context(), newServers(t, Config{Instances: down, Deployment: deployment, Policy: PolicyFirst}), "")
					if received := all.received(); received != [3]int64{0, 1, 0} || err != nil || !reflect.DeepEqual(got, m.want("second")) {
						t.Errorf("%s, nothing sent: received %v, %+v, %v", deployment, received, got, err)
					}
				}
			})
		}
	}
	if seen != len(methods) {
		t.Errorf("%d commands of %d", seen, len(methods))
	}
}

// No answer in time leaves the outcome unknown like a connection that is lost.
func TestRetryClassesInTime(t *testing.T) {
	t.Parallel()
	var group sync.WaitGroup
	for _, row := range retryRows {
		for _, name := range row.commands {
			m, all := methods[name], newCluster(t)
			group.Go(func() {
				// The time is for answers, not for handshakes.
				all.begin(m.succeeding())
				open := newServers(t, Config{Instances: all.instances(), Policy: PolicyRoundRobin})
				for range all.peers {
					if _, err := m.call(t.Context(), open, ""); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
				all.begin(func(_ http.ResponseWriter, r *http.Request, _ string) { <-r.Context().Done() })
				s := newServers(t, Config{Instances: all.instances(), Timeout: time.Second})
				_, err := m.call(t.Context(), s, "")
				if got := all.received(); got != row.lost || !errors.Is(err, ErrTimeout) {
					t.Errorf("%s: received %v, %v", name, got, err)
				}
			})
		}
	}
	group.Wait()
}

// A command that names its instance goes only there in a replicated deployment.
// With a shared database it begins there; an instance that does not exist is no
// reason to fail.
func TestAffinity(t *testing.T) {
	t.Parallel()
	for name, m := range methods {
		switch name {
		case "MDL_REGISTER", "REGISTER", "dsappSRPRegister", "updateDevicePNID", "getPreparedSecureChallenge", "getPreparedSignatureRequest":
			continue // begin wherever the policy says
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := newCluster(t)
			down := all.instances()
			down[1] = newTestInstance(t, "second", deadAddress(t), nil)
			for _, test := range []struct {
				deployment Deployment
				instances  []Instance
				name       string
				received   [3]int64
				want       string // instance; empty if the command is not sent
			}{
				{DeploymentReplicated, all.instances(), "second", [3]int64{0, 1, 0}, "second"},
				{DeploymentReplicated, down, "second", [3]int64{0, 0, 0}, ""},
				{DeploymentReplicated, all.instances(), "gone", [3]int64{0, 0, 0}, ""},
				{DeploymentShared, all.instances(), "second", [3]int64{0, 1, 0}, "second"},
				{DeploymentShared, down, "second", [3]int64{1, 0, 0}, "first"},
				{DeploymentShared, all.instances(), "gone", [3]int64{1, 0, 0}, "first"},
			} {
				all.begin(m.succeeding())
				got, err := m.call(t.Context(), newServers(t, Config{Instances: test.instances, Deployment: test.deployment, Policy: PolicyFirst}), test.name)
				if received := all.received(); received != test.received {
					t.Errorf("%+v: received %v", test, received)
				}
				if test.want == "" {
					if failure := checkFailure(t, test.name, err, ErrNotSent); failure.Instance != test.name {
						t.Errorf("%+v: %+v", test, failure)
					}
				} else if err != nil || !reflect.DeepEqual(got, m.want(test.want)) {
					t.Errorf("%+v: %+v, %v", test, got, err)
				}
			}
		})
	}
}

// Each instance gets its turn, and only commands that begin a flow take one:
// however those with an instance of their own come between, the others are
// spread evenly.
func TestRoundRobin(t *testing.T) {
	t.Parallel()
	m := methods["authSignature"]
	all := newCluster(t)
	all.begin(m.succeeding())
	s := newServers(t, Config{Instances: all.instances(), Deployment: DeploymentShared})
	var order []string
	for range 6 {
		got, err := m.call(t.Context(), s, "")
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, got.instance)
		for range 2 {
			if got, err := m.call(t.Context(), s, "second"); err != nil || got.instance != "second" {
				t.Errorf("%+v, %v", got, err)
			}
		}
	}
	if want := []string{"first", "second", "third", "first", "second", "third"}; !slices.Equal(order, want) {
		t.Errorf("%q", order)
	}
	// An instance that does not exist is none to follow.
	all.begin(m.succeeding())
	for range 3 {
		if _, err := m.call(t.Context(), s, "gone"); err != nil {
			t.Error(err)
		}
	}
	if got := all.received(); got != [3]int64{1, 1, 1} {
		t.Errorf("received %v", got)
	}

	all.begin(m.succeeding())
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 15 {
				if _, err := m.call(t.Context(), s, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if got := all.received(); got != [3]int64{20, 20, 20} {
		t.Errorf("received %v", got)
	}
}

// Each command takes its own turns: those that always follow each other in the
// same order still meet every instance.
func TestRoundRobinOfSequences(t *testing.T) {
	t.Parallel()
	var instances []Instance
	answers := map[string]string{}
	for _, name := range []string{"first", "second"} {
		instances = append(instances, stub(name, func(r *http.Request) (*http.Response, error) {
			sent, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			for part, answer := range answers {
				if strings.Contains(string(sent), part) {
					return respond(answering(answer)), nil
				}
			}
			return nil, errors.New("another command")
		}))
	}
	sequence := []string{"REGISTER", "updateDevicePNID"}
	for _, name := range sequence {
		m := methods[name]
		answers[name] = m.with(success)
	}
	for _, deployment := range []Deployment{DeploymentReplicated, DeploymentShared} {
		s := newServers(t, Config{Instances: instances, Deployment: deployment, Policy: PolicyRoundRobin})
		for i := range 6 {
			for _, name := range sequence {
				m := methods[name]
				got, err := m.call(t.Context(), s, "")
				if want := m.want([]string{"first", "second"}[i%2]); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%s, round %d of %s: %+v, %v", deployment, i, name, got, err)
				}
			}
		}
	}
}

// Only one of several instances that share nothing can have what is pending.
func TestReplicated(t *testing.T) {
	t.Parallel()
	two := []Instance{stub("first", refusedDial), stub("second", refusedDial)}
	for _, test := range []struct {
		deployment Deployment
		instances  []Instance
		want       bool
	}{
		{"", two, true},
		{DeploymentReplicated, two, true},
		{DeploymentReplicated, two[:1], false},
		{DeploymentShared, two, false},
		{DeploymentShared, two[:1], false},
	} {
		if got := newServers(t, Config{Instances: test.instances, Deployment: test.deployment}).Replicated(); got != test.want {
			t.Errorf("%q, %d instances: %v", test.deployment, len(test.instances), got)
		}
	}
}

// The policy follows from the deployment unless it is configured.
func TestPolicyDefault(t *testing.T) {
	t.Parallel()
	m := methods["authSignature"]
	all := newCluster(t)
	for _, test := range []struct {
		deployment Deployment
		policy     Policy
		want       [3]int64
	}{
		{"", "", [3]int64{3, 0, 0}},
		{DeploymentReplicated, "", [3]int64{3, 0, 0}},
		{DeploymentReplicated, PolicyRoundRobin, [3]int64{1, 1, 1}},
		{DeploymentShared, "", [3]int64{1, 1, 1}},
		{DeploymentShared, PolicyFirst, [3]int64{3, 0, 0}},
	} {
		all.begin(m.succeeding())
		s := newServers(t, Config{Instances: all.instances(), Deployment: test.deployment, Policy: test.policy})
		for range 3 {
			if _, err := m.call(t.Context(), s, ""); err != nil {
				t.Fatal(err)
			}
		}
		if got := all.received(); got != test.want {
			t.Errorf("%q, %q: received %v", test.deployment, test.policy, got)
		}
	}
}

// behaviours of an instance that is asked for a pending request, by a letter.
var behaviours = map[rune]func(m *method) func(http.ResponseWriter, *http.Request, string){
	's': (*method).succeeding,
	'n': func(m *method) func(http.ResponseWriter, *http.Request, string) {
		return answering(m.with(failed("STAT_NOT_FOUND", -13)))
	},
	'o': func(m *method) func(http.ResponseWriter, *http.Request, string) {
		return answering(m.with(failed("STAT_NOSUPPORT", -99)))
	},
	'c': func(m *method) func(http.ResponseWriter, *http.Request, string) {
		return answering(m.with(failed("STAT_COMMS", -10)))
	},
	'f': func(*method) func(http.ResponseWriter, *http.Request, string) { return answerFault("Server") },
	'i': func(m *method) func(http.ResponseWriter, *http.Request, string) {
		return answering(m.with(failed("STAT_INVPARAM", -2)))
	},
	'l': func(*method) func(http.ResponseWriter, *http.Request, string) {
		return func(w http.ResponseWriter, _ *http.Request, _ string) { reset(hijack(w)) }
	},
	'x': func(*method) func(http.ResponseWriter, *http.Request, string) { return answering("x") },
	'C': func(*method) func(http.ResponseWriter, *http.Request, string) { return answerFault("Client") },
}

// ended tells in one word how a command ended.
func ended(err error) string {
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

// How a retrieval and a cancel with a wrapped key end, by what the instances in
// their order do ("-" is one that is down), how many of them receive the command
// and which one the error names.
func TestSearch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		deployment Deployment
		behaviour  string
		received   string
		want       string
	}{
		// Replicated: the next one is asked until one has it.
		{DeploymentReplicated, "sss", "100", "success"},
		{DeploymentReplicated, "nsn", "110", "success"},
		{DeploymentReplicated, "nns", "111", "success"},
		{DeploymentReplicated, "-ns", "011", "success"},
		{DeploymentReplicated, "cns", "111", "success"},
		{DeploymentReplicated, "fns", "111", "success"},
		{DeploymentReplicated, "--s", "001", "success"},
		// Not there, if all of them say so.
		{DeploymentReplicated, "nnn", "111", "STAT_NOT_FOUND"},
		{DeploymentReplicated, "n", "1", "STAT_NOT_FOUND"},
		// Undecided, if one of them could not.
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
		// An unknown outcome and every other status end it.
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
			search(t, name, test.deployment, test.behaviour, test.received, test.want)
			// Only to a cancel the other status says no more than the first one.
			if strings.HasPrefix(name, "cancel") {
				test.behaviour = strings.ReplaceAll(test.behaviour, "n", "o")
				test.want = strings.ReplaceAll(test.want, "STAT_NOT_FOUND", "STAT_NOSUPPORT")
				search(t, name, test.deployment, test.behaviour, test.received, test.want)
			}
		}
	}
	search(t, "getPreparedSecureChallenge", DeploymentReplicated, "nos", "110", "STAT_NOSUPPORT")
	search(t, "cancelAuthUser", DeploymentReplicated, "non", "111", "STAT_NOT_FOUND")
	search(t, "cancelAuthUser", DeploymentReplicated, "nno", "111", "STAT_NOSUPPORT")
}

// search carries out one line of TestSearch.
func search(t *testing.T, name string, deployment Deployment, behaviour, received, want string) {
	t.Helper()
	m := methods[name]
	var instances []Instance
	got := make([]int, len(behaviour))
	for i, b := range behaviour {
		in := Instance{Name: fmt.Sprint("i", i), URL: &url.URL{Scheme: "https", Host: "oas"}, MaxConnections: 1}
		in.Transport = transport(func(r *http.Request) (*http.Response, error) {
			if b == '-' {
				return nil, io.ErrClosedPipe
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return nil, err
			}
			got[i]++
			if b == 'l' {
				return nil, io.ErrUnexpectedEOF
			}
			return respond(behaviours[b](&m)), nil
		})
		instances = append(instances, in)
	}
	s := newServers(t, Config{Instances: instances, Deployment: deployment, Policy: PolicyFirst})
	_, err := m.call(t.Context(), s, "")
	if counts := strings.Trim(fmt.Sprint(got), "[]"); strings.ReplaceAll(counts, " ", "") != received || ended(err) != want {
		t.Errorf("%s, %s, %s: received %s, %v", name, deployment, behaviour, counts, err)
	}
	if failure, ok := errors.AsType[*CallError](err); ok && want == "undecided" {
		// The gateway tells failures apart by what an error is: nothing else may
		// shine through.
		_, refusal := errors.AsType[*Refusal](err)
		_, fault := errors.AsType[*soap.Fault](err)
		if errors.Is(err, ErrNotSent) || refusal || fault || failure.Cause == nil {
			t.Errorf("%s: %v is something else, too", behaviour, err)
		}
		if i := strings.TrimPrefix(failure.Instance, "i"); !strings.Contains("-cf", string(behaviour[i[0]-'0'])) {
			t.Errorf("%s: %v names an instance that could answer", behaviour, err)
		}
	}
}

// respond records what a handler answers.
func respond(handle func(http.ResponseWriter, *http.Request, string)) *http.Response {
	w := &recordedAnswer{header: http.Header{}, status: http.StatusOK}
	handle(w, nil, "")
	return &http.Response{StatusCode: w.status, Header: w.header, Body: io.NopCloser(strings.NewReader(w.body.String()))}
}

type recordedAnswer struct {
	header http.Header
	status int
	body   strings.Builder
}

func (r *recordedAnswer) Header() http.Header         { return r.header }
func (r *recordedAnswer) WriteHeader(status int)      { r.status = status }
func (r *recordedAnswer) Write(b []byte) (int, error) { return r.body.Write(b) }

// A cancel goes to the instances that its device has requests on, in that order
// and to each once; without Probe the first answer counts.
func TestCancelInstances(t *testing.T) {
	t.Parallel()
	m := methods["cancelAuthUser"]
	notFound := answering(m.with(failed("STAT_NOT_FOUND", -13)))
	all := newCluster(t)
	down := all.instances()
	down[0] = newTestInstance(t, "first", deadAddress(t), nil)
	for name, test := range map[string]struct {
		instances  []Instance
		deployment Deployment
		names      []string
		probe      bool
		handle     func(http.ResponseWriter, *http.Request, string)
		received   [3]int64
		want       string
	}{
		"two":              {nil, "", []string{"third", "first"}, true, notFound, [3]int64{1, 0, 1}, "STAT_NOT_FOUND"},
		"two, found":       {nil, "", []string{"third", "first"}, true, m.succeeding(), [3]int64{0, 0, 1}, "success"},
		"twice the same":   {nil, "", []string{"third", "third"}, true, notFound, [3]int64{0, 0, 1}, "STAT_NOT_FOUND"},
		"one":              {nil, "", []string{"second"}, false, notFound, [3]int64{0, 1, 0}, "STAT_NOT_FOUND"},
		"no probe":         {nil, "", []string{"second", "third"}, false, notFound, [3]int64{0, 1, 0}, "STAT_NOT_FOUND"},
		"nowhere, probe":   {nil, "", nil, true, notFound, [3]int64{1, 1, 1}, "STAT_NOT_FOUND"},
		"nowhere":          {nil, "", nil, false, notFound, [3]int64{1, 0, 0}, "STAT_NOT_FOUND"},
		"one is down":      {down, "", []string{"first", "second"}, true, notFound, [3]int64{0, 1, 0}, "undecided"},
		"only one, down":   {down, "", []string{"first"}, true, notFound, [3]int64{0, 0, 0}, "not sent"},
		"first down":       {down, "", nil, false, notFound, [3]int64{0, 1, 0}, "STAT_NOT_FOUND"},
		"one is gone":      {nil, "", []string{"gone", "second"}, true, notFound, [3]int64{0, 1, 0}, "undecided"},
		"one gone, found":  {nil, "", []string{"gone", "second"}, true, m.succeeding(), [3]int64{0, 1, 0}, "success"},
		"all are gone":     {nil, "", []string{"gone", "left"}, true, notFound, [3]int64{0, 0, 0}, "not sent"},
		"shared":           {nil, DeploymentShared, []string{"third", "first"}, true, notFound, [3]int64{0, 0, 1}, "STAT_NOT_FOUND"},
		"shared, gone":     {nil, DeploymentShared, []string{"gone"}, true, notFound, [3]int64{1, 0, 0}, "STAT_NOT_FOUND"},
		"shared, down":     {down, DeploymentShared, []string{"first"}, true, m.succeeding(), [3]int64{0, 1, 0}, "success"},
		"shared, no probe": {nil, DeploymentShared, []string{"second"}, false, m.succeeding(), [3]int64{0, 1, 0}, "success"},
	} {
		if test.instances == nil {
			test.instances = all.instances()
		}
		all.begin(test.handle)
		s := newServers(t, Config{Instances: test.instances, Deployment: test.deployment, Policy: PolicyFirst})
		_, _, err := Call(t.Context(), s, Target{Instances: test.names, Search: test.probe}, soap.CancelAuthUser, cancelled)
		if got := all.received(); got != test.received || ended(err) != test.want {
			t.Errorf("%s: received %v, %v", name, got, err)
		}
	}
}

// A caller that goes away while instances are asked leaves open whether the next
// one has the request: that it does not exist would be a guess.
func TestSearchCanceled(t *testing.T) {
	t.Parallel()
	m := methods["getPreparedSecureChallenge"]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var instances []Instance
	asked := 0
	for _, name := range []string{"first", "second"} {
		instances = append(instances, Instance{
			Name: name, URL: &url.URL{Scheme: "https", Host: "oas"}, MaxConnections: 1,
			Transport: transport(func(r *http.Request) (*http.Response, error) {
				asked++
				_, _ = io.Copy(io.Discard, r.Body)
				response := respond(answering(m.with(failed("STAT_NOT_FOUND", -13))))
				response.Body = &notifying{Reader: response.Body, closed: cancel}
				return response, nil
			}),
		})
	}
	_, err := m.call(ctx, newServers(t, Config{Instances: instances}), "")
	if failure := checkFailure(t, "canceled", err, ErrUndecided); failure.Instance != "second" || asked != 1 {
		t.Errorf("%d asked: %+v", asked, failure)
	}
}

// notifying is a body that tells when it is closed.
type notifying struct {
	io.Reader
	closed func()
}

func (n *notifying) Close() error {
	n.closed()
	return nil
}

// The order of the instances and the outcome of a search agree with a second
// reading of the rules, whatever the instances do.
func TestSearchModel(t *testing.T) {
	t.Parallel()
	letters := slices.Sorted(maps.Keys(behaviours))
	rapid.Check(t, func(rt *rapid.T) {
		behaviour := string(rapid.SliceOfN(rapid.SampledFrom(append(letters, '-')), 1, 5).Draw(rt, "behaviour"))
		deployment := rapid.SampledFrom([]Deployment{DeploymentReplicated, DeploymentShared}).Draw(rt, "deployment")
		name := rapid.SampledFrom([]string{"getPreparedSignatureRequest", "cancelAuthSignatureRequest"}).Draw(rt, "command")

		// An answer is final at the first one that is none of these.
		passed := "-cf"
		if deployment == DeploymentReplicated {
			passed += "n"
			if name == "cancelAuthSignatureRequest" {
				passed += "o"
			}
		}
		last := strings.IndexFunc(behaviour, func(b rune) bool { return !strings.ContainsRune(passed, b) })
		var want string
		asked := behaviour
		if last >= 0 {
			asked = behaviour[:last+1]
			want = map[byte]string{
				's': "success", 'n': "STAT_NOT_FOUND", 'o': "STAT_NOSUPPORT", 'i': "STAT_INVPARAM", 'l': "lost", 'x': "nonsense", 'C': "nonsense",
			}[behaviour[last]]
		} else {
			switch denials := strings.Trim(behaviour, "-cf"); {
			case strings.Trim(behaviour, "-") == "":
				want = "not sent"
			case strings.ContainsAny(behaviour, "-cf"):
				want = "undecided"
			default:
				want = map[byte]string{'n': "STAT_NOT_FOUND", 'o': "STAT_NOSUPPORT"}[denials[len(denials)-1]]
			}
		}
		received := ""
		for i, b := range behaviour {
			if i < len(asked) && b != '-' {
				received += "1"
			} else {
				received += "0"
			}
		}
		search(t, name, deployment, behaviour, received, want)
		if t.Failed() {
			rt.FailNow()
		}
	})
}

// The cost of a command over TLS on a connection that is kept.
func BenchmarkCall(b *testing.B) {
	m := methods["MDL_REGISTER"]
	p := newPeer(b, "primary", m.succeeding())
	s := newServers(b, Config{Instances: []Instance{p.Instance}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.call(b.Context(), s, ""); err != nil {
			b.Fatal(err)
		}
	}
}
