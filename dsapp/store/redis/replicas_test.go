package redis_test

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
)

// replicated starts a master, which says nothing to its replica by itself, and the
// replica.
func replicated(t *testing.T) (master, replica *redistest.Server) {
	t.Helper()
	master = redistest.Start(t, "--repl-ping-replica-period", "3600")
	host, port, err := net.SplitHostPort(master.Addr())
	if err != nil {
		t.Fatal(err)
	}
	replica = redistest.Start(t, "--replicaof", host+" "+port)
	eventually(t, "the replica", func() bool {
		return strings.Contains(master.Command(t, "INFO", "replication"), "state=online")
	})
	return master, replica
}

// offset is how much the master has said to its replicas.
func offset(t *testing.T, master *redistest.Server) int {
	t.Helper()
	_, rest, _ := strings.Cut(master.Command(t, "INFO", "replication"), "master_repl_offset:")
	digits, _, _ := strings.Cut(rest, "\r")
	n, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// proofs are takes and settlements of every outcome, at the cap on simulated state
// and below it. Each changes what the next ones meet.
func proofs(t *testing.T, s *redis.Store) []struct {
	name string
	call func() error
} {
	t.Helper()
	r, burned, known := record("real"), record("burned"), activation.Token{1}
	create(t, s, r)
	create(t, s, burned)
	for i := range 3 {
		token := activation.Token{byte(i)}
		if _, err := s.PutHandshake(t.Context(), "burned", handshake(burned)); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := s.Take(t.Context(), "burned", token, activation.Tag{}, 3); err != nil || !ok {
			t.Fatalf("take: %v, error %v", ok, err)
		}
		if _, ok, err := s.Settle(t.Context(), "burned", settlement(burned, token, false)); err != nil || ok {
			t.Fatalf("settle: %v, error %v", ok, err)
		}
	}
	// The only place for simulated state is taken by the first of these.
	simulated := simulated()
	for _, h := range []struct {
		identifier string
		activation.Handshake
	}{{"real", handshake(r)}, {"burned", handshake(burned)}, {"unknown", simulated}, {"capped", simulated}} {
		if _, err := s.PutHandshake(t.Context(), h.identifier, h.Handshake); err != nil {
			t.Fatal(err)
		}
	}
	unknown := record("unknown")
	unknown.Generation = simulated.Generation
	take := func(identifier string, want bool) func() error {
		return func() error {
			_, ok, err := s.Take(t.Context(), identifier, known, activation.Tag{}, 3)
			if err == nil && ok != want {
				return errors.New("another outcome")
			}
			return err
		}
	}
	settle := func(r activation.Record, token activation.Token, proven, want bool) func() error {
		return func() error {
			_, ok, err := s.Settle(t.Context(), r.Identifier, settlement(r, token, proven))
			if err == nil && ok != want {
				return errors.New("another outcome")
			}
			return err
		}
	}
	return []struct {
		name string
		call func() error
	}{
		{"take at the cap", take("capped", false)},
		{"take without a handshake", take("nobody", false)},
		{"take of an unknown one", take("unknown", true)},
		{"take", take("real", true)},
		{"take again", take("real", false)},
		{"take of a burned one", take("burned", false)},
		{"settle of nothing", settle(record("nobody"), activation.Token{}, false, false)},
		{"settle of nothing at the cap", settle(record("capped"), activation.Token{}, false, false)},
		{"settle of nothing of a registration", settle(record("real"), activation.Token{}, false, false)},
		{"settle of no proof in flight", settle(r, activation.Token{8}, true, false)},
		{"settle", settle(r, known, true, true)},
		{"settle again", settle(r, known, true, true)},
		{"settle again as wrong", settle(r, known, false, true)},
		{"settle of an unknown one", settle(unknown, known, true, false)},
		{"settle of an unknown one again", settle(unknown, known, true, false)},
	}
}

// Whatever a take or a settlement meets, it gives the replicas something to confirm:
// how long that takes does not tell what it met. What is written for that stays
// nowhere.
func TestProofsAlwaysWrite(t *testing.T) {
	t.Parallel()
	master, _ := replicated(t)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{master.Addr()}}), redis.Options{MaxSimulated: 1})
	for _, p := range proofs(t, s) {
		before := offset(t, master)
		if err := p.call(); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
		if after := offset(t, master); after == before {
			t.Errorf("%s wrote nothing", p.name)
		}
	}
	for _, key := range keys(t, master) {
		if strings.Contains(key, "{nobody}") || strings.Contains(key, "{capped}") {
			t.Errorf("%s is left", key)
		}
		if got := master.Command(t, "HEXISTS", key, "w"); got != "0" {
			t.Errorf("%s keeps what was written to be confirmed", key)
		}
		if left := ttl(t, master, key); left < 0 {
			t.Errorf("%s does not expire", key)
		}
	}
}

// An unknown identifier waits for the replicas as a registered one does, also at the
// cap: without an answer of theirs, all calls fail alike.
func TestProofsWaitAlike(t *testing.T) {
	t.Parallel()
	master, replica := replicated(t)
	settings := redis.Settings{Addresses: []string{master.Addr()}, Timeout: 400 * time.Millisecond}
	s := redis.New(newClient(t, settings), redis.Options{MaxSimulated: 1, WaitReplicas: 1})
	for _, p := range proofs(t, s) {
		switch p.name {
		case "take", "take at the cap", "take without a handshake", "settle of nothing", "settle of nothing at the cap":
		default:
			// These wait in the same way, and some need an outcome of one before.
			continue
		}
		// A call that writes nothing would find everything confirmed.
		eventually(t, "the replica to confirm everything", func() bool {
			return strings.Contains(master.Command(t, "INFO", "replication"), ",offset="+strconv.Itoa(offset(t, master))+",")
		})
		replica.Freeze(t)
		if err := p.call(); !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "too few replicas") {
			t.Errorf("%s: error %v", p.name, err)
		}
		replica.Thaw(t)
	}
}
