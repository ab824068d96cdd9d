package sandbox

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// standardScript returns a script for a standard licence. Its last call checks the
// confirmation.
func standardScript(t *testing.T, bind bool) *script {
	g := newScript(t, false)
	g.standard = func(session seal.Session) map[string]any {
		object := func(item seal.Item, content string) map[string]any {
			c, err := session.Seal(item, []byte(content))
			if err != nil {
				t.Error(err)
			}
			return map[string]any{"data": upperHex(c.Data), "encryptedCounter": upperHex(c.Counter), "mac": upperHex(c.MAC)}
		}
		return map[string]any{
			"activationCode":           object(seal.ActivationCode, g.license.activationCode()),
			"eventReactivationCounter": object(seal.EventReactivationCounter, reactivationCounter(41)),
		}
	}
	g.confirm = func(in map[string]string) {
		want := map[string]string{"registrationIdentifier": testIdentifier, "response": oneTimePassword(g.license.secret[:], 41)}
		if bind {
			want = map[string]string{"registrationIdentifier": testIdentifier, "derivationCode": derivationCode(g.license.secret[:], "VDS1000120")}
		}
		if !maps.Equal(in, want) {
			t.Errorf("confirmed with %v, want %v", in, want)
		}
	}
	return g
}

// A standard licence is activated by three calls of version 2, with either confirmation.
func TestPhoneActivatesStandard(t *testing.T) {
	t.Parallel()
	for name, bind := range map[string]bool{"one-time password": false, "derivation code": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := standardScript(t, bind)
			p, steps := g.start()
			p.Version = 1
			got, err := p.ActivateStandard(t.Context(), testIdentifier, testPassword, bind)
			if err != nil {
				t.Fatal(err)
			}
			counter := uint64(42)
			if bind {
				counter = 41
			}
			a := got.Authenticator
			if got.UserID != "jane.doe" || got.Domain != "mydomain.com" || got.SerialNumber != "VDS1000120" || got.InstanceSerial != "VDS1000120" ||
				a.SerialNumber != "VDS1000120" || a.UserID != "jane.doe" || a.Domain != "mydomain.com" || a.Counter != counter ||
				string(a.Secret) != string(g.license.secret[:]) {
				t.Errorf("activated %+v, %+v", got, a)
			}
			if calls := strings.Join(g.calls, " "); calls != "DSAPPSRPGenerateEphemeralKey DSAPPSRPGenerateActivationData DSAPPSRPActivate" {
				t.Errorf("calls %s", calls)
			}
			var names []string
			for _, m := range (*steps)[1].Received {
				names = append(names, m.Name)
				if strings.HasSuffix(m.Name, ".data") && !strings.Contains(m.Value, "…") {
					t.Errorf("%s is shown", m.Name)
				}
			}
			if !strings.Contains(strings.Join(names, " "), "standard.activationCode.data standard.activationCode.encryptedCounter standard.activationCode.mac") {
				t.Errorf("members shown: %v", names)
			}
		})
	}
}

// The phone detects wrong activation data of a standard licence.
func TestPhoneVerifiesStandard(t *testing.T) {
	t.Parallel()
	standard := func(m map[string]any) map[string]any { return m["standard"].(map[string]any) }
	for name, c := range map[string]struct {
		service    string
		change     func(map[string]any)
		unverified bool
		text       string
	}{
		"no standard":      {"DSAPPSRPGenerateActivationData", func(m map[string]any) { delete(m, "standard") }, false, "standard is missing"},
		"standard is null": {"DSAPPSRPGenerateActivationData", func(m map[string]any) { m["standard"] = nil }, false, "standard is not an object"},
		"no counter":       {"DSAPPSRPGenerateActivationData", func(m map[string]any) { delete(standard(m), "eventReactivationCounter") }, false, "standard.eventReactivationCounter is missing"},
		"no data": {"DSAPPSRPGenerateActivationData", func(m map[string]any) {
			delete(standard(m)["activationCode"].(map[string]any), "data")
		}, false, "standard.activationCode.data is missing"},
		"items are swapped": {"DSAPPSRPGenerateActivationData", func(m map[string]any) {
			s := standard(m)
			s["activationCode"], s["eventReactivationCounter"] = s["eventReactivationCounter"], s["activationCode"]
		}, true, "activation data"},
		"serial is foreign": {"DSAPPSRPActivate", func(m map[string]any) { m["serialNumber"] = "VDS1000121" }, true, "serialNumber"},
		"refusal":           {"DSAPPSRPActivate", func(m map[string]any) { m["RAW"] = refusal1000 }, false, "DSAPPSRPActivate was refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := standardScript(t, false)
			g.change = func(service string, members map[string]any) {
				if service == c.service {
					c.change(members)
				}
			}
			p, _ := g.start()
			got, err := p.ActivateStandard(t.Context(), testIdentifier, testPassword, false)
			if err == nil || errors.Is(err, ErrUnverified) != c.unverified || !strings.Contains(err.Error(), c.text) || got != (Activation{}) {
				t.Errorf("%+v, %v", got, err)
			}
			if last := g.calls[len(g.calls)-1]; last != c.service {
				t.Errorf("went on to %s", last)
			}
		})
	}
}
