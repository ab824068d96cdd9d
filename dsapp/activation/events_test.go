package activation_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// Each call of an exchange is told once, with its outcome.
func TestStepEvents(t *testing.T) {
	t.Parallel()
	var got []activation.StepOutcome
	w := newWorld(t, func(c *activation.Config) {
		c.MaxAttempts = 2
		c.Observe = func(_ context.Context, e activation.StepEvent) {
			if e.Start.IsZero() || e.Duration < 0 || (e.Step == activation.StepEphemeralKey) != (e.Outcome == activation.StepAnswered) {
				t.Errorf("told %+v", e)
			}
			got = append(got, e.Outcome)
		}
	})
	wrong := form.ClientEvidence(strings.Repeat("0", 64))
	r := w.register(w.mdl("e3wfISG9"))
	if _, err := w.begin(r.Identifier, r.Password).prove(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.begin(r.Identifier, r.Password)
		_, _ = w.Prove(t.Context(), r.Identifier, wrong, home)
	}
	_, _ = w.Prove(t.Context(), r.Identifier, "x", home)
	w.store.Fail("Take", errors.New("connection refused"))
	_, _ = w.Prove(t.Context(), r.Identifier, wrong, home)
	if want := []activation.StepOutcome{"answered", "proven", "answered", "refused", "answered", "burned", "invalid", "unavailable"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	if computing, waiting := w.Load(); computing != 0 || waiting != 0 {
		t.Errorf("%d computing, %d waiting", computing, waiting)
	}
}

// A store tells what came of each call.
func TestStoreObserver(t *testing.T) {
	t.Parallel()
	gone, leave := context.WithCancel(t.Context())
	leave()
	yes, no := true, false
	for _, test := range []struct {
		ctx  context.Context
		done *bool
		err  error
		want activation.StoreOutcome
	}{
		{t.Context(), nil, nil, activation.StoreOK},
		{t.Context(), &yes, nil, activation.StoreOK},
		{t.Context(), &no, nil, activation.StoreRefused},
		{t.Context(), &no, activation.ErrUnavailable, activation.StoreUnavailable},
		{gone, &no, activation.ErrUnavailable, activation.StoreAbandoned},
		{t.Context(), nil, activation.ErrDamaged, activation.StoreError},
	} {
		var got []activation.StoreCall
		observer := activation.StoreObserver(func(_ context.Context, c activation.StoreCall) { got = append(got, c) })
		observer.Begin(test.ctx, "take").End(test.done, &test.err)
		if len(got) != 1 || got[0].Call != "take" || got[0].Outcome != test.want || got[0].Start.IsZero() {
			t.Errorf("told %+v, want %q", got, test.want)
		}
	}
}
