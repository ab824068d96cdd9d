//go:build linux

package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

const (
	defaultWorkers = 4
	maxClients     = 4 // connections to each gateway
)

// LoadOptions say what a load consists of.
type LoadOptions struct {
	// Gateways get the requests in turns. They must know the other application (see
	// AddOtherApplication).
	Gateways []*Gateway
	// Server gets the bank's requests for logins and signatures.
	Server *Server
	// Replicas take turns with Server.
	Replicas []*Server
	// Workers is how many requests are under way at the same time; 0 stands for 4.
	Workers int
	// Tolerate reports whether an answer that a scenario does not expect is a refusal that is
	// documented for this moment. The scenario ends with it. Without an answer, the status is
	// 0 and the body is the error. Nil tolerates nothing.
	Tolerate func(path string, status int, body string) bool
	// Scenarios are played in turns. None stands for AllScenarios.
	Scenarios []Scenario
	// Transport wraps the clients' transport. Nil leaves it as it is.
	Transport func(http.RoundTripper) http.RoundTripper
}

// Load is traffic of phones and of the bank over HTTP/2. Each worker waits for an answer
// before it sends the next request.
type Load struct {
	o       LoadOptions
	t       *testing.T
	ledger  *Ledger
	clients []*balancer
	workers []*worker

	stopped  chan struct{}
	stopping sync.Once
	wg       sync.WaitGroup

	identifiers sync.Map // of registrations
	salts       sync.Map // by identifier

	arrived map[*Server]int // cancels that had arrived before the load
	cancels atomic.Int64    // cancels that may arrive
}

// StartLoad starts a load that goes on until Stop or the end of the test. The ledger counts
// what becomes of each request.
func StartLoad(t *testing.T, l *Ledger, o LoadOptions) *Load {
	t.Helper()
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	require.LessOrEqual(t, o.Workers, MaxWorkers)
	if len(o.Scenarios) == 0 {
		o.Scenarios = AllScenarios
	}
	d := &Load{o: o, t: t, ledger: l, stopped: make(chan struct{}), arrived: make(map[*Server]int)}
	for _, server := range d.servers() {
		d.arrived[server] = cancelsAt(server)
	}
	for range min(o.Workers, maxClients) {
		d.clients = append(d.clients, &balancer{
			RoundTripper: NewClient(t, o.Gateways[0].Certificates.Authority, "").Transport.(*http.Transport), gateways: o.Gateways,
		})
	}
	for number := range o.Workers {
		d.workers = append(d.workers, newWorker(d, number))
	}
	for _, w := range d.workers {
		d.wg.Go(w.run)
	}
	l.mu.Lock()
	l.loads = append(l.loads, d)
	l.mu.Unlock()
	t.Cleanup(d.Stop)
	return d
}

// WarmUp plays every scenario of a load in every worker, and then has the ledger watch the
// gateways.
func WarmUp(t *testing.T, l *Ledger, o LoadOptions) {
	t.Helper()
	d := StartLoad(t, l, o)
	d.Turns(t, len(d.o.Scenarios))
	d.Stop()
	l.Watch(t, o.Gateways...)
}

// Turns waits until every worker has ended a number of scenarios. All but the first begin
// after the call.
func (d *Load) Turns(t *testing.T, count int) {
	t.Helper()
	goals := make([]int64, len(d.workers))
	for i, w := range d.workers {
		goals[i] = w.ended.Load() + int64(count)
	}
	done := func() bool {
		for i, w := range d.workers {
			if w.ended.Load() < goals[i] {
				return false
			}
		}
		return true
	}
	// However slow the machine is, requests get answers.
	for !done() {
		seen := d.ledger.Outcomes()
		poll.Until(t, "an answer to the load", func() bool { return done() || d.ledger.Outcomes() > seen })
	}
}

// Stop lets the workers end their scenarios and closes the connections.
func (d *Load) Stop() {
	d.stopping.Do(func() {
		close(d.stopped)
		d.wg.Wait()
		for _, c := range d.clients {
			c.RoundTripper.CloseIdleConnections()
		}
		arrived := 0
		for server, before := range d.arrived {
			arrived += cancelsAt(server) - before
		}
		if allowed := d.cancels.Load(); int64(arrived) > allowed {
			d.ledger.Broken("%d cancels arrived at the authentication server, %d could: foreign ones must not", arrived, allowed)
		}
	})
}

func (d *Load) servers() []*Server { return append([]*Server{d.o.Server}, d.o.Replicas...) }

func cancelsAt(server *Server) int {
	sum := 0
	for _, s := range RequestKinds {
		sum += server.Calls(s.CancelCommand)
	}
	return sum
}

// balancer sends requests to gateways in turns.
type balancer struct {
	RoundTripper *http.Transport
	gateways     []*Gateway
	next         atomic.Uint64
}

func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	g := b.gateways[(b.next.Add(1)-1)%uint64(len(b.gateways))]
	var connected, reused atomic.Bool
	sent := r.Clone(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			connected.Store(true)
			reused.Store(info.Reused)
		},
	}))
	sent.URL.Host = strings.TrimPrefix(g.URL, "https://")
	sent.Host = ""
	resp, err := b.RoundTripper.RoundTrip(sent)
	if err != nil {
		return nil, fmt.Errorf("%w (connected: %t, on a connection that was used before: %t)", err, connected.Load(), reused.Load())
	}
	return resp, nil
}

// session sends the requests of one worker, one after the other, and knows the last one. A
// request counts as answered when the next one is sent: the phone goes on only if the answer
// passes its checks.
type session struct {
	*balancer
	counted *Ledger

	open   bool // without an outcome yet
	path   string
	status int // 0 without an answer
	body   string
	took   time.Duration
	err    error
}

func (s *session) RoundTrip(r *http.Request) (*http.Response, error) {
	s.answered()
	s.counted.Sent()
	s.open, s.path, s.status, s.body = true, r.URL.Path, 0, ""
	began := time.Now()
	var resp *http.Response
	resp, s.err = s.balancer.RoundTrip(r)
	if s.err != nil {
		return nil, s.err
	}
	defer resp.Body.Close()
	var body []byte
	if body, s.err = io.ReadAll(resp.Body); s.err != nil {
		return nil, s.err
	}
	s.status, s.body, s.took = resp.StatusCode, string(body), time.Since(began)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	watch(r, resp)
	return resp, nil
}

// answered counts the last request as answered, if it has no outcome yet.
func (s *session) answered() {
	if s.open {
		s.counted.Answered()
	}
	s.open = false
}

// worker is a phone, a phone with another application, and the bank's site.
type worker struct {
	*Load
	*session
	number int
	ctx    context.Context
	client *http.Client
	phone  *sandbox.Phone
	other  *sandbox.Phone // another application
	turn   int            // scenarios so far
	played Scenario       // that is played now
	ended  atomic.Int64   // scenarios

	devices [2]*sandbox.Authenticator // activated when needed
}

func newWorker(d *Load, number int) *worker {
	w := &worker{
		Load: d, number: number, ctx: context.WithoutCancel(d.t.Context()), turn: number,
		session: &session{balancer: d.clients[number%len(d.clients)], counted: d.ledger},
	}
	w.client = &http.Client{Transport: w.session, Timeout: poll.Patience}
	if d.o.Transport != nil {
		w.client.Transport = d.o.Transport(w.session)
	}
	w.phone = &sandbox.Phone{BaseURL: d.o.Gateways[0].URL, APIKey: FrontEndKey, Client: w.client}
	w.other = &sandbox.Phone{BaseURL: d.o.Gateways[0].URL, APIKey: OtherFrontEndKey, Client: w.client}
	return w
}

func (w *worker) run() {
	for {
		select {
		case <-w.stopped:
			return
		default:
		}
		w.played = w.o.Scenarios[w.turn%len(w.o.Scenarios)]
		w.played.play(w)
		w.answered()
		w.turn++
		w.ended.Add(1)
	}
}

// require gives the last request its outcome: answered, if err is nil and ok is true. It
// reports whether the scenario goes on.
func (w *worker) require(err error, ok bool, what string) bool {
	if err == nil && ok {
		w.answered()
		return true
	}
	if !w.open {
		w.ledger.Broken("%s: %s without a request: %v", w.played.Name, what, err)
		return false
	}
	w.open = false
	tolerated := func(body string) bool { return w.o.Tolerate != nil && w.o.Tolerate(w.path, w.status, body) }
	switch {
	case w.session.err == nil && Late(w.status, w.took):
		w.ledger.Late()
	case w.session.err != nil && tolerated(w.session.err.Error()), w.session.err == nil && tolerated(w.body):
		w.ledger.Refused()
	case w.session.err != nil:
		w.ledger.Lost("%s: %s: %v", w.played.Name, w.path, w.session.err)
	default:
		w.ledger.Wrong("%s: %s: %s; status %d, error %v, answer %.500s", w.played.Name, w.path, what, w.status, err, w.body)
	}
	return false
}

// passed is require for an answer that the phone has checked.
func (w *worker) passed(err error) bool { return w.require(err, true, "a success") }

// refusedWith is require for a refusal with the name of a status and, unless answer is empty,
// exactly that answer.
func (w *worker) refusedWith(err error, status, answer string) bool {
	refusal := (*sandbox.RefusalError)(nil)
	ok := errors.As(err, &refusal) && w.status == http.StatusOK &&
		refusal.ResultCodes.StatusCodeEnum == status && (answer == "" || w.body == answer)
	if ok {
		err = nil
	}
	return w.require(err, ok, "a refusal with "+status)
}

// post sends a request that no phone sends. The session has the answer.
func (w *worker) post(service, key string, members Object) error {
	body, err := json.Marshal(members)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(w.ctx, http.MethodPost, w.o.Gateways[0].URL+service, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(key, "")
	resp, err := w.client.Do(r)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// AllowCancels allows so many cancels to arrive besides those of the load: the test's own.
func (d *Load) AllowCancels(n int) { d.cancels.Add(int64(n)) }
