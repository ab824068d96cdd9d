package restapi

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

const (
	// bodyWait is the time that the tests leave a body to arrive.
	bodyWait = 200 * time.Millisecond
	// soon is much longer than that, and much shorter than every default.
	soon = 10 * time.Second

	activatePath = "/rest/v2/provisioning/MdlActivate"
)

// slowOperations take longer than a body may take to arrive. The channel gets the
// error that their context has at the end.
type slowOperations struct {
	*fakeOperations
	ended chan error
}

func (s slowOperations) wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(3 * bodyWait):
	}
	s.ended <- context.Cause(ctx)
}

func (s slowOperations) Activate(ctx context.Context, c gateway.Caller, r gateway.ActivateRequest) (gateway.ActivateResult, error) {
	s.wait(ctx)
	return s.fakeOperations.Activate(ctx, c, r)
}

func (s slowOperations) ServerTime(ctx context.Context, c gateway.Caller, r gateway.ServerTimeRequest) (gateway.ServerTimeResult, error) {
	s.wait(ctx)
	return s.fakeOperations.ServerTime(ctx, c, r)
}

func impatient(c *Config) { c.BodyTimeout = bodyWait }

// dial opens an HTTP/1.1 connection.
func (g *rig) dial() (net.Conn, *bufio.Reader) {
	g.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(g.server.Certificate())
	d := tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: "example.com"}}
	conn, err := d.DialContext(g.t.Context(), "tcp", g.server.Listener.Addr().String())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(soon)); err != nil {
		g.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// header is a request up to the end of its header; more are further fields.
func (g *rig) header(path, key string, more ...string) string {
	lines := []string{"POST " + path + " HTTP/1.1", "Host: example.com", "Content-Type: application/json"}
	if key != "" {
		lines = append(lines, "Authorization: "+g.request(path, key, "").Header.Get("Authorization"))
	}
	return strings.Join(append(lines, more...), "\r\n") + "\r\n\r\n"
}

func (g *rig) send(conn net.Conn, text string) {
	g.t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		g.t.Fatal(err)
	}
}

// receive reads one answer.
func (g *rig) receive(r *bufio.Reader) reply {
	g.t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	if resp.Close {
		// ReadResponse takes the field away.
		resp.Header.Set("Connection", "close")
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

func wantTooSlow(t *testing.T, g *rig, got reply) {
	t.Helper()
	wantFailure(t, got, v2, 408, "STAT_INVPARAM", -2, -1)
	if !strings.Contains(got.body, `"errorDescription":"body did not arrive in time"`) {
		t.Errorf("body is %s", got.body)
	}
	if g.ops.calls != 0 || g.last().Outcome != TooSlow {
		t.Errorf("%d operations, observed %+v", g.ops.calls, g.last())
	}
}

// A body that does not arrive is waited for only so long, whether nothing comes at
// all or a byte now and then.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	for name, fields := range map[string][]string{
		"declared":         {"Content-Length: 100"},
		"in chunks":        {"Transfer-Encoding: chunked"},
		"after a question": {"Content-Length: 100", "Expect: 100-continue"},
	} {
		for _, drip := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, drip %t", name, drip), func(t *testing.T) {
				t.Parallel()
				g := newRig(t, impatient, nil)
				conn, r := g.dial()
				g.send(conn, g.header(activatePath, frontKey, fields...))
				if len(fields) == 2 {
					if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
						t.Fatalf("answer is %q, %v", line, err)
					}
					if _, err := r.ReadString('\n'); err != nil {
						t.Fatal(err)
					}
				}
				stop := make(chan struct{})
				defer close(stop)
				if drip {
					go func() {
						for tick := time.NewTicker(bodyWait / 20); ; {
							select {
							case <-stop:
								tick.Stop()
								return
							case <-tick.C:
								text := " "
								if fields[0] != "Content-Length: 100" {
									text = "1\r\n \r\n"
								}
								if _, err := io.WriteString(conn, text); err != nil {
									return
								}
							}
						}
					}()
				}
				got := g.receive(r)
				wantTooSlow(t, g, got)
				if got.header.Get("Connection") != "close" {
					t.Errorf("Connection is %q", got.header.Get("Connection"))
				}
				// Reset if more was on its way.
				if rest, err := io.ReadAll(r); len(rest) != 0 || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("after the answer came %q, %v", rest, err)
				}
			})
		}
	}
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		g := newRig(t, impatient, nil)
		body, end := io.Pipe()
		defer end.Close()
		got := g.call(activatePath, frontKey, "", func(r *http.Request) { r.Body, r.ContentLength = body, 100 })
		wantTooSlow(t, g, got)
		// The connection goes on.
		if got := g.call(activatePath, frontKey, bodies[activatePath]); got.status != http.StatusOK {
			t.Errorf("answer is %+v", got)
		}
	})
}

// Once the body is there, or if there is none, the time that it may take has no
// meaning for the operation and for the connection.
func TestBodyTimeoutEndsWithTheBody(t *testing.T) {
	t.Parallel()
	body := bodies[activatePath]
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\nX-Trailer: x\r\n\r\n", len(body), body)
	for name, c := range map[string]struct{ path, fields, body string }{
		"declared":  {activatePath, fmt.Sprintf("Content-Length: %d", len(body)), body},
		"in chunks": {activatePath, "Transfer-Encoding: chunked\r\nTrailer: X-Trailer", chunked},
		"none":      {"/rest/v2/provisioning/getServerTime", "Content-Length: 0", ""},
		"no length": {"/rest/v2/provisioning/getServerTime", "X-Y: z", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 2)
			g := newRig(t, func(c *Config) {
				impatient(c)
				c.Operations = slowOperations{c.Operations.(*fakeOperations), ended}
			}, nil)
			conn, r := g.dial()
			requests := 2
			if name == "in chunks" {
				requests = 1 // The connection ends with the answer.
			}
			for range requests {
				g.send(conn, g.header(c.path, frontKey, c.fields)+c.body)
				if got := g.receive(r); got.status != http.StatusOK {
					t.Errorf("answer is %+v", got)
				}
				if err := <-ended; err != nil {
					t.Errorf("the operation ended with %v", err)
				}
				// A connection may idle for longer than a body may take.
				time.Sleep(2 * bodyWait)
			}
		})
	}
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		ended := make(chan error, 1)
		g := newRig(t, func(c *Config) {
			impatient(c)
			c.Operations = slowOperations{c.Operations.(*fakeOperations), ended}
		}, nil)
		for path, body := range map[string]string{activatePath: body, "/rest/v2/provisioning/getServerTime": ""} {
			if got := g.call(path, frontKey, body); got.status != http.StatusOK {
				t.Errorf("%s: answer is %+v", path, got)
			}
			if err := <-ended; err != nil {
				t.Errorf("%s: the operation ended with %v", path, err)
			}
		}
	})
}

// What is not for this handler to answer is not for it to hurry.
func TestNextTakesItsTime(t *testing.T) {
	t.Parallel()
	read := make(chan string, 1)
	g := newRig(t, impatient, func(h *Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_ = h.Serve(w, r, func(_ http.ResponseWriter, r *http.Request) (bool, error) {
				body, err := io.ReadAll(r.Body)
				read <- fmt.Sprint(string(body), err)
				return true, nil
			})
		}
	})
	conn, r := g.dial()
	g.send(conn, g.header("/elsewhere", frontKey, "Content-Length: 4")+"ab")
	time.Sleep(2 * bodyWait)
	g.send(conn, "cd")
	if got := g.receive(r); got.status != http.StatusOK {
		t.Errorf("answer is %+v", got)
	}
	if got := <-read; got != "abcd<nil>" {
		t.Errorf("next read %s", got)
	}
}

// A shorter time that the server leaves for a whole request is kept.
func TestReadTimeoutOfTheServer(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		h, err := New(Config{Operations: &fakeOperations{}, Keys: testKeys(t), BodyTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		g := &rig{t: t, server: httptest.NewUnstartedServer(h)}
		g.server.Config.ReadTimeout = bodyWait
		g.server.EnableHTTP2 = http2
		g.server.StartTLS()
		t.Cleanup(g.server.Close)
		body, end := io.Pipe()
		defer end.Close()
		start := time.Now()
		got := g.call(activatePath, frontKey, "", func(r *http.Request) { r.Body, r.ContentLength = body, 100 })
		if took := time.Since(start); got.status != http.StatusRequestTimeout || took > soon {
			t.Errorf("HTTP/2 %t: answer after %v is %+v", http2, took, got)
		}
	}
}

// greedy is a body of which one piece comes with every read. It remembers how much
// room it was offered beyond what it had delivered before.
type greedy struct {
	pieces, size     int
	delivered, ahead int
	twice            bool
}

func (b *greedy) Read(p []byte) (int, error) {
	if b.ahead = max(b.ahead, len(p)); len(p) > b.delivered+bodyReserve+1024 {
		b.twice = true
	}
	if b.pieces == 0 {
		return 0, io.EOF
	}
	b.pieces--
	n := copy(p, strings.Repeat(" ", b.size))
	b.delivered += n
	return n, nil
}

func (b *greedy) Close() error { return nil }

// Memory is reserved for what came, not for what was announced: a few KiB before
// the first byte, then never more ahead than has arrived.
func TestBodyMemory(t *testing.T) {
	t.Parallel()
	h, err := New(Config{Operations: &fakeOperations{}, Keys: testKeys(t), MaxBodySize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, length := range []int64{16 << 20, -1} {
		for _, body := range []*greedy{{}, {pieces: 1, size: 1}, {pieces: 1000, size: 100}} {
			r := httptest.NewRequest(http.MethodPost, activatePath, nil)
			r.SetBasicAuth(frontKey, "")
			r.Header.Set("Content-Type", "application/json")
			r.Body, r.ContentLength = body, length
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusBadRequest {
				t.Errorf("answer is %d %s", w.Code, w.Body)
			}
			if body.twice || body.delivered < 2 && body.ahead > 8<<10 {
				t.Errorf("of %d bytes %d came, room for %d more was made", length, body.delivered, body.ahead)
			}
		}
	}
}

// untouched is a body that nobody may read.
type untouched struct{ t *testing.T }

func (u untouched) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func (untouched) Close() error { return nil }

// Without the key of somebody who may call the service a request costs no more than
// its header.
func TestBodyIsReadLast(t *testing.T) {
	t.Parallel()
	for _, s := range table() {
		wrongClass := frontKey
		if keyFor(s) == frontKey {
			wrongClass = backKey
		}
		for name, c := range map[string]struct {
			key    string
			edit   func(*http.Request)
			config func(*Config)
			status int
		}{
			"no key":      {"", nil, nil, 401},
			"wrong key":   {"EXAMPLE-WRONG-KEY", nil, nil, 401},
			"wrong class": {wrongClass, nil, nil, 403},
			"blocked":     {keyFor(s), nil, func(c *Config) { c.Limits.FailedKeys = &fakeLimiter{over: true} }, 429},
			"method":      {keyFor(s), func(r *http.Request) { r.Method = http.MethodPut }, nil, 405},
			"media type":  {keyFor(s), func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, nil, 415},
			"too large":   {keyFor(s), func(r *http.Request) { r.ContentLength = DefaultMaxBodySize + 1 }, nil, 413},
		} {
			if name == "wrong class" && len(s.classes) > 1 || name == "media type" && s.bodyOptional {
				continue
			}
			config := Config{Operations: &fakeOperations{}, Keys: testKeys(t), ClientIP: func(*http.Request) netip.Addr { return netip.IPv6Loopback() }}
			if c.config != nil {
				c.config(&config)
			}
			h, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(http.MethodPost, s.path, untouched{t})
			r.ContentLength = 10
			r.Header.Set("Content-Type", "application/json")
			if c.key != "" {
				r.SetBasicAuth(c.key, "")
			}
			if c.edit != nil {
				c.edit(r)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status {
				t.Errorf("%s, %s: status is %d, want %d", s.path, name, w.Code, c.status)
			}
		}
	}
}

// An answer without the body waits for no body that does not come: the server
// would discard a small one first.
func TestRefusalsDoNotWaitForBodies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path, key string
		fields          []string
		status          int
	}{
		{"no key", activatePath, "", []string{"Content-Length: 100"}, 401},
		{"no key, elsewhere", "/elsewhere", "", []string{"Content-Length: 100"}, 401},
		{"no service", "/elsewhere", frontKey, []string{"Content-Length: 100"}, 404},
		{"wrong class", activatePath, farKey, []string{"Content-Length: 100"}, 403},
		{"too large", activatePath, frontKey, []string{fmt.Sprintf("Content-Length: %d", DefaultMaxBodySize+1)}, 413},
		{"in chunks", activatePath, "", []string{"Transfer-Encoding: chunked"}, 401},
		{"after a question", activatePath, "", []string{"Content-Length: 100", "Expect: 100-continue"}, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, impatient, nil)
			conn, r := g.dial()
			g.send(conn, g.header(c.path, c.key, c.fields...))
			got := g.receive(r)
			if got.status != c.status || got.header.Get("Connection") != "close" {
				t.Errorf("answer is %+v", got)
			}
			if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
				t.Errorf("after the answer came %q, %v", rest, err)
			}
		})
	}
}

// With a question before it a body is asked for only where it is read. What comes
// after the end of a body is the next request.
func TestFramesOfBodies(t *testing.T) {
	t.Parallel()
	body := bodies[activatePath]
	g := newRig(t, nil, nil)
	conn, r := g.dial()
	g.send(conn, g.header(activatePath, frontKey, fmt.Sprintf("Content-Length: %d", len(body)), "Expect: 100-continue"))
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("answer is %q, %v", line, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	g.send(conn, body)
	if got := g.receive(r); got.status != http.StatusOK || got.header.Get("Connection") != "" {
		t.Errorf("answer is %+v", got)
	}
	conn, r = g.dial()
	g.send(conn, g.header(activatePath, frontKey, fmt.Sprintf("Content-Length: %d", len(body)))+body+"and more\r\n\r\n")
	if got := g.receive(r); got.status != http.StatusOK {
		t.Errorf("answer is %+v", got)
	}
	if got := g.receive(r); got.status != http.StatusBadRequest || g.ops.calls != 2 {
		t.Errorf("answer to what came after it is %+v", got)
	}
}

// With the real limiter the time that an answer tells to wait is the time after
// which a call is admitted, and not much more; calls of other services and from
// other addresses are not held back.
func TestRetryAfterIsTrue(t *testing.T) {
	t.Parallel()
	address := netip.MustParseAddr("192.0.2.1")
	// Far more calls than fit in a burst would take a minute to come back: 60 per
	// minute is one per second.
	g := newRig(t, func(c *Config) {
		c.Limits = Limits{Calls: ratelimit.New(60, 100)}
		c.ClientIP = func(*http.Request) netip.Addr { return address }
	}, nil)
	var got reply
	for range 100 {
		if got = g.call("/rest/auth/online", frontKey, bodies["/rest/auth/online"]); got.status != http.StatusOK {
			break
		}
	}
	wantFailure(t, got, v1, 429, "STAT_ERROR", -1, -1)
	if got.header.Get("Retry-After") != "1" {
		t.Fatalf("Retry-After is %q", got.header.Get("Retry-After"))
	}
	// One limit for all services of the kind.
	if got := g.call(activatePath, frontKey, bodies[activatePath]); got.status != http.StatusTooManyRequests {
		t.Errorf("answer is %+v", got)
	}
	const first = "/rest/activation/DSAPPSRPGenerateEphemeralKey"
	if got := g.call(first, frontKey, bodies[first]); got.status != http.StatusOK {
		t.Errorf("%s: answer is %+v", first, got)
	}
	address = netip.MustParseAddr("192.0.2.2")
	if got := g.call(activatePath, frontKey, bodies[activatePath]); got.status != http.StatusOK {
		t.Errorf("answer is %+v", got)
	}
	address = netip.MustParseAddr("192.0.2.1")
	time.Sleep(time.Second)
	if got := g.call(activatePath, frontKey, bodies[activatePath]); got.status != http.StatusOK {
		t.Errorf("answer after the time to wait is %+v", got)
	}
}

// A handler before this one may have read the body: the time that it has to arrive
// in does not end the operation.
func TestBodyThatWasReadBefore(t *testing.T) {
	t.Parallel()
	body := bodies[activatePath]
	ended := make(chan error, 1)
	g := newRig(t, func(c *Config) {
		impatient(c)
		c.Operations = slowOperations{c.Operations.(*fakeOperations), ended}
	}, func(h *Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			read, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(bytes.NewReader(read))
			h.ServeHTTP(w, r)
		}
	})
	conn, r := g.dial()
	g.send(conn, g.header(activatePath, frontKey, fmt.Sprintf("Content-Length: %d", len(body)))+body)
	if got := g.receive(r); got.status != http.StatusOK {
		t.Errorf("status %d", got.status)
	}
	if err := <-ended; err != nil {
		t.Errorf("the operation ended with %v", err)
	}
}

// That another handler wants the connection closed holds, also for a client that
// asks before it sends its body.
func TestConnectionThatIsToClose(t *testing.T) {
	t.Parallel()
	body := bodies[activatePath]
	g := newRig(t, nil, func(h *Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			h.ServeHTTP(w, r)
		}
	})
	conn, r := g.dial()
	g.send(conn, g.header(activatePath, frontKey, fmt.Sprintf("Content-Length: %d\r\nExpect: 100-continue", len(body)))+body)
	for _, want := range []int{http.StatusContinue, http.StatusOK} {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want || resp.Close != (want == http.StatusOK) {
			t.Errorf("status %d, close %v", resp.StatusCode, resp.Close)
		}
	}
}
