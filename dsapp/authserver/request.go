package authserver

import "context"

// Retrieve asks for a pending request. The first client that names its key uses
// the key up.
type Retrieve struct {
	// SerialNumber of the client's device, e.g. VDS1000120-1.
	SerialNumber string
	// Key is the plain challenge key or request key.
	Key string
}

// Retrieved is the outcome of Retrieve.
type Retrieved struct {
	// Instance is the name of the instance that holds the request.
	Instance string
	// RequestMessage is the secure-channel message for the device: up to 16,384
	// hex digits.
	RequestMessage string
}

// GetPreparedSecureChallenge fetches a pending login. In a replicated deployment
// only one instance has it: they are asked in the order of the policy as long as
// they do not find it or cannot answer. That it does not exist is certain only if
// all of them said so; otherwise, unless none was reached, the error is a
// *CallError with ErrUndecided. With a shared database the first answer counts.
// The error is a *Refusal or a *CallError.
func (s *Servers) GetPreparedSecureChallenge(ctx context.Context, r Retrieve) (Retrieved, error) {
	return s.retrieve(ctx, getPreparedSecureChallenge, values{"serialNumber": r.SerialNumber, "challengeKey": r.Key})
}

// GetPreparedSignatureRequest fetches a pending signature in the same way.
func (s *Servers) GetPreparedSignatureRequest(ctx context.Context, r Retrieve) (Retrieved, error) {
	return s.retrieve(ctx, getPreparedSignatureRequest, values{"serialNumber": r.SerialNumber, "requestKey": r.Key})
}

func (s *Servers) retrieve(ctx context.Context, id commandID, in values) (Retrieved, error) {
	out, instance, err := s.call(ctx, target{search: true}, id, in)
	if err != nil {
		return Retrieved{}, err
	}
	return Retrieved{Instance: instance, RequestMessage: out["requestMessage"]}, nil
}

// AuthUser verifies a user's password or, with a challenge key, completes a
// pending login.
type AuthUser struct {
	UserID string
	Domain string // optional
	// ChallengeKey of the pending login; empty to verify a one-time password.
	ChallengeKey string
	// Password is the one-time password or the device's signature.
	Password string
}

// AuthSignature completes a pending signature.
type AuthSignature struct {
	UserID     string
	Domain     string // optional
	RequestKey string
	// Signature of the device.
	Signature string
}

// Authenticated is the outcome of AuthUser and AuthSignature. Members that the
// server did not tell are empty.
type Authenticated struct {
	// Instance is the name of the instance that did it.
	Instance string
	UserID   string
	Domain   string
	OrgUnit  string
	// SerialNumber of the device that was used.
	SerialNumber string
}

// AuthUser carries out authUser on the named instance, or on one chosen by policy
// if the name is empty. A success that comes with a status message is a login
// that was refused after all, and a *Refusal. The error is a *Refusal or a
// *CallError.
func (s *Servers) AuthUser(ctx context.Context, instance string, r AuthUser) (Authenticated, error) {
	out, instance, err := s.call(ctx, at(instance), authUser, values{
		"USERID": r.UserID, "DOMAIN": r.Domain, "CHALLENGE_KEY": r.ChallengeKey, "PASSWORD": r.Password,
	})
	if err != nil {
		return Authenticated{}, err
	}
	return authenticated(instance, out), nil
}

// AuthSignature carries out authSignature on the named instance, or on one chosen
// by policy if the name is empty. The error is a *Refusal or a *CallError.
func (s *Servers) AuthSignature(ctx context.Context, instance string, r AuthSignature) (Authenticated, error) {
	out, instance, err := s.call(ctx, at(instance), authSignature, values{
		"USERID": r.UserID, "DOMAIN": r.Domain, "REQUEST_KEY": r.RequestKey, "SIGNATURE": r.Signature,
	})
	if err != nil {
		return Authenticated{}, err
	}
	return authenticated(instance, out), nil
}

func authenticated(instance string, out values) Authenticated {
	return Authenticated{
		Instance:     instance,
		UserID:       out["USERID"],
		Domain:       out["DOMAIN"],
		OrgUnit:      out["ORGANIZATIONAL_UNIT"],
		SerialNumber: out["SERIAL_NO"],
	}
}

// Cancel rejects a pending request.
type Cancel struct {
	// SerialNumber of the device that retrieved the request.
	SerialNumber string
	// KeyMessage is the key as the device wrapped it, in hex digits, or the plain
	// key from clients that do not wrap it.
	KeyMessage string
	// Probe says that each of the instances can be the one that holds the request,
	// because a wrapped key does not tell: in a replicated deployment the next one
	// is asked as long as the answers are that the request was not found or is not
	// this device's to cancel.
	Probe bool
}

// Cancelled is the outcome of Cancel.
type Cancelled struct {
	// Instance is the name of the instance that did it.
	Instance string
}

// CancelAuthUser cancels a pending login on one of the named instances, or on one
// chosen by policy if no name is given. Each is asked at most once; the answer of
// the last one counts. With Probe, if an instance that can hold the request could
// not answer and none cancelled it, the error is a *CallError with ErrUndecided.
// The error is a *Refusal or a *CallError.
func (s *Servers) CancelAuthUser(ctx context.Context, instances []string, r Cancel) (Cancelled, error) {
	return s.cancel(ctx, cancelAuthUser, instances, r, values{"serialNumber": r.SerialNumber, "challengeKeyMessage": r.KeyMessage})
}

// CancelAuthSignatureRequest cancels a pending signature in the same way.
func (s *Servers) CancelAuthSignatureRequest(ctx context.Context, instances []string, r Cancel) (Cancelled, error) {
	return s.cancel(ctx, cancelAuthSignatureRequest, instances, r, values{"serialNumber": r.SerialNumber, "requestKeyMessage": r.KeyMessage})
}

func (s *Servers) cancel(ctx context.Context, id commandID, instances []string, r Cancel, in values) (Cancelled, error) {
	_, instance, err := s.call(ctx, target{instances: instances, search: r.Probe}, id, in)
	return Cancelled{Instance: instance}, err
}

// UpdateDevicePNID registers the push notification ID of a device.
type UpdateDevicePNID struct {
	UserID       string
	Domain       string
	SerialNumber string // of the device
	// DevicePNID is the device's secure-channel message with the ID, in hex digits.
	DevicePNID string
}

// UpdatedDevicePNID is the outcome of UpdateDevicePNID.
type UpdatedDevicePNID struct {
	// Instance is the name of the instance that did it.
	Instance string
}

// UpdateDevicePNID carries out updateDevicePNID on an instance chosen by policy.
// The error is a *Refusal or a *CallError.
func (s *Servers) UpdateDevicePNID(ctx context.Context, r UpdateDevicePNID) (UpdatedDevicePNID, error) {
	_, instance, err := s.call(ctx, target{}, updateDevicePNID, values{
		"user/userID": r.UserID, "user/domain": r.Domain, "serialNumber": r.SerialNumber, "devicePNID": r.DevicePNID,
	})
	return UpdatedDevicePNID{Instance: instance}, err
}
