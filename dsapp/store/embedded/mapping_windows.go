package embedded

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// mapFile maps the first size bytes of file into memory, to be read. A part that cannot be read
// faults.
func mapFile(file *os.File, size int64) (data []byte, unmap func() error, err error) {
	handle, err := windows.CreateFileMapping(windows.Handle(file.Fd()), nil, windows.PAGE_READONLY, uint32(size>>32), uint32(size), nil)
	if err != nil {
		return nil, nil, os.NewSyscallError("CreateFileMapping", err)
	}
	address, err := windows.MapViewOfFile(handle, windows.FILE_MAP_READ, 0, 0, uintptr(size))
	if err != nil {
		return nil, nil, errors.Join(os.NewSyscallError("MapViewOfFile", err), windows.CloseHandle(handle))
	}
	// The memory is not Go's: the address stays valid until it is unmapped.
	data = unsafe.Slice(*(**byte)(unsafe.Pointer(&address)), size)
	return data, func() error { return errors.Join(windows.UnmapViewOfFile(address), windows.CloseHandle(handle)) }, nil
}
