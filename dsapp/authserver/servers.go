// Package authserver sends commands to the authentication servers. It chooses the instance,
// limits the number of commands in progress on each, keeps commands away from an instance
// that does not work, and decides whether a failed command may be sent to another instance.
//
// A command is sent a second time only if it is certain that the first instance did not get
// it, or if it does no harm to carry it out twice. The error of a failed command says whether
// it may have been carried out. Package soap defines the commands.
package authserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// Transport sends commands to an instance. It makes the connections, and is responsible for
// TLS and idle connections. *httpclient.Client implements it.
type Transport interface {
	// Post sends a command and returns the answer, whose body the caller closes. Only after a
	// *httpclient.NotSentError it is certain that no byte of the command was sent. The
	// end of ctx ends all of it. Post neither changes nor keeps header and command.
	Post(ctx context.Context, header http.Header, command []byte) (*http.Response, error)
	// CloseIdleConnections closes the connections without a command. It is called before a
	// command finds out whether a broken instance works again.
	CloseIdleConnections()
}

// Instance is one authentication server.
type Instance struct {
	// Name identifies the instance in results, errors, logs and registrations. It has 1 to
	// 64 characters of A-Z, a-z, 0-9, '.', '_' and '-', and is unique.
	Name string
	// URL is the https address of the SOAP interface, such as https://oas1:8888/, without
	// user, query and fragment. See ParseURL.
	URL *url.URL
	// Transport sends the commands to URL.
	Transport Transport
	// MaxConnections is the greatest number of commands in progress, 1 to 10000.
	MaxConnections int
	// ReservedConnections is how many of these only commands of back ends may use, 0 to
	// MaxConnections-1. See ForBackEnd.
	ReservedConnections int
	// MaxWaiting is the greatest number of commands in progress whose answer may have to
	// wait for a user's approval, 0 to MaxConnections. Such commands never use reserved
	// connections. 0 means MaxConnections. A command that completes a pending login is
	// not counted, as it contains the approval.
	MaxWaiting int
	// MaxQueue is the greatest length of each of three queues, 0 to 100000: one for
	// commands of back ends, one for those of front ends, and one for commands that may
	// wait for a user. A command that finds its queue full is not sent.
	MaxQueue int
	// State is the state of the server. It is shared by configurations that replace each
	// other. If nil, the instance gets one of its own.
	State *State
	// Probe makes a connection to the server and closes it. It returns an error if the
	// server cannot be reached, at the latest when ctx ends. If nil, the instance is not
	// probed. See Servers.Watch.
	Probe func(ctx context.Context) error
}

// Types of package soap that are part of the configuration.
type (
	// ComponentTypes are the names under which the servers know the gateway.
	ComponentTypes = soap.ComponentTypes
	// Attributes are the names of SOAP attributes whose names are not public.
	Attributes = soap.Attributes
)

// Deployment says where the authentication servers store pending registrations and requests.
type Deployment string

const (
	// DeploymentReplicated stores them on the instance that created them. Only users and
	// licences are replicated.
	DeploymentReplicated Deployment = "replicated"
	// DeploymentShared stores them in a database that all instances share.
	DeploymentShared Deployment = "shared_database"
)

// Policy chooses the instance for a command that belongs to none.
type Policy string

const (
	// PolicyFirst asks the instances in their order.
	PolicyFirst Policy = "first"
	// PolicyRoundRobin begins each call of the same command with the next instance.
	PolicyRoundRobin Policy = "round_robin"
)

// Defaults of Config.Breaker.
const (
	DefaultFailures = 5
	DefaultCooldown = 5 * time.Second
)

// Config configures Servers.
type Config struct {
	// Instances are in order of preference. There is at least one.
	Instances []Instance
	// Deployment of the instances. The default is DeploymentReplicated.
	Deployment Deployment
	// Policy for commands that belong to no instance. The default is PolicyFirst in a
	// replicated deployment and PolicyRoundRobin with a shared database.
	Policy Policy
	// SOAPVersion is "1.1" (default) or "1.2".
	SOAPVersion string
	// Timeout limits one attempt at one instance, including the time in the queue, to
	// 10 ms to 10 min. Required.
	Timeout time.Duration
	// Breaker says after how many failures in a row an instance gets no more commands,
	// 1 to 1000, and for how long, 10 ms to 10 min. The defaults are DefaultFailures and
	// DefaultCooldown.
	Breaker        breaker.Settings
	ComponentTypes ComponentTypes
	Attributes     Attributes
	// Attempted is called at the end of each attempt to carry out a command on an instance.
	// A command that fails over to another instance makes several. Nil for no call.
	Attempted func(ctx context.Context, a Attempt)
	// BreakerChanged is called when the circuit breaker of an instance has opened or closed.
	// If several Servers share a State, only one of them calls it. Nil for no call.
	BreakerChanged func(ctx context.Context, b BreakerChange)
	// Logger gets no values of commands and answers. The default discards all records.
	Logger *slog.Logger
}

// Servers are the authentication servers. Its methods can be called from several
// goroutines.
//
// In a replicated deployment, a command whose Target names instances is sent to no others.
// With a shared database, it is sent to those first; names of instances that do not exist are
// ignored. The next instance gets a command if no byte of it was sent, or if the failure is
// one after which the command may be sent again (see soap.Retry).
type Servers struct {
	instances  []*instance
	dialect    soap.Dialect
	deployment Deployment
	policy     Policy
	attempted  func(ctx context.Context, a Attempt)
	logger     *slog.Logger
	// commandStates maps each *soap.Row to its *commandState.
	commandStates sync.Map
}

// commandState is the state that Servers has for one command.
type commandState struct {
	// turns counts the calls for which PolicyRoundRobin chose the first instance. With one
	// counter for all commands, each command of a fixed sequence would always begin on the
	// same instance.
	turns atomic.Uint64
	// guessLogged makes logGuess log only once.
	guessLogged sync.Once
}

func (s *Servers) stateOf(c *soap.Row) *commandState {
	state, ok := s.commandStates.Load(c)
	if !ok {
		state, _ = s.commandStates.LoadOrStore(c, new(commandState))
	}
	return state.(*commandState)
}

// New checks the configuration and returns Servers. It makes no connections. If an option is
// wrong, the error is an *option.Error.
func New(c Config) (*Servers, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Attempted == nil {
		c.Attempted = func(context.Context, Attempt) {}
	}
	if c.BreakerChanged == nil {
		c.BreakerChanged = func(context.Context, BreakerChange) {}
	}
	c.Deployment = cmp.Or(c.Deployment, DeploymentReplicated)
	if c.Policy == "" {
		c.Policy = PolicyFirst
		if c.Deployment == DeploymentShared {
			c.Policy = PolicyRoundRobin
		}
	}
	c.Breaker.Failures = cmp.Or(c.Breaker.Failures, DefaultFailures)
	c.Breaker.Cooldown = cmp.Or(c.Breaker.Cooldown, DefaultCooldown)
	c.SOAPVersion = cmp.Or(c.SOAPVersion, "1.1")
	setDefaults(&c.Attributes)
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &Servers{
		dialect:    soap.Dialect{Version: soap.V11, ComponentTypes: c.ComponentTypes, Attributes: c.Attributes},
		deployment: c.Deployment,
		policy:     c.Policy,
		attempted:  c.Attempted,
		logger:     c.Logger,
	}
	if c.SOAPVersion == "1.2" {
		s.dialect.Version = soap.V12
	}
	for _, i := range c.Instances {
		s.instances = append(s.instances, newInstance(i, &c, s.dialect.Version))
	}
	return s, nil
}

// check returns an error about the first option that is wrong.
func (c *Config) check() error {
	if len(c.Instances) == 0 {
		return option.Errorf("instances", "at least one is required")
	}
	if err := cmp.Or(
		option.Either("deployment", c.Deployment, DeploymentReplicated, DeploymentShared),
		option.Either("policy", c.Policy, PolicyFirst, PolicyRoundRobin),
		option.Either("soap_version", c.SOAPVersion, "1.1", "1.2"),
		option.Timeout("timeout", c.Timeout),
		option.Number("breaker.failures", c.Breaker.Failures, 1, maxFailures),
		option.Timeout("breaker.cooldown", c.Breaker.Cooldown),
		checkComponentTypes(&c.ComponentTypes),
		checkAttributes(&c.Attributes),
	); err != nil {
		return err
	}
	for i := range c.Instances {
		if err := c.Instances[i].checkLimits(); err != nil {
			return err
		}
		if err := c.Instances[i].check(c.Instances[:i]); err != nil {
			return option.In(fmt.Sprintf("instances[%d]", i), err)
		}
	}
	return nil
}

const (
	maxConnections = 10_000
	maxQueue       = 100_000
	maxFailures    = 1000
	// maxComponentType is the greatest length in the server's records, in characters.
	maxComponentType = 60
)

var instanceName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// check checks the options that each instance has for itself. earlier are the instances before
// it.
func (i *Instance) check(earlier []Instance) error {
	if !instanceName.MatchString(i.Name) {
		return option.Errorf("name", "must have 1 to 64 letters, digits, dots, underscores and hyphens")
	}
	if i.URL == nil || i.Transport == nil {
		return errors.New("URL or transport is missing")
	}
	for _, other := range earlier {
		if other.Name == i.Name {
			return option.Errorf("name", "is the name of an earlier instance")
		}
	}
	return checkURL(i.URL)
}

// checkLimits checks the limits. In the configuration, they are options of all instances
// together.
func (i *Instance) checkLimits() error {
	if err := option.Number("max_connections", i.MaxConnections, 1, maxConnections); err != nil {
		return err
	}
	if most := i.MaxConnections - 1; i.ReservedConnections < 0 || i.ReservedConnections > most {
		return option.Errorf("reserved_connections", "must be from 0 to %d, one less than max_connections", most)
	}
	if i.MaxWaiting < 0 || i.MaxWaiting > i.MaxConnections {
		return option.Errorf("max_waiting", "must be from 1 to %d, the number of max_connections", i.MaxConnections)
	}
	return option.Number("max_queue", i.MaxQueue, 0, maxQueue)
}

// invalidAddress is the problem with a text that is not an https address.
const invalidAddress = "must be an address such as https://host:8888/"

// ParseURL parses the address of an instance and normalizes it: the host name is in lower case
// and the path is not empty. It accepts addresses that New refuses. The error is an
// *option.Error that does not contain the text.
func ParseURL(text string) (*url.URL, error) {
	if strings.ContainsFunc(text, unicode.IsSpace) {
		return nil, option.Errorf("url", "must have no white space")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, option.Errorf("url", invalidAddress)
	}
	// Only ASCII letters are lowered. strings.ToLower would turn the Kelvin sign into a k,
	// so that New could not refuse it.
	u.Host = strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, u.Host)
	if u.Path == "" {
		u.Path = "/"
	}
	return u, nil
}

func checkURL(u *url.URL) error {
	// Only the zone of an IPv6 address has a percent sign.
	if u.Scheme != "https" || u.Hostname() == "" || u.Host[0] != '[' && strings.Contains(u.Host, "%") {
		return option.Errorf("url", invalidAddress)
	}
	if strings.ContainsFunc(u.Host, func(r rune) bool { return r > unicode.MaxASCII }) {
		return option.Errorf("url", "must have a host name in ASCII, such as xn--bcher-kva.example for bücher.example")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return option.Errorf("url", "must have no user, query or fragment")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return option.Errorf("url", "must have a port from 1 to 65535, or none")
		}
	}
	return nil
}

// checkComponentTypes refuses names that the server cannot store.
func checkComponentTypes(t *ComponentTypes) error {
	for _, n := range []struct{ family, name string }{
		{"provisioning", t.Provisioning},
		{"authentication", t.Authentication},
		{"signature", t.Signature},
		{"notification", t.Notification},
	} {
		if utf8.RuneCountInString(n.name) > maxComponentType || !soap.IsXMLText(n.name) ||
			strings.ContainsFunc(n.name, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return option.Errorf("component_types."+n.family, "must have at most %d printable characters", maxComponentType)
		}
	}
	return nil
}

// setDefaults fills in the names of attributes that are not configured.
func setDefaults(a *Attributes) {
	a.ActivationMessage = cmp.Or(a.ActivationMessage, "PROVFLD_ACTIVATION_MESSAGE")
	a.InstanceActivationMessage = cmp.Or(a.InstanceActivationMessage, "PROVFLD_INSTANCE_ACTIVATION_MESSAGE")
	a.EventReactivationCounter = cmp.Or(a.EventReactivationCounter, "PROVFLD_EVENT_REACTIVATION_COUNTER")
}

// checkAttributes refuses texts that cannot be names of attributes.
func checkAttributes(a *Attributes) error {
	for _, n := range []struct{ what, name string }{
		{"activation_message", a.ActivationMessage},
		{"instance_activation_message", a.InstanceActivationMessage},
		{"event_reactivation_counter", a.EventReactivationCounter},
		{"device_description", a.DeviceDescription},
	} {
		if n.name != "" && !soap.ValidAttributeName(n.name) {
			return option.Errorf("attributes."+n.what, "must have 1 to 64 letters, digits and underscores")
		}
	}
	return nil
}

// instance returns the instance with that name, or nil.
func (s *Servers) instance(name string) *instance {
	for _, in := range s.instances {
		if in.name == name {
			return in
		}
	}
	return nil
}
