package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
)

// LicenseType is the type of the licence that a registration is for.
type LicenseType string

// The licence types.
const (
	// LicenseMDL is a multi-device licence.
	LicenseMDL LicenseType = "mdl"
	// LicenseStandard is a licence for one device.
	LicenseStandard LicenseType = "standard"
)

// RegisterActivationRequest registers a user for an activation exchange.
type RegisterActivationRequest struct {
	UserID         string
	Domain         string // optional
	StaticPassword string
	LicenseType    LicenseType // LicenseMDL if empty
	SerialNumber   string      // for LicenseStandard only
}

// RegisterActivationResult is what the user needs to activate a device.
type RegisterActivationResult struct {
	RegistrationIdentifier string
	// ActivationPassword is given out this once.
	ActivationPassword string
	// ActivationImage is the text of an activation image in upper-case hex. It
	// holds the activation password.
	ActivationImage string
	// ExpiresAt is the time after which the registration cannot be used.
	ExpiresAt time.Time
}

// RegisterActivation registers a user with an authentication server and keeps
// what the server gave for the exchange that follows.
func (g *Gateway) RegisterActivation(ctx context.Context, c Caller, r RegisterActivationRequest) (RegisterActivationResult, error) {
	return observed(ctx, g, OpRegisterActivation, func() (RegisterActivationResult, error) {
		if err := checkUser(r.UserID, r.Domain, r.StaticPassword); err != nil {
			return RegisterActivationResult{}, err
		}
		switch r.LicenseType {
		case "", LicenseMDL:
		case LicenseStandard:
			return RegisterActivationResult{}, &InvalidError{Member: MemberLicenseType, Problem: `"standard" is not supported yet`}
		default:
			return RegisterActivationResult{}, &InvalidError{Member: MemberLicenseType, Problem: `must be "mdl" or "standard"`}
		}
		// A multi-device licence is chosen by the authentication server. Ignoring
		// the member would register another licence than the caller asked for.
		if r.SerialNumber != "" {
			return RegisterActivationResult{}, &InvalidError{Member: MemberSerialNumber, Problem: `is for licence type "standard" only`}
		}
		registration, _, err := g.register(ctx, OpRegisterActivation, activation.KindMDL, r.UserID, r.Domain, r.StaticPassword)
		if err != nil {
			return RegisterActivationResult{}, err
		}
		registered, err := g.activation.Register(ctx, registration)
		if err != nil {
			return RegisterActivationResult{}, g.registrationError(ctx, c, OpRegisterActivation, registration, err)
		}
		g.audit(ctx, c, OpRegisterActivation, registrationEvent(AuditRegistered, registration))
		return RegisterActivationResult{
			RegistrationIdentifier: registered.Identifier,
			ActivationPassword:     registered.Password,
			ActivationImage:        g.activationImage(r.UserID, r.Domain, registered),
			ExpiresAt:              registered.ExpiresAt,
		}, nil
	})
}

// RegisterOfflineRequest registers a user for an activation by an image of
// Activation Message 1.
type RegisterOfflineRequest struct {
	UserID         string
	Domain         string // optional
	StaticPassword string
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
func (g *Gateway) RegisterOffline(ctx context.Context, c Caller, r RegisterOfflineRequest) (RegisterOfflineResult, error) {
	return observed(ctx, g, OpRegisterOffline, func() (RegisterOfflineResult, error) {
		if err := checkUser(r.UserID, r.Domain, r.StaticPassword); err != nil {
			return RegisterOfflineResult{}, err
		}
		registration, message, err := g.register(ctx, OpRegisterOffline, activation.KindAffinity, r.UserID, r.Domain, r.StaticPassword)
		if err != nil {
			return RegisterOfflineResult{}, err
		}
		result := RegisterOfflineResult{RegistrationIdentifier: registration.Identifier, ActivationMessageImage: message}
		if _, err := g.activation.Register(ctx, registration); err != nil {
			err = g.registrationError(ctx, c, OpRegisterOffline, registration, err)
			if !g.forwardUnknown || outcome(err) == Refused {
				return RegisterOfflineResult{}, err
			}
			g.logger.LogAttrs(ctx, slog.LevelError, "the instance of a registration could not be kept",
				slog.String("operation", string(OpRegisterOffline)), slog.String("registration", registration.Identifier), slog.Any("error", err))
		}
		g.audit(ctx, c, OpRegisterOffline, registrationEvent(AuditRegisteredOffline, registration))
		return result, nil
	})
}

// register makes sure that the store takes writes, registers the user for a
// multi-device licence and returns the registration to keep and Activation
// Message 1.
func (g *Gateway) register(ctx context.Context, op Operation, kind activation.Kind, userID, domain, staticPassword string) (activation.Registration, string, error) {
	// A registration counts towards the limits of the licence: none is made that
	// could not be kept.
	if err := g.activation.Writable(ctx); err != nil {
		g.storeTrouble(ctx, op, err)
		return activation.Registration{}, "", activationError(err)
	}
	// The authentication server's own lifetime begins during the call.
	started := g.now()
	answer, err := call(ctx, g, CommandMDLRegister, func(ctx context.Context) (authserver.MDLRegistered, string, error) {
		a, err := g.servers.MDLRegister(ctx, authserver.MDLRegister{UserID: userID, Domain: domain, StaticPassword: staticPassword})
		return a, a.Instance, err
	})
	if err != nil {
		return activation.Registration{}, "", serverError(err)
	}
	message, err := messageHex(answer.ActivationMessage)
	switch {
	case err != nil:
		err = fmt.Errorf("activation message of instance %q: %w", answer.Instance, err)
	case !activation.ValidIdentifier(answer.RegistrationID):
		err = fmt.Errorf("registration identifier of instance %q is not acceptable", answer.Instance)
	case factProblem(answer.SerialNumber) != "":
		err = fmt.Errorf("serial number of instance %q %s", answer.Instance, factProblem(answer.SerialNumber))
	}
	if err != nil {
		return activation.Registration{}, "", &Failure{Kind: BadAnswer, Err: err}
	}
	registration := activation.Registration{
		Identifier:   answer.RegistrationID,
		Kind:         kind,
		UserID:       userID,
		Domain:       domain,
		SerialNumber: answer.SerialNumber,
		Instance:     answer.Instance,
		Started:      started,
	}
	if kind == activation.KindMDL {
		registration.Data = activation.ActivationData{ActivationMessage: message}
	}
	return registration, message, nil
}

// registrationError reports that a registration made by an authentication
// server was not kept, and why.
func (g *Gateway) registrationError(ctx context.Context, c Caller, op Operation, r activation.Registration, err error) error {
	if errors.Is(err, activation.ErrExists) {
		g.audit(ctx, c, op, registrationEvent(AuditIdentifierExists, r))
		return &Refusal{Codes: existsCodes}
	}
	g.observer.StoreTrouble(ctx, StoreTrouble{Operation: op, Lost: true})
	g.audit(ctx, c, op, registrationEvent(AuditRegistrationLost, r))
	// No time to ask again: the next request makes one more registration.
	return &Failure{Kind: Internal, Err: fmt.Errorf("keeping a registration: %w", err)}
}

func registrationEvent(action AuditAction, r activation.Registration) AuditEvent {
	return AuditEvent{
		Action:       action,
		Registration: r.Identifier,
		UserID:       r.UserID,
		Domain:       r.Domain,
		SerialNumber: r.SerialNumber,
		Instance:     r.Instance,
	}
}

// activationImage is the text that the user's application reads from an
// activation image: format version 01, message type 01, then the registration.
func (g *Gateway) activationImage(userID, domain string, r activation.Registered) string {
	text := strings.Join([]string{"01", "01", userID, domain, r.Identifier, r.Password, g.gatewayID}, imageSeparator)
	return strings.ToUpper(hex.EncodeToString([]byte(text)))
}

// messageHex returns an activation message of an authentication server in
// upper-case hex.
func messageHex(message string) (string, error) {
	if message == "" {
		return "", errors.New("is missing")
	}
	if _, err := hex.DecodeString(message); err != nil {
		return "", errors.New("is not hex")
	}
	return strings.ToUpper(message), nil
}
