package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// errStale makes the pool of a client close a connection that was in the pool. Nothing was
// sent on it.
var errStale = errors.New("the connection was opened before a failure")

// staleness keeps the pool of a client from using connections that may be broken. When the
// network fails, or an address moves to another server, every pooled connection may be
// broken, and each would cost a call its timeout.
//
// A call without an answer makes all connections stale that have received nothing since the
// call began. An answer that the server is read-only makes all existing connections stale.
// The pool closes a stale connection instead of using it again. (go-redis checks pooled
// connections on every system but Windows.) A call that is in flight on a stale connection
// is not disturbed.
//
// It is a hook of the client, which shows it how calls end.
type staleness struct {
	mu sync.Mutex
	// calls counts the calls that began. A connection is stale if it received its last
	// bytes before call number staleBefore.
	calls, staleBefore uint64
}

// begin returns the number of a new call.
func (t *staleness) begin() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls++
	return t.calls
}

// end records how the call with the given number ended: with err, the first error of its commands.
func (t *staleness) end(ctx context.Context, call uint64, err error, cmds ...goredis.Cmder) {
	if err == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case isReadOnly(err), slices.ContainsFunc(cmds, func(c goredis.Cmder) bool { return isReadOnly(c.Err()) }):
		t.calls++
		t.staleBefore = t.calls
	case outcome(ctx, err) == breaker.Failed:
		t.staleBefore = max(t.staleBefore, call)
	}
}

// dialer returns a dialer whose connections can become stale.
func (t *staleness) dialer(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		t.mu.Lock()
		calls := t.calls
		t.mu.Unlock()
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		connection := &connection{Conn: c, staleness: t, lastRead: calls, socket: tlsSocket{}}
		if c, ok := c.(syscall.Conn); ok {
			raw, err := c.SyscallConn()
			if err != nil {
				return nil, err
			}
			connection.socket = socket{raw}
		}
		return connection, nil
	}
}

// DialHook returns a failedConnection for a dial that failed, so that the pool does not
// notice the failure. A pool counts failed dials for as long as it lives. After as many
// failures as it may have connections it returns the last error without dialling, and dials
// by itself once a second until that succeeds. A server that is back would be found late,
// and the breaker already limits the attempts.
func (*staleness) DialHook(next goredis.DialHook) goredis.DialHook {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := next(ctx, network, address)
		if err != nil {
			// The client removes the outermost error.
			return failedConnection{fmt.Errorf("no connection: %w", err)}, nil
		}
		return c, nil
	}
}

// ProcessHook records how a command ends.
func (t *staleness) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		call := t.begin()
		err := next(ctx, cmd)
		t.end(ctx, call, err)
		return err
	}
}

// ProcessPipelineHook records how a pipeline ends.
func (t *staleness) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		call := t.begin()
		err := next(ctx, cmds)
		t.end(ctx, call, err, cmds...)
		return err
	}
}

// dialer is the type of Options.Dialer of a client.
type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// connection is a connection that can become stale.
type connection struct {
	net.Conn

	staleness *staleness
	// lastRead is the value of staleness.calls when the connection last received
	// something. The mutex of staleness protects it.
	lastRead uint64
	// socket is what SyscallConn returns for a connection that is not stale.
	socket syscall.RawConn
}

// SetDeadline does nothing. The pool removes the deadlines with it before it looks at the socket. It
// sets new ones before each write and each read.
func (*connection) SetDeadline(time.Time) error { return nil }

// Read notes that the connection works. A stale connection stays stale: it may lead to the
// wrong server.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.staleness.mu.Lock()
		defer c.staleness.mu.Unlock()
		if c.lastRead >= c.staleness.staleBefore {
			c.lastRead = c.staleness.calls
		}
	}
	return n, err
}

// SyscallConn returns errStale if the connection is stale. A pool calls it before it uses a
// connection again, to see whether the server closed it.
func (c *connection) SyscallConn() (syscall.RawConn, error) {
	c.staleness.mu.Lock()
	stale := c.lastRead < c.staleness.staleBefore
	c.staleness.mu.Unlock()
	if stale {
		return nil, errStale
	}
	return c.socket, nil
}

// socket is the socket of a connection without TLS.
type socket struct{ syscall.RawConn }

// Read calls look once, also if a deadline has passed.
func (s socket) Read(look func(uintptr) bool) error {
	return s.Control(func(fd uintptr) { look(fd) })
}

// tlsSocket takes the place of the socket of a TLS connection. The pool closes a connection
// on whose socket bytes arrived unasked, which TLS itself may send.
type tlsSocket struct{ syscall.RawConn }

// Read does not look at the socket.
func (tlsSocket) Read(func(uintptr) bool) error { return nil }

// failedConnection takes the place of a connection that could not be made. Its methods
// return the error of the attempt. No pool uses it again.
type failedConnection struct{ error }

func (c failedConnection) SyscallConn() (syscall.RawConn, error) { return nil, c.error }
func (c failedConnection) Read([]byte) (int, error)              { return 0, c.error }
func (c failedConnection) Write([]byte) (int, error)             { return 0, c.error }
func (failedConnection) Close() error                            { return nil }
func (failedConnection) LocalAddr() net.Addr                     { return &net.TCPAddr{} }
func (failedConnection) RemoteAddr() net.Addr                    { return &net.TCPAddr{} }
func (failedConnection) SetDeadline(time.Time) error             { return nil }
func (failedConnection) SetReadDeadline(time.Time) error         { return nil }
func (failedConnection) SetWriteDeadline(time.Time) error        { return nil }

var (
	_ goredis.Hook = (*staleness)(nil)
	_ syscall.Conn = (*connection)(nil)
	_ net.Conn     = failedConnection{}
	_ syscall.Conn = failedConnection{}
)
