package authserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// Limits of what one record says about an error stack.
const (
	maxLoggedEntries = 16
	maxLoggedText    = 512 // bytes of one text of the server
)

// log writes what became of a command on one instance. That it is elsewhere is no
// news if expected says so.
func (s *Servers) log(ctx context.Context, to *instance, c *soap.Row, v verdict, err error, expected bool, took time.Duration) {
	where := []slog.Attr{slog.String("operation", c.String()), slog.String("instance", to.name)}
	called := append(slices.Clone(where), slog.Duration("duration", took))
	if v.answer != nil {
		called = append(called, slog.String("status", v.answer.Codes.StatusCodeEnum))
	}
	if failure, ok := errors.AsType[*CallError](err); ok {
		called = append(called, slog.Any("error", failure))
	}
	s.logger.LogAttrs(ctx, slog.LevelDebug, "authentication server called", called...)

	if v.unknown {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "outcome of the command is unknown", where...)
	}
	if fault, ok := errors.AsType[*soap.Fault](err); ok {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "authentication server answered with a Fault",
			append(slices.Clone(where), slog.String("code", fault.Code), slog.String("reason", short(fault.String)))...)
	}
	if v.answer == nil || len(v.answer.Stack) == 0 {
		return
	}
	level := slog.LevelInfo
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		switch {
		case refusal.BackendFault():
			level = slog.LevelWarn
		case v.elsewhere && expected:
			level = slog.LevelDebug
		}
	}
	if !s.logger.Enabled(ctx, level) {
		return
	}
	entries := make([]string, 0, min(len(v.answer.Stack), maxLoggedEntries))
	for _, e := range v.answer.Stack[:cap(entries)] {
		entries = append(entries, fmt.Sprintf("%d: %s", e.Code, short(e.Description)))
	}
	s.logger.LogAttrs(ctx, level, "error stack of the authentication server",
		append(slices.Clone(where), slog.String("status", v.answer.Codes.StatusCodeEnum), slog.Any("errors", entries))...)
}

// logGuess writes, once for each command, that the attribute of an activation message
// was guessed.
func (s *Servers) logGuess(ctx context.Context, to *instance, c *soap.Row, attribute string) {
	s.usage(c).guessed.Do(func() {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "activation message found in an attribute that is not configured",
			slog.String("operation", c.String()), slog.String("instance", to.name), slog.String("attribute", attribute))
	})
}

// short cuts a text to what a log needs.
func short(s string) string {
	if len(s) <= maxLoggedText {
		return s
	}
	n := maxLoggedText
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
