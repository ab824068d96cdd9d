package gateway

import (
	"context"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// UpdateNotificationIDRequest registers the push notification ID of a device.
type UpdateNotificationIDRequest struct {
	UserID       form.UserID
	Domain       form.Domain
	SerialNumber form.SerialNumber // of the device
	// NotificationID is a secure-channel message in hexadecimal digits, an even number.
	NotificationID form.NotificationID
}

// UpdateNotificationIDResult is empty.
type UpdateNotificationIDResult struct{}

// UpdateNotificationID forwards the push notification ID of a device. Only the
// authentication server can read it.
func (g *Gateway) UpdateNotificationID(ctx context.Context, c Caller, r UpdateNotificationIDRequest) (_ UpdateNotificationIDResult, err error) {
	defer func() { g.logFailure(ctx, OpUpdateNotificationID, err) }()
	_, instance, err := authserver.Call(ctx, g.servers, authserver.Target{}, soap.UpdateDevicePNID, soap.UpdateDevicePNIDRequest{
		UserID:       r.UserID,
		Domain:       r.Domain,
		SerialNumber: r.SerialNumber,
		DevicePNID:   form.NotificationID(strings.ToUpper(string(r.NotificationID))),
	})
	event := AuditEvent{Subject: form.Subject{UserID: string(r.UserID), Domain: string(r.Domain), SerialNumber: string(r.SerialNumber)}}
	if err != nil {
		event.Action, event.Instance = AuditNotificationIDRefused, instanceOf(err)
		return UpdateNotificationIDResult{}, g.auditRefusal(ctx, c, OpUpdateNotificationID, event, fromServer(err))
	}
	event.Action, event.Instance = AuditNotificationIDUpdated, instance
	g.audit(ctx, c, OpUpdateNotificationID, event)
	return UpdateNotificationIDResult{}, nil
}
