package authserver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/httpclient"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "open sesame"

var (
	request = soap.MDLRegisterRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: secret}

	am1        = strings.Repeat("0A", 2000)
	registered = provisioned(
		attribute("PROVFLD_REGISTRATIONID", "aB3dE6gH"), attribute("PROVFLD_ACTIVATION_MESSAGE", am1), attribute("PROVFLD_SERIAL_NO", "VDS1234567"))
)

// handler answers a command, as an authentication server would.
type handler func(w http.ResponseWriter, r *http.Request, command string)

// peer is an authentication server behind a TLS connection. It counts the commands that it
// has received completely.
type peer struct {
	Instance
	received atomic.Int64
}

// newPeer starts a server that answers each command with handle.
func newPeer(tb testing.TB, name string, handle handler) *peer {
	tb.Helper()
	p := &peer{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		command, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		p.received.Add(1)
		handle(w, r, string(command))
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	tb.Cleanup(server.Close)
	p.Instance = newTestInstance(tb, name, server.URL, server.Client().Transport.(*http.Transport).TLSClientConfig)
	return p
}

func newTestInstance(tb testing.TB, name, address string, config *tls.Config) Instance {
	tb.Helper()
	u, err := url.Parse(address)
	if err != nil {
		tb.Fatal(err)
	}
	return Instance{Name: name, URL: u, Transport: newClient(tb, u, config, new(net.Dialer).DialContext), MaxConnections: 4, MaxQueue: 4}
}

func newClient(tb testing.TB, address *url.URL, config *tls.Config, dial func(context.Context, string, string) (net.Conn, error)) *httpclient.Client {
	tb.Helper()
	c := httpclient.New(httpclient.Config{URL: address, TLS: config, Dial: dial, HandshakeTimeout: poll.Patience, IdleTimeout: poll.Patience, MaxIdle: 4})
	tb.Cleanup(c.CloseIdleConnections)
	return c
}

// deadAddress returns a URL at which nothing listens.
func deadAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return "https://" + l.Addr().String() + "/"
}

// listen starts a listener that passes each TCP connection to serve. It returns its URL.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return "https://" + l.Addr().String() + "/"
}

func write(w http.ResponseWriter, status int, media, text string) {
	w.Header().Set("Content-Type", media)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// answering answers each command with the same text.
func answering(text string) handler {
	return writing(http.StatusOK, "text/xml; charset=utf-8", text)
}

// writing answers each command with the same status, media type and text.
func writing(status int, media, text string) handler {
	return func(w http.ResponseWriter, _ *http.Request, _ string) { write(w, status, media, text) }
}

// answerFault answers with a Fault of either SOAP version.
func answerFault(code string) handler {
	body := "<Fault><faultcode>s:" + code + "</faultcode></Fault>"
	status := http.StatusInternalServerError
	switch code {
	case "Sender":
		status = http.StatusBadRequest
		fallthrough
	case "Receiver", "DataEncodingUnknown":
		body = "<Fault><Code><Value>s:" + code + "</Value></Code><Reason><Text>x</Text></Reason></Fault>"
	}
	return func(w http.ResponseWriter, _ *http.Request, _ string) { write(w, status, "text/xml", envelope(body)) }
}

// reset closes a connection so that the other side gets an error instead of EOF.
func reset(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

func hijack(w http.ResponseWriter) net.Conn {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	return c
}

// transport is a function as a Transport. If it fails without having read of the command, the
// command was not sent.
type transport func(*http.Request) (*http.Response, error)

func (transport) CloseIdleConnections() {}

func (f transport) Post(ctx context.Context, header http.Header, command []byte) (*http.Response, error) {
	body := bytes.NewReader(command)
	r := &http.Request{Method: http.MethodPost, URL: &url.URL{Scheme: "https", Host: "oas"}, Header: header, Body: io.NopCloser(body), ContentLength: body.Size()}
	response, err := f(r.WithContext(ctx))
	if err != nil && int64(body.Len()) == body.Size() {
		unsent, _ := errors.AsType[*httpclient.NotSentError](err)
		return nil, cmp.Or(unsent, &httpclient.NotSentError{Err: err})
	}
	return response, err
}

// stub returns an instance with a transport that makes no connections.
func stub(name string, t Transport) Instance {
	return Instance{Name: name, URL: &url.URL{Scheme: "https", Host: "oas"}, Transport: t, MaxConnections: 9}
}

// sending is a transport that sends the command to a server with this handler.
func sending(handle handler) transport {
	return func(r *http.Request) (*http.Response, error) {
		command, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		w := &recordedAnswer{header: http.Header{}, status: http.StatusOK}
		handle(w, r, string(command))
		return &http.Response{StatusCode: w.status, Header: w.header, Body: io.NopCloser(strings.NewReader(w.body.String()))}, nil
	}
}

// hanging is a transport that sends the command and never gets an answer.
func hanging(r *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// dropping is a transport that loses the connection after it has sent the command.
func dropping(r *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, r.Body)
	return nil, io.ErrUnexpectedEOF
}

// refusedDial is a transport that gets no connection.
func refusedDial(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
}

// recordedAnswer records the answer of a handler.
type recordedAnswer struct {
	header http.Header
	status int
	body   strings.Builder
}

func (r *recordedAnswer) Header() http.Header { return r.header }

func (r *recordedAnswer) WriteHeader(status int) { r.status = status }

func (r *recordedAnswer) Write(b []byte) (int, error) { return r.body.Write(b) }

func newServers(tb testing.TB, c Config) *Servers {
	tb.Helper()
	if c.Timeout == 0 {
		c.Timeout = poll.Patience
	}
	if c.ComponentTypes == (ComponentTypes{}) {
		c.ComponentTypes = ComponentTypes{Provisioning: "My Provisioning", Authentication: "My Authentication", Signature: "My Signature", Notification: "My Notification"}
	}
	if c.Breaker == (breaker.Settings{}) {
		c.Breaker = breaker.Settings{Failures: 1000, Cooldown: 10 * time.Minute} // never
	}
	s, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// registration is the answer to MDLRegister and the instance that sent it.
type registration struct {
	soap.MDLRegistered
	instance string
}

// register registers a user for a multi-device licence.
func register(ctx context.Context, s *Servers, r soap.MDLRegisterRequest) (registration, error) {
	answer, instance, err := Call(ctx, s, Target{}, soap.MDLRegister, r)
	return registration{answer, instance}, err
}

// logIn verifies a password.
func logIn(ctx context.Context, s *Servers, password string) error {
	_, _, err := Call(ctx, s, Target{}, soap.AuthUser, soap.AuthUserRequest{UserID: "jane.doe", Password: password})
	return err
}

// checkFailure checks that err is a *CallError with exactly one of the reasons and that its text
// contains no value of the command.
func checkFailure(t *testing.T, name string, err error, reasons ...error) *CallError {
	t.Helper()
	failure, ok := errors.AsType[*CallError](err)
	if !ok {
		t.Errorf("%s: %v", name, err)
		return &CallError{}
	}
	matches := 0
	for _, reason := range reasons {
		if errors.Is(err, reason) {
			matches++
		}
	}
	if matches != 1 {
		t.Errorf("%s: %v", name, err)
	}
	for _, value := range []string{secret, "jane.doe", "mydomain.com"} {
		if strings.Contains(err.Error(), value) {
			t.Errorf("%s: %v tells %q", name, err, value)
		}
	}
	return failure
}

// recorder is a slog.Handler that keeps the records as text, beginning with their level.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *recorder) WithGroup(string) slog.Handler            { return r }

func (r *recorder) Handle(_ context.Context, record slog.Record) error {
	text := record.Level.String() + " " + record.Message
	record.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, text)
	return nil
}

// matching returns the records that match a regular expression.
func (r *recorder) matching(pattern string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	re := regexp.MustCompile(pattern)
	return slices.DeleteFunc(slices.Clone(r.lines), func(l string) bool { return !re.MatchString(l) })
}

// at returns the records of a level.
func (r *recorder) at(level slog.Level) []string { return r.matching("^" + level.String() + " ") }

// reachability returns the records on whether instances can be reached.
func (r *recorder) reachability() []string {
	return r.matching("^[A-Z]+ instance (cannot be reached|reached again) ")
}
