package ownership_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
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

// calls are the calls that need a decision: those about one request and the one about
// any request of a device. asks is the store's method that each makes use of.
var calls = map[string]struct {
	asks string
	do   func(ctx context.Context, s *ownership.Service, kind ownership.Kind, c ownership.Caller) (ownership.Decision, error)
}{
	"retrieve": {"Owner", func(ctx context.Context, s *ownership.Service, kind ownership.Kind, _ ownership.Caller) (ownership.Decision, error) {
		return s.Retrieving(ctx, kind, plain)
	}},
	"complete": {"Owner", func(ctx context.Context, s *ownership.Service, kind ownership.Kind, _ ownership.Caller) (ownership.Decision, error) {
		return s.Completing(ctx, kind, plain)
	}},
	"cancel": {"Owner", func(ctx context.Context, s *ownership.Service, kind ownership.Kind, c ownership.Caller) (ownership.Decision, error) {
		return s.Cancelling(ctx, kind, plain, c)
	}},
	"cancel wrapped": {"Pending", func(ctx context.Context, s *ownership.Service, kind ownership.Kind, c ownership.Caller) (ownership.Decision, error) {
		return s.Cancelling(ctx, kind, form.Key(wrapped), c)
	}},
}

// world is a Service over a store in memory.
type world struct {
	*ownership.Service

	t      testing.TB
	store  *storetest.Memory
	log    bytes.Buffer
	mu     sync.Mutex
	alarms []string
	config ownership.Config
}

// change changes the claim to a request in the store.
func (w *world) change(kind ownership.Kind, key string, f func(*storetest.Owner)) {
	w.store.Do(func(m *storetest.Model) { f(m.Owners[storetest.Request{Kind: kind, Key: key}]) })
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
	w := &world{t: t, store: storetest.NewMemory(time.Now)}
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

// claimed stores an owner, which must succeed.
func (w *world) claimed(kind ownership.Kind, key, application, serialNumber, instance string) {
	w.t.Helper()
	o := ownership.Owner{Application: application, SerialNumber: serialNumber, Instance: instance}
	if won, err := w.RecordOwner(w.t.Context(), kind, form.PlainKey(key), o); err != nil || !won {
		w.t.Fatalf("claim: %v, error %v", won, err)
	}
	w.store.TakeCalls()
}

// is fails unless d is the wanted decision and the store was called once, with the method
// asked.
func (w *world) is(d ownership.Decision, err error, asked string, want ownership.Verdict, known bool, instances ...string) {
	w.t.Helper()
	if err != nil || d.Verdict != want || d.Known != known || !slices.Equal(d.Instances, instances) || d.StoreErr != nil {
		w.t.Errorf("decision %+v, error %v; want %s, known %v, to %v", d, err, want, known, instances)
	}
	if calls := w.store.TakeCalls(); !slices.Equal(calls, []string{asked}) {
		w.t.Errorf("store calls %v, want %s", calls, asked)
	}
}

// released fails unless Release of d calls the store as expected and these keys have
// owners afterwards.
func (w *world) released(d ownership.Decision, calls bool, left ...string) {
	w.t.Helper()
	if err := w.Release(w.t.Context(), d); err != nil {
		w.t.Errorf("release: %v", err)
	}
	if n := len(w.store.TakeCalls()); n > 1 || (n == 1) != calls {
		w.t.Errorf("release made %d store calls, any expected: %v", n, calls)
	}
	var keys []string
	w.store.Do(func(m *storetest.Model) {
		for r := range m.Owners {
			keys = append(keys, r.Key)
		}
	})
	slices.Sort(keys)
	if !slices.Equal(keys, left) {
		w.t.Errorf("claimed afterwards: %v, want %v", keys, left)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	open := opens(t, storetest.NewMemory(time.Now), 1)
	for _, tt := range []struct {
		name   string
		config ownership.Config
		want   string
	}{
		{"no store", ownership.Config{}, "no store"},
		{"negative lifetime", ownership.Config{Open: open, Lifetime: -1}, "lifetime: must be from 1s to 24h"},
		{"short lifetime", ownership.Config{Open: open, Lifetime: time.Second - 1}, "lifetime: must be from 1s to 24h"},
		{"shortest lifetime", ownership.Config{Open: open, Lifetime: time.Second}, ""},
		{"longest lifetime", ownership.Config{Open: open, Lifetime: 24 * time.Hour}, ""},
		{"long lifetime", ownership.Config{Open: open, Lifetime: 24*time.Hour + 1}, "lifetime: must be from 1s to 24h"},
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

// Logger and Alarm are optional.
func TestNoLoggerNoAlarm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *ownership.Config) { c.Logger, c.Alarm = nil, nil })
	w.claimed(ownership.Login, plain, application, device, "primary")
	w.change(ownership.Login, plain, func(o *storetest.Owner) { o.Owner = nil })
	if _, err := w.Retrieving(t.Context(), ownership.Login, plain); !errors.Is(err, seal.ErrUnopened) {
		t.Errorf("error %v", err)
	}
}

// BenchmarkDecision measures a decision with a store in memory: opening the sealed owner
// is most of it.
func BenchmarkDecision(b *testing.B) {
	w := newWorld(b)
	w.claimed(ownership.Login, plain, application, device, "primary")
	for name, call := range calls {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d, err := call.do(b.Context(), w.Service, ownership.Login, mine); err != nil || !d.Known {
					b.Fatalf("decision %+v, error %v", d, err)
				}
			}
			w.store.TakeCalls()
		})
	}
}
