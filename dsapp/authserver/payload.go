package authserver

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http/httptrace"
	"sync"
)

// errAbandoned is what a transport gets that reads a request after its end.
var errAbandoned = errors.New("request is over")

// payload is the body of one HTTP request. It decides whether the command was
// sent: headers alone carry nothing of a command, so it was certainly not sent if
// no byte of the body was handed to the transport. Once abandoned it hands out
// nothing any more, so that the answer to that question cannot change.
type payload struct {
	mu        sync.Mutex
	data      []byte
	read      bool // the transport took bytes for the current attempt
	written   bool // a whole attempt was written
	waits     bool // for a connection
	http2     bool
	abandoned bool
}

// trace observes what the transport does with the request.
func (p *payload) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(string) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.waits = true
		},
		GotConn: func(info httptrace.GotConnInfo) {
			c, ok := info.Conn.(*tls.Conn)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.waits = false
			p.http2 = ok && c.ConnectionState().NegotiatedProtocol == "h2"
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.written = p.written || info.Err == nil
		},
	}
}

// connecting reports whether the transport wants a connection and has none yet.
func (p *payload) connecting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waits
}

// open gives the body for one attempt.
func (p *payload) open() io.ReadCloser { return &payloadReader{p: p} }

// reopen gives the body for another attempt of the transport itself. With
// HTTP/1.1 it makes one if it wrote nothing on a connection that the server had
// closed in the meantime. HTTP/2 repeats also what a server reset after having
// seen it: not for us.
func (p *payload) reopen() (io.ReadCloser, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.abandoned || p.written || p.http2 && p.read {
		return nil, errors.New("command is not sent twice")
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

// payloadReader is the body of one attempt.
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
