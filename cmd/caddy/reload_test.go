package main

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// moreClients is by how many connections to Redis may have grown: connections that happen to be
// idle.
const moreClients = 8

// Reloads under load lose no request and no pending registration, whatever the new
// configuration changes, and even if it is rejected. What the old configurations used is
// released.
func TestSoakReloads(t *testing.T) {
	t.Parallel()
	testbed.NeedKeptConnections(t)
	certs := testbed.Certificates(t)
	for _, store := range []string{"embedded", "redis"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			server := testbed.StartServer(t, certs)
			backup := testbed.StartReplica(t, certs, server)
			var redis *redistest.Server
			g := testbed.StartQuietGateway(t, certs, server.URL, func(dsapp testbed.Object) {
				dsapp["authentication_servers"].(testbed.Object)["max_queue"] = 1000
				if store == "redis" {
					redis = redistest.Start(t)
					dsapp["store"] = testbed.RedisStore(redis.Addr())
				}
			})
			l := testbed.NewLedger(t, "reloads, "+store)
			var pending []testbed.Registration
			for range 10 {
				pending = append(pending, g.Register(t))
			}
			o := testbed.LoadOptions{Gateways: []*testbed.Gateway{g}, Server: server}
			testbed.WarmUp(t, l, o)
			clients := redisClients(t, redis)

			d := testbed.StartLoad(t, l, o)
			r := newReloads(t, g, d, server, backup)
			for i := range testbed.Length(40, 200) {
				// Each configuration serves for a while.
				seen := l.Outcomes()
				poll.Until(t, "requests between two reloads", func() bool { return l.Outcomes() >= seen+20 })
				r.reload(t, i)
			}
			r.restore(t)
			d.Turns(t, 2)
			l.Close(t)

			if redis != nil {
				poll.Until(t, "connections to Redis to be closed", func() bool { return redisClients(t, redis) <= clients+moreClients })
			}
			for _, registered := range pending {
				_, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
				require.NoError(t, err)
			}
		})
	}
}

// redisClients counts the connections to a Redis server, without its own.
func redisClients(t *testing.T, redis *redistest.Server) int {
	t.Helper()
	if redis == nil {
		return 0
	}
	return strings.Count(redis.Command(t, "CLIENT", "LIST"), "id=") - 1
}

// reloads changes the configuration of a gateway step by step.
type reloads struct {
	*testbed.Gateway
	load    *testbed.Load
	primary testbed.Object
	backup  testbed.Object
	redis   bool

	keys      []testbed.Object
	store     testbed.Object
	servers   testbed.Object
	limits    testbed.Object
	instances int    // step
	rejected  int    // step
	taken     string // an address that something else listens on
}

func newReloads(t *testing.T, g *testbed.Gateway, d *testbed.Load, server, backup *testbed.Server) *reloads {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	app := g.App()
	r := &reloads{
		Gateway: g, load: d, taken: listener.Addr().String(),
		primary: testbed.Object{"name": "primary", "url": server.URL}, backup: testbed.Object{"name": "backup", "url": backup.URL},
		keys: app["api_keys"].([]testbed.Object), store: app["store"].(testbed.Object), servers: app["authentication_servers"].(testbed.Object), limits: app["limits"].(testbed.Object),
	}
	r.redis = r.store["backend"] == "redis"
	return r
}

// with returns a copy of an object with more members.
func with(o testbed.Object, more testbed.Object) testbed.Object {
	merged := maps.Clone(o)
	maps.Copy(merged, more)
	return merged
}

// reload loads the i-th configuration.
func (r *reloads) reload(t *testing.T, i int) {
	t.Helper()
	app := r.App()
	switch i % 8 {
	case 0: // the same
	case 1:
		another := testbed.Object{"name": "mobile-app", "class": "front_end", "key": fmt.Sprintf("another-front-end-key-%d", i)}
		app["api_keys"] = append([]testbed.Object{another}, r.keys...)
	case 2:
		if r.redis {
			app["store"] = with(r.store, testbed.Object{"timeout": fmt.Sprintf("%dms", 60_000+i), "dial_timeout": fmt.Sprintf("%dms", 50_000+i), "pool_size": 10 + i%7})
		}
	case 3:
		servers := app["authentication_servers"].(testbed.Object)
		switch r.instances++; r.instances % 4 {
		case 1:
			servers["instances"] = []testbed.Object{r.primary, r.backup}
		case 2:
			servers["instances"] = []testbed.Object{r.backup, r.primary}
		case 3:
			servers["instances"] = []testbed.Object{r.primary, r.backup}
		case 0:
			// The load must end what it began on the backup while that was the first.
			r.load.Turns(t, 2)
			servers["instances"] = []testbed.Object{r.primary}
		}
	case 4, 7:
		r.reject(t)
		return
	case 5:
		servers := app["authentication_servers"].(testbed.Object)
		servers["timeout"], servers["dial_timeout"] = fmt.Sprintf("%ds", 60+i%5), fmt.Sprintf("%dms", 50_000+i)
		servers["max_connections"] = 20 + i%5
	case 6:
		app["limits"] = with(r.limits, testbed.Object{"max_exchanges": 4 + i%3, "max_body_size": 60_000 + i})
		app["activation"] = testbed.Object{
			"max_attempts": 3 + i%2, "max_activations": 3 + i%3, "gateway_id": fmt.Sprintf("GATEWAY%d", i),
			"registration_lifetime": fmt.Sprintf("%dm", 10+i%3), "password": testbed.Object{"length": 8 + i%4},
		}
	}
	r.Load(t)
}

// restore loads the configuration of the start.
func (r *reloads) restore(t *testing.T) {
	t.Helper()
	app := r.App()
	r.load.Turns(t, 2)
	r.servers["instances"] = []testbed.Object{r.primary}
	app["api_keys"], app["store"], app["limits"] = r.keys, r.store, r.limits
	delete(app, "activation")
	delete(r.servers, "max_connections")
	r.servers["timeout"], r.servers["dial_timeout"] = poll.Patience.String(), poll.Patience.String()
	r.Load(t)
}

// reject loads a configuration that is rejected at one of several stages and must change
// nothing.
func (r *reloads) reject(t *testing.T) {
	t.Helper()
	apps := r.Config["apps"].(testbed.Object)
	app := r.App()
	servers := app["authentication_servers"].(testbed.Object)
	keys := []string{"5e41"}
	if r.redis {
		keys = nil
	}
	failures := []struct {
		name string
		app  testbed.Object
	}{
		{"profile", with(app, testbed.Object{"activation": testbed.Object{"profile": "no-such-profile"}})},
		{"certificate authority", with(app, testbed.Object{"authentication_servers": with(servers, testbed.Object{
			"tls": testbed.Object{"ca": testbed.Object{"provider": "file", "pem_files": []string{"/does/not/exist.pem"}}},
		})})},
		{"sealing keys", with(app, testbed.Object{"sealing_keys": keys})},
		{"instances", with(app, testbed.Object{"authentication_servers": with(servers, testbed.Object{
			"instances": []testbed.Object{r.primary, {"name": "again", "url": r.primary["url"]}},
		})})},
		{"store", with(app, testbed.Object{"store": testbed.Object{"backend": "redis"}})},
		{"listener", with(app, testbed.Object{"activation": testbed.Object{"gateway_id": "never"}})},
	}
	r.rejected++
	failure := failures[r.rejected%len(failures)]
	running := r.running(t)
	before := r.Config
	rejected := with(apps, testbed.Object{"dsapp": failure.app})
	if failure.name == "listener" {
		// Only the listener fails, after the app has started.
		http := apps["http"].(testbed.Object)
		rejected["http"] = with(http, testbed.Object{"servers": with(http["servers"].(testbed.Object), testbed.Object{
			"taken": testbed.Object{"listen": []string{r.taken}, "automatic_https": testbed.Object{"disable": true}},
		})})
	}
	r.Config = with(r.Config, testbed.Object{"apps": rejected})
	status, body := r.Gateway.TryLoad(t)
	r.Config = before
	assert.Equal(t, http.StatusBadRequest, status, "%s: %s", failure.name, body)
	assert.Equal(t, running, r.running(t), "%s: what was rejected runs", failure.name)
}

// running returns the configuration of the process.
func (r *reloads) running(t *testing.T) string {
	t.Helper()
	config, err := r.AskAdmin(t.Context(), "/config/")
	require.NoError(t, err)
	return config
}

// generationPath is answered with the name of the configuration.
const generationPath = "/generation"

// loadAs loads the configuration under a name and waits until it serves: right after a reload,
// an open connection can still be served by the one before.
func loadAs(t *testing.T, g *testbed.Gateway, name string) {
	t.Helper()
	server := g.HTTPServer()
	routes := server["routes"].([]testbed.Object)
	server["routes"] = append(routes[:1:1], testbed.Object{
		"match":  []testbed.Object{{"path": []string{generationPath}}},
		"handle": []testbed.Object{{"handler": "static_response", "body": name}},
	})
	g.Load(t)
	poll.Until(t, "configuration "+name, func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL+generationPath, nil)
		require.NoError(t, err)
		got, err := g.Do(r)
		return err == nil && got.Body == name
	})
}

// A client that is blocked for too many wrong keys stays blocked over reloads, with and without
// other changes.
func TestFailedKeysOutliveReloads(t *testing.T) {
	t.Parallel()
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["limits"] = testbed.Object{"failed_keys_per_minute": 1, "exchanges_per_minute": 0, "registrations_per_minute": 0}
	})
	poll.Until(t, "the block", func() bool {
		status, _ := g.Call(t, testbed.ServerTimePath, "no-such-front-end-key", "")
		return status == http.StatusTooManyRequests
	})
	blocked := func(when string) {
		t.Helper()
		status, answer := g.Call(t, testbed.ServerTimePath, testbed.FrontEndKey, "")
		assert.Equal(t, http.StatusTooManyRequests, status, "%s: %s", when, answer)
	}
	blocked("before")
	loadAs(t, g, "same")
	blocked("after a reload")
	g.App()["activation"] = testbed.Object{"gateway_id": "GATEWAY2"}
	loadAs(t, g, "changed")
	blocked("after a change")
	g.App()["activation"] = testbed.Object{"profile": "no-such-profile"}
	status, body := g.TryLoad(t)
	require.Equal(t, http.StatusBadRequest, status, body)
	blocked("after a rejected change")
	// Only this limit blocks.
	g.App()["activation"] = testbed.Object{}
	g.App()["limits"].(testbed.Object)["failed_keys_per_minute"] = 0
	loadAs(t, g, "unlimited")
	status, body = g.Call(t, testbed.ServerTimePath, testbed.FrontEndKey, "")
	assert.Equal(t, http.StatusOK, status, body)
}

// holdCommand has the next command of an operation wait at the authentication server. The
// channel held is closed when it has arrived; release lets it go on.
func holdCommand(t *testing.T, o *testbed.Server, command string) (held <-chan struct{}, release func()) {
	t.Helper()
	arrived, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(testbed.ReadCommand(r), command) {
			return false
		}
		once.Do(func() {
			close(arrived)
			select {
			case <-released:
			case <-r.Context().Done():
			}
		})
		return false
	})
	release = sync.OnceFunc(func() {
		o.Intercept(nil)
		close(released)
	})
	t.Cleanup(release)
	return arrived, release
}

// A request that waits for the authentication server while its configuration is replaced gets
// the right answer, and what it stores counts. That holds if the new configuration has other
// settings for the same store and another address of the authentication server, and while
// further configurations follow.
func TestRequestsOutliveTheirConfiguration(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	for _, store := range []string{"embedded", "redis"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			server := testbed.StartServer(t, certs)
			// The same server has a second address.
			moved := testbed.Serve(t, certs, server.Server)
			var redis *redistest.Server
			g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
				if store == "redis" {
					redis = redistest.Start(t)
					dsapp["store"] = testbed.RedisStore(redis.Addr())
				}
			})
			replace := func(name string) {
				app := g.App()
				if redis != nil {
					app["store"].(testbed.Object)["timeout"] = strconv.Itoa(60_000+len(name)) + "ms"
				}
				servers := app["authentication_servers"].(testbed.Object)
				servers["dial_timeout"] = strconv.Itoa(60_000+len(name)) + "ms"
				servers["instances"] = []testbed.Object{{"name": "primary", "url": moved.URL}, {"name": "added", "url": "https://" + freeport.Address(t)}}
				loadAs(t, g, name)
			}
			a := g.ActivatedDevice(t)

			// A registration is stored after the command.
			held, release := holdCommand(t, server, "PROVISIONCMD_MDL_REGISTER")
			var registered testbed.Registration
			done := make(chan error, 1)
			phone := g.Phone()
			go func() {
				r, err := phone.RegisterUser(t.Context(), testbed.BackEndKey, sandbox.UserRegistration{UserID: testbed.UserID, Domain: testbed.Domain, StaticPassword: testbed.StaticPassword})
				registered = testbed.Registration{Identifier: r.RegistrationIdentifier, Password: r.ActivationPassword}
				done <- err
			}()
			poll.Receive(t, "the command", held)
			replace("one")
			replace("another")
			var clients int
			if redis != nil {
				clients = redisClients(t, redis)
			}
			_, err := g.Phone().Authenticate(t.Context(), a)
			require.NoError(t, err, "the new configuration serves")
			release()
			require.NoError(t, poll.Receive(t, "the end of the call", done))
			_, err = g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
			require.NoError(t, err)
			if redis != nil {
				poll.Until(t, "the store of the old configuration to be closed", func() bool { return redisClients(t, redis) < clients+2 })
			}

			// The owner of a request is stored after the command.
			s := testbed.Login
			key, outcome := testbed.Ask(t, moved, s, a)
			held, release = holdCommand(t, moved, s.RetrieveCommand)
			message := make(chan sandbox.RetrievedRequest, 1)
			go func() {
				pending, err := phone.Retrieve(t.Context(), sandbox.KindLogin, a, key)
				message <- pending
				done <- err
			}()
			poll.Receive(t, "the command", held)
			replace("a third")
			release()
			require.NoError(t, poll.Receive(t, "the end of the call", done))
			_, answer := g.Retrieve(t, s, testbed.FrontEndKey, "VDS9999999-1", key)
			assert.Equal(t, testbed.NotFound, answer)
			signature, err := a.Sign((<-message).Message)
			require.NoError(t, err)
			_, answer = g.Complete(t, s, key, signature)
			assert.Contains(t, answer, "STAT_SUCCESS")
			require.NoError(t, outcome())
		})
	}
}
