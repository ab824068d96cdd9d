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
)

// eventually polls until done reports true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(20 * time.Second)
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("still waiting for %s", what)
		}
	}
}

// crc16 is the checksum that chooses the slot of a hash tag (XMODEM).
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

// inSlot returns an identifier of the slot that begins with prefix.
func inSlot(prefix string, slot int) string {
	for i := 0; ; i++ {
		if identifier := fmt.Sprintf("%s-%d", prefix, i); int(crc16(identifier)%16384) == slot {
			return identifier
		}
	}
}

// prove makes one whole exchange with right evidence.
func prove(t *testing.T, s *redis.Store, r activation.Record, token activation.Token) {
	t.Helper()
	if _, err := s.PutHandshake(t.Context(), r.Identifier, handshake(r)); err != nil {
		t.Fatalf("put handshake: %v", err)
	}
	if _, ok, err := s.Take(t.Context(), r.Identifier, token, activation.Tag{}, 3); err != nil || !ok {
		t.Fatalf("take: %v, error %v", ok, err)
	}
	if got, ok, err := s.Settle(t.Context(), r.Identifier, settlement(r, token, true)); err != nil || !ok || string(got.Data) != string(r.Data) {
		t.Fatalf("settle: %v, error %v", ok, err)
	}
}

func create(t *testing.T, s *redis.Store, r activation.Record) {
	t.Helper()
	if _, ok, err := s.Create(t.Context(), r, activation.Generation{}); err != nil || !ok {
		t.Fatalf("create %s: %v, error %v", r.Identifier, ok, err)
	}
}

// Nodes of Redis 7 that do not tell their addresses are found all the same, also after a
// slot moved: one without a host is at that of the node that was asked, and one that is
// to tell its name and has none tells its IP address.
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
			s := redis.New(newClient(t, redis.Settings{Addresses: c.Addresses()[:1], Cluster: true, Timeout: 5 * time.Second}), redis.Options{})
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

// While a slot moves from one node to another, and after it, everything works:
// what was moved, what was not, and what is new; with replicas to wait for too.
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
		client := newClient(t, redis.Settings{Addresses: c.Addresses(), Cluster: true, Timeout: 5 * time.Second})
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
	// The registration is still there, and has no handshake: some of the keys
	// are missing.
	if _, ok, err := s.Load(t.Context(), "id-1"); err != nil || !ok {
		t.Fatalf("load before its key moved: %v, error %v", ok, err)
	}
	m.Move(t)
	if _, ok, err := s.Load(t.Context(), "id-1"); err != nil || !ok {
		t.Fatalf("load after its key moved: %v, error %v", ok, err)
	}
	if _, err := s.PutHandshake(t.Context(), "id-1", handshake(r)); err != nil {
		t.Fatalf("put handshake after its key moved: %v", err)
	}
	if _, ok, err := s.Take(t.Context(), "id-1", activation.Token{2}, activation.Tag{}, 3); err != nil || !ok {
		t.Fatalf("take after its keys moved: %v, error %v", ok, err)
	}
	if got, ok, err := s.Settle(t.Context(), "id-1", settlement(r, activation.Token{2}, true)); err != nil || !ok || string(got.Data) != string(r.Data) {
		t.Fatalf("settle after its keys moved: %v, error %v", ok, err)
	}
	if got, ok, err := s.Owner(t.Context(), ownership.Login, request); err != nil || !ok || got.Token != claim.Token {
		t.Fatalf("owner after its key moved: %v, error %v", ok, err)
	}
	if err := s.Release(t.Context(), ownership.Login, request, claim.Token, serialNumber); err != nil {
		t.Fatalf("release after its key moved: %v", err)
	}
	if listed, err := s.Pending(t.Context(), ownership.Login, serialNumber); err != nil || len(listed) != 0 {
		t.Fatalf("%d requests pending, error %v", len(listed), err)
	}
	// A script on two keys that are not there cannot run anywhere until the slot
	// has moved. It waits a little.
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
	eventually(t, "the attempt to create", func() bool { return stat(t, to, "asking") != before })
	m.Finish(t)
	wg.Wait()
	prove(t, s, fresh, activation.Token{3})

	// A client that has not heard of it is sent on at once, and learns it.
	s = unaware
	prove(t, s, r, activation.Token{4})
	eventually(t, "a client that knows the new master", func() bool {
		before := stat(t, from, "evalsha")
		if _, ok, err := s.Load(t.Context(), "id-1"); err != nil || !ok {
			t.Fatalf("load: %v, error %v", ok, err)
		}
		return stat(t, from, "evalsha") == before
	})
}

// A replica that takes over is found without waiting for the client to look at
// the cluster again by itself.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, 1)
	client := newClient(t, redis.Settings{Addresses: c.Addresses(), Cluster: true, Timeout: time.Second})
	s := redis.New(client, redis.Options{WaitReplicas: 1})
	slot := c.Slot(t, "dsapp:{id-1}:reg")
	r := record("id-1")
	create(t, s, r)
	prove(t, s, r, activation.Token{1})

	// While a device's node hangs, requests on other nodes are claimed, even if
	// these have to learn the script.
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
	claim := ownership.Claim{Key: "1", Token: ownership.Token{1}, Owner: []byte("sealed owner")}
	for i := 0; c.Master(c.Slot(t, "{"+claim.Key+"}")) != healthy; i++ {
		claim.Key = strconv.Itoa(i)
	}
	device := serialNumber
	for i := 0; c.Master(c.Slot(t, "{"+device+"}")) != hanging; i++ {
		device = strconv.Itoa(i)
	}
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
	eventually(t, "the replica that took over", func() bool {
		_, ok, err := s.Load(t.Context(), "id-1")
		if err == nil && !ok {
			t.Fatal("the registration is lost")
		}
		return err == nil
	})
	// It has no replica.
	if _, err := s.PutHandshake(t.Context(), "id-1", handshake(r)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Take(t.Context(), "id-1", activation.Token{2}, activation.Tag{}, 3); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("take without replicas: error %v", err)
	}
	s = redis.New(client, redis.Options{})
	prove(t, s, r, activation.Token{3})
}

// A client that spreads keys over servers by itself is refused.
func TestUnsupportedClient(t *testing.T) {
	t.Parallel()
	ring := goredis.NewRing(&goredis.RingOptions{Addrs: map[string]string{"one": "127.0.0.1:1"}, HeartbeatFrequency: time.Hour})
	t.Cleanup(func() { ring.Close() })
	s := redis.New(ring, redis.Options{})
	if err := reserve(t.Context(), s); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}
