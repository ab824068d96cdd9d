package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
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

// check returns the settings with their defaults.
func (b *Breaker) check() (s breaker.Settings, err error) {
	if s.Failures, err = count("failures", b.Failures, authserver.DefaultFailures, maxFailures); err != nil {
		return s, err
	}
	s.Cooldown, err = timeouts.value("cooldown", b.Cooldown, authserver.DefaultCooldown)
	return s, err
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
	maxConnections               = 10_000
	maxQueue                     = 100_000
	maxFailures                  = 1000
	defaultProbeInterval         = 10 * time.Second
	maxComponentType             = 60
)

// open checks the settings and returns the client of all instances. It makes no
// connection. close must be called afterwards, also after an error.
func (s *AuthenticationServers) open(ctx caddy.Context, logger *slog.Logger) (*authserver.Servers, error) {
	if len(s.Instances) == 0 {
		return nil, errors.New("instances: at least one is required")
	}
	deployment := authserver.Deployment(s.Deployment)
	switch deployment {
	case "", authserver.DeploymentReplicated, authserver.DeploymentShared:
	default:
		return nil, fmt.Errorf("deployment: must be %q or %q", authserver.DeploymentReplicated, authserver.DeploymentShared)
	}
	policy := authserver.Policy(s.Policy)
	switch policy {
	case "", authserver.PolicyFirst, authserver.PolicyRoundRobin:
	default:
		return nil, fmt.Errorf("policy: must be %q or %q", authserver.PolicyFirst, authserver.PolicyRoundRobin)
	}
	if !slices.Contains([]string{"", "1.1", "1.2"}, s.SOAPVersion) {
		return nil, errors.New(`soap_version: must be "1.1" or "1.2"`)
	}
	components, err := s.ComponentTypes.check()
	if err != nil {
		return nil, fmt.Errorf("component_types.%w", err)
	}
	if err := s.Attributes.check(); err != nil {
		return nil, fmt.Errorf("attributes.%w", err)
	}
	dialTimeout, err := timeouts.value("dial_timeout", s.DialTimeout, defaultDialTimeout)
	if err != nil {
		return nil, err
	}
	idleTimeout, err := timeouts.value("idle_timeout", s.IdleTimeout, defaultIdleTimeout)
	if err != nil {
		return nil, err
	}
	timeout, err := timeouts.value("timeout", s.Timeout, defaultCallTimeout)
	if err != nil {
		return nil, err
	}
	limited, err := s.limits()
	if err != nil {
		return nil, err
	}
	s.interval = defaultProbeInterval
	if s.ProbeInterval != nil {
		// 0 stays 0: there is no default for what is configured.
		if s.interval, err = timeouts.value("probe_interval", *s.ProbeInterval, 0); err != nil {
			return nil, err
		}
	}
	settings, err := s.Breaker.check()
	if err != nil {
		return nil, fmt.Errorf("breaker.%w", err)
	}
	handshake, err := handshakeTimeout(s.TLS)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := clientTLS(ctx, s.TLS)
	if err != nil {
		return nil, err
	}

	names := make(map[string]struct{}, len(s.Instances))
	addresses := make(map[string]struct{}, len(s.Instances))
	instances := make([]authserver.Instance, len(s.Instances))
	for i, instance := range s.Instances {
		if err := validInstanceName(instance.Name, names); err != nil {
			return nil, fmt.Errorf("instances[%d].name: %w", i, err)
		}
		address, err := instance.address()
		if err != nil {
			return nil, fmt.Errorf("instances[%d].url: %w", i, err)
		}
		if _, taken := addresses[address.String()]; taken {
			return nil, fmt.Errorf("instances[%d].url: is that of an earlier instance", i)
		}
		addresses[address.String()] = struct{}{}
		state, err := s.acquireState(address)
		if err != nil {
			return nil, fmt.Errorf("instances[%d]: %w", i, err)
		}
		transport := newTransport(tlsConfig.Clone(), handshake, dialTimeout, idleTimeout, limited.MaxConnections)
		s.transports = append(s.transports, transport)
		instances[i] = limited
		instances[i].Name = instance.Name
		instances[i].URL = address
		instances[i].Transport = transport
		instances[i].State = state
		instances[i].Probe = newProbe(transport, address)
	}
	s.servers, err = authserver.New(authserver.Config{
		Instances:      instances,
		Deployment:     deployment,
		Policy:         policy,
		SOAPVersion:    s.SOAPVersion,
		Timeout:        timeout,
		Breaker:        settings,
		ComponentTypes: components,
		Attributes: authserver.Attributes{
			ActivationMessage:         s.Attributes.ActivationMessage,
			InstanceActivationMessage: s.Attributes.InstanceActivationMessage,
			EventReactivationCounter:  s.Attributes.EventReactivationCounter,
			DeviceDescription:         s.Attributes.DeviceDescription,
		},
		Logger: logger,
	})
	return s.servers, err
}

// limits returns an instance that has only its limits, which are those of all.
func (s *AuthenticationServers) limits() (i authserver.Instance, err error) {
	i.MaxConnections, err = count("max_connections", s.MaxConnections, defaultMaxConnections, maxConnections)
	if err != nil {
		return i, err
	}
	i.ReservedConnections, err = countOrZero("reserved_connections", s.ReservedConnections,
		min(defaultReservedConnections, i.MaxConnections/5), i.MaxConnections-1)
	if err != nil {
		return i, fmt.Errorf("%w, one less than max_connections", err)
	}
	i.MaxWaiting, err = count("max_waiting", s.MaxWaiting, max(1, min(defaultMaxWaiting, i.MaxConnections/3)), i.MaxConnections)
	if err != nil {
		return i, fmt.Errorf("%w, the number of max_connections", err)
	}
	i.MaxQueue, err = countOrZero("max_queue", s.MaxQueue, defaultMaxQueue, maxQueue)
	return i, err
}

// watch probes the instances until ctx ends.
func (s *AuthenticationServers) watch(ctx context.Context) {
	if s.interval > 0 {
		s.servers.Watch(ctx, s.interval)
	}
}

// check returns the names with their defaults.
func (t *ComponentTypes) check() (authserver.ComponentTypes, error) {
	var names authserver.ComponentTypes
	for _, c := range []struct {
		option, configured, preset string
		out                        *string
	}{
		{"provisioning", t.Provisioning, defaultProvisioningComponent, &names.Provisioning},
		{"authentication", t.Authentication, defaultPushComponent, &names.Authentication},
		{"signature", t.Signature, defaultPushComponent, &names.Signature},
		{"notification", t.Notification, defaultPushComponent, &names.Notification},
	} {
		if utf8.RuneCountInString(c.configured) > maxComponentType || strings.ContainsFunc(c.configured, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return names, fmt.Errorf("%s: must have at most %d printable characters", c.option, maxComponentType)
		}
		*c.out = cmp.Or(c.configured, c.preset)
	}
	return names, nil
}

// check refuses what cannot be a name.
func (a *Attributes) check() error {
	for _, attribute := range []struct{ option, name string }{
		{"activation_message", a.ActivationMessage},
		{"instance_activation_message", a.InstanceActivationMessage},
		{"event_reactivation_counter", a.EventReactivationCounter},
		{"device_description", a.DeviceDescription},
	} {
		if attribute.name != "" && !attributeName.MatchString(attribute.name) {
			return fmt.Errorf("%s: must have 1 to 64 letters, digits and underscores", attribute.option)
		}
	}
	return nil
}

var attributeName = regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`)

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

// validInstanceName checks a name and adds it to those taken.
func validInstanceName(name string, taken map[string]struct{}) error {
	if !authserver.ValidInstanceName(name) {
		return errors.New("must have 1 to 64 letters, digits, dots, underscores and hyphens")
	}
	if _, ok := taken[name]; ok {
		return errors.New("is the name of an earlier instance")
	}
	taken[name] = struct{}{}
	return nil
}

func (i *Instance) address() (*url.URL, error) {
	resolved, err := resolveSecret(i.URL)
	if err != nil {
		return nil, err
	}
	if strings.ContainsFunc(resolved, unicode.IsSpace) {
		return nil, errors.New("must have no white space")
	}
	u, err := url.Parse(resolved)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("must be an address such as https://host:8888/")
	}
	if strings.ContainsFunc(u.Host, func(r rune) bool { return r > unicode.MaxASCII }) {
		return nil, errors.New("must have a host name in ASCII, such as xn--bcher-kva.example for bücher.example")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("must have no user, query or fragment")
	}
	if port := u.Port(); port != "" && !validPort(port) {
		return nil, errors.New("must have a port from 1 to 65535, or none")
	}
	// One address, however it is written.
	u.Host = strings.ToLower(u.Host)
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}

// validPort reports whether port is a number from 1 to 65535.
func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n != 0
}

// durations are the bounds of an option.
type durations struct{ shortest, longest time.Duration }

// timeouts are the bounds of all options that bound a wait.
var timeouts = durations{10 * time.Millisecond, 10 * time.Minute}

// value gives the configured value or, if there is none, the default.
func (d durations) value(name string, configured caddy.Duration, preset time.Duration) (time.Duration, error) {
	if configured == 0 {
		return preset, nil
	}
	if v := time.Duration(configured); v >= d.shortest && v <= d.longest {
		return v, nil
	}
	return 0, fmt.Errorf(`%s: must be from %s to %s; write it as a text such as "30s", a plain number counts nanoseconds`,
		name, briefly(d.shortest), briefly(d.longest))
}

// briefly writes a duration as it is configured: 10m, where String has 10m0s.
func briefly(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// count gives the configured value or, if it is 0, the default.
func count(name string, configured, preset, limit int) (int, error) {
	if configured == 0 {
		return preset, nil
	}
	if configured < 0 || configured > limit {
		return 0, fmt.Errorf("%s: must be from 1 to %d", name, limit)
	}
	return configured, nil
}

// countOrZero gives the configured value, which may be 0, or the default if there is
// none.
func countOrZero(name string, configured *int, preset, limit int) (int, error) {
	if configured == nil {
		return preset, nil
	}
	if *configured < 0 || *configured > limit {
		return 0, fmt.Errorf("%s: must be from 0 to %d", name, limit)
	}
	return *configured, nil
}
