package caddymodule

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/httpclient"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// AuthenticationServers configures the authentication servers, which hold users,
// licences and keys, and how the gateway calls them. Each of them is an instance.
type AuthenticationServers struct {
	// The authentication servers. At least one is required.
	Instances []Instance `json:"instances,omitempty"`

	// How the instances share data.
	//
	// `replicated`: each instance has its own pending requests and registrations. After
	// a request was retrieved or a registration made on an instance, all further calls
	// about it go to that instance and to no other. To retrieve a request, the gateway
	// asks one instance after the other.
	//
	// `shared_database`: every instance can execute every command.
	//
	// In both cases, configure the instances that the bank's application servers use.
	// Default: `replicated`.
	Deployment string `json:"deployment,omitempty"`

	// Which instance gets a command first if any of them can: `first`, the first one in
	// the order of `instances`, or `round_robin`, each in turn. In both cases the next
	// instance gets the command if the first one cannot be reached, or if it reports
	// that it is out of order and the command can be repeated safely. Default: `first`
	// with `replicated`, `round_robin` with `shared_database`.
	Policy string `json:"policy,omitempty"`

	// The SOAP version: `1.1` or `1.2`. Default: `1.1`.
	SOAPVersion string `json:"soap_version,omitempty"`

	// TLS settings for the connections to all instances: trusted certificate
	// authorities, client certificate, server name. Authentication servers often have a
	// certificate of a private authority. Trust that authority with `ca` and do not use
	// `insecure_skip_verify`, which switches verification off. The minimum version is
	// TLS 1.2. `handshake_timeout` is 5 s by default, from `10ms` to `10m`.
	// `except_ports` and `client_certificate_automate` are not supported. Default: the
	// authorities that the system trusts.
	TLS *reverseproxy.TLSConfig `json:"tls,omitempty"`

	// How long to wait for a connection to an instance, not including the TLS
	// handshake. From `10ms` to `10m`. Default: `2s`.
	DialTimeout caddy.Duration `json:"dial_timeout,omitempty"`

	// How long a connection to an instance stays open without a call. Keep it shorter
	// than the time after which the instance, or a firewall in between, closes idle
	// connections: the outcome of a command that is sent at that moment is unknown.
	// From `10ms` to `10m`. Default: `60s`.
	IdleTimeout caddy.Duration `json:"idle_timeout,omitempty"`

	// How long a whole call of an instance may take, from waiting for a free connection
	// to the last byte of the answer. A command that was sent before the time ran out
	// is not repeated, because its outcome is unknown. From `10ms` to `10m`. Default:
	// `30s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How many calls of one instance may run at the same time. Keep it below the number
	// of worker threads of the authentication server (30 unless it was changed), which
	// other clients use, too. 1 to 10000. Default: 30.
	MaxConnections int `json:"max_connections,omitempty"`

	// How many of the `max_connections` are reserved for calls with back-end keys. All
	// other calls, including logins that may wait for a person, use at most the rest,
	// so that phones cannot keep the bank's own systems from an instance. 0 means none;
	// then they can. At most `max_connections` minus 1. Default: 6, but at most a fifth
	// of `max_connections`.
	ReservedConnections *int `json:"reserved_connections,omitempty"`

	// How many calls of one instance that may wait for a person may run at the same time.
	// These are all logins with a password, because a password can be the keyword for a
	// push login, and the instance answers that only when the user reacts on the
	// phone. The approval that the phone sends is not one of them. Further such calls
	// wait in a queue of their own and delay no other calls. They never use
	// `reserved_connections`. A value larger than the number of other connections
	// means all of these; then such logins can keep phones from the instance. 1 to
	// `max_connections`. Default: 10, but at most a third of `max_connections`, and at
	// least 1.
	MaxWaiting int `json:"max_waiting,omitempty"`

	// How many calls of one instance may wait for their turn in each of three queues:
	// calls with back-end keys, calls with front-end keys, and logins that may wait for
	// a person. Calls that find their queue full are refused at once. 0 means that no
	// call may wait. At most 100000. Default: 100.
	MaxQueue *int `json:"max_queue,omitempty"`

	// The names under which the gateway is registered as a client component at the
	// authentication servers. A server identifies a gateway by component name and
	// source address only. Register the address of every node for every name. The
	// name determines which policy of the server applies.
	ComponentTypes ComponentTypes `json:"component_types,omitzero"`

	// The names of SOAP attributes that the vendor does not publish. Change them only if
	// an authentication server uses other names.
	Attributes Attributes `json:"attributes,omitzero"`

	// How often to check, by a connection and a TLS handshake, whether an instance can be
	// reached. An instance that answered a command in the meantime is not checked. If
	// the check fails, and fails again after one second, the breaker of the instance
	// opens. From `10ms` to `10m`; 0 means never. Default: `10s`.
	ProbeInterval *caddy.Duration `json:"probe_interval,omitempty"`

	// When an instance that does not work gets no more commands for some time.
	Breaker Breaker `json:"breaker,omitzero"`

	clients       []*httpclient.Client // of instances
	stateKeys     []string             // in statePool
	upstreams     []string             // that metrics has acquired
	servers       *authserver.Servers
	probeInterval time.Duration // 0 means never
	closed        atomic.Bool
}

// Breaker configures the circuit breaker that each instance has. The state of a breaker
// survives reloads. While a breaker is open, commands go to other instances if possible
// and are otherwise answered with status 503 at once.
//
// These are failures: no connection; a lost connection; no answer in time; an unusable
// answer; an answer that says that the server itself is out of order. One-time passwords
// and approved logins, for which the server may wait for a person, are an exception: that
// they get no answer in time is a failure only if the instance answered nothing else
// meanwhile.
type Breaker struct {
	// The number of consecutive failures that opens the breaker. 1 to 1000. Default: 5.
	Failures int `json:"failures,omitempty"`

	// How long an open breaker refuses all commands before it lets one through to try
	// whether the instance works again, and the time between two such trials. From
	// `10ms` to `10m`. Default: `5s`.
	Cooldown caddy.Duration `json:"cooldown,omitempty"`
}

// Instance is one authentication server.
type Instance struct {
	// The name of the instance in logs. Pending registrations and requests are stored
	// with it, so do not change it while there are any. 1 to 64 letters, digits, dots,
	// underscores and hyphens; different for every instance. Required.
	Name string `json:"name,omitempty"`

	// The URL of the SOAP interface, with the scheme `https`, for example
	// `https://oas1.example.com:8888/`. Required. Accepts placeholders.
	URL string `json:"url,omitempty"`
}

// ComponentTypes are the client component names of the gateway, of at most 60 characters
// each.
type ComponentTypes struct {
	// The name for registration and activation.
	// Default: `DIGIPASS Gateway Provisioning DP760`.
	Provisioning string `json:"provisioning,omitempty"`

	// The name for logins: one-time passwords and pending requests.
	// Default: `Push Notification Client`.
	Authentication string `json:"authentication,omitempty"`

	// The name for pending signatures. Default: `Push Notification Client`.
	Signature string `json:"signature,omitempty"`

	// The name for updates of the push notification IDs of devices.
	// Default: `Push Notification Client`.
	Notification string `json:"notification,omitempty"`
}

// Attributes are names of SOAP attributes.
type Attributes struct {
	// The attribute with Activation Message 1 in the answer to a registration.
	// Default: `PROVFLD_ACTIVATION_MESSAGE`.
	ActivationMessage string `json:"activation_message,omitempty"`

	// The attribute with Activation Message 2 in the answer to adding a device.
	// Default: `PROVFLD_INSTANCE_ACTIVATION_MESSAGE`.
	InstanceActivationMessage string `json:"instance_activation_message,omitempty"`

	// The attribute with the event reactivation counter in the answer to the registration
	// of a standard licence.
	// Default: `PROVFLD_EVENT_REACTIVATION_COUNTER`.
	EventReactivationCounter string `json:"event_reactivation_counter,omitempty"`

	// The attribute for the description that an application gives a device when the
	// device is added. Its name is not public.
	// Default: empty; then the description is not sent.
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

// provision checks the settings and returns the client of all instances. It makes no
// connection. The caller must call close, also after an error.
func (s *AuthenticationServers) provision(ctx caddy.Context, logger *slog.Logger) (*authserver.Servers, error) {
	config := authserver.Config{
		Instances:      make([]authserver.Instance, len(s.Instances)),
		Deployment:     authserver.Deployment(s.Deployment),
		Policy:         authserver.Policy(s.Policy),
		SOAPVersion:    s.SOAPVersion,
		Timeout:        cmp.Or(time.Duration(s.Timeout), defaultCallTimeout),
		Breaker:        breaker.Settings{Failures: s.Breaker.Failures, Cooldown: time.Duration(s.Breaker.Cooldown)},
		ComponentTypes: s.ComponentTypes.withDefaults(),
		Attributes:     authserver.Attributes(s.Attributes),
		Attempted:      both(metrics.attempt, traceAttempt),
		BreakerChanged: emitBreakerChange,
		Logger:         logger,
	}
	s.probeInterval = defaultProbeInterval
	if s.ProbeInterval != nil {
		s.probeInterval = time.Duration(*s.ProbeInterval)
	}
	if s.probeInterval != 0 {
		if err := option.Timeout("probe_interval", s.probeInterval); err != nil {
			return nil, err
		}
	}
	limits := s.instanceLimits()
	settings, err := s.clientConfig(ctx, limits.MaxConnections)
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
		settings.URL = address
		client := httpclient.New(settings)
		s.clients = append(s.clients, client)
		in := limits
		in.Name = instance.Name
		in.URL = address
		in.Transport = tracedTransport{client}
		in.State = state
		in.Probe = func(ctx context.Context) error { return probe(ctx, client, refusalTimeout) }
		config.Instances[i] = in
	}
	if s.servers, err = authserver.New(config); err != nil {
		return nil, err
	}
	for _, instance := range s.Instances {
		s.upstreams = append(s.upstreams, instance.Name)
	}
	metrics.upstreams.acquire(s.upstreams)
	return s.servers, nil
}

// instanceLimits returns the limits, with defaults applied, that all instances have. It
// does not validate them: authserver.New does.
func (s *AuthenticationServers) instanceLimits() authserver.Instance {
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
	if s.probeInterval > 0 {
		s.servers.Watch(ctx, s.probeInterval)
	}
}

// withDefaults returns the names with defaults applied.
func (t *ComponentTypes) withDefaults() authserver.ComponentTypes {
	return authserver.ComponentTypes{
		Provisioning:   cmp.Or(t.Provisioning, defaultProvisioningComponent),
		Authentication: cmp.Or(t.Authentication, defaultPushComponent),
		Signature:      cmp.Or(t.Signature, defaultPushComponent),
		Notification:   cmp.Or(t.Notification, defaultPushComponent),
	}
}

// close closes idle connections and gives the states back. Calls in progress go on. It
// may be called more than once.
func (s *AuthenticationServers) close() {
	s.closed.Store(true)
	s.closeIdleConnections()
	for _, key := range s.stateKeys {
		// It fails only for a key that is not in the pool.
		_, _ = statePool.Delete(key)
	}
	s.stateKeys = nil
	metrics.releaseUpstreams(s.upstreams)
	s.upstreams = nil
}

// closeIdleConnections closes idle connections if close has been called. It is called at
// the end of each request, because a request after close can leave a connection behind.
func (s *AuthenticationServers) closeIdleConnections() {
	if !s.closed.Load() {
		return
	}
	for _, c := range s.clients {
		c.CloseIdleConnections()
	}
}

// statePool holds the state of each authentication server (breaker, calls in progress)
// under its URL as long as a configuration contains it. A reload thus neither doubles
// the number of concurrent calls nor closes an open breaker.
var statePool = caddy.NewUsagePool()

// serverState is an authserver.State that can be in a pool.
type serverState struct{ authserver.State }

// Destruct implements caddy.Destructor. A state has nothing to close.
func (*serverState) Destruct() error { return nil }

// acquireState takes a reference to the state of the server at a URL. close gives it
// back.
func (s *AuthenticationServers) acquireState(address *url.URL) (*authserver.State, error) {
	key := address.String()
	value, _, err := statePool.LoadOrNew(key, func() (caddy.Destructor, error) { return new(serverState), nil })
	if err != nil {
		return nil, err
	}
	s.stateKeys = append(s.stateKeys, key)
	return &value.(*serverState).State, nil
}

// address resolves and parses the URL.
func (i *Instance) address() (*url.URL, error) {
	resolved, err := resolveSecret(i.URL)
	if err != nil {
		return nil, option.In("url", err)
	}
	return authserver.ParseURL(resolved)
}

var _ caddy.Destructor = (*serverState)(nil)
