package caddymodule

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// A value that no key opens is logged with what to do about it; an identifier
// that exists is left to the audit event, which tells more.
func TestAlarms(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	l := &auditLog{logger: zap.New(core)}

	l.alarm(t.Context(), activation.EventExists, "e3wfISG9")
	assert.Zero(t, logs.Len())

	l.alarm(t.Context(), activation.EventUnopened, "e3wfISG9")
	l.alarm(t.Context(), activation.EventUnopened, "")
	entries := logs.TakeAll()
	require.Len(t, entries, 2)
	for _, e := range entries {
		assert.Equal(t, zapcore.ErrorLevel, e.Level)
		assert.Equal(t, activation.EventUnopened, e.Message)
		assert.Contains(t, e.ContextMap()["advice"], "sealing_keys")
	}
	assert.Equal(t, "e3wfISG9", entries[0].ContextMap()["registration"])
	assert.NotContains(t, entries[1].ContextMap(), "registration")
}
