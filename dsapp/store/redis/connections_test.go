package redis_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
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
)

// What a way does with what clients send.
const (
	forwards = iota
	forgets  // keeps it back
	resets   // and ends the connection
)

// way is the network on the way to a server.
type way struct {
	listener net.Listener

	wg    sync.WaitGroup
	mu    sync.Mutex
	flows map[*flow]bool
	// target and does are those of connections that are made from now on.
	target string
	does   int
}

// flow is a connection.
type flow struct {
	client, server *net.TCPConn
	answers        sync.WaitGroup // the server's

	does int    // under the way's mu
	kept []byte // under the way's mu
}

func newWay(t *testing.T, target string) *way {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{listener: listener, target: target, flows: map[*flow]bool{}}
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		listener.Close()
		w.mu.Lock()
		for f := range w.flows {
			f.client.Close()
			f.server.Close()
		}
		w.mu.Unlock()
		w.wg.Wait()
	})
	return w
}

func (w *way) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		if server, err := net.Dial("tcp", w.target); err == nil {
			f := &flow{client: client.(*net.TCPConn), server: server.(*net.TCPConn), does: w.does}
			w.flows[f] = true
			f.answers.Go(func() {
				_, _ = io.Copy(f.client, f.server)
				f.client.Close()
			})
			w.wg.Go(func() { w.carry(f) })
		} else {
			client.Close()
		}
		w.mu.Unlock()
	}
}

// carry takes to the server what the client sends.
func (w *way) carry(f *flow) {
	defer f.answers.Wait()
	buffer := make([]byte, 4096)
	for {
		n, err := f.client.Read(buffer)
		w.mu.Lock()
		switch {
		case f.does == forgets:
			f.kept = append(f.kept, buffer[:n]...)
		case f.does == resets && n > 0:
			_ = f.client.SetLinger(0)
			f.client.Close()
			err = net.ErrClosed
		case err == nil:
			_, err = f.server.Write(buffer[:n])
		}
		if err != nil && f.does != forgets {
			f.server.Close()
			delete(w.flows, f)
		}
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// set changes what becomes of connections.
func (w *way) set(existing, next int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.does = next
	for f := range w.flows {
		f.does = existing
	}
}

// open is how many connections there are.
func (w *way) open() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.flows)
}

// deliver takes to the server what was kept back, when it is no more use to anybody, and
// waits until it was carried out.
func (w *way) deliver(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	flows := slices.Collect(maps.Keys(w.flows))
	w.mu.Unlock()
	for _, f := range flows {
		w.mu.Lock()
		kept := f.kept
		w.mu.Unlock()
		if len(kept) == 0 {
			continue
		}
		if _, err := f.server.Write(kept); err != nil {
			t.Error(err)
		}
		// The server closes its side when it has done everything.
		if err := f.server.CloseWrite(); err != nil {
			t.Error(err)
		}
		f.answers.Wait()
	}
}

// network is Redis behind ways.
type network struct {
	settings redis.Settings
	// ways are all there are. The first one leads to server, which has what belongs to
	// identifier.
	ways       []*way
	server     *redistest.Server
	identifier string
}

// ofOne is the network of a single server.
func ofOne(t *testing.T) network {
	t.Helper()
	server := redistest.Start(t)
	w := newWay(t, server.Addr())
	return network{redis.Settings{Addresses: []string{w.address()}}, []*way{w}, server, "id-1"}
}

// ofTLS is that of a single server with TLS.
func ofTLS(t *testing.T) network {
	t.Helper()
	c := newCertificate(t)
	server, address := redistest.StartTLS(t, c.certPath, c.keyPath, c.certPath)
	w := newWay(t, address)
	return network{redis.Settings{Addresses: []string{w.address()}, TLS: c.config()}, []*way{w}, server, "id-1"}
}

// ofCluster is that of a cluster, whose nodes tell the addresses of the ways.
func ofCluster(t *testing.T) network {
	t.Helper()
	c := redistest.StartCluster(t, 0)
	n := network{settings: redis.Settings{Cluster: true}, server: c.Masters[0]}
	for i := 0; n.identifier == "" || c.Master(c.Slot(t, "{"+n.identifier+"}")) != n.server; i++ {
		n.identifier = fmt.Sprintf("id-%d", i)
	}
	for _, node := range c.Masters {
		w := newWay(t, node.Addr())
		n.ways = append(n.ways, w)
		n.settings.Addresses = append(n.settings.Addresses, w.address())
		_, port, _ := strings.Cut(w.address(), ":")
		node.Command(t, "CONFIG", "SET", "cluster-announce-port", port)
	}
	for _, node := range c.Masters {
		eventually(t, "nodes that know the ways", func() bool {
			table := node.Command(t, "CLUSTER", "NODES")
			return !slices.ContainsFunc(n.settings.Addresses, func(a string) bool { return !strings.Contains(table, a+"@") })
		})
	}
	return n
}

// ofSentinels is that of a master and of the Sentinels that tell where the way to it is.
func ofSentinels(t *testing.T) network {
	t.Helper()
	s := redistest.StartSentinel(t, 0)
	n := network{settings: redis.Settings{MasterName: redistest.MasterName}, server: s.Servers[0], identifier: "id-1"}
	n.ways = []*way{newWay(t, n.server.Addr())}
	host, port, _ := strings.Cut(n.ways[0].address(), ":")
	for _, sentinel := range s.Sentinels {
		sentinel.Command(t, "SENTINEL", "REMOVE", redistest.MasterName)
		sentinel.Command(t, "SENTINEL", "MONITOR", redistest.MasterName, host, port, "2")
		w := newWay(t, sentinel.Addr())
		n.ways = append(n.ways, w)
		n.settings.Addresses = append(n.settings.Addresses, w.address())
	}
	return n
}

func (w *way) address() string { return w.listener.Addr().String() }

// set changes what becomes of connections.
func (n *network) set(existing, next int) {
	for _, w := range n.ways {
		w.set(existing, next)
	}
}

// admissions counts what is done on a registration: each call adds one.
type admissions struct {
	s          *redis.Store
	identifier string
	// worked are the calls that worked, lost those that were made and failed.
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
	case !refusedAtOnce(err):
		a.lost.Add(1)
	}
	return err
}

// admitted is how often the server did what the calls ask for.
func (n *network) admitted(t *testing.T, server *redistest.Server) int32 {
	t.Helper()
	count, err := strconv.ParseInt(server.Command(t, "HGET", "dsapp:{"+n.identifier+"}:reg", "n"), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int32(count)
}

// pool opens idle connections to the server that the first way leads to.
func (n *network) pool(t *testing.T, connections int) (goredis.UniversalClient, *admissions) {
	t.Helper()
	const timeout = redis.DefaultTimeout
	n.settings.PoolSize, n.settings.Timeout, n.settings.DialTimeout = connections, timeout, timeout
	client := newClient(t, n.settings)
	a := &admissions{s: redis.New(client, redis.Options{}), identifier: n.identifier}
	r := record(n.identifier)
	r.Kind = activation.KindAffinity
	create(t, a.s, r)
	if err := a.admit(t); err != nil { // the server knows the script from here on
		t.Fatal(err)
	}
	openConnections(t, client, "{"+n.identifier+"}", connections)
	if got := n.ways[0].open(); got < connections {
		t.Fatalf("%d connections, want %d", got, connections)
	}
	return client, a
}

// However many connections were pooled when the network forgot them, callers lose one call
// each at most, and none after an outage: the connections are not tried one by one. Nothing
// is done twice.
func TestForgottenConnections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name            string
		network         func(*testing.T) network
		pooled, callers int
	}{
		{"server", ofOne, 10, 1},
		{"server", ofOne, 60, 1},
		{"server", ofOne, 60, 10},
		{"server with TLS", ofTLS, 10, 1},
		{"node of a cluster", ofCluster, 10, 1},
		{"master of Sentinels", ofSentinels, 10, 1},
	} {
		for name, does := range map[string]int{"forgotten": forgets, "reset": resets, "outage": forgets} {
			t.Run(fmt.Sprint(tt.name, " ", tt.pooled, " ", tt.callers, " ", name), func(t *testing.T) {
				t.Parallel()
				n := tt.network(t)
				_, a := n.pool(t, tt.pooled)
				before, most := int32(0), int32(tt.callers)
				if name == "outage" {
					n.set(does, does)
					for !refusedAtOnce(a.admit(t)) {
					}
					before, most = a.lost.Load(), 0
				}
				n.set(does, forwards)
				var callers sync.WaitGroup
				for range tt.callers {
					callers.Go(func() {
						eventually(t, "a store that works", func() bool { return a.admit(t) == nil })
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
				n.ways[0].deliver(t)
				least := a.worked.Load()
				if got := n.admitted(t, n.server); got < least || got > least+a.lost.Load() {
					t.Errorf("%d calls were carried out; %d worked, %d have no known outcome", got, least, a.lost.Load())
				}
			})
		}
	}
}

// moved is a server that became a replica of the one that its address leads to from now on.
func moved(t *testing.T, n *network) (next *redistest.Server) {
	t.Helper()
	of := func(s *redistest.Server) (host, port string) {
		host, port, _ = strings.Cut(s.Addr(), ":")
		return host, port
	}
	host, port := of(n.server)
	next = redistest.Start(t, "--replicaof", host+" "+port)
	eventually(t, "the replica", func() bool {
		return strings.Contains(n.server.Command(t, "INFO", "replication"), "state=online")
	})
	next.Command(t, "REPLICAOF", "NO", "ONE")
	host, port = of(next)
	n.server.Command(t, "REPLICAOF", host, port)
	w := n.ways[0]
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target = next.Addr()
	return next
}

// However many connections were pooled to a master that became a replica, no call fails
// once its address leads to the next master, and nothing is done twice.
func TestMovedMaster(t *testing.T) {
	t.Parallel()
	for _, pooled := range []int{10, 60} {
		t.Run(fmt.Sprint(pooled), func(t *testing.T) {
			t.Parallel()
			n := ofOne(t)
			_, a := n.pool(t, pooled)
			next := moved(t, &n)
			for range 2 * pooled {
				if err := a.admit(t); err != nil {
					t.Fatal(err)
				}
			}
			if got, want := n.admitted(t, next), a.worked.Load(); got != want {
				t.Errorf("%d calls were carried out, want %d", got, want)
			}
		})
	}
}

// Every call that is made tries to connect, also after more failures than there may be
// connections: a server that is back is found by the next one.
func TestEveryCallConnects(t *testing.T) {
	t.Parallel()
	n := ofTLS(t)
	_, a := n.pool(t, 1)
	n.set(forgets, forgets)
	_ = a.admit(t) // on the connection that there was
	for {
		before := n.ways[0].open()
		if refusedAtOnce(a.admit(t)) {
			return
		}
		if n.ways[0].open() == before {
			t.Error("a call was lost without an attempt to connect")
		}
	}
}

// A server that takes no writes is asked twice, and then the call fails.
func TestReplicaIsAskedTwice(t *testing.T) {
	t.Parallel()
	n := ofOne(t)
	_, a := n.pool(t, 10)
	n.server.Command(t, "CONFIG", "RESETSTAT")
	n.server.Command(t, "REPLICAOF", "127.0.0.1", "1")
	if err := a.admit(t); !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("error %v", err)
	}
	if got := stat(t, n.server, "evalsha"); got != "2" {
		t.Errorf("asked %s times, want 2", got)
	}
}

// Of several scripts that go at once, only those go again that the server refused to
// carry out.
func TestOnlyRefusedGoAgain(t *testing.T) {
	t.Parallel()
	n := ofOne(t)
	client, _ := n.pool(t, 1)
	s := redis.New(client, redis.Options{})
	claim := ownership.Claim{Key: "1", Token: ownership.Token{1}, Owner: []byte("sealed owner")}
	if won, err := s.Claim(t.Context(), ownership.Login, claim, serialNumber, time.Minute); err != nil || !won {
		t.Fatalf("claim: %v, error %v", won, err)
	}
	next := moved(t, &n)
	next.Command(t, "CONFIG", "RESETSTAT")
	// The replica knows that the request is another's. The list it cannot write.
	claim.Token = ownership.Token{2}
	if won, err := s.Claim(t.Context(), ownership.Login, claim, serialNumber, time.Minute); err != nil || won {
		t.Fatalf("claim of another: %v, error %v", won, err)
	}
	// The next master does not know the scripts by their hashes.
	if got := stat(t, next, "eval"); got != "2" {
		t.Errorf("%s scripts on the next master, want those that list the claim and take it off", got)
	}
}
