package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// trouble is a way in which Redis fails.
type trouble int

const (
	// silent servers do not answer: they are stopped, cut off, or hang.
	silent trouble = iota
	// readOnly servers answer, and take no writes: they are full or replicas.
	readOnly
	// emptied servers have lost their keys: they were evicted or not on disk.
	emptied
)

// The answers of the table.
const (
	answerSuccess     = "STAT_SUCCESS"
	answerNotFound    = "STAT_NOT_FOUND"
	answerUnknown     = "STAT_INVCREDENTIALS"
	answerForeign     = "STAT_NOSUPPORT"
	answerUnavailable = "503"
)

const (
	notificationService = "notification/push/updateNotificationID"
	registerService     = "provisioning/DSAPPSRPRegister"
	finalService        = "provisioning/MdlActivate"
)

// degradation is a row of the table in docs/operation.md, section "Without the
// store": what a service answers to a rightful call, by trouble. Where it makes a
// difference, "before" is what was retrieved before the trouble began, and "since"
// after it.
type degradation struct {
	name string
	// service is the path below /rest/v2/, that for logins where there is another
	// one for signatures.
	service string
	want    [3]string
	// refuse is want with requests.unknown set to refuse, if that differs.
	refuse [3]string
	call   func(o *outage, s services) string
}

var withoutStore = []degradation{
	{name: "server time", service: serverTimeService, want: [...]string{answerSuccess, answerSuccess, answerSuccess}, call: (*outage).serverTime},
	{name: "one-time password", service: passwordService, want: [...]string{answerSuccess, answerSuccess, answerSuccess}, call: (*outage).oneTimePassword},
	{name: "notification ID", service: notificationService, want: [...]string{answerSuccess, answerSuccess, answerSuccess}, call: (*outage).notificationID},

	{name: "retrieve", service: kinds[0].retrieve, want: [...]string{answerSuccess, answerSuccess, answerSuccess}, call: (*outage).retrieveAll},
	{name: "retrieve what was retrieved", service: kinds[0].retrieve, want: [...]string{answerNotFound, answerNotFound, answerNotFound}, call: (*outage).retrieveAgain},

	{name: "complete", service: kinds[0].complete, want: [...]string{answerSuccess, answerSuccess, answerSuccess}, call: (*outage).complete},
	{name: "complete, of another instance, before", service: kinds[0].complete, want: [...]string{answerUnavailable, answerSuccess, answerNotFound}, call: (*outage).completeElsewhere},
	{name: "complete, of another instance, since", service: kinds[0].complete, want: [...]string{answerUnavailable, answerNotFound, answerSuccess}, call: (*outage).completeElsewhereSince},

	{
		name: "cancel, wrapped key, before", service: kinds[0].cancel,
		want: [...]string{answerSuccess, answerSuccess, answerSuccess}, refuse: [...]string{answerUnavailable, answerSuccess, answerForeign},
		call: (*outage).cancelWrapped,
	},
	{
		name: "cancel, wrapped key, since", service: kinds[0].cancel,
		want: [...]string{answerSuccess, answerSuccess, answerSuccess}, refuse: [...]string{answerUnavailable, answerForeign, answerSuccess},
		call: (*outage).cancelWrappedSince,
	},
	{
		name: "cancel, plain key, of another application, before", service: kinds[0].cancel,
		want: [...]string{answerUnavailable, answerForeign, ""}, refuse: [...]string{answerUnavailable, answerForeign, answerForeign},
		call: (*outage).cancelForeign,
	},
	{
		name: "cancel, plain key, before", service: kinds[0].cancel,
		want: [...]string{answerUnavailable, answerSuccess, answerSuccess}, refuse: [...]string{answerUnavailable, answerSuccess, answerForeign},
		call: (*outage).cancelPlain,
	},
	{
		name: "cancel, plain key, since", service: kinds[0].cancel,
		want: [...]string{answerUnavailable, answerSuccess, answerSuccess}, refuse: [...]string{answerUnavailable, answerForeign, answerSuccess},
		call: (*outage).cancelPlainSince,
	},

	{name: "registration", service: registerService, want: [...]string{answerUnavailable, answerUnavailable, answerSuccess}, call: (*outage).register},
	// Whoever is unknown gets a challenge too.
	{name: "exchange, first call", service: ephemeralKeyService, want: [...]string{answerUnavailable, answerUnavailable, answerSuccess}, call: (*outage).begin},
	{name: "exchange, second call", service: activationService, want: [...]string{answerUnavailable, answerUnavailable, answerUnknown}, call: (*outage).prove},
	{name: "add a device", service: addDeviceService, want: [...]string{answerUnavailable, answerUnavailable, answerUnknown}, call: (*outage).addDevice},
	{name: "final call", service: finalService, want: [...]string{answerUnavailable, answerUnavailable, answerUnknown}, call: (*outage).final},
}

func init() {
	for i := range withoutStore {
		withoutStore[i].service = strings.TrimPrefix(withoutStore[i].service, restPath)
	}
}

// expected is the answer to a row.
func (d degradation) expected(tr trouble, refuse bool) string {
	if refuse && d.refuse != [3]string{} {
		return d.refuse[tr]
	}
	return d.want[tr]
}

// outage is a gateway whose store is about to fail, and what there is to be done
// with it. The instance that the policy prefers is the first of two.
type outage struct {
	t             *testing.T
	g             *gateway
	primary       *oas
	backup        *oas
	device, other *sandbox.Authenticator
	begun, proven registration
	fresh         registration
	evidence      []byte
	byKind        map[string]*outageRequests
}

// outageRequests are requests of one kind, by key: those that are retrieved before
// the trouble begins, and those that are retrieved since, which are those of another
// device. A wrapped key is sent to one instance after the other: its request is on
// the second.
type outageRequests struct {
	before, elsewhere, wrapped, plain                     string
	since, elsewhereSince, wrappedSince, plainSince       string
	message, elsewhereMessage, sinceMessage, farMessage   string
	outcome, elsewhereOutcome, sinceOutcome, sinceOutside func() error
}

func newOutage(t *testing.T, g *gateway, primary, backup *oas) *outage {
	t.Helper()
	o := &outage{t: t, g: g, primary: primary, backup: backup, byKind: make(map[string]*outageRequests)}
	o.device, o.other = g.activated(t), g.activated(t)
	o.fresh, o.begun, o.proven = g.Register(t), g.Register(t), g.Register(t)
	c, salt, public := begin(t, g, o.begun.Identifier, o.begun.Password)
	var err error
	o.evidence, err = c.Prove(salt, public)
	require.NoError(t, err)
	status, answer := exchange(t, g, o.proven.Identifier, o.proven.Password)
	require.Equal(t, http.StatusOK, status, answer)
	require.Contains(t, answer, answerSuccess)
	for _, s := range kinds {
		q := new(outageRequests)
		o.byKind[s.kind] = q
		q.before, q.outcome = ask(t, primary, s, o.device)
		q.elsewhere, q.elsewhereOutcome = ask(t, backup, s, o.device)
		q.wrapped, _ = ask(t, backup, s, o.device)
		q.plain, _ = ask(t, primary, s, o.device)
		q.message = g.retrieved(t, s, frontEndKey, o.device.SerialNumber, q.before)
		q.elsewhereMessage = g.retrieved(t, s, frontEndKey, o.device.SerialNumber, q.elsewhere)
		for _, key := range []string{q.wrapped, q.plain} {
			g.retrieved(t, s, frontEndKey, o.device.SerialNumber, key)
		}
		q.since, q.sinceOutcome = ask(t, primary, s, o.other)
		q.elsewhereSince, q.sinceOutside = ask(t, backup, s, o.other)
		q.wrappedSince, _ = ask(t, backup, s, o.other)
		q.plainSince, _ = ask(t, primary, s, o.other)
	}
	return o
}

// call posts a body and gives the status code of OneSpan, or that of HTTP if it is
// not 200. That of an outage has to say when to come back.
func (o *outage) call(service, key, body string) string {
	o.t.Helper()
	r, err := http.NewRequestWithContext(o.t.Context(), http.MethodPost, o.g.URL+restPath+strings.TrimPrefix(service, restPath), strings.NewReader(body))
	require.NoError(o.t, err)
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(key, "")
	status, header, answer, err := o.g.Do(r)
	require.NoError(o.t, err)
	if status == http.StatusServiceUnavailable {
		after, err := strconv.Atoi(header.Get("Retry-After"))
		require.NoError(o.t, err, "Retry-After")
		assert.Positive(o.t, after, "Retry-After")
		assert.Contains(o.t, answer, "STAT_COMMS")
	}
	if status != http.StatusOK {
		return strconv.Itoa(status)
	}
	var decoded struct {
		ResultCodes struct{ StatusCodeEnum string }
	}
	require.NoError(o.t, json.Unmarshal([]byte(answer), &decoded), answer)
	return decoded.ResultCodes.StatusCodeEnum
}

// done is the answer to a call whose outcome only its caller can judge.
func (o *outage) done(err error) string {
	if err == nil {
		return answerSuccess
	}
	return err.Error()
}

func (o *outage) serverTime(services) string { return o.call(serverTimeService, frontEndKey, "{}") }

func (o *outage) oneTimePassword(services) string {
	_, err := o.g.Phone().Authenticate(o.t.Context(), o.device)
	return o.done(err)
}

func (o *outage) notificationID(services) string {
	return o.done(o.g.Phone().UpdateNotificationID(o.t.Context(), o.device, "another push ID"))
}

// retrieveAll retrieves all of the requests that wait.
func (o *outage) retrieveAll(s services) string {
	q := o.byKind[s.kind]
	q.sinceMessage = o.g.retrieved(o.t, s, frontEndKey, o.other.SerialNumber, q.since)
	q.farMessage = o.g.retrieved(o.t, s, frontEndKey, o.other.SerialNumber, q.elsewhereSince)
	o.g.retrieved(o.t, s, frontEndKey, o.other.SerialNumber, q.wrappedSince)
	return o.retrieve(s, frontEndKey, o.other, q.plainSince)
}

func (o *outage) retrieve(s services, apiKey string, a *sandbox.Authenticator, key string) string {
	return o.call(s.retrieve, apiKey, fmt.Sprintf(`{"serialNumber":%q,%q:%q}`, a.SerialNumber, s.key, key))
}

func (o *outage) retrieveAgain(s services) string {
	q := o.byKind[s.kind]
	for _, key := range []string{q.before, q.since} {
		if got := o.retrieve(s, otherFrontEndKey, o.other, key); got != answerNotFound {
			return got
		}
	}
	return answerNotFound
}

// completed gives the answer to the device's approval. If it succeeded the bank
// learns of it.
func (o *outage) completed(s services, a *sandbox.Authenticator, key, message string, outcome func() error) string {
	signature, err := a.Sign(message)
	require.NoError(o.t, err)
	got := o.call(s.complete, frontEndKey, fmt.Sprintf(`{"userID":%q,"domain":%q,%q:%q,"signature":%q}`, userID, domain, s.key, key, signature))
	if got == answerSuccess {
		require.NoError(o.t, outcome())
	}
	return got
}

func (o *outage) complete(s services) string {
	q := o.byKind[s.kind]
	if got := o.completed(s, o.other, q.since, q.sinceMessage, q.sinceOutcome); got != answerSuccess {
		return got
	}
	return o.completed(s, o.device, q.before, q.message, q.outcome)
}

func (o *outage) completeElsewhere(s services) string {
	q := o.byKind[s.kind]
	return o.completed(s, o.device, q.elsewhere, q.elsewhereMessage, q.elsewhereOutcome)
}

func (o *outage) completeElsewhereSince(s services) string {
	q := o.byKind[s.kind]
	return o.completed(s, o.other, q.elsewhereSince, q.farMessage, q.sinceOutside)
}

// cancelled gives the answer to a rejection. One that is not a success reached no
// authentication server.
func (o *outage) cancelled(s services, apiKey string, a *sandbox.Authenticator, key string) string {
	before := o.primary.Calls(s.cancelCommand) + o.backup.Calls(s.cancelCommand)
	got := o.call(s.cancel, apiKey, fmt.Sprintf(`{"serialNumber":%q,%q:%q}`, a.SerialNumber, s.key, key))
	if got != answerSuccess {
		assert.Equal(o.t, before, o.primary.Calls(s.cancelCommand)+o.backup.Calls(s.cancelCommand), "a cancel was forwarded")
	}
	return got
}

func (o *outage) cancelWrapped(s services) string {
	return o.cancelled(s, frontEndKey, o.device, wrap(o.t, o.device, o.byKind[s.kind].wrapped))
}

func (o *outage) cancelWrappedSince(s services) string {
	return o.cancelled(s, frontEndKey, o.other, wrap(o.t, o.other, o.byKind[s.kind].wrappedSince))
}

func (o *outage) cancelForeign(s services) string {
	return o.cancelled(s, otherFrontEndKey, o.device, o.byKind[s.kind].plain)
}

func (o *outage) cancelPlain(s services) string {
	return o.cancelled(s, frontEndKey, o.device, o.byKind[s.kind].plain)
}

func (o *outage) cancelPlainSince(s services) string {
	return o.cancelled(s, frontEndKey, o.other, o.byKind[s.kind].plainSince)
}

func (o *outage) register(services) string { return o.call(registerService, backEndKey, userBody) }

func (o *outage) begin(services) string {
	return o.call(ephemeralKeyService, frontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"clientEphemeralPublicKey":"05"}`, o.fresh.Identifier))
}

func (o *outage) prove(services) string {
	return o.call(activationService, frontEndKey, fmt.Sprintf(
		`{"registrationIdentifier":%q,"clientEvidenceMessage":%q}`, o.begun.Identifier, upperHex(o.evidence)))
}

func (o *outage) addDevice(services) string {
	return o.call(addDeviceService, frontEndKey, fmt.Sprintf(
		`{"registrationIdentifier":%q,"deviceCode":"12345678901234567890123456"}`, o.proven.Identifier))
}

func (o *outage) final(services) string {
	return o.call(finalService, frontEndKey, fmt.Sprintf(
		`{"registrationIdentifier":%q,"signature":"1234567890123456"}`, o.proven.Identifier))
}

// works reports whether everything does: a registration, an activation, and a
// login that is retrieved and that only its owner can reject.
func (o *outage) works() error {
	phone := o.g.Phone()
	r, err := phone.RegisterUser(o.t.Context(), backEndKey, sandbox.UserRegistration{UserID: userID, Domain: domain, StaticPassword: staticPassword})
	if err != nil {
		return fmt.Errorf("registration: %w", err)
	}
	activated, err := phone.Activate(o.t.Context(), r.RegistrationIdentifier, r.ActivationPassword)
	if err != nil {
		return fmt.Errorf("activation: %w", err)
	}
	if err := phone.UpdateNotificationID(o.t.Context(), activated.Authenticator, "push-"+activated.InstanceSerial); err != nil {
		return fmt.Errorf("notification ID: %w", err)
	}
	s := kinds[0]
	key, _ := ask(o.t, o.backup, s, activated.Authenticator)
	if got := o.retrieve(s, frontEndKey, activated.Authenticator, key); got != answerSuccess {
		return fmt.Errorf("retrieval: %s", got)
	}
	if got := o.cancelled(s, otherFrontEndKey, activated.Authenticator, key); got != answerForeign {
		return fmt.Errorf("cancel of another application: %s", got)
	}
	if got := o.cancelled(s, frontEndKey, activated.Authenticator, key); got != answerSuccess {
		return fmt.Errorf("cancel: %s", got)
	}
	return nil
}

// recovery is how long it may take until everything works again: a cooldown of the
// store's breaker, with room for a machine that is busy.
const recovery = 5 * time.Second

// What still works without the store, and what is answered otherwise. Afterwards
// everything works again without a restart.
func TestWithoutTheStore(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		trouble    trouble
		begin, end func(t *testing.T, r *redistest.Server)
	}{
		{"stopped", silent, func(_ *testing.T, r *redistest.Server) { r.Stop() }, func(t *testing.T, r *redistest.Server) { r.Restart(t) }},
		{"frozen", silent, func(t *testing.T, r *redistest.Server) { r.Freeze(t) }, func(t *testing.T, r *redistest.Server) { r.Thaw(t) }},
		{"full", readOnly, fill, unfill},
		{"replica", readOnly, demote, promote},
		{"emptied", emptied, func(t *testing.T, r *redistest.Server) { r.FlushAll(t) }, func(*testing.T, *redistest.Server) {}},
	} {
		for _, refuse := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, unknown refused %t", tc.name, refuse), func(t *testing.T) {
				t.Parallel()
				gateways, primary, backup, redis := nodesOnRedis(t, 1, func(dsapp object) {
					if refuse {
						dsapp["requests"] = object{"unknown": "refuse"}
					}
				})
				o := newOutage(t, gateways[0], primary, backup)
				enrolled := primary.Calls("PROVISIONCMD_MDL_REGISTER")
				began := time.Now()
				tc.begin(t, redis)
				// Before anything was asked of the store, a write of the last second
				// makes a registration believe in it.
				poll(t, "a second to pass", func() bool { return time.Since(began) > time.Second })
				for _, row := range withoutStore {
					for _, s := range kinds {
						want := row.expected(tc.trouble, refuse)
						if want == "" {
							continue
						}
						assert.Equal(t, want, row.call(o, s), "%s: %s", s.kind, row.name)
						if row.service != strings.TrimPrefix(kinds[0].retrieve, restPath) && row.service != strings.TrimPrefix(kinds[0].complete, restPath) &&
							row.service != strings.TrimPrefix(kinds[0].cancel, restPath) {
							// The same for both kinds.
							break
						}
					}
				}
				if tc.trouble != emptied {
					assert.Equal(t, enrolled, primary.Calls("PROVISIONCMD_MDL_REGISTER"), "nothing is registered that could not be kept")
				}
				tc.end(t, redis)
				ended := time.Now()
				var err error
				poll(t, "everything to work", func() bool { err = o.works(); return err == nil || time.Since(ended) > recovery })
				assert.NoError(t, err, "after %s", recovery)
			})
		}
	}
}

// A node of a cluster that is lost takes along what it has, and the rest goes on: on
// a cluster that does not insist on all of its slots.
func TestNodeOfClusterLost(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	c := startPartialCluster(t)
	g := startGateway(t, certs, server.URL, func(dsapp object) {
		withOtherApplication(dsapp)
		dsapp["store"] = onCluster(c)
	})
	o := &outage{t: t, g: g, primary: server, backup: server}
	node := func(key string) *redistest.Server { return c.Master(c.Slot(t, "{"+key+"}")) }
	lost := c.Masters[0]
	var there, away []registration
	poll(t, "registrations on every node", func() bool {
		if r := g.Register(t); node(r.Identifier) == lost {
			away = append(away, r)
		} else {
			there = append(there, r)
		}
		return len(there) >= 2 && len(away) >= 2
	})
	lost.Stop()
	for _, r := range away {
		o.fresh, o.proven = r, r
		for _, call := range []func(*outage, services) string{(*outage).begin, (*outage).addDevice, (*outage).final} {
			assert.Equal(t, answerUnavailable, call(o, services{}))
		}
	}
	for _, r := range there {
		_, err := g.Phone().Activate(t.Context(), r.Identifier, r.Password)
		require.NoError(t, err)
	}
	// The authentication server chooses the identifier, before anybody knows which
	// node that means.
	enrolled := server.Calls("PROVISIONCMD_MDL_REGISTER")
	for range 10 {
		assert.Equal(t, answerUnavailable, o.register(services{}))
	}
	assert.Equal(t, enrolled, server.Calls("PROVISIONCMD_MDL_REGISTER"), "nothing is registered that could not be kept")

	lost.Restart(t)
	var err error
	poll(t, "everything to work", func() bool { err = o.works(); return err == nil })
	for _, r := range away {
		o.proven = r
		poll(t, "the node's registrations to be unknown", func() bool { return o.addDevice(services{}) == answerUnknown })
	}
}

func startPartialCluster(t *testing.T) *redistest.Cluster {
	t.Helper()
	c := redistest.StartCluster(t, 0)
	for _, node := range c.Masters {
		node.Command(t, "CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	return c
}

// fill has a server refuse what needs memory.
func fill(t *testing.T, r *redistest.Server) {
	t.Helper()
	r.Command(t, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	r.Command(t, "CONFIG", "SET", "maxmemory", "1")
}

func unfill(t *testing.T, r *redistest.Server) {
	t.Helper()
	r.Command(t, "CONFIG", "SET", "maxmemory", "0")
}

// demote makes a server a replica of one that is not there, with all that it has.
func demote(t *testing.T, r *redistest.Server) {
	t.Helper()
	r.Command(t, "REPLICAOF", "127.0.0.1", "1")
}

func promote(t *testing.T, r *redistest.Server) {
	t.Helper()
	r.Command(t, "REPLICAOF", "NO", "ONE")
}

// tolerated are the refusals of the table that a gateway with one authentication
// server may give to rightful calls.
func tolerated(refuse bool, troubles []trouble) func(service string, status int, body string) bool {
	allowed := make(map[string]bool)
	for _, row := range withoutStore {
		for _, tr := range troubles {
			// The one instance has every request.
			if want := row.expected(tr, refuse); want != answerSuccess && want != answerNotFound {
				allowed[row.service+" "+want] = true
			}
			if row.service == registerService && tr != emptied {
				// A write of the last second made it believe in the store.
				allowed[row.service+" 500"] = true
			}
		}
	}
	return func(service string, status int, body string) bool {
		if service == strings.TrimPrefix(kinds[1].cancel, restPath) {
			service = strings.TrimPrefix(kinds[0].cancel, restPath)
		}
		answer := strconv.Itoa(status)
		if status == http.StatusOK {
			_, rest, _ := strings.Cut(body, `"statusCodeEnum":"`)
			answer, _, _ = strings.Cut(rest, `"`)
		}
		return allowed[service+" "+answer]
	}
}

// wrappedCancel is what a front calls a cancel with a wrapped key.
const wrappedCancel = "wrapped cancel"

// front is a proxy before a gateway that takes the time of every call.
type front struct {
	mu    sync.Mutex
	calls []frontCall
}

type frontCall struct {
	service string
	status  int
	began   time.Time
	took    time.Duration
	promise bool // whether a 503 says when to come back
}

// startFront returns the gateway as it is reached through a front.
func startFront(t *testing.T, g *gateway) (*front, *gateway) {
	t.Helper()
	f := new(front)
	target, err := url.Parse(g.URL)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = client(t, g.certs.Authority, "").Transport
	proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	pair, err := tls.LoadX509KeyPair(g.certs.Certificate, g.certs.Key)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := frontCall{service: strings.TrimPrefix(r.URL.Path, restPath), began: time.Now()}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		for _, s := range kinds {
			// A plain key is short.
			if r.URL.Path == s.cancel && len(body) > 100 {
				call.service = wrappedCancel
			}
		}
		seen := &statusWriter{ResponseWriter: w}
		proxy.ServeHTTP(seen, r)
		call.status, call.took, call.promise = seen.status, time.Since(call.began), w.Header().Get("Retry-After") != ""
		f.mu.Lock()
		defer f.mu.Unlock()
		f.calls = append(f.calls, call)
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(func() {
		server.Close()
		proxy.Transport.(*http.Transport).CloseIdleConnections()
	})
	through := *g
	through.URL = server.URL
	return f, &through
}

// statusWriter knows the status that was written.
type statusWriter struct {
	http.ResponseWriter

	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// between gives the calls that began in a period.
func (f *front) between(begin, end time.Time) []frontCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	var calls []frontCall
	for _, c := range f.calls {
		if !c.began.Before(begin) && c.began.Before(end) {
			calls = append(calls, c)
		}
	}
	return calls
}

// lastFailure is when the last call ended that was answered with another status
// than 200.
func (f *front) lastFailure() (last time.Time) {
	for _, c := range f.between(time.Time{}, time.Now()) {
		if end := c.began.Add(c.took); c.status != http.StatusOK && end.After(last) {
			last = end
		}
	}
	return last
}

// times gives the median and the longest time of the calls of some services, all if
// none are given.
func times(calls []frontCall, services ...string) (median, longest time.Duration) {
	var took []time.Duration
	for _, c := range calls {
		if len(services) == 0 || slices.Contains(services, c.service) {
			took = append(took, c.took)
		}
	}
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)-1]
}

// forwarded are the services that go on without a store.
var forwarded = []string{
	serverTimeService, passwordService, notificationService, wrappedCancel,
	strings.TrimPrefix(kinds[0].retrieve, restPath), strings.TrimPrefix(kinds[1].retrieve, restPath),
	strings.TrimPrefix(kinds[0].complete, restPath), strings.TrimPrefix(kinds[1].complete, restPath),
}

// redisTimeout is the store's timeout in TestSoakOutages.
const redisTimeout = 500 * time.Millisecond

// longestCall bounds a call during an outage. Five attempts without an answer open
// the breaker, so that no call makes more; each waits for a connection and for an
// answer. What is left is room for everything else on a machine that is busy.
const longestCall = 5*2*redisTimeout + 2*time.Second

// storeOutage is something that happens to the store of a gateway under load.
type storeOutage struct {
	name     string
	troubles []trouble
	// refuse sets requests.unknown. Otherwise foreign cancels are left out: what
	// nobody is known to own, the authentication server decides about.
	refuse bool
	once   bool // cannot happen again
	start  func(t *testing.T) storeUnderTrouble
}

// storeUnderTrouble is the configuration of a store, and how its trouble begins,
// goes on and ends.
type storeUnderTrouble struct {
	config     object
	begin, end func()
	again      func() // several times a second, may be nil
}

func onRedis(r *redistest.Server) object {
	return object{"backend": "redis", "addresses": []string{r.Addr()}, "timeout": redisTimeout.String()}
}

// storeOutages are what the suite is made of.
var storeOutages = []storeOutage{
	{name: "stopped and started", troubles: []trouble{silent}, start: func(t *testing.T) storeUnderTrouble {
		t.Helper()
		r := redistest.Start(t, "--appendonly", "yes")
		return storeUnderTrouble{config: onRedis(r), begin: r.Stop, end: func() { r.Restart(t) }}
	}},
	{name: "frozen", troubles: []trouble{silent}, start: func(t *testing.T) storeUnderTrouble {
		t.Helper()
		r := redistest.Start(t)
		return storeUnderTrouble{config: onRedis(r), begin: func() { r.Freeze(t) }, end: func() { r.Thaw(t) }}
	}},
	// The next master has what was confirmed. Handshakes and ownership are not.
	{name: "Sentinel failover", troubles: []trouble{silent, emptied}, refuse: true, start: func(t *testing.T) storeUnderTrouble {
		t.Helper()
		s := redistest.StartSentinel(t, 2)
		return storeUnderTrouble{
			config: object{
				"backend": "redis", "master_name": redistest.MasterName, "addresses": s.Addresses(), "wait_replicas": 1, "timeout": redisTimeout.String(),
			},
			begin: s.Servers[0].Stop,
			end:   func() { s.Master(t, s.Servers[0]) },
		}
	}},
	{name: "cluster failover", troubles: []trouble{silent, emptied}, refuse: true, once: true, start: func(t *testing.T) storeUnderTrouble {
		t.Helper()
		c := redistest.StartCluster(t, 1)
		return storeUnderTrouble{
			config: onCluster(c),
			begin:  c.Masters[0].Stop,
			end: func() {
				next := c.Replicas[0]
				// The others may have elected it already.
				if strings.Contains(next.Command(t, "ROLE"), "slave") {
					next.Command(t, "CLUSTER", "FAILOVER", "TAKEOVER")
				}
				id := next.Command(t, "CLUSTER", "MYID")
				poll(t, "the nodes to agree on the next master", func() bool {
					for _, node := range slices.Concat(c.Masters[1:], c.Replicas) {
						_, line, _ := strings.Cut(node.Command(t, "CLUSTER", "NODES"), id)
						line, _, _ = strings.Cut(line, "\n")
						if !strings.Contains(line, "master") || !strings.Contains(node.Command(t, "CLUSTER", "INFO"), "cluster_state:ok") {
							return false
						}
					}
					return true
				})
			},
		}
	}},
	{name: "node of a cluster lost", troubles: []trouble{silent, emptied}, refuse: true, start: func(t *testing.T) storeUnderTrouble {
		t.Helper()
		c := startPartialCluster(t)
		return storeUnderTrouble{
			config: onCluster(c),
			begin:  c.Masters[0].Stop,
			end: func() {
				c.Masters[0].Restart(t)
				poll(t, "the node to be back", func() bool {
					for _, node := range c.Masters {
						if nodes := node.Command(t, "CLUSTER", "NODES"); strings.Contains(nodes, "fail") ||
							!strings.Contains(node.Command(t, "CLUSTER", "INFO"), "cluster_state:ok") {
							return false
						}
					}
					return true
				})
			},
		}
	}},
	{name: "full", troubles: []trouble{readOnly}, refuse: true, start: func(t *testing.T) storeUnderTrouble {
		t.Helper()
		r := redistest.Start(t)
		return storeUnderTrouble{config: onRedis(r), begin: func() { fill(t, r) }, end: func() { unfill(t, r) }}
	}},
	{name: "replica", troubles: []trouble{readOnly}, refuse: true, start: func(t *testing.T) storeUnderTrouble {
		t.Helper()
		r := redistest.Start(t)
		return storeUnderTrouble{config: onRedis(r), begin: func() { demote(t, r) }, end: func() { promote(t, r) }}
	}},
	{name: "emptied", troubles: []trouble{emptied}, refuse: true, start: func(t *testing.T) storeUnderTrouble {
		t.Helper()
		r := redistest.Start(t)
		return storeUnderTrouble{config: onRedis(r), begin: func() {}, again: func() { r.FlushAll(t) }, end: func() {}}
	}},
	// What does not fit throws out what was there, and is refused if that is not enough.
	{name: "evicting", troubles: []trouble{readOnly, emptied}, refuse: true, start: func(t *testing.T) storeUnderTrouble {
		t.Helper()
		r := redistest.Start(t)
		used := func() int {
			_, rest, _ := strings.Cut(r.Command(t, "INFO", "memory"), "used_memory:")
			line, _, _ := strings.Cut(rest, "\r\n")
			n, err := strconv.Atoi(line)
			require.NoError(t, err)
			return n
		}
		return storeUnderTrouble{
			config: onRedis(r),
			begin:  func() { r.Command(t, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru") },
			again:  func() { r.Command(t, "CONFIG", "SET", "maxmemory", strconv.Itoa(used()-1000)) },
			end:    func() { unfill(t, r) },
		}
	}},
}

func onCluster(c *redistest.Cluster) object {
	return object{"backend": "redis", "cluster": true, "addresses": c.Addresses(), "timeout": redisTimeout.String()}
}

// Under load, an outage of the store costs what the table says and nothing else:
// no call takes long, what goes on without a store goes on, and soon after the
// outage everything works again without a restart.
func TestSoakOutages(t *testing.T) {
	for _, so := range storeOutages {
		t.Run(so.name, func(t *testing.T) {
			if *soak == "" {
				t.Parallel()
			}
			certs := certificates(t)
			server := startOAS(t, certs)
			store := so.start(t)
			f, g := startFront(t, startQuietGateway(t, certs, server.URL, func(dsapp object) {
				dsapp["store"] = store.config
				if so.refuse {
					dsapp["requests"] = object{"unknown": "refuse"}
				}
			}))
			var trouble atomic.Bool
			rule := tolerated(so.refuse, so.troubles)
			o := loadOptions{Gateways: []*gateway{g}, Server: server, Scenarios: slices.Clone(allScenarios)}
			if !so.refuse {
				o.Scenarios = slices.DeleteFunc(o.Scenarios, func(s scenario) bool { return s.name == foreignCancels.name })
			}
			l := newLedger(t, "outage: "+so.name)
			warmUp(t, l, o)
			o.Tolerate = func(service string, status int, body string) bool {
				return trouble.Load() && rule(service, status, body)
			}
			healthy := time.Now()
			d := startLoad(t, l, o)
			rounds := length(1, 2)
			if so.once {
				rounds = 1
			}
			for range rounds {
				d.Turns(t, len(o.Scenarios))
				trouble.Store(true)
				began := time.Now()
				store.begin()
				outage := time.Duration(length(3, 5)) * time.Second
				again := time.Now()
				poll(t, "the outage to last", func() bool {
					if store.again != nil && time.Since(again) > 200*time.Millisecond {
						store.again()
						again = time.Now()
					}
					return time.Since(began) > outage
				})
				store.end()
				ended := time.Now()
				// Some failures in a row are not seen by chance.
				poll(t, "calls to succeed", func() bool {
					return time.Since(ended) > 1500*time.Millisecond && time.Since(f.lastFailure()) > 1500*time.Millisecond
				})
				if back := f.lastFailure().Sub(ended); back > recovery {
					l.Broken("a call failed %v after the outage", back)
				}
				d.Turns(t, 2)
				trouble.Store(false)
				d.Turns(t, len(o.Scenarios))

				calls := f.between(began, ended)
				_, longest := times(calls)
				if longest > longestCall {
					l.Broken("a call took %v, want at most %v", longest, longestCall)
				}
				for _, c := range calls {
					if c.status == http.StatusServiceUnavailable && !c.promise {
						l.Broken("%s: 503 without Retry-After", c.service)
					}
					if !so.refuse && c.status != http.StatusOK && slices.Contains(forwarded, c.service) {
						l.Broken("%s: status %d, and it needs no store", c.service, c.status)
					}
				}
				before, _ := times(f.between(healthy, began), forwarded...)
				// What the first calls waited is over a third of the way in.
				during, _ := times(f.between(began.Add(outage/3), ended), forwarded...)
				t.Logf("forwarded services: median %v before, %v during the outage; longest call %v", before, during, longest)
				if during > redisTimeout/2 {
					l.Broken("forwarded services wait for the store: median %v", during)
				}
				healthy = time.Now()
			}
		})
	}
}
