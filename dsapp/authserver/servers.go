// Package authserver is the SOAP client of the authentication servers. A command
// is sent at most once, unless it is certain that it was not sent or harmless to
// repeat it; errors say which of these is the case.
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
	"time"
)

// Instance is one authentication server.
type Instance struct {
	// Name identifies the instance in results, errors, logs and registrations:
	// 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'. Unique.
	Name string
	// URL is the https address of the SOAP interface, e.g. https://oas1:8888/.
	URL *url.URL
	// Transport sends the requests. Connection set-up, TLS and idle connections
	// are its business.
	Transport http.RoundTripper
	// MaxConnections is the number of commands in progress at a time, at least 1.
	MaxConnections int
	// MaxQueue is the number of commands that may wait for one of these to end;
	// any more are not sent.
	MaxQueue int
	// Load counts what the server is busy with; nil for one of its own.
	Load *Load
}

// ComponentTypes are the names under which the authentication servers know this
// client, up to 60 characters each. With the client's address they select the
// policy for a command.
type ComponentTypes struct {
	Provisioning   string
	Authentication string
	Signature      string
	Notification   string
}

func (t *ComponentTypes) of(c component) string {
	switch c {
	case authenticationComponent:
		return t.Authentication
	case signatureComponent:
		return t.Signature
	case notificationComponent:
		return t.Notification
	}
	return t.Provisioning
}

// Attributes are the names of attributes that are not public.
type Attributes struct {
	// ActivationMessage carries Activation Message 1. Default PROVFLD_ACTIVATION_MESSAGE.
	ActivationMessage string
	// InstanceActivationMessage carries Activation Message 2. Default PROVFLD_INSTANCE_ACTIVATION_MESSAGE.
	InstanceActivationMessage string
	// EventReactivationCounter of a standard licence. Default PROVFLD_EVENT_REACTIVATION_COUNTER.
	EventReactivationCounter string
	// DeviceDescription carries the description of a new device. If empty, the
	// description is not sent.
	DeviceDescription string
}

// Config configures Servers.
type Config struct {
	// Instances in the order in which they are preferred, at least one.
	Instances []Instance
	// SOAPVersion is "1.1" (default) or "1.2".
	SOAPVersion string
	// Timeout bounds one call of one instance, from waiting for a connection to
	// the last byte of the answer. Required.
	Timeout        time.Duration
	ComponentTypes ComponentTypes
	Attributes     Attributes
	// Logger gets no values of commands and answers. The default discards.
	Logger *slog.Logger
}

// Servers are the authentication servers. Its methods can be called from several
// goroutines.
type Servers struct {
	instances  []*instance
	version    soapVersion
	components ComponentTypes
	attributes Attributes
	logger     *slog.Logger
	// guessed makes each guess of an attribute's name logged once.
	guessed [len(commands)]sync.Once
}

// New checks the configuration. It opens no connection.
func New(c Config) (*Servers, error) {
	s := &Servers{components: c.ComponentTypes, attributes: c.Attributes, logger: c.Logger}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	switch c.SOAPVersion {
	case "", "1.1":
		s.version = soap11
	case "1.2":
		s.version = soap12
	default:
		return nil, fmt.Errorf("SOAP version %q is neither 1.1 nor 1.2", c.SOAPVersion)
	}
	if c.Timeout <= 0 {
		return nil, errors.New("timeout is not positive")
	}
	if err := s.components.check(); err != nil {
		return nil, err
	}
	if err := s.attributes.complete(); err != nil {
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
		s.instances = append(s.instances, newInstance(i, c.Timeout))
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
	case i.MaxQueue < 0:
		return errors.New("length of the queue is negative")
	}
	return nil
}

// check refuses names that the server's records cannot hold.
func (t *ComponentTypes) check() error {
	for _, n := range []struct{ family, name string }{
		{"provisioning", t.Provisioning},
		{"authentication", t.Authentication},
		{"signature", t.Signature},
		{"notification", t.Notification},
	} {
		if !legalText(n.name) || len([]rune(n.name)) > 60 {
			return fmt.Errorf("component type for %s is not a text of up to 60 characters", n.family)
		}
	}
	return nil
}

// complete fills in the defaults and refuses what cannot be a name.
func (a *Attributes) complete() error {
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
		if !isAttributeName(*n.name) {
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

// call carries out a command on the instance of that name or, without a name, on
// the first instance that takes it. It gives the outputs and the name of the
// instance.
func (s *Servers) call(ctx context.Context, name string, id commandID, in values) (values, string, error) {
	c := &commands[id]
	in[c.componentField()] = s.components.of(c.component)
	request, err := c.encode(s.version, in, &s.attributes)
	if err != nil {
		return nil, "", &CallError{Instance: name, Operation: c.String(), Reason: ErrNotSent, Cause: err}
	}
	defer clear(request)

	candidates := s.instances
	if name != "" {
		in := s.instance(name)
		if in == nil {
			return nil, "", &CallError{Instance: name, Operation: c.String(), Reason: ErrNotSent, Cause: errors.New("no such instance")}
		}
		candidates = []*instance{in}
	}
	var failure error
	unknown := 0
	for _, candidate := range candidates {
		out, err := s.try(ctx, candidate, id, request, in)
		if err == nil {
			return out, candidate.name, nil
		}
		if outcomeUnknown(err) {
			unknown++
		}
		// A later instance that was not even reached does not undo what an
		// earlier one may have done.
		if failure == nil || !errors.Is(err, ErrNotSent) {
			failure = err
		}
		if ctx.Err() != nil || unknown > 1 || !c.retry.permits(err) {
			break
		}
	}
	return nil, "", failure
}

// try carries out a command on one instance, logs how that went and picks the
// outputs from the answer.
func (s *Servers) try(ctx context.Context, to *instance, id commandID, request []byte, in values) (values, error) {
	c := &commands[id]
	start := time.Now()
	got, err := to.exchange(ctx, c, s.version, request)
	var out values
	var guessed string
	if fault, ok := errors.AsType[*Fault](err); ok {
		fault.Code = c.blot(in, fault.Code)
		fault.String = c.blot(in, fault.String)
	}
	if err == nil {
		for i := range got.stack {
			got.stack[i].Description = c.blot(in, got.stack[i].Description)
		}
		if got.codes.Success() {
			out, guessed, err = c.results(got, &s.attributes)
			if err != nil {
				err = to.failure(c, ErrBadAnswer, err)
			}
		} else {
			err = &Refusal{Instance: to.name, Codes: got.codes, Stack: got.stack}
		}
	}
	s.log(ctx, to, c, got, err, time.Since(start))
	if guessed != "" {
		s.guessed[id].Do(func() {
			s.logger.LogAttrs(ctx, slog.LevelWarn, "activation message found in an attribute that is not configured",
				slog.String("operation", c.String()), slog.String("instance", to.name), slog.String("attribute", guessed))
		})
	}
	return out, err
}
