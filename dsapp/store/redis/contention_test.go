package redis_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// Contention is reported again after ContentionInterval. The server stores for that long that
// it was reported, and not longer, however short the lifetimes of the handshakes are.
func TestContentionInterval(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	r := record("id-1")
	create(t, s, r)
	putFrom := func(identifier string, source byte, h activation.Handshake, want bool) {
		t.Helper()
		h.Source, h.Lifetime = activation.Tag{source}, 10*time.Second
		if got := put(t, s, identifier, h); got != want {
			t.Fatalf("put handshake of %s from %d: contended %v", identifier, source, got)
		}
	}
	for identifier, newOne := range map[string]func() activation.Handshake{
		"id-1": func() activation.Handshake { return handshake(r) }, "id-2": simulated,
	} {
		key := "dsapp:{" + identifier + "}:hs"
		putFrom(identifier, 1, newOne(), false)
		if left := ttl(t, server, key); left <= 0 || left > 10*time.Second {
			t.Errorf("%s has %v left", key, left)
		}
		putFrom(identifier, 2, newOne(), true)
		putFrom(identifier, 1, newOne(), false)
		if left := ttl(t, server, key); left <= 10*time.Second || left > activation.ContentionInterval {
			t.Errorf("%s has %v left", key, left)
		}
		server.Command(t, "HSET", key, "m", "1")
		putFrom(identifier, 3, newOne(), true)
		putFrom(identifier, 4, newOne(), false)
	}
}

// The key of the handshakes expires when the last of them ends. Handshakes that have ended are
// removed when another one is put or taken.
func TestEndedHandshakesGo(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	r := record("id-1")
	create(t, s, r)
	const hs = "dsapp:{id-1}:hs"
	putFor := func(source byte, lifetime time.Duration) {
		t.Helper()
		h := handshake(r)
		h.Source, h.Lifetime = activation.Tag{source}, lifetime
		put(t, s, "id-1", h)
	}
	// end ends the n-th handshake of the index.
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
	putFor(1, 5*activation.ContentionInterval)
	putFor(2, activation.ContentionInterval)
	putFor(3, activation.ContentionInterval)
	if left := ttl(t, server, hs); left < 4*activation.ContentionInterval {
		t.Errorf("%v left", left)
	}
	fields("all wait", "4")
	end(2)
	end(3)
	putFor(4, activation.ContentionInterval)
	fields("two have ended", "3")
	end(2)
	if _, ok, err := s.Take(t.Context(), "id-1", activation.Token{1}, activation.Tag{1}, 3); err != nil || !ok {
		t.Fatalf("take: %v, error %v", ok, err)
	}
	fields("one was taken, the other has ended", "0")
}

// Contention is not reported for identifiers beyond MaxSimulated, whose handshakes share a key.
func TestContentionBeyondMaxSimulated(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}}), redis.Options{MaxSimulated: 1})
	putFrom := func(identifier string, source byte, want bool) {
		t.Helper()
		h := simulated()
		h.Source = activation.Tag{source}
		if got := put(t, s, identifier, h); got != want {
			t.Fatalf("put handshake of %s from %d: contended %v", identifier, source, got)
		}
	}
	putFrom("id-1", 1, false)
	putFrom("id-1", 2, true)
	putFrom("id-2", 1, false)
	putFrom("id-2", 2, false)
	putFrom("id-3", 3, false)
}

// A handshake without a registration counts towards MaxSimulated for at least ContentionInterval,
// because its key may exist for that long.
func TestReportedContentionCounts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}}), redis.Options{MaxSimulated: 1})
	h := simulated()
	h.Lifetime = time.Millisecond
	put(t, s, "id-1", h)
	poll.Until(t, "the end of the handshake", func() bool { return len(keys(t, server)) == 0 })
	put(t, s, "id-2", simulated())
	if got := keys(t, server); len(got) != 1 || got[0] != "dsapp:{~}:hs" {
		t.Errorf("keys %v, want the common one", got)
	}
}
