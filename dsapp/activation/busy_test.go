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

// One exchange may compute and sixteen may wait. The next one fails at once without using
// up anything, and all others are served.
func TestBusy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.MaxExchanges, c.MaxAttempts = 1, 1 })
	r := w.register(w.mdl("e3wfISG9"))
	p := w.begin(r.Identifier, r.Password)

	entered, release := make(chan struct{}), make(chan struct{})
	w.store.Before("Take", hook(func() { entered <- struct{}{}; <-release }))
	results := make(chan error, 17)
	for range 17 {
		go func() {
			_, err := w.Prove(context.Background(), "unknown-id", form.ClientEvidence(strings.Repeat("0", 64)), home)
			results <- err
		}()
	}
	for range 17 {
		select {
		case <-entered:
		case err := <-results:
			t.Fatalf("turned away too early: %v", err)
		}
	}
	w.store.TakeCalls()
	if _, err := w.Begin(t.Context(), "unknown-id", "1234", home); !same(err, activation.ErrBusy) {
		t.Errorf("first call: %v", err)
	}
	if _, err := p.prove(); !same(err, activation.ErrBusy) {
		t.Errorf("second call: %v", err)
	}
	if calls := w.store.TakeCalls(); slices.Contains(calls, "Take") || slices.Contains(calls, "PutHandshake") {
		t.Errorf("the store was asked: %v", calls)
	}
	// The form of a request is judged first, so that a bad one is told so.
	var invalid *activation.InvalidError
	if _, err := w.Prove(t.Context(), r.Identifier, form.ClientEvidence(strings.Repeat("x", 64)), home); !errors.As(err, &invalid) {
		t.Errorf("got %v", err)
	}
	close(release)
	for range 17 {
		if err := <-results; !same(err, activation.ErrRefused) {
			t.Error(err)
		}
	}
	w.store.Before("Take", nil)
	if _, err := p.prove(); err != nil {
		t.Errorf("the handshake of a busy proof was used up: %v", err)
	}
}

// A failed call gives its place back.
func TestBusyEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *activation.Config) { c.MaxExchanges = 1 })
	for _, method := range []string{"Load", "Take", "PutHandshake", "Settle"} {
		w.store.Fail(method, errors.New("connection refused"))
		for range 40 {
			_, err := w.Begin(t.Context(), "unknown-id", "1234", home)
			if err == nil {
				_, err = w.Prove(t.Context(), "unknown-id", form.ClientEvidence(strings.Repeat("0", 64)), home)
			}
			if !errors.Is(err, activation.ErrUnavailable) {
				t.Fatalf("%s: %v", method, err)
			}
		}
		w.store.Fail(method, nil)
	}
}
