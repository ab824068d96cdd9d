//go:build unix

package httpclient

import (
	"errors"
	"syscall"
)

const canPeek = true

// unread reports whether bytes, the end or an error wait to be read from a socket, which does
// not block.
func unread(descriptor uintptr) bool {
	var one [1]byte
	_, _, err := syscall.Recvfrom(int(descriptor), one[:], syscall.MSG_PEEK)
	return !errors.Is(err, syscall.EAGAIN)
}
