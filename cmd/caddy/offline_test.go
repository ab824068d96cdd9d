package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// offline is a registration for an activation without an exchange.
type offline struct {
	RegistrationIdentifier, ActivationMessageImage string
}

func registerOffline(t *testing.T, g *testbed.Gateway) offline {
	t.Helper()
	status, answer := g.Call(t, testbed.OfflinePath, testbed.BackEndKey,
		fmt.Sprintf(`{"userID":%q,"domain":%q,"password":%q}`, testbed.UserID, testbed.Domain, testbed.StaticPassword))
	require.Equal(t, http.StatusOK, status, answer)
	var decoded struct{ Result offline }
	require.NoError(t, json.Unmarshal([]byte(answer), &decoded))
	require.NotEmpty(t, decoded.Result.RegistrationIdentifier, answer)
	return decoded.Result
}

// Wrong device codes and wrong final signatures are bounded also for activations without an
// exchange, in parallel too, and whatever carries out the exchanges of others. Right ones do
// not count, nor do those that no server has judged.
func TestOfflineActivationIsBounded(t *testing.T) {
	t.Parallel()
	const attempts, parallel = 3, 12
	for _, mode := range []string{"gateway", "relay"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			g, server := testbed.Start(t, func(dsapp testbed.Object) {
				// With relay, the gateway forwards unknown registrations; these are known.
				dsapp["activation"] = testbed.Object{"exchange": mode, "max_attempts": attempts}
				dsapp["requests"] = testbed.Object{"repeat": "0s"} // the calls are all the same
			})
			add := func(r offline, code string) (int, string) {
				return g.Call(t, testbed.AddDevicePath, testbed.FrontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"deviceCode":%q}`, r.RegistrationIdentifier, code))
			}
			confirm := func(r offline, signature string) (int, string) {
				return g.Call(t, testbed.ActivatePath, testbed.FrontEndKey, fmt.Sprintf(`{"registrationIdentifier":%q,"signature":%q}`, r.RegistrationIdentifier, signature))
			}
			// wrong makes wrong calls at the same time and returns how many reached the server.
			wrong := func(command string, call func() (int, string)) int {
				before := server.Calls(command)
				var all sync.WaitGroup
				var forwarded atomic.Int32
				for range parallel {
					all.Go(func() {
						status, answer := call()
						assert.Equal(t, http.StatusOK, status)
						if answer != testbed.Refused {
							forwarded.Add(1)
						}
					})
				}
				all.Wait()
				assert.Equal(t, int(forwarded.Load()), server.Calls(command)-before, "answers of the server are relayed")
				return server.Calls(command) - before
			}
			const wrongCode, wrongSignature = "12345678901234567890123456", "00000000"

			r := registerOffline(t, g)
			device := sandbox.NewDevice(1)
			code, err := device.ActivateLicense(r.ActivationMessageImage)
			require.NoError(t, err)

			// A server that does not answer has not refused anything.
			server.Intercept(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
			for range attempts + 1 {
				status, answer := add(r, wrongCode)
				assert.Equal(t, http.StatusBadGateway, status, answer)
			}
			server.Intercept(nil)

			_, answer := add(r, wrongCode)
			assert.NotEqual(t, testbed.Refused, answer)
			var added struct {
				Result struct{ InstanceActivationMessage string }
			}
			_, answer = add(r, code)
			require.NoError(t, json.Unmarshal([]byte(answer), &added))
			signature, err := device.ActivateInstance(added.Result.InstanceActivationMessage)
			require.NoError(t, err, answer)
			assert.Equal(t, attempts-1, wrong("PROVISIONCMD_MDL_ADD_DEVICE", func() (int, string) { return add(r, wrongCode) }))
			_, answer = add(r, code)
			assert.Equal(t, testbed.Refused, answer)

			// The final calls are counted on their own. One of them is right in time.
			_, answer = confirm(r, wrongSignature)
			assert.NotEqual(t, testbed.Refused, answer)
			_, answer = confirm(r, signature)
			assert.Contains(t, answer, "RET_SUCCESS")

			r = registerOffline(t, g)
			assert.Equal(t, attempts, wrong("PROVISIONCMD_MDL_ACTIVATE", func() (int, string) { return confirm(r, wrongSignature) }))
			before := server.Calls("PROVISIONCMD_MDL_ACTIVATE")
			_, answer = confirm(r, wrongSignature)
			assert.Equal(t, testbed.Refused, answer)
			assert.Equal(t, before, server.Calls("PROVISIONCMD_MDL_ACTIVATE"))
		})
	}
}

// A guess is judged and counted even if its client does not wait for the answer.
func TestAbandonedGuessesCount(t *testing.T) {
	t.Parallel()
	const attempts, command = 3, "PROVISIONCMD_MDL_ACTIVATE"
	g, server := testbed.Start(t, func(dsapp testbed.Object) { dsapp["activation"] = testbed.Object{"max_attempts": attempts} })
	r := registerOffline(t, g)
	body := fmt.Sprintf(`{"registrationIdentifier":%q,"signature":"00000000"}`, r.RegistrationIdentifier)
	arrived, release := make(chan struct{}), make(chan struct{})
	server.Intercept(func(http.ResponseWriter, *http.Request) bool {
		arrived <- struct{}{}
		<-release
		return false
	})
	for range attempts {
		ctx, leave := context.WithCancel(t.Context())
		go func() {
			<-arrived
			leave()
			release <- struct{}{}
		}()
		_, _, err := g.Try(ctx, testbed.ActivatePath, testbed.FrontEndKey, body)
		require.ErrorIs(t, err, context.Canceled)
	}
	poll.Until(t, "the audit log", func() bool { return strings.Count(g.Logs.String(), `"msg":"confirmation_refused"`) == attempts })
	server.Intercept(nil)
	_, answer := g.Call(t, testbed.ActivatePath, testbed.FrontEndKey, body)
	assert.Equal(t, testbed.Refused, answer)
	assert.Equal(t, attempts, server.Calls(command))
}
