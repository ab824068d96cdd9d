package httpclient

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// command is large enough to be seen in a buffer, and fits into one TLS record.
var command = []byte("<password>open sesame</password>")

const plain = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// server is a TLS server that lets the test write the bytes of its answers.
type server struct {
	config      *tls.Config // of clients
	address     *url.URL
	connections atomic.Int64
	// received has the commands that arrived completely.
	received chan string
	// closed gets a value for each connection that the client has closed.
	closed chan struct{}
}

// peer is the server's side of a connection.
type peer struct {
	*tls.Conn
	server *server
	reader *bufio.Reader
}

// newServer starts a server that passes each connection to serve.
func newServer(tb testing.TB, serve func(p *peer)) *server {
	tb.Helper()
	certificates := httptest.NewUnstartedServer(nil)
	certificates.StartTLS()
	tb.Cleanup(certificates.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &server{
		config:  certificates.Client().Transport.(*http.Transport).TLSClientConfig,
		address: &url.URL{Scheme: "https", Host: listener.Addr().String(), Path: "/soap"},
		// More than any test needs.
		received: make(chan string, 1000), closed: make(chan struct{}, 1000),
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			group.Go(func() {
				defer c.Close()
				secured := tls.Server(c, certificates.TLS)
				serve(&peer{secured, s, bufio.NewReader(secured)})
			})
		}
	})
	tb.Cleanup(func() {
		listener.Close()
		group.Wait()
	})
	return s
}

// receive reads a command. It returns false after the end of the connection.
func (p *peer) receive() bool {
	r, err := http.ReadRequest(p.reader)
	if err != nil {
		p.server.closed <- struct{}{}
		return false
	}
	text, err := io.ReadAll(r.Body)
	if err == nil {
		p.server.received <- string(text)
	}
	return err == nil
}

func (p *peer) send(text string) { _, _ = io.WriteString(p, text) }

// answering answers each command on every connection with the same bytes.
func answering(text string) func(*peer) {
	return func(p *peer) {
		for p.receive() {
			p.send(text)
		}
	}
}

// client returns a client of the server. change may be nil.
func (s *server) client(tb testing.TB, change func(*Config)) *Client {
	tb.Helper()
	config := Config{
		URL: s.address, TLS: s.config, Dial: new(net.Dialer).DialContext,
		HandshakeTimeout: poll.Patience, IdleTimeout: time.Hour, MaxIdle: 4,
	}
	if change != nil {
		change(&config)
	}
	c := New(config)
	tb.Cleanup(c.CloseIdleConnections)
	return c
}

// post sends the command and reads the answer to its end.
func post(ctx context.Context, c *Client) (status int, text string, err error) {
	response, err := c.Post(ctx, http.Header{"Content-Type": {"text/xml"}, "SOAPAction": {`""`}}, command)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return response.StatusCode, string(b), err
}

func mustPost(tb testing.TB, c *Client) {
	tb.Helper()
	if status, text, err := post(tb.Context(), c); status != http.StatusOK || text != "ok" || err != nil {
		tb.Fatalf("%d %q, %v", status, text, err)
	}
}

func (s *server) expect(t *testing.T, connections int64, commands int) {
	t.Helper()
	if c, n := s.connections.Load(), len(s.received); c != connections || n != commands {
		t.Errorf("%d connections and %d commands, not %d and %d", c, n, connections, commands)
	}
}

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

// Answers are read as net/http reads them. A connection is used again only if the answer says
// where it ends, and does not say that the connection ends, too.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const (
		ok      = "HTTP/1.1 200 OK\r\n"
		info    = "HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"
		chunked = "Transfer-Encoding: chunked\r\n"
	)
	for name, test := range map[string]struct {
		answer string
		end    bool // the server ends the connection after the answer
		status int  // 0: error
		text   string
		again  bool
	}{
		"length":                   {answer: plain, status: 200, text: "ok", again: true},
		"chunks":                   {answer: ok + chunked + "\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", status: 200, text: "ok", again: true},
		"chunks with trailer":      {answer: ok + chunked + "\r\n2\r\nok\r\n0\r\nX-T: y\r\n\r\n", status: 200, text: "ok", again: true},
		"no body":                  {answer: ok + "Content-Length: 0\r\n\r\n", status: 200, again: true},
		"no content":               {answer: "HTTP/1.1 204 No Content\r\n\r\n", status: 204, again: true},
		"redirect":                 {answer: "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", status: 302, again: true},
		"ends with the connection": {answer: ok + "\r\nok", end: true, status: 200, text: "ok"},
		"connection closes":        {answer: ok + "Connection: close\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok"},
		"HTTP/1.0":                 {answer: "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok"},
		"HTTP/1.0, kept":           {answer: "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok", again: true},
		"informational":            {answer: "HTTP/1.1 100 Continue\r\n\r\n" + strings.Repeat(info, 4) + plain, status: 200, text: "ok", again: true},
		"too many informational":   {answer: strings.Repeat(info, 6) + plain},
		"switching protocols":      {answer: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", status: 101},
		"status below 100":         {answer: "HTTP/1.1 099 What\r\nContent-Length: 2\r\n\r\nok", status: 99, text: "ok"},
		"length and chunks":        {answer: ok + chunked + "Content-Length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n", status: 200, text: "ok", again: true},
		"two lengths":              {answer: ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok"},
		"twice the same length":    {answer: ok + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok", again: true},
		"negative length":          {answer: ok + "Content-Length: -2\r\n\r\nok"},
		"signed length":            {answer: ok + "Content-Length: +2\r\n\r\nok"},
		"list of lengths":          {answer: ok + "Content-Length: 2, 2\r\n\r\nok"},
		"two encodings":            {answer: ok + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"},
		"unknown encoding":         {answer: ok + "Transfer-Encoding: gzip\r\n\r\nok"},
		"blank before the colon":   {answer: ok + "Content-Length : 1\r\n\r\nok", end: true, status: 200, text: "ok"},
		"bad chunk":                {answer: ok + chunked + "\r\nx\r\nok\r\n0\r\n\r\n"},
		"missing bytes":            {answer: ok + "Content-Length: 3\r\n\r\nok", end: true},
		"missing chunk":            {answer: ok + chunked + "\r\n2\r\nok\r\n", end: true},
		"missing header":           {answer: ok + "Content-Length: 2\r\n", end: true},
		"nothing":                  {end: true},
		"not HTTP":                 {answer: "SSH-2.0-OpenSSH\r\n\r\n"},
		"HTTP/2":                   {answer: "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok", again: true},
		"long header":              {answer: ok + "X: " + strings.Repeat("x", maxHeader-100) + "\r\nContent-Length: 2\r\n\r\nok", status: 200, text: "ok", again: true},
		"too long header":          {answer: ok + "X: " + strings.Repeat("x", maxHeader) + "\r\nContent-Length: 2\r\n\r\nok"},
		"endless header":           {answer: ok + strings.Repeat("X: x\r\n", maxHeader/6)},
		"long body":                {answer: ok + "Content-Length: 200000\r\n\r\n" + strings.Repeat("x", 200000), status: 200, text: strings.Repeat("x", 200000), again: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(p *peer) {
				for p.receive() {
					if p.send(test.answer); test.end {
						return
					}
				}
			})
			c := s.client(t, nil)
			for range 2 {
				status, text, err := post(t.Context(), c)
				if (err != nil) != (test.status == 0) || err == nil && (status != test.status || text != test.text) {
					t.Errorf("%d %.100q, %v", status, text, err)
				}
				if _, unsent := errors.AsType[*NotSentError](err); unsent {
					t.Error("the command was sent")
				}
			}
			s.expect(t, map[bool]int64{true: 1, false: 2}[test.again], 2)
		})
	}
}

// reference reads an answer as net/http does. complete says that it is one which does not depend
// on the end of the connection.
func reference(answer string) (status int, text string, complete bool, err error) {
	r := bufio.NewReader(strings.NewReader(answer))
	for range maxInformational + 1 {
		response, err := http.ReadResponse(r, nil) //nolint:bodyclose // there is no connection
		if err != nil {
			return 0, "", false, err
		}
		status = response.StatusCode
		if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
			continue
		}
		b, err := io.ReadAll(response.Body)
		return status, string(b), err == nil && (response.ContentLength >= 0 || response.TransferEncoding != nil), err
	}
	return 0, "", false, errors.New("too many informational answers")
}

// An answer is what net/http reads, whatever a server sends. The next command gets its own answer,
// and nothing that followed the first one.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		plain, plain + plain, plain + "\n", "HTTP/1.1 100 Continue\r\n\r\n" + plain, "HTTP/1.0 200 OK\r\n\r\nok", "HTTP/1.1 099 What\r\n\r\n" + plain, "SSH-2.0\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + plain, "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 40\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 0\n\n", "HTTP/1.1 101 X\r\n\r\nok",
	} {
		f.Add(seed)
	}
	type answer struct {
		text string
		end  bool
	}
	answers := make(chan answer, 2)
	s := newServer(f, func(p *peer) {
		for p.receive() {
			<-p.server.received
			a := <-answers
			if p.send(a.text); a.end {
				return
			}
		}
		<-p.server.closed
	})
	c := s.client(f, nil)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			t.Skip("longer than one TLS record can be at the beginning")
		}
		wantStatus, want, complete, wantErr := reference(text)
		answers <- answer{text, !complete}
		status, got, err := post(t.Context(), c)
		if (err != nil) != (wantErr != nil) || err == nil && (status != wantStatus || got != want) {
			t.Errorf("%d %q, %v, not %d %q, %v", status, got, err, wantStatus, want, wantErr)
		}
		answers <- answer{text: plain}
		mustPost(t, c)
	})
}

// The end of the connection before the end of the answer is io.ErrUnexpectedEOF.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"} {
		s := newServer(t, func(p *peer) {
			if p.receive() {
				p.send(answer)
			}
		})
		if _, _, err := post(t.Context(), s.client(t, nil)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", answer, err)
		}
		s.expect(t, 1, 1)
	}
}

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

// The connection of an answer that was not read to its end is closed. A closed body cannot be
// read, and can be closed again.
func TestUnfinishedBody(t *testing.T) {
	t.Parallel()
	s := newServer(t, answering(plain))
	c := s.client(t, nil)
	for range 2 {
		response, err := c.Post(t.Context(), nil, command)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := response.Body.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if err := errors.Join(response.Body.Close(), response.Body.Close()); err != nil {
			t.Error(err)
		}
		if _, err := response.Body.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Error(err)
		}
		poll.Receive(t, "the end of the connection", s.closed)
	}
	s.expect(t, 2, 2)
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
