package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

const (
	// MasterName is the name under which the Sentinels watch the master.
	MasterName = "main"
	sentinels  = 3
	// downAfter is the time in milliseconds after which a server that does not answer
	// counts as down.
	downAfter = "500"
	// failoverTimeout is half of the time in milliseconds after which Sentinels repeat a
	// failover that did not succeed.
	failoverTimeout = "2000"
)

// Sentinel is a running master with replicas, and the Sentinels that watch them.
type Sentinel struct {
	// Servers are the server that was the master at first, and the replicas.
	Servers []*Server
	// Sentinels are the three Sentinels.
	Sentinels []*Server
}

// StartSentinel starts a master with the given number of replicas, and three Sentinels. It
// waits until the replicas are up to date and every Sentinel knows all servers and Sentinels.
// It needs Redis 7. Everything is stopped when the test and its subtests are over.
func StartSentinel(tb testing.TB, replicas int) *Sentinel {
	tb.Helper()
	master := Start(tb)
	s := &Sentinel{Servers: []*Server{master}}
	for range replicas {
		s.Servers = append(s.Servers, Start(tb, "--replicaof", loopback+" "+master.port()))
	}
	poll.Until(tb, "replicas that are up to date", func() bool {
		return strings.Count(master.Command(tb, "INFO", "replication"), "state=online") == replicas
	})
	for range sentinels {
		sentinel := startSentinel(tb, master.port())
		// This shortens the intervals in which Sentinels exchange what they know.
		sentinel.Command(tb, "SENTINEL", "DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "100", "ASK-PERIOD", "100")
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	for _, sentinel := range s.Sentinels {
		poll.Until(tb, "a Sentinel that knows everything", func() bool {
			known := "," + strings.ReplaceAll(sentinel.Command(tb, "SENTINEL", "MASTER", MasterName), "\n", ",") + ","
			return strings.Contains(known, fmt.Sprintf(",num-slaves,%d,", replicas)) &&
				strings.Contains(known, fmt.Sprintf(",num-other-sentinels,%d,", sentinels-1)) &&
				strings.Contains(known, ",flags,master,")
		})
	}
	return s
}

// startSentinel starts a Sentinel that watches the master on the given port.
func startSentinel(tb testing.TB, master string) *Server {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "sentinel.conf")
	return startFree(tb, func(port string) []string {
		configuration := []string{
			"bind " + loopback,
			"port " + port,
			"sentinel monitor " + MasterName + " " + loopback + " " + master + " 2",
			"sentinel down-after-milliseconds " + MasterName + " " + downAfter,
			"sentinel failover-timeout " + MasterName + " " + failoverTimeout,
			"sentinel parallel-syncs " + MasterName + " 10",
		}
		if err := os.WriteFile(path, []byte(strings.Join(configuration, "\n")+"\n"), 0o600); err != nil {
			tb.Fatal(err)
		}
		return []string{path, "--sentinel"}
	})
}

// Addresses returns the addresses of the Sentinels.
func (s *Sentinel) Addresses() []string { return addresses(s.Sentinels) }

// Master waits until all running Sentinels agree on a master other than previous, which may be
// nil, and returns it.
func (s *Sentinel) Master(tb testing.TB, previous *Server) *Server {
	tb.Helper()
	var master *Server
	poll.Until(tb, "Sentinels that agree on a master", func() bool {
		addresses := map[string]bool{}
		for _, sentinel := range s.Sentinels {
			if !sentinel.running() {
				continue
			}
			host, port, _ := strings.Cut(sentinel.Command(tb, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName), "\n")
			addresses[net.JoinHostPort(host, port)] = true
		}
		for _, server := range s.Servers {
			if len(addresses) == 1 && addresses[server.addr] && server != previous {
				master = server
				return strings.Contains(server.Command(tb, "INFO", "replication"), "role:master")
			}
		}
		return false
	})
	return master
}
