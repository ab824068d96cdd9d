package srp

import (
	"encoding/binary"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// counter counts the user-space instructions of the thread that made it. The
// thread stays locked to the goroutine until close.
type counter struct{ fd int }

func newCounter() (*counter, error) {
	runtime.LockOSThread()
	attr := unix.PerfEventAttr{
		Type:   unix.PERF_TYPE_HARDWARE,
		Config: unix.PERF_COUNT_HW_INSTRUCTIONS,
		Bits:   unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
	}
	attr.Size = uint32(unsafe.Sizeof(attr))
	fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	c := &counter{fd: fd}
	if _, err := c.read(); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *counter) close() {
	_ = unix.Close(c.fd)
	runtime.UnlockOSThread()
}

func (c *counter) read() (uint64, error) {
	var b [8]byte
	if _, err := unix.Read(c.fd, b[:]); err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(b[:]), nil
}

// count returns the instructions that f took.
func (c *counter) count(t *testing.T, f func()) uint64 {
	t.Helper()
	before, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	f()
	after, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	return after - before
}
