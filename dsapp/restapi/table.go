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

// Services returns the description of all services.
func Services() []Service { return table() }

// table returns one row per service. Members are checked and written in the order of
// the table. Paths, names and structure are those of the vendor's documentation unless a
// comment says otherwise.
func table() []Service {
	return slices.Concat(provisioning(), pending(Push), pending(Scan), authenticationAndNotification())
}

func provisioning() []Service {
	return []Service{
		// Not in the vendor's REST interface: there, registering for an exchange is a SOAP
		// command of the authentication server only.
		define(Service{
			Path: "/rest/v2/provisioning/DSAPPSRPRegister", Version: V2, Classes: backEnd,
			Operation: gateway.OpRegisterActivation, quota: registrations, Keyed: true,
		}, Operations.RegisterActivation, []inputMember[gateway.RegisterActivationRequest]{
			required("userID", userMeaning, func(q *gateway.RegisterActivationRequest) *form.RegisteredUser { return &q.UserID }),
			optional("domain", domainMeaning, func(q *gateway.RegisterActivationRequest) *form.RegisteredDomain { return &q.Domain }),
			required("staticPassword", staticPasswordMeaning, func(q *gateway.RegisterActivationRequest) *form.StaticPassword { return &q.StaticPassword }),
			optional("licenseType", Meaning{"The type of the licence: a multi-device licence (the default), or a licence for one device.", "mdl"}, func(q *gateway.RegisterActivationRequest) *form.LicenseType { return &q.LicenseType }),
			optional("serialNumber", Meaning{"The serial number of the licence. Only with licenseType standard, or if the gateway relays exchanges.", ""}, func(q *gateway.RegisterActivationRequest) *form.SerialNumber { return &q.SerialNumber }),
			optional("profile", Meaning{"The profile of the exchange, which the user's app must have: one of those that the gateway offers. Without it, the gateway's default.", "rfc5054-2048-sha256"}, func(q *gateway.RegisterActivationRequest) *form.ProfileName { return &q.Profile }),
		}, []outputMember[gateway.RegisterActivationResult]{
			stringMember("registrationIdentifier", identifierMeaning, func(r gateway.RegisterActivationResult) string { return r.RegistrationIdentifier }),
			stringMember("activationPassword", Meaning{"The activation password, which proves that a phone is the user's. Only this answer has it, and that to the same request with the same Idempotency-Key.", "Tb048aX1"}, func(r gateway.RegisterActivationResult) string { return r.ActivationPassword }),
			stringMember("activationImage", Meaning{"What the image for the phone contains, in hexadecimal digits: 01;01;user;domain;identifier;password;gateway ID.", "30313B30313B6A616E652E646F653B6D79646F6D61696E2E636F6D3B65337766495347393B54623034386158313B"}, func(r gateway.RegisterActivationResult) string { return r.ActivationImage }),
			timestamp("expiresAt", Meaning{"When the registration ends, in RFC 3339 form. Missing if it is not known.", "2026-03-04T05:06:07Z"}, func(r gateway.RegisterActivationResult) time.Time { return r.ExpiresAt }),
		}),
		define(Service{
			Path: "/rest/v2/provisioning/MdlRegister", Version: V2, Classes: backEnd,
			Operation: gateway.OpRegisterOffline, quota: registrations, Keyed: true,
		}, Operations.RegisterOffline, []inputMember[gateway.RegisterOfflineRequest]{
			required("userID", userMeaning, func(q *gateway.RegisterOfflineRequest) *form.RegisteredUser { return &q.UserID }),
			optional("domain", domainMeaning, func(q *gateway.RegisterOfflineRequest) *form.RegisteredDomain { return &q.Domain }),
			required("password", staticPasswordMeaning, func(q *gateway.RegisterOfflineRequest) *form.StaticPassword { return &q.StaticPassword }),
		}, []outputMember[gateway.RegisterOfflineResult]{
			stringMember("registrationIdentifier", identifierMeaning, func(r gateway.RegisterOfflineResult) string { return r.RegistrationIdentifier }),
			stringMember("activationMessageImage", Meaning{"Activation Message 1 for an image, in up to 4234 hexadecimal digits.", "BBED4D1C"}, func(r gateway.RegisterOfflineResult) string { return r.ActivationMessageImage }),
		}),

		generateEphemeralKey(Service{Path: "/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey", Version: V2, Classes: frontEnd}, "registrationIdentifier"),
		generateEphemeralKey(Service{Path: "/rest/activation/DSAPPSRPGenerateEphemeralKey", Version: V1, Classes: frontEnd}, "registrationID"),

		generateActivationData(Service{Path: "/rest/v2/provisioning/DSAPPSRPGenerateActivationData", Version: V2, Classes: frontEnd}, "registrationIdentifier"),
		generateActivationData(Service{Path: "/rest/activation/DSAPPSRPGenerateActivationData", Version: V1, Classes: frontEnd}, "registrationID"),

		addDevice(Service{Path: "/rest/v2/provisioning/MdlAddDevice", Version: V2, Classes: either}, "registrationIdentifier",
			optional("description", Meaning{"How the user recognises the device.", "Phone of Jane"}, func(q *gateway.AddDeviceRequest) *form.Description { return &q.Description })),
		addDevice(Service{Path: "/rest/activation/MdlAddDevice", Version: V1, Classes: frontEnd}, "registrationID"),

		activate(Service{Path: "/rest/v2/provisioning/MdlActivate", Version: V2, Classes: either}, "registrationIdentifier", activated()...),
		activate(Service{Path: "/rest/activation/MdlActivate", Version: V1, Classes: frontEnd}, "registrationID"),

		// Not in the vendor's REST interface either.
		define(Service{
			Path: "/rest/v2/provisioning/DSAPPSRPActivate", Version: V2, Classes: either, ExactlyOne: []string{"response", "derivationCode"}, Operation: gateway.OpActivateStandard, quota: calls,
		}, Operations.ActivateStandard, []inputMember[gateway.ActivateStandardRequest]{
			required("registrationIdentifier", identifierMeaning, func(q *gateway.ActivateStandardRequest) *form.Identifier { return &q.RegistrationIdentifier }),
			optional("response", Meaning{"The first one-time password of the device. Exactly one of response and derivationCode is needed.", "123456"}, func(q *gateway.ActivateStandardRequest) *form.Response { return &q.Response }),
			optional("derivationCode", Meaning{"The derivation code of the device, which binds the licence to it.", ""}, func(q *gateway.ActivateStandardRequest) *form.DerivationCode { return &q.DerivationCode }),
		}, activated()),

		define(Service{
			Path: "/rest/v2/provisioning/getServerTime", Version: V2, Classes: frontEnd,
			Operation: gateway.OpServerTime, quota: localCalls, BodyOptional: true,
		}, Operations.ServerTime, nil, []outputMember[gateway.ServerTimeResult]{{
			Result{Name: "serverTime", Kind: KindInteger, Meaning: Meaning{"The time in seconds since 1970 in UTC.", "1547556827"}},
			func(r gateway.ServerTimeResult) (content, bool) { return content{number: r.Time}, true },
		}}),
	}
}

// pending returns the services for pending logins and signatures whose keys reach the
// phone by one channel.
func pending(channel Channel) []Service {
	login, sign := "/rest/v2/authentication/"+string(channel)+"/", "/rest/v2/signature/"+string(channel)+"/"
	return []Service{
		retrieveLogin(Service{Path: login + "getPreparedSecureChallenge", Version: V2, Channel: channel}, "serialNumber", "requestMessage"),
		completeLogin(Service{Path: login + "authUser", Version: V2, Channel: channel}, authenticated()...),
		cancelLogin(Service{Path: login + "cancelAuthUser", Version: V2, Channel: channel}, "serialNumber", "challengeKey"),

		retrieve(Service{Path: sign + "getPreparedSignatureRequest", Version: V2, Channel: channel, Operation: gateway.OpRetrieveSignature},
			Operations.RetrieveSignature, "serialNumber", "requestKey", "requestMessage"),
		complete(Service{Path: sign + "authSignature", Version: V2, Channel: channel, Operation: gateway.OpCompleteSignature},
			Operations.CompleteSignature, "requestKey", authenticated()...),
		cancel(Service{Path: sign + "cancelAuthSignatureRequest", Version: V2, Channel: channel, Operation: gateway.OpCancelSignature},
			Operations.CancelSignature, "serialNumber", "requestKey"),
	}
}

func authenticationAndNotification() []Service {
	return []Service{
		authenticate(Service{Path: "/rest/v2/authentication/authUser", Version: V2}, "password", authenticated()...),
		authenticate(Service{Path: "/rest/auth/online", Version: V1}, "otp"),

		retrieveLogin(Service{Path: "/rest/push/retrieveLogin", Version: V1, Channel: Push}, "digipassInstanceID", "encryptedLoginDetails"),
		completeLogin(Service{Path: "/rest/push/signLogin", Version: V1, Channel: Push}),
		cancelLogin(Service{Path: "/rest/push/cancelLogin", Version: V1, Channel: Push}, "digipassInstanceID", "encryptedChallengeKey"),

		updateNotificationID("/rest/v2/notification/push/updateNotificationID"),
		// The only service of version 1 that is documented with answers of version 2.
		updateNotificationID("/rest/notification/updateNotificationID"),
	}
}

// The functions below define services that exist in several versions or for both kinds
// of requests. These differ in the names of members, and version 1 lacks some members.

func generateEphemeralKey(s Service, identifierName string) Service {
	s.Operation, s.quota = gateway.OpGenerateEphemeralKey, exchanges
	return define(s, Operations.GenerateEphemeralKey, []inputMember[gateway.GenerateEphemeralKeyRequest]{
		required(identifierName, identifierMeaning, func(q *gateway.GenerateEphemeralKeyRequest) *form.Identifier { return &q.RegistrationIdentifier }),
		required("clientEphemeralPublicKey", Meaning{"The number A of the exchange in hexadecimal digits: more than 1 and less than N−1. Leading zeros may be left out.", "0BB2EA65D1"}, func(q *gateway.GenerateEphemeralKeyRequest) *form.ClientPublic { return &q.ClientPublic }),
	}, []outputMember[gateway.GenerateEphemeralKeyResult]{
		stringMember("serverEphemeralPublicKey", Meaning{"The number B of the exchange in hexadecimal digits.", "661CF509"}, func(r gateway.GenerateEphemeralKeyResult) string { return r.ServerPublic }),
		stringMember("salt", Meaning{"The salt of the registration in hexadecimal digits. It is the same for every call.", "8F1958E25B9749FDBC28362CEED92C01"}, func(r gateway.GenerateEphemeralKeyResult) string { return r.Salt }),
	})
}

func generateActivationData(s Service, identifierName string) Service {
	s.Operation, s.quota = gateway.OpGenerateActivationData, proofs
	message := func(r gateway.GenerateActivationDataResult) *form.Sealed { return r.LicenseActivationMessage }
	return define(s, Operations.GenerateActivationData, []inputMember[gateway.GenerateActivationDataRequest]{
		required(identifierName, identifierMeaning, func(q *gateway.GenerateActivationDataRequest) *form.Identifier { return &q.RegistrationIdentifier }),
		required("clientEvidenceMessage", Meaning{"The evidence M1 of the exchange in hexadecimal digits.", "7C4A8D09CA3762AF61E59520943DC26494F8941BB2A64B6A3B7E0D1C5F8A9E21"}, func(q *gateway.GenerateActivationDataRequest) *form.ClientEvidence { return &q.ClientEvidence }),
	}, []outputMember[gateway.GenerateActivationDataResult]{
		stringMember("serverEvidenceMessage", Meaning{"The evidence M2 of the exchange in hexadecimal digits, which the phone must verify.", "B1E9C7A7D0E2F4566CF1E1C9A3C64E0B0B7A4D1A4C5D8F77B2E0C3A4D5E6F708"}, func(r gateway.GenerateActivationDataResult) string { return r.ServerEvidence }),
		sealedMember("encryptedLicenseActivationMessage", Meaning{"Activation Message 1 of a multi-device licence, encrypted under keys of the exchange, in hexadecimal digits.", "5A3C9E"}, message, func(s *form.Sealed) string { return s.Data }),
		sealedMember("encryptedCounter", counterMeaning, message, func(s *form.Sealed) string { return s.Counter }),
		sealedMember("mac", macMeaning, message, func(s *form.Sealed) string { return s.MAC }),
		{
			Result{Name: "standard", Kind: KindObject, Optional: true, Meaning: Meaning{"The activation data of a standard licence.", ""}, Members: []Result{
				sealedObject("activationCode", Meaning{"The activation code.", ""}, false),
				sealedObject("eventReactivationCounter", Meaning{"The event reactivation counter. Missing if the licence has none.", ""}, true),
			}},
			func(r gateway.GenerateActivationDataResult) (content, bool) {
				if r.ActivationCode == nil {
					return content{}, false
				}
				items := []field{objectField("activationCode", sealedFields(r.ActivationCode))}
				if r.EventReactivationCounter != nil {
					items = append(items, objectField("eventReactivationCounter", sealedFields(r.EventReactivationCounter)))
				}
				return content{fields: items}, true
			},
		},
	})
}

func addDevice(s Service, identifierName string, more ...inputMember[gateway.AddDeviceRequest]) Service {
	s.Operation, s.quota = gateway.OpAddDevice, calls
	return define(s, Operations.AddDevice, append([]inputMember[gateway.AddDeviceRequest]{
		required(identifierName, identifierMeaning, func(q *gateway.AddDeviceRequest) *form.Identifier { return &q.RegistrationIdentifier }),
		required("deviceCode", Meaning{"The code that the device derives from Activation Message 1.", "12345678901234567890123456"}, func(q *gateway.AddDeviceRequest) *form.DeviceCode { return &q.DeviceCode }),
	}, more...), []outputMember[gateway.AddDeviceResult]{
		stringMember("instanceActivationMessage", Meaning{"Activation Message 2 in hexadecimal digits.", "AA82DD554C7A3935"}, func(r gateway.AddDeviceResult) string { return r.InstanceActivationMessage }),
	})
}

func activate(s Service, identifierName string, results ...outputMember[gateway.ActivateResult]) Service {
	s.Operation, s.quota = gateway.OpActivate, calls
	return define(s, Operations.Activate, []inputMember[gateway.ActivateRequest]{
		required(identifierName, identifierMeaning, func(q *gateway.ActivateRequest) *form.Identifier { return &q.RegistrationIdentifier }),
		required("signature", Meaning{"The confirmation that the device derives from Activation Message 2.", "1234567890123456"}, func(q *gateway.ActivateRequest) *form.Signature { return &q.Signature }),
	}, results)
}

func authenticate(s Service, passwordName string, results ...outputMember[gateway.AuthenticatedResult]) Service {
	s.Operation, s.Classes, s.quota = gateway.OpAuthenticate, frontEnd, calls
	return define(s, Operations.Authenticate, []inputMember[gateway.AuthenticateRequest]{
		required("userID", userMeaning, func(q *gateway.AuthenticateRequest) *form.UserID { return &q.UserID }),
		optional("domain", domainMeaning, func(q *gateway.AuthenticateRequest) *form.Domain { return &q.Domain }),
		required(passwordName, Meaning{"The one-time password; the static password before it, if the policy of the authentication server asks for that.", "123456"}, func(q *gateway.AuthenticateRequest) *form.Password { return &q.Password }),
	}, results)
}

func retrieveLogin(s Service, serialName, messageName string) Service {
	s.Operation = gateway.OpRetrieveLogin
	return retrieve(s, Operations.RetrieveLogin, serialName, "challengeKey", messageName)
}

func completeLogin(s Service, results ...outputMember[gateway.AuthenticatedResult]) Service {
	s.Operation = gateway.OpCompleteLogin
	return complete(s, Operations.CompleteLogin, "challengeKey", results...)
}

func cancelLogin(s Service, serialName, keyName string) Service {
	s.Operation = gateway.OpCancelLogin
	return cancel(s, Operations.CancelLogin, serialName, keyName)
}

func retrieve(
	s Service, call func(Operations, context.Context, gateway.Caller, gateway.RetrieveRequest) (gateway.RetrieveResult, error),
	serialName, keyName, messageName string,
) Service {
	s.Classes, s.quota = frontEnd, calls
	return define(s, call, []inputMember[gateway.RetrieveRequest]{
		required(serialName, deviceMeaning, func(q *gateway.RetrieveRequest) *form.SerialNumber { return &q.SerialNumber }),
		required(keyName, Meaning{"The key of the request, from the push notification or the image.", "8408980524"}, func(q *gateway.RetrieveRequest) *form.PlainKey { return &q.Key }),
	}, []outputMember[gateway.RetrieveResult]{
		stringMember(messageName, Meaning{"The request as a secure-channel message for the device, in hexadecimal digits.", "2EAA8300F254C137"}, func(r gateway.RetrieveResult) string { return r.RequestMessage }),
	})
}

func complete(
	s Service, call func(Operations, context.Context, gateway.Caller, gateway.CompleteRequest) (gateway.AuthenticatedResult, error),
	keyName string, results ...outputMember[gateway.AuthenticatedResult],
) Service {
	s.Classes, s.quota = frontEnd, calls
	return define(s, call, []inputMember[gateway.CompleteRequest]{
		required("userID", userMeaning, func(q *gateway.CompleteRequest) *form.UserID { return &q.UserID }),
		optional("domain", domainMeaning, func(q *gateway.CompleteRequest) *form.Domain { return &q.Domain }),
		required(keyName, Meaning{"The key of the request, from the push notification or the image.", "8408980524"}, func(q *gateway.CompleteRequest) *form.PlainKey { return &q.Key }),
		required("signature", Meaning{"The signature of the device over the retrieved message.", "0234567890123456"}, func(q *gateway.CompleteRequest) *form.Signature { return &q.Signature }),
	}, results)
}

func cancel(
	s Service, call func(Operations, context.Context, gateway.Caller, gateway.CancelRequest) (gateway.CancelResult, error),
	serialName, keyName string,
) Service {
	s.Classes, s.quota = frontEnd, calls
	return define(s, call, []inputMember[gateway.CancelRequest]{
		required(serialName, deviceMeaning, func(q *gateway.CancelRequest) *form.SerialNumber { return &q.SerialNumber }),
		required(keyName, Meaning{"The key of the request, wrapped by the device in a secure-channel message, in hexadecimal digits; or the plain key, unless the gateway is set to refuse it.", "D2602CE39F8CC5030D2602CE39F8CC5030D2602CE39F8CC503"}, func(q *gateway.CancelRequest) *form.Key { return &q.Key }),
	}, nil)
}

func updateNotificationID(path string) Service {
	return define(Service{Path: path, Version: V2, Classes: frontEnd, Operation: gateway.OpUpdateNotificationID, quota: calls}, Operations.UpdateNotificationID,
		[]inputMember[gateway.UpdateNotificationIDRequest]{
			required("userID", userMeaning, func(q *gateway.UpdateNotificationIDRequest) *form.UserID { return &q.UserID }),
			required("domain", Meaning{"The domain of the user.", "mydomain.com"}, func(q *gateway.UpdateNotificationIDRequest) *form.Domain { return &q.Domain }),
			required("digipassInstanceID", deviceMeaning, func(q *gateway.UpdateNotificationIDRequest) *form.SerialNumber { return &q.SerialNumber }),
			required("encryptedNotificationID", Meaning{"The push notification ID inside a secure-channel message of the device, in hexadecimal digits.", "0901C3E40F42B811"}, func(q *gateway.UpdateNotificationIDRequest) *form.NotificationID { return &q.NotificationID }),
		}, nil)
}

// Members of answers.

func activated() []outputMember[gateway.ActivateResult] {
	return []outputMember[gateway.ActivateResult]{
		stringMember("userID", userMeaning, func(r gateway.ActivateResult) string { return r.UserID }),
		stringMember("domain", domainMeaning, func(r gateway.ActivateResult) string { return r.Domain }),
		stringMember("serialNumber", Meaning{"The serial number of the licence, without the number of the device; empty if the authentication server does not say.", "VDS1000003"}, func(r gateway.ActivateResult) string { return r.SerialNumber }),
	}
}

// authenticated returns the members that name the authenticated user. The organisational
// unit is present even if it is empty; the serial number is absent if no device was
// used.
func authenticated() []outputMember[gateway.AuthenticatedResult] {
	return []outputMember[gateway.AuthenticatedResult]{
		stringMember("userID", userMeaning, func(r gateway.AuthenticatedResult) string { return r.UserID }),
		stringMember("domain", domainMeaning, func(r gateway.AuthenticatedResult) string { return r.Domain }),
		stringMember("orgUnit", Meaning{"The organisational unit of the user; empty if there is none.", ""}, func(r gateway.AuthenticatedResult) string { return r.OrgUnit }),
		{
			Result{Name: "serialNo", Kind: KindString, Optional: true, Meaning: Meaning{"The serial number of the device. Missing if no device was used.", "VDS1000120-1"}},
			func(r gateway.AuthenticatedResult) (content, bool) {
				return content{text: r.SerialNumber}, r.SerialNumber != ""
			},
		},
	}
}

func stringMember[R any](name string, means Meaning, value func(R) string) outputMember[R] {
	return outputMember[R]{Result{Name: name, Kind: KindString, Meaning: means}, func(r R) (content, bool) { return content{text: value(r)}, true }}
}

// timestamp returns a member with a time in RFC 3339 form, rounded down to the second. It
// is absent if the time is zero.
func timestamp[R any](name string, means Meaning, value func(R) time.Time) outputMember[R] {
	return outputMember[R]{Result{Name: name, Kind: KindTime, Optional: true, Meaning: means}, func(r R) (content, bool) {
		at := value(r)
		return content{text: at.UTC().Format(time.RFC3339)}, !at.IsZero()
	}}
}

// sealedMember returns a member with one part of a sealed item. It is absent if the item
// is nil.
func sealedMember[R any](name string, means Meaning, item func(R) *form.Sealed, part func(*form.Sealed) string) outputMember[R] {
	return outputMember[R]{Result{Name: name, Kind: KindString, Optional: true, Meaning: means}, func(r R) (content, bool) {
		s := item(r)
		if s == nil {
			return content{}, false
		}
		return content{text: part(s)}, true
	}}
}

func sealedObject(name string, means Meaning, optional bool) Result {
	return Result{Name: name, Kind: KindObject, Optional: optional, Meaning: means, Members: []Result{
		{Name: "data", Kind: KindString, Meaning: Meaning{"The ciphertext in hexadecimal digits.", "5A3C9E"}},
		{Name: "encryptedCounter", Kind: KindString, Meaning: counterMeaning},
		{Name: "mac", Kind: KindString, Meaning: macMeaning},
	}}
}

func sealedFields(s *form.Sealed) []field {
	return []field{textField("data", s.Data), textField("encryptedCounter", s.Counter), textField("mac", s.MAC)}
}
