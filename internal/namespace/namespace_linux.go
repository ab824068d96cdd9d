// Package namespace runs tests in namespaces of their own, where they can set up the
// network and mount file systems without being root.
package namespace

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// inside is set in the environment of programs that Command runs.
const inside = "DSAPP_TEST_NAMESPACE"

// Inside reports whether Command runs this program.
func Inside() bool { return os.Getenv(inside) != "" }

// Command returns a command that runs this program with arguments in new namespaces. The
// flags are those of clone(2). Its output is that of this program. It ends with the thread
// that starts it.
func Command(ctx context.Context, flags uintptr, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "/proc/self/exe", args...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), inside+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if id := os.Geteuid(); id != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: id, Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	return c
}

// SmallDisk mounts a file system of so many bytes and returns its folder. The program has
// to be in a mount namespace of its own.
func SmallDisk(t *testing.T, size int) (folder string) {
	t.Helper()
	// What is mounted here must not show anywhere else.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	folder = t.TempDir()
	if err := unix.Mount("disk", folder, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return folder
}
