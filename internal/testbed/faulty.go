//go:build linux

package testbed

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
)

// faultMark is a part of every Command, and of no command of a load.
const faultMark = "FLT"

// Incoming is a command that a Faulty server has read, on its connection.
type Incoming struct {
	*tls.Conn
	*Command

	Request string          // in XML
	Context context.Context // ends with the next Misbehave
}

// Send writes text to the connection and reports whether that worked.
func (x *Incoming) Send(text string) bool {
	_, err := io.WriteString(x.Conn, text)
	return err == nil
}

// Respond sends an HTTP answer.
func (x *Incoming) Respond(status int, contentType, body string) {
	x.Send(fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), contentType, len(body), body))
}

// XML is the media type of answers.
const XML = "text/xml; charset=utf-8"

// Head begins an answer with further header fields. Without any of them that tell where it
// ends, it ends with the connection.
func (x *Incoming) Head(more string) bool {
	return x.Send("HTTP/1.1 200 OK\r\nContent-Type: " + XML + "\r\nConnection: close\r\n" + more + "\r\n")
}

// Reset ends the connection with a reset.
func (x *Incoming) Reset() { ResetConnection(x.Conn) }

// ResetConnection ends a connection with a reset.
func ResetConnection(c *tls.Conn) {
	_ = c.NetConn().(*net.TCPConn).SetLinger(0)
	_ = c.NetConn().Close()
}

// Hang keeps the connection open without an answer.
func (x *Incoming) Hang() { <-x.Context.Done() }

// Drip sends a text again and again, slowly, byte by byte.
func (x *Incoming) Drip(text string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for i := range len(text) {
			select {
			case <-tick.C:
			case <-x.Context.Done():
				return
			}
			if !x.Send(text[i : i+1]) {
				return
			}
		}
	}
}

// Pour sends a text again and again, until size bytes are sent, or without end if size is 0.
func (x *Incoming) Pour(text string, size int) {
	block := strings.Repeat(text, max(1, 64<<10/len(text)))
	for sent := 0; size == 0 || sent < size; sent += len(block) {
		if x.Context.Err() != nil || !x.Send(block) {
			return
		}
	}
}

// Values returns the text of the command without its tags, for answers that repeat it.
func (x *Incoming) Values() string {
	return strings.Join(strings.FieldsFunc(x.Request, func(r rune) bool { return r == '<' || r == '>' }), " ")
}

// Misconduct is how a Faulty server breaks the protocols. The zero value is a server that
// works. A connection is closed when the function has returned that handles it; the context
// ends with the next Misbehave.
type Misconduct struct {
	Refuse      bool                                   // refuse connections
	Connected   func(ctx context.Context, c net.Conn)  // handles a connection before the TLS handshake
	TLS         *tls.Config                            // replaces the server's
	Established func(ctx context.Context, c *tls.Conn) // handles a connection after the TLS handshake
	Answer      func(x *Incoming)                      // handles a command
}

// Answering returns a misconduct of answers only.
func Answering(answer func(x *Incoming)) Misconduct { return Misconduct{Answer: answer} }

// SOAPFault answers with a Fault of a SOAP version, 1.1 or 1.2, that repeats the values of
// the command.
func SOAPFault(version string, status int, code string) func(x *Incoming) {
	return func(x *Incoming) {
		repeated := x.Values()
		if version == "1.1" {
			x.Respond(status, XML, EnvelopeStart+"<e:Fault><faultcode>e:"+code+"</faultcode><faultstring>"+repeated+"</faultstring></e:Fault>"+EnvelopeEnd)
			return
		}
		x.Respond(status, "application/soap+xml; charset=utf-8", `<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope"><e:Body><e:Fault><e:Code><e:Value>e:`+
			code+`</e:Value></e:Code><e:Reason><e:Text xml:lang="en">`+repeated+`</e:Text></e:Reason></e:Fault></e:Body></e:Envelope>`)
	}
}

// Faulty is an authentication server that breaks the protocols. It knows nothing: a Command
// gets the answer that belongs to it.
type Faulty struct {
	URL         string
	TLS         *tls.Config
	Connections atomic.Int64 // accepted so far

	address string
	others  http.Handler // for all but a Command

	mu        sync.Mutex
	listener  net.Listener
	conduct   Misconduct
	over      context.Context
	cancel    context.CancelFunc
	open      map[net.Conn]struct{}
	arrived   map[string]int
	listening sync.WaitGroup
	serving   sync.WaitGroup
}

// StartFaulty starts a server that works, until Misbehave is called. The handler others, if
// not nil, answers commands that are none of this package.
func StartFaulty(t *testing.T, certs sandbox.Certificates, others http.Handler) *Faulty {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certs.Certificate, certs.Key)
	require.NoError(t, err)
	f := &Faulty{
		address: freeport.Address(t), others: others, open: make(map[net.Conn]struct{}),
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}
	f.URL = "https://" + f.address + "/"
	f.over, f.cancel = context.WithCancel(context.Background())
	f.Misbehave(t, Misconduct{})
	t.Cleanup(func() {
		f.stop()
		f.serving.Wait()
	})
	return f
}

// stop closes the listener and all connections.
func (f *Faulty) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancel()
	if f.listener != nil {
		_ = f.listener.Close()
		f.listener = nil
	}
	f.disconnectLocked()
}

// Misbehave sets the misconduct from now on and resets what Arrived counts. Unless it is one
// of answers only, as the one before was, all connections are closed. A server that answers
// others, too, leaves theirs open.
func (f *Faulty) Misbehave(t *testing.T, m Misconduct) {
	t.Helper()
	f.mu.Lock()
	f.cancel()
	f.over, f.cancel = context.WithCancel(context.Background())
	changed := m.Answer == nil || f.conduct.Answer == nil
	f.conduct, f.arrived = m, make(map[string]int)
	listening := f.listener != nil
	if changed && f.others == nil {
		f.disconnectLocked()
	}
	f.mu.Unlock()
	if m.Refuse {
		f.mu.Lock()
		_ = f.listener.Close()
		f.listener = nil
		f.mu.Unlock()
		f.listening.Wait()
		return
	}
	if listening {
		return
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", f.address)
	require.NoError(t, err)
	f.mu.Lock()
	f.listener = l
	f.mu.Unlock()
	f.listening.Go(func() { f.accept(l) })
}

// disconnectLocked closes all connections. The caller holds mu.
func (f *Faulty) disconnectLocked() {
	for c := range f.open {
		_ = c.Close()
	}
}

func (f *Faulty) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		f.Connections.Add(1)
		f.serving.Go(func() {
			f.mu.Lock()
			f.open[c] = struct{}{}
			m, over := f.conduct, f.over
			f.mu.Unlock()
			f.serve(over, c, m)
			_ = c.Close()
			f.mu.Lock()
			delete(f.open, c)
			f.mu.Unlock()
		})
	}
}

func (f *Faulty) serve(over context.Context, raw net.Conn, m Misconduct) {
	if m.Connected != nil {
		m.Connected(over, raw)
		return
	}
	config := f.TLS
	if m.TLS != nil {
		config = m.TLS
	}
	c := tls.Server(raw, config)
	// The next misconduct must not end the handshake of another client.
	if c.HandshakeContext(context.WithoutCancel(over)) != nil {
		return
	}
	if m.Established != nil {
		m.Established(over, c)
		return
	}
	reader := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if !strings.Contains(string(body), faultMark) {
			if f.others == nil || !f.forward(c, r, body) {
				return
			}
			continue
		}
		f.answer(c, string(body))
		_ = c.Close() // with the alert that ends a connection, unless it is closed already
		return
	}
}

// forward has the other handler answer a command. It reports whether the connection can be
// used further.
func (f *Faulty) forward(c net.Conn, r *http.Request, body []byte) bool {
	r.Body = io.NopCloser(bytes.NewReader(body))
	w := httptest.NewRecorder()
	f.others.ServeHTTP(w, r.WithContext(context.Background()))
	resp := w.Result()
	resp.ContentLength = int64(w.Body.Len())
	return resp.Write(c) == nil
}

func (f *Faulty) answer(c *tls.Conn, request string) {
	for _, command := range append(slices.Clip(Commands), AddingDevice) {
		if !strings.Contains(request, command.Operation) {
			continue
		}
		f.mu.Lock()
		f.arrived[command.Operation]++
		m, over := f.conduct, f.over
		f.mu.Unlock()
		x := &Incoming{Conn: c, Command: command, Request: request, Context: over}
		if m.Answer != nil {
			m.Answer(x)
			return
		}
		x.Respond(http.StatusOK, XML, x.Answer())
		return
	}
}

// Arrived returns how many commands of an operation were read to their end.
func (f *Faulty) Arrived(operation string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.arrived[operation]
}

// StartOnFaulty starts a gateway, without probes and access log, in front of the servers at
// the addresses. The options are those of the authentication servers.
func StartOnFaulty(t *testing.T, certs sandbox.Certificates, options Object, addresses ...string) *Gateway {
	t.Helper()
	g := Configure(t, certs, addresses[0], func(dsapp Object) {
		AddOtherApplication(dsapp)
		servers := dsapp["authentication_servers"].(Object)
		servers["probe_interval"] = 0
		maps.Copy(servers, options)
		for _, address := range addresses[1:] {
			AddBackup(dsapp, address)
		}
	})
	delete(g.HTTPServer(), "logs")
	g.Start(t)
	return g
}
