package storetest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/internal/clock"
)

// checkModel makes random sequences of calls on an empty store and on the model.
// Identifiers, generations, tokens and limits are drawn from small sets, so that many calls
// are about the same ones. Lifetimes do not end within a sequence.
func checkModel(t *testing.T, open func(t *testing.T) activation.Store) {
	t.Helper()
	identifiers := rapid.SampledFrom([]string{"id-1", "id-2", "id-3"})
	generations := rapid.Custom(func(t *rapid.T) activation.Generation {
		return activation.Generation{rapid.ByteRange(1, 5).Draw(t, "generation")}
	})
	kinds := rapid.SampledFrom([]activation.Kind{activation.KindMDL, activation.KindMDL, activation.KindStandard, activation.KindAffinity})
	limits := rapid.IntRange(0, 4)
	// More than there is room for.
	tags := rapid.Custom(func(t *rapid.T) activation.Tag {
		return activation.Tag{rapid.ByteRange(0, activation.MaxHandshakes+1).Draw(t, "tag")}
	})
	blobs := rapid.SliceOfN(rapid.Byte(), 1, 40)

	rapid.Check(t, func(rt *rapid.T) {
		store := open(t)
		m := newModel(clock.New().Now)
		tokens := []activation.Token{{0xff}} // the first one is never taken
		anyToken := func(t *rapid.T) activation.Token { return rapid.SampledFrom(tokens).Draw(t, "token") }
		// Half of the drawn generations are the record's own.
		generation := func(t *rapid.T, id string) activation.Generation {
			if e := m.Records[id]; e != nil && rapid.Bool().Draw(t, "own generation") {
				return e.Generation
			}
			return generations.Draw(t, "generation")
		}
		agree := func(t *rapid.T, call string, got activation.Record, ok bool, err error, want activation.Record, wantOK bool) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", call, err)
			}
			if ok != wantOK {
				t.Fatalf("%s: %v, the model says %v", call, ok, wantOK)
			}
			if problem := differ(got, want); problem != "" {
				t.Fatalf("%s: %s", call, problem)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				for _, id := range []string{"id-1", "id-2", "id-3"} {
					want, found := m.load(id)
					got, ok, err := store.Load(t.Context(), id)
					agree(t, "load "+id, got, ok, err, want, found)
					inspected, found := m.inspect(id)
					state, ok, err := store.Inspect(t.Context(), id)
					agree(t, "inspect "+id, state.Record, ok, err, inspected.Record, found)
					if problem := differInState(state, inspected); problem != "" {
						t.Fatalf("inspect %s: %s", id, problem)
					}
				}
			},
			"create": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				r := activation.Record{
					Identifier: id, Generation: generation(t, id), Kind: kinds.Draw(t, "kind"),
					Facts: blobs.Draw(t, "facts"), Lifetime: lifetime,
				}
				if r.Kind != activation.KindAffinity {
					r.Verifier, r.Data = blobs.Draw(t, "verifier"), blobs.Draw(t, "data")
				}
				replaces := generation(t, id)
				want, wantOK := m.create(r, replaces)
				got, ok, err := store.Create(t.Context(), r, replaces)
				agree(t, "create "+id, got, ok, err, want, wantOK)
			},
			"put handshake": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				h := activation.Handshake{
					Generation: generation(t, id), Source: tags.Draw(t, "source"), Application: activation.Tag{rapid.ByteRange(0, 1).Draw(t, "application")},
					State: blobs.Draw(t, "state"), Lifetime: lifetime, Simulated: rapid.Bool().Draw(t, "simulated"),
				}
				if h.Simulated {
					h.RecordLifetime = lifetime
				}
				want := m.put(id, h)
				if got, err := store.PutHandshake(t.Context(), id, h); err != nil || got != want {
					t.Fatalf("put handshake of %s: contended %v, error %v, the model says %v", id, got, err, want)
				}
			},
			"take": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				limit := limits.Draw(t, "attempts")
				token := activation.Token{byte(len(tokens)), byte(len(tokens) >> 8)}
				tokens = append(tokens, token)
				source := tags.Draw(t, "source")
				want, wantOK := m.take(id, token, source, limit)
				got, ok, err := store.Take(t.Context(), id, token, source, limit)
				if err != nil || ok != wantOK {
					t.Fatalf("take of %s: %v, error %v, the model says %v", id, ok, err, wantOK)
				}
				if got.Generation != want.Generation || got.Source != want.Source || got.Application != want.Application || got.Simulated != want.Simulated || !bytes.Equal(got.State, want.State) {
					t.Fatalf("take of %s: another handshake", id)
				}
			},
			"settle": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				x := activation.Settlement{
					Generation: generation(t, id), Token: anyToken(t), Proven: rapid.Bool().Draw(t, "proven"),
					MaxAttempts: limits.Draw(t, "attempts"), MaxActivations: limits.Draw(t, "activations"),
				}
				if e := m.Records[id]; e != nil && len(e.InFlight) > 0 && rapid.Bool().Draw(t, "in flight") {
					x.Token = slices.MinFunc(slices.Collect(maps.Keys(e.InFlight)), func(a, b activation.Token) int {
						return bytes.Compare(a[:], b[:])
					})
				} else if e != nil && rapid.Bool().Draw(t, "again") {
					x.Token = e.settled
				}
				want, wantOK := m.settle(id, x)
				got, ok, err := store.Settle(t.Context(), id, x)
				agree(t, "settle of "+id, got, ok, err, want, wantOK)
			},
			// A whole exchange: single calls seldom make one, and only after one is there
			// anything to admit and to give back.
			"exchange": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				e := m.Records[id]
				if e == nil {
					return
				}
				h := activation.Handshake{Generation: e.Generation, Source: tags.Draw(t, "source"), State: blobs.Draw(t, "state"), Lifetime: lifetime}
				contended := m.put(id, h)
				if got, err := store.PutHandshake(t.Context(), id, h); err != nil || got != contended {
					t.Fatalf("put handshake of %s: contended %v, error %v, the model says %v", id, got, err, contended)
				}
				token := activation.Token{byte(len(tokens)), byte(len(tokens) >> 8)}
				tokens = append(tokens, token)
				_, wantOK := m.take(id, token, h.Source, 4)
				if _, ok, err := store.Take(t.Context(), id, token, h.Source, 4); err != nil || ok != wantOK {
					t.Fatalf("take of %s: %v, error %v, the model says %v", id, ok, err, wantOK)
				}
				x := activation.Settlement{
					Generation: e.Generation, Token: token, Proven: rapid.IntRange(0, 3).Draw(t, "proven") > 0, MaxAttempts: 4, MaxActivations: 3,
				}
				want, wantOK := m.settle(id, x)
				got, ok, err := store.Settle(t.Context(), id, x)
				agree(t, "settle of "+id, got, ok, err, want, wantOK)
			},
			"burn": func(t *rapid.T) {
				// Seldom, because little can be done afterwards.
				if rapid.IntRange(0, 3).Draw(t, "seldom") > 0 {
					return
				}
				id, limit := identifiers.Draw(t, "identifier"), limits.Draw(t, "attempts")
				want, wantOK := m.burn(id, limit)
				got, ok, err := store.Burn(t.Context(), id, limit)
				agree(t, "burn "+id, got, ok, err, want, wantOK)
			},
			"admit device": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				limit := limits.Draw(t, "attempts")
				want, wantOK := m.admitDevice(id, limit)
				got, ok, err := store.AdmitDevice(t.Context(), id, limit)
				agree(t, "admit device of "+id, got, ok, err, want, wantOK)
			},
			"return device": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				g := generation(t, id)
				m.returnDevice(id, g)
				if err := store.ReturnDevice(t.Context(), id, g); err != nil {
					t.Fatalf("return device of %s: %v", id, err)
				}
			},
			"admit confirmation": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				limit := limits.Draw(t, "attempts")
				kinds := rapid.SliceOfN(kinds, 0, 3).Draw(t, "kinds")
				if e := m.Records[id]; e != nil && rapid.Bool().Draw(t, "own kind") {
					kinds = append(kinds, e.Kind)
				}
				want, wantOK := m.confirm(id, limit, kinds)
				got, ok, err := store.AdmitConfirmation(t.Context(), id, limit, kinds...)
				agree(t, fmt.Sprintf("admit confirmation of %s as %v", id, kinds), got, ok, err, want, wantOK)
			},
			"return confirmation": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				g := generation(t, id)
				m.returnConfirmation(id, g)
				if err := store.ReturnConfirmation(t.Context(), id, g); err != nil {
					t.Fatalf("return confirmation of %s: %v", id, err)
				}
			},
			"remove": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				g := generation(t, id)
				m.remove(id, g)
				if err := store.Remove(t.Context(), id, g); err != nil {
					t.Fatalf("remove %s: %v", id, err)
				}
			},
			"simulation secret": func(t *rapid.T) {
				candidate := blobs.Draw(t, "candidate")
				want := m.simulationSecret(candidate)
				got, err := store.SimulationSecret(t.Context(), candidate)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("simulation secret: another value, error %v", err)
				}
			},
			"replace simulation secret": func(t *rapid.T) {
				current, next := blobs.Draw(t, "current"), blobs.Draw(t, "next")
				if rapid.Bool().Draw(t, "right") {
					current = m.Secret
				}
				want := m.replaceSimulationSecret(current, next)
				got, err := store.ReplaceSimulationSecret(t.Context(), current, next)
				if err != nil || got != want {
					t.Fatalf("replace simulation secret: %v, error %v, the model says %v", got, err, want)
				}
			},
		})
	})
}

// checkClaimModel makes random sequences of calls on an empty store and on the model. Keys
// and devices are drawn from small sets, so that many calls are about the same ones and no
// list is full. Lifetimes do not end within a sequence.
func checkClaimModel(t *testing.T, open func(t *testing.T) ownership.Store) {
	t.Helper()
	kinds := []ownership.Kind{ownership.Login, ownership.Signature}
	keys := []string{"1", "11", "2", "a", "A"}
	devices := []string{"device-1", "device-11", "DEVICE-1"}

	rapid.Check(t, func(rt *rapid.T) {
		store := open(t)
		m := newModel(clock.New().Now)
		// Every claim ever made, accepted or not, after one that is never made.
		made := []Owner{{Claim: ownership.Claim{Key: keys[0], Token: ownership.Token{0xff}, Owner: []byte{1}}, SerialNumber: devices[0]}}
		anyClaim := func(t *rapid.T) Owner { return rapid.SampledFrom(made).Draw(t, "claim") }
		claim := func(t *rapid.T, kind ownership.Kind, c Owner) {
			t.Helper()
			want := m.claim(kind, c.Claim, c.SerialNumber, lifetime)
			got, err := store.Claim(t.Context(), kind, c.Claim, c.SerialNumber, lifetime)
			if err != nil || got != want {
				t.Fatalf("claim %s %s: %v, error %v, the model says %v", kind, c.Key, got, err, want)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				for _, kind := range kinds {
					for _, key := range keys {
						var want ownership.Claim
						o := m.owner(Request{kind, key})
						if o != nil {
							want = o.Claim
						}
						got, found, err := store.Owner(t.Context(), kind, key)
						if err != nil || found != (o != nil) {
							t.Fatalf("owner of %s %s: found %v, error %v, the model says %v", kind, key, found, err, o != nil)
						}
						if problem := differClaim(got, want); problem != "" {
							t.Fatalf("owner of %s %s: %s", kind, key, problem)
						}
					}
					for _, serialNumber := range devices {
						got, err := store.Pending(t.Context(), kind, serialNumber)
						if err != nil {
							t.Fatalf("pending %s requests of %s: %v", kind, serialNumber, err)
						}
						var want []ownership.Claim
						for _, o := range m.listed(kind, serialNumber) {
							want = append(want, o.Claim)
						}
						if problem := differClaims(got, want); problem != "" {
							t.Fatalf("pending %s requests of %s: %s", kind, serialNumber, problem)
						}
					}
				}
			},
			"claim": func(t *rapid.T) {
				token := ownership.Token{byte(len(made)), byte(len(made) >> 8), 1}
				c := Owner{Claim: ownership.Claim{
					Key: rapid.SampledFrom(keys).Draw(t, "key"), Token: token,
					Owner: rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "owner"),
				}, SerialNumber: rapid.SampledFrom(devices).Draw(t, "device")}
				made = append(made, c)
				claim(t, rapid.SampledFrom(kinds).Draw(t, "kind"), c)
			},
			"claim again": func(t *rapid.T) {
				claim(t, rapid.SampledFrom(kinds).Draw(t, "kind"), anyClaim(t))
			},
			"release": func(t *rapid.T) {
				kind, c := rapid.SampledFrom(kinds).Draw(t, "kind"), anyClaim(t)
				m.release(Request{kind, c.Key}, c.Token)
				if err := store.Release(t.Context(), kind, c.Key, c.Token, c.SerialNumber); err != nil {
					t.Fatalf("release %s %s: %v", kind, c.Key, err)
				}
			},
		})
	})
}
