package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// A store behind a lease is a store in every respect.
func TestLeasedStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) activation.Store {
		t.Helper()
		path := filepath.Join(t.TempDir(), "dsapp.db")
		pool := caddy.NewUsagePool()
		l, err := newLease(pool, path, func() (*embedded.Store, error) {
			return embedded.Open(path, embedded.Options{MaxSimulated: storetest.MaxSimulated})
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			l.release()
			waitFor(t, "the store to be let go", func() bool {
				_, held := pool.References(path)
				return !held
			})
		})
		return leasedStore[*embedded.Store]{l}
	})
}

// Not being able to open the store is an outage for every method.
func TestStoreThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	l, err := newLease(caddy.NewUsagePool(), "k", func() (*embedded.Store, error) { return nil, errors.New("locked") })
	if err != nil {
		t.Fatal(err)
	}
	defer l.release()
	s, ctx := leasedStore[*embedded.Store]{l}, t.Context()
	for name, call := range map[string]func() error{
		"Writable":          func() error { return s.Writable(ctx) },
		"Create":            func() error { _, _, err := s.Create(ctx, activation.Record{}, activation.Generation{}); return err },
		"Load":              func() error { _, _, err := s.Load(ctx, "id"); return err },
		"PutHandshake":      func() error { return s.PutHandshake(ctx, "id", activation.Handshake{}) },
		"Take":              func() error { _, _, err := s.Take(ctx, "id", activation.Token{}, 1); return err },
		"Settle":            func() error { _, _, err := s.Settle(ctx, "id", activation.Settlement{}); return err },
		"AdmitDevice":       func() error { _, _, err := s.AdmitDevice(ctx, "id"); return err },
		"ReturnDevice":      func() error { return s.ReturnDevice(ctx, "id", activation.Generation{}) },
		"AdmitConfirmation": func() error { _, _, err := s.AdmitConfirmation(ctx, "id", 1); return err },
		"Remove":            func() error { return s.Remove(ctx, "id", activation.Generation{}) },
		"SimulationSecret":  func() error { _, err := s.SimulationSecret(ctx, nil); return err },
		"ReplaceSimulationSecret": func() error {
			_, err := s.ReplaceSimulationSecret(ctx, nil, nil)
			return err
		},
	} {
		if err := call(); !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func newEmbedded(t *testing.T, path string) *EmbeddedStore {
	t.Helper()
	s := &EmbeddedStore{Path: path}
	if err := s.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// The key beside the file is made where no key is configured, and opens records
// from then on, whatever is configured later.
func TestEmbeddedKeyring(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	configured, label := bytes.Repeat([]byte{7}, 32), seal.Label{Kind: "test"}

	s := newEmbedded(t, path)
	if _, err := s.Keyring(t.Context(), [][]byte{configured}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(embedded.KeyPath(path)); !os.IsNotExist(err) {
		t.Fatalf("a key was made beside a configured one: %v", err)
	}

	own, err := newEmbedded(t, path).Keyring(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	record, err := own.Seal(label, []byte("plaintext"))
	if err != nil {
		t.Fatal(err)
	}

	s = newEmbedded(t, path)
	both, err := s.Keyring(t.Context(), [][]byte{configured})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Keyring(t.Context(), [][]byte{configured}); again != both || err != nil {
		t.Errorf("another ring the second time: %v", err)
	}
	if _, err := both.Open(label, record); err != nil {
		t.Error(err)
	}
	if both.Current(record) {
		t.Error("the key of the file seals beside a configured one")
	}

	// The way from the key of the file to a configured one leads over both.
	key, _, err := embedded.LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := newEmbedded(t, path).Keyring(t.Context(), [][]byte{key, configured})
	if err != nil {
		t.Fatal(err)
	}
	if !moved.Current(record) {
		t.Error("the configured key is not the first")
	}
}

// A path is resolved like other fields, so that stores named in different ways
// are the same one.
func TestEmbeddedPathAcceptsPlaceholders(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("DSAPP_TEST_FOLDER", folder)
	if got, want := newEmbedded(t, "{env.DSAPP_TEST_FOLDER}/dsapp.db").path, filepath.Join(folder, "dsapp.db"); got != want {
		t.Errorf("path %q, want %q", got, want)
	}
}

// A lost key file is an outage that tells what to do, not a new key that opens
// nothing. With a configured key the key file is not needed.
func TestEmbeddedKeyFileLost(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	s := newEmbedded(t, path)
	defer s.Begin()()
	if _, err := s.Keyring(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SimulationSecret(t.Context(), []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(embedded.KeyPath(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := newEmbedded(t, path).Keyring(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "restore the key file") {
		t.Errorf("error = %v", err)
	}
	if _, err := newEmbedded(t, path).Keyring(t.Context(), [][]byte{bytes.Repeat([]byte{7}, 32)}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(embedded.KeyPath(path)); !os.IsNotExist(err) {
		t.Errorf("a key was made: %v", err)
	}
}

// redisConfig puts the app on a Redis server.
func redisConfig(c object, address string) {
	c["sealing_keys"] = []string{testSealingKey}
	c["store"] = object{"backend": "redis", "addresses": []string{address}}
}

// Every option of the Redis store that is wrong is refused by its name.
func TestInvalidRedisConfigurations(t *testing.T) {
	for _, tt := range []struct {
		want string
		edit func(c, store object)
	}{
		{"sealing_keys: at least one key is required", func(c, _ object) { delete(c, "sealing_keys") }},
		{"addresses: exactly one", func(_, s object) { delete(s, "addresses") }},
		{"addresses: exactly one", func(_, s object) { s["addresses"] = []string{"a:1", "b:1"} }},
		{"addresses[0]: must be host:port", func(_, s object) { s["addresses"] = []string{"localhost"} }},
		{"addresses[0]: a placeholder", func(_, s object) { s["addresses"] = []string{"{env.DSAPP_TEST_MISSING}"} }},
		{"username: a placeholder", func(_, s object) { s["username"] = "{env.DSAPP_TEST_MISSING}" }},
		{"password: a placeholder", func(_, s object) { s["password"] = "{" + marker + "}" }},
		{"password: is required", func(_, s object) { s["username"] = "gateway" }},
		{"db: must be", func(_, s object) { s["db"] = -1 }},
		{"key_prefix: must have no braces", func(_, s object) { s["key_prefix"] = "{a}" }},
		{"dial_timeout: must be", func(_, s object) { s["dial_timeout"] = "-1s" }},
		{": timeout: must be from 10ms to 10m;", func(_, s object) { s["timeout"] = "-1s" }},
		{": timeout: must be from 10ms to 10m;", func(_, s object) { s["timeout"] = 1 }},
		{"dial_timeout: must be from 10ms to 10m;", func(_, s object) { s["dial_timeout"] = "11m" }},
		{"pool_size: must be", func(_, s object) { s["pool_size"] = -1 }},
		{"tls.handshake_timeout: ", func(_, s object) { s["tls"] = object{"handshake_timeout": "1s"} }},
		{"tls: ", func(_, s object) { s["tls"] = object{"client_certificate_file": "/does/not/exist"} }},
		{`unknown field "master_name"`, func(_, s object) { s["master_name"] = "mymaster" }},
	} {
		t.Run(tt.want, func(t *testing.T) {
			c := gatewayConfig(t)
			redisConfig(c, "127.0.0.1:6379")
			tt.edit(c, in(c, "store"))
			err := validate(t, c)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("err = %v", err)
			}
			if strings.Contains(err.Error(), marker) {
				t.Errorf("error shows a value: %v", err)
			}
		})
	}
}

// Clients are shared by configurations with the same settings, whichever way
// they were written, and by no others. Nothing about a secret is in the key.
func TestRedisClientsAreSharedByResolvedSettings(t *testing.T) {
	t.Setenv("DSAPP_TEST_PASSWORD", "the-password")
	certificates := testCertificates(t)
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	key := func(edit func(s *RedisStore)) string {
		s := &RedisStore{Addresses: []string{"127.0.0.1:6379"}, Password: "the-password"}
		edit(s)
		if err := s.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Cleanup(); err != nil {
				t.Error(err)
			}
		}()
		if strings.Contains(s.key, "password") {
			t.Errorf("key %q", s.key)
		}
		return s.key
	}
	same := key(func(*RedisStore) {})
	if key(func(s *RedisStore) { s.Password = "{env.DSAPP_TEST_PASSWORD}" }) != same {
		t.Error("not shared with a placeholder for the same password")
	}
	trusting := func(s *RedisStore) {
		s.TLS = &reverseproxy.TLSConfig{CARaw: json.RawMessage(`{"provider": "file", "pem_files": ["` + certificates.Authority + `"]}`)}
	}
	seen := map[string]string{same: "none"}
	add := func(name string, edit func(s *RedisStore)) {
		k := key(edit)
		if other, ok := seen[k]; ok {
			t.Errorf("%s: shared with %s", name, other)
		}
		seen[k] = name
	}
	add("address", func(s *RedisStore) { s.Addresses = []string{"127.0.0.1:6380"} })
	add("user", func(s *RedisStore) { s.Username = "gateway" })
	add("password", func(s *RedisStore) { s.Password = "another-password" })
	add("db", func(s *RedisStore) { s.DB = 1 })
	add("prefix", func(s *RedisStore) { s.KeyPrefix = "other" })
	add("timeout", func(s *RedisStore) { s.Timeout = caddy.Duration(time.Minute) })
	add("TLS", func(s *RedisStore) { s.TLS = new(reverseproxy.TLSConfig) })
	add("CA", trusting)
	if err := os.Remove(certificates.Authority); err != nil {
		t.Fatal(err)
	}
	renewed, err := sandbox.NewCertificates(filepath.Dir(certificates.Authority))
	if err != nil || renewed.Authority != certificates.Authority {
		t.Fatalf("%v, %v", renewed, err)
	}
	add("renewed CA", trusting)
}

// The whole on Redis: reloads share the client, an outage is 503 and ends by
// itself.
func TestGatewayOnRedis(t *testing.T) {
	server := redistest.Start(t)
	s := newSite(t)
	redisConfig(s.dsapp(), server.Addr())
	s.load(t)
	r := s.register(t)
	s.load(t)
	if err := s.activate(t, r); err != nil {
		t.Error(err)
	}
	in(s.dsapp(), "store")["key_prefix"] = "other"
	in(s.dsapp(), "store")["pool_size"] = 1
	s.load(t)
	other := s.register(t)
	waitFor(t, "the first client to be closed", func() bool {
		// One for the store and the one that asks.
		return strings.Count(server.Command(t, "CLIENT", "LIST"), " addr=") <= 2
	})
	server.Freeze(t)
	if status, answer := s.call(t, registerPath, testBackEndKey, registerBody); status != http.StatusServiceUnavailable {
		t.Errorf("status %d, %s", status, answer)
	}
	server.Thaw(t)
	if err := s.activate(t, other); err != nil {
		t.Error(err)
	}
}
