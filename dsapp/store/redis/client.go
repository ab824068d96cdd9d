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
	// idleTimeout is the time after which an unused connection is closed. Firewalls and
	// servers usually wait longer.
	idleTimeout = 5 * time.Minute
	// dialRetryDelay is the pause between two attempts to connect.
	dialRetryDelay = 50 * time.Millisecond
	// connectionsPerCPU is the default of Settings.PoolSize.
	connectionsPerCPU = 10
	// onePool makes pipelines use the pool of PoolSize connections instead of a pool of
	// their own, so that it limits all commands of a Store.
	onePool = -1

	maxAddresses = 32
	maxDB        = 1_000_000
	maxPoolSize  = 10_000
)

// masterName matches the names that Sentinels accept for a master.
var masterName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,255}$`)

// Settings are the settings of a client: for one server, for a master that Sentinels watch,
// or for a cluster.
type Settings struct {
	// Addresses has the address of the server: host:port or the absolute path of a Unix
	// socket. With MasterName it has those of Sentinels, with Cluster those of nodes, each
	// host:port; the client learns the other addresses from them. At most 32, all
	// different.
	Addresses []string
	// Cluster says that the addresses are those of nodes of a cluster.
	Cluster bool
	// MasterName is the name under which Sentinels watch the master: 1 to 255 letters,
	// digits, dots, underscores and hyphens. Default: there are no Sentinels.
	MasterName string
	// Username and Password are sent to the servers. A name needs a password.
	// Default: none.
	Username, Password string
	// SentinelUsername and SentinelPassword are sent to the Sentinels. A name needs a
	// password. Default: none.
	SentinelUsername, SentinelPassword string
	// DB is the number of the database, at most 1000000. With Cluster it must be 0.
	// Default: 0.
	DB int
	// TLS is the configuration of TLS. If it has no ServerName, the host of the server's
	// address is used. Default: no TLS.
	TLS *tls.Config
	// DialTimeout limits one attempt to connect: 10 ms to 10 min. Default:
	// DefaultDialTimeout.
	DialTimeout time.Duration
	// Timeout limits each of these: waiting for a free connection, writing a command and
	// waiting for its answer. 10 ms to 10 min. Default: DefaultTimeout.
	Timeout time.Duration
	// PoolSize is the greatest number of connections to one server, at most 10000.
	// Default: ten for every CPU.
	PoolSize int
	// Control is called for every new socket, like net.Dialer.Control. Default: none.
	Control func(network, address string, socket syscall.RawConn) error `json:"-"`
}

// NewClient returns a client for a Store. It checks the settings, and the client connects
// with the first command. The client never repeats a command, because only the Store knows
// which commands may be repeated. The caller closes the client.
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
		// The Store uses this client only to find the nodes.
		cluster := options.Cluster()
		cluster.NewClient = newNode
		return goredis.NewClusterClient(cluster), nil
	case s.MasterName != "":
		s.extendDialTimeout(options)
		// The connections to the master and to the Sentinels become stale together, so
		// that the client asks the Sentinels again.
		t := new(staleness)
		options.Dialer = t.dialer(options.Dialer)
		client := goredis.NewFailoverClient(options.Failover())
		client.AddHook(t)
		return client, nil
	}
	return newServer(options.Simple()), nil
}

// newServer returns the client of a single server or of a node of a cluster.
func newServer(o *goredis.Options) *goredis.Client {
	t := new(staleness)
	o.Dialer = t.dialer(o.Dialer)
	c := goredis.NewClient(o)
	c.AddHook(t)
	return c
}

// Check checks the settings. The error is an *option.Error and contains no credentials.
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

// checkMode checks the settings that depend on Cluster and MasterName.
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

// addressProblem returns what is wrong with an address, or "". The address of a single
// server may be the path of a Unix socket.
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

// options returns the options of a client. Each kind of client uses those that apply to it.
func (s *Settings) options() *goredis.UniversalOptions {
	return &goredis.UniversalOptions{
		Addrs:                 s.Addresses,
		MasterName:            s.MasterName,
		Username:              s.Username,
		Password:              s.Password,
		SentinelUsername:      s.SentinelUsername,
		SentinelPassword:      s.SentinelPassword,
		DB:                    s.DB,
		TLSConfig:             s.TLS,
		Dialer:                s.dial,
		DialTimeout:           2*s.DialTimeout + dialRetryDelay, // see dial
		DialerRetries:         1,
		ReadTimeout:           s.Timeout,
		WriteTimeout:          s.Timeout,
		PoolTimeout:           s.Timeout,
		PoolSize:              s.PoolSize,
		PipelinePoolSize:      onePool,
		ConnMaxIdleTime:       idleTimeout,
		ContextTimeoutEnabled: true,
		MaxRetries:            -1,
		MaxRedirects:          -1,
		// With version 3, the client looks for push messages before each answer.
		Protocol:                 2,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// extendDialTimeout sets the DialTimeout of a client of Sentinels.
//
// To dial the master, the client asks one Sentinel for its address, then all Sentinels, and
// then connects to it. DialTimeout limits all of that. If it sufficed for one step only, the
// client would ask a Sentinel that hangs every time and never reach another. The timeout of
// Settings limits each connection in the method connect.
func (s *Settings) extendDialTimeout(o *goredis.UniversalOptions) {
	step := s.DialTimeout + 2*s.Timeout // to connect, to authenticate and to ask
	o.DialTimeout = 4 * step
}

// dial connects to a server. It makes at most two attempts, or one if there are Sentinels.
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

// connect makes one attempt to connect, including the TLS handshake.
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
		// A server without TLS takes the handshake for the beginning of a command and
		// waits for the rest.
		err = fmt.Errorf("no TLS handshake in time; does the server speak TLS? %w", err)
	}
	return nil, &net.OpError{Op: "dial", Net: network, Addr: connection.RemoteAddr(), Err: err}
}
