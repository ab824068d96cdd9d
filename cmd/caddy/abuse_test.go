package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	onlinePath = "/rest/v2/authentication/authUser"
	onlineBody = `{"userID":"jane.doe","domain":"mydomain.com","password":"123456"}`
	firstBody  = `{"registrationIdentifier":"Unknown1","clientEphemeralPublicKey":"05"}`
	secondBody = `{"registrationIdentifier":"Unknown1","clientEvidenceMessage":"0000000000000000000000000000000000000000000000000000000000000000"}`

	// patience is what the servers of these tests have with clients, and cutOff
	// when it must have shown, on a busy machine.
	patience = time.Second
	cutOff   = 15 * time.Second
)

// startBesieged starts a gateway that has little patience. Each edit may change
// the HTTP server or the app.
func startBesieged(t *testing.T, edit func(server, limits object)) *gateway {
	t.Helper()
	certs := certificates(t)
	g := configure(t, certs, startOAS(t, certs).URL, nil)
	server := g.httpServer()
	server["read_header_timeout"] = patience.String()
	limits := g.Config["apps"].(object)["dsapp"].(object)["limits"].(object)
	limits["body_timeout"] = patience.String()
	if edit != nil {
		edit(server, limits)
	}
	g.Start(t)
	return g
}

// wire is a connection to a gateway, to which anything can be written.
type wire struct {
	net.Conn
	*bufio.Reader
	t *testing.T
}

// dial opens a connection for a protocol such as http/1.1.
func (g *gateway) dial(t *testing.T, protocol string) *wire {
	t.Helper()
	config := g.client.Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{protocol}
	config.ServerName = "localhost"
	d := tls.Dialer{Config: config}
	c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(g.URL, "https://"))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(cutOff)))
	return &wire{c, bufio.NewReader(c), t}
}

// Read is that of the buffer.
func (w *wire) Read(p []byte) (int, error) { return w.Reader.Read(p) }

// say writes; that the other end is gone shows when its answer is read.
func (w *wire) say(text string) { _, _ = io.WriteString(w.Conn, text) }

// drip writes a text again and again until that fails or the test is over.
func (w *wire) drip(text string) {
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

// reply is an answer on a wire.
type reply struct {
	status int
	header http.Header
	body   string
	last   bool // the connection ends with it
}

// hear reads an answer. The status is 0 if there is none.
func (w *wire) hear() reply {
	w.t.Helper()
	resp, err := http.ReadResponse(w.Reader, nil)
	if err != nil {
		w.inTime(err)
		return reply{last: true}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Errorf("answer %d ends with %v", resp.StatusCode, err)
	}
	return reply{resp.StatusCode, resp.Header, string(body), resp.Close}
}

// ended waits for the end of the connection.
func (w *wire) ended() {
	w.t.Helper()
	rest, err := io.ReadAll(w.Reader)
	w.inTime(err)
	assert.Empty(w.t, string(rest))
}

// inTime tells an end of the connection from one that did not come.
func (w *wire) inTime(err error) {
	w.t.Helper()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Error("the connection was not cut off in time")
	}
}

// message is a request for HTTP/1.1. Without a length among its fields it gets
// that of the body.
func message(path, key, body string, fields ...string) string {
	lines := []string{"POST " + path + " HTTP/1.1", "Host: localhost", "Content-Type: application/json"}
	if key != "" {
		lines = append(lines, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(key+":")))
	}
	if !strings.Contains(strings.Join(fields, " "), "Content-Length") && !strings.Contains(strings.Join(fields, " "), "Transfer-Encoding") {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return strings.Join(append(lines, fields...), "\r\n") + "\r\n\r\n" + body
}

// serves tells that other clients are served.
func (g *gateway) serves(t *testing.T) {
	t.Helper()
	other := g.from(t, "127.0.0.77")
	for range 5 {
		start := time.Now()
		status, answer := other.Call(t, serverTimePath, frontEndKey, "")
		assert.Equal(t, http.StatusOK, status, answer)
		assert.Less(t, time.Since(start), cutOff)
	}
}

// peak is the most memory that the process ever had, in bytes.
func (g *gateway) peak(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(rest)
	require.NotEmpty(t, fields)
	kib, err := strconv.Atoi(fields[0])
	require.NoError(t, err)
	return kib << 10
}

// Whoever sends a header or a body slowly, or not at all, is cut off. Meanwhile
// all others are served.
func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, nil)
	const each = 20
	var slow []func()
	begin := func(status int, start, drip string) {
		w := g.dial(t, "http/1.1")
		w.say(start)
		if drip != "" {
			w.drip(drip)
		}
		began := time.Now()
		slow = append(slow, func() {
			got := w.hear()
			assert.Equal(t, status, got.status, start)
			if status == http.StatusRequestTimeout {
				expectation{status, "STAT_INVPARAM", -2}.check(t, status, got.body)
				assert.Contains(t, got.body, `"errorDescription":"body did not arrive in time"`)
			}
			assert.True(t, got.last, start)
			w.ended()
			assert.Less(t, time.Since(began), cutOff, start)
		})
	}
	for range each {
		begin(0, "", "")
		begin(0, "POST "+onlinePath+" HTTP/1.1\r\n", "X: y\r\n")
		begin(http.StatusRequestTimeout, message(onlinePath, frontEndKey, "{", "Content-Length: 1000"), " ")
		begin(http.StatusRequestTimeout, message(onlinePath, frontEndKey, "", "Transfer-Encoding: chunked"), "1\r\n \r\n")
		begin(http.StatusUnauthorized, message(onlinePath, "", "{", "Content-Length: 1000"), " ")
		begin(http.StatusForbidden, message(registerPath, frontEndKey, "{", "Content-Length: 1000"), "")
		begin(http.StatusRequestEntityTooLarge, message(onlinePath, frontEndKey, "{", "Content-Length: 100000"), "")
	}
	// The handshake counts, too.
	var d net.Dialer
	silent, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(g.URL, "https://"))
	require.NoError(t, err)
	defer silent.Close()
	require.NoError(t, silent.SetDeadline(time.Now().Add(cutOff)))
	// One connection with many streams that wait for bodies.
	var streams sync.WaitGroup
	for range each {
		body, end := io.Pipe()
		t.Cleanup(func() { end.Close() })
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+onlinePath, body)
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		r.SetBasicAuth(frontEndKey, "")
		streams.Go(func() {
			status, _, answer, err := g.Do(r)
			if assert.NoError(t, err) {
				expectation{http.StatusRequestTimeout, "STAT_INVPARAM", -2}.check(t, status, answer)
			}
		})
	}
	g.serves(t)
	for _, end := range slow {
		end()
	}
	_, err = silent.Read(make([]byte, 1))
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	streams.Wait()
	g.serves(t)
}

// A request that asks before it sends its body is told to go on only where the body
// is wanted, and is refused at once.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, func(_, limits object) { limits["body_timeout"] = "10m" })
	w := g.dial(t, "http/1.1")
	w.say(message(onlinePath, frontEndKey, "", fmt.Sprintf("Content-Length: %d", len(onlineBody)), "Expect: 100-continue"))
	require.Equal(t, http.StatusContinue, w.hear().status)
	w.say(onlineBody)
	assert.Equal(t, http.StatusOK, w.hear().status)

	w = g.dial(t, "http/1.1")
	w.say(message(onlinePath, "no-such-front-end-key", "", "Content-Length: 10", "Expect: 100-continue"))
	assert.Equal(t, http.StatusUnauthorized, w.hear().status)
}

// An operation may take longer than a body, on every protocol, and a connection may
// idle longer than that.
func TestBodyTimeoutIsForBodies(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	server.Intercept(func(http.ResponseWriter, *http.Request) bool {
		time.Sleep(2 * patience)
		return false
	})
	g := configure(t, certs, server.URL, func(dsapp object) {
		dsapp["limits"].(object)["body_timeout"] = patience.String()
	})
	g.Config["apps"].(object)["http"].(object)["servers"].(object)["gateway"].(object)["read_timeout"] = (patience * 3 / 2).String()
	g.Start(t)
	status, answer := g.Call(t, onlinePath, frontEndKey, onlineBody)
	assert.Equal(t, http.StatusOK, status, answer)
	w := g.dial(t, "http/1.1")
	w.say(message(onlinePath, frontEndKey, onlineBody))
	got := w.hear()
	assert.Equal(t, http.StatusOK, got.status, got.body)
	assert.False(t, got.last)
	time.Sleep(2 * patience)
	w.say(message(onlinePath, frontEndKey, fmt.Sprintf("%x\r\n%s\r\n0\r\nX-Trailer: y\r\n\r\n", len(onlineBody), onlineBody), "Transfer-Encoding: chunked", "Trailer: X-Trailer"))
	got = w.hear()
	assert.Equal(t, http.StatusOK, got.status, got.body)
}

// Headers are bounded, and so is what many clients with large ones cost together.
func TestHeadersAreBounded(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, nil)
	before := g.peak(t)
	large := "X-Large: " + strings.Repeat("x", 1<<20) + "\r\n"
	many := strings.Repeat("X: y\r\n", 200_000)
	const headers = 60
	var all sync.WaitGroup
	for i := range headers {
		w := g.dial(t, "http/1.1")
		all.Go(func() {
			w.say("POST " + onlinePath + " HTTP/1.1\r\nHost: localhost\r\n" + []string{large, many}[i%2] + "\r\n")
			// The answer can be lost if the connection is closed while more comes.
			if got := w.hear(); got.status != 0 {
				assert.Equal(t, http.StatusRequestHeaderFieldsTooLarge, got.status)
			}
		})
	}
	all.Wait()
	// So that it cannot be lost.
	w := g.dial(t, "http/1.1")
	w.say("POST " + onlinePath + " HTTP/1.1\r\nHost: localhost\r\nX-Large: " + strings.Repeat("x", 22_000))
	assert.Equal(t, http.StatusRequestHeaderFieldsTooLarge, w.hear().status)
	g.serves(t)

	// In HTTP/2 a header can go on for ever.
	const endHeaders = 4
	block := strings.Repeat(literal("x-large", strings.Repeat("x", 1000)), 15)
	for range headers {
		w := g.dial(t, "h2")
		all.Go(func() {
			w.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, "") + frame(1, 0, 1, literal(":method", "POST")))
			for range 200 {
				w.say(frame(9, 0, 1, block))
			}
			w.say(frame(9, endHeaders, 1, ""))
			_, _ = io.Copy(io.Discard, w)
		})
	}
	all.Wait()
	g.serves(t)
	assert.Less(t, g.peak(t)-before, 128<<20)
}

// frame is a frame of HTTP/2 (RFC 9113, section 4.1).
func frame(kind, flags byte, stream uint32, payload string) string {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	head = append(head, flags)
	return string(binary.BigEndian.AppendUint32(head, stream)) + payload
}

// literal is a header field without compression (RFC 7541, section 6.2.2).
func literal(name, value string) string {
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

// Streams that are opened and given up again at once keep nobody from being served.
func TestStreamsGivenUp(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, nil)
	before := g.peak(t)
	header := literal(":method", "POST") + literal(":scheme", "https") + literal(":authority", "localhost") + literal(":path", onlinePath) +
		literal("authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(frontEndKey+":"))) + literal("content-type", "application/json")
	var all sync.WaitGroup
	for range 4 {
		w := g.dial(t, "h2")
		all.Go(func() { _, _ = io.Copy(io.Discard, w) })
		all.Go(func() {
			w.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, ""))
			var batch bytes.Buffer
			for i := range uint32(5000) {
				batch.WriteString(frame(1, 4, 2*i+1, header) + frame(3, 0, 2*i+1, "\x00\x00\x00\x08"))
				if i%100 == 99 {
					w.say(batch.String())
					batch.Reset()
				}
			}
			w.Close()
		})
	}
	g.serves(t)
	all.Wait()
	g.serves(t)
	assert.Less(t, g.peak(t)-before, 128<<20)
}

// Bodies that are announced and never sent cost no memory.
func TestAnnouncedBodiesCostNothing(t *testing.T) {
	t.Parallel()
	const largest, clients = 16 << 20, 64
	g := startBesieged(t, func(_, limits object) { limits["max_body_size"], limits["body_timeout"] = largest, "10s" })
	before := g.heap(t)
	for range clients {
		w := g.dial(t, "http/1.1")
		w.say(message(onlinePath, frontEndKey, "{", fmt.Sprintf("Content-Length: %d", largest)))
	}
	g.serves(t)
	assert.Less(t, g.heap(t)-before, 64<<20, "%d MiB were announced", clients*largest>>20)
}

// heap is the memory that the process has set aside for its objects, in bytes,
// whether it was written to or not.
func (g *gateway) heap(t *testing.T) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.Admin+"/debug/pprof/heap?debug=1", nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	profile, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(profile), "# HeapInuse = ")
	digits, _, _ := strings.Cut(rest, "\n")
	inUse, err := strconv.Atoi(digits)
	require.NoError(t, err)
	return inUse
}

// Requests that come without waiting for answers are answered in their order, and
// each counts.
func TestPipelining(t *testing.T) {
	t.Parallel()
	const limit = 12
	g := startBesieged(t, func(_, limits object) { limits["calls_per_minute"] = limit })
	w := g.dial(t, "http/1.1")
	var text strings.Builder
	var want []int
	for range 10 {
		for _, m := range []struct {
			text   string
			status int
		}{
			{message(onlinePath, frontEndKey, onlineBody), http.StatusOK},
			{message(serverTimePath, frontEndKey, ""), http.StatusOK},
			{message("/rest/v2/unknown", frontEndKey, "{}"), http.StatusNotFound},
			{message(onlinePath, frontEndKey, "[]"), http.StatusBadRequest},
		} {
			text.WriteString(m.text)
			if len(want) >= limit {
				m.status = http.StatusTooManyRequests
			}
			want = append(want, m.status)
		}
	}
	w.say(text.String())
	got := make([]int, 0, len(want))
	for range want {
		got = append(got, w.hear().status)
	}
	assert.Equal(t, want, got)
}

// One connection may carry many requests at once; they count, too.
func TestManyStreams(t *testing.T) {
	t.Parallel()
	// As many at once as one connection takes.
	const limit, requests, streams = 100, 1000, 200
	g := startBesieged(t, func(_, limits object) { limits["calls_per_minute"] = limit })
	// There is a connection, and nothing was counted.
	_, _, err := g.try(t.Context(), "/", "", "")
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
			status, answer, err := g.try(trace, onlinePath, frontEndKey, onlineBody)
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

// A body that is too large is refused, however it comes; the connection can be used
// further or is closed, and nothing of the body is taken for a request.
func TestTooLargeBodies(t *testing.T) {
	t.Parallel()
	g := startBesieged(t, nil)
	tooLarge := expectation{http.StatusRequestEntityTooLarge, "STAT_INVPARAM", -2}
	for _, size := range []int{65_537, 300_000, 5 << 20} {
		body := strings.Repeat(" ", size)
		for name, text := range map[string]string{
			"declared":  message(onlinePath, frontEndKey, body),
			"in chunks": message(onlinePath, frontEndKey, fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", size, body), "Transfer-Encoding: chunked"),
		} {
			w := g.dial(t, "http/1.1")
			go func() {
				w.say(text)
				w.say(message(serverTimePath, frontEndKey, ""))
			}()
			got := w.hear()
			if got.status == 0 && size > 1<<20 {
				// Closed while the rest was on its way.
				continue
			}
			tooLarge.check(t, got.status, got.body)
			if !got.last {
				assert.Equal(t, http.StatusOK, w.hear().status, "%s, %d bytes", name, size)
			}
		}
		for _, length := range []int64{int64(size), -1} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+onlinePath, io.NopCloser(strings.NewReader(body)))
			require.NoError(t, err)
			r.ContentLength = length
			r.Header.Set("Content-Type", "application/json")
			r.SetBasicAuth(frontEndKey, "")
			status, _, answer, err := g.Do(r)
			require.NoError(t, err)
			tooLarge.check(t, status, answer)
			g.serves(t)
		}
	}
}

// Each limit per minute tells when to come back, and that is true.
func TestRetryAfterOfEveryLimit(t *testing.T) {
	t.Parallel()
	const perMinute = 60
	g := startBesieged(t, func(_, limits object) {
		for _, name := range []string{"failed_keys", "exchanges", "registrations", "calls"} {
			limits[name+"_per_minute"] = perMinute
		}
	})
	for _, tc := range []struct{ name, path, key, body string }{
		{"registrations", registerPath, backEndKey, userBody},
		{"first calls", ephemeralKeyPath, frontEndKey, firstBody},
		{"second calls", activationDataPath, frontEndKey, secondBody},
		{"one-time passwords", onlinePath, frontEndKey, onlineBody},
		{"wrong keys", serverTimePath, "no-such-front-end-key", ""},
	} {
		call := func() (int, int, string) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+tc.path, strings.NewReader(tc.body))
			require.NoError(t, err)
			r.Header.Set("Content-Type", "application/json")
			r.SetBasicAuth(tc.key, "")
			status, header, answer, err := g.Do(r)
			require.NoError(t, err)
			if status != http.StatusTooManyRequests {
				return status, 0, answer
			}
			after, err := strconv.Atoi(header.Get("Retry-After"))
			require.NoError(t, err)
			return status, after, answer
		}
		var status, after int
		var answer string
		admitted := 0
		for start := time.Now(); ; admitted++ {
			if status, after, answer = call(); status == http.StatusTooManyRequests {
				break
			}
			require.Less(t, admitted, perMinute+1+int(time.Since(start).Minutes()*perMinute), tc.name)
		}
		assert.GreaterOrEqual(t, admitted, perMinute, tc.name)
		expectation{http.StatusTooManyRequests, "STAT_ERROR", -1}.check(t, status, answer)
		require.Positive(t, after, tc.name)
		require.LessOrEqual(t, after, 2, tc.name)
		time.Sleep(time.Duration(after) * time.Second)
		status, _, answer = call()
		assert.NotEqual(t, http.StatusTooManyRequests, status, "%s: %s", tc.name, answer)
		if tc.name != "wrong keys" {
			g.serves(t)
		}
	}
}

// A client cannot tell the gateway that it is another one, unless a proxy that is
// trusted says so.
func TestForwardedForIsNotBelieved(t *testing.T) {
	t.Parallel()
	const limit = 3
	count := func(t *testing.T, g *gateway, forwarded func(i int) string) (admitted int) {
		t.Helper()
		for i := range 4 * limit {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+onlinePath, strings.NewReader(onlineBody))
			require.NoError(t, err)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-Forwarded-For", forwarded(i))
			r.Header.Set("Forwarded", "for="+forwarded(i))
			r.Header.Set("X-Real-IP", forwarded(i))
			r.SetBasicAuth(frontEndKey, "")
			status, _, answer, err := g.Do(r)
			require.NoError(t, err)
			switch status {
			case http.StatusOK:
				admitted++
			default:
				assert.Equal(t, http.StatusTooManyRequests, status, answer)
			}
		}
		return admitted
	}
	changing := func(i int) string { return fmt.Sprintf("192.0.2.%d", i+1) }
	trusting := func(strict int) func(server, limits object) {
		return func(server, limits object) {
			server["trusted_proxies"] = object{"source": "static", "ranges": []string{"127.0.0.0/8", "::1/128"}}
			server["trusted_proxies_strict"] = strict
			limits["calls_per_minute"] = limit
		}
	}
	t.Run("no trusted proxy", func(t *testing.T) {
		t.Parallel()
		g := startBesieged(t, func(_, limits object) { limits["calls_per_minute"] = limit })
		assert.LessOrEqual(t, count(t, g, changing), limit+1)
	})
	t.Run("trusted proxy", func(t *testing.T) {
		t.Parallel()
		g := startBesieged(t, trusting(0))
		assert.Equal(t, 4*limit, count(t, g, changing))
		assert.LessOrEqual(t, count(t, g, func(int) string { return "198.51.100.1" }), limit+1)
		// All of one network of IPv6 is one client.
		assert.LessOrEqual(t, count(t, g, func(i int) string { return fmt.Sprintf("2001:db8:1:2::%x", i+1) }), limit+1)
	})
	t.Run("trusted proxy that appends", func(t *testing.T) {
		t.Parallel()
		g := startBesieged(t, trusting(1))
		assert.LessOrEqual(t, count(t, g, func(i int) string { return changing(i) + ", 198.51.100.1" }), limit+1)
	})
}

// Only so many exchanges are computed at once, and only so many wait; the others
// are told to come back, and other services answer meanwhile.
func TestExchangesAreCapped(t *testing.T) {
	t.Parallel()
	const atOnce, requests = 1, 300
	certs := certificates(t)
	g := startGateway(t, certs, startOAS(t, certs).URL, func(dsapp object) {
		dsapp["limits"].(object)["max_exchanges"] = atOnce
		dsapp["activation"] = object{"profile": "rfc5054-4096-sha256"}
	})
	// Connections first, so that the requests come at the same time.
	wires := make([]*wire, requests)
	var all sync.WaitGroup
	for i := range wires {
		wires[i] = g.dial(t, "http/1.1")
	}
	var computed, busy atomic.Int64
	for _, w := range wires {
		all.Go(func() {
			w.say(message(ephemeralKeyPath, frontEndKey, firstBody))
			switch got := w.hear(); got.status {
			case http.StatusOK:
				computed.Add(1)
			case http.StatusTooManyRequests:
				busy.Add(1)
				expectation{got.status, "STAT_ERROR", -1}.check(t, got.status, got.body)
				assert.Equal(t, "1", got.header.Get("Retry-After"))
			default:
				assert.Fail(t, "answer", "%d %s", got.status, got.body)
			}
		})
	}
	g.serves(t)
	all.Wait()
	assert.Equal(t, int64(requests), computed.Load()+busy.Load())
	assert.GreaterOrEqual(t, computed.Load(), int64(atOnce+16*atOnce))
	assert.Positive(t, busy.Load())
	// It is over as soon as they are.
	status, answer := g.Call(t, ephemeralKeyPath, frontEndKey, firstBody)
	assert.Equal(t, http.StatusOK, status, answer)
}

// Whoever has the front-end key and an identifier can burn its registration, but
// only as fast as the limits let one address, and not without being seen. First
// calls alone take nothing away from the phone.
func TestBurningARegistrationIsSeen(t *testing.T) {
	t.Parallel()
	const limit = 10
	certs := certificates(t)
	g := startGateway(t, certs, startOAS(t, certs).URL, func(dsapp object) {
		dsapp["limits"].(object)["exchanges_per_minute"] = limit
	})
	first := func(identifier string) (int, string) {
		return g.Call(t, ephemeralKeyPath, frontEndKey, strings.Replace(firstBody, "Unknown1", identifier, 1))
	}
	second := func(identifier string) (int, string) {
		return g.Call(t, activationDataPath, frontEndKey, strings.Replace(secondBody, "Unknown1", identifier, 1))
	}
	kept, burned := g.Register(t), g.Register(t)
	for range 4 {
		status, answer := first(kept.Identifier)
		assert.Equal(t, http.StatusOK, status, answer)
	}
	_, err := g.Phone().Activate(t.Context(), kept.Identifier, kept.Password)
	require.NoError(t, err)
	assert.NotContains(t, g.Logs.String(), "registration_burned")

	for i := range 3 {
		status, answer := first(burned.Identifier)
		require.Equal(t, http.StatusOK, status, answer)
		status, answer = second(burned.Identifier)
		expectation{http.StatusOK, "STAT_INVCREDENTIALS", 1000}.check(t, status, answer)
		if i < 2 {
			assert.NotContains(t, g.Logs.String(), "registration_burned")
		}
	}
	poll(t, "the log to tell", func() bool { return strings.Contains(g.Logs.String(), `"msg":"registration_burned"`) })
	var lines []string
	for line := range strings.Lines(g.Logs.String()) {
		if strings.Contains(line, "registration_burned") {
			lines = append(lines, line)
		}
	}
	require.Len(t, lines, 1)
	for _, want := range []string{
		`"logger":"dsapp.audit"`, `"application":"mobile-app"`, `"registration":"` + burned.Identifier + `"`,
		`"user_id":"` + userID + `"`, `"domain":"` + domain + `"`, `"serial_number":"VDS`, `"instance":"primary"`,
	} {
		assert.Contains(t, lines[0], want)
	}
	_, err = g.Phone().Activate(t.Context(), burned.Identifier, burned.Password)
	require.Error(t, err)

	// The bucket is nearly empty by now; unknown identifiers count alike.
	limited := 0
	for range 2 * limit {
		if status, _ := first("Unknown1"); status == http.StatusTooManyRequests {
			limited++
		}
	}
	assert.GreaterOrEqual(t, limited, limit-1)
}
