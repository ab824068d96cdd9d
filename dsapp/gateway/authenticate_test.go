package gateway

import (
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// For a one-time password no request is looked up, and the policy chooses the instance.
func TestAuthenticate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		told         soap.Authenticated
		want         AuthenticatedResult
		user, domain string
	}{
		{
			soap.Authenticated{UserID: "JANE.DOE", Domain: "MYDOMAIN.COM", OrgUnit: "sales", SerialNumber: "VDS1000003-1"},
			AuthenticatedResult{UserID: "JANE.DOE", Domain: "MYDOMAIN.COM", OrgUnit: "sales", SerialNumber: "VDS1000003-1"},
			"JANE.DOE", "MYDOMAIN.COM",
		},
		{soap.Authenticated{}, AuthenticatedResult{}, "jane.doe", "mydomain.com"},
	} {
		r := newRig(t, "")
		r.servers.authenticated = c.told
		got, err := r.Authenticate(t.Context(), theCaller, AuthenticateRequest{UserID: "jane.doe", Domain: "mydomain.com", Password: theOneTimePassword})
		if err != nil || got != c.want {
			t.Errorf("result is %+v, %v, want %+v", got, err, c.want)
		}
		r.wantTrace(t, "authUser")
		r.wantSent(t, soap.AuthUserRequest{UserID: "jane.doe", Domain: "mydomain.com", Password: theOneTimePassword})
		r.wantAudits(t, AuditEvent{
			Action: AuditAuthenticated, Operation: OpAuthenticate, Application: "bank-site",
			Subject: form.Subject{UserID: c.user, Domain: c.domain, SerialNumber: c.told.SerialNumber, Instance: "backup"},
		})
	}
}

// The message of the device is forwarded in upper case.
func TestUpdateNotificationID(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	if err := operations[OpUpdateNotificationID](t.Context(), r); err != nil {
		t.Error(err)
	}
	r.wantTrace(t, "updateDevicePNID")
	r.wantSent(t, soap.UpdateDevicePNIDRequest{
		UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003-1", DevicePNID: form.NotificationID(strings.ToUpper(theNotificationID)),
	})
	r.wantAudits(t, AuditEvent{
		Action: AuditNotificationIDUpdated, Operation: OpUpdateNotificationID, Application: "bank-site",
		Subject: form.Subject{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000003-1", Instance: "backup"},
	})
}

// With HideUnknownUsers a refused login shows nothing about the user: all statuses about
// users become the same one. The audit event has the real status.
func TestHiddenUsers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status string
		shown  bool
	}{
		{"STAT_USER_UNKNOWN", false},
		{"STAT_LOCKED", false},
		{"STAT_INVCREDENTIALS", false},
		{"STAT_ODD", false},
		{"", false},
		{"STAT_NOT_FOUND", true},
		{"STAT_COMMS", true},
		{"STAT_MEMORY", true},
		{"STAT_OS_FAILURE", true},
		{"STAT_LICENCE", true},
	} {
		codes := ResultCodes{ReturnCodeEnum: "RET_ODD", StatusCodeEnum: c.status, ReturnCode: -7, StatusCode: 4711}
		for _, op := range []Operation{OpAuthenticate, OpCompleteLogin, OpCompleteSignature} {
			for _, hide := range []bool{false, true} {
				r := newRig(t, "", func(config *Config) { config.HideUnknownUsers = hide })
				r.servers.err = &authserver.Refusal{Instance: "third", Codes: codes}
				err := operations[op](t.Context(), r)
				want := &Refusal{Codes: codes}
				// A one-time password is for no login that may not be there.
				shown := c.shown && (c.status != "STAT_NOT_FOUND" || op != OpAuthenticate)
				if hide && !shown && op != OpCompleteSignature {
					want = &Refusal{Codes: refused1000, Concealed: c.status}
				}
				wantError(t, err, want)
				if len(r.events.audits) != 1 || r.events.audits[0].Status != c.status && want.Concealed != "" {
					t.Errorf("%s, %q: audit is %+v", op, c.status, r.events.audits)
				}
			}
		}
	}
}
