package authserver

import "context"

// MDLRegister asks for a multi-device licence for a user.
type MDLRegister struct {
	UserID         string
	Domain         string // optional
	StaticPassword string
}

// MDLRegistered is the outcome of MDLRegister.
type MDLRegistered struct {
	// Instance is the name of the instance that holds the registration.
	Instance       string
	RegistrationID string
	// ActivationMessage is Activation Message 1: up to 4234 hex digits.
	ActivationMessage string
	// SerialNumber of the licence; empty if the server did not tell.
	SerialNumber string
}

// MDLRegister carries out PROVISIONCMD_MDL_REGISTER: the authentication server
// verifies the user, picks a licence and begins its activation. The instance is
// chosen by policy. The error is a *Refusal or a *CallError.
func (s *Servers) MDLRegister(ctx context.Context, r MDLRegister) (MDLRegistered, error) {
	out, instance, err := s.call(ctx, target{}, mdlRegister, values{
		"USERID": r.UserID, "DOMAIN": r.Domain, "STATIC_PASSWORD": r.StaticPassword,
	})
	if err != nil {
		return MDLRegistered{}, err
	}
	return MDLRegistered{
		Instance:          instance,
		RegistrationID:    out["REGISTRATIONID"],
		ActivationMessage: out["ACTIVATION_MESSAGE"],
		SerialNumber:      out["SERIAL_NO"],
	}, nil
}

// MDLAddDevice binds a device to a multi-device licence.
type MDLAddDevice struct {
	RegistrationID string
	DeviceCode     string
	// Description is optional. It is sent only if Attributes names an attribute
	// for it.
	Description string
}

// MDLDevice is the outcome of MDLAddDevice.
type MDLDevice struct {
	// Instance is the name of the instance that did it.
	Instance string
	// InstanceActivationMessage is Activation Message 2: up to 1024 hex digits.
	InstanceActivationMessage string
	// SerialNumber of the device's own instance of the licence; empty if the
	// server did not tell.
	SerialNumber string
}

// MDLAddDevice carries out PROVISIONCMD_MDL_ADD_DEVICE on the named instance, or
// on one chosen by policy if the name is empty. Each success uses up one of the
// licence's 99 sequence numbers. The error is a *Refusal or a *CallError.
func (s *Servers) MDLAddDevice(ctx context.Context, instance string, r MDLAddDevice) (MDLDevice, error) {
	out, instance, err := s.call(ctx, at(instance), mdlAddDevice, values{
		"REGISTRATIONID": r.RegistrationID, "DEVICE_CODE": r.DeviceCode, "DESCRIPTION": r.Description,
	})
	if err != nil {
		return MDLDevice{}, err
	}
	return MDLDevice{
		Instance:                  instance,
		InstanceActivationMessage: out["INSTANCE_ACTIVATION_MESSAGE"],
		SerialNumber:              out["SERIAL_NO"],
	}, nil
}

// MDLActivate confirms that a device was activated.
type MDLActivate struct {
	RegistrationID string
	// Signature is the device's confirmation.
	Signature string
}

// MDLActivate carries out PROVISIONCMD_MDL_ACTIVATE on the named instance, or on
// one chosen by policy if the name is empty. The serial number is that of the
// licence. The error is a *Refusal or a *CallError.
func (s *Servers) MDLActivate(ctx context.Context, instance string, r MDLActivate) (Activated, error) {
	out, instance, err := s.call(ctx, at(instance), mdlActivate, values{
		"REGISTRATIONID": r.RegistrationID, "SIGNATURE": r.Signature,
	})
	if err != nil {
		return Activated{}, err
	}
	return Activated{Instance: instance, UserID: out["USERID"], Domain: out["DOMAIN"], SerialNumber: out["SERIAL_NO"]}, nil
}
