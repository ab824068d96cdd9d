package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

const (

	// patience is a timeout for bytes that clients do not send. It is long enough for those
	// that they send on any machine.
	patience = 3 * time.Second
)

// startBesieged starts a gateway. The function edit may change the HTTP server and the limits
// in its configuration.
func startBesieged(t *testing.T, edit func(server, limits testbed.Object)) *testbed.Gateway {
	t.Helper()
	certs := testbed.Certificates(t)
	g := testbed.Configure(t, certs, testbed.StartServer(t, certs).URL, nil)
	server := g.HTTPServer()
	limits := g.App()["limits"].(testbed.Object)
	if edit != nil {
		edit(server, limits)
	}
	g.Start(t)
	return g
}

// drip writes a text again and again until that fails or the test is over.
func drip(w *testbed.Wire, text string) {
	go func() {
		tick := time.NewTicker(patience / 20)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.WriteString(w.Conn, text); err != nil {
				return
			}
		}
	}()
}

// peakMemory returns the most memory that the process ever had, in bytes.
func peakMemory(t *testing.T, g *testbed.Gateway) int {
	t.Helper()
	used, err := g.Usage()
	require.NoError(t, err)
	return used.Peak << 10
}

// A client that sends a header or a body slowly, or not at all, is cut off. Meanwhile all
// others are served.
func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, func(server, limits testbed.Object) {
		server["read_header_timeout"], limits["body_timeout"] = patience.String(), patience.String()
	})
	const each = 20
	var slow []func()
	begin := func(status int, start, more string) {
		w := g.Dial(t, "http/1.1")
		w.Say(start)
		if more != "" {
			drip(w, more)
		}
		slow = append(slow, func() {
			got := w.Hear()
			assert.Equal(t, status, got.Status, start)
			if status == http.StatusRequestTimeout {
				testbed.Expect(status, "STAT_INVPARAM", -2).Check(t, got)
				assert.Contains(t, got.Body, `"errorDescription":"body did not arrive in time"`)
			}
			assert.True(t, got.Last, start)
			w.Ended()
		})
	}
	for range each {
		begin(0, "", "")
		begin(0, "POST "+testbed.LoginPath+" HTTP/1.1\r\n", "X: y\r\n")
		begin(http.StatusRequestTimeout, testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, "{", "Content-Length: 1000"), " ")
		begin(http.StatusRequestTimeout, testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, "", "Transfer-Encoding: chunked"), "1\r\n \r\n")
		begin(http.StatusUnauthorized, testbed.HTTP1Request(testbed.LoginPath, "", "{", "Content-Length: 1000"), " ")
		begin(http.StatusForbidden, testbed.HTTP1Request(testbed.RegisterPath, testbed.FrontEndKey, "{", "Content-Length: 1000"), "")
		begin(http.StatusRequestEntityTooLarge, testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, "{", "Content-Length: 100000"), "")
	}
	// The timeout bounds the TLS handshake, too.
	var d net.Dialer
	silent, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(g.URL, "https://"))
	require.NoError(t, err)
	defer silent.Close()
	require.NoError(t, silent.SetDeadline(time.Now().Add(poll.Patience)))
	// Many streams of one connection wait for bodies.
	var streams sync.WaitGroup
	for range each {
		body, end := io.Pipe()
		t.Cleanup(func() { end.Close() })
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+testbed.LoginPath, body)
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		r.SetBasicAuth(testbed.FrontEndKey, "")
		streams.Go(func() {
			got, err := g.Do(r)
			if assert.NoError(t, err) {
				testbed.Expect(http.StatusRequestTimeout, "STAT_INVPARAM", -2).Check(t, got)
			}
		})
	}
	g.Serves(t)
	for _, end := range slow {
		end()
	}
	_, err = silent.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	streams.Wait()
	g.Serves(t)
}

// A client that asks before it sends a body (Expect: 100-continue) is told to go on only if the
// request is accepted so far. Otherwise it gets the refusal at once.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, func(_, limits testbed.Object) { limits["body_timeout"] = "10m" })
	w := g.Dial(t, "http/1.1")
	w.Say(testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, "", fmt.Sprintf("Content-Length: %d", len(testbed.LoginBody)), "Expect: 100-continue"))
	require.Equal(t, http.StatusContinue, w.Hear().Status)
	w.Say(testbed.LoginBody)
	assert.Equal(t, http.StatusOK, w.Hear().Status)

	w = g.Dial(t, "http/1.1")
	w.Say(testbed.HTTP1Request(testbed.LoginPath, "no-such-front-end-key", "", "Content-Length: 10", "Expect: 100-continue"))
	assert.Equal(t, http.StatusUnauthorized, w.Hear().Status)
}

// The timeout of bodies bounds neither operations, with every protocol, nor the time for which
// a connection is idle.
func TestBodyTimeoutIsForBodies(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	server.Intercept(func(http.ResponseWriter, *http.Request) bool {
		time.Sleep(2 * patience)
		return false
	})
	g := testbed.Configure(t, certs, server.URL, func(dsapp testbed.Object) {
		dsapp["limits"].(testbed.Object)["body_timeout"] = patience.String()
	})
	g.HTTPServer()["read_timeout"] = (patience * 3 / 2).String()
	g.Start(t)
	status, answer := g.Call(t, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
	assert.Equal(t, http.StatusOK, status, answer)
	w := g.Dial(t, "http/1.1")
	w.Say(testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody))
	got := w.Hear()
	assert.Equal(t, http.StatusOK, got.Status, got.Body)
	assert.False(t, got.Last)
	time.Sleep(2 * patience)
	w.Say(testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, fmt.Sprintf("%x\r\n%s\r\n0\r\nX-Trailer: y\r\n\r\n", len(testbed.LoginBody), testbed.LoginBody), "Transfer-Encoding: chunked", "Trailer: X-Trailer"))
	got = w.Hear()
	assert.Equal(t, http.StatusOK, got.Status, got.Body)
}

// The size of headers is bounded, and so is the memory for many clients with large ones.
func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, nil)
	before := peakMemory(t, g)
	large := "X-Large: " + strings.Repeat("x", 1<<20) + "\r\n"
	many := strings.Repeat("X: y\r\n", 200_000)
	const headers = 60
	var all sync.WaitGroup
	for i := range headers {
		w := g.Dial(t, "http/1.1")
		all.Go(func() {
			w.Say("POST " + testbed.LoginPath + " HTTP/1.1\r\nHost: localhost\r\n" + []string{large, many}[i%2] + "\r\n")
			// The answer can be lost if the connection is closed while the client still sends.
			if got := w.Hear(); got.Status != 0 {
				assert.Equal(t, http.StatusRequestHeaderFieldsTooLarge, got.Status)
			}
		})
	}
	all.Wait()
	// This header is short enough to be read to its end: its answer cannot be lost.
	w := g.Dial(t, "http/1.1")
	w.Say("POST " + testbed.LoginPath + " HTTP/1.1\r\nHost: localhost\r\nX-Large: " + strings.Repeat("x", 22_000))
	assert.Equal(t, http.StatusRequestHeaderFieldsTooLarge, w.Hear().Status)
	g.Serves(t)

	// In HTTP/2 a header can continue without end.
	const endHeaders = 4
	block := strings.Repeat(testbed.HTTP2Field("x-large", strings.Repeat("x", 1000)), 15)
	for range headers {
		w := g.Dial(t, "h2")
		all.Go(func() {
			w.Say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + testbed.HTTP2Frame(4, 0, 0, "") + testbed.HTTP2Frame(1, 0, 1, testbed.HTTP2Field(":method", "POST")))
			for range 200 {
				w.Say(testbed.HTTP2Frame(9, 0, 1, block))
			}
			w.Say(testbed.HTTP2Frame(9, endHeaders, 1, ""))
			_, _ = io.Copy(io.Discard, w)
		})
	}
	all.Wait()
	g.Serves(t)
	assert.Less(t, peakMemory(t, g)-before, 128<<20)
}

// Streams that are opened and reset at once do not keep others from being served.
func TestStreamsGivenUp(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, nil)
	before := peakMemory(t, g)
	header := testbed.HTTP2Field(":method", "POST") + testbed.HTTP2Field(":scheme", "https") + testbed.HTTP2Field(":authority", "localhost") + testbed.HTTP2Field(":path", testbed.LoginPath) +
		testbed.HTTP2Field("authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(testbed.FrontEndKey+":"))) + testbed.HTTP2Field("content-type", "application/json")
	var all sync.WaitGroup
	for range 4 {
		w := g.Dial(t, "h2")
		all.Go(func() { _, _ = io.Copy(io.Discard, w) })
		all.Go(func() {
			w.Say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + testbed.HTTP2Frame(4, 0, 0, ""))
			var batch bytes.Buffer
			for i := range uint32(5000) {
				batch.WriteString(testbed.HTTP2Frame(1, 4, 2*i+1, header) + testbed.HTTP2Frame(3, 0, 2*i+1, "\x00\x00\x00\x08"))
				if i%100 == 99 {
					w.Say(batch.String())
					batch.Reset()
				}
			}
			w.Close()
		})
	}
	g.Serves(t)
	all.Wait()
	g.Serves(t)
	assert.Less(t, peakMemory(t, g)-before, 128<<20)
}

// Bodies that are announced and never sent cost no memory.
func TestAnnouncedBodiesCostNothing(t *testing.T) {
	t.Parallel()
	const largest, clients = 16 << 20, 64
	g := startBesieged(t, func(_, limits testbed.Object) { limits["max_body_size"], limits["body_timeout"] = largest, "10m" })
	before := g.Heap(t)
	for range clients {
		w := g.Dial(t, "http/1.1")
		w.Say(testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, "{", fmt.Sprintf("Content-Length: %d", largest)))
	}
	g.Serves(t)
	assert.Less(t, g.Heap(t)-before, 64<<20, "%d MiB were announced", clients*largest>>20)
}

// Pipelined requests are answered in their order, and each counts for the limits.
func TestPipelining(t *testing.T) {
	t.Parallel()
	const limit = 12
	g := startBesieged(t, func(_, limits testbed.Object) { limits["calls_per_minute"] = limit })
	w := g.Dial(t, "http/1.1")
	var text strings.Builder
	var want []int
	for range 10 {
		for _, m := range []struct {
			text   string
			status int
		}{
			{testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody), http.StatusOK},
			{testbed.HTTP1Request(testbed.ServerTimePath, testbed.FrontEndKey, ""), http.StatusOK},
			{testbed.HTTP1Request("/rest/v2/unknown", testbed.FrontEndKey, "{}"), http.StatusNotFound},
			{testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, "[]"), http.StatusBadRequest},
		} {
			text.WriteString(m.text)
			if len(want) >= limit {
				m.status = http.StatusTooManyRequests
			}
			want = append(want, m.status)
		}
	}
	w.Say(text.String())
	got := make([]int, 0, len(want))
	for range want {
		got = append(got, w.Hear().Status)
	}
	assert.Equal(t, want, got)
}

// Requests on many streams of one connection count one by one.
func TestManyStreams(t *testing.T) {
	t.Parallel()
	// The server accepts so many streams of a connection at the same time.
	const limit, requests, streams = 100, 1000, 200
	g := startBesieged(t, func(_, limits testbed.Object) { limits["calls_per_minute"] = limit })
	// Opens the connection with a request that does not count.
	_, _, err := g.Try(t.Context(), "/", "", "")
	require.NoError(t, err)
	start := time.Now()
	var connections, admitted, limited atomic.Int64
	trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{ConnectDone: func(string, string, error) { connections.Add(1) }})
	var all sync.WaitGroup
	slots := make(chan struct{}, streams)
	for range requests {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			status, answer, err := g.Try(trace, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
			if err != nil {
				t.Error(err)
				return
			}
			switch status {
			case http.StatusOK:
				admitted.Add(1)
			case http.StatusTooManyRequests:
				limited.Add(1)
			default:
				assert.Fail(t, "answer", "%d %s", status, answer)
			}
		})
	}
	all.Wait()
	refilled := int64(time.Since(start).Minutes()*limit) + 1
	assert.Zero(t, connections.Load(), "further connections")
	assert.GreaterOrEqual(t, admitted.Load(), int64(limit))
	assert.LessOrEqual(t, admitted.Load(), limit+refilled)
	assert.Equal(t, int64(requests), admitted.Load()+limited.Load())
}

// A body that is too large is refused, with and without a declared length. The connection is
// used further or closed, and no part of the body is taken for a request.
func TestTooLargeBodies(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, nil)
	tooLarge := testbed.Expect(http.StatusRequestEntityTooLarge, "STAT_INVPARAM", -2)
	for _, size := range []int{65_537, 300_000, 5 << 20} {
		body := strings.Repeat(" ", size)
		for name, text := range map[string]string{
			"declared":  testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, body),
			"in chunks": testbed.HTTP1Request(testbed.LoginPath, testbed.FrontEndKey, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", size, body), "Transfer-Encoding: chunked"),
		} {
			w := g.Dial(t, "http/1.1")
			go func() {
				w.Say(text)
				w.Say(testbed.HTTP1Request(testbed.ServerTimePath, testbed.FrontEndKey, ""))
			}()
			got := w.Hear()
			if got.Status == 0 && size > 1<<20 {
				// The connection was closed while the client still sent.
				continue
			}
			tooLarge.Check(t, got)
			if !got.Last {
				assert.Equal(t, http.StatusOK, w.Hear().Status, "%s, %d bytes", name, size)
			}
		}
		for _, length := range []int64{int64(size), -1} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+testbed.LoginPath, io.NopCloser(strings.NewReader(body)))
			require.NoError(t, err)
			r.ContentLength = length
			r.Header.Set("Content-Type", "application/json")
			r.SetBasicAuth(testbed.FrontEndKey, "")
			got, err := g.Do(r)
			require.NoError(t, err)
			tooLarge.Check(t, got)
			g.Serves(t)
		}
	}
}

// Each limit per minute says after how many seconds to come back, and a call is admitted then.
func TestRetryAfterOfEveryLimit(t *testing.T) {
	t.Parallel()
	const perMinute = 60
	g := startBesieged(t, func(_, limits testbed.Object) {
		for _, name := range []string{"failed_keys", "exchanges", "registrations", "calls"} {
			limits[name+"_per_minute"] = perMinute
		}
	})
	for _, tc := range []struct{ name, path, key, body string }{
		{"registrations", testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody},
		{"first calls", testbed.EphemeralKeyPath, testbed.FrontEndKey, testbed.EphemeralKeyBody},
		{"second calls", testbed.ActivationDataPath, testbed.FrontEndKey, testbed.ActivationDataBody},
		{"one-time passwords", testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody},
		{"wrong keys", testbed.ServerTimePath, "no-such-front-end-key", ""},
	} {
		call := func() testbed.Reply { return g.Post(t, tc.path, tc.key, tc.body) }
		var got testbed.Reply
		admitted := 0
		for start := time.Now(); ; admitted++ {
			if got = call(); got.Status == http.StatusTooManyRequests {
				break
			}
			require.Less(t, admitted, perMinute+1+int(time.Since(start).Minutes()*perMinute), tc.name)
		}
		assert.GreaterOrEqual(t, admitted, perMinute, tc.name)
		testbed.Expect(http.StatusTooManyRequests, "STAT_ERROR", -1).Check(t, got)
		after := got.RetryAfter(t)
		require.LessOrEqual(t, after, 2, tc.name)
		time.Sleep(time.Duration(after) * time.Second)
		got = call()
		assert.NotEqual(t, http.StatusTooManyRequests, got.Status, "%s: %s", tc.name, got.Body)
		if tc.name != "wrong keys" {
			g.Serves(t)
		}
	}
}

// The gateway believes a header that names another client only if it comes from a trusted
// proxy.
func TestForwardedForIsNotBelieved(t *testing.T) {
	t.Parallel()
	const limit = 3
	count := func(t *testing.T, g *testbed.Gateway, forwarded func(i int) string) (admitted int) {
		t.Helper()
		for i := range 4 * limit {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+testbed.LoginPath, strings.NewReader(testbed.LoginBody))
			require.NoError(t, err)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-Forwarded-For", forwarded(i))
			r.Header.Set("Forwarded", "for="+forwarded(i))
			r.Header.Set("X-Real-IP", forwarded(i))
			r.SetBasicAuth(testbed.FrontEndKey, "")
			got, err := g.Do(r)
			require.NoError(t, err)
			if got.Status == http.StatusOK {
				admitted++
			} else {
				assert.Equal(t, http.StatusTooManyRequests, got.Status, got.Body)
			}
		}
		return admitted
	}
	changing := func(i int) string { return fmt.Sprintf("192.0.2.%d", i+1) }
	trusting := func(strict int) func(server, limits testbed.Object) {
		return func(server, limits testbed.Object) {
			server["trusted_proxies"] = testbed.Object{"source": "static", "ranges": []string{"127.0.0.0/8", "::1/128"}}
			server["trusted_proxies_strict"] = strict
			limits["calls_per_minute"] = limit
		}
	}
	t.Run("no trusted proxy", func(t *testing.T) {
		t.Parallel()
		g := startBesieged(t, func(_, limits testbed.Object) { limits["calls_per_minute"] = limit })
		assert.LessOrEqual(t, count(t, g, changing), limit+1)
	})
	t.Run("trusted proxy", func(t *testing.T) {
		t.Parallel()
		g := startBesieged(t, trusting(0))
		assert.Equal(t, 4*limit, count(t, g, changing))
		assert.LessOrEqual(t, count(t, g, func(int) string { return "198.51.100.1" }), limit+1)
		// All addresses of one IPv6 network are one client.
		assert.LessOrEqual(t, count(t, g, func(i int) string { return fmt.Sprintf("2001:db8:1:2::%x", i+1) }), limit+1)
	})
	t.Run("trusted proxy that appends", func(t *testing.T) {
		t.Parallel()
		g := startBesieged(t, trusting(1))
		assert.LessOrEqual(t, count(t, g, func(i int) string { return changing(i) + ", 198.51.100.1" }), limit+1)
	})
}

// Only so many exchanges are computed at the same time, and only so many wait. The others are
// told to come back. Other services answer meanwhile.
func TestExchangesAreCapped(t *testing.T) {
	t.Parallel()
	const atOnce, requests = 1, 300
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["limits"].(testbed.Object)["max_exchanges"] = atOnce
		dsapp["activation"] = testbed.Object{"profile": "rfc5054-4096-sha256"}
	})
	// Connects first, so that the requests arrive at the same time.
	wires := make([]*testbed.Wire, requests)
	var all sync.WaitGroup
	for i := range wires {
		wires[i] = g.Dial(t, "http/1.1")
	}
	var computed, busy atomic.Int64
	for _, w := range wires {
		all.Go(func() {
			w.Say(testbed.HTTP1Request(testbed.EphemeralKeyPath, testbed.FrontEndKey, testbed.EphemeralKeyBody))
			switch got := w.Hear(); got.Status {
			case http.StatusOK:
				computed.Add(1)
			case http.StatusTooManyRequests:
				busy.Add(1)
				testbed.Expect(got.Status, "STAT_ERROR", -1).Check(t, got)
				assert.Equal(t, "1", got.Header.Get("Retry-After"))
			default:
				assert.Fail(t, "answer", "%d %s", got.Status, got.Body)
			}
		})
	}
	g.Serves(t)
	all.Wait()
	assert.Equal(t, int64(requests), computed.Load()+busy.Load())
	assert.GreaterOrEqual(t, computed.Load(), int64(atOnce+16*atOnce))
	assert.Positive(t, busy.Load())
	// When they have ended, exchanges are admitted again.
	status, answer := g.Call(t, testbed.EphemeralKeyPath, testbed.FrontEndKey, testbed.EphemeralKeyBody)
	assert.Equal(t, http.StatusOK, status, answer)
}

// A client with the front-end key that knows a registration identifier can burn the
// registration, but only as fast as the limits of one address allow, and the audit log tells.
// First calls alone do not harm the phone.
func TestBurningARegistrationIsSeen(t *testing.T) {
	t.Parallel()
	const limit = 10
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["limits"].(testbed.Object)["exchanges_per_minute"] = limit
	})
	began := time.Now()
	first := func(identifier string) testbed.Reply {
		return g.Post(t, testbed.EphemeralKeyPath, testbed.FrontEndKey, strings.Replace(testbed.EphemeralKeyBody, "Unknown1", identifier, 1))
	}
	second := func(identifier string) testbed.Reply {
		return g.Post(t, testbed.ActivationDataPath, testbed.FrontEndKey, strings.Replace(testbed.ActivationDataBody, "Unknown1", identifier, 1))
	}
	kept, burned := g.Register(t), g.Register(t)
	for range 4 {
		assert.Equal(t, http.StatusOK, first(kept.Identifier).Status)
	}
	_, err := g.Phone().Activate(t.Context(), kept.Identifier, kept.Password)
	require.NoError(t, err)
	assert.NotContains(t, g.Logs.String(), "registration_burned")

	for i := range 3 {
		require.Equal(t, http.StatusOK, first(burned.Identifier).Status)
		testbed.Expect(http.StatusOK, "STAT_INVCREDENTIALS", 1000).Check(t, second(burned.Identifier))
		if i < 2 {
			assert.NotContains(t, g.Logs.String(), "registration_burned")
		}
	}
	g.AwaitLog(t, `"msg":"registration_burned"`)
	var lines []string
	for line := range strings.Lines(g.Logs.String()) {
		if strings.Contains(line, `"msg":"registration_burned"`) {
			lines = append(lines, line)
		}
	}
	require.Len(t, lines, 1)
	for _, want := range []string{
		`"logger":"dsapp.audit"`, `"application":"mobile-app"`, `"registration":"` + burned.Identifier + `"`,
		`"user_id":"` + testbed.UserID + `"`, `"domain":"` + testbed.Domain + `"`, `"serial_number":"VDS`, `"instance":"primary"`,
	} {
		assert.Contains(t, lines[0], want)
	}
	_, err = g.Phone().Activate(t.Context(), burned.Identifier, burned.Password)
	require.Error(t, err)

	// The limit is nearly used up by now. Unknown identifiers count for it, too.
	limited := 0
	for range 2 * limit {
		if first("Unknown1").Status == http.StatusTooManyRequests {
			limited++
		}
	}
	assert.GreaterOrEqual(t, limited, limit-1-int(time.Since(began).Minutes()*limit))
}
