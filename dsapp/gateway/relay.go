package gateway

import (
	"context"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// A relayed exchange is one between the phone and an authentication server. The
// gateway knows which instance that is, or leaves the choice to the policy if the
// registration is unknown and unknown ones are forwarded. It passes on what both
// say as it comes, the client's evidence too, whatever its form. Of the answer to a
// registration it checks what it keeps or makes the activation image of.

// enrolRelayed registers a user for a relayed exchange.
func (g *Gateway) enrolRelayed(ctx context.Context, r RegisterActivationRequest) (enrolled, error) {
	answer, instance, err := authserver.Call(ctx, g.servers, authserver.Target{}, soap.DSAPPSRPRegister, soap.DSAPPSRPRegisterRequest{
		UserID: r.UserID, Domain: r.Domain, StaticPassword: r.StaticPassword, SerialNumber: r.SerialNumber,
	})
	if err != nil {
		return enrolled{}, serverError(err)
	}
	e := enrolled{
		instance:     instance,
		identifier:   answer.RegistrationID,
		serialNumber: answer.SerialNumber,
		password:     answer.ActivationPassword,
		gatewayID:    answer.DIGIPASSGatewayID,
	}
	if e.password == "" {
		e.unusable = badAnswer("activation password of instance %q is missing", e.instance)
	} else if problem := form.ImageFieldProblem(e.password); problem != "" {
		e.unusable = badAnswer("activation password of instance %q %s", e.instance, problem)
	} else if problem := form.ImageFieldProblem(e.gatewayID); problem != "" {
		e.unusable = badAnswer("gateway id of instance %q %s", e.instance, problem)
	}
	return e, nil
}

// relayBegin is the first call of a relayed exchange.
func (g *Gateway) relayBegin(ctx context.Context, r GenerateEphemeralKeyRequest) (GenerateEphemeralKeyResult, error) {
	located, err := g.locate(ctx, r.RegistrationIdentifier)
	if err != nil {
		return GenerateEphemeralKeyResult{}, err
	}
	challenge, _, err := authserver.Call(ctx, g.servers, authserver.At(located.Instance), soap.DSAPPSRPGenerateEphemeralKey,
		soap.DSAPPSRPEphemeralKeyRequest{RegistrationID: r.RegistrationIdentifier, ClientPublic: r.ClientPublic})
	if err != nil {
		return GenerateEphemeralKeyResult{}, serverError(err)
	}
	return GenerateEphemeralKeyResult{ServerPublic: challenge.ServerPublic, Salt: challenge.Salt}, nil
}

// relayProve is the second call of a relayed exchange.
func (g *Gateway) relayProve(ctx context.Context, r GenerateActivationDataRequest) (GenerateActivationDataResult, error) {
	located, err := g.locate(ctx, r.RegistrationIdentifier)
	if err != nil {
		return GenerateActivationDataResult{}, err
	}
	data, _, err := authserver.Call(ctx, g.servers, authserver.At(located.Instance), soap.DSAPPSRPGenerateActivationData,
		soap.DSAPPSRPEvidenceRequest{RegistrationID: r.RegistrationIdentifier, ClientEvidence: r.ClientEvidence})
	if err != nil {
		return GenerateActivationDataResult{}, serverError(err)
	}
	return GenerateActivationDataResult{
		ServerEvidence:           data.ServerEvidence,
		LicenseActivationMessage: data.ActivationMessage,
		ActivationCode:           data.ActivationCode,
		EventReactivationCounter: data.EventReactivationCounter,
	}, nil
}

// locate finds out which instance carries out an exchange. Its name is empty if
// the registration is unknown, and unknown ones are forwarded.
func (g *Gateway) locate(ctx context.Context, identifier form.Identifier) (activation.Admission, error) {
	located, err := g.activation.Locate(ctx, identifier)
	if err != nil && !g.forwards(err) {
		return activation.Admission{}, activationError(err)
	}
	return located, nil
}
