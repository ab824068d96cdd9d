package storetest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// claimants is how many callers store an owner of one request at once.
const claimants = 256

// RunOwnership checks that the stores returned by open keep the contract of
// ownership.Store. Every call of open must return an empty store and register its own
// cleanup. Tests run in parallel, each on a store of its own.
func RunOwnership(t *testing.T, open func(t *testing.T) ownership.Store) {
	t.Helper()
	for _, tests := range [][]claimTest{
		claims(), releases(), pendings(), claimExpiry(), claimIsolation(), claimStorms(),
	} {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				tt.run(&claimSuite{T: t, store: open(t)})
			})
		}
	}
	t.Run("random operations agree with the model", func(t *testing.T) {
		t.Parallel()
		checkClaimModel(t, open)
	})
}

// BenchmarkOwnership measures the calls for one request: it is looked up, claimed, looked up
// by key and by device, and released.
func BenchmarkOwnership(b *testing.B, store ownership.Store) {
	b.Helper()
	var keys atomic.Int64
	once := func(b *testing.B, serialNumber string) {
		b.Helper()
		c := newClaim(fmt.Sprintf("%010d", keys.Add(1)))
		if _, found, err := store.Owner(b.Context(), ownership.Login, c.Key); err != nil || found {
			b.Fatalf("unclaimed: found %v, error %v", found, err)
		}
		if won, err := store.Claim(b.Context(), ownership.Login, c, serialNumber, lifetime); err != nil || !won {
			b.Fatalf("claim: won %v, error %v", won, err)
		}
		if _, found, err := store.Owner(b.Context(), ownership.Login, c.Key); err != nil || !found {
			b.Fatalf("owner: found %v, error %v", found, err)
		}
		if found, err := store.Pending(b.Context(), ownership.Login, serialNumber); err != nil || len(found) == 0 {
			b.Fatalf("pending: %d, error %v", len(found), err)
		}
		if err := store.Release(b.Context(), ownership.Login, c.Key, c.Token, serialNumber); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("serial", func(b *testing.B) {
		for b.Loop() {
			once(b, "VDS1000000-1")
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			serialNumber := fmt.Sprintf("VDS%07d-1", keys.Add(1))
			for pb.Next() {
				once(b, serialNumber)
			}
		})
	})
}

// claimTest is one sentence of the contract.
type claimTest struct {
	name string
	run  func(s *claimSuite)
}

// claimSuite is a store under test. Its methods fail the test on every error.
type claimSuite struct {
	*testing.T

	store ownership.Store
}

func newClaim(key string) ownership.Claim {
	return ownership.Claim{Key: key, Token: ownership.Token(random(16)), Owner: random(110)}
}

func (s *claimSuite) claim(kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration) bool {
	s.Helper()
	won, err := s.store.Claim(s.Context(), kind, c, serialNumber, lifetime)
	if err != nil {
		s.Fatalf("claim %s: %v", c.Key, err)
	}
	return won
}

// claimed stores a new claim and returns it.
func (s *claimSuite) claimed(kind ownership.Kind, key, serialNumber string, lifetime time.Duration) ownership.Claim {
	s.Helper()
	c := newClaim(key)
	if !s.claim(kind, c, serialNumber, lifetime) {
		s.Fatalf("claim %s: another's", key)
	}
	return c
}

func (s *claimSuite) release(kind ownership.Kind, key string, token ownership.Token, serialNumber string) {
	s.Helper()
	if err := s.store.Release(s.Context(), kind, key, token, serialNumber); err != nil {
		s.Fatalf("release %s: %v", key, err)
	}
}

// owned fails unless want is the claim to its request.
func (s *claimSuite) owned(kind ownership.Kind, want ownership.Claim) {
	s.Helper()
	got, found, err := s.store.Owner(s.Context(), kind, want.Key)
	if err != nil || !found {
		s.Fatalf("owner of %s %s: found %v, error %v", kind, want.Key, found, err)
	}
	if problem := differClaim(got, want); problem != "" {
		s.Fatal(problem)
	}
}

// free fails if there is a claim to the request.
func (s *claimSuite) free(kind ownership.Kind, key string) {
	s.Helper()
	got, found, err := s.store.Owner(s.Context(), kind, key)
	if err != nil || found {
		s.Fatalf("owner of %s %s: found %v, error %v, want none", kind, key, found, err)
	}
	if problem := differClaim(got, ownership.Claim{}); problem != "" {
		s.Fatal(problem)
	}
}

// pending fails unless exactly want is listed for the device, ordered by key.
func (s *claimSuite) pending(kind ownership.Kind, serialNumber string, want ...ownership.Claim) {
	s.Helper()
	if problem := differClaims(s.listed(kind, serialNumber), want); problem != "" {
		s.Fatalf("pending %s requests of %s: %s", kind, serialNumber, problem)
	}
}

func (s *claimSuite) listed(kind ownership.Kind, serialNumber string) []ownership.Claim {
	s.Helper()
	got, err := s.store.Pending(s.Context(), kind, serialNumber)
	if err != nil {
		s.Fatalf("pending %s requests of %s: %v", kind, serialNumber, err)
	}
	return got
}

// differClaim returns a text about the first difference of two claims, or an empty one.
func differClaim(got, want ownership.Claim) string {
	switch {
	case got.Key != want.Key:
		return fmt.Sprintf("claim to %q, want that to %q", got.Key, want.Key)
	case got.Token != want.Token:
		return "claim to " + want.Key + " has another token"
	case !bytes.Equal(got.Owner, want.Owner):
		return fmt.Sprintf("claim to %s has an owner of %d bytes that are not the %d expected", want.Key, len(got.Owner), len(want.Owner))
	}
	return ""
}

// differClaims returns a text about the first difference of two lists, or an empty one.
// want may be in any order.
func differClaims(got, want []ownership.Claim) string {
	if len(got) != len(want) {
		return fmt.Sprintf("%d claims, want %d", len(got), len(want))
	}
	want = slices.SortedFunc(slices.Values(want), byKey)
	for i := range got {
		if problem := differClaim(got[i], want[i]); problem != "" {
			return problem
		}
	}
	return ""
}

func byKey(a, b ownership.Claim) int { return strings.Compare(a.Key, b.Key) }

func claims() []claimTest {
	return []claimTest{
		{"owner: nobody owns what was never claimed", func(s *claimSuite) {
			s.claimed(ownership.Login, "8408980524", "VDS1000000-1", lifetime)
			s.free(ownership.Login, "8408980525")
			s.free(ownership.Login, "840898052")
			s.free(ownership.Login, "84089805240")
		}},
		{"claim: the first one owns the request", func(s *claimSuite) {
			c := s.claimed(ownership.Login, "8408980524", "VDS1000000-1", lifetime)
			s.owned(ownership.Login, c)
			s.pending(ownership.Login, "VDS1000000-1", c)
		}},
		{"claim: keys and serial numbers of every length and letter", func(s *claimSuite) {
			for _, key := range []string{"0", "azAZ09", strings.Repeat("9", 64)} {
				for _, serialNumber := range []string{"1", "a-Z0", strings.Repeat("A", 22)} {
					c := s.claimed(ownership.Signature, key, serialNumber, lifetime)
					s.owned(ownership.Signature, c)
					s.pending(ownership.Signature, serialNumber, c)
					s.release(ownership.Signature, key, c.Token, serialNumber)
				}
			}
		}},
		{"claim: letters count as they are", func(s *claimSuite) {
			lower := s.claimed(ownership.Login, "abc", "vds-1", lifetime)
			upper := s.claimed(ownership.Login, "ABC", "VDS-1", lifetime)
			s.owned(ownership.Login, lower)
			s.owned(ownership.Login, upper)
			s.pending(ownership.Login, "vds-1", lower)
			s.pending(ownership.Login, "VDS-1", upper)
		}},
		{"claim: a later one is refused and changes nothing", func(s *claimSuite) {
			c := s.claimed(ownership.Login, "1", "device-1", lifetime)
			other := s.claimed(ownership.Login, "2", "device-2", lifetime)
			for _, serialNumber := range []string{"device-1", "device-2", "device-3"} {
				if s.claim(ownership.Login, newClaim("1"), serialNumber, 2*lifetime) {
					s.Fatal("a second claim was accepted")
				}
			}
			s.owned(ownership.Login, c)
			s.pending(ownership.Login, "device-1", c)
			s.pending(ownership.Login, "device-2", other)
			s.pending(ownership.Login, "device-3")
		}},
		{"claim: the owner's bytes do not make it the same claim", func(s *claimSuite) {
			c := s.claimed(ownership.Login, "1", "device-1", lifetime)
			again := newClaim("1")
			again.Owner = c.Owner
			if s.claim(ownership.Login, again, "device-1", lifetime) {
				s.Fatal("a second claim was accepted")
			}
			s.owned(ownership.Login, c)
		}},
		{"claim: a repeated one is accepted again", func(s *claimSuite) {
			c := s.claimed(ownership.Login, "1", "device-1", lifetime)
			for range 3 {
				if !s.claim(ownership.Login, c, "device-1", lifetime) {
					s.Fatal("the claim's own repetition was refused")
				}
			}
			s.owned(ownership.Login, c)
			s.pending(ownership.Login, "device-1", c)
			s.release(ownership.Login, "1", c.Token, "device-1")
			s.free(ownership.Login, "1")
			s.pending(ownership.Login, "device-1")
		}},
		{"claim: a key names another request for another kind", func(s *claimSuite) {
			login := s.claimed(ownership.Login, "1", "device-1", lifetime)
			s.free(ownership.Signature, "1")
			s.pending(ownership.Signature, "device-1")
			signature := s.claimed(ownership.Signature, "1", "device-1", lifetime)
			s.owned(ownership.Login, login)
			s.owned(ownership.Signature, signature)
			s.release(ownership.Signature, "1", login.Token, "device-1")
			s.release(ownership.Login, "1", signature.Token, "device-1")
			s.pending(ownership.Login, "device-1", login)
			s.pending(ownership.Signature, "device-1", signature)
			s.release(ownership.Login, "1", login.Token, "device-1")
			s.free(ownership.Login, "1")
			s.owned(ownership.Signature, signature)
			s.pending(ownership.Signature, "device-1", signature)
		}},
		{"claim: one token may serve several requests", func(s *claimSuite) {
			first, second := newClaim("1"), newClaim("2")
			second.Token = first.Token
			for _, c := range []ownership.Claim{first, second} {
				if !s.claim(ownership.Login, c, "device-1", lifetime) {
					s.Fatal("refused")
				}
			}
			s.release(ownership.Login, "1", first.Token, "device-1")
			s.owned(ownership.Login, second)
			s.pending(ownership.Login, "device-1", second)
		}},
	}
}

func releases() []claimTest {
	return []claimTest{
		{"release: the claim is gone, and the request is free", func(s *claimSuite) {
			c := s.claimed(ownership.Login, "1", "device-1", lifetime)
			kept := s.claimed(ownership.Login, "2", "device-1", lifetime)
			for range 2 {
				s.release(ownership.Login, "1", c.Token, "device-1")
				s.free(ownership.Login, "1")
				s.owned(ownership.Login, kept)
				s.pending(ownership.Login, "device-1", kept)
			}
			next := s.claimed(ownership.Login, "1", "device-2", lifetime)
			s.owned(ownership.Login, next)
			s.pending(ownership.Login, "device-2", next)
			s.pending(ownership.Login, "device-1", kept)
		}},
		{"release: another token removes nothing", func(s *claimSuite) {
			c := s.claimed(ownership.Login, "1", "device-1", lifetime)
			other := s.claimed(ownership.Login, "2", "device-1", lifetime)
			s.release(ownership.Login, "1", other.Token, "device-1")
			s.release(ownership.Login, "1", ownership.Token{}, "device-1")
			s.owned(ownership.Login, c)
			s.pending(ownership.Login, "device-1", c, other)
		}},
		{"release: an earlier claim's token does not remove a later claim", func(s *claimSuite) {
			first := s.claimed(ownership.Login, "1", "device-1", lifetime)
			s.release(ownership.Login, "1", first.Token, "device-1")
			second := s.claimed(ownership.Login, "1", "device-1", lifetime)
			s.release(ownership.Login, "1", first.Token, "device-1")
			s.owned(ownership.Login, second)
			s.pending(ownership.Login, "device-1", second)
		}},
		{"release: what was never claimed", func(s *claimSuite) {
			s.release(ownership.Login, "1", newClaim("1").Token, "device-1")
			s.free(ownership.Login, "1")
			s.pending(ownership.Login, "device-1")
		}},
	}
}

func pendings() []claimTest {
	return []claimTest{
		{"pending: nothing for an unknown device", func(s *claimSuite) {
			s.claimed(ownership.Login, "1", "device-1", lifetime)
			for _, serialNumber := range []string{"device", "device-", "device-11", "device-2"} {
				s.pending(ownership.Login, serialNumber)
			}
		}},
		{"pending: ordered by key, whatever was claimed first or ends first", func(s *claimSuite) {
			var want []ownership.Claim
			for i, key := range []string{"5", "1", "a", "15", "Z", "3"} {
				want = append(want, s.claimed(ownership.Login, key, "device-1", lifetime+time.Duration(i*5%7)*time.Minute))
			}
			s.pending(ownership.Login, "device-1", want...)
		}},
		{"pending: the claim that ends first gives way", func(s *claimSuite) {
			var listed []ownership.Claim
			for i := range ownership.MaxPending {
				// Neither the order of claims nor that of keys tells which ends first.
				end := lifetime + time.Duration((i*7+3)%ownership.MaxPending)*time.Minute
				listed = append(listed, s.claimed(ownership.Login, fmt.Sprintf("%02d", 50-i), "device-1", end))
			}
			s.pending(ownership.Login, "device-1", listed...)
			other := s.claimed(ownership.Login, "99", "device-11", lifetime)
			// These are the indexes for which the expression above is smallest.
			for _, first := range []int{11, 2, 9} {
				c := s.claimed(ownership.Login, fmt.Sprintf("%02d", first), "device-1", time.Hour)
				gone := listed[first]
				listed[first] = c
				s.pending(ownership.Login, "device-1", listed...)
				// It still counts.
				s.owned(ownership.Login, gone)
				if s.claim(ownership.Login, newClaim(gone.Key), "device-3", lifetime) {
					s.Fatal("a second claim was accepted")
				}
				s.release(ownership.Login, gone.Key, gone.Token, "device-1")
				s.free(ownership.Login, gone.Key)
				s.pending(ownership.Login, "device-1", listed...)
			}
			s.pending(ownership.Login, "device-11", other)
		}},
		{"pending: in a full list, a refused or repeated claim moves nobody", func(s *claimSuite) {
			other := s.claimed(ownership.Login, "other", "device-2", lifetime)
			var listed []ownership.Claim
			for i := range ownership.MaxPending {
				listed = append(listed, s.claimed(ownership.Login, fmt.Sprintf("%02d", i), "device-1", lifetime))
			}
			if s.claim(ownership.Login, newClaim("other"), "device-1", 2*lifetime) {
				s.Fatal("a second claim was accepted")
			}
			if !s.claim(ownership.Login, listed[5], "device-1", 2*lifetime) {
				s.Fatal("the claim's own repetition was refused")
			}
			s.pending(ownership.Login, "device-1", listed...)
			s.pending(ownership.Login, "device-2", other)
		}},
		{"pending: kinds do not share their places", func(s *claimSuite) {
			var logins, signatures []ownership.Claim
			for i := range ownership.MaxPending {
				key := fmt.Sprintf("%02d", i)
				logins = append(logins, s.claimed(ownership.Login, key, "device-1", lifetime))
				signatures = append(signatures, s.claimed(ownership.Signature, key, "device-1", lifetime))
			}
			s.pending(ownership.Login, "device-1", logins...)
			s.pending(ownership.Signature, "device-1", signatures...)
		}},
		{"pending: released claims leave their places", func(s *claimSuite) {
			kept := s.claimed(ownership.Login, "kept", "device-1", lifetime)
			for range 2 * ownership.MaxPending {
				c := s.claimed(ownership.Login, "1", "device-1", 2*lifetime)
				s.release(ownership.Login, "1", c.Token, "device-1")
			}
			s.pending(ownership.Login, "device-1", kept)
		}},
	}
}

func claimExpiry() []claimTest {
	ends := func(s *claimSuite, key string) {
		s.Helper()
		poll.Until(s.T, "the end of a claim", func() bool {
			_, found, err := s.store.Owner(s.Context(), ownership.Login, key)
			return err == nil && !found
		})
	}
	return []claimTest{
		{"expiry: a claim ends, and the request is free", func(s *claimSuite) {
			s.claimed(ownership.Login, "1", "device-1", brief)
			ends(s, "1")
			poll.Until(s.T, "an empty list", func() bool { return len(s.listed(ownership.Login, "device-1")) == 0 })
			next := s.claimed(ownership.Login, "1", "device-2", lifetime)
			s.owned(ownership.Login, next)
			s.pending(ownership.Login, "device-1")
			s.pending(ownership.Login, "device-2", next)
		}},
		{"expiry: the device's claims end one by one", func(s *claimSuite) {
			long := s.claimed(ownership.Login, "1", "device-1", lifetime)
			s.claimed(ownership.Login, "2", "device-1", brief)
			longer := s.claimed(ownership.Login, "3", "device-1", 2*lifetime)
			ends(s, "2")
			poll.Until(s.T, "a shorter list", func() bool { return len(s.listed(ownership.Login, "device-1")) == 2 })
			s.pending(ownership.Login, "device-1", long, longer)
			s.owned(ownership.Login, long)
			s.owned(ownership.Login, longer)
		}},
		{"expiry: a short claim does not shorten the list of a long one", func(s *claimSuite) {
			long := s.claimed(ownership.Login, "1", "device-1", lifetime)
			s.claimed(ownership.Login, "2", "device-1", brief)
			ends(s, "2")
			poll.Until(s.T, "a shorter list", func() bool { return len(s.listed(ownership.Login, "device-1")) == 1 })
			s.pending(ownership.Login, "device-1", long)
		}},
		{"expiry: repeating a claim does not prolong it", func(s *claimSuite) {
			c := newClaim("1")
			for _, d := range []time.Duration{short, lifetime, 2 * lifetime} {
				if !s.claim(ownership.Login, c, "device-1", d) {
					s.Fatal("refused")
				}
			}
			ends(s, "1")
			poll.Until(s.T, "an empty list", func() bool { return len(s.listed(ownership.Login, "device-1")) == 0 })
		}},
		{"expiry: a refused claim does not prolong the owner's", func(s *claimSuite) {
			c := s.claimed(ownership.Login, "1", "device-1", short)
			if s.claim(ownership.Login, newClaim("1"), "device-1", lifetime) {
				s.Fatal("a second claim was accepted")
			}
			s.owned(ownership.Login, c)
			ends(s, "1")
			poll.Until(s.T, "an empty list", func() bool { return len(s.listed(ownership.Login, "device-1")) == 0 })
		}},
		{"expiry: a claim that follows an ended one is a claim of its own", func(s *claimSuite) {
			first := s.claimed(ownership.Login, "1", "device-1", brief)
			ends(s, "1")
			second := s.claimed(ownership.Login, "1", "device-1", lifetime)
			s.release(ownership.Login, "1", first.Token, "device-1")
			s.owned(ownership.Login, second)
			poll.Until(s.T, "the list of the second claim", func() bool { return len(s.listed(ownership.Login, "device-1")) == 1 })
			s.pending(ownership.Login, "device-1", second)
		}},
		{"expiry: an ended claim takes nobody's place", func(s *claimSuite) {
			for i := range ownership.MaxPending {
				s.claimed(ownership.Login, fmt.Sprintf("brief%02d", i), "device-1", brief)
			}
			ends(s, fmt.Sprintf("brief%02d", ownership.MaxPending-1))
			var want []ownership.Claim
			for i := range ownership.MaxPending {
				want = append(want, s.claimed(ownership.Login, fmt.Sprintf("%02d", i), "device-1", lifetime))
			}
			s.pending(ownership.Login, "device-1", want...)
		}},
	}
}

func claimIsolation() []claimTest {
	return []claimTest{
		{"copies: what the caller does to its slices does not reach the store", func(s *claimSuite) {
			c := newClaim("1")
			given := c
			given.Owner = bytes.Clone(c.Owner)
			if !s.claim(ownership.Login, given, "device-1", lifetime) {
				s.Fatal("refused")
			}
			clear(given.Owner)
			s.owned(ownership.Login, c)
			s.pending(ownership.Login, "device-1", c)
		}},
		{"copies: what the caller does to results does not reach the store", func(s *claimSuite) {
			c := s.claimed(ownership.Login, "1", "device-1", lifetime)
			for range 2 {
				s.owned(ownership.Login, c)
				s.pending(ownership.Login, "device-1", c)
				got, _, err := s.store.Owner(s.Context(), ownership.Login, "1")
				if err != nil {
					s.Fatal(err)
				}
				clear(got.Owner)
				for _, got := range s.listed(ownership.Login, "device-1") {
					clear(got.Owner)
				}
			}
		}},
		{"context: a call whose context is over fails and changes nothing", func(s *claimSuite) {
			c := s.claimed(ownership.Login, "1", "device-1", lifetime)
			ctx := canceled(s.T)
			if got, found, err := s.store.Owner(ctx, ownership.Login, "1"); err == nil || found || got.Owner != nil {
				s.Errorf("owner: found %v, error %v", found, err)
			}
			if got, err := s.store.Pending(ctx, ownership.Login, "device-1"); err == nil || got != nil {
				s.Errorf("pending: %d claims, error %v", len(got), err)
			}
			if won, err := s.store.Claim(ctx, ownership.Login, newClaim("2"), "device-1", lifetime); err == nil || won {
				s.Errorf("claim: %v, error %v", won, err)
			}
			if err := s.store.Release(ctx, ownership.Login, "1", c.Token, "device-1"); err == nil {
				s.Error("release: no error")
			}
			s.owned(ownership.Login, c)
			s.free(ownership.Login, "2")
			s.pending(ownership.Login, "device-1", c)
		}},
	}
}

func claimStorms() []claimTest {
	return []claimTest{
		{"storm: one of many claims wins", func(s *claimSuite) {
			drawn := make([]ownership.Claim, claimants)
			won := make([]bool, claimants)
			// Eight callers share each device.
			device := func(i int) string { return fmt.Sprintf("device-%d", i/8) }
			together(claimants, func(i int) {
				var err error
				drawn[i] = newClaim("8408980524")
				if won[i], err = s.store.Claim(s.Context(), ownership.Login, drawn[i], device(i), lifetime); err != nil {
					s.Error(err)
				}
			})
			if s.Failed() {
				return
			}
			winner := slices.Index(won, true)
			if winner < 0 || slices.Contains(won[winner+1:], true) {
				s.Fatal("not exactly one of the claims was accepted")
			}
			s.owned(ownership.Login, drawn[winner])
			for i := 0; i < claimants; i += 8 {
				if device(i) == device(winner) {
					s.pending(ownership.Login, device(i), drawn[winner])
				} else {
					s.pending(ownership.Login, device(i))
				}
			}
		}},
		{"storm: a claim repeated at once is one claim", func(s *claimSuite) {
			c := newClaim("1")
			together(storm, func(int) {
				if won, err := s.store.Claim(s.Context(), ownership.Login, c, "device-1", lifetime); err != nil || !won {
					s.Errorf("claim: %v, error %v", won, err)
				}
			})
			s.owned(ownership.Login, c)
			s.pending(ownership.Login, "device-1", c)
			s.release(ownership.Login, "1", c.Token, "device-1")
			s.free(ownership.Login, "1")
			s.pending(ownership.Login, "device-1")
		}},
		{"storm: a device's list never grows too long", func(s *claimSuite) {
			drawn := make([]ownership.Claim, 3*ownership.MaxPending)
			together(len(drawn), func(i int) {
				drawn[i] = newClaim(fmt.Sprintf("%02d", i))
				if won, err := s.store.Claim(s.Context(), ownership.Login, drawn[i], "device-1", lifetime); err != nil || !won {
					s.Errorf("claim: %v, error %v", won, err)
				}
				if listed, err := s.store.Pending(s.Context(), ownership.Login, "device-1"); err != nil || len(listed) > ownership.MaxPending {
					s.Errorf("%d claims are listed, error %v", len(listed), err)
				}
			})
			if s.Failed() {
				return
			}
			listed := s.listed(ownership.Login, "device-1")
			if len(listed) != ownership.MaxPending || !slices.IsSortedFunc(listed, byKey) {
				s.Fatalf("%d claims are listed, want %d ordered by key", len(listed), ownership.MaxPending)
			}
			for _, c := range listed {
				s.owned(ownership.Login, c)
			}
			for _, c := range drawn {
				s.owned(ownership.Login, c)
			}
		}},
		{"storm: a request has one owner at a time", func(s *claimSuite) {
			const keys, devices = 3, 2
			var owners [keys]atomic.Int32
			var claimed atomic.Int32
			together(storm, func(i int) {
				for n := range 4 {
					k := (i + n) % keys
					serialNumber := fmt.Sprintf("device-%d", i%devices)
					c := newClaim(fmt.Sprint(k))
					won, err := s.store.Claim(s.Context(), ownership.Login, c, serialNumber, lifetime)
					if err != nil {
						s.Error(err)
					}
					if !won {
						continue
					}
					claimed.Add(1)
					if others := owners[k].Add(1) - 1; others != 0 {
						s.Errorf("the request had %d other owners", others)
					}
					if got, found, err := s.store.Owner(s.Context(), ownership.Login, c.Key); err != nil || !found || got.Token != c.Token {
						s.Errorf("owner: found %v with that token %v, error %v", found, got.Token == c.Token, err)
					}
					owners[k].Add(-1)
					if err := s.store.Release(s.Context(), ownership.Login, c.Key, c.Token, serialNumber); err != nil {
						s.Error(err)
					}
				}
			})
			if claimed.Load() < keys {
				s.Errorf("%d claims were accepted", claimed.Load())
			}
			for k := range keys {
				s.free(ownership.Login, fmt.Sprint(k))
			}
			for d := range devices {
				s.pending(ownership.Login, fmt.Sprintf("device-%d", d))
			}
		}},
	}
}
