package gateway

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// AddDeviceRequest adds a device to a multi-device licence.
type AddDeviceRequest struct {
	RegistrationIdentifier form.Identifier
	// DeviceCode is what the device derived from Activation Message 1.
	DeviceCode form.DeviceCode
	// Description of the device for its owner; optional.
	Description form.Description
}

// AddDeviceResult is what the device needs to go on.
type AddDeviceResult struct {
	// InstanceActivationMessage is Activation Message 2 in upper-case hex.
	InstanceActivationMessage string
}

// AddDevice forwards a device code to the instance that holds the registration.
// For a registration made for an activation exchange, each successful exchange
// admits one device. For any other one, the authentication server may refuse as
// many as an exchange has attempts.
func (g *Gateway) AddDevice(ctx context.Context, c Caller, r AddDeviceRequest) (_ AddDeviceResult, err error) {
	defer func() { g.logFailure(ctx, OpAddDevice, err) }()
	admission, err := g.activation.AdmitDevice(ctx, r.RegistrationIdentifier)
	forwarded := g.forwards(err)
	event := AuditEvent{
		Action:       AuditDeviceRefused,
		Registration: r.RegistrationIdentifier,
		Subject:      admission.Subject,
	}
	if err != nil && !forwarded {
		return AddDeviceResult{}, g.auditRefusal(ctx, c, OpAddDevice, event, activationError(err))
	}
	device, instance, err := authserver.Call(judged(c.priority(ctx), admission), g.servers, authserver.At(admission.Instance),
		soap.MDLAddDevice, soap.MDLAddDeviceRequest{
			RegistrationID: r.RegistrationIdentifier,
			DeviceCode:     r.DeviceCode,
			Description:    plainDescription(r.Description),
		})
	if !forwarded && !consumed(admission, err) {
		g.tolerated(ctx, OpAddDevice, "giving back the right to add a device",
			g.activation.ReturnDevice(ctx, admission), registrationAttribute(admission))
	}
	if err != nil {
		event.Instance = instanceOf(err)
		return AddDeviceResult{}, g.auditRefusal(ctx, c, OpAddDevice, event, serverError(err))
	}
	am2, err := message[form.InstanceActivationMessage](device.InstanceActivationMessage)
	if err != nil {
		return AddDeviceResult{}, badAnswer("instance activation message of instance %q %w", instance, err)
	}
	event.Action, event.SerialNumber, event.Instance = AuditDeviceAdded, device.SerialNumber, instance
	g.audit(ctx, c, OpAddDevice, event)
	return AddDeviceResult{InstanceActivationMessage: string(am2)}, nil
}

// ActivateRequest completes the activation of a device.
type ActivateRequest struct {
	RegistrationIdentifier form.Identifier
	// Signature is the confirmation that the device derived from Activation Message 2.
	Signature form.Signature
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
func (g *Gateway) Activate(ctx context.Context, c Caller, r ActivateRequest) (_ ActivateResult, err error) {
	defer func() { g.logFailure(ctx, OpActivate, err) }()
	return g.confirm(ctx, c, r.RegistrationIdentifier, confirmation{
		operation: OpActivate,
		kinds:     []activation.Kind{activation.KindMDL, activation.KindAffinity},
		forward:   g.forwardUnknown,
		send: func(ctx context.Context, a activation.Admission) (soap.Activated, string, error) {
			return authserver.Call(ctx, g.servers, authserver.At(a.Instance), soap.MDLActivate, soap.MDLActivateRequest{
				RegistrationID: r.RegistrationIdentifier,
				Signature:      r.Signature,
			})
		},
	})
}

// confirmation is the final call of an activation.
type confirmation struct {
	operation Operation
	// kinds of registrations that it is for.
	kinds []activation.Kind
	// forward says that it is forwarded for unknown registrations, too.
	forward bool
	// send gives the command to the instance of the admission, which is empty for
	// an unknown registration. It returns the one that answered.
	send func(context.Context, activation.Admission) (soap.Activated, string, error)
}

// confirm carries out a final call. Its success removes the registration.
func (g *Gateway) confirm(ctx context.Context, c Caller, identifier form.Identifier, f confirmation) (ActivateResult, error) {
	admission, err := g.activation.AdmitConfirmation(ctx, identifier, f.kinds...)
	forwarded := f.forward && errors.Is(err, activation.ErrUnknown)
	event := AuditEvent{
		Action:       AuditConfirmationRefused,
		Registration: identifier,
		Subject:      admission.Subject,
	}
	if err != nil && !forwarded {
		return ActivateResult{}, g.auditRefusal(ctx, c, f.operation, event, activationError(err))
	}
	activated, instance, err := f.send(judged(c.priority(ctx), admission), admission)
	if err != nil {
		if !forwarded && !consumed(admission, err) {
			g.tolerated(ctx, f.operation, "giving back the final call",
				g.activation.ReturnConfirmation(ctx, admission), registrationAttribute(admission))
		}
		event.Instance = instanceOf(err)
		return ActivateResult{}, g.auditRefusal(ctx, c, f.operation, event, serverError(err))
	}
	if !forwarded {
		g.tolerated(ctx, f.operation, "removing a completed registration",
			g.activation.Complete(ctx, admission), registrationAttribute(admission))
	}
	// The names of the answer's attributes are not public, so they may be missing.
	result := ActivateResult{
		UserID:       cmp.Or(activated.UserID, admission.UserID),
		Domain:       cmp.Or(activated.Domain, admission.Domain),
		SerialNumber: cmp.Or(activated.SerialNumber, admission.SerialNumber),
	}
	event.Action, event.UserID, event.Domain, event.SerialNumber = AuditActivated, result.UserID, result.Domain, result.SerialNumber
	event.Instance = instance
	g.audit(ctx, c, f.operation, event)
	return result, nil
}

// judged is the context of a call of which only refusals are counted: it does not end
// with the client, who could guess on and on by leaving before the answer.
func judged(ctx context.Context, a activation.Admission) context.Context {
	if a.Kind == activation.KindAffinity {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// consumed reports whether a call that ended with err used up what it was admitted
// with. What an exchange earned is used up unless the call was not sent. Without an
// exchange, only calls that the authentication server refused are counted, which
// bounds guessing; that the server does not work is no such refusal.
func consumed(a activation.Admission, err error) bool {
	if a.Kind != activation.KindAffinity {
		return !errors.Is(err, authserver.ErrNotSent)
	}
	refusal, ok := errors.AsType[*authserver.Refusal](err)
	return ok && !refusal.BackendFault()
}

// forwards reports whether err says that the registration is unknown, and
// unknown ones are forwarded.
func (g *Gateway) forwards(err error) bool {
	return g.forwardUnknown && errors.Is(err, activation.ErrUnknown)
}

// registrationAttribute names the registration in the log.
func registrationAttribute(a activation.Admission) slog.Attr {
	return slog.String("registration", string(a.Identifier))
}
