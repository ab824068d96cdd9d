package redis

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// errDistrusted tells the pool of a client to close a connection. Nothing was sent on it.
var errDistrusted = errors.New("the connection is from before a failure")

// trust tells the pool of a client which of its connections to go on with. When the
// network breaks, or an address moves to another server, each of them may be broken, and
// nothing but the time it takes shows that. A call that gets no answer takes the trust
// from all connections that brought none since it began, and a server that became a
// replica from all there are. The pool asks before it takes a connection into use, except
// on Windows: a call that is under way on one ends as it would have.
//
// It is a hook of the client, which sees how calls end. It judges them as a guard does.
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

// DialHook changes nothing: the clients of Sentinels have no hooks.
func (*trust) DialHook(next goredis.DialHook) goredis.DialHook { return next }

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

// SyscallConn is what a pool looks into before it takes the connection into use, to see if
// the server closed it.
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

var (
	_ goredis.Hook = (*trust)(nil)
	_ syscall.Conn = (*connection)(nil)
)
