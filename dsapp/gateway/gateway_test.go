package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

var (
	errOwnership = fmt.Errorf("%w: connection refused", ownership.ErrUnavailable)
	errStore     = fmt.Errorf("%w: connection refused", activation.ErrUnavailable)
	errRefusal   = &authserver.Refusal{Instance: "backup", Codes: soap.ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: "STAT_LOCKED", ReturnCode: -7, StatusCode: 1007}}
	refused1000  = ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: "STAT_INVCREDENTIALS", ReturnCode: -1, StatusCode: 1000}
)

func callError(reason error) error {
	return &authserver.CallError{Instance: "backup", Operation: "test", Reason: reason, Cause: errors.New("cause")}
}

var (
	theRetrieve   = RetrieveRequest{SerialNumber: "VDS1000003-1", Key: theKey}
	theCompletion = CompleteRequest{UserID: "jane.doe", Domain: "mydomain.com", Key: theKey, Signature: theSignature}
	theCancel     = CancelRequest{SerialNumber: "VDS1000003-1", Key: theWrappedKey}
)

// Each operation with a request that succeeds in a new rig, reduced to its error.
var operations = map[Operation]func(context.Context, *rig) error{
	OpRegisterActivation: func(ctx context.Context, r *rig) error {
		_, err := r.RegisterActivation(ctx, theCaller, RegisterActivationRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword})
		return err
	},
	OpRegisterOffline: func(ctx context.Context, r *rig) error {
		_, err := r.RegisterOffline(ctx, theCaller, RegisterOfflineRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword})
		return err
	},
	OpGenerateEphemeralKey: func(ctx context.Context, r *rig) error {
		_, err := r.GenerateEphemeralKey(ctx, theCaller, GenerateEphemeralKeyRequest{RegistrationIdentifier: "e3wfISG9", ClientPublic: theClientPublic})
		return err
	},
	OpGenerateActivationData: func(ctx context.Context, r *rig) error {
		_, err := r.GenerateActivationData(ctx, theCaller, GenerateActivationDataRequest{RegistrationIdentifier: "e3wfISG9", ClientEvidence: theClientEvidence})
		return err
	},
	OpAddDevice: func(ctx context.Context, r *rig) error {
		_, err := r.AddDevice(ctx, theCaller, AddDeviceRequest{RegistrationIdentifier: "e3wfISG9", DeviceCode: theDeviceCode})
		return err
	},
	OpActivate: func(ctx context.Context, r *rig) error {
		_, err := r.Activate(ctx, theCaller, ActivateRequest{RegistrationIdentifier: "e3wfISG9", Signature: theSignature})
		return err
	},
	OpActivateStandard: func(ctx context.Context, r *rig) error {
		_, err := r.ActivateStandard(ctx, theCaller, ActivateStandardRequest{RegistrationIdentifier: "e3wfISG9", Response: theResponse})
		return err
	},
	OpAuthenticate: func(ctx context.Context, r *rig) error {
		_, err := r.Authenticate(ctx, theCaller, AuthenticateRequest{UserID: "jane.doe", Domain: "mydomain.com", Password: theOneTimePassword})
		return err
	},
	OpRetrieveLogin: func(ctx context.Context, r *rig) error {
		_, err := r.RetrieveLogin(ctx, theCaller, theRetrieve)
		return err
	},
	OpCompleteLogin: func(ctx context.Context, r *rig) error {
		_, err := r.CompleteLogin(ctx, theCaller, theCompletion)
		return err
	},
	OpCancelLogin: func(ctx context.Context, r *rig) error {
		_, err := r.CancelLogin(ctx, theCaller, theCancel)
		return err
	},
	OpRetrieveSignature: func(ctx context.Context, r *rig) error {
		_, err := r.RetrieveSignature(ctx, theCaller, theRetrieve)
		return err
	},
	OpCompleteSignature: func(ctx context.Context, r *rig) error {
		_, err := r.CompleteSignature(ctx, theCaller, theCompletion)
		return err
	},
	OpCancelSignature: func(ctx context.Context, r *rig) error {
		_, err := r.CancelSignature(ctx, theCaller, theCancel)
		return err
	},
	OpUpdateNotificationID: func(ctx context.Context, r *rig) error {
		_, err := r.UpdateNotificationID(ctx, theCaller, UpdateNotificationIDRequest{
			UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003-1", NotificationID: theNotificationID,
		})
		return err
	},
	OpServerTime: func(ctx context.Context, r *rig) error {
		_, err := r.ServerTime(ctx, theCaller, ServerTimeRequest{})
		return err
	},
}

// The authentication server is asked only once the store takes writes, the
// lifetime counts from before that call, and the answer follows the request and
// not what the server may have made of user and domain.
func TestRegisterActivation(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	got, err := r.RegisterActivation(t.Context(), theCaller, RegisterActivationRequest{
		UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword, LicenseType: form.LicenseMDL,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.wantTrace(t, "reserve", "MDL_REGISTER", "register", "release")
	want := RegisterActivationResult{
		RegistrationIdentifier: "e3wfISG9",
		ActivationPassword:     theActivationPassword,
		// The illustration of the activation image format.
		ActivationImage: "30313B30313B6A616E652E646F653B6D79646F6D61696E2E636F6D3B65337766495347393B54623034386158313B474154455741593031",
		ExpiresAt:       theExpiry,
	}
	if got != want {
		t.Errorf("result is %+v, want %+v", got, want)
	}
	if want := (soap.MDLRegisterRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword}); r.servers.sent != want {
		t.Errorf("command is %+v, want %+v", r.servers.sent, want)
	}
	if want := (activation.Registration{
		Identifier: "e3wfISG9", Kind: activation.KindMDL, Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "backup"}, Data: activation.ActivationData{ActivationMessage: form.ActivationMessage(strings.ToUpper(theMessage))}, Started: theTime,
	}); r.activation.registration != want {
		t.Errorf("registration is %+v, want %+v", r.activation.registration, want)
	}
	if want := []AuditEvent{{
		Action: AuditRegistered, Operation: OpRegisterActivation, Application: "bank-site", Registration: "e3wfISG9",
		Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "backup"},
	}}; !slices.Equal(r.events.audits, want) {
		t.Errorf("audit is %+v, want %+v", r.events.audits, want)
	}
}

// An image without domain and gateway id keeps its seven fields.
func TestActivationImageWithoutOptionalFields(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.gatewayID = ""
	got, err := r.RegisterActivation(t.Context(), theCaller, RegisterActivationRequest{UserID: "jörg", StaticPassword: theStaticPassword})
	if err != nil {
		t.Fatal(err)
	}
	text, err := hex.DecodeString(got.ActivationImage)
	if want := "01;01;jörg;;e3wfISG9;Tb048aX1;"; err != nil || string(text) != want {
		t.Errorf("image is %q (%v), want %q", text, err, want)
	}
}

// Offline, Activation Message 1 goes to the caller and only the instance is kept.
func TestRegisterOffline(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	got, err := r.RegisterOffline(t.Context(), theCaller, RegisterOfflineRequest{UserID: "jane.doe", StaticPassword: theStaticPassword})
	if err != nil {
		t.Fatal(err)
	}
	r.wantTrace(t, "reserve", "MDL_REGISTER", "register", "release")
	if want := (RegisterOfflineResult{RegistrationIdentifier: "e3wfISG9", ActivationMessageImage: strings.ToUpper(theMessage)}); got != want {
		t.Errorf("result is %+v, want %+v", got, want)
	}
	if want := (activation.Registration{
		Identifier: "e3wfISG9", Kind: activation.KindAffinity, Subject: form.Subject{UserID: "jane.doe", SerialNumber: "VDS1000003", Instance: "backup"}, Started: theTime,
	}); r.activation.registration != want {
		t.Errorf("registration is %+v, want %+v", r.activation.registration, want)
	}
	if got, want := r.events.actions(), []AuditAction{AuditRegisteredOffline}; !slices.Equal(got, want) {
		t.Errorf("audited %q, want %q", got, want)
	}
}

// What is wrong with a request is found before anything is called, and the error
// names the member.
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

// wantInvalid expects err to be about the member, and that nothing was called.
func (r *rig) wantInvalid(t *testing.T, err error, member Member) {
	t.Helper()
	invalid, ok := errors.AsType[*InvalidError](err)
	if !ok || invalid.Member != member || invalid.Problem == "" {
		t.Errorf("error is %v, want one about %q", err, member)
	}
	r.wantTrace(t)
	if len(r.events.audits) != 0 || len(r.events.verdicts) != 0 {
		t.Errorf("reported %v", &r.events)
	}
}

// What authentication servers tell is cut to the limit of an audit event without
// leaving half a character.
func TestAuditIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.servers.activated.UserID = "u" + strings.Repeat("ü", 200)
	if err := operations[OpActivate](t.Context(), r); err != nil {
		t.Error(err)
	}
	if got, want := r.events.audits[0].UserID, "u"+strings.Repeat("ü", 127); got != want {
		t.Errorf("audited user is %q, want %q", got, want)
	}
}

// returns are the calls that give back what an operation consumed.
var returns = map[Operation]string{
	OpAddDevice: "return device", OpActivate: "return confirmation", OpActivateStandard: "return confirmation",
}

// calls are what an operation does up to its command to an authentication server,
// in the gateway's own exchange and in a relayed one, where that is different.
var calls = map[Operation]struct{ own, relayed []string }{
	OpRegisterActivation:     {[]string{"reserve", "MDL_REGISTER"}, []string{"reserve", "dsappSRPRegister"}},
	OpRegisterOffline:        {[]string{"reserve", "MDL_REGISTER"}, []string{"reserve", "MDL_REGISTER"}},
	OpGenerateEphemeralKey:   {nil, []string{"locate", "dsappSRPGenerateEphemeralKey"}},
	OpGenerateActivationData: {nil, []string{"locate", "dsappSRPGenerateActivationData"}},
	OpAddDevice:              {[]string{"admit device", "MDL_ADD_DEVICE"}, []string{"admit device", "MDL_ADD_DEVICE"}},
	OpActivate:               {[]string{"admit confirmation", "MDL_ACTIVATE"}, []string{"admit confirmation", "MDL_ACTIVATE"}},
	OpActivateStandard:       {[]string{"admit confirmation", "ACTIVATE"}, []string{"admit confirmation", "dsappSRPActivate"}},
	OpAuthenticate:           {[]string{"authUser"}, nil},
	OpRetrieveLogin:          {[]string{"retrieving", "getPreparedSecureChallenge"}, nil},
	OpCompleteLogin:          {[]string{"completing", "authUser"}, nil},
	OpCancelLogin:            {[]string{"cancelling", "cancelAuthUser"}, nil},
	OpRetrieveSignature:      {[]string{"retrieving", "getPreparedSignatureRequest"}, nil},
	OpCompleteSignature:      {[]string{"completing", "authSignature"}, nil},
	OpCancelSignature:        {[]string{"cancelling", "cancelAuthSignatureRequest"}, nil},
	OpUpdateNotificationID:   {[]string{"updateDevicePNID"}, nil},
}

// refusals are the operations whose refusal by an authentication server is audited.
var refusals = map[Operation]AuditAction{
	OpActivate: AuditConfirmationRefused, OpActivateStandard: AuditConfirmationRefused, OpGenerateActivationData: AuditProofRefused,
	OpAuthenticate: AuditAuthenticationRefused, OpCompleteLogin: AuditCompletionRefused, OpCompleteSignature: AuditCompletionRefused,
	OpCancelLogin: AuditCancelRefused, OpCancelSignature: AuditCancelRefused,
	OpAddDevice: AuditDeviceRefused, OpRegisterActivation: AuditRegistrationRefused, OpRegisterOffline: AuditRegistrationRefused,
	OpUpdateNotificationID: AuditNotificationIDRefused,
}

// Every error of an authentication server has its own kind, after which nothing
// more is called except to give back a right that was certainly not used.
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

// A refusal of an authentication server is audited with whom or what it is about
// and the instance that refused, even if another one was to be asked first.
func TestRefusalAudits(t *testing.T) {
	t.Parallel()
	user := AuditEvent{Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com"}}
	device := AuditEvent{Subject: form.Subject{SerialNumber: "VDS1000003-1"}}
	registration := AuditEvent{Registration: "e3wfISG9", Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003"}}
	for op, want := range map[Operation]AuditEvent{
		OpAuthenticate: user, OpCompleteLogin: user, OpCompleteSignature: user,
		OpCancelLogin: device, OpCancelSignature: device,
		OpActivate: registration, OpActivateStandard: registration, OpAddDevice: registration,
		OpUpdateNotificationID: {Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003-1"}},
	} {
		r := newRig(t, "")
		r.ownership.decision = ownership.Decision{Verdict: ownership.Forward, Known: true, Instances: []string{"backup"}}
		r.servers.err = &authserver.Refusal{Instance: "third", Codes: errRefusal.Codes}
		wantError(t, operations[op](t.Context(), r), &Refusal{Codes: errRefusal.Codes})
		want.Action, want.Operation, want.Application, want.Instance = refusals[op], op, "bank-site", "third"
		want.Status = errRefusal.Codes.StatusCodeEnum
		if want := []AuditEvent{want}; !slices.Equal(r.events.audits, want) {
			t.Errorf("%s: audit is %+v, want %+v", op, r.events.audits, want)
		}
	}
}

// Whatever ends well is reported as that, with the instance that did it.
func TestSuccesses(t *testing.T) {
	t.Parallel()
	for op, before := range calls {
		for exchange, before := range map[Exchange][]string{ExchangeGateway: before.own, ExchangeRelay: before.relayed} {
			if before == nil {
				continue
			}
			t.Run(string(op)+" "+string(exchange), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, "", func(c *Config) { c.Exchange = exchange })
				if err := operations[op](t.Context(), r); err != nil {
					t.Fatal(err)
				}
				if got := r.trace[:len(before)]; !slices.Equal(got, before) {
					t.Errorf("calls were %q, want %q first", r.trace, before)
				}
				for _, e := range r.events.audits {
					if e.Operation != op || e.Application != "bank-site" || e.Instance != "backup" && e.Action != AuditProven {
						t.Errorf("audit is %+v", e)
					}
				}
				if op != OpGenerateEphemeralKey && len(r.events.audits) != 1 {
					t.Errorf("audited %q, want one action", r.events.actions())
				}
			})
		}
	}
}

// wantError compares kinds, codes and times, not the cause of a failure.
func wantError(t *testing.T, got, want error) {
	t.Helper()
	if failure, ok := errors.AsType[*Failure](got); ok {
		got = &Failure{Kind: failure.Kind, RetryAfter: failure.RetryAfter}
		if failure.Err == nil {
			t.Error("failure without a cause")
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("error is %#v, want %#v", got, want)
	}
}

// What the activation service says before an authentication server is involved.
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

// A refusal has the same codes whatever the reason: they are in the answer.
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

// The registration exists at the authentication server and is lost here: asking
// again would make one more, so no time to do so is given.
func TestRegistrationNotKept(t *testing.T) {
	t.Parallel()
	for _, unknown := range []UnknownRegistrations{RefuseUnknown, ForwardUnknown} {
		for _, op := range []Operation{OpRegisterActivation, OpRegisterOffline} {
			t.Run(string(op)+" "+string(unknown), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, unknown)
				r.activation.registerErr = errStore
				err := operations[op](t.Context(), r)
				actions := []AuditAction{AuditRegistrationLost}
				// Forwarded without its memory, an offline activation can still be
				// completed.
				if op == OpRegisterOffline && unknown == ForwardUnknown {
					if err != nil {
						t.Errorf("error is %v, want none", err)
					}
					actions = append(actions, AuditRegisteredOffline)
				} else {
					wantError(t, err, &Failure{Kind: Internal})
				}
				r.wantTrace(t, "reserve", "MDL_REGISTER", "register", "release")
				if got := r.events.actions(); !slices.Equal(got, actions) {
					t.Errorf("audited %q, want %q", got, actions)
				}
			})
		}
	}
}

// An identifier of somebody else is never overwritten, nor is its holder's
// instance asked for this user.
func TestRegistrationExists(t *testing.T) {
	t.Parallel()
	for _, unknown := range []UnknownRegistrations{RefuseUnknown, ForwardUnknown} {
		for _, op := range []Operation{OpRegisterActivation, OpRegisterOffline} {
			r := newRig(t, unknown)
			r.activation.registerErr = fmt.Errorf("storing: %w", activation.ErrExists)
			err := operations[op](t.Context(), r)
			if want := (&Refusal{Codes: ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: "STAT_EXISTS", ReturnCode: -1, StatusCode: -14}}); !reflect.DeepEqual(err, want) {
				t.Errorf("%s: error is %v, want %v", op, err, want)
			}
			if got, want := r.events.actions(), []AuditAction{AuditIdentifierExists}; !slices.Equal(got, want) {
				t.Errorf("%s: audited %q, want %q", op, got, want)
			}
		}
	}
}

// A success of the authentication server without usable data is no success, and
// nothing of it is kept. A registration that it made is lost, which is audited
// with what of it can be used.
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

func TestGenerateEphemeralKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	got, err := r.GenerateEphemeralKey(t.Context(), theCaller, GenerateEphemeralKeyRequest{RegistrationIdentifier: "e3wfISG9", ClientPublic: theClientPublic})
	if want := (GenerateEphemeralKeyResult{ServerPublic: "B0", Salt: "5A17"}); err != nil || got != want {
		t.Errorf("result is %+v, %v, want %+v", got, err, want)
	}
	if want := [2]string{"e3wfISG9", theClientPublic}; r.activation.begun != want {
		t.Errorf("began with %q, want %q", r.activation.begun, want)
	}
}

// Both types of licences pass; what is absent stays absent.
func TestGenerateActivationData(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		proof activation.Proof
		want  GenerateActivationDataResult
	}{
		"mdl": {
			activation.Proof{Evidence: "E2", LicenseActivationMessage: &form.Sealed{Data: "DA", Counter: "C0", MAC: "3A"}},
			GenerateActivationDataResult{ServerEvidence: "E2", LicenseActivationMessage: &form.Sealed{Data: "DA", Counter: "C0", MAC: "3A"}},
		},
		"standard": {
			activation.Proof{Evidence: "E2", ActivationCode: &form.Sealed{Data: "D1"}, EventReactivationCounter: &form.Sealed{Data: "D2"}},
			GenerateActivationDataResult{ServerEvidence: "E2", ActivationCode: &form.Sealed{Data: "D1"}, EventReactivationCounter: &form.Sealed{Data: "D2"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			r.activation.proof = c.proof
			got, err := r.GenerateActivationData(t.Context(), theCaller, GenerateActivationDataRequest{RegistrationIdentifier: "e3wfISG9", ClientEvidence: theClientEvidence})
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("result is %+v, %v, want %+v", got, err, c.want)
			}
			if want := [2]string{"e3wfISG9", theClientEvidence}; r.activation.proved != want {
				t.Errorf("proved with %q, want %q", r.activation.proved, want)
			}
			if got, want := r.events.actions(), []AuditAction{AuditProven}; !slices.Equal(got, want) {
				t.Errorf("audited %q, want %q", got, want)
			}
		})
	}
}

// A refused proof is audited, one that was not judged is not.
func TestProofAudit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want []AuditAction
	}{
		{activation.ErrRefused, []AuditAction{AuditProofRefused}},
		{&activation.BurnedError{}, []AuditAction{AuditRegistrationBurned, AuditProofRefused}},
		{activation.ErrBusy, nil},
		{errStore, nil},
		{&activation.InvalidError{Member: "clientEvidenceMessage", Problem: "is wrong"}, nil},
	} {
		r := newRig(t, "")
		r.activation.proveErr = c.err
		if err := operations[OpGenerateActivationData](t.Context(), r); err == nil {
			t.Errorf("%v: no error", c.err)
		}
		if got := r.events.actions(); !slices.Equal(got, c.want) {
			t.Errorf("%v: audited %q, want %q", c.err, got, c.want)
		}
	}
}

// Who lost a registration to refused proofs is told, and the caller learns no more
// than from any refusal.
func TestBurnedRegistrationAudit(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.activation.proveErr = &activation.BurnedError{Admission: activation.Admission{
		Identifier: "e3wfISG9", Kind: activation.KindMDL, Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "primary"},
	}}
	wantError(t, operations[OpGenerateActivationData](t.Context(), r), &Refusal{Codes: refused1000})
	if want := (AuditEvent{
		Action: AuditRegistrationBurned, Operation: OpGenerateActivationData, Application: "bank-site", Registration: "e3wfISG9",
		Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "primary"},
	}); r.events.audits[0] != want {
		t.Errorf("audit is %+v, want %+v", r.events.audits[0], want)
	}
}

// The device is added where the registration is, with a description that is
// plain text. Reported is the instance that did it, which with a shared database
// can be another one.
func TestAddDevice(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.servers.instance = "third"
	got, err := r.AddDevice(t.Context(), theCaller, AddDeviceRequest{
		RegistrationIdentifier: "e3wfISG9", DeviceCode: theDeviceCode, Description: "Jane's <phone>\t№ 1_a-b.c ü",
	})
	if want := (AddDeviceResult{InstanceActivationMessage: "AA82DD55"}); err != nil || got != want {
		t.Errorf("result is %+v, %v, want %+v", got, err, want)
	}
	if want := (soap.MDLAddDeviceRequest{RegistrationID: "e3wfISG9", DeviceCode: theDeviceCode, Description: "Jane s  phone    1_a-b.c ü"}); r.servers.sent != want {
		t.Errorf("command is %+v, want %+v", r.servers.sent, want)
	}
	if !slices.Equal(r.servers.to.Instances, at("backup")) {
		t.Errorf("command went to %q", r.servers.to.Instances)
	}
	r.wantTrace(t, "admit device", "MDL_ADD_DEVICE")
	if want := []AuditEvent{{
		Action: AuditDeviceAdded, Operation: OpAddDevice, Application: "bank-site", Registration: "e3wfISG9",
		Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003-1", Instance: "third"},
	}}; !slices.Equal(r.events.audits, want) {
		t.Errorf("audit is %+v, want %+v", r.events.audits, want)
	}

	r.servers.device.InstanceActivationMessage = "zz"
	if err := operations[OpAddDevice](t.Context(), r); err == nil || !strings.Contains(err.Error(), `"third"`) {
		t.Errorf("error is %v, want one that names the instance", err)
	}
}

// A failure to give back what was not used does not change the answer.
func TestReturnFails(t *testing.T) {
	t.Parallel()
	for op, back := range returns {
		r := newRig(t, "")
		r.servers.err, r.activation.returnErr = callError(authserver.ErrNotSent), errStore
		wantError(t, operations[op](t.Context(), r), &Failure{Kind: Unavailable, RetryAfter: 5 * time.Second})
		if got := r.trace[len(r.trace)-1]; got != back {
			t.Errorf("%s: the last call was %q, want %q", op, got, back)
		}
		if !strings.Contains(r.log.String(), "failed") {
			t.Errorf("%s: the failure is not in the log", op)
		}
	}
}

func TestActivate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		activated soap.Activated
		want      ActivateResult
	}{
		"told by the server": {
			soap.Activated{UserID: "JANE.DOE", Domain: "MYDOMAIN.COM", SerialNumber: "VDS1000004"},
			ActivateResult{UserID: "JANE.DOE", Domain: "MYDOMAIN.COM", SerialNumber: "VDS1000004"},
		},
		"known from the registration": {
			soap.Activated{},
			ActivateResult{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			r.servers.activated, r.servers.instance = c.activated, "third"
			got, err := r.Activate(t.Context(), theCaller, ActivateRequest{RegistrationIdentifier: "e3wfISG9", Signature: theSignature})
			if err != nil || got != c.want {
				t.Errorf("result is %+v, %v, want %+v", got, err, c.want)
			}
			r.wantTrace(t, "admit confirmation", "MDL_ACTIVATE", "complete")
			if want := []activation.Kind{activation.KindMDL, activation.KindAffinity}; !slices.Equal(r.activation.kinds, want) {
				t.Errorf("admitted %q, want %q", r.activation.kinds, want)
			}
			if want := (soap.MDLActivateRequest{RegistrationID: "e3wfISG9", Signature: theSignature}); !slices.Equal(r.servers.to.Instances, at("backup")) || r.servers.sent != want {
				t.Errorf("command is %+v to %q, want %+v to %q", r.servers.sent, r.servers.to.Instances, want, "backup")
			}
			if r.activation.completed != theAdmission {
				t.Errorf("completed %+v, want %+v", r.activation.completed, theAdmission)
			}
			if want := []AuditEvent{{
				Action: AuditActivated, Operation: OpActivate, Application: "bank-site", Registration: "e3wfISG9",
				Subject: form.Subject{UserID: c.want.UserID, Domain: c.want.Domain, SerialNumber: c.want.SerialNumber, Instance: "third"},
			}}; !slices.Equal(r.events.audits, want) {
				t.Errorf("audit is %+v, want %+v", r.events.audits, want)
			}
		})
	}
}

// A completed activation is a success even if its registration stays behind.
func TestCompleteFails(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.activation.completeErr = errStore
	if err := operations[OpActivate](t.Context(), r); err != nil {
		t.Errorf("error is %v, want none", err)
	}
	if !strings.Contains(r.log.String(), "failed") {
		t.Error("the failure is not in the log")
	}
}

// Unknown registrations are forwarded by policy and leave nothing in the store;
// known ones without a right are refused all the same.
func TestForwardUnknown(t *testing.T) {
	t.Parallel()
	for op, calls := range map[Operation][]string{
		OpAddDevice: {"admit device", "MDL_ADD_DEVICE"},
		OpActivate:  {"admit confirmation", "MDL_ACTIVATE"},
	} {
		for name, server := range map[string]error{"success": nil, "not sent": callError(authserver.ErrNotSent), "refusal": errRefusal} {
			t.Run(string(op)+" "+name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, ForwardUnknown)
				r.activation.admitErr, r.servers.err = activation.ErrUnknown, server
				r.servers.to.Instances = at("unset")
				err := operations[op](t.Context(), r)
				if (err == nil) != (server == nil) {
					t.Errorf("error is %v", err)
				}
				r.wantTrace(t, calls...)
				if len(r.servers.to.Instances) != 0 {
					t.Errorf("command went to %q, want no choice", r.servers.to.Instances)
				}
			})
		}
		r := newRig(t, ForwardUnknown)
		r.activation.admitErr = activation.ErrRefused
		wantError(t, operations[op](t.Context(), r), &Refusal{Codes: refused1000})
		r.wantTrace(t, calls[:1]...)
	}
}

func TestServerTime(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.now = time.Unix(1547556827, 999)
	got, err := r.ServerTime(t.Context(), theCaller, ServerTimeRequest{})
	if err != nil || got.Time != 1547556827 {
		t.Errorf("result is %+v, %v", got, err)
	}
}

// Whatever happens, no secret of a request or an answer is in an error, an event
// or the log.
func TestNoSecretsOutside(t *testing.T) {
	t.Parallel()
	inStores := []error{
		nil, activation.ErrRefused, activation.ErrUnknown, activation.ErrBusy, activation.ErrExists, errStore, errOwnership, errors.New("other"),
	}
	inServers := []error{
		nil, errRefusal, callError(authserver.ErrNotSent), callError(authserver.ErrTimeout), callError(authserver.ErrUndecided), errors.New("other"),
		&authserver.Refusal{Instance: "backup", Codes: notFound.Codes},
	}
	decisions := []ownership.Decision{
		{Verdict: ownership.Forward}, {Verdict: ownership.Forward, StoreErr: errOwnership}, {Verdict: ownership.AlreadyOwned, Known: true}, {Verdict: ownership.Foreign},
	}
	all := maps.Clone(operations)
	all["register standard"] = registerStandard
	all["bind standard"] = func(ctx context.Context, r *rig) error {
		_, err := r.ActivateStandard(ctx, theCaller, ActivateStandardRequest{RegistrationIdentifier: "e3wfISG9", DerivationCode: theDerivationCode})
		return err
	}
	all["cancel by plain key"] = func(ctx context.Context, r *rig) error {
		_, err := r.CancelSignature(ctx, theCaller, CancelRequest{SerialNumber: "VDS1000003-1", Key: theKey})
		return err
	}
	all["update by odd notification ID"] = func(ctx context.Context, r *rig) error {
		_, err := r.UpdateNotificationID(ctx, theCaller, UpdateNotificationIDRequest{
			UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003-1", NotificationID: theNotificationID + "a",
		})
		return err
	}
	for op, do := range all {
		for _, exchange := range []Exchange{ExchangeGateway, ExchangeRelay} {
			for i := range len(inStores) * len(inServers) * len(decisions) {
				inStore, inServer, decision := inStores[i%len(inStores)], inServers[i/len(inStores)%len(inServers)], decisions[i/len(inStores)/len(inServers)]
				r := newRig(t, ForwardUnknown, func(c *Config) { c.Exchange = exchange })
				a := &r.activation
				a.registerErr, a.beginErr, a.proveErr, a.locateErr, a.admitErr, a.returnErr, a.completeErr = inStore, inStore, inStore, inStore, inStore, inStore, inStore
				r.ownership.decision, r.ownership.claimErr, r.ownership.releaseErr = decision, inStore, inStore
				r.servers.err, r.servers.replicated = inServer, true
				err := do(t.Context(), r)
				// Answers that are refused for their form, too.
				r.servers.mdlRegistered.ActivationMessage += "x"
				r.servers.device.InstanceActivationMessage = theMessage + "x"
				r.servers.srpRegistered.ActivationPassword += ";"
				r.servers.retrieved.RequestMessage += "x"
				r.ownership.decideErr, r.ownership.won = inStore, false
				err = errors.Join(err, do(t.Context(), r))
				outside := fmt.Sprintf("%v %v %s", err, &r.events, r.log.String())
				for _, secret := range secrets {
					if strings.Contains(strings.ToUpper(outside), strings.ToUpper(secret)) {
						t.Fatalf("%s, %s with %v and %v tells %q: %s", exchange, op, inStore, inServer, secret, outside)
					}
				}
			}
		}
	}
}

// A description always has its length, and after the rewriting only characters
// that every console can show; a second pass changes nothing.
func TestPlainDescription(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		description := rapid.StringN(0, 255, -1).Draw(t, "description")
		plain := plainDescription(form.Description(description))
		if got, want := utf8.RuneCountInString(plain), utf8.RuneCountInString(description); got != want {
			t.Fatalf("%d characters became %d", want, got)
		}
		if strings.ContainsAny(plain, "<>&\"'`;%\\/|$(){}[]*?!#@=+,:^~\t\r\n\x00\x7f") {
			t.Fatalf("special characters are left in %q", plain)
		}
		if again := plainDescription(form.Description(plain)); again != plain {
			t.Fatalf("%q became %q", plain, again)
		}
	})
}

// When nobody wants to be told, everything works just as well.
func TestNobodyIsTold(t *testing.T) {
	t.Parallel()
	for op, do := range operations {
		r := newRig(t, "", func(c *Config) { c.Decided, c.Audit = nil, nil })
		if err := do(t.Context(), r); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// A gateway that could not make a valid image does not start.
func TestNew(t *testing.T) {
	t.Parallel()
	good := func() Config {
		return Config{Activation: &fakeActivation{}, Ownership: &fakeOwnership{}, Servers: &fakeServers{}}
	}
	if _, err := New(good()); err != nil {
		t.Errorf("minimal configuration: %v", err)
	}
	for want, spoil := range map[string]func(*Config){
		"activation":                        func(c *Config) { c.Activation = nil },
		"ownership":                         func(c *Config) { c.Ownership = nil },
		"servers":                           func(c *Config) { c.Servers = nil },
		"exchange: must be":                 func(c *Config) { c.Exchange = "mail" },
		"gateway_id: must not contain":      func(c *Config) { c.GatewayID = "a;b" },
		"gateway_id: must":                  func(c *Config) { c.GatewayID = "a\nb" },
		"unknown: must be":                  func(c *Config) { c.UnknownRegistrations = "ignore" },
		"gateway_id: must have at most 255": func(c *Config) { c.GatewayID = strings.Repeat("é", 256) },
		"STAT_NOSUPPORT: must not be 0":     func(c *Config) { c.NoSupportCode = new(int32) },
	} {
		c := good()
		spoil(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
}
