//go:build linux

package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

const requestIDHeader = "X-Request-Id"

// sending returns a gateway whose client sends header fields with each request, from an
// address that is a trusted proxy of trustLoopback.
func sending(g *testbed.Gateway, header http.Header) *testbed.Gateway {
	other := *g
	other.Client = &http.Client{Timeout: poll.Patience, Transport: interrupted{g.Client.Transport, func(r *http.Request) {
		maps.Copy(r.Header, header)
	}}}
	return &other
}

// trustLoopback makes 127.0.0.1 a trusted proxy, and no other address.
func trustLoopback(g *testbed.Gateway) {
	g.HTTPServer()["trusted_proxies"] = testbed.Object{"source": "static", "ranges": []string{"127.0.0.1/32"}}
}

// loggedWith returns the lines of a log with an ID of a request, by logger.
func loggedWith(t *testing.T, g *testbed.Gateway, id string) map[string][]map[string]any {
	t.Helper()
	found := make(map[string][]map[string]any)
	for line := range strings.Lines(g.Logs.String()) {
		if !strings.Contains(line, id) || !strings.HasSuffix(line, "\n") {
			continue
		}
		var entry map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &entry), line)
		assert.Equal(t, id, entry["request_id"], line)
		logger, _ := entry["logger"].(string)
		found[logger] = append(found[logger], entry)
	}
	return found
}

// messages returns the messages of log lines, each once and in order.
func messages(lines []map[string]any) []string {
	var found []string
	for _, line := range lines {
		found = append(found, line["msg"].(string))
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// accessLog is the logger of the requests of a server without a name of its own.
const accessLog = "http.log.access"

// A request has the ID that a trusted proxy sent, and no other client can choose it.
func TestRequestIDOfProxies(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	g := testbed.Configure(t, certs, testbed.StartServer(t, certs).URL, nil)
	trustLoopback(g)
	g.Start(t)
	stranger := g.From(t, "127.0.0.77")
	for name, c := range map[string]struct {
		from *testbed.Gateway
		sent []string
		want string // empty: Caddy's
	}{
		"trusted":           {g, []string{"Load.balancer_1-2"}, "Load.balancer_1-2"},
		"trusted, none":     {g, nil, ""},
		"trusted, twice":    {g, []string{"twice-1", "twice-2"}, ""},
		"trusted, too long": {g, []string{strings.Repeat("x", 65)}, ""},
		"trusted, odd":      {g, []string{`a"b`}, ""},
		"untrusted":         {stranger, []string{"stranger-1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			header := http.Header{}
			if c.sent != nil {
				header[requestIDHeader] = c.sent
			}
			from := sending(c.from, header)
			for _, key := range []string{testbed.FrontEndKey, ""} {
				got := from.Post(t, testbed.ServerTimePath, key, "")
				ids := got.Header.Values(requestIDHeader)
				require.Len(t, ids, 1, "status %d", got.Status)
				if c.want != "" {
					assert.Equal(t, c.want, ids[0])
				} else {
					assert.Regexp(t, "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", ids[0])
				}
				poll.Until(t, "the access log", func() bool { return len(loggedWith(t, g, ids[0])[accessLog]) > 0 })
			}
		})
	}
}

// unreachable are the statuses of a call whose instance has just stopped. The gateway may
// send it on a connection of which it does not know yet that the instance closed it.
var unreachable = []int{http.StatusServiceUnavailable, http.StatusBadGateway}

// One search for the ID finds every line of a call: in the access log, in the audit log and in
// that of the gateway, also of a call that fails. No line about a call lacks it.
func TestOneSearchFindsACall(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	g := testbed.Configure(t, certs, server.URL, nil)
	trustLoopback(g)
	g.Start(t)

	registering := sending(g, http.Header{requestIDHeader: {"registration-1"}})
	registered := registering.Register(t)
	phone := sending(g, http.Header{requestIDHeader: {"activation-1"}}).Phone()
	_, err := phone.Activate(t.Context(), registered.Identifier, registered.Password)
	require.NoError(t, err)
	server.Stop()
	failed := sending(g, http.Header{requestIDHeader: {"failure-1"}}).Post(t, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
	assert.Contains(t, unreachable, failed.Status, failed.Body)
	assert.Equal(t, []string{"failure-1"}, failed.Header.Values(requestIDHeader))

	for id, want := range map[string]struct {
		calls        int
		audit, dsapp []string
	}{
		"registration-1": {1, []string{"registered"}, []string{"authentication server called"}},
		"activation-1":   {4, []string{"activated", "device_added", "proven"}, []string{"authentication server called"}},
		"failure-1":      {1, nil, []string{"authentication server called", "operation failed"}},
	} {
		poll.Until(t, "the access log", func() bool { return len(loggedWith(t, g, id)[accessLog]) == want.calls })
		lines := loggedWith(t, g, id)
		assert.Equal(t, want.audit, messages(lines["dsapp.audit"]), id)
		assert.Subset(t, messages(lines["dsapp"]), want.dsapp, id)
	}
	for line := range strings.Lines(g.Logs.String()) {
		if !strings.Contains(line, `"logger":"dsapp`) || strings.Contains(line, `"request_id":`) {
			continue
		}
		for _, part := range []string{`"operation":`, `"registration":`, `"application":`} {
			assert.NotContains(t, line, part, "a line about a call without its ID")
		}
	}
}

// collector is a server that receives spans by OTLP.
type collector struct {
	URL string

	mu    sync.Mutex
	spans []*tracepb.Span
}

func startCollector(t *testing.T) *collector {
	t.Helper()
	c := new(collector)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		// ExportTraceServiceRequest has the same form, and is in a package that needs gRPC.
		var data tracepb.TracesData
		if err := proto.Unmarshal(body, &data); err != nil {
			t.Errorf("spans: %v", err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, of := range data.GetResourceSpans() {
			for _, in := range of.GetScopeSpans() {
				c.spans = append(c.spans, in.GetSpans()...)
			}
		}
	}))
	t.Cleanup(server.Close)
	c.URL = server.URL
	return c
}

// environment returns the variables with which Caddy sends its spans to the collector.
func (c *collector) environment() []string {
	return []string{
		"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL,
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_BSP_SCHEDULE_DELAY=20",
	}
}

// served is the span of a request, and the spans below it by name.
type served struct {
	span     *tracepb.Span
	children map[string]*tracepb.Span
}

// requests returns the spans of requests to a path.
func (c *collector) requests(path string) []served {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []served
	for _, s := range c.spans {
		if s.GetKind() != tracepb.Span_SPAN_KIND_SERVER || attributes(s)["url.path"] != path {
			continue
		}
		below := make(map[string]*tracepb.Span)
		for _, child := range c.spans {
			if string(child.GetParentSpanId()) == string(s.GetSpanId()) && string(child.GetTraceId()) == string(s.GetTraceId()) {
				below[child.GetName()] = child
			}
		}
		found = append(found, served{s, below})
	}
	return found
}

func attributes(s *tracepb.Span) map[string]string {
	found := make(map[string]string)
	for _, a := range s.GetAttributes() {
		found[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return found
}

// withTracing puts Caddy's tracing before the gateway.
func withTracing(g *testbed.Gateway, c *collector) {
	route := g.HTTPServer()["routes"].([]testbed.Object)[0]
	route["handle"] = append([]testbed.Object{{"handler": "tracing", "span": "gateway"}}, route["handle"].([]testbed.Object)...)
	g.Env = c.environment()
}

// With Caddy's tracing there are spans below that of a request, for the step of an exchange,
// each call of the store and each attempt at an instance. The instance gets the span of the
// attempt and nothing else of the client's trace. Spans have no value of a call, and the logs
// have the IDs of Caddy's span.
func TestTracing(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	var mu sync.Mutex
	var received []http.Header
	server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		received = append(received, r.Header.Clone())
		return false
	})
	c := startCollector(t)
	g := testbed.Configure(t, certs, server.URL, nil)
	trustLoopback(g)
	withTracing(g, c)
	g.Start(t)

	g.AwaitLog(t, `"the store is ready"`)

	const clientTrace, clientSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	client := sending(g, http.Header{
		requestIDHeader: {"traced-1"},
		"Traceparent":   {"00-" + clientTrace + "-" + clientSpan + "-01"},
		"Tracestate":    {"vendor=secret"}, "Baggage": {"user=jane.doe"},
	})
	registered := client.Register(t)
	activated, err := client.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
	require.NoError(t, err)
	attempts := len(received)
	server.Stop()
	failed := client.Post(t, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
	require.Contains(t, unreachable, failed.Status, failed.Body)

	for path, want := range map[string][]string{
		testbed.RegisterPath:       {"attempt PROVISIONCMD_MDL_REGISTER", "store create", "store reserve"},
		testbed.EphemeralKeyPath:   {"exchange ephemeral_key", "store load", "store put_handshake"},
		testbed.ActivationDataPath: {"exchange activation_data", "store settle", "store take"},
		testbed.AddDevicePath:      {"attempt PROVISIONCMD_MDL_ADD_DEVICE", "store keep", "store mark_device"},
		testbed.ActivatePath:       {"attempt PROVISIONCMD_MDL_ACTIVATE", "store keep_remove", "store mark_confirmation"},
		testbed.LoginPath:          {"attempt authUser"},
	} {
		poll.Until(t, "the spans of "+path, func() bool { return len(c.requests(path)) > 0 && len(c.requests(path)[0].children) >= len(want) })
		requests := c.requests(path)
		require.Len(t, requests, 1, path)
		r := requests[0]
		assert.Equal(t, clientTrace, hex.EncodeToString(r.span.GetTraceId()))
		assert.Equal(t, clientSpan, hex.EncodeToString(r.span.GetParentSpanId()))
		assert.Equal(t, want, slices.Sorted(maps.Keys(r.children)), path)
		for name, child := range r.children {
			assert.GreaterOrEqual(t, child.GetStartTimeUnixNano(), r.span.GetStartTimeUnixNano(), name)
			assert.GreaterOrEqual(t, child.GetEndTimeUnixNano(), child.GetStartTimeUnixNano(), name)
			assert.LessOrEqual(t, child.GetEndTimeUnixNano(), r.span.GetEndTimeUnixNano(), name)
			for attribute, value := range attributes(child) {
				assert.Contains(t, []string{"dsapp.instance", "dsapp.outcome", "dsapp.profile", "dsapp.queued"}, attribute, name)
				for _, secret := range []string{testbed.UserID, registered.Identifier, registered.Password, activated.Authenticator.SerialNumber, "mobile-app"} {
					assert.NotContains(t, value, secret, name)
				}
			}
			if path == testbed.LoginPath {
				assert.Equal(t, tracepb.Status_STATUS_CODE_ERROR, child.GetStatus().GetCode(), name)
				assert.Contains(t, []string{"not_sent", "no_answer"}, attributes(child)["dsapp.outcome"])
			} else {
				assert.Equal(t, tracepb.Status_STATUS_CODE_UNSET, child.GetStatus().GetCode(), name)
			}
			if strings.HasPrefix(name, "attempt ") {
				assert.Equal(t, tracepb.Span_SPAN_KIND_CLIENT, child.GetKind(), name)
				assert.Equal(t, "primary", attributes(child)["dsapp.instance"], name)
			}
		}
	}

	// What the instance got names the attempts, each once.
	require.Equal(t, 3, attempts)
	sent := make(map[string]bool)
	c.mu.Lock()
	for _, s := range c.spans {
		if strings.HasPrefix(s.GetName(), "attempt ") {
			sent[fmt.Sprintf("00-%x-%x-01", s.GetTraceId(), s.GetSpanId())] = true
		}
	}
	c.mu.Unlock()
	for _, header := range received {
		parents := header.Values("Traceparent")
		require.Len(t, parents, 1)
		assert.True(t, sent[parents[0]], parents[0])
		delete(sent, parents[0])
		for _, name := range []string{"Tracestate", "Baggage", requestIDHeader} {
			assert.Empty(t, header.Values(name), name)
		}
	}

	// The logs have the IDs of the span of the request.
	poll.Until(t, "the access log", func() bool { return len(loggedWith(t, g, "traced-1")[accessLog]) == 6 })
	spans := make(map[string]bool)
	for _, path := range []string{
		testbed.RegisterPath, testbed.EphemeralKeyPath, testbed.ActivationDataPath, testbed.AddDevicePath, testbed.ActivatePath, testbed.LoginPath,
	} {
		spans[hex.EncodeToString(c.requests(path)[0].span.GetSpanId())] = true
	}
	lines := loggedWith(t, g, "traced-1")
	for _, logger := range []string{accessLog, "dsapp", "dsapp.audit"} {
		require.NotEmpty(t, lines[logger], logger)
		for _, line := range lines[logger] {
			assert.Equal(t, clientTrace, line["traceID"], line)
			assert.True(t, spans[line["spanID"].(string)], line)
		}
	}
}

// Without Caddy's tracing, an instance gets nothing of a trace that the client sends.
func TestNoTraceWithoutTracing(t *testing.T) {
	t.Parallel()
	g, server := testbed.Start(t, nil)
	received := make(chan http.Header, 1)
	server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		received <- r.Header.Clone()
		return false
	})
	client := sending(g, http.Header{
		"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "Tracestate": {"a=b"}, "Baggage": {"a=b"},
	})
	client.Post(t, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
	header := poll.Receive(t, "the command", received)
	for _, name := range []string{"Traceparent", "Tracestate", "Baggage"} {
		assert.Empty(t, header.Values(name), name)
	}
}

// A client that is no trusted proxy cannot make its trace the one of the example: the header
// fields of a trace are removed before Caddy's tracing.
func TestExampleDropsTracesOfStrangers(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	c := startCollector(t)
	g := testbed.Configure(t, certs, testbed.StartServer(t, certs).URL, nil)
	trustLoopback(g)
	g.Env = c.environment()
	var example struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct{ Routes []testbed.Object }
			}
		}
	}
	content, err := os.ReadFile(filepath.Join("..", "..", "caddy.json.example"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(content, &example))
	g.HTTPServer()["routes"] = example.Apps.HTTP.Servers["gateway"].Routes
	g.Start(t)

	const clientTrace = "0af7651916cd43dd8448eb211c80319c"
	header := http.Header{"Traceparent": {"00-" + clientTrace + "-b7ad6b7169203331-01"}}
	ask := func(from *testbed.Gateway, number int) string {
		sending(from, header).Post(t, testbed.ServerTimePath, testbed.FrontEndKey, "")
		poll.Until(t, "the span", func() bool { return len(c.requests(testbed.ServerTimePath)) == number })
		return hex.EncodeToString(c.requests(testbed.ServerTimePath)[number-1].span.GetTraceId())
	}
	assert.Equal(t, clientTrace, ask(g, 1))
	assert.NotEqual(t, clientTrace, ask(g.From(t, "127.0.0.77"), 2))
}
