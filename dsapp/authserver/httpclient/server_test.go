package httpclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

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
