package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
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

	maxAddresses = 32
	maxDB        = 1_000_000
	maxPoolSize  = 10_000
)

// masterName is what Sentinels accept as a name.
var masterName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,255}$`)

// Settings tells how to reach Redis: one server, the master that Sentinels tell,
// or a cluster.
type Settings struct {
	// Addresses of the server: exactly one, host:port or the absolute path of a
	// Unix socket. With MasterName those of Sentinels, with Cluster those of nodes,
	// each host:port; the others are found through them. At most 32, all different.
	Addresses []string
	// Cluster says that the addresses are those of a cluster.
	Cluster bool
	// MasterName is the name under which Sentinels know the master: 1 to 255 letters,
	// digits, dots, underscores and hyphens. Default: none, there are no Sentinels.
	MasterName string
	// Username and Password of the servers' access control. A name needs a password.
	// Default: none.
	Username, Password string
	// SentinelUsername and SentinelPassword of the Sentinels' access control. A name
	// needs a password. Default: none.
	SentinelUsername, SentinelPassword string
	// DB is the number of the database, at most 1000000; a cluster has only 0.
	// Default: 0.
	DB int
	// TLS is used if it is not nil. The server's name is the host of its address
	// unless the configuration has one.
	TLS *tls.Config
	// DialTimeout bounds one attempt to connect: 10 ms to 10 min. Default:
	// DefaultDialTimeout.
	DialTimeout time.Duration
	// Timeout bounds writing a command, waiting for its answer and waiting for a
	// free connection, each: 10 ms to 10 min. Default: DefaultTimeout.
	Timeout time.Duration
	// PoolSize is the most connections to one server that are open at once, at most 10000.
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
	if err := s.Check(); err != nil {
		return nil, err
	}
	s.DialTimeout = cmp.Or(s.DialTimeout, DefaultDialTimeout)
	s.Timeout = cmp.Or(s.Timeout, DefaultTimeout)
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

// Check checks the settings. The error is an *option.Error; it shows no credentials.
func (s *Settings) Check() error {
	if err := s.checkMode(); err != nil {
		return err
	}
	if err := s.checkAddresses(); err != nil {
		return err
	}
	switch {
	case s.Username != "" && s.Password == "":
		return option.Errorf("password", "is required with a user name")
	case s.SentinelUsername != "" && s.SentinelPassword == "":
		return option.Errorf("sentinel_password", "is required with a user name")
	case s.PoolSize < 0 || s.PoolSize > maxPoolSize:
		return option.Errorf("pool_size", "must be from 1 to %d", maxPoolSize)
	}
	return cmp.Or(
		option.Timeout("dial_timeout", cmp.Or(s.DialTimeout, DefaultDialTimeout)),
		option.Timeout("timeout", cmp.Or(s.Timeout, DefaultTimeout)),
	)
}

// checkMode checks what depends on which kind of Redis it is.
func (s *Settings) checkMode() error {
	switch {
	case s.MasterName != "" && s.Cluster:
		return option.Errorf("master_name", "has no meaning with cluster")
	case s.MasterName != "" && !masterName.MatchString(s.MasterName):
		return option.Errorf("master_name", "must have 1 to 255 letters, digits, dots, underscores and hyphens")
	case s.MasterName == "" && s.SentinelUsername != "":
		return option.Errorf("sentinel_username", "has no meaning without master_name")
	case s.MasterName == "" && s.SentinelPassword != "":
		return option.Errorf("sentinel_password", "has no meaning without master_name")
	case s.Cluster && s.DB != 0:
		return option.Errorf("db", "must be 0 with cluster")
	}
	return option.Number("db", s.DB, 0, maxDB)
}

func (s *Settings) checkAddresses() error {
	single := !s.Cluster && s.MasterName == ""
	if single && len(s.Addresses) != 1 {
		return option.Errorf("addresses", "exactly one is required, several need cluster or master_name")
	}
	if len(s.Addresses) == 0 || len(s.Addresses) > maxAddresses {
		return option.Errorf("addresses", "1 to %d are required", maxAddresses)
	}
	for i, address := range s.Addresses {
		name := fmt.Sprintf("addresses[%d]", i)
		if problem := addressProblem(address, single); problem != "" {
			return option.Errorf(name, "%s", problem)
		}
		if slices.Contains(s.Addresses[:i], address) {
			return option.Errorf(name, "is the same as an earlier one")
		}
	}
	return nil
}

// addressProblem tells what is wrong with an address. Only a single server can be
// behind a socket.
func addressProblem(address string, single bool) string {
	if single && filepath.IsAbs(address) {
		return ""
	}
	if host, port, err := net.SplitHostPort(address); err == nil && host != "" && port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "must have a port from 1 to 65535"
		}
		return ""
	}
	if single {
		return "must be host:port or the absolute path of a socket"
	}
	return "must be host:port"
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
