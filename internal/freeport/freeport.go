// Package freeport finds ports for servers that tests start and stop again.
package freeport

import (
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
)

// Ports from lowest to highest are not given to connections and to listeners
// without a port by any usual operating system, so that a port is still free when
// a server is started on it for the second time.
const (
	lowest  = 10_000
	highest = 32_000
	tries   = 1000
	// stride parts the ports of processes that run at the same time.
	stride = 97
)

// found counts the ports that this process looked at.
var found atomic.Int64

// Address returns an address on the loopback interface that nobody listens on. It
// returns each one only once.
func Address(tb testing.TB) string {
	tb.Helper()
	for range tries {
		port := lowest + (int64(os.Getpid())*stride+found.Add(1))%(highest-lowest)
		address := net.JoinHostPort("127.0.0.1", strconv.FormatInt(port, 10))
		l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", address)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			tb.Fatal(err)
		}
		return address
	}
	tb.Fatal("no free port")
	return ""
}
