package embedded_test

import (
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
)

// Take and Settle write one transaction whatever their outcome, also beyond MaxSimulated, so that
// their duration does not tell the outcome.
func TestProofsAlwaysWrite(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{MaxSimulated: 1})
	r, burned := record("real", 1), record("burned", 2)
	create(t, s, r)
	create(t, s, burned)
	for i := range 3 {
		prove(t, s, burned, byte(i), false)
	}
	put := func(identifier string, h activation.Handshake) {
		t.Helper()
		h.State, h.Lifetime = []byte("state"), time.Minute
		if _, err := s.PutHandshake(t.Context(), identifier, h); err != nil {
			t.Fatal(err)
		}
	}
	put("real", activation.Handshake{Generation: r.Generation})
	put("burned", activation.Handshake{Generation: burned.Generation})
	unknown := activation.Handshake{Generation: activation.Generation{9}, Simulated: true, RecordLifetime: time.Minute}
	put("capped", unknown)
	put("unknown", unknown) // removes that of capped

	writes := func(name string, call func() (bool, error), want bool) {
		t.Helper()
		before := transactions(t, s)
		if ok, err := call(); err != nil || ok != want {
			t.Errorf("%s: %v, error %v", name, ok, err)
		}
		if n := transactions(t, s) - before; n != 1 {
			t.Errorf("%s: %d transactions were written", name, n)
		}
	}
	take := func(identifier string) func() (bool, error) {
		return func() (bool, error) {
			_, ok, err := s.Take(t.Context(), identifier, activation.Token{7}, activation.Tag{}, 3)
			return ok, err
		}
	}
	settle := func(identifier string, g activation.Generation, token byte) func() (bool, error) {
		return func() (bool, error) {
			_, ok, err := s.Settle(t.Context(), identifier, activation.Settlement{
				Generation: g, Token: activation.Token{token}, Proven: true, MaxAttempts: 3, MaxActivations: 3,
			})
			return ok, err
		}
	}
	writes("take at the cap", take("capped"), false)
	writes("take without a handshake", take("nobody"), false)
	writes("take of an unknown one", take("unknown"), true)
	writes("take", take("real"), true)
	writes("take again", take("real"), false)
	writes("take of a burned one", take("burned"), false)
	put("capped", unknown)
	writes("take that drops another one's record", take("capped"), true)
	writes("settle of what was dropped", settle("unknown", unknown.Generation, 7), false)
	writes("settle of an unknown one", settle("capped", unknown.Generation, 7), false)
	writes("settle of nothing", settle("nobody", activation.Generation{}, 0), false)
	writes("settle of nothing of a registration", settle("real", activation.Generation{}, 0), false)
	writes("settle of no proof in flight", settle("real", r.Generation, 8), false)
	writes("settle", settle("real", r.Generation, 7), true)
	writes("settle again", settle("real", r.Generation, 7), true)
}

// transactions returns the number of transactions that were written to the file.
func transactions(t *testing.T, s *embedded.Store) int {
	t.Helper()
	tx, err := s.DB().Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	return tx.ID()
}
