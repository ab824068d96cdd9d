package caddymodule

import (
	"context"
	"log/slog"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
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

// text is a log field with a text.
type text struct{ name, value string }

// appendTexts appends log fields with the texts that are not empty.
func appendTexts(fields []zap.Field, texts ...text) []zap.Field {
	for _, t := range texts {
		if t.value != "" {
			fields = append(fields, zap.String(t.name, t.value))
		}
	}
	return fields
}

// accessFields are what the access log says about a request beyond Caddy's own fields and the
// ID of the request.
type accessFields struct {
	service, status, limit, ownership string
}

// MarshalLogObject adds the fields of the access log. They are one field to Caddy, which is
// written when the line is, because a field of its own for each makes the list of fields grow
// several times for every request.
func (c *correlation) MarshalLogObject(to zapcore.ObjectEncoder) error {
	for _, t := range []text{
		{requestIDField, c.requestID},
		{"dsapp_service", c.access.service},
		{"dsapp_status", c.access.status},
		{"dsapp_limit", c.access.limit},
		{"dsapp_ownership", c.access.ownership},
	} {
		if t.value != "" {
			to.AddString(t.name, t.value)
		}
	}
	return nil
}

var (
	_ slog.Handler            = noStackTraceHandler{}
	_ zapcore.ObjectMarshaler = (*correlation)(nil)
)
