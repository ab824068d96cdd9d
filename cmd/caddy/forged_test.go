package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// The gateway notices counters in Redis that it cannot have written: it refuses the call as if
// the store were down, forwards nothing, and raises an alarm in the audit log. Other
// registrations are not concerned.
func TestForgedCountersAreSeen(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g, server := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["store"] = testbed.RedisStore(redis.Addr())
	})
	for field, forge := range map[string]struct {
		value, path, body string
	}{
		"n": {"9", testbed.AddDevicePath, `{"registrationIdentifier":%q,"deviceCode":"12345678901234567890123456"}`},
		"a": {"-1", testbed.ActivatePath, `{"registrationIdentifier":%q,"signature":"00000000"}`},
		"r": {"-1000", testbed.EphemeralKeyPath, `{"registrationIdentifier":%q,"clientEphemeralPublicKey":"05"}`},
		"i": {"one", testbed.ActivationDataPath, strings.Replace(testbed.ActivationDataBody, `"Unknown1"`, "%q", 1)},
	} {
		forged := g.Register(t)
		redis.Command(t, "HSET", "dsapp:{"+forged.Identifier+"}:reg", field, forge.value)
		testbed.Expect(http.StatusServiceUnavailable, "STAT_COMMS", -10).Check(t, g.Post(t, forge.path, testbed.FrontEndKey, fmt.Sprintf(forge.body, forged.Identifier)))
		poll.Until(t, "an alarm in the log", func() bool {
			for line := range strings.Lines(g.Logs.String()) {
				if strings.Contains(line, `"msg":"record_damaged"`) && strings.Contains(line, `"registration":"`+forged.Identifier+`"`) {
					return strings.Contains(line, `"logger":"dsapp.audit"`) && strings.Contains(line, "find out who else can write")
				}
			}
			return false
		})
	}
	// A request whose owner cannot be read is not treated as one without an owner.
	redis.Command(t, "SET", "dsapp:own:signature:{12345}", "forged")
	testbed.Expect(http.StatusServiceUnavailable, "STAT_COMMS", -10).Check(t, g.Post(t, testbed.Signature.RetrievePath, testbed.FrontEndKey, `{"serialNumber":"VDS1000000-1","requestKey":"12345"}`))
	g.AwaitLog(t, `"request":"signature"`)
	for _, command := range []string{"PROVISIONCMD_MDL_ADD_DEVICE", "PROVISIONCMD_MDL_ACTIVATE", testbed.Signature.RetrieveCommand} {
		assert.Zero(t, server.Calls(command), command)
	}
	registered := g.Register(t)
	_, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
	assert.NoError(t, err)
}
