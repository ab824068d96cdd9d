package gateway

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// theNaming is theCaller with an idempotency key.
var theNaming = Caller{Application: "bank-site", BackEnd: true, IdempotencyKey: "0123456789abcdef", Body: [32]byte{1}}

// newKeyed returns a rig with idempotency keys, whose registrations are kept in a real store.
func newKeyed(t *testing.T, changes ...func(*Config)) (*rig, *storetest.Memory, *[]RepeatEvent) {
	t.Helper()
	store, ring := newStore(t)
	keys, err := repeat.NewKeys(repeat.Config{
		Open:     func(context.Context) (repeat.Store, *seal.Keyring, error) { return store, ring, nil },
		Lifetime: time.Minute, Timeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	var events []RepeatEvent
	r := newRig(t, RefuseUnknown, append([]func(*Config){func(c *Config) {
		c.Keys = keys
		c.Repeated = func(_ context.Context, e RepeatEvent) { events = append(events, e) }
	}}, changes...)...)
	r.activation.store = store
	return r, store, &events
}

// registrations are the calls that register, each of which returns its result.
func registrations(r *rig, c Caller) map[Operation]func(ctx context.Context) (any, error) {
	return map[Operation]func(ctx context.Context) (any, error){
		OpRegisterActivation: func(ctx context.Context) (any, error) {
			return r.RegisterActivation(ctx, c, RegisterActivationRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword})
		},
		OpRegisterOffline: func(ctx context.Context) (any, error) {
			return r.RegisterOffline(ctx, c, RegisterOfflineRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: theStaticPassword})
		},
	}
}

// forwarded returns how many commands were sent.
func (r *rig) forwarded() int {
	n := 0
	for _, call := range r.trace {
		if strings.Contains(call, "REGISTER") || strings.Contains(call, "dsapp") {
			n++
		}
	}
	return n
}

// The same key and body get the same registration, and the server gets one command. It costs one
// call of the store, and none without a key. Another body and another service are refused.
func TestKeyGivesTheSameRegistration(t *testing.T) {
	t.Parallel()
	for op := range registrations(nil, theNaming) {
		for name, change := range map[string]func(*Config){"own": func(*Config) {}, "relayed": relayed} {
			t.Run(name+" "+string(op), func(t *testing.T) {
				t.Parallel()
				r, store, events := newKeyed(t, change)
				register := registrations(r, theNaming)[op]
				first, err := register(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				calls := store.TakeCalls()
				// The last two are made at the same time.
				if slices.Sort(calls[1:]); !slices.Equal(calls, []string{"Mark", "Create", "Keep"}) {
					t.Errorf("calls of the store: %q", calls)
				}
				again, err := register(t.Context())
				if err != nil || !reflect.DeepEqual(again, first) {
					t.Errorf("got %+v, error %v, want %+v", again, err, first)
				}
				if calls := store.TakeCalls(); !slices.Equal(calls, []string{"Mark", "Answer"}) {
					t.Errorf("calls of the store for a repeat: %q", calls)
				}
				if actions := r.events.actions(); r.forwarded() != 1 || len(actions) != 2 || actions[1] != AuditRepeated || r.events.audits[1].Registration != "e3wfISG9" {
					t.Errorf("calls %q, audited %+v", r.trace, r.events.audits)
				}
				for _, secret := range secrets {
					if bytes.Contains(store.Given(), []byte(secret)) || strings.Contains(r.log.String(), secret) {
						t.Errorf("the store or the log has %q", secret)
					}
				}

				body := theNaming
				body.Body[0]++
				_, err = registrations(r, body)[op](t.Context())
				wantError(t, err, &Failure{Kind: KeyReused})
				for other, register := range registrations(r, theNaming) {
					if other != op {
						_, err := register(t.Context())
						wantError(t, err, &Failure{Kind: KeyReused})
					}
				}
				if want := []RepeatEvent{{op, RepeatAnswered}, {op, RepeatOtherBody}}; len(*events) != 3 || !slices.Equal((*events)[:2], want) {
					t.Errorf("told %v", *events)
				}

				for _, c := range []Caller{{Application: "another", IdempotencyKey: theNaming.IdempotencyKey, Body: theNaming.Body}, theCaller} {
					store.TakeCalls()
					before := r.forwarded()
					store.Do(func(m *storetest.Model) { clear(m.Records) })
					if _, err := registrations(r, c)[op](t.Context()); err != nil || r.forwarded() != before+1 {
						t.Errorf("%s: error %v, %d commands", c.Application, err, r.forwarded()-before)
					}
				}
				if calls := store.TakeCalls(); !slices.Equal(calls, []string{"Create"}) {
					t.Errorf("calls of the store without a key: %q", calls)
				}
			})
		}
	}
}

// A refusal and a call that was not sent leave the key free. An unknown outcome is repeated
// without another command, also if the registration could not be stored.
func TestKeyAfterFailures(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		server, store, reserve error
		want                   error
		kept                   bool
	}{
		"refused":     {server: errRefusal, want: &Refusal{Codes: errRefusal.Codes}},
		"not sent":    {server: callError(authserver.ErrNotSent), want: &Failure{Kind: Unavailable, RetryAfter: retryUnavailable}},
		"no room":     {reserve: errStore, want: &Failure{Kind: Unavailable, RetryAfter: retryUnavailable}},
		"late":        {server: callError(authserver.ErrTimeout), want: &Failure{Kind: Timeout}, kept: true},
		"no answer":   {server: callError(authserver.ErrNoAnswer), want: &Failure{Kind: BadAnswer}, kept: true},
		"wrong bytes": {server: callError(authserver.ErrBadAnswer), want: &Failure{Kind: BadAnswer}, kept: true},
		"not stored":  {store: errors.New("down"), want: &Failure{Kind: Internal}, kept: true},
	} {
		for op := range registrations(nil, theNaming) {
			t.Run(name+" "+string(op), func(t *testing.T) {
				t.Parallel()
				r, store, events := newKeyed(t)
				r.servers.err, r.activation.reserveErr = tt.server, tt.reserve
				store.Fail("Create", tt.store)
				for range 3 {
					_, err := registrations(r, theNaming)[op](t.Context())
					wantError(t, err, tt.want)
				}
				commands := 3
				if tt.kept {
					commands = 1
				} else if tt.reserve != nil {
					commands = 0
				}
				if r.forwarded() != commands {
					t.Errorf("%d commands, want %d", r.forwarded(), commands)
				}
				if tt.kept != slices.Equal(*events, []RepeatEvent{{op, RepeatUnknown}, {op, RepeatUnknown}}) {
					t.Errorf("told %v", *events)
				}
				r.servers.err, r.activation.reserveErr = nil, nil
				store.Fail("Create", nil)
				if _, err := registrations(r, theNaming)[op](t.Context()); (err != nil) != tt.kept {
					t.Errorf("afterwards: error %v", err)
				}
			})
		}
	}
}

// A call whose client leaves is carried out to its end. While it is under way, the same call is
// told so.
func TestKeyAfterTheClientLeft(t *testing.T) {
	t.Parallel()
	r, _, events := newKeyed(t)
	register := registrations(r, theNaming)[OpRegisterActivation]
	ctx, leave := context.WithCancel(t.Context())
	r.servers.leave = func() {
		leave()
		_, err := register(t.Context())
		wantError(t, err, &Failure{Kind: UnderWay, RetryAfter: retryBusy})
	}
	first, err := register(ctx)
	if err != nil || r.servers.ctx.Err() != nil {
		t.Fatalf("error %v, of the command %v", err, r.servers.ctx.Err())
	}
	if again, err := register(t.Context()); err != nil || again != first {
		t.Errorf("%+v, error %v", again, err)
	}
	if want := []RepeatEvent{{OpRegisterActivation, RepeatUnderWay}, {OpRegisterActivation, RepeatAnswered}}; !slices.Equal(*events, want) {
		t.Errorf("told %v", *events)
	}
}

// Once the registration is over, the key is free: the same call makes a new registration.
func TestKeyAfterTheRegistration(t *testing.T) {
	t.Parallel()
	r, store, _ := newKeyed(t)
	register := registrations(r, theNaming)[OpRegisterActivation]
	for n := range 2 {
		if _, err := register(t.Context()); err != nil || r.forwarded() != n+1 {
			t.Fatalf("error %v, %d commands", err, r.forwarded())
		}
		store.Do(func(m *storetest.Model) { clear(m.Records) })
	}
}

// Without the store nothing is sent, and the client may use the key again.
func TestKeyWithoutTheStore(t *testing.T) {
	t.Parallel()
	r, store, _ := newKeyed(t)
	store.Fail("Mark", errors.New("down"))
	for _, register := range registrations(r, theNaming) {
		_, err := register(t.Context())
		wantError(t, err, &Failure{Kind: Unavailable, RetryAfter: retryUnavailable})
	}
	r.wantTrace(t)
}

// The longest answers that are kept with a registration are as short as TestMaxRecord in package
// activation takes them to be. That of an offline registration, which keeps nothing else but its
// subject, may be longer.
func TestLongestAnswer(t *testing.T) {
	t.Parallel()
	r, store, _ := newKeyed(t, func(c *Config) { c.GatewayID = strings.Repeat("\U0001F511", maxGatewayID) })
	r.activation.registered.Identifier = form.Identifier(strings.Repeat("i", form.Identifier("").Rule().Max))
	r.activation.registered.Password = strings.Repeat("p", 64) // as long as activation draws it at most
	r.servers.mdlRegistered.ActivationMessage = strings.Repeat("A0", form.ActivationMessage("").Rule().Max/2)
	longest := strings.Repeat("x", form.MaxStoredText)
	size := func() (n int) {
		store.Do(func(m *storetest.Model) {
			for _, e := range m.Records {
				n = len(e.Answer)
			}
			clear(m.Records)
		})
		return n
	}
	if _, err := r.RegisterActivation(t.Context(), theNaming, RegisterActivationRequest{UserID: form.RegisteredUser(longest), Domain: form.RegisteredDomain(longest), StaticPassword: theStaticPassword}); err != nil {
		t.Fatal(err)
	}
	if n := size(); n == 0 || n > 4096 {
		t.Errorf("the answer of an exchange has %d bytes", n)
	}
	if _, err := r.RegisterOffline(t.Context(), Caller{IdempotencyKey: theNaming.IdempotencyKey}, RegisterOfflineRequest{UserID: form.RegisteredUser(longest), StaticPassword: theStaticPassword}); err != nil {
		t.Fatal(err)
	}
	if n := size(); n == 0 || n > activation.MaxRecord/2 {
		t.Errorf("the answer of an offline registration has %d bytes", n)
	}
}
