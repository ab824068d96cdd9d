package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

var lostAnswerFlows = flag.Int("lost-answer-flows", 10_000, "how many flows each bench of TestSoakLostAnswers plays at full length")

const (
	// maxRepeats is how often a phone repeats a call whose answer it did not get.
	maxRepeats = 3
	// cutShare is the share of answers that are cut, and cutWithin the number of bytes of an
	// answer and its TLS records within which it is.
	cutShare, cutWithin = 0.4, 900
	// flowsOfServer is how many flows one simulated server serves: it keeps a request for a
	// while that no phone completes, and at most 1200.
	flowsOfServer = 1500
)

// cutter takes connections to a server and back, and cuts a share of the answers at a random
// byte, together with the connection.
type cutter struct {
	listener net.Listener
	target   string
	cut      atomic.Int64
}

func startCutter(t *testing.T, url string) (through string, c *cutter) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "https://"), "/")
	c = &cutter{listener: l, target: host}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.serve(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	name, _, err := net.SplitHostPort(host)
	require.NoError(t, err)
	return strings.TrimSuffix("https://"+net.JoinHostPort(name, port)+"/"+path, "/"), c
}

// serve carries the bytes of a connection. A chunk from the client that begins with a TLS
// record of application data is a request, whose answer gets a fate of its own.
func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	var left atomic.Int64 // bytes of the answer until the cut
	left.Store(1 << 40)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer client.Close()
		defer server.Close()
		buffer := make([]byte, 16<<10)
		for {
			n, err := server.Read(buffer)
			rest := left.Add(-int64(n))
			if rest < 0 {
				c.cut.Add(1)
				_, _ = client.Write(buffer[:max(0, int64(n)+rest)])
				_ = client.(*net.TCPConn).SetLinger(0)
				return
			}
			if _, failed := client.Write(buffer[:n]); err != nil || failed != nil {
				return
			}
		}
	})
	defer wg.Wait()
	defer server.Close()
	buffer := make([]byte, 16<<10)
	for {
		n, err := client.Read(buffer)
		if n > 0 && buffer[0] == 0x17 {
			left.Store(1 << 40)
			if rand.Float64() < cutShare {
				left.Store(rand.Int64N(cutWithin))
			}
		}
		if _, failed := server.Write(buffer[:n]); err != nil || failed != nil {
			return
		}
	}
}

// errGaveUp is the error of a call whose answer was lost each time.
var errGaveUp = errors.New("every answer was lost")

// repeating is the transport of a phone that repeats what it got no answer to.
type repeating struct {
	http.RoundTripper

	// again has an unknown outcome asked for once more, which must be the same.
	again   bool
	changed atomic.Int64
}

// RoundTrip implements http.RoundTripper. The second call of an exchange is not repeated: the
// phone begins the exchange again.
func (p *repeating) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	unknown := 0
	for lost := 0; lost <= maxRepeats; {
		request := r.Clone(r.Context())
		request.Body = io.NopCloser(bytes.NewReader(body))
		answer, err := p.RoundTripper.RoundTrip(request)
		if err == nil {
			var text []byte
			text, err = io.ReadAll(answer.Body)
			answer.Body.Close()
			answer.Body = io.NopCloser(bytes.NewReader(text))
		}
		if err != nil {
			if strings.HasSuffix(r.URL.Path, "DSAPPSRPGenerateActivationData") {
				break
			}
			lost++
			continue
		}
		outcome := answer.StatusCode
		switch {
		case unknown != 0 && outcome != unknown:
			p.changed.Add(1)
		case unknown == 0 && p.again && (outcome == http.StatusBadGateway || outcome == http.StatusGatewayTimeout):
			unknown = outcome
			continue
		}
		return answer, nil
	}
	return nil, errGaveUp
}

// lostAnswers is what became of the flows of one bench.
type lostAnswers struct {
	towards, repeat string

	flows, cuts                               int64
	carriedOut, reported, unknown, gaveUp     atomic.Int64
	refused, wrong, invented, changed, doubly atomic.Int64
	mu                                        sync.Mutex
	commands                                  map[[sha256.Size]byte]bool
	finals                                    map[string]bool // by key of the flow: carried out
	example                                   string
}

// watch notes which commands the server carries out.
func (b *lostAnswers) watch(server *testbed.Server) {
	b.commands, b.finals = map[[sha256.Size]byte]bool{}, map[string]bool{}
	server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		command := testbed.ReadCommand(r)
		recorder := httptest.NewRecorder()
		server.Server.ServeHTTP(recorder, r)
		b.note(command, recorder.Body.String())
		maps.Copy(w.Header(), recorder.Header())
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(recorder.Body.Bytes())
		return true
	})
}

func (b *lostAnswers) note(command, answer string) {
	final := strings.Contains(command, "PROVISIONCMD_MDL_ACTIVATE") || strings.Contains(command, "authSignature") || strings.Contains(command, "authUser")
	if !final && !strings.Contains(command, "getPrepared") && !strings.Contains(command, "PROVISIONCMD_MDL_ADD_DEVICE") {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	digest := sha256.Sum256([]byte(command))
	if b.commands[digest] {
		b.doubly.Add(1)
	}
	b.commands[digest] = true
	if final && strings.Contains(answer, "STAT_SUCCESS") {
		for _, text := range strings.FieldsFunc(command, func(r rune) bool { return r == '<' || r == '>' }) {
			if _, known := b.finals[text]; known {
				b.finals[text] = true
			}
		}
	}
}

// flow plays one flow. key names it in the final command.
func (b *lostAnswers) flow(key string, play func() error) {
	b.mu.Lock()
	b.finals[key] = false
	b.mu.Unlock()
	err := play()
	b.mu.Lock()
	done := b.finals[key]
	delete(b.finals, key)
	b.mu.Unlock()
	if done {
		b.carriedOut.Add(1)
	}
	refusal, answered := errors.AsType[*sandbox.RefusalError](err)
	switch {
	case err == nil:
		b.reported.Add(1)
		if !done {
			b.invented.Add(1)
		}
	case answered && (refusal.HTTPStatus == http.StatusBadGateway || refusal.HTTPStatus == http.StatusGatewayTimeout):
		b.unknown.Add(1)
	case !answered:
		b.gaveUp.Add(1)
	default:
		b.refused.Add(1)
		if done {
			b.wrong.Add(1)
		}
		b.mu.Lock()
		b.example = err.Error()
		b.mu.Unlock()
	}
}

// benchLostAnswers plays flows of activation, login and signature, in turns, while answers
// towards the phones or of the authentication server are cut.
func benchLostAnswers(t *testing.T, towards, repeat string, flows int) *lostAnswers {
	t.Helper()
	b := &lostAnswers{towards: towards, repeat: repeat, flows: int64(flows)}
	for ; flows > 0; flows -= flowsOfServer {
		b.play(t, min(flows, flowsOfServer))
	}
	return b
}

// play plays flows at an authentication server and a gateway of their own.
func (b *lostAnswers) play(t *testing.T, flows int) {
	t.Helper()
	towards := b.towards
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	url, upstream := startCutter(t, server.URL)
	if towards == "phone" {
		url = server.URL
	}
	g := testbed.StartQuietGateway(t, certs, url, func(dsapp testbed.Object) {
		dsapp["requests"] = testbed.Object{"repeat": b.repeat}
		dsapp["activation"] = testbed.Object{"max_activations": 100, "max_attempts": 100}
		dsapp["authentication_servers"].(testbed.Object)["breaker"] = testbed.Object{"failures": 1000}
		dsapp["authentication_servers"].(testbed.Object)["probe_interval"] = "0s"
	})
	phones, downstream := startCutter(t, g.URL)
	if towards == "server" {
		phones = g.URL
	}
	b.watch(server)

	const workers = 8
	var next atomic.Int64
	var wg sync.WaitGroup
	for number := range workers {
		client := testbed.NewClient(t, certs.Authority, "")
		transport := client.Transport.(*http.Transport)
		transport.ForceAttemptHTTP2 = false
		t.Cleanup(transport.CloseIdleConnections)
		r := &repeating{RoundTripper: transport, again: towards == "server"}
		client.Transport = r
		wg.Go(func() {
			w := &lossyWorker{b: b, t: t, g: g, app: server.Application(), number: number, phone: &sandbox.Phone{BaseURL: phones, APIKey: testbed.FrontEndKey, Client: client, Scan: true}}
			for n := next.Add(1); n <= int64(flows); n = next.Add(1) {
				w.play(int(n))
			}
			b.changed.Add(r.changed.Load())
		})
	}
	wg.Wait()
	b.cuts += upstream.cut.Load() + downstream.cut.Load()
	<-g.Terminate(t)
	server.Stop()
}

// lossyWorker plays one flow after the other.
type lossyWorker struct {
	b      *lostAnswers
	t      *testing.T
	g      *testbed.Gateway
	app    *sandbox.ApplicationServer
	phone  *sandbox.Phone
	number int
	device *sandbox.Authenticator
}

// register has the bank register a user, again if the outcome is unknown.
func (w *lossyWorker) register(user string) sandbox.RegisteredUser {
	bank := w.g.Phone()
	for {
		r, err := bank.RegisterUser(w.t.Context(), testbed.BackEndKey, sandbox.UserRegistration{UserID: user, Domain: testbed.Domain, StaticPassword: testbed.StaticPassword})
		if err == nil || w.t.Context().Err() != nil {
			return r
		}
	}
}

func (w *lossyWorker) play(n int) {
	ctx := w.t.Context()
	if w.device == nil || n%3 == 0 {
		user := testbed.ActivationUser(w.number)
		if w.device == nil {
			user = testbed.ActivationUser(testbed.MaxWorkers/2 + w.number)
		}
		r := w.register(user)
		w.b.flow(r.RegistrationIdentifier, func() (err error) {
			var a sandbox.Activation
			// An exchange whose last answer is lost begins again.
			for range maxRepeats + 1 {
				if a, err = w.phone.Activate(ctx, r.RegistrationIdentifier, r.ActivationPassword); err == nil || !errors.Is(err, errGaveUp) || !strings.Contains(err.Error(), "GenerateActivationData") {
					break
				}
			}
			if err == nil && w.device == nil {
				w.device = a.Authenticator
			}
			return err
		})
		return
	}
	a, kind := w.device, sandbox.KindLogin
	var key string
	var err error
	if n%3 == 1 {
		key, err = w.app.PrepareLogin(ctx, sandbox.LoginRequest{UserID: a.UserID, Domain: a.Domain, SerialNumber: a.SerialNumber, Message: "Sign in?"})
	} else {
		kind = sandbox.KindSignature
		key, err = w.app.PrepareSignature(ctx, sandbox.SignatureRequest{
			UserID: a.UserID, Domain: a.Domain, SerialNumber: a.SerialNumber, Title: "Transfer", Fields: []sandbox.RequestField{{Key: "Amount", Value: "100.00"}},
		})
	}
	if err != nil {
		w.t.Error(err)
		return
	}
	w.b.flow(key, func() error {
		pending, err := w.phone.Retrieve(context.WithoutCancel(ctx), kind, a, key)
		if err == nil {
			_, err = w.phone.Complete(ctx, kind, a, pending)
		}
		return err
	})
}

// Answers are lost on the way to the phone and on the way from the authentication server. With
// repeats, a flow that the server carried out is reported as carried out unless four answers in
// a row are lost, an unknown outcome stays the same, and no command is carried out twice.
// Without repeats the same bench counts what is lost.
func TestSoakLostAnswers(t *testing.T) {
	if !testbed.Soaking() {
		t.Parallel()
	}
	flows := testbed.Length(60, *lostAnswerFlows)
	var benches []*lostAnswers
	for _, towards := range []string{"phone", "server"} {
		b := benchLostAnswers(t, towards, "60s", flows)
		benches = append(benches, b)
		assert.Zero(t, b.wrong.Load(), "towards the %s: told that a flow failed that was carried out: %s", towards, b.example)
		assert.Zero(t, b.invented.Load(), "towards the %s: told that a flow was carried out that was not", towards)
		assert.Zero(t, b.doubly.Load(), "towards the %s: commands carried out twice", towards)
		assert.Zero(t, b.changed.Load(), "towards the %s: unknown outcomes that changed", towards)
		assert.Zero(t, b.refused.Load(), "towards the %s: refused: %s", towards, b.example)
		if towards == "phone" {
			assert.Zero(t, b.unknown.Load(), "unknown outcomes although the server answered")
			assert.LessOrEqual(t, b.carriedOut.Load()-b.reported.Load(), b.gaveUp.Load(), "flows that were carried out and not reported")
		}
		assert.Positive(t, b.cuts, "no answer was cut")
		assert.Positive(t, b.reported.Load(), "no flow was reported")
		if testbed.Soaking() {
			benches = append(benches, benchLostAnswers(t, towards, "0s", flows))
			fmt.Fprint(os.Stderr, lostAnswersTable(t, benches))
		}
	}
	t.Logf("lost answers:\n%s", lostAnswersTable(t, benches))
}

// lostAnswersTable has one row for each bench.
func lostAnswersTable(t *testing.T, benches []*lostAnswers) string {
	t.Helper()
	table := new(bytes.Buffer)
	w := tabwriter.NewWriter(table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "cut towards\trepeat\tflows\tanswers cut\tcarried out\treported\tunknown (502, 504)\tgave up\trefused\tof these carried out\tcommands twice")
	for _, b := range benches {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", b.towards, b.repeat, b.flows, b.cuts, b.carriedOut.Load(), b.reported.Load(),
			b.unknown.Load(), b.gaveUp.Load(), b.refused.Load(), b.wrong.Load(), b.doubly.Load())
	}
	require.NoError(t, w.Flush())
	return table.String()
}
