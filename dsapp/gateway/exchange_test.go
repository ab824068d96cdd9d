package gateway

import (
	"reflect"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// The activation service gets the origin of both calls of an exchange. Contention is
// audited and does not change the answer.
func TestGenerateEphemeralKey(t *testing.T) {
	t.Parallel()
	for _, contended := range []bool{false, true} {
		r := newRig(t, "")
		r.activation.challenge.Contended = contended
		got, err := r.GenerateEphemeralKey(t.Context(), theCaller, GenerateEphemeralKeyRequest{RegistrationIdentifier: "e3wfISG9", ClientPublic: theClientPublic})
		if want := (GenerateEphemeralKeyResult{ServerPublic: "B0", Salt: "5A17"}); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if want := [2]string{"e3wfISG9", theClientPublic}; r.activation.begun != want {
			t.Errorf("began with %q, want %q", r.activation.begun, want)
		}
		var want []AuditEvent
		if contended {
			want = []AuditEvent{{
				Action: AuditExchangeContended, Operation: OpGenerateEphemeralKey, Application: theCaller.Application, Registration: "e3wfISG9",
			}}
		}
		r.wantAudits(t, want...)
		origin := activation.Origin{Address: theCaller.Source, Application: theCaller.Application}
		if r.activation.from != origin {
			t.Errorf("first call from %+v, want %+v", r.activation.from, origin)
		}
		r.activation.from = activation.Origin{}
		if err := operations[OpGenerateActivationData](t.Context(), r); err != nil || r.activation.from != origin {
			t.Errorf("second call from %+v, want %+v, error %v", r.activation.from, origin, err)
		}
	}
}

// The data of both types of licences is passed on. What is absent stays absent.
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
			r.wantActions(t, AuditProven)
		})
	}
}

// A refused proof is audited, one that was not verified is not.
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
		r.wantActions(t, c.want...)
	}
}

// The audit event of a burned registration has its user. The client gets the same answer
// as for every refusal.
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
