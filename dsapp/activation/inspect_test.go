package activation_test

import (
	"errors"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// An operator sees the subject and the counters of a registration and no sealed value. After
// Burn, a phone with the right password is refused like any other, and the identifier stays
// taken.
func TestInspectAndBurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.register(w.mdl("e3wfISG9"))
	proof, err := w.begin(r.Identifier, "wrong password").prove()
	refused(t, proof, err)
	got, err := w.Inspect(t.Context(), r.Identifier)
	if err != nil {
		t.Fatal(err)
	}
	if got.Kind != activation.KindMDL || got.Instance == "" || got.UserID == "" || got.Attempts != 1 || got.MaxAttempts != w.maxAttempts || got.Burned {
		t.Errorf("inspected %+v", got)
	}
	if got.Facts != nil || got.Verifier != nil || got.Data != nil {
		t.Error("a sealed value was returned")
	}
	begun := w.begin(r.Identifier, r.Password)
	burned, err := w.Burn(t.Context(), r.Identifier)
	if err != nil || burned.Identifier != r.Identifier || burned.UserID != got.UserID || burned.Instance != got.Instance {
		t.Fatalf("burned %+v, error %v", burned, err)
	}
	proof, err = begun.prove()
	refused(t, proof, err)
	proof, err = w.begin(r.Identifier, r.Password).prove()
	refused(t, proof, err)
	if got, err := w.Inspect(t.Context(), r.Identifier); err != nil || !got.Burned {
		t.Errorf("inspected %+v, error %v", got, err)
	}
}

// Nobody registered an identifier that only has simulated state, and one that is unknown.
func TestInspectUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	proof, err := w.begin("simulated-id", "a password").prove()
	refused(t, proof, err)
	for _, id := range []form.Identifier{"simulated-id", "unknown-id"} {
		if _, err := w.Inspect(t.Context(), id); !errors.Is(err, activation.ErrUnknown) {
			t.Errorf("inspect of %s: error %v", id, err)
		}
		if _, err := w.Burn(t.Context(), id); !errors.Is(err, activation.ErrUnknown) {
			t.Errorf("burn of %s: error %v", id, err)
		}
	}
	w.store.Fail("Inspect", errors.New("down"))
	w.store.Fail("Burn", errors.New("down"))
	if _, err := w.Inspect(t.Context(), "unknown-id"); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("inspect without the store: error %v", err)
	}
	if _, err := w.Burn(t.Context(), "unknown-id"); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("burn without the store: error %v", err)
	}
}
