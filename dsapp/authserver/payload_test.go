package authserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"sync/atomic"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// A command counts as sent as soon as the transport has finished the header or read a byte of the
// body, unless it reports that it wrote nothing and then gets no other connection.
func TestSent(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	written := func(r *http.Request, err error) {
		httptrace.ContextClientTrace(r.Context()).WroteRequest(httptrace.WroteRequestInfo{Err: err})
	}
	for name, test := range map[string]struct {
		transport transport
		reason    error
	}{
		"connection without a byte": {func(r *http.Request) (*http.Response, error) {
			httptrace.ContextClientTrace(r.Context()).GotConn(httptrace.GotConnInfo{})
			return nil, broken
		}, ErrNotSent},
		"header": {func(r *http.Request) (*http.Response, error) {
			httptrace.ContextClientTrace(r.Context()).WroteHeaders()
			return nil, broken
		}, ErrNoAnswer},
		"one byte": {func(r *http.Request) (*http.Response, error) {
			_, _ = r.Body.Read(make([]byte, 1))
			return nil, broken
		}, ErrNoAnswer},
		"no response header in time": {func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			return nil, os.ErrDeadlineExceeded
		}, ErrTimeout},
		"nothing written, second connection fails": {func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			written(r, broken)
			if _, err := r.GetBody(); err != nil {
				return nil, err
			}
			return nil, broken
		}, ErrNotSent},
		"nothing written, lost on the second connection": {func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			written(r, broken)
			body, err := r.GetBody()
			if err != nil {
				return nil, err
			}
			if n, err := io.Copy(io.Discard, body); n != r.ContentLength || err != nil {
				t.Errorf("second attempt gets %d bytes, %v", n, err)
			}
			return nil, broken
		}, ErrNoAnswer},
		"written, second attempt": {func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			written(r, nil)
			body, err := r.GetBody()
			if err == nil || body != nil {
				t.Error("a written command is handed out again")
			}
			return nil, err
		}, ErrNoAnswer},
	} {
		in := stub("primary", test.transport)
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{in}}), request)
		checkFailure(t, name, err, test.reason)
	}
}

// A transport that reads the body after the call has ended gets nothing, so that ErrNotSent stays
// true.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	var late *http.Request
	in := stub("primary", transport(func(r *http.Request) (*http.Response, error) {
		late = r
		return nil, errors.New("broken")
	}))
	_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{in}}), request)
	checkFailure(t, "late", err, ErrNotSent)
	if n, err := late.Body.Read(make([]byte, 10)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if body, err := late.GetBody(); err == nil || body != nil {
		t.Error("the command is handed out again")
	}
}

// The command with its secrets is overwritten when the call has ended, but not while the
// transport reads it.
func TestOverwritten(t *testing.T) {
	t.Parallel()
	overwritten := func(p *payload) bool { return bytes.Equal(p.data, make([]byte, len(p.data))) }
	for _, begun := range []bool{false, true} {
		command := []byte("command")
		p := newPayload(command)
		p.open()
		trace := p.trace()
		if begun {
			trace.WroteHeaders()
		}
		if sent := p.abandon(); sent != begun || overwritten(p) == begun {
			t.Errorf("begun %t: sent %t, overwritten %t", begun, sent, overwritten(p))
		}
		trace.WroteRequest(httptrace.WroteRequestInfo{})
		if !overwritten(p) || string(command) != "command" {
			t.Errorf("begun %t: %q, %q", begun, p.data, command)
		}
	}
}

// A command goes out with its header, in one TLS record.
func TestOneRecord(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "primary", answering(registered))
	transport := p.Transport.(*http.Transport)
	var writes atomic.Int64
	dial := new(net.Dialer).DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		return countingConn{c, &writes}, err
	}
	s := newServers(t, Config{Instances: []Instance{p.Instance}})
	for n := range 3 {
		before := writes.Load()
		if _, err := register(t.Context(), s, request); err != nil {
			t.Fatal(err)
		}
		if wrote := writes.Load() - before; n > 0 && wrote != 1 {
			t.Errorf("%d writes", wrote)
		}
	}
}

// countingConn counts the writes to a connection.
type countingConn struct {
	net.Conn

	writes *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// connection returns the client's side of a TLS connection with that protocol.
func connection(t *testing.T, protocol string) net.Conn {
	t.Helper()
	certificates := httptest.NewUnstartedServer(nil)
	certificates.StartTLS()
	t.Cleanup(certificates.Close)
	a, b := net.Pipe()
	client := tls.Client(a, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	server := tls.Server(b, &tls.Config{Certificates: certificates.TLS.Certificates, NextProtos: []string{protocol}})
	t.Cleanup(func() { a.Close(); b.Close() })
	done := make(chan error, 1)
	go func() { done <- server.HandshakeContext(t.Context()) }()
	if err := errors.Join(client.HandshakeContext(t.Context()), poll.Receive(t, "handshake", done)); err != nil {
		t.Fatal(err)
	}
	return client
}

// A transport that wrote nothing may repeat a request on an HTTP/1.1 connection. An HTTP/2
// transport also wants to repeat requests that the server has seen, so it may not, once it has
// read a byte of the body.
func TestRepeat(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		conn    net.Conn
		repeats bool
	}{
		"HTTP/2":      {connection(t, "h2"), false},
		"HTTP/1.1":    {connection(t, "http/1.1"), true},
		"without TLS": {&net.TCPConn{}, true},
	} {
		p := newPayload([]byte("command"))
		p.open()
		trace := p.trace()
		trace.GetConn("oas:443")
		if !p.awaitsConnection() {
			t.Errorf("%s: does not wait for a connection", name)
		}
		trace.GotConn(httptrace.GotConnInfo{Conn: test.conn})
		if p.awaitsConnection() {
			t.Errorf("%s: still waits for a connection", name)
		}
		body, err := p.reopen()
		if err != nil {
			t.Fatalf("%s, before the first byte: %v", name, err)
		}
		if _, err := body.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.reopen(); (err == nil) != test.repeats {
			t.Errorf("%s, after the first byte: %v", name, err)
		}
		if sent := p.abandon(); sent == test.repeats {
			t.Errorf("%s: sent is %v", name, sent)
		}
	}
}

// Commands can be sent over HTTP/2. If the server resets the stream after it has received the
// command, the command is not sent again.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	var received atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			return
		}
		received.Add(1)
		if r.ProtoMajor != 2 {
			t.Errorf("protocol %s", r.Proto)
		}
		if broken.Load() {
			panic(http.ErrAbortHandler)
		}
		write(w, http.StatusOK, "text/xml", registered)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	in := newTestInstance(t, "primary", server.URL, server.Client().Transport.(*http.Transport).TLSClientConfig)
	in.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	s := newServers(t, Config{Instances: []Instance{in}})
	if _, err := register(t.Context(), s, request); err != nil {
		t.Error(err)
	}
	broken.Store(true)
	_, err := register(t.Context(), s, request)
	checkFailure(t, "reset", err, ErrNoAnswer)
	if n := received.Load(); n != 2 {
		t.Errorf("%d commands received", n)
	}
}

// If the server resets a reused connection after it has received the command, the command is not
// sent again.
func TestReusedConnection(t *testing.T) {
	t.Parallel()
	calls := 0
	p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
		if calls++; calls > 1 {
			reset(hijack(w))
			return
		}
		answering(registered)(w, r, command)
	})
	s := newServers(t, Config{Instances: []Instance{p.Instance}})
	if _, err := register(t.Context(), s, request); err != nil {
		t.Fatal(err)
	}
	_, err := register(t.Context(), s, request)
	checkFailure(t, "reset", err, ErrNoAnswer)
	if n := p.received.Load(); n != 2 {
		t.Errorf("%d commands received", n)
	}
}

// If the connection is reset while the command is being sent, its outcome is unknown.
func TestResetWhileSending(t *testing.T) {
	t.Parallel()
	certificates := httptest.NewUnstartedServer(nil)
	certificates.StartTLS()
	defer certificates.Close()
	address := listen(t, func(c net.Conn) {
		s := tls.Server(c, certificates.TLS)
		_, _ = s.Read(make([]byte, 1))
		reset(s)
	})
	config := certificates.Client().Transport.(*http.Transport).TLSClientConfig
	s := newServers(t, Config{Instances: []Instance{newTestInstance(t, "primary", address, config)}})
	_, err := register(t.Context(), s, request)
	checkFailure(t, "reset", err, ErrNoAnswer)
}
