package gateway

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// An invalid request fails before anything is called, with an error that names the
// member.
func TestInvalidRequests(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		member Member
		do     func(context.Context, *rig) error
	}{
		"serial for mdl": {MemberSerialNumber, func(ctx context.Context, r *rig) error {
			_, err := r.RegisterActivation(ctx, theCaller, RegisterActivationRequest{UserID: "u", StaticPassword: "p", SerialNumber: "VDS1000003"})
			return err
		}},
		"neither response nor derivation code": {MemberResponse, func(ctx context.Context, r *rig) error {
			_, err := r.ActivateStandard(ctx, theCaller, ActivateStandardRequest{RegistrationIdentifier: "e3wfISG9"})
			return err
		}},
		"both response and derivation code": {MemberDerivationCode, func(ctx context.Context, r *rig) error {
			_, err := r.ActivateStandard(ctx, theCaller, ActivateStandardRequest{
				RegistrationIdentifier: "e3wfISG9", Response: theResponse, DerivationCode: theDerivationCode,
			})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			r.wantInvalid(t, c.do(t.Context(), r), c.member)
		})
	}
}

// Every error of an authentication server becomes the error of its kind. Afterwards
// nothing is called but what gives back a right that was certainly not used.
func TestServerErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		err     error
		want    error // *Refusal or *Failure, compared without cause
		notSent bool
	}{
		{"refusal", errRefusal, &Refusal{Codes: errRefusal.Codes}, false},
		{"not sent", callError(authserver.ErrNotSent), &Failure{Kind: Unavailable, RetryAfter: 5 * time.Second}, true},
		{"breaker open", &authserver.CallError{Instance: "backup", Reason: authserver.ErrNotSent, Cause: &breaker.OpenError{RetryAfter: time.Minute}}, &Failure{Kind: Unavailable, RetryAfter: time.Minute}, true},
		{"undecided", callError(authserver.ErrUndecided), &Failure{Kind: Unavailable, RetryAfter: 5 * time.Second}, false},
		{"no answer", callError(authserver.ErrNoAnswer), &Failure{Kind: BadAnswer}, false},
		{"bad answer", callError(authserver.ErrBadAnswer), &Failure{Kind: BadAnswer}, false},
		{"timeout", callError(authserver.ErrTimeout), &Failure{Kind: Timeout}, false},
		{"bad field", &authserver.CallError{Instance: "backup", Reason: authserver.ErrNotSent, Cause: &soap.FieldError{Field: "F", Problem: "is missing"}}, &Failure{Kind: Internal}, true},
		{"other", errors.New("other"), &Failure{Kind: Internal}, false},
	} {
		for op, before := range calls {
			for exchange, before := range map[Exchange][]string{ExchangeGateway: before.own, ExchangeRelay: before.relayed} {
				if before == nil {
					continue
				}
				t.Run(c.name+" in "+string(op)+" "+string(exchange), func(t *testing.T) {
					t.Parallel()
					r := newRig(t, "", func(c *Config) { c.Exchange = exchange })
					r.servers.err = c.err
					wantError(t, operations[op](t.Context(), r), c.want)
					want := slices.Clone(before)
					if before[0] == "reserve" {
						want = append(want, "release")
					}
					if back := returns[op]; c.notSent && back != "" {
						want = append(want, back)
						if r.activation.returned != theAdmission {
							t.Errorf("gave back %+v, want %+v", r.activation.returned, theAdmission)
						}
					}
					r.wantTrace(t, want...)
					if refused := refusals[op]; c.name == "refusal" && refused != "" {
						r.wantActions(t, refused)
					} else {
						r.wantActions(t)
					}
				})
			}
		}
	}
}

// Every error of the activation service becomes the error of its kind. The authentication
// server is not called then.
func TestActivationErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"refused", activation.ErrRefused, &Refusal{Codes: refused1000}},
		{"unknown", activation.ErrUnknown, &Refusal{Codes: refused1000}},
		{"busy", activation.ErrBusy, &Failure{Kind: Busy, RetryAfter: time.Second}},
		{"store down", errStore, &Failure{Kind: Unavailable, RetryAfter: 5 * time.Second}},
		{"invalid", &activation.InvalidError{Member: "clientEphemeralPublicKey", Problem: "is wrong"}, &InvalidError{Member: MemberClientPublic, Problem: "is wrong"}},
		{"other", errors.New("other"), &Failure{Kind: Internal}},
	} {
		for op, call := range map[Operation]string{
			OpGenerateEphemeralKey:   "begin",
			OpGenerateActivationData: "prove",
			OpAddDevice:              "admit device",
			OpActivate:               "admit confirmation",
			OpActivateStandard:       "admit confirmation",
			OpRegisterActivation:     "reserve",
			OpRegisterOffline:        "reserve",
		} {
			t.Run(c.name+" in "+string(op), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, "")
				r.activation.reserveErr, r.activation.beginErr, r.activation.proveErr, r.activation.admitErr = c.err, c.err, c.err, c.err
				err := operations[op](t.Context(), r)
				wantError(t, err, c.want)
				r.wantTrace(t, call)
			})
		}
	}
}

// Refusals have the same codes whatever the reason, because clients see the codes.
func TestRefusalsAreAlike(t *testing.T) {
	t.Parallel()
	for _, op := range []Operation{OpGenerateActivationData, OpAddDevice, OpActivate, OpActivateStandard} {
		for _, reason := range []error{activation.ErrRefused, activation.ErrUnknown} {
			for _, exchange := range []Exchange{ExchangeGateway, ExchangeRelay} {
				r := newRig(t, RefuseUnknown, func(c *Config) { c.Exchange = exchange })
				r.activation.proveErr, r.activation.locateErr, r.activation.admitErr = reason, reason, reason
				if err := operations[op](t.Context(), r); !reflect.DeepEqual(err, &Refusal{Codes: refused1000}) {
					t.Errorf("%s, %s: %v gives %v", exchange, op, reason, err)
				}
			}
		}
	}
}

// A successful answer of the authentication server with unusable data is a failure, and
// nothing of it is stored. If it was a registration, the audit event has the usable parts
// of the answer.
func TestNonsenseOfServers(t *testing.T) {
	t.Parallel()
	lost := func(identifier, serialNumber string) AuditEvent {
		return AuditEvent{
			Action: AuditRegistrationLost, Application: "bank-site", Registration: form.Identifier(identifier),
			Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: serialNumber, Instance: "backup"},
		}
	}
	for name, c := range map[string]struct {
		op     Operation
		spoil  func(*rig)
		called string
		audit  AuditEvent
	}{
		"no activation message":      {OpRegisterActivation, func(r *rig) { r.servers.mdlRegistered.ActivationMessage = "" }, "MDL_REGISTER", lost("e3wfISG9", "VDS1000003")},
		"odd activation message":     {OpRegisterActivation, func(r *rig) { r.servers.mdlRegistered.ActivationMessage = "5EC2E" }, "MDL_REGISTER", lost("e3wfISG9", "VDS1000003")},
		"activation message, base64": {OpRegisterOffline, func(r *rig) { r.servers.mdlRegistered.ActivationMessage = "XsLnoAE=" }, "MDL_REGISTER", lost("e3wfISG9", "VDS1000003")},
		"no identifier":              {OpRegisterActivation, func(r *rig) { r.servers.mdlRegistered.RegistrationID = "" }, "MDL_REGISTER", lost("", "VDS1000003")},
		"bad identifier":             {OpRegisterOffline, func(r *rig) { r.servers.mdlRegistered.RegistrationID = "e3wf;SG9" }, "MDL_REGISTER", lost("", "VDS1000003")},
		"bad serial number":          {OpRegisterActivation, func(r *rig) { r.servers.mdlRegistered.SerialNumber = "VDS;1" }, "MDL_REGISTER", lost("e3wfISG9", "")},
		"long serial number":         {OpRegisterOffline, func(r *rig) { r.servers.mdlRegistered.SerialNumber = strings.Repeat("1", 256) }, "MDL_REGISTER", lost("e3wfISG9", "")},
		"nothing":                    {OpRegisterActivation, func(r *rig) { r.servers.mdlRegistered = soap.MDLRegistered{} }, "MDL_REGISTER", lost("", "")},
		"no instance message":        {OpAddDevice, func(r *rig) { r.servers.device.InstanceActivationMessage = "" }, "MDL_ADD_DEVICE", AuditEvent{}},
		"bad instance message":       {OpAddDevice, func(r *rig) { r.servers.device.InstanceActivationMessage = "zz" }, "MDL_ADD_DEVICE", AuditEvent{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			c.spoil(r)
			wantError(t, operations[c.op](t.Context(), r), &Failure{Kind: BadAnswer})
			called := slices.DeleteFunc(slices.Clone(r.trace), func(call string) bool { return call == "release" })
			if last := called[len(called)-1]; last != c.called {
				t.Errorf("%q was called after the answer", last)
			}
			var want []AuditEvent
			if c.audit != (AuditEvent{}) {
				c.audit.Operation = c.op
				want = append(want, c.audit)
			}
			if !slices.Equal(r.events.audits, want) {
				t.Errorf("audit is %+v, want %+v", r.events.audits, want)
			}
		})
	}
}
