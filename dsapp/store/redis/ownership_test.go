package redis_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

const (
	requestKey = "dsapp:own:signature:{8408980524}"
	deviceKey  = "dsapp:dev:signature:{" + serialNumber + "}"
)

func newClaim(key string, n int) ownership.Claim {
	return ownership.Claim{Key: key, Token: ownership.Token{byte(n), byte(n >> 8), 1}, Owner: []byte("sealed;owner")}
}

// The key of a claim expires at its end, and the list of a device with its last claim.
func TestClaimLifetimes(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	near := func(key string, want time.Duration) {
		t.Helper()
		if left := ttl(t, server, key); left > want+time.Millisecond || left < want-time.Minute {
			t.Errorf("%s has %v left, want %v", key, left, want)
		}
	}
	claim := func(key string, lifetime time.Duration) {
		t.Helper()
		if won, err := s.Claim(t.Context(), ownership.Signature, newClaim(key, 1), serialNumber, lifetime); err != nil || !won {
			t.Fatalf("claim: %v, error %v", won, err)
		}
	}
	claim("8408980524", 10*time.Minute)
	near(requestKey, 10*time.Minute)
	near(deviceKey, 10*time.Minute)
	claim("2", 5*time.Minute)
	near(deviceKey, 10*time.Minute)
	claim("3", 20*time.Minute)
	near(deviceKey, 20*time.Minute)
	near(requestKey, 10*time.Minute)
	// A claim without a lifetime ends at once.
	if won, err := s.Claim(t.Context(), ownership.Signature, newClaim("4", 1), serialNumber, 0); err != nil || !won {
		t.Fatalf("claim: %v, error %v", won, err)
	}
	poll.Until(t, "the end of the claim", func() bool {
		_, found, err := s.Owner(t.Context(), ownership.Signature, "4")
		return err == nil && !found
	})
	// Releasing all claims removes all keys.
	for _, key := range []string{"8408980524", "2", "3", "4"} {
		if err := s.Release(t.Context(), ownership.Signature, key, newClaim(key, 1).Token, serialNumber); err != nil {
			t.Fatal(err)
		}
	}
	if got := keys(t, server); len(got) != 0 {
		t.Errorf("keys are left: %v", got)
	}
}

// A claim or a list that no Store can have written is damaged, not absent. That includes values of
// another type.
func TestDamagedClaims(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	owner := func() (bool, error) {
		_, found, err := s.Owner(t.Context(), ownership.Signature, "8408980524")
		return found, err
	}
	pending := func() (bool, error) {
		listed, err := s.Pending(t.Context(), ownership.Signature, serialNumber)
		return listed != nil, err
	}
	for _, tt := range []struct {
		key, command string
		values       []string
		read         func() (bool, error)
	}{
		{requestKey, "SET", []string{"short"}, owner},
		{requestKey, "HSET", []string{"field", "value"}, owner},
		{deviceKey, "SET", []string{"value"}, pending},
		{deviceKey, "ZADD", []string{"9007199254740992", "short"}, pending},
		{deviceKey, "ZADD", []string{"9007199254740992", "sixteen bytes...no end"}, pending},
		{deviceKey, "ZADD", []string{"9007199254740992", "sixteen bytes...;no key"}, pending},
	} {
		server.Command(t, "DEL", tt.key)
		server.Command(t, append([]string{tt.command, tt.key}, tt.values...)...)
		if found, err := tt.read(); found || !errors.Is(err, ownership.ErrDamaged) || !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%s %s %q: %v, error %v", tt.command, tt.key, tt.values, found, err)
		}
	}
	server.Command(t, "DEL", requestKey)
	server.Command(t, "HSET", requestKey, "field", "value")
	if won, err := s.Claim(t.Context(), ownership.Signature, newClaim("8408980524", 1), serialNumber, time.Minute); !errors.Is(err, activation.ErrUnavailable) || won {
		t.Errorf("claim: %v, error %v", won, err)
	}
}

// The server stores the token, the key and the sealed owner of a claim, and nothing else.
func TestStoredClaim(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	c := newClaim("8408980524", 7)
	if won, err := s.Claim(t.Context(), ownership.Signature, c, serialNumber, time.Minute); err != nil || !won {
		t.Fatalf("claim: %v, error %v", won, err)
	}
	if got, want := server.Command(t, "GET", requestKey), string(c.Token[:])+"sealed;owner"; got != want {
		t.Errorf("claim is %q, want %q", got, want)
	}
	if got, want := server.Command(t, "ZRANGE", deviceKey, "0", "-1"), string(c.Token[:])+"8408980524;sealed;owner"; got != want {
		t.Errorf("list is %q, want %q", got, want)
	}
}

// A claim to a request that another owner has displaces nothing in a full list and does not
// stay in it. The length of the list is limited, also with many concurrent claims.
func TestFullList(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	for i := range ownership.MaxPending {
		if won, err := s.Claim(t.Context(), ownership.Signature, newClaim(strconv.Itoa(i), i), serialNumber, time.Minute); err != nil || !won {
			t.Fatalf("claim: %v, error %v", won, err)
		}
	}
	listed, err := s.Pending(t.Context(), ownership.Signature, serialNumber)
	if err != nil || len(listed) != ownership.MaxPending {
		t.Fatalf("%d claims listed, error %v", len(listed), err)
	}
	if won, err := s.Claim(t.Context(), ownership.Signature, newClaim("0", 1000), serialNumber, time.Hour); err != nil || won {
		t.Fatalf("claim: %v, error %v", won, err)
	}
	again, err := s.Pending(t.Context(), ownership.Signature, serialNumber)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(listed) {
		t.Errorf("the list was %v and is %v, error %v", listed, again, err)
	}
	var wg sync.WaitGroup
	for i := range 8 * ownership.MaxPending {
		wg.Go(func() {
			if _, err := s.Claim(t.Context(), ownership.Signature, newClaim(fmt.Sprintf("k%d", i), i), serialNumber, time.Minute); err != nil {
				t.Error(err)
			}
			if n, err := strconv.Atoi(server.Command(t, "ZCARD", deviceKey)); err != nil || n > 2*ownership.MaxPending {
				t.Errorf("%d claims on the server, error %v", n, err)
			}
		})
	}
	wg.Wait()
}

func BenchmarkOwnership(b *testing.B) {
	s, _, _ := newStore(b)
	storetest.BenchmarkOwnership(b, s)
}
