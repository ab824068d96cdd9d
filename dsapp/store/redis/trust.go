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

// errDistrusted tells the pool of a client to close a connection. Nothing was sent on it.
var errDistrusted = errors.New("the connection is from before a failure")

// trust tells the pool of a client which of its connections to go on with. When the
// network breaks, or an address moves to another server, each of them may be broken, and
// only the time that answers take would show it. A call without an answer takes the trust
// from all connections that brought nothing since it began; a server that takes no writes,
// from all there are. The pool closes such a connection instead of taking it into use
// (go-redis checks that everywhere but on Windows); a call that is under way on it ends as
// it would have.
//
// It is a hook of the client, to see how calls end, which it judges as a guard does.
type trust struct {
	mu sync.Mutex
	// clock counts the calls. Connections that brought nothing since the clock was at
	// since are not trusted.
	clock, since uint64
}

// begin begins a call.
func (t *trust) begin() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock++
	return t.clock
}

// end takes the outcome of the call that began then.
func (t *trust) end(ctx context.Context, began uint64, err error, cmds ...goredis.Cmder) {
	if err == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case slices.ContainsFunc(cmds, func(c goredis.Cmder) bool { return readOnly(c.Err()) }):
		t.clock++
		t.since = t.clock
	case outcome(ctx, err) == breaker.Failed:
		t.since = max(t.since, began)
	}
}

// dialer returns a dialer of connections that are trusted for now.
func (t *trust) dialer(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		t.mu.Lock()
		began := t.clock
		t.mu.Unlock()
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &connection{Conn: c, trust: t, proven: began}, nil
	}
}

// DialHook leaves it to the use of a connection to tell that it was not made. A pool counts
// what its dialer tells as long as it lives: once there were as many failures as it may
// have connections, it answers with the last one until an attempt of its own succeeds, of
// which there is one a second at most. A server that is back would be found late, and the
// guard keeps calls away already.
func (*trust) DialHook(next goredis.DialHook) goredis.DialHook {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := next(ctx, network, address)
		if err != nil {
			// The client takes the outermost error off.
			return unmade{fmt.Errorf("no connection: %w", err)}, nil
		}
		return c, nil
	}
}

// ProcessHook watches how a command ends.
func (t *trust) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		began := t.begin()
		err := next(ctx, cmd)
		t.end(ctx, began, err, cmd)
		return err
	}
}

// ProcessPipelineHook watches how commands end.
func (t *trust) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		began := t.begin()
		err := next(ctx, cmds)
		t.end(ctx, began, err, cmds...)
		return err
	}
}

// dialer is Options.Dialer of a client.
type dialer = func(ctx context.Context, network, address string) (net.Conn, error)

// connection is a connection that a pool may not trust any more.
type connection struct {
	net.Conn

	trust *trust
	// proven is what the trust's clock was at when it last brought something.
	proven uint64 // under the trust's mu
}

// Read proves that the connection works. That comes too late for one that is not trusted:
// the server may be the wrong one.
func (c *connection) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.trust.mu.Lock()
		defer c.trust.mu.Unlock()
		if c.proven >= c.trust.since {
			c.proven = c.trust.clock
		}
	}
	return n, err
}

// SyscallConn is what a pool asks for before it takes the connection into use, to see
// whether the server closed it.
func (c *connection) SyscallConn() (syscall.RawConn, error) {
	c.trust.mu.Lock()
	trusted := c.proven >= c.trust.since
	c.trust.mu.Unlock()
	if !trusted {
		return nil, errDistrusted
	}
	if socket, ok := c.Conn.(syscall.Conn); ok {
		return socket.SyscallConn()
	}
	return opaque{}, nil
}

// opaque stands for the socket below TLS: what waits there need not be for the client.
type opaque struct{ syscall.RawConn }

// Read looks into nothing.
func (opaque) Read(func(uintptr) bool) error { return nil }

// unmade is a connection that was not made. No pool takes it into use again.
type unmade struct{ error }

func (u unmade) SyscallConn() (syscall.RawConn, error) { return nil, u.error }
func (u unmade) Read([]byte) (int, error)              { return 0, u.error }
func (u unmade) Write([]byte) (int, error)             { return 0, u.error }
func (unmade) Close() error                            { return nil }
func (unmade) LocalAddr() net.Addr                     { return &net.TCPAddr{} }
func (unmade) RemoteAddr() net.Addr                    { return &net.TCPAddr{} }
func (unmade) SetDeadline(time.Time) error             { return nil }
func (unmade) SetReadDeadline(time.Time) error         { return nil }
func (unmade) SetWriteDeadline(time.Time) error        { return nil }

var (
	_ goredis.Hook = (*trust)(nil)
	_ syscall.Conn = (*connection)(nil)
	_ net.Conn     = unmade{}
	_ syscall.Conn = unmade{}
)
