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
)

const (
	requestKey = "dsapp:own:signature:{8408980524}"
	deviceKey  = "dsapp:dev:signature:{" + serialNumber + "}"
)

func newClaim(key string, n int) ownership.Claim {
	return ownership.Claim{Key: key, Token: ownership.Token{byte(n), byte(n >> 8), 1}, Owner: []byte("sealed;owner")}
}

// A claim lives as long as it says, and the list as long as its last claim.
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
	// No lifetime is none at all.
	if won, err := s.Claim(t.Context(), ownership.Signature, newClaim("4", 1), serialNumber, 0); err != nil || !won {
		t.Fatalf("claim: %v, error %v", won, err)
	}
	eventually(t, "the end of the claim", func() bool {
		_, found, err := s.Owner(t.Context(), ownership.Signature, "4")
		return err == nil && !found
	})
	// What releases the last claim leaves nothing.
	for _, key := range []string{"8408980524", "2", "3", "4"} {
		if err := s.Release(t.Context(), ownership.Signature, key, newClaim(key, 1).Token, serialNumber); err != nil {
			t.Fatal(err)
		}
	}
	if got := keys(t, server); len(got) != 0 {
		t.Errorf("keys are left: %v", got)
	}
}

// A claim or a list that no Store writes is damaged, not absent.
func TestDamagedClaims(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	for _, c := range []struct{ key, command, value string }{
		{requestKey, "SET", "short"}, {requestKey, "HSET", "a"}, {deviceKey, "SET", "a"}, {deviceKey, "ZADD", "99999999999999999"},
	} {
		arguments := []string{c.key, c.value}
		if c.command == "HSET" || c.command == "ZADD" {
			arguments = append(arguments, "no claim")
		}
		server.Command(t, "DEL", c.key)
		server.Command(t, append([]string{c.command}, arguments...)...)
		var err error
		if c.key == requestKey {
			_, _, err = s.Owner(t.Context(), ownership.Signature, "8408980524")
		} else {
			_, err = s.Pending(t.Context(), ownership.Signature, serialNumber)
		}
		if !errors.Is(err, ownership.ErrDamaged) {
			t.Errorf("%s %s: error %v", c.command, c.key, err)
		}
	}
}

// What is on the server is what was given: token and owner, and nothing that the
// owner could be told by.
func TestClaimOnTheServer(t *testing.T) {
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

// Claims that turn out to be another's push nothing out of a full list, and leave
// nothing there. However many claims there are at once, the list stays short.
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

// A value of another program under one of our keys is an error.
func TestForeignClaims(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	server.Command(t, "SET", requestKey, "short")
	for _, entry := range []string{"short", "sixteen bytes...no end", "sixteen bytes...;no key"} {
		server.Command(t, "DEL", deviceKey)
		server.Command(t, "ZADD", deviceKey, "9007199254740992", entry)
		if listed, err := s.Pending(t.Context(), ownership.Signature, serialNumber); !errors.Is(err, activation.ErrUnavailable) || listed != nil {
			t.Errorf("pending with %q: %v, error %v", entry, listed, err)
		}
	}
	if _, found, err := s.Owner(t.Context(), ownership.Signature, "8408980524"); !errors.Is(err, activation.ErrUnavailable) || found {
		t.Errorf("owner: %v, error %v", found, err)
	}
	server.Command(t, "DEL", requestKey, deviceKey)
	server.Command(t, "HSET", requestKey, "field", "value")
	server.Command(t, "SET", deviceKey, "value")
	if _, _, err := s.Owner(t.Context(), ownership.Signature, "8408980524"); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("owner: error %v", err)
	}
	if _, err := s.Pending(t.Context(), ownership.Signature, serialNumber); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("pending: error %v", err)
	}
	if won, err := s.Claim(t.Context(), ownership.Signature, newClaim("8408980524", 1), serialNumber, time.Minute); !errors.Is(err, activation.ErrUnavailable) || won {
		t.Errorf("claim: %v, error %v", won, err)
	}
}

func BenchmarkOwnership(b *testing.B) {
	s, _, _ := newStore(b)
	storetest.BenchmarkOwnership(b, s)
}
