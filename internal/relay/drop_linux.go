package relay

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Drop has the kernel drop whatever arrives on a connection, as behind a firewall that
// has forgotten it.
func Drop(tb testing.TB, c *net.TCPConn) {
	tb.Helper()
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	socket, err := c.SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	var failed error
	if err := socket.Control(func(descriptor uintptr) {
		failed = unix.SetsockoptSockFprog(int(descriptor), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(nothing)), Filter: &nothing[0]})
	}); err != nil {
		tb.Fatal(err)
	}
	if failed != nil {
		tb.Fatal(failed)
	}
}
