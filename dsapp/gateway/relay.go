package gateway

import (
	"context"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// In a relayed exchange the gateway forwards the calls of the phone to the authentication
// server of the registration. For an unknown registration the policy chooses the instance,
// if unknown ones are forwarded. Values are passed on unchanged and unchecked, except for
// those of a registration that are stored or become part of the activation image.

// registerRelayed registers a user for a relayed exchange.
func (g *Gateway) registerRelayed(ctx context.Context, r RegisterActivationRequest) (serverRegistration, error) {
	answer, instance, err := authserver.Call(ctx, g.servers, authserver.Target{}, soap.DSAPPSRPRegister, soap.DSAPPSRPRegisterRequest{
		UserID: r.UserID, Domain: r.Domain, StaticPassword: r.StaticPassword, SerialNumber: r.SerialNumber,
	})
	if err != nil {
		return serverRegistration{}, fromServer(err)
	}
	e := serverRegistration{
		instance:     instance,
		identifier:   answer.RegistrationID,
		serialNumber: answer.SerialNumber,
		password:     answer.ActivationPassword,
		gatewayID:    answer.DIGIPASSGatewayID,
	}
	if e.password == "" {
		e.unusable = badAnswerf("activation password of instance %q is missing", e.instance)
	} else if problem := form.ImageFieldProblem(e.password); problem != "" {
		e.unusable = badAnswerf("activation password of instance %q %s", e.instance, problem)
	} else if problem := form.ImageFieldProblem(e.gatewayID); problem != "" {
		e.unusable = badAnswerf("gateway id of instance %q %s", e.instance, problem)
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
		return GenerateEphemeralKeyResult{}, fromServer(err)
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
		return GenerateActivationDataResult{}, fromServer(err)
	}
	return GenerateActivationDataResult{
		ServerEvidence:           data.ServerEvidence,
		LicenseActivationMessage: data.ActivationMessage,
		ActivationCode:           data.ActivationCode,
		EventReactivationCounter: data.EventReactivationCounter,
	}, nil
}

// locate returns the registration with the instance that carries out its exchange. It is
// empty if the registration is unknown and unknown ones are forwarded.
func (g *Gateway) locate(ctx context.Context, identifier form.Identifier) (activation.Admission, error) {
	located, err := g.activation.Locate(ctx, identifier)
	if err != nil && !g.forwardsUnknown(err) {
		return activation.Admission{}, fromActivation(err)
	}
	return located, nil
}
