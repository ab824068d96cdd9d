package redis

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Defaults of Settings.
const (
	// DefaultDialTimeout is the default of Settings.DialTimeout.
	DefaultDialTimeout = time.Second
	// DefaultTimeout is the default of Settings.Timeout.
	DefaultTimeout = 500 * time.Millisecond
)

const (
	// idleTimeout closes connections before firewalls and servers usually do.
	idleTimeout = 5 * time.Minute
	// dialAttempts bounds what a dead server costs.
	dialAttempts   = 2
	dialRetryDelay = 50 * time.Millisecond
)

// Settings tells how to reach a Redis server.
type Settings struct {
	// Addresses of the server: exactly one, host:port or the absolute path of a
	// Unix socket.
	Addresses []string
	// Username and Password of the server's access control. Default: none.
	Username, Password string
	// DB is the number of the database. Default: 0.
	DB int
	// TLS is used if it is not nil. The server's name is the host of its address
	// unless the configuration has one.
	TLS *tls.Config
	// DialTimeout bounds one attempt to connect. Default: DefaultDialTimeout.
	DialTimeout time.Duration
	// Timeout bounds writing a command, waiting for its answer and waiting for a
	// free connection, each. Default: DefaultTimeout.
	Timeout time.Duration
	// PoolSize is the most connections that are open at once. Default: ten for
	// every CPU.
	PoolSize int
}

// NewClient returns a client that suits a Store. It checks the settings and
// connects with the first command, not before. The client never repeats a
// command: what may be repeated, the Store knows better. The caller closes it.
func NewClient(s Settings) (goredis.UniversalClient, error) {
	if len(s.Addresses) != 1 {
		return nil, fmt.Errorf("redis: %d addresses, want one", len(s.Addresses))
	}
	address := s.Addresses[0]
	if !strings.HasPrefix(address, "/") {
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			return nil, fmt.Errorf("redis: address %q is neither host:port nor the path of a socket", address)
		}
	}
	if s.DB < 0 {
		return nil, errors.New("redis: the number of the database is negative")
	}
	if s.DialTimeout < 0 || s.Timeout < 0 {
		return nil, errors.New("redis: a timeout is negative")
	}
	if s.PoolSize < 0 {
		return nil, errors.New("redis: the size of the pool is negative")
	}
	if s.DialTimeout == 0 {
		s.DialTimeout = DefaultDialTimeout
	}
	if s.Timeout == 0 {
		s.Timeout = DefaultTimeout
	}
	return goredis.NewClient(&goredis.Options{
		Addr:                     address,
		Username:                 s.Username,
		Password:                 s.Password,
		DB:                       s.DB,
		TLSConfig:                s.TLS,
		DialTimeout:              s.DialTimeout,
		DialerRetries:            dialAttempts,
		DialerRetryTimeout:       dialRetryDelay,
		ReadTimeout:              s.Timeout,
		WriteTimeout:             s.Timeout,
		PoolTimeout:              s.Timeout,
		PoolSize:                 s.PoolSize,
		ConnMaxIdleTime:          idleTimeout,
		ContextTimeoutEnabled:    true,
		MaxRetries:               -1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}), nil
}
