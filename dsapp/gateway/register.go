package gateway

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// RegisterActivationRequest registers a user for an activation exchange.
type RegisterActivationRequest struct {
	UserID         form.RegisteredUser
	Domain         form.RegisteredDomain // optional
	StaticPassword form.StaticPassword
	// LicenseType is LicenseMDL if empty. In a relayed exchange it is empty, since
	// the authentication server chooses the licence.
	LicenseType form.LicenseType
	// SerialNumber of the licence; optional. It is for LicenseStandard and for
	// relayed exchanges only.
	SerialNumber form.SerialNumber
}

// RegisterActivationResult is what the user needs to activate a device.
type RegisterActivationResult struct {
	RegistrationIdentifier string
	// ActivationPassword is given out this once.
	ActivationPassword string
	// ActivationImage is the text of an activation image in upper-case hex. It
	// holds the activation password.
	ActivationImage string
	// ExpiresAt is the time after which the registration cannot be used. It is
	// zero if only the authentication server knows of the registration.
	ExpiresAt time.Time
}

// RegisterActivation registers a user with an authentication server and keeps
// what the server gave for the exchange that follows. Of a relayed exchange it
// keeps which instance it was; if that fails, what RegisterOffline says applies.
func (g *Gateway) RegisterActivation(ctx context.Context, c Caller, r RegisterActivationRequest) (_ RegisterActivationResult, err error) {
	defer func() { g.logFailure(ctx, OpRegisterActivation, err) }()
	kind, enrol, err := g.license(r)
	if err != nil {
		return RegisterActivationResult{}, err
	}
	release, err := g.reserve(ctx)
	if err != nil {
		return RegisterActivationResult{}, err
	}
	defer release()
	registration, e, err := g.register(ctx, c, OpRegisterActivation, kind, r, enrol)
	if err != nil {
		return RegisterActivationResult{}, err
	}
	registered, err := g.keep(ctx, c, OpRegisterActivation, registration)
	if err != nil {
		return RegisterActivationResult{}, err
	}
	registration.Identifier = registered.Identifier
	g.audit(ctx, c, OpRegisterActivation, registrationEvent(AuditRegistered, registration))
	// The authentication server chose the password of a relayed exchange.
	password := cmp.Or(e.password, registered.Password)
	return RegisterActivationResult{
		RegistrationIdentifier: string(registered.Identifier),
		ActivationPassword:     password,
		ActivationImage:        activationImage(string(r.UserID), string(r.Domain), string(registered.Identifier), password, cmp.Or(e.gatewayID, g.gatewayID)),
		ExpiresAt:              registered.ExpiresAt,
	}, nil
}

// license tells how the licence that is asked for is registered and kept.
func (g *Gateway) license(r RegisterActivationRequest) (activation.Kind, enrolment, error) {
	switch {
	case g.relay && r.LicenseType != "":
		return "", nil, &InvalidError{Member: MemberLicenseType, Problem: "must be left out: the authentication server chooses the licence"}
	case g.relay:
		return activation.KindAffinity, g.enrolRelayed, nil
	case r.LicenseType == form.LicenseStandard:
		return activation.KindStandard, g.enrolStandard, nil
	case r.SerialNumber != "":
		// A multi-device licence is chosen by the authentication server. Ignoring
		// the member would register another licence than the caller asked for.
		return "", nil, &InvalidError{Member: MemberSerialNumber, Problem: `is for licence type "standard" only`}
	}
	return activation.KindMDL, g.enrolMDL, nil
}

// RegisterOfflineRequest registers a user for an activation by an image of
// Activation Message 1.
type RegisterOfflineRequest struct {
	UserID         form.RegisteredUser
	Domain         form.RegisteredDomain // optional
	StaticPassword form.StaticPassword
}

// RegisterOfflineResult is what the user needs to activate a device.
type RegisterOfflineResult struct {
	RegistrationIdentifier string
	// ActivationMessageImage is Activation Message 1 in upper-case hex.
	ActivationMessageImage string
}

// RegisterOffline registers a user with an authentication server, remembers
// which instance it was and returns Activation Message 1.
//
// If the store fails after the server's success, the answer depends on what is
// done with unknown registrations. Where they are forwarded, the activation goes
// on without the memory and the loss is reported; where they are refused, it
// could never be completed, and the operation fails.
func (g *Gateway) RegisterOffline(ctx context.Context, c Caller, r RegisterOfflineRequest) (_ RegisterOfflineResult, err error) {
	defer func() { g.logFailure(ctx, OpRegisterOffline, err) }()
	release, err := g.reserve(ctx)
	if err != nil {
		return RegisterOfflineResult{}, err
	}
	defer release()
	registration, e, err := g.register(ctx, c, OpRegisterOffline, activation.KindAffinity,
		RegisterActivationRequest{UserID: r.UserID, Domain: r.Domain, StaticPassword: r.StaticPassword}, g.enrolMDL)
	if err != nil {
		return RegisterOfflineResult{}, err
	}
	if _, err := g.keep(ctx, c, OpRegisterOffline, registration); err != nil {
		return RegisterOfflineResult{}, err
	}
	g.audit(ctx, c, OpRegisterOffline, registrationEvent(AuditRegisteredOffline, registration))
	return RegisterOfflineResult{RegistrationIdentifier: string(registration.Identifier), ActivationMessageImage: string(e.data.ActivationMessage)}, nil
}

// enrolled is what an authentication server answered to a registration.
type enrolled struct {
	instance     string
	identifier   string // empty if the server gives none
	serialNumber string
	data         activation.ActivationData
	// password and gatewayID are those of a relayed exchange.
	password  string
	gatewayID string
	// unusable tells why the registration that was made cannot be used; nil if it can.
	unusable error
}

// enrolment has an authentication server register a user. The error is of this
// package and says that no registration is known to have been made.
type enrolment func(context.Context, RegisterActivationRequest) (enrolled, error)

// enrolMDL registers a user for a multi-device licence.
func (g *Gateway) enrolMDL(ctx context.Context, r RegisterActivationRequest) (enrolled, error) {
	answer, instance, err := authserver.Call(ctx, g.servers, authserver.Target{}, soap.MDLRegister, soap.MDLRegisterRequest{
		UserID: r.UserID, Domain: r.Domain, StaticPassword: r.StaticPassword,
	})
	if err != nil {
		return enrolled{}, serverError(err)
	}
	e := enrolled{instance: instance, identifier: answer.RegistrationID, serialNumber: answer.SerialNumber}
	e.data.ActivationMessage, err = message[form.ActivationMessage](answer.ActivationMessage)
	if err != nil {
		e.unusable = badAnswer("activation message of instance %q %w", instance, err)
	}
	return e, nil
}

// reserve reserves room in the store. A registration counts towards the limits of the
// licence: none is made that could not be kept.
func (g *Gateway) reserve(ctx context.Context) (release func(), err error) {
	release, err = g.activation.Reserve(ctx)
	if err != nil {
		return nil, activationError(err)
	}
	return release, nil
}

// register has an authentication server register the user, and returns the
// registration to keep and the server's answer.
func (g *Gateway) register(
	ctx context.Context, c Caller, op Operation, kind activation.Kind, r RegisterActivationRequest, enrol enrolment,
) (activation.Registration, enrolled, error) {
	// The authentication server's own lifetime begins during the call.
	started := g.now()
	e, err := enrol(c.priority(ctx), r)
	if err != nil {
		event := AuditEvent{Action: AuditRegistrationRefused, Subject: form.Subject{UserID: string(r.UserID), Domain: string(r.Domain), SerialNumber: string(r.SerialNumber)}}
		return activation.Registration{}, enrolled{}, g.auditRefusal(ctx, c, op, event, err)
	}
	identifier, err := form.Parse[form.Identifier](e.identifier)
	// Of a standard licence no identifier is known but the gateway's own.
	if err != nil && kind != activation.KindStandard {
		e.unusable = badAnswer("registration identifier of instance %q is not acceptable", e.instance)
	}
	if problem := form.StoredTextProblem(e.serialNumber); problem != "" {
		e.serialNumber, e.unusable = "", badAnswer("serial number of instance %q %s", e.instance, problem)
	}
	registration := activation.Registration{
		Identifier: identifier,
		Kind:       kind,
		Subject:    form.Subject{UserID: string(r.UserID), Domain: string(r.Domain), SerialNumber: e.serialNumber, Instance: e.instance},
		Started:    started,
	}
	if e.unusable != nil {
		return activation.Registration{}, enrolled{}, g.registrationError(ctx, c, op, registration, e.unusable)
	}
	if kind != activation.KindAffinity {
		registration.Data = e.data
	}
	return registration, e, nil
}

// keep keeps a registration that an authentication server made. An activation
// that needs no more than to know the instance goes on without, if unknown
// registrations are forwarded: that it was not kept is then reported and no error.
func (g *Gateway) keep(ctx context.Context, c Caller, op Operation, r activation.Registration) (activation.Registered, error) {
	registered, err := g.activation.Register(ctx, r)
	if err == nil {
		return registered, nil
	}
	err = g.registrationError(ctx, c, op, r, err)
	if _, refused := errors.AsType[*Refusal](err); refused || r.Kind != activation.KindAffinity || !g.forwardUnknown {
		return activation.Registered{}, err
	}
	g.logger.LogAttrs(ctx, slog.LevelError, "the instance of a registration could not be kept",
		slog.String("operation", string(op)), slog.String("registration", string(r.Identifier)), slog.Any("error", err))
	return activation.Registered{Identifier: r.Identifier}, nil
}

// registrationError reports that a registration made by an authentication
// server was not kept, and why: err is a *Failure if the registration cannot be
// used, otherwise the activation service's.
func (g *Gateway) registrationError(ctx context.Context, c Caller, op Operation, r activation.Registration, err error) error {
	if errors.Is(err, activation.ErrExists) {
		g.audit(ctx, c, op, registrationEvent(AuditIdentifierExists, r))
		return &Refusal{Codes: existsCodes}
	}
	g.audit(ctx, c, op, registrationEvent(AuditRegistrationLost, r))
	if failure, ok := errors.AsType[*Failure](err); ok {
		return failure
	}
	// No time to ask again: the next request makes one more registration.
	return &Failure{Kind: Internal, Err: fmt.Errorf("keeping a registration: %w", err)}
}

func registrationEvent(action AuditAction, r activation.Registration) AuditEvent {
	return AuditEvent{
		Action:       action,
		Registration: r.Identifier,
		Subject:      r.Subject,
	}
}

// activationImage is the text that the user's application reads from an
// activation image: format version 01, message type 01, then the registration.
func activationImage(userID, domain, identifier, password, gatewayID string) string {
	text := strings.Join([]string{"01", "01", userID, domain, identifier, password, gatewayID}, form.ImageSeparator)
	return strings.ToUpper(hex.EncodeToString([]byte(text)))
}

// message returns a message of an authentication server in upper-case hex.
func message[T form.Value](text string) (T, error) { return form.Parse[T](strings.ToUpper(text)) }
