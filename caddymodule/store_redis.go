package caddymodule

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
)

func init() {
	caddy.RegisterModule(new(RedisStore))
}

// RedisStore keeps registrations, handshakes and the ownership of requests on
// Redis, version 6 or later, for gateways of several nodes: on one server, on the
// master that Sentinels tell, or on a cluster. All nodes need the same
// `sealing_keys`.
//
// Run the servers with `maxmemory-policy noeviction` and with persistence: what
// they lose, phones have to begin again. Everything sensitive is sealed before it
// gets there; who can write to a server can still undo attempts, registrations and
// ownership.
//
// A master that fails can take the last writes along, among them attempts that
// were counted: `wait_replicas` prevents that.
type RedisStore struct {
	// The server: one `host:port` or absolute path of a Unix socket. With
	// `master_name` the Sentinels, with `cluster` nodes of the cluster, each as
	// `host:port`; 32 at most, different ones. Required. Accepts placeholders.
	Addresses []string `json:"addresses,omitempty"`

	// Whether the addresses are those of a cluster. Its other nodes are found
	// through them. Default: false.
	Cluster bool `json:"cluster,omitempty"`

	// The name under which Sentinels know the master: letters, digits, dots,
	// underscores and hyphens. The addresses are then those of the Sentinels.
	// Default: none, the address is that of the server.
	MasterName string `json:"master_name,omitempty"`

	// The user name for the access control of the servers, not of Sentinels.
	// Default: that of the default user. Accepts placeholders.
	Username string `json:"username,omitempty"`

	// The password for the servers, not for Sentinels. Default: none.
	// Accepts placeholders.
	Password string `json:"password,omitempty"`

	// The user name for the access control of the Sentinels. Default: that of
	// the default user. Accepts placeholders.
	SentinelUsername string `json:"sentinel_username,omitempty"`

	// The password for the Sentinels. Default: none. Accepts placeholders.
	SentinelPassword string `json:"sentinel_password,omitempty"`

	// The number of the database, 0 to 1000000; a cluster has only 0. Default: 0.
	DB int `json:"db,omitempty"`

	// The first part of every key, without braces. Gateways that share a server
	// and not their state need different ones. Default: `dsapp`.
	KeyPrefix string `json:"key_prefix,omitempty"`

	// How many replicas must have what decides about an activation before it
	// counts: a registration, an attempt and its outcome. If fewer confirm it in
	// half of `timeout`, the call fails as if the store were down. On a cluster it
	// is the replicas of the node that holds it. 0 to 16. Default: 0.
	WaitReplicas int `json:"wait_replicas,omitempty"`

	// TLS settings for all connections, those to Sentinels too; an empty object
	// uses the certificate authorities that the system trusts. TLS 1.2 is required
	// at least. Every server's certificate must be valid for the address that it
	// is reached under, as Sentinels and clusters announce it, unless
	// `server_name` is given. `handshake_timeout`, `except_ports` and
	// `client_certificate_automate` are not supported. Default: no TLS.
	TLS *reverseproxy.TLSConfig `json:"tls,omitempty"`

	// How long to wait for a connection. Finding the master through Sentinels may
	// take several. From `10ms` to `10m`. Default: `1s`.
	DialTimeout caddy.Duration `json:"dial_timeout,omitempty"`

	// How long to wait for a free connection, for a command to be written and for
	// its answer, each. From `10ms` to `10m`. Default: `500ms`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// The most connections to one server that are open at once, 1 to 10000.
	// Default: 10 for every CPU.
	PoolSize int `json:"pool_size,omitempty"`

	*lease[*redisClient]
}

// redisClient is a store that closes the client it is on.
type redisClient struct {
	*redis.Store
	io.Closer
}

// UnmarshalJSON decodes the options. Errors name their paths.
func (s *RedisStore) UnmarshalJSON(data []byte) error {
	type options RedisStore
	return decodeConfig(data, (*options)(s))
}

// CaddyModule returns the Caddy module information.
func (*RedisStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "dsapp.stores.redis",
		New: func() caddy.Module { return new(RedisStore) },
	}
}

// Provision checks the settings. It does not connect.
func (s *RedisStore) Provision(ctx caddy.Context) error {
	settings, err := s.settings()
	if err != nil {
		return err
	}
	options := redis.Options{KeyPrefix: s.KeyPrefix, WaitReplicas: s.WaitReplicas, Report: reportRedis}
	if err := options.Check(); err != nil {
		return err
	}
	identity := []any{settings, options.KeyPrefix, options.WaitReplicas}
	settings.Control = endUnacknowledged
	if s.TLS != nil {
		files, err := tlsIdentity(s.TLS)
		if err != nil {
			return err
		}
		if settings.TLS, err = redisTLS(ctx, s.TLS); err != nil {
			return err
		}
		identity = append(identity, files)
	}
	key, err := settingsKey("redis", identity)
	if err != nil {
		return err
	}
	s.lease, err = newLease(storePool, key, func() (*redisClient, error) {
		logRedis()
		client, err := redis.NewClient(settings)
		if err != nil {
			return nil, err
		}
		return &redisClient{redis.New(client, options), client}, nil
	})
	return err
}

// logRedis sends the log of go-redis, which the whole process shares, to Caddy's.
var logRedis = sync.OnceFunc(func() {
	redis.SetLog(func(_ context.Context, message string) {
		if c := caddy.Log().Named("dsapp.redis").Check(zap.DebugLevel, "client"); c != nil {
			c.Write(zap.String("message", message))
		}
	})
})

// reportRedis logs that a server stopped answering, or that it answers again. The
// store outlives the configuration and its logs.
func reportRedis(_ context.Context, server string, err error) {
	log := caddy.Log().Named("dsapp").With(zap.String("server", server))
	if err != nil {
		log.Warn("redis does not answer; calls fail at once until it does", zap.Error(err))
		return
	}
	log.Info("redis answers again")
}

// settings resolves and checks everything but TLS.
func (s *RedisStore) settings() (redis.Settings, error) {
	settings := redis.Settings{
		Addresses:   make([]string, len(s.Addresses)),
		Cluster:     s.Cluster,
		MasterName:  s.MasterName,
		DB:          s.DB,
		DialTimeout: cmp.Or(time.Duration(s.DialTimeout), redis.DefaultDialTimeout),
		Timeout:     cmp.Or(time.Duration(s.Timeout), redis.DefaultTimeout),
		PoolSize:    s.PoolSize,
	}
	var err error
	for i, configured := range s.Addresses {
		if settings.Addresses[i], err = resolveSecret(configured); err != nil {
			return settings, option.In(fmt.Sprintf("addresses[%d]", i), err)
		}
	}
	for _, v := range []struct {
		name, configured string
		out              *string
	}{
		{"username", s.Username, &settings.Username},
		{"password", s.Password, &settings.Password},
		{"sentinel_username", s.SentinelUsername, &settings.SentinelUsername},
		{"sentinel_password", s.SentinelPassword, &settings.SentinelPassword},
	} {
		if *v.out, err = resolve(v.configured); err != nil {
			return settings, option.In(v.name, err)
		}
	}
	return settings, settings.Check()
}

func redisTLS(ctx caddy.Context, t *reverseproxy.TLSConfig) (*tls.Config, error) {
	if t.HandshakeTimeout != 0 {
		return nil, option.Errorf("tls.handshake_timeout", "has no meaning here, dial_timeout covers the handshake")
	}
	return clientTLS(ctx, t)
}

// Begin counts a request. See Store.
func (s *RedisStore) Begin() (end func()) {
	s.begin()
	return s.end
}

// Open makes the client unless there is one. See Store.
func (s *RedisStore) Open(ctx context.Context) (OpenStore, error) { return s.get(ctx) }

// Cleanup lets go of the client.
func (s *RedisStore) Cleanup() error {
	s.release()
	return nil
}

// CheckSealingKeys wants a key: nodes that made their own could not read what
// others stored. See Store.
func (*RedisStore) CheckSealingKeys(configured int) error {
	if configured == 0 {
		return errors.New("at least one key is required with the redis store")
	}
	return nil
}

// Keys returns the configured keys. See OpenStore.
func (*redisClient) Keys(_ context.Context, configured [][]byte) ([][]byte, error) {
	return configured, nil
}

// poolSecret keys the hashes that stand for settings. It differs in every process.
var poolSecret = sync.OnceValue(func() []byte {
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // never fails
	return secret
})

// settingsKey returns a key for resolved settings that reveals none of them.
func settingsKey(kind string, settings any) (string, error) {
	encoded, err := json.Marshal(settings)
	if err != nil {
		return "", err
	}
	defer clear(encoded)
	h := hmac.New(sha256.New, poolSecret())
	h.Write(encoded)
	return kind + " " + hex.EncodeToString(h.Sum(nil)), nil
}

// tlsIdentity returns what distinguishes TLS settings from others: themselves and
// the contents of the files they name, so that a renewed certificate is used
// after a reload. It is called before t is provisioned.
func tlsIdentity(t *reverseproxy.TLSConfig) (any, error) {
	settings, err := json.Marshal(t)
	if err != nil {
		return nil, option.In("tls", err)
	}
	var source struct {
		Provider string   `json:"provider"`
		Files    []string `json:"pem_files"`
	}
	if len(t.CARaw) > 0 {
		// What is wrong with it is found when it is loaded.
		_ = json.Unmarshal(t.CARaw, &source)
	}
	switch source.Provider {
	case "", "inline", "file":
	default:
		// What stands behind other sources of authorities is not known here: each
		// configuration gets a client of its own.
		return rand.Text(), nil
	}
	names := append(source.Files, t.RootCAPEMFiles...) //nolint:staticcheck // deprecated, and still an option
	names = append(names, t.ClientCertificateFile, t.ClientCertificateKeyFile)
	var contents [][]byte
	for _, name := range names {
		if name == "" {
			continue
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return nil, option.In("tls", err)
		}
		contents = append(contents, content)
	}
	return []any{json.RawMessage(settings), contents}, nil
}

var (
	_ caddy.Provisioner  = (*RedisStore)(nil)
	_ caddy.CleanerUpper = (*RedisStore)(nil)
	_ Store              = (*RedisStore)(nil)
	_ OpenStore          = (*redisClient)(nil)
)
