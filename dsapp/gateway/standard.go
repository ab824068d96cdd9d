package gateway

import (
	"cmp"
	"context"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// enrolStandard registers a user for a standard licence.
func (g *Gateway) enrolStandard(ctx context.Context, r RegisterActivationRequest) (enrolled, error) {
	answer, instance, err := authserver.Call(ctx, g.servers, authserver.Target{}, soap.Register, soap.RegisterRequest{
		UserID: r.UserID, Domain: r.Domain, StaticPassword: r.StaticPassword, SerialNumber: r.SerialNumber,
	})
	if err != nil {
		return enrolled{}, serverError(err)
	}
	e := enrolled{
		instance:     instance,
		serialNumber: cmp.Or(answer.SerialNumber, string(r.SerialNumber)),
	}
	if e.data.ActivationCode, err = form.Parse[form.ActivationCode](answer.ActivationCode); err != nil {
		e.unusable = badAnswer("activation code of instance %q %w", instance, err)
	}
	if e.data.EventReactivationCounter, err = form.Parse[form.EventCounter](answer.EventReactivationCounter); err != nil {
		e.unusable = badAnswer("event reactivation counter of instance %q %w", instance, err)
	}
	// That a licence can be asked for is not documented: the server may ignore it.
	if r.SerialNumber != "" && e.serialNumber != string(r.SerialNumber) {
		e.unusable = badAnswer("instance %q registered another licence than was asked for", instance)
	}
	return e, nil
}

// ActivateStandardRequest completes the activation of a standard licence.
type ActivateStandardRequest struct {
	RegistrationIdentifier form.Identifier
	// Response is the device's first one-time password. Either it or
	// DerivationCode is given.
	Response form.Response
	// DerivationCode binds the device.
	DerivationCode form.DerivationCode
}

// ActivateStandard completes the activation of a standard licence at the instance
// that holds the registration. Its success removes the registration.
//
// An unknown registration of the gateway's own exchange is always refused: the
// authentication server would have to be told whose it is. That of a relayed
// exchange, which is told the identifier only, is forwarded if unknown ones are.
// Every refusal is audited, of a server's with the instance that refused.
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
	return g.confirm(ctx, c, r.RegistrationIdentifier, f)
}
