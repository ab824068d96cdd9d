package ownership_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

var errDown = errors.New("connection refused")

func down(context.Context) error { return errDown }

// hang is a store that never answers.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// The people of these tests.
const (
	application = "bank-app"
	device      = "VDS1000000-1"
	plain       = "8408980524"
)

var (
	wrapped = strings.Repeat("D2602CE3", 8)
	mine    = ownership.Caller{Application: application, SerialNumber: device}
	kinds   = []ownership.Kind{ownership.Login, ownership.Signature}
)

// world is a Service over a store in memory.
type world struct {
	*ownership.Service

	t      testing.TB
	store  *memory
	log    bytes.Buffer
	mu     sync.Mutex
	alarms []string
	config ownership.Config
}

func ring(t testing.TB, keys ...byte) *seal.Keyring {
	t.Helper()
	var secrets [][]byte
	for _, k := range keys {
		secrets = append(secrets, bytes.Repeat([]byte{k}, 32))
	}
	r, err := seal.NewKeyring(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// opens is a Config.Open that gives a store and a ring of keys.
func opens(t testing.TB, store ownership.Store, keys ...byte) func(context.Context) (ownership.Store, *seal.Keyring, error) {
	t.Helper()
	r := ring(t, keys...)
	return func(ctx context.Context) (ownership.Store, *seal.Keyring, error) { return store, r, ctx.Err() }
}

// withoutKeys leaves only the store.
func withoutKeys(c *ownership.Config) {
	open := c.Open
	c.Open = func(ctx context.Context) (ownership.Store, *seal.Keyring, error) {
		store, _, _ := open(ctx)
		return store, nil, errDown
	}
}

func newWorld(t testing.TB, change ...func(*ownership.Config)) *world {
	t.Helper()
	w := &world{t: t, store: newMemory()}
	w.config = ownership.Config{
		Open:   opens(t, w.store, 1),
		Logger: slog.New(slog.NewTextHandler(&w.log, nil)),
		Alarm: func(_ context.Context, a seal.Alarm) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.alarms = append(w.alarms, string(a.Event)+" "+a.Request)
		},
	}
	w.restart(change...)
	return w
}

// restart makes a new Service on the same store.
func (w *world) restart(change ...func(*ownership.Config)) {
	w.t.Helper()
	for _, c := range change {
		c(&w.config)
	}
	s, err := ownership.New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Service = s
}

func refuse(c *ownership.Config) { c.Unknown = ownership.RefuseUnknown }

// claimed makes an owner, who must win.
func (w *world) claimed(kind ownership.Kind, key, application, serialNumber, instance string) {
	w.t.Helper()
	o := ownership.Owner{Application: application, SerialNumber: serialNumber, Instance: instance}
	if won, err := w.RecordOwner(w.t.Context(), kind, form.PlainKey(key), o); err != nil || !won {
		w.t.Fatalf("claim: %v, error %v", won, err)
	}
	w.store.take()
}

// is fails unless d is the decision wanted and the store was asked that once.
func (w *world) is(d ownership.Decision, err error, asked string, want ownership.Verdict, known bool, instances ...string) {
	w.t.Helper()
	if err != nil || d.Verdict != want || d.Known != known || !slices.Equal(d.Instances, instances) || d.StoreErr != nil {
		w.t.Errorf("decision %+v, error %v; want %s, known %v, to %v", d, err, want, known, instances)
	}
	if calls := w.store.take(); !slices.Equal(calls, []string{asked}) {
		w.t.Errorf("store calls %v, want %s", calls, asked)
	}
}

// released fails unless Release of d calls the store or not, and afterwards just
// these keys are claimed.
func (w *world) released(d ownership.Decision, calls bool, left ...string) {
	w.t.Helper()
	if err := w.Release(w.t.Context(), d); err != nil {
		w.t.Errorf("release: %v", err)
	}
	if n := len(w.store.take()); n > 1 || (n == 1) != calls {
		w.t.Errorf("release made %d store calls, any expected: %v", n, calls)
	}
	var keys []string
	for _, e := range w.store.claims {
		keys = append(keys, e.Key)
	}
	slices.Sort(keys)
	if !slices.Equal(keys, left) {
		w.t.Errorf("claimed afterwards: %v, want %v", keys, left)
	}
}

// The rules for a request that was never retrieved through the gateway.
func TestUnknownRequest(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		other := kinds[0]
		if kind == other {
			other = kinds[1]
		}
		for _, policy := range []ownership.UnknownRequests{"", ownership.ForwardUnknown, ownership.RefuseUnknown} {
			t.Run(fmt.Sprintf("%s %s", kind, policy), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(c *ownership.Config) { c.Unknown = policy })
				// Neither another kind nor another request says anything.
				w.claimed(other, plain, application, device, "primary")
				w.claimed(kind, plain+"0", application, "VDS1000000-2", "primary")
				cancel := ownership.Forward
				if policy == ownership.RefuseUnknown {
					cancel = ownership.Foreign
				}
				d, err := w.Retrieving(t.Context(), kind, plain)
				w.is(d, err, "Owner", ownership.Forward, false)
				w.released(d, false, plain, plain+"0")
				d, err = w.Completing(t.Context(), kind, plain)
				w.is(d, err, "Owner", ownership.Forward, false)
				w.released(d, false, plain, plain+"0")
				d, err = w.Cancelling(t.Context(), kind, plain, mine)
				w.is(d, err, "Owner", cancel, false)
				w.released(d, false, plain, plain+"0")
				d, err = w.Cancelling(t.Context(), kind, form.Key(wrapped), mine)
				w.is(d, err, "Pending", cancel, false)
				w.released(d, false, plain, plain+"0")
			})
		}
	}
}

// The rules for a request that was retrieved, by its owner and by others.
func TestOwnedRequest(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		for _, policy := range []ownership.UnknownRequests{ownership.ForwardUnknown, ownership.RefuseUnknown} {
			rig := func(t *testing.T) *world {
				t.Helper()
				w := newWorld(t, func(c *ownership.Config) { c.Unknown = policy })
				w.claimed(kind, plain, application, device, "backup")
				return w
			}
			run := func(name string, f func(t *testing.T, w *world)) {
				t.Run(fmt.Sprintf("%s %s %s", name, kind, policy), func(t *testing.T) {
					t.Parallel()
					f(t, rig(t))
				})
			}
			run("retrieve", func(t *testing.T, w *world) {
				t.Helper()
				d, err := w.Retrieving(t.Context(), kind, plain)
				w.is(d, err, "Owner", ownership.AlreadyOwned, true)
				w.released(d, false, plain)
			})
			run("complete", func(t *testing.T, w *world) {
				t.Helper()
				d, err := w.Completing(t.Context(), kind, plain)
				w.is(d, err, "Owner", ownership.Forward, true, "backup")
				w.released(d, true)
			})
			run("cancel", func(t *testing.T, w *world) {
				t.Helper()
				d, err := w.Cancelling(t.Context(), kind, plain, mine)
				w.is(d, err, "Owner", ownership.Forward, true, "backup")
				w.released(d, true)
			})
			run("cancel wrapped", func(t *testing.T, w *world) {
				t.Helper()
				d, err := w.Cancelling(t.Context(), kind, form.Key(wrapped), mine)
				w.is(d, err, "Pending", ownership.Forward, true, "backup")
				w.released(d, true)
			})
			for name, c := range map[string]ownership.Caller{
				"other application":      {Application: "other-app", SerialNumber: device},
				"no application":         {SerialNumber: device},
				"other device":           {Application: application, SerialNumber: "VDS1000000-2"},
				"same device, lowercase": {Application: application, SerialNumber: strings.ToLower(device)},
				"stranger":               {Application: "other-app", SerialNumber: "VDS1000000-2"},
			} {
				run("cancel by "+name, func(t *testing.T, w *world) {
					t.Helper()
					d, err := w.Cancelling(t.Context(), kind, plain, c)
					w.is(d, err, "Owner", ownership.Foreign, true)
					w.released(d, false, plain)
				})
			}
			run("cancel wrapped by other application", func(t *testing.T, w *world) {
				t.Helper()
				d, err := w.Cancelling(t.Context(), kind, form.Key(wrapped), ownership.Caller{Application: "other-app", SerialNumber: device})
				w.is(d, err, "Pending", ownership.Foreign, true)
				w.released(d, false, plain)
			})
		}
	}
}

// Where cancels by plain keys are refused, nothing is looked up for one, whoever
// retrieved the request. A wrapped key is judged as always.
func TestPlainCancelIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *ownership.Config) { c.PlainCancel = ownership.RefusePlain })
	w.claimed(ownership.Login, plain, application, device, "primary")
	for _, claimant := range []ownership.Caller{mine, {Application: "other-app", SerialNumber: device}} {
		d, err := w.Cancelling(t.Context(), ownership.Login, plain, claimant)
		if err != nil || d.Verdict != ownership.PlainKey || len(w.store.take()) != 0 {
			t.Errorf("decision %+v, error %v", d, err)
		}
		w.released(d, false, plain)
	}
	d, err := w.Cancelling(t.Context(), ownership.Login, form.Key(wrapped), mine)
	w.is(d, err, "Pending", ownership.Forward, true, "primary")
}

// A wrapped key goes to the instances of all that the application may cancel of
// this device. Only of a single request is it clear which one it means.
func TestWrappedKeyOfSeveralRequests(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.claimed(kind, "3", application, device, "second")
			w.claimed(kind, "1", application, device, "third")
			w.claimed(kind, "4", application, device, "third")
			w.claimed(kind, "2", "other-app", device, "first")
			w.claimed(kind, "5", application, "VDS1000000-2", "first")
			d, err := w.Cancelling(t.Context(), kind, form.Key(wrapped), mine)
			w.is(d, err, "Pending", ownership.Forward, true, "third", "second")
			w.released(d, false, "1", "2", "3", "4", "5")

			// With another application's beside it, it is not clear either.
			for _, key := range []string{"3", "4"} {
				d, err := w.Completing(t.Context(), kind, form.PlainKey(key))
				if err != nil {
					t.Fatal(err)
				}
				if err := w.Release(t.Context(), d); err != nil {
					t.Fatal(err)
				}
			}
			w.store.take()
			d, err = w.Cancelling(t.Context(), kind, form.Key(wrapped), mine)
			w.is(d, err, "Pending", ownership.Forward, true, "third")
			w.released(d, false, "1", "2", "5")
		})
	}
}

// The decision about a request ends with its claim, and Release removes no claim
// but the one decided about.
func TestReleaseOfAnEarlierClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Login, plain, application, device, "primary")
	d, err := w.Completing(t.Context(), ownership.Login, plain)
	w.is(d, err, "Owner", ownership.Forward, true, "primary")
	w.released(d, true)
	w.claimed(ownership.Login, plain, "other-app", device, "backup")
	w.released(d, true, plain)
}

// An unreachable store does not stop what the authentication server decides
// anyway. Whether a plain key is the caller's to cancel it cannot decide, and
// under RefuseUnknown whether to refuse is exactly what the store would have said.
func TestBlind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		policy ownership.UnknownRequests
		calls  int // of the store; none if it cannot be opened
	}{{ownership.ForwardUnknown, 1}, {ownership.RefuseUnknown, 1}, {ownership.ForwardUnknown, 0}, {ownership.RefuseUnknown, 0}} {
		t.Run(fmt.Sprintf("%s %d", tt.policy, tt.calls), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *ownership.Config) { c.Unknown = tt.policy })
			w.claimed(ownership.Login, plain, application, device, "primary")
			w.store.fail["Owner"], w.store.fail["Pending"] = down, down
			if tt.calls == 0 {
				w.restart(func(c *ownership.Config) {
					c.Open = func(context.Context) (ownership.Store, *seal.Keyring, error) { return nil, nil, errDown }
				})
			}
			check := func(call string, d ownership.Decision, err error) {
				t.Helper()
				if err != nil || d.Verdict != ownership.Forward || d.Known || d.Instances != nil {
					t.Errorf("%s: decision %+v, error %v", call, d, err)
				}
				if !errors.Is(d.StoreErr, ownership.ErrUnavailable) || !errors.Is(d.StoreErr, errDown) {
					t.Errorf("%s: blind because of %v", call, d.StoreErr)
				}
				if n := len(w.store.take()); n != tt.calls {
					t.Errorf("%s: %d store calls", call, n)
				}
				w.released(d, false, plain)
			}
			d, err := w.Retrieving(t.Context(), ownership.Login, plain)
			check("retrieve", d, err)
			d, err = w.Completing(t.Context(), ownership.Login, plain)
			check("complete", d, err)
			for _, key := range []string{plain, wrapped} {
				d, err = w.Cancelling(t.Context(), ownership.Login, form.Key(key), mine)
				if tt.policy == ownership.ForwardUnknown && key == wrapped {
					check("cancel", d, err)
					continue
				}
				if !errors.Is(err, ownership.ErrUnavailable) || !errors.Is(err, errDown) || d.Verdict != "" || d.StoreErr != nil {
					t.Errorf("cancel of %s: decision %+v, error %v", key, d, err)
				}
				w.store.take()
			}
			if len(w.alarms) > 0 {
				t.Errorf("alarms %q", w.alarms)
			}
		})
	}
}

// A claim that is there but cannot be read for want of keys is not unknown.
func TestKeysAreNeededForClaims(t *testing.T) {
	t.Parallel()
	for _, policy := range []ownership.UnknownRequests{ownership.ForwardUnknown, ownership.RefuseUnknown} {
		w := newWorld(t, func(c *ownership.Config) { c.Unknown = policy })
		w.claimed(ownership.Login, plain, application, device, "primary")
		w.restart(withoutKeys)
		for call, do := range map[string]func() (ownership.Decision, error){
			"retrieve": func() (ownership.Decision, error) { return w.Retrieving(t.Context(), ownership.Login, plain) },
			"complete": func() (ownership.Decision, error) { return w.Completing(t.Context(), ownership.Login, plain) },
			"cancel":   func() (ownership.Decision, error) { return w.Cancelling(t.Context(), ownership.Login, plain, mine) },
			"cancel wrapped": func() (ownership.Decision, error) {
				return w.Cancelling(t.Context(), ownership.Login, form.Key(wrapped), mine)
			},
		} {
			d, err := do()
			if !errors.Is(err, ownership.ErrUnavailable) || !errors.Is(err, errDown) || d.Verdict != "" || d.StoreErr != nil {
				t.Errorf("%s, %s: decision %+v, error %v", policy, call, d, err)
			}
		}
		if len(w.alarms) > 0 {
			t.Errorf("alarms %q", w.alarms)
		}
	}
}

// Without keys, what the store does not know stays unknown: nothing has to be
// opened.
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
	for call, do := range map[string]func() (ownership.Decision, error){
		"retrieve":       func() (ownership.Decision, error) { return w.Retrieving(ctx, ownership.Login, plain) },
		"complete":       func() (ownership.Decision, error) { return w.Completing(ctx, ownership.Login, plain) },
		"cancel":         func() (ownership.Decision, error) { return w.Cancelling(ctx, ownership.Login, plain, mine) },
		"cancel wrapped": func() (ownership.Decision, error) { return w.Cancelling(ctx, ownership.Login, form.Key(wrapped), mine) },
	} {
		d, err := do()
		if !errors.Is(err, context.Canceled) || !errors.Is(err, ownership.ErrUnavailable) || d.Verdict != "" || d.StoreErr != nil {
			t.Errorf("%s: decision %+v, error %v", call, d, err)
		}
	}
}

// Claims and releases happen after the server's success, which a caller who hangs
// up does not undo.
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

// A store that hangs holds nobody for long.
func TestBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.claimed(ownership.Login, plain, application, device, "primary")
		d, err := w.Completing(t.Context(), ownership.Login, plain)
		if err != nil {
			t.Fatal(err)
		}
		w.store.fail["Claim"], w.store.fail["Release"] = hang, hang
		start := time.Now()
		if _, err := w.RecordOwner(t.Context(), ownership.Login, "1", ownership.Owner{Application: "a", SerialNumber: "s", Instance: "i"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("claim: error %v", err)
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("claim took %v", d)
		}
		start = time.Now()
		if err := w.Release(t.Context(), d); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ownership.ErrUnavailable) {
			t.Errorf("release: error %v", err)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("release took %v", d)
		}
	})
}

// The first one wins, whoever it is, and only once.
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
		if calls := w.store.take(); !slices.Equal(calls, []string{"Claim"}) {
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
			w.store.fail["Claim"] = func(context.Context) error { return once(&n) }
		}, true, false, 2},
		{"answer lost", func(w *world) {
			n := 0
			w.store.lose["Claim"] = func() error { return once(&n) }
		}, true, false, 2},
		{"answer lost and another's", func(w *world) {
			w.claimed(ownership.Login, plain, "other-app", device, "primary")
			n := 0
			w.store.lose["Claim"] = func() error { return once(&n) }
		}, false, false, 2},
		{"down", func(w *world) { w.store.fail["Claim"] = down }, false, true, 2},
		{"every answer lost", func(w *world) { w.store.lose["Claim"] = func() error { return errDown } }, false, true, 2},
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
			if n := len(w.store.take()); n != tt.calls {
				t.Errorf("%d store calls, want %d", n, tt.calls)
			}
		})
	}
}

// What cannot be sealed is not claimed, and the error names no value.
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
			if calls := w.store.take(); calls != nil {
				t.Errorf("store calls %v", calls)
			}
		})
	}
}

func TestReleaseFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Login, plain, application, device, "primary")
	d, err := w.Completing(t.Context(), ownership.Login, plain)
	w.is(d, err, "Owner", ownership.Forward, true, "primary")
	w.store.fail["Release"] = down
	if err := w.Release(t.Context(), d); !errors.Is(err, ownership.ErrUnavailable) || !errors.Is(err, errDown) {
		t.Errorf("error %v", err)
	}
	if err := w.Release(t.Context(), ownership.Decision{}); err != nil {
		t.Errorf("nothing to release: error %v", err)
	}
}

// Claims last as long as they are told, five minutes if nothing is said.
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

// What a store holds says neither who the owner is nor where the request is, and
// no two claims look alike.
func TestClaimsAreSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Login, "1", application, device, "primary")
	w.claimed(ownership.Login, "2", application, device, "primary")
	first, second := w.store.claims["login1"], w.store.claims["login2"]
	for _, clear := range []string{application, device, "primary"} {
		if bytes.Contains(first.Owner, []byte(clear)) {
			t.Errorf("%q lies open", clear)
		}
	}
	if first.Token == second.Token || first.Token == (ownership.Token{}) || bytes.Equal(first.Owner, second.Owner) {
		t.Error("claims repeat themselves")
	}
	// The label is part of the format: nodes of several versions share a store.
	label := seal.Label{Kind: "ownership", Identifier: "login/1", Generation: first.Token}
	if got, err := ring(t, 1).Open(label, first.Owner); err != nil || string(got) != "\x01\x08bank-app\x0cVDS1000000-1\x07primary" {
		t.Errorf("sealed is %q, error %v", got, err)
	}
}

// A claim that does not open where it lies is an alarm and no decision, never an
// unknown request; neither log nor alarm nor error show the key.
func TestUnopened(t *testing.T) {
	t.Parallel()
	sealed := func(t *testing.T, e *stored, plaintext string) []byte {
		t.Helper()
		b, err := ring(t, 1).Seal(seal.Label{Kind: "ownership", Identifier: "login/" + plain, Generation: e.Token}, []byte(plaintext))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, spoil := range map[string]func(t *testing.T, w *world, e *stored){
		"altered":     func(_ *testing.T, _ *world, e *stored) { e.Owner[len(e.Owner)-1] ^= 1 },
		"empty":       func(_ *testing.T, _ *world, e *stored) { e.Owner = nil },
		"cut short":   func(_ *testing.T, _ *world, e *stored) { e.Owner = e.Owner[:20] },
		"other token": func(_ *testing.T, _ *world, e *stored) { e.Token[0] ^= 1 },
		"other request": func(_ *testing.T, w *world, e *stored) {
			e.Token, e.Owner = w.store.claims["login2"].Token, w.store.claims["login2"].Owner
		},
		"other kind": func(_ *testing.T, w *world, e *stored) {
			e.Token, e.Owner = w.store.claims["signature"+plain].Token, w.store.claims["signature"+plain].Owner
		},
		"other encoding": func(t *testing.T, _ *world, e *stored) { t.Helper(); e.Owner = sealed(t, e, "\x02\x01a\x01b\x01c") },
		"no encoding":    func(t *testing.T, _ *world, e *stored) { t.Helper(); e.Owner = sealed(t, e, "") },
		"key removed":    func(t *testing.T, w *world, _ *stored) { t.Helper(); w.config.Open = opens(t, w.store, 2) },
	} {
		for _, policy := range []ownership.UnknownRequests{ownership.ForwardUnknown, ownership.RefuseUnknown} {
			t.Run(fmt.Sprintf("%s %s", name, policy), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, func(c *ownership.Config) { c.Unknown = policy })
				w.claimed(ownership.Login, plain, application, device, "primary")
				w.claimed(ownership.Signature, plain, application, device, "primary")
				w.claimed(ownership.Login, "2", application, "VDS1000000-2", "primary")
				w.store.peek(ownership.Login, plain, func(e *stored) { spoil(t, w, e) })
				w.restart()
				check := func(call string, d ownership.Decision, err error) {
					t.Helper()
					if !errors.Is(err, ownership.ErrUnavailable) || !errors.Is(err, seal.ErrUnopened) || d.Verdict != "" || d.StoreErr != nil {
						t.Errorf("%s: decision %+v, error %v", call, d, err)
						return
					}
					if !slices.Equal(w.alarms, []string{"record_unopened login"}) {
						t.Errorf("%s: alarms %q", call, w.alarms)
					}
					w.alarms = nil
					if log := w.log.String(); !strings.Contains(log, "cannot be opened") || strings.Contains(log+err.Error(), plain) {
						t.Errorf("%s: log %q, error %q", call, log, err)
					}
					w.log.Reset()
				}
				d, err := w.Retrieving(t.Context(), ownership.Login, plain)
				check("retrieve", d, err)
				d, err = w.Completing(t.Context(), ownership.Login, plain)
				check("complete", d, err)
				for _, key := range []string{plain, wrapped} {
					d, err = w.Cancelling(t.Context(), ownership.Login, form.Key(key), mine)
					check("cancel", d, err)
				}
			})
		}
	}
}

// A claim cannot be moved to another device's list, nor can the store present the
// claim to one request as that to another.
func TestMovedClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Login, plain, application, "VDS1000000-2", "primary")
	w.store.peek(ownership.Login, plain, func(e *stored) { e.serialNumber = device })
	if d, err := w.Cancelling(t.Context(), ownership.Login, form.Key(wrapped), mine); !errors.Is(err, seal.ErrUnopened) {
		t.Errorf("listed for another device: decision %+v, error %v", d, err)
	}
	w.store.peek(ownership.Login, plain, func(e *stored) { w.store.claims["login1"] = e })
	if d, err := w.Completing(t.Context(), ownership.Login, "1"); !errors.Is(err, seal.ErrUnopened) {
		t.Errorf("presented for another request: decision %+v, error %v", d, err)
	}
	if len(w.alarms) != 2 {
		t.Errorf("alarms %q", w.alarms)
	}
}

// Sealing keys rotate in three steps, under pending requests.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.claimed(ownership.Login, "1", application, device, "primary")
	for _, keys := range [][]byte{{1, 2}, {2, 1}} {
		w.restart(func(c *ownership.Config) { c.Open = opens(t, w.store, keys...) })
		d, err := w.Completing(t.Context(), ownership.Login, "1")
		w.is(d, err, "Owner", ownership.Forward, true, "primary")
	}
	w.claimed(ownership.Login, "2", application, device, "primary")
	w.restart(func(c *ownership.Config) { c.Open = opens(t, w.store, 2) })
	d, err := w.Completing(t.Context(), ownership.Login, "2")
	w.is(d, err, "Owner", ownership.Forward, true, "primary")
	if _, err := w.Completing(t.Context(), ownership.Login, "1"); !errors.Is(err, seal.ErrUnopened) {
		t.Errorf("error %v", err)
	}
}

// Whoever claims a request gets exactly it back, and nobody else can cancel it.
func TestSealingRoundTrip(t *testing.T) {
	t.Parallel()
	name := rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 1, 255).Draw(t, "name")) })
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		kind := rapid.SampledFrom(kinds).Draw(rt, "kind")
		key := rapid.StringMatching(`[0-9A-Za-z]{1,31}`).Draw(rt, "key")
		o := ownership.Owner{
			Application: name.Draw(rt, "application"), SerialNumber: name.Draw(rt, "serial number"), Instance: name.Draw(rt, "instance"),
		}
		w.claimed(kind, key, o.Application, o.SerialNumber, o.Instance)
		c := ownership.Caller{Application: o.Application, SerialNumber: o.SerialNumber}
		for _, k := range []string{key, wrapped} {
			d, err := w.Cancelling(rt.Context(), kind, form.Key(k), c)
			if err != nil || d.Verdict != ownership.Forward || !slices.Equal(d.Instances, []string{o.Instance}) {
				rt.Fatalf("by the owner: %+v, error %v", d, err)
			}
		}
		other := ownership.Caller{Application: name.Draw(rt, "other application"), SerialNumber: name.Draw(rt, "other serial number")}
		d, err := w.Cancelling(rt.Context(), kind, form.Key(key), other)
		if want := other == c; err != nil || (d.Verdict == ownership.Forward) != want {
			rt.Fatalf("by another: %+v, error %v", d, err)
		}
	})
}

// Many phones race for one request: one gets it, whatever the others saw before.
func TestRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var winners atomic.Int32
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			d, err := w.Retrieving(t.Context(), ownership.Login, plain)
			if err != nil || d.Verdict != ownership.Forward {
				if err != nil || d.Verdict != ownership.AlreadyOwned {
					t.Errorf("decision %+v, error %v", d, err)
				}
				return
			}
			won, err := w.RecordOwner(t.Context(), ownership.Login, plain, ownership.Owner{
				Application: application, SerialNumber: fmt.Sprintf("VDS1000000-%d", i), Instance: "primary",
			})
			if err != nil {
				t.Error(err)
			}
			if won {
				winners.Add(1)
			}
		})
	}
	wg.Wait()
	if n := winners.Load(); n != 1 {
		t.Fatalf("%d winners", n)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	open := opens(t, newMemory(), 1)
	for _, tt := range []struct {
		name   string
		config ownership.Config
		want   string
	}{
		{"no store", ownership.Config{}, "no store"},
		{"negative lifetime", ownership.Config{Open: open, Lifetime: -1}, "lifetime: must be from 1s to 24h"},
		{"unknown policy", ownership.Config{Open: open, Unknown: "drop"}, `unknown: must be "forward" or "refuse"`},
		{"unknown policy for plain keys", ownership.Config{Open: open, PlainCancel: "drop"}, `plain_cancel: must be "forward" or "refuse"`},
		{"least", ownership.Config{Open: open}, ""},
	} {
		s, err := ownership.New(tt.config)
		if tt.want == "" {
			if err != nil || s == nil {
				t.Errorf("%s: error %v", tt.name, err)
			}
			continue
		}
		if err == nil || s != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

// Without logger and alarm, nothing is missing.
func TestNoLoggerNoAlarm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *ownership.Config) { c.Logger, c.Alarm = nil, nil })
	w.claimed(ownership.Login, plain, application, device, "primary")
	w.store.peek(ownership.Login, plain, func(e *stored) { e.Owner = nil })
	if _, err := w.Retrieving(t.Context(), ownership.Login, plain); !errors.Is(err, seal.ErrUnopened) {
		t.Errorf("error %v", err)
	}
}

// BenchmarkDecision measures a decision with a store that costs nothing: reading
// the owner is most of it.
func BenchmarkDecision(b *testing.B) {
	w := newWorld(b)
	w.claimed(ownership.Login, plain, application, device, "primary")
	for name, decide := range map[string]func() (ownership.Decision, error){
		"complete": func() (ownership.Decision, error) { return w.Completing(b.Context(), ownership.Login, plain) },
		"cancel":   func() (ownership.Decision, error) { return w.Cancelling(b.Context(), ownership.Login, plain, mine) },
		"cancel wrapped": func() (ownership.Decision, error) {
			return w.Cancelling(b.Context(), ownership.Login, form.Key(wrapped), mine)
		},
		"unknown": func() (ownership.Decision, error) { return w.Retrieving(b.Context(), ownership.Login, "0000000000") },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d, err := decide(); err != nil || d.Verdict != ownership.Forward {
					b.Fatalf("decision %+v, error %v", d, err)
				}
			}
			w.store.take()
		})
	}
}
