package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// Values of authentication servers are cut to the limit of an audit event, between
// characters.
func TestAuditIsBounded(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		strings.Repeat("u", 255):       strings.Repeat("u", 255),
		strings.Repeat("u", 256):       strings.Repeat("u", 255),
		"u" + strings.Repeat("ü", 200): "u" + strings.Repeat("ü", 127),
		strings.Repeat("ü", 200):       strings.Repeat("ü", 127),
	} {
		r := newRig(t, "")
		r.servers.activated.UserID = given
		if err := operations[OpActivate](t.Context(), r); err != nil {
			t.Error(err)
		}
		if got := r.events.audits[0].UserID; got != want {
			t.Errorf("audited user is %q, want %q", got, want)
		}
	}
}

// The audit event of a refusal by an authentication server has the user, device or
// registration and the instance that refused, which may be another one than the first to
// be asked.
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

// The audit event of a success has the instance that carried out the command.
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

// Decided and Audit are optional.
func TestNobodyIsTold(t *testing.T) {
	t.Parallel()
	for op, do := range operations {
		r := newRig(t, "", func(c *Config) { c.Decided, c.Audit = nil, nil })
		if err := do(t.Context(), r); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}

// No error, event or log line contains a secret of a request or an answer.
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
