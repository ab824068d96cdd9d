//go:build linux

package testbed

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// Wire is a connection to a gateway, to which anything can be written. Reading from it fails
// the test after poll.Patience.
type Wire struct {
	net.Conn
	*bufio.Reader
	t *testing.T
}

// Read implements io.Reader.
func (w *Wire) Read(p []byte) (int, error) { return w.Reader.Read(p) }

// Say writes. An error is ignored: it shows when the answer is read.
func (w *Wire) Say(text string) { _, _ = io.WriteString(w.Conn, text) }

// Hear reads an answer. Its status is 0 if the connection ends without one.
func (w *Wire) Hear() Reply {
	w.t.Helper()
	resp, err := http.ReadResponse(w.Reader, nil)
	if err != nil {
		w.inTime(err)
		return Reply{Last: true}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Errorf("answer %d ends with %v", resp.StatusCode, err)
	}
	return Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(body), Last: resp.Close}
}

// Ended waits for the end of the connection, before which nothing may come.
func (w *Wire) Ended() {
	w.t.Helper()
	rest, err := io.ReadAll(w.Reader)
	w.inTime(err)
	assert.Empty(w.t, string(rest))
}

// inTime fails the test if the error is that of a connection that has not ended.
func (w *Wire) inTime(err error) {
	w.t.Helper()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Errorf("after %v: still waiting for the end of the connection", poll.Patience)
	}
}

// HearStream reads the answer on a stream of HTTP/2. It knows only the statuses in the static
// table of RFC 7541, appendix A; another one is -1. The status is 0 if the stream or the
// connection ends without an answer.
func (w *Wire) HearStream(stream uint32) (status int, body string) {
	w.t.Helper()
	const data, headers, reset, goAway, endStream = 0, 1, 3, 7, 1
	for {
		var head [9]byte
		if _, err := io.ReadFull(w.Reader, head[:]); err != nil {
			w.inTime(err)
			return 0, ""
		}
		payload := make([]byte, binary.BigEndian.Uint32(head[:4])>>8)
		if _, err := io.ReadFull(w.Reader, payload); err != nil {
			w.inTime(err)
			return 0, ""
		}
		kind, end := head[3], head[4]&endStream != 0
		if kind == goAway {
			return 0, ""
		}
		if binary.BigEndian.Uint32(head[5:]) != stream {
			continue
		}
		switch kind {
		case headers:
			status = -1
			// The status is the first field. An index beyond the static table is one of
			// the connection's own table.
			known := []int{200, 204, 206, 304, 400, 404, 500}
			if i := int(payload[0]) - 0x88; i >= 0 && i < len(known) {
				status = known[i]
			}
		case data:
			body += string(payload)
		case reset:
			return 0, ""
		}
		if (kind == headers || kind == data) && end {
			return status, body
		}
	}
}

// Dial opens a connection for an ALPN protocol, http/1.1 or h2.
func (g *Gateway) Dial(t *testing.T, protocol string) *Wire {
	t.Helper()
	config := g.TLS()
	config.NextProtos = []string{protocol}
	config.ServerName = "localhost"
	d := tls.Dialer{Config: config}
	c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(g.URL, "https://"))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(poll.Patience)))
	return &Wire{c, bufio.NewReader(c), t}
}

// HTTP1Request returns a POST request of HTTP/1.1 with further header fields. It gets the length
// of the body unless the fields tell where the body ends.
func HTTP1Request(path, key, body string, fields ...string) string {
	lines := []string{"POST " + path + " HTTP/1.1", "Host: localhost", "Content-Type: application/json"}
	if key != "" {
		lines = append(lines, "Authorization: "+BasicAuth(key+":"))
	}
	if all := strings.Join(fields, " "); !strings.Contains(all, "Content-Length") && !strings.Contains(all, "Transfer-Encoding") {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return strings.Join(append(lines, fields...), "\r\n") + "\r\n\r\n" + body
}

// HTTP2Frame returns a frame of HTTP/2 (RFC 9113, section 4.1).
func HTTP2Frame(kind, flags byte, stream uint32, payload string) string {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	head = append(head, flags)
	return string(binary.BigEndian.AppendUint32(head, stream)) + payload
}

// HTTP2Field returns a header field without compression (RFC 7541, section 6.2.2).
func HTTP2Field(name, value string) string {
	text := []byte{0}
	for _, s := range []string{name, value} {
		n := len(s)
		if n < 127 {
			text = append(text, byte(n))
		} else {
			text = append(text, 127)
			for n -= 127; n >= 128; n >>= 7 {
				text = append(text, byte(n)|128)
			}
			text = append(text, byte(n))
		}
		text = append(text, s...)
	}
	return string(text)
}
