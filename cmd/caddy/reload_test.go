package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
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
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
)

// moreClients is how many connections more than at the start may be open to a
// Redis server at the end: as many as happen to be used at once.
const moreClients = 8

// app is the configuration of the gateway's app, for the next Load.
func (g *gateway) app() object { return g.Config["apps"].(object)["dsapp"].(object) }

// Reloads under load lose no request and no pending registration, whatever a new
// configuration changes, and not when one is rejected. What the configurations
// used is given back.
func TestSoakReloads(t *testing.T) {
	t.Parallel()
	needKeptConnections(t)
	certs := certificates(t)
	for _, store := range []string{"embedded", "redis"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			server := startOAS(t, certs)
			backup := startReplica(t, certs, server)
			var redis *redistest.Server
			g := startQuietGateway(t, certs, server.URL, func(dsapp object) {
				dsapp["authentication_servers"].(object)["max_queue"] = 1000
				if store == "redis" {
					redis = redistest.Start(t)
					dsapp["store"] = object{"backend": "redis", "addresses": []string{redis.Addr()}}
				}
			})
			l := newLedger(t, "reloads, "+store)
			var pending []registration
			for range 10 {
				pending = append(pending, g.Register(t))
			}
			o := loadOptions{Gateways: []*gateway{g}, Server: server}
			warmUp(t, l, o)
			clients := redisClients(t, redis)

			d := startLoad(t, l, o)
			r := newReloads(t, g, d, server, backup)
			for i := range length(40, 200) {
				// The load goes on for a while with each configuration.
				seen := l.answered.Load()
				poll(t, "requests between two reloads", func() bool { return l.answered.Load() >= seen+20 || l.lost.Load()+l.wrong.Load() > 0 })
				r.reload(t, i)
			}
			r.restore(t)
			d.Turns(t, 2)
			l.Close(t)

			if redis != nil {
				poll(t, "connections to Redis to be closed", func() bool { return redisClients(t, redis) <= clients+moreClients })
			}
			for _, registered := range pending {
				_, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
				require.NoError(t, err)
			}
		})
	}
}

// redisClients counts the connections to a Redis server, this one not included.
func redisClients(t *testing.T, redis *redistest.Server) int {
	t.Helper()
	if redis == nil {
		return 0
	}
	return strings.Count(redis.Command(t, "CLIENT", "LIST"), "id=") - 1
}

// reloads changes the configuration of a gateway step by step.
type reloads struct {
	*gateway
	load    *load
	primary object
	backup  object
	redis   bool

	keys      []object
	store     object
	servers   object
	limits    object
	instances int    // step
	rejected  int    // step
	taken     string // an address that something else listens on
}

func newReloads(t *testing.T, g *gateway, d *load, server, backup *oas) *reloads {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	app := g.app()
	r := &reloads{
		gateway: g, load: d, taken: listener.Addr().String(),
		primary: object{"name": "primary", "url": server.URL}, backup: object{"name": "backup", "url": backup.URL},
		keys: app["api_keys"].([]object), store: app["store"].(object), servers: app["authentication_servers"].(object), limits: app["limits"].(object),
	}
	r.redis = r.store["backend"] == "redis"
	return r
}

// with gives an object with more members.
func with(o object, more object) object {
	merged := maps.Clone(o)
	maps.Copy(merged, more)
	return merged
}

// reload loads the i-th configuration.
func (r *reloads) reload(t *testing.T, i int) {
	t.Helper()
	app := r.app()
	switch i % 8 {
	case 0: // the same
	case 1:
		another := object{"name": "mobile-app", "class": "front_end", "key": fmt.Sprintf("another-front-end-key-%d", i)}
		app["api_keys"] = append([]object{another}, r.keys...)
	case 2:
		if r.redis {
			app["store"] = with(r.store, object{"timeout": fmt.Sprintf("%dms", 2000+i), "dial_timeout": fmt.Sprintf("%dms", 1000+i), "pool_size": 10 + i%7})
		}
	case 3:
		servers := app["authentication_servers"].(object)
		switch r.instances++; r.instances % 4 {
		case 1:
			servers["instances"] = []object{r.primary, r.backup}
		case 2:
			servers["instances"] = []object{r.backup, r.primary}
		case 3:
			servers["instances"] = []object{r.primary, r.backup}
		case 0:
			// What was begun on the backup while it came first has to be over.
			r.load.Turns(t, 2)
			servers["instances"] = []object{r.primary}
		}
	case 4, 7:
		r.reject(t)
		return
	case 5:
		servers := app["authentication_servers"].(object)
		servers["timeout"], servers["dial_timeout"] = fmt.Sprintf("%ds", 10+i%5), fmt.Sprintf("%dms", 2000+i)
		servers["max_connections"] = 20 + i%5
	case 6:
		app["limits"] = with(r.limits, object{"max_exchanges": 4 + i%3, "max_body_size": 60_000 + i})
		app["activation"] = object{
			"max_attempts": 3 + i%2, "max_activations": 3 + i%3, "gateway_id": fmt.Sprintf("GATEWAY%d", i),
			"registration_lifetime": fmt.Sprintf("%dm", 10+i%3), "password": object{"length": 8 + i%4},
		}
	}
	r.Load(t)
}

// restore loads the configuration of the beginning.
func (r *reloads) restore(t *testing.T) {
	t.Helper()
	app := r.app()
	r.load.Turns(t, 2)
	r.servers["instances"] = []object{r.primary}
	app["api_keys"], app["store"], app["limits"] = r.keys, r.store, r.limits
	delete(app, "activation")
	for _, name := range []string{"dial_timeout", "max_connections"} {
		delete(r.servers, name)
	}
	r.servers["timeout"] = "5s"
	r.Load(t)
}

// reject loads a configuration that fails in one of the stages of its making, and
// changes nothing.
func (r *reloads) reject(t *testing.T) {
	t.Helper()
	apps := r.Config["apps"].(object)
	app := r.app()
	servers := app["authentication_servers"].(object)
	keys := []string{"5e41"}
	if r.redis {
		keys = nil
	}
	failures := []struct {
		name string
		app  object
	}{
		{"profile", with(app, object{"activation": object{"profile": "no-such-profile"}})},
		{"certificate authority", with(app, object{"authentication_servers": with(servers, object{
			"tls": object{"ca": object{"provider": "file", "pem_files": []string{"/does/not/exist.pem"}}},
		})})},
		{"sealing keys", with(app, object{"sealing_keys": keys})},
		{"instances", with(app, object{"authentication_servers": with(servers, object{
			"instances": []object{r.primary, {"name": "again", "url": r.primary["url"]}},
		})})},
		{"store", with(app, object{"store": object{"backend": "redis"}})},
		{"listener", with(app, object{"activation": object{"gateway_id": "never"}})},
	}
	r.rejected++
	failure := failures[r.rejected%len(failures)]
	running := r.running(t)
	before := r.Config
	rejected := with(apps, object{"dsapp": failure.app})
	if failure.name == "listener" {
		// The app itself starts.
		http := apps["http"].(object)
		rejected["http"] = with(http, object{"servers": with(http["servers"].(object), object{
			"taken": object{"listen": []string{r.taken}, "automatic_https": object{"disable": true}},
		})})
	}
	r.Config = with(r.Config, object{"apps": rejected})
	status, body := r.gateway.load(t)
	r.Config = before
	assert.Equal(t, http.StatusBadRequest, status, "%s: %s", failure.name, body)
	assert.Equal(t, running, r.running(t), "%s: what was rejected runs", failure.name)
}

// running gives the configuration that the process runs with.
func (g *gateway) running(t *testing.T) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.Admin+"/config/", nil)
	require.NoError(t, err)
	resp, err := askAdmin(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(body)
}

// generationPath answers with the name of the configuration.
const generationPath = "/generation"

// LoadAs loads the configuration under a name and waits until it serves: right
// after a reload an open connection can still be served by the one before.
func (g *gateway) LoadAs(t *testing.T, name string) {
	t.Helper()
	server := g.Config["apps"].(object)["http"].(object)["servers"].(object)["gateway"].(object)
	routes := server["routes"].([]object)
	server["routes"] = append(routes[:1:1], object{
		"match":  []object{{"path": []string{generationPath}}},
		"handle": []object{{"handler": "static_response", "body": name}},
	})
	g.Load(t)
	poll(t, "configuration "+name, func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL+generationPath, nil)
		require.NoError(t, err)
		_, _, body, err := g.Do(r)
		return err == nil && body == name
	})
}

// A client that tried too many keys stays blocked over reloads, with and without
// a change of something else.
func TestFailedKeysOutliveReloads(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	g := startGateway(t, certs, server.URL, func(dsapp object) {
		dsapp["limits"] = object{"failed_keys_per_minute": 1, "exchanges_per_minute": 0, "registrations_per_minute": 0}
	})
	poll(t, "the block", func() bool {
		status, _ := g.Call(t, serverTimePath, "no-such-front-end-key", "")
		return status == http.StatusTooManyRequests
	})
	blocked := func(when string) {
		t.Helper()
		status, answer := g.Call(t, serverTimePath, frontEndKey, "")
		assert.Equal(t, http.StatusTooManyRequests, status, "%s: %s", when, answer)
	}
	blocked("before")
	g.LoadAs(t, "same")
	blocked("after a reload")
	g.app()["activation"] = object{"gateway_id": "GATEWAY2"}
	g.LoadAs(t, "changed")
	blocked("after a change")
	g.app()["activation"] = object{"profile": "no-such-profile"}
	status, body := g.load(t)
	require.Equal(t, http.StatusBadRequest, status, body)
	blocked("after a rejected change")
	// The block is one of this limit and of nothing else.
	g.app()["activation"] = object{}
	g.app()["limits"].(object)["failed_keys_per_minute"] = 0
	g.LoadAs(t, "unlimited")
	status, body = g.Call(t, serverTimePath, frontEndKey, "")
	assert.Equal(t, http.StatusOK, status, body)
}

// hold lets the next command of a kind wait at the authentication server: held is
// closed when it is there, and it goes on with release.
func (o *oas) hold(t *testing.T, command string) (held <-chan struct{}, release func()) {
	t.Helper()
	arrived, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	o.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !bytes.Contains(body, []byte(command)) {
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

// A request that waits for the authentication server while its configuration is
// replaced gets its right answer, and what it stores counts: also if the new
// configuration has other settings for the same store and other addresses for the
// authentication server, and others come and go meanwhile.
func TestRequestsOutliveTheirConfiguration(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	for _, store := range []string{"embedded", "redis"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			server := startOAS(t, certs)
			// The same server under another address.
			moved := serveOAS(t, certs, server.Server)
			var redis *redistest.Server
			g := startGateway(t, certs, server.URL, func(dsapp object) {
				dsapp["authentication_servers"].(object)["timeout"] = "30s"
				if store == "redis" {
					redis = redistest.Start(t)
					dsapp["store"] = object{"backend": "redis", "addresses": []string{redis.Addr()}}
				}
			})
			replace := func(name string) {
				app := g.app()
				if redis != nil {
					app["store"].(object)["timeout"] = strconv.Itoa(1000+len(name)) + "ms"
				}
				servers := app["authentication_servers"].(object)
				servers["dial_timeout"] = strconv.Itoa(1000+len(name)) + "ms"
				servers["instances"] = []object{{"name": "primary", "url": moved.URL}, {"name": "added", "url": "https://" + freeport.Address(t)}}
				g.LoadAs(t, name)
			}
			a := g.activated(t)

			// A registration, which is stored after the command.
			held, release := server.hold(t, "PROVISIONCMD_MDL_REGISTER")
			var registered registration
			done := make(chan error, 1)
			phone := g.Phone()
			go func() {
				r, err := phone.RegisterUser(t.Context(), backEndKey, sandbox.UserRegistration{UserID: userID, Domain: domain, StaticPassword: staticPassword})
				registered = registration{Identifier: r.RegistrationIdentifier, Password: r.ActivationPassword}
				done <- err
			}()
			awaitHeld(t, held)
			replace("one")
			replace("another")
			var clients int
			if redis != nil {
				clients = redisClients(t, redis)
			}
			_, err := g.Phone().Authenticate(t.Context(), a)
			require.NoError(t, err, "the new configuration serves")
			release()
			require.NoError(t, endOf(done))
			_, err = g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
			require.NoError(t, err)
			if redis != nil {
				poll(t, "the store of the old configuration to be closed", func() bool { return redisClients(t, redis) < clients+2 })
			}

			// A retrieval, which is remembered after the command.
			s := kinds[0]
			key, outcome := ask(t, moved, s, a)
			held, release = moved.hold(t, s.retrieveCommand)
			message := make(chan sandbox.RetrievedRequest, 1)
			go func() {
				pending, err := phone.Retrieve(t.Context(), sandbox.KindLogin, a, key)
				message <- pending
				done <- err
			}()
			awaitHeld(t, held)
			replace("a third")
			release()
			require.NoError(t, endOf(done))
			_, answer := g.retrieve(t, s, frontEndKey, a.SerialNumber, key)
			assert.Equal(t, notFound, answer)
			signature, err := a.Sign((<-message).Message)
			require.NoError(t, err)
			_, answer = g.complete(t, s, key, signature)
			assert.Contains(t, answer, "STAT_SUCCESS")
			require.NoError(t, outcome())
		})
	}
}

// An instance whose breaker is open gets no command before the cooldown has ended,
// whatever is loaded meanwhile.
func TestBreakersOutliveReloads(t *testing.T) {
	t.Parallel()
	const cooldown = 10 * time.Second
	certs := certificates(t)
	server := startOAS(t, certs)
	var commands atomic.Int64
	var broken atomic.Bool
	server.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
		commands.Add(1)
		if broken.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		}
		return false
	})
	g := startGateway(t, certs, server.URL, func(dsapp object) {
		servers := dsapp["authentication_servers"].(object)
		servers["breaker"] = object{"failures": 3, "cooldown": cooldown.String()}
		servers["probe_interval"] = "0s"
	})
	g.Register(t)

	broken.Store(true)
	opening := time.Now()
	for range 3 {
		status, answer := g.Call(t, registerPath, backEndKey, userBody)
		require.Equal(t, http.StatusBadGateway, status, answer)
	}
	broken.Store(false)
	seen := commands.Load()
	closed := func(when string) {
		t.Helper()
		status, answer := g.Call(t, registerPath, backEndKey, userBody)
		assert.Equal(t, http.StatusServiceUnavailable, status, "%s: %s", when, answer)
		assert.Equal(t, seen, commands.Load(), "%s: a command arrived", when)
	}
	closed("before")
	g.LoadAs(t, "same")
	closed("after a reload")
	servers := g.app()["authentication_servers"].(object)
	servers["timeout"], servers["max_connections"] = "6s", 7
	servers["breaker"].(object)["failures"] = 1000
	servers["instances"] = []object{{"name": "renamed", "url": server.URL}}
	g.LoadAs(t, "changed")
	closed("after a change")
	servers["deployment"] = "no-such-deployment"
	status, body := g.load(t)
	require.Equal(t, http.StatusBadRequest, status, body)
	closed("after a rejected change")

	poll(t, "the breaker to let a command through", func() bool {
		status, _ := g.Call(t, registerPath, backEndKey, userBody)
		return status == http.StatusOK
	})
	assert.GreaterOrEqual(t, time.Since(opening), cooldown)
	assert.Equal(t, seen+1, commands.Load(), "the first command that was let through worked")
}

func awaitHeld(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(deadline):
		require.Fail(t, "timed out")
	}
}

func endOf(c <-chan error) error {
	select {
	case err := <-c:
		return err
	case <-time.After(deadline):
		return errors.New("timed out")
	}
}
