package redis_test

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// TestMain discards the log of go-redis. It runs more tests in parallel than there are CPUs,
// because most of the time they wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0))); err != nil {
		panic(err)
	}
	redis.SetLog(func(context.Context, string) {})
	os.Exit(m.Run())
}

// deployment is a running server, cluster, or master with Sentinels.
type deployment struct {
	settings redis.Settings
	// masters are the servers that have keys.
	masters []*redistest.Server
}

// deployments starts one deployment of each kind.
func deployments(t *testing.T) map[string]deployment {
	t.Helper()
	server := redistest.Start(t)
	cluster := redistest.StartCluster(t, 0)
	// Without a replica there is no failover when the master hangs.
	sentinel := redistest.StartSentinel(t, 0)
	return map[string]deployment{
		"single":  {redis.Settings{Addresses: []string{server.Addr()}}, []*redistest.Server{server}},
		"cluster": {redis.Settings{Addresses: cluster.Addresses(), Cluster: true}, cluster.Masters},
		"sentinel": {
			redis.Settings{Addresses: sentinel.Addresses(), MasterName: redistest.MasterName}, sentinel.Servers[:1],
		},
	}
}

// The store passes the conformance suites in every deployment. The stores of the suites share
// the servers and have different key prefixes.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, d := range deployments(t) {
		client := newClient(t, d.settings)
		var n atomic.Int32
		open := func(gather time.Duration) gathering {
			s := redis.New(client, redis.Options{
				KeyPrefix: fmt.Sprintf("store-%d", n.Add(1)), MaxSimulated: storetest.MaxSimulated, Gather: gather,
			})
			s.SettleAtOnce() // Nothing is delayed on other nodes.
			return gathering{s}
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(*testing.T) activation.Store { return open(0) })
		})
		for kind, gather := range map[string]time.Duration{"": 0, ", delayed": time.Hour} {
			t.Run(name+" ownership"+kind, func(t *testing.T) {
				t.Parallel()
				storetest.RunOwnership(t, func(*testing.T) ownership.Store { return open(gather) })
			})
			t.Run(name+" repeats"+kind, func(t *testing.T) {
				t.Parallel()
				storetest.RunRepeats(t, func(*testing.T) storetest.RepeatStore { return open(gather) })
			})
		}
	}
}

// counter counts round trips and their commands.
type counter struct{ trips, commands atomic.Int32 }

func (c *counter) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (c *counter) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		c.trips.Add(1)
		c.commands.Add(1)
		return next(ctx, cmd)
	}
}

func (c *counter) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		c.trips.Add(1)
		c.commands.Add(int32(len(cmds)))
		return next(ctx, cmds)
	}
}

// testRoundTrips, testSentOnce and testSimulated hold in every deployment.
func TestDeployments(t *testing.T) {
	t.Parallel()
	for name, d := range deployments(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRoundTrips(t, d)
			testSentOnce(t, d)
			testSimulated(t, d)
		})
	}
}

// testRoundTrips checks that every method takes one round trip, and one more after SCRIPT FLUSH,
// when the servers do not know the scripts. SimulationSecret takes one more for the format, and
// Claim if another owner has the request. In a cluster, Claim sends to one or two nodes at the
// same time. A method sends one command for each slot.
func testRoundTrips(t *testing.T, d deployment) {
	t.Helper()
	client := newClient(t, d.settings)
	s := redis.New(client, redis.Options{})
	count := &counter{}
	cluster, isCluster := client.(*goredis.ClusterClient)
	if isCluster {
		cluster.OnNewNode(func(node *goredis.Client) { node.AddHook(count) })
	} else {
		client.AddHook(count)
	}
	// The first calls also connect and ask for the addresses of servers.
	for _, c := range calls(s, "id-1") {
		if err := c.call(t.Context()); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	for _, flush := range []bool{false, true} {
		for _, server := range d.masters {
			server.FlushAll(t)
			if flush {
				server.Command(t, "SCRIPT", "FLUSH")
			}
		}
		for _, c := range calls(s, "id-1") {
			s.ExpireWrites()
			before, commandsBefore := count.trips.Load(), count.commands.Load()
			if err := c.call(t.Context()); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			trips, nodes, commands := int32(1), int32(1), int32(1)
			switch c.name {
			case "Reserve":
				nodes = int32(len(d.masters))
				commands = 2 * nodes // a placeholder is written twice
				if flush {
					trips++
				}
			case "SimulationSecret": // reads the format first, which another node may have
				trips, nodes, commands = 2, 2, 2
				if flush {
					trips++
				}
			case "Owner", "Kept": // need no script
			case "Forget": // has the script of Release
			case "ReturnConfirmation": // has the script of ReturnDevice
			case "Claim", "KeepClaim", "Release", "KeepRelease": // the list may be on another node
				nodes, commands = 2, 2
				if flush {
					trips++
				}
			case "Claim of another": // has the scripts of Claim and one of its own
				nodes, commands = 2, 3
				trips++
				if flush {
					trips++
				}
			default:
				if flush {
					trips++
				}
			}
			most := trips
			if isCluster {
				most *= nodes
			}
			if c.name == "Reserve" && isCluster {
				most++ // it may read the list of masters
			}
			if got := count.trips.Load() - before; got < trips || got > most {
				t.Errorf("%s, scripts forgotten %v: %d round trips, want %d", c.name, flush, got, trips)
			}
			if got := count.commands.Load() - commandsBefore; !flush && c.name != "Create" && got != commands {
				t.Errorf("%s: %d commands, want %d", c.name, got, commands)
			}
		}
	}
}

// testSentOnce checks that a Take to a server that hangs is not repeated on another connection.
func testSentOnce(t *testing.T, d deployment) {
	t.Helper()
	d.settings.Timeout = time.Second
	client := newClient(t, d.settings)
	s := redis.New(client, redis.Options{})
	r := record("id-1")
	for _, server := range d.masters {
		server.FlushAll(t)
	}
	create(t, s, r)
	put(t, s, "id-1", handshake(r))
	openConnections(t, client, "dsapp:{id-1}:reg", 4)
	var master *redistest.Server
	before := map[*redistest.Server]string{}
	for _, server := range d.masters {
		before[server] = stat(t, server, "evalsha")
		if len(keys(t, server)) > 0 {
			master = server
		}
	}
	master.Freeze(t)
	if _, ok, err := s.Take(t.Context(), "id-1", activation.Token{2}, activation.Tag{}, 3); !errors.Is(err, activation.ErrUnavailable) || ok {
		t.Errorf("take: %v, error %v", ok, err)
	}
	master.Thaw(t)
	poll.Until(t, "the attempt", func() bool {
		return master.Command(t, "HGET", "dsapp:{id-1}:reg", "r") == "1"
	})
	for server, n := range before {
		was, _ := strconv.Atoi(n)
		got, _ := strconv.Atoi(stat(t, server, "evalsha"))
		if want := was + map[bool]int{true: 1}[server == master]; got != want {
			t.Errorf("%d scripts were run, want %d", got-was, want-was)
		}
	}
}

// openConnections opens idle connections in the pool of the server that has the key.
func openConnections(t *testing.T, client goredis.UniversalClient, key string, connections int) {
	t.Helper()
	node, _ := client.(*goredis.Client)
	if cluster, ok := client.(*goredis.ClusterClient); ok {
		var err error
		if node, err = cluster.MasterForKey(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	var open []*goredis.Conn
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	for range connections {
		poll.Until(t, "a connection", func() bool {
			conn := node.Conn()
			if conn.Ping(t.Context()).Err() != nil {
				conn.Close()
				return false
			}
			open = append(open, conn)
			return true
		})
	}
}

// testSimulated checks that identifiers beyond MaxSimulated share one key.
func testSimulated(t *testing.T, d deployment) {
	t.Helper()
	for _, server := range d.masters {
		server.FlushAll(t)
	}
	s := redis.New(newClient(t, d.settings), redis.Options{MaxSimulated: 8})
	for i := range 40 {
		put(t, s, fmt.Sprintf("unknown-%d", i), simulated())
	}
	for i := range 40 {
		take(t, s, fmt.Sprintf("unknown-%d", i), activation.Token{1}, 3, i < 8)
	}
	var found []string
	for _, server := range d.masters {
		found = append(found, keys(t, server)...)
	}
	if len(found) != 9 || !slices.Contains(found, "dsapp:{~}:hs") {
		t.Errorf("%d keys: %v", len(found), found)
	}
}

// A reservation that was written within writeValidity is used again without a write, so that
// registering takes one round trip under load. Two registrations never use the same
// reservation at the same time.
func TestReservationsAreReused(t *testing.T) {
	t.Parallel()
	s, server, client := newStore(t)
	count := &counter{}
	client.AddHook(count)
	reserved := func() (release func()) {
		t.Helper()
		release, err := s.Reserve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return release
	}
	registered := func(trips int32, identifier string) {
		t.Helper()
		count.trips.Store(0)
		release := reserved()
		defer release()
		create(t, s, record(identifier))
		if got := count.trips.Load(); got != trips {
			t.Errorf("%s: %d round trips, want %d", identifier, got, trips)
		}
	}
	s.StopClock()
	// From here on the server knows the scripts.
	release := reserved()
	create(t, s, record("id-1"))
	release()
	registered(1, "id-2")
	registered(1, "id-3")
	other := reserved()
	registered(2, "id-4")
	other()
	registered(1, "id-5")
	s.ExpireWrites()
	registered(2, "id-6")
	// After a failure, the next reservation is written again.
	server.Command(t, "SET", "dsapp:{id-7}:reg", "something else")
	release = reserved()
	if _, _, err := s.Create(t.Context(), record("id-7"), activation.Generation{}); err == nil {
		t.Fatal("created over another program's value")
	}
	release()
	registered(2, "id-8")
	if got := len(placeholders(t, server)); got != 2 {
		t.Errorf("%d placeholders, want those of two registrations", got)
	}
}

// placeholders returns the keys of placeholders on a server.
func placeholders(t *testing.T, server *redistest.Server) []string {
	t.Helper()
	return slices.DeleteFunc(keys(t, server), func(key string) bool { return !strings.Contains(key, ":room:") })
}

// If the store is configured for another kind of deployment, its error says what is wrong. It
// mentions Sentinels only if some are configured.
func TestWrongDeployment(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	cluster := redistest.StartCluster(t, 0)
	sentinel := redistest.StartSentinel(t, 0)
	for _, tt := range []struct {
		name, want string
		settings   redis.Settings
	}{
		{"node as a server", "the server is a node of a cluster", redis.Settings{Addresses: cluster.Addresses()[:1]}},
		{"Sentinel as a server", "EVALSHA (is this a Redis server", redis.Settings{Addresses: sentinel.Addresses()[:1]}},
		{"Sentinel as a node", "CLUSTER (is this a Redis server", redis.Settings{Addresses: sentinel.Addresses()[:1], Cluster: true}},
		{"server as a Sentinel", "the server is no Sentinel", redis.Settings{Addresses: []string{server.Addr()}, MasterName: redistest.MasterName}},
		{"server without TLS", "does the server speak TLS?", redis.Settings{
			Addresses: []string{server.Addr()}, TLS: &tls.Config{MinVersion: tls.VersionTLS12}, DialTimeout: 100 * time.Millisecond,
		}},
		{"server as a node", "cluster support disabled", redis.Settings{Addresses: []string{server.Addr()}, Cluster: true}},
	} {
		s := redis.New(newClient(t, tt.settings), redis.Options{})
		// A node of a cluster has some of the identifiers.
		var err error
		for i := 0; i < 64 && err == nil; i++ {
			_, _, err = s.Load(t.Context(), fmt.Sprintf("id-%d", i))
		}
		if !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "Sentinel") && tt.settings.MasterName == "" {
			t.Errorf("%s: error %v speaks of Sentinels, and none are configured", tt.name, err)
		}
	}
}

// stat returns the number of calls of a command that a server has carried out.
func stat(t *testing.T, server *redistest.Server, command string) string {
	t.Helper()
	_, rest, found := strings.Cut(server.Command(t, "INFO", "commandstats"), "cmdstat_"+command+":calls=")
	if !found {
		return "0"
	}
	calls, _, _ := strings.Cut(rest, ",")
	return calls
}
