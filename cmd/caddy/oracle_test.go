package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// With hide_unknown_users nobody learns from refused logins which users there are: the
// answers are the same bytes, in both versions. The log has what the authentication
// server said. Without it that is relayed, as clients of the incumbent know it.
func TestRefusedLoginsAreAlike(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	for _, hide := range []bool{false, true} {
		g := startGateway(t, certs, server.URL, func(dsapp object) {
			dsapp["activation"] = object{"hide_unknown_users": hide}
		})
		for path, member := range map[string]string{onlinePath: "password", "/rest/auth/online": "otp"} {
			answers := make(map[string]bool)
			for _, user := range []string{userID, "nobody"} {
				status, answer := g.Call(t, path, frontEndKey, fmt.Sprintf(`{"userID":%q,"domain":%q,%q:"000000"}`, user, domain, member))
				assert.Equal(t, http.StatusOK, status)
				assert.Contains(t, answer, "STAT_")
				answers[answer] = true
				if hide {
					assert.Contains(t, answer, "STAT_INVCREDENTIALS")
				}
			}
			assert.Equal(t, hide, len(answers) == 1, "%v", answers)
		}
		poll(t, "the audit log", func() bool { return strings.Count(g.Logs.String(), `"msg":"authentication_refused"`) == 4 })
		for line := range strings.Lines(g.Logs.String()) {
			if strings.Contains(line, `"msg":"authentication_refused"`) {
				assert.Contains(t, line, `"status":"STAT_`)
				assert.Equal(t, strings.Contains(line, `"user_id":"nobody"`), strings.Contains(line, "STAT_USER_UNKNOWN"), line)
			}
		}
	}
}

// With plain_cancel refuse nothing is cancelled by a plain key, not even by the device
// that retrieved the request; the authentication server is not asked. A key that the
// device wrapped works.
func TestPlainCancelsCanBeRefused(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	g := startGateway(t, certs, server.URL, func(dsapp object) {
		dsapp["requests"] = object{"plain_cancel": "refuse"}
	})
	a := g.activated(t)
	for _, s := range kinds {
		key, outcome := ask(t, server, s, a)
		g.retrieved(t, s, frontEndKey, a.SerialNumber, key)
		for _, plain := range []string{key, "unknown"} {
			status, answer := g.cancel(t, s, frontEndKey, a.SerialNumber, plain)
			assert.Equal(t, http.StatusOK, status)
			assert.Equal(t, noSupport, answer)
		}
		assert.Zero(t, server.Calls(s.cancelCommand))
		status, answer := g.cancel(t, s, frontEndKey, a.SerialNumber, wrap(t, a, key))
		assert.Equal(t, http.StatusOK, status)
		assert.Equal(t, success, answer)
		require.Error(t, outcome())
	}
	assert.Contains(t, g.Logs.String(), `"dsapp_ownership":"refused_plain"`)
}
