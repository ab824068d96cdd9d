package authserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of what one record says about an error stack.
const (
	maxLoggedEntries = 16
	maxLoggedText    = 512 // bytes of one text of the server
)

// log writes what became of a command on one instance. expected are the statuses
// of a refusal that is no news.
func (s *Servers) log(ctx context.Context, to *instance, c *command, got *answer, err error, expected []string, took time.Duration) {
	where := []slog.Attr{slog.String("operation", c.String()), slog.String("instance", to.name)}
	called := append(slices.Clone(where), slog.Duration("duration", took))
	if got != nil {
		called = append(called, slog.String("status", got.codes.StatusCodeEnum))
	}
	if failure, ok := errors.AsType[*CallError](err); ok {
		called = append(called, slog.Any("error", failure))
	}
	s.logger.LogAttrs(ctx, slog.LevelDebug, "authentication server called", called...)

	if outcomeUnknown(err) {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "outcome of the command is unknown", where...)
	}
	if fault, ok := errors.AsType[*Fault](err); ok {
		s.logger.LogAttrs(ctx, slog.LevelWarn, "authentication server answered with a Fault",
			append(slices.Clone(where), slog.String("code", fault.Code), slog.String("reason", short(fault.String)))...)
	}
	if got == nil || len(got.stack) == 0 {
		return
	}
	level := slog.LevelInfo
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		switch {
		case refusal.BackendFault():
			level = slog.LevelWarn
		case slices.Contains(expected, refusal.Codes.StatusCodeEnum):
			level = slog.LevelDebug
		}
	}
	if !s.logger.Enabled(ctx, level) {
		return
	}
	entries := make([]string, 0, min(len(got.stack), maxLoggedEntries))
	for _, e := range got.stack[:cap(entries)] {
		entries = append(entries, fmt.Sprintf("%d: %s", e.Code, short(e.Description)))
	}
	s.logger.LogAttrs(ctx, level, "error stack of the authentication server",
		append(slices.Clone(where), slog.String("status", got.codes.StatusCodeEnum), slog.Any("errors", entries))...)
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

// blot replaces the values of a command in a text of the server, which is free
// to repeat them.
func (c *command) blot(in values, text string) string {
	var sent []string
	for name, value := range in {
		if value != "" && name != c.componentField() {
			sent = append(sent, value)
		}
	}
	// A value that holds another goes first.
	slices.SortFunc(sent, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	pairs := make([]string, 0, 2*len(sent))
	for _, value := range sent {
		pairs = append(pairs, value, "[…]")
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
