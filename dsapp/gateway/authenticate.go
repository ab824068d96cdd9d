package gateway

import (
	"cmp"
	"context"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// AuthenticateRequest verifies a one-time password.
type AuthenticateRequest struct {
	UserID form.UserID
	Domain form.Domain // optional
	// Password is the one-time password.
	Password form.Password
}

// AuthenticatedResult says which user was authenticated with which device. Members
// that the authentication server did not give are empty.
type AuthenticatedResult struct {
	UserID       string
	Domain       string
	OrgUnit      string
	SerialNumber string // of the device
}

// Authenticate has an authentication server verify a one-time password.
func (g *Gateway) Authenticate(ctx context.Context, c Caller, r AuthenticateRequest) (_ AuthenticatedResult, err error) {
	defer func() { g.logFailure(ctx, OpAuthenticate, err) }()
	a, instance, err := authserver.Call(ctx, g.servers, authserver.Target{}, soap.AuthUser,
		soap.AuthUserRequest{UserID: r.UserID, Domain: r.Domain, Password: string(r.Password)})
	if err != nil {
		event := authenticatedEvent(AuditAuthenticationRefused, r.UserID, r.Domain, soap.Authenticated{}, instanceOf(err))
		return AuthenticatedResult{}, g.auditRefusal(ctx, c, OpAuthenticate, event, g.loginError(err, false))
	}
	g.audit(ctx, c, OpAuthenticate, authenticatedEvent(AuditAuthenticated, r.UserID, r.Domain, a, instance))
	return authenticated(a), nil
}

func authenticated(a soap.Authenticated) AuthenticatedResult {
	return AuthenticatedResult{UserID: a.UserID, Domain: a.Domain, OrgUnit: a.OrgUnit, SerialNumber: a.SerialNumber}
}

// authenticatedEvent returns an event with the user and domain of the server's answer,
// or else those of the request.
func authenticatedEvent(action AuditAction, userID form.UserID, domain form.Domain, a soap.Authenticated, instance string) AuditEvent {
	return AuditEvent{
		Action: action,
		Subject: form.Subject{
			UserID: cmp.Or(a.UserID, string(userID)), Domain: cmp.Or(a.Domain, string(domain)), SerialNumber: a.SerialNumber, Instance: instance,
		},
	}
}
