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
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

// AddDeviceRequest adds a device to a multi-device licence.
type AddDeviceRequest struct {
	RegistrationIdentifier form.Identifier
	// DeviceCode is what the device derived from Activation Message 1.
	DeviceCode form.DeviceCode
	// Description helps the owner to recognise the device; optional.
	Description form.Description
}

// AddDeviceResult is what the device needs for the final call of its activation.
type AddDeviceResult struct {
	// InstanceActivationMessage is Activation Message 2 in upper-case hexadecimal digits.
	InstanceActivationMessage string
}

// AddDevice forwards a device code to the instance that holds the registration. After
// the gateway's own exchange, every successful exchange admits one device. Other
// registrations admit devices until the authentication server has refused as many as
// an exchange has attempts.
func (g *Gateway) AddDevice(ctx context.Context, c Caller, r AddDeviceRequest) (_ AddDeviceResult, err error) {
	defer func() { g.logFailure(ctx, OpAddDevice, err) }()
	return once(ctx, g, c, OpAddDevice, AuditEvent{Registration: r.RegistrationIdentifier},
		repeat.Request{Place: string(r.RegistrationIdentifier), Members: []string{string(r.DeviceCode), string(r.Description)}},
		func(ctx context.Context) (AddDeviceResult, error) { return g.addDeviceOnce(ctx, c, r) })
}

func (g *Gateway) addDeviceOnce(ctx context.Context, c Caller, r AddDeviceRequest) (AddDeviceResult, error) {
	admission, err := g.activation.AdmitDevice(ctx, r.RegistrationIdentifier)
	forwarded := g.forwardsUnknown(err)
	if forwarded {
		markAlone(ctx)
	}
	ctx, found := goOn(ctx)
	if found != nil {
		return AddDeviceResult{}, found
	}
	event := AuditEvent{
		Action:       AuditDeviceRefused,
		Registration: r.RegistrationIdentifier,
		Subject:      admission.Subject,
	}
	if err != nil && !forwarded {
		return AddDeviceResult{}, g.auditRefusal(ctx, c, OpAddDevice, event, fromActivation(err))
	}
	device, instance, err := authserver.Call(outliving(c.withPriority(ctx), admission), g.servers, authserver.At(admission.Instance),
		soap.MDLAddDevice, soap.MDLAddDeviceRequest{
			RegistrationID: r.RegistrationIdentifier,
			DeviceCode:     r.DeviceCode,
			Description:    plainDescription(r.Description),
		})
	if !forwarded && !usedUp(admission, err) {
		g.logCleanup(ctx, OpAddDevice, "giving back the right to add a device",
			g.activation.ReturnDevice(ctx, admission), registrationAttribute(admission))
	}
	if err != nil {
		event.Instance = instanceOf(err)
		return AddDeviceResult{}, g.auditRefusal(ctx, c, OpAddDevice, event, fromServer(err))
	}
	am2, err := parseMessage[form.InstanceActivationMessage](device.InstanceActivationMessage)
	if err != nil {
		return AddDeviceResult{}, badAnswerf("instance activation message of instance %q %w", instance, err)
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

// ActivateResult says whose device was activated. Members that neither the
// authentication server nor the registration gives are empty.
type ActivateResult struct {
	UserID       string
	Domain       string
	SerialNumber string
}

// Activate forwards a confirmation to the instance that holds the registration.
// Its success removes the registration.
func (g *Gateway) Activate(ctx context.Context, c Caller, r ActivateRequest) (_ ActivateResult, err error) {
	defer func() { g.logFailure(ctx, OpActivate, err) }()
	return g.confirm(ctx, c, r.RegistrationIdentifier, []string{string(r.Signature)}, confirmation{
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
	// kinds are those of the registrations that the call is for.
	kinds []activation.Kind
	// forward says that the call is also forwarded for unknown registrations.
	forward bool
	// send sends the command to the instance of the admission, which is empty for an
	// unknown registration. It returns the instance that answered.
	send func(context.Context, activation.Admission) (soap.Activated, string, error)
}

// confirm carries out a final call and removes the registration if it succeeds. members are
// the other values of the call.
func (g *Gateway) confirm(ctx context.Context, c Caller, identifier form.Identifier, members []string, f confirmation) (ActivateResult, error) {
	return once(ctx, g, c, f.operation, AuditEvent{Registration: identifier}, repeat.Request{Place: string(identifier), Members: members},
		func(ctx context.Context) (ActivateResult, error) { return g.confirmOnce(ctx, c, identifier, f) })
}

func (g *Gateway) confirmOnce(ctx context.Context, c Caller, identifier form.Identifier, f confirmation) (ActivateResult, error) {
	admission, err := g.activation.AdmitConfirmation(ctx, identifier, f.kinds...)
	forwarded := f.forward && errors.Is(err, activation.ErrUnknown)
	if forwarded {
		markAlone(ctx)
	}
	ctx, found := goOn(ctx)
	if found != nil {
		return ActivateResult{}, found
	}
	event := AuditEvent{
		Action:       AuditConfirmationRefused,
		Registration: identifier,
		Subject:      admission.Subject,
	}
	if err != nil && !forwarded {
		return ActivateResult{}, g.auditRefusal(ctx, c, f.operation, event, fromActivation(err))
	}
	activated, instance, err := f.send(outliving(c.withPriority(ctx), admission), admission)
	if err != nil {
		if !forwarded && !usedUp(admission, err) {
			g.logCleanup(ctx, f.operation, "giving back the final call",
				g.activation.ReturnConfirmation(ctx, admission), registrationAttribute(admission))
		}
		event.Instance = instanceOf(err)
		return ActivateResult{}, g.auditRefusal(ctx, c, f.operation, event, fromServer(err))
	}
	if !forwarded {
		g.logCleanup(ctx, f.operation, "removing a completed registration",
			g.activation.Complete(ctx, admission), registrationAttribute(admission))
	}
	// The vendor does not publish the names of the answer's attributes, so that the
	// values may be missing.
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

// outliving returns the context for a call of which only refusals are counted. It does
// not end when the client leaves: otherwise a client could guess without limit by
// leaving before each answer.
func outliving(ctx context.Context, a activation.Admission) context.Context {
	if a.Kind == activation.KindAffinity {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// usedUp reports whether a call that ended with err consumed the right that it was
// admitted with. A right that comes from an exchange is consumed unless the call was
// not sent. Without an exchange only the refusals of the authentication server count,
// which bounds guessing. An answer that the server does not work is no such refusal.
func usedUp(a activation.Admission, err error) bool {
	if a.Kind != activation.KindAffinity {
		return !errors.Is(err, authserver.ErrNotSent)
	}
	refusal, ok := errors.AsType[*authserver.Refusal](err)
	return ok && !refusal.BackendFault()
}

// forwardsUnknown reports whether err says that the registration is unknown and calls
// for unknown registrations are forwarded.
func (g *Gateway) forwardsUnknown(err error) bool {
	return g.forwardUnknown && errors.Is(err, activation.ErrUnknown)
}

// registrationAttribute is the log attribute with the registration of a.
func registrationAttribute(a activation.Admission) slog.Attr {
	return slog.String("registration", string(a.Identifier))
}
