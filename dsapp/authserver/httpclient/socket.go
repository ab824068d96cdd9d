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
	// head is the beginning of the header of a TLS record of which the rest was not read, and left the
	// number of bytes of a record that were not.
	head []byte
	left int
}

// recordHeader is the size of the header of a TLS record. Its last two bytes are the length of the rest.
const recordHeader = 5

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
		n, err := s.Conn.Read(p)
		s.count(p[:n])
		return n, err
	case s.raw == nil:
		return 0, s.wait()
	case s.pending():
		return 0, errUnread
	}
	return 0, os.ErrDeadlineExceeded
}

// pending reports whether something waits to be read, if that can be found out without waiting.
func (s *socket) pending() bool {
	return s.raw != nil && (s.raw.Read(s.peek) != nil || s.unread)
}

// count counts the bytes of TLS records that were read.
func (s *socket) count(p []byte) {
	for len(p) > 0 {
		n := min(s.left, len(p))
		if n == 0 {
			n = min(recordHeader-len(s.head), len(p))
			if s.head = append(s.head, p[:n]...); len(s.head) == recordHeader {
				s.left, s.head = int(s.head[3])<<8|int(s.head[4]), s.head[:0]
			}
		} else {
			s.left -= n
		}
		p = p[n:]
	}
}

// inRecord reports whether a TLS record was read in part.
func (s *socket) inRecord() bool { return s.left > 0 || len(s.head) > 0 }

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
