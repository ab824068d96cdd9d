package restapi

import (
	"bufio"
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
)

// testServer is a Handler with fake operations. It is called directly, or over
// connections in memory where net/http is part of what is tested. These work in
// a bubble of testing/synctest.
type testServer struct {
	t       testing.TB
	ops     *fakeOperations
	handler http.Handler
	http    http.Server // may be configured until the first connection
	conns   chan net.Conn
	log     output.Buffer

	mu            sync.Mutex
	observations  []Observation
	authenticated []string // applications
}

func testKeys(t testing.TB) *apikey.Set {
	t.Helper()
	keys, err := apikey.NewSet([]apikey.Key{
		{Name: "mobile-app", Class: apikey.FrontEnd, Hash: apikey.Hash(frontKey)},
		{Name: "bank-site", Class: apikey.BackEnd, Hash: apikey.Hash(backKey)},
		{Name: "far-site", Class: apikey.BackEnd, Hash: apikey.Hash(farKey), Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// newHandler returns a Handler for clients at 127.0.0.1, and its operations. edit may
// change the configuration; it may be nil.
func newHandler(tb testing.TB, edit func(*Config)) (*Handler, *fakeOperations) {
	tb.Helper()
	ops := &fakeOperations{}
	c := Config{Operations: ops, Keys: testKeys(tb), ClientIP: func(*http.Request) netip.Addr { return netip.MustParseAddr("127.0.0.1") }}
	if edit != nil {
		edit(&c)
	}
	h, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return h, ops
}

// newTestServer returns a testServer for clients at 127.0.0.1. edit may change the
// configuration and wrap the handler; both may be nil.
func newTestServer(t testing.TB, edit func(*Config), wrap func(*Handler) http.HandlerFunc) *testServer {
	t.Helper()
	s := &testServer{t: t}
	h, ops := newHandler(t, func(c *Config) {
		c.Authenticated = func(_ *http.Request, k apikey.Key) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.authenticated = append(s.authenticated, k.Name)
		}
		c.Observe = func(_ *http.Request, o Observation) {
			s.mu.Lock()
			defer s.mu.Unlock()
			o.Duration = 0 // TestDuration is about it
			s.observations = append(s.observations, o)
		}
		c.Logger = slog.New(slog.NewTextHandler(&s.log, nil))
		if edit != nil {
			edit(c)
		}
	})
	s.ops = ops
	s.handler = h
	if wrap != nil {
		s.handler = wrap(h)
	}
	return s
}

// last returns the latest observation.
func (s *testServer) last() Observation {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.observations) == 0 {
		s.t.Fatal("nothing was observed")
	}
	return s.observations[len(s.observations)-1]
}

// newRequest returns a request as a server gets it, with a JSON body and, unless it
// is empty, a key. edit may change it.
func newRequest(path, key, body string, edit ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.SetBasicAuth(key, "")
	}
	for _, e := range edit {
		e(r)
	}
	return r
}

type reply struct {
	status int
	header http.Header
	body   string
}

// do gives a request to the handler.
func (s *testServer) do(r *http.Request) reply {
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return reply{w.Code, w.Header(), w.Body.String()}
}

func (s *testServer) call(path, key, body string, edit ...func(*http.Request)) reply {
	return s.do(newRequest(path, key, body, edit...))
}

// tryDo gives a request to the handler. It reports whether the handler panics with
// http.ErrAbortHandler.
func (s *testServer) tryDo(r *http.Request) (got reply, aborted bool) {
	s.t.Helper()
	defer func() {
		if p := recover(); p != nil {
			if aborted = p == http.ErrAbortHandler; !aborted {
				panic(p)
			}
		}
	}()
	return s.do(r), false
}

// connect opens a connection to the server, which the first call starts.
func (s *testServer) connect() net.Conn {
	s.t.Helper()
	if s.conns == nil {
		s.conns = make(chan net.Conn)
		s.http.Handler = s.handler
		s.http.ErrorLog = log.New(io.Discard, "", 0)
		s.http.Protocols = new(http.Protocols)
		s.http.Protocols.SetHTTP1(true)
		s.http.Protocols.SetUnencryptedHTTP2(true)
		l := &memoryListener{conns: s.conns, closed: make(chan struct{})}
		var serving sync.WaitGroup
		serving.Go(func() { _ = s.http.Serve(l) })
		s.t.Cleanup(func() {
			_ = s.http.Close()
			serving.Wait()
		})
	}
	client, server := net.Pipe()
	s.conns <- server
	s.t.Cleanup(func() { client.Close() })
	return client
}

// dial opens an HTTP/1.1 connection.
func (s *testServer) dial() (net.Conn, *bufio.Reader) {
	s.t.Helper()
	conn := s.connect()
	return conn, bufio.NewReader(conn)
}

// http2 returns a client that speaks HTTP/2 with the server.
func (s *testServer) http2() *http.Client {
	s.t.Helper()
	transport := &http.Transport{
		Protocols:   new(http.Protocols),
		DialContext: func(context.Context, string, string) (net.Conn, error) { return s.connect(), nil },
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// clientRequest returns a request to be sent by http2.
func (s *testServer) clientRequest(path, key string, body io.Reader) *http.Request {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, "http://example.com"+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(key, "")
	return r
}

// send performs a request.
func (s *testServer) send(c *http.Client, r *http.Request) reply {
	s.t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.read(resp)
}

func (s *testServer) read(resp *http.Response) reply {
	s.t.Helper()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.Close {
		// The client takes the field away.
		resp.Header.Set("Connection", "close")
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

// write sends a text over a connection.
func (s *testServer) write(conn net.Conn, text string) {
	s.t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		s.t.Fatal(err)
	}
}

// receive reads one answer from a connection.
func (s *testServer) receive(r *bufio.Reader) reply {
	s.t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.read(resp)
}

// headerText is a request in HTTP/1.1 up to the end of its header, with further
// fields.
func headerText(path, key string, fields ...string) string {
	lines := []string{"POST " + path + " HTTP/1.1", "Host: example.com", "Content-Type: application/json"}
	if key != "" {
		lines = append(lines, "Authorization: "+newRequest(path, key, "").Header.Get("Authorization"))
	}
	return strings.Join(append(lines, fields...), "\r\n") + "\r\n\r\n"
}

// roundTripBytes sends a request over a connection of its own, and returns the answer
// as it came, without its date.
func (s *testServer) roundTripBytes(path, key, body string) string {
	s.t.Helper()
	conn := s.connect()
	s.write(conn, headerText(path, key, "Connection: close", "Content-Length: "+strconv.Itoa(len(body)))+body)
	answer, err := io.ReadAll(conn)
	if err != nil {
		s.t.Fatal(err)
	}
	var lines []string
	for line := range strings.SplitSeq(string(answer), "\r\n") {
		if !strings.HasPrefix(line, "Date: ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\r\n")
}

// memoryListener accepts the connections that a channel brings.
type memoryListener struct {
	conns  <-chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memoryListener) Addr() net.Addr { return &net.TCPAddr{} }
