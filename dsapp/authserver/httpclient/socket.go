package httpclient

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// socket is a TCP connection below TLS.
type socket struct {
	net.Conn

	written int64 // bytes that the kernel has taken
	// peeking has Read take nothing: it says whether there is something to read.
	peeking bool
	raw     syscall.RawConn // nil if the connection has none
	// peek sets unread to whether bytes, the end or an error wait to be read.
	peek   func(descriptor uintptr) bool
	unread bool
}

func newSocket(c net.Conn) *socket {
	s := &socket{Conn: c}
	if system, ok := c.(syscall.Conn); ok && canPeek {
		if raw, err := system.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	s.peek = func(descriptor uintptr) bool {
		s.unread = unread(descriptor)
		return true
	}
	return s
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	s.written += int64(n)
	return n, err
}

// errUnread says that there is something to read.
var errUnread = errors.New("unread bytes, or closed")

// Read implements net.Conn. While peeking, it returns os.ErrDeadlineExceeded if there is nothing
// to read. The TLS layer does not take such an error for permanent.
func (s *socket) Read(p []byte) (int, error) {
	switch {
	case !s.peeking:
		return s.Conn.Read(p)
	case s.raw == nil:
		return 0, s.wait()
	}
	if err := s.raw.Read(s.peek); err != nil || s.unread {
		return 0, errUnread
	}
	return 0, os.ErrDeadlineExceeded
}

// wait waits a millisecond for something to read.
func (s *socket) wait() error {
	if err := s.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		return err
	}
	if _, err := s.Conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return errUnread
	}
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	return os.ErrDeadlineExceeded
}
