package redis_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/relay"
)

// relayedRedis is Redis behind relays.
type relayedRedis struct {
	settings redis.Settings
	// relays are all relays. The first one leads to server, which has the keys of
	// identifier.
	relays     []*relay.Relay
	server     *redistest.Server
	identifier string
}

func relayedServer(t *testing.T) relayedRedis {
	t.Helper()
	server := redistest.Start(t)
	r := relay.Start(t, server.Addr())
	return relayedRedis{redis.Settings{Addresses: []string{r.Addr()}}, []*relay.Relay{r}, server, "id-1"}
}

func relayedTLSServer(t *testing.T) relayedRedis {
	t.Helper()
	c := newCertificate(t)
	server, address := redistest.StartTLS(t, c.certPath, c.keyPath, c.certPath)
	r := relay.Start(t, address)
	return relayedRedis{redis.Settings{Addresses: []string{r.Addr()}, TLS: c.config()}, []*relay.Relay{r}, server, "id-1"}
}

// relayedCluster starts a cluster whose nodes announce the addresses of the relays.
func relayedCluster(t *testing.T) relayedRedis {
	t.Helper()
	c := redistest.StartCluster(t, 0)
	d := relayedRedis{settings: redis.Settings{Cluster: true}, server: c.Masters[0]}
	d.identifier = identifierOn(t, c, d.server)
	for _, node := range c.Masters {
		r := relay.Start(t, node.Addr())
		d.relays = append(d.relays, r)
		d.settings.Addresses = append(d.settings.Addresses, r.Addr())
		_, port, _ := strings.Cut(r.Addr(), ":")
		node.Command(t, "CONFIG", "SET", "cluster-announce-port", port)
	}
	for _, node := range c.Masters {
		poll.Until(t, "nodes that know the addresses of the relays", func() bool {
			nodes := node.Command(t, "CLUSTER", "NODES")
			return !slices.ContainsFunc(d.settings.Addresses, func(a string) bool { return !strings.Contains(nodes, a+"@") })
		})
	}
	return d
}

// relayedMaster starts a master and Sentinels that announce the address of its relay.
func relayedMaster(t *testing.T) relayedRedis {
	t.Helper()
	s := redistest.StartSentinel(t, 0)
	d := relayedRedis{settings: redis.Settings{MasterName: redistest.MasterName}, server: s.Servers[0], identifier: "id-1"}
	d.relays = []*relay.Relay{relay.Start(t, d.server.Addr())}
	host, port, _ := strings.Cut(d.relays[0].Addr(), ":")
	for _, sentinel := range s.Sentinels {
		sentinel.Command(t, "SENTINEL", "REMOVE", redistest.MasterName)
		sentinel.Command(t, "SENTINEL", "MONITOR", redistest.MasterName, host, port, "2")
		r := relay.Start(t, sentinel.Addr())
		d.relays = append(d.relays, r)
		d.settings.Addresses = append(d.settings.Addresses, r.Addr())
	}
	return d
}

// set sets the fates of existing and future connections.
func (d *relayedRedis) set(open, next relay.Fate) {
	for _, r := range d.relays {
		r.Set(open, next)
	}
}

// shortTimeout is the timeout of tests in which calls have to wait for it.
const shortTimeout = 3 * time.Second

// admissions counts calls of AdmitDevice on a registration. Each call adds one to a counter on
// the server.
type admissions struct {
	s          *redis.Store
	identifier string
	// worked counts the calls that succeeded, lost those that were sent and failed.
	worked, lost atomic.Int32
}

func (a *admissions) admit(t *testing.T) error {
	t.Helper()
	_, ok, err := a.s.AdmitDevice(t.Context(), a.identifier, 1<<30)
	switch {
	case err == nil && ok:
		a.worked.Add(1)
	case err == nil:
		t.Error("the registration is gone")
	case !refusedByBreaker(err):
		a.lost.Add(1)
	}
	return err
}

// admitted returns how many calls the server carried out.
func (d *relayedRedis) admitted(t *testing.T, server *redistest.Server) int32 {
	t.Helper()
	count, err := strconv.ParseInt(server.Command(t, "HGET", "dsapp:{"+d.identifier+"}:reg", "n"), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int32(count)
}

// fillPool opens idle connections to the server of the first relay. On a busy machine, it may
// take calls longer than the timeout.
func (d *relayedRedis) fillPool(t *testing.T, connections int, timeout time.Duration) (goredis.UniversalClient, *admissions) {
	t.Helper()
	d.settings.PoolSize, d.settings.Timeout, d.settings.DialTimeout = connections, timeout, timeout
	client := newClient(t, d.settings)
	a := &admissions{s: redis.New(client, redis.Options{}), identifier: d.identifier}
	r := record(d.identifier)
	r.Kind = activation.KindAffinity
	poll.Until(t, "the registration", func() bool {
		_, ok, err := a.s.Create(t.Context(), r, activation.Generation{})
		return err == nil && ok
	})
	poll.Until(t, "a server that knows the script", func() bool { return a.admit(t) == nil })
	openConnections(t, client, "{"+d.identifier+"}", connections)
	if got := d.relays[0].Open(); got < connections {
		t.Fatalf("%d connections, want %d", got, connections)
	}
	return client, a
}

// However many connections were pooled when the network broke them, each caller loses at most
// one call, and none after an outage: the connections are not tried one after the other. No
// call is carried out twice.
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		start           func(*testing.T) relayedRedis
		pooled, callers int
	}{
		{"server", relayedServer, 10, 1},
		{"server", relayedServer, 60, 1},
		{"server", relayedServer, 60, 10},
		{"server with TLS", relayedTLSServer, 10, 1},
		{"node of a cluster", relayedCluster, 10, 1},
		{"master of Sentinels", relayedMaster, 10, 1},
	} {
		for name, fate := range map[string]relay.Fate{"held": relay.Hold, "reset": relay.Reset, "outage": relay.Hold} {
			t.Run(fmt.Sprint(tt.name, " ", tt.pooled, " ", tt.callers, " ", name), func(t *testing.T) {
				t.Parallel()
				d := tt.start(t)
				_, a := d.fillPool(t, tt.pooled, shortTimeout)
				before, most := a.lost.Load(), int32(tt.callers)
				if name == "outage" {
					d.set(fate, fate)
					for !refusedByBreaker(a.admit(t)) {
					}
					before, most = a.lost.Load(), 0
				}
				d.set(fate, relay.Forward)
				var callers sync.WaitGroup
				for range tt.callers {
					callers.Go(func() {
						poll.Until(t, "a store that works", func() bool { return a.admit(t) == nil })
					})
				}
				callers.Wait()
				for range tt.pooled {
					if err := a.admit(t); err != nil {
						t.Errorf("once it works: %v", err)
						break
					}
				}
				if got := a.lost.Load() - before; got > most {
					t.Errorf("%d calls failed, want %d", got, most)
				}
				d.relays[0].Deliver(t)
				least := a.worked.Load()
				if got := d.admitted(t, d.server); got < least || got > least+a.lost.Load() {
					t.Errorf("%d calls were carried out; %d worked, %d have no known outcome", got, least, a.lost.Load())
				}
			})
		}
	}
}

// moveMaster starts a new master, makes the old one its replica and moves the address to the
// new one, which it returns.
func moveMaster(t *testing.T, d *relayedRedis) (next *redistest.Server) {
	t.Helper()
	next = startReplica(t, d.server)
	next.Command(t, "REPLICAOF", "NO", "ONE")
	host, port, _ := strings.Cut(next.Addr(), ":")
	d.server.Command(t, "REPLICAOF", host, port)
	d.relays[0].Retarget(next.Addr())
	return next
}

// However many connections to a master were pooled when it became a replica and its address
// moved to the new master, no call fails, and none is carried out twice.
func TestMovedMaster(t *testing.T) {
	t.Parallel()
	for _, pooled := range []int{10, 60} {
		t.Run(fmt.Sprint(pooled), func(t *testing.T) {
			t.Parallel()
			d := relayedServer(t)
			_, a := d.fillPool(t, pooled, poll.Patience)
			next := moveMaster(t, &d)
			for range 2 * pooled {
				if err := a.admit(t); err != nil {
					t.Fatal(err)
				}
			}
			if got, want := d.admitted(t, next), a.worked.Load(); got != want {
				t.Errorf("%d calls were carried out, want %d", got, want)
			}
		})
	}
}

// Every call that the breaker admits tries to connect, also after more failures than PoolSize,
// so that the next call finds a server that is back.
func TestEveryCallConnects(t *testing.T) {
	t.Parallel()
	d := relayedTLSServer(t)
	_, a := d.fillPool(t, 1, shortTimeout)
	d.set(relay.Hold, relay.Hold)
	_ = a.admit(t) // uses the existing connection
	for {
		before := d.relays[0].Open()
		if refusedByBreaker(a.admit(t)) {
			return
		}
		if d.relays[0].Open() == before {
			t.Error("a call was lost without an attempt to connect")
		}
	}
}

// If a server is read-only, the call is sent once more, on a new connection, and then fails.
func TestReadOnlyIsRetriedOnce(t *testing.T) {
	t.Parallel()
	d := relayedServer(t)
	_, a := d.fillPool(t, 10, poll.Patience)
	d.server.Command(t, "CONFIG", "RESETSTAT")
	d.server.Command(t, "REPLICAOF", "127.0.0.1", "1")
	if err := a.admit(t); !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("error %v", err)
	}
	if got := stat(t, d.server, "evalsha"); got != "2" {
		t.Errorf("asked %s times, want 2", got)
	}
}

// Of several scripts sent at the same time, only those are sent again that the server refused.
func TestOnlyRefusedScriptsAreRepeated(t *testing.T) {
	t.Parallel()
	d := relayedServer(t)
	client, _ := d.fillPool(t, 1, poll.Patience)
	s := redis.New(client, redis.Options{})
	claim := ownership.Claim{Key: "1", Token: ownership.Token{1}, Owner: []byte("sealed owner")}
	if won, err := s.Claim(t.Context(), ownership.Login, claim, serialNumber, time.Minute); err != nil || !won {
		t.Fatalf("claim: %v, error %v", won, err)
	}
	next := moveMaster(t, &d)
	next.Command(t, "CONFIG", "RESETSTAT")
	// The replica can read that another owner has the request. It cannot write the list.
	claim.Token = ownership.Token{2}
	if won, err := s.Claim(t.Context(), ownership.Login, claim, serialNumber, time.Minute); err != nil || won {
		t.Fatalf("claim of another: %v, error %v", won, err)
	}
	// The new master does not know the hashes of the scripts.
	if got := stat(t, next, "eval"); got != "2" {
		t.Errorf("%s scripts on the next master, want those that add the claim to the list and remove it", got)
	}
}
