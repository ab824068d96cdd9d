package httpclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// A request has this header. Commands follow each other on one connection.
func TestRequest(t *testing.T) {
	t.Parallel()
	requests := make(chan string, 2)
	s := newServer(t, func(p *peer) {
		for {
			b := make([]byte, 4096)
			n, err := p.Read(b)
			if err != nil {
				return
			}
			requests <- string(b[:n])
			p.send(plain)
		}
	})
	c := s.client(t, nil)
	for range 2 {
		mustPost(t, c)
		want := "POST /soap HTTP/1.1\r\nHost: " + s.address.Host + "\r\nUser-Agent: Go-http-client/1.1\r\n" +
			"Content-Type: text/xml\r\nSOAPAction: \"\"\r\nContent-Length: 32\r\n\r\n" + string(command)
		if got := poll.Receive(t, "a request", requests); got != want {
			t.Errorf("%q", got)
		}
	}
	s.expect(t, 1, 0)
}

// The address and the names of a server follow from its URL.
func TestAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][3]string{
		"https://oas1":                   {"oas1:443", "oas1", "POST / HTTP/1.1\r\nHost: oas1\r\n"},
		"https://oas1:8888/a%20b":        {"oas1:8888", "oas1", "POST /a%20b HTTP/1.1\r\nHost: oas1:8888\r\n"},
		"https://oas%251:8888/":          {"oas%1:8888", "oas%1", "POST / HTTP/1.1\r\nHost: oas%1:8888\r\n"},
		"https://[fe80::1%25eth0]:8888/": {"[fe80::1%eth0]:8888", "fe80::1%eth0", "POST / HTTP/1.1\r\nHost: [fe80::1]:8888\r\n"},
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		c := New(Config{URL: u, TLS: new(tls.Config)})
		if c.address != want[0] || c.TLSConfig().ServerName != want[1] || !strings.HasPrefix(c.head, want[2]) {
			t.Errorf("%s: %q, %q, %q", text, c.address, c.TLSConfig().ServerName, c.head)
		}
	}
	u := &url.URL{Scheme: "https", Host: "oas1"}
	if c := New(Config{URL: u, TLS: &tls.Config{ServerName: "other"}}); c.TLSConfig().ServerName != "other" {
		t.Errorf("server name %q", c.TLSConfig().ServerName)
	}
}

// faulty is a connection whose writes fail after some bytes.
type faulty struct {
	net.Conn
	broken *atomic.Bool
	takes  int
}

var errBroken = errors.New("broken")

func (f faulty) Write(b []byte) (int, error) {
	if !f.broken.Load() {
		return f.Conn.Write(b)
	}
	n, _ := f.Conn.Write(b[:f.takes])
	return n, errBroken
}

// A command that was not sent says so, and whether it was waiting for a connection.
func TestNotSent(t *testing.T) {
	t.Parallel()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	closing := newServer(t, func(p *peer) { _ = p.NetConn().Close() })
	silent := newServer(t, func(p *peer) { _, _ = io.Copy(io.Discard, p.NetConn()) })
	working := newServer(t, answering(plain))
	for name, test := range map[string]struct {
		server     *server
		ctx        context.Context
		change     func(*Config)
		cause      error
		connecting bool
	}{
		"no connection": {server: working, change: func(c *Config) {
			c.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errBroken }
		}, cause: errBroken, connecting: true},
		"not trusted":          {server: working, change: func(c *Config) { c.TLS = new(tls.Config) }, connecting: true},
		"closed":               {server: closing, connecting: true},
		"handshake timeout":    {server: silent, change: func(c *Config) { c.HandshakeTimeout = 20 * time.Millisecond }, cause: context.DeadlineExceeded, connecting: true},
		"context ended before": {server: working, ctx: canceled, cause: context.Canceled},
		"nothing written": {server: working, change: func(c *Config) {
			var broken atomic.Bool
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				return &failsLast{faulty: faulty{conn, &broken, 0}}, err
			}
		}, cause: errBroken},
	} {
		if test.ctx == nil {
			test.ctx = t.Context()
		}
		_, _, err := post(test.ctx, test.server.client(t, test.change))
		unsent, ok := errors.AsType[*NotSentError](err)
		if !ok || unsent.Connecting != test.connecting || test.cause != nil && !errors.Is(err, test.cause) || err.Error() != unsent.Err.Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(working.received); n != 0 {
		t.Errorf("%d commands received", n)
	}
}

// A command whose context has ended is not sent on an idle connection, either.
func TestEndedContext(t *testing.T) {
	t.Parallel()
	s := newServer(t, answering(plain))
	c := s.client(t, nil)
	mustPost(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := post(ctx, c)
	if unsent, ok := errors.AsType[*NotSentError](err); !ok || unsent.Connecting || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	mustPost(t, c)
	s.expect(t, 1, 2)
}

// failsLast is a connection that breaks after the two writes of a TLS 1.3 handshake.
type failsLast struct {
	faulty
	writes int
}

func (f *failsLast) Write(b []byte) (int, error) {
	if f.writes++; f.writes == 3 {
		f.broken.Store(true)
	}
	return f.faulty.Write(b)
}

// The end of the context ends a request at once, wherever it is, and is its error.
func TestContextEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		serve   func(p *peer, reached func(), end <-chan struct{})
		dial    func(ctx context.Context, reached func()) (net.Conn, error)
		command int
		sent    bool
	}{
		"connecting": {dial: func(_ context.Context, reached func()) (net.Conn, error) {
			reached()
			<-t.Context().Done()
			return nil, errBroken
		}},
		"handshake": {serve: func(_ *peer, reached func(), end <-chan struct{}) {
			reached()
			<-end
		}},
		"writing": {serve: func(p *peer, reached func(), end <-chan struct{}) {
			_, _ = p.Read(make([]byte, 1))
			reached()
			<-end
		}, command: 16 << 20, sent: true},
		"header": {serve: func(p *peer, reached func(), _ <-chan struct{}) {
			p.receive()
			p.send("HTTP/1.1 200 OK\r\n")
			reached()
			p.receive()
		}, sent: true},
		"body": {serve: func(p *peer, reached func(), _ <-chan struct{}) {
			p.receive()
			p.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok")
			reached()
			p.receive()
		}, sent: true},
	} {
		for _, deadline := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, deadline %t", name, deadline), func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				want, reached := context.Canceled, cancel
				if deadline {
					ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
					defer cancel()
					want, reached = context.DeadlineExceeded, func() {}
				}
				s := newServer(t, func(p *peer) {
					if test.serve != nil {
						test.serve(p, reached, t.Context().Done())
					}
				})
				c := s.client(t, func(c *Config) {
					if test.dial != nil {
						c.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return test.dial(ctx, reached) }
					}
				})
				response, err := c.Post(ctx, nil, slices.Concat(command, make([]byte, test.command)))
				if err == nil {
					_, err = io.ReadAll(response.Body)
					response.Body.Close()
				}
				_, unsent := errors.AsType[*NotSentError](err)
				// A deadline can pass earlier than the test wants.
				if !errors.Is(err, want) || unsent == test.sent && !deadline {
					t.Error(err)
				}
				if len(c.idle) > 0 {
					t.Error("the connection is kept")
				}
			})
		}
	}
}

// A context that ends after an answer was read does not disturb the next command.
func TestContextEndsLater(t *testing.T) {
	t.Parallel()
	s := newServer(t, answering(plain))
	c := s.client(t, nil)
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		response, err := c.Post(ctx, nil, command)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(response.Body)
		go cancel()
		if response.Body.Close(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		mustPost(t, c)
	}
}

// The copy of the command with its secrets is overwritten when it was written, and when that
// failed. A large buffer is not kept.
func TestOverwritten(t *testing.T) {
	t.Parallel()
	s := newServer(t, answering(plain))
	c := s.client(t, nil)
	mustPost(t, c)
	conn := c.takeIdle()
	if all := conn.request.AvailableBuffer(); cap(all) < len(command) || bytes.Contains(all[:cap(all)], []byte("sesame")) {
		t.Errorf("%q", all[:cap(all)])
	}
	_ = conn.socket.Close()
	if _, err := conn.roundTrip(t.Context(), nil, command); err == nil { //nolint:bodyclose // there is none
		t.Error("wrote to a closed connection")
	}
	if all := conn.request.AvailableBuffer(); bytes.Contains(all[:cap(all)], []byte("sesame")) {
		t.Errorf("%q", all[:cap(all)])
	}
	response, err := c.Post(t.Context(), nil, make([]byte, 2*maxKept))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	if n := c.idle[0].request.Cap(); n > maxKept {
		t.Errorf("a buffer of %d bytes is kept", n)
	}
}

// Requests at the same time use different connections, and each gets its own answer.
func TestConcurrently(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(p *peer) {
		for {
			r, err := http.ReadRequest(p.reader)
			if err != nil {
				return
			}
			text, _ := io.ReadAll(r.Body)
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text))
		}
	})
	c := s.client(t, nil)
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			for i := range 50 {
				text := fmt.Sprint(n, " ", i)
				response, err := c.Post(t.Context(), nil, []byte(text))
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(response.Body)
				if response.Body.Close(); string(got) != text || err != nil {
					t.Errorf("%q, not %q: %v", got, text, err)
				}
			}
		})
	}
	group.Wait()
	if n := len(c.idle); n > 4 {
		t.Errorf("%d connections are kept", n)
	}
}
