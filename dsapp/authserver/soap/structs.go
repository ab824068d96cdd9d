package soap

import "github.com/dsapp-gateway/dsapp-gateway/dsapp/form"

// MDLRegisterRequest is the request of MDLRegister.
type MDLRegisterRequest struct {
	UserID         form.RegisteredUser
	Domain         form.RegisteredDomain // optional
	StaticPassword form.StaticPassword
}

// MDLRegistered is the answer to MDLRegister.
type MDLRegistered struct {
	RegistrationID string
	// ActivationMessage is Activation Message 1: up to 4234 hex digits.
	ActivationMessage string
	// SerialNumber of the licence; empty if the server did not send it.
	SerialNumber string
}

// MDLAddDeviceRequest is the request of MDLAddDevice.
type MDLAddDeviceRequest struct {
	RegistrationID form.Identifier
	DeviceCode     form.DeviceCode
	// Description is optional. It is sent only if Attributes.DeviceDescription is set.
	Description string
}

// MDLDevice is the answer to MDLAddDevice.
type MDLDevice struct {
	// InstanceActivationMessage is Activation Message 2: up to 1024 hex digits.
	InstanceActivationMessage string
	// SerialNumber of the device's own instance of the licence; empty if the server did
	// not send it.
	SerialNumber string
}

// MDLActivateRequest is the request of MDLActivate.
type MDLActivateRequest struct {
	RegistrationID form.Identifier
	// Signature is the device's confirmation.
	Signature form.Signature
}

// Activated is the answer to MDLActivate, Activate and DSAPPSRPActivate. Members that the
// server did not send are empty. For a multi-device licence, SerialNumber is that of the
// licence, not of the device.
type Activated struct {
	UserID       string
	Domain       string
	SerialNumber string
}

// RegisterRequest is the request of Register.
type RegisterRequest struct {
	UserID         form.RegisteredUser
	Domain         form.RegisteredDomain // optional
	StaticPassword form.StaticPassword
	// SerialNumber of the wanted licence; optional.
	SerialNumber form.SerialNumber
}

// Registered is the answer to Register.
type Registered struct {
	// SerialNumber of the licence; empty if the server did not send it.
	SerialNumber string
	// ActivationCode of the licence: up to 4142 characters.
	ActivationCode string
	// EventReactivationCounter of the licence, up to 91 characters; empty if it has none.
	EventReactivationCounter string
}

// ActivateRequest is the request of Activate. It has either a Response or a DerivationCode.
type ActivateRequest struct {
	UserID string
	Domain string // optional
	// Response is the device's first one-time password.
	Response form.Response
	// DerivationCode binds the licence to the device: up to 27 hex digits.
	DerivationCode form.DerivationCode
}

// requestTypeBind asks the server to bind the licence to the device with the derivation code.
const requestTypeBind = "0"

// requestType returns the value of PROVFLD_REQUEST_TYPE. It is empty without a derivation
// code.
func (q *ActivateRequest) requestType() string {
	if q.DerivationCode == "" {
		return ""
	}
	return requestTypeBind
}

// DSAPPSRPRegisterRequest is the request of DSAPPSRPRegister.
type DSAPPSRPRegisterRequest struct {
	ActivationType string // optional
	UserID         form.RegisteredUser
	Domain         form.RegisteredDomain // optional
	StaticPassword form.StaticPassword
	// SerialNumber of the licence. It is needed if the user has several.
	SerialNumber form.SerialNumber
}

// DSAPPSRPRegistered is the answer to DSAPPSRPRegister.
type DSAPPSRPRegistered struct {
	RegistrationID     string
	ActivationPassword string
	// SerialNumber of the licence and DIGIPASSGatewayID are empty if the server did not
	// send them.
	SerialNumber      string
	DIGIPASSGatewayID string
}

// DSAPPSRPEphemeralKeyRequest is the request of DSAPPSRPGenerateEphemeralKey.
type DSAPPSRPEphemeralKeyRequest struct {
	RegistrationID form.Identifier
	// ClientPublic is the client's ephemeral public key.
	ClientPublic form.ClientPublic
}

// DSAPPSRPChallenge is the answer to DSAPPSRPGenerateEphemeralKey, in hex digits.
type DSAPPSRPChallenge struct {
	ServerPublic string
	Salt         string
}

// DSAPPSRPEvidenceRequest is the request of DSAPPSRPGenerateActivationData.
type DSAPPSRPEvidenceRequest struct {
	RegistrationID form.Identifier
	// ClientEvidence is the client's evidence message.
	ClientEvidence form.ClientEvidence
}

// DSAPPSRPActivationData is the answer to DSAPPSRPGenerateActivationData. Items that do not
// belong to the type of the licence are nil.
type DSAPPSRPActivationData struct {
	// ServerEvidence is the server's evidence message in hex digits.
	ServerEvidence string
	// ActivationMessage is Activation Message 1 of a multi-device licence.
	ActivationMessage *form.Sealed
	// ActivationCode and EventReactivationCounter belong to a standard licence. A licence
	// may have no counter.
	ActivationCode           *form.Sealed
	EventReactivationCounter *form.Sealed
}

// DSAPPSRPActivateRequest is the request of DSAPPSRPActivate. It has either a Response or a
// DerivationCode.
type DSAPPSRPActivateRequest struct {
	RegistrationID form.Identifier
	// Response is the device's first one-time password.
	Response form.Response
	// DerivationCode binds the licence to the device: up to 27 hex digits.
	DerivationCode form.DerivationCode
}

// UpdateDevicePNIDRequest is the request of UpdateDevicePNID.
type UpdateDevicePNIDRequest struct {
	UserID       form.UserID
	Domain       form.Domain       // optional
	SerialNumber form.SerialNumber // of the device
	// DevicePNID is the device's secure-channel message with the push notification ID.
	DevicePNID form.NotificationID
}

// RetrieveRequest is the request of GetPreparedSecureChallenge and
// GetPreparedSignatureRequest. The first success uses up the key.
type RetrieveRequest struct {
	// SerialNumber of the client's device, e.g. VDS1000120-1.
	SerialNumber form.SerialNumber
	// Key is the plain challenge key or request key.
	Key form.PlainKey
}

// Retrieved is the answer to GetPreparedSecureChallenge and GetPreparedSignatureRequest.
type Retrieved struct {
	// RequestMessage is the secure-channel message for the device: up to 16384 hex digits.
	RequestMessage string
}

// AuthUserRequest is the request of AuthUser. With a challenge key it completes a pending
// login; without one it verifies a password.
type AuthUserRequest struct {
	UserID form.UserID
	Domain form.Domain // optional
	// ChallengeKey names the pending login; empty to verify a password.
	ChallengeKey form.PlainKey
	// Password is the password or, for a pending login, the device's signature.
	Password string
}

// AuthSignatureRequest is the request of AuthSignature.
type AuthSignatureRequest struct {
	UserID     form.UserID
	Domain     form.Domain // optional
	RequestKey form.PlainKey
	// Signature is the device's approval.
	Signature form.Signature
}

// Authenticated is the answer to AuthUser and AuthSignature. Members that the server did
// not send are empty.
type Authenticated struct {
	UserID  string
	Domain  string
	OrgUnit string
	// SerialNumber of the device that was used.
	SerialNumber string
}

// CancelRequest is the request of CancelAuthUser and CancelAuthSignatureRequest.
type CancelRequest struct {
	// SerialNumber of the device that retrieved the request.
	SerialNumber form.SerialNumber
	// KeyMessage is the wrapped key, or the plain key of a client that does not wrap it.
	KeyMessage form.Key
}

// Done is the answer to a command without outputs.
type Done struct{}
