package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dsapp-gateway/dsapp-gateway/internal/namespace"
)

// The tests run in a network namespace of their own. There net.ipv4.tcp_migrate_req is
// on, as docs/operation.md asks of machines with the gateway: no connection that waits
// for a listener is reset when a reload closes it. Nor does anybody else take ports.

const migrateRequests = "/proc/sys/net/ipv4/tcp_migrate_req"

// reloadsReset is why a reload may reset new connections here.
var reloadsReset error

// needKeptConnections skips a test that reloads under load where that may reset new
// connections.
func needKeptConnections(t *testing.T) {
	t.Helper()
	if reloadsReset != nil {
		t.Skipf("no network with %s=1: %v", migrateRequests, reloadsReset)
	}
}

// runInOwnNamespaces runs this program again, in a network of its own and where it can
// mount file systems, and gives its exit code. It fails where the machine permits no such
// namespaces.
func runInOwnNamespaces() (int, error) {
	// The program ends with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	again := namespace.Command(context.Background(), syscall.CLONE_NEWNET|syscall.CLONE_NEWNS, os.Args[1:]...)
	if err := again.Start(); err != nil {
		return 0, err
	}
	var exited *exec.ExitError
	if err := again.Wait(); err != nil && !errors.As(err, &exited) {
		return 0, err
	}
	if again.ProcessState.Exited() {
		return again.ProcessState.ExitCode(), nil
	}
	fmt.Fprintln(os.Stderr, again.ProcessState)
	return 1, nil
}

// setUpNetwork makes a new network work.
func setUpNetwork() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	loopback.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback); err != nil {
		return fmt.Errorf("starting lo: %w", err)
	}
	reloadsReset = os.WriteFile(migrateRequests, []byte("1"), 0)
	return nil
}

// forget has the kernel drop whatever comes on the open connections of the server, as a
// firewall does that forgot them, and tells how many they are. New ones work.
func (o *oas) forget(t *testing.T) int {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	for c := range o.connections {
		socket, err := c.(*tls.Conn).NetConn().(*net.TCPConn).SyscallConn()
		require.NoError(t, err)
		var failed error
		require.NoError(t, socket.Control(func(descriptor uintptr) {
			failed = unix.SetsockoptSockFprog(int(descriptor), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
				&unix.SockFprog{Len: uint16(len(nothing)), Filter: &nothing[0]})
		}))
		require.NoError(t, failed)
	}
	return len(o.connections)
}
