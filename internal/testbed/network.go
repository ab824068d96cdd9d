//go:build linux

package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dsapp-gateway/dsapp-gateway/internal/namespace"
)

// migrateRequests is the switch that docs/operation.md asks for on machines with the
// gateway: connections that wait for a listener are not reset when a reload closes it.
const migrateRequests = "/proc/sys/net/ipv4/tcp_migrate_req"

// reloadsReset is why that switch is not on.
var reloadsReset error

// NeedKeptConnections skips a test that reloads under load if a reload may reset new
// connections here.
func NeedKeptConnections(t *testing.T) {
	t.Helper()
	if reloadsReset != nil {
		t.Skipf("no network with %s=1: %v", migrateRequests, reloadsReset)
	}
}

// runInOwnNamespaces runs this program again in namespaces of its own and returns its exit
// code. It fails where the machine permits no such namespaces.
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

// setUpNetwork prepares a new network namespace.
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

// inMemory mounts a file system in memory on a directory and has temporary files made there.
// Embedded stores write through to the disk, for which a gateway waits only so long: a disk
// that is busy with something else would fail the tests.
func inMemory(dir string) (remove func(), err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, err
	}
	if err := unix.Mount("memory", dir, "tmpfs", 0, ""); err != nil {
		return nil, err
	}
	return func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }, os.Setenv("TMPDIR", dir)
}
