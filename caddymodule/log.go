package caddymodule

import (
	"context"
	"log/slog"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// newLogger returns the logger that Caddy has for the module that is being
// provisioned, without its stack traces.
func newLogger(ctx caddy.Context) *slog.Logger {
	return slog.New(tracelessHandler{ctx.Slogger().Handler()})
}

// tracelessHandler keeps Caddy from adding a stack trace to errors that are logged
// with the context of a request: Caddy does that with the request's extra fields,
// and without them it does not. An error has the trace's and the span's IDs of
// them only, everything else has them all.
type tracelessHandler struct{ slog.Handler }

// Handle logs one line.
func (h tracelessHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelError {
		return h.Handler.Handle(ctx, r)
	}
	r = r.Clone()
	for _, f := range []struct{ variable, name string }{{"trace_id", "traceID"}, {"span_id", "spanID"}} {
		if id, ok := caddyhttp.GetVar(ctx, f.variable).(string); ok {
			r.AddAttrs(slog.String(f.name, id))
		}
	}
	return h.Handler.Handle(context.WithValue(ctx, caddyhttp.ExtraLogFieldsCtxKey, nil), r)
}

// WithAttrs returns a handler that adds attributes to every line.
func (h tracelessHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return tracelessHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup returns a handler that puts what follows into a group.
func (h tracelessHandler) WithGroup(name string) slog.Handler {
	return tracelessHandler{h.Handler.WithGroup(name)}
}

var _ slog.Handler = tracelessHandler{}
