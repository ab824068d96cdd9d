package caddymodule

import (
	"context"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// auditLog writes audit events and alarms to the log `dsapp.audit`, and decisions about
// ownership to the access log. It counts events and decisions, and emits what operators hook.
type auditLog struct {
	logger *zap.Logger
}

// Audit logs an audit event with the client's address and the IDs of the request.
func (l *auditLog) Audit(ctx context.Context, e gateway.AuditEvent) {
	metrics.audit(e)
	if e.Action == gateway.AuditRegistrationBurned {
		emitEvent(ctx, string(e.Action), text{"registration", string(e.Registration)}, text{"application", e.Application})
	}
	line := l.logger.Check(auditLevel(e.Action), string(e.Action))
	if line == nil {
		return
	}
	address, _ := caddyhttp.GetVar(ctx, caddyhttp.ClientIPVarKey).(string)
	line.Write(appendTexts(correlationOf(ctx).logFields(),
		text{"operation", string(e.Operation)},
		text{"application", e.Application},
		text{"client_ip", address},
		text{"registration", string(e.Registration)},
		text{"user_id", e.UserID},
		text{"domain", e.Domain},
		text{"serial_number", e.SerialNumber},
		text{"instance", e.Instance},
		text{"profile", e.Profile},
		text{"status", e.Status})...)
}

// auditLevel returns WARN for events that an operator should look into, otherwise INFO.
func auditLevel(a gateway.AuditAction) zapcore.Level {
	switch a {
	case gateway.AuditExchangeContended, gateway.AuditRegistrationBurned, gateway.AuditRegistrationLost, gateway.AuditRequestLost,
		gateway.AuditIdentifierExists:
		return zapcore.WarnLevel
	default:
		return zapcore.InfoLevel
	}
}

// The advice for the two kinds of alarms: a stored value that no key decrypts, and one that
// no gateway has written.
const (
	adviceUnopened = "the store holds a value that was sealed with another key: add the key that sealed it to sealing_keys, " +
		"or restore the key file of the embedded store; if the key is lost, empty the store"
	adviceDamaged = "the store holds a registration or handshake that no gateway of this version writes: find out who else can write to the store, " +
		"and check its memory and disk; calls that need this value are answered with status 503 until its lifetime is over"
)

// Alarm logs, counts and emits a problem with a stored value. The log says what to do about it.
func (l *auditLog) Alarm(ctx context.Context, a seal.Alarm) {
	metrics.alarm(a.Event)
	what := []text{{"registration", a.Registration}, {"request", a.Request}}
	emitEvent(ctx, string(a.Event), what...)
	advice := adviceUnopened
	if a.Event == seal.EventDamaged {
		advice = adviceDamaged
	}
	fields := appendTexts(correlationOf(ctx).logFields(), text{"advice", advice})
	l.logger.Error(string(a.Event), appendTexts(fields, what...)...)
}

// Ownership adds the decision about the ownership of a request to the access log.
func (*auditLog) Ownership(ctx context.Context, e gateway.OwnershipEvent) {
	metrics.decision(e)
	if c := correlationOf(ctx); c != nil {
		c.access.ownership = string(e.Verdict)
	}
}
