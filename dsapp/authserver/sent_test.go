package authserver

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/httpclient"
)

// A command was not sent only if the transport says so.
func TestSent(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		err    error
		reason error
	}{
		"not sent":          {&httpclient.NotSentError{Err: broken}, ErrNotSent},
		"lost":              {broken, ErrNoAnswer},
		"no answer in time": {os.ErrDeadlineExceeded, ErrTimeout},
	} {
		in := stub("primary", transport(func(r *http.Request) (*http.Response, error) {
			_, _ = io.Copy(io.Discard, r.Body)
			return nil, test.err
		}))
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{in}}), request)
		checkFailure(t, name, err, test.reason)
	}
}

// A command goes out with its header, in one TLS record.
func TestOneRecord(t *testing.T) {
	t.Parallel()
	p := newPeer(t, "primary", answering(registered))
	var writes atomic.Int64
	p.Transport = newClient(t, p.URL, p.Transport.(*httpclient.Client).TLSConfig(), func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return countingConn{c, &writes}, err
	})
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
