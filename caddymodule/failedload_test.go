package caddymodule

import (
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/goleak"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

func init() {
	caddy.RegisterModule(new(otherApp))
}

// otherApp is an app that is provisioned after the gateway and fails in the configured
// phase.
type otherApp struct {
	FailsIn string `json:"fails_in,omitempty"`
}

const otherAppName = "dsapp_other"

var errOtherApp = errors.New("the other app fails")

func (*otherApp) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: otherAppName, New: func() caddy.Module { return new(otherApp) }}
}

func (n *otherApp) failIn(phase string) error {
	if n.FailsIn == phase {
		return errOtherApp
	}
	return nil
}

func (n *otherApp) Provision(ctx caddy.Context) error {
	// This provisions the gateway first.
	if _, err := ctx.AppIfConfigured(appName); err != nil {
		return err
	}
	return n.failIn("provision")
}

func (n *otherApp) Validate() error { return n.failIn("validate") }

func (n *otherApp) Start() error { return n.failIn("start") }

func (*otherApp) Stop() error { return nil }

// copyOf returns a deep copy of a configuration, with lists of type []any.
func copyOf(t *testing.T, config object) object {
	t.Helper()
	var c object
	if err := json.Unmarshal(encode(t, config), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// defect is a change that makes a whole configuration invalid.
type defect struct {
	want    string // part of the error
	backend string // of the store; empty for all
	apply   func(t *testing.T, config object)
}

// gatewayDefects are wrong options of the app, in the order in which Provision finds them.
func gatewayDefects() []defect {
	var all []defect
	add := func(want string, apply func(c object)) {
		all = append(all, defect{want: want, apply: func(_ *testing.T, config object) { apply(in(config, "apps", appName)) }})
	}
	option := func(want string, value any, path ...string) {
		add(want, func(c object) { in(c, path[:len(path)-1]...)[path[len(path)-1]] = value })
	}
	of := func(backend, want string, value any, path ...string) {
		option(want, value, path...)
		all[len(all)-1].backend = backend
	}
	instances := func(want string, more ...object) {
		add(want, func(c object) {
			s := in(c, "authentication_servers")
			for _, instance := range more {
				s["instances"] = append(s["instances"].([]any), instance)
			}
		})
	}
	const missing = "/does/not/exist"
	certificate := object{"client_certificate_file": missing, "client_certificate_key_file": missing}
	authority := object{"ca": object{"provider": "file", "pem_files": []string{missing}}}

	option(`unknown field "bogus"`, 1, "bogus")
	option("api_keys: at least one", []object{}, "api_keys")
	add("api_keys[2].class: ", func(c object) {
		c["api_keys"] = append(c["api_keys"].([]any), object{"name": "x", "key": "a-key-of-no-class"})
	})
	option("sealing_keys[1]: must have 64", []string{testSealingKey, "x"}, "sealing_keys")

	option("store: unknown backend \"sqlite\"", object{"backend": "sqlite"}, "store")
	option(`unknown field "bogus"`, 1, "store", "bogus")
	of("embedded", "path: a placeholder", "{env.DSAPP_TEST_MISSING}", "store", "path")
	of("redis", "addresses[0]: must be host:port", []string{"x"}, "store", "addresses")
	of("redis", "addresses: exactly one", []string{"a:1", "b:1"}, "store", "addresses")
	of("redis", "db: must be", -1, "store", "db")
	of("redis", "wait_replicas: must be", 17, "store", "wait_replicas")
	of("redis", "password: a placeholder", "{env.DSAPP_TEST_MISSING}", "store", "password")
	of("redis", "dial_timeout: must be", "1h", "store", "dial_timeout")
	of("redis", "timeout: must be", "1h", "store", "timeout")
	of("redis", "pool_size: must be", -1, "store", "pool_size")
	of("redis", "key_prefix: must have no braces", "{}", "store", "key_prefix")
	of("redis", "tls: ", authority, "store", "tls")
	of("redis", "tls: ", certificate, "store", "tls")
	of("redis", "tls.handshake_timeout: ", object{"handshake_timeout": "1s"}, "store", "tls")
	of("redis", "tls: ", object{"ca": object{"provider": "bogus"}}, "store", "tls")
	// From here on, the store has been acquired.
	of("redis", "sealing_keys: at least one", []string{}, "sealing_keys")
	option("limits.max_body_size: ", -1, "limits", "max_body_size")
	option("limits.body_timeout: ", "1h", "limits", "body_timeout")
	option("limits.max_exchanges: ", -1, "limits", "max_exchanges")
	option("limits.failed_keys_per_minute: ", -1, "limits", "failed_keys_per_minute")
	option("limits.exchanges_per_minute: ", -1, "limits", "exchanges_per_minute")
	option("limits.registrations_per_minute: ", -1, "limits", "registrations_per_minute")
	option("limits.calls_per_minute: ", -1, "limits", "calls_per_minute")
	option("limits.requests_in_flight: ", -1, "limits", "requests_in_flight")
	option("limits.calls_in_flight: ", -1, "limits", "calls_in_flight")
	option("limits.nat64_prefixes[0]: ", []string{"192.0.2.0"}, "limits", "nat64_prefixes")

	// From here on, the limiters have been acquired.
	const servers = "authentication_servers"
	option(servers+".instances: at least one", []object{}, servers, "instances")
	option(servers+".deployment: ", "x", servers, "deployment")
	option(servers+".policy: ", "x", servers, "policy")
	option(servers+".soap_version: ", "x", servers, "soap_version")
	option(servers+".component_types.signature: ", "\n", servers, "component_types", "signature")
	option(servers+".attributes.activation_message: ", "a b", servers, "attributes", "activation_message")
	option(servers+".dial_timeout: ", "1h", servers, "dial_timeout")
	option(servers+".idle_timeout: ", "1h", servers, "idle_timeout")
	option(servers+".timeout: ", "1h", servers, "timeout")
	option(servers+".max_connections: ", -1, servers, "max_connections")
	option(servers+".reserved_connections: ", -1, servers, "reserved_connections")
	option(servers+".max_waiting: ", -1, servers, "max_waiting")
	option(servers+".max_queue: ", -1, servers, "max_queue")
	option(servers+".probe_interval: ", "1h", servers, "probe_interval")
	option(servers+".breaker.failures: ", -1, servers, "breaker", "failures")
	option(servers+".breaker.cooldown: ", "1h", servers, "breaker", "cooldown")
	option(servers+".tls.handshake_timeout: ", "1h", servers, "tls", "handshake_timeout")
	option(servers+".tls.except_ports: ", []string{"1"}, servers, "tls", "except_ports")
	option(servers+".tls: ", authority, servers, "tls")
	option(servers+".tls: ", certificate, servers, "tls")
	option(servers+".instances[0].url: ", []object{{"name": "a", "url": "http://a/"}}, servers, "instances")

	// From here on, the states of one or more instances have been acquired.
	instances(servers+".instances[1].name: must have", object{"url": "https://second.invalid/"})
	instances(servers+".instances[1].name: is the name", object{"name": "primary", "url": "https://second.invalid/"})
	instances(servers+".instances[1].url: must be", object{"name": "second", "url": "http://second.invalid/"})
	instances(servers+".instances[1].url: a placeholder", object{"name": "second", "url": "{env.DSAPP_TEST_MISSING}"})
	add(servers+".instances[1].url: is that of an earlier", func(c object) {
		s := in(c, servers)
		first := s["instances"].([]any)[0].(object)
		s["instances"] = []any{first, object{"name": "second", "url": first["url"]}}
	})
	instances(servers+".instances[3].url: must be",
		object{"name": "second", "url": "https://second.invalid/"},
		object{"name": "third", "url": "https://third.invalid/"},
		object{"name": "fourth", "url": "x"})

	option("activation.exchange: ", "x", "activation", "exchange")
	option("activation.unknown: ", "x", "activation", "unknown")
	option("activation.profile: ", "x", "activation", "profile")
	option("activation.registration_lifetime: ", "1ms", "activation", "registration_lifetime")
	option("activation.handshake_lifetime: ", "1ms", "activation", "handshake_lifetime")
	option("activation.max_attempts: ", -1, "activation", "max_attempts")
	option("activation.max_activations: ", -1, "activation", "max_activations")
	option("activation.password: ", 1, "activation", "password", "length")
	option("requests.unknown: ", "x", "requests", "unknown")
	option("requests.plain_cancel: ", "x", "requests", "plain_cancel")
	option("requests.repeat: ", "1ms", "requests", "repeat")
	option("requests.lifetime: ", "1ms", "requests", "lifetime")
	option("cors.origins[0]: must not be *", []string{"*"}, "cors", "origins")
	option("status_codes.STAT_NOSUPPORT: ", 0, "status_codes", "STAT_NOSUPPORT")
	option("activation.gateway_id: a placeholder", "{env.DSAPP_TEST_MISSING}", "activation", "gateway_id")
	option("activation.gateway_id: must have at most", strings.Repeat("g", 256), "activation", "gateway_id")
	option("activation.gateway_id: must not contain", ";", "activation", "gateway_id")
	return all
}

// otherModuleDefects are wrong options of other modules. Caddy finds them before it starts
// any app.
func otherModuleDefects() []defect {
	route := func(first bool, added object) func(*testing.T, object) {
		return func(_ *testing.T, config object) {
			server := in(config, "apps", "http", "servers", "gateway")
			routes := server["routes"].([]any)
			if first {
				server["routes"] = append([]any{added}, routes...)
			} else {
				server["routes"] = append(routes, added)
			}
		}
	}
	handler := func(o object) object { return object{"handle": []object{o}} }
	with := func(value any, path ...string) func(*testing.T, object) {
		return func(_ *testing.T, config object) { in(config, path[:len(path)-1]...)[path[len(path)-1]] = value }
	}
	return []defect{
		{want: "unknown module: http.handlers.bogus", apply: route(true, handler(object{"handler": "bogus"}))},
		{want: "unknown module: http.handlers.bogus", apply: route(false, handler(object{"handler": "bogus"}))},
		{want: "unknown field", apply: route(false, handler(object{"handler": "dsapp_gateway", "bogus": 1}))},
		{want: "http.handlers.encode", apply: route(false, handler(object{"handler": "encode", "prefer": []string{"gzip"}}))},
		{want: "http.matchers.path_regexp", apply: route(false, object{"match": []object{{"path_regexp": object{"pattern": "("}}}})},
		{want: "no such file", apply: with([]object{{"certificate": "/does/not/exist", "key": "/does/not/exist"}}, "apps", "tls", "certificates", "load_files")},
		{want: "unknown module: bogus", apply: with(object{}, "apps", "bogus")},
		{want: "unknown module: caddy.storage.bogus", apply: with("bogus", "storage", "module")},
		{want: errOtherApp.Error(), apply: with("provision", "apps", otherAppName, "fails_in")},
		{want: errOtherApp.Error(), apply: with("validate", "apps", otherAppName, "fails_in")},
	}
}

// startDefects make another app fail to start, before or after the gateway starts.
func startDefects() []defect {
	return []defect{
		{want: "address already in use", apply: func(t *testing.T, config object) {
			taken := listen(t)
			in(config, "apps", "http", "servers", "second")["listen"] = []string{taken.Addr().String()}
		}},
		{want: errOtherApp.Error(), apply: func(_ *testing.T, config object) {
			in(config, "apps", otherAppName)["fails_in"] = "start"
		}},
	}
}

// lateDefect makes the configuration fail after all apps have started.
var lateDefect = defect{
	want: "unknown module: caddy.config_loaders.bogus",
	apply: func(_ *testing.T, config object) {
		// Caddy cleans up without stopping anything, so there must be no HTTP servers.
		delete(in(config, "apps"), "http")
		in(config, "admin", "config")["load"] = object{"module": "bogus"}
	},
}

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener)
}

// environment is a Caddy into which configurations are loaded that fail.
type environment struct {
	*site
	backend string
	// newConfig returns a valid configuration for the test to apply defects to.
	newConfig func() object
	// folder and listener are the store and the server of newConfig if the running
	// configuration uses others: a folder that must not be created, and an address that
	// nobody may connect to.
	folder   string
	listener *net.TCPListener
	// finish ends the request that runs meanwhile. It is nil if no configuration runs.
	finish func(t *testing.T)
}

// inEveryEnvironment runs a test with both kinds of store, each without a running
// configuration, beside one that uses the same store and authentication server, and
// beside one that uses others. The running configuration serves a request all the time.
func inEveryEnvironment(t *testing.T, test func(t *testing.T, e *environment)) {
	t.Helper()
	for _, backend := range []string{"embedded", "redis"} {
		for _, tt := range []struct {
			name         string
			running, own bool
		}{
			{"alone", false, true},
			{"beside one with the same resources", true, false},
			{"beside one with others", true, true},
		} {
			t.Run(backend+" "+tt.name, func(t *testing.T) {
				before := waitUntilIdle(t)
				e := newEnvironment(t, backend, tt.own)
				if tt.running {
					e.load(t)
					e.register(t)
					poll.Until(t, "the preparation of the store to end", func() bool { return requestsOfActiveApp(t) == 0 })
					e.finish = e.holdRegistration(t)
				}
				test(t, e)
				if tt.running {
					e.finish(t)
				}
				if err := caddy.Stop(); err != nil {
					t.Fatal(err)
				}
				waitForPools(t, before)
			})
		}
	}
}

// newEnvironment prepares an environment. If own is set, newConfig uses another store and
// another authentication server than the running configuration.
func newEnvironment(t *testing.T, backend string, own bool) *environment {
	t.Helper()
	e := &environment{site: newSite(t), backend: backend}
	e.client.Timeout = 0 // One request runs as long as the test.
	dsapp := e.dsapp()
	in(dsapp, "authentication_servers")["timeout"] = "10m"
	in(dsapp, "activation")["registration_lifetime"] = "1h"
	dsapp["limits"] = object{"registrations_per_minute": 0, "calls_per_minute": 0}
	if backend == "redis" {
		redisConfig(dsapp, redistest.Start(t).Addr())
	}
	if own {
		e.folder = filepath.Join(t.TempDir(), "made")
		e.listener = listen(t)
	}
	e.newConfig = func() object {
		c := copyOf(t, e.config)
		if !own {
			return c
		}
		dsapp := in(c, "apps", appName)
		if backend == "redis" {
			// The listener accepts connections and never answers.
			maps.Copy(in(dsapp, "store"), object{"addresses": []any{e.listener.Addr().String()}, "timeout": "10ms"})
		} else {
			in(dsapp, "store")["path"] = filepath.Join(e.folder, "dsapp.db")
		}
		in(dsapp, "authentication_servers")["instances"] = []any{object{"name": "primary", "url": "https://" + e.listener.Addr().String() + "/"}}
		return c
	}
	return e
}

// requestsOfActiveApp returns how many requests of the running configuration may use the
// store. The preparation of the store counts as one.
func requestsOfActiveApp(t *testing.T) int {
	t.Helper()
	return activeApp().store.(interface{ requestCount() int }).requestCount()
}

func (l *lease[T]) requestCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests
}

// fail loads a configuration with a defect and checks that it leaves nothing behind and
// that the running configuration still works.
func (e *environment) fail(t *testing.T, d defect) {
	t.Helper()
	config := e.newConfig()
	d.apply(t, config)
	before := poolEntries()
	goroutines := []goleak.Option{
		goleak.IgnoreCurrent(),
		// Caddy cleans up its own storage from time to time.
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
	}
	err := caddy.Load(encode(t, config), true)
	if err == nil {
		t.Fatal("accepted")
	}
	if !strings.Contains(err.Error(), d.want) {
		t.Errorf("err = %v", err)
	}
	waitForPools(t, before)
	poll.Until(t, "the goroutines of the configuration to end", func() bool { return goleak.Find(goroutines...) == nil })
	if e.finish == nil {
		return
	}
	if status, answer := e.call(t, timePath, testFrontEndKey, ""); status != http.StatusOK {
		t.Errorf("status %d, %s", status, answer)
	}
	e.register(t)
	waitForPools(t, before)
}

// checkFolder checks that no configuration has opened a store of its own.
func (e *environment) checkFolder(t *testing.T) {
	t.Helper()
	if e.folder == "" {
		return
	}
	if _, err := os.Stat(e.folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of the store was created: %v", err)
	}
}

// A configuration that is rejected before any app starts releases exactly what it
// acquired, whichever option is wrong, and has opened nothing. The running configuration
// and its requests are not affected.
func TestRejectedConfigurationLeavesNothing(t *testing.T) {
	inEveryEnvironment(t, func(t *testing.T, e *environment) {
		for _, d := range append(gatewayDefects(), otherModuleDefects()...) {
			if d.backend != "" && d.backend != e.backend {
				continue
			}
			t.Run(d.want, func(t *testing.T) { e.fail(t, d) })
		}
		if e.listener == nil {
			return
		}
		e.checkFolder(t)
		checkNoConnection(t, e.listener)
	})
}

// A configuration that fails while its apps start has not opened any store, whether the
// gateway had started or not. One that fails later may have created its own store, which
// is closed again.
func TestConfigurationThatDoesNotStartLeavesNothing(t *testing.T) {
	inEveryEnvironment(t, func(t *testing.T, e *environment) {
		for _, d := range startDefects() {
			t.Run(d.want, func(t *testing.T) {
				inEitherOrder(func() { e.fail(t, d) })
				e.checkFolder(t)
			})
		}
		t.Run(lateDefect.want, func(t *testing.T) { e.fail(t, lateDefect) })
		if e.folder == "" || e.backend != "embedded" {
			return
		}
		openAndClose(t, filepath.Join(e.folder, "dsapp.db"))
	})
}

// openAndClose checks that nobody has the file of a store open.
func openAndClose(t *testing.T, path string) {
	t.Helper()
	store, err := embedded.Open(path, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

// inEitherOrder loads a configuration several times, because Caddy starts apps in random
// order: most probably the gateway starts before the other app at least once, and after it
// at least once.
func inEitherOrder(load func()) {
	for range 10 {
		load()
	}
}

// A configuration that does not start changes no limits, not even for a moment: if a
// limit were switched off, its counts would be forgotten.
func TestConfigurationThatDoesNotStartSetsNoLimits(t *testing.T) {
	s := newSite(t)
	in(s.dsapp(), "limits")["failed_keys_per_minute"] = 2
	s.load(t)
	config := copyOf(t, s.config)
	in(config, "apps", appName, "limits")["failed_keys_per_minute"] = 0
	in(config, "apps", otherAppName)["fails_in"] = "start"
	fail := func() {
		if err := caddy.Load(encode(t, config), true); err == nil {
			t.Fatal("accepted")
		}
	}
	inEitherOrder(fail)
	for _, want := range []int{http.StatusUnauthorized, http.StatusUnauthorized, http.StatusTooManyRequests} {
		if status, _ := s.call(t, timePath, "a-key-that-nobody-has", ""); status != want {
			t.Errorf("status %d, want %d", status, want)
		}
	}
	inEitherOrder(fail)
	if status, _ := s.call(t, timePath, testFrontEndKey, ""); status != http.StatusTooManyRequests {
		t.Errorf("status %d: the counts are forgotten", status)
	}
}

// A configuration that does not start has no lasting effect on the store of the running
// one: it seals nothing with a key that only it has.
func TestConfigurationThatDoesNotStartSealsNothing(t *testing.T) {
	s := newSite(t)
	s.dsapp()["sealing_keys"] = []string{testSealingKey}
	s.load(t)
	s.register(t)
	before := poolEntries()
	config := copyOf(t, s.config)
	in(config, "apps", appName)["sealing_keys"] = []string{strings.Repeat("0123456789abcdef", 4), testSealingKey}
	in(config, "apps", otherAppName)["fails_in"] = "start"
	inEitherOrder(func() {
		if err := caddy.Load(encode(t, config), true); err == nil {
			t.Fatal("accepted")
		}
		waitForPools(t, before)
	})
	// The next configuration has to decrypt the secret of the store.
	s.load(t)
	s.register(t)
}

// If a configuration fails after it has begun to prepare its store, that ends as well, even
// if the store cannot be opened. Nothing waits for it.
func TestPreparationEndsWithTheConfiguration(t *testing.T) {
	s := newSite(t)
	s.load(t)
	s.register(t)
	before := poolEntries()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	// Another process would lock the file in the same way.
	locked, err := embedded.Open(path, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	config := copyOf(t, s.config)
	in(config, "apps", appName, "store")["path"] = path
	lateDefect.apply(t, config)
	if err := caddy.Load(encode(t, config), true); err == nil {
		t.Fatal("accepted")
	}
	waitForPools(t, before)
	s.register(t)
	if err := locked.Close(); err != nil {
		t.Fatal(err)
	}
	openAndClose(t, path)
}

// Requests on connections that stay with a stopped configuration are served by the running
// configuration, never by one that failed after its start.
func TestFailedConfigurationServesNoRequests(t *testing.T) {
	s := newSite(t)
	s.load(t)
	first := activeApp()
	if startedApps.latest() != first {
		t.Error("the running configuration is not the latest")
	}
	config := copyOf(t, s.config)
	lateDefect.apply(t, config)
	if err := caddy.Load(encode(t, config), true); err == nil {
		t.Fatal("accepted")
	}
	if startedApps.latest() != first {
		t.Error("the failed configuration is the latest")
	}
	s.load(t)
	if latest := startedApps.latest(); latest != activeApp() || latest == first {
		t.Error("the new configuration is not the latest")
	}
}
