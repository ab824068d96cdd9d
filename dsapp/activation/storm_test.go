package activation

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// opener opens an empty store that takes the time from now if it can, and returns
// it as two gateway nodes see it.
type opener func(tb testing.TB, now func() time.Time) [2]Store

func openMemory(_ testing.TB, now func() time.Time) [2]Store {
	m := newMemory(now)
	return [2]Store{m, m}
}

// ledger notes how the proofs of each identifier ended, on all nodes together.
type ledger struct {
	mu                            sync.Mutex
	taken, won, wrong, superseded map[string]int
}

func newLedger() *ledger {
	return &ledger{taken: map[string]int{}, won: map[string]int{}, wrong: map[string]int{}, superseded: map[string]int{}}
}

// audited is a Store that writes into a ledger what it answers.
type audited struct {
	Store
	*ledger
}

func (a audited) Take(ctx context.Context, identifier string, token Token, source Tag, maxAttempts int) (Handshake, bool, error) {
	h, ok, err := a.Store.Take(ctx, identifier, token, source, maxAttempts)
	if ok && err == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.taken[identifier]++
	}
	return h, ok, err
}

func (a audited) Settle(ctx context.Context, identifier string, s Settlement) (Record, bool, error) {
	r, ok, err := a.Store.Settle(ctx, identifier, s)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil || s.Generation == (Generation{}): // nothing was taken
	case ok:
		a.won[identifier]++
	case s.Proven:
		a.superseded[identifier]++
	default:
		a.wrong[identifier]++
	}
	return r, ok, err
}

func TestStorm(t *testing.T) {
	t.Parallel()
	checkStorm(t, openMemory)
}

// checkStorm checks that, whatever happens at once on whichever node and from
// whichever address, no more wrong proofs are judged than attempts are configured, no more activations
// happen than are configured, every accepted proof is one activation with the
// right to one device, and nothing stays in flight.
func checkStorm(t *testing.T, open opener) {
	t.Helper()
	rapid.Check(t, func(rt *rapid.T) {
		book := newLedger()
		var stores [2]Store
		w := newWorld(t, func(c *Config) {
			stores = open(t, c.Now)
			c.Open = opens(t, audited{stores[0], book}, 1)
			c.MaxAttempts = rapid.IntRange(1, 3).Draw(rt, "attempts")
			c.MaxActivations = rapid.IntRange(1, 3).Draw(rt, "activations")
			c.MaxExchanges = 8
		})
		config := w.config
		config.Open = opens(t, audited{stores[1], book}, 1)
		other, err := New(config)
		if err != nil {
			rt.Fatal(err)
		}
		nodes := []*Service{w.Service, other}
		r := w.register(w.mdl("e3wfISG9"))
		identifiers := []string{string(r.Identifier), "unknown-id"}

		type run struct {
			node, identifier, address int
			right                     bool
			copies                    int
		}
		runs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) run {
			return run{
				node: rapid.IntRange(0, 1).Draw(t, "node"), identifier: min(1, rapid.IntRange(0, 5).Draw(t, "identifier")/5),
				address: rapid.IntRange(1, MaxHandshakes+1).Draw(t, "address"),
				right:   rapid.Bool().Draw(t, "right"), copies: rapid.IntRange(1, 3).Draw(t, "copies"),
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
				id := identifiers[x.identifier]
				evidence, err := evidenceFrom(nodes[x.node], at(x.address), id, password)
				if err != nil {
					t.Error(err)
					return
				}
				var proofs sync.WaitGroup
				for i := range x.copies {
					proofs.Go(func() {
						// Copies of a proof reach both nodes, from several addresses.
						switch _, err := nodes[(x.node+i)%2].Prove(context.Background(), form.Identifier(id), form.ClientEvidence(evidence), at(x.address+i)); {
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
			lost, won := book.wrong[id]+book.superseded[id], book.won[id]
			if lost > w.maxAttempts || won > w.maxActivations || accepted[id] != won || book.taken[id] != lost+won {
				rt.Fatalf("%s: %d proofs taken, %d wrong, %d superseded, %d activations, %d accepted",
					id, book.taken[id], book.wrong[id], book.superseded[id], won, accepted[id])
			}
		}
		record, found, err := stores[1].Load(context.Background(), string(r.Identifier))
		if err != nil || !found {
			rt.Fatalf("load: %t, %v", found, err)
		}
		lost := book.wrong[string(r.Identifier)] + book.superseded[string(r.Identifier)]
		if burned := record.Verifier == nil; burned != (lost >= w.maxAttempts) {
			rt.Fatalf("burned %t with %d attempts lost of %d", burned, lost, w.maxAttempts)
		}
		for i := range accepted[string(r.Identifier)] + 1 {
			_, err := nodes[i%2].AdmitDevice(context.Background(), r.Identifier)
			if admitted := i < accepted[string(r.Identifier)]; admitted != (err == nil) || !admitted && !same(err, ErrRefused) {
				rt.Fatalf("device %d after %d activations: %v", i+1, accepted[string(r.Identifier)], err)
			}
		}
	})
}

// at is one of several addresses.
func at(i int) Origin {
	return Origin{Address: fmt.Sprintf("192.0.2.%d", i), Application: "mobile-app"}
}

func TestContention(t *testing.T) {
	t.Parallel()
	checkContention(t, openMemory)
}

// checkContention checks that a phone activates while others begin exchanges for
// its registration from as many addresses as there is room for, on whichever node;
// that this is told once, also of an identifier that nobody registered; and that
// what they prove wrongly burns no more than the attempts it takes.
func checkContention(t *testing.T, open opener) {
	t.Helper()
	var stores [2]Store
	w := newWorld(t, func(c *Config) {
		stores = open(t, c.Now)
		c.Open = opens(t, stores[0], 1)
	})
	config := w.config
	config.Open = opens(t, stores[1], 1)
	other, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	nodes := []*Service{w.Service, other}
	r := w.register(w.mdl("e3wfISG9"))
	for _, id := range []string{string(r.Identifier), "unknown-id"} {
		p := w.begin(form.Identifier(id), r.Password)
		var told atomic.Int32
		var wg sync.WaitGroup
		for i := range 3 * (MaxHandshakes - 1) {
			wg.Go(func() {
				from := at(2 + i%(MaxHandshakes-1))
				for range 3 {
					c, err := nodes[i%2].Begin(context.Background(), form.Identifier(id), "1234", from)
					if err != nil {
						t.Error(err)
					}
					if c.Contended {
						told.Add(1)
					}
				}
				if i < w.maxAttempts-1 {
					proof, err := nodes[i%2].Prove(context.Background(), form.Identifier(id), form.ClientEvidence(strings.Repeat("5", 64)), from)
					refused(t, proof, err)
				}
			})
		}
		wg.Wait()
		if n := told.Load(); n != 1 {
			t.Errorf("%s: told %d times", id, n)
		}
		if _, err := p.prove(); (err == nil) != (id == string(r.Identifier)) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// evidenceFrom makes the first call and returns the evidence for the second.
func evidenceFrom(s *Service, from Origin, identifier, password string) (string, error) {
	c, err := s.profiles[0].(*srp.Profile).NewClient(identifier, password)
	if err != nil {
		return "", err
	}
	ch, err := s.Begin(context.Background(), form.Identifier(identifier), form.ClientPublic(hex.EncodeToString(c.Public())), from)
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
	// handshakes wait, the oldest first.
	handshakes []*modelHandshake
	// told is when contention was told last.
	told time.Time
}

type modelRegistration struct {
	kind                                            Kind
	password                                        string
	ends                                            time.Time
	wrong, activations, rights, devices, finalCalls int
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

// waiting returns the handshakes that have not ended.
func (m *model) waiting() []*modelHandshake {
	m.handshakes = slices.DeleteFunc(m.handshakes, func(h *modelHandshake) bool { return !m.now.Before(h.ends) })
	return m.handshakes
}

// put keeps h and reports whether contention is told.
func (m *model) put(h *modelHandshake) (contended bool) {
	own := func(w *modelHandshake) bool { return w.phone.from.Address == h.phone.from.Address }
	for _, w := range m.waiting() {
		contended = contended || w.phone.from != h.phone.from
	}
	contended = contended && m.now.Sub(m.told) >= ContentionInterval
	if contended {
		m.told = m.now
	}
	m.handshakes = append(slices.DeleteFunc(m.handshakes, own), h)
	m.handshakes = m.handshakes[max(0, len(m.handshakes)-MaxHandshakes):]
	return contended
}

// take returns the handshake for an address, nil if there is none.
func (m *model) take(address string) *modelHandshake {
	waiting := m.waiting()
	if len(waiting) == 0 {
		return nil
	}
	i := slices.IndexFunc(waiting, func(w *modelHandshake) bool { return w.phone.from.Address == address })
	if i < 0 {
		i = len(waiting) - 1
	}
	h := waiting[i]
	m.handshakes = slices.Delete(waiting, i, i+1)
	return h
}

// forget forgets the handshakes.
func (m *model) forget() { m.handshakes, m.told = nil, time.Time{} }

func TestModel(t *testing.T) {
	t.Parallel()
	checkModel(t, openMemory, true)
}

// checkModel checks that random sequences of calls, ends of lifetimes and
// restarts, after which the other node goes on, give what the rules say. They
// begin with a registration. Lifetimes end only if the store follows the clock it
// is given.
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
		var stores [2]Store
		w := newWorld(t, func(c *Config) {
			stores = open(t, c.Now)
			c.Open = opens(t, stores[0], 1)
			c.MaxAttempts = rapid.IntRange(1, 3).Draw(rt, "attempts")
			c.MaxActivations = rapid.IntRange(1, 2).Draw(rt, "activations")
		})
		const id = "e3wfISG9"
		ctx := context.Background()
		m := &model{now: w.clock.now()}
		var last *modelHandshake
		for i := range rapid.IntRange(1, 32).Draw(rt, "steps") {
			step := "register"
			if i > 0 {
				step = rapid.SampledFrom(steps).Draw(rt, fmt.Sprintf("step %d", i))
			}
			check := func(err error, ok bool) {
				if ok != (err == nil) || err != nil && !errors.Is(err, ErrRefused) {
					rt.Fatalf("%s: got %v, want success %t", step, err, ok)
				}
			}
			// prove proves with what h was begun with.
			prove := func(h *modelHandshake, from Origin) {
				r, taken := m.live(), m.take(from.Address)
				takes := taken != nil && r != nil && taken.of == r && r.kind == KindMDL && r.wrong < w.maxAttempts
				ok := takes && taken == h && h.right && r.activations < w.maxActivations
				if takes && !ok {
					r.wrong++
				}
				if ok {
					r.activations++
					r.rights++
				}
				_, err := w.Prove(ctx, id, form.ClientEvidence(h.phone.evidence), from)
				check(err, ok)
			}
			anywhere := func() Origin { return at(rapid.IntRange(1, MaxHandshakes+2).Draw(rt, "address")) }
			switch step {
			case "register":
				r := w.mdl(id)
				r.Instance = "backup"
				r.Domain = ""
				m.registration = &modelRegistration{kind: KindMDL, password: w.register(r).Password, ends: m.now.Add(w.registrationLifetime)}
				m.forget()
			case "affinity":
				w.register(w.affinity(id))
				m.registration = &modelRegistration{kind: KindAffinity, ends: m.now.Add(w.registrationLifetime)}
				m.forget()
			case "begin right", "begin wrong", "exchange":
				h := &modelHandshake{of: m.live(), ends: m.now.Add(w.handshakeLifetime)}
				password := "wrong password"
				if step != "begin wrong" && h.of != nil && h.of.kind == KindMDL {
					password, h.right = h.of.password, true
				}
				from := anywhere()
				if rapid.IntRange(0, 9).Draw(rt, "application") == 0 {
					from.Application = "other-app"
				}
				h.phone = w.beginFrom(from, id, password)
				if contended := m.put(h); h.phone.challenge.Contended != contended {
					rt.Fatalf("%s: told of contention %t, want %t", step, !contended, contended)
				}
				last = h
				if step == "exchange" {
					prove(h, from)
				}
			case "prove", "prove from elsewhere":
				if waiting := m.waiting(); len(waiting) > 0 {
					h := rapid.SampledFrom(waiting).Draw(rt, "handshake")
					from := h.phone.from
					if step != "prove" {
						from = anywhere()
					}
					prove(h, from)
				}
			case "prove last again":
				if last != nil {
					prove(last, last.phone.from)
				}
			case "device", "device not sent":
				r := m.live()
				ok := r != nil && (r.kind == KindAffinity && r.devices < w.maxAttempts || r.rights > 0)
				a, err := w.AdmitDevice(ctx, id)
				check(err, ok)
				switch {
				case !ok:
				case step == "device not sent":
					check(w.ReturnDevice(ctx, a), true)
				case r.kind == KindAffinity:
					r.devices++
				default:
					r.rights--
				}
			case "final call", "final call not sent", "complete":
				r := m.live()
				ok := r != nil && (r.kind == KindAffinity || r.activations > 0) && r.finalCalls < w.maxAttempts
				a, err := w.AdmitConfirmation(ctx, id, KindMDL, KindAffinity)
				check(err, ok)
				switch {
				case !ok:
				case step == "final call not sent":
					check(w.ReturnConfirmation(ctx, a), true)
				case step == "complete":
					check(w.Complete(ctx, a), true)
					m.registration = nil
					m.forget()
				default:
					r.finalCalls++
				}
			case "wait a little", "wait":
				d := w.handshakeLifetime / 2
				if step == "wait" {
					d = w.registrationLifetime / 2
				}
				w.clock.advance(d)
				m.now = m.now.Add(d)
			case "restart":
				stores[0], stores[1] = stores[1], stores[0]
				w.restart(func(c *Config) { c.Open = opens(t, stores[0], 1) })
			}
		}
	})
}
