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
	caddy.OnExit(flushRedis)
}

// RedisStore keeps registrations, handshakes and the ownership of requests on Redis 6 or
// later, for gateways with several nodes: on a single server, on a master that Redis
// Sentinel names, or on a Redis Cluster. All nodes need the same `sealing_keys`.
//
// Run the servers with `maxmemory-policy noeviction` and with persistence: phones have to
// begin their activations again if the data is lost. All sensitive values are encrypted
// before they are sent to a server. Whoever can write to a server can still undo
// attempts, registrations and ownership.
//
// If a master fails, its last writes can be lost, including attempts that were counted.
// `wait_replicas` prevents that.
type RedisStore struct {
	// The addresses of the servers. Without `master_name` and `cluster`, this is one
	// address, either `host:port` or the absolute path of a Unix socket. With
	// `master_name` they are the addresses of Sentinels, with `cluster` those of nodes
	// of the cluster: 1 to 32 different ones, each as `host:port`. Required. Accepts
	// placeholders.
	Addresses []string `json:"addresses,omitempty"`

	// Whether the addresses are those of a Redis Cluster. The gateway finds the other
	// nodes of the cluster itself. Default: false.
	Cluster bool `json:"cluster,omitempty"`

	// The name of the master at the Sentinels: 1 to 255 letters, digits, dots, underscores
	// and hyphens. If it is set, the addresses are those of Sentinels.
	// Default: empty; then the address is that of the server.
	MasterName string `json:"master_name,omitempty"`

	// The user name of the gateway in the access control list of the servers. It is not
	// used for Sentinels. Default: the default user. Accepts placeholders.
	Username string `json:"username,omitempty"`

	// The password for the servers. It is not used for Sentinels. Default: none.
	// Accepts placeholders.
	Password string `json:"password,omitempty"`

	// The user name of the gateway in the access control list of the Sentinels.
	// Default: the default user. Accepts placeholders.
	SentinelUsername string `json:"sentinel_username,omitempty"`

	// The password for the Sentinels. Default: none. Accepts placeholders.
	SentinelPassword string `json:"sentinel_password,omitempty"`

	// The number of the database, 0 to 1000000. A cluster has only 0. Default: 0.
	DB int `json:"db,omitempty"`

	// The first part of the name of every key on the servers, without braces. Gateways
	// that use the same server but do not share their state need different prefixes.
	// Default: `dsapp`.
	KeyPrefix string `json:"key_prefix,omitempty"`

	// How many replicas must confirm a write that decides about an activation before the
	// gateway relies on it: a registration, an attempt, and the outcome of an attempt.
	// If fewer replicas confirm it within half of `timeout`, the call fails as if the
	// store were down. On a cluster, these are replicas of the node that stores the
	// value. 0 to 16. Default: 0.
	WaitReplicas int `json:"wait_replicas,omitempty"`

	// TLS settings for all connections, including those to Sentinels. An empty object
	// trusts the certificate authorities that the system trusts. The minimum version is
	// TLS 1.2. The certificate of every server must be valid for the address under which
	// Sentinels or the cluster announce it, unless `server_name` is set.
	// `handshake_timeout`, `except_ports` and `client_certificate_automate` are not
	// supported. Default: no TLS; then the password and everything else can be read on
	// the network.
	TLS *reverseproxy.TLSConfig `json:"tls,omitempty"`

	// How long to wait for a connection, including the TLS handshake. To find a master
	// through Sentinels can take several times as long. From `10ms` to `10m`. Default:
	// `1s`.
	DialTimeout caddy.Duration `json:"dial_timeout,omitempty"`

	// How long to wait for a free connection, for a command to be written and for its
	// answer; the time applies to each of the three. From `10ms` to `10m`. Default:
	// `500ms`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// The maximum number of open connections to one server, 1 to 10000. Default: 10 for
	// every CPU.
	PoolSize int `json:"pool_size,omitempty"`

	*lease[*redisClient]
	// open opens a client with that Options.Gather.
	open func(gather time.Duration) (*redisClient, error)
}

// redisGather is how long the end of a login or a signature is delayed, so that several are written in
// one round trip. A repeat looks for it every 100 ms, and does not notice 10.
const redisGather = 10 * time.Millisecond

// redisClients has every open redisClient as a key.
var redisClients sync.Map

// flushRedis makes the changes that open clients delay. Caddy does not wait until the stores of its last
// configurations are closed.
func flushRedis(context.Context) {
	var flushing sync.WaitGroup
	redisClients.Range(func(client, _ any) bool {
		// The client reports what fails.
		flushing.Go(func() { _ = client.(*redisClient).Flush() })
		return true
	})
	flushing.Wait()
}

// redisClient is a store that owns its client.
type redisClient struct {
	*redis.Store

	client    io.Closer
	stopWatch context.CancelFunc
	watching  sync.WaitGroup
}

// newRedisClient returns a store that watches its servers until it is closed.
func newRedisClient(settings redis.Settings, options redis.Options) (*redisClient, error) {
	client, err := redis.NewClient(settings)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	c := &redisClient{Store: redis.New(client, options), client: client, stopWatch: stop}
	c.watching.Go(func() { c.Watch(ctx) })
	redisClients.Store(c, nil)
	return c, nil
}

// Close makes the changes that are delayed and closes the client.
func (c *redisClient) Close() error {
	_ = c.Flush() // The client reports what fails.
	redisClients.Delete(c)
	c.stopWatch()
	err := c.client.Close()
	c.watching.Wait()
	return err
}

// UnmarshalJSON decodes the options. Its errors begin with the path of the option.
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

// Provision checks the settings. It makes no connection.
func (s *RedisStore) Provision(ctx caddy.Context) error {
	settings, err := s.settings()
	if err != nil {
		return err
	}
	options := redis.Options{
		KeyPrefix: s.KeyPrefix, WaitReplicas: s.WaitReplicas, Report: reportRedis, Observe: both(metrics.storeCall, traceStoreCall), Lost: lostRedisChange,
	}
	if err := options.Check(); err != nil {
		return err
	}
	identity := []any{settings, options.KeyPrefix, options.WaitReplicas}
	settings.Control = setUserTimeout
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
	s.open = func(gather time.Duration) (*redisClient, error) {
		logRedis()
		options.Gather = gather
		return newRedisClient(settings, options)
	}
	s.lease, err = newLease(storePool, key, func() (*redisClient, error) { return s.open(redisGather) })
	return err
}

// logRedis sends the log of go-redis, which is global in the process, to Caddy's log.
var logRedis = sync.OnceFunc(func() {
	redis.SetLog(func(ctx context.Context, message string) {
		if c := caddy.Log().Named("dsapp.redis").Check(zap.DebugLevel, "client"); c != nil {
			c.Write(append(correlationOf(ctx).logFields(), zap.String("message", message))...)
		}
	})
})

// reportRedis logs that a server stopped answering or that it answers again. It uses
// Caddy's default log, because the store outlives the configuration and its logs.
func reportRedis(ctx context.Context, server string, err error) {
	log := caddy.Log().Named("dsapp").With(append(correlationOf(ctx).logFields(), zap.String("server", server))...)
	if err != nil {
		log.Warn("redis does not answer; calls fail at once until it does", zap.Error(err))
		return
	}
	log.Info("redis answers again")
}

// lostRedisChange logs that the end of a request could not be written: call also kept its answer, if it
// is not a mere release.
func lostRedisChange(ctx context.Context, call string, err error) {
	caddy.Log().Named("dsapp").With(correlationOf(ctx).logFields()...).
		Error("writing the end of a request failed", zap.String("store_call", call), zap.Error(err))
}

// settings resolves and checks all options except TLS.
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

// Begin implements Store.
func (s *RedisStore) Begin() (end func()) {
	s.beginRequest()
	return s.endRequest
}

// Open implements Store.
func (s *RedisStore) Open(ctx context.Context) (OpenStore, error) { return s.get(ctx) }

// Cleanup releases the client.
func (s *RedisStore) Cleanup() error {
	s.release()
	return nil
}

// CheckSealingKeys implements Store. It requires a key, because nodes with keys of their
// own could not read what other nodes store.
func (*RedisStore) CheckSealingKeys(configured int) error {
	if configured == 0 {
		return errors.New("at least one key is required with the redis store")
	}
	return nil
}

// Keys implements OpenStore. It returns the configured keys.
func (*redisClient) Keys(_ context.Context, configured [][]byte) ([][]byte, error) {
	return configured, nil
}

// poolSecret is the HMAC key for settingsKey. It is different in every process.
var poolSecret = sync.OnceValue(func() []byte {
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // never fails
	return secret
})

// settingsKey returns a pool key for resolved settings. It does not reveal the settings,
// which include passwords.
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

// tlsIdentity returns the TLS settings together with the contents of the files that they
// name, so that a reload with a renewed certificate makes a new client. It must be
// called before t is provisioned.
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
		// An error is found when the module is loaded.
		_ = json.Unmarshal(t.CARaw, &source)
	}
	switch source.Provider {
	case "", "inline", "file":
	default:
		// The content of other sources of authorities is not known here. Each
		// configuration gets its own client.
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
