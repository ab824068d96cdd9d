package ownership_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// An unreachable store does not stop what the authentication server decides anyway. Without
// the owner, a cancellation by a plain key cannot be decided, and under RefuseUnknown none
// can: the store would have told whether to refuse it.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	for _, policy := range []ownership.UnknownRequests{ownership.ForwardUnknown, ownership.RefuseUnknown} {
		for _, opens := range []bool{true, false} {
			for name, call := range calls {
				t.Run(fmt.Sprintf("%s %s, store opens: %t", policy, name, opens), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, func(c *ownership.Config) { c.Unknown = policy })
					w.claimed(ownership.Login, plain, application, device, "primary")
					w.store.Fail("Owner", errDown)
					w.store.Fail("Pending", errDown)
					want := []string{call.asks}
					if !opens {
						want = nil
						w.restart(func(c *ownership.Config) {
							c.Open = func(context.Context) (ownership.Store, *seal.Keyring, error) { return nil, nil, errDown }
						})
					}
					d, err := call.do(t.Context(), w.Service, ownership.Login, mine)
					if got := w.store.TakeCalls(); !slices.Equal(got, want) {
						t.Errorf("store calls %v, want %v", got, want)
					}
					if name == "cancel" || name == "cancel wrapped" && policy == ownership.RefuseUnknown {
						undecided(t, d, err, errDown)
					} else {
						if err != nil || d.Verdict != ownership.Forward || d.Known || d.Instances != nil {
							t.Errorf("decision %+v, error %v", d, err)
						}
						if !errors.Is(d.StoreErr, ownership.ErrUnavailable) || !errors.Is(d.StoreErr, errDown) {
							t.Errorf("error of the store %v", d.StoreErr)
						}
					}
					w.released(d, false, plain)
					if len(w.alarms) > 0 {
						t.Errorf("alarms %q", w.alarms)
					}
				})
			}
		}
	}
}

// undecided fails unless there is an error for the reason and no decision.
func undecided(t testing.TB, d ownership.Decision, err, reason error) {
	t.Helper()
	if !errors.Is(err, ownership.ErrUnavailable) || !errors.Is(err, reason) || d.Verdict != "" || d.StoreErr != nil {
		t.Errorf("decision %+v, error %v, want no decision and %v", d, err, reason)
	}
}

// A claim that is there but cannot be read without keys is not treated as unknown.
func TestKeysAreNeededForClaims(t *testing.T) {
	t.Parallel()
	for _, policy := range []ownership.UnknownRequests{ownership.ForwardUnknown, ownership.RefuseUnknown} {
		w := newWorld(t, func(c *ownership.Config) { c.Unknown = policy })
		w.claimed(ownership.Login, plain, application, device, "primary")
		w.restart(withoutKeys)
		for _, call := range calls {
			d, err := call.do(t.Context(), w.Service, ownership.Login, mine)
			undecided(t, d, err, errDown)
		}
		if len(w.alarms) > 0 {
			t.Errorf("alarms %q", w.alarms)
		}
	}
}

// A request without a claim is known to be unknown without keys.
func TestKeysAreNotNeededForUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, refuse, withoutKeys)
	d, err := w.Cancelling(t.Context(), ownership.Login, plain, mine)
	w.is(d, err, "Owner", ownership.Foreign, false)
}

// Nothing is forwarded for a caller who is gone.
func TestCallerIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Login, plain, application, device, "primary")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, call := range calls {
		d, err := call.do(ctx, w.Service, ownership.Login, mine)
		undecided(t, d, err, context.Canceled)
	}
}

// RecordOwner and Release work after the caller has gone, because they follow a success
// of the authentication server.
func TestClaimAndReleaseOutliveTheCaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if won, err := w.RecordOwner(ctx, ownership.Login, plain, ownership.Owner{Application: application, SerialNumber: device, Instance: "primary"}); err != nil || !won {
		t.Fatalf("claim: %v, error %v", won, err)
	}
	d, err := w.Completing(t.Context(), ownership.Login, plain)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Release(ctx, d); err != nil {
		t.Fatal(err)
	}
	d, err = w.Completing(t.Context(), ownership.Login, plain)
	if err != nil || d.Known {
		t.Fatalf("known after release: %v, error %v", d.Known, err)
	}
}

// A store that hangs delays a caller for a few seconds at most.
func TestBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.claimed(ownership.Login, plain, application, device, "primary")
		d, err := w.Completing(t.Context(), ownership.Login, plain)
		if err != nil {
			t.Fatal(err)
		}
		w.store.Before("Claim", hang)
		w.store.Before("Release", hang)
		start := time.Now()
		if _, err := w.RecordOwner(t.Context(), ownership.Login, "1", ownership.Owner{Application: "a", SerialNumber: "s", Instance: "i"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("claim: error %v", err)
		}
		if d := time.Since(start); d != 2*3*time.Second {
			t.Errorf("two attempts took %v", d)
		}
		start = time.Now()
		if err := w.Release(t.Context(), d); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ownership.ErrUnavailable) {
			t.Errorf("release: error %v", err)
		}
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("release took %v", d)
		}
	})
}

func TestReleaseFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Login, plain, application, device, "primary")
	d, err := w.Completing(t.Context(), ownership.Login, plain)
	w.is(d, err, "Owner", ownership.Forward, true, "primary")
	w.store.Before("Release", down)
	if err := w.Release(t.Context(), d); !errors.Is(err, ownership.ErrUnavailable) || !errors.Is(err, errDown) {
		t.Errorf("error %v", err)
	}
	if err := w.Release(t.Context(), ownership.Decision{}); err != nil {
		t.Errorf("nothing to release: error %v", err)
	}
}
