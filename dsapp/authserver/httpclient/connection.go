package httpclient

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"time"
)

// maxKept is the greatest capacity in bytes of a buffer that is kept for the next command.
const maxKept = 16 << 10

// connection is a TLS connection to the server. One goroutine at a time uses it.
type connection struct {
	client     *Client
	generation int // of the client when the connection was made
	socket     *socket
	tls        *tls.Conn
	reader     *bufio.Reader // of header
	header     limitedReader
	request    bytes.Buffer
	idleSince  time.Time
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// roundTrip sends a command and reads the header of the answer. If it fails, it closes the
// connection. If the answer's body is closed after its end, the connection is kept.
func (c *connection) roundTrip(ctx context.Context, header http.Header, command []byte) (*http.Response, error) {
	// Without a deadline of its own, the connection times out only after the end of ctx.
	stop := context.AfterFunc(ctx, func() { _ = c.socket.SetDeadline(past) })
	if sent, err := c.write(header, command); err != nil {
		stop()
		_ = c.socket.Close() // to say goodbye could block as well
		err = cmp.Or(ctx.Err(), err)
		if !sent {
			err = &NotSentError{Err: err}
		}
		return nil, err
	}
	response, err := c.readHeader()
	if err != nil {
		stop()
		c.close()
		return nil, cmp.Or(ctx.Err(), err)
	}
	response.Body = &body{
		ctx: ctx, stop: stop, connection: c, content: response.Body,
		ended: response.Body == http.NoBody,
		keep:  !response.Close && response.StatusCode >= http.StatusOK,
	}
	return response, nil
}

// write sends a command with its header in one TLS record, if it is not too long. sent says
// whether bytes of the command may have been sent.
func (c *connection) write(header http.Header, command []byte) (sent bool, err error) {
	c.client.writeRequest(&c.request, header, command)
	before := c.socket.written
	_, err = c.tls.Write(c.request.Bytes())
	clear(c.request.Bytes())
	c.request.Reset()
	if c.request.Cap() > maxKept {
		c.request = bytes.Buffer{}
	}
	return c.socket.written > before, err
}

// readHeader reads the header of the answer.
func (c *connection) readHeader() (*http.Response, error) {
	c.header.left = maxHeader
	for range maxInformational + 1 {
		response, err := http.ReadResponse(c.reader, nil)
		if err != nil {
			return nil, err
		}
		if status := response.StatusCode; status < 100 || status >= 200 || status == http.StatusSwitchingProtocols {
			c.header.left = math.MaxInt
			return response, nil
		}
	}
	return nil, errors.New("too many informational answers")
}

// quiet reports whether an idle connection can be used: the server has neither closed it nor
// sent anything that was not read. What it sent would be taken for the next answer.
func (c *connection) quiet() bool {
	if c.reader.Buffered() > 0 || c.socket.inRecord() {
		return false
	}
	c.socket.peeking, c.header.left = true, math.MaxInt
	// The TLS layer returns what it holds, and otherwise asks the socket.
	n, err := c.tls.Read(make([]byte, 1))
	c.socket.peeking = false
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// close closes the connection and tells the server so.
func (c *connection) close() { _ = c.tls.Close() }

// limitedReader reads from a TLS connection until its limit.
type limitedReader struct {
	tls  *tls.Conn
	left int
}

// Read implements io.Reader.
func (r *limitedReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errors.New("header of the answer is too long")
	}
	n, err := r.tls.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// body is the body of an answer.
type body struct {
	ctx        context.Context //nolint:containedctx // of the request that the body belongs to
	stop       func() bool     // ends the watch over ctx
	connection *connection     // nil after Close
	content    io.Reader
	ended      bool // content was read to its end
	keep       bool // the connection can be used again after the end
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.connection == nil {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.content.Read(p)
	switch {
	case err == io.EOF: //nolint:errorlint // a Reader's end is never wrapped
		b.ended = true
	case err != nil:
		err = cmp.Or(b.ctx.Err(), err)
	}
	return n, err
}

// Close implements io.Closer. It keeps the connection if the body was read to its end.
func (b *body) Close() error {
	c := b.connection
	if c == nil {
		return nil
	}
	b.connection = nil
	// If ctx has ended, the connection may get a deadline at any time.
	if b.stop() && b.ended && b.keep {
		c.client.putIdle(c)
	} else {
		c.close()
	}
	return nil
}
