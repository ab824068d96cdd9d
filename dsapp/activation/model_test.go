package activation_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// plainService says what a Service answers for one identifier. It makes the same calls of
// a store, and its verifier is the password: nothing is hashed, simulated or sealed.
type plainService struct {
	w     *world
	store *storetest.Memory
	// exchanges are those that were begun. A handshake keeps the index as its state.
	exchanges []*exchange
}

// exchange is a first call, as the phone remembers it.
type exchange struct {
	phone *phone
	// right says that the password was that of the registration.
	right bool
}

const modelID = "e3wfISG9"

func tagOf(text string) (tag activation.Tag) {
	copy(tag[:], text)
	return tag
}

func (p *plainService) register(kind activation.Kind, password string) {
	ctx := context.Background()
	existing, _, _ := p.store.Load(ctx, modelID)
	p.store.Create(ctx, activation.Record{
		Identifier: modelID, Generation: newGeneration(), Kind: kind, Verifier: []byte(password), Lifetime: p.w.registrationLifetime,
	}, existing.Generation)
}

// password returns the right password, empty if there is none.
func (p *plainService) password() string {
	r, found, _ := p.store.Load(context.Background(), modelID)
	if !found || r.Kind != activation.KindMDL || r.Lifetime <= 0 {
		return ""
	}
	return string(r.Verifier)
}

func (p *plainService) begin(x *exchange, from activation.Origin) (contended bool) {
	ctx := context.Background()
	p.exchanges = append(p.exchanges, x)
	r, found, _ := p.store.Load(ctx, modelID)
	h := activation.Handshake{
		Generation: activation.Generation{1}, Source: tagOf(from.Address), Application: tagOf(from.Application),
		State: binary.AppendUvarint(nil, uint64(len(p.exchanges)-1)), Lifetime: p.w.handshakeLifetime,
		Simulated: !found || r.Kind == activation.KindSimulated, RecordLifetime: p.w.registrationLifetime,
	}
	if found {
		h.Generation = r.Generation
	}
	contended, _ = p.store.PutHandshake(ctx, modelID, h)
	return contended
}

// prove reports whether the evidence of exchange i is accepted.
func (p *plainService) prove(i int, from activation.Origin) bool {
	ctx, token := context.Background(), activation.Token(newGeneration())
	h, taken, _ := p.store.Take(ctx, modelID, token, tagOf(from.Address), p.w.maxAttempts)
	proven := taken && bytes.Equal(h.State, binary.AppendUvarint(nil, uint64(i))) && p.exchanges[i].right
	_, settled, _ := p.store.Settle(ctx, modelID, activation.Settlement{
		Generation: h.Generation, Token: token, Proven: proven, MaxAttempts: p.w.maxAttempts, MaxActivations: p.w.maxActivations,
	})
	return proven && settled
}

// Random sequences of calls, ends of lifetimes and restarts, after which the other node
// goes on, give what the model of the store gives for the same calls without cryptography.
// They begin with a registration. Lifetimes end only if the store follows the clock it is
// given.
func TestServiceFollowsTheModel(t *testing.T) { overEveryStore(t, checkModel) }

func checkModel(t *testing.T, open opener, followsClock bool) {
	t.Helper()
	// First calls and proofs are the most frequent.
	steps := []string{
		"exchange", "begin right", "begin right", "begin wrong", "prove", "prove", "prove", "prove from elsewhere", "prove last again",
		"device", "device", "device not sent", "final call", "final call", "final call not sent",
		"register", "complete", "restart", "affinity",
	}
	if followsClock {
		steps = append(steps, "wait a little", "wait")
	}
	rapid.Check(t, func(rt *rapid.T) {
		var stores [2]activation.Store
		w := newWorld(t, func(c *activation.Config) {
			stores = open(t, c.Now)
			c.Open = opens(t, stores[0], 1)
			c.MaxAttempts = rapid.IntRange(1, 3).Draw(rt, "attempts")
			c.MaxActivations = rapid.IntRange(1, 2).Draw(rt, "activations")
		})
		ctx := context.Background()
		m := &plainService{w: w, store: storetest.NewMemory(w.clock.Now)}
		for i := range rapid.IntRange(1, 32).Draw(rt, "steps") {
			step := "register"
			if i > 0 {
				step = rapid.SampledFrom(steps).Draw(rt, fmt.Sprintf("step %d", i))
			}
			check := func(err error, ok bool) {
				if ok != (err == nil) || err != nil && !errors.Is(err, activation.ErrRefused) {
					rt.Fatalf("%s: got %v, want success %t", step, err, ok)
				}
			}
			prove := func(i int, from activation.Origin) {
				ok := m.prove(i, from)
				_, err := w.Prove(ctx, modelID, form.ClientEvidence(m.exchanges[i].phone.evidence), from)
				check(err, ok)
			}
			anywhere := func() activation.Origin {
				return at(rapid.IntRange(1, activation.MaxHandshakes+2).Draw(rt, "address"))
			}
			last := len(m.exchanges) - 1
			switch step {
			case "register":
				r := w.mdl(modelID)
				r.Instance, r.Domain = "backup", ""
				m.register(activation.KindMDL, w.register(r).Password)
			case "affinity":
				w.register(w.affinity(modelID))
				m.register(activation.KindAffinity, "")
			case "begin right", "begin wrong", "exchange":
				password, x := "wrong password", &exchange{}
				if right := m.password(); step != "begin wrong" && right != "" {
					password, x.right = right, true
				}
				from := anywhere()
				if rapid.IntRange(0, 9).Draw(rt, "application") == 0 {
					from.Application = "other-app"
				}
				x.phone = w.beginFrom(from, modelID, password)
				if contended := m.begin(x, from); x.phone.challenge.Contended != contended {
					rt.Fatalf("%s: contended %t, want %t", step, !contended, contended)
				}
				if step == "exchange" {
					prove(last+1, from)
				}
			case "prove", "prove from elsewhere":
				var waiting []*storetest.Handshake
				m.store.Do(func(m *storetest.Model) { waiting = m.Waiting(modelID) })
				if len(waiting) > 0 {
					n, _ := binary.Uvarint(rapid.SampledFrom(waiting).Draw(rt, "handshake").State)
					from := m.exchanges[n].phone.from
					if step != "prove" {
						from = anywhere()
					}
					prove(int(n), from)
				}
			case "prove last again":
				if last >= 0 {
					prove(last, m.exchanges[last].phone.from)
				}
			case "device", "device not sent":
				r, ok, _ := m.store.AdmitDevice(ctx, modelID, w.maxAttempts)
				a, err := w.AdmitDevice(ctx, modelID)
				check(err, ok)
				if ok && step == "device not sent" {
					check(errors.Join(w.ReturnDevice(ctx, a), m.store.ReturnDevice(ctx, modelID, r.Generation)), true)
				}
			case "final call", "final call not sent", "complete":
				r, ok, _ := m.store.AdmitConfirmation(ctx, modelID, w.maxAttempts, activation.KindMDL, activation.KindAffinity)
				a, err := w.AdmitConfirmation(ctx, modelID, activation.KindMDL, activation.KindAffinity)
				check(err, ok)
				switch {
				case !ok:
				case step == "final call not sent":
					check(errors.Join(w.ReturnConfirmation(ctx, a), m.store.ReturnConfirmation(ctx, modelID, r.Generation)), true)
				case step == "complete":
					check(errors.Join(w.Complete(ctx, a), m.store.Remove(ctx, modelID, r.Generation)), true)
				}
			case "wait a little":
				w.clock.Advance(w.handshakeLifetime / 2)
			case "wait":
				w.clock.Advance(w.registrationLifetime / 2)
			case "restart":
				stores[0], stores[1] = stores[1], stores[0]
				w.restart(func(c *activation.Config) { c.Open = opens(t, stores[0], 1) })
			}
		}
	})
}
