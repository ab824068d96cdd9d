package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
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

// forget has the kernel drop whatever comes on the open connections of the server, and
// tells how many they are. New ones work.
func (o *oas) forget(t *testing.T) int {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.connections {
		forgetConnection(t, c.(*tls.Conn).NetConn())
	}
	return len(o.connections)
}

// forgetConnection has the kernel drop whatever comes on a connection, as a firewall does
// that forgot it.
func forgetConnection(t *testing.T, c net.Conn) {
	t.Helper()
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	socket, err := c.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	var failed error
	require.NoError(t, socket.Control(func(descriptor uintptr) {
		failed = unix.SetsockoptSockFprog(int(descriptor), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(nothing)), Filter: &nothing[0]})
	}))
	require.NoError(t, failed)
}

// relay forwards connections to a server.
type relay struct {
	net.Listener

	mu    sync.Mutex
	conns []net.Conn // of clients
}

// startRelay starts a relay to an address.
func startRelay(t *testing.T, target string) *relay {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{Listener: listener}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := r.Accept()
			if err != nil {
				return
			}
			server, err := new(net.Dialer).DialContext(t.Context(), "tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, client)
			r.mu.Unlock()
			for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
				all.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					client.Close()
					server.Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		r.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		all.Wait()
	})
	return r
}

// accepted is how many connections there were.
func (r *relay) accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns)
}

// forget drops whatever comes on the connections there are.
func (r *relay) forget(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		forgetConnection(t, c)
	}
}
