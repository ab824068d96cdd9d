package authserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

const (
	maxLoggedEntries = 16  // of the error stack
	maxLoggedText    = 512 // bytes of one text of the server
)

// logAttempt logs an attempt at an instance. searching says that other instances are asked
// for the same pending request, so that it is normal if this one does not have it.
func (s *Servers) logAttempt(ctx context.Context, to *instance, c *soap.Row, r attemptResult, err error, searching bool, took time.Duration) {
	log := func(level slog.Level, message string, attributes ...slog.Attr) {
		where := []slog.Attr{slog.String("operation", c.String()), slog.String("instance", to.name)}
		s.logger.LogAttrs(ctx, level, message, append(where, attributes...)...)
	}
	// Most attempts log nothing, so nothing is made for it.
	if s.logger.Enabled(ctx, slog.LevelDebug) {
		called := []slog.Attr{slog.Duration("duration", took)}
		if r.answer != nil {
			called = append(called, slog.String("status", r.answer.Codes.StatusCodeEnum))
		}
		if failure, ok := errors.AsType[*CallError](err); ok {
			called = append(called, slog.Any("error", failure))
		}
		log(slog.LevelDebug, "authentication server called", called...)
	}
	if r.unknown {
		log(slog.LevelWarn, "outcome of the command is unknown")
	}
	if fault, ok := errors.AsType[*soap.Fault](err); ok {
		log(slog.LevelWarn, "authentication server answered with a Fault", slog.String("code", fault.Code), slog.String("reason", truncate(fault.String)))
	}
	if r.answer == nil || len(r.answer.Stack) == 0 {
		return
	}
	level := slog.LevelInfo
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		switch {
		case refusal.BackendFault():
			level = slog.LevelWarn
		case r.notHere && searching:
			level = slog.LevelDebug
		}
	}
	if !s.logger.Enabled(ctx, level) {
		return
	}
	entries := make([]string, 0, min(len(r.answer.Stack), maxLoggedEntries))
	for _, e := range r.answer.Stack[:cap(entries)] {
		entries = append(entries, fmt.Sprintf("%d: %s", e.Code, truncate(e.Description)))
	}
	log(level, "error stack of the authentication server", slog.String("status", r.answer.Codes.StatusCodeEnum), slog.Any("errors", entries))
}

// logGuess logs, once for each command, that an attribute was taken for an activation
// message.
func (s *Servers) logGuess(ctx context.Context, to *instance, c *soap.Row, attribute string) {
	s.stateOf(c).guessLogged.Do(func() {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "activation message found in an attribute that is not configured",
			slog.String("operation", c.String()), slog.String("instance", to.name), slog.String("attribute", attribute))
	})
}

// truncate limits a text to maxLoggedText bytes.
func truncate(s string) string {
	if len(s) <= maxLoggedText {
		return s
	}
	n := maxLoggedText
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
