package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// Keys are replaced as docs/security.md says: sealing keys in their three stages
// on one node after the other, API keys at the same time, the key that the
// embedded store made, the password of Redis. Under load nothing is lost, and
// whatever was begun before a stage ends well in it, through the other node. What is
// done in the wrong order is refused as an outage, and put right again.
func TestSoakRotation(t *testing.T) {
	t.Parallel()
	needKeptConnections(t)
	t.Run("two nodes", rotateOnTwoNodes)
	t.Run("embedded store", rotateEmbedded)
	t.Run("password of Redis", rotatePassword)
	t.Run("old key removed too early", oldKeyRemovedTooEarly)
	t.Run("new key first while another node does not know it", newKeyFirst)
	t.Run("leaked sealing key", leakedSealingKey)
	t.Run("handshake across a revocation", handshakeAcrossRevocation)
}

// rotateOnTwoNodes replaces sealing keys and API keys over and over.
func rotateOnTwoNodes(t *testing.T) {
	t.Parallel()
	n := startNodes(t)
	l := newLedger(t, "rotation")
	current := new(atomic.Pointer[clientKeys])
	current.Store(&clientKeys{front: frontEndKey, back: backEndKey})
	for _, g := range n.gateways {
		g.client.Transport = rekeyed{recorder{g.client.Transport, l}, current}
	}
	o := loadOptions{Gateways: n.gateways, Server: n.primary, Replicas: []*oas{n.backup}, Scenarios: withKeys(current, allScenarios)}
	warmUp(t, l, o)
	d := startLoad(t, l, o)
	n.traffic = d
	a := n.gateways[0].activated(t)
	turns := length(1, 2*len(allScenarios))

	// begin starts something of everything on one node, and gives what ends it on
	// the other one.
	begin := func(node int) (end func()) { return n.begin(t, n.gateways[node], n.gateways[1-node], a) }
	// stage loads a configuration on one node after the other. Under each mixture,
	// what was begun before ends, and what is begun ends.
	stage := func(change func(dsapp object), before [2]func()) {
		t.Helper()
		for node, g := range n.gateways {
			change(g.dsapp())
			g.Load(t)
			d.Turns(t, turns)
			before[node]()
			for made := range n.gateways {
				begin(made)()
			}
			d.Turns(t, turns)
		}
	}

	sealing := n.key
	for rotation := range length(2, 6) {
		next := newSealingKey()
		old := *current.Load()
		young := &clientKeys{front: fmt.Sprintf("front-end-key-of-generation-%d", rotation), back: fmt.Sprintf("back-end-key-of-generation-%d", rotation)}

		// The key is added; so are the keys of clients.
		stages := [][2]func(){{begin(0), begin(1)}, {begin(1), begin(0)}}
		stage(func(dsapp object) {
			dsapp["sealing_keys"] = []string{sealing, next}
			dsapp["api_keys"] = apiKeys(old, *young, "")
		}, stages[0])
		assert.Empty(t, n.sealedBy(t)[keyID(t, next)], "nothing is sealed with it yet")

		// It is moved to the front; clients move to their new keys.
		current.Store(young)
		stage(func(dsapp object) { dsapp["sealing_keys"] = []string{next, sealing} }, stages[1])
		n.expect(t, http.StatusOK, old)

		// The old ones leave when nothing is left of them. The key of phones is
		// retired first. A call that came with it ends well.
		var left []string
		assert.Eventually(t, func() bool {
			left = n.sealedBy(t)[keyID(t, sealing)]
			return len(left) == 0
		}, deadline, 50*time.Millisecond)
		require.Empty(t, left, "everything sealed with the old key has ended")
		stages = append(stages, [2]func(){begin(1), begin(0)})
		for node, g := range n.gateways {
			slow := n.hold(t, g, old, a)
			g.dsapp()["api_keys"] = apiKeys(old, *young, "192.0.2.0/32")
			g.Load(t)
			n.expectOn(t, g, http.StatusForbidden, old.front)
			g.dsapp()["api_keys"] = apiKeys(clientKeys{}, *young, "")
			g.dsapp()["sealing_keys"] = []string{next}
			g.Load(t)
			n.expectOn(t, g, http.StatusUnauthorized, old.front)
			n.expectOn(t, g, http.StatusUnauthorized, old.back)
			slow()
			d.Turns(t, turns)
			stages[2][node]()
			for made := range n.gateways {
				begin(made)()
			}
			d.Turns(t, turns)
		}
		n.expect(t, http.StatusUnauthorized, old)
		for id, keys := range n.sealedBy(t) {
			assert.Equal(t, keyID(t, next), id, "sealed with another key: %q", keys)
		}
		sealing = next
	}
	l.Close(t)
	for _, g := range n.gateways {
		assert.NotContains(t, g.Logs.String(), "record_unopened")
	}
}

// rotateEmbedded replaces the key that the embedded store made, under load.
func rotateEmbedded(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	path := filepath.Join(t.TempDir(), "dsapp.db")
	g := startQuietGateway(t, certs, server.URL, func(dsapp object) {
		delete(dsapp, "sealing_keys")
		dsapp["store"] = object{"backend": "embedded", "path": path}
	})
	n := &rotating{gateways: []*gateway{g}, primary: server}
	l := newLedger(t, "rotation, embedded store")
	o := loadOptions{Gateways: n.gateways, Server: server, Workers: 2}
	warmUp(t, l, o)
	d := startLoad(t, l, o)
	n.traffic = d
	g.client.Transport = recorder{g.client.Transport, l}
	a := g.activated(t)
	begin := func() (end func()) { return n.begin(t, g, g, a) }
	load := func(keys ...string) {
		t.Helper()
		if len(keys) > 0 {
			g.dsapp()["sealing_keys"] = keys
		}
		g.Load(t)
		d.Turns(t, length(2, len(allScenarios)))
	}
	require.FileExists(t, embedded.KeyPath(path))

	// Configured keys seal; that of the file still opens.
	first, second := newSealingKey(), newSealingKey()
	before := begin()
	load(first)
	before()
	begin()()

	// Without the file, what is configured is enough.
	early := begin()
	d.Turns(t, len(allScenarios))
	require.NoError(t, os.Remove(embedded.KeyPath(path)))
	load()
	early()
	begin()()

	// Configured keys are replaced as anywhere.
	before = begin()
	load(first, second)
	load(second, first)
	before()
	before = begin()
	d.Turns(t, len(allScenarios))
	load(second)
	before()
	begin()()
	l.Close(t)
	require.NoFileExists(t, embedded.KeyPath(path))
	assert.NotContains(t, g.Logs.String(), "record_unopened")

	// The key of the file is missed when it is still needed.
	t.Run("key file removed too early", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "dsapp.db")
		g := startGateway(t, certs, server.URL, func(dsapp object) {
			withOtherApplication(dsapp)
			delete(dsapp, "sealing_keys")
			dsapp["store"] = object{"backend": "embedded", "path": path}
		})
		n := &rotating{gateways: []*gateway{g}, primary: server}
		end := n.begin(t, g, g, g.activated(t))
		pending := g.Register(t)
		g.dsapp()["sealing_keys"] = []string{first}
		g.Load(t)
		g.awaitResealed(t)
		aside := path + ".aside"
		require.NoError(t, os.Rename(embedded.KeyPath(path), aside))
		g.Load(t)
		g.awaitUnavailable(t, pending.Identifier)
		g.available(t)
		require.NoError(t, os.Rename(aside, embedded.KeyPath(path)))
		g.Load(t)
		g.awaitAvailable(t, pending.Identifier)
		end()
		_, err := g.Phone().Activate(t.Context(), pending.Identifier, pending.Password)
		require.NoError(t, err)
	})
}

// rotatePassword replaces the password of Redis, of which a user can have two.
func rotatePassword(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	redis := redistest.Start(t, "--user", "gateway", "on", ">password-1", "~*", "&*", "+@all")
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("password-1\n"), 0o600))
	g := startQuietGateway(t, certs, server.URL, func(dsapp object) {
		dsapp["store"] = object{"backend": "redis", "addresses": []string{redis.Addr()}, "username": "gateway", "password": "{file." + file + "}", "timeout": "10s"}
	})
	l := newLedger(t, "rotation, password of Redis")
	o := loadOptions{Gateways: []*gateway{g}, Server: server, Workers: 2}
	warmUp(t, l, o)
	d := startLoad(t, l, o)
	turns := length(2, len(allScenarios))
	redis.Command(t, "ACL", "SETUSER", "gateway", ">password-2")
	require.NoError(t, os.WriteFile(file, []byte("password-2\n"), 0o600))
	d.Turns(t, turns)
	g.Load(t)
	d.Turns(t, turns)
	redis.Command(t, "ACL", "SETUSER", "gateway", "<password-1")
	d.Turns(t, turns)
	l.Close(t)

	// Connections are made again with the new password.
	redis.Command(t, "CLIENT", "KILL", "USER", "gateway")
	poll(t, "the store to be back", func() bool {
		status, _ := g.Call(t, ephemeralKeyPath, frontEndKey, `{"registrationIdentifier":"Unknown1","clientEphemeralPublicKey":"05"}`)
		return status == http.StatusOK
	})
	g.activated(t)
}

// What is sealed with a key that was removed is an outage, never unknown, and back
// with the key. Everything else goes on meanwhile.
func oldKeyRemovedTooEarly(t *testing.T) {
	t.Parallel()
	n := startNodes(t)
	first, second := n.gateways[0], n.gateways[1]
	next := newSealingKey()
	a := first.activated(t)
	end := n.begin(t, first, second, a)
	pending := first.Register(t)
	proven := first.Register(t)
	status, answer := exchange(t, first, proven.Identifier, proven.Password)
	require.Equal(t, http.StatusOK, status, answer)
	s := kinds[1]
	key, outcome := ask(t, n.backup, s, a)
	message := first.retrieved(t, s, frontEndKey, a.SerialNumber, key)
	n.load(t, n.key, next)
	n.load(t, next, n.key)
	poll(t, "the simulation secret to be sealed with the new key", func() bool { return n.secretBy(t) == keyID(t, next) })

	n.load(t, next)
	for _, g := range n.gateways {
		g.awaitUnavailable(t, pending.Identifier)
		g.available(t)
		g.awaitAlarm(t)

		signature, err := a.Sign(message)
		require.NoError(t, err)
		devices, confirmations, completions, cancels := n.calls("PROVISIONCMD_MDL_ADD_DEVICE"), n.calls("PROVISIONCMD_MDL_ACTIVATE"), n.calls(s.completeCommand), n.calls(s.cancelCommand)
		for what, call := range map[string]func() (int, string){
			"adding a device": func() (int, string) {
				return g.Call(t, addDevicePath, frontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"deviceCode":"12345678901234567890123456"}`, proven.Identifier))
			},
			"completing an activation": func() (int, string) {
				return g.Call(t, activatePath, frontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"signature":"1234567890123456"}`, proven.Identifier))
			},
			"retrieving again":    func() (int, string) { return g.retrieve(t, s, frontEndKey, a.SerialNumber, key) },
			"completing":          func() (int, string) { return g.complete(t, s, key, signature) },
			"cancelling":          func() (int, string) { return g.cancel(t, s, frontEndKey, a.SerialNumber, key) },
			"cancelling, wrapped": func() (int, string) { return g.cancel(t, s, frontEndKey, a.SerialNumber, wrap(t, a, key)) },
			"foreign cancelling":  func() (int, string) { return g.cancel(t, s, otherFrontEndKey, a.SerialNumber, key) },
		} {
			status, answer := call()
			assert.Equal(t, http.StatusServiceUnavailable, status, "%s: %s", what, answer)
			assert.Contains(t, answer, "STAT_COMMS", what)
		}
		assert.Equal(t, devices, n.calls("PROVISIONCMD_MDL_ADD_DEVICE"), "nothing was forwarded")
		assert.Equal(t, confirmations, n.calls("PROVISIONCMD_MDL_ACTIVATE"), "nothing was forwarded")
		assert.Equal(t, completions, n.calls(s.completeCommand), "nothing was forwarded")
		assert.Equal(t, cancels, n.calls(s.cancelCommand), "nothing was forwarded")
	}

	n.load(t, next, n.key)
	for _, g := range n.gateways {
		g.awaitAvailable(t, pending.Identifier)
	}
	end()
	_, err := second.Phone().Activate(t.Context(), pending.Identifier, pending.Password)
	require.NoError(t, err)
	_, err = second.Phone().Activate(t.Context(), proven.Identifier, proven.Password)
	require.NoError(t, err)
	signature, err := a.Sign(message)
	require.NoError(t, err)
	status, answer = second.complete(t, s, key, signature)
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, answer, "STAT_SUCCESS")
	require.NoError(t, outcome())
}

// A node that does not know the key that another one seals with treats what that
// one stored as an outage, and after its next start all activations: nothing is
// registered then that could not be kept. Nothing is lost once it has the key.
func newKeyFirst(t *testing.T) {
	t.Parallel()
	n := startNodes(t)
	knows, ignorant := n.gateways[0], n.gateways[1]
	next := newSealingKey()
	a := knows.activated(t)
	own := n.begin(t, ignorant, knows, a)
	// The node that is left behind has served before: it knows the simulation secret.
	ignorant.available(t)

	knows.dsapp()["sealing_keys"] = []string{next, n.key}
	knows.Load(t)
	poll(t, "the simulation secret to be sealed with the new key", func() bool { return n.secretBy(t) == keyID(t, next) })
	pending := knows.Register(t)
	foreign := n.begin(t, knows, knows, a)
	ignorant.awaitUnavailable(t, pending.Identifier)
	ignorant.awaitAlarm(t)
	ignorant.available(t)
	own()

	ignorant.Load(t)
	ignorant.awaitUnavailable(t, "Unknown1")
	registrations := n.calls("PROVISIONCMD_MDL_REGISTER")
	status, answer := ignorant.Call(t, registerPath, backEndKey, userBody)
	assert.Equal(t, http.StatusServiceUnavailable, status, answer)
	assert.Equal(t, registrations, n.calls("PROVISIONCMD_MDL_REGISTER"), "nothing is registered that could not be kept")
	_, err := ignorant.Phone().Authenticate(t.Context(), a)
	require.NoError(t, err, "what needs no store goes on")
	knows.available(t)

	ignorant.dsapp()["sealing_keys"] = []string{n.key, next}
	ignorant.Load(t)
	ignorant.awaitAvailable(t, pending.Identifier)
	foreign()
	_, err = ignorant.Phone().Activate(t.Context(), pending.Identifier, pending.Password)
	require.NoError(t, err)
}

// After a leak nothing that the key opens is left, and nobody is kept waiting.
func leakedSealingKey(t *testing.T) {
	t.Parallel()
	n := startNodes(t)
	first, second := n.gateways[0], n.gateways[1]
	a := first.activated(t)
	pending := first.Register(t)
	s := kinds[0]
	key, outcome := ask(t, n.primary, s, a)
	first.retrieved(t, s, frontEndKey, a.SerialNumber, key)
	next := newSealingKey()
	n.load(t, n.key, next)
	n.load(t, next, n.key)
	poll(t, "the simulation secret to be sealed with the new key", func() bool { return n.secretBy(t) == keyID(t, next) })
	for _, pattern := range []string{"dsapp:{*", "dsapp:own:*", "dsapp:dev:*"} {
		for name := range strings.FieldsSeq(n.redis.Command(t, "KEYS", pattern)) {
			n.redis.Command(t, "DEL", name)
		}
	}
	n.load(t, next)
	assert.Empty(t, n.sealedBy(t)[keyID(t, n.key)])
	for _, g := range n.gateways {
		status, answer := exchange(t, g, pending.Identifier, pending.Password)
		assert.Equal(t, http.StatusOK, status)
		assert.Equal(t, refused, answer, "it is as if it had never been")
		g.available(t)
	}
	// Whose request it is was forgotten: the authentication server decides.
	status, answer := second.cancel(t, s, frontEndKey, a.SerialNumber, wrap(t, a, key))
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, success, answer)
	require.Error(t, outcome())
}

// A client whose TLS handshake is under way during a reload gets a connection to
// the configuration before. A key that was revoked by that reload opens nothing
// there.
func handshakeAcrossRevocation(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	old := clientKeys{front: "revoked-front-end-key", back: "revoked-back-end-key"}
	young := clientKeys{front: frontEndKey, back: backEndKey}
	g := startGateway(t, certs, server.URL, func(dsapp object) { dsapp["api_keys"] = apiKeys(old, young, "") })

	poll(t, "an answer on such a connection", func() bool {
		g.dsapp()["api_keys"] = apiKeys(old, young, "")
		g.Load(t)
		n := &rotating{}
		n.expectOn(t, g, http.StatusOK, old.front)

		raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(g.URL, "https://"))
		require.NoError(t, err)
		late := &lateConn{Conn: raw, hello: make(chan struct{}), rest: make(chan struct{})}
		defer late.Close()
		config := client(t, certs.Authority, "127.0.0.1").Transport.(*http.Transport).TLSClientConfig.Clone()
		config.NextProtos = []string{"h2"}
		conn := tls.Client(late, config)
		shaken := make(chan error, 1)
		go func() { shaken <- conn.HandshakeContext(t.Context()) }()
		<-late.hello

		g.dsapp()["api_keys"] = apiKeys(clientKeys{}, young, "")
		g.Load(t)
		close(late.rest)
		if <-shaken != nil {
			return false // closed after 5 seconds, which is as good
		}
		held := *g
		held.client = &http.Client{Timeout: deadline, Transport: &http.Transport{
			ForceAttemptHTTP2: true,
			DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		}}
		defer held.client.CloseIdleConnections()
		status, answer, err := held.try(t.Context(), serverTimePath, old.front, "")
		if err != nil {
			return false
		}
		assert.Equal(t, http.StatusUnauthorized, status, answer)
		return true
	})
}

// lateConn lets a ClientHello through and holds back what follows.
type lateConn struct {
	net.Conn
	writes      int
	hello, rest chan struct{}
}

func (c *lateConn) Write(b []byte) (int, error) {
	if c.writes++; c.writes > 1 {
		<-c.rest
		return c.Conn.Write(b)
	}
	defer close(c.hello)
	return c.Conn.Write(b)
}

// rotating are gateways whose keys are replaced.
type rotating struct {
	gateways        []*gateway
	primary, backup *oas
	redis           *redistest.Server
	key             string // the first sealing key
	traffic         *load  // that counts cancels, if any
	begun           int
}

// startNodes starts two gateways on one Redis server in front of two instances.
func startNodes(t *testing.T) *rotating {
	t.Helper()
	certs := certificates(t)
	n := &rotating{primary: startOAS(t, certs), redis: redistest.Start(t), key: newSealingKey()}
	n.backup = startReplica(t, certs, n.primary)
	for range 2 {
		n.gateways = append(n.gateways, startQuietGateway(t, certs, n.primary.URL, func(dsapp object) {
			dsapp["api_keys"] = apiKeys(clientKeys{}, clientKeys{front: frontEndKey, back: backEndKey}, "")
			dsapp["sealing_keys"] = []string{n.key}
			dsapp["store"] = object{"backend": "redis", "addresses": []string{n.redis.Addr()}, "timeout": "10s"}
			servers := dsapp["authentication_servers"].(object)
			servers["instances"] = append(servers["instances"].([]object), object{"name": "backup", "url": n.backup.URL})
			// Calls are held here while configurations are loaded.
			servers["timeout"] = "30s"
		}))
	}
	return n
}

// load gives all gateways these sealing keys, one after the other.
func (n *rotating) load(t *testing.T, keys ...string) {
	t.Helper()
	for _, g := range n.gateways {
		g.dsapp()["sealing_keys"] = keys
		g.Load(t)
	}
}

// calls counts those of a command on all instances.
func (n *rotating) calls(command string) int {
	return n.primary.Calls(command) + n.backup.Calls(command)
}

// begin begins on one gateway what is ended on another: an activation that is
// registered, one that is in the middle of its exchange, one whose exchange
// succeeded, a login that is completed and a signature that is cancelled.
func (n *rotating) begin(t *testing.T, made, ended *gateway, a *sandbox.Authenticator) (end func()) {
	t.Helper()
	// A licence has room for so many devices: each time another user is activated.
	user := object{"userID": activationUser(maxWorkers - 1 - n.begun%(maxWorkers/2))}
	n.begun++
	registered, half, proven := made.RegisterFor(t, user), made.RegisterFor(t, user), made.RegisterFor(t, user)
	c, salt, public := begin(t, made, half.Identifier, half.Password)
	evidence, err := c.Prove(salt, public)
	require.NoError(t, err)

	status, answer := exchange(t, made, proven.Identifier, proven.Password)
	require.Equal(t, http.StatusOK, status, answer)

	server := n.primary
	if n.backup != nil {
		server = n.backup // where only who remembers finds it
	}
	login, loggedIn := ask(t, server, kinds[0], a)
	message := made.retrieved(t, kinds[0], frontEndKey, a.SerialNumber, login)
	signature, signed := ask(t, server, kinds[1], a)
	made.retrieved(t, kinds[1], frontEndKey, a.SerialNumber, signature)

	return func() {
		t.Helper()
		_, err := ended.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
		require.NoError(t, err)

		status, answer := prove(t, ended, half.Identifier, evidence)
		assert.Equal(t, http.StatusOK, status)
		assert.Contains(t, answer, "encryptedLicenseActivationMessage")
		_, err = ended.Phone().Activate(t.Context(), half.Identifier, half.Password)
		require.NoError(t, err)
		// Every successful exchange earned the right to add a device.
		_, err = ended.Phone().Activate(t.Context(), proven.Identifier, proven.Password)
		require.NoError(t, err)

		code, err := a.Sign(message)
		require.NoError(t, err)
		status, answer = ended.complete(t, kinds[0], login, code)
		assert.Equal(t, http.StatusOK, status)
		assert.Contains(t, answer, "STAT_SUCCESS")
		require.NoError(t, loggedIn())

		if n.traffic != nil {
			n.traffic.cancels.Add(1)
		}
		_, answer = ended.cancel(t, kinds[1], otherFrontEndKey, a.SerialNumber, signature)
		assert.Equal(t, noSupport, answer)
		_, answer = ended.cancel(t, kinds[1], frontEndKey, a.SerialNumber, signature)
		assert.Equal(t, success, answer)
		require.Error(t, signed())
	}
}

// hold sends calls with the old keys that an authentication server does not
// answer, until end, when both must succeed.
func (n *rotating) hold(t *testing.T, g *gateway, old clientKeys, a *sandbox.Authenticator) (end func()) {
	t.Helper()
	arrived, released := make(chan struct{}, 2), make(chan struct{})
	intercept := func(_ http.ResponseWriter, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		if strings.Contains(string(body), userID) && (strings.Contains(string(body), "authUser") || strings.Contains(string(body), "PROVISIONCMD_MDL_REGISTER")) {
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
	raw.client = client(t, g.certs.Authority, "")
	var wg sync.WaitGroup
	errs := make([]error, 2)
	var answer struct{ Result registration }
	wg.Go(func() {
		phone := raw.Phone()
		phone.APIKey = old.front
		_, errs[0] = phone.Authenticate(t.Context(), a)
	})
	wg.Go(func() {
		status, body, err := raw.try(t.Context(), registerPath, old.back, userBody)
		if err == nil {
			err = json.Unmarshal([]byte(body), &answer)
		}
		if err == nil && (status != http.StatusOK || answer.Result.Identifier == "") {
			err = fmt.Errorf("status %d, %s", status, body)
		}
		errs[1] = err
	})
	for range errs {
		<-arrived
	}
	n.primary.Intercept(nil)
	n.backup.Intercept(nil)
	return func() {
		t.Helper()
		release()
		wg.Wait()
		raw.client.CloseIdleConnections()
		require.NoError(t, errs[0], "a call with the old front-end key")
		require.NoError(t, errs[1], "a call with the old back-end key")
		_, err := g.Phone().Activate(t.Context(), answer.Result.Identifier, answer.Result.Password)
		require.NoError(t, err)
	}
}

// expect checks what both keys get on all gateways.
func (n *rotating) expect(t *testing.T, want int, keys clientKeys) {
	t.Helper()
	for _, g := range n.gateways {
		n.expectOn(t, g, want, keys.front)
		n.expectOn(t, g, want, keys.back)
	}
}

// expectOn waits until a key gets a status: an open connection can still be
// served by the configuration before.
func (n *rotating) expectOn(t *testing.T, g *gateway, want int, key string) {
	t.Helper()
	raw := *g
	raw.client = client(t, g.certs.Authority, "")
	defer raw.client.CloseIdleConnections()
	poll(t, fmt.Sprintf("status %d", want), func() bool {
		// For keys of both classes.
		status, _, err := raw.try(t.Context(), activatePath, key, `{"registrationIdentifier":"Unknown1","signature":"1234567890123456"}`)
		return err == nil && status == want
	})
}

// sealedBy lists what is in Redis by the ID of the key that sealed it.
func (n *rotating) sealedBy(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	add := func(name, record string) {
		if record != "" {
			found[recordKeyID(t, name, record)] = append(found[recordKeyID(t, name, record)], name)
		}
	}
	// after is what follows the first semicolon behind a prefix.
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
		case name == "dsapp:probe", strings.HasPrefix(name, "dsapp:room:"):
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

// secretBy is the ID of the key that sealed the simulation secret.
func (n *rotating) secretBy(t *testing.T) string {
	t.Helper()
	return recordKeyID(t, "dsapp:sim", n.redis.Command(t, "GET", "dsapp:sim"))
}

// recordKeyID reads which key sealed a record: a version, then the ID of the key.
func recordKeyID(t *testing.T, name, record string) string {
	t.Helper()
	require.Greater(t, len(record), 9, name)
	require.EqualValues(t, 1, record[0], "version of the record in %s", name)
	return hex.EncodeToString([]byte(record[1:9]))
}

// keyID is the ID of a sealing key, as records name it.
func keyID(t *testing.T, key string) string {
	t.Helper()
	h := hmac.New(sha256.New, decode(t, key))
	h.Write([]byte("dsapp-gateway sealing key id"))
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func newSealingKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return hex.EncodeToString(key)
}

// dsapp is the app's configuration, for Load.
func (g *gateway) dsapp() object { return g.Config["apps"].(object)["dsapp"].(object) }

// first makes the first call of an exchange.
func (g *gateway) first(t *testing.T, identifier string) int {
	t.Helper()
	status, answer := g.Call(t, ephemeralKeyPath, frontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"clientEphemeralPublicKey":"05"}`, identifier))
	if status == http.StatusServiceUnavailable {
		assert.Contains(t, answer, "STAT_COMMS")
	}
	return status
}

// awaitUnavailable waits until the configuration that was loaded last answers that
// the state of an identifier cannot be read.
func (g *gateway) awaitUnavailable(t *testing.T, identifier string) {
	t.Helper()
	poll(t, "status 503", func() bool { return g.first(t, identifier) == http.StatusServiceUnavailable })
}

// awaitAvailable waits until it does not any more.
func (g *gateway) awaitAvailable(t *testing.T, identifier string) {
	t.Helper()
	poll(t, "status 200", func() bool { return g.first(t, identifier) == http.StatusOK })
}

// awaitResealed waits until the log tells that the simulation secret is sealed anew.
func (g *gateway) awaitResealed(t *testing.T) {
	t.Helper()
	poll(t, "the simulation secret to be sealed anew", func() bool {
		return strings.Contains(g.Logs.String(), "simulation secret sealed with the first sealing key")
	})
}

// awaitAlarm waits until the log tells of a value that no key opens.
func (g *gateway) awaitAlarm(t *testing.T) {
	t.Helper()
	poll(t, "an alarm in the log", func() bool { return strings.Contains(g.Logs.String(), "record_unopened") })
}

// available makes sure that new activations and those of nobody go their way.
func (g *gateway) available(t *testing.T) {
	t.Helper()
	assert.Equal(t, http.StatusOK, g.first(t, "Unknown1"))
	registered := g.Register(t)
	_, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
	require.NoError(t, err)
}

// clientKeys are the API keys of one generation of clients.
type clientKeys struct{ front, back string }

// apiKeys are those of two generations of the same applications, or of one if
// old is empty, and that of another application. The old front-end key is accepted
// from a range only if that is not empty.
func apiKeys(old, young clientKeys, retired string) []object {
	var keys []object
	for _, k := range []clientKeys{old, young} {
		if k.front == "" {
			continue
		}
		front := object{"name": "mobile-app", "class": "front_end", "key": k.front}
		if k == old && retired != "" {
			front["allow"] = []string{retired}
		}
		keys = append(keys, front, object{"name": "bank-site", "class": "back_end", "key": k.back})
	}
	return append(keys, object{"name": "other-app", "class": "front_end", "key": otherFrontEndKey})
}

// rekeyed replaces the keys of the first generation by those that clients use now.
type rekeyed struct {
	http.RoundTripper
	current *atomic.Pointer[clientKeys]
}

func (k rekeyed) RoundTrip(r *http.Request) (*http.Response, error) {
	key, _, _ := r.BasicAuth()
	switch current := k.current.Load(); key {
	case frontEndKey:
		key = current.front
	case backEndKey:
		key = current.back
	}
	r = r.Clone(r.Context())
	r.SetBasicAuth(key, "")
	return k.RoundTripper.RoundTrip(r)
}

// withKeys are scenarios whose clients use the current keys.
func withKeys(current *atomic.Pointer[clientKeys], all []scenario) []scenario {
	var with []scenario
	for _, s := range all {
		with = append(with, scenario{s.name, func(w *worker) {
			if _, ok := w.client.Transport.(rekeyed); !ok {
				w.client.Transport = rekeyed{w.client.Transport, current}
			}
			s.play(w)
		}})
	}
	return with
}

// recorder tells a ledger of calls whose answers the test itself judges.
type recorder struct {
	http.RoundTripper
	ledger *ledger
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

var (
	_ http.RoundTripper = rekeyed{}
	_ http.RoundTripper = recorder{}
)
