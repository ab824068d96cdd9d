package gateway

import (
	"encoding/hex"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

var theRelayedRegistration = RegisterActivationRequest{
	UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword, SerialNumber: "VDS1000003",
}

// In a relayed exchange the authentication server chooses licence, identifier and
// password. It may also choose the gateway id of the activation image.
func TestRelayRegister(t *testing.T) {
	t.Parallel()
	for told, image := range map[string]string{
		"OTHER01": "01;01;jane.doe;mydomain.com;e3wfISG9;server-PASSWORD;OTHER01",
		"":        "01;01;jane.doe;mydomain.com;e3wfISG9;server-PASSWORD;GATEWAY01",
	} {
		r := newRig(t, "", relayed)
		r.servers.srpRegistered.DIGIPASSGatewayID = told
		r.servers.srpRegistered.ActivationPassword = "server-PASSWORD"
		r.activation.registered.Password = ""
		got, err := r.RegisterActivation(t.Context(), theCaller, theRelayedRegistration)
		if err != nil {
			t.Fatal(err)
		}
		r.wantTrace(t, "reserve", "dsappSRPRegister", "register", "release")
		if text, _ := hex.DecodeString(got.ActivationImage); string(text) != image {
			t.Errorf("image is %q, want %q", text, image)
		}
		got.ActivationImage = ""
		if want := (RegisterActivationResult{RegistrationIdentifier: "e3wfISG9", ActivationPassword: "server-PASSWORD", ExpiresAt: theExpiry}); got != want {
			t.Errorf("result is %+v, want %+v", got, want)
		}
		r.wantSent(t, soap.DSAPPSRPRegisterRequest{
			UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword, SerialNumber: "VDS1000003",
		})
		// Nothing of the password is kept.
		r.wantRegistration(t, activation.Registration{
			Identifier: "e3wfISG9", Kind: activation.KindAffinity, Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "backup"}, Started: theTime,
		})
		r.wantActions(t, AuditRegistered)
	}
}

// In a relayed exchange the request must choose neither the type of the licence nor the profile.
func TestRelayInvalidRegistrations(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		member Member
		change func(*RegisterActivationRequest)
	}{
		{MemberLicenseType, func(q *RegisterActivationRequest) { q.LicenseType = form.LicenseMDL }},
		{MemberLicenseType, func(q *RegisterActivationRequest) { q.LicenseType = form.LicenseStandard }},
		{MemberProfile, func(q *RegisterActivationRequest) { q.Profile = "default" }},
	} {
		r := newRig(t, "", relayed)
		request := theRelayedRegistration
		c.change(&request)
		_, err := r.RegisterActivation(t.Context(), theCaller, request)
		r.wantInvalid(t, err, c.member)
	}
}

// A registration that does not fit into an activation image is a failure. The audit event
// has the usable parts of the answer.
func TestRelayNonsenseRegistrations(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil                    func(*soap.DSAPPSRPRegistered)
		identifier, serialNumber string
	}{
		"no password":       {func(a *soap.DSAPPSRPRegistered) { a.ActivationPassword = "" }, "e3wfISG9", "VDS1000003"},
		"bad password":      {func(a *soap.DSAPPSRPRegistered) { a.ActivationPassword = "a;b" }, "e3wfISG9", "VDS1000003"},
		"bad gateway":       {func(a *soap.DSAPPSRPRegistered) { a.DIGIPASSGatewayID = "a\nb" }, "e3wfISG9", "VDS1000003"},
		"no identifier":     {func(a *soap.DSAPPSRPRegistered) { a.RegistrationID = "" }, "", "VDS1000003"},
		"bad identifier":    {func(a *soap.DSAPPSRPRegistered) { a.RegistrationID = "a b c d" }, "", "VDS1000003"},
		"long serial":       {func(a *soap.DSAPPSRPRegistered) { a.SerialNumber = strings.Repeat("1", 256) }, "e3wfISG9", ""},
		"bad serial number": {func(a *soap.DSAPPSRPRegistered) { a.SerialNumber = "VDS\x00" }, "e3wfISG9", ""},
	} {
		r := newRig(t, "", relayed)
		c.spoil(&r.servers.srpRegistered)
		_, err := r.RegisterActivation(t.Context(), theCaller, theRelayedRegistration)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		wantError(t, err, &Failure{Kind: BadAnswer})
		r.wantTrace(t, "reserve", "dsappSRPRegister", "release")
		r.wantAudits(t, AuditEvent{
			Action: AuditRegistrationLost, Operation: OpRegisterActivation, Application: "bank-site", Registration: form.Identifier(c.identifier),
			Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: c.serialNumber, Instance: "backup"},
		})
	}
}

// If unknown registrations are forwarded, a registration that could not be stored can
// still be activated. Its answer has no expiry, which only the authentication server
// knows.
func TestRelayRegistrationNotKept(t *testing.T) {
	t.Parallel()
	for _, unknown := range []UnknownRegistrations{"", ForwardUnknown, RefuseUnknown} {
		r := newRig(t, unknown, relayed)
		r.activation.registerErr = errStore
		got, err := r.RegisterActivation(t.Context(), theCaller, theRelayedRegistration)
		if unknown == RefuseUnknown {
			wantError(t, err, &Failure{Kind: Internal})
			r.wantActions(t, AuditRegistrationLost)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got.RegistrationIdentifier != "e3wfISG9" || got.ActivationPassword != theActivationPassword || !got.ExpiresAt.IsZero() {
			t.Errorf("%q: result is %+v", unknown, got)
		}
		text, _ := hex.DecodeString(got.ActivationImage)
		if want := "01;01;jane.doe;mydomain.com;e3wfISG9;" + theActivationPassword + ";OTHER01"; string(text) != want {
			t.Errorf("%q: image is %q, want %q", unknown, text, want)
		}
		r.wantActions(t, AuditRegistrationLost, AuditRegistered)
	}
}

// A relayed registration never replaces one of another user either.
func TestRelayRegistrationExists(t *testing.T) {
	t.Parallel()
	for _, unknown := range []UnknownRegistrations{ForwardUnknown, RefuseUnknown} {
		r := newRig(t, unknown, relayed)
		r.activation.registerErr = activation.ErrExists
		_, err := r.RegisterActivation(t.Context(), theCaller, theRelayedRegistration)
		wantError(t, err, &Refusal{Codes: ResultCodes{ReturnCodeEnum: "RET_FAILURE", StatusCodeEnum: "STAT_EXISTS", ReturnCode: -1, StatusCode: -14}})
		r.wantActions(t, AuditIdentifierExists)
	}
}

// Both calls of a relayed exchange reach the instance of the registration. Values are
// passed on unchanged in both directions.
func TestRelayExchange(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", relayed)
	challenge, err := r.GenerateEphemeralKey(t.Context(), theCaller, GenerateEphemeralKeyRequest{RegistrationIdentifier: "e3wfISG9", ClientPublic: "0aB"})
	if want := (GenerateEphemeralKeyResult{ServerPublic: theServerPublic, Salt: theSalt}); err != nil || challenge != want {
		t.Errorf("result is %+v, %v, want %+v", challenge, err, want)
	}
	r.wantSent(t, soap.DSAPPSRPEphemeralKeyRequest{RegistrationID: "e3wfISG9", ClientPublic: "0aB"}, "backup")
	r.wantTrace(t, "locate", "dsappSRPGenerateEphemeralKey")
	r.wantActions(t)

	for name, c := range map[string]struct {
		data soap.DSAPPSRPActivationData
		want GenerateActivationDataResult
	}{
		"mdl": {
			soap.DSAPPSRPActivationData{ServerEvidence: "e2", ActivationMessage: &form.Sealed{Data: "da", Counter: "c0", MAC: "3a"}},
			GenerateActivationDataResult{ServerEvidence: "e2", LicenseActivationMessage: &form.Sealed{Data: "da", Counter: "c0", MAC: "3a"}},
		},
		"standard": {
			soap.DSAPPSRPActivationData{
				ServerEvidence: "e2",
				ActivationCode: &form.Sealed{Data: "d1"}, EventReactivationCounter: &form.Sealed{Data: "d2"},
			},
			GenerateActivationDataResult{ServerEvidence: "e2", ActivationCode: &form.Sealed{Data: "d1"}, EventReactivationCounter: &form.Sealed{Data: "d2"}},
		},
	} {
		r := newRig(t, "", relayed)
		r.servers.data = c.data
		got, err := r.GenerateActivationData(t.Context(), theCaller, GenerateActivationDataRequest{RegistrationIdentifier: "e3wfISG9", ClientEvidence: "1eF"})
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: result is %+v, %v, want %+v", name, got, err, c.want)
		}
		r.wantSent(t, soap.DSAPPSRPEvidenceRequest{RegistrationID: "e3wfISG9", ClientEvidence: "1eF"}, "backup")
		r.wantTrace(t, "locate", "dsappSRPGenerateActivationData")
		r.wantActions(t, AuditProven)
	}
}

// Calls of a relayed activation look up the registration. Calls for unknown registrations
// are forwarded or refused by policy.
func TestRelayUnknownRegistrations(t *testing.T) {
	t.Parallel()
	exchange := []Operation{OpGenerateEphemeralKey, OpGenerateActivationData}
	for _, op := range append(exchange, OpAddDevice, OpActivate, OpActivateStandard) {
		for _, c := range []struct {
			unknown   UnknownRegistrations
			err       error
			forwarded bool
			want      error
		}{
			{"", activation.ErrUnknown, true, nil},
			{ForwardUnknown, activation.ErrUnknown, true, nil},
			{RefuseUnknown, activation.ErrUnknown, false, &Refusal{Codes: refused1000}},
			{"", activation.ErrRefused, false, &Refusal{Codes: refused1000}},
			{"", errStore, false, &Failure{Kind: Unavailable, RetryAfter: retryUnavailable}},
		} {
			r := newRig(t, c.unknown, relayed)
			r.activation.locateErr, r.activation.admitErr = c.err, c.err
			r.servers.to.Instances = at("unset")
			err := operations[op](t.Context(), r)
			want := calls[op].relayed
			if c.forwarded {
				if err != nil || len(r.servers.to.Instances) != 0 {
					t.Errorf("%s, %q: error is %v, command went to %q", op, c.unknown, err, r.servers.to.Instances)
				}
			} else {
				wantError(t, err, c.want)
				want = want[:1]
			}
			r.wantTrace(t, want...)
			if slices.Contains(exchange, op) {
				if r.activation.located != "e3wfISG9" {
					t.Errorf("%s: located %q", op, r.activation.located)
				}
			}
		}
	}
}

// The final call of a relayed activation has the registration identifier instead of the
// user.
func TestRelayActivateStandard(t *testing.T) {
	t.Parallel()
	for _, request := range []ActivateStandardRequest{
		{RegistrationIdentifier: "e3wfISG9", Response: theResponse},
		{RegistrationIdentifier: "e3wfISG9", DerivationCode: theDerivationCode},
	} {
		r := newRig(t, "", relayed)
		r.servers.activated = soap.Activated{}
		got, err := r.ActivateStandard(t.Context(), theCaller, request)
		if want := (ActivateResult{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003"}); err != nil || got != want {
			t.Errorf("result is %+v, %v, want %+v", got, err, want)
		}
		r.wantTrace(t, "admit confirmation", "dsappSRPActivate", "complete")
		if want := []activation.Kind{activation.KindAffinity}; !slices.Equal(r.activation.kinds, want) {
			t.Errorf("admitted %q, want %q", r.activation.kinds, want)
		}
		r.wantSent(t, soap.DSAPPSRPActivateRequest{
			RegistrationID: "e3wfISG9", Response: request.Response, DerivationCode: request.DerivationCode,
		}, "backup")
		if r.activation.completed != theAdmission {
			t.Errorf("completed %+v", r.activation.completed)
		}
		r.wantActions(t, AuditActivated)
	}
}

// For an unknown registration, result and audit event have the user of the server's
// answer. Nothing is removed from the store.
func TestRelayActivateUnknownStandard(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", relayed)
	r.activation.admitErr = activation.ErrUnknown
	got, err := r.ActivateStandard(t.Context(), theCaller, ActivateStandardRequest{RegistrationIdentifier: "e3wfISG9", Response: theResponse})
	if want := (ActivateResult{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003"}); err != nil || got != want {
		t.Errorf("result is %+v, %v, want %+v", got, err, want)
	}
	r.wantTrace(t, "admit confirmation", "dsappSRPActivate")
	r.wantAudits(t, AuditEvent{
		Action: AuditActivated, Operation: OpActivateStandard, Application: "bank-site", Registration: "e3wfISG9",
		Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003", Instance: "backup"},
	})
}
