package authserver

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http/httptrace"
	"sync"
)

// payload is the body of one HTTP request. It knows whether the command may have been sent.
// Headers contain nothing of a command, so a command was certainly not sent as long as the
// transport has not finished the header. After abandon, the transport gets nothing any more,
// so that this cannot change.
//
// The body is one that http.Transport knows to be in memory. Then it writes header and body at
// once, in one TLS record; otherwise it would take two.
//
// A transport may write a request several times, each time on another connection. It must be
// one of net/http, or read the body before it returns.
type payload struct {
	mu         sync.Mutex
	data       []byte        // a copy: the transport may still read it when the call has ended
	body       *bytes.Reader // of the current connection
	first      bytes.Reader  // the body for the first connection
	hooks      httptrace.ClientTrace
	begun      bool // the transport has finished the header for the current connection
	reading    bool // the transport may be reading the body
	written    bool // the whole request was written to a connection
	connecting bool // the transport is waiting for a connection
	http2      bool // the current connection is an HTTP/2 connection
	abandoned  bool
}

func newPayload(request []byte) *payload { return &payload{data: bytes.Clone(request)} }

// trace returns hooks that observe what the transport does with the request.
func (p *payload) trace() *httptrace.ClientTrace {
	p.hooks = httptrace.ClientTrace{
		GetConn: func(string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.connecting = true
		},
		GotConn: func(info httptrace.GotConnInfo) {
			c, ok := info.Conn.(*tls.Conn)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.connecting = false
			p.http2 = ok && c.ConnectionState().NegotiatedProtocol == "h2"
		},
		WroteHeaders: func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.abandoned {
				return // abandon has emptied the body
			}
			p.begun, p.reading = true, true
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.written = p.written || info.Err == nil
			if p.reading = false; p.abandoned {
				clear(p.data)
			}
		},
	}
	return &p.hooks
}

// awaitsConnection reports whether the transport is waiting for a connection.
func (p *payload) awaitsConnection() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connecting
}

// open returns the body for the first connection.
func (p *payload) open() io.ReadCloser {
	p.first.Reset(p.data)
	p.body = &p.first
	return io.NopCloser(p.body)
}

// reopen returns the body for another connection, if the transport decides to repeat the
// request. An HTTP/1.1 transport does so if the server had closed an idle connection before
// anything was written to it. An HTTP/2 transport also repeats requests that the server may
// have seen, so reopen refuses as soon as the body may have been read.
func (p *payload) reopen() (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.abandoned || p.written || p.http2 && p.sent() {
		return nil, errors.New("command must not be sent twice")
	}
	p.begun = false
	p.body = bytes.NewReader(p.data) // the transport may still read the first one
	return io.NopCloser(p.body), nil
}

// sent reports whether bytes of the body may have been sent on the current connection.
func (p *payload) sent() bool { return p.begun || p.body != nil && p.body.Len() < len(p.data) }

// abandon ends the request and reports whether the command may have been sent. The command is
// overwritten as soon as the transport does not read it any more.
func (p *payload) abandon() (sent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent, p.abandoned = p.sent(), true
	if !p.reading {
		clear(p.data)
		if p.body != nil {
			p.body.Reset(nil)
		}
	}
	return sent
}
