package caddymodule

import (
	"context"
	"log/slog"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
)

// newLogger returns Caddy's logger for the module that is being provisioned. It logs
// errors without stack traces.
func newLogger(ctx caddy.Context) *slog.Logger {
	return slog.New(noStackTraceHandler{ctx.Slogger().Handler()})
}

// noStackTraceHandler removes the extra log fields of a request from the context of
// errors. Caddy adds a stack trace to an error whose context has these fields, and to
// no other. Of the fields, an error keeps only those of the request's correlation.
// Messages of lower levels keep all fields, which include these.
type noStackTraceHandler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h noStackTraceHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelError {
		return h.Handler.Handle(ctx, r)
	}
	r = r.Clone()
	for _, f := range correlationOf(ctx).logFields() {
		r.AddAttrs(slog.String(f.Key, f.String))
	}
	return h.Handler.Handle(context.WithValue(ctx, caddyhttp.ExtraLogFieldsCtxKey, nil), r)
}

// WithAttrs implements slog.Handler.
func (h noStackTraceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return noStackTraceHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h noStackTraceHandler) WithGroup(name string) slog.Handler {
	return noStackTraceHandler{h.Handler.WithGroup(name)}
}

// setLogFields adds the service, the result and an exceeded limit to the access log.
func setLogFields(r *http.Request, o restapi.Observation) {
	extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields)
	if !ok {
		return
	}
	if o.Service != "" {
		extra.Set(zap.String("dsapp_service", o.Service))
	}
	if o.Status != "" {
		extra.Set(zap.String("dsapp_status", o.Status))
	}
	if o.Limit != "" {
		extra.Set(zap.String("dsapp_limit", string(o.Limit)))
	}
}

var _ slog.Handler = noStackTraceHandler{}
