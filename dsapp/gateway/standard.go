package gateway

import (
	"cmp"
	"context"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
)

// enrolStandard registers a user for a standard licence.
func (g *Gateway) enrolStandard(ctx context.Context, r RegisterActivationRequest) (enrolled, error) {
	answer, err := call(ctx, g, CommandRegister, func(ctx context.Context) (authserver.Registered, string, error) {
		a, err := g.servers.Register(ctx, authserver.Register{
			UserID: r.UserID, Domain: r.Domain, StaticPassword: r.StaticPassword, SerialNumber: r.SerialNumber,
		})
		return a, a.Instance, err
	})
	if err != nil {
		return enrolled{}, serverError(err)
	}
	e := enrolled{
		instance:     answer.Instance,
		serialNumber: cmp.Or(answer.SerialNumber, r.SerialNumber),
		data: activation.ActivationData{
			ActivationCode:           answer.ActivationCode,
			EventReactivationCounter: answer.EventReactivationCounter,
		},
	}
	// That a licence can be asked for is not documented: the server may ignore it.
	if r.SerialNumber != "" && e.serialNumber != r.SerialNumber {
		e.unusable = badAnswer("instance %q registered another licence than was asked for", answer.Instance)
	}
	return e, nil
}

// ActivateStandardRequest completes the activation of a standard licence.
type ActivateStandardRequest struct {
	RegistrationIdentifier string
	// Response is the device's first one-time password. Either it or
	// DerivationCode is given.
	Response string
	// DerivationCode binds the device.
	DerivationCode string
}

// ActivateStandard completes the activation of a standard licence at the instance
// that holds the registration. Its success removes the registration.
//
// An unknown registration of the gateway's own exchange is always refused: the
// authentication server would have to be told whose it is. That of a relayed
// exchange, which is told the identifier only, is forwarded if unknown ones are.
// Every refusal is audited, of a server's with the instance that refused.
func (g *Gateway) ActivateStandard(ctx context.Context, c Caller, r ActivateStandardRequest) (ActivateResult, error) {
	return observed(ctx, g, OpActivateStandard, func() (ActivateResult, error) {
		switch {
		case r.Response == "" && r.DerivationCode == "":
			return ActivateResult{}, &InvalidError{Member: MemberResponse, Problem: "must not be empty without a derivation code"}
		case r.Response != "" && r.DerivationCode != "":
			return ActivateResult{}, &InvalidError{Member: MemberDerivationCode, Problem: "must be left out with a response"}
		}
		f := confirmation{
			operation: OpActivateStandard,
			command:   CommandActivate,
			kinds:     []activation.Kind{activation.KindStandard},
			send: func(ctx context.Context, a activation.Admission) (authserver.Activated, error) {
				return g.servers.Activate(ctx, a.Instance, authserver.Activate{
					UserID:         a.UserID,
					Domain:         a.Domain,
					Response:       r.Response,
					DerivationCode: r.DerivationCode,
				})
			},
		}
		if g.relay {
			f.command = CommandDSAPPSRPActivate
			f.kinds = []activation.Kind{activation.KindAffinity}
			f.forward = g.forwardUnknown
			f.send = func(ctx context.Context, a activation.Admission) (authserver.Activated, error) {
				return g.servers.DSAPPSRPActivate(ctx, a.Instance, authserver.DSAPPSRPActivate{
					RegistrationID: r.RegistrationIdentifier,
					Response:       r.Response,
					DerivationCode: r.DerivationCode,
				})
			}
		}
		return g.confirm(ctx, c, r.RegistrationIdentifier, f)
	})
}
