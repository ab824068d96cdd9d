package gateway

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// The authentication server is called only after room was reserved in the store. The
// lifetime counts from before that call. User and domain of the answer are those of the
// request, not those of the server.
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
	r.wantSent(t, soap.MDLRegisterRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword})
	r.wantRegistration(t, activation.Registration{
		Identifier: "e3wfISG9", Kind: activation.KindMDL, Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "backup"}, Data: activation.ActivationData{ActivationMessage: form.ActivationMessage(strings.ToUpper(theMessage))}, Started: theTime,
	})
	r.wantAudits(t, AuditEvent{
		Action: AuditRegistered, Operation: OpRegisterActivation, Application: "bank-site", Registration: "e3wfISG9",
		Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "backup"}, Profile: "default",
	})
}

// A registration gets the profile that the caller asks for. One that the gateway does not offer is
// refused before anything is reserved or sent.
func TestRegisterWithProfile(t *testing.T) {
	t.Parallel()
	request := RegisterActivationRequest{UserID: "jane.doe", StaticPassword: theStaticPassword, Profile: "other"}
	r := newRig(t, "")
	if _, err := r.RegisterActivation(t.Context(), theCaller, request); err != nil {
		t.Fatal(err)
	}
	if r.activation.registration.Profile != "other" || r.events.audits[0].Profile != "other" {
		t.Errorf("registered %+v, audited %+v", r.activation.registration, r.events.audits)
	}
	request.Profile = "none"
	r = newRig(t, "")
	_, err := r.RegisterActivation(t.Context(), theCaller, request)
	r.wantInvalid(t, err, MemberProfile)
}

// An image without domain and gateway id still has seven fields.
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

// RegisterOffline returns Activation Message 1 and stores only the instance.
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
	r.wantRegistration(t, activation.Registration{
		Identifier: "e3wfISG9", Kind: activation.KindAffinity, Subject: form.Subject{UserID: "jane.doe", SerialNumber: "VDS1000003", Instance: "backup"}, Started: theTime,
	})
	r.wantActions(t, AuditRegisteredOffline)
}

// If the store fails after the authentication server made a registration, the error has
// no RetryAfter: repeating the request would make one more registration.
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
				r.wantActions(t, actions...)
			})
		}
	}
}

// A registration never replaces one of another user, even if unknown registrations are
// forwarded.
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
			r.wantActions(t, AuditIdentifierExists)
		}
	}
}
