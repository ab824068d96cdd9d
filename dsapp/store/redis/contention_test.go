package redis_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// Contention is told again when its interval is over. That it was told is kept
// until then, and not longer, however short the handshakes live.
func TestContentionInterval(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	r := record("id-1")
	create(t, s, r)
	put := func(identifier string, source byte, h activation.Handshake, want bool) {
		t.Helper()
		h.Source, h.Lifetime = activation.Tag{source}, 10*time.Second
		if got, err := s.PutHandshake(t.Context(), identifier, h); err != nil || got != want {
			t.Fatalf("put handshake of %s from %d: contended %v, error %v", identifier, source, got, err)
		}
	}
	for identifier, newOne := range map[string]func() activation.Handshake{
		"id-1": func() activation.Handshake { return handshake(r) }, "id-2": simulated,
	} {
		key := "dsapp:{" + identifier + "}:hs"
		put(identifier, 1, newOne(), false)
		if left := ttl(t, server, key); left <= 0 || left > 10*time.Second {
			t.Errorf("%s has %v left", key, left)
		}
		put(identifier, 2, newOne(), true)
		put(identifier, 1, newOne(), false)
		if left := ttl(t, server, key); left <= 10*time.Second || left > activation.ContentionInterval {
			t.Errorf("%s has %v left", key, left)
		}
		server.Command(t, "HSET", key, "m", "1")
		put(identifier, 3, newOne(), true)
		put(identifier, 4, newOne(), false)
	}
}

// The key of the handshakes lives as long as the last of them, and holds nothing of
// those that have ended once another one is put or taken.
func TestEndedHandshakesGo(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	r := record("id-1")
	create(t, s, r)
	const hs = "dsapp:{id-1}:hs"
	put := func(source byte, lifetime time.Duration) {
		t.Helper()
		h := handshake(r)
		h.Source, h.Lifetime = activation.Tag{source}, lifetime
		if _, err := s.PutHandshake(t.Context(), "id-1", h); err != nil {
			t.Fatal(err)
		}
	}
	// end ends the handshake that was put n-th of those that wait.
	end := func(n int) {
		t.Helper()
		index := server.Command(t, "HGET", hs, "x")
		at := 47*(n-1) + 1
		server.Command(t, "HSET", hs, "x", index[:at]+strings.Repeat("0", 14)+index[at+14:])
	}
	fields := func(what, want string) {
		t.Helper()
		server.Command(t, "HDEL", hs, "m")
		if got := server.Command(t, "HLEN", hs); got != want {
			t.Errorf("%s: %s fields, want %s", what, got, want)
		}
	}
	put(1, 5*activation.ContentionInterval)
	put(2, activation.ContentionInterval)
	put(3, activation.ContentionInterval)
	if left := ttl(t, server, hs); left < 4*activation.ContentionInterval {
		t.Errorf("%v left", left)
	}
	fields("all wait", "4")
	end(2)
	end(3)
	put(4, activation.ContentionInterval)
	fields("two have ended", "3")
	end(2)
	if _, ok, err := s.Take(t.Context(), "id-1", activation.Token{1}, activation.Tag{1}, 3); err != nil || !ok {
		t.Fatalf("take: %v, error %v", ok, err)
	}
	fields("one was taken, the other has ended", "0")
}

// At the cap nothing is told: those that share a key have nothing else in common.
func TestContentionAtTheCap(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}}), redis.Options{MaxSimulated: 1})
	put := func(identifier string, source byte, want bool) {
		t.Helper()
		h := simulated()
		h.Source = activation.Tag{source}
		if got, err := s.PutHandshake(t.Context(), identifier, h); err != nil || got != want {
			t.Fatalf("put handshake of %s from %d: contended %v, error %v", identifier, source, got, err)
		}
	}
	put("id-1", 1, false)
	put("id-1", 2, true)
	put("id-2", 1, false)
	put("id-2", 2, false)
	put("id-3", 3, false)
}

// A handshake without a registration counts for as long as its key may be there,
// because contention was told.
func TestToldCounts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}}), redis.Options{MaxSimulated: 1})
	h := simulated()
	h.Lifetime = time.Millisecond
	if _, err := s.PutHandshake(t.Context(), "id-1", h); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the handshake", func() bool { return len(keys(t, server)) == 0 })
	if _, err := s.PutHandshake(t.Context(), "id-2", simulated()); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, server); len(got) != 1 || got[0] != "dsapp:{~}:hs" {
		t.Errorf("keys %v, want the common one", got)
	}
}
