package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	// MasterName is how Sentinels call the master.
	MasterName = "main"
	sentinels  = 3
	// downAfter is how long Sentinels wait for an answer before they take a server
	// for dead, in milliseconds.
	downAfter = "500"
	// failoverTimeout is half of the time after which Sentinels try a failover again
	// that did not succeed, in milliseconds.
	failoverTimeout = "2000"
)

// Sentinel is a running master with replicas, and the Sentinels that watch them.
type Sentinel struct {
	// Servers are the master and the replicas, the first master first.
	Servers []*Server
	// Sentinels are three.
	Sentinels []*Server
}

// StartSentinel starts a master with that many replicas and three Sentinels, and
// waits until the replicas are up to date and the Sentinels know each other and
// them. It needs version 7 of Redis. Everything is stopped when the test and its
// subtests are over.
func StartSentinel(tb testing.TB, replicas int) *Sentinel {
	tb.Helper()
	master := Start(tb)
	s := &Sentinel{Servers: []*Server{master}}
	for range replicas {
		s.Servers = append(s.Servers, Start(tb, "--replicaof", loopback+" "+master.port()))
	}
	await(tb, "replicas that are up to date", func() bool {
		return strings.Count(master.Command(tb, "INFO", "replication"), "state=online") == replicas
	})
	for range sentinels {
		sentinel := startSentinel(tb, master.port())
		// Everything that they learn from time to time, they learn sooner.
		sentinel.Command(tb, "SENTINEL", "DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "100", "ASK-PERIOD", "100")
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	for _, sentinel := range s.Sentinels {
		await(tb, "a Sentinel that knows everything", func() bool {
			known := "," + strings.ReplaceAll(sentinel.Command(tb, "SENTINEL", "MASTER", MasterName), "\n", ",") + ","
			return strings.Contains(known, fmt.Sprintf(",num-slaves,%d,", replicas)) &&
				strings.Contains(known, fmt.Sprintf(",num-other-sentinels,%d,", sentinels-1)) &&
				strings.Contains(known, ",flags,master,")
		})
	}
	return s
}

// startSentinel starts a Sentinel that watches the master on a port.
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

// Master returns the server that the running Sentinels agree on, after waiting
// until they do and that it is another one than not, which may be nil.
func (s *Sentinel) Master(tb testing.TB, not *Server) *Server {
	tb.Helper()
	var master *Server
	await(tb, "Sentinels that agree on a master", func() bool {
		told := map[string]bool{}
		for _, sentinel := range s.Sentinels {
			if !sentinel.running() {
				continue
			}
			host, port, _ := strings.Cut(sentinel.Command(tb, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", MasterName), "\n")
			told[net.JoinHostPort(host, port)] = true
		}
		for _, server := range s.Servers {
			if len(told) == 1 && told[server.addr] && server != not {
				master = server
				return strings.Contains(server.Command(tb, "INFO", "replication"), "role:master")
			}
		}
		return false
	})
	return master
}
