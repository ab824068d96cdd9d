package caddymodule

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

// tracedRequest returns a request below a span that is recorded, and the recorder of its
// spans.
func tracedRequest(t *testing.T) (*http.Request, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	r := request(timePath, testFrontEndKey, "192.0.2.1")
	ctx, span := provider.Tracer("caddy").Start(r.Context(), "gateway")
	t.Cleanup(func() { span.End() })
	r, _ = correlate(httptest.NewRecorder(), r.WithContext(ctx))
	return r, recorder
}

// Each event becomes a span with its times, names and outcome. What went wrong marks the span,
// a refusal does not.
func TestSpansOfEvents(t *testing.T) {
	t.Parallel()
	start := time.Now().Add(-time.Second)
	for _, c := range []struct {
		record func(context.Context)
		name   string
		want   string
		failed bool
	}{
		{step(start, activation.StepProven), "exchange activation_data", "proven", false},
		{step(start, activation.StepRefused), "exchange activation_data", "refused", false},
		{step(start, activation.StepUnavailable), "exchange activation_data", "unavailable", true},
		{step(start, activation.StepFailed), "exchange activation_data", "failed", true},
		{storeCall(start, activation.StoreOK), "store take", "ok", false},
		{storeCall(start, activation.StoreRefused), "store take", "refused", false},
		{storeCall(start, activation.StoreUnavailable), "store take", "unavailable", true},
		{storeCall(start, activation.StoreError), "store take", "error", true},
		{unsent(start, authserver.AttemptBreakerOpen), "attempt authUser", "breaker_open", true},
		{unsent(start, authserver.AttemptQueueFull), "attempt authUser", "queue_full", true},
	} {
		t.Run(c.name+" "+c.want, func(t *testing.T) {
			t.Parallel()
			r, recorder := tracedRequest(t)
			c.record(r.Context())
			spans := recorder.Ended()
			require.Len(t, spans, 1)
			assert.Equal(t, c.name, spans[0].Name())
			assert.Equal(t, recorder.Started()[0].SpanContext().SpanID(), spans[0].Parent().SpanID())
			assert.WithinDuration(t, start, spans[0].StartTime(), 0)
			assert.WithinDuration(t, start.Add(time.Millisecond), spans[0].EndTime(), 0)
			assert.Contains(t, spans[0].Attributes(), outcomeAttribute.String(c.want))
			want := sdktrace.Status{}
			if c.failed {
				want = sdktrace.Status{Code: codes.Error, Description: c.want}
			}
			assert.Equal(t, want, spans[0].Status())
		})
	}
}

func step(start time.Time, o activation.StepOutcome) func(context.Context) {
	return func(ctx context.Context) {
		traceStep(ctx, activation.StepEvent{Step: activation.StepActivationData, Outcome: o, Start: start, Duration: time.Millisecond})
	}
}

func storeCall(start time.Time, o activation.StoreOutcome) func(context.Context) {
	return func(ctx context.Context) {
		traceStoreCall(ctx, activation.StoreCall{Call: "take", Outcome: o, Start: start, Duration: time.Millisecond})
	}
}

func unsent(start time.Time, o authserver.AttemptOutcome) func(context.Context) {
	return func(ctx context.Context) {
		traceAttempt(ctx, authserver.Attempt{Instance: "primary", Command: "authUser", Outcome: o, Start: start, Duration: time.Millisecond})
	}
}

// Each attempt of a failover has a span of its own, and each instance gets that of its attempt
// and no header of another trace. The header that is passed is left as it is.
func TestSpansOfAFailover(t *testing.T) {
	t.Parallel()
	received := make(chan http.Header, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { received <- r.Header }))
	t.Cleanup(server.Close)
	r, recorder := tracedRequest(t)

	send := func(url, instance string, outcome authserver.AttemptOutcome) {
		start := time.Now()
		header := http.Header{}
		transport := tracedTransport{testClient(t, url, server.Client().Transport.(*http.Transport).TLSClientConfig)}
		resp, err := transport.Post(r.Context(), header, nil)
		if err == nil {
			require.NoError(t, resp.Body.Close())
		}
		assert.Equal(t, outcome == authserver.AttemptNotSent, err != nil)
		assert.Empty(t, header)
		traceAttempt(r.Context(), authserver.Attempt{Instance: instance, Command: "authUser", Outcome: outcome, Start: start, Duration: time.Since(start)})
	}
	send("https://127.0.0.1:1/", "primary", authserver.AttemptNotSent)
	send(server.URL, "backup", authserver.AttemptSuccess)

	spans := recorder.Ended()
	require.Len(t, spans, 2)
	for i, instance := range []string{"primary", "backup"} {
		assert.Equal(t, "attempt authUser", spans[i].Name())
		assert.Contains(t, spans[i].Attributes(), instanceAttribute.String(instance))
	}
	assert.Equal(t, codes.Error, spans[0].Status().Code)
	assert.Equal(t, codes.Unset, spans[1].Status().Code)
	header := <-received
	s := spans[1].SpanContext()
	assert.Equal(t, []string{"00-" + s.TraceID().String() + "-" + s.SpanID().String() + "-01"}, header.Values("Traceparent"))
	assert.NotEqual(t, spans[0].SpanContext().SpanID(), s.SpanID())
}

// Without a span that is recorded, an instance gets the request itself, and events record
// nothing and allocate nothing.
func TestNoSpans(t *testing.T) { //nolint:paralleltest // AllocsPerRun does not allow it
	provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))
	plain := request(timePath, testFrontEndKey, "192.0.2.1")
	unsampled, span := provider.Tracer("caddy").Start(plain.Context(), "gateway")
	defer span.End()
	for _, r := range []*http.Request{plain, plain.WithContext(unsampled)} {
		r, c := correlate(httptest.NewRecorder(), r)
		assert.Nil(t, c.tracer)
		for _, record := range []func(context.Context){
			step(time.Now(), activation.StepProven), storeCall(time.Now(), activation.StoreOK), unsent(time.Now(), authserver.AttemptNotSent),
		} {
			assert.Zero(t, testing.AllocsPerRun(100, func() { record(r.Context()) }))
		}
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Received", r.Header.Get("Traceparent"))
		}))
		transport := tracedTransport{testClient(t, server.URL, server.Client().Transport.(*http.Transport).TLSClientConfig)}
		resp, err := transport.Post(r.Context(), nil, nil)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Empty(t, resp.Header.Get("X-Received"))
		transport.CloseIdleConnections()
		server.Close()
	}
}

// noExport takes spans as an exporter does, and drops them.
type noExport struct{}

func (noExport) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (noExport) Shutdown(context.Context) error                             { return nil }

// BenchmarkCorrelate measures what the ID of a request costs.
func BenchmarkCorrelate(b *testing.B) {
	b.ReportAllocs()
	w := httptest.NewRecorder()
	requests := make([]*http.Request, 512)
	for i := 0; b.Loop(); i++ {
		if i%len(requests) == 0 {
			b.StopTimer()
			for i := range requests {
				requests[i] = request(timePath, testFrontEndKey, "192.0.2.1")
			}
			b.StartTimer()
		}
		correlate(w, requests[i%len(requests)])
	}
}

// BenchmarkForward measures a call that is forwarded to an authentication server, with and
// without tracing. The time of the processor includes that of the server.
func BenchmarkForward(b *testing.B) {
	certificates := testCertificates(b)
	pair, err := tls.LoadX509KeyPair(certificates.Certificate, certificates.Key)
	require.NoError(b, err)
	server := httptest.NewUnstartedServer(sandbox.New(sandbox.Options{}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	b.Cleanup(server.Close)
	c := gatewayConfig(b)
	in(c, "authentication_servers")["instances"] = []object{{"name": "primary", "url": strings.Replace(server.URL, "127.0.0.1", "localhost", 1)}}
	in(c, "authentication_servers")["tls"] = object{"ca": object{"provider": "file", "pem_files": []string{certificates.Authority}}}
	c["limits"] = object{"calls_per_minute": 0}
	h := provisioned(b, c)
	b.Cleanup(func() { h.app.AuthenticationServers.close() })

	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(noExport{}))
	b.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	for _, traced := range []bool{false, true} {
		name := map[bool]string{false: "untraced", true: "traced"}[traced]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := processorTime()
			for b.Loop() {
				r := request("/rest/v2/authentication/authUser", testFrontEndKey, "192.0.2.1")
				body := `{"userID":"nobody","domain":"mydomain.com","password":"123456"}`
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
				end := func() {}
				if traced {
					ctx, span := provider.Tracer("caddy").Start(r.Context(), "gateway")
					r, end = r.WithContext(ctx), func() { span.End() }
				}
				w := httptest.NewRecorder()
				if err := h.ServeHTTP(w, r, unreachable); err != nil || w.Code != http.StatusOK {
					b.Fatal(errors.Join(err, errors.New(w.Body.String())))
				}
				end()
			}
			b.ReportMetric(float64(processorTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// processorTime returns the time that this process has used the processor.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
