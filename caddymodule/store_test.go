package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// The ownership of a request is stored and removed after the authentication server has
// acted, even if the client has left or the configuration has been replaced meanwhile.
func TestOwnershipIsKeptAfterTheClientLeft(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	service := func() (*ownership.Service, *EmbeddedStore) {
		store := newEmbedded(t, path)
		s, err := ownership.New(ownership.Config{Open: (&keyringStore{module: store}).openOwnership})
		if err != nil {
			t.Fatal(err)
		}
		return s, store
	}
	owner := ownership.Owner{Application: "phones", SerialNumber: "VDS1000120-1", Instance: "primary"}
	claimant := ownership.Caller{Application: owner.Application, SerialNumber: owner.SerialNumber}

	replaced, store := service()
	end := store.Begin()
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if err := store.Cleanup(); err != nil {
		t.Fatal(err)
	}
	// This is also the first use of the store.
	if won, err := replaced.RecordOwner(ctx, ownership.Login, "123", owner); !won || err != nil {
		t.Fatalf("claim: %v, %v", won, err)
	}
	if storeReferences(path) != 1 {
		t.Fatal("the store is closed while a request uses it")
	}
	end()
	poll.Until(t, "the store to be released", func() bool { return storeReferences(path) == 0 })

	replaced, store = service()
	end = store.Begin()
	d, err := replaced.Cancelling(t.Context(), ownership.Login, "123", claimant)
	if err != nil || !d.Known || d.Verdict != ownership.Forward {
		t.Fatalf("%+v, %v", d, err)
	}
	if err := store.Cleanup(); err != nil {
		t.Fatal(err)
	}
	if err := replaced.Release(ctx, d); err != nil {
		t.Fatal(err)
	}
	end()
	poll.Until(t, "the store to be released", func() bool { return storeReferences(path) == 0 })

	last, _ := service()
	if d, err := last.Cancelling(t.Context(), ownership.Login, "123", claimant); err != nil || d.Known {
		t.Errorf("%+v, %v", d, err)
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

// keyring returns the keyring of a new configuration for a file and configured keys.
func keyring(t *testing.T, path string, configured ...[]byte) (*seal.Keyring, error) {
	t.Helper()
	_, ring, err := (&keyringStore{module: newEmbedded(t, path), configuredKeys: configured}).open(t.Context())
	return ring, err
}

// The key file is created if no key is configured. From then on its key decrypts, also
// beside keys that are configured later.
func TestEmbeddedKeyring(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	configured, label := bytes.Repeat([]byte{7}, 32), seal.Label{Kind: "test"}

	if _, err := keyring(t, path, configured); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(embedded.KeyPath(path)); !os.IsNotExist(err) {
		t.Fatalf("a key was made beside a configured one: %v", err)
	}

	own, err := keyring(t, path)
	if err != nil {
		t.Fatal(err)
	}
	record, err := own.Seal(label, []byte("plaintext"))
	if err != nil {
		t.Fatal(err)
	}

	s := &keyringStore{module: newEmbedded(t, path), configuredKeys: [][]byte{configured}}
	_, both, err := s.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, again, err := s.open(t.Context()); again != both || err != nil {
		t.Errorf("another ring the second time: %v", err)
	}
	if _, err := both.Open(label, record); err != nil {
		t.Error(err)
	}
	if both.Current(record) {
		t.Error("the key of the file seals beside a configured one")
	}

	// The key of the key file can itself be configured, in front of a new one.
	key, _, err := embedded.LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := keyring(t, path, key, configured)
	if err != nil {
		t.Fatal(err)
	}
	if !moved.Current(record) {
		t.Error("the configured key is not the first")
	}
}

// Placeholders in the path are resolved, so that different spellings of a path mean the
// same store.
func TestEmbeddedPathAcceptsPlaceholders(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("DSAPP_TEST_FOLDER", folder)
	if got, want := newEmbedded(t, "{env.DSAPP_TEST_FOLDER}/dsapp.db").path, filepath.Join(folder, "dsapp.db"); got != want {
		t.Errorf("path %q, want %q", got, want)
	}
}

// If the key file is lost, no new key is created, and the error says what to do. With a
// configured key, the key file is not needed.
func TestEmbeddedKeyFileLost(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	s := newEmbedded(t, path)
	defer s.Begin()()
	store, _, err := (&keyringStore{module: s}).open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.SimulationSecret(t.Context(), []byte("sealed")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(embedded.KeyPath(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := keyring(t, path); err == nil || !strings.Contains(err.Error(), "restore the key file") {
		t.Errorf("error = %v", err)
	}
	if _, err := keyring(t, path, bytes.Repeat([]byte{7}, 32)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(embedded.KeyPath(path)); !os.IsNotExist(err) {
		t.Errorf("a key was made: %v", err)
	}
}

// If only the keys are missing, openOwnership returns the store with the error. If the
// store cannot be opened, it returns only the error.
func TestOpenReportsWhatIsMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	if err := os.WriteFile(embedded.KeyPath(path), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if store, ring, err := (&keyringStore{module: newEmbedded(t, path)}).openOwnership(t.Context()); store == nil || ring != nil || err == nil {
		t.Errorf("without keys: store %v, ring %v, error %v", store, ring, err)
	}
	inFile := filepath.Join(embedded.KeyPath(path), "dsapp.db")
	if store, ring, err := (&keyringStore{module: newEmbedded(t, inFile)}).openOwnership(t.Context()); store != nil || ring != nil || err == nil {
		t.Errorf("without a store: store %v, ring %v, error %v", store, ring, err)
	}
}

// A damaged file is not read again before it has been changed or replaced.
func TestDamagedFileIsReadOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	o := &fileOpener{path: path}
	opens := func() error {
		t.Helper()
		s, err := o.open()
		if err != nil {
			return err
		}
		return s.Close()
	}
	if err := opens(); err != nil {
		t.Fatal(err)
	}
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(sound)
	clear(damaged[2*os.Getpagesize():])
	write := func(content []byte, modified time.Time) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, content, 0o600), os.Chtimes(path, time.Time{}, modified)); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	write(damaged, now)
	refusal := opens()
	if _, ok := errors.AsType[*embedded.FileError](refusal); !ok || !strings.Contains(refusal.Error(), path) {
		t.Fatalf("error %v", refusal)
	}
	write(sound, now) // The size and time are unchanged.
	if err := opens(); err == nil || err.Error() != refusal.Error() {
		t.Errorf("the file was read again: %v", err)
	}
	write(sound, now.Add(time.Second))
	if err := opens(); err != nil {
		t.Errorf("a restored file: %v", err)
	}
	write(damaged, now)
	if err := opens(); err == nil {
		t.Error("a damaged file was opened")
	}
	if err := os.Rename(path, path+".aside"); err != nil {
		t.Fatal(err)
	}
	if err := opens(); err != nil {
		t.Errorf("without the file: %v", err)
	}
}

// If the file is cut while it is open, the store is unavailable until the file is moved
// aside. If its key file is moved as well, the new file gets a new key.
func TestFileCutWhileOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	config, err := (&Activation{}).config(caddy.Context{})
	if err != nil {
		t.Fatal(err)
	}
	config.Open = (&keyringStore{module: newEmbedded(t, path)}).openActivation
	s, err := activation.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reserve(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, _, err := embedded.LoadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 10_000); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Reserve(t.Context()); !errors.Is(err, activation.ErrUnavailable) ||
			!strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move the file aside") {
			t.Fatalf("error %v", err)
		}
	}
	for _, name := range []string{path, embedded.KeyPath(path)} {
		if err := os.Rename(name, name+".aside"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Reserve(t.Context()); err != nil {
		t.Fatal(err)
	}
	if key, found, err := embedded.LoadKey(path); !found || err != nil || bytes.Equal(key, first) {
		t.Errorf("key file: %t, error %v, the same key: %t", found, err, bytes.Equal(key, first))
	}
}

// redisConfig configures the Redis store. Its timeouts are long enough for a slow machine.
func redisConfig(c object, addresses ...string) {
	c["sealing_keys"] = []string{testSealingKey}
	c["store"] = object{"backend": "redis", "addresses": addresses, "dial_timeout": "10s", "timeout": "10s"}
}

// Every wrong option of the Redis store is refused with an error that has its name.
func TestInvalidRedisConfigurations(t *testing.T) {
	cluster := func(edit func(s object)) func(c, s object) {
		return func(_, s object) {
			s["cluster"] = true
			edit(s)
		}
	}
	sentinel := func(edit func(s object)) func(c, s object) {
		return func(_, s object) {
			s["master_name"] = "mymaster"
			edit(s)
		}
	}
	many := make([]string, 33)
	for i := range many {
		many[i] = fmt.Sprintf("node%d:7000", i)
	}
	for _, tt := range []struct {
		want string
		edit func(c, store object)
	}{
		{"sealing_keys: at least one key is required", func(c, _ object) { delete(c, "sealing_keys") }},
		{"addresses: exactly one", func(_, s object) { delete(s, "addresses") }},
		{"addresses: exactly one is required, several need cluster or master_name", func(_, s object) { s["addresses"] = []string{"a:1", "b:1"} }},
		{"addresses: 1 to 32", cluster(func(s object) { s["addresses"] = []string{} })},
		{"addresses: 1 to 32", cluster(func(s object) { s["addresses"] = many })},
		{"addresses: 1 to 32", sentinel(func(s object) { delete(s, "addresses") })},
		{"addresses[0]: must be host:port or the absolute path", func(_, s object) { s["addresses"] = []string{"localhost"} }},
		{"addresses[0]: must be host:port or the absolute path", func(_, s object) { s["addresses"] = []string{":6379"} }},
		{"addresses[0]: must be host:port or the absolute path", func(_, s object) { s["addresses"] = []string{"localhost:"} }},
		{"addresses[0]: must have a port from 1 to 65535", func(_, s object) { s["addresses"] = []string{"a:99999"} }},
		{"addresses[0]: must have a port from 1 to 65535", func(_, s object) { s["addresses"] = []string{"a:" + marker} }},
		{"addresses[0]: must have a port from 1 to 65535", func(_, s object) { s["addresses"] = []string{"a:0"} }},
		{"addresses[1]: must have a port from 1 to 65535", cluster(func(s object) { s["addresses"] = []string{"a:65535", "a:65536"} })},
		{"addresses[1]: must have a port from 1 to 65535", sentinel(func(s object) { s["addresses"] = []string{"a:1", "a:-1"} })},
		{"addresses[0]: must not be empty", func(_, s object) { s["addresses"] = []string{""} }},
		{"addresses[1]: must be host:port", cluster(func(s object) { s["addresses"] = []string{"a:1", marker} })},
		{"addresses[1]: must be host:port", sentinel(func(s object) { s["addresses"] = []string{"a:1", "/run/" + marker} })},
		{"addresses[2]: is the same as an earlier one", cluster(func(s object) { s["addresses"] = []string{"a:1", "b:1", "a:1"} })},
		{"addresses[1]: a placeholder", cluster(func(s object) { s["addresses"] = []string{"a:1", "{env.DSAPP_TEST_MISSING}"} })},
		{"addresses[0]: a placeholder", func(_, s object) { s["addresses"] = []string{"{env.DSAPP_TEST_MISSING}"} }},
		{"username: a placeholder", func(_, s object) { s["username"] = "{env.DSAPP_TEST_MISSING}" }},
		{"password: a placeholder", func(_, s object) { s["password"] = "{" + marker + "}" }},
		{": password: is required with a user name", func(_, s object) { s["username"] = "gateway" }},
		{"db: must be from 0 to 1000000", func(_, s object) { s["db"] = -1 }},
		{"db: must be from 0 to 1000000", func(_, s object) { s["db"] = 1_000_001 }},
		{"db: must be 0 with cluster", cluster(func(s object) { s["db"] = 1 })},
		{"master_name: has no meaning with cluster", cluster(func(s object) { s["master_name"] = "mymaster" })},
		{"master_name: must have 1 to 255", func(_, s object) { s["master_name"] = "my master" }},
		{"master_name: must have 1 to 255", func(_, s object) { s["master_name"] = "{env.DSAPP_TEST_MISSING}" }},
		{"master_name: must have 1 to 255", func(_, s object) { s["master_name"] = strings.Repeat("m", 256) }},
		{"sentinel_username: has no meaning without master_name", func(_, s object) { s["sentinel_username"] = marker }},
		{"sentinel_password: has no meaning without master_name", func(_, s object) { s["sentinel_password"] = marker }},
		{"sentinel_password: has no meaning without master_name", cluster(func(s object) { s["sentinel_password"] = marker })},
		{"sentinel_username: a placeholder", sentinel(func(s object) { s["sentinel_username"] = "{env.DSAPP_TEST_MISSING}" })},
		{"sentinel_password: a placeholder", sentinel(func(s object) { s["sentinel_password"] = "{" + marker + "}" })},
		{"sentinel_password: is required with a user name", sentinel(func(s object) { s["sentinel_username"] = marker })},
		{"wait_replicas: must be from 0 to 16", func(_, s object) { s["wait_replicas"] = -1 }},
		{"wait_replicas: must be from 0 to 16", func(_, s object) { s["wait_replicas"] = 17 }},
		{"key_prefix: must have no braces", func(_, s object) { s["key_prefix"] = "{a}" }},
		{"dial_timeout: must be", func(_, s object) { s["dial_timeout"] = "-1s" }},
		{": timeout: must be from 10ms to 10m;", func(_, s object) { s["timeout"] = "-1s" }},
		{": timeout: must be from 10ms to 10m;", func(_, s object) { s["timeout"] = 1 }},
		{"dial_timeout: must be from 10ms to 10m;", func(_, s object) { s["dial_timeout"] = "11m" }},
		{"pool_size: must be", func(_, s object) { s["pool_size"] = -1 }},
		{"tls.handshake_timeout: ", func(_, s object) { s["tls"] = object{"handshake_timeout": "1s"} }},
		{"tls: ", func(_, s object) { s["tls"] = object{"client_certificate_file": "/does/not/exist"} }},
		{`unknown field "sentinels"`, func(_, s object) { s["sentinels"] = []string{"a:26379"} }},
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

// Configurations share a client if and only if their resolved settings are the same. The
// key of the client reveals no secret.
func TestRedisClientsAreSharedByResolvedSettings(t *testing.T) {
	t.Setenv("DSAPP_TEST_PASSWORD", "the-password")
	t.Setenv("DSAPP_TEST_SENTINEL", "the-sentinel-password")
	certificates := testCertificates(t)
	ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
	defer cancel()
	key := func(edit func(s *RedisStore)) string {
		s := &RedisStore{Addresses: []string{"127.0.0.1:6379"}, Password: "{env.DSAPP_TEST_PASSWORD}"}
		edit(s)
		if err := s.Provision(ctx); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Cleanup(); err != nil {
				t.Error(err)
			}
		}()
		shown := string(encode(t, s)) + s.key
		if strings.Contains(shown, "the-password") || strings.Contains(shown, "the-sentinel-password") {
			t.Errorf("a secret in %s", shown)
		}
		return s.key
	}
	same := key(func(*RedisStore) {})
	t.Setenv("DSAPP_TEST_OTHER", "the-password")
	if key(func(s *RedisStore) { s.Password = "{env.DSAPP_TEST_OTHER}" }) != same {
		t.Error("not shared with another placeholder for the same password")
	}
	trusting := func(s *RedisStore) {
		s.TLS = &reverseproxy.TLSConfig{CARaw: json.RawMessage(`{"provider": "file", "pem_files": ["` + certificates.Authority + `"]}`)}
	}
	sentinel := func(s *RedisStore) { s.MasterName = "mymaster" }
	seen := map[string]string{same: "none"}
	changed := make(map[string]bool)
	// add checks that base with a changed option has a client of its own, which the same
	// settings share.
	add := func(option string, base, change func(s *RedisStore)) {
		changed[option] = true
		edit := func(s *RedisStore) {
			base(s)
			change(s)
		}
		k := key(edit)
		if other, ok := seen[k]; ok {
			t.Errorf("%s: shared with %s", option, other)
		}
		seen[k] = option
		if key(edit) != k {
			t.Errorf("%s: not shared with the same settings", option)
		}
	}
	single := func(*RedisStore) {}
	add("addresses", single, func(s *RedisStore) { s.Addresses = []string{"127.0.0.1:6380"} })
	add("username", single, func(s *RedisStore) { s.Username = "gateway" })
	add("password", single, func(s *RedisStore) { s.Password = "another-password" })
	add("db", single, func(s *RedisStore) { s.DB = 1 })
	add("key_prefix", single, func(s *RedisStore) { s.KeyPrefix = "other" })
	add("wait_replicas", single, func(s *RedisStore) { s.WaitReplicas = 1 })
	add("dial_timeout", single, func(s *RedisStore) { s.DialTimeout = caddy.Duration(time.Minute) })
	add("timeout", single, func(s *RedisStore) { s.Timeout = caddy.Duration(time.Minute) })
	add("pool_size", single, func(s *RedisStore) { s.PoolSize = 7 })
	add("cluster", single, func(s *RedisStore) { s.Cluster = true })
	add("addresses", single, func(s *RedisStore) {
		s.Cluster = true
		s.Addresses = append(s.Addresses, "127.0.0.1:6380")
	})
	add("master_name", single, sentinel)
	add("master_name", sentinel, func(s *RedisStore) { s.MasterName = "another" })
	add("sentinel_password", sentinel, func(s *RedisStore) { s.SentinelPassword = "{env.DSAPP_TEST_SENTINEL}" })
	add("sentinel_password", sentinel, func(s *RedisStore) { s.SentinelPassword = "{env.DSAPP_TEST_PASSWORD}" })
	add("sentinel_username", sentinel, func(s *RedisStore) {
		s.SentinelUsername, s.SentinelPassword = "gateway", "{env.DSAPP_TEST_SENTINEL}"
	})
	add("tls", single, func(s *RedisStore) { s.TLS = new(reverseproxy.TLSConfig) })
	add("tls", single, trusting)
	for field := range reflect.TypeFor[RedisStore]().Fields() {
		if option, _, _ := strings.Cut(field.Tag.Get("json"), ","); option != "" && !changed[option] {
			t.Errorf("%s: a change is not tested", option)
		}
	}
	if err := os.Remove(certificates.Authority); err != nil {
		t.Fatal(err)
	}
	renewed, err := sandbox.NewCertificates(filepath.Dir(certificates.Authority))
	if err != nil || renewed.Authority != certificates.Authority {
		t.Fatalf("%v, %v", renewed, err)
	}
	add("tls", single, trusting) // The authority has been renewed.
}

// A client makes the changes that its store delays before it is closed, and at the end of the process.
func TestDelayedChangesAreWritten(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(c *redisClient) error{
		"closed":                 (*redisClient).Close,
		"the end of the process": func(c *redisClient) error { flushRedis(context.Background()); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testDelayedChanges(t, end)
		})
	}
}

func testDelayedChanges(t *testing.T, end func(c *redisClient) error) {
	t.Helper()
	settings := redis.Settings{Addresses: []string{redistest.Start(t).Addr()}}
	open := func() *redisClient {
		c, err := newRedisClient(settings, redis.Options{Gather: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	c := open()
	claim := ownership.Claim{Key: "1", Token: ownership.Token{1}, Owner: []byte("sealed owner")}
	if won, err := c.Claim(t.Context(), ownership.Login, claim, "VDS0000001", time.Minute); err != nil || !won {
		t.Fatalf("claim: %v, error %v", won, err)
	}
	if err := c.Release(t.Context(), ownership.Login, claim.Key, claim.Token, "VDS0000001"); err != nil {
		t.Fatal(err)
	}
	if err := end(c); err != nil {
		t.Fatal(err)
	}
	c = open()
	if _, found, err := c.Owner(t.Context(), ownership.Login, claim.Key); err != nil || found {
		t.Errorf("found %v, error %v", found, err)
	}
}

// The gateway works on Redis. Reloads share the client. During an outage the answer is 503;
// afterwards the gateway works again without a reload.
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
	in(s.dsapp(), "store")["timeout"] = "3s" // The test waits for it twice.
	s.load(t)
	other := s.register(t)
	poll.Until(t, "the first client to be closed", func() bool {
		// One connection belongs to the store and one to this command.
		return strings.Count(server.Command(t, "CLIENT", "LIST"), " addr=") <= 2
	})
	registering := func(want int) func() bool {
		return func() bool {
			status, _ := s.call(t, registerPath, testBackEndKey, registerBody)
			return status == want
		}
	}
	server.Freeze(t)
	// For a second after a registration, the gateway assumes that the store works.
	poll.Until(t, "registrations to be unavailable", registering(http.StatusServiceUnavailable))
	server.Thaw(t)
	// While the gateway tries the store with one command, it refuses the others.
	poll.Until(t, "registrations to be available", registering(http.StatusOK))
	if err := s.activate(t, other); err != nil {
		t.Error(err)
	}
}

// The gateway works on a cluster and with Sentinels that require authentication. After a
// reload with another client, stored data is still found.
func TestGatewayOnOtherKindsOfRedis(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, c object){
		"cluster": func(t *testing.T, c object) {
			redisConfig(c, redistest.StartCluster(t, 0).Addresses()...)
			in(c, "store")["cluster"] = true
		},
		"Sentinel": func(t *testing.T, c object) {
			servers := redistest.StartSentinel(t, 1)
			for _, sentinel := range servers.Sentinels {
				sentinel.Command(t, "ACL", "SETUSER", "gateway", "on", ">the-sentinel-password", "allchannels", "+@all")
			}
			redisConfig(c, servers.Addresses()...)
			maps.Copy(in(c, "store"), object{
				"master_name": redistest.MasterName, "wait_replicas": 1,
				"sentinel_username": "gateway", "sentinel_password": "{env.DSAPP_TEST_SENTINEL}",
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("DSAPP_TEST_SENTINEL", "the-sentinel-password")
			s := newSite(t)
			prepare(t, s.dsapp())
			s.load(t)
			a, key := s.authenticator(t), s.prepareLogin(t)
			if _, err := s.phone(testFrontEndKey).Retrieve(t.Context(), sandbox.KindLogin, a, key); err != nil {
				t.Fatal(err)
			}
			in(s.dsapp(), "store")["pool_size"] = 3 // This needs another client.
			in(s.dsapp(), "requests")["unknown"] = "refuse"
			s.load(t)
			if err := s.phone(testFrontEndKey).Cancel(t.Context(), sandbox.KindLogin, a, key, true); err != nil {
				t.Error(err)
			}
			if name == "cluster" {
				return
			}
			t.Setenv("DSAPP_TEST_SENTINEL", "another-password")
			s.load(t)
			if status, answer := s.call(t, registerPath, testBackEndKey, registerBody); status != http.StatusServiceUnavailable {
				t.Errorf("with a wrong password for the Sentinels: status %d, %s", status, answer)
			}
			maps.Copy(in(s.dsapp(), "store"), object{"wait_replicas": 2, "timeout": "500ms"})
			t.Setenv("DSAPP_TEST_SENTINEL", "the-sentinel-password")
			s.load(t)
			if status, answer := s.call(t, registerPath, testBackEndKey, registerBody); status == http.StatusOK {
				t.Errorf("with fewer replicas than wanted: %s", answer)
			}
		})
	}
}
