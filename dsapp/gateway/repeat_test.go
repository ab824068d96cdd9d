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

// newRepeating returns a rig with repeats and a real store for the owners of requests.
func newRepeating(t *testing.T) (*rig, *storetest.Memory, *[]RepeatEvent) {
	t.Helper()
	key := make([]byte, 32)
	key[0] = 1
	ring, err := seal.NewKeyring(key)
	if err != nil {
		t.Fatal(err)
	}
	store := storetest.NewMemory(time.Now)
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
			if calls := store.TakeCalls(); len(calls) > 3 || len(calls) == 0 {
				t.Errorf("calls of the store: %q, want at most 3", calls)
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
