package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// trouble is a way in which a store fails.
type trouble int

const (
	// silent servers do not answer: they are stopped, cut off or hang.
	silent trouble = iota
	// readOnly servers answer and refuse writes: they are full or replicas.
	readOnly
	// emptied servers have lost their keys, by eviction or because they were not on disk.
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

// degradation is a row of the table in docs/operation.md, section "Without the store": the
// answer of a service to a rightful call, for each kind of trouble. Where it matters, "before"
// means a request that was retrieved before the trouble began, and "since" one that was
// retrieved after.
type degradation struct {
	name string
	// service is the path of the service, for logins if signatures have another one.
	service string
	want    [3]string
	// refuse is what is wanted if requests.unknown is refuse, where that differs.
	refuse [3]string
	call   func(o *outage, s testbed.RequestKind) string
}

var withoutStore = []degradation{
	{name: "server time", service: testbed.ServerTimePath, want: [...]string{answerSuccess, answerSuccess, answerSuccess}, call: (*outage).serverTime},
	{name: "one-time password", service: testbed.LoginPath, want: [...]string{answerSuccess, answerSuccess, answerSuccess}, call: (*outage).oneTimePassword},
	{name: "notification ID", service: testbed.NotificationPath, want: [...]string{answerSuccess, answerSuccess, answerSuccess}, call: (*outage).notificationID},

	{name: "retrieve", service: testbed.Login.RetrievePath, want: [...]string{answerSuccess, answerSuccess, answerSuccess}, call: (*outage).retrieveAll},
	{name: "retrieve what was retrieved", service: testbed.Login.RetrievePath, want: [...]string{answerNotFound, answerNotFound, answerNotFound}, call: (*outage).retrieveAgain},

	{name: "complete", service: testbed.Login.CompletePath, want: [...]string{answerSuccess, answerSuccess, answerSuccess}, call: (*outage).complete},
	{name: "complete, of another instance, before", service: testbed.Login.CompletePath, want: [...]string{answerUnavailable, answerSuccess, answerNotFound}, call: (*outage).completeElsewhere},
	{name: "complete, of another instance, since", service: testbed.Login.CompletePath, want: [...]string{answerUnavailable, answerNotFound, answerSuccess}, call: (*outage).completeElsewhereSince},

	{
		name: "cancel, wrapped key, before", service: testbed.Login.CancelPath,
		want: [...]string{answerSuccess, answerSuccess, answerSuccess}, refuse: [...]string{answerUnavailable, answerSuccess, answerForeign},
		call: (*outage).cancelWrapped,
	},
	{
		name: "cancel, wrapped key, since", service: testbed.Login.CancelPath,
		want: [...]string{answerSuccess, answerSuccess, answerSuccess}, refuse: [...]string{answerUnavailable, answerForeign, answerSuccess},
		call: (*outage).cancelWrappedSince,
	},
	{
		name: "cancel, plain key, of another application, before", service: testbed.Login.CancelPath,
		want: [...]string{answerUnavailable, answerForeign, ""}, refuse: [...]string{answerUnavailable, answerForeign, answerForeign},
		call: (*outage).cancelForeign,
	},
	{
		name: "cancel, plain key, before", service: testbed.Login.CancelPath,
		want: [...]string{answerUnavailable, answerSuccess, answerSuccess}, refuse: [...]string{answerUnavailable, answerSuccess, answerForeign},
		call: (*outage).cancelPlain,
	},
	{
		name: "cancel, plain key, since", service: testbed.Login.CancelPath,
		want: [...]string{answerUnavailable, answerSuccess, answerSuccess}, refuse: [...]string{answerUnavailable, answerForeign, answerSuccess},
		call: (*outage).cancelPlainSince,
	},

	{name: "registration", service: testbed.RegisterPath, want: [...]string{answerUnavailable, answerUnavailable, answerSuccess}, call: (*outage).register},
	// Unknown identifiers get a challenge, too.
	{name: "exchange, first call", service: testbed.EphemeralKeyPath, want: [...]string{answerUnavailable, answerUnavailable, answerSuccess}, call: (*outage).begin},
	{name: "exchange, second call", service: testbed.ActivationDataPath, want: [...]string{answerUnavailable, answerUnavailable, answerUnknown}, call: (*outage).prove},
	{name: "add a device", service: testbed.AddDevicePath, want: [...]string{answerUnavailable, answerUnavailable, answerUnknown}, call: (*outage).addDevice},
	{name: "final call", service: testbed.ActivatePath, want: [...]string{answerUnavailable, answerUnavailable, answerUnknown}, call: (*outage).final},
}

// expected returns the answer that the row wants.
func (d degradation) expected(tr trouble, refuse bool) string {
	if refuse && d.refuse != [3]string{} {
		return d.refuse[tr]
	}
	return d.want[tr]
}

// outage is a gateway whose store is about to fail, with everything that the rows need. The
// first of its two authentication servers is preferred.
type outage struct {
	t             *testing.T
	g             *testbed.Gateway
	primary       *testbed.Server
	backup        *testbed.Server
	device, other *sandbox.Authenticator
	begun, proven testbed.Registration
	fresh         testbed.Registration
	evidence      []byte
	byKind        map[string]*outageRequests
}

// outageRequests are the keys of requests of one kind: of one device, retrieved before the
// trouble begins, and of another device, retrieved since. Wrapped keys are those of requests on
// the second server, as a wrapped key is sent to one server after the other.
type outageRequests struct {
	before, elsewhere, wrapped, plain                     string
	since, elsewhereSince, wrappedSince, plainSince       string
	message, elsewhereMessage, sinceMessage, farMessage   string
	outcome, elsewhereOutcome, sinceOutcome, sinceOutside func() error
}

func newOutage(t *testing.T, g *testbed.Gateway, primary, backup *testbed.Server) *outage {
	t.Helper()
	o := &outage{t: t, g: g, primary: primary, backup: backup, byKind: make(map[string]*outageRequests)}
	o.device, o.other = g.ActivatedDevice(t), g.ActivatedDevice(t)
	o.fresh, o.begun, o.proven = g.Register(t), g.Register(t), g.Register(t)
	c, salt, public := g.BeginExchange(t, o.begun.Identifier, o.begun.Password)
	var err error
	o.evidence, err = c.Prove(salt, public)
	require.NoError(t, err)
	status, answer := g.Exchange(t, o.proven.Identifier, o.proven.Password)
	require.Equal(t, http.StatusOK, status, answer)
	require.Contains(t, answer, answerSuccess)
	for _, s := range testbed.RequestKinds {
		q := new(outageRequests)
		o.byKind[s.Name] = q
		q.before, q.outcome = testbed.Ask(t, primary, s, o.device)
		q.elsewhere, q.elsewhereOutcome = testbed.Ask(t, backup, s, o.device)
		q.wrapped, _ = testbed.Ask(t, backup, s, o.device)
		q.plain, _ = testbed.Ask(t, primary, s, o.device)
		q.message = g.MustRetrieve(t, s, testbed.FrontEndKey, o.device.SerialNumber, q.before)
		q.elsewhereMessage = g.MustRetrieve(t, s, testbed.FrontEndKey, o.device.SerialNumber, q.elsewhere)
		for _, key := range []string{q.wrapped, q.plain} {
			g.MustRetrieve(t, s, testbed.FrontEndKey, o.device.SerialNumber, key)
		}
		q.since, q.sinceOutcome = testbed.Ask(t, primary, s, o.other)
		q.elsewhereSince, q.sinceOutside = testbed.Ask(t, backup, s, o.other)
		q.wrappedSince, _ = testbed.Ask(t, backup, s, o.other)
		q.plainSince, _ = testbed.Ask(t, primary, s, o.other)
	}
	return o
}

// call posts a body and returns the name of the status code, or the HTTP status if it is not
// 200. A 503 must say when to come back.
func (o *outage) call(service, key, body string) string {
	o.t.Helper()
	got := o.g.Post(o.t, service, key, body)
	if got.Status == http.StatusServiceUnavailable {
		got.RetryAfter(o.t)
		assert.Contains(o.t, got.Body, "STAT_COMMS")
	}
	if got.Status != http.StatusOK {
		return strconv.Itoa(got.Status)
	}
	var decoded struct {
		ResultCodes struct{ StatusCodeEnum string }
	}
	require.NoError(o.t, json.Unmarshal([]byte(got.Body), &decoded), got.Body)
	return decoded.ResultCodes.StatusCodeEnum
}

// done returns the answer to a call that the simulated phone has judged.
func (o *outage) done(err error) string {
	if err == nil {
		return answerSuccess
	}
	return err.Error()
}

func (o *outage) serverTime(testbed.RequestKind) string {
	return o.call(testbed.ServerTimePath, testbed.FrontEndKey, "{}")
}

func (o *outage) oneTimePassword(testbed.RequestKind) string {
	_, err := o.g.Phone().Authenticate(o.t.Context(), o.device)
	return o.done(err)
}

func (o *outage) notificationID(testbed.RequestKind) string {
	return o.done(o.g.Phone().UpdateNotificationID(o.t.Context(), o.device, "another push ID"))
}

// retrieveAll retrieves all requests that wait.
func (o *outage) retrieveAll(s testbed.RequestKind) string {
	q := o.byKind[s.Name]
	q.sinceMessage = o.g.MustRetrieve(o.t, s, testbed.FrontEndKey, o.other.SerialNumber, q.since)
	q.farMessage = o.g.MustRetrieve(o.t, s, testbed.FrontEndKey, o.other.SerialNumber, q.elsewhereSince)
	o.g.MustRetrieve(o.t, s, testbed.FrontEndKey, o.other.SerialNumber, q.wrappedSince)
	return o.retrieve(s, testbed.FrontEndKey, o.other, q.plainSince)
}

func (o *outage) retrieve(s testbed.RequestKind, apiKey string, a *sandbox.Authenticator, key string) string {
	return o.call(s.RetrievePath, apiKey, fmt.Sprintf(`{"serialNumber":%q,%q:%q}`, a.SerialNumber, s.KeyMember, key))
}

func (o *outage) retrieveAgain(s testbed.RequestKind) string {
	q := o.byKind[s.Name]
	for _, key := range []string{q.before, q.since} {
		if got := o.retrieve(s, testbed.OtherFrontEndKey, o.other, key); got != answerNotFound {
			return got
		}
	}
	return answerNotFound
}

// completed returns the answer to the approval of a device. If it is a success, the bank must
// learn of it.
func (o *outage) completed(s testbed.RequestKind, a *sandbox.Authenticator, key, message string, outcome func() error) string {
	signature, err := a.Sign(message)
	require.NoError(o.t, err)
	got := o.call(s.CompletePath, testbed.FrontEndKey, fmt.Sprintf(`{"userID":%q,"domain":%q,%q:%q,"signature":%q}`, testbed.UserID, testbed.Domain, s.KeyMember, key, signature))
	if got == answerSuccess {
		require.NoError(o.t, outcome())
	}
	return got
}

func (o *outage) complete(s testbed.RequestKind) string {
	q := o.byKind[s.Name]
	if got := o.completed(s, o.other, q.since, q.sinceMessage, q.sinceOutcome); got != answerSuccess {
		return got
	}
	return o.completed(s, o.device, q.before, q.message, q.outcome)
}

func (o *outage) completeElsewhere(s testbed.RequestKind) string {
	q := o.byKind[s.Name]
	return o.completed(s, o.device, q.elsewhere, q.elsewhereMessage, q.elsewhereOutcome)
}

func (o *outage) completeElsewhereSince(s testbed.RequestKind) string {
	q := o.byKind[s.Name]
	return o.completed(s, o.other, q.elsewhereSince, q.farMessage, q.sinceOutside)
}

// cancelled returns the answer to a cancel. Unless it is a success, no authentication server
// may get the cancel.
func (o *outage) cancelled(s testbed.RequestKind, apiKey string, a *sandbox.Authenticator, key string) string {
	before := o.primary.Calls(s.CancelCommand) + o.backup.Calls(s.CancelCommand)
	got := o.call(s.CancelPath, apiKey, fmt.Sprintf(`{"serialNumber":%q,%q:%q}`, a.SerialNumber, s.KeyMember, key))
	if got != answerSuccess {
		assert.Equal(o.t, before, o.primary.Calls(s.CancelCommand)+o.backup.Calls(s.CancelCommand), "a cancel was forwarded")
	}
	return got
}

func (o *outage) cancelWrapped(s testbed.RequestKind) string {
	return o.cancelled(s, testbed.FrontEndKey, o.device, testbed.WrapKey(o.t, o.device, o.byKind[s.Name].wrapped))
}

func (o *outage) cancelWrappedSince(s testbed.RequestKind) string {
	return o.cancelled(s, testbed.FrontEndKey, o.other, testbed.WrapKey(o.t, o.other, o.byKind[s.Name].wrappedSince))
}

func (o *outage) cancelForeign(s testbed.RequestKind) string {
	return o.cancelled(s, testbed.OtherFrontEndKey, o.device, o.byKind[s.Name].plain)
}

func (o *outage) cancelPlain(s testbed.RequestKind) string {
	return o.cancelled(s, testbed.FrontEndKey, o.device, o.byKind[s.Name].plain)
}

func (o *outage) cancelPlainSince(s testbed.RequestKind) string {
	return o.cancelled(s, testbed.FrontEndKey, o.other, o.byKind[s.Name].plainSince)
}

func (o *outage) register(testbed.RequestKind) string {
	return o.call(testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
}

func (o *outage) begin(testbed.RequestKind) string {
	return o.call(testbed.EphemeralKeyPath, testbed.FrontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"clientEphemeralPublicKey":"05"}`, o.fresh.Identifier))
}

func (o *outage) prove(testbed.RequestKind) string {
	return o.call(testbed.ActivationDataPath, testbed.FrontEndKey, fmt.Sprintf(
		`{"registrationIdentifier":%q,"clientEvidenceMessage":%q}`, o.begun.Identifier, testbed.UpperHex(o.evidence)))
}

func (o *outage) addDevice(testbed.RequestKind) string {
	return o.call(testbed.AddDevicePath, testbed.FrontEndKey, fmt.Sprintf(
		`{"registrationIdentifier":%q,"deviceCode":"12345678901234567890123456"}`, o.proven.Identifier))
}

func (o *outage) final(testbed.RequestKind) string {
	return o.call(testbed.ActivatePath, testbed.FrontEndKey, fmt.Sprintf(
		`{"registrationIdentifier":%q,"signature":"1234567890123456"}`, o.proven.Identifier))
}

// works returns an error unless everything works: a registration, an activation, and a login
// that is retrieved and that only its owner can cancel.
func (o *outage) works() error {
	phone := o.g.Phone()
	r, err := phone.RegisterUser(o.t.Context(), testbed.BackEndKey, sandbox.UserRegistration{UserID: testbed.UserID, Domain: testbed.Domain, StaticPassword: testbed.StaticPassword})
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
	s := testbed.Login
	key, _ := testbed.Ask(o.t, o.backup, s, activated.Authenticator)
	if got := o.retrieve(s, testbed.FrontEndKey, activated.Authenticator, key); got != answerSuccess {
		return fmt.Errorf("retrieval: %s", got)
	}
	if got := o.cancelled(s, testbed.OtherFrontEndKey, activated.Authenticator, key); got != answerForeign {
		return fmt.Errorf("cancel of another application: %s", got)
	}
	if got := o.cancelled(s, testbed.FrontEndKey, activated.Authenticator, key); got != answerSuccess {
		return fmt.Errorf("cancel: %s", got)
	}
	return nil
}

// Without the store, every service gives the answer of the table. Afterwards everything works
// again without a restart.
func TestWithoutTheStore(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		trouble    trouble
		begin, end func(t *testing.T, r *redistest.Server)
	}{
		{"stopped", silent, stop, restart},
		{"frozen", silent, freeze, thaw},
		{"full", readOnly, fill, unfill},
		{"replica", readOnly, demote, promote},
		{"emptied", emptied, func(t *testing.T, r *redistest.Server) { r.FlushAll(t) }, func(*testing.T, *redistest.Server) {}},
	} {
		for _, refuse := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, unknown refused %t", tc.name, refuse), func(t *testing.T) {
				t.Parallel()
				gateways, primary, backup, redis := testbed.StartNodes(t, 1, func(dsapp testbed.Object) {
					dsapp["store"] = impatient(dsapp["store"].(testbed.Object))
					if refuse {
						dsapp["requests"] = testbed.Object{"unknown": "refuse"}
					}
				})
				o := newOutage(t, gateways[0], primary, backup)
				enrolled := primary.Calls("PROVISIONCMD_MDL_REGISTER")
				began := time.Now()
				tc.begin(t, redis)
				// A registration believes in the store for a second after the last write.
				poll.Until(t, "a second to pass", func() bool { return time.Since(began) > time.Second })
				for _, row := range withoutStore {
					for _, s := range testbed.RequestKinds {
						want := row.expected(tc.trouble, refuse)
						if want == "" {
							continue
						}
						assert.Equal(t, want, row.call(o, s), "%s: %s", s.Name, row.name)
						if row.service != testbed.Login.RetrievePath && row.service != testbed.Login.CompletePath &&
							row.service != testbed.Login.CancelPath {
							// The row is the same for both kinds.
							break
						}
					}
				}
				if tc.trouble != emptied {
					assert.Equal(t, enrolled, primary.Calls("PROVISIONCMD_MDL_REGISTER"), "nothing is registered that could not be kept")
				}
				tc.end(t, redis)
				poll.Until(t, "everything to work", func() bool { return o.works() == nil })
			})
		}
	}
}

// If a node of a cluster is lost that serves without full coverage, the registrations of that
// node are unavailable, and everything else goes on.
func TestNodeOfClusterLost(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	c := startPartialCluster(t)
	g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
		testbed.AddOtherApplication(dsapp)
		dsapp["store"] = impatient(testbed.ClusterStore(c))
	})
	o := &outage{t: t, g: g, primary: server, backup: server}
	node := func(key string) *redistest.Server { return c.Master(c.Slot(t, "{"+key+"}")) }
	lost := c.Masters[0]
	var there, away []testbed.Registration
	poll.Until(t, "registrations on every node", func() bool {
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
		for _, call := range []func(*outage, testbed.RequestKind) string{(*outage).begin, (*outage).addDevice, (*outage).final} {
			assert.Equal(t, answerUnavailable, call(o, testbed.RequestKind{}))
		}
	}
	for _, r := range there {
		_, err := g.Phone().Activate(t.Context(), r.Identifier, r.Password)
		require.NoError(t, err)
	}
	// The authentication server chooses the identifier, so nobody knows in advance which node a
	// registration needs.
	enrolled := server.Calls("PROVISIONCMD_MDL_REGISTER")
	for range 10 {
		assert.Equal(t, answerUnavailable, o.register(testbed.RequestKind{}))
	}
	assert.Equal(t, enrolled, server.Calls("PROVISIONCMD_MDL_REGISTER"), "nothing is registered that could not be kept")

	lost.Restart(t)
	var err error
	poll.Until(t, "everything to work", func() bool { err = o.works(); return err == nil })
	for _, r := range away {
		o.proven = r
		poll.Until(t, "the node's registrations to be unknown", func() bool { return o.addDevice(testbed.RequestKind{}) == answerUnknown })
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

func stop(_ *testing.T, r *redistest.Server)    { r.Stop() }
func restart(t *testing.T, r *redistest.Server) { r.Restart(t) }
func freeze(t *testing.T, r *redistest.Server)  { r.Freeze(t) }
func thaw(t *testing.T, r *redistest.Server)    { r.Thaw(t) }

// fill makes a server refuse writes that need memory.
func fill(t *testing.T, r *redistest.Server) {
	t.Helper()
	r.Command(t, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	r.Command(t, "CONFIG", "SET", "maxmemory", "1")
}

func unfill(t *testing.T, r *redistest.Server) {
	t.Helper()
	r.Command(t, "CONFIG", "SET", "maxmemory", "0")
}

// demote makes a server the replica of one that is not there. It keeps its keys.
func demote(t *testing.T, r *redistest.Server) {
	t.Helper()
	r.Command(t, "REPLICAOF", "127.0.0.1", "1")
}

func promote(t *testing.T, r *redistest.Server) {
	t.Helper()
	r.Command(t, "REPLICAOF", "NO", "ONE")
}
