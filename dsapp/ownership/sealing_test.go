package ownership_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// A store learns neither the owner nor the instance, and no two claims have equal bytes.
func TestClaimsAreSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Login, "1", application, device, "primary")
	w.claimed(ownership.Login, "2", application, device, "primary")
	var first, second storetest.Owner
	w.change(ownership.Login, "1", func(o *storetest.Owner) { first = *o })
	w.change(ownership.Login, "2", func(o *storetest.Owner) { second = *o })
	for _, clear := range []string{application, device, "primary"} {
		if bytes.Contains(first.Owner, []byte(clear)) {
			t.Errorf("%q lies open", clear)
		}
	}
	if first.Token == second.Token || first.Token == (ownership.Token{}) || bytes.Equal(first.Owner, second.Owner) {
		t.Error("claims repeat themselves")
	}
	// The label is part of the format: nodes of several versions share a store.
	label := seal.Label{Kind: "ownership", Identifier: "login/1", Generation: first.Token}
	if got, err := ring(t, 1).Open(label, first.Owner); err != nil || string(got) != "\x01\x08bank-app\x0cVDS1000000-1\x07primary" {
		t.Errorf("sealed is %q, error %v", got, err)
	}
}

// A claim that does not open under its request is an alarm and no decision, never an
// unknown request. Neither log nor alarm nor error show the key.
func TestUnopened(t *testing.T) {
	t.Parallel()
	sealed := func(o *storetest.Owner, plaintext string) {
		b, err := ring(t, 1).Seal(seal.Label{Kind: "ownership", Identifier: "login/" + plain, Generation: o.Token}, []byte(plaintext))
		if err != nil {
			t.Fatal(err)
		}
		o.Owner = b
	}
	moved := func(o, from *storetest.Owner) { o.Token, o.Owner = from.Token, from.Owner }
	for name, spoil := range map[string]func(w *world, m *storetest.Model, o *storetest.Owner){
		"altered":     func(_ *world, _ *storetest.Model, o *storetest.Owner) { o.Owner[len(o.Owner)-1] ^= 1 },
		"empty":       func(_ *world, _ *storetest.Model, o *storetest.Owner) { o.Owner = nil },
		"cut short":   func(_ *world, _ *storetest.Model, o *storetest.Owner) { o.Owner = o.Owner[:20] },
		"other token": func(_ *world, _ *storetest.Model, o *storetest.Owner) { o.Token[0] ^= 1 },
		"other request": func(_ *world, m *storetest.Model, o *storetest.Owner) {
			moved(o, m.Owners[storetest.Request{Kind: "login", Key: "2"}])
		},
		"other kind": func(_ *world, m *storetest.Model, o *storetest.Owner) {
			moved(o, m.Owners[storetest.Request{Kind: "signature", Key: plain}])
		},
		"other encoding": func(_ *world, _ *storetest.Model, o *storetest.Owner) { sealed(o, "\x02\x01a\x01b\x01c") },
		"no encoding":    func(_ *world, _ *storetest.Model, o *storetest.Owner) { sealed(o, "") },
		"key removed":    func(w *world, _ *storetest.Model, _ *storetest.Owner) { w.config.Open = opens(t, w.store, 2) },
	} {
		for _, policy := range []ownership.UnknownRequests{ownership.ForwardUnknown, ownership.RefuseUnknown} {
			t.Run(fmt.Sprintf("%s %s", name, policy), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(c *ownership.Config) { c.Unknown = policy })
				w.claimed(ownership.Login, plain, application, device, "primary")
				w.claimed(ownership.Signature, plain, application, device, "primary")
				w.claimed(ownership.Login, "2", application, "VDS1000000-2", "primary")
				w.store.Do(func(m *storetest.Model) { spoil(w, m, m.Owners[storetest.Request{Kind: "login", Key: plain}]) })
				w.restart()
				for name, call := range calls {
					d, err := call.do(t.Context(), w.Service, ownership.Login, mine)
					undecided(t, d, err, seal.ErrUnopened)
					if !slices.Equal(w.alarms, []string{"record_unopened login"}) {
						t.Errorf("%s: alarms %q", name, w.alarms)
					}
					w.alarms = nil
					if log := w.log.String(); !strings.Contains(log, "cannot be opened") || strings.Contains(log+fmt.Sprint(err), plain) {
						t.Errorf("%s: log %q, error %q", name, log, err)
					}
					w.log.Reset()
				}
			})
		}
	}
}

// A claim does not open in the list of another device or as the claim to another request.
func TestMovedClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Login, plain, application, "VDS1000000-2", "primary")
	w.change(ownership.Login, plain, func(o *storetest.Owner) { o.SerialNumber = device })
	if d, err := w.Cancelling(t.Context(), ownership.Login, form.Key(wrapped), mine); !errors.Is(err, seal.ErrUnopened) {
		t.Errorf("listed for another device: decision %+v, error %v", d, err)
	}
	w.store.Do(func(m *storetest.Model) {
		m.Owners[storetest.Request{Kind: ownership.Login, Key: "1"}] = m.Owners[storetest.Request{Kind: ownership.Login, Key: plain}]
	})
	if d, err := w.Completing(t.Context(), ownership.Login, "1"); !errors.Is(err, seal.ErrUnopened) {
		t.Errorf("presented for another request: decision %+v, error %v", d, err)
	}
	if len(w.alarms) != 2 {
		t.Errorf("alarms %q", w.alarms)
	}
}

// Sealing keys rotate in three steps, under pending requests.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Login, "1", application, device, "primary")
	for _, keys := range [][]byte{{1, 2}, {2, 1}} {
		w.restart(func(c *ownership.Config) { c.Open = opens(t, w.store, keys...) })
		d, err := w.Completing(t.Context(), ownership.Login, "1")
		w.is(d, err, "Owner", ownership.Forward, true, "primary")
	}
	w.claimed(ownership.Login, "2", application, device, "primary")
	w.restart(func(c *ownership.Config) { c.Open = opens(t, w.store, 2) })
	d, err := w.Completing(t.Context(), ownership.Login, "2")
	w.is(d, err, "Owner", ownership.Forward, true, "primary")
	if _, err := w.Completing(t.Context(), ownership.Login, "1"); !errors.Is(err, seal.ErrUnopened) {
		t.Errorf("error %v", err)
	}
}

// A stored owner is read back exactly, and nobody else can cancel the request.
func TestSealingRoundTrip(t *testing.T) {
	t.Parallel()
	name := rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 1, 255).Draw(t, "name")) })
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		kind := rapid.SampledFrom(kinds).Draw(rt, "kind")
		key := rapid.StringMatching(`[0-9A-Za-z]{1,31}`).Draw(rt, "key")
		o := ownership.Owner{
			Application: name.Draw(rt, "application"), SerialNumber: name.Draw(rt, "serial number"), Instance: name.Draw(rt, "instance"),
		}
		w.claimed(kind, key, o.Application, o.SerialNumber, o.Instance)
		c := ownership.Caller{Application: o.Application, SerialNumber: o.SerialNumber}
		for _, k := range []string{key, wrapped} {
			d, err := w.Cancelling(rt.Context(), kind, form.Key(k), c)
			if err != nil || d.Verdict != ownership.Forward || !slices.Equal(d.Instances, []string{o.Instance}) {
				rt.Fatalf("by the owner: %+v, error %v", d, err)
			}
		}
		other := ownership.Caller{Application: name.Draw(rt, "other application"), SerialNumber: name.Draw(rt, "other serial number")}
		d, err := w.Cancelling(rt.Context(), kind, form.Key(key), other)
		if want := other == c; err != nil || (d.Verdict == ownership.Forward) != want {
			rt.Fatalf("by another: %+v, error %v", d, err)
		}
	})
}
