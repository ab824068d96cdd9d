package authserver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// recorder keeps log records as text.
type recorder struct {
	mu    sync.Mutex
	lines []line
}

type line struct {
	level slog.Level
	text  string
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *recorder) WithGroup(string) slog.Handler            { return r }

func (r *recorder) Handle(_ context.Context, record slog.Record) error {
	text := record.Level.String() + " " + record.Message
	record.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line{record.Level, text})
	return nil
}

// at gives the records of a level.
func (r *recorder) at(level slog.Level) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var texts []string
	for _, l := range r.lines {
		if l.level == level {
			texts = append(texts, l.text)
		}
	}
	return texts
}

// reach gives the records on whether instances can be reached.
func (r *recorder) reachability() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var texts []string
	for _, l := range r.lines {
		if strings.Contains(l.text, " instance cannot be reached ") || strings.Contains(l.text, " instance reached again ") {
			texts = append(texts, l.text)
		}
	}
	return texts
}

// No record and no error tells a value of a command or an answer, even if the
// server repeats it in its texts.
func TestLogTellsNoValues(t *testing.T) {
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
		p := newPeer(t, "primary", answering(text))
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{p.Instance}, Logger: slog.New(records)}), request)
		if len(records.at(slog.LevelDebug)) != 1 {
			t.Errorf("%s: %q", name, records.at(slog.LevelDebug))
		}
		said := ""
		for _, l := range records.lines {
			said += l.text + "\n"
		}
		if err != nil {
			said += err.Error()
		}
		for _, value := range []string{secret, "jane.doe", "mydomain.com", am1[:20], "aB3dE6gH", "VDS1234567"} {
			if strings.Contains(said, value) {
				t.Errorf("%s: %q in %s", name, value, said)
			}
		}
	}
}

// The error stack is logged in the server's order, louder if the instance itself
// is broken; each call is logged once for debugging.
func TestLogStack(t *testing.T) {
	t.Parallel()
	stack := `<errorStack><errors><errorCode>-13</errorCode><errorDesc>first</errorDesc></errors><errors><errorCode>7</errorCode><errorDesc>x` +
		strings.Repeat("é", 400) + `</errorDesc></errors></errorStack>`
	for status, level := range map[string]slog.Level{"STAT_NOT_FOUND": slog.LevelInfo, "STAT_MEMORY": slog.LevelWarn} {
		records := &recorder{}
		p := newPeer(t, "primary", answering(refused("RET_FAILURE", status, -1, -13, stack)))
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{p.Instance}, Logger: slog.New(records)}), request)
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

// The name of a guessed attribute is logged once, however often it is used.
func TestLogGuessOnce(t *testing.T) {
	t.Parallel()
	records := &recorder{}
	p := newPeer(t, "primary", answering(strings.ReplaceAll(registered, "PROVFLD_ACTIVATION_MESSAGE", "PROVFLD_AM1")))
	s := newServers(t, Config{Instances: []Instance{p.Instance}, Logger: slog.New(records)})
	for range 3 {
		if got, err := register(t.Context(), s, request); err != nil || got.ActivationMessage != am1 {
			t.Errorf("%.20s, %v", got.ActivationMessage, err)
		}
	}
	if got := records.at(slog.LevelWarn); len(got) != 1 || !strings.HasSuffix(got[0], " attribute=PROVFLD_AM1") {
		t.Errorf("%q", got)
	}
}

// An instance that merely does not have what is searched is no news; every other
// refusal is, and also this one if no other instance can have it.
func TestLogStackOfSearch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		deployment Deployment
		instances  int
		command    string
		status     string
		debug      string // who is logged for debugging
		info       string
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
		m := methods[test.command]
		stack := `<errorStack><errors><errorCode>-13</errorCode><errorDesc>no</errorDesc></errors></errorStack>`
		answer := strings.NewReplacer("<errorStack/>", stack, "<errorStack></errorStack>", stack).Replace(m.with(failed(test.status, -13)))
		var instances []Instance
		for _, name := range []string{"first", "second", "third"}[:test.instances] {
			instances = append(instances, stub(name, func(*http.Request) (*http.Response, error) {
				return respond(answering(answer)), nil
			}))
		}
		records := &recorder{}
		s := newServers(t, Config{Instances: instances, Deployment: test.deployment, Policy: PolicyFirst, Logger: slog.New(records)})
		if _, err := m.call(t.Context(), s, ""); ended(err) != test.status {
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

// stub is an instance whose transport is a function.
func stub(name string, f transport) Instance {
	return Instance{Name: name, URL: &url.URL{Scheme: "https", Host: "oas"}, Transport: f, MaxConnections: 9}
}

// refusedDial is how a transport fails that gets no connection.
func refusedDial(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
}

const (
	lostLine = "WARN instance cannot be reached operation=PROVISIONCMD_MDL_REGISTER instance=primary cause=dial tcp: connection refused"
	backLine = "INFO instance reached again operation=PROVISIONCMD_MDL_REGISTER instance=primary"
)

// Only a change is logged: the first command that finds no connection, and the
// first one after it that gets an answer of any kind.
func TestLogReach(t *testing.T) {
	t.Parallel()
	var next transport
	records := &recorder{}
	s := newServers(t, Config{
		Instances: []Instance{stub("primary", func(r *http.Request) (*http.Response, error) { return next(r) })},
		Logger:    slog.New(records),
	})
	answer := func(handle func(http.ResponseWriter, *http.Request, string)) transport {
		return func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			return respond(handle), nil
		}
	}
	lost := func(r *http.Request) (*http.Response, error) {
		_, _ = io.Copy(io.Discard, r.Body)
		return nil, io.ErrUnexpectedEOF
	}
	success := answer(answering(registered))
	var want []string
	for i, step := range []struct {
		does transport
		log  string
	}{
		{success, ""},
		{lost, ""},
		{refusedDial, lostLine},
		{refusedDial, ""},
		{lost, ""},
		{success, backLine},
		{success, ""},
		{refusedDial, lostLine},
		{answer(answering(refused("RET_FAILURE", "STAT_COMMS", -1, -10, ""))), backLine},
		{refusedDial, lostLine},
		{answer(answerFault("Server")), backLine},
		{refusedDial, lostLine},
		{answer(func(w http.ResponseWriter, _ *http.Request, _ string) {
			write(w, http.StatusServiceUnavailable, "text/html", "<html/>")
		}), backLine},
	} {
		next = step.does
		_, _ = register(t.Context(), s, request)
		if step.log != "" {
			want = append(want, step.log)
		}
		if got := records.reachability(); !slices.Equal(got, want) {
			t.Fatalf("step %d: %q", i, got)
		}
	}
}

// What keeps a command from being sent without being the fault of the connection
// says nothing about the instance.
func TestLogReachOtherCauses(t *testing.T) {
	t.Parallel()
	waiting := func(hooks func(*httptrace.ClientTrace)) transport {
		return func(r *http.Request) (*http.Response, error) {
			hooks(httptrace.ContextClientTrace(r.Context()))
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
	}
	dialing := waiting(func(h *httptrace.ClientTrace) { h.GetConn("oas:443") })
	connected := waiting(func(h *httptrace.ClientTrace) {
		h.GetConn("oas:443")
		h.GotConn(httptrace.GotConnInfo{})
	})
	brief := func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, 20*time.Millisecond)
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
		"no connection in time":         {transport: dialing, timeout: 20 * time.Millisecond, warns: 1},
		"connection, but no turn on it": {transport: connected, timeout: 20 * time.Millisecond},
		"caller's deadline":             {transport: dialing, caller: brief},
		"caller is gone": {transport: dialing, caller: func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}},
		"full queue":          {transport: refusedDial, busy: true},
		"too long in queue":   {transport: refusedDial, busy: true, queue: 1, timeout: 20 * time.Millisecond},
		"caller out of queue": {transport: refusedDial, busy: true, queue: 1, caller: brief},
		"value":               {transport: refusedDial, password: "\x00"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			records := &recorder{}
			in := stub("primary", test.transport)
			in.MaxConnections, in.MaxQueue, in.State = 1, test.queue, new(State)
			if test.busy {
				if err := in.State.limiter.acquire(t.Context(), unreserved(1, 0)); err != nil {
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
	}
}

// An instance that is down is visible in the log while another one answers, and
// so is its return; the state is one of each Servers.
func TestLogReachInFailover(t *testing.T) {
	t.Parallel()
	primary := newPeer(t, "primary", answering(registered))
	backup := newPeer(t, "backup", answering(registered))
	var down atomic.Bool
	wire := primary.Transport.(*http.Transport)
	wire.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if down.Load() {
			return nil, errors.New("no route to host")
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	primary.State = new(State)
	for range 2 {
		records := &recorder{}
		s := newServers(t, Config{Instances: []Instance{primary.Instance, backup.Instance}, Logger: slog.New(records)})
		for i, want := range []string{"backup", "backup", "primary", "primary"} {
			down.Store(i < 2)
			if i == 0 {
				wire.CloseIdleConnections()
			}
			if got, err := register(t.Context(), s, request); err != nil || got.instance != want {
				t.Errorf("%q, %v", got.instance, err)
			}
		}
		if got := records.at(slog.LevelWarn); !slices.Equal(got, []string{
			"WARN instance cannot be reached operation=PROVISIONCMD_MDL_REGISTER instance=primary cause=no route to host",
		}) {
			t.Errorf("%q", got)
		}
		if got := records.at(slog.LevelInfo); !slices.Equal(got, []string{backLine}) {
			t.Errorf("%q", got)
		}
	}
}

// However many commands meet a change, it is logged once, and a command that was
// under way during the change does not undo it.
func TestLogReachConcurrently(t *testing.T) {
	t.Parallel()
	const callers = 8
	var down atomic.Bool
	var barrier atomic.Pointer[sync.WaitGroup]
	records := &recorder{}
	in := stub("primary", func(r *http.Request) (*http.Response, error) {
		broken := down.Load()
		if b := barrier.Load(); b != nil {
			b.Done()
			b.Wait() // all are under way
		}
		if broken {
			return refusedDial(r)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		return respond(answering(registered)), nil
	})
	s := newServers(t, Config{Instances: []Instance{in}, Logger: slog.New(records)})
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

	// The first one gets its answer only after the second one found no connection.
	barrier.Store(nil)
	sent, proceed := make(chan struct{}), make(chan struct{})
	var slow atomic.Bool
	slow.Store(true)
	records = &recorder{}
	s = newServers(t, Config{Instances: []Instance{stub("primary", func(r *http.Request) (*http.Response, error) {
		if slow.CompareAndSwap(true, false) {
			_, _ = io.Copy(io.Discard, r.Body)
			close(sent)
			<-proceed
			return respond(answering(registered)), nil
		}
		return in.Transport.RoundTrip(r)
	})}, Logger: slog.New(records)})
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
