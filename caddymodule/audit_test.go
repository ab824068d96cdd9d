package caddymodule

import (
	"context"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Audit events have the client's address. Events that an operator should look into are
// warnings.
func TestAuditLines(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	l := &auditLog{logger: zap.New(core)}

	ctx := context.WithValue(t.Context(), caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: "192.0.2.7"})
	for action, level := range map[gateway.AuditAction]zapcore.Level{
		gateway.AuditActivated:          zapcore.InfoLevel,
		gateway.AuditProofRefused:       zapcore.InfoLevel,
		gateway.AuditExchangeContended:  zapcore.WarnLevel,
		gateway.AuditRegistrationBurned: zapcore.WarnLevel,
		gateway.AuditRegistrationLost:   zapcore.WarnLevel,
		gateway.AuditRequestLost:        zapcore.WarnLevel,
		gateway.AuditIdentifierExists:   zapcore.WarnLevel,
	} {
		l.Audit(ctx, gateway.AuditEvent{Action: action, Application: "phones"})
		l.Audit(t.Context(), gateway.AuditEvent{Action: action})
		entries := logs.TakeAll()
		require.Len(t, entries, 2)
		assert.Equal(t, level, entries[0].Level, action)
		assert.Equal(t, string(action), entries[0].Message)
		assert.Equal(t, map[string]any{"application": "phones", "client_ip": "192.0.2.7"}, entries[0].ContextMap())
		assert.Empty(t, entries[1].ContextMap())
	}
}

// Values that no key decrypts, and values that no gateway has written, are logged as errors
// with advice.
func TestAlarms(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	l := &auditLog{logger: zap.New(core)}

	l.Alarm(t.Context(), seal.Alarm{Event: seal.EventUnopened, Registration: "e3wfISG9"})
	l.Alarm(t.Context(), seal.Alarm{Event: seal.EventUnopened})
	l.Alarm(t.Context(), seal.Alarm{Event: seal.EventUnopened, Request: "login"})
	entries := logs.TakeAll()
	require.Len(t, entries, 3)
	for _, e := range entries {
		assert.Equal(t, zapcore.ErrorLevel, e.Level)
		assert.Equal(t, "record_unopened", e.Message)
		assert.Contains(t, e.ContextMap()["advice"], "sealing_keys")
	}
	assert.Equal(t, "e3wfISG9", entries[0].ContextMap()["registration"])
	assert.NotContains(t, entries[1].ContextMap(), "registration")
	assert.Equal(t, "login", entries[2].ContextMap()["request"])

	l.Alarm(t.Context(), seal.Alarm{Event: seal.EventDamaged, Registration: "e3wfISG9"})
	entries = logs.TakeAll()
	require.Len(t, entries, 1)
	assert.Equal(t, zapcore.ErrorLevel, entries[0].Level)
	assert.Equal(t, "record_damaged", entries[0].Message)
	assert.Contains(t, entries[0].ContextMap()["advice"], "find out who else can write")
	assert.Equal(t, "e3wfISG9", entries[0].ContextMap()["registration"])
}
