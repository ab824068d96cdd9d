package caddymodule

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

const (
	requestIDHeader = "X-Request-Id"
	requestIDField  = "request_id"

	// maxRequestID is the greatest length of the ID of a trusted proxy.
	maxRequestID = 64

	// maxLogFields is the number of fields that a log line about a request has at most.
	maxLogFields = 12
)

// correlation is what the log lines and spans of one request have in common. Its IDs do not
// change, so that work that outlives the request can log them, too.
type correlation struct {
	requestID string
	// traceID and spanID are those of Caddy's span; empty without one.
	traceID, spanID string
	// tracer makes the spans below Caddy's; nil if they are not recorded.
	tracer trace.Tracer
	// attempt is the span of the attempt at an instance that is under way, and attemptSent
	// its begin. A request makes its attempts one after the other.
	attempt     trace.Span
	attemptSent time.Time

	access accessFields
}

type correlationKey struct{}

// correlate determines the ID of a request, puts it into the answer and the access log, and
// returns the request with a context that has its correlation.
func correlate(w http.ResponseWriter, r *http.Request) (*http.Request, *correlation) {
	ctx := r.Context()
	c := &correlation{requestID: requestID(r)}
	c.traceID, _ = caddyhttp.GetVar(ctx, "trace_id").(string)
	c.spanID, _ = caddyhttp.GetVar(ctx, "span_id").(string)
	c.setTracer(ctx)
	w.Header()[requestIDHeader] = []string{c.requestID}
	if extra, ok := ctx.Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Add(zap.Inline(c))
	}
	return r.WithContext(context.WithValue(ctx, correlationKey{}, c)), c
}

// requestID returns the ID that a trusted proxy sent with a request, else the one that Caddy
// has for it.
func requestID(r *http.Request) string {
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if sent := r.Header[requestIDHeader]; len(sent) == 1 && validRequestID(sent[0]) {
			return sent[0]
		}
	}
	id, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).GetString("http.request.uuid")
	return id
}

func validRequestID(id string) bool {
	return id != "" && len(id) <= maxRequestID && !strings.ContainsFunc(id, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
	})
}

// correlationOf returns the correlation of the request that a context belongs to, or nil if
// it belongs to none.
func correlationOf(ctx context.Context) *correlation {
	c, _ := ctx.Value(correlationKey{}).(*correlation)
	return c
}

// logFields returns the fields that every log line of the request has. A nil correlation has
// none.
func (c *correlation) logFields() []zap.Field {
	if c == nil {
		return nil
	}
	fields := make([]zap.Field, 0, maxLogFields)
	return appendTexts(fields, text{requestIDField, c.requestID}, text{"traceID", c.traceID}, text{"spanID", c.spanID})
}

// passedOn is the answer to a request that another handler answers. It keeps the ID of the
// request, also if that handler, as a reverse proxy does, adds the header of another server.
type passedOn struct {
	caddyhttp.ResponseWriterWrapper

	id string
}

// WriteHeader implements http.ResponseWriter.
func (w *passedOn) WriteHeader(status int) {
	w.Header()[requestIDHeader] = []string{w.id}
	w.ResponseWriterWrapper.WriteHeader(status)
}

var _ http.ResponseWriter = (*passedOn)(nil)
