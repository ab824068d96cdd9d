package gateway

import (
	"context"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// GenerateEphemeralKeyRequest is the first call of an activation exchange.
type GenerateEphemeralKeyRequest struct {
	RegistrationIdentifier string
	// ClientPublic is the client's ephemeral public key in hex.
	ClientPublic string
}

// GenerateEphemeralKeyResult answers the first call. Its members are upper-case hex.
type GenerateEphemeralKeyResult struct {
	ServerPublic string
	Salt         string
}

// GenerateEphemeralKey carries out the first call of an activation exchange. It
// succeeds for every well-formed identifier, known or not.
func (g *Gateway) GenerateEphemeralKey(ctx context.Context, _ Caller, r GenerateEphemeralKeyRequest) (GenerateEphemeralKeyResult, error) {
	return observed(ctx, g, OpGenerateEphemeralKey, func() (GenerateEphemeralKeyResult, error) {
		if err := checkIdentifier(r.RegistrationIdentifier); err != nil {
			return GenerateEphemeralKeyResult{}, err
		}
		start := g.now()
		challenge, err := g.activation.Begin(ctx, r.RegistrationIdentifier, r.ClientPublic)
		if err != nil {
			g.storeTrouble(ctx, OpGenerateEphemeralKey, err)
			err = activationError(err)
		}
		g.observer.Exchange(ctx, ExchangeEvent{Step: EphemeralKey, Outcome: outcome(err), Duration: g.now().Sub(start)})
		if err != nil {
			return GenerateEphemeralKeyResult{}, err
		}
		return GenerateEphemeralKeyResult{ServerPublic: challenge.ServerPublic, Salt: challenge.Salt}, nil
	})
}

// GenerateActivationDataRequest is the second call of an activation exchange.
type GenerateActivationDataRequest struct {
	RegistrationIdentifier string
	// ClientEvidence is the client's evidence message in hex.
	ClientEvidence string
}

// Sealed is an item of activation data that only the client of the exchange can
// open. Its members are upper-case hex.
type Sealed struct {
	Data    string
	Counter string
	MAC     string
}

// GenerateActivationDataResult answers the second call. What does not belong to
// the type of the licence is nil.
type GenerateActivationDataResult struct {
	// ServerEvidence is the server's evidence message in upper-case hex.
	ServerEvidence string
	// LicenseActivationMessage is Activation Message 1 of a multi-device licence.
	LicenseActivationMessage *Sealed
	// ActivationCode is that of a standard licence.
	ActivationCode *Sealed
	// EventReactivationCounter is that of a standard licence, if it has one.
	EventReactivationCounter *Sealed
}

// GenerateActivationData carries out the second call of an activation exchange.
// Every refusal is the same one.
func (g *Gateway) GenerateActivationData(ctx context.Context, c Caller, r GenerateActivationDataRequest) (GenerateActivationDataResult, error) {
	return observed(ctx, g, OpGenerateActivationData, func() (GenerateActivationDataResult, error) {
		if err := checkIdentifier(r.RegistrationIdentifier); err != nil {
			return GenerateActivationDataResult{}, err
		}
		start := g.now()
		proof, err := g.activation.Prove(ctx, r.RegistrationIdentifier, r.ClientEvidence)
		event := AuditEvent{Action: AuditProven, Registration: r.RegistrationIdentifier}
		if err != nil {
			g.storeTrouble(ctx, OpGenerateActivationData, err)
			err = activationError(err)
			event.Action = AuditProofRefused
		}
		result := outcome(err)
		g.observer.Exchange(ctx, ExchangeEvent{Step: Evidence, Outcome: result, Duration: g.now().Sub(start)})
		if result == Success || result == Refused {
			g.audit(ctx, c, OpGenerateActivationData, event)
		}
		if err != nil {
			return GenerateActivationDataResult{}, err
		}
		return GenerateActivationDataResult{
			ServerEvidence:           proof.Evidence,
			LicenseActivationMessage: sealed(proof.LicenseActivationMessage),
			ActivationCode:           sealed(proof.ActivationCode),
			EventReactivationCounter: sealed(proof.EventReactivationCounter),
		}, nil
	})
}

func sealed(s *activation.Sealed) *Sealed {
	if s == nil {
		return nil
	}
	return &Sealed{Data: s.Data, Counter: s.Counter, MAC: s.MAC}
}
