package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
)

// AddDeviceRequest adds a device to a multi-device licence.
type AddDeviceRequest struct {
	RegistrationIdentifier string
	// DeviceCode is what the device derived from Activation Message 1.
	DeviceCode string
	// Description of the device for its owner; optional.
	Description string
}

// AddDeviceResult is what the device needs to go on.
type AddDeviceResult struct {
	// InstanceActivationMessage is Activation Message 2 in upper-case hex.
	InstanceActivationMessage string
}

// AddDevice forwards a device code to the instance that holds the registration.
// For a registration made for an activation exchange, each successful exchange
// admits one device.
func (g *Gateway) AddDevice(ctx context.Context, c Caller, r AddDeviceRequest) (AddDeviceResult, error) {
	return observed(ctx, g, OpAddDevice, func() (AddDeviceResult, error) {
		if err := checkIdentifier(r.RegistrationIdentifier); err != nil {
			return AddDeviceResult{}, err
		}
		description, err := plainDescription(r.Description)
		if err != nil {
			return AddDeviceResult{}, err
		}
		admission, err := g.activation.AdmitDevice(ctx, r.RegistrationIdentifier)
		forwarded := g.forwards(err)
		if err != nil && !forwarded {
			g.storeTrouble(ctx, OpAddDevice, err)
			return AddDeviceResult{}, activationError(err)
		}
		device, err := call(ctx, g, CommandMDLAddDevice, func(ctx context.Context) (authserver.MDLDevice, string, error) {
			d, err := g.servers.MDLAddDevice(ctx, admission.Instance, authserver.MDLAddDevice{
				RegistrationID: r.RegistrationIdentifier,
				DeviceCode:     r.DeviceCode,
				Description:    description,
			})
			return d, admission.Instance, err
		})
		if err != nil {
			if !forwarded && errors.Is(err, authserver.ErrNotSent) {
				g.afterwards(ctx, OpAddDevice, admission, "giving back the right to add a device", g.activation.ReturnDevice)
			}
			return AddDeviceResult{}, serverError(err)
		}
		message, err := messageHex(device.InstanceActivationMessage)
		if err != nil {
			return AddDeviceResult{}, &Failure{Kind: BadAnswer, Err: fmt.Errorf("instance activation message of instance %q: %w", admission.Instance, err)}
		}
		g.audit(ctx, c, OpAddDevice, AuditEvent{
			Action:       AuditDeviceAdded,
			Registration: r.RegistrationIdentifier,
			UserID:       admission.UserID,
			Domain:       admission.Domain,
			SerialNumber: device.SerialNumber,
			Instance:     admission.Instance,
		})
		return AddDeviceResult{InstanceActivationMessage: message}, nil
	})
}

// ActivateRequest completes the activation of a device.
type ActivateRequest struct {
	RegistrationIdentifier string
	// Signature is the confirmation that the device derived from Activation Message 2.
	Signature string
}

// ActivateResult tells whose device was activated. A member is empty if neither
// the authentication server nor the registration knows it.
type ActivateResult struct {
	UserID       string
	Domain       string
	SerialNumber string
}

// Activate forwards a confirmation to the instance that holds the registration.
// Its success removes the registration.
func (g *Gateway) Activate(ctx context.Context, c Caller, r ActivateRequest) (ActivateResult, error) {
	return observed(ctx, g, OpActivate, func() (ActivateResult, error) {
		if err := checkIdentifier(r.RegistrationIdentifier); err != nil {
			return ActivateResult{}, err
		}
		admission, err := g.activation.AdmitConfirmation(ctx, r.RegistrationIdentifier, activation.KindMDL, activation.KindAffinity)
		forwarded := g.forwards(err)
		event := AuditEvent{
			Action:       AuditConfirmationRefused,
			Registration: r.RegistrationIdentifier,
			UserID:       admission.UserID,
			Domain:       admission.Domain,
			SerialNumber: admission.SerialNumber,
			Instance:     admission.Instance,
		}
		if err != nil && !forwarded {
			g.storeTrouble(ctx, OpActivate, err)
			return ActivateResult{}, g.confirmationError(ctx, c, event, activationError(err))
		}
		activated, err := call(ctx, g, CommandMDLActivate, func(ctx context.Context) (authserver.MDLActivated, string, error) {
			a, err := g.servers.MDLActivate(ctx, admission.Instance, authserver.MDLActivate{
				RegistrationID: r.RegistrationIdentifier,
				Signature:      r.Signature,
			})
			return a, admission.Instance, err
		})
		if err != nil {
			if !forwarded && errors.Is(err, authserver.ErrNotSent) {
				g.afterwards(ctx, OpActivate, admission, "giving back the final call", g.activation.ReturnConfirmation)
			}
			return ActivateResult{}, g.confirmationError(ctx, c, event, serverError(err))
		}
		if !forwarded {
			g.afterwards(ctx, OpActivate, admission, "removing a completed registration", g.activation.Complete)
		}
		// The names of the answer's attributes are not public, so they may be missing.
		result := ActivateResult{
			UserID:       cmp.Or(activated.UserID, admission.UserID),
			Domain:       cmp.Or(activated.Domain, admission.Domain),
			SerialNumber: cmp.Or(activated.SerialNumber, admission.SerialNumber),
		}
		event.Action, event.UserID, event.Domain, event.SerialNumber = AuditActivated, result.UserID, result.Domain, result.SerialNumber
		g.audit(ctx, c, OpActivate, event)
		return result, nil
	})
}

func (g *Gateway) confirmationError(ctx context.Context, c Caller, e AuditEvent, err error) error {
	if outcome(err) == Refused {
		g.audit(ctx, c, OpActivate, e)
	}
	return err
}

// forwards reports whether err says that the registration is unknown, and
// unknown ones are forwarded.
func (g *Gateway) forwards(err error) bool {
	return g.forwardUnknown && errors.Is(err, activation.ErrUnknown)
}

// afterwards does what cannot change an operation's outcome any more. Its
// failure is reported and otherwise without effect.
func (g *Gateway) afterwards(ctx context.Context, op Operation, a activation.Admission, what string, do func(context.Context, activation.Admission) error) {
	err := do(ctx, a)
	if err == nil {
		return
	}
	g.storeTrouble(ctx, op, err)
	g.logger.LogAttrs(ctx, slog.LevelError, what+" failed",
		slog.String("operation", string(op)), slog.String("registration", a.Identifier), slog.Any("error", err))
}
