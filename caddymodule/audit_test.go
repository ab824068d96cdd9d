package caddymodule

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// A value that no key opens is logged with what to do about it.
func TestAlarms(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zapcore.DebugLevel)
	l := &auditLog{logger: zap.New(core)}

	registration, request := l.alarm("registration"), l.alarm("request")
	registration(t.Context(), activation.EventUnopened, "e3wfISG9")
	registration(t.Context(), activation.EventUnopened, "")
	request(t.Context(), ownership.EventUnopened, "login")
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
}
