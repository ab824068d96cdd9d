package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// Keys are replaced as docs/security.md says: sealing keys in three stages, on one node after
// the other; API keys at the same time; the key that the embedded store made; the password of
// Redis. Under load nothing is lost, and whatever was begun before a stage ends through the
// other node. Steps in the wrong order cause an outage and no loss, and can be put right.
func TestSoakRotation(t *testing.T) {
	t.Parallel()
	testbed.NeedKeptConnections(t)
	t.Run("two nodes", rotateOnTwoNodes)
	t.Run("embedded store", rotateEmbedded)
	t.Run("password of Redis", rotatePassword)
	t.Run("old key removed too early", oldKeyRemovedTooEarly)
	t.Run("new key first while another node does not know it", newKeyFirst)
	t.Run("leaked sealing key", leakedSealingKey)
	t.Run("handshake across a revocation", handshakeAcrossRevocation)
}

// rotateOnTwoNodes replaces sealing keys and API keys several times.
func rotateOnTwoNodes(t *testing.T) {
	t.Parallel()
	n := startNodes(t)
	l := testbed.NewLedger(t, "rotation")
	current := new(atomic.Pointer[clientKeys])
	current.Store(&clientKeys{front: testbed.FrontEndKey, back: testbed.BackEndKey})
	for _, g := range n.gateways {
		g.Client.Transport = rekeyed{recorder{g.Client.Transport, l}, current}
	}
	o := testbed.LoadOptions{
		Gateways: n.gateways, Server: n.primary, Replicas: []*testbed.Server{n.backup},
		Transport: func(t http.RoundTripper) http.RoundTripper { return rekeyed{t, current} },
	}
	testbed.WarmUp(t, l, o)
	d := testbed.StartLoad(t, l, o)
	n.traffic = d
	a := n.gateways[0].ActivatedDevice(t)
	turns := testbed.Length(1, 2*len(testbed.AllScenarios))

	// begin begins something of every kind on one node. The returned function ends it on the
	// other.
	begin := func(node int) (end func()) { return n.begin(t, n.gateways[node], n.gateways[1-node], a) }
	// stage loads a configuration on one node after the other. With each mixture of
	// configurations, what was begun before ends, and so does what is begun now.
	stage := func(change func(dsapp testbed.Object), before [2]func()) {
		t.Helper()
		for node, g := range n.gateways {
			change(g.App())
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
	for rotation := range testbed.Length(2, 6) {
		next := newSealingKey()
		old := *current.Load()
		young := &clientKeys{front: fmt.Sprintf("front-end-key-of-generation-%d", rotation), back: fmt.Sprintf("back-end-key-of-generation-%d", rotation)}

		// First stage: the new sealing key is added; so are the new keys of clients.
		stages := [][2]func(){{begin(0), begin(1)}, {begin(1), begin(0)}}
		stage(func(dsapp testbed.Object) {
			dsapp["sealing_keys"] = []string{sealing, next}
			dsapp["api_keys"] = apiKeys(old, *young, "")
		}, stages[0])
		assert.Empty(t, n.sealedBy(t)[keyID(t, next)], "nothing is sealed with it yet")

		// Second stage: the new key comes first; clients use their new keys.
		current.Store(young)
		stage(func(dsapp testbed.Object) { dsapp["sealing_keys"] = []string{next, sealing} }, stages[1])
		n.expect(t, http.StatusOK, old)

		// Third stage: the old keys are removed when nothing is sealed with them any more. The
		// phones' key is first restricted to a range. A call that came with it still ends well.
		var left []string
		assert.Eventually(t, func() bool {
			left = n.sealedBy(t)[keyID(t, sealing)]
			return len(left) == 0
		}, poll.Patience, 50*time.Millisecond)
		require.Empty(t, left, "everything sealed with the old key has ended")
		stages = append(stages, [2]func(){begin(1), begin(0)})
		for node, g := range n.gateways {
			slow := n.hold(t, g, old, a)
			g.App()["api_keys"] = apiKeys(old, *young, "192.0.2.0/32")
			g.Load(t)
			n.expectOn(t, g, http.StatusForbidden, old.front)
			g.App()["api_keys"] = apiKeys(clientKeys{}, *young, "")
			g.App()["sealing_keys"] = []string{next}
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
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	path := filepath.Join(t.TempDir(), "dsapp.db")
	g := testbed.StartQuietGateway(t, certs, server.URL, func(dsapp testbed.Object) {
		delete(dsapp, "sealing_keys")
		dsapp["store"] = testbed.Object{"backend": "embedded", "path": path}
	})
	n := &rotating{gateways: []*testbed.Gateway{g}, primary: server}
	l := testbed.NewLedger(t, "rotation, embedded store")
	o := testbed.LoadOptions{Gateways: n.gateways, Server: server, Workers: 2}
	testbed.WarmUp(t, l, o)
	d := testbed.StartLoad(t, l, o)
	n.traffic = d
	g.Client.Transport = recorder{g.Client.Transport, l}
	a := g.ActivatedDevice(t)
	begin := func() (end func()) { return n.begin(t, g, g, a) }
	load := func(keys ...string) {
		t.Helper()
		if len(keys) > 0 {
			g.App()["sealing_keys"] = keys
		}
		g.Load(t)
		d.Turns(t, testbed.Length(2, len(testbed.AllScenarios)))
	}
	require.FileExists(t, embedded.KeyPath(path))

	// Records are sealed with configured keys. The key of the file still opens the old ones.
	first, second := newSealingKey(), newSealingKey()
	before := begin()
	load(first)
	before()
	begin()()

	// The configured keys are enough without the file.
	early := begin()
	d.Turns(t, len(testbed.AllScenarios))
	require.NoError(t, os.Remove(embedded.KeyPath(path)))
	load()
	early()
	begin()()

	// Configured keys are replaced as on any store.
	before = begin()
	load(first, second)
	load(second, first)
	before()
	before = begin()
	d.Turns(t, len(testbed.AllScenarios))
	load(second)
	before()
	begin()()
	l.Close(t)
	require.NoFileExists(t, embedded.KeyPath(path))
	assert.NotContains(t, g.Logs.String(), "record_unopened")

	// If the key file is removed while records need it, they are unavailable until it is back.
	t.Run("key file removed too early", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "dsapp.db")
		g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
			testbed.AddOtherApplication(dsapp)
			delete(dsapp, "sealing_keys")
			dsapp["store"] = testbed.Object{"backend": "embedded", "path": path}
		})
		n := &rotating{gateways: []*testbed.Gateway{g}, primary: server}
		end := n.begin(t, g, g, g.ActivatedDevice(t))
		pending := g.Register(t)
		g.App()["sealing_keys"] = []string{first}
		g.Load(t)
		awaitResealed(t, g)
		aside := path + ".aside"
		require.NoError(t, os.Rename(embedded.KeyPath(path), aside))
		g.Load(t)
		awaitUnavailable(t, g, pending.Identifier)
		checkAvailable(t, g)
		require.NoError(t, os.Rename(aside, embedded.KeyPath(path)))
		g.Load(t)
		awaitAvailable(t, g, pending.Identifier)
		end()
		_, err := g.Phone().Activate(t.Context(), pending.Identifier, pending.Password)
		require.NoError(t, err)
	})
}

// rotatePassword replaces the password of Redis while its user has two.
func rotatePassword(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	redis := redistest.Start(t, "--user", "gateway", "on", ">password-1", "~*", "&*", "+@all")
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("password-1\n"), 0o600))
	g := testbed.StartQuietGateway(t, certs, server.URL, func(dsapp testbed.Object) {
		dsapp["store"] = testbed.Object{"backend": "redis", "addresses": []string{redis.Addr()}, "username": "gateway", "password": "{file." + file + "}", "timeout": poll.Patience.String()}
	})
	l := testbed.NewLedger(t, "rotation, password of Redis")
	o := testbed.LoadOptions{Gateways: []*testbed.Gateway{g}, Server: server, Workers: 2}
	testbed.WarmUp(t, l, o)
	d := testbed.StartLoad(t, l, o)
	turns := testbed.Length(2, len(testbed.AllScenarios))
	redis.Command(t, "ACL", "SETUSER", "gateway", ">password-2")
	require.NoError(t, os.WriteFile(file, []byte("password-2\n"), 0o600))
	d.Turns(t, turns)
	g.Load(t)
	d.Turns(t, turns)
	redis.Command(t, "ACL", "SETUSER", "gateway", "<password-1")
	d.Turns(t, turns)
	l.Close(t)

	// New connections use the new password.
	redis.Command(t, "CLIENT", "KILL", "USER", "gateway")
	poll.Until(t, "the store to be back", func() bool {
		status, _ := g.Call(t, testbed.EphemeralKeyPath, testbed.FrontEndKey, `{"registrationIdentifier":"Unknown1","clientEphemeralPublicKey":"05"}`)
		return status == http.StatusOK
	})
	g.ActivatedDevice(t)
}

// Records that are sealed with a removed key are unavailable, never unknown, and come back with
// the key. Everything else goes on meanwhile.
func oldKeyRemovedTooEarly(t *testing.T) {
	t.Parallel()
	n := startNodes(t)
	first, second := n.gateways[0], n.gateways[1]
	next := newSealingKey()
	a := first.ActivatedDevice(t)
	end := n.begin(t, first, second, a)
	pending := first.Register(t)
	proven := first.Register(t)
	status, answer := first.Exchange(t, proven.Identifier, proven.Password)
	require.Equal(t, http.StatusOK, status, answer)
	s := testbed.Signature
	key, outcome := testbed.Ask(t, n.backup, s, a)
	message := first.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key)
	n.load(t, n.key, next)
	n.load(t, next, n.key)
	poll.Until(t, "the simulation secret to be sealed with the new key", func() bool { return n.secretBy(t) == keyID(t, next) })

	n.load(t, next)
	for _, g := range n.gateways {
		awaitUnavailable(t, g, pending.Identifier)
		checkAvailable(t, g)
		awaitAlarm(t, g)

		signature, err := a.Sign(message)
		require.NoError(t, err)
		devices, confirmations, completions, cancels := n.calls("PROVISIONCMD_MDL_ADD_DEVICE"), n.calls("PROVISIONCMD_MDL_ACTIVATE"), n.calls(s.CompleteCommand), n.calls(s.CancelCommand)
		for what, call := range map[string]func() (int, string){
			"adding a device": func() (int, string) {
				return g.Call(t, testbed.AddDevicePath, testbed.FrontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"deviceCode":"12345678901234567890123456"}`, proven.Identifier))
			},
			"completing an activation": func() (int, string) {
				return g.Call(t, testbed.ActivatePath, testbed.FrontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"signature":"1234567890123456"}`, proven.Identifier))
			},
			"retrieving again": func() (int, string) { return g.Retrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key) },
			"completing":       func() (int, string) { return g.Complete(t, s, key, signature) },
			"cancelling":       func() (int, string) { return g.Cancel(t, s, testbed.FrontEndKey, a.SerialNumber, key) },
			"cancelling, wrapped": func() (int, string) {
				return g.Cancel(t, s, testbed.FrontEndKey, a.SerialNumber, testbed.WrapKey(t, a, key))
			},
			"foreign cancelling": func() (int, string) { return g.Cancel(t, s, testbed.OtherFrontEndKey, a.SerialNumber, key) },
		} {
			status, answer := call()
			assert.Equal(t, http.StatusServiceUnavailable, status, "%s: %s", what, answer)
			assert.Contains(t, answer, "STAT_COMMS", what)
		}
		assert.Equal(t, devices, n.calls("PROVISIONCMD_MDL_ADD_DEVICE"), "nothing was forwarded")
		assert.Equal(t, confirmations, n.calls("PROVISIONCMD_MDL_ACTIVATE"), "nothing was forwarded")
		assert.Equal(t, completions, n.calls(s.CompleteCommand), "nothing was forwarded")
		assert.Equal(t, cancels, n.calls(s.CancelCommand), "nothing was forwarded")
	}

	n.load(t, next, n.key)
	for _, g := range n.gateways {
		awaitAvailable(t, g, pending.Identifier)
	}
	end()
	_, err := second.Phone().Activate(t.Context(), pending.Identifier, pending.Password)
	require.NoError(t, err)
	_, err = second.Phone().Activate(t.Context(), proven.Identifier, proven.Password)
	require.NoError(t, err)
	signature, err := a.Sign(message)
	require.NoError(t, err)
	status, answer = second.Complete(t, s, key, signature)
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, answer, "STAT_SUCCESS")
	require.NoError(t, outcome())
}

// A node that does not know the key with which another one seals treats the other's records as
// unavailable, and after its next start all activations: it registers nothing that could not be
// kept. Nothing is lost once it has the key.
func newKeyFirst(t *testing.T) {
	t.Parallel()
	n := startNodes(t)
	knows, ignorant := n.gateways[0], n.gateways[1]
	next := newSealingKey()
	a := knows.ActivatedDevice(t)
	own := n.begin(t, ignorant, knows, a)
	// The ignorant node has served before, so it knows the simulation secret.
	checkAvailable(t, ignorant)

	knows.App()["sealing_keys"] = []string{next, n.key}
	knows.Load(t)
	poll.Until(t, "the simulation secret to be sealed with the new key", func() bool { return n.secretBy(t) == keyID(t, next) })
	pending := knows.Register(t)
	foreign := n.begin(t, knows, knows, a)
	awaitUnavailable(t, ignorant, pending.Identifier)
	awaitAlarm(t, ignorant)
	checkAvailable(t, ignorant)
	own()

	ignorant.Load(t)
	awaitUnavailable(t, ignorant, "Unknown1")
	registrations := n.calls("PROVISIONCMD_MDL_REGISTER")
	status, answer := ignorant.Call(t, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
	assert.Equal(t, http.StatusServiceUnavailable, status, answer)
	assert.Equal(t, registrations, n.calls("PROVISIONCMD_MDL_REGISTER"), "nothing is registered that could not be kept")
	_, err := ignorant.Phone().Authenticate(t.Context(), a)
	require.NoError(t, err, "what needs no store goes on")
	checkAvailable(t, knows)

	ignorant.App()["sealing_keys"] = []string{n.key, next}
	ignorant.Load(t)
	awaitAvailable(t, ignorant, pending.Identifier)
	foreign()
	_, err = ignorant.Phone().Activate(t.Context(), pending.Identifier, pending.Password)
	require.NoError(t, err)
}

// After a leak nothing is left that the key opens, and no client has to wait.
func leakedSealingKey(t *testing.T) {
	t.Parallel()
	n := startNodes(t)
	first, second := n.gateways[0], n.gateways[1]
	a := first.ActivatedDevice(t)
	pending := first.Register(t)
	s := testbed.Login
	key, outcome := testbed.Ask(t, n.primary, s, a)
	first.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key)
	next := newSealingKey()
	n.load(t, n.key, next)
	n.load(t, next, n.key)
	poll.Until(t, "the simulation secret to be sealed with the new key", func() bool { return n.secretBy(t) == keyID(t, next) })
	for _, pattern := range []string{"dsapp:{*", "dsapp:own:*", "dsapp:dev:*", "dsapp:rep:*"} {
		for name := range strings.FieldsSeq(n.redis.Command(t, "KEYS", pattern)) {
			n.redis.Command(t, "DEL", name)
		}
	}
	n.load(t, next)
	assert.Empty(t, n.sealedBy(t)[keyID(t, n.key)])
	for _, g := range n.gateways {
		assert.Equal(t, testbed.Refused, testbed.Answer(g.Exchange(t, pending.Identifier, pending.Password)), "it is as if it had never been")
		checkAvailable(t, g)
	}
	// The owner of the request is forgotten: the authentication server decides.
	assert.Equal(t, testbed.Success, testbed.Answer(second.Cancel(t, s, testbed.FrontEndKey, a.SerialNumber, testbed.WrapKey(t, a, key))))
	require.Error(t, outcome())
}

// A TLS handshake that is under way during a reload ends in a connection to the old
// configuration. A key that the reload revoked is not accepted there.
func handshakeAcrossRevocation(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	old := clientKeys{front: "revoked-front-end-key", back: "revoked-back-end-key"}
	young := clientKeys{front: testbed.FrontEndKey, back: testbed.BackEndKey}
	g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) { dsapp["api_keys"] = apiKeys(old, young, "") })

	poll.Until(t, "an answer on such a connection", func() bool {
		g.App()["api_keys"] = apiKeys(old, young, "")
		g.Load(t)
		n := &rotating{}
		n.expectOn(t, g, http.StatusOK, old.front)

		raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(g.URL, "https://"))
		require.NoError(t, err)
		late := &lateConn{Conn: raw, hello: make(chan struct{}), rest: make(chan struct{})}
		defer late.Close()
		config := testbed.NewClient(t, certs.Authority, "127.0.0.1").Transport.(*http.Transport).TLSClientConfig.Clone()
		config.NextProtos = []string{"h2"}
		conn := tls.Client(late, config)
		shaken := make(chan error, 1)
		go func() { shaken <- conn.HandshakeContext(t.Context()) }()
		<-late.hello

		g.App()["api_keys"] = apiKeys(clientKeys{}, young, "")
		g.Load(t)
		close(late.rest)
		if <-shaken != nil {
			return false // closed after 5 seconds, which is as good
		}
		held := *g
		held.Client = &http.Client{Timeout: poll.Patience, Transport: &http.Transport{
			ForceAttemptHTTP2: true,
			DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		}}
		defer held.Client.CloseIdleConnections()
		status, answer, err := held.Try(t.Context(), testbed.ServerTimePath, old.front, "")
		if err != nil {
			return false
		}
		assert.Equal(t, http.StatusUnauthorized, status, answer)
		return true
	})
}

// lateConn sends a ClientHello and holds back everything after it.
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

var (
	_ http.RoundTripper = rekeyed{}
	_ http.RoundTripper = recorder{}
)
