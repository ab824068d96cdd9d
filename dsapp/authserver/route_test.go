package authserver

import (
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// cluster is three authentication servers that all behave in the same way, which the test
// changes.
type cluster struct {
	mu    sync.Mutex
	does  transport
	calls [3]int64
}

// begin sets the behavior and resets the counters.
func (c *cluster) begin(does transport) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.does, c.calls = does, [3]int64{}
}

// received returns how many commands each of the servers has received.
func (c *cluster) received() [3]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

func (c *cluster) instances() []Instance {
	var list []Instance
	for i, name := range []string{"first", "second", "third"} {
		list = append(list, stub(name, transport(func(r *http.Request) (*http.Response, error) {
			c.mu.Lock()
			c.calls[i]++
			does := c.does
			c.mu.Unlock()
			return does(r)
		})))
	}
	return list
}

// without returns the instances, of which one cannot be reached.
func (c *cluster) without(i int) []Instance {
	list := c.instances()
	list[i].Transport = transport(refusedDial)
	return list
}

// retryRow is a row of the table of retry classes: how many commands each of three servers
// receives if all of them fail.
type retryRow struct {
	commands []string
	// lost: sent, outcome unknown. fault: the server reports that it is broken.
	lost, fault [3]int64
}

// Where a command is sent.
var (
	firstOnly = [3]int64{1, 0, 0}
	firstTwo  = [3]int64{1, 1, 0}
	all       = [3]int64{1, 1, 1}
)

var retryRows = []retryRow{
	{[]string{"updateDevicePNID"}, firstTwo, all},
	{[]string{"getPreparedSecureChallenge", "getPreparedSignatureRequest"}, firstOnly, all},
	{[]string{"cancelAuthUser", "cancelAuthSignatureRequest"}, firstOnly, all},
	{[]string{"authUser (OTP)"}, firstOnly, firstOnly},
	{[]string{"authUser (completing)", "authSignature"}, firstOnly, firstOnly},
	{[]string{"MDL_REGISTER", "REGISTER", "dsappSRPRegister"}, firstOnly, firstOnly},
	{[]string{"dsappSRPGenerateEphemeralKey"}, firstOnly, firstOnly},
	{[]string{"dsappSRPGenerateActivationData"}, firstOnly, firstOnly},
	{[]string{"MDL_ADD_DEVICE"}, firstOnly, firstOnly},
	{[]string{"MDL_ACTIVATE", "ACTIVATE", "dsappSRPActivate"}, firstOnly, firstOnly},
}

// If all of three servers fail in the same way, the retry class of a command and the kind of the
// failure decide which of them receive it. If nothing was sent to the first one, the second one
// receives every command.
func TestRetryClasses(t *testing.T) {
	t.Parallel()
	// The statuses after which a search goes on in a replicated deployment.
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
			sample, ok := samples[name]
			if !ok {
				t.Fatal(name)
			}
			seen++
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					servers := &cluster{}
					for _, deployment := range []Deployment{DeploymentReplicated, DeploymentShared} {
						s := newServers(t, Config{Instances: servers.instances(), Deployment: deployment, Policy: PolicyFirst})
						check := func(what string, want [3]int64, does transport) {
							t.Helper()
							servers.begin(does)
							_, err := sample.call(t.Context(), s, "")
							if got := servers.received(); got != want || err == nil {
								t.Errorf("%s, %s: received %v, %v", deployment, what, got, err)
							}
						}
						check("connection lost", row.lost, dropping)
						check("no answer in time", row.lost, hanging)
						check("no SOAP", row.lost, sending(writing(http.StatusServiceUnavailable, "text/html", "<html/>")))
						for what, text := range map[string]string{
							"no XML":            "<",
							"another operation": envelope("<logonResponse><results>" + success + "</results></logonResponse>"),
							"no result codes":   sample.answerWith(""),
						} {
							check(what, row.lost, sending(answering(text)))
						}
						for _, code := range []string{"Server", "Receiver"} {
							check("Fault "+code, row.fault, sending(answerFault(code)))
						}
						for _, status := range []string{"STAT_COMMS", "STAT_MEMORY", "STAT_OS_FAILURE", "STAT_LICENCE"} {
							check(status, row.fault, sending(answering(sample.answerWith(failed(status, -10)))))
						}
						for _, code := range []string{"Client", "Sender", "VersionMismatch", "MustUnderstand"} {
							check("Fault "+code, firstOnly, sending(answerFault(code)))
						}
						for status, code := range business {
							want := firstOnly
							if deployment == DeploymentReplicated && slices.Contains(goesOn[name], status) {
								want = all
							}
							check(status, want, sending(answering(sample.answerWith(failed(status, code)))))
						}

						servers.begin(sending(sample.succeed()))
						got, err := sample.call(t.Context(), newServers(t, Config{Instances: servers.without(0), Deployment: deployment, Policy: PolicyFirst}), "")
						if received := servers.received(); received != [3]int64{0, 1, 0} || err != nil || !reflect.DeepEqual(got, sample.want("second")) {
							t.Errorf("%s, nothing sent: received %v, %+v, %v", deployment, received, got, err)
						}
					}
				})
			})
		}
	}
	if seen != len(samples) {
		t.Errorf("%d commands of %d", seen, len(samples))
	}
}

// In a replicated deployment, a command that names an instance is sent only there. With a shared
// database it is sent there first, and a name for which there is no instance is ignored.
func TestAffinity(t *testing.T) {
	t.Parallel()
	for name, sample := range samples {
		switch name {
		case "MDL_REGISTER", "REGISTER", "dsappSRPRegister", "updateDevicePNID", "getPreparedSecureChallenge", "getPreparedSignatureRequest":
			continue // the policy decides
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers := &cluster{}
			down := servers.without(1)
			for _, test := range []struct {
				deployment Deployment
				instances  []Instance
				name       string
				received   [3]int64
				want       string // instance; empty if the command is not sent
			}{
				{DeploymentReplicated, servers.instances(), "second", [3]int64{0, 1, 0}, "second"},
				{DeploymentReplicated, down, "second", [3]int64{0, 0, 0}, ""},
				{DeploymentReplicated, servers.instances(), "gone", [3]int64{0, 0, 0}, ""},
				{DeploymentShared, servers.instances(), "second", [3]int64{0, 1, 0}, "second"},
				{DeploymentShared, down, "second", [3]int64{1, 0, 0}, "first"},
				{DeploymentShared, servers.instances(), "gone", [3]int64{1, 0, 0}, "first"},
			} {
				servers.begin(sending(sample.succeed()))
				got, err := sample.call(t.Context(), newServers(t, Config{Instances: test.instances, Deployment: test.deployment, Policy: PolicyFirst}), test.name)
				if received := servers.received(); received != test.received {
					t.Errorf("%+v: received %v", test, received)
				}
				if test.want == "" {
					if failure := checkFailure(t, test.name, err, ErrNotSent); failure.Instance != test.name {
						t.Errorf("%+v: %+v", test, failure)
					}
				} else if err != nil || !reflect.DeepEqual(got, sample.want(test.want)) {
					t.Errorf("%+v: %+v, %v", test, got, err)
				}
			}
		})
	}
}

// Round robin spreads the commands without an instance of their own evenly, whatever commands
// with an instance of their own come between them.
func TestRoundRobin(t *testing.T) {
	t.Parallel()
	sample := samples["authSignature"]
	servers := &cluster{}
	servers.begin(sending(sample.succeed()))
	s := newServers(t, Config{Instances: servers.instances(), Deployment: DeploymentShared})
	var order []string
	for range 6 {
		got, err := sample.call(t.Context(), s, "")
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, got.instance)
		for range 2 {
			if got, err := sample.call(t.Context(), s, "second"); err != nil || got.instance != "second" {
				t.Errorf("%+v, %v", got, err)
			}
		}
	}
	if want := []string{"first", "second", "third", "first", "second", "third"}; !slices.Equal(order, want) {
		t.Errorf("%q", order)
	}
	// A command for an instance that does not exist takes a turn, too.
	servers.begin(sending(sample.succeed()))
	for range 3 {
		if _, err := sample.call(t.Context(), s, "gone"); err != nil {
			t.Error(err)
		}
	}
	if got := servers.received(); got != [3]int64{1, 1, 1} {
		t.Errorf("received %v", got)
	}

	servers.begin(sending(sample.succeed()))
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 15 {
				if _, err := sample.call(t.Context(), s, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if got := servers.received(); got != [3]int64{20, 20, 20} {
		t.Errorf("received %v", got)
	}
}

// Each command has turns of its own, so that commands of a fixed sequence are sent to every
// instance.
func TestRoundRobinOfSequences(t *testing.T) {
	t.Parallel()
	var instances []Instance
	answers := map[string]string{}
	for _, name := range []string{"first", "second"} {
		instances = append(instances, stub(name, sending(func(w http.ResponseWriter, r *http.Request, command string) {
			for part, answer := range answers {
				if strings.Contains(command, part) {
					answering(answer)(w, r, command)
				}
			}
		})))
	}
	sequence := []string{"REGISTER", "updateDevicePNID"}
	for _, name := range sequence {
		sample := samples[name]
		answers[name] = sample.answerWith(success)
	}
	for _, deployment := range []Deployment{DeploymentReplicated, DeploymentShared} {
		s := newServers(t, Config{Instances: instances, Deployment: deployment, Policy: PolicyRoundRobin})
		for i := range 6 {
			for _, name := range sequence {
				sample := samples[name]
				got, err := sample.call(t.Context(), s, "")
				if want := sample.want([]string{"first", "second"}[i%2]); err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%s, round %d of %s: %+v, %v", deployment, i, name, got, err)
				}
			}
		}
	}
}

// Only with several instances and without a shared database can an instance lack what another
// one has.
func TestReplicated(t *testing.T) {
	t.Parallel()
	two := []Instance{stub("first", transport(refusedDial)), stub("second", transport(refusedDial))}
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

// The default of the policy depends on the deployment. The first policy prefers the first
// instance.
func TestPolicyDefault(t *testing.T) {
	t.Parallel()
	sample := samples["authSignature"]
	servers := &cluster{}
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
		servers.begin(sending(sample.succeed()))
		s := newServers(t, Config{Instances: servers.instances(), Deployment: test.deployment, Policy: test.policy})
		for range 3 {
			if _, err := sample.call(t.Context(), s, ""); err != nil {
				t.Fatal(err)
			}
		}
		if got := servers.received(); got != test.want {
			t.Errorf("%q, %q: received %v", test.deployment, test.policy, got)
		}
	}
}

// A command that the first instance may have carried out is not reported as not sent because the
// second one cannot be reached.
func TestUnknownOutcomeStays(t *testing.T) {
	t.Parallel()
	s := newServers(t, Config{Instances: []Instance{stub("primary", transport(dropping)), stub("dead", transport(refusedDial))}})
	sample := samples["updateDevicePNID"]
	_, err := sample.call(t.Context(), s, "")
	if failure, ok := errors.AsType[*CallError](err); !ok || failure.Instance != "primary" || failure.Reason != ErrNoAnswer {
		t.Errorf("%v", err)
	}
}

// BenchmarkCall measures a command over a TLS connection that exists already.
func BenchmarkCall(b *testing.B) {
	sample := samples["MDL_REGISTER"]
	p := newPeer(b, "primary", sample.succeed())
	s := newServers(b, Config{Instances: []Instance{p.Instance}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sample.call(b.Context(), s, ""); err != nil {
			b.Fatal(err)
		}
	}
}
