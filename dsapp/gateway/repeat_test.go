package gateway

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

// newStore returns a real store with a sealing key.
func newStore(t *testing.T) (*storetest.Memory, *seal.Keyring) {
	t.Helper()
	key := make([]byte, 32)
	key[0] = 1
	ring, err := seal.NewKeyring(key)
	if err != nil {
		t.Fatal(err)
	}
	return storetest.NewMemory(time.Now), ring
}

// newRepeating returns a rig with repeats and a real store for the owners of requests.
func newRepeating(t *testing.T) (*rig, *storetest.Memory, *[]RepeatEvent) {
	t.Helper()
	store, ring := newStore(t)
	repeats, err := repeat.New(repeat.Config{
		Open:     func(context.Context) (repeat.Store, *seal.Keyring, error) { return store, ring, nil },
		Lifetime: time.Minute, Timeout: 300 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	owners, err := ownership.New(ownership.Config{Open: func(ctx context.Context) (ownership.Store, *seal.Keyring, error) {
		return repeat.Ownership(ctx, store), ring, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	var events []RepeatEvent
	r := newRig(t, RefuseUnknown, func(c *Config) {
		c.Ownership, c.Repeats = owners, repeats
		c.Repeated = func(_ context.Context, e RepeatEvent) { events = append(events, e) }
	})
	return r, store, &events
}

// pendingCalls are the calls about a pending request, each of which returns its result.
func pendingCalls(r *rig, c Caller) map[Operation]func(ctx context.Context) (any, error) {
	complete := CompleteRequest{UserID: "jane.doe", Key: theKey, Signature: theSignature}
	cancel := CancelRequest{SerialNumber: "VDS1000003-1", Key: theKey}
	return map[Operation]func(ctx context.Context) (any, error){
		OpRetrieveLogin: func(ctx context.Context) (any, error) {
			return r.RetrieveLogin(ctx, c, RetrieveRequest{SerialNumber: "VDS1000003-1", Key: theKey})
		},
		OpCompleteLogin:     func(ctx context.Context) (any, error) { return r.CompleteLogin(ctx, c, complete) },
		OpCompleteSignature: func(ctx context.Context) (any, error) { return r.CompleteSignature(ctx, c, complete) },
		OpCancelLogin:       func(ctx context.Context) (any, error) { return r.CancelLogin(ctx, c, cancel) },
		OpCancelSignature: func(ctx context.Context) (any, error) {
			return r.CancelSignature(ctx, c, CancelRequest{SerialNumber: "VDS1000003-1", Key: theWrappedKey})
		},
	}
}

// A repeat of a success gets the same result, the server gets one command, and the audit log
// tells them apart. Another application's call is no repeat.
func TestRepeatGetsTheSameResult(t *testing.T) {
	t.Parallel()
	for op := range pendingCalls(nil, theCaller) {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			r, store, events := newRepeating(t)
			first, err := pendingCalls(r, theCaller)[op](t.Context())
			if err != nil {
				t.Fatal(err)
			}
			commands := len(r.trace)
			if calls := store.TakeCalls(); len(calls) != 2 {
				t.Errorf("calls of the store: %q, want 2", calls)
			}
			again, err := pendingCalls(r, theCaller)[op](t.Context())
			if err != nil || again != first {
				t.Errorf("got %+v, error %v, want %+v", again, err, first)
			}
			if len(r.trace) != commands {
				t.Errorf("calls %q, the last ones for a repeat", r.trace)
			}
			if calls := store.TakeCalls(); len(calls) != 1 {
				t.Errorf("calls of the store for a repeat: %q, want 1", calls)
			}
			actions := r.events.actions()
			if actions[len(actions)-1] != AuditRepeated || !slices.Equal(*events, []RepeatEvent{{op, RepeatAnswered}}) {
				t.Errorf("audited %q, told %v", actions, *events)
			}
			other := theCaller
			other.Application = "other-app"
			_, err = pendingCalls(r, other)[op](t.Context())
			if _, refused := errors.AsType[*Refusal](err); !refused && len(r.trace) == commands {
				t.Error("another application got the answer")
			}
		})
	}
}

// A refusal is not kept: the same call is forwarded again. An unknown outcome is repeated
// without another command.
func TestRepeatOfFailures(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		want error
		kept bool
	}{
		"refused":     {errRefusal, &Refusal{Codes: errRefusal.Codes}, false},
		"not sent":    {callError(authserver.ErrNotSent), &Failure{Kind: Unavailable, RetryAfter: retryUnavailable}, false},
		"late":        {callError(authserver.ErrTimeout), &Failure{Kind: Timeout}, true},
		"no answer":   {callError(authserver.ErrNoAnswer), &Failure{Kind: BadAnswer}, true},
		"wrong bytes": {callError(authserver.ErrBadAnswer), &Failure{Kind: BadAnswer}, true},
	} {
		for op := range pendingCalls(nil, theCaller) {
			t.Run(name+" "+string(op), func(t *testing.T) {
				t.Parallel()
				r, _, events := newRepeating(t)
				r.servers.err = tt.err
				for n := range 3 {
					before := len(r.trace)
					_, err := pendingCalls(r, theCaller)[op](t.Context())
					wantError(t, err, tt.want)
					if forwarded := len(r.trace) > before; forwarded != (n == 0 || !tt.kept) {
						t.Errorf("call %d was forwarded: %v", n, forwarded)
					}
				}
				if told := len(*events); told != 0 && !tt.kept || tt.kept && told != 2 {
					t.Errorf("told %v", *events)
				}
			})
		}
	}
}

// An outcome is kept with the last change of the store. If that fails, both are done one after the
// other: no failure of repeats loses the owner of a request, or that it was completed.
func TestOutcomeIsKeptWithTheChange(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fails    []string
		retrieve []string
		complete []string
		kept     bool
	}{
		"all is well": {nil, []string{"MarkOwner", "KeepClaim"}, []string{"MarkOwner", "KeepRelease"}, true},
		"together": {
			[]string{"KeepClaim", "KeepRelease"},
			[]string{"MarkOwner", "KeepClaim", "Claim", "Keep"},
			[]string{"MarkOwner", "KeepRelease", "Keep"},
			true,
		},
		"outcomes": {
			[]string{"KeepClaim", "KeepRelease", "Keep"},
			[]string{"MarkOwner", "KeepClaim", "Claim", "Keep"},
			[]string{"MarkOwner", "KeepRelease", "Keep"},
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, store, _ := newRepeating(t)
			for _, method := range tt.fails {
				store.Fail(method, errors.New("down"))
			}
			calls := pendingCalls(r, theCaller)
			if _, err := calls[OpRetrieveLogin](t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := store.TakeCalls(); !slices.Equal(got, tt.retrieve) {
				t.Errorf("retrieving: calls %q, want %q", got, tt.retrieve)
			}
			if owned := ownedKeys(store, ownership.Login); !slices.Equal(owned, []string{theKey}) {
				t.Errorf("owned: %q", owned)
			}
			if _, err := calls[OpCompleteLogin](t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := store.TakeCalls(); !slices.Equal(got, tt.complete) {
				t.Errorf("completing: calls %q, want %q", got, tt.complete)
			}
			before := len(r.trace)
			_, err := calls[OpCompleteLogin](t.Context())
			if tt.kept != (err == nil) || len(r.trace) != before {
				t.Errorf("repeat: error %v, calls %q", err, r.trace[before:])
			}
		})
	}
}

// A request that the server gave out twice has one owner. The second call is no repeat of anything
// later.
func TestLostRequestIsNotKept(t *testing.T) {
	t.Parallel()
	r, store, _ := newRepeating(t)
	other := theCaller
	other.Application = "other-app"
	store.Before("KeepClaim", func(ctx context.Context) error {
		store.Before("KeepClaim", nil)
		_, err := pendingCalls(r, other)[OpRetrieveLogin](ctx)
		return err
	})
	for range 2 {
		_, err := pendingCalls(r, theCaller)[OpRetrieveLogin](t.Context())
		wantError(t, err, &Refusal{Codes: notFoundCodes})
	}
	store.TakeCalls()
	if _, err := pendingCalls(r, other)[OpRetrieveLogin](t.Context()); err != nil {
		t.Errorf("the owner's repeat: %v", err)
	}
}

// Without a store for marks, every call is carried out as without repeats.
func TestRepeatsWithoutTheStore(t *testing.T) {
	t.Parallel()
	for op := range pendingCalls(nil, theCaller) {
		r, store, _ := newRepeating(t)
		for _, method := range []string{"MarkOwner", "MarkPending"} {
			store.Fail(method, errors.New("no memory"))
		}
		for range 2 {
			before := len(r.trace)
			_, err := pendingCalls(r, theCaller)[op](t.Context())
			if op != OpRetrieveLogin && (err != nil || len(r.trace) == before) {
				t.Errorf("%s: error %v, calls %q", op, err, r.trace)
			}
		}
	}
}

// A call whose client leaves is carried out to its end, and the repeat gets its answer.
func TestRepeatAfterTheClientLeft(t *testing.T) {
	t.Parallel()
	r, _, _ := newRepeating(t)
	ctx, leave := context.WithCancel(t.Context())
	r.servers.leave = leave
	request := RetrieveRequest{SerialNumber: form.SerialNumber("VDS1000003-1"), Key: theKey}
	first, err := r.RetrieveLogin(ctx, theCaller, request)
	if err != nil {
		t.Fatal(err)
	}
	if r.servers.ctx.Err() != nil {
		t.Error("the command ends with the client")
	}
	if again, err := r.RetrieveLogin(t.Context(), theCaller, request); err != nil || again != first {
		t.Errorf("%+v, error %v", again, err)
	}
}

// If the answer of the store to a mark is lost, the call is carried out, and a repeat gets its
// outcome instead of waiting for a call that is over. After a certain failure it is a new call.
func TestRepeatAfterALostMark(t *testing.T) {
	t.Parallel()
	for op := range pendingCalls(nil, theCaller) {
		for name, failure := range map[string]error{"success": nil, "unknown": callError(authserver.ErrTimeout), "refused": errRefusal} {
			t.Run(name+" "+string(op), func(t *testing.T) {
				t.Parallel()
				r, store, events := newRepeating(t)
				r.servers.err = failure
				lost := func(context.Context) error { return errors.New("connection lost") }
				for _, method := range []string{"MarkOwner", "MarkPending"} {
					store.After(method, lost)
				}
				first, firstErr := pendingCalls(r, theCaller)[op](t.Context())
				for _, method := range []string{"MarkOwner", "MarkPending"} {
					store.After(method, nil)
				}
				if failed := firstErr != nil; failed != (failure != nil) {
					t.Fatal(firstErr)
				}
				before := len(r.trace)
				again, err := pendingCalls(r, theCaller)[op](t.Context())
				if again != first || (err == nil) != (firstErr == nil) {
					t.Errorf("got %+v, error %v, want %+v, error %v", again, err, first, firstErr)
				}
				kept := failure != error(errRefusal)
				if forwarded := len(r.trace) > before; forwarded == kept || kept && len(*events) != 1 {
					t.Errorf("forwarded %v, told %v", forwarded, *events)
				}
				if slices.ContainsFunc(*events, func(e RepeatEvent) bool { return e.Outcome == RepeatTimeout }) {
					t.Error("a repeat waited for a call that was over")
				}
			})
		}
	}
}

// began records the operations that begin calls.
type began map[Operation]bool

func (b began) Begin(_ context.Context, r repeat.Request) *repeat.Call {
	b[Operation(r.Operation)] = true
	return nil
}

// The operations that clients are told to repeat are those that give a repeat the first outcome.
func TestRepeatable(t *testing.T) {
	t.Parallel()
	for op, call := range operations {
		b := began{}
		r := newRig(t, RefuseUnknown, func(c *Config) { c.Repeats = b })
		if err := call(t.Context(), r); err != nil || b[op] != op.Repeatable() {
			t.Errorf("%s: error %v, began %v", op, err, b)
		}
	}
}
