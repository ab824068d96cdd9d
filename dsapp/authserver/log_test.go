package authserver

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/httpclient"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// No record and no error contains a value of a command or an answer, even if the server repeats it
// in its texts.
func TestNoValuesInLog(t *testing.T) {
	t.Parallel()
	stack := `<errorStack><errors><errorCode>-1</errorCode><errorDesc>user jane.doe@mydomain.com gave ` + secret + `</errorDesc></errors></errorStack>`
	for name, text := range map[string]string{
		"success":      strings.Replace(registered, "<errorStack/>", stack, 1),
		"refusal":      refused("RET_FAILURE", "STAT_INVCREDENTIALS", -1, 1000, stack),
		"coded fault":  refused("RET_FAILURE", "STAT_COMMS", -1, -10, stack),
		"Fault":        envelope(`<Fault><faultcode>` + secret + `</faultcode><faultstring>` + secret + ` of jane.doe</faultstring></Fault>`),
		"other answer": envelope(`<sesame>` + secret + `</sesame>`),
		"no XML":       secret,
		"guess":        strings.ReplaceAll(registered, "PROVFLD_ACTIVATION_MESSAGE", "PROVFLD_AM1"),
	} {
		records := &recorder{}
		in := stub("primary", sending(answering(text)))
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{in}, Logger: slog.New(records)}), request)
		if len(records.at(slog.LevelDebug)) != 1 {
			t.Errorf("%s: %q", name, records.at(slog.LevelDebug))
		}
		texts := strings.Join(records.lines, "\n")
		if err != nil {
			texts += err.Error()
		}
		for _, value := range []string{secret, "jane.doe", "mydomain.com", am1[:20], "aB3dE6gH", "VDS1234567"} {
			if strings.Contains(texts, value) {
				t.Errorf("%s: %q in %s", name, value, texts)
			}
		}
	}
}

// The error stack is logged in the server's order, at a higher level if the instance is broken.
// Each attempt is logged once at DEBUG.
func TestLogStack(t *testing.T) {
	t.Parallel()
	stack := `<errorStack><errors><errorCode>-13</errorCode><errorDesc>first</errorDesc></errors><errors><errorCode>7</errorCode><errorDesc>x` +
		strings.Repeat("é", 400) + `</errorDesc></errors></errorStack>`
	for status, level := range map[string]slog.Level{"STAT_NOT_FOUND": slog.LevelInfo, "STAT_MEMORY": slog.LevelWarn} {
		records := &recorder{}
		in := stub("primary", sending(answering(refused("RET_FAILURE", status, -1, -13, stack))))
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{in}, Logger: slog.New(records)}), request)
		if _, ok := errors.AsType[*Refusal](err); !ok {
			t.Fatal(err)
		}
		want := level.String() + " error stack of the authentication server operation=PROVISIONCMD_MDL_REGISTER instance=primary status=" + status +
			" errors=[-13: first 7: x" + strings.Repeat("é", 255) + "…]"
		if got := records.at(level); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q", status, got)
		}
		got := records.at(slog.LevelDebug)
		if len(got) != 1 || !strings.HasPrefix(got[0], "DEBUG authentication server called operation=PROVISIONCMD_MDL_REGISTER instance=primary duration=") ||
			!strings.HasSuffix(got[0], " status="+status) {
			t.Errorf("%s: %q", status, got)
		}
	}
}

// The name of an attribute that was taken for an activation message is logged only once.
func TestLogGuessOnce(t *testing.T) {
	t.Parallel()
	records := &recorder{}
	in := stub("primary", sending(answering(strings.ReplaceAll(registered, "PROVFLD_ACTIVATION_MESSAGE", "PROVFLD_AM1"))))
	s := newServers(t, Config{Instances: []Instance{in}, Logger: slog.New(records)})
	for range 3 {
		if got, err := register(t.Context(), s, request); err != nil || got.ActivationMessage != am1 {
			t.Errorf("%.20s, %v", got.ActivationMessage, err)
		}
	}
	if got := records.at(slog.LevelWarn); len(got) != 1 || !strings.HasSuffix(got[0], " attribute=PROVFLD_AM1") {
		t.Errorf("%q", got)
	}
}

// If an instance does not have a request that is searched on several, the error stack is logged at
// DEBUG only. Those of all other refusals are logged at INFO.
func TestLogStackOfSearch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		deployment Deployment
		instances  int
		command    string
		status     string
		debug      string // the instances that are logged at DEBUG
		info       string // the instances that are logged at INFO
	}{
		{DeploymentReplicated, 3, "getPreparedSecureChallenge", "STAT_NOT_FOUND", "first second third", ""},
		{DeploymentReplicated, 3, "getPreparedSignatureRequest", "STAT_NOT_FOUND", "first second third", ""},
		{DeploymentReplicated, 3, "cancelAuthUser", "STAT_NOT_FOUND", "first second third", ""},
		{DeploymentReplicated, 3, "cancelAuthSignatureRequest", "STAT_NOSUPPORT", "first second third", ""},
		{DeploymentReplicated, 3, "getPreparedSecureChallenge", "STAT_NOSUPPORT", "", "first"},
		{DeploymentReplicated, 3, "cancelAuthUser", "STAT_INVPARAM", "", "first"},
		{DeploymentReplicated, 3, "authSignature", "STAT_NOT_FOUND", "", "first"},
		{DeploymentReplicated, 1, "getPreparedSecureChallenge", "STAT_NOT_FOUND", "", "first"},
		{DeploymentShared, 3, "getPreparedSecureChallenge", "STAT_NOT_FOUND", "", "first"},
	} {
		sample := samples[test.command]
		stack := `<errorStack><errors><errorCode>-13</errorCode><errorDesc>no</errorDesc></errors></errorStack>`
		answer := strings.NewReplacer("<errorStack/>", stack, "<errorStack></errorStack>", stack).Replace(sample.answerWith(failed(test.status, -13)))
		var instances []Instance
		for _, name := range []string{"first", "second", "third"}[:test.instances] {
			instances = append(instances, stub(name, sending(answering(answer))))
		}
		records := &recorder{}
		s := newServers(t, Config{Instances: instances, Deployment: test.deployment, Policy: PolicyFirst, Logger: slog.New(records)})
		if _, err := sample.call(t.Context(), s, ""); describe(err) != test.status {
			t.Errorf("%+v: %v", test, err)
		}
		logged := func(level slog.Level) string {
			var names []string
			for _, l := range records.at(level) {
				if _, rest, ok := strings.Cut(l, "error stack of the authentication server operation="+test.command+" instance="); ok {
					name, _, _ := strings.Cut(rest, " ")
					names = append(names, name)
				}
			}
			return strings.Join(names, " ")
		}
		if debug, info := logged(slog.LevelDebug), logged(slog.LevelInfo); debug != test.debug || info != test.info {
			t.Errorf("%+v: DEBUG of %q, INFO of %q", test, debug, info)
		}
	}
}

const (
	lostLine = "WARN instance cannot be reached operation=PROVISIONCMD_MDL_REGISTER instance=primary cause=dial tcp: connection refused"
	backLine = "INFO instance reached again operation=PROVISIONCMD_MDL_REGISTER instance=primary"
)

// Only changes are logged: the first command that gets no connection, and the first one after it
// that gets an answer of any kind.
func TestLogReach(t *testing.T) {
	t.Parallel()
	server := &switchable{}
	records := &recorder{}
	s := newServers(t, Config{Instances: []Instance{stub("primary", server)}, Logger: slog.New(records)})
	success := sending(answering(registered))
	var want []string
	for i, step := range []struct {
		does transport
		log  string
	}{
		{success, ""},
		{dropping, ""},
		{refusedDial, lostLine},
		{refusedDial, ""},
		{dropping, ""},
		{success, backLine},
		{success, ""},
		{refusedDial, lostLine},
		{sending(answering(refused("RET_FAILURE", "STAT_COMMS", -1, -10, ""))), backLine},
		{refusedDial, lostLine},
		{sending(answerFault("Server")), backLine},
		{refusedDial, lostLine},
		{sending(writing(http.StatusServiceUnavailable, "text/html", "<html/>")), backLine},
	} {
		server.set(step.does)
		_, _ = register(t.Context(), s, request)
		if step.log != "" {
			want = append(want, step.log)
		}
		if got := records.reachability(); !slices.Equal(got, want) {
			t.Fatalf("step %d: %q", i, got)
		}
	}
}

// An instance counts as unreachable if a command waited for a connection until the configured
// timeout, but not if it was not sent for another reason.
func TestLogReachOtherCauses(t *testing.T) {
	t.Parallel()
	hanging := func(connecting bool) transport {
		return func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, &httpclient.NotSentError{Err: r.Context().Err(), Connecting: connecting}
		}
	}
	dialing, connected := hanging(true), hanging(false)
	brief := func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, time.Second)
	}
	for name, test := range map[string]struct {
		transport transport
		timeout   time.Duration
		caller    func(context.Context) (context.Context, context.CancelFunc)
		busy      bool
		queue     int
		password  string
		warns     int
	}{
		"no connection in time":    {transport: dialing, timeout: time.Second, warns: 1},
		"connection, but not used": {transport: connected, timeout: time.Second},
		"caller's deadline":        {transport: dialing, caller: brief},
		"caller is gone": {transport: dialing, caller: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}},
		"full queue":          {transport: refusedDial, busy: true},
		"too long in queue":   {transport: refusedDial, busy: true, queue: 1, timeout: time.Second},
		"caller out of queue": {transport: refusedDial, busy: true, queue: 1, caller: brief},
		"value":               {transport: refusedDial, password: "\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				records := &recorder{}
				in := stub("primary", test.transport)
				in.MaxConnections, in.MaxQueue, in.State = 1, test.queue, new(State)
				if test.busy {
					if err := in.State.limiter.acquire(t.Context(), later, unreserved(1, 0)); err != nil {
						t.Fatal(err)
					}
				}
				s := newServers(t, Config{Instances: []Instance{in}, Timeout: test.timeout, Logger: slog.New(records)})
				ctx := t.Context()
				if test.caller != nil {
					var cancel context.CancelFunc
					ctx, cancel = test.caller(ctx)
					defer cancel()
				}
				r := request
				r.StaticPassword += form.StaticPassword(test.password)
				_, err := register(ctx, s, r)
				checkFailure(t, name, err, ErrNotSent)
				if got := records.reachability(); len(got) != test.warns {
					t.Errorf("%q", got)
				}
			})
		})
	}
}

// A change is logged once, however many commands notice it. A command that began before a change
// does not undo it.
func TestLogReachConcurrently(t *testing.T) {
	t.Parallel()
	const callers = 8
	var down atomic.Bool
	var barrier atomic.Pointer[sync.WaitGroup]
	records := &recorder{}
	answers := transport(func(r *http.Request) (*http.Response, error) {
		broken := down.Load()
		if b := barrier.Load(); b != nil {
			b.Done()
			b.Wait() // until all have begun
		}
		if broken {
			return refusedDial(r)
		}
		return sending(answering(registered))(r)
	})
	s := newServers(t, Config{Instances: []Instance{stub("primary", answers)}, Logger: slog.New(records)})
	var want []string
	for round := range 6 {
		down.Store(round%2 == 0)
		var all, group sync.WaitGroup
		all.Add(callers)
		barrier.Store(&all)
		for range callers {
			group.Go(func() { _, _ = register(t.Context(), s, request) })
		}
		group.Wait()
		want = append(want, []string{lostLine, backLine}[round%2])
		if got := records.reachability(); !slices.Equal(got, want) {
			t.Fatalf("%q", got)
		}
	}

	// The first command gets its answer only after the second one got no connection.
	barrier.Store(nil)
	sent, proceed := make(chan struct{}), make(chan struct{})
	var slow atomic.Bool
	slow.Store(true)
	records = &recorder{}
	s = newServers(t, Config{Instances: []Instance{stub("primary", transport(func(r *http.Request) (*http.Response, error) {
		if slow.CompareAndSwap(true, false) {
			close(sent)
			<-proceed
			return sending(answering(registered))(r)
		}
		return answers(r)
	}))}, Logger: slog.New(records)})
	first := make(chan error, 1)
	go func() {
		_, err := register(t.Context(), s, request)
		first <- err
	}()
	<-sent
	down.Store(true)
	_, err := register(t.Context(), s, request)
	checkFailure(t, "second", err, ErrNotSent)
	close(proceed)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if got := records.reachability(); !slices.Equal(got, []string{lostLine}) {
		t.Errorf("%q", got)
	}
	down.Store(false)
	if _, err := register(t.Context(), s, request); err != nil || !slices.Equal(records.reachability(), []string{lostLine, backLine}) {
		t.Errorf("%q, %v", records.reachability(), err)
	}
}
