package repeat_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

const (
	lifetime = time.Minute
	timeout  = 30 * time.Second
)

var request = repeat.Request{Application: "app", Operation: "retrieve_login", Place: "1234567890", Members: []string{"VDS1000000-1"}}

// world is a Service on a store in memory.
type world struct {
	*repeat.Service

	store  *storetest.Memory
	alarms []seal.Alarm
}

func keyring(t *testing.T, first byte) *seal.Keyring {
	t.Helper()
	key := bytes.Repeat([]byte{first}, 32)
	key[0]++
	ring, err := seal.NewKeyring(key)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func newWorld(t *testing.T, store *storetest.Memory, ring *seal.Keyring, openErr error) *world {
	t.Helper()
	w := &world{store: store}
	var err error
	w.Service, err = repeat.New(repeat.Config{
		Open:     func(context.Context) (repeat.Store, *seal.Keyring, error) { return store, ring, openErr },
		Lifetime: lifetime, Timeout: timeout,
		Alarm: func(_ context.Context, a seal.Alarm) { w.alarms = append(w.alarms, a) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// marked begins a call that must be the first one.
func (w *world) marked(t *testing.T, r repeat.Request) *repeat.Call {
	t.Helper()
	c := w.Begin(t.Context(), r)
	c.Mark(t.Context())
	if !c.Marked() || c.Found() {
		t.Fatal("the call is not the first one")
	}
	return c
}

// found begins a call that must have come before.
func (w *world) found(t *testing.T, r repeat.Request) *repeat.Call {
	t.Helper()
	c := w.Begin(t.Context(), r)
	c.Mark(t.Context())
	if c.Marked() || !c.Found() {
		t.Fatal("the call did not come before")
	}
	return c
}

// A kept outcome is what every repeat gets until its lifetime ends, and nothing that is stored
// shows it.
func TestOutcomeIsKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, storetest.NewMemory(time.Now), keyring(t, 1), nil)
		if err := w.marked(t, request).Keep(t.Context(), []byte("a secret answer")); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			c := w.found(t, request)
			if got, err := c.Await(t.Context(), c.Deadline()); err != nil || string(got) != "a secret answer" {
				t.Fatalf("%q, error %v", got, err)
			}
		}
		if bytes.Contains(w.store.Given(), []byte("secret")) {
			t.Error("the answer is stored in plain")
		}
		time.Sleep(lifetime)
		w.marked(t, request)
	})
}

// A call that differs in anything is another call.
func TestOtherCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.NewMemory(time.Now), keyring(t, 1), nil)
	w.marked(t, request)
	for _, change := range []func(r *repeat.Request){
		func(r *repeat.Request) { r.Application = "other" },
		func(r *repeat.Request) { r.Operation = "retrieve_signature" },
		func(r *repeat.Request) { r.Place = "1234567891" },
		func(r *repeat.Request) { r.Members = []string{"VDS1000000-2"} },
		func(r *repeat.Request) { r.Members = []string{"VDS1000000", "-1"} },
		func(r *repeat.Request) { r.Members = nil; r.Place += "VDS1000000-1" },
	} {
		r := request
		change(&r)
		w.marked(t, r)
	}
	w.found(t, request)
}

// A twin waits for the outcome of the call under way, begins anew if that one fails, and gives
// up in time if it has no end.
func TestTwins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, storetest.NewMemory(time.Now), keyring(t, 1), nil)
		first := w.marked(t, request)
		twin := w.found(t, request)
		go func() {
			time.Sleep(10 * time.Second)
			_ = first.Keep(context.Background(), []byte("answer"))
		}()
		began := time.Now()
		if got, err := twin.Await(t.Context(), twin.Deadline()); err != nil || string(got) != "answer" || time.Since(began) > 11*time.Second {
			t.Errorf("%q after %v, error %v", got, time.Since(began), err)
		}

		other := request
		other.Application = "other"
		first, twin = w.marked(t, other), w.found(t, other)
		if err := first.Forget(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := twin.Await(t.Context(), twin.Deadline()); err != nil || got != nil {
			t.Errorf("%q, error %v", got, err)
		}

		w.marked(t, other)
		twin, began = w.found(t, other), time.Now()
		if _, err := twin.Await(t.Context(), twin.Deadline()); !errors.Is(err, repeat.ErrTimeout) || time.Since(began) > timeout+time.Second {
			t.Errorf("error %v after %v", err, time.Since(began))
		}
		// The mark of a call whose node died ends by itself.
		time.Sleep(6 * time.Second)
		w.marked(t, other)
	})
}

// A client that leaves ends its waiting.
func TestWaitingEndsWithTheClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.NewMemory(time.Now), keyring(t, 1), nil)
	w.marked(t, request)
	ctx, cancel := context.WithCancel(t.Context())
	twin := w.found(t, request)
	cancel()
	if _, err := twin.Await(ctx, twin.Deadline()); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// An outcome under another key, or moved to another call, is not opened and raises the alarm.
func TestUnreadableOutcome(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.NewMemory(time.Now), keyring(t, 1), nil)
	c := w.marked(t, request)
	if err := c.Keep(t.Context(), []byte("answer")); err != nil {
		t.Fatal(err)
	}
	other := request
	other.Place = "1"
	moved := w.marked(t, other)
	if err := w.store.Keep(t.Context(), moved.MarkOf(), w.keptOf(t, c)); err != nil {
		t.Fatal(err)
	}
	twin := w.found(t, other)
	if _, err := twin.Await(t.Context(), twin.Deadline()); !errors.Is(err, repeat.ErrUnreadable) {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(w.alarms, []seal.Alarm{{Event: seal.EventUnopened}}) {
		t.Errorf("alarms %v", w.alarms)
	}
	// With another key, even the digest is another.
	newWorld(t, w.store, keyring(t, 2), nil).marked(t, request)
}

func (w *world) keptOf(t *testing.T, c *repeat.Call) []byte {
	t.Helper()
	m := c.MarkOf()
	e, found, err := w.store.Kept(t.Context(), m.Place, m.Digest)
	if err != nil || !found {
		t.Fatalf("found %v, error %v", found, err)
	}
	return e.Outcome
}

// Without store or keys, and if it is switched off, a call is like one without repeats.
func TestWithoutRepeats(t *testing.T) {
	t.Parallel()
	if newWorld(t, nil, nil, errors.New("down")).Begin(t.Context(), request) != nil {
		t.Error("a call without a store")
	}
	s, err := repeat.New(repeat.Config{Open: func(context.Context) (repeat.Store, *seal.Keyring, error) {
		t.Error("opened")
		return nil, nil, nil
	}})
	if err != nil || s.Begin(t.Context(), request) != nil {
		t.Errorf("a call although it is switched off, error %v", err)
	}
	w := newWorld(t, storetest.NewMemory(time.Now), keyring(t, 1), nil)
	w.store.Fail("Mark", errors.New("down"))
	c := w.Begin(t.Context(), request)
	c.Mark(t.Context())
	if c.Found() || c.Marked() {
		t.Error("marked although the store failed")
	}
}

// The look-up of a call marks it in the same call of the store, later ones do not. If it fails,
// the owner is looked up alone.
func TestLookUpsMark(t *testing.T) {
	t.Parallel()
	w := newWorld(t, storetest.NewMemory(time.Now), keyring(t, 1), nil)
	calls := func(c *repeat.Call) []string {
		t.Helper()
		ctx := c.Into(t.Context())
		owners, activations := repeat.Ownership(ctx, w.store), repeat.Activation(ctx, w.store)
		for range 2 {
			if _, _, err := owners.Owner(ctx, ownership.Login, "1"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := owners.Pending(ctx, ownership.Login, "1"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := activations.AdmitDevice(ctx, "id-1", 3); err != nil {
			t.Fatal(err)
		}
		if _, _, err := activations.AdmitConfirmation(ctx, "id-1", 3, activation.KindMDL); err != nil {
			t.Fatal(err)
		}
		return w.store.TakeCalls()
	}
	rest := []string{"Owner", "Pending", "AdmitDevice", "AdmitConfirmation"}
	c := w.Begin(t.Context(), request)
	if got := calls(c); !slices.Equal(got, append([]string{"MarkOwner"}, rest...)) || !c.Marked() {
		t.Errorf("calls %v", got)
	}
	c = w.Begin(t.Context(), request)
	if calls(c); !c.Found() {
		t.Error("the repeat was not found")
	}
	w.store.Fail("MarkOwner", errors.New("no memory"))
	c = w.Begin(t.Context(), request)
	if got := calls(c); !slices.Equal(got, append([]string{"MarkOwner", "Owner"}, rest...)) || c.Marked() || c.Found() {
		t.Errorf("calls %v", got)
	}
}

// A lifetime that is out of bounds names the option.
func TestLifetime(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{-1, time.Millisecond, time.Hour} {
		_, err := repeat.New(repeat.Config{Open: func(context.Context) (repeat.Store, *seal.Keyring, error) { return nil, nil, nil }, Lifetime: d})
		if wrong, ok := errors.AsType[*option.Error](err); !ok || wrong.Name != "repeat" {
			t.Errorf("%v: error %v", d, err)
		}
	}
}
