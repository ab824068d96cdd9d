package redistest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

const (
	masters = 3
	// slots is the number of slots of every cluster.
	slots = 16384
	// nodeTimeout is the time in milliseconds after which a node that does not answer
	// counts as failed.
	nodeTimeout = "2000"
)

// Cluster is a running Redis cluster of three masters, each with the same number
// of replicas.
type Cluster struct {
	// Masters are the nodes that were masters at first. They have equal parts of the slots,
	// in this order.
	Masters []*Server
	// Replicas are the replicas of the masters, in the order of the masters.
	Replicas []*Server
}

// StartCluster starts a cluster with the given number of replicas for each master. It waits
// until all nodes know each other and all slots are served. It needs Redis 7. The cluster is
// stopped when the test and its subtests are over.
func StartCluster(tb testing.TB, replicas int) *Cluster {
	tb.Helper()
	nodes := make([]*Server, masters*(1+replicas))
	buses := make([]string, len(nodes))
	for i := range nodes {
		nodes[i] = startFree(tb, func(port string) []string {
			// The default of the bus port, port+10000, may be taken or too high.
			buses[i] = freePort(tb)
			return append(arguments(port),
				"--cluster-enabled", "yes", "--cluster-port", buses[i], "--cluster-node-timeout", nodeTimeout)
		})
	}
	c := &Cluster{Masters: nodes[:masters], Replicas: nodes[masters:]}
	for i, node := range nodes {
		node.Command(tb, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		if i < masters {
			first, next := i*slots/masters, (i+1)*slots/masters
			node.Command(tb, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(first), strconv.Itoa(next-1))
		}
		if i > 0 {
			nodes[0].Command(tb, "CLUSTER", "MEET", loopback, node.port(), buses[i])
		}
	}
	c.waitForInfo(tb, "nodes that know each other", "cluster_known_nodes:"+strconv.Itoa(len(nodes)))
	for i, replica := range c.Replicas {
		master := c.Masters[i/replicas].Command(tb, "CLUSTER", "MYID")
		poll.Until(tb, "a replica that knows its master", func() bool {
			_, err := replica.command("CLUSTER", "REPLICATE", master)
			return err == nil
		})
	}
	c.waitForInfo(tb, "a cluster that is up", "cluster_state:ok", "cluster_slots_ok:"+strconv.Itoa(slots))
	for _, node := range c.Masters {
		poll.Until(tb, "replicas that are up to date", func() bool {
			return strings.Count(node.Command(tb, "INFO", "replication"), "state=online") == replicas
		})
		poll.Until(tb, "a table of slots with all replicas", func() bool {
			return strings.Count(node.Command(tb, "CLUSTER", "NODES"), " slave ") == len(c.Replicas)
		})
	}
	return c
}

// waitForInfo waits until CLUSTER INFO of every node has all lines of want.
func (c *Cluster) waitForInfo(tb testing.TB, what string, want ...string) {
	tb.Helper()
	for _, nodes := range [][]*Server{c.Masters, c.Replicas} {
		for _, node := range nodes {
			poll.Until(tb, what, func() bool {
				info := node.Command(tb, "CLUSTER", "INFO")
				for _, line := range want {
					if !strings.Contains(info, line+"\r\n") {
						return false
					}
				}
				return true
			})
		}
	}
}

// Addresses returns the addresses of the masters.
func (c *Cluster) Addresses() []string { return addresses(c.Masters) }

// Slot returns the slot of a key.
func (c *Cluster) Slot(tb testing.TB, key string) int {
	tb.Helper()
	n, err := strconv.Atoi(c.Masters[0].Command(tb, "CLUSTER", "KEYSLOT", key))
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// Master returns the server of Masters that had the slot at first.
func (c *Cluster) Master(slot int) *Server {
	for i := range c.Masters {
		if slot < (i+1)*slots/masters {
			return c.Masters[i]
		}
	}
	panic(fmt.Sprintf("no such slot: %d", slot))
}

// Migration is the migration of a slot from one master to another.
type Migration struct {
	slot     string
	from, to *Server
}

// Migrate begins to migrate a slot. From now on, from answers ASK for keys that it does not
// have.
func (c *Cluster) Migrate(tb testing.TB, slot int, from, to *Server) *Migration {
	tb.Helper()
	m := &Migration{slot: strconv.Itoa(slot), from: from, to: to}
	to.Command(tb, "CLUSTER", "SETSLOT", m.slot, "IMPORTING", from.Command(tb, "CLUSTER", "MYID"))
	from.Command(tb, "CLUSTER", "SETSLOT", m.slot, "MIGRATING", to.Command(tb, "CLUSTER", "MYID"))
	return m
}

// Move moves the keys of the slot.
func (m *Migration) Move(tb testing.TB) {
	tb.Helper()
	for key := range strings.FieldsSeq(m.from.Command(tb, "CLUSTER", "GETKEYSINSLOT", m.slot, "1000")) {
		m.from.Command(tb, "MIGRATE", loopback, m.to.port(), key, "0", "5000")
	}
}

// Finish assigns the slot to its new master. The other nodes learn that from these two.
func (m *Migration) Finish(tb testing.TB) {
	tb.Helper()
	id := m.to.Command(tb, "CLUSTER", "MYID")
	m.to.Command(tb, "CLUSTER", "SETSLOT", m.slot, "NODE", id)
	m.from.Command(tb, "CLUSTER", "SETSLOT", m.slot, "NODE", id)
}

func addresses(servers []*Server) []string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.addr
	}
	return list
}
