package main

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
)

const (
	defaultWorkers = 4
	maxWorkers     = 64
	maxDevices     = 512
	maxClients     = 4 // connections to each gateway

	restPath = "/rest/v2/"

	addDeviceService    = "provisioning/MdlAddDevice"
	ephemeralKeyService = "provisioning/DSAPPSRPGenerateEphemeralKey"
	activationService   = "provisioning/DSAPPSRPGenerateActivationData"
	serverTimeService   = "provisioning/getServerTime"
	passwordService     = "authentication/authUser"
)

// loadUsers are two for each worker: wrong passwords lock a user, and the more
// devices a user has the likelier a one-time password is that of another one.
func loadUsers() []sandbox.User {
	var users []sandbox.User
	add := func(name string) {
		users = append(users, sandbox.User{Name: name, Domain: domain, StaticPassword: staticPassword, Licenses: 1000})
	}
	for number := range maxWorkers {
		add(activationUser(number))
	}
	for number := range maxDevices {
		add(deviceUser(number))
	}
	return users
}

func deviceUser(number int) string     { return fmt.Sprintf("load-device-%d", number) }
func activationUser(number int) string { return fmt.Sprintf("load-activation-%d", number) }

// startQuietGateway is startGateway for a gateway under load: it knows the other
// application and logs warnings only.
func startQuietGateway(t *testing.T, certs sandbox.Certificates, server string, edit func(dsapp object)) *gateway {
	t.Helper()
	g := configure(t, certs, server, func(dsapp object) {
		withOtherApplication(dsapp)
		if edit != nil {
			edit(dsapp)
		}
	})
	g.Quiet()
	g.Start(t)
	return g
}

// Quiet lets the next configuration log warnings only, and no access.
func (g *gateway) Quiet() {
	g.Config["logging"].(object)["logs"].(object)["default"].(object)["level"] = "WARN"
	delete(g.Config["apps"].(object)["http"].(object)["servers"].(object)["gateway"].(object), "logs")
}

// loadOptions say what a load is made of.
type loadOptions struct {
	// Gateways take turns, as behind a load balancer: a request that gets no
	// connection to one goes to the next. They must know the other application
	// (see withOtherApplication).
	Gateways []*gateway
	// Server is where the bank asks for logins and signatures.
	Server *oas
	// Replicas are further ones, which take turns with Server.
	Replicas []*oas
	// Workers send one request after the other; 0 stands for 4.
	Workers int
	// Tolerate says whether an answer that is not what a scenario requires is a
	// refusal documented for this moment. The scenario ends with it. service is the
	// path below /rest/v2/; status is 0 if there was no answer, and body the error
	// then. Nil tolerates nothing.
	Tolerate func(service string, status int, body string) bool
	// Scenarios to play in turns, allScenarios if empty.
	Scenarios []scenario
}

// load is closed-loop HTTP/2 traffic of phones and of the bank.
type load struct {
	o       loadOptions
	t       *testing.T
	ledger  *ledger
	clients []*balancer
	workers []*worker

	stopped  chan struct{}
	stopping sync.Once
	wg       sync.WaitGroup

	identifiers sync.Map // of registrations
	salts       sync.Map // by identifier

	arrived map[*oas]int // cancels before the load
	cancels atomic.Int64 // that may have arrived
}

// startLoad begins a load that goes on until Stop or the end of the test. What
// becomes of each request is told to the ledger.
func startLoad(t *testing.T, l *ledger, o loadOptions) *load {
	t.Helper()
	if o.Workers == 0 {
		o.Workers = defaultWorkers
	}
	require.LessOrEqual(t, o.Workers, maxWorkers)
	if len(o.Scenarios) == 0 {
		o.Scenarios = allScenarios
	}
	d := &load{o: o, t: t, ledger: l, stopped: make(chan struct{}), arrived: make(map[*oas]int)}
	for _, server := range d.servers() {
		d.arrived[server] = cancelsAt(server)
	}
	for range min(o.Workers, maxClients) {
		d.clients = append(d.clients, &balancer{
			RoundTripper: client(t, o.Gateways[0].certs.Authority, "").Transport.(*http.Transport), gateways: o.Gateways,
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
func warmUp(t *testing.T, l *ledger, o loadOptions) {
	t.Helper()
	d := startLoad(t, l, o)
	d.Turns(t, len(d.o.Scenarios))
	d.Stop()
	l.Watch(t, o.Gateways...)
}

// Turns waits until every worker has ended so many scenarios, of which all but
// the first began after the call.
func (d *load) Turns(t *testing.T, count int) {
	t.Helper()
	goals := make([]int64, len(d.workers))
	for i, w := range d.workers {
		goals[i] = w.ended.Load() + int64(count)
	}
	poll(t, "turns of the load", func() bool {
		for i, w := range d.workers {
			if w.ended.Load() < goals[i] {
				return false
			}
		}
		return true
	})
}

// Stop lets the workers end their scenarios and closes the connections.
func (d *load) Stop() {
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

func (d *load) servers() []*oas { return append([]*oas{d.o.Server}, d.o.Replicas...) }

func cancelsAt(server *oas) int {
	sum := 0
	for _, s := range kinds {
		sum += server.Calls(s.cancelCommand)
	}
	return sum
}

// balancer sends requests to gateways in turns.
type balancer struct {
	RoundTripper *http.Transport
	gateways     []*gateway
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
	told *ledger

	open    bool
	service string
	status  int // 0 without an answer
	body    string
	err     error
}

func (s *session) RoundTrip(r *http.Request) (*http.Response, error) {
	s.answered()
	s.told.Sent()
	s.open, s.service, s.status, s.body = true, strings.TrimPrefix(r.URL.Path, restPath), 0, ""
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
	*load
	*session
	number int
	ctx    context.Context
	client *http.Client
	phone  *sandbox.Phone
	other  *sandbox.Phone // another application
	turn   int
	played scenario
	ended  atomic.Int64

	devices [2]*sandbox.Authenticator // activated when needed
}

func newWorker(d *load, number int) *worker {
	w := &worker{
		load: d, number: number, ctx: context.WithoutCancel(d.t.Context()), turn: number,
		session: &session{balancer: d.clients[number%len(d.clients)], told: d.ledger},
	}
	w.client = &http.Client{Transport: w.session, Timeout: deadline}
	w.phone = &sandbox.Phone{BaseURL: d.o.Gateways[0].URL, APIKey: frontEndKey, Client: w.client}
	w.other = &sandbox.Phone{BaseURL: d.o.Gateways[0].URL, APIKey: otherFrontEndKey, Client: w.client}
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

// scenario is a sequence of calls whose answers are known beforehand.
type scenario struct {
	name string
	play func(w *worker)
}

var (
	activations          = scenario{"activation", (*worker).activation}
	wrongPasswords       = scenario{"wrong activation password", (*worker).wrongPassword}
	unknownRegistrations = scenario{"unknown registration", (*worker).unknownRegistration}
	completions          = scenario{"completion", (*worker).completion}
	cancellations        = scenario{"cancellation", (*worker).cancellation}
	foreignCancels       = scenario{"foreign cancel", (*worker).foreignCancel}
	oneTimePasswords     = scenario{"one-time password", (*worker).oneTimePassword}
	serverTimes          = scenario{"server time", (*worker).serverTime}

	// allScenarios has those that cost little twice.
	allScenarios = []scenario{
		activations, serverTimes, oneTimePasswords, completions, unknownRegistrations,
		wrongPasswords, foreignCancels, serverTimes, oneTimePasswords, cancellations,
	}
)

// require ends the last call: it was answered as required if err is nil and ok
// is true. It reports whether the scenario goes on.
func (w *worker) require(err error, ok bool, what string) bool {
	if err == nil && ok {
		w.answered()
		return true
	}
	if !w.open {
		w.ledger.Broken("%s: %s without a call: %v", w.played.name, what, err)
		return false
	}
	w.open = false
	tolerated := func(body string) bool { return w.o.Tolerate != nil && w.o.Tolerate(w.service, w.status, body) }
	switch {
	case w.session.err != nil && tolerated(w.session.err.Error()), w.session.err == nil && tolerated(w.body):
		w.ledger.Refused()
	case w.session.err != nil:
		w.ledger.Lost("%s: %s: %v", w.played.name, w.service, w.session.err)
	default:
		w.ledger.Wrong("%s: %s: %s; status %d, error %v, answer %.500s", w.played.name, w.service, what, w.status, err, w.body)
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
func (w *worker) post(service, key string, members object) error {
	body, err := json.Marshal(members)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(w.ctx, http.MethodPost, w.o.Gateways[0].URL+restPath+service, bytes.NewReader(body))
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

// register plays the bank's site.
func (w *worker) register(user string) (sandbox.RegisteredUser, bool) {
	registered, err := w.phone.RegisterUser(w.ctx, backEndKey, sandbox.UserRegistration{
		UserID: user, Domain: domain, StaticPassword: staticPassword,
	})
	_, known := w.identifiers.LoadOrStore(registered.RegistrationIdentifier, nil)
	return registered, w.require(err, err != nil || !known, "a new registration identifier")
}

// activate completes a registration.
func (w *worker) activate(user string, r sandbox.RegisteredUser) (*sandbox.Authenticator, bool) {
	done, err := w.phone.Activate(w.ctx, r.RegistrationIdentifier, r.ActivationPassword)
	ok := w.require(err, done.UserID == user && done.Domain == domain, "an activation of the registered user")
	return done.Authenticator, ok
}

// closed makes the call by which a device is added: it must not be admitted.
func (w *worker) closed(r sandbox.RegisteredUser) bool {
	err := w.post(addDeviceService, frontEndKey, object{
		"registrationIdentifier": r.RegistrationIdentifier, "deviceCode": "12345678901234567890123456",
	})
	return w.require(err, w.status == http.StatusOK && w.body == refused, "no admission")
}

// activation is a whole one, after which the registration is gone.
func (w *worker) activation() {
	user := activationUser(w.number)
	r, ok := w.register(user)
	if !ok {
		return
	}
	if _, ok := w.activate(user, r); ok {
		w.closed(r)
	}
}

// wrongPassword tries a wrong activation password, which activates nothing, and
// then the right one.
func (w *worker) wrongPassword() {
	user := activationUser(w.number)
	r, ok := w.register(user)
	if !ok {
		return
	}
	_, err := w.phone.Activate(w.ctx, r.RegistrationIdentifier, "wrong-password")
	if err != nil && w.service == ephemeralKeyService {
		w.passed(err) // does not tell that the password is wrong
		return
	}
	if w.refusedWith(err, "STAT_INVCREDENTIALS", refused) && w.closed(r) {
		w.activate(user, r)
	}
}

// unknownRegistration makes both calls of an exchange for an identifier that was
// never registered. The salt of an identifier never changes.
func (w *worker) unknownRegistration() {
	identifier := fmt.Sprintf("LoadUnknown%d", w.turn%8)
	err := w.post(ephemeralKeyService, frontEndKey, object{"registrationIdentifier": identifier, "clientEphemeralPublicKey": "05"})
	var answer struct{ Result struct{ Salt string } }
	ok := err == nil && w.status == http.StatusOK && json.Unmarshal([]byte(w.body), &answer) == nil && answer.Result.Salt != ""
	if ok {
		salt, _ := w.salts.LoadOrStore(identifier, answer.Result.Salt)
		ok = salt == answer.Result.Salt
	}
	if !w.require(err, ok, "the salt of before") {
		return
	}
	err = w.post(activationService, frontEndKey, object{"registrationIdentifier": identifier, "clientEvidenceMessage": strings.Repeat("5A", 32)})
	w.require(err, w.status == http.StatusOK && w.body == refused, "a refusal")
}

// device gives one of two devices, which it activates if there is none.
func (w *worker) device(i int) (*sandbox.Authenticator, bool) {
	if w.devices[i] != nil {
		return w.devices[i], true
	}
	// By chance, six digits are also what another device of the same user shows.
	user := deviceUser(int(w.ledger.devices.Add(1)) % maxDevices)
	r, ok := w.register(user)
	if !ok {
		return nil, false
	}
	a, ok := w.activate(user, r)
	if !ok || !w.passed(w.phone.UpdateNotificationID(w.ctx, a, "push-"+a.SerialNumber)) {
		return nil, false
	}
	w.devices[i] = a
	return a, true
}

// bankRequest is a login or signature that the bank's application server waits for.
type bankRequest struct {
	kind     sandbox.Kind
	key      string
	answered chan error
	cancel   context.CancelFunc
}

// ask has the bank ask for a login or signature, in turns.
func (w *worker) ask(a *sandbox.Authenticator) (*bankRequest, bool) {
	servers := w.servers()
	server := servers[w.turn%len(servers)]
	known := make(map[string]bool)
	for _, push := range server.Pushes(a.SerialNumber) {
		known[push.Key] = true
	}
	q := &bankRequest{kind: sandbox.KindLogin, answered: make(chan error, 1)}
	if w.turn/len(w.o.Scenarios)%2 == 1 {
		q.kind = sandbox.KindSignature
	}
	var ctx context.Context
	ctx, q.cancel = context.WithCancel(w.ctx)
	go func() {
		var done sandbox.AuthenticatedUser
		var err error
		if q.kind == sandbox.KindLogin {
			done, err = server.Application().RequestLogin(ctx, sandbox.LoginRequest{
				UserID: a.UserID, Domain: a.Domain, SerialNumber: a.SerialNumber, Message: "Sign in?",
			})
		} else {
			done, err = server.Application().RequestSignature(ctx, sandbox.SignatureRequest{
				UserID: a.UserID, Domain: a.Domain, SerialNumber: a.SerialNumber, Title: "Transfer",
				Fields: []sandbox.RequestField{{Key: "Amount", Value: "100.00"}},
			})
		}
		if err == nil && done.SerialNumber != a.SerialNumber {
			err = fmt.Errorf("completed by %s", done.SerialNumber)
		}
		q.answered <- err
	}()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for {
		for _, push := range server.Pushes(a.SerialNumber) {
			if !known[push.Key] {
				q.key = push.Key
				return q, true
			}
		}
		select {
		case <-tick.C:
		case err := <-q.answered:
			// The bank's own calls count only for what the gateway did to them.
			q.cancel()
			if w.o.Tolerate == nil {
				w.ledger.Broken("%s: the bank's call ended before the push: %v", w.played.name, err)
			}
			return nil, false
		case <-timeout:
			q.cancel()
			w.ledger.Broken("%s: no push", w.played.name)
			return nil, false
		}
	}
}

// outcome waits for the answer to the bank.
func (q *bankRequest) outcome() error {
	select {
	case err := <-q.answered:
		return err
	case <-time.After(deadline):
		return context.DeadlineExceeded
	}
}

// retrieve fetches a request, after which no other application gets it.
func (w *worker) retrieve(a *sandbox.Authenticator, q *bankRequest) (sandbox.RetrievedRequest, bool) {
	pending, err := w.phone.Retrieve(w.ctx, q.kind, a, q.key)
	if !w.passed(err) {
		return pending, false
	}
	_, err = w.other.Retrieve(w.ctx, q.kind, a, q.key)
	return pending, w.refusedWith(err, "STAT_NOT_FOUND", "")
}

// complete approves a request, of which the bank learns.
func (w *worker) complete(a *sandbox.Authenticator, q *bankRequest, pending sandbox.RetrievedRequest) {
	done, err := w.phone.Complete(w.ctx, q.kind, a, pending)
	ok := err == nil && done.SerialNumber == a.SerialNumber && done.UserID == a.UserID && done.Domain == a.Domain
	what := "a completion by the device"
	if ok {
		if told := q.outcome(); told != nil {
			ok, what = false, fmt.Sprintf("a completion that the bank learns of, not %v", told)
		}
	}
	w.require(err, ok, what)
}

// begin has the bank ask and the first device retrieve.
func (w *worker) begin() (*sandbox.Authenticator, *bankRequest, sandbox.RetrievedRequest, bool) {
	a, ok := w.device(0)
	if !ok {
		return nil, nil, sandbox.RetrievedRequest{}, false
	}
	q, ok := w.ask(a)
	if !ok {
		return nil, nil, sandbox.RetrievedRequest{}, false
	}
	pending, ok := w.retrieve(a, q)
	if !ok {
		q.cancel()
	}
	return a, q, pending, ok
}

// completion is a login or signature that the device approves.
func (w *worker) completion() {
	if a, q, pending, ok := w.begin(); ok {
		defer q.cancel()
		w.complete(a, q, pending)
	}
}

// cancellation is a login or signature that the device rejects.
func (w *worker) cancellation() {
	a, q, _, ok := w.begin()
	if !ok {
		return
	}
	defer q.cancel()
	// A wrapped key can be sent to every instance.
	w.cancels.Add(int64(len(w.servers())))
	err := w.phone.Cancel(w.ctx, q.kind, a, q.key, w.wraps())
	what := "a rejection"
	if err == nil {
		told := q.outcome()
		if refusal := (*sandbox.RefusalError)(nil); !errors.As(told, &refusal) {
			ok, what = false, fmt.Sprintf("a rejection that the bank learns of, not %v", told)
		}
	}
	w.require(err, ok, what)
}

// wraps takes turns between the two forms of a key.
func (w *worker) wraps() bool { return w.turn/len(w.o.Scenarios)%4 < 2 }

// foreignCancel is a login or signature that another application and another
// device try in vain to reject, before the device approves it.
func (w *worker) foreignCancel() {
	b, ok := w.device(1)
	if !ok {
		return
	}
	a, q, pending, ok := w.begin()
	if !ok {
		return
	}
	defer q.cancel()
	for _, foreign := range []func() error{
		func() error { return w.other.Cancel(w.ctx, q.kind, a, q.key, w.wraps()) },
		func() error { return w.phone.Cancel(w.ctx, q.kind, b, q.key, false) },
	} {
		err := foreign()
		if !w.refusedWith(err, "STAT_NOSUPPORT", noSupport) {
			w.cancels.Add(int64(len(w.servers()))) // reported, or tolerated
			return
		}
	}
	w.complete(a, q, pending)
}

// oneTimePassword is a right one and then a wrong one, which by its length is that
// of no device.
func (w *worker) oneTimePassword() {
	a, ok := w.device(1)
	if !ok {
		return
	}
	done, err := w.phone.Authenticate(w.ctx, a)
	if !w.require(err, done.SerialNumber == a.SerialNumber && done.UserID == a.UserID, "a login by the device") {
		// The device may be too far ahead of the server next time.
		w.devices[1] = nil
		return
	}
	err = w.post(passwordService, frontEndKey, object{"userID": a.UserID, "domain": a.Domain, "password": "0000000"})
	w.require(err, w.status == http.StatusOK && strings.Contains(w.body, `"STAT_OTP_INCORRECT"`), "a refusal")
}

// serverTime is the clock of this machine.
func (w *worker) serverTime() {
	before := time.Now().Unix()
	err := w.post(serverTimeService, frontEndKey, object{})
	var answer struct{ Result struct{ ServerTime int64 } }
	ok := err == nil && w.status == http.StatusOK && json.Unmarshal([]byte(w.body), &answer) == nil &&
		answer.Result.ServerTime >= before && answer.Result.ServerTime <= time.Now().Unix()
	w.require(err, ok, "the time")
}
