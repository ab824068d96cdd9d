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
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// startReplica starts a replica of a master and waits until it is up to date.
func startReplica(t *testing.T, master *redistest.Server) *redistest.Server {
	t.Helper()
	host, port, err := net.SplitHostPort(master.Addr())
	if err != nil {
		t.Fatal(err)
	}
	replica := redistest.Start(t, "--replicaof", host+" "+port)
	poll.Until(t, "the replica", func() bool {
		return strings.Contains(master.Command(t, "INFO", "replication"), "state=online")
	})
	return replica
}

// quietMaster starts a master that sends its replicas nothing but writes.
func quietMaster(t *testing.T) *redistest.Server {
	t.Helper()
	return redistest.Start(t, "--repl-ping-replica-period", "3600")
}

// offset returns how many bytes the master has sent to its replicas.
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

// proofs returns calls of Take and Settle with every outcome, below MaxSimulated (which is 1)
// and beyond it. Their order matters.
func proofs(t *testing.T, s *redis.Store) []struct {
	name string
	call func() error
} {
	t.Helper()
	r, burned, known := record("real"), record("burned"), activation.Token{1}
	create(t, s, r)
	create(t, s, burned)
	burn(t, s, burned)
	put(t, s, "real", handshake(r))
	put(t, s, "burned", handshake(burned))
	simulated := simulated()
	put(t, s, "unknown", simulated)
	put(t, s, "capped", simulated) // beyond MaxSimulated
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

// Take and Settle write something that the replicas have to confirm, whatever their outcome, so
// that their duration does not tell the outcome. What they write only for that is removed.
func TestProofsAlwaysWrite(t *testing.T) {
	t.Parallel()
	master := quietMaster(t)
	startReplica(t, master)
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

// Take and Settle wait for the replicas for an unknown identifier as for a registered one, also
// beyond MaxSimulated: if the replica does not answer, all calls fail in the same way.
func TestProofsWaitAlike(t *testing.T) {
	t.Parallel()
	master := quietMaster(t)
	replica := startReplica(t, master)
	settings := redis.Settings{Addresses: []string{master.Addr()}, Timeout: 2 * time.Second}
	s := redis.New(newClient(t, settings), redis.Options{MaxSimulated: 1, WaitReplicas: 1})
	for _, p := range proofs(t, s) {
		switch p.name {
		case "take", "take at the cap", "take without a handshake", "settle of nothing", "settle of nothing at the cap":
		default:
			// Some of the others need the outcome of an earlier one.
			continue
		}
		// Otherwise a call that writes nothing could fail as well.
		poll.Until(t, "the replica to confirm everything", func() bool {
			return strings.Contains(master.Command(t, "INFO", "replication"), ",offset="+strconv.Itoa(offset(t, master))+",")
		})
		replica.Freeze(t)
		if err := p.call(); !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "too few replicas") {
			t.Errorf("%s: error %v", p.name, err)
		}
		replica.Thaw(t)
	}
}
