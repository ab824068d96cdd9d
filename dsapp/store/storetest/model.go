package storetest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// model says what a store must answer, as plainly as possible: no expiry, no
// concurrency, no limits on memory.
type model struct {
	records    map[string]*entry
	handshakes map[string][]activation.Handshake // the oldest first
	told       map[string]bool
	secret     []byte
}

type entry struct {
	activation.Record
	reserved, activations, rights, devices, confirmations int

	inFlight    map[activation.Token]bool
	burned      bool
	last        activation.Token
	lastOutcome bool
}

func (m *model) create(r activation.Record, replaces activation.Generation) (activation.Record, bool) {
	if e := m.records[r.Identifier]; e != nil && e.Kind != activation.KindSimulated {
		if e.Generation == r.Generation {
			return activation.Record{}, true
		}
		if e.Generation != replaces {
			return withoutData(e.Record), false
		}
	}
	m.records[r.Identifier] = &entry{Record: r, inFlight: map[activation.Token]bool{}}
	m.forget(r.Identifier)
	return activation.Record{}, true
}

func (m *model) forget(id string) {
	delete(m.handshakes, id)
	delete(m.told, id)
}

func (m *model) put(id string, h activation.Handshake) (contended bool) {
	var kept []activation.Handshake
	for _, other := range m.handshakes[id] {
		contended = contended || other.Source != h.Source || other.Application != h.Application
		if other.Source != h.Source {
			kept = append(kept, other)
		}
	}
	kept = append(kept, h)
	m.handshakes[id] = kept[max(0, len(kept)-activation.MaxHandshakes):]
	contended = contended && !m.told[id]
	m.told[id] = m.told[id] || contended
	return contended
}

func (m *model) take(id string, token activation.Token, source activation.Tag, limit int) (activation.Handshake, bool) {
	waiting := m.handshakes[id]
	if len(waiting) == 0 {
		return activation.Handshake{}, false
	}
	i := slices.IndexFunc(waiting, func(h activation.Handshake) bool { return h.Source == source })
	if i < 0 {
		i = len(waiting) - 1
	}
	h := waiting[i]
	m.handshakes[id] = slices.Delete(waiting, i, i+1)
	e := m.records[id]
	if e == nil && h.Simulated && limit > 0 {
		e = &entry{
			Record:   activation.Record{Identifier: id, Generation: h.Generation, Kind: activation.KindSimulated},
			inFlight: map[activation.Token]bool{},
		}
		m.records[id] = e
	}
	if e == nil || e.burned || e.Generation != h.Generation || e.reserved >= limit {
		return activation.Handshake{}, false
	}
	e.reserved++
	e.inFlight[token] = true
	return h, true
}

func (m *model) settle(id string, x activation.Settlement) (activation.Record, bool) {
	e := m.records[id]
	if e == nil || e.Generation != x.Generation {
		return activation.Record{}, false
	}
	if e.last == x.Token && !e.inFlight[x.Token] {
		if e.lastOutcome && !e.burned {
			return e.Record, true
		}
		return activation.Record{}, false
	}
	if !e.inFlight[x.Token] {
		return activation.Record{}, false
	}
	delete(e.inFlight, x.Token)
	result := activation.Record{}
	ok := x.Proven && e.activations < x.MaxActivations && (e.Kind == activation.KindMDL || e.Kind == activation.KindStandard)
	if ok {
		e.reserved--
		e.activations++
		e.rights++
		result = e.Record
	}
	e.last, e.lastOutcome = x.Token, ok
	if e.reserved >= x.MaxAttempts && len(e.inFlight) == 0 {
		e.burned = true
		e.Verifier, e.Data = nil, nil
	}
	return result, ok
}

func (m *model) admitDevice(id string, limit int) (activation.Record, bool) {
	e := m.records[id]
	switch {
	case e == nil:
		return activation.Record{}, false
	case e.Kind == activation.KindAffinity && e.devices < limit:
		e.devices++
	case e.Kind == activation.KindMDL && e.rights > 0:
		e.rights--
	default:
		return activation.Record{}, false
	}
	return withoutSecrets(e.Record), true
}

func (m *model) returnDevice(id string, g activation.Generation) {
	e := m.records[id]
	switch {
	case e == nil || e.Generation != g:
	case e.Kind == activation.KindMDL && e.rights < e.activations:
		e.rights++
	case e.Kind == activation.KindAffinity && e.devices > 0:
		e.devices--
	}
}

func (m *model) returnConfirmation(id string, g activation.Generation) {
	if e := m.records[id]; e != nil && e.Generation == g && e.confirmations > 0 {
		e.confirmations--
	}
}

func (m *model) confirm(id string, limit int, kinds []activation.Kind) (activation.Record, bool) {
	e := m.records[id]
	if e == nil || !slices.Contains(kinds, e.Kind) {
		return activation.Record{}, false
	}
	if e.confirmations >= limit || e.Kind != activation.KindAffinity && e.activations == 0 {
		return activation.Record{}, false
	}
	e.confirmations++
	return withoutSecrets(e.Record), true
}

func (m *model) remove(id string, g activation.Generation) {
	if e := m.records[id]; e != nil && e.Generation == g {
		delete(m.records, id)
		m.forget(id)
	}
}

// checkModel plays random sequences of calls on an empty store and on the model.
// Identifiers, generations, tokens and limits are drawn from small sets, so that
// they meet often. Lifetimes do not end within a sequence.
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
		m := &model{records: map[string]*entry{}, handshakes: map[string][]activation.Handshake{}, told: map[string]bool{}}
		tokens := []activation.Token{{0xff}} // the first one is never taken
		anyToken := func(t *rapid.T) activation.Token { return rapid.SampledFrom(tokens).Draw(t, "token") }
		// Half of the drawn generations are the record's own.
		generation := func(t *rapid.T, id string) activation.Generation {
			if e := m.records[id]; e != nil && rapid.Bool().Draw(t, "own generation") {
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
					want, found := activation.Record{}, false
					if e := m.records[id]; e != nil {
						want, found = withoutData(e.Record), true
					}
					got, ok, err := store.Load(t.Context(), id)
					agree(t, "load "+id, got, ok, err, want, found)
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
				if e := m.records[id]; e != nil && len(e.inFlight) > 0 && rapid.Bool().Draw(t, "in flight") {
					x.Token = slices.MinFunc(slices.Collect(maps.Keys(e.inFlight)), func(a, b activation.Token) int {
						return bytes.Compare(a[:], b[:])
					})
				} else if e != nil && rapid.Bool().Draw(t, "again") {
					x.Token = e.last
				}
				want, wantOK := m.settle(id, x)
				got, ok, err := store.Settle(t.Context(), id, x)
				agree(t, "settle of "+id, got, ok, err, want, wantOK)
			},
			// A whole exchange: single calls seldom make one, and only after one is there
			// anything to admit and to give back.
			"exchange": func(t *rapid.T) {
				id := identifiers.Draw(t, "identifier")
				e := m.records[id]
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
				if e := m.records[id]; e != nil && rapid.Bool().Draw(t, "own kind") {
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
				if m.secret == nil {
					m.secret = candidate
				}
				got, err := store.SimulationSecret(t.Context(), candidate)
				if err != nil || !bytes.Equal(got, m.secret) {
					t.Fatalf("simulation secret: another value, error %v", err)
				}
			},
			"replace simulation secret": func(t *rapid.T) {
				current, next := blobs.Draw(t, "current"), blobs.Draw(t, "next")
				if rapid.Bool().Draw(t, "right") {
					current = m.secret
				}
				want := m.secret != nil && bytes.Equal(m.secret, current)
				if want {
					m.secret = next
				}
				got, err := store.ReplaceSimulationSecret(t.Context(), current, next)
				if err != nil || got != want {
					t.Fatalf("replace simulation secret: %v, error %v, the model says %v", got, err, want)
				}
			},
		})
	})
}
