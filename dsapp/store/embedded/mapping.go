//go:build unix

package embedded

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps the first size bytes of file into memory, to be read. A part that cannot be read,
// such as one that the file no longer has, faults.
func mapFile(file *os.File, size int64) (data []byte, unmap func() error, err error) {
	data, err = unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, os.NewSyscallError("mmap", err)
	}
	return data, func() error { return unix.Munmap(data) }, nil
}
