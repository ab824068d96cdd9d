package gateway

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// The device is added at the instance of the registration, with a plain description. The
// audit event has the instance that answered, which can be another one if instances share
// a database.
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
	r.wantSent(t, soap.MDLAddDeviceRequest{RegistrationID: "e3wfISG9", DeviceCode: theDeviceCode, Description: "Jane s  phone    1_a-b.c ü"}, "backup")
	r.wantTrace(t, "admit device", "MDL_ADD_DEVICE")
	r.wantAudits(t, AuditEvent{
		Action: AuditDeviceAdded, Operation: OpAddDevice, Application: "bank-site", Registration: "e3wfISG9",
		Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003-1", Instance: "third"},
	})

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
			r.wantSent(t, soap.MDLActivateRequest{RegistrationID: "e3wfISG9", Signature: theSignature}, "backup")
			if r.activation.completed != theAdmission {
				t.Errorf("completed %+v, want %+v", r.activation.completed, theAdmission)
			}
			r.wantAudits(t, AuditEvent{
				Action: AuditActivated, Operation: OpActivate, Application: "bank-site", Registration: "e3wfISG9",
				Subject: form.Subject{UserID: c.want.UserID, Domain: c.want.Domain, SerialNumber: c.want.SerialNumber, Instance: "third"},
			})
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

// With ForwardUnknown, calls for unknown registrations are forwarded and nothing is given
// back in the store. Calls for known registrations without a right are still refused.
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

// A plain description has the length of the description and only characters that every
// console can show. Rewriting it again changes nothing.
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
