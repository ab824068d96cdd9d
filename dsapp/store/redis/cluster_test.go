package redis_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// crc16 returns the checksum that selects the slot of a hash tag (CRC-16/XMODEM).
func crc16(tag string) (sum uint16) {
	for i := range len(tag) {
		sum ^= uint16(tag[i]) << 8
		for range 8 {
			carry := sum&0x8000 != 0
			if sum <<= 1; carry {
				sum ^= 0x1021
			}
		}
	}
	return sum
}

// inSlot returns an identifier with a prefix whose keys are in a slot.
func inSlot(prefix string, slot int) string {
	for i := 0; ; i++ {
		if identifier := fmt.Sprintf("%s-%d", prefix, i); int(crc16(identifier)%16384) == slot {
			return identifier
		}
	}
}

// identifierOn returns an identifier whose keys are on a master.
func identifierOn(t *testing.T, c *redistest.Cluster, master *redistest.Server) string {
	t.Helper()
	for i := 0; ; i++ {
		if identifier := strconv.Itoa(i); c.Master(c.Slot(t, "{"+identifier+"}")) == master {
			return identifier
		}
	}
}

// Nodes of Redis 7 that do not announce their addresses are found, also after a slot moved. An
// empty host means that of the node that was asked. A node that should announce a host name
// and has none announces its IP address in its metadata.
func TestNodesWithoutAddress(t *testing.T) {
	t.Parallel()
	for name, hosts := range map[string][]string{
		"unknown-endpoint": nil,
		"hostname":         {"localhost"}, // the others have none
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := redistest.StartCluster(t, 0)
			for i, node := range c.Masters {
				node.Command(t, "CONFIG", "SET", "cluster-preferred-endpoint-type", name)
				if i < len(hosts) {
					node.Command(t, "CONFIG", "SET", "cluster-announce-hostname", hosts[i])
				}
			}
			s := redis.New(newClient(t, redis.Settings{Addresses: c.Addresses()[:1], Cluster: true}), redis.Options{})
			for i := range 40 {
				r := record(fmt.Sprintf("id-%d", i))
				create(t, s, r)
				prove(t, s, r, activation.Token{1})
			}
			slot := c.Slot(t, "dsapp:{moved}:reg")
			from, to := c.Master(slot), c.Masters[0]
			if to == from {
				to = c.Masters[1]
			}
			m := c.Migrate(t, slot, from, to)
			m.Move(t)
			m.Finish(t)
			r := record("moved")
			create(t, s, r)
			prove(t, s, r, activation.Token{1})
		})
	}
}

// While a slot moves from one node to another, and after that, everything works: with keys
// that were moved, that were not, and that are new, and also with WaitReplicas.
func TestSlotMoves(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 1)
	slot := c.Slot(t, "dsapp:{id-1}:reg")
	from := c.Master(slot)
	to := c.Masters[0]
	if to == from {
		to = c.Masters[1]
	}
	newStore := func() *redis.Store {
		client := newClient(t, redis.Settings{Addresses: c.Addresses(), Cluster: true})
		return redis.New(client, redis.Options{WaitReplicas: 1})
	}
	s, unaware := newStore(), newStore()
	if err := reserve(t.Context(), unaware); err != nil {
		t.Fatal(err)
	}
	request := inSlot("K", slot)
	if got := c.Slot(t, "dsapp:own:login:{"+request+"}"); got != slot {
		t.Fatalf("slot %d, want %d", got, slot)
	}
	claim := ownership.Claim{Key: request, Token: ownership.Token{1}, Owner: []byte("sealed owner")}

	r := record("id-1")
	create(t, s, r)
	prove(t, s, r, activation.Token{1})
	if won, err := s.Claim(t.Context(), ownership.Login, claim, serialNumber, time.Minute); err != nil || !won {
		t.Fatalf("claim: %v, error %v", won, err)
	}

	m := c.Migrate(t, slot, from, to)
	// The key of the registration has not moved yet.
	if _, ok, err := s.Load(t.Context(), "id-1"); err != nil || !ok {
		t.Fatalf("load before its key moved: %v, error %v", ok, err)
	}
	m.Move(t)
	if _, ok, err := s.Load(t.Context(), "id-1"); err != nil || !ok {
		t.Fatalf("load after its key moved: %v, error %v", ok, err)
	}
	prove(t, s, r, activation.Token{2})
	if got, ok, err := s.Owner(t.Context(), ownership.Login, request); err != nil || !ok || got.Token != claim.Token {
		t.Fatalf("owner after its key moved: %v, error %v", ok, err)
	}
	if err := s.Release(t.Context(), ownership.Login, request, claim.Token, serialNumber); err != nil {
		t.Fatalf("release after its key moved: %v", err)
	}
	if listed, err := s.Pending(t.Context(), ownership.Login, serialNumber); err != nil || len(listed) != 0 {
		t.Fatalf("%d requests pending, error %v", len(listed), err)
	}
	// No node runs a script on two new keys until the slot has moved. The store retries for a
	// moment.
	fresh := record(inSlot("fresh", slot))
	if _, _, err := s.Create(t.Context(), fresh, activation.Generation{}); !errors.Is(err, activation.ErrUnavailable) {
		t.Fatalf("create in a slot that does not arrive: error %v", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, ok, err := s.Create(t.Context(), fresh, activation.Generation{}); err != nil || !ok {
			t.Errorf("create in a slot that moves: %v, error %v", ok, err)
		}
	})
	before := stat(t, to, "asking")
	poll.Until(t, "the attempt to create", func() bool { return stat(t, to, "asking") != before })
	m.Finish(t)
	wg.Wait()
	prove(t, s, fresh, activation.Token{3})

	// A client with the old table of slots is redirected, and reads the new table.
	s = unaware
	prove(t, s, r, activation.Token{4})
	poll.Until(t, "a client that knows the new master", func() bool {
		before := stat(t, from, "evalsha")
		if _, ok, err := s.Load(t.Context(), "id-1"); err != nil || !ok {
			t.Fatalf("load: %v, error %v", ok, err)
		}
		return stat(t, from, "evalsha") == before
	})
}

// The client reads the table of slots again when a node is lost, so that a replica that takes
// over is found at once.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 1)
	slot := c.Slot(t, "dsapp:{id-1}:reg")
	r := record("id-1")
	patient := redis.New(newClient(t, redis.Settings{Addresses: c.Addresses(), Cluster: true}), redis.Options{WaitReplicas: 1})
	create(t, patient, r)
	prove(t, patient, r, activation.Token{1})
	client := newClient(t, redis.Settings{Addresses: c.Addresses(), Cluster: true, Timeout: time.Second})
	s := redis.New(client, redis.Options{WaitReplicas: 1})

	// While the node of a device's list hangs, the claim is made on another node, even if that
	// node does not know the script.
	var healthy, hanging *redistest.Server
	for _, master := range c.Masters {
		switch {
		case master == c.Master(slot):
		case healthy == nil:
			healthy = master
		default:
			hanging = master
		}
	}
	claim := ownership.Claim{Key: identifierOn(t, c, healthy), Token: ownership.Token{1}, Owner: []byte("sealed owner")}
	device := identifierOn(t, c, hanging)
	hanging.Freeze(t)
	if won, err := s.Claim(t.Context(), ownership.Login, claim, device, time.Minute); !errors.Is(err, activation.ErrUnavailable) || won {
		t.Errorf("claim without a list: %v, error %v", won, err)
	}
	hanging.Thaw(t)
	if _, found, err := s.Owner(t.Context(), ownership.Login, claim.Key); err != nil || !found {
		t.Errorf("owner: %v, error %v", found, err)
	}

	for i, master := range c.Masters {
		if master == c.Master(slot) {
			master.Stop()
			c.Replicas[i].Command(t, "CLUSTER", "FAILOVER", "TAKEOVER")
		}
	}
	poll.Until(t, "the replica that took over", func() bool {
		_, ok, err := s.Load(t.Context(), "id-1")
		if err == nil && !ok {
			t.Fatal("the registration is lost")
		}
		return err == nil
	})
	// The new master has no replica.
	put(t, s, "id-1", handshake(r))
	if _, _, err := s.Take(t.Context(), "id-1", activation.Token{2}, activation.Tag{}, 3); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("take without replicas: error %v", err)
	}
	s = redis.New(client, redis.Options{})
	prove(t, s, r, activation.Token{3})
}

// A client that distributes keys over servers itself is refused.
func TestUnsupportedClient(t *testing.T) {
	t.Parallel()
	ring := goredis.NewRing(&goredis.RingOptions{Addrs: map[string]string{"one": "127.0.0.1:1"}, HeartbeatFrequency: time.Hour})
	t.Cleanup(func() { ring.Close() })
	s := redis.New(ring, redis.Options{})
	if err := reserve(t.Context(), s); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}
