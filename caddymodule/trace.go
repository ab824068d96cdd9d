package caddymodule

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/httpclient"
)

// tracerName names the spans of this package as the work of this module.
const tracerName = "github.com/dsapp-gateway/dsapp-gateway/caddymodule"

// The attributes of spans. Their values are names from the configuration and from fixed
// sets: no span says whose call it belongs to.
const (
	instanceAttribute = attribute.Key("dsapp.instance")
	outcomeAttribute  = attribute.Key("dsapp.outcome")
	// profileAttribute is the name of the profile of an exchange.
	profileAttribute = attribute.Key("dsapp.profile")
	// queuedAttribute is the time in seconds that a command waited before it was sent.
	queuedAttribute = attribute.Key("dsapp.queued")
)

// setTracer has the request record spans below Caddy's span, if there is one that is
// recorded.
func (c *correlation) setTracer(ctx context.Context) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		c.tracer = span.TracerProvider().Tracer(tracerName)
	}
}

// traced returns the correlation of the request that a context belongs to, or nil if it
// records no spans.
func traced(ctx context.Context) *correlation {
	if c := correlationOf(ctx); c != nil && c.tracer != nil {
		return c
	}
	return nil
}

// both returns a function that tells two others what happens.
func both[E any](first, second func(context.Context, E)) func(context.Context, E) {
	return func(ctx context.Context, e E) {
		first(ctx, e)
		second(ctx, e)
	}
}

// traceStep records the span of a call of an exchange, after its end.
func traceStep(ctx context.Context, e activation.StepEvent) {
	if c := traced(ctx); c != nil {
		span := c.pastSpan(ctx, "exchange "+string(e.Step), e.Start)
		failed := e.Outcome == activation.StepUnavailable || e.Outcome == activation.StepFailed
		span.SetAttributes(profileAttribute.String(e.Profile))
		endSpan(span, string(e.Outcome), failed, e.Start.Add(e.Duration))
	}
}

// traceStoreCall records the span of a call of the store, after its end.
func traceStoreCall(ctx context.Context, e activation.StoreCall) {
	if c := traced(ctx); c != nil {
		span := c.pastSpan(ctx, "store "+e.Call, e.Start)
		failed := e.Outcome == activation.StoreUnavailable || e.Outcome == activation.StoreError
		endSpan(span, string(e.Outcome), failed, e.Start.Add(e.Duration))
	}
}

// traceAttempt ends the span of an attempt at an instance. If the command did not get as far
// as tracedTransport, which begins the span, it records one.
func traceAttempt(ctx context.Context, e authserver.Attempt) {
	c := traced(ctx)
	if c == nil {
		return
	}
	span, end := c.attempt, e.Start.Add(e.Duration)
	if span == nil {
		span = c.pastSpan(ctx, "attempt", e.Start)
	} else {
		span.SetAttributes(queuedAttribute.Float64(c.attemptSent.Sub(e.Start).Seconds()))
	}
	c.attempt = nil
	span.SetName("attempt " + e.Command)
	span.SetAttributes(instanceAttribute.String(e.Instance))
	switch e.Outcome {
	case authserver.AttemptSuccess, authserver.AttemptRefused, authserver.AttemptNotHere:
		endSpan(span, string(e.Outcome), false, end)
	default:
		endSpan(span, string(e.Outcome), true, end)
	}
}

// pastSpan returns a span that began at start.
func (c *correlation) pastSpan(ctx context.Context, name string, start time.Time) trace.Span {
	_, span := c.tracer.Start(ctx, name, trace.WithTimestamp(start))
	return span
}

func endSpan(span trace.Span, outcome string, failed bool, end time.Time) {
	span.SetAttributes(outcomeAttribute.String(outcome))
	if failed {
		span.SetStatus(codes.Error, outcome)
	}
	span.End(trace.WithTimestamp(end))
}

// tracedTransport is the transport of an instance. For a call that records spans, it
// begins the span of the attempt and tells the instance that span and no other: the headers
// with which the client's trace came are not passed on. traceAttempt ends the span, because
// only then it is known what came of the attempt.
type tracedTransport struct{ *httpclient.Client }

// Post implements authserver.Transport.
func (t tracedTransport) Post(ctx context.Context, header http.Header, command []byte) (*http.Response, error) {
	if c := traced(ctx); c != nil {
		c.attemptSent = time.Now()
		_, c.attempt = c.tracer.Start(ctx, "attempt", trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(c.attemptSent))
		header = header.Clone()
		header["Traceparent"] = []string{traceparent(c.attempt.SpanContext())}
	}
	return t.Client.Post(ctx, header, command)
}

// traceparent returns the header of W3C Trace Context for a span.
func traceparent(s trace.SpanContext) string {
	return "00-" + s.TraceID().String() + "-" + s.SpanID().String() + "-" + (s.TraceFlags() & trace.FlagsSampled).String()
}

var _ authserver.Transport = tracedTransport{}
