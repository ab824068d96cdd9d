package authserver

import "context"

// Register asks for a standard licence for a user.
type Register struct {
	UserID         string
	Domain         string // optional
	StaticPassword string
	// SerialNumber of the licence that is wanted; optional.
	SerialNumber string
}

// Registered is the outcome of Register.
type Registered struct {
	// Instance is the name of the instance that registered the user.
	Instance string
	// SerialNumber of the licence; empty if the server did not tell.
	SerialNumber string
	// ActivationCode of the licence: up to 4142 characters.
	ActivationCode string
	// EventReactivationCounter of the licence, up to 91 characters; empty if it has none.
	EventReactivationCounter string
}

// Register carries out PROVISIONCMD_REGISTER on an instance chosen by policy. The
// error is a *Refusal or a *CallError.
func (s *Servers) Register(ctx context.Context, r Register) (Registered, error) {
	out, instance, err := s.call(ctx, target{}, register, values{
		"USERID": r.UserID, "DOMAIN": r.Domain, "STATIC_PASSWORD": r.StaticPassword, "SERIAL_NO": r.SerialNumber,
	})
	if err != nil {
		return Registered{}, err
	}
	return Registered{
		Instance:                 instance,
		SerialNumber:             out["SERIAL_NO"],
		ActivationCode:           out["ACTIVATION_CODE"],
		EventReactivationCounter: out["EVENT_REACTIVATION_COUNTER"],
	}, nil
}

// Activate confirms the activation of a standard licence.
type Activate struct {
	UserID string
	Domain string // optional
	// Response is the device's first one-time password. Either it or
	// DerivationCode is given.
	Response string
	// DerivationCode binds the device: up to 27 decimal or hexadecimal digits.
	DerivationCode string
}

// Activated is the outcome of a final call for a licence of any kind. Members that the
// server did not tell are empty.
type Activated struct {
	// Instance is the name of the instance that did it.
	Instance     string
	UserID       string
	Domain       string
	SerialNumber string
}

// bindDevice is the type of request that goes with a derivation code.
const bindDevice = "0"

// Activate carries out PROVISIONCMD_ACTIVATE on the named instance, or on one
// chosen by policy if the name is empty. The error is a *Refusal or a *CallError.
func (s *Servers) Activate(ctx context.Context, instance string, r Activate) (Activated, error) {
	in := values{"USERID": r.UserID, "DOMAIN": r.Domain, "DP_RESPONSE": r.Response, "DERIVATION_CODE": r.DerivationCode}
	if r.DerivationCode != "" {
		in["REQUEST_TYPE"] = bindDevice
	}
	out, instance, err := s.call(ctx, at(instance), activate, in)
	if err != nil {
		return Activated{}, err
	}
	return Activated{Instance: instance, UserID: out["USERID"], Domain: out["DOMAIN"], SerialNumber: out["SERIAL_NO"]}, nil
}
