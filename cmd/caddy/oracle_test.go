package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// With hide_unknown_users, refused logins do not show which users exist: the answers are the
// same bytes, in both versions. The log has the answer of the authentication server. Without
// the option that answer is relayed.
func TestRefusedLoginsAreAlike(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	for _, hide := range []bool{false, true} {
		g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
			dsapp["activation"] = testbed.Object{"hide_unknown_users": hide}
		})
		for path, member := range map[string]string{testbed.LoginPath: "password", "/rest/auth/online": "otp"} {
			answers := make(map[string]bool)
			for _, user := range []string{testbed.UserID, "nobody"} {
				status, answer := g.Call(t, path, testbed.FrontEndKey, fmt.Sprintf(`{"userID":%q,"domain":%q,%q:"000000"}`, user, testbed.Domain, member))
				assert.Equal(t, http.StatusOK, status)
				assert.Contains(t, answer, "STAT_")
				answers[answer] = true
				if hide {
					assert.Contains(t, answer, "STAT_INVCREDENTIALS")
				}
			}
			assert.Equal(t, hide, len(answers) == 1, "%v", answers)
		}
		poll.Until(t, "the audit log", func() bool { return strings.Count(g.Logs.String(), `"msg":"authentication_refused"`) == 4 })
		for line := range strings.Lines(g.Logs.String()) {
			if strings.Contains(line, `"msg":"authentication_refused"`) {
				assert.Contains(t, line, `"status":"STAT_`)
				assert.Equal(t, strings.Contains(line, `"user_id":"nobody"`), strings.Contains(line, "STAT_USER_UNKNOWN"), line)
			}
		}
	}
}

// If plain_cancel is refuse, no plain key cancels a request, not even for the device that
// retrieved it, and the authentication server is not asked. A key that the device wrapped does.
func TestPlainCancelsCanBeRefused(t *testing.T) {
	t.Parallel()
	g, server := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["requests"] = testbed.Object{"plain_cancel": "refuse"}
	})
	a := g.ActivatedDevice(t)
	for _, s := range testbed.RequestKinds {
		key, outcome := testbed.Ask(t, server, s, a)
		g.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key)
		for _, plain := range []string{key, "unknown"} {
			assert.Equal(t, testbed.NoSupport, testbed.Answer(g.Cancel(t, s, testbed.FrontEndKey, a.SerialNumber, plain)))
		}
		assert.Zero(t, server.Calls(s.CancelCommand))
		assert.Equal(t, testbed.Success, testbed.Answer(g.Cancel(t, s, testbed.FrontEndKey, a.SerialNumber, testbed.WrapKey(t, a, key))))
		require.Error(t, outcome())
	}
	g.AwaitLog(t, `"dsapp_ownership":"refused_plain"`)
}
