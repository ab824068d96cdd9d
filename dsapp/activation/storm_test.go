package activation

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever happens at once on whichever node: no more wrong proofs are judged
// than attempts are configured, no more activations happen than are configured,
// every accepted proof is one activation, and nothing stays in flight.
func TestStorm(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, func(c *Config) {
			c.MaxAttempts = rapid.IntRange(1, 3).Draw(rt, "attempts")
			c.MaxActivations = rapid.IntRange(1, 3).Draw(rt, "activations")
			c.MaxExchanges = 8
		})
		other, err := New(w.config)
		if err != nil {
			rt.Fatal(err)
		}
		nodes := []*Service{w.Service, other}
		r := w.register(w.mdl("e3wfISG9"))
		identifiers := []string{r.Identifier, "unknown-id"}

		type run struct {
			node, identifier int
			right            bool
			copies           int
		}
		runs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) run {
			return run{
				node: rapid.IntRange(0, 1).Draw(t, "node"), identifier: min(1, rapid.IntRange(0, 5).Draw(t, "identifier")/5),
				right: rapid.Bool().Draw(t, "right"), copies: rapid.IntRange(1, 3).Draw(t, "copies"),
			}
		}), 2, 5).Draw(rt, "runs")

		var mu sync.Mutex
		accepted := map[string]int{}
		var wg sync.WaitGroup
		for _, x := range runs {
			wg.Go(func() {
				password := "wrong password"
				if x.right {
					password = r.Password
				}
				id, node := identifiers[x.identifier], nodes[x.node]
				evidence, err := evidenceFrom(node, id, password)
				if err != nil {
					t.Error(err)
					return
				}
				var proofs sync.WaitGroup
				for range x.copies {
					proofs.Go(func() {
						switch _, err := node.Prove(context.Background(), id, evidence); {
						case err == nil:
							mu.Lock()
							accepted[id]++
							mu.Unlock()
						case !same(err, ErrRefused):
							t.Error(err)
						}
					})
				}
				proofs.Wait()
			})
		}
		wg.Wait()

		if accepted["unknown-id"] != 0 {
			rt.Fatal("an unknown identifier was activated")
		}
		for _, id := range identifiers {
			w.store.peek(id, func(e *stored) {
				if e == nil {
					return
				}
				if e.lost > w.maxAttempts || e.activations > w.maxActivations || accepted[id] != e.activations || len(e.inFlight) != 0 {
					rt.Fatalf("%s: %d wrong proofs, %d activations, %d accepted, %d in flight", id, e.lost, e.activations, accepted[id], len(e.inFlight))
				}
				if e.burned != (e.reserved >= w.maxAttempts) || e.burned && (e.Verifier != nil || e.Data != nil) {
					rt.Fatalf("%s: burned %t with %d attempts reserved", id, e.burned, e.reserved)
				}
			})
		}
	})
}

// evidenceFrom makes the first call and returns the evidence for the second.
func evidenceFrom(s *Service, identifier, password string) (string, error) {
	c, err := s.profile.NewClient(identifier, password)
	if err != nil {
		return "", err
	}
	ch, err := s.Begin(context.Background(), identifier, hex.EncodeToString(c.Public()))
	if err != nil {
		return "", err
	}
	salt, err := hex.DecodeString(ch.Salt)
	if err != nil {
		return "", err
	}
	b, err := hex.DecodeString(ch.ServerPublic)
	if err != nil {
		return "", err
	}
	m1, err := c.Prove(salt, b)
	return hex.EncodeToString(m1), err
}

// model says what a Service answers for one identifier.
type model struct {
	now time.Time
	// registration is nil if there is none.
	registration *modelRegistration
	// handshake is nil if there is none.
	handshake *modelHandshake
}

type modelRegistration struct {
	kind                                   Kind
	password                               string
	ends                                   time.Time
	wrong, activations, rights, finalCalls int
}

type modelHandshake struct {
	of    *modelRegistration
	right bool
	ends  time.Time
	phone *phone
}

func (m *model) live() *modelRegistration {
	if r := m.registration; r != nil && m.now.Before(r.ends) {
		return r
	}
	return nil
}

// Random sequences of calls, ends of lifetimes and restarts give what the rules
// say.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, func(c *Config) {
			c.MaxAttempts = rapid.IntRange(1, 3).Draw(rt, "attempts")
			c.MaxActivations = rapid.IntRange(1, 2).Draw(rt, "activations")
		})
		const id = "e3wfISG9"
		ctx := context.Background()
		m := &model{now: w.clock.now()}
		var last *modelHandshake
		for i := range rapid.IntRange(1, 16).Draw(rt, "steps") {
			// First calls and proofs are the most frequent.
			step := rapid.SampledFrom([]string{
				"register", "begin right", "begin right", "begin wrong", "prove", "prove", "prove", "prove last again",
				"device", "final call", "complete", "wait a little", "wait", "restart", "affinity",
			}).Draw(rt, fmt.Sprintf("step %d", i))
			check := func(err error, ok bool) {
				if ok != (err == nil) || err != nil && !errors.Is(err, ErrRefused) {
					rt.Fatalf("%s: got %v, want success %t", step, err, ok)
				}
			}
			prove := func(h *modelHandshake) {
				r := m.live()
				takes := h == m.handshake && m.now.Before(h.ends) && r != nil && h.of == r && r.kind == KindMDL && r.wrong < w.maxAttempts
				ok := takes && h.right && r.activations < w.maxActivations
				if takes && !ok {
					r.wrong++
				}
				if ok {
					r.activations++
					r.rights++
				}
				m.handshake = nil
				_, err := h.phone.prove()
				check(err, ok)
			}
			switch step {
			case "register":
				r := w.mdl(id)
				r.Instance = "backup"
				r.Domain = ""
				m.registration = &modelRegistration{kind: KindMDL, password: w.register(r).Password, ends: m.now.Add(w.registrationLifetime)}
				m.handshake = nil
			case "affinity":
				w.register(w.affinity(id))
				m.registration = &modelRegistration{kind: KindAffinity, ends: m.now.Add(w.registrationLifetime)}
				m.handshake = nil
			case "begin right", "begin wrong":
				h := &modelHandshake{of: m.live(), ends: m.now.Add(w.handshakeLifetime)}
				password := "wrong password"
				if step == "begin right" && h.of != nil && h.of.kind == KindMDL {
					password, h.right = h.of.password, true
				}
				h.phone = w.begin(id, password)
				m.handshake, last = h, h
			case "prove":
				if m.handshake != nil {
					prove(m.handshake)
				}
			case "prove last again":
				if last != nil {
					prove(last)
				}
			case "device":
				r := m.live()
				ok := r != nil && (r.kind == KindAffinity || r.rights > 0)
				if ok && r.kind == KindMDL {
					r.rights--
				}
				_, err := w.AdmitDevice(ctx, id)
				check(err, ok)
			case "final call", "complete":
				r := m.live()
				ok := r != nil && (r.kind == KindAffinity || r.activations > 0 && r.finalCalls < w.maxAttempts)
				if ok {
					r.finalCalls++
				}
				a, err := w.AdmitConfirmation(ctx, id, KindMDL, KindAffinity)
				check(err, ok)
				if ok && step == "complete" {
					if err := w.Complete(ctx, a); err != nil {
						rt.Fatal(err)
					}
					m.registration, m.handshake = nil, nil
				}
			case "wait a little", "wait":
				d := w.handshakeLifetime / 2
				if step == "wait" {
					d = w.registrationLifetime / 2
				}
				w.clock.advance(d)
				m.now = m.now.Add(d)
			case "restart":
				w.restart()
			}
		}
	})
}
