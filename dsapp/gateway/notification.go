package gateway

import (
	"context"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
)

// UpdateNotificationIDRequest registers the push notification ID of a device.
type UpdateNotificationIDRequest struct {
	UserID       string
	Domain       string
	SerialNumber string // of the device
	// NotificationID is a secure-channel message: an even number of hex digits.
	NotificationID string
}

// UpdateNotificationIDResult is empty.
type UpdateNotificationIDResult struct{}

// UpdateNotificationID forwards the push notification ID of a device. Only the
// authentication server can read it.
func (g *Gateway) UpdateNotificationID(ctx context.Context, c Caller, r UpdateNotificationIDRequest) (UpdateNotificationIDResult, error) {
	return observed(ctx, g, OpUpdateNotificationID, func() (UpdateNotificationIDResult, error) {
		if err := checkUser(r.UserID, r.Domain); err != nil {
			return UpdateNotificationIDResult{}, err
		}
		if err := checkSerialNumber(r.SerialNumber); err != nil {
			return UpdateNotificationIDResult{}, err
		}
		if err := checkNotificationID(r.NotificationID); err != nil {
			return UpdateNotificationIDResult{}, err
		}
		_, instance, err := authserver.Call(ctx, g.servers, authserver.Target{}, soap.UpdateDevicePNID, soap.UpdateDevicePNIDRequest{
			UserID:       r.UserID,
			Domain:       r.Domain,
			SerialNumber: r.SerialNumber,
			DevicePNID:   strings.ToUpper(r.NotificationID),
		})
		event := AuditEvent{UserID: r.UserID, Domain: r.Domain, SerialNumber: r.SerialNumber}
		if err != nil {
			event.Action, event.Instance = AuditNotificationIDRefused, instanceOf(err)
			return UpdateNotificationIDResult{}, g.auditRefusal(ctx, c, OpUpdateNotificationID, event, serverError(err))
		}
		event.Action, event.Instance = AuditNotificationIDUpdated, instance
		g.audit(ctx, c, OpUpdateNotificationID, event)
		return UpdateNotificationIDResult{}, nil
	})
}
