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

// Of a registration without an exchange of the gateway's own, only the calls that
// the authentication server refused stay counted: all others are given back, also
// those with an unknown outcome and after a server that does not work, whichever
// mode the gateway is in.
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

// A call of which only refusals count does not end with its client, who could guess on
// and on by leaving before the answer. Others do.
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

// What a server made of a device code is not counted either if it cannot be used,
// and a right that cannot be given back changes nothing about the answer. Nothing is
// given back of an unknown registration that was forwarded.
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

// Over the bound nothing is forwarded, also where unknown registrations are.
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
