package ownership_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// The first owner stays, whoever tries next.
func TestClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := ownership.Owner{Application: application, SerialNumber: device, Instance: "primary"}
	for i, o := range []ownership.Owner{
		first,
		first,
		{Application: "other-app", SerialNumber: device, Instance: "primary"},
		{Application: application, SerialNumber: "VDS1000000-2", Instance: "backup"},
	} {
		won, err := w.RecordOwner(t.Context(), ownership.Login, plain, o)
		if err != nil || won != (i == 0) {
			t.Errorf("claim %d: %v, error %v", i, won, err)
		}
		if calls := w.store.TakeCalls(); !slices.Equal(calls, []string{"Claim"}) {
			t.Errorf("claim %d: store calls %v", i, calls)
		}
	}
	d, err := w.Cancelling(t.Context(), ownership.Login, plain, mine)
	w.is(d, err, "Owner", ownership.Forward, true, "primary")
	if won, err := w.RecordOwner(t.Context(), ownership.Signature, plain, first); err != nil || !won {
		t.Errorf("claim of the other kind: %v, error %v", won, err)
	}
}

// A claim whose outcome is unknown is repeated as the same claim, once.
func TestClaimIsRepeated(t *testing.T) {
	t.Parallel()
	o := ownership.Owner{Application: application, SerialNumber: device, Instance: "primary"}
	once := func(n *int) error {
		if *n++; *n == 1 {
			return errDown
		}
		return nil
	}
	for _, tt := range []struct {
		name    string
		prepare func(w *world)
		won     bool
		fails   bool
		calls   int
	}{
		{"not arrived", func(w *world) {
			n := 0
			w.store.Before("Claim", func(context.Context) error { return once(&n) })
		}, true, false, 2},
		{"answer lost", func(w *world) {
			n := 0
			w.store.After("Claim", func(context.Context) error { return once(&n) })
		}, true, false, 2},
		{"answer lost and another's", func(w *world) {
			w.claimed(ownership.Login, plain, "other-app", device, "primary")
			n := 0
			w.store.After("Claim", func(context.Context) error { return once(&n) })
		}, false, false, 2},
		{"down", func(w *world) { w.store.Before("Claim", down) }, false, true, 2},
		{"every answer lost", func(w *world) { w.store.After("Claim", func(context.Context) error { return errDown }) }, false, true, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tt.prepare(w)
			won, err := w.RecordOwner(t.Context(), ownership.Login, plain, o)
			if won != tt.won || (err != nil) != tt.fails {
				t.Errorf("claim: %v, error %v", won, err)
			}
			if tt.fails && (!errors.Is(err, ownership.ErrUnavailable) || !errors.Is(err, errDown)) {
				t.Errorf("error %v", err)
			}
			if n := len(w.store.TakeCalls()); n != tt.calls {
				t.Errorf("%d store calls, want %d", n, tt.calls)
			}
		})
	}
}

// An owner that cannot be sealed is not stored, and the error contains no value.
func TestClaimCannotBeSealed(t *testing.T) {
	t.Parallel()
	good := ownership.Owner{Application: application, SerialNumber: device, Instance: "primary"}
	long := strings.Repeat("x", 256)
	for _, tt := range []struct {
		name  string
		owner ownership.Owner
		keys  error
	}{
		{"no keys", good, errDown},
		{"no application", ownership.Owner{SerialNumber: device, Instance: "primary"}, nil},
		{"no serial number", ownership.Owner{Application: application, Instance: "primary"}, nil},
		{"no instance", ownership.Owner{Application: application, SerialNumber: device}, nil},
		{"long application", ownership.Owner{Application: long, SerialNumber: device, Instance: "primary"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *ownership.Config) {
				if tt.keys != nil {
					withoutKeys(c)
				}
			})
			won, err := w.RecordOwner(t.Context(), ownership.Login, plain, tt.owner)
			if won || !errors.Is(err, ownership.ErrUnavailable) || tt.keys != nil && !errors.Is(err, tt.keys) {
				t.Fatalf("claim: %v, error %v", won, err)
			}
			if strings.Contains(err.Error(), "xxx") || strings.Contains(err.Error(), device) {
				t.Errorf("error %q shows a value", err)
			}
			if calls := w.store.TakeCalls(); calls != nil {
				t.Errorf("store calls %v", calls)
			}
		})
	}
}

// A claim lasts for the configured lifetime, by default for five minutes.
func TestLifetime(t *testing.T) {
	t.Parallel()
	for configured, want := range map[time.Duration]time.Duration{0: 5 * time.Minute, time.Second: time.Second, time.Hour: time.Hour} {
		t.Run(want.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(c *ownership.Config) { c.Lifetime = configured })
				w.claimed(ownership.Login, plain, application, device, "primary")
				for _, step := range []struct {
					wait  time.Duration
					known bool
				}{{want - 1, true}, {1, false}} {
					<-time.After(step.wait)
					for _, key := range []string{plain, wrapped} {
						if d, err := w.Cancelling(t.Context(), ownership.Login, form.Key(key), mine); err != nil || d.Known != step.known {
							t.Errorf("known: %v, error %v, want %v", d.Known, err, step.known)
						}
					}
				}
			})
		})
	}
}
