package restapi

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

const (
	activatePath = "/rest/v2/provisioning/MdlActivate"
	timePath     = "/rest/v2/provisioning/getServerTime"
)

// slowOperations take longer than a body may take to arrive. The channel gets the
// cause for which their context ended, nil if it did not end.
type slowOperations struct {
	*fakeOperations
	causes chan error
}

func (s slowOperations) wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(2 * DefaultBodyTimeout):
	}
	s.causes <- context.Cause(ctx)
}

func (s slowOperations) Activate(ctx context.Context, c gateway.Caller, r gateway.ActivateRequest) (gateway.ActivateResult, error) {
	s.wait(ctx)
	return s.fakeOperations.Activate(ctx, c, r)
}

func (s slowOperations) ServerTime(ctx context.Context, c gateway.Caller, r gateway.ServerTimeRequest) (gateway.ServerTimeResult, error) {
	s.wait(ctx)
	return s.fakeOperations.ServerTime(ctx, c, r)
}

// newSlowServer returns a testServer with slowOperations.
func newSlowServer(t *testing.T, wrap func(*Handler) http.HandlerFunc) (*testServer, <-chan error) {
	t.Helper()
	causes := make(chan error, 1)
	return newTestServer(t, func(c *Config) {
		c.Operations = slowOperations{c.Operations.(*fakeOperations), causes}
	}, wrap), causes
}

func wantTooSlow(t *testing.T, g *testServer, got reply) {
	t.Helper()
	wantFailure(t, got, V2, 408, "STAT_INVPARAM", -2, -1)
	if !strings.Contains(got.body, `"errorDescription":"body did not arrive in time"`) {
		t.Errorf("body is %s", got.body)
	}
	if g.ops.calls != 0 || g.last().Outcome != TooSlow {
		t.Errorf("%d operations, observed %+v", g.ops.calls, g.last())
	}
}

// wantContinue reads the answer by which a server asks for a body.
func wantContinue(t *testing.T, r *bufio.Reader) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusContinue || resp.Close {
		t.Fatalf("status is %d, close %t", resp.StatusCode, resp.Close)
	}
}

// drip writes a piece of a body every second until the connection is closed.
func drip(conn net.Conn, piece string) {
	for {
		time.Sleep(time.Second)
		if _, err := io.WriteString(conn, piece); err != nil {
			return
		}
	}
}

// A body that does not arrive within the timeout is answered with 408 at that moment,
// also if parts of it keep arriving.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fields []string
		piece  string
	}{
		"declared":       {[]string{"Content-Length: 100"}, " "},
		"in chunks":      {[]string{"Transfer-Encoding: chunked"}, "1\r\n \r\n"},
		"with an Expect": {[]string{"Content-Length: 100", "Expect: 100-continue"}, " "},
	} {
		for _, dripping := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, dripping %t", name, dripping), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					g := newTestServer(t, nil, nil)
					conn, r := g.dial()
					start := time.Now()
					g.write(conn, headerText(activatePath, frontKey, c.fields...))
					if len(c.fields) == 2 {
						wantContinue(t, r)
					}
					if dripping {
						var writing sync.WaitGroup
						writing.Go(func() { drip(conn, c.piece) })
						defer writing.Wait()
					}
					got := g.receive(r)
					wantTooSlow(t, g, got)
					if took := time.Since(start); took != DefaultBodyTimeout || got.header.Get("Connection") != "close" {
						t.Errorf("answer after %v, Connection is %q", took, got.header.Get("Connection"))
					}
					if rest, err := io.ReadAll(r); len(rest) != 0 || err != nil {
						t.Errorf("after the answer came %q, %v", rest, err)
					}
				})
			})
		}
	}
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g := newTestServer(t, nil, nil)
			client := g.http2()
			body, end := io.Pipe()
			defer end.Close()
			start := time.Now()
			wantTooSlow(t, g, g.send(client, g.clientRequest(activatePath, frontKey, body)))
			if took := time.Since(start); took != DefaultBodyTimeout {
				t.Errorf("answer after %v", took)
			}
			// The connection serves further requests.
			if got := g.send(client, g.clientRequest(activatePath, frontKey, strings.NewReader(bodies[activatePath]))); got.status != http.StatusOK {
				t.Errorf("answer is %+v", got)
			}
		})
	})
}

// The body timeout affects neither the operation nor the connection once the body has
// arrived, or if there is none.
func TestBodyTimeoutEndsWithTheBody(t *testing.T) {
	t.Parallel()
	body := bodies[activatePath]
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\nX-Trailer: x\r\n\r\n", len(body), body)
	for name, c := range map[string]struct {
		path, fields, body string
		requests           int
	}{
		"declared":  {activatePath, fmt.Sprintf("Content-Length: %d", len(body)), body, 2},
		"in chunks": {activatePath, "Transfer-Encoding: chunked\r\nTrailer: X-Trailer", chunked, 1}, // the answer ends the connection
		"none":      {timePath, "Content-Length: 0", "", 2},
		"no length": {timePath, "X-Y: z", "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g, causes := newSlowServer(t, nil)
				conn, r := g.dial()
				for range c.requests {
					g.write(conn, headerText(c.path, frontKey, c.fields)+c.body)
					if got := g.receive(r); got.status != http.StatusOK {
						t.Errorf("answer is %+v", got)
					}
					if err := <-causes; err != nil {
						t.Errorf("the operation's context ended with %v", err)
					}
					// The connection is idle for longer than a body may take.
					time.Sleep(2 * DefaultBodyTimeout)
				}
			})
		})
	}
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g, causes := newSlowServer(t, nil)
			client := g.http2()
			for path, body := range map[string]string{activatePath: body, timePath: ""} {
				if got := g.send(client, g.clientRequest(path, frontKey, strings.NewReader(body))); got.status != http.StatusOK {
					t.Errorf("%s: answer is %+v", path, got)
				}
				if err := <-causes; err != nil {
					t.Errorf("%s: the operation's context ended with %v", path, err)
				}
			}
		})
	})
}

// A request that is passed on has no body timeout.
func TestNextHasNoBodyTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		read := make(chan string, 1)
		g := newTestServer(t, nil, func(h *Handler) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				_ = h.Serve(w, r, func(_ http.ResponseWriter, r *http.Request) (bool, error) {
					body, err := io.ReadAll(r.Body)
					read <- fmt.Sprint(string(body), err)
					return true, nil
				})
			}
		})
		conn, r := g.dial()
		g.write(conn, headerText("/elsewhere", frontKey, "Content-Length: 4")+"ab")
		time.Sleep(2 * DefaultBodyTimeout)
		g.write(conn, "cd")
		if got := g.receive(r); got.status != http.StatusOK {
			t.Errorf("answer is %+v", got)
		}
		if got := <-read; got != "abcd<nil>" {
			t.Errorf("next read %s", got)
		}
	})
}

// A shorter read timeout of the http.Server applies instead of the body timeout.
func TestReadTimeoutOfTheServer(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	for name, call := range map[string]func(g *testServer) reply{
		"HTTP/1.1": func(g *testServer) reply {
			conn, r := g.dial()
			g.write(conn, headerText(activatePath, frontKey, "Content-Length: 100"))
			return g.receive(r)
		},
		"HTTP/2": func(g *testServer) reply {
			body, end := io.Pipe()
			defer end.Close()
			return g.send(g.http2(), g.clientRequest(activatePath, frontKey, body))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newTestServer(t, nil, nil)
				g.http.ReadTimeout = timeout
				start := time.Now()
				got := call(g)
				if took := time.Since(start); got.status != http.StatusRequestTimeout || took != timeout {
					t.Errorf("answer after %v is %+v", took, got)
				}
			})
		})
	}
}

// piecewiseBody delivers one piece with every read. It remembers how much room it was
// offered beyond what it had delivered before.
type piecewiseBody struct {
	pieces, size        int
	delivered, maxRoom  int
	roomExceedsDelivery bool
}

func (b *piecewiseBody) Read(p []byte) (int, error) {
	b.maxRoom = max(b.maxRoom, len(p))
	b.roomExceedsDelivery = b.roomExceedsDelivery || len(p) > b.delivered+bodyReserve+1024
	if b.pieces == 0 {
		return 0, io.EOF
	}
	b.pieces--
	n := copy(p, strings.Repeat(" ", b.size))
	b.delivered += n
	return n, nil
}

func (b *piecewiseBody) Close() error { return nil }

// The memory for a body grows with what arrives, not with the length that is declared:
// it is a few KiB at first, and at most doubles what has arrived.
func TestBodyMemory(t *testing.T) {
	t.Parallel()
	g := newTestServer(t, func(c *Config) { c.MaxBodySize = 16 << 20 }, nil)
	for _, length := range []int64{16 << 20, -1} {
		for _, body := range []*piecewiseBody{{}, {pieces: 1, size: 1}, {pieces: 1000, size: 100}} {
			got := g.call(activatePath, frontKey, "", func(r *http.Request) { r.Body, r.ContentLength = body, length })
			if got.status != http.StatusBadRequest {
				t.Errorf("answer is %+v", got)
			}
			if body.roomExceedsDelivery || body.delivered < 2 && body.maxRoom > 8<<10 {
				t.Errorf("of %d bytes %d arrived, there was room for %d more", length, body.delivered, body.maxRoom)
			}
		}
	}
}

// forbiddenBody fails the test if it is read.
type forbiddenBody struct{ t *testing.T }

func (b forbiddenBody) Read([]byte) (int, error) {
	b.t.Error("the body was read")
	return 0, io.EOF
}

func (forbiddenBody) Close() error { return nil }

// The body of a request that its header suffices to refuse is not read.
func TestBodyIsReadLast(t *testing.T) {
	t.Parallel()
	const maxBodySize = 100
	for _, s := range table() {
		wrongClass := frontKey
		if keyFor(s) == frontKey {
			wrongClass = backKey
		}
		for name, c := range map[string]struct {
			key    string
			edit   func(*http.Request)
			limits Limits
			status int
		}{
			"no key":      {"", nil, Limits{}, 401},
			"wrong key":   {"EXAMPLE-WRONG-KEY", nil, Limits{}, 401},
			"wrong class": {wrongClass, nil, Limits{}, 403},
			"blocked":     {keyFor(s), nil, Limits{FailedKeys: &fakeLimiter{over: true}}, 429},
			"method":      {keyFor(s), func(r *http.Request) { r.Method = http.MethodPut }, Limits{}, 405},
			"media type":  {keyFor(s), func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, Limits{}, 415},
			"too large":   {keyFor(s), func(r *http.Request) { r.ContentLength = maxBodySize + 1 }, Limits{}, 413},
		} {
			if name == "wrong class" && len(s.Classes) > 1 || name == "media type" && s.BodyOptional {
				continue
			}
			g := newTestServer(t, func(config *Config) { config.Limits, config.MaxBodySize = c.limits, maxBodySize }, nil)
			r := newRequest(s.Path, c.key, "")
			r.Body, r.ContentLength = forbiddenBody{t}, 10
			if c.edit != nil {
				c.edit(r)
			}
			if got := g.do(r); got.status != c.status {
				t.Errorf("%s, %s: status is %d, want %d", s.Path, name, got.status, c.status)
			}
		}
	}
}

// A refusal waits for a body at most as long as the body timeout: net/http reads the
// rest of a small body before it answers.
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
		{"wrong source", activatePath, farKey, []string{"Content-Length: 100"}, 403},
		{"too large", activatePath, frontKey, []string{fmt.Sprintf("Content-Length: %d", DefaultMaxBodySize+1)}, 413},
		{"in chunks", activatePath, "", []string{"Transfer-Encoding: chunked"}, 401},
		{"with an Expect", activatePath, "", []string{"Content-Length: 100", "Expect: 100-continue"}, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := newTestServer(t, nil, nil)
				conn, r := g.dial()
				start := time.Now()
				g.write(conn, headerText(c.path, c.key, c.fields...))
				got := g.receive(r)
				if got.status != c.status || got.header.Get("Connection") != "close" || time.Since(start) > DefaultBodyTimeout {
					t.Errorf("answer after %v is %+v", time.Since(start), got)
				}
				if rest, err := io.ReadAll(r); err != nil || len(rest) != 0 {
					t.Errorf("after the answer came %q, %v", rest, err)
				}
			})
		})
	}
}

// A client that expects 100 (Continue) gets it where its body is read. What follows a
// body is the next request.
func TestBodyFraming(t *testing.T) {
	t.Parallel()
	body := bodies[activatePath]
	g := newTestServer(t, nil, nil)
	conn, r := g.dial()
	g.write(conn, headerText(activatePath, frontKey, fmt.Sprintf("Content-Length: %d", len(body)), "Expect: 100-continue"))
	wantContinue(t, r)
	g.write(conn, body)
	if got := g.receive(r); got.status != http.StatusOK || got.header.Get("Connection") != "" {
		t.Errorf("answer is %+v", got)
	}
	conn, r = g.dial()
	g.write(conn, headerText(activatePath, frontKey, fmt.Sprintf("Content-Length: %d", len(body)))+body+"and more\r\n\r\n")
	if got := g.receive(r); got.status != http.StatusOK {
		t.Errorf("answer is %+v", got)
	}
	if got := g.receive(r); got.status != http.StatusBadRequest || g.ops.calls != 2 {
		t.Errorf("answer to what came after it is %+v", got)
	}
}

// A handler before this one may have read the body: the body timeout does not end the
// operation then either.
func TestBodyThatWasReadBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		body := bodies[activatePath]
		g, causes := newSlowServer(t, func(h *Handler) http.HandlerFunc {
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
		g.write(conn, headerText(activatePath, frontKey, fmt.Sprintf("Content-Length: %d", len(body)))+body)
		if got := g.receive(r); got.status != http.StatusOK {
			t.Errorf("status %d", got.status)
		}
		if err := <-causes; err != nil {
			t.Errorf("the operation's context ended with %v", err)
		}
	})
}

// "Connection: close" that another handler has set stays, also for a client that
// expects 100 (Continue).
func TestConnectionThatIsToClose(t *testing.T) {
	t.Parallel()
	body := bodies[activatePath]
	g := newTestServer(t, nil, func(h *Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			h.ServeHTTP(w, r)
		}
	})
	conn, r := g.dial()
	g.write(conn, headerText(activatePath, frontKey, fmt.Sprintf("Content-Length: %d", len(body)), "Expect: 100-continue"))
	wantContinue(t, r)
	g.write(conn, body)
	if got := g.receive(r); got.status != http.StatusOK || got.header.Get("Connection") != "close" {
		t.Errorf("answer is %+v", got)
	}
}

// A body whose reading fails is answered with 400.
func TestBodyThatCannotBeRead(t *testing.T) {
	t.Parallel()
	g := newTestServer(t, nil, nil)
	got := g.call(activatePath, frontKey, "", func(r *http.Request) {
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), failingReader{}))
	})
	if got.status != http.StatusBadRequest || !strings.Contains(got.body, "body could not be read") {
		t.Errorf("answer is %+v", got)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
