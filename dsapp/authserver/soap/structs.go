package soap

import "github.com/dsapp-gateway/dsapp-gateway/dsapp/form"

// MDLRegisterRequest asks for a multi-device licence for a user.
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
	// SerialNumber of the licence; empty if the server did not tell.
	SerialNumber string
}

// MDLAddDeviceRequest binds a device to a multi-device licence.
type MDLAddDeviceRequest struct {
	RegistrationID form.Identifier
	DeviceCode     form.DeviceCode
	// Description is optional. It is sent only if Attributes names an attribute
	// for it.
	Description string
}

// MDLDevice is the answer to MDLAddDevice.
type MDLDevice struct {
	// InstanceActivationMessage is Activation Message 2: up to 1024 hex digits.
	InstanceActivationMessage string
	// SerialNumber of the device's own instance of the licence; empty if the
	// server did not tell.
	SerialNumber string
}

// MDLActivateRequest confirms that a device was activated.
type MDLActivateRequest struct {
	RegistrationID form.Identifier
	// Signature is the device's confirmation.
	Signature form.Signature
}

// Activated is the answer to a final call for a licence of any kind. Members that
// the server did not tell are empty. For a multi-device licence the serial number
// is that of the licence.
type Activated struct {
	UserID       string
	Domain       string
	SerialNumber string
}

// RegisterRequest asks for a standard licence for a user.
type RegisterRequest struct {
	UserID         form.RegisteredUser
	Domain         form.RegisteredDomain // optional
	StaticPassword form.StaticPassword
	// SerialNumber of the licence that is wanted; optional.
	SerialNumber form.SerialNumber
}

// Registered is the answer to Register.
type Registered struct {
	// SerialNumber of the licence; empty if the server did not tell.
	SerialNumber string
	// ActivationCode of the licence: up to 4142 characters.
	ActivationCode string
	// EventReactivationCounter of the licence, up to 91 characters; empty if it has none.
	EventReactivationCounter string
}

// ActivateRequest confirms the activation of a standard licence.
type ActivateRequest struct {
	UserID string
	Domain string // optional
	// Response is the device's first one-time password. Either it or
	// DerivationCode is given.
	Response form.Response
	// DerivationCode binds the device: up to 27 decimal or hexadecimal digits.
	DerivationCode form.DerivationCode
}

// bindDevice is the type of request that goes with a derivation code.
const bindDevice = "0"

// requestType is empty without a derivation code.
func (q *ActivateRequest) requestType() string {
	if q.DerivationCode == "" {
		return ""
	}
	return bindDevice
}

// DSAPPSRPRegisterRequest registers a user for an activation exchange that the
// authentication server carries out itself. The values of such an exchange are
// relayed as they are.
type DSAPPSRPRegisterRequest struct {
	ActivationType string // optional
	UserID         form.RegisteredUser
	Domain         form.RegisteredDomain // optional
	StaticPassword form.StaticPassword
	// SerialNumber of the licence; needed if the user has several.
	SerialNumber form.SerialNumber
}

// DSAPPSRPRegistered is the answer to DSAPPSRPRegister.
type DSAPPSRPRegistered struct {
	RegistrationID     string
	ActivationPassword string
	// SerialNumber of the licence and DIGIPASSGatewayID are empty if the server
	// did not tell.
	SerialNumber      string
	DIGIPASSGatewayID string
}

// DSAPPSRPEphemeralKeyRequest is the first call of an exchange.
type DSAPPSRPEphemeralKeyRequest struct {
	RegistrationID form.Identifier
	// ClientPublic is the client's ephemeral public key in hex digits.
	ClientPublic form.ClientPublic
}

// DSAPPSRPChallenge answers the first call, in hex digits.
type DSAPPSRPChallenge struct {
	ServerPublic string
	Salt         string
}

// DSAPPSRPEvidenceRequest is the second call of an exchange.
type DSAPPSRPEvidenceRequest struct {
	RegistrationID form.Identifier
	// ClientEvidence is the client's evidence message in hex digits.
	ClientEvidence form.ClientEvidence
}

// DSAPPSRPActivationData answers the second call. What does not belong to the
// type of the licence is nil.
type DSAPPSRPActivationData struct {
	// ServerEvidence in hex digits.
	ServerEvidence string
	// ActivationMessage is Activation Message 1 of a multi-device licence.
	ActivationMessage *form.Sealed
	// ActivationCode and EventReactivationCounter are those of a standard licence.
	ActivationCode           *form.Sealed
	EventReactivationCounter *form.Sealed
}

// DSAPPSRPActivateRequest is the final call for a standard licence.
type DSAPPSRPActivateRequest struct {
	RegistrationID form.Identifier
	// Response is the device's first one-time password. Either it or
	// DerivationCode is given.
	Response form.Response
	// DerivationCode binds the device: up to 27 decimal or hexadecimal digits.
	DerivationCode form.DerivationCode
}

// UpdateDevicePNIDRequest registers the push notification ID of a device.
type UpdateDevicePNIDRequest struct {
	UserID       form.UserID
	Domain       form.Domain       // optional
	SerialNumber form.SerialNumber // of the device
	// DevicePNID is the device's secure-channel message with the ID, in hex digits.
	DevicePNID form.NotificationID
}

// RetrieveRequest asks for a pending request. The first client that names its key
// uses the key up.
type RetrieveRequest struct {
	// SerialNumber of the client's device, e.g. VDS1000120-1.
	SerialNumber form.SerialNumber
	// Key is the plain challenge key or request key.
	Key form.PlainKey
}

// Retrieved is the answer to a RetrieveRequest.
type Retrieved struct {
	// RequestMessage is the secure-channel message for the device: up to 16,384
	// hex digits.
	RequestMessage string
}

// AuthUserRequest verifies a user's password or, with a challenge key, completes a
// pending login.
type AuthUserRequest struct {
	UserID form.UserID
	Domain form.Domain // optional
	// ChallengeKey of the pending login; empty to verify a one-time password.
	ChallengeKey form.PlainKey
	// Password is the one-time password or the device's signature.
	Password string
}

// AuthSignatureRequest completes a pending signature.
type AuthSignatureRequest struct {
	UserID     form.UserID
	Domain     form.Domain // optional
	RequestKey form.PlainKey
	// Signature of the device.
	Signature form.Signature
}

// Authenticated is the answer to AuthUser and AuthSignature. Members that the
// server did not tell are empty.
type Authenticated struct {
	UserID  string
	Domain  string
	OrgUnit string
	// SerialNumber of the device that was used.
	SerialNumber string
}

// CancelRequest rejects a pending request.
type CancelRequest struct {
	// SerialNumber of the device that retrieved the request.
	SerialNumber form.SerialNumber
	// KeyMessage is the key as the device wrapped it, in hex digits, or the plain
	// key from clients that do not wrap it.
	KeyMessage form.Key
}

// Done is the answer to a command that tells nothing.
type Done struct{}
