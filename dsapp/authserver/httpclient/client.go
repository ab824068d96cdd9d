// Package httpclient sends commands to one server over HTTP/1.1 and TLS. A request is carried
// out by the goroutine of its caller: it writes the command, then reads the answer. The client
// of net/http has two more goroutines for each connection. To hand over to them takes a seventh
// of the processor time of a call of the gateway. It does not say either whether a command may
// have been sent.
package httpclient

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// maxHeader is the greatest length of the header of an answer in bytes, together with
	// the informational answers (1xx) before it.
	maxHeader = 64 << 10
	// maxInformational is the greatest number of informational answers to a request.
	maxInformational = 5
	// sweepInterval is the time between two looks at the connections without a request, if
	// Config.IdleTimeout is not shorter.
	sweepInterval = 5 * time.Second
)

// Config configures a Client.
type Config struct {
	// URL is the https address to which commands are sent. It has no user, query or fragment.
	URL *url.URL
	// TLS are the settings of connections. If they have no server name, it is that of URL.
	TLS *tls.Config
	// Dial makes a TCP connection. It has a timeout of its own.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// HandshakeTimeout is the greatest duration of a TLS handshake.
	HandshakeTimeout time.Duration
	// IdleTimeout is how long a connection stays open without a request.
	IdleTimeout time.Duration
	// MaxIdle is the greatest number of connections that stay open without a request.
	MaxIdle int
}

// Client sends commands to a server. It keeps connections for the next commands. Its methods
// may be called at the same time.
type Client struct {
	config  Config
	tls     *tls.Config
	address string
	// head is the beginning of every request.
	head string

	mu sync.Mutex
	// idle are the connections without a request, ordered by the time of their last one.
	idle []*connection
	// generation counts the calls of CloseIdleConnections. Connections of an earlier
	// generation are not kept.
	generation int
	// sweeper closes connections after IdleTimeout, and those that the server has closed. It is nil if
	// it is not needed.
	sweeper *time.Timer
	// abandoned is the number of connections that are being made and whose command has ended.
	abandoned int
	// spare hands a connection that has become free to a command that waits for a new one.
	spare chan *connection
}

// New returns a client. It makes no connection.
func New(c Config) *Client {
	config := c.TLS.Clone()
	config.ServerName = cmp.Or(config.ServerName, c.URL.Hostname())
	config.NextProtos = nil // HTTP/1.1
	host := c.URL.Host
	if zone, end := strings.IndexByte(host, '%'), strings.IndexByte(host, ']'); 0 <= zone && zone < end { // of an IPv6 address, known to this machine only
		host = host[:zone] + host[end:]
	}
	return &Client{
		config:  c,
		tls:     config,
		address: net.JoinHostPort(c.URL.Hostname(), cmp.Or(c.URL.Port(), "443")),
		spare:   make(chan *connection),
		head:    "POST " + c.URL.RequestURI() + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: Go-http-client/1.1\r\n",
	}
}

// NotSentError says that no byte of a command can have reached the server.
type NotSentError struct {
	// Err says why.
	Err error
	// Connecting says that the command was waiting for a connection.
	Connecting bool
}

func (e *NotSentError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *NotSentError) Unwrap() error { return e.Err }

// Post sends a command with this header in a request with the method POST, and returns the
// answer when its header has arrived. It does not follow redirects. The answer's body must be
// closed. The end of ctx ends all of this at once, also the reading of the body; then the error
// is that of ctx. Other errors can quote the answer.
//
// After a *NotSentError, no byte of the command can have reached the server. After any other
// error, the server may have received the command. Post sends a command on a second connection
// only if nothing was written to the first one.
//
// Post keeps neither header nor command, and overwrites its copies of them.
func (c *Client) Post(ctx context.Context, header http.Header, command []byte) (*http.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, &NotSentError{Err: err}
	}
	if conn := c.takeIdle(); conn != nil {
		response, err := conn.roundTrip(ctx, header, command)
		if _, unsent := errors.AsType[*NotSentError](err); !unsent || ctx.Err() != nil {
			return response, err
		}
		// The connection has broken while it was idle.
	}
	conn, err := c.await(ctx)
	if err != nil {
		return nil, &NotSentError{Err: err, Connecting: true}
	}
	return conn.roundTrip(ctx, header, command)
}

// await makes a connection, and returns that or one that becomes free before. If ctx ends before, the
// connection is kept for the next command: otherwise a server whose handshakes take longer than callers
// wait would get nothing but handshakes.
func (c *Client) await(ctx context.Context) (*connection, error) {
	type result struct {
		conn *connection
		err  error
	}
	made, left := make(chan result), make(chan struct{})
	detached, cancel := context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer cancel()
		conn, err := c.connect(detached)
		select {
		case made <- result{conn, err}:
		case <-left:
			if conn != nil {
				c.putIdle(conn)
			}
			c.abandon(-1)
		}
	}()
	leave := func() {
		if !c.abandon(1) {
			cancel()
		}
		close(left)
	}
	for {
		select {
		case r := <-made:
			return r.conn, r.err
		case conn := <-c.spare:
			if !conn.quiet() {
				conn.close()
				continue
			}
			leave()
			return conn, nil
		case <-ctx.Done():
			leave()
			return nil, ctx.Err()
		}
	}
}

// abandon counts connections that are being made for no command. It reports whether there are few
// enough of them.
func (c *Client) abandon(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandoned += n
	return c.abandoned <= c.config.MaxIdle
}

// CloseIdleConnections closes the connections that have no request. Those that have one are
// closed after it.
func (c *Client) CloseIdleConnections() {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.generation++
	if c.sweeper != nil {
		c.sweeper.Stop()
		c.sweeper = nil
	}
	c.mu.Unlock()
	closeAll(idle)
}

func closeAll(connections []*connection) {
	for _, conn := range connections {
		conn.close()
	}
}

// TLSConfig returns the TLS settings of connections. They must not be changed.
func (c *Client) TLSConfig() *tls.Config { return c.tls }

// Dial makes a TCP connection to the server.
func (c *Client) Dial(ctx context.Context) (net.Conn, error) {
	return c.config.Dial(ctx, "tcp", c.address)
}

// Handshake makes a TLS connection of a TCP connection.
func (c *Client) Handshake(ctx context.Context, tcp net.Conn) (*tls.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, c.config.HandshakeTimeout)
	defer cancel()
	client := tls.Client(tcp, c.tls)
	err := client.HandshakeContext(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("TLS handshake timeout: %w", limited.Err())
	}
	return client, err
}

// connect makes a connection. After the end of ctx, the error is that of ctx.
func (c *Client) connect(ctx context.Context) (*connection, error) {
	c.mu.Lock()
	generation := c.generation
	c.mu.Unlock()
	tcp, err := c.Dial(ctx)
	if err != nil {
		return nil, cmp.Or(ctx.Err(), err)
	}
	s := newSocket(tcp)
	secured, err := c.Handshake(ctx, s)
	if err != nil {
		_ = s.Close()
		return nil, cmp.Or(ctx.Err(), err)
	}
	conn := &connection{client: c, generation: generation, socket: s, tls: secured}
	conn.reader = bufio.NewReader(&conn.header)
	conn.header.tls = secured
	return conn, nil
}

// takeIdle returns the connection that had a request last, or nil if there is none.
func (c *Client) takeIdle() *connection {
	for {
		c.mu.Lock()
		last := len(c.idle) - 1
		if last < 0 {
			c.mu.Unlock()
			return nil
		}
		conn := c.idle[last]
		c.idle[last] = nil
		c.idle = c.idle[:last]
		c.mu.Unlock()
		// The sweeper may be late.
		if time.Since(conn.idleSince) < c.config.IdleTimeout && conn.quiet() {
			return conn
		}
		conn.close()
	}
}

// putIdle keeps a connection for the next request, or closes it.
func (c *Client) putIdle(conn *connection) {
	if !c.keep(conn) {
		conn.close()
	}
}

// keep keeps a connection for the next request, which may be waiting, unless it is not to be kept.
func (c *Client) keep(conn *connection) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn.generation != c.generation {
		return false
	}
	select {
	case c.spare <- conn:
		return true
	default:
	}
	if len(c.idle) >= c.config.MaxIdle {
		return false
	}
	conn.idleSince = time.Now()
	c.idle = append(c.idle, conn)
	if c.sweeper == nil {
		c.sweeper = time.AfterFunc(c.sweepInterval(), c.sweep)
	}
	return true
}

func (c *Client) sweepInterval() time.Duration { return min(c.config.IdleTimeout, sweepInterval) }

// sweep closes the connections whose time without a request is over, and those that the server has
// closed.
func (c *Client) sweep() {
	c.mu.Lock()
	now := time.Now()
	var ended []*connection
	c.idle = slices.DeleteFunc(c.idle, func(conn *connection) bool {
		end := now.Sub(conn.idleSince) >= c.config.IdleTimeout || conn.socket.pending()
		if end {
			ended = append(ended, conn)
		}
		return end
	})
	switch {
	case len(c.idle) == 0:
		c.sweeper = nil
	case c.sweeper != nil:
		next := c.config.IdleTimeout - now.Sub(c.idle[0].idleSince)
		c.sweeper.Reset(min(next, c.sweepInterval()))
	}
	c.mu.Unlock()
	closeAll(ended)
}

// writeRequest writes a request into an empty buffer.
func (c *Client) writeRequest(b *bytes.Buffer, header http.Header, command []byte) {
	b.WriteString(c.head)
	_ = header.Write(b) // a buffer does not fail
	b.WriteString("Content-Length: ")
	b.Write(strconv.AppendInt(b.AvailableBuffer(), int64(len(command)), 10))
	b.WriteString("\r\n\r\n")
	// Growing before the command is in the buffer leaves no copy of it behind.
	b.Grow(len(command))
	b.Write(command)
}
