package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
)

func claim(key string, token byte) ownership.Claim {
	return ownership.Claim{Key: key, Token: ownership.Token{token}, Owner: []byte("owner")}
}

// claims makes a claim, which nobody else has.
func claims(t *testing.T, s *embedded.Store, c ownership.Claim, serialNumber string, lifetime time.Duration) {
	t.Helper()
	if won, err := s.Claim(t.Context(), ownership.Login, c, serialNumber, lifetime); err != nil || !won {
		t.Fatalf("claim %s: %v, error %v", c.Key, won, err)
	}
}

// holds checks how many claims the file holds, listed of them, with as many in the
// index.
func holds(t *testing.T, s *embedded.Store, want, listed int) {
	t.Helper()
	if c, e, p := count(t, s, "claims"), count(t, s, "ends"), count(t, s, "pending"); c != want || e != want || p != listed {
		t.Fatalf("file holds %d claims, %d of them to be removed, %d listed; want %d, %d listed", c, e, p, want, listed)
	}
}

// pending returns the keys that are listed for a device.
func pending(t *testing.T, s *embedded.Store, serialNumber string) []string {
	t.Helper()
	listed, err := s.Pending(t.Context(), ownership.Login, serialNumber)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, c := range listed {
		keys = append(keys, c.Key)
	}
	return keys
}

// Claims, lists and releases survive a restart, and so does the time that is left.
func TestClaimsReopen(t *testing.T) {
	t.Parallel()
	clock := newClock()
	path := temporary(t)
	func() {
		s, err := embedded.Open(path, embedded.Options{Now: clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		claims(t, s, claim("1", 1), "device-1", time.Minute)
		claims(t, s, claim("2", 2), "device-1", time.Hour)
		claims(t, s, claim("3", 3), "device-1", time.Hour)
		if err := s.Release(t.Context(), ownership.Login, "3", ownership.Token{3}, "device-1"); err != nil {
			t.Fatal(err)
		}
	}()

	s := open(t, path, embedded.Options{Now: clock.Now})
	holds(t, s, 2, 2)
	if got := pending(t, s, "device-1"); !slices.Equal(got, []string{"1", "2"}) {
		t.Fatalf("listed: %v", got)
	}
	got, found, err := s.Owner(t.Context(), ownership.Login, "1")
	if err != nil || !found || got.Token != (ownership.Token{1}) || string(got.Owner) != "owner" {
		t.Fatalf("owner: found %v, error %v", found, err)
	}
	if won, err := s.Claim(t.Context(), ownership.Login, claim("1", 9), "device-2", time.Hour); err != nil || won {
		t.Fatalf("a second claim was accepted, error %v", err)
	}
	if won, err := s.Claim(t.Context(), ownership.Login, claim("1", 1), "device-1", time.Hour); err != nil || !won {
		t.Fatalf("the claim's own repetition was refused, error %v", err)
	}
	clock.advance(time.Minute)
	if _, found, err := s.Owner(t.Context(), ownership.Login, "1"); err != nil || found {
		t.Fatalf("owner after the end: found %v, error %v", found, err)
	}
}

// The end of a claim is exact, for its owner and in the list.
func TestClaimLifetime(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := open(t, temporary(t), embedded.Options{Now: clock.Now})
	claims(t, s, claim("1", 1), "device-1", time.Minute)
	for _, step := range []struct {
		advance time.Duration
		live    bool
	}{{time.Minute - 1, true}, {1, false}} {
		clock.advance(step.advance)
		if _, found, err := s.Owner(t.Context(), ownership.Login, "1"); err != nil || found != step.live {
			t.Errorf("owner: found %v, error %v, want %v", found, err, step.live)
		}
		if n := len(pending(t, s, "device-1")); (n == 1) != step.live {
			t.Errorf("%d claims listed, live: %v", n, step.live)
		}
	}
	// Once ended, its own token does not make it the owner again without a claim.
	if err := s.Release(t.Context(), ownership.Login, "1", ownership.Token{1}, "device-1"); err != nil {
		t.Error(err)
	}
	claims(t, s, claim("1", 1), "device-1", time.Minute)
	holds(t, s, 1, 1)
}

// Ended claims go with later writes, of registrations too, a bounded number at a
// time, and all with a sweep.
func TestClaimRemoval(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := open(t, temporary(t), embedded.Options{Now: clock.Now})
	const n = 300
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c := claim(fmt.Sprintf("%03d", i), 1)
			if won, err := s.Claim(t.Context(), ownership.Login, c, fmt.Sprintf("device-%d", i%100), time.Minute); err != nil || !won {
				t.Errorf("claim: %v, error %v", won, err)
			}
		})
	}
	wg.Wait()
	claims(t, s, claim("late", 1), "device-1", time.Hour)
	holds(t, s, n+1, n+1)
	clock.advance(time.Minute)
	create(t, s, record("later", 1))
	if left := count(t, s, "claims"); left > n || left < n-100 {
		t.Fatalf("%d claims left of %d after one write", left, n+1)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	holds(t, s, 1, 1)
	entries(t, s, 1, 0)
	if got := pending(t, s, "device-1"); !slices.Equal(got, []string{"late"}) {
		t.Fatalf("listed: %v", got)
	}
}

// Nothing is left behind by releases, by claims in place of ended ones and by
// those that give way in a list.
func TestClaimsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := open(t, temporary(t), embedded.Options{Now: clock.Now})
	claims(t, s, claim("1", 1), "device-1", time.Minute)
	clock.advance(time.Minute)
	claims(t, s, claim("1", 2), "device-2", time.Hour)
	holds(t, s, 1, 1)
	if got := pending(t, s, "device-1"); got != nil {
		t.Errorf("listed for the first device: %v", got)
	}
	// The device is that of the claim, whatever the caller says.
	if err := s.Release(t.Context(), ownership.Login, "1", ownership.Token{2}, "device-9"); err != nil {
		t.Fatal(err)
	}
	holds(t, s, 0, 0)

	const n = 3 * ownership.MaxPending
	for i := range n {
		claims(t, s, claim(fmt.Sprintf("%02d", i), 1), "device-1", time.Hour+time.Duration(i))
	}
	holds(t, s, n, ownership.MaxPending)
	for i := range n {
		if err := s.Release(t.Context(), ownership.Login, fmt.Sprintf("%02d", i), ownership.Token{1}, "device-1"); err != nil {
			t.Fatal(err)
		}
	}
	holds(t, s, 0, 0)
}

// A claim that cannot be read is an error, never an unknown request; others are
// not concerned, and when its time has come it goes.
func TestCorruptClaim(t *testing.T) {
	t.Parallel()
	clock := newClock()
	s := open(t, temporary(t), embedded.Options{Now: clock.Now})
	claims(t, s, claim("1", 1), "device-1", time.Minute)
	claims(t, s, claim("2", 2), "device-2", time.Minute)
	err := s.DB().Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("claims")).Put([]byte("login/1"), []byte("not a claim"))
	})
	if err != nil {
		t.Fatal(err)
	}
	fails := func(call string, err error) {
		t.Helper()
		if !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%s: error %v", call, err)
		} else if strings.Contains(err.Error(), "not a claim") {
			t.Errorf("%s: error %v shows what lies in the file", call, err)
		}
	}
	_, found, err := s.Owner(t.Context(), ownership.Login, "1")
	fails("owner", err)
	listed, err := s.Pending(t.Context(), ownership.Login, "device-1")
	fails("pending", err)
	won, err := s.Claim(t.Context(), ownership.Login, claim("1", 3), "device-3", time.Minute)
	fails("claim", err)
	fails("release", s.Release(t.Context(), ownership.Login, "1", ownership.Token{1}, "device-1"))
	if found || listed != nil || won {
		t.Errorf("found %v, %d listed, won %v", found, len(listed), won)
	}
	if got := pending(t, s, "device-2"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("another device is concerned: %v", got)
	}
	clock.advance(time.Minute)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	holds(t, s, 0, 0)
	claims(t, s, claim("1", 3), "device-3", time.Minute)
}

// A list that cannot be read is an error of its device alone.
func TestCorruptList(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{})
	claims(t, s, claim("2", 2), "device-2", time.Minute)
	for _, rest := range []string{"", "short", "12345678"} {
		err := s.DB().Update(func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("pending")).Put([]byte("login/\x00\x08device-1"+rest), nil)
		})
		if err != nil {
			t.Fatal(err)
		}
		if listed, err := s.Pending(t.Context(), ownership.Login, "device-1"); listed != nil || !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%d bytes: %d claims, error %v", len(rest), len(listed), err)
		}
	}
	if got := pending(t, s, "device-2"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("another device is concerned: %v", got)
	}
}

// A file from before there were claims is opened as it is, and gets what it lacks.
func TestFileWithoutClaims(t *testing.T) {
	t.Parallel()
	path := temporary(t)
	func() {
		s, err := embedded.Open(path, embedded.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		create(t, s, record("id-1", 1))
		err = s.DB().Update(func(tx *bolt.Tx) error {
			return errors.Join(tx.DeleteBucket([]byte("claims")), tx.DeleteBucket([]byte("ends")), tx.DeleteBucket([]byte("pending")))
		})
		if err != nil {
			t.Fatal(err)
		}
	}()
	s := open(t, path, embedded.Options{})
	if _, found, err := s.Load(t.Context(), "id-1"); err != nil || !found {
		t.Fatalf("load: %v, error %v", found, err)
	}
	claims(t, s, claim("1", 1), "device-1", time.Hour)
	holds(t, s, 1, 1)
}

// What cannot be a key of the file is refused before it can spoil a transaction.
func TestClaimKeyLength(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{})
	for _, bad := range []string{"", strings.Repeat("x", 70_000)} {
		for _, c := range []struct{ key, serialNumber string }{{bad, "device-1"}, {"1", bad}} {
			if won, err := s.Claim(t.Context(), ownership.Login, claim(c.key, 1), c.serialNumber, time.Hour); won || !errors.Is(err, activation.ErrUnavailable) {
				t.Errorf("claim of %d and %d bytes: %v, error %v", len(c.key), len(c.serialNumber), won, err)
			}
		}
		if _, found, err := s.Owner(t.Context(), ownership.Login, bad); err != nil || found {
			t.Errorf("owner of %d bytes: %v, error %v", len(bad), found, err)
		}
		if got := pending(t, s, bad); got != nil {
			t.Errorf("pending of %d bytes: %v", len(bad), got)
		}
		if err := s.Release(t.Context(), ownership.Login, bad, ownership.Token{1}, "device-1"); err != nil {
			t.Errorf("release of %d bytes: %v", len(bad), err)
		}
	}
	holds(t, s, 0, 0)
}

// A claim whose caller left before it could be written is not made, and does not
// keep others waiting.
func TestClaimantLeaves(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{})
	tx, err := s.DB().Begin(true) // nothing can be written now
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if won, err := s.Claim(ctx, ownership.Login, claim("1", 1), "device-1", time.Hour); won || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("claim: %v, error %v", won, err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	claims(t, s, claim("2", 2), "device-1", time.Hour)
	holds(t, s, 1, 1)
}

// After Close, and when the file fails, every call fails.
func TestClaimsUnavailable(t *testing.T) {
	t.Parallel()
	closed, err := embedded.Open(temporary(t), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	failed := open(t, temporary(t), embedded.Options{})
	if err := failed.DB().Close(); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]*embedded.Store{"closed": closed, "failed": failed} {
		_, found, err := s.Owner(t.Context(), ownership.Login, "1")
		if found || !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%s: owner: %v, error %v", name, found, err)
		}
		listed, err := s.Pending(t.Context(), ownership.Login, "device-1")
		if listed != nil || !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%s: pending: %d, error %v", name, len(listed), err)
		}
		won, err := s.Claim(t.Context(), ownership.Login, claim("1", 1), "device-1", time.Hour)
		if won || !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%s: claim: %v, error %v", name, won, err)
		}
		if err := s.Release(t.Context(), ownership.Login, "1", ownership.Token{1}, "device-1"); !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%s: release: error %v", name, err)
		}
	}
}

func BenchmarkOwnership(b *testing.B) {
	storetest.BenchmarkOwnership(b, open(b, temporary(b), embedded.Options{}))
}
