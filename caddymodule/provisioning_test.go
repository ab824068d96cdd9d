package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

func init() {
	caddy.RegisterModule(new(neighbour))
}

// neighbour is an app beside the gateway. It is provisioned after it and fails
// where it is told to.
type neighbour struct {
	FailsIn string `json:"fails_in,omitempty"`
}

const neighbourName = "dsapp_neighbour"

var errNeighbour = errors.New("the neighbour fails")

func (*neighbour) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: neighbourName, New: func() caddy.Module { return new(neighbour) }}
}

func (n *neighbour) failIn(phase string) error {
	if n.FailsIn == phase {
		return errNeighbour
	}
	return nil
}

func (n *neighbour) Provision(ctx caddy.Context) error {
	// The gateway first.
	if _, err := ctx.AppIfConfigured(appName); err != nil {
		return err
	}
	return n.failIn("provision")
}

func (n *neighbour) Validate() error { return n.failIn("validate") }

func (n *neighbour) Start() error { return n.failIn("start") }

func (*neighbour) Stop() error { return nil }

// holding is what a pool has under one key.
type holding struct {
	references int
	value      any
	opened     any // what a store opened; nil before it is used, an error once it is closed
}

// held tells what all pools have.
func held() map[string]holding {
	all := make(map[string]holding)
	for name, pool := range map[string]*caddy.UsagePool{"store": storePool, "state": statePool, "limiters": limiterPool} {
		values := make(map[any]any)
		pool.Range(func(key, value any) bool {
			values[key] = value
			return true
		})
		for key, value := range values {
			if n, ok := pool.References(key); ok {
				all[fmt.Sprint(name, " ", key)] = holding{n, value, openedBy(value)}
			}
		}
	}
	return all
}

func openedBy(value any) any {
	switch r := value.(type) {
	case *resource[*embedded.Store]:
		return currentValue(r)
	case *resource[*redisClient]:
		return currentValue(r)
	}
	return nil
}

func currentValue[T io.Closer](r *resource[T]) any {
	value, opened, err := r.current()
	switch {
	case err != nil:
		return err
	case opened:
		return value
	}
	return nil
}

// The pools that held looks at are all there are.
func TestEveryPoolIsWatched(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	pools := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		pools += strings.Count(string(source), "caddy.NewUsagePool()")
	}
	if pools != 3 {
		t.Errorf("there are %d pools", pools)
	}
}

// settles polls until a condition holds that other goroutines bring about.
func settles(done func() bool) bool {
	for end := time.Now().Add(deadline); !done(); {
		if time.Now().After(end) {
			return false
		}
		<-time.After(time.Millisecond)
	}
	return true
}

// idle waits until nothing runs any more and returns what the pools hold then: stores
// that tests provisioned, did not use and did not let go.
func idle(t *testing.T) map[string]holding {
	t.Helper()
	var rest map[string]holding
	if !settles(func() bool {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		rest = held()
		for key, h := range rest {
			if !strings.HasPrefix(key, "store ") || h.opened != nil {
				return false
			}
		}
		return !bytes.Contains(stacks, []byte("(*App).onStarted")) && !bytes.Contains(stacks, []byte("returnToPool"))
	}) {
		t.Fatalf("the pools hold %v", rest)
	}
	return rest
}

// waitForPools waits until the pools hold what they held before: as many
// references to the same values, open if they were open.
func waitForPools(t *testing.T, before map[string]holding) {
	t.Helper()
	if !settles(func() bool { return maps.Equal(held(), before) }) {
		t.Fatalf("the pools hold\n%v\nand before they held\n%v", held(), before)
	}
}

// copyOf returns a deep copy of a configuration. Its lists are of type []any.
func copyOf(t *testing.T, config object) object {
	t.Helper()
	var c object
	if err := json.Unmarshal(encode(t, config), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// defect is a way to spoil a whole configuration.
type defect struct {
	want    string // part of the error
	backend string // of the store; empty for all
	spoil   func(t *testing.T, config object)
}

// ofGateway are defects in the options of the app, in the order in which they are
// found.
func ofGateway() []defect {
	var all []defect
	add := func(want string, spoil func(c object)) {
		all = append(all, defect{want: want, spoil: func(_ *testing.T, config object) { spoil(in(config, "apps", appName)) }})
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
	// The store is acquired from here on,
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

	// the counters from here on,
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

	// and the states of one instance or more.
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
	option("requests.lifetime: ", "1ms", "requests", "lifetime")
	option("status_codes.STAT_NOSUPPORT: ", 0, "status_codes", "STAT_NOSUPPORT")
	option("activation.gateway_id: a placeholder", "{env.DSAPP_TEST_MISSING}", "activation", "gateway_id")
	option("activation.gateway_id: must have at most", strings.Repeat("g", 256), "activation", "gateway_id")
	option("activation.gateway_id: must not contain", ";", "activation", "gateway_id")
	return all
}

// besideGateway are defects of other modules that Caddy finds before it starts
// anything.
func besideGateway() []defect {
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
		{want: "unknown module: http.handlers.bogus", spoil: route(true, handler(object{"handler": "bogus"}))},
		{want: "unknown module: http.handlers.bogus", spoil: route(false, handler(object{"handler": "bogus"}))},
		{want: "unknown field", spoil: route(false, handler(object{"handler": "dsapp_gateway", "bogus": 1}))},
		{want: "http.handlers.encode", spoil: route(false, handler(object{"handler": "encode", "prefer": []string{"gzip"}}))},
		{want: "http.matchers.path_regexp", spoil: route(false, object{"match": []object{{"path_regexp": object{"pattern": "("}}}})},
		{want: "no such file", spoil: with([]object{{"certificate": "/does/not/exist", "key": "/does/not/exist"}}, "apps", "tls", "certificates", "load_files")},
		{want: "unknown module: bogus", spoil: with(object{}, "apps", "bogus")},
		{want: "unknown module: caddy.storage.bogus", spoil: with("bogus", "storage", "module")},
		{want: errNeighbour.Error(), spoil: with("provision", "apps", neighbourName, "fails_in")},
		{want: errNeighbour.Error(), spoil: with("validate", "apps", neighbourName, "fails_in")},
	}
}

// atStart are defects that show when the apps are started, after the gateway or
// before it.
func atStart() []defect {
	return []defect{
		{want: "address already in use", spoil: func(t *testing.T, config object) {
			taken := listen(t)
			in(config, "apps", "http", "servers", "second")["listen"] = []string{taken.Addr().String()}
		}},
		{want: errNeighbour.Error(), spoil: func(_ *testing.T, config object) {
			in(config, "apps", neighbourName)["fails_in"] = "start"
		}},
	}
}

// afterStart is a defect that shows when all apps run.
var afterStart = defect{
	want: "unknown module: caddy.config_loaders.bogus",
	spoil: func(_ *testing.T, config object) {
		// Caddy cleans everything up and stops nothing, hence no servers.
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

// scene is a situation in which configurations fail.
type scene struct {
	*site
	backend string
	// spoiled returns a whole configuration that nothing is wrong with yet.
	spoiled func() object
	// untouched are a folder that a configuration must not make, and an address it
	// must not connect to; nil where a running configuration uses them.
	folder   string
	listener *net.TCPListener
	running  bool
	finish   func()
}

// inEveryScene runs a test with either store: with no configuration that runs,
// with one that uses the same store and authentication server as the one that
// fails, and with one that uses others. What runs serves a request all the time.
func inEveryScene(t *testing.T, test func(t *testing.T, s *scene)) {
	t.Helper()
	for _, backend := range []string{"embedded", "redis"} {
		for _, name := range []string{"alone", "beside one with the same resources", "beside one with others"} {
			t.Run(backend+" "+name, func(t *testing.T) {
				before := idle(t)
				s := newScene(t, backend, name == "alone" || name == "beside one with others")
				if name != "alone" {
					s.run(t)
				}
				test(t, s)
				s.close(t)
				waitForPools(t, before)
			})
		}
	}
}

func newScene(t *testing.T, backend string, own bool) *scene {
	t.Helper()
	s := &scene{site: newSite(t), backend: backend}
	s.client.Timeout = 5 * time.Minute // of the request that waits meanwhile
	dsapp := s.dsapp()
	in(dsapp, "authentication_servers")["timeout"] = "10m"
	dsapp["limits"] = object{"registrations_per_minute": 0, "calls_per_minute": 0}
	if backend == "redis" {
		redisConfig(dsapp, redistest.Start(t).Addr())
		in(dsapp, "store")["timeout"] = "10s"
	}
	if own {
		s.folder = filepath.Join(t.TempDir(), "made")
		s.listener = listen(t)
	}
	s.spoiled = func() object {
		c := copyOf(t, s.config)
		if !own {
			return c
		}
		dsapp := in(c, "apps", appName)
		if backend == "redis" {
			// Who connects there is not answered.
			maps.Copy(in(dsapp, "store"), object{"addresses": []any{s.listener.Addr().String()}, "timeout": "10ms"})
		} else {
			in(dsapp, "store")["path"] = filepath.Join(s.folder, "dsapp.db")
		}
		in(dsapp, "authentication_servers")["instances"] = []any{object{"name": "primary", "url": "https://" + s.listener.Addr().String() + "/"}}
		return c
	}
	return s
}

// run loads the configuration that is to survive and has it serve a request until
// the end.
func (s *scene) run(t *testing.T) {
	t.Helper()
	s.running = true
	s.load(t)
	s.register(t)
	waitFor(t, "the preparations to end", func() bool { return runningRequests(t) == 0 })
	s.hold.Store(true)
	type result struct {
		status int
		answer string
		err    error
	}
	done := make(chan result, 1)
	go func() {
		status, answer, err := s.try(registerPath, testBackEndKey, registerBody)
		done <- result{status, answer, err}
	}()
	<-s.arrived
	s.hold.Store(false)
	s.finish = func() {
		s.proceed <- struct{}{}
		r := <-done
		if r.err != nil {
			t.Fatal(r.err)
		}
		parseRegistered(t, r.status, r.answer)
	}
}

// running is the gateway of the configuration that runs, nil if there is none.
func running(t *testing.T) *App {
	t.Helper()
	app, err := caddy.ActiveContext().AppIfConfigured(appName)
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return app.(*App)
}

// runningRequests tells how many requests of the configuration that runs may use
// the store, its preparations among them.
func runningRequests(t *testing.T) int {
	t.Helper()
	return running(t).store.(interface{ pending() int }).pending()
}

// pending tells how many requests the lease counts.
func (l *lease[T]) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests
}

// close ends the request that ran all the time, and the configuration.
func (s *scene) close(t *testing.T) {
	t.Helper()
	if s.running {
		s.finish()
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
}

// fail loads a configuration with a defect and checks that nothing is left of it.
func (s *scene) fail(t *testing.T, d defect) {
	t.Helper()
	config := s.spoiled()
	d.spoil(t, config)
	before := held()
	goroutines := []goleak.Option{
		goleak.IgnoreCurrent(),
		// Caddy cleans its own storage up now and then.
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
	if err := goleak.Find(goroutines...); err != nil {
		t.Error(err)
	}
	s.check(t)
	if s.running {
		waitForPools(t, before)
	}
}

// check checks that what runs is not impaired.
func (s *scene) check(t *testing.T) {
	t.Helper()
	if !s.running {
		return
	}
	if status, answer := s.call(t, timePath, testFrontEndKey, ""); status != http.StatusOK {
		t.Errorf("status %d, %s", status, answer)
	}
	s.register(t)
}

// checkFolder checks that no configuration opened a store of its own.
func (s *scene) checkFolder(t *testing.T) {
	t.Helper()
	if s.folder == "" {
		return
	}
	if _, err := os.Stat(s.folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the store's folder was made: %v", err)
	}
}

// A configuration that is rejected before anything was started gives back exactly
// what it took, wherever it failed, and had opened nothing: what runs meanwhile
// has everything it had and never notices.
func TestRejectedConfigurationLeavesNothing(t *testing.T) {
	inEveryScene(t, func(t *testing.T, s *scene) {
		for _, d := range append(ofGateway(), besideGateway()...) {
			if d.backend != "" && d.backend != s.backend {
				continue
			}
			t.Run(d.want, func(t *testing.T) { s.fail(t, d) })
		}
		if s.listener == nil {
			return
		}
		s.checkFolder(t)
		// A connection that waits to be accepted is accepted in spite of the deadline.
		if err := s.listener.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if c, err := s.listener.Accept(); err == nil {
			t.Errorf("connected from %s", c.RemoteAddr())
		}
	})
}

// A configuration that fails while its apps are started, whether the gateway was
// started before or not, has not touched any store. One that fails even later may
// have made its own, which is closed again.
func TestConfigurationThatDoesNotStartLeavesNothing(t *testing.T) {
	inEveryScene(t, func(t *testing.T, s *scene) {
		for _, d := range atStart() {
			t.Run(d.want, func(t *testing.T) {
				inEitherOrder(func() { s.fail(t, d) })
				s.checkFolder(t)
			})
		}
		t.Run(afterStart.want, func(t *testing.T) { s.fail(t, afterStart) })
		if s.folder == "" || s.backend != "embedded" {
			return
		}
		openAndClose(t, filepath.Join(s.folder, "dsapp.db"))
	})
}

// openAndClose checks that nobody has a store's file open.
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

// inEitherOrder loads a configuration until Caddy, which starts apps in random
// order, most probably started the gateway once before and once after another app.
func inEitherOrder(load func()) {
	for range 10 {
		load()
	}
}

// A configuration that does not start changes no limits, not even for a moment:
// without a limit, what was counted would be forgotten.
func TestConfigurationThatDoesNotStartSetsNoLimits(t *testing.T) {
	s := newSite(t)
	in(s.dsapp(), "limits")["failed_keys_per_minute"] = 2
	s.load(t)
	config := copyOf(t, s.config)
	in(config, "apps", appName, "limits")["failed_keys_per_minute"] = 0
	in(config, "apps", neighbourName)["fails_in"] = "start"
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
		t.Errorf("status %d: what was counted is forgotten", status)
	}
}

// A configuration that does not start has no lasting effect on the store of the
// one that runs: it seals nothing with a key that only itself has.
func TestConfigurationThatDoesNotStartSealsNothing(t *testing.T) {
	s := newSite(t)
	s.dsapp()["sealing_keys"] = []string{testSealingKey}
	s.load(t)
	s.register(t)
	before := held()
	config := copyOf(t, s.config)
	in(config, "apps", appName)["sealing_keys"] = []string{strings.Repeat("0123456789abcdef", 4), testSealingKey}
	in(config, "apps", neighbourName)["fails_in"] = "start"
	inEitherOrder(func() {
		if err := caddy.Load(encode(t, config), true); err == nil {
			t.Fatal("accepted")
		}
		waitForPools(t, before)
	})
	// The next one has to open what the store keeps.
	s.load(t)
	s.register(t)
}

// The preparations of a configuration that failed after they had begun end with it,
// also if its store cannot be opened yet, and nothing waits for them.
func TestPreparationsEndWithTheirConfiguration(t *testing.T) {
	s := newSite(t)
	s.load(t)
	s.register(t)
	before := held()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	// As another process would.
	locked, err := embedded.Open(path, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	config := copyOf(t, s.config)
	in(config, "apps", appName, "store")["path"] = path
	afterStart.spoil(t, config)
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

// Cleanup gives back what was taken and no more, however far Provision got and
// however often Cleanup is called, which Caddy itself does once.
func TestCleaningUpAgain(t *testing.T) {
	nothing := idle(t)
	for _, backend := range []string{"embedded", "redis"} {
		t.Run(backend, func(t *testing.T) {
			dsapp := gatewayConfig(t)
			if backend == "redis" {
				redisConfig(dsapp, "127.0.0.1:1")
			}
			provision := func(t *testing.T, config object) (app *App, cancel func(), err error) {
				t.Helper()
				var whole caddy.Config
				around := caddyConfig(t, config)
				delete(around, "apps")
				if err := caddy.StrictUnmarshalJSON(encode(t, around), &whole); err != nil {
					t.Fatal(err)
				}
				parent, err := caddy.ProvisionContext(&whole)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := caddy.NewContext(parent)
				app = new(App)
				if err := caddy.StrictUnmarshalJSON(encode(t, config), app); err != nil {
					return app, cancel, err
				}
				return app, cancel, app.Provision(ctx)
			}
			cleanUp := func(t *testing.T, app *App, cancel func()) {
				t.Helper()
				for range 2 {
					if err := app.Cleanup(); err != nil {
						t.Error(err)
					}
					cancel() // cleans the store up
				}
			}
			failures := func(t *testing.T) {
				t.Helper()
				before := held()
				for _, d := range ofGateway() {
					if d.backend != "" && d.backend != backend {
						continue
					}
					t.Run(d.want, func(t *testing.T) {
						config := copyOf(t, object{"apps": object{appName: dsapp}})
						d.spoil(t, config)
						failed, cancel, err := provision(t, in(config, "apps", appName))
						if err == nil {
							t.Error("accepted")
						}
						cleanUp(t, failed, cancel)
						waitForPools(t, before)
					})
				}
			}
			t.Run("without another owner", failures)
			owner, cancel, err := provision(t, dsapp)
			if err != nil {
				t.Fatal(err)
			}
			before := held()
			t.Run("beside another owner", failures)
			valid, cancelValid, err := provision(t, dsapp)
			if err != nil {
				t.Fatal(err)
			}
			cleanUp(t, valid, cancelValid)
			waitForPools(t, before)
			cleanUp(t, owner, cancel)
			waitForPools(t, nothing)
		})
	}
}

// Modules that were never provisioned have nothing to give back.
func TestCleaningUpWithoutProvisioning(t *testing.T) {
	owner := &App{limiters: newLimiters(new(limitValues))}
	if _, err := acquireLimiters(new(limitValues)); err != nil {
		t.Fatal(err)
	}
	before := held()
	for _, m := range []caddy.CleanerUpper{new(App), new(EmbeddedStore), new(RedisStore)} {
		for range 2 {
			if err := m.Cleanup(); err != nil {
				t.Errorf("%T: %v", m, err)
			}
		}
	}
	new(AuthenticationServers).close()
	waitForPools(t, before)
	if err := owner.Cleanup(); err != nil {
		t.Error(err)
	}
}

// loaded is a configuration of the property below.
type loaded struct {
	app      *App
	store    string   // its key
	servers  []string // their addresses
	requests int
}

// Whatever is loaded, rejected and stopped in whichever order, while requests run
// or arrive too late: the pools hold exactly what the running configuration and
// the requests of others need, and what is in use is never exchanged or closed.
func TestPoolsHoldWhatIsUsed(t *testing.T) {
	rest := idle(t)
	server := redistest.Start(t)
	defects := append(ofGateway(), besideGateway()...)
	rapid.Check(t, func(rt *rapid.T) {
		folder, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		stores := []object{
			{"backend": "embedded", "path": filepath.Join(folder, "a.db")},
			{"backend": "embedded", "path": filepath.Join(folder, "b.db")},
			{"backend": "redis", "addresses": []string{server.Addr()}},
			{"backend": "redis", "addresses": []string{server.Addr()}, "key_prefix": "other"},
		}
		servers := []string{"https://127.0.0.1:1/", "https://127.0.0.1:2/", "https://127.0.0.1:3/"}
		draw := func() object {
			var instances []any
			for i, address := range rapid.Permutation(servers).Draw(rt, "servers")[:rapid.IntRange(1, len(servers)).Draw(rt, "instances")] {
				name := "primary"
				if i > 0 {
					name += fmt.Sprint(i)
				}
				instances = append(instances, object{"name": name, "url": address})
			}
			dsapp := gatewayConfig(t)
			dsapp["sealing_keys"] = []string{testSealingKey}
			dsapp["store"] = rapid.SampledFrom(stores).Draw(rt, "store")
			dsapp["authentication_servers"] = object{"instances": instances}
			config := caddyConfig(t, dsapp)
			in(config, "apps")[neighbourName] = object{}
			in(config, "apps")["http"] = object{"servers": object{"gateway": object{
				"listen": []string{"127.0.0.1:0"}, "automatic_https": object{"disable": true},
				"routes": []object{{"handle": []object{{"handler": "dsapp_gateway"}}}},
			}}}
			return copyOf(t, config)
		}

		var current *loaded
		var all []*loaded // with the current one and those that have requests
		before := held()
		check := func() {
			want := make(map[string]int)
			for key, h := range rest {
				want[key] = h.references
			}
			for _, l := range all {
				if l == current || l.requests > 0 {
					want["store "+l.store]++
				}
			}
			if current != nil {
				want["limiters "+limitersKey]++
				for _, address := range current.servers {
					want["state "+address]++
				}
			}
			var got map[string]holding
			if !settles(func() bool {
				got = held()
				references := make(map[string]int)
				for key, h := range got {
					references[key] = h.references
				}
				return maps.Equal(references, want)
			}) {
				rt.Fatalf("the pools hold %v, wanted are references %v", got, want)
			}
			for key, h := range got {
				was, ok := before[key]
				if ok && was.value != h.value {
					rt.Fatalf("%s was exchanged", key)
				}
				if ok && was.opened != nil && was.opened != h.opened {
					rt.Fatalf("%s was opened again or closed: %v", key, h.opened)
				}
			}
			before = got
		}
		reject := func(config object, d defect) {
			d.spoil(t, config)
			if err := caddy.Load(encode(t, config), true); err == nil || !strings.Contains(err.Error(), d.want) {
				rt.Fatalf("err = %v", err)
			}
			check()
		}
		end := func(l *loaded) {
			l.app.store.(interface{ endRequest() }).endRequest()
			l.requests--
			check()
		}
		stop := func() {
			if err := caddy.Stop(); err != nil {
				rt.Fatal(err)
			}
			current = nil
			check()
		}
		withRequests := func() []*loaded {
			return slices.DeleteFunc(slices.Clone(all), func(l *loaded) bool { return l.requests == 0 })
		}
		defer func() {
			for _, l := range withRequests() {
				for l.requests > 0 {
					end(l)
				}
			}
			stop()
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"load": func(*rapid.T) {
				config := draw()
				if err := caddy.Load(encode(t, config), true); err != nil {
					rt.Fatal(err)
				}
				current = &loaded{app: running(t), servers: slices.Clone(running(t).AuthenticationServers.stateKeys)}
				current.store = current.app.store.(interface{ poolKey() string }).poolKey()
				all = append(all, current)
				check()
			},
			"reject": func(*rapid.T) {
				config := draw()
				backend := in(config, "apps", appName, "store")["backend"]
				d := rapid.SampledFrom(defects).Filter(func(d defect) bool {
					return d.backend == "" || d.backend == backend
				}).Draw(rt, "defect")
				// Some defects take one instance that is named primary for granted.
				s := in(config, "apps", appName, "authentication_servers")
				s["instances"] = s["instances"].([]any)[:1]
				reject(config, d)
			},
			"fail to start": func(*rapid.T) {
				reject(draw(), rapid.SampledFrom(append(atStart(), afterStart)).Draw(rt, "defect"))
			},
			"stop": func(*rapid.T) { stop() },
			"begin": func(*rapid.T) {
				if len(all) == 0 {
					rt.Skip("nothing was loaded")
				}
				l := rapid.SampledFrom(all).Draw(rt, "configuration")
				l.app.store.Begin()
				l.requests++
				release, err := l.app.activation.Reserve(t.Context())
				if err != nil {
					rt.Fatal(err)
				}
				release()
				check()
			},
			"end": func(*rapid.T) {
				some := withRequests()
				if len(some) == 0 {
					rt.Skip("no request runs")
				}
				end(rapid.SampledFrom(some).Draw(rt, "configuration"))
			},
		})
	})
}

// poolKey is the key of the lease's resource.
func (l *lease[T]) poolKey() string { return l.key }

// Requests on connections that stayed with a stopped configuration are served by
// the one that runs, never by one that failed after it had started.
func TestFailedConfigurationHasNoSuccession(t *testing.T) {
	s := newSite(t)
	s.load(t)
	first := running(t)
	if startedApps.latest() != first {
		t.Error("the configuration that runs is not the last")
	}
	config := copyOf(t, s.config)
	afterStart.spoil(t, config)
	if err := caddy.Load(encode(t, config), true); err == nil {
		t.Fatal("accepted")
	}
	if startedApps.latest() != first {
		t.Error("the configuration that failed is the last")
	}
	s.load(t)
	if last := startedApps.latest(); last != running(t) || last == first {
		t.Error("the new configuration is not the last")
	}
}
