package restapi

import (
	"context"
	"slices"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// Operations are the operations of the gateway that the services call.
type Operations interface {
	RegisterActivation(context.Context, gateway.Caller, gateway.RegisterActivationRequest) (gateway.RegisterActivationResult, error)
	RegisterOffline(context.Context, gateway.Caller, gateway.RegisterOfflineRequest) (gateway.RegisterOfflineResult, error)
	GenerateEphemeralKey(context.Context, gateway.Caller, gateway.GenerateEphemeralKeyRequest) (gateway.GenerateEphemeralKeyResult, error)
	GenerateActivationData(context.Context, gateway.Caller, gateway.GenerateActivationDataRequest) (gateway.GenerateActivationDataResult, error)
	AddDevice(context.Context, gateway.Caller, gateway.AddDeviceRequest) (gateway.AddDeviceResult, error)
	Activate(context.Context, gateway.Caller, gateway.ActivateRequest) (gateway.ActivateResult, error)
	ActivateStandard(context.Context, gateway.Caller, gateway.ActivateStandardRequest) (gateway.ActivateResult, error)
	Authenticate(context.Context, gateway.Caller, gateway.AuthenticateRequest) (gateway.AuthenticatedResult, error)
	RetrieveLogin(context.Context, gateway.Caller, gateway.RetrieveRequest) (gateway.RetrieveResult, error)
	CompleteLogin(context.Context, gateway.Caller, gateway.CompleteRequest) (gateway.AuthenticatedResult, error)
	CancelLogin(context.Context, gateway.Caller, gateway.CancelRequest) (gateway.CancelResult, error)
	RetrieveSignature(context.Context, gateway.Caller, gateway.RetrieveRequest) (gateway.RetrieveResult, error)
	CompleteSignature(context.Context, gateway.Caller, gateway.CompleteRequest) (gateway.AuthenticatedResult, error)
	CancelSignature(context.Context, gateway.Caller, gateway.CancelRequest) (gateway.CancelResult, error)
	UpdateNotificationID(context.Context, gateway.Caller, gateway.UpdateNotificationIDRequest) (gateway.UpdateNotificationIDResult, error)
	ServerTime(context.Context, gateway.Caller, gateway.ServerTimeRequest) (gateway.ServerTimeResult, error)
}

var _ Operations = (*gateway.Gateway)(nil)

var (
	frontEnd = []apikey.Class{apikey.FrontEnd}
	backEnd  = []apikey.Class{apikey.BackEnd}
	either   = []apikey.Class{apikey.FrontEnd, apikey.BackEnd}
)

// table returns one row per service. Members are checked and written in the order of
// the table. Paths, names and structure are those of the vendor's documentation unless a
// comment says otherwise.
func table() []service {
	return slices.Concat(provisioning(), pending("push"), pending("scan"), authenticationAndNotification())
}

func provisioning() []service {
	return []service{
		// Not in the vendor's REST interface: there, registering for an exchange is a SOAP
		// command of the authentication server only.
		define(service{
			path: "/rest/v2/provisioning/DSAPPSRPRegister", version: v2, classes: backEnd,
			operation: gateway.OpRegisterActivation, quota: registrations,
		}, Operations.RegisterActivation, []inputMember[gateway.RegisterActivationRequest]{
			required("userID", func(q *gateway.RegisterActivationRequest) *form.RegisteredUser { return &q.UserID }),
			optional("domain", func(q *gateway.RegisterActivationRequest) *form.RegisteredDomain { return &q.Domain }),
			required("staticPassword", func(q *gateway.RegisterActivationRequest) *form.StaticPassword { return &q.StaticPassword }),
			optional("licenseType", func(q *gateway.RegisterActivationRequest) *form.LicenseType { return &q.LicenseType }),
			optional("serialNumber", func(q *gateway.RegisterActivationRequest) *form.SerialNumber { return &q.SerialNumber }),
		}, []outputMember[gateway.RegisterActivationResult]{
			stringMember("registrationIdentifier", func(r gateway.RegisterActivationResult) string { return r.RegistrationIdentifier }),
			stringMember("activationPassword", func(r gateway.RegisterActivationResult) string { return r.ActivationPassword }),
			stringMember("activationImage", func(r gateway.RegisterActivationResult) string { return r.ActivationImage }),
			timestamp("expiresAt", func(r gateway.RegisterActivationResult) time.Time { return r.ExpiresAt }),
		}),
		define(service{
			path: "/rest/v2/provisioning/MdlRegister", version: v2, classes: backEnd,
			operation: gateway.OpRegisterOffline, quota: registrations,
		}, Operations.RegisterOffline, []inputMember[gateway.RegisterOfflineRequest]{
			required("userID", func(q *gateway.RegisterOfflineRequest) *form.RegisteredUser { return &q.UserID }),
			optional("domain", func(q *gateway.RegisterOfflineRequest) *form.RegisteredDomain { return &q.Domain }),
			required("password", func(q *gateway.RegisterOfflineRequest) *form.StaticPassword { return &q.StaticPassword }),
		}, []outputMember[gateway.RegisterOfflineResult]{
			stringMember("registrationIdentifier", func(r gateway.RegisterOfflineResult) string { return r.RegistrationIdentifier }),
			stringMember("activationMessageImage", func(r gateway.RegisterOfflineResult) string { return r.ActivationMessageImage }),
		}),

		generateEphemeralKey(service{path: "/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey", version: v2, classes: frontEnd}, "registrationIdentifier"),
		generateEphemeralKey(service{path: "/rest/activation/DSAPPSRPGenerateEphemeralKey", version: v1, classes: frontEnd}, "registrationID"),

		generateActivationData(service{path: "/rest/v2/provisioning/DSAPPSRPGenerateActivationData", version: v2, classes: frontEnd}, "registrationIdentifier"),
		generateActivationData(service{path: "/rest/activation/DSAPPSRPGenerateActivationData", version: v1, classes: frontEnd}, "registrationID"),

		addDevice(service{path: "/rest/v2/provisioning/MdlAddDevice", version: v2, classes: either}, "registrationIdentifier",
			optional("description", func(q *gateway.AddDeviceRequest) *form.Description { return &q.Description })),
		addDevice(service{path: "/rest/activation/MdlAddDevice", version: v1, classes: frontEnd}, "registrationID"),

		activate(service{path: "/rest/v2/provisioning/MdlActivate", version: v2, classes: either}, "registrationIdentifier", activated()...),
		activate(service{path: "/rest/activation/MdlActivate", version: v1, classes: frontEnd}, "registrationID"),

		// Not in the vendor's REST interface either.
		define(service{
			path: "/rest/v2/provisioning/DSAPPSRPActivate", version: v2, classes: either, operation: gateway.OpActivateStandard, quota: calls,
		}, Operations.ActivateStandard, []inputMember[gateway.ActivateStandardRequest]{
			required("registrationIdentifier", func(q *gateway.ActivateStandardRequest) *form.Identifier { return &q.RegistrationIdentifier }),
			optional("response", func(q *gateway.ActivateStandardRequest) *form.Response { return &q.Response }),
			optional("derivationCode", func(q *gateway.ActivateStandardRequest) *form.DerivationCode { return &q.DerivationCode }),
		}, activated()),

		define(service{
			path: "/rest/v2/provisioning/getServerTime", version: v2, classes: frontEnd,
			operation: gateway.OpServerTime, quota: localCalls, bodyOptional: true,
		}, Operations.ServerTime, nil, []outputMember[gateway.ServerTimeResult]{{
			resultMember{name: "serverTime", kind: kindInteger},
			func(r gateway.ServerTimeResult) (any, bool) { return r.Time, true },
		}}),
	}
}

// pending returns the services for pending logins and signatures whose keys reach the
// phone by one channel: "push" or "scan".
func pending(channel string) []service {
	login, sign := "/rest/v2/authentication/"+channel+"/", "/rest/v2/signature/"+channel+"/"
	return []service{
		retrieveLogin(service{path: login + "getPreparedSecureChallenge", version: v2}, "serialNumber", "requestMessage"),
		completeLogin(service{path: login + "authUser", version: v2}, authenticated()...),
		cancelLogin(service{path: login + "cancelAuthUser", version: v2}, "serialNumber", "challengeKey"),

		retrieve(service{path: sign + "getPreparedSignatureRequest", version: v2, operation: gateway.OpRetrieveSignature},
			Operations.RetrieveSignature, "serialNumber", "requestKey", "requestMessage"),
		complete(service{path: sign + "authSignature", version: v2, operation: gateway.OpCompleteSignature},
			Operations.CompleteSignature, "requestKey", authenticated()...),
		cancel(service{path: sign + "cancelAuthSignatureRequest", version: v2, operation: gateway.OpCancelSignature},
			Operations.CancelSignature, "serialNumber", "requestKey"),
	}
}

func authenticationAndNotification() []service {
	return []service{
		authenticate(service{path: "/rest/v2/authentication/authUser", version: v2}, "password", authenticated()...),
		authenticate(service{path: "/rest/auth/online", version: v1}, "otp"),

		retrieveLogin(service{path: "/rest/push/retrieveLogin", version: v1}, "digipassInstanceID", "encryptedLoginDetails"),
		completeLogin(service{path: "/rest/push/signLogin", version: v1}),
		cancelLogin(service{path: "/rest/push/cancelLogin", version: v1}, "digipassInstanceID", "encryptedChallengeKey"),

		updateNotificationID("/rest/v2/notification/push/updateNotificationID"),
		// The only service of version 1 that is documented with answers of version 2.
		updateNotificationID("/rest/notification/updateNotificationID"),
	}
}

// The functions below define services that exist in several versions or for both kinds
// of requests. These differ in the names of members, and version 1 lacks some members.

func generateEphemeralKey(s service, identifierName string) service {
	s.operation, s.quota = gateway.OpGenerateEphemeralKey, exchanges
	return define(s, Operations.GenerateEphemeralKey, []inputMember[gateway.GenerateEphemeralKeyRequest]{
		required(identifierName, func(q *gateway.GenerateEphemeralKeyRequest) *form.Identifier { return &q.RegistrationIdentifier }),
		required("clientEphemeralPublicKey", func(q *gateway.GenerateEphemeralKeyRequest) *form.ClientPublic { return &q.ClientPublic }),
	}, []outputMember[gateway.GenerateEphemeralKeyResult]{
		stringMember("serverEphemeralPublicKey", func(r gateway.GenerateEphemeralKeyResult) string { return r.ServerPublic }),
		stringMember("salt", func(r gateway.GenerateEphemeralKeyResult) string { return r.Salt }),
	})
}

func generateActivationData(s service, identifierName string) service {
	s.operation, s.quota = gateway.OpGenerateActivationData, proofs
	message := func(r gateway.GenerateActivationDataResult) *form.Sealed { return r.LicenseActivationMessage }
	return define(s, Operations.GenerateActivationData, []inputMember[gateway.GenerateActivationDataRequest]{
		required(identifierName, func(q *gateway.GenerateActivationDataRequest) *form.Identifier { return &q.RegistrationIdentifier }),
		required("clientEvidenceMessage", func(q *gateway.GenerateActivationDataRequest) *form.ClientEvidence { return &q.ClientEvidence }),
	}, []outputMember[gateway.GenerateActivationDataResult]{
		stringMember("serverEvidenceMessage", func(r gateway.GenerateActivationDataResult) string { return r.ServerEvidence }),
		sealedMember("encryptedLicenseActivationMessage", message, func(s *form.Sealed) string { return s.Data }),
		sealedMember("encryptedCounter", message, func(s *form.Sealed) string { return s.Counter }),
		sealedMember("mac", message, func(s *form.Sealed) string { return s.MAC }),
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

func addDevice(s service, identifierName string, more ...inputMember[gateway.AddDeviceRequest]) service {
	s.operation, s.quota = gateway.OpAddDevice, calls
	return define(s, Operations.AddDevice, append([]inputMember[gateway.AddDeviceRequest]{
		required(identifierName, func(q *gateway.AddDeviceRequest) *form.Identifier { return &q.RegistrationIdentifier }),
		required("deviceCode", func(q *gateway.AddDeviceRequest) *form.DeviceCode { return &q.DeviceCode }),
	}, more...), []outputMember[gateway.AddDeviceResult]{
		stringMember("instanceActivationMessage", func(r gateway.AddDeviceResult) string { return r.InstanceActivationMessage }),
	})
}

func activate(s service, identifierName string, results ...outputMember[gateway.ActivateResult]) service {
	s.operation, s.quota = gateway.OpActivate, calls
	return define(s, Operations.Activate, []inputMember[gateway.ActivateRequest]{
		required(identifierName, func(q *gateway.ActivateRequest) *form.Identifier { return &q.RegistrationIdentifier }),
		required("signature", func(q *gateway.ActivateRequest) *form.Signature { return &q.Signature }),
	}, results)
}

func authenticate(s service, passwordName string, results ...outputMember[gateway.AuthenticatedResult]) service {
	s.operation, s.classes, s.quota = gateway.OpAuthenticate, frontEnd, calls
	return define(s, Operations.Authenticate, []inputMember[gateway.AuthenticateRequest]{
		required("userID", func(q *gateway.AuthenticateRequest) *form.UserID { return &q.UserID }),
		optional("domain", func(q *gateway.AuthenticateRequest) *form.Domain { return &q.Domain }),
		required(passwordName, func(q *gateway.AuthenticateRequest) *form.Password { return &q.Password }),
	}, results)
}

func retrieveLogin(s service, serialName, messageName string) service {
	s.operation = gateway.OpRetrieveLogin
	return retrieve(s, Operations.RetrieveLogin, serialName, "challengeKey", messageName)
}

func completeLogin(s service, results ...outputMember[gateway.AuthenticatedResult]) service {
	s.operation = gateway.OpCompleteLogin
	return complete(s, Operations.CompleteLogin, "challengeKey", results...)
}

func cancelLogin(s service, serialName, keyName string) service {
	s.operation = gateway.OpCancelLogin
	return cancel(s, Operations.CancelLogin, serialName, keyName)
}

func retrieve(
	s service, call func(Operations, context.Context, gateway.Caller, gateway.RetrieveRequest) (gateway.RetrieveResult, error),
	serialName, keyName, messageName string,
) service {
	s.classes, s.quota = frontEnd, calls
	return define(s, call, []inputMember[gateway.RetrieveRequest]{
		required(serialName, func(q *gateway.RetrieveRequest) *form.SerialNumber { return &q.SerialNumber }),
		required(keyName, func(q *gateway.RetrieveRequest) *form.PlainKey { return &q.Key }),
	}, []outputMember[gateway.RetrieveResult]{
		stringMember(messageName, func(r gateway.RetrieveResult) string { return r.RequestMessage }),
	})
}

func complete(
	s service, call func(Operations, context.Context, gateway.Caller, gateway.CompleteRequest) (gateway.AuthenticatedResult, error),
	keyName string, results ...outputMember[gateway.AuthenticatedResult],
) service {
	s.classes, s.quota = frontEnd, calls
	return define(s, call, []inputMember[gateway.CompleteRequest]{
		required("userID", func(q *gateway.CompleteRequest) *form.UserID { return &q.UserID }),
		optional("domain", func(q *gateway.CompleteRequest) *form.Domain { return &q.Domain }),
		required(keyName, func(q *gateway.CompleteRequest) *form.PlainKey { return &q.Key }),
		required("signature", func(q *gateway.CompleteRequest) *form.Signature { return &q.Signature }),
	}, results)
}

func cancel(
	s service, call func(Operations, context.Context, gateway.Caller, gateway.CancelRequest) (gateway.CancelResult, error),
	serialName, keyName string,
) service {
	s.classes, s.quota = frontEnd, calls
	return define(s, call, []inputMember[gateway.CancelRequest]{
		required(serialName, func(q *gateway.CancelRequest) *form.SerialNumber { return &q.SerialNumber }),
		required(keyName, func(q *gateway.CancelRequest) *form.Key { return &q.Key }),
	}, nil)
}

func updateNotificationID(path string) service {
	return define(service{path: path, version: v2, classes: frontEnd, operation: gateway.OpUpdateNotificationID, quota: calls}, Operations.UpdateNotificationID,
		[]inputMember[gateway.UpdateNotificationIDRequest]{
			required("userID", func(q *gateway.UpdateNotificationIDRequest) *form.UserID { return &q.UserID }),
			required("domain", func(q *gateway.UpdateNotificationIDRequest) *form.Domain { return &q.Domain }),
			required("digipassInstanceID", func(q *gateway.UpdateNotificationIDRequest) *form.SerialNumber { return &q.SerialNumber }),
			required("encryptedNotificationID", func(q *gateway.UpdateNotificationIDRequest) *form.NotificationID { return &q.NotificationID }),
		}, nil)
}

// Members of answers.

func activated() []outputMember[gateway.ActivateResult] {
	return []outputMember[gateway.ActivateResult]{
		stringMember("userID", func(r gateway.ActivateResult) string { return r.UserID }),
		stringMember("domain", func(r gateway.ActivateResult) string { return r.Domain }),
		stringMember("serialNumber", func(r gateway.ActivateResult) string { return r.SerialNumber }),
	}
}

// authenticated returns the members that name the authenticated user. The organisational
// unit is present even if it is empty; the serial number is absent if no device was
// used.
func authenticated() []outputMember[gateway.AuthenticatedResult] {
	return []outputMember[gateway.AuthenticatedResult]{
		stringMember("userID", func(r gateway.AuthenticatedResult) string { return r.UserID }),
		stringMember("domain", func(r gateway.AuthenticatedResult) string { return r.Domain }),
		stringMember("orgUnit", func(r gateway.AuthenticatedResult) string { return r.OrgUnit }),
		{
			resultMember{name: "serialNo", kind: kindString, optional: true},
			func(r gateway.AuthenticatedResult) (any, bool) { return r.SerialNumber, r.SerialNumber != "" },
		},
	}
}

func stringMember[R any](name string, value func(R) string) outputMember[R] {
	return outputMember[R]{resultMember{name: name, kind: kindString}, func(r R) (any, bool) { return value(r), true }}
}

// timestamp returns a member with a time in RFC 3339 form, rounded down to the second. It
// is absent if the time is zero.
func timestamp[R any](name string, value func(R) time.Time) outputMember[R] {
	return outputMember[R]{resultMember{name: name, kind: kindTime, optional: true}, func(r R) (any, bool) {
		at := value(r)
		return at.UTC().Format(time.RFC3339), !at.IsZero()
	}}
}

// sealedMember returns a member with one part of a sealed item. It is absent if the item
// is nil.
func sealedMember[R any](name string, item func(R) *form.Sealed, part func(*form.Sealed) string) outputMember[R] {
	return outputMember[R]{resultMember{name: name, kind: kindString, optional: true}, func(r R) (any, bool) {
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

func sealedFields(s *form.Sealed) []field {
	return []field{{"data", s.Data}, {"encryptedCounter", s.Counter}, {"mac", s.MAC}}
}
