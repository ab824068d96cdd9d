package gateway

import (
	"cmp"
	"context"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// registerStandard registers a user for a standard licence.
func (g *Gateway) registerStandard(ctx context.Context, r RegisterActivationRequest) (serverRegistration, error) {
	answer, instance, err := authserver.Call(ctx, g.servers, authserver.Target{}, soap.Register, soap.RegisterRequest{
		UserID: r.UserID, Domain: r.Domain, StaticPassword: r.StaticPassword, SerialNumber: r.SerialNumber,
	})
	if err != nil {
		return serverRegistration{}, fromServer(err)
	}
	e := serverRegistration{
		instance:     instance,
		serialNumber: cmp.Or(answer.SerialNumber, string(r.SerialNumber)),
	}
	if e.data.ActivationCode, err = form.Parse[form.ActivationCode](answer.ActivationCode); err != nil {
		e.unusable = badAnswerf("activation code of instance %q %w", instance, err)
	}
	if e.data.EventReactivationCounter, err = form.Parse[form.EventCounter](answer.EventReactivationCounter); err != nil {
		e.unusable = badAnswerf("event reactivation counter of instance %q %w", instance, err)
	}
	// The server may ignore the serial number: the vendor does not document whether a
	// licence can be chosen.
	if r.SerialNumber != "" && e.serialNumber != string(r.SerialNumber) {
		e.unusable = badAnswerf("instance %q registered another licence than the one asked for", instance)
	}
	return e, nil
}

// ActivateStandardRequest completes the activation of a standard licence.
type ActivateStandardRequest struct {
	RegistrationIdentifier form.Identifier
	// Response is the device's first one-time password. Exactly one of Response and
	// DerivationCode is given.
	Response form.Response
	// DerivationCode binds the licence to the device.
	DerivationCode form.DerivationCode
}

// ActivateStandard completes the activation of a standard licence at the instance that
// holds the registration. Its success removes the registration.
//
// With the gateway's own exchange an unknown registration is always refused, because the
// authentication server needs its user. With ExchangeRelay the server needs only the
// identifier, so that unknown registrations are forwarded if Config.UnknownRegistrations
// says so. Every refusal is audited, one of a server with its instance.
func (g *Gateway) ActivateStandard(ctx context.Context, c Caller, r ActivateStandardRequest) (_ ActivateResult, err error) {
	defer func() { g.logFailure(ctx, OpActivateStandard, err) }()
	switch {
	case r.Response == "" && r.DerivationCode == "":
		return ActivateResult{}, &InvalidError{Member: MemberResponse, Problem: "must not be empty without a derivation code"}
	case r.Response != "" && r.DerivationCode != "":
		return ActivateResult{}, &InvalidError{Member: MemberDerivationCode, Problem: "must be left out with a response"}
	}
	f := confirmation{
		operation: OpActivateStandard,
		kinds:     []activation.Kind{activation.KindStandard},
		send: func(ctx context.Context, a activation.Admission) (soap.Activated, string, error) {
			return authserver.Call(ctx, g.servers, authserver.At(a.Instance), soap.Activate, soap.ActivateRequest{
				UserID:         a.UserID,
				Domain:         a.Domain,
				Response:       r.Response,
				DerivationCode: r.DerivationCode,
			})
		},
	}
	if g.relay {
		f.kinds = []activation.Kind{activation.KindAffinity}
		f.forward = g.forwardUnknown
		f.send = func(ctx context.Context, a activation.Admission) (soap.Activated, string, error) {
			return authserver.Call(ctx, g.servers, authserver.At(a.Instance), soap.DSAPPSRPActivate, soap.DSAPPSRPActivateRequest{
				RegistrationID: r.RegistrationIdentifier,
				Response:       r.Response,
				DerivationCode: r.DerivationCode,
			})
		}
	}
	return g.confirm(ctx, c, r.RegistrationIdentifier, []string{string(r.Response), string(r.DerivationCode)}, f)
}
