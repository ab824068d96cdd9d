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
	"github.com/dsapp-gateway/dsapp-gateway/internal/clock"
)

func claim(key string, token byte) ownership.Claim {
	return ownership.Claim{Key: key, Token: ownership.Token{token}, Owner: []byte("owner")}
}

// mustClaim makes a claim, which has to succeed.
func mustClaim(t *testing.T, s *embedded.Store, c ownership.Claim, serialNumber string, lifetime time.Duration) {
	t.Helper()
	if won, err := s.Claim(t.Context(), ownership.Login, c, serialNumber, lifetime); err != nil || !won {
		t.Fatalf("claim %s: %v, error %v", c.Key, won, err)
	}
}

// claims archives all claims and checks their number in the file and its index, and in the lists of devices.
func claims(t *testing.T, s *embedded.Store, want, listed int) {
	t.Helper()
	if err := s.Archive(); err != nil {
		t.Fatal(err)
	}
	if c, e, p := count(t, s, "claims"), count(t, s, "ends"), count(t, s, "pending"); c != want || e != want || p != listed {
		t.Fatalf("file holds %d claims, %d of them to be removed, %d listed; want %d, %d listed", c, e, p, want, listed)
	}
}

// pending returns the keys in the list of a device.
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

// Claims, lists, releases and the ends of claims survive a restart.
func TestClaimsReopen(t *testing.T) {
	t.Parallel()
	now := clock.New()
	path := temporary(t)
	func() {
		s, err := embedded.Open(path, embedded.Options{Now: now.Now})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		mustClaim(t, s, claim("1", 1), "device-1", time.Minute)
		mustClaim(t, s, claim("2", 2), "device-1", time.Hour)
		mustClaim(t, s, claim("3", 3), "device-1", time.Hour)
		if err := s.Release(t.Context(), ownership.Login, "3", ownership.Token{3}, "device-1"); err != nil {
			t.Fatal(err)
		}
	}()

	s := open(t, path, embedded.Options{Now: now.Now})
	claims(t, s, 2, 2)
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
	now.Advance(time.Minute)
	if _, found, err := s.Owner(t.Context(), ownership.Login, "1"); err != nil || found {
		t.Fatalf("owner after the end: found %v, error %v", found, err)
	}
}

// A claim ends exactly at the end of its lifetime, for Owner and in the list.
func TestClaimLifetime(t *testing.T) {
	t.Parallel()
	now := clock.New()
	s := open(t, temporary(t), embedded.Options{Now: now.Now})
	mustClaim(t, s, claim("1", 1), "device-1", time.Minute)
	for _, step := range []struct {
		advance time.Duration
		live    bool
	}{{time.Minute - 1, true}, {1, false}} {
		now.Advance(step.advance)
		if _, found, err := s.Owner(t.Context(), ownership.Login, "1"); err != nil || found != step.live {
			t.Errorf("owner: found %v, error %v, want %v", found, err, step.live)
		}
		if n := len(pending(t, s, "device-1")); (n == 1) != step.live {
			t.Errorf("%d claims listed, live: %v", n, step.live)
		}
	}
	// After the end of the claim its token has no effect.
	if err := s.Release(t.Context(), ownership.Login, "1", ownership.Token{1}, "device-1"); err != nil {
		t.Error(err)
	}
	mustClaim(t, s, claim("1", 1), "device-1", time.Minute)
	claims(t, s, 1, 1)
}

// Later writes, also of registrations, remove a limited number of claims that have ended, and a
// sweep removes all.
func TestClaimRemoval(t *testing.T) {
	t.Parallel()
	now := clock.New()
	s := open(t, temporary(t), embedded.Options{Now: now.Now})
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
	mustClaim(t, s, claim("late", 1), "device-1", time.Hour)
	claims(t, s, n+1, n+1)
	now.Advance(time.Minute)
	create(t, s, record("later", 1))
	for range 128 {
		if _, _, err := s.Settle(t.Context(), "nobody", activation.Settlement{}); err != nil {
			t.Fatal(err)
		}
	}
	if left := count(t, s, "pending"); left < 1 || left > n {
		t.Fatalf("%d claims listed of %d after some writes", left, n+1)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	claims(t, s, 1, 1)
	entries(t, s, 1, 0)
	if got := pending(t, s, "device-1"); !slices.Equal(got, []string{"late"}) {
		t.Fatalf("listed: %v", got)
	}
}

// Nothing is left of claims that were released, replaced after their end, or displaced from a
// list.
func TestClaimsAreRemovedCompletely(t *testing.T) {
	t.Parallel()
	now := clock.New()
	s := open(t, temporary(t), embedded.Options{Now: now.Now})
	mustClaim(t, s, claim("1", 1), "device-1", time.Minute)
	now.Advance(time.Minute)
	mustClaim(t, s, claim("1", 2), "device-2", time.Hour)
	claims(t, s, 1, 1)
	if got := pending(t, s, "device-1"); got != nil {
		t.Errorf("listed for the first device: %v", got)
	}
	// Release takes the device from the claim and ignores the argument.
	if err := s.Release(t.Context(), ownership.Login, "1", ownership.Token{2}, "device-9"); err != nil {
		t.Fatal(err)
	}
	claims(t, s, 0, 0)

	const n = 3 * ownership.MaxPending
	for i := range n {
		mustClaim(t, s, claim(fmt.Sprintf("%02d", i), 1), "device-1", time.Hour+time.Duration(i))
	}
	claims(t, s, n, ownership.MaxPending)
	for i := range n {
		if err := s.Release(t.Context(), ownership.Login, fmt.Sprintf("%02d", i), ownership.Token{1}, "device-1"); err != nil {
			t.Fatal(err)
		}
	}
	claims(t, s, 0, 0)
}

// Calls fail for a claim that cannot be decoded; they do not treat it as absent. Other claims are
// not affected. The claim is removed at its end.
func TestCorruptClaim(t *testing.T) {
	t.Parallel()
	now := clock.New()
	s := open(t, temporary(t), embedded.Options{Now: now.Now})
	mustClaim(t, s, claim("1", 1), "device-1", time.Minute)
	mustClaim(t, s, claim("2", 2), "device-2", time.Minute)
	claims(t, s, 2, 2)
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
	now.Advance(time.Minute)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	claims(t, s, 0, 0)
	mustClaim(t, s, claim("1", 3), "device-3", time.Minute)
}

// Pending fails for a list that cannot be decoded. Other devices are not affected.
func TestCorruptList(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{})
	mustClaim(t, s, claim("2", 2), "device-2", time.Minute)
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

// A file of an early version, without buckets for claims, can be opened and gets them.
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
	mustClaim(t, s, claim("1", 1), "device-1", time.Hour)
	claims(t, s, 1, 1)
}

// A key or serial number that cannot be a key is refused before it makes a transaction fail.
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
	claims(t, s, 0, 0)
}

// A claim does not wait for a transaction, and one whose context has ended is not made.
func TestClaimDoesNotWait(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{})
	tx, err := s.DB().Begin(true) // blocks all writes
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if won, err := s.Claim(ctx, ownership.Login, claim("1", 1), "device-1", time.Hour); won || !errors.Is(err, context.Canceled) {
		t.Errorf("claim: %v, error %v", won, err)
	}
	mustClaim(t, s, claim("2", 2), "device-1", time.Hour)
	if got := pending(t, s, "device-1"); !slices.Equal(got, []string{"2"}) {
		t.Errorf("listed: %v", got)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	claims(t, s, 1, 1)
}

// After Close, and if the file fails, every call fails.
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
