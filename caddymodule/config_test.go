package caddymodule

import (
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// Tests that load or validate a configuration share Caddy's global state. They must not run
// in parallel.

const (
	testFrontEndKey = "front-end-key-of-the-tests"
	testBackEndKey  = "back-end-key-of-the-tests"
	testSealingKey  = "5e41179a1b8ff3a3c1b0f2a96dd7f5d2a44e3d0c8b1a6f7e9d2c3b4a59687706"
)

type object = map[string]any

// gatewayConfig returns the smallest useful configuration of the app.
func gatewayConfig(t testing.TB) object {
	t.Helper()
	return object{
		"api_keys": []object{
			{"name": "phones", "class": "front_end", "key": testFrontEndKey},
			{"name": "bank", "class": "back_end", "key": testBackEndKey},
		},
		"store": object{"backend": "embedded", "path": filepath.Join(t.TempDir(), "dsapp.db")},
		"authentication_servers": object{
			"instances": []object{{"name": "primary", "url": "https://oas.invalid:8888/"}},
		},
	}
}

// caddyConfig returns a whole configuration with the app and without servers.
func caddyConfig(t testing.TB, dsapp object) object {
	t.Helper()
	return object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"storage": object{"module": "file_system", "root": t.TempDir()},
		"logging": object{"logs": object{"default": object{"writer": object{"output": "discard"}}}},
		"apps":    object{"dsapp": dsapp},
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func validate(t *testing.T, dsapp object) error {
	t.Helper()
	var config caddy.Config
	if err := caddy.StrictUnmarshalJSON(encode(t, caddyConfig(t, dsapp)), &config); err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(&config)
}

// in returns the object at a path of names. It creates missing objects.
func in(o object, path ...string) object {
	for _, name := range path {
		next, ok := o[name].(object)
		if !ok {
			next = object{}
			o[name] = next
		}
		o = next
	}
	return o
}

// Every option accepts its valid values.
func TestValidConfigurations(t *testing.T) {
	t.Setenv("DSAPP_TEST_NAME", "gateway")
	certificates := testCertificates(t)
	for name, edit := range map[string]func(c object){
		"smallest":      func(object) {},
		"default store": func(c object) { delete(c, "store") },
		"two sealing keys": func(c object) {
			c["sealing_keys"] = []string{testSealingKey, strings.Repeat("01", 16) + strings.Repeat("10", 16)}
		},
		"hashed key": func(c object) {
			c["api_keys"] = []object{{
				"name": "phones", "class": "front_end",
				"key_sha256": "6b7dc9c3e4850c26543a161781de9cae1408fef1b20b522d51d6a128512d07dc",
			}}
		},
		"source ranges": func(c object) {
			c["api_keys"].([]object)[1]["allow"] = []string{"10.0.0.0/8", "192.0.2.1", "2001:db8::/32"}
		},
		"two instances on one host": func(c object) {
			in(c, "authentication_servers")["instances"] = []object{
				{"name": "a", "url": "https://a.invalid:8888/"}, {"name": "b", "url": "https://a.invalid:8889/"}, {"name": "c", "url": "https://a.invalid:8888/C"},
			}
		},
		"two instances and TLS": func(c object) {
			s := in(c, "authentication_servers")
			s["instances"] = []object{{"name": "a", "url": "https://a.invalid:8888/"}, {"name": "b", "url": "https://b.invalid:8888/"}}
			s["policy"] = "first"
			s["tls"] = object{
				"ca":                      object{"provider": "file", "pem_files": []string{certificates.Authority}},
				"client_certificate_file": certificates.Certificate, "client_certificate_key_file": certificates.Key,
				"server_name": "oas.example.com", "handshake_timeout": "1s",
			}
		},
		"every other option": func(c object) {
			maps.Copy(in(c, "authentication_servers"), object{
				"deployment": "shared_database", "policy": "round_robin",
				"soap_version": "1.2", "dial_timeout": "1s", "idle_timeout": "5s", "timeout": "10s", "max_connections": 5, "max_queue": 0,
				"reserved_connections": 0, "max_waiting": 5,
				"probe_interval": 0, "breaker": object{"failures": 1, "cooldown": "100ms"},
				"component_types": object{
					"provisioning": "Our Gateway", "authentication": strings.Repeat("ü", 60), "signature": "Our Signatures", "notification": "Our Pushes",
				},
				"attributes": object{"activation_message": "AM1", "instance_activation_message": "AM2", "event_reactivation_counter": "ERC", "device_description": "DD"},
			})
			c["activation"] = object{
				"exchange": "gateway", "profile": "rfc5054-4096-sha256", "registration_lifetime": "1h", "handshake_lifetime": "30s",
				"max_attempts": 5, "max_activations": 1, "unknown": "forward", "hide_unknown_users": true, "gateway_id": "GW1",
				"password": object{"length": 12, "alphabet": "numeric"},
			}
			c["limits"] = object{
				"max_body_size": 1024, "max_exchanges": 4,
				"failed_keys_per_minute": 0, "exchanges_per_minute": 0, "registrations_per_minute": 0, "calls_per_minute": 0, "body_timeout": "1s",
				"requests_in_flight": 0, "calls_in_flight": 1_000_000,
				"nat64_prefixes": []string{"2001:db8:122::/48", "64:ff9b:1::/96"},
			}
			c["requests"] = object{"lifetime": "1h", "unknown": "refuse", "plain_cancel": "refuse", "repeat": "0s"}
			c["health"] = object{"store": "report", "instances": "all"}
			c["cors"] = object{"origins": []string{"https://app.example.com:8443", "capacitor://localhost"}}
			c["status_codes"] = object{"STAT_NOSUPPORT": -42}
		},
		"defaults by name": func(c object) {
			maps.Copy(in(c, "authentication_servers"), object{"deployment": "replicated", "policy": "first"})
			maps.Copy(in(c, "requests"), object{"unknown": "forward", "plain_cancel": "forward", "repeat": "1m"})
			c["health"] = object{"store": "require", "instances": "any"}
		},
		"turns among replicated servers": func(c object) { in(c, "authentication_servers")["policy"] = "round_robin" },
		"order among servers with a shared database": func(c object) {
			maps.Copy(in(c, "authentication_servers"), object{"deployment": "shared_database", "policy": "first"})
		},
		"relay":                           func(c object) { in(c, "activation")["exchange"] = "relay" },
		"relay of what is known":          func(c object) { c["activation"] = object{"exchange": "relay", "unknown": "refuse"} },
		"shortest lifetime of a request":  func(c object) { in(c, "requests")["lifetime"] = "1s" },
		"longest lifetime of a request":   func(c object) { in(c, "requests")["lifetime"] = "24h" },
		"longest gateway ID":              func(c object) { in(c, "activation")["gateway_id"] = strings.Repeat("ü", 255) },
		"one Redis server":                func(c object) { redisConfig(c, "127.0.0.1:6379") },
		"a Redis server behind a socket":  func(c object) { redisConfig(c, "/run/redis.sock") },
		"a Redis server with replicas":    func(c object) { redisConfig(c, "127.0.0.1:6379"); in(c, "store")["wait_replicas"] = 1 },
		"a Redis cluster through a node":  func(c object) { redisConfig(c, "[::1]:7000"); in(c, "store")["cluster"] = true },
		"a Redis cluster through several": func(c object) { redisConfig(c, "a:7000", "b:7000"); in(c, "store")["cluster"] = true },
		"Sentinels": func(c object) {
			redisConfig(c, "a:26379", "b:26379", "c:26379")
			maps.Copy(in(c, "store"), object{
				"master_name": "my.Master-1_a", "sentinel_username": "{env.DSAPP_TEST_NAME}", "sentinel_password": "{env.DSAPP_TEST_NAME}",
				"username": "{env.DSAPP_TEST_NAME}", "password": "{env.DSAPP_TEST_NAME}", "db": 7, "wait_replicas": 2,
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := gatewayConfig(t)
			edit(c)
			if err := validate(t, c); err != nil {
				t.Error(err)
			}
		})
	}
}

// marker is part of values that must not appear in errors.
const marker = "mArKeR"

var update = flag.Bool("update", false, "rewrite the golden files")

// Every wrong option is refused with an error that begins with its path and contains no
// secret. A golden file has the complete messages, so that a change of them can be reviewed.
func TestInvalidConfigurations(t *testing.T) {
	t.Setenv("DSAPP_TEST_EMPTY", "")
	var messages []string
	key := func(edit func(k object)) func(object) {
		return func(c object) { edit(c["api_keys"].([]object)[1]) }
	}
	servers := func(name string, value any) func(object) {
		return func(c object) { in(c, "authentication_servers")[name] = value }
	}
	activation := func(name string, value any) func(object) {
		return func(c object) { in(c, "activation")[name] = value }
	}
	relayed := func(name string, value any) func(object) {
		return func(c object) { c["activation"] = object{"exchange": "relay", name: value} }
	}
	requests := func(name string, value any) func(object) {
		return func(c object) { in(c, "requests")[name] = value }
	}
	limit := func(name string, value any) func(object) {
		return func(c object) { in(c, "limits")[name] = value }
	}
	for _, tt := range []struct {
		want string
		edit func(c object)
	}{
		{`unknown field "bogus", known are activation, api_keys, `, func(c object) { c["bogus"] = 1 }},
		{`unknown field "limit", did you mean "limits"?`, func(c object) { c["limit"] = object{} }},
		{`unknown field "Store", did you mean "store"?`, func(c object) { c["Store"] = object{} }},
		{"api_keys: must be a list", func(c object) { c["api_keys"] = object{} }},
		{"limits: must be an object", func(c object) { c["limits"] = []string{} }},
		{`api_keys[1]: unknown field "klass", did you mean "class"?`, key(func(k object) { k["klass"] = "back_end" })},
		{"api_keys[1].name: must be a text", key(func(k object) { k["name"] = 5 })},

		{"api_keys: at least one key is required", func(c object) { delete(c, "api_keys") }},
		{"api_keys[1].name: is required", key(func(k object) { delete(k, "name") })},
		{"api_keys[1].name: must be 1 to 64", key(func(k object) { k["name"] = "a:b" })},
		{"api_keys[1].class: must be", key(func(k object) { delete(k, "class") })},
		{"api_keys[1].class: must be", key(func(k object) { k["class"] = "admin" })},
		{"api_keys[1].key: exactly one of", key(func(k object) { delete(k, "key") })},
		{"api_keys[1].key: exactly one of", key(func(k object) { k["key_sha256"] = strings.Repeat("0", 64) })},
		{"api_keys[1].key: a placeholder", key(func(k object) { k["key"] = "{env.DSAPP_TEST_MISSING}" })},
		{"api_keys[1].key: a placeholder", key(func(k object) { k["key"] = "{env.DSAPP_TEST_EMPTY}" })},
		{"api_keys[1].key: a placeholder", key(func(k object) { k["key"] = "{file./does/not/exist}" })},
		{"api_keys[1].key: a placeholder", key(func(k object) { k["key"] = "0123456789abcdef{" + marker + "}" })},
		{"api_keys[1].key: must have 16", key(func(k object) { k["key"] = "short " + marker })},
		{"api_keys[1].key: must consist", key(func(k object) { k["key"] = "a key with a colon: " + marker })},
		{"api_keys[1].key_sha256: must", key(func(k object) {
			delete(k, "key")
			k["key_sha256"] = "zz" + marker
		})},
		{"api_keys[1].allow[0]: must be an IP address", key(func(k object) { k["allow"] = []string{"intranet"} })},
		{"api_keys[1].allow[1]: has bits set beyond its length; the range is 10.0.0.0/8", key(func(k object) { k["allow"] = []string{"192.0.2.1", "10.1.2.3/8"} })},
		{"api_keys[1].key_sha256: is missing, or", key(func(k object) {
			delete(k, "key")
			k["key_sha256"] = strings.Repeat("0", 64)
		})},
		{`api_keys[1].key: is the same key as [0], "phones"`, key(func(k object) { k["key"] = testFrontEndKey })},
		{`api_keys[1].profile: is for keys of the class "front_end"`, key(func(k object) { k["profile"] = "rfc5054-2048-sha256" })},
		{`api_keys[1].profile: activation has no profile "rfc5054-3072-sha256"`, key(func(k object) { k["class"], k["profile"] = "front_end", "rfc5054-3072-sha256" })},
		{"api_keys[1].profile: is not the one of [0]", func(app object) {
			app["activation"] = object{"profiles": []any{"rfc5054-2048-sha256", "rfc5054-3072-sha256"}}
			key(func(k object) { k["name"], k["class"], k["profile"] = "phones", "front_end", "rfc5054-3072-sha256" })(app)
		}},
		{"api_keys[0].profile: means nothing with", func(app object) {
			relayed("unknown", "forward")(app)
			app["api_keys"].([]object)[0]["profile"] = "rfc5054-2048-sha256"
		}},
		{"api_keys[1].class: is not the one of [0]", key(func(k object) { k["name"] = "phones" })},

		{"sealing_keys[0]: must not be empty", func(c object) { c["sealing_keys"] = []string{""} }},
		{"sealing_keys[1]: must have 64 hex digits", func(c object) { c["sealing_keys"] = []string{testSealingKey, marker} }},
		{"sealing_keys[0]: a placeholder", func(c object) { c["sealing_keys"] = []string{"{env.DSAPP_TEST_MISSING}"} }},
		{"sealing_keys[0]: must be random", func(c object) { c["sealing_keys"] = []string{strings.Repeat("0", 64)} }},
		{"sealing_keys[1]: is the same as an earlier key", func(c object) { c["sealing_keys"] = []string{testSealingKey, testSealingKey} }},

		{"store: ", func(c object) { c["store"] = object{"path": "/tmp/x"} }},
		{`store: unknown backend "sqlite", known are embedded, redis`, func(c object) { c["store"] = object{"backend": "sqlite"} }},
		{"path: a placeholder", func(c object) { in(c, "store")["path"] = "{env.DSAPP_TEST_MISSING}/dsapp.db" }},
		{"path: a placeholder", func(c object) { in(c, "store")["path"] = "{env.DSAPP_TEST_EMPTY}" }},
		{"path: is a folder; name a file in it, such as /dsapp.db", func(c object) { in(c, "store")["path"] = "/" }},
		{`unknown field "cluster"`, func(c object) { in(c, "store")["cluster"] = true }},
		{`unknown field "adresses", did you mean "addresses"?`, func(c object) {
			redisConfig(c, "127.0.0.1:6379")
			in(c, "store")["adresses"] = []string{"127.0.0.1:6379"}
		}},
		{"addresses[1]: must be a text", func(c object) { redisConfig(c, "127.0.0.1:6379"); in(c, "store")["addresses"] = []any{"a:1", 2} }},

		{"authentication_servers.instances: at least one", servers("instances", []object{})},
		{"authentication_servers.instances[0].name: must have", servers("instances", []object{{"url": "https://a:1/"}})},
		{"authentication_servers.instances[1].name: is the name of", servers("instances", []object{{"name": "a", "url": "https://a:1/"}, {"name": "a", "url": "https://b:1/"}})},
		{"authentication_servers.instances[0].url: must not be empty", servers("instances", []object{{"name": "a"}})},
		{"authentication_servers.instances[0].url: a placeholder", servers("instances", []object{{"name": "a", "url": "{env.DSAPP_TEST_EMPTY}"}})},
		{"authentication_servers.instances[0].url: must be an address", servers("instances", []object{{"name": "a", "url": "http://a:1/"}})},
		{"authentication_servers.instances[0].url: must have no white space", servers("instances", []object{{"name": "a", "url": "https://a:1/ "}})},
		{`authentication_servers.instances[0]: unknown field "weight", known are name, url`, servers("instances", []object{{"name": "a", "weight": 1}})},
		{"authentication_servers.instances[0].url: must have no user", servers("instances", []object{{"name": "a", "url": "https://u:" + marker + "@a:1/"}})},
		{"authentication_servers.instances[0].url: must have a host name in ASCII", servers("instances", []object{{"name": "a", "url": "https://bücher.example/"}})},
		{"authentication_servers.instances[0].url: must have a port", servers("instances", []object{{"name": "a", "url": "https://a:0/"}})},
		{"authentication_servers.instances[0].url: must have a port", servers("instances", []object{{"name": "a", "url": "https://a:65536/"}})},
		{"authentication_servers.instances[1].url: is that of an earlier instance", servers("instances", []object{{"name": "a", "url": "https://a:1/"}, {"name": "b", "url": "https://a:1/"}})},
		{"authentication_servers.instances[1].url: is that of an earlier instance", servers("instances", []object{{"name": "a", "url": "https://A:1"}, {"name": "b", "url": "https://a:1/"}})},
		{`authentication_servers.deployment: must be "replicated" or "shared_database"`, servers("deployment", "clustered")},
		{`authentication_servers.policy: must be "first" or "round_robin"`, servers("policy", "random")},
		{"authentication_servers.soap_version: must be", servers("soap_version", "1.3")},
		{"authentication_servers.dial_timeout: must be from 10ms to 10m;", servers("dial_timeout", "-1s")},
		{"authentication_servers.dial_timeout: must be", servers("dial_timeout", 2)},
		{"authentication_servers.idle_timeout: must be from 10ms to 10m;", servers("idle_timeout", "-1s")},
		{"authentication_servers.timeout: must be from 10ms to 10m;", servers("timeout", "-1s")},
		{`authentication_servers.timeout: must be a duration such as "30s", with the units ns, us, ms, s, m, h and d`, servers("timeout", "30 seconds")},
		{`authentication_servers.timeout: must be from 10ms to 10m; write it as a text such as "30s", a plain number counts nanoseconds`, servers("timeout", 30)},
		{"authentication_servers.timeout: must be", servers("timeout", "601s")},
		{"authentication_servers.max_connections: must be", servers("max_connections", -1)},
		{"authentication_servers.reserved_connections: must be from 0 to 29, one less than max_connections", servers("reserved_connections", 30)},
		{"authentication_servers.reserved_connections: must be", servers("reserved_connections", -1)},
		{"authentication_servers.max_waiting: must be from 1 to 30, the number of max_connections", servers("max_waiting", 31)},
		{"authentication_servers.max_waiting: must be", servers("max_waiting", -1)},
		{"authentication_servers.max_queue: must be a whole number", servers("max_queue", 1.5)},
		{"authentication_servers.max_queue: must be a whole number", servers("max_queue", "5")},
		{"authentication_servers.max_queue: must be", servers("max_queue", -1)},
		{"authentication_servers.probe_interval: must be from 10ms to 10m;", servers("probe_interval", 10)},
		{"authentication_servers.probe_interval: must be", servers("probe_interval", "-1s")},
		{"authentication_servers.breaker.failures: must be from 1 to 1000", servers("breaker", object{"failures": 1001})},
		{"authentication_servers.breaker.failures: must be", servers("breaker", object{"failures": -1})},
		{"authentication_servers.breaker.cooldown: must be from 10ms to 10m;", servers("breaker", object{"cooldown": "1h"})},
		{"authentication_servers.tls.handshake_timeout: must be", servers("tls", object{"handshake_timeout": "-1s"})},
		{"authentication_servers.tls.handshake_timeout: must be", servers("tls", object{"handshake_timeout": 5})},
		{"authentication_servers.tls.except_ports: ", servers("tls", object{"except_ports": []string{"1"}})},
		{"authentication_servers.tls.client_certificate_automate: ", servers("tls", object{"client_certificate_automate": "gateway.example.com"})},
		{"authentication_servers.tls: ", servers("tls", object{"client_certificate_file": "x"})},
		{"authentication_servers.tls: ", servers("tls", object{"ca": object{"provider": "file", "pem_files": []string{"/does/not/exist"}}})},
		{"authentication_servers.tls.ca: holds no certificate; name files in PEM form", servers("tls", object{"ca": object{"provider": "file", "pem_files": []string{"config_test.go"}}})},
		{"authentication_servers.component_types.provisioning: must have at most 60", servers("component_types", object{"provisioning": strings.Repeat("x", 61)})},
		{"authentication_servers.component_types.authentication: must have at most 60", servers("component_types", object{"authentication": strings.Repeat("x", 61)})},
		{"authentication_servers.component_types.signature: must have at most 60", servers("component_types", object{"signature": "a\nb"})},
		{"authentication_servers.component_types.notification: must have at most 60", servers("component_types", object{"notification": "\x7f"})},
		{"authentication_servers.attributes.activation_message: ", servers("attributes", object{"activation_message": "a b"})},
		{"authentication_servers.attributes.instance_activation_message: ", servers("attributes", object{"instance_activation_message": "a b"})},
		{"authentication_servers.attributes.event_reactivation_counter: must have 1 to 64", servers("attributes", object{"event_reactivation_counter": strings.Repeat("x", 65)})},
		{"authentication_servers.attributes.device_description: must have 1 to 64", servers("attributes", object{"device_description": "a b"})},

		{`activation.exchange: must be "gateway" or "relay"`, activation("exchange", "forward")},
		{`activation.profile: means nothing with exchange "relay"`, relayed("profile", "rfc5054-2048-sha256")},
		{"activation.handshake_lifetime: means nothing with", relayed("handshake_lifetime", "2m")},
		{"activation.max_activations: means nothing with", relayed("max_activations", 3)},
		{"activation.password: means nothing with", relayed("password", object{"length": 12})},
		{"activation.profile: must be rfc5054-2048-sha256, ", activation("profile", "rfc5054-1024-sha1")},
		{"activation.profile: must be a name, or an object with a module", activation("profile", 1)},
		{`activation.profile: unknown module "srp6", did you mean "srp6a"?`, activation("profile", object{"module": "srp6"})},
		{"activation.profile: loading module 'rfc5054': provision dsapp.profiles.rfc5054: name: must be rfc5054-2048-sha256, ", activation("profile", object{"module": "rfc5054", "name": "x"})},
		{"activation.profile: loading module 'srp6a': provision dsapp.profiles.srp6a: name: must not be the name of a profile rfc5054", activation("profile", object{"module": "srp6a", "name": "rfc5054-2048-sha256"})},
		{"activation.profile: loading module 'srp6a': provision dsapp.profiles.srp6a: preset: must be bouncycastle, ", activation("profile", object{"module": "srp6a", "preset": "pysrp"})},
		{"activation.profile: loading module 'srp6a': provision dsapp.profiles.srp6a: group: rfc3526-2048 has a generator that is a square", activation("profile", object{"module": "srp6a", "group": "rfc3526-2048"})},
		{"activation.profile: loading module 'srp6a': provision dsapp.profiles.srp6a: hkdf_salt: has no meaning beside the other options", activation("profile", object{"module": "srp6a", "key_derivation": "hash", "hkdf_salt": "none"})},
		{"activation.profile: loading module 'srp6a': provision dsapp.profiles.srp6a: m2: must contain M1: ", activation("profile", object{"module": "srp6a", "m2": []string{"A", "K"}})},
		{"activation.profiles: cannot be given together with profile", func(app object) {
			app["activation"] = object{"profile": "rfc5054-2048-sha256", "profiles": []any{"rfc5054-3072-sha256"}}
		}},
		{"activation.profiles: must have an element", activation("profiles", []any{})},
		{"activation.profiles: must be", activation("profiles", "rfc5054-2048-sha256")},
		{"activation.profiles[1]: must be rfc5054-2048-sha256, ", activation("profiles", []any{"rfc5054-2048-sha256", "x"})},
		{`activation.profiles[1]: unknown module "srp6"`, activation("profiles", []any{"rfc5054-2048-sha256", object{"module": "srp6"}})},
		{"activation.profiles[0]: loading module 'srp6a': provision dsapp.profiles.srp6a: hash: ", activation("profiles", []any{object{"module": "srp6a", "hash": "md5"}})},
		{`activation.profiles[2]: has the name "srp6a", as [1] has`, activation("profiles", []any{"rfc5054-2048-sha256", object{"module": "srp6a"}, object{"module": "srp6a", "preset": "nimbus"}})},
		{"activation.profiles: must not have more than 8 elements", activation("profiles", slices.Repeat([]any{"rfc5054-2048-sha256"}, 9))},
		{"activation.profiles: means nothing with", relayed("profiles", []any{"rfc5054-2048-sha256"})},
		{"activation.registration_lifetime: must be from 1s to 24h;", activation("registration_lifetime", "-1s")},
		{"activation.registration_lifetime: must be", activation("registration_lifetime", 600)},
		{"activation.registration_lifetime: must be", activation("registration_lifetime", "25h")},
		{"activation.handshake_lifetime: must be from 1s to 1h;", activation("handshake_lifetime", "-1s")},
		{"activation.handshake_lifetime: must be", activation("handshake_lifetime", 120)},
		{"activation.handshake_lifetime: must be", activation("handshake_lifetime", "61m")},
		{"activation.max_attempts: must be from 1 to 100", activation("max_attempts", 101)},
		{"activation.max_activations: must be from 1", activation("max_activations", -1)},
		{"activation.unknown: must be", activation("unknown", "ignore")},
		{"activation.gateway_id: a placeholder", activation("gateway_id", "{env.DSAPP_TEST_MISSING}")},
		{"activation.gateway_id: must not contain a semicolon", activation("gateway_id", "a;b")},
		{"activation.gateway_id: must have at most 255 characters", activation("gateway_id", strings.Repeat("g", 256))},
		{"activation.password: length is 3", activation("password", object{"length": 3})},
		{"activation.password: alphabet has 2", activation("password", object{"alphabet": "ab"})},

		{"requests.lifetime: must be from 1s to 24h;", requests("lifetime", "-1s")},
		{"requests.lifetime: must be from 1s to 24h;", requests("lifetime", "999ms")},
		{"requests.lifetime: must be from 1s to 24h;", requests("lifetime", "24h1s")},
		{`write it as a text such as "30s", a plain number counts nanoseconds`, requests("lifetime", 300)},
		{`requests.unknown: must be "forward" or "refuse"`, requests("unknown", "ignore")},
		{`unknown field "max_pending"`, requests("max_pending", 1)},

		{"status_codes.STAT_NOSUPPORT: must not be 0", func(c object) { c["status_codes"] = object{"STAT_NOSUPPORT": 0} }},
		{"STAT_NOSUPPORT", func(c object) { c["status_codes"] = object{"STAT_NOSUPPORT": "-1"} }},
		{"STAT_NOSUPPORT", func(c object) { c["status_codes"] = object{"STAT_NOSUPPORT": 1 << 31} }},
		{`unknown field "STAT_NOT_FOUND"`, func(c object) { c["status_codes"] = object{"STAT_NOT_FOUND": -13} }},

		{"limits.max_body_size: must be", limit("max_body_size", -1)},
		{"limits.max_exchanges: must be", limit("max_exchanges", -1)},
		{"limits.failed_keys_per_minute: must be", limit("failed_keys_per_minute", -1)},
		{"limits.exchanges_per_minute: must be", limit("exchanges_per_minute", 1_000_001)},
		{"limits.registrations_per_minute: must be", limit("registrations_per_minute", -1)},
		{"limits.calls_per_minute: must be", limit("calls_per_minute", 1_000_001)},
		{"limits.calls_per_minute: must be", limit("calls_per_minute", -1)},
		{"limits.requests_in_flight: must be from 0 to 1000000", limit("requests_in_flight", -1)},
		{"limits.calls_in_flight: must be from 0 to 1000000", limit("calls_in_flight", 1_000_001)},
		{`requests.repeat: must be from 1s to 10m; write it as a text such as "30s", a plain number counts nanoseconds`, requests("repeat", "11m")},
		{`requests.plain_cancel: must be "forward" or "refuse"`, requests("plain_cancel", "never")},
		{`health.store: must be "require" or "report"`, func(c object) { in(c, "health")["store"] = "ignore" }},
		{`health.instances: must be "any" or "all"`, func(c object) { in(c, "health")["instances"] = "some" }},
		{"cors.origins[0]: must not be *: list the origins", func(c object) { in(c, "cors")["origins"] = []string{"*"} }},
		{"cors.origins[1]: must not be null: ", func(c object) { in(c, "cors")["origins"] = []string{"https://app.example.com", "null"} }},
		{"cors.origins[0]: must end after the host and the port", func(c object) { in(c, "cors")["origins"] = []string{"https://app.example.com/"} }},
		{"cors.origins: must be a list", func(c object) { in(c, "cors")["origins"] = "https://app.example.com" }},
		{"limits.nat64_prefixes[1]: must be a CIDR range", limit("nat64_prefixes", []string{"2001:db8:122::/48", "2001:db8::1"})},
		{"limits.nat64_prefixes: NAT64 prefix 192.0.2.0/24: must be an IPv6 prefix", limit("nat64_prefixes", []string{"192.0.2.0/24"})},
		{"limits.nat64_prefixes: NAT64 prefix 2001:db8::/33: length must be", limit("nat64_prefixes", []string{"2001:db8::/33"})},
		{`limits.body_timeout: must be from 10ms to 10m; write it as a text such as "30s", a plain number counts nanoseconds`, limit("body_timeout", 30)},
		{"limits.body_timeout: must be", limit("body_timeout", "601s")},
	} {
		t.Run(tt.want, func(t *testing.T) {
			c := gatewayConfig(t)
			tt.edit(c)
			err := validate(t, c)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v", err)
			}
			for _, secret := range []string{marker, testFrontEndKey, testBackEndKey, testSealingKey} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("error shows a value: %v", err)
				}
			}
			message := strings.TrimPrefix(err.Error(), "loading dsapp app module: ")
			messages = append(messages, strings.TrimPrefix(message, "provision dsapp: "))
		})
	}
	got := strings.Join(messages, "\n") + "\n"
	const golden = "testdata/invalid_configurations.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(golden); err != nil || got != string(want) {
		t.Errorf("not the messages of %s (-update rewrites it): %v\n%s", golden, err, got)
	}
}

// The error about an unknown profile lists all profiles.
func TestProfilesAreListed(t *testing.T) {
	t.Parallel()
	_, err := srp.LookupProfile("")
	_, known, _ := strings.Cut(err.Error(), "known are ")
	if got := strings.Replace(profiles, " or ", ", ", 1); got != known {
		t.Errorf("listed %q, known %q", got, known)
	}
}

// Validating a configuration writes no file, so that it works beside a running gateway and
// on a read-only file system.
func TestValidatingTouchesNothing(t *testing.T) {
	c := gatewayConfig(t)
	path := in(c, "store")["path"].(string)
	if err := validate(t, c); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 0 {
		t.Errorf("files: %v, %v", files, err)
	}
}

// Validating a configuration connects to no server, whichever kind of Redis it names.
func TestValidatingConnectsToNothing(t *testing.T) {
	listener := listen(t)
	for name, edit := range map[string]func(store object){
		"single":   func(object) {},
		"cluster":  func(store object) { store["cluster"] = true },
		"Sentinel": func(store object) { store["master_name"] = "mymaster" },
	} {
		c := gatewayConfig(t)
		redisConfig(c, listener.Addr().String())
		in(c, "store")["wait_replicas"] = 1
		edit(in(c, "store"))
		in(c, "authentication_servers")["instances"] = []object{{"name": "primary", "url": "https://" + listener.Addr().String()}}
		if err := validate(t, c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	checkNoConnection(t, listener)
}

// checkNoConnection checks that no connection waits to be accepted. A waiting connection
// is accepted even if the deadline has passed.
func checkNoConnection(t *testing.T, listener *net.TCPListener) {
	t.Helper()
	if err := listener.SetDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if c, err := listener.Accept(); err == nil {
		t.Errorf("connected from %s", c.RemoteAddr())
	}
}

// Every option has a comment, which is its documentation. It contains the default or says
// that the option is required.
func TestEveryOptionIsDocumented(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	options := 0
	for _, name := range names {
		// The JSON in these files is that of answers.
		answers := name == "admin.go" || strings.HasPrefix(name, "operator") || strings.HasPrefix(name, "check")
		if strings.HasSuffix(name, "_test.go") || answers {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			s, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, f := range s.Fields.List {
				if f.Tag == nil || !strings.Contains(f.Tag.Value, "json:") {
					continue
				}
				options++
				what := fmt.Sprintf("%s.%s", spec.Name.Name, f.Names[0].Name)
				text := f.Doc.Text()
				if text == "" {
					t.Errorf("%s has no comment", what)
				}
				nested := false
				switch f.Type.(type) {
				case *ast.Ident:
					nested = ast.IsExported(f.Type.(*ast.Ident).Name)
				case *ast.ArrayType:
					nested = true
				}
				if !nested && !strings.Contains(text, "Default: ") && !strings.Contains(text, "Default:\n") &&
					!strings.Contains(strings.ToLower(text), "required") && !strings.Contains(text, "key_sha256") && !strings.Contains(text, "sha256sum") {
					t.Errorf("%s tells neither a default nor that it is required", what)
				}
			}
			return true
		})
	}
	if options < 60 {
		t.Errorf("found %d options only", options)
	}
}
