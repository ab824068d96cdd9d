package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// rotating are gateways whose keys are replaced.
type rotating struct {
	gateways        []*testbed.Gateway
	primary, backup *testbed.Server
	redis           *redistest.Server
	key             string        // the first sealing key
	traffic         *testbed.Load // that counts cancels, if any
	begun           int
}

// startNodes starts two gateways on one Redis server in front of two instances.
func startNodes(t *testing.T) *rotating {
	t.Helper()
	certs := testbed.Certificates(t)
	n := &rotating{primary: testbed.StartServer(t, certs), redis: redistest.Start(t), key: newSealingKey()}
	n.backup = testbed.StartReplica(t, certs, n.primary)
	for range 2 {
		n.gateways = append(n.gateways, testbed.StartQuietGateway(t, certs, n.primary.URL, func(dsapp testbed.Object) {
			dsapp["api_keys"] = apiKeys(clientKeys{}, clientKeys{front: testbed.FrontEndKey, back: testbed.BackEndKey}, "")
			dsapp["sealing_keys"] = []string{n.key}
			dsapp["store"] = testbed.RedisStore(n.redis.Addr())
			testbed.AddBackup(dsapp, n.backup.URL)
			// The test holds calls while it loads configurations.
			dsapp["authentication_servers"].(testbed.Object)["timeout"] = "10m"
		}))
	}
	return n
}

// load gives all gateways the same sealing keys, one after the other.
func (n *rotating) load(t *testing.T, keys ...string) {
	t.Helper()
	for _, g := range n.gateways {
		g.App()["sealing_keys"] = keys
		g.Load(t)
	}
}

// calls counts the commands of an operation on all authentication servers.
func (n *rotating) calls(command string) int {
	return n.primary.Calls(command) + n.backup.Calls(command)
}

// begin begins on one gateway what the returned function ends on another: an activation that is
// registered, one in the middle of its exchange, one after its exchange, a login that is
// completed and a signature request that is cancelled.
func (n *rotating) begin(t *testing.T, made, ended *testbed.Gateway, a *sandbox.Authenticator) (end func()) {
	t.Helper()
	// A licence has room for a limited number of devices: each call uses another user.
	user := testbed.Object{"userID": testbed.ActivationUser(testbed.MaxWorkers - 1 - n.begun%(testbed.MaxWorkers/2))}
	n.begun++
	registered, half, proven := made.RegisterFor(t, user), made.RegisterFor(t, user), made.RegisterFor(t, user)
	c, salt, public := made.BeginExchange(t, half.Identifier, half.Password)
	evidence, err := c.Prove(salt, public)
	require.NoError(t, err)

	status, answer := made.Exchange(t, proven.Identifier, proven.Password)
	require.Equal(t, http.StatusOK, status, answer)

	server := n.primary
	if n.backup != nil {
		server = n.backup // where only who remembers finds it
	}
	login, loggedIn := testbed.Ask(t, server, testbed.Login, a)
	message := made.MustRetrieve(t, testbed.Login, testbed.FrontEndKey, a.SerialNumber, login)
	signature, signed := testbed.Ask(t, server, testbed.Signature, a)
	made.MustRetrieve(t, testbed.Signature, testbed.FrontEndKey, a.SerialNumber, signature)

	return func() {
		t.Helper()
		_, err := ended.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
		require.NoError(t, err)

		status, answer := ended.Prove(t, half.Identifier, evidence)
		assert.Equal(t, http.StatusOK, status)
		assert.Contains(t, answer, "encryptedLicenseActivationMessage")
		_, err = ended.Phone().Activate(t.Context(), half.Identifier, half.Password)
		require.NoError(t, err)
		// Every successful exchange admits a device.
		_, err = ended.Phone().Activate(t.Context(), proven.Identifier, proven.Password)
		require.NoError(t, err)

		code, err := a.Sign(message)
		require.NoError(t, err)
		status, answer = ended.Complete(t, testbed.Login, login, code)
		assert.Equal(t, http.StatusOK, status)
		assert.Contains(t, answer, "STAT_SUCCESS")
		require.NoError(t, loggedIn())

		if n.traffic != nil {
			n.traffic.AllowCancels(1)
		}
		_, answer = ended.Cancel(t, testbed.Signature, testbed.OtherFrontEndKey, a.SerialNumber, signature)
		assert.Equal(t, testbed.NoSupport, answer)
		_, answer = ended.Cancel(t, testbed.Signature, testbed.FrontEndKey, a.SerialNumber, signature)
		assert.Equal(t, testbed.Success, answer)
		require.Error(t, signed())
	}
}

// hold sends calls with the old keys, which an authentication server does not answer until end
// is called. Then both must succeed.
func (n *rotating) hold(t *testing.T, g *testbed.Gateway, old clientKeys, a *sandbox.Authenticator) (end func()) {
	t.Helper()
	arrived, released := make(chan struct{}, 2), make(chan struct{})
	intercept := func(_ http.ResponseWriter, r *http.Request) bool {
		command := testbed.ReadCommand(r)
		if strings.Contains(command, testbed.UserID) && (strings.Contains(command, "authUser") || strings.Contains(command, "PROVISIONCMD_MDL_REGISTER")) {
			arrived <- struct{}{}
			<-released
		}
		return false
	}
	n.primary.Intercept(intercept)
	n.backup.Intercept(intercept)
	release := sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)

	raw := *g
	raw.Client = testbed.NewClient(t, g.Certificates.Authority, "")
	var wg sync.WaitGroup
	errs := make([]error, 2)
	var answer struct{ Result testbed.Registration }
	wg.Go(func() {
		phone := raw.Phone()
		phone.APIKey = old.front
		_, errs[0] = phone.Authenticate(t.Context(), a)
	})
	wg.Go(func() {
		status, body, err := raw.Try(t.Context(), testbed.RegisterPath, old.back, testbed.RegisterBody)
		if err == nil {
			err = json.Unmarshal([]byte(body), &answer)
		}
		if err == nil && (status != http.StatusOK || answer.Result.Identifier == "") {
			err = fmt.Errorf("status %d, %s", status, body)
		}
		errs[1] = err
	})
	for range errs {
		poll.Receive(t, "the calls with the old keys", arrived)
	}
	n.primary.Intercept(nil)
	n.backup.Intercept(nil)
	return func() {
		t.Helper()
		release()
		wg.Wait()
		raw.Client.CloseIdleConnections()
		require.NoError(t, errs[0], "a call with the old front-end key")
		require.NoError(t, errs[1], "a call with the old back-end key")
		_, err := g.Phone().Activate(t.Context(), answer.Result.Identifier, answer.Result.Password)
		require.NoError(t, err)
	}
}

// expect waits until both keys get a status on all gateways.
func (n *rotating) expect(t *testing.T, want int, keys clientKeys) {
	t.Helper()
	for _, g := range n.gateways {
		n.expectOn(t, g, want, keys.front)
		n.expectOn(t, g, want, keys.back)
	}
}

// expectOn waits until a key gets a status: an open connection can still be served by the
// configuration before.
func (n *rotating) expectOn(t *testing.T, g *testbed.Gateway, want int, key string) {
	t.Helper()
	raw := *g
	raw.Client = testbed.NewClient(t, g.Certificates.Authority, "")
	defer raw.Client.CloseIdleConnections()
	poll.Until(t, fmt.Sprintf("status %d", want), func() bool {
		// This service takes keys of both classes.
		status, _, err := raw.Try(t.Context(), testbed.ActivatePath, key, `{"registrationIdentifier":"Unknown1","signature":"1234567890123456"}`)
		return err == nil && status == want
	})
}

// sealedBy returns the names of the keys in Redis by the ID of the sealing key.
func (n *rotating) sealedBy(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	add := func(name, record string) {
		if record != "" {
			found[recordKeyID(t, name, record)] = append(found[recordKeyID(t, name, record)], name)
		}
	}
	// after returns the text behind the first semicolon after a prefix.
	after := func(value string, prefix int) string {
		if len(value) < prefix {
			return ""
		}
		_, record, _ := strings.Cut(value[prefix:], ";")
		return record
	}
	const source, application, generation, token = 16, 16, 16, 16
	for name := range strings.FieldsSeq(n.redis.Command(t, "KEYS", "*")) {
		switch {
		case strings.HasPrefix(name, "dsapp:room:"), strings.HasPrefix(name, "dsapp:rep:"), name == "dsapp:format": // a minute at most, or not sealed
		case name == "dsapp:sim":
			add(name, n.redis.Command(t, "GET", name))
		case strings.HasSuffix(name, ":reg"):
			for _, field := range []string{"f", "v", "d"} {
				add(name, n.redis.Command(t, "HGET", name, field))
			}
		case strings.HasSuffix(name, ":hs"):
			for _, place := range []string{"1", "2", "3", "4"} {
				add(name, after(n.redis.Command(t, "HGET", name, place), source+application+generation))
			}
		case strings.HasPrefix(name, "dsapp:own:"):
			if value := n.redis.Command(t, "GET", name); value != "" {
				add(name, value[token:])
			}
		case strings.HasPrefix(name, "dsapp:dev:"):
			for i := range 100 {
				value := n.redis.Command(t, "ZRANGE", name, fmt.Sprint(i), fmt.Sprint(i))
				if value == "" {
					break
				}
				add(name, after(value, token))
			}
		default:
			require.Fail(t, "unknown key", name)
		}
	}
	return found
}

// secretBy returns the ID of the key that sealed the simulation secret.
func (n *rotating) secretBy(t *testing.T) string {
	t.Helper()
	return recordKeyID(t, "dsapp:sim", n.redis.Command(t, "GET", "dsapp:sim"))
}

// recordKeyID returns the ID of the key that sealed a record. It follows the version.
func recordKeyID(t *testing.T, name, record string) string {
	t.Helper()
	require.Greater(t, len(record), 9, name)
	require.EqualValues(t, 1, record[0], "version of the record in %s", name)
	return hex.EncodeToString([]byte(record[1:9]))
}

// keyID returns the ID of a sealing key.
func keyID(t *testing.T, key string) string {
	t.Helper()
	h := hmac.New(sha256.New, digits.Decode(t, key))
	h.Write([]byte("dsapp-gateway sealing key id"))
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func newSealingKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return hex.EncodeToString(key)
}

// firstCall makes the first call of an exchange and returns the status.
func firstCall(t *testing.T, g *testbed.Gateway, identifier string) int {
	t.Helper()
	status, answer := g.Call(t, testbed.EphemeralKeyPath, testbed.FrontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"clientEphemeralPublicKey":"05"}`, identifier))
	if status == http.StatusServiceUnavailable {
		assert.Contains(t, answer, "STAT_COMMS")
	}
	return status
}

// awaitUnavailable waits until the configuration that was loaded last answers that the record
// of an identifier is unavailable.
func awaitUnavailable(t *testing.T, g *testbed.Gateway, identifier string) {
	t.Helper()
	poll.Until(t, "status 503", func() bool { return firstCall(t, g, identifier) == http.StatusServiceUnavailable })
}

// awaitAvailable waits until a first call is answered.
func awaitAvailable(t *testing.T, g *testbed.Gateway, identifier string) {
	t.Helper()
	poll.Until(t, "status 200", func() bool { return firstCall(t, g, identifier) == http.StatusOK })
}

// awaitResealed waits until the log says that the simulation secret is sealed with another key.
func awaitResealed(t *testing.T, g *testbed.Gateway) {
	t.Helper()
	g.AwaitLog(t, "simulation secret sealed with the first sealing key")
}

// awaitAlarm waits until the log says that no key opens a value.
func awaitAlarm(t *testing.T, g *testbed.Gateway) {
	t.Helper()
	g.AwaitLog(t, "record_unopened")
}

// checkAvailable checks that new and unknown registrations are served.
func checkAvailable(t *testing.T, g *testbed.Gateway) {
	t.Helper()
	assert.Equal(t, http.StatusOK, firstCall(t, g, "Unknown1"))
	registered := g.Register(t)
	_, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
	require.NoError(t, err)
}

// clientKeys are the API keys of one generation of clients.
type clientKeys struct{ front, back string }

// apiKeys returns the API keys of two generations of the same applications, or of one if old is
// empty, and that of another application. Unless retired is empty, the old front-end key is
// accepted only from that range.
func apiKeys(old, young clientKeys, retired string) []testbed.Object {
	var keys []testbed.Object
	for _, k := range []clientKeys{old, young} {
		if k.front == "" {
			continue
		}
		front := testbed.Object{"name": "mobile-app", "class": "front_end", "key": k.front}
		if k == old && retired != "" {
			front["allow"] = []string{retired}
		}
		keys = append(keys, front, testbed.Object{"name": "bank-site", "class": "back_end", "key": k.back})
	}
	return append(keys, testbed.Object{"name": "other-app", "class": "front_end", "key": testbed.OtherFrontEndKey})
}

// rekeyed replaces the keys of the first generation with the current ones.
type rekeyed struct {
	http.RoundTripper
	current *atomic.Pointer[clientKeys]
}

func (k rekeyed) RoundTrip(r *http.Request) (*http.Response, error) {
	key, _, _ := r.BasicAuth()
	switch current := k.current.Load(); key {
	case testbed.FrontEndKey:
		key = current.front
	case testbed.BackEndKey:
		key = current.back
	}
	r = r.Clone(r.Context())
	r.SetBasicAuth(key, "")
	return k.RoundTripper.RoundTrip(r)
}

// recorder has a ledger count calls whose answers the test judges.
type recorder struct {
	http.RoundTripper
	ledger *testbed.Ledger
}

func (c recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	c.ledger.Sent()
	resp, err := c.RoundTripper.RoundTrip(r)
	if err != nil {
		c.ledger.Lost("%s: %v", r.URL.Path, err)
		return nil, err
	}
	c.ledger.Answered()
	return resp, nil
}
