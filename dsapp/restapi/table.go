package restapi

import (
	"context"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// Operations are what the services do.
type Operations interface {
	RegisterActivation(context.Context, gateway.Caller, gateway.RegisterActivationRequest) (gateway.RegisterActivationResult, error)
	RegisterOffline(context.Context, gateway.Caller, gateway.RegisterOfflineRequest) (gateway.RegisterOfflineResult, error)
	GenerateEphemeralKey(context.Context, gateway.Caller, gateway.GenerateEphemeralKeyRequest) (gateway.GenerateEphemeralKeyResult, error)
	GenerateActivationData(context.Context, gateway.Caller, gateway.GenerateActivationDataRequest) (gateway.GenerateActivationDataResult, error)
	AddDevice(context.Context, gateway.Caller, gateway.AddDeviceRequest) (gateway.AddDeviceResult, error)
	Activate(context.Context, gateway.Caller, gateway.ActivateRequest) (gateway.ActivateResult, error)
	ServerTime(context.Context, gateway.Caller, gateway.ServerTimeRequest) (gateway.ServerTimeResult, error)
}

var _ Operations = (*gateway.Gateway)(nil)

var (
	frontEnd = []apikey.Class{apikey.FrontEnd}
	backEnd  = []apikey.Class{apikey.BackEnd}
	either   = []apikey.Class{apikey.FrontEnd, apikey.BackEnd}
)

// table returns one row per service. Members are checked and answered in the
// order in which they stand here. Paths, names and shapes are those of the vendor's
// documentation, except where a row says that it is this project's choice.
func table() []service {
	return []service{
		// This project's choice: the vendor has the registration for an exchange as
		// a SOAP command of the authentication server only.
		define(service{
			path: "/rest/v2/provisioning/DSAPPSRPRegister", version: v2, classes: backEnd,
			operation: gateway.OpRegisterActivation, quota: registrations,
		}, Operations.RegisterActivation, []in[gateway.RegisterActivationRequest]{
			{userID("userID"), func(q *gateway.RegisterActivationRequest) *string { return &q.UserID }},
			{domain("domain"), func(q *gateway.RegisterActivationRequest) *string { return &q.Domain }},
			{staticPassword("staticPassword"), func(q *gateway.RegisterActivationRequest) *string { return &q.StaticPassword }},
			{
				member{name: "licenseType", target: gateway.MemberLicenseType, min: 1, max: 16, format: lowercase},
				func(q *gateway.RegisterActivationRequest) *string { return (*string)(&q.LicenseType) },
			},
			{
				member{name: "serialNumber", target: gateway.MemberSerialNumber, min: 1, max: 22, format: serialNumber},
				func(q *gateway.RegisterActivationRequest) *string { return &q.SerialNumber },
			},
		}, []out[gateway.RegisterActivationResult]{
			str("registrationIdentifier", func(r gateway.RegisterActivationResult) string { return r.RegistrationIdentifier }),
			str("activationPassword", func(r gateway.RegisterActivationResult) string { return r.ActivationPassword }),
			str("activationImage", func(r gateway.RegisterActivationResult) string { return r.ActivationImage }),
			moment("expiresAt", func(r gateway.RegisterActivationResult) time.Time { return r.ExpiresAt }),
		}),
		define(service{
			path: "/rest/v2/provisioning/MdlRegister", version: v2, classes: backEnd,
			operation: gateway.OpRegisterOffline, quota: registrations,
		}, Operations.RegisterOffline, []in[gateway.RegisterOfflineRequest]{
			{userID("userID"), func(q *gateway.RegisterOfflineRequest) *string { return &q.UserID }},
			{domain("domain"), func(q *gateway.RegisterOfflineRequest) *string { return &q.Domain }},
			{staticPassword("password"), func(q *gateway.RegisterOfflineRequest) *string { return &q.StaticPassword }},
		}, []out[gateway.RegisterOfflineResult]{
			str("registrationIdentifier", func(r gateway.RegisterOfflineResult) string { return r.RegistrationIdentifier }),
			str("activationMessageImage", func(r gateway.RegisterOfflineResult) string { return r.ActivationMessageImage }),
		}),

		generateEphemeralKey(service{path: "/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey", version: v2, classes: frontEnd}, "registrationIdentifier"),
		generateEphemeralKey(service{path: "/rest/activation/DSAPPSRPGenerateEphemeralKey", version: v1, classes: frontEnd}, "registrationID"),

		generateActivationData(service{path: "/rest/v2/provisioning/DSAPPSRPGenerateActivationData", version: v2, classes: frontEnd}, "registrationIdentifier"),
		generateActivationData(service{path: "/rest/activation/DSAPPSRPGenerateActivationData", version: v1, classes: frontEnd}, "registrationID"),

		addDevice(service{path: "/rest/v2/provisioning/MdlAddDevice", version: v2, classes: either}, "registrationIdentifier",
			in[gateway.AddDeviceRequest]{
				member{name: "description", target: gateway.MemberDescription, max: gateway.MaxDescription, format: anything},
				func(q *gateway.AddDeviceRequest) *string { return &q.Description },
			}),
		addDevice(service{path: "/rest/activation/MdlAddDevice", version: v1, classes: frontEnd}, "registrationID"),

		activate(service{path: "/rest/v2/provisioning/MdlActivate", version: v2, classes: either}, "registrationIdentifier",
			str("userID", func(r gateway.ActivateResult) string { return r.UserID }),
			str("domain", func(r gateway.ActivateResult) string { return r.Domain }),
			str("serialNumber", func(r gateway.ActivateResult) string { return r.SerialNumber })),
		activate(service{path: "/rest/activation/MdlActivate", version: v1, classes: frontEnd}, "registrationID"),

		define(service{
			path: "/rest/v2/provisioning/getServerTime", version: v2, classes: frontEnd,
			operation: gateway.OpServerTime, bodyOptional: true,
		}, Operations.ServerTime, nil, []out[gateway.ServerTimeResult]{{
			resultMember{name: "serverTime", kind: kindInteger},
			func(r gateway.ServerTimeResult) (any, bool) { return r.Time, true },
		}}),
	}
}

// The functions below are services that exist in both versions. The versions
// differ in the name of the identifier and in the members that version 1 lacks.

func generateEphemeralKey(s service, identifierName string) service {
	s.operation, s.quota = gateway.OpGenerateEphemeralKey, exchanges
	return define(s, Operations.GenerateEphemeralKey, []in[gateway.GenerateEphemeralKeyRequest]{
		{registrationIdentifier(identifierName), func(q *gateway.GenerateEphemeralKeyRequest) *string { return &q.RegistrationIdentifier }},
		{
			// Room for the largest group; the exchange knows the limit of its own.
			member{name: "clientEphemeralPublicKey", target: gateway.MemberClientPublic, required: true, min: 1, max: 1024, format: hexadecimal},
			func(q *gateway.GenerateEphemeralKeyRequest) *string { return &q.ClientPublic },
		},
	}, []out[gateway.GenerateEphemeralKeyResult]{
		str("serverEphemeralPublicKey", func(r gateway.GenerateEphemeralKeyResult) string { return r.ServerPublic }),
		str("salt", func(r gateway.GenerateEphemeralKeyResult) string { return r.Salt }),
	})
}

func generateActivationData(s service, identifierName string) service {
	s.operation, s.quota = gateway.OpGenerateActivationData, proofs
	message := func(r gateway.GenerateActivationDataResult) *gateway.Sealed { return r.LicenseActivationMessage }
	return define(s, Operations.GenerateActivationData, []in[gateway.GenerateActivationDataRequest]{
		{registrationIdentifier(identifierName), func(q *gateway.GenerateActivationDataRequest) *string { return &q.RegistrationIdentifier }},
		{
			member{name: "clientEvidenceMessage", target: gateway.MemberClientEvidence, required: true, min: 64, max: 64, format: hexadecimal},
			func(q *gateway.GenerateActivationDataRequest) *string { return &q.ClientEvidence },
		},
	}, []out[gateway.GenerateActivationDataResult]{
		str("serverEvidenceMessage", func(r gateway.GenerateActivationDataResult) string { return r.ServerEvidence }),
		sealedMember("encryptedLicenseActivationMessage", message, func(s *gateway.Sealed) string { return s.Data }),
		sealedMember("encryptedCounter", message, func(s *gateway.Sealed) string { return s.Counter }),
		sealedMember("mac", message, func(s *gateway.Sealed) string { return s.MAC }),
		{
			resultMember{name: "standard", kind: kindObject, optional: true, members: []resultMember{
				sealedObject("activationCode", false), sealedObject("eventReactivationCounter", true),
			}},
			func(r gateway.GenerateActivationDataResult) (any, bool) {
				if r.ActivationCode == nil {
					return nil, false
				}
				items := []field{{"activationCode", sealedFields(r.ActivationCode)}}
				if r.EventReactivationCounter != nil {
					items = append(items, field{"eventReactivationCounter", sealedFields(r.EventReactivationCounter)})
				}
				return items, true
			},
		},
	})
}

func addDevice(s service, identifierName string, more ...in[gateway.AddDeviceRequest]) service {
	s.operation = gateway.OpAddDevice
	return define(s, Operations.AddDevice, append([]in[gateway.AddDeviceRequest]{
		{registrationIdentifier(identifierName), func(q *gateway.AddDeviceRequest) *string { return &q.RegistrationIdentifier }},
		{
			member{name: "deviceCode", target: gateway.MemberDeviceCode, required: true, min: 1, max: 64, format: decimal},
			func(q *gateway.AddDeviceRequest) *string { return &q.DeviceCode },
		},
	}, more...), []out[gateway.AddDeviceResult]{
		str("instanceActivationMessage", func(r gateway.AddDeviceResult) string { return r.InstanceActivationMessage }),
	})
}

func activate(s service, identifierName string, results ...out[gateway.ActivateResult]) service {
	s.operation = gateway.OpActivate
	return define(s, Operations.Activate, []in[gateway.ActivateRequest]{
		{registrationIdentifier(identifierName), func(q *gateway.ActivateRequest) *string { return &q.RegistrationIdentifier }},
		{
			member{name: "signature", target: gateway.MemberSignature, required: true, min: 1, max: 64, format: alphanumeric},
			func(q *gateway.ActivateRequest) *string { return &q.Signature },
		},
	}, results)
}

// Members that several services share.

func userID(name string) member {
	return member{name: name, target: gateway.MemberUserID, required: true, min: 1, max: gateway.MaxUserID, format: text}
}

func domain(name string) member {
	return member{name: name, target: gateway.MemberDomain, max: gateway.MaxDomain, format: text}
}

func staticPassword(name string) member {
	return member{name: name, target: gateway.MemberStaticPassword, required: true, min: 1, max: gateway.MaxStaticPassword, format: text}
}

func registrationIdentifier(name string) member {
	return member{name: name, target: gateway.MemberRegistration, required: true, min: 4, max: 64, format: identifier}
}

// Members of answers.

func str[R any](name string, value func(R) string) out[R] {
	return out[R]{resultMember{name: name, kind: kindString}, func(r R) (any, bool) { return value(r), true }}
}

// moment is a time in RFC 3339 form, cut to the second so that it is never late.
func moment[R any](name string, value func(R) time.Time) out[R] {
	return out[R]{resultMember{name: name, kind: kindTime}, func(r R) (any, bool) {
		return value(r).UTC().Format(time.RFC3339), true
	}}
}

// sealedMember is one part of an item that the answer may lack.
func sealedMember[R any](name string, item func(R) *gateway.Sealed, part func(*gateway.Sealed) string) out[R] {
	return out[R]{resultMember{name: name, kind: kindString, optional: true}, func(r R) (any, bool) {
		s := item(r)
		if s == nil {
			return nil, false
		}
		return part(s), true
	}}
}

func sealedObject(name string, optional bool) resultMember {
	return resultMember{name: name, kind: kindObject, optional: optional, members: []resultMember{
		{name: "data", kind: kindString}, {name: "encryptedCounter", kind: kindString}, {name: "mac", kind: kindString},
	}}
}

func sealedFields(s *gateway.Sealed) []field {
	return []field{{"data", s.Data}, {"encryptedCounter", s.Counter}, {"mac", s.MAC}}
}
