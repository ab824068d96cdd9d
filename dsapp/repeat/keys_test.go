package repeat_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// pending is how long registrations are pending.
const pending = 10 * time.Minute

var named = repeat.KeyRequest{Application: "bank-site", Operation: "register_activation", Key: "0123456789abcdef", Body: [32]byte{1}}

// bank is Keys on a store in memory.
type bank struct {
	*testing.T
	*repeat.Keys

	store  *storetest.Memory
	alarms int
}

func newBank(t *testing.T, store *storetest.Memory, first byte) *bank {
	t.Helper()
	b := &bank{T: t, store: store}
	ring := keyring(t, first)
	var err error
	b.Keys, err = repeat.NewKeys(repeat.Config{
		Open:     func(context.Context) (repeat.Store, *seal.Keyring, error) { return store, ring, nil },
		Lifetime: pending, Timeout: timeout,
		Alarm: func(context.Context, seal.Alarm) { b.alarms++ },
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bank) begin(r repeat.KeyRequest, first bool) *repeat.KeyCall {
	b.Helper()
	c, err := b.Begin(b.Context(), r)
	if err != nil || c.First() != first {
		b.Fatalf("first call: %v, error %v", err == nil && c.First(), err)
	}
	return c
}

// register makes the registration of a call, with an answer.
func (b *bank) register(c *repeat.KeyCall, identifier, answer string) activation.Record {
	b.Helper()
	sealed, err := c.SealAnswer([]byte(answer))
	if err != nil {
		b.Fatal(err)
	}
	r := activation.Record{
		Identifier: identifier, Generation: activation.Generation([]byte(answer + "................")[:16]), Kind: activation.KindAffinity, Answer: sealed, Lifetime: pending,
	}
	ctx := c.Into(b.Context())
	if _, created, err := repeat.Activation(ctx, b.store).Create(ctx, r, activation.Generation{}); err != nil || !created {
		b.Fatalf("created %v, error %v", created, err)
	}
	return r
}

func (b *bank) outcome(r repeat.KeyRequest, want string, wantErr error) {
	b.Helper()
	if got, err := b.begin(r, false).Outcome(b.Context()); !errors.Is(err, wantErr) || string(got) != want {
		b.Errorf("outcome %q, error %v, want %q, %v", got, err, want, wantErr)
	}
}

// watchedStore calls a function before it creates a record.
type watchedStore struct {
	activation.Store

	before func()
}

func (s watchedStore) Create(ctx context.Context, r activation.Record, replaces activation.Generation) (activation.Record, bool, error) {
	s.before()
	return s.Store.Create(ctx, r, replaces)
}

// While the registration of a call is being stored, the call is under way: a key never names a
// registration that is not there, with which it would be free for a second one.
func TestKeyWhileItsRegistrationIsStored(t *testing.T) {
	t.Parallel()
	b := newBank(t, storetest.NewMemory(time.Now), 1)
	asked := false
	ctx := b.begin(named, true).Into(t.Context())
	store := watchedStore{b.store, func() {
		asked = true
		b.outcome(named, "", repeat.ErrUnderWay)
	}}
	r := activation.Record{Identifier: "e3wfISG9", Kind: activation.KindAffinity, Lifetime: pending}
	if _, created, err := repeat.Activation(ctx, store).Create(ctx, r, activation.Generation{}); err != nil || !created || !asked {
		t.Fatalf("created %v, asked %v, error %v", created, asked, err)
	}
}

// A call with the same key and body gets the same answer as long as the registration is pending,
// and nothing that is stored shows it.
func TestAnswerLivesWithItsRegistration(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(b *bank, r activation.Record){
		"completed": func(b *bank, r activation.Record) {
			if err := b.store.Remove(b.Context(), r.Identifier, r.Generation); err != nil {
				b.Fatal(err)
			}
		},
		"burned": func(b *bank, r activation.Record) {
			if _, ok, err := b.store.Burn(b.Context(), r.Identifier, 3); err != nil || !ok {
				b.Fatal(ok, err)
			}
		},
		"expired": func(*bank, activation.Record) { time.Sleep(pending) },
		"replaced": func(b *bank, r activation.Record) {
			if err := b.store.Remove(b.Context(), r.Identifier, r.Generation); err != nil {
				b.Fatal(err)
			}
			other := named
			other.Key += "-2"
			b.register(b.begin(other, true), r.Identifier, "another answer")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBank(t, storetest.NewMemory(time.Now), 1)
				r := b.register(b.begin(named, true), "e3wfISG9", "a secret answer")
				time.Sleep(pending - time.Second)
				for range 2 {
					b.outcome(named, "a secret answer", nil)
				}
				if bytes.Contains(b.store.Given(), []byte("secret")) {
					t.Error("the answer is stored in plain")
				}
				end(b, r)
				if name != "expired" {
					b.outcome(named, "", nil)
				}
				b.register(b.begin(named, true), "next", "the next answer")
				b.outcome(named, "the next answer", nil)
				if b.alarms != 0 {
					t.Errorf("%d alarms", b.alarms)
				}
			})
		})
	}
}

// Another body or another service is told apart, also while the first call is under way. Each
// application has keys of its own.
func TestOtherBody(t *testing.T) {
	t.Parallel()
	b := newBank(t, storetest.NewMemory(time.Now), 1)
	first := b.begin(named, true)
	b.outcome(named, "", repeat.ErrUnderWay)
	body, operation, application := named, named, named
	body.Body[31], operation.Operation, application.Application = 1, "register_offline", "another bank"
	for range 2 {
		b.outcome(body, "", repeat.ErrOtherBody)
		b.outcome(operation, "", repeat.ErrOtherBody)
		b.register(first, "e3wfISG9", "answer")
	}
	b.begin(application, true)
}

// A call whose node was killed leaves no outcome: its repeats never become the first call while
// the registration that it may have made is pending.
func TestCallThatLeavesNoOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBank(t, storetest.NewMemory(time.Now), 1)
		b.begin(named, true)
		time.Sleep(timeout + 4*time.Second)
		b.outcome(named, "", repeat.ErrUnderWay)
		time.Sleep(time.Second)
		b.outcome(named, "", repeat.ErrNoOutcome)
		time.Sleep(pending - timeout - 6*time.Second)
		b.outcome(named, "", repeat.ErrNoOutcome)
		time.Sleep(time.Second)
		b.begin(named, true)
	})
}

// What was kept of a failure is repeated, a key that was forgotten is free.
func TestKeptAndForgotten(t *testing.T) {
	t.Parallel()
	b := newBank(t, storetest.NewMemory(time.Now), 1)
	c := b.begin(named, true)
	if err := c.Keep(t.Context(), []byte("failed")); err != nil {
		t.Fatal(err)
	}
	b.outcome(named, "failed", nil)
	if err := c.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.begin(named, true)
}

// While the store cannot be used, no call begins, and a mark whose answer was lost does not take
// the key.
func TestKeysWithoutTheStore(t *testing.T) {
	t.Parallel()
	b := newBank(t, storetest.NewMemory(time.Now), 1)
	down := func(context.Context) error { return errors.New("down") }
	for _, hook := range []func(string, storetest.Hook){b.store.Before, b.store.After} {
		hook("Mark", down)
		if _, err := b.Begin(t.Context(), named); !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		hook("Mark", nil)
	}
	c := b.begin(named, true)
	// If only noting the registration fails, a second one is never made.
	b.store.Before("Keep", down)
	b.register(c, "e3wfISG9", "answer")
	b.outcome(named, "", repeat.ErrUnderWay)
	b.store.Before("Keep", nil)
	b.register(c, "e3wfISG9", "answer")
	b.store.Before("Answer", down)
	b.outcome(named, "", activation.ErrUnavailable)
	b.store.Before("Answer", nil)
	b.outcome(named, "answer", nil)
}

// Under another sealing key, a key is another one.
func TestKeysUnderAnotherSealingKey(t *testing.T) {
	t.Parallel()
	store := storetest.NewMemory(time.Now)
	b := newBank(t, store, 1)
	b.register(b.begin(named, true), "e3wfISG9", "answer")
	newBank(t, store, 2).begin(named, true)
}
