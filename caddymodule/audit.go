package caddymodule

import (
	"context"

	"go.uber.org/zap"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// auditLog writes audit events to the log. Of everything else that a gateway
// reports, the library logs what needs attention.
type auditLog struct {
	logger *zap.Logger
}

// Audit logs one line.
func (l *auditLog) Audit(_ context.Context, e gateway.AuditEvent) {
	fields := make([]zap.Field, 0, 7)
	for _, f := range []struct{ name, value string }{
		{"operation", string(e.Operation)},
		{"application", e.Application},
		{"registration", e.Registration},
		{"user_id", e.UserID},
		{"domain", e.Domain},
		{"serial_number", e.SerialNumber},
		{"instance", e.Instance},
	} {
		if f.value != "" {
			fields = append(fields, zap.String(f.name, f.value))
		}
	}
	l.logger.Info(string(e.Action), fields...)
}

// alarm logs what an operator has to look into.
func (l *auditLog) alarm(_ context.Context, event, identifier string) {
	l.logger.Error(event, zap.String("registration", identifier))
}

// Operation does nothing.
func (*auditLog) Operation(context.Context, gateway.OperationEvent) {}

// Exchange does nothing.
func (*auditLog) Exchange(context.Context, gateway.ExchangeEvent) {}

// InstanceCall does nothing.
func (*auditLog) InstanceCall(ctx context.Context, _ gateway.Command) (context.Context, func(gateway.InstanceOutcome)) {
	return ctx, func(gateway.InstanceOutcome) {}
}

// StoreTrouble does nothing.
func (*auditLog) StoreTrouble(context.Context, gateway.StoreTrouble) {}

var _ gateway.Observer = (*auditLog)(nil)
