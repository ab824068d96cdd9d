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
	// LicenseType is LicenseMDL if empty. With ExchangeRelay it must be empty, because
	// the authentication server chooses the licence.
	LicenseType form.LicenseType
	// SerialNumber of the licence; optional. It is only for LicenseStandard and for
	// ExchangeRelay.
	SerialNumber form.SerialNumber
	// Profile of the exchange; the gateway's default if empty. With ExchangeRelay it must be
	// empty.
	Profile form.ProfileName
}

// RegisterActivationResult is what the user needs to activate a device.
type RegisterActivationResult struct {
	RegistrationIdentifier string
	// ActivationPassword cannot be read again later.
	ActivationPassword string
	// ActivationImage is the text of an activation image in upper-case hexadecimal
	// digits. It contains the activation password.
	ActivationImage string
	// ExpiresAt is the time after which the registration cannot be used. It is zero if
	// the gateway could not store the registration.
	ExpiresAt time.Time
}

// RegisterActivation registers a user with an authentication server and stores the
// server's activation data for the exchange that follows. With ExchangeRelay it stores
// only which instance it was. If that fails it does what RegisterOffline does then.
func (g *Gateway) RegisterActivation(ctx context.Context, c Caller, r RegisterActivationRequest) (_ RegisterActivationResult, err error) {
	defer func() { g.logFailure(ctx, OpRegisterActivation, err) }()
	kind, register, err := g.license(r)
	if err != nil {
		return RegisterActivationResult{}, err
	}
	profile, err := g.profile(r)
	if err != nil {
		return RegisterActivationResult{}, err
	}
	return keyed(ctx, g, c, OpRegisterActivation, repeatedEvent(r.UserID, r.Domain), func(ctx context.Context) (RegisterActivationResult, error) {
		return g.registerActivationOnce(ctx, c, r, kind, register, profile)
	})
}

func (g *Gateway) registerActivationOnce(
	ctx context.Context, c Caller, r RegisterActivationRequest, kind activation.Kind, register registerFunc, profile string,
) (RegisterActivationResult, error) {
	release, err := g.reserve(ctx)
	if err != nil {
		return RegisterActivationResult{}, err
	}
	defer release()
	registration, e, err := g.registerAtServer(ctx, c, OpRegisterActivation, kind, r, register)
	if err != nil {
		return RegisterActivationResult{}, err
	}
	result := func(registered activation.Registered) RegisterActivationResult {
		// The authentication server chose the password of a relayed exchange.
		password := cmp.Or(e.password, registered.Password)
		return RegisterActivationResult{
			RegistrationIdentifier: string(registered.Identifier),
			ActivationPassword:     password,
			ActivationImage:        activationImage(string(r.UserID), string(r.Domain), string(registered.Identifier), password, cmp.Or(e.gatewayID, g.gatewayID)),
			ExpiresAt:              registered.ExpiresAt,
		}
	}
	registration.Answer = answering(ctx, result)
	registered, err := g.storeRegistration(ctx, c, OpRegisterActivation, registration)
	if err != nil {
		return RegisterActivationResult{}, err
	}
	registration.Identifier = registered.Identifier
	event := registrationEvent(AuditRegistered, registration)
	event.Profile = profile
	g.audit(ctx, c, OpRegisterActivation, event)
	return result(registered), nil
}

// license returns the kind of the registration and how the licence is registered.
func (g *Gateway) license(r RegisterActivationRequest) (activation.Kind, registerFunc, error) {
	switch {
	case g.relay && r.LicenseType != "":
		return "", nil, &InvalidError{Member: MemberLicenseType, Problem: "must be left out: the authentication server chooses the licence"}
	case g.relay:
		return activation.KindAffinity, g.registerRelayed, nil
	case r.LicenseType == form.LicenseStandard:
		return activation.KindStandard, g.registerStandard, nil
	case r.SerialNumber != "":
		// The authentication server chooses the multi-device licence. Ignoring the member
		// would register another licence than the caller asked for.
		return "", nil, &InvalidError{Member: MemberSerialNumber, Problem: `is for licence type "standard" only`}
	}
	return activation.KindMDL, g.registerMDL, nil
}

// profile returns the name of the profile of the exchange; empty with ExchangeRelay.
func (g *Gateway) profile(r RegisterActivationRequest) (string, error) {
	switch {
	case !g.relay:
		name, err := g.activation.Profile(r.Profile)
		if err != nil {
			return "", fromActivation(err)
		}
		return name, nil
	case r.Profile != "":
		return "", &InvalidError{Member: MemberProfile, Problem: "must be left out: the authentication server carries out the exchange"}
	}
	return "", nil
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
	// ActivationMessageImage is Activation Message 1 in upper-case hexadecimal digits.
	ActivationMessageImage string
}

// RegisterOffline registers a user with an authentication server, stores which instance
// it was and returns Activation Message 1.
//
// If the store fails after the server's success, the answer depends on
// Config.UnknownRegistrations. With ForwardUnknown the activation can go on without the
// stored instance: the operation succeeds and the loss is reported. With RefuseUnknown
// the activation could never be completed, and the operation fails.
func (g *Gateway) RegisterOffline(ctx context.Context, c Caller, r RegisterOfflineRequest) (_ RegisterOfflineResult, err error) {
	defer func() { g.logFailure(ctx, OpRegisterOffline, err) }()
	return keyed(ctx, g, c, OpRegisterOffline, repeatedEvent(r.UserID, r.Domain), func(ctx context.Context) (RegisterOfflineResult, error) {
		return g.registerOfflineOnce(ctx, c, r)
	})
}

func (g *Gateway) registerOfflineOnce(ctx context.Context, c Caller, r RegisterOfflineRequest) (RegisterOfflineResult, error) {
	release, err := g.reserve(ctx)
	if err != nil {
		return RegisterOfflineResult{}, err
	}
	defer release()
	registration, e, err := g.registerAtServer(ctx, c, OpRegisterOffline, activation.KindAffinity,
		RegisterActivationRequest{UserID: r.UserID, Domain: r.Domain, StaticPassword: r.StaticPassword}, g.registerMDL)
	if err != nil {
		return RegisterOfflineResult{}, err
	}
	result := func(activation.Registered) RegisterOfflineResult {
		return RegisterOfflineResult{RegistrationIdentifier: string(registration.Identifier), ActivationMessageImage: string(e.data.ActivationMessage)}
	}
	registration.Answer = answering(ctx, result)
	registered, err := g.storeRegistration(ctx, c, OpRegisterOffline, registration)
	if err != nil {
		return RegisterOfflineResult{}, err
	}
	g.audit(ctx, c, OpRegisterOffline, registrationEvent(AuditRegisteredOffline, registration))
	return result(registered), nil
}

// serverRegistration is the answer of an authentication server to a registration.
type serverRegistration struct {
	instance     string
	identifier   string // empty if the server gives none
	serialNumber string
	data         activation.ActivationData
	// password and gatewayID are set by relayed exchanges only.
	password  string
	gatewayID string
	// unusable is why the registration that was made cannot be used; nil if it can.
	unusable error
}

// registerFunc registers a user with an authentication server. Its error is one of this
// package. No registration is known to exist then.
type registerFunc func(context.Context, RegisterActivationRequest) (serverRegistration, error)

// registerMDL registers a user for a multi-device licence.
func (g *Gateway) registerMDL(ctx context.Context, r RegisterActivationRequest) (serverRegistration, error) {
	answer, instance, err := authserver.Call(ctx, g.servers, authserver.Target{}, soap.MDLRegister, soap.MDLRegisterRequest{
		UserID: r.UserID, Domain: r.Domain, StaticPassword: r.StaticPassword,
	})
	if err != nil {
		return serverRegistration{}, fromServer(err)
	}
	e := serverRegistration{instance: instance, identifier: answer.RegistrationID, serialNumber: answer.SerialNumber}
	e.data.ActivationMessage, err = parseMessage[form.ActivationMessage](answer.ActivationMessage)
	if err != nil {
		e.unusable = badAnswerf("activation message of instance %q %w", instance, err)
	}
	return e, nil
}

// reserve reserves room in the store. Every registration counts towards the limits of
// the licence, so none is made that could not be stored.
func (g *Gateway) reserve(ctx context.Context) (release func(), err error) {
	release, err = g.activation.Reserve(ctx)
	if err != nil {
		return nil, fromActivation(err)
	}
	return release, nil
}

// registerAtServer registers the user with an authentication server. It returns the
// registration to store and the server's answer.
func (g *Gateway) registerAtServer(
	ctx context.Context, c Caller, op Operation, kind activation.Kind, r RegisterActivationRequest, register registerFunc,
) (activation.Registration, serverRegistration, error) {
	// The lifetime of the authentication server's registration begins during the call.
	started := g.now()
	e, err := register(c.withPriority(ctx), r)
	if err != nil {
		event := AuditEvent{Action: AuditRegistrationRefused, Subject: form.Subject{UserID: string(r.UserID), Domain: string(r.Domain), SerialNumber: string(r.SerialNumber)}}
		return activation.Registration{}, serverRegistration{}, g.auditRefusal(ctx, c, op, event, err)
	}
	identifier, err := form.Parse[form.Identifier](e.identifier)
	// For a standard licence the server gives no identifier: the gateway draws one.
	if err != nil && kind != activation.KindStandard {
		e.unusable = badAnswerf("registration identifier of instance %q is not acceptable", e.instance)
	}
	if problem := form.StoredTextProblem(e.serialNumber); problem != "" {
		e.serialNumber, e.unusable = "", badAnswerf("serial number of instance %q %s", e.instance, problem)
	}
	registration := activation.Registration{
		Identifier: identifier,
		Kind:       kind,
		Subject:    form.Subject{UserID: string(r.UserID), Domain: string(r.Domain), SerialNumber: e.serialNumber, Instance: e.instance},
		Started:    started,
	}
	if e.unusable != nil {
		return activation.Registration{}, serverRegistration{}, g.registrationError(ctx, c, op, registration, e.unusable)
	}
	if kind != activation.KindAffinity {
		registration.Data, registration.Profile = e.data, r.Profile
	}
	return registration, e, nil
}

// storeRegistration stores a registration that an authentication server made. If only
// the instance would have been stored and unknown registrations are forwarded, failing to
// store it is reported, not returned: the activation can go on.
func (g *Gateway) storeRegistration(ctx context.Context, c Caller, op Operation, r activation.Registration) (activation.Registered, error) {
	registered, err := g.activation.Register(ctx, r)
	if err == nil {
		return registered, nil
	}
	err = g.registrationError(ctx, c, op, r, err)
	if _, refused := errors.AsType[*Refusal](err); refused || r.Kind != activation.KindAffinity || !g.forwardUnknown {
		return activation.Registered{}, err
	}
	g.logger.LogAttrs(ctx, slog.LevelError, "the instance of a registration could not be stored",
		slog.String("operation", string(op)), slog.String("registration", string(r.Identifier)), slog.Any("error", err))
	return activation.Registered{Identifier: r.Identifier}, nil
}

// registrationError audits that a registration made by an authentication server was not
// stored, and returns the error of the operation. err is a *Failure if the registration
// cannot be used, otherwise the error of the activation service.
func (g *Gateway) registrationError(ctx context.Context, c Caller, op Operation, r activation.Registration, err error) error {
	if errors.Is(err, activation.ErrExists) {
		g.audit(ctx, c, op, registrationEvent(AuditIdentifierExists, r))
		return &Refusal{Codes: existsCodes}
	}
	g.audit(ctx, c, op, registrationEvent(AuditRegistrationLost, r))
	if failure, ok := errors.AsType[*Failure](err); ok {
		return failure
	}
	// Without RetryAfter, because repeating the request makes one more registration.
	return &Failure{Kind: Internal, Err: fmt.Errorf("storing a registration: %w", err)}
}

// repeatedEvent returns the audit event of a repeat, without the registration.
func repeatedEvent(userID form.RegisteredUser, domain form.RegisteredDomain) AuditEvent {
	return AuditEvent{Subject: form.Subject{UserID: string(userID), Domain: string(domain)}}
}

func registrationEvent(action AuditAction, r activation.Registration) AuditEvent {
	return AuditEvent{
		Action:       action,
		Registration: r.Identifier,
		Subject:      r.Subject,
	}
}

// activationImage returns the text that the user's application reads from an activation
// image: format version 01, message type 01, then the registration.
func activationImage(userID, domain, identifier, password, gatewayID string) string {
	text := strings.Join([]string{"01", "01", userID, domain, identifier, password, gatewayID}, form.ImageSeparator)
	return strings.ToUpper(hex.EncodeToString([]byte(text)))
}

// parseMessage returns a message of an authentication server in upper-case hexadecimal
// digits.
func parseMessage[T form.Value](text string) (T, error) { return form.Parse[T](strings.ToUpper(text)) }
