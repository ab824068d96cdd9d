package gateway

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// For a registration without an exchange of the gateway, only calls that the
// authentication server refused stay counted. All others are given back, also those with
// an unknown outcome and those of a server that does not work. The Exchange mode of the
// gateway makes no difference.
func TestCallsWithoutExchange(t *testing.T) {
	t.Parallel()
	fault := &authserver.Refusal{Instance: "backup", Codes: soap.FailureCodes("STAT_LICENCE", -30)}
	for _, c := range []struct {
		name    string
		err     error
		counted bool
	}{
		{"success", nil, false},
		{"refusal", errRefusal, true},
		{"server that does not work", fault, false},
		{"not sent", callError(authserver.ErrNotSent), false},
		{"undecided", callError(authserver.ErrUndecided), false},
		{"no answer", callError(authserver.ErrNoAnswer), false},
		{"bad answer", callError(authserver.ErrBadAnswer), false},
		{"timeout", callError(authserver.ErrTimeout), false},
		{"other", errors.New("other"), false},
	} {
		for op, exchanges := range map[Operation][]Exchange{
			OpAddDevice: {ExchangeGateway, ExchangeRelay}, OpActivate: {ExchangeGateway, ExchangeRelay}, OpActivateStandard: {ExchangeRelay},
		} {
			for _, exchange := range exchanges {
				t.Run(c.name+" in "+string(op)+" "+string(exchange), func(t *testing.T) {
					t.Parallel()
					r := newRig(t, "", func(c *Config) { c.Exchange = exchange })
					r.activation.admission.Kind = activation.KindAffinity
					r.servers.err = c.err
					err := operations[op](t.Context(), r)
					if (err == nil) != (c.err == nil) {
						t.Errorf("error is %v", err)
					}
					before := calls[op].own
					if exchange == ExchangeRelay {
						before = calls[op].relayed
					}
					after := []string{returns[op]}
					switch {
					case c.counted:
						after = nil
					case c.err == nil && op != OpAddDevice:
						after = []string{"complete"}
					}
					r.wantTrace(t, append(slices.Clone(before), after...)...)
					if len(after) > 0 && after[0] == returns[op] && r.activation.returned != r.activation.admission {
						t.Errorf("gave back %+v, want %+v", r.activation.returned, r.activation.admission)
					}
				})
			}
		}
	}
}

// A call of which only refusals are counted does not end with its client, who could
// otherwise guess without limit by leaving before the answer. Other calls end with their
// client.
func TestGuessesAreJudged(t *testing.T) {
	t.Parallel()
	for kind, ends := range map[activation.Kind]bool{activation.KindAffinity: false, activation.KindMDL: true} {
		for _, op := range []Operation{OpAddDevice, OpActivate} {
			r := newRig(t, "")
			r.activation.admission.Kind = kind
			ctx, leave := context.WithCancel(t.Context())
			leave()
			_ = operations[op](ctx, r)
			if got := r.servers.ctx.Err() != nil; got != ends {
				t.Errorf("%s of a registration of kind %s: the call ended with its client: %t", op, kind, got)
			}
		}
	}
}

// A call with an unusable answer is not counted either. Failing to give a right back does
// not change the answer. For an unknown registration that was forwarded there is nothing
// to give back.
func TestDeviceWithoutExchange(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.activation.admission.Kind = activation.KindAffinity
	r.servers.device.InstanceActivationMessage = "zz"
	wantError(t, operations[OpAddDevice](t.Context(), r), &Failure{Kind: BadAnswer})
	r.wantTrace(t, "admit device", "MDL_ADD_DEVICE", "return device")

	r = newRig(t, "")
	r.activation.admission.Kind = activation.KindAffinity
	r.activation.returnErr = errStore
	if err := operations[OpAddDevice](t.Context(), r); err != nil {
		t.Errorf("error is %v", err)
	}
	r.wantActions(t, AuditDeviceAdded)

	r = newRig(t, ForwardUnknown)
	r.activation.admitErr = activation.ErrUnknown
	r.servers.err = callError(authserver.ErrTimeout)
	wantError(t, operations[OpAddDevice](t.Context(), r), &Failure{Kind: Timeout})
	r.wantTrace(t, "admit device", "MDL_ADD_DEVICE")
}

// Beyond the limit nothing is forwarded, even if unknown registrations are.
func TestBoundWithoutExchange(t *testing.T) {
	t.Parallel()
	for _, op := range []Operation{OpAddDevice, OpActivate, OpActivateStandard} {
		r := newRig(t, ForwardUnknown, relayed)
		r.activation.admitErr = activation.ErrRefused
		wantError(t, operations[op](t.Context(), r), &Refusal{Codes: refused1000})
		if r.servers.sent != nil {
			t.Errorf("%s: sent %+v", op, r.servers.sent)
		}
	}
}
