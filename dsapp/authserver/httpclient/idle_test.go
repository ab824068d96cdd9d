package httpclient

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// A connection that the server has closed is not used again, however it did so.
func TestClosedWhileIdle(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*peer){
		"with TLS alert": func(p *peer) { _ = p.Close() },
		"without":        func(p *peer) { _ = p.NetConn().Close() },
		"reset": func(p *peer) {
			_ = p.NetConn().(*net.TCPConn).SetLinger(0)
			_ = p.NetConn().Close()
		},
	} {
		s := newServer(t, func(p *peer) {
			if p.receive() {
				p.send(plain)
				end(p)
			}
		})
		c := s.client(t, nil)
		for range 3 {
			mustPost(t, c)
			poll.Until(t, "the end of the connection "+name, func() bool { return !c.idle[0].quiet() })
		}
		s.expect(t, 3, 3)
	}
}

// What a server sends without being asked is never taken for the answer to the next command.
func TestUnread(t *testing.T) {
	t.Parallel()
	const forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
	for name, send := range map[string]func(p *peer){
		"in the record of the answer": func(p *peer) { p.send(plain + forged) },
		"in the next record": func(p *peer) {
			p.send(plain)
			p.send(forged)
		},
		"one byte": func(p *peer) { p.send(plain + "\n") },
		"after bytes that fill the buffer": func(p *peer) {
			p.send("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 4096-len("HTTP/1.1 200 OK\r\nX: ")-len("\r\nContent-Length: 2\r\n\r\nok")) + "\r\nContent-Length: 2\r\n\r\nok" + forged)
		},
	} {
		for _, system := range []bool{true, false} {
			s := newServer(t, func(p *peer) {
				for p.receive() {
					send(p)
				}
			})
			c := s.client(t, func(c *Config) {
				c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := new(net.Dialer).DialContext(ctx, network, address)
					if system {
						return conn, err
					}
					return struct{ net.Conn }{conn}, err // has no system call
				}
			})
			for range 3 {
				mustPost(t, c)
				poll.Until(t, "bytes "+name, func() bool { return !c.idle[0].quiet() })
			}
			s.expect(t, 3, 3)
		}
	}
}

// A connection to which nothing has happened is used again, whether or not its system calls can
// be used to look at it, and also if it had to wait for its turn.
func TestQuiet(t *testing.T) {
	t.Parallel()
	s := newServer(t, answering(plain))
	for i, wrap := range []func(net.Conn) net.Conn{
		func(c net.Conn) net.Conn { return c },
		func(c net.Conn) net.Conn { return struct{ net.Conn }{c} },
	} {
		c := s.client(t, func(c *Config) {
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				return wrap(conn), err
			}
		})
		for range 4 {
			mustPost(t, c)
		}
		s.expect(t, int64(i+1), 4*(i+1))
	}
}

// If nothing was written to a connection that had been idle, the command is sent on a new one.
// Otherwise it is not sent again, and counts as sent.
func TestBrokenWhileIdle(t *testing.T) {
	t.Parallel()
	for takes, replaced := range []bool{true, false} {
		s := newServer(t, answering(plain))
		var broken atomic.Bool
		c := s.client(t, func(c *Config) {
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				if broken.Load() {
					return conn, err
				}
				return faulty{conn, &broken, takes}, err
			}
		})
		mustPost(t, c)
		broken.Store(true)
		if replaced {
			mustPost(t, c)
			s.expect(t, 2, 2)
			continue
		}
		_, _, err := post(t.Context(), c)
		if _, unsent := errors.AsType[*NotSentError](err); unsent || !errors.Is(err, errBroken) {
			t.Error(err)
		}
		s.expect(t, 1, 1)
	}
}

// together sends commands at the same time, each on a connection of its own. between is called
// before the first answer is read.
func together(t *testing.T, c *Client, n int, between func()) {
	t.Helper()
	var bodies []io.ReadCloser
	for range n {
		response, err := c.Post(t.Context(), nil, command) //nolint:bodyclose // see below
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, response.Body)
	}
	between()
	for _, b := range bodies {
		if _, err := io.ReadAll(b); err != nil {
			t.Error(err)
		}
		b.Close()
	}
}

// At most MaxIdle connections stay open, of which the last one is used first, and each until
// IdleTimeout is over.
func TestIdle(t *testing.T) {
	t.Parallel()
	s := newServer(t, answering(plain))
	c := s.client(t, func(c *Config) { c.MaxIdle = 2 })
	together(t, c, 4, func() {})
	for range 2 {
		poll.Receive(t, "a connection above MaxIdle to end", s.closed)
	}
	last := c.idle[1]
	mustPost(t, c)
	if len(c.idle) != 2 || c.idle[1] != last {
		t.Errorf("%d connections are kept", len(c.idle))
	}
	s.expect(t, 4, 5)

	// Time passes for one connection, then for the other.
	for n := range 2 {
		c.idle[0].idleSince = time.Now().Add(-time.Hour)
		c.sweep()
		poll.Receive(t, "an idle connection to end", s.closed)
		if len(c.idle) != 1-n || (c.sweeper == nil) != (n == 1) {
			t.Errorf("%d connections are kept", len(c.idle))
		}
	}

	mustPost(t, c)
	c.idle[0].idleSince = time.Now().Add(-time.Hour) // and the sweeper is late
	mustPost(t, c)
	poll.Receive(t, "the idle connection to end", s.closed)
	s.expect(t, 6, 7)
}

// The timer closes idle connections without another request.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	s := newServer(t, answering(plain))
	c := s.client(t, func(c *Config) { c.IdleTimeout = 10 * time.Millisecond })
	together(t, c, 3, func() {})
	for range 3 {
		poll.Receive(t, "an idle connection to end", s.closed)
	}
}

// Closing idle connections ends those without a request at once and the others after it. The
// client can be used as before.
func TestCloseIdleConnections(t *testing.T) {
	t.Parallel()
	s := newServer(t, answering(plain))
	c := s.client(t, nil)
	together(t, c, 2, func() {})
	together(t, c, 1, func() {
		c.CloseIdleConnections()
		poll.Receive(t, "the idle connection to end", s.closed)
	})
	poll.Receive(t, "the other connection to end", s.closed)
	if len(c.idle) != 0 || c.sweeper != nil {
		t.Error("something is kept")
	}
	mustPost(t, c)
	mustPost(t, c)
	s.expect(t, 3, 5)
}

// A command that waits for a connection gets one that becomes free, and the new one serves later commands.
// It does not get one with something that was not read.
func TestFreedConnection(t *testing.T) {
	t.Parallel()
	for text, connections := range map[string]int64{plain: 1, plain + "forged": 2} {
		testFreedConnection(t, text, connections)
	}
}

func testFreedConnection(t *testing.T, text string, connections int64) {
	t.Helper()
	answer, arrived := make(chan struct{}), make(chan struct{}, 10)
	s := newServer(t, func(p *peer) {
		for p.receive() {
			arrived <- struct{}{}
			<-answer
			p.send(text)
		}
	})
	dialled, dial := make(chan struct{}), make(chan struct{})
	var dials atomic.Int64
	c := s.client(t, func(c *Config) {
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if dials.Add(1) > 1 {
				close(dialled)
				<-dial
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	var commands sync.WaitGroup
	commands.Go(func() { mustPost(t, c) })
	poll.Receive(t, "the first command", arrived)
	commands.Go(func() { mustPost(t, c) })
	poll.Receive(t, "the second connection", dialled)
	close(answer)
	if connections > 1 {
		poll.Receive(t, "the end of the connection", s.closed)
		close(dial)
	}
	commands.Wait()
	s.expect(t, connections, 2)
	if connections > 1 {
		return
	}
	close(dial)
	poll.Until(t, "both connections", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.idle) == 2
	})
}

// A connection whose command ends before it is made serves the next command. It is given up if there are
// too many of them.
func TestAbandonedConnection(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 0} {
		s := newServer(t, answering(plain))
		dial := make(chan struct{})
		c := s.client(t, func(c *Config) {
			c.MaxIdle = most
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				select {
				case <-dial:
				case <-ctx.Done():
				}
				return new(net.Dialer).DialContext(ctx, network, address)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		_, _, err := post(ctx, c)
		if unsent, ok := errors.AsType[*NotSentError](err); !ok || !unsent.Connecting || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if most > 0 {
			close(dial)
		}
		poll.Until(t, "the connection", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.abandoned == 0
		})
		if most == 0 {
			close(dial)
		}
		mustPost(t, c)
		s.expect(t, 1, 1)
	}
}

// A connection that the server has closed while it was idle is closed before its time.
func TestSweep(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(p *peer) {
		if p.receive() {
			p.send(plain)
		}
	})
	c := s.client(t, nil)
	mustPost(t, c)
	poll.Until(t, "the end of the connection", func() bool {
		c.sweep()
		return len(c.idle) == 0
	})
	mustPost(t, c)
}

// A socket knows whether a TLS record was read in part, however its bytes arrive.
func TestInRecord(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		ends := map[int]bool{0: true}
		for range rapid.IntRange(1, 5).Draw(t, "records") {
			n := rapid.IntRange(0, 600).Draw(t, "length")
			stream = append(stream, 23, 3, 3, byte(n>>8), byte(n))
			stream = append(stream, make([]byte, n)...)
			ends[len(stream)] = true
		}
		s := new(socket)
		for at := 0; at < len(stream); {
			n := rapid.IntRange(1, len(stream)-at).Draw(t, "read")
			s.count(stream[at : at+n])
			if at += n; s.inRecord() == ends[at] {
				t.Fatalf("in a record after %d bytes: %t", at, s.inRecord())
			}
		}
	})
}
