package authserver

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http/httptrace"
	"sync"
)

// errAbandoned is what a transport gets if it reads a body after its request has ended.
var errAbandoned = errors.New("request has ended")

// payload is the body of one HTTP request. It knows whether the command may have been sent.
// Headers contain nothing of a command, so a command was certainly not sent as long as the
// transport has read no byte of the body. After abandon, the transport gets no more bytes, so
// that this cannot change.
//
// A transport may write a request several times, each time on another connection.
type payload struct {
	mu         sync.Mutex
	data       []byte
	read       bool // the transport read bytes for the current connection
	written    bool // the whole request was written to a connection
	connecting bool // the transport is waiting for a connection
	http2      bool // the current connection is an HTTP/2 connection
	abandoned  bool
}

// trace returns hooks that observe what the transport does with the request.
func (p *payload) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
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
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.written = p.written || info.Err == nil
		},
	}
}

// awaitsConnection reports whether the transport is waiting for a connection.
func (p *payload) awaitsConnection() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connecting
}

// open returns the body for the first connection.
func (p *payload) open() io.ReadCloser { return &payloadReader{p: p} }

// reopen returns the body for another connection, if the transport decides to repeat the
// request. An HTTP/1.1 transport does so if the server had closed an idle connection before
// anything was written to it. An HTTP/2 transport also repeats requests that the server may
// have seen, so reopen refuses as soon as one byte of the body was read.
func (p *payload) reopen() (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.abandoned || p.written || p.http2 && p.read {
		return nil, errors.New("command must not be sent twice")
	}
	p.read = false
	return p.open(), nil
}

// abandon ends the request and reports whether the command may have been sent.
func (p *payload) abandon() (sent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.abandoned = true
	return p.read
}

// payloadReader is the body for one connection.
type payloadReader struct {
	p      *payload
	offset int
}

func (r *payloadReader) Read(b []byte) (int, error) {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	if r.p.abandoned {
		return 0, errAbandoned
	}
	if r.offset == len(r.p.data) {
		return 0, io.EOF
	}
	n := copy(b, r.p.data[r.offset:])
	r.offset += n
	r.p.read = true
	return n, nil
}

func (r *payloadReader) Close() error { return nil }
