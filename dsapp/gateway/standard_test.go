package gateway

import (
	"context"
	"encoding/hex"
	"reflect"
	"slices"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// A standard licence is stored under an identifier of the gateway. Its serial number is
// the server's or else that of the request.
func TestRegisterStandard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ asked, told, kept string }{
		"told":           {"", "VDS1000003", "VDS1000003"},
		"neither":        {"", "", ""},
		"asked and told": {"VDS1000003", "VDS1000003", "VDS1000003"},
		"asked":          {"VDS1000003", "", "VDS1000003"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			r.servers.registered.SerialNumber = c.told
			r.activation.registered.Identifier = "Drawn.8-chars"
			got, err := r.RegisterActivation(t.Context(), theCaller, RegisterActivationRequest{
				UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword, LicenseType: form.LicenseStandard, SerialNumber: form.SerialNumber(c.asked),
			})
			if err != nil {
				t.Fatal(err)
			}
			r.wantTrace(t, "reserve", "REGISTER", "register", "release")
			image := "01;01;jane.doe;mydomain.com;Drawn.8-chars;" + theActivationPassword + ";GATEWAY01"
			if text, _ := hex.DecodeString(got.ActivationImage); string(text) != image {
				t.Errorf("image is %q, want %q", text, image)
			}
			got.ActivationImage = ""
			if want := (RegisterActivationResult{RegistrationIdentifier: "Drawn.8-chars", ActivationPassword: theActivationPassword, ExpiresAt: theExpiry}); got != want {
				t.Errorf("result is %+v, want %+v", got, want)
			}
			r.wantSent(t, soap.RegisterRequest{
				UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword, SerialNumber: form.SerialNumber(c.asked),
			})
			r.wantRegistration(t, activation.Registration{
				Kind: activation.KindStandard, Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: c.kept, Instance: "backup"},
				Data:    activation.ActivationData{ActivationCode: theActivationCode, EventReactivationCounter: theEventCounter},
				Started: theTime,
			})
			r.wantAudits(t, AuditEvent{
				Action: AuditRegistered, Operation: OpRegisterActivation, Application: "bank-site", Registration: "Drawn.8-chars",
				Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: c.kept, Instance: "backup"}, Profile: "default",
			})
		})
	}
}

// A registration of another licence than the one asked for is a failure, and audited as
// lost.
func TestRegisterStandardNonsense(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ told, audited string }{
		"another licence":   {"VDS1000004", "VDS1000004"},
		"bad serial number": {"VDS1000003;", ""},
	} {
		r := newRig(t, "")
		r.servers.registered.SerialNumber = c.told
		_, err := r.RegisterActivation(t.Context(), theCaller, RegisterActivationRequest{
			UserID: "jane.doe", StaticPassword: theStaticPassword, LicenseType: form.LicenseStandard, SerialNumber: "VDS1000003",
		})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		wantError(t, err, &Failure{Kind: BadAnswer})
		r.wantTrace(t, "reserve", "REGISTER", "release")
		r.wantAudits(t, AuditEvent{
			Action: AuditRegistrationLost, Operation: OpRegisterActivation, Application: "bank-site",
			Subject: form.Subject{UserID: "jane.doe", SerialNumber: c.audited, Instance: "backup"},
		})
	}
}

// A registration that the authentication server did not make is not stored.
func TestRegisterStandardFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err, want error
		actions   []AuditAction
	}{
		{errRefusal, &Refusal{Codes: errRefusal.Codes}, []AuditAction{AuditRegistrationRefused}},
		{callError(authserver.ErrNotSent), &Failure{Kind: Unavailable, RetryAfter: retryUnavailable}, nil},
		{callError(authserver.ErrTimeout), &Failure{Kind: Timeout}, nil},
	} {
		r := newRig(t, "")
		r.servers.err = c.err
		wantError(t, registerStandard(t.Context(), r), c.want)
		r.wantTrace(t, "reserve", "REGISTER", "release")
		r.wantActions(t, c.actions...)
	}
}

// registerStandard is one more operation like those in operations.
func registerStandard(ctx context.Context, r *rig) error {
	_, err := r.RegisterActivation(ctx, theCaller, RegisterActivationRequest{
		UserID: "jane.doe", StaticPassword: theStaticPassword, LicenseType: form.LicenseStandard,
	})
	return err
}

// A standard licence that could not be stored is a failure, even if unknown registrations
// are forwarded: its activation code is lost.
func TestRegisterStandardNotKept(t *testing.T) {
	t.Parallel()
	r := newRig(t, ForwardUnknown)
	r.activation.registerErr = errStore
	wantError(t, registerStandard(t.Context(), r), &Failure{Kind: Internal})
	r.wantActions(t, AuditRegistrationLost)
}

// The final call has the user of the registration and goes to its instance.
func TestActivateStandard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		request  ActivateStandardRequest
		answered soap.Activated
		want     ActivateResult
		instance string
	}{
		"response, told by the server": {
			ActivateStandardRequest{RegistrationIdentifier: "e3wfISG9", Response: theResponse},
			soap.Activated{UserID: "JANE.DOE", Domain: "MYDOMAIN.COM", SerialNumber: "VDS1000004"},
			ActivateResult{UserID: "JANE.DOE", Domain: "MYDOMAIN.COM", SerialNumber: "VDS1000004"},
			"third",
		},
		"derivation code, known from the registration": {
			ActivateStandardRequest{RegistrationIdentifier: "e3wfISG9", DerivationCode: theDerivationCode},
			soap.Activated{},
			ActivateResult{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003"},
			"backup",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			r.servers.activated, r.servers.instance = c.answered, c.instance
			got, err := r.ActivateStandard(t.Context(), theCaller, c.request)
			if err != nil || got != c.want {
				t.Errorf("result is %+v, %v, want %+v", got, err, c.want)
			}
			r.wantTrace(t, "admit confirmation", "ACTIVATE", "complete")
			if want := []activation.Kind{activation.KindStandard}; !slices.Equal(r.activation.kinds, want) {
				t.Errorf("admitted %q, want %q", r.activation.kinds, want)
			}
			r.wantSent(t, soap.ActivateRequest{
				UserID: "jane.doe", Domain: "mydomain.com", Response: c.request.Response, DerivationCode: c.request.DerivationCode,
			}, "backup")
			if r.activation.completed != theAdmission {
				t.Errorf("completed %+v, want %+v", r.activation.completed, theAdmission)
			}
			r.wantAudits(t, AuditEvent{
				Action: AuditActivated, Operation: OpActivateStandard, Application: "bank-site", Registration: "e3wfISG9",
				Subject: form.Subject{UserID: c.want.UserID, Domain: c.want.Domain, SerialNumber: c.want.SerialNumber, Instance: c.instance},
			})
		})
	}
}

// The final call for an unknown registration is refused, because the server needs the
// user.
func TestUnknownStandardIsRefused(t *testing.T) {
	t.Parallel()
	for _, unknown := range []UnknownRegistrations{RefuseUnknown, ForwardUnknown} {
		r := newRig(t, unknown)
		r.activation.admitErr = activation.ErrUnknown
		if err := operations[OpActivateStandard](t.Context(), r); !reflect.DeepEqual(err, &Refusal{Codes: refused1000}) {
			t.Errorf("error is %v", err)
		}
		r.wantTrace(t, "admit confirmation")
		r.wantActions(t, AuditConfirmationRefused)
	}
}
