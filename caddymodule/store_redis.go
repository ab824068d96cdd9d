package caddymodule

import (
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
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
)

func init() {
	caddy.RegisterModule(new(RedisStore))
}

// RedisStore keeps registrations and handshakes on a Redis server, version 6 or
// later, for gateways of several nodes. All nodes need the same `sealing_keys`.
//
// Run the server with `maxmemory-policy noeviction` and with persistence: what it
// loses, phones have to begin again. Everything sensitive is sealed before it
// gets there; who can write to the server can still undo attempts and
// registrations.
type RedisStore struct {
	// The server: one `host:port` or absolute path of a Unix socket. Required.
	// Accepts placeholders.
	Addresses []string `json:"addresses,omitempty"`

	// The user name for the server's access control. Default: that of the
	// server's default user. Accepts placeholders.
	Username string `json:"username,omitempty"`

	// The password for the server. Default: none. Accepts placeholders.
	Password string `json:"password,omitempty"`

	// The number of the database, 0 to 1000000. Default: 0.
	DB int `json:"db,omitempty"`

	// The first part of every key, without braces. Gateways that share a server
	// and not their state need different ones. Default: `dsapp`.
	KeyPrefix string `json:"key_prefix,omitempty"`

	// TLS settings; an empty object uses the certificate authorities that the
	// system trusts. TLS 1.2 is required at least. `handshake_timeout`,
	// `except_ports` and `client_certificate_automate` are not supported.
	// Default: no TLS.
	TLS *reverseproxy.TLSConfig `json:"tls,omitempty"`

	// How long to wait for a connection. From `10ms` to `10m`. Default: `1s`.
	DialTimeout caddy.Duration `json:"dial_timeout,omitempty"`

	// How long to wait for a free connection, for a command to be written and for
	// its answer, each. From `10ms` to `10m`. Default: `500ms`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// The most connections that are open at once, 1 to 10000. Default: 10 for
	// every CPU.
	PoolSize int `json:"pool_size,omitempty"`

	leasedStore[*redisClient]

	mu   sync.Mutex
	ring *seal.Keyring
}

const (
	maxPoolSize = 10_000
	maxDB       = 1_000_000
)

// redisClient is a store that closes the client it is on.
type redisClient struct {
	*redis.Store
	io.Closer
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
	options := redis.Options{KeyPrefix: s.KeyPrefix}
	if err := options.Validate(); err != nil {
		return errors.New("key_prefix: must have no braces")
	}
	identity := []any{settings, options}
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

// settings resolves and checks everything but TLS.
func (s *RedisStore) settings() (redis.Settings, error) {
	var none redis.Settings
	if len(s.Addresses) != 1 {
		return none, errors.New("addresses: exactly one is required")
	}
	address, err := resolveSecret(s.Addresses[0])
	if err != nil {
		return none, fmt.Errorf("addresses[0]: %w", err)
	}
	if _, port, err := net.SplitHostPort(address); !filepath.IsAbs(address) && (err != nil || port == "") {
		return none, errors.New("addresses[0]: must be host:port or the absolute path of a socket")
	}
	username, err := resolve(s.Username)
	if err != nil {
		return none, fmt.Errorf("username: %w", err)
	}
	password, err := resolve(s.Password)
	if err != nil {
		return none, fmt.Errorf("password: %w", err)
	}
	if username != "" && password == "" {
		return none, errors.New("password: is required with a username")
	}
	if s.DB < 0 || s.DB > maxDB {
		return none, fmt.Errorf("db: must be from 0 to %d", maxDB)
	}
	dialTimeout, err := timeouts.value("dial_timeout", s.DialTimeout, redis.DefaultDialTimeout)
	if err != nil {
		return none, err
	}
	timeout, err := timeouts.value("timeout", s.Timeout, redis.DefaultTimeout)
	if err != nil {
		return none, err
	}
	if s.PoolSize < 0 || s.PoolSize > maxPoolSize {
		return none, fmt.Errorf("pool_size: must be from 1 to %d", maxPoolSize)
	}
	return redis.Settings{
		Addresses:   []string{address},
		Username:    username,
		Password:    password,
		DB:          s.DB,
		DialTimeout: dialTimeout,
		Timeout:     timeout,
		PoolSize:    s.PoolSize,
	}, nil
}

func redisTLS(ctx caddy.Context, t *reverseproxy.TLSConfig) (*tls.Config, error) {
	if t.HandshakeTimeout != 0 {
		return nil, errors.New("tls.handshake_timeout: has no meaning here, dial_timeout covers the handshake")
	}
	return clientTLS(ctx, t)
}

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

// Keyring returns a ring of the configured keys. See Store.
func (s *RedisStore) Keyring(_ context.Context, configured [][]byte) (*seal.Keyring, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ring == nil {
		ring, err := seal.NewKeyring(configured...)
		if err != nil {
			return nil, err
		}
		s.ring = ring
	}
	return s.ring, nil
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
		return nil, fmt.Errorf("tls: %w", err)
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
			return nil, fmt.Errorf("tls: %w", err)
		}
		contents = append(contents, content)
	}
	return []any{json.RawMessage(settings), contents}, nil
}

var (
	_ caddy.Provisioner  = (*RedisStore)(nil)
	_ caddy.CleanerUpper = (*RedisStore)(nil)
	_ Store              = (*RedisStore)(nil)
)
