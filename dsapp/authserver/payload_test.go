package authserver

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"testing"
)

// transport is a transport that behaves badly in a given way.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Sent is what left in the body, whatever else the transport reports.
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
		in := Instance{Name: "primary", URL: &url.URL{Scheme: "https", Host: "oas1"}, Transport: test.transport, MaxConnections: 1}
		_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{in}}), request)
		checkFailure(t, name, err, test.reason)
	}
}

// A transport that reads on after the end of the call gets nothing, so that "not
// sent" stays true, and the request with its secrets is wiped.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	var late *http.Request
	in := Instance{Name: "primary", URL: &url.URL{Scheme: "https", Host: "oas1"}, MaxConnections: 1}
	in.Transport = transport(func(r *http.Request) (*http.Response, error) {
		late = r
		return nil, errors.New("broken")
	})
	_, err := register(t.Context(), newServers(t, Config{Instances: []Instance{in}}), request)
	checkFailure(t, "late", err, ErrNotSent)
	if n, err := late.Body.Read(make([]byte, 10)); n != 0 || !errors.Is(err, errAbandoned) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if body, err := late.GetBody(); err == nil || body != nil {
		t.Error("the command is handed out again")
	}
	for _, b := range late.Body.(*payloadReader).p.data {
		if b != 0 {
			t.Fatal("the command stays in memory")
		}
	}
}

// HTTP/2 transports repeat a stream that the server reset after it had seen
// something of it; a command is not repeated then.
func TestHTTP2Reset(t *testing.T) {
	t.Parallel()
	p := &payload{data: []byte("command"), http2: true}
	if _, err := p.reopen(); err != nil {
		t.Errorf("before the first byte: %v", err)
	}
	if _, err := p.open().Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.reopen(); err == nil {
		t.Error("body is handed out again after its first byte")
	}
	if !p.abandon() {
		t.Error("command counts as not sent")
	}
}
