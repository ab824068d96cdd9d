package caddymodule

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// AuthenticationServers are the servers that hold users, licences and keys, and
// how the gateway calls them.
type AuthenticationServers struct {
	// The authentication servers. At least one is required.
	Instances []Instance `json:"instances,omitempty"`

	// How the instances are related. `replicated`: each has pending requests and
	// registrations of its own, so that what follows a retrieval or a registration
	// is sent to the instance that was first used, and nowhere else; a request is
	// looked for on one instance after the other. `shared_database`: every
	// instance can take every command. Name the instances that the solution's own
	// servers use. Default: `replicated`.
	Deployment string `json:"deployment,omitempty"`

	// Which instance is asked first where it is not settled: `first`, in the order
	// above, or `round_robin`, taking turns. In both cases the next one is asked if
	// an instance cannot be reached or, where a command can be repeated safely, is
	// out of order. Default: `first` when replicated, `round_robin` with a shared
	// database.
	Policy string `json:"policy,omitempty"`

	// The SOAP version to speak: `1.1` or `1.2`. Default: `1.1`.
	SOAPVersion string `json:"soap_version,omitempty"`

	// TLS settings for the connections to all instances: trusted certificate
	// authorities, client certificate, server name. Authentication servers often
	// have a certificate of a private authority: trust it with `ca`, do not use
	// `insecure_skip_verify`. TLS 1.2 is required at least. `handshake_timeout` is
	// 5 s by default, from `10ms` to `10m`; `except_ports` and `client_certificate_automate` are not
	// supported. Default: the authorities that the system trusts.
	TLS *reverseproxy.TLSConfig `json:"tls,omitempty"`

	// How long to wait for a connection to an instance, without the TLS
	// handshake. From `10ms` to `10m`. Default: `2s`.
	DialTimeout caddy.Duration `json:"dial_timeout,omitempty"`

	// How long a connection to an instance may be without a call before it is closed.
	// Keep it below the time after which the instance, or a firewall before it, ends
	// such connections: a command that meets that end may have no known outcome. From
	// `10ms` to `10m`. Default: `60s`.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`

	// How long a whole call of an instance may take, from the wait for a free
	// connection to the last byte of the answer. A command that timed out after
	// it was sent is not repeated: whether it was carried out is not known.
	// From `10ms` to `10m`. Default: `30s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How many calls of one instance may run at the same time. Keep it below the
	// number of worker threads of the authentication server (30 unless it was
	// changed), which other clients share. 1 to 10000. Default: 30.
	MaxConnections int `json:"max_connections,omitempty"`

	// How many of these are for back ends only: front ends together, and calls that
	// wait for a person, use at most the others, so that phones cannot keep the bank's
	// own systems from an instance. 0: none; then they can. At most one less than
	// `max_connections`. Default: 6, but at most a fifth of `max_connections`.
	ReservedConnections *int `json:"reserved_connections,omitempty"`

	// How many calls of one instance that wait for a person may run at the same time.
	// That is every login with a password, because a password can be the keyword for
	// a push login, which the instance answers only when the phone does; not the
	// phone's own approval. Further ones wait in a queue of their own and hold up
	// nobody else. They never use `reserved_connections`: a value above the other
	// connections means all of these, and then such logins can keep phones from the
	// instance. 1 to `max_connections`. Default: 10, but at most a third of
	// `max_connections`, and at least 1.
	MaxWaiting int `json:"max_waiting,omitempty"`

	// How many calls of one instance may wait for their turn. Further ones are
	// refused at once. Back ends, front ends and calls that wait for a person have a
	// queue of this length each. 0: none may wait. At most 100000. Default: 100.
	MaxQueue *int `json:"max_queue,omitempty"`

	// The names under which the gateway is registered as a client component at
	// the authentication servers. Component name and source address are all they
	// know a gateway by, so every node's address must be registered, too, for
	// every name. The name decides which of the server's policies holds.
	ComponentTypes ComponentTypes `json:"component_types,omitzero"`

	// The names of attributes that the vendor does not publish. Change them only
	// if an authentication server uses others.
	Attributes Attributes `json:"attributes,omitzero"`

	// How often to look whether an instance can be reached, by a connection and a
	// TLS handshake, if it answered no command in the meantime. Two such probes that
	// fail, one a second after the other, open its breaker. From `10ms` to `10m`; 0
	// for never. Default: `10s`.
	ProbeInterval *caddy.Duration `json:"probe_interval,omitempty"`

	// When an instance that does not work gets no more commands for a while.
	Breaker Breaker `json:"breaker,omitzero"`

	transports []*http.Transport
	states     []string // keys in statePool
	servers    *authserver.Servers
	interval   time.Duration // of the probes, 0 for never
	closed     atomic.Bool
}

// Breaker is a circuit breaker. Each instance has one of its own, which outlives
// reloads. While it is open, commands go to other instances where they may, and are
// answered with status 503 at once where they may not. What counts as a failure:
// no connection, a lost one, no answer in time (to a one-time password or an
// approved login, for which the server may wait for a person, only if it answered
// nothing else meanwhile), an answer that is not usable, and one that says that the
// server itself is out of order.
type Breaker struct {
	// After how many failures in a row the breaker opens. 1 to 1000. Default: 5.
	Failures int `json:"failures,omitempty"`

	// How long it then refuses commands before one may try whether the instance
	// works again, and how long between two that try. From `10ms` to `10m`.
	// Default: `5s`.
	Cooldown caddy.Duration `json:"cooldown,omitempty"`
}

// Instance is one authentication server.
type Instance struct {
	// A name for logs and metrics, and the one that pending registrations
	// remember: do not change it while registrations are pending. 1 to 64 letters,
	// digits, dots, underscores and hyphens, different for every instance. Required.
	Name string `json:"name,omitempty"`

	// The address of its SOAP interface, `https` only, e.g.
	// `https://oas1.example.com:8888/`. Required. Accepts placeholders.
	URL string `json:"url,omitempty"`
}

// ComponentTypes are client component names of at most 60 characters.
type ComponentTypes struct {
	// For registration and activation.
	// Default: `DIGIPASS Gateway Provisioning DP760`.
	Provisioning string `json:"provisioning,omitempty"`

	// For logins: one-time passwords and pending requests.
	// Default: `Push Notification Client`.
	Authentication string `json:"authentication,omitempty"`

	// For pending signatures. Default: `Push Notification Client`.
	Signature string `json:"signature,omitempty"`

	// For the push notification ID of devices.
	// Default: `Push Notification Client`.
	Notification string `json:"notification,omitempty"`
}

// Attributes are attribute names.
type Attributes struct {
	// The attribute with Activation Message 1 in the answer to a registration.
	// Default: `PROVFLD_ACTIVATION_MESSAGE`.
	ActivationMessage string `json:"activation_message,omitempty"`

	// The attribute with Activation Message 2 in the answer to adding a device.
	// Default: `PROVFLD_INSTANCE_ACTIVATION_MESSAGE`.
	InstanceActivationMessage string `json:"instance_activation_message,omitempty"`

	// The attribute with the event reactivation counter in the answer to a
	// registration for a standard licence.
	// Default: `PROVFLD_EVENT_REACTIVATION_COUNTER`.
	EventReactivationCounter string `json:"event_reactivation_counter,omitempty"`

	// The attribute with the description that an application gives a device, when
	// the device is added. Its name is not public.
	// Default: empty, the description is not sent.
	DeviceDescription string `json:"device_description,omitempty"`
}

const (
	defaultProvisioningComponent = "DIGIPASS Gateway Provisioning DP760"
	defaultPushComponent         = "Push Notification Client"
	defaultDialTimeout           = 2 * time.Second
	defaultCallTimeout           = 30 * time.Second
	defaultMaxConnections        = 30
	defaultReservedConnections   = 6
	defaultMaxWaiting            = 10
	defaultMaxQueue              = 100
	defaultProbeInterval         = 10 * time.Second
)

// open checks the settings and returns the client of all instances. It makes no
// connection. close must be called afterwards, also after an error.
func (s *AuthenticationServers) open(ctx caddy.Context, logger *slog.Logger) (*authserver.Servers, error) {
	config := authserver.Config{
		Instances:      make([]authserver.Instance, len(s.Instances)),
		Deployment:     authserver.Deployment(s.Deployment),
		Policy:         authserver.Policy(s.Policy),
		SOAPVersion:    s.SOAPVersion,
		Timeout:        cmp.Or(time.Duration(s.Timeout), defaultCallTimeout),
		Breaker:        breaker.Settings{Failures: s.Breaker.Failures, Cooldown: time.Duration(s.Breaker.Cooldown)},
		ComponentTypes: s.ComponentTypes.names(),
		Attributes:     authserver.Attributes(s.Attributes),
		Logger:         logger,
	}
	s.interval = defaultProbeInterval
	if s.ProbeInterval != nil {
		s.interval = time.Duration(*s.ProbeInterval)
	}
	if s.interval != 0 {
		if err := option.Timeout("probe_interval", s.interval); err != nil {
			return nil, err
		}
	}
	limited := s.limits()
	connect, err := s.transport(ctx, limited.MaxConnections)
	if err != nil {
		return nil, err
	}
	for i, instance := range s.Instances {
		address, err := instance.address()
		if err != nil {
			return nil, option.In(fmt.Sprintf("instances[%d]", i), err)
		}
		if slices.ContainsFunc(config.Instances[:i], func(other authserver.Instance) bool { return other.URL.String() == address.String() }) {
			return nil, option.Errorf(fmt.Sprintf("instances[%d].url", i), "is that of an earlier instance")
		}
		state, err := s.acquireState(address)
		if err != nil {
			return nil, option.In(fmt.Sprintf("instances[%d]", i), err)
		}
		transport := connect()
		s.transports = append(s.transports, transport)
		in := limited
		in.Name = instance.Name
		in.URL = address
		in.Transport = transport
		in.State = state
		in.Probe = newProbe(transport, address)
		config.Instances[i] = in
	}
	s.servers, err = authserver.New(config)
	return s.servers, err
}

// transport returns what makes the transport of each instance.
func (s *AuthenticationServers) transport(ctx caddy.Context, maxConnections int) (func() *http.Transport, error) {
	handshakeTimeout := defaultHandshakeTimeout
	if s.TLS != nil && s.TLS.HandshakeTimeout != 0 {
		handshakeTimeout = time.Duration(s.TLS.HandshakeTimeout)
	}
	dialTimeout := cmp.Or(time.Duration(s.DialTimeout), defaultDialTimeout)
	idleTimeout := cmp.Or(time.Duration(s.IdleTimeout), defaultIdleTimeout)
	if err := cmp.Or(
		option.Timeout("dial_timeout", dialTimeout),
		option.Timeout("idle_timeout", idleTimeout),
		option.Timeout("tls.handshake_timeout", handshakeTimeout),
	); err != nil {
		return nil, err
	}
	tlsConfig, err := clientTLS(ctx, s.TLS)
	if err != nil {
		return nil, err
	}
	return func() *http.Transport {
		return newTransport(tlsConfig.Clone(), handshakeTimeout, dialTimeout, idleTimeout, maxConnections)
	}, nil
}

// limits returns an instance that has only its limits, which are those of all. The
// defaults are of no use beside a wrong max_connections, which is refused first.
func (s *AuthenticationServers) limits() authserver.Instance {
	connections := cmp.Or(s.MaxConnections, defaultMaxConnections)
	return authserver.Instance{
		MaxConnections:      connections,
		ReservedConnections: valueOr(s.ReservedConnections, min(defaultReservedConnections, connections/5)),
		MaxWaiting:          cmp.Or(s.MaxWaiting, max(1, min(defaultMaxWaiting, connections/3))),
		MaxQueue:            valueOr(s.MaxQueue, defaultMaxQueue),
	}
}

// watch probes the instances until ctx ends.
func (s *AuthenticationServers) watch(ctx context.Context) {
	if s.interval > 0 {
		s.servers.Watch(ctx, s.interval)
	}
}

// names returns the names with their defaults.
func (t *ComponentTypes) names() authserver.ComponentTypes {
	return authserver.ComponentTypes{
		Provisioning:   cmp.Or(t.Provisioning, defaultProvisioningComponent),
		Authentication: cmp.Or(t.Authentication, defaultPushComponent),
		Signature:      cmp.Or(t.Signature, defaultPushComponent),
		Notification:   cmp.Or(t.Notification, defaultPushComponent),
	}
}

// close gives idle connections up. Calls that are running keep theirs. Closing
// again does nothing.
func (s *AuthenticationServers) close() {
	s.closed.Store(true)
	s.ended()
	for _, key := range s.states {
		// It can fail only for a key that is not in the pool.
		_, _ = statePool.Delete(key)
	}
	s.states = nil
}

// ended tells that a request is over. One that came after close may have left a
// connection behind, because asking a transport for one revokes the closing of
// those that become idle.
func (s *AuthenticationServers) ended() {
	if !s.closed.Load() {
		return
	}
	for _, t := range s.transports {
		t.CloseIdleConnections()
	}
}

// statePool holds what is known of each authentication server, by its address,
// while a configuration names it: a reload does not double what a server is given
// to do, and does not forget that it is out of order.
var statePool = caddy.NewUsagePool()

// serverState is a State in the pool.
type serverState struct{ authserver.State }

// Destruct has nothing to close.
func (*serverState) Destruct() error { return nil }

// acquireState takes a reference to the state of an address, which close returns.
func (s *AuthenticationServers) acquireState(address *url.URL) (*authserver.State, error) {
	key := address.String()
	value, _, err := statePool.LoadOrNew(key, func() (caddy.Destructor, error) { return new(serverState), nil })
	if err != nil {
		return nil, err
	}
	s.states = append(s.states, key)
	return &value.(*serverState).State, nil
}

var _ caddy.Destructor = (*serverState)(nil)

func (i *Instance) address() (*url.URL, error) {
	resolved, err := resolveSecret(i.URL)
	if err != nil {
		return nil, option.In("url", err)
	}
	return authserver.ParseURL(resolved)
}
