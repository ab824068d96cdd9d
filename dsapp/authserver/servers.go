// Package authserver is the SOAP client of the authentication servers. A command
// is sent at most once, unless it is certain that it was not sent or harmless to
// repeat it; errors say which of these is the case. Only what one instance alone
// can have is looked for on several.
package authserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// Instance is one authentication server.
type Instance struct {
	// Name identifies the instance in results, errors, logs and registrations:
	// 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'. Unique.
	Name string
	// URL is the https address of the SOAP interface, e.g. https://oas1:8888/.
	URL *url.URL
	// Transport sends the requests. Connection set-up, TLS and idle connections are its
	// business. One with CloseIdleConnections is told to close these before a command
	// finds out whether the instance works again.
	Transport http.RoundTripper
	// MaxConnections is the number of commands in progress at a time, at least 1.
	MaxConnections int
	// ReservedConnections is how many of these are for commands of back ends only,
	// from 0 to MaxConnections-1. See ForBackEnd.
	ReservedConnections int
	// MaxWaiting is the number of commands in progress at a time for which the
	// server may wait for a person, within those that are not reserved; 0 for as
	// many as these are. One that completes a pending login waits for nobody.
	MaxWaiting int
	// MaxQueue is the number of commands that may wait for their turn; any more are
	// not sent. Back ends, front ends and commands that wait for a person have a
	// queue of this length each.
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
	// the last byte of the answer. Required.
	Timeout time.Duration
	// Breaker says when an instance gets no more commands for a while.
	// The default is DefaultFailures and DefaultCooldown.
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

// New checks the configuration. It opens no connection.
func New(c Config) (*Servers, error) {
	s := &Servers{dialect: soap.Dialect{ComponentTypes: c.ComponentTypes, Attributes: c.Attributes}, logger: c.Logger}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	switch c.SOAPVersion {
	case "", "1.1":
		s.dialect.Version = soap.V11
	case "1.2":
		s.dialect.Version = soap.V12
	default:
		return nil, fmt.Errorf("SOAP version %q is neither 1.1 nor 1.2", c.SOAPVersion)
	}
	switch c.Deployment {
	case "", DeploymentReplicated:
		s.deployment, s.policy = DeploymentReplicated, PolicyFirst
	case DeploymentShared:
		s.deployment, s.policy = DeploymentShared, PolicyRoundRobin
	default:
		return nil, fmt.Errorf("deployment %q is neither %q nor %q", c.Deployment, DeploymentReplicated, DeploymentShared)
	}
	switch c.Policy {
	case "":
	case PolicyFirst, PolicyRoundRobin:
		s.policy = c.Policy
	default:
		return nil, fmt.Errorf("policy %q is neither %q nor %q", c.Policy, PolicyFirst, PolicyRoundRobin)
	}
	if c.Timeout <= 0 {
		return nil, errors.New("timeout is not positive")
	}
	if c.Breaker == (breaker.Settings{}) {
		c.Breaker = breaker.Settings{Failures: DefaultFailures, Cooldown: DefaultCooldown}
	}
	if c.Breaker.Failures < 1 || c.Breaker.Cooldown <= 0 {
		return nil, errors.New("breaker needs a positive number of failures and a positive cooldown")
	}
	if err := checkComponents(&s.dialect.ComponentTypes); err != nil {
		return nil, err
	}
	if err := complete(&s.dialect.Attributes); err != nil {
		return nil, err
	}
	if len(c.Instances) == 0 {
		return nil, errors.New("no instances")
	}
	for _, i := range c.Instances {
		if err := i.check(); err != nil {
			return nil, fmt.Errorf("instance %q: %w", i.Name, err)
		}
		if s.instance(i.Name) != nil {
			return nil, fmt.Errorf("instance %q: name is used twice", i.Name)
		}
		s.instances = append(s.instances, newInstance(i, c.Timeout, c.Breaker, s.logger))
	}
	return s, nil
}

var instanceName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// ValidInstanceName reports whether s can be the name of an instance.
func ValidInstanceName(s string) bool { return instanceName.MatchString(s) }

func (i *Instance) check() error {
	switch {
	case !ValidInstanceName(i.Name):
		return errors.New("name is not 1 to 64 letters, digits, dots, underscores and hyphens")
	case i.URL == nil || i.URL.Scheme != "https" || i.URL.Host == "":
		return errors.New("URL is not an https URL")
	case i.URL.User != nil:
		return errors.New("URL holds a user name")
	case i.Transport == nil:
		return errors.New("transport is missing")
	case i.MaxConnections < 1:
		return errors.New("number of connections is not positive")
	case i.ReservedConnections < 0 || i.ReservedConnections >= i.MaxConnections:
		return errors.New("number of reserved connections is not from 0 to one less than all of them")
	case i.MaxWaiting < 0:
		return errors.New("number of commands that wait for a person is negative")
	case i.MaxQueue < 0:
		return errors.New("length of the queue is negative")
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
		if !soap.LegalText(n.name) || len([]rune(n.name)) > 60 {
			return fmt.Errorf("component type for %s is not a text of up to 60 characters", n.family)
		}
	}
	return nil
}

// complete fills in the defaults and refuses what cannot be a name.
func complete(a *Attributes) error {
	for _, n := range []struct {
		what       string
		name       *string
		defaulting string
	}{
		{"activation message", &a.ActivationMessage, "PROVFLD_ACTIVATION_MESSAGE"},
		{"instance activation message", &a.InstanceActivationMessage, "PROVFLD_INSTANCE_ACTIVATION_MESSAGE"},
		{"event reactivation counter", &a.EventReactivationCounter, "PROVFLD_EVENT_REACTIVATION_COUNTER"},
		{"device description", &a.DeviceDescription, ""},
	} {
		if *n.name == "" {
			*n.name = n.defaulting
			continue
		}
		if !soap.ValidAttributeName(*n.name) {
			return fmt.Errorf("attribute name %q for the %s is not 1 to 64 letters, digits and underscores", *n.name, n.what)
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
