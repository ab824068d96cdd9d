// Package authserver is the SOAP client of the authentication servers. A command
// is sent at most once, unless it is certain that it was not sent or harmless to
// repeat it; errors say which of these is the case. Only what one instance alone
// can have is looked for on several.
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

// Instance is one authentication server.
type Instance struct {
	// Name identifies the instance in results, errors, logs and registrations:
	// 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'. Unique.
	Name string
	// URL is the https address of the SOAP interface, e.g. https://oas1:8888/, without
	// user, query and fragment. See ParseURL.
	URL *url.URL
	// Transport sends the requests. Connection set-up, TLS and idle connections are its
	// business. One with CloseIdleConnections is told to close these before a command
	// finds out whether the instance works again.
	Transport http.RoundTripper
	// MaxConnections is the number of commands in progress at a time: 1 to 10000.
	MaxConnections int
	// ReservedConnections is how many of these are for commands of back ends only,
	// from 0 to MaxConnections-1. See ForBackEnd.
	ReservedConnections int
	// MaxWaiting is the number of commands in progress at a time for which the
	// server may wait for a person, within those that are not reserved; 0 for as
	// many as these are, at most MaxConnections. One that completes a pending login
	// waits for nobody.
	MaxWaiting int
	// MaxQueue is the number of commands that may wait for their turn; any more are
	// not sent: 0 to 100000. Back ends, front ends and commands that wait for a person
	// have a queue of this length each.
	MaxQueue int
	// State of the server; nil for one of its own.
	State *State
	// Probe reports whether the server can be reached, by making a connection
	// that it closes. It ends with its context at the latest. If nil, only commands
	// show that.
	Probe func(ctx context.Context) error
}

// Names that the configuration of the servers decides.
type (
	// ComponentTypes are those of this client.
	ComponentTypes = soap.ComponentTypes
	// Attributes are those of attributes that are not public.
	Attributes = soap.Attributes
)

// Deployment says where the authentication servers keep the state of a flow.
type Deployment string

const (
	// DeploymentReplicated keeps it on the instance that began the flow: users
	// and licences are replicated, but nothing that is pending.
	DeploymentReplicated Deployment = "replicated"
	// DeploymentShared keeps it in a database that all instances share.
	DeploymentShared Deployment = "shared_database"
)

// Policy chooses the instance for a command that belongs to none.
type Policy string

const (
	// PolicyFirst prefers the instances in their order.
	PolicyFirst Policy = "first"
	// PolicyRoundRobin takes turns: of each command, every call begins with the
	// next instance and prefers those that follow it.
	PolicyRoundRobin Policy = "round_robin"
)

// Defaults of Config.Breaker.
const (
	DefaultFailures = 5
	DefaultCooldown = 5 * time.Second
)

// Config configures Servers.
type Config struct {
	// Instances in their order, at least one.
	Instances []Instance
	// Deployment of the instances. The default is DeploymentReplicated.
	Deployment Deployment
	// Policy for commands that belong to no instance. The default is PolicyFirst
	// in a replicated deployment and PolicyRoundRobin with a shared database.
	Policy Policy
	// SOAPVersion is "1.1" (default) or "1.2".
	SOAPVersion string
	// Timeout bounds one call of one instance, from waiting for a connection to
	// the last byte of the answer: 10 ms to 10 min. Required.
	Timeout time.Duration
	// Breaker says when an instance gets no more commands for a while: after 1 to 1000
	// failures, 0 for DefaultFailures; for 10 ms to 10 min, 0 for DefaultCooldown.
	Breaker        breaker.Settings
	ComponentTypes ComponentTypes
	Attributes     Attributes
	// Logger gets no values of commands and answers. The default discards.
	Logger *slog.Logger
}

// Servers are the authentication servers. Its methods can be called from several
// goroutines.
//
// A command that names an instance goes nowhere else in a replicated deployment.
// With a shared database it prefers that instance, and one that does not exist is
// as good as none. As long as no byte of a command was sent, and after the
// failures that it bears, the next instance gets it.
type Servers struct {
	instances  []*instance
	dialect    soap.Dialect
	deployment Deployment
	policy     Policy
	logger     *slog.Logger
	// uses are the *usage of each *soap.Row.
	uses sync.Map
}

// usage is what is remembered of one command.
type usage struct {
	// turns count the commands that began wherever the policy says. One count for all
	// commands would send those that follow each other in a fixed order always to the
	// same instances.
	turns atomic.Uint64
	// guessed makes a guess of an attribute's name logged once.
	guessed sync.Once
}

func (s *Servers) usage(c *soap.Row) *usage {
	u, ok := s.uses.Load(c)
	if !ok {
		u, _ = s.uses.LoadOrStore(c, new(usage))
	}
	return u.(*usage)
}

// New checks the configuration. It opens no connection. The error about an option is an
// *option.Error.
func New(c Config) (*Servers, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
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
	complete(&c.Attributes)
	if err := c.check(); err != nil {
		return nil, err
	}
	s := &Servers{
		dialect:    soap.Dialect{Version: soap.V11, ComponentTypes: c.ComponentTypes, Attributes: c.Attributes},
		deployment: c.Deployment,
		policy:     c.Policy,
		logger:     c.Logger,
	}
	if c.SOAPVersion == "1.2" {
		s.dialect.Version = soap.V12
	}
	for _, i := range c.Instances {
		s.instances = append(s.instances, newInstance(i, c.Timeout, c.Breaker, s.logger))
	}
	return s, nil
}

// check returns the first error of an option.
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
		checkComponents(&c.ComponentTypes),
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
	// maxComponentType is what the server's records can hold, in characters.
	maxComponentType = 60
)

var instanceName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// check checks what is the instance's own. earlier are those before it.
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

// checkLimits checks the limits, which are options of all instances together.
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

// noAddress is the problem with a text that is no https address.
const noAddress = "must be an address such as https://host:8888/"

// ParseURL reads the address of an instance, in the one form that all spellings of it
// share. New checks the rest. The error is an *option.Error and does not show the text.
func ParseURL(text string) (*url.URL, error) {
	if strings.ContainsFunc(text, unicode.IsSpace) {
		return nil, option.Errorf("url", "must have no white space")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, option.Errorf("url", noAddress)
	}
	// ASCII only: the Kelvin sign must not become a k before New refuses it.
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
	if u.Scheme != "https" || u.Hostname() == "" {
		return option.Errorf("url", noAddress)
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

// checkComponents refuses names that the server's records cannot hold.
func checkComponents(t *ComponentTypes) error {
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

// complete fills in the defaults.
func complete(a *Attributes) {
	a.ActivationMessage = cmp.Or(a.ActivationMessage, "PROVFLD_ACTIVATION_MESSAGE")
	a.InstanceActivationMessage = cmp.Or(a.InstanceActivationMessage, "PROVFLD_INSTANCE_ACTIVATION_MESSAGE")
	a.EventReactivationCounter = cmp.Or(a.EventReactivationCounter, "PROVFLD_EVENT_REACTIVATION_COUNTER")
}

// checkAttributes refuses what cannot be a name.
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

// instance finds an instance; nil if there is none of that name.
func (s *Servers) instance(name string) *instance {
	for _, in := range s.instances {
		if in.name == name {
			return in
		}
	}
	return nil
}
