package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"strings"
	"syscall"
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
	// dialRetryDelay is between two attempts to connect.
	dialRetryDelay = 50 * time.Millisecond
	// connectionsPerCPU is the default of Settings.PoolSize.
	connectionsPerCPU = 10
	// onePool has pipelines, which is all that a Store sends, use the pool of
	// PoolSize connections instead of one of their own.
	onePool = -1
)

// Settings tells how to reach Redis: one server, the master that Sentinels tell,
// or a cluster.
type Settings struct {
	// Addresses of the server: exactly one, host:port or the absolute path of a
	// Unix socket. With MasterName those of Sentinels, with Cluster those of nodes,
	// each host:port; the others are found through them.
	Addresses []string
	// Cluster says that the addresses are those of a cluster.
	Cluster bool
	// MasterName is the name under which Sentinels know the master. Default: none,
	// there are no Sentinels.
	MasterName string
	// Username and Password of the servers' access control. Default: none.
	Username, Password string
	// SentinelUsername and SentinelPassword of the Sentinels' access control.
	// Default: none.
	SentinelUsername, SentinelPassword string
	// DB is the number of the database; a cluster has only 0. Default: 0.
	DB int
	// TLS is used if it is not nil. The server's name is the host of its address
	// unless the configuration has one.
	TLS *tls.Config
	// DialTimeout bounds one attempt to connect. Default: DefaultDialTimeout.
	DialTimeout time.Duration
	// Timeout bounds writing a command, waiting for its answer and waiting for a
	// free connection, each. Default: DefaultTimeout.
	Timeout time.Duration
	// PoolSize is the most connections to one server that are open at once.
	// Default: ten for every CPU.
	PoolSize int
	// Control sets options of every new socket, as that of a net.Dialer does.
	// Default: nothing is set.
	Control func(network, address string, socket syscall.RawConn) error `json:"-"`
}

// NewClient returns a client that suits a Store. It checks the settings and
// connects with the first command, not before. The client never repeats a
// command: what may be repeated, the Store knows better. The caller closes it.
func NewClient(s Settings) (goredis.UniversalClient, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.DialTimeout == 0 {
		s.DialTimeout = DefaultDialTimeout
	}
	if s.Timeout == 0 {
		s.Timeout = DefaultTimeout
	}
	if s.PoolSize == 0 {
		s.PoolSize = connectionsPerCPU * runtime.GOMAXPROCS(0)
	}
	options := s.options()
	switch {
	case s.Cluster:
		// It knows the nodes; the Store sends to them itself.
		cluster := options.Cluster()
		cluster.NewClient = newNode
		return goredis.NewClusterClient(cluster), nil
	case s.MasterName != "":
		s.patient(options)
		// One for the master and for the Sentinels, who are asked when its connections are
		// not trusted any more.
		t := new(trust)
		options.Dialer = t.dialer(options.Dialer)
		client := goredis.NewFailoverClient(options.Failover())
		client.AddHook(t)
		return client, nil
	}
	return newServer(options.Simple()), nil
}

// newServer returns the client of one server.
func newServer(o *goredis.Options) *goredis.Client {
	t := new(trust)
	o.Dialer = t.dialer(o.Dialer)
	c := goredis.NewClient(o)
	c.AddHook(t)
	return c
}

// check reports what cannot be used. It shows no credentials.
func (s *Settings) check() error {
	single := !s.Cluster && s.MasterName == ""
	switch {
	case s.Cluster && s.MasterName != "":
		return errors.New("redis: a cluster has no master name")
	case single && len(s.Addresses) != 1:
		return fmt.Errorf("redis: %d addresses, want one", len(s.Addresses))
	case len(s.Addresses) == 0:
		return errors.New("redis: no addresses")
	case s.MasterName == "" && (s.SentinelUsername != "" || s.SentinelPassword != ""):
		return errors.New("redis: credentials for Sentinels and no master name")
	case s.DB < 0:
		return errors.New("redis: the number of the database is negative")
	case s.Cluster && s.DB != 0:
		return errors.New("redis: a cluster has only database 0")
	case s.DialTimeout < 0 || s.Timeout < 0:
		return errors.New("redis: a timeout is negative")
	case s.PoolSize < 0:
		return errors.New("redis: the size of the pool is negative")
	}
	for _, address := range s.Addresses {
		if single && strings.HasPrefix(address, "/") {
			continue
		}
		_, port, err := net.SplitHostPort(address)
		if err != nil || port == "" {
			return fmt.Errorf("redis: address %q is neither host:port nor the path of a server's socket", address)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("redis: the port of address %q is not a number from 1 to 65535", address)
		}
	}
	return nil
}

// options are those of a client for any of the three. Each takes what it has a use for.
func (s *Settings) options() *goredis.UniversalOptions {
	return &goredis.UniversalOptions{
		Addrs:                    s.Addresses,
		MasterName:               s.MasterName,
		Username:                 s.Username,
		Password:                 s.Password,
		SentinelUsername:         s.SentinelUsername,
		SentinelPassword:         s.SentinelPassword,
		DB:                       s.DB,
		TLSConfig:                s.TLS,
		Dialer:                   s.dial,
		DialTimeout:              2*s.DialTimeout + dialRetryDelay, // see dial
		DialerRetries:            1,
		ReadTimeout:              s.Timeout,
		WriteTimeout:             s.Timeout,
		PoolTimeout:              s.Timeout,
		PoolSize:                 s.PoolSize,
		PipelinePoolSize:         onePool,
		ConnMaxIdleTime:          idleTimeout,
		ContextTimeoutEnabled:    true,
		MaxRetries:               -1,
		MaxRedirects:             -1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// patient gives a client of Sentinels the time it needs.
//
// Before it dials the server that they call the master, the client asks one
// Sentinel that it knows, and then all of them. What it has for all of this is one
// timeout: if that were enough for one attempt only, it would ask a Sentinel that
// hangs again and again and never another. The dialler has a timeout of its own
// therefore.
func (s *Settings) patient(o *goredis.UniversalOptions) {
	step := s.DialTimeout + 2*s.Timeout // a connection, its greeting and a question
	o.DialTimeout = 4 * step
}

// dial connects to a server in one of two attempts, which bounds what a dead one costs, or
// with Sentinels to either in one.
func (s *Settings) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := s.connect(ctx, network, address)
	if err == nil || s.MasterName != "" {
		return c, err
	}
	select {
	case <-time.After(dialRetryDelay):
		return s.connect(ctx, network, address)
	case <-ctx.Done():
		return nil, err
	}
}

// connect is one attempt to connect.
func (s *Settings) connect(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.DialTimeout)
	defer cancel()
	connection, err := (&net.Dialer{Control: s.Control}).DialContext(ctx, network, address)
	if err != nil || s.TLS == nil {
		return connection, err
	}
	config := s.TLS.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	secured := tls.Client(connection, config)
	err = secured.HandshakeContext(ctx)
	if err == nil {
		return secured, nil
	}
	_ = connection.Close()
	if errors.Is(err, context.DeadlineExceeded) {
		// A server without TLS waits for the end of what it takes for a command.
		err = fmt.Errorf("no TLS handshake in time; does the server speak TLS? %w", err)
	}
	return nil, &net.OpError{Op: "dial", Net: network, Addr: connection.RemoteAddr(), Err: err}
}
