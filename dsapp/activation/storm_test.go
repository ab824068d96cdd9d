package activation_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// ledger counts how the proofs of each identifier ended, on all nodes together.
type ledger struct {
	mu                            sync.Mutex
	taken, won, wrong, superseded map[string]int
}

func newLedger() *ledger {
	return &ledger{taken: map[string]int{}, won: map[string]int{}, wrong: map[string]int{}, superseded: map[string]int{}}
}

// audited is a Store that records its answers in a ledger.
type audited struct {
	activation.Store
	*ledger
}

func (a audited) Take(ctx context.Context, identifier string, token activation.Token, source activation.Tag, maxAttempts int) (activation.Handshake, bool, error) {
	h, ok, err := a.Store.Take(ctx, identifier, token, source, maxAttempts)
	if ok && err == nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.taken[identifier]++
	}
	return h, ok, err
}

func (a audited) Settle(ctx context.Context, identifier string, s activation.Settlement) (activation.Record, bool, error) {
	r, ok, err := a.Store.Settle(ctx, identifier, s)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil || s.Generation == (activation.Generation{}): // nothing was taken
	case ok:
		a.won[identifier]++
	case s.Proven:
		a.superseded[identifier]++
	default:
		a.wrong[identifier]++
	}
	return r, ok, err
}

// Whatever happens at once on any node and from any address: no more wrong proofs are
// verified than MaxAttempts, no more activations happen than MaxActivations, every
// accepted proof is one activation with the right to one device, and nothing stays in
// flight.
func TestStorm(t *testing.T) { overEveryStore(t, checkStorm) }

func checkStorm(t *testing.T, open opener, _ bool) {
	t.Helper()
	rapid.Check(t, func(rt *rapid.T) {
		book := newLedger()
		var stores [2]activation.Store
		w := newWorld(t, func(c *activation.Config) {
			stores = open(t, c.Now)
			c.Open = opens(t, audited{stores[0], book}, 1)
			c.MaxAttempts = rapid.IntRange(1, 3).Draw(rt, "attempts")
			c.MaxActivations = rapid.IntRange(1, 3).Draw(rt, "activations")
			c.MaxExchanges = 8
		})
		config := w.config
		config.Open = opens(t, audited{stores[1], book}, 1)
		other, err := activation.New(config)
		if err != nil {
			rt.Fatal(err)
		}
		nodes := []*activation.Service{w.Service, other}
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
				address: rapid.IntRange(1, activation.MaxHandshakes+1).Draw(t, "address"),
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
				evidence, err := evidenceFrom(nodes[x.node], w.profile, at(x.address), id, password)
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
						case !same(err, activation.ErrRefused):
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
			if admitted := i < accepted[string(r.Identifier)]; admitted != (err == nil) || !admitted && !same(err, activation.ErrRefused) {
				rt.Fatalf("device %d after %d activations: %v", i+1, accepted[string(r.Identifier)], err)
			}
		}
	})
}

// at returns one of several origins.
func at(i int) activation.Origin {
	return activation.Origin{Address: fmt.Sprintf("192.0.2.%d", i), Application: "mobile-app"}
}

// A phone activates while others begin exchanges for its registration from as many
// addresses as have room, on any node. Contention is reported once, also for an unknown
// identifier. The wrong proofs of the others burn the registration no sooner than
// MaxAttempts.
func TestContention(t *testing.T) { overEveryStore(t, checkContention) }

func checkContention(t *testing.T, open opener, _ bool) {
	t.Helper()
	var stores [2]activation.Store
	w := newWorld(t, func(c *activation.Config) {
		stores = open(t, c.Now)
		c.Open = opens(t, stores[0], 1)
	})
	config := w.config
	config.Open = opens(t, stores[1], 1)
	other, err := activation.New(config)
	if err != nil {
		t.Fatal(err)
	}
	nodes := []*activation.Service{w.Service, other}
	r := w.register(w.mdl("e3wfISG9"))
	for _, id := range []string{string(r.Identifier), "unknown-id"} {
		p := w.begin(form.Identifier(id), r.Password)
		var told atomic.Int32
		var wg sync.WaitGroup
		for i := range 3 * (activation.MaxHandshakes - 1) {
			wg.Go(func() {
				from := at(2 + i%(activation.MaxHandshakes-1))
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
func evidenceFrom(s *activation.Service, p *srp.Profile, from activation.Origin, identifier, password string) (string, error) {
	c, err := p.NewClient(identifier, password)
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
