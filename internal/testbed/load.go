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

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

const defaultWorkers = 4

const maxClients = 4 // connections to each gateway

// loadOptions say what a load is made of.
type LoadOptions struct {
	// Gateways take turns, as behind a load balancer: a request that gets no
	// connection to one goes to the next. They must know the other application
	// (see withOtherApplication).
	Gateways []*Gateway
	// Server is where the bank asks for logins and signatures.
	Server *Server
	// Replicas are further ones, which take turns with Server.
	Replicas []*Server
	// Workers send one request after the other; 0 stands for 4.
	Workers int
	// Tolerate says whether an answer that is not what a scenario requires is a
	// refusal documented for this moment. The scenario ends with it. service is the
	// path below /rest/v2/; status is 0 if there was no answer, and body the error
	// then. Nil tolerates nothing.
	Tolerate func(service string, status int, body string) bool
	// Scenarios to play in turns, allScenarios if empty.
	Scenarios []Scenario
	// Transport wraps the clients' transport. Nil leaves it as it is.
	Transport func(http.RoundTripper) http.RoundTripper
}

// load is closed-loop HTTP/2 traffic of phones and of the bank.
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

	arrived map[*Server]int // cancels before the load
	cancels atomic.Int64    // that may have arrived
}

// startLoad begins a load that goes on until Stop or the end of the test. What
// becomes of each request is told to the ledger.
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

// warmUp plays every scenario of a load in every worker, and then watches the
// gateways.
func WarmUp(t *testing.T, l *Ledger, o LoadOptions) {
	t.Helper()
	d := StartLoad(t, l, o)
	d.Turns(t, len(d.o.Scenarios))
	d.Stop()
	l.Watch(t, o.Gateways...)
}

// Turns waits until every worker has ended so many scenarios, of which all but
// the first began after the call.
func (d *Load) Turns(t *testing.T, count int) {
	t.Helper()
	goals := make([]int64, len(d.workers))
	for i, w := range d.workers {
		goals[i] = w.ended.Load() + int64(count)
	}
	poll.Until(t, "turns of the load", func() bool {
		for i, w := range d.workers {
			if w.ended.Load() < goals[i] {
				return false
			}
		}
		return true
	})
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

// session carries the calls of one worker, one after the other, and knows the
// last one. A call counts as answered when the next one is made: the phone goes
// on only if the answer stood up to its checks.
type session struct {
	*balancer
	told *Ledger

	open    bool
	service string
	status  int // 0 without an answer
	body    string
	err     error
}

func (s *session) RoundTrip(r *http.Request) (*http.Response, error) {
	s.answered()
	s.told.Sent()
	s.open, s.service, s.status, s.body = true, r.URL.Path, 0, ""
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
	s.status, s.body = resp.StatusCode, string(body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// answered ends the last call, if it has no outcome yet.
func (s *session) answered() {
	if s.open {
		s.told.Answered()
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
	turn   int
	played Scenario
	ended  atomic.Int64

	devices [2]*sandbox.Authenticator // activated when needed
}

func newWorker(d *Load, number int) *worker {
	w := &worker{
		Load: d, number: number, ctx: context.WithoutCancel(d.t.Context()), turn: number,
		session: &session{balancer: d.clients[number%len(d.clients)], told: d.ledger},
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

// require ends the last call: it was answered as required if err is nil and ok
// is true. It reports whether the scenario goes on.
func (w *worker) require(err error, ok bool, what string) bool {
	if err == nil && ok {
		w.answered()
		return true
	}
	if !w.open {
		w.ledger.Broken("%s: %s without a call: %v", w.played.Name, what, err)
		return false
	}
	w.open = false
	tolerated := func(body string) bool { return w.o.Tolerate != nil && w.o.Tolerate(w.service, w.status, body) }
	switch {
	case w.session.err != nil && tolerated(w.session.err.Error()), w.session.err == nil && tolerated(w.body):
		w.ledger.Refused()
	case w.session.err != nil:
		w.ledger.Lost("%s: %s: %v", w.played.Name, w.service, w.session.err)
	default:
		w.ledger.Wrong("%s: %s: %s; status %d, error %v, answer %.500s", w.played.Name, w.service, what, w.status, err, w.body)
	}
	return false
}

// passed is require for an answer that the phone has checked.
func (w *worker) passed(err error) bool { return w.require(err, true, "a success") }

// refusedWith is require for a refusal with a status and, if it is not empty, an
// answer that is the same to the byte.
func (w *worker) refusedWith(err error, status, answer string) bool {
	refusal := (*sandbox.RefusalError)(nil)
	ok := errors.As(err, &refusal) && w.status == http.StatusOK &&
		refusal.ResultCodes.StatusCodeEnum == status && (answer == "" || w.body == answer)
	if ok {
		err = nil
	}
	return w.require(err, ok, "a refusal with "+status)
}

// post makes a call that is no phone's. The answer is in the session.
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

// AllowCancels tells that the test itself has so many requests cancelled meanwhile.
func (d *Load) AllowCancels(n int) { d.cancels.Add(int64(n)) }
