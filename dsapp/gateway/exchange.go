package gateway

import (
	"context"
	"errors"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// GenerateEphemeralKeyRequest is the first call of an activation exchange.
type GenerateEphemeralKeyRequest struct {
	RegistrationIdentifier form.Identifier
	// ClientPublic is the client's ephemeral public key in hexadecimal digits.
	ClientPublic form.ClientPublic
}

// GenerateEphemeralKeyResult answers the first call. Its members are hexadecimal digits,
// those of the gateway's own exchange in upper case.
type GenerateEphemeralKeyResult struct {
	ServerPublic string
	Salt         string
}

// GenerateEphemeralKey carries out the first call of an activation exchange. The
// gateway's own exchange succeeds for every well-formed identifier, known or not.
func (g *Gateway) GenerateEphemeralKey(ctx context.Context, c Caller, r GenerateEphemeralKeyRequest) (_ GenerateEphemeralKeyResult, err error) {
	defer func() { g.logFailure(ctx, OpGenerateEphemeralKey, err) }()
	return g.beginOrRelay(ctx, c, r)
}

func (g *Gateway) beginOrRelay(ctx context.Context, c Caller, r GenerateEphemeralKeyRequest) (GenerateEphemeralKeyResult, error) {
	if g.relay {
		return g.relayBegin(ctx, r)
	}
	return g.begin(ctx, c, r)
}

func (g *Gateway) begin(ctx context.Context, c Caller, r GenerateEphemeralKeyRequest) (GenerateEphemeralKeyResult, error) {
	challenge, err := g.activation.Begin(ctx, r.RegistrationIdentifier, r.ClientPublic, c.origin())
	if err != nil {
		return GenerateEphemeralKeyResult{}, fromActivation(err)
	}
	if challenge.Contended {
		g.audit(ctx, c, OpGenerateEphemeralKey, AuditEvent{Action: AuditExchangeContended, Registration: r.RegistrationIdentifier, Profile: c.Profile})
	}
	return GenerateEphemeralKeyResult{ServerPublic: challenge.ServerPublic, Salt: challenge.Salt}, nil
}

// GenerateActivationDataRequest is the second call of an activation exchange.
type GenerateActivationDataRequest struct {
	RegistrationIdentifier form.Identifier
	// ClientEvidence is the client's evidence message in hexadecimal digits.
	ClientEvidence form.ClientEvidence
}

// GenerateActivationDataResult answers the second call. Members that do not belong to
// the type of the licence are nil.
type GenerateActivationDataResult struct {
	// ServerEvidence is the server's evidence message in hexadecimal digits, that of the
	// gateway's own exchange in upper case.
	ServerEvidence string
	// LicenseActivationMessage is Activation Message 1 of a multi-device licence.
	LicenseActivationMessage *form.Sealed
	// ActivationCode is that of a standard licence.
	ActivationCode *form.Sealed
	// EventReactivationCounter is that of a standard licence, if it has one.
	EventReactivationCounter *form.Sealed
}

// GenerateActivationData carries out the second call of an activation exchange.
// All refusals of the gateway are the same.
func (g *Gateway) GenerateActivationData(ctx context.Context, c Caller, r GenerateActivationDataRequest) (_ GenerateActivationDataResult, err error) {
	defer func() { g.logFailure(ctx, OpGenerateActivationData, err) }()
	result, err := g.proveOrRelay(ctx, c, r)
	event := AuditEvent{Action: AuditProofRefused, Registration: r.RegistrationIdentifier, Profile: c.Profile}
	if err != nil {
		return result, g.auditRefusal(ctx, c, OpGenerateActivationData, event, err)
	}
	event.Action = AuditProven
	g.audit(ctx, c, OpGenerateActivationData, event)
	return result, nil
}

func (g *Gateway) proveOrRelay(ctx context.Context, c Caller, r GenerateActivationDataRequest) (GenerateActivationDataResult, error) {
	if g.relay {
		return g.relayProve(ctx, r)
	}
	return g.prove(ctx, c, r)
}

func (g *Gateway) prove(ctx context.Context, c Caller, r GenerateActivationDataRequest) (GenerateActivationDataResult, error) {
	proof, err := g.activation.Prove(ctx, r.RegistrationIdentifier, r.ClientEvidence, c.origin())
	if burned, ok := errors.AsType[*activation.BurnedError](err); ok {
		g.audit(ctx, c, OpGenerateActivationData, AuditEvent{
			Action:       AuditRegistrationBurned,
			Registration: r.RegistrationIdentifier,
			Subject:      burned.Subject,
			Profile:      c.Profile,
		})
	}
	if err != nil {
		return GenerateActivationDataResult{}, fromActivation(err)
	}
	return GenerateActivationDataResult{
		ServerEvidence:           proof.Evidence,
		LicenseActivationMessage: proof.LicenseActivationMessage,
		ActivationCode:           proof.ActivationCode,
		EventReactivationCounter: proof.EventReactivationCounter,
	}, nil
}
