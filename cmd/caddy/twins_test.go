package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// hold has an authentication server keep the next commands with that text, until release is
// called. The channel gets a value for each command that arrives.
func hold(t *testing.T, server *testbed.Server, command string) (arrived <-chan struct{}, release func()) {
	t.Helper()
	arrivals, released := make(chan struct{}, 100), make(chan struct{})
	server.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(testbed.ReadCommand(r), command) {
			arrivals <- struct{}{}
			<-released
		}
		return false
	})
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	return arrivals, release
}

// start posts a body in the background. The channel gets the answer, or a zero Reply if there is
// none.
func start(g *testbed.Gateway, path, key, body string) <-chan testbed.Reply {
	answer := make(chan testbed.Reply, 1)
	go func() {
		got, _ := g.TryPost(context.Background(), path, key, body)
		answer <- got
	}()
	return answer
}

// awaitTwin waits until a call waits on a gateway for the outcome of its twin.
func awaitTwin(t *testing.T, g *testbed.Gateway) {
	t.Helper()
	poll.Until(t, "the twin to wait", func() bool { return scrape(t, g)[`caddy_dsapp_store_calls_total{call="kept",outcome="ok"}`] > 0 })
}

// twinCall is a call that can be repeated, with the command that it sends.
type twinCall struct{ path, body, command string }

// twinCalls returns functions that prepare a call that can be repeated.
func twinCalls(t *testing.T, g *testbed.Gateway, server *testbed.Server) map[string]func() twinCall {
	t.Helper()
	a := g.ActivatedDevice(t)
	device := sandbox.NewDevice(1)
	var identifier string
	add := func() twinCall {
		var registered struct {
			Result struct{ RegistrationIdentifier, ActivationMessageImage string }
		}
		_, answer := g.Call(t, testbed.OfflinePath, testbed.BackEndKey, strings.Replace(testbed.RegisterBody, "staticPassword", "password", 1))
		require.NoError(t, json.Unmarshal([]byte(answer), &registered), answer)
		identifier = registered.Result.RegistrationIdentifier
		code, err := device.ActivateLicense(registered.Result.ActivationMessageImage)
		require.NoError(t, err)
		return twinCall{testbed.AddDevicePath, fmt.Sprintf(`{"registrationIdentifier":%q,"deviceCode":%q}`, identifier, code), "PROVISIONCMD_MDL_ADD_DEVICE"}
	}
	return map[string]func() twinCall{
		"add device": add,
		"activate": func() twinCall {
			var added struct {
				Result struct{ InstanceActivationMessage string }
			}
			call := add()
			_, answer := g.Call(t, call.path, testbed.FrontEndKey, call.body)
			require.NoError(t, json.Unmarshal([]byte(answer), &added), answer)
			signature, err := device.ActivateInstance(added.Result.InstanceActivationMessage)
			require.NoError(t, err)
			return twinCall{testbed.ActivatePath, fmt.Sprintf(`{"registrationIdentifier":%q,"signature":%q}`, identifier, signature), "PROVISIONCMD_MDL_ACTIVATE"}
		},
		"retrieve": func() twinCall {
			key, _ := testbed.Ask(t, server, testbed.Signature, a)
			return twinCall{testbed.Signature.RetrievePath, fmt.Sprintf(`{"serialNumber":%q,"requestKey":%q}`, a.SerialNumber, key), "getPreparedSignatureRequest"}
		},
		"approve": func() twinCall {
			key, _ := testbed.Ask(t, server, testbed.Login, a)
			pending, err := g.Phone().Retrieve(t.Context(), sandbox.KindLogin, a, key)
			require.NoError(t, err)
			signature, err := a.Sign(pending.Message)
			require.NoError(t, err)
			return twinCall{testbed.Login.CompletePath, fmt.Sprintf(`{"userID":%q,"domain":%q,"challengeKey":%q,"signature":%q}`, testbed.UserID, testbed.Domain, key, signature), "authUser"}
		},
		"reject": func() twinCall {
			key, _ := testbed.Ask(t, server, testbed.Signature, a)
			g.MustRetrieve(t, testbed.Signature, testbed.FrontEndKey, a.SerialNumber, key)
			return twinCall{testbed.Signature.CancelPath, fmt.Sprintf(`{"serialNumber":%q,"requestKey":%q}`, a.SerialNumber, testbed.WrapKey(t, a, key)), "cancelAuthSignatureRequest"}
		},
	}
}

// Of twins at the same time, one on each of two nodes and one more, one command reaches the
// authentication server, and all get its answer byte for byte.
func TestTwinsOnTwoNodes(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"add device", "activate", "retrieve", "approve", "reject"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes, server, _, _ := testbed.StartNodes(t, 2, nil)
			call := twinCalls(t, nodes[0], server)[name]()
			before := server.Calls(call.command)
			arrived, release := hold(t, server, call.command)
			answers := []<-chan testbed.Reply{start(nodes[0], call.path, testbed.FrontEndKey, call.body)}
			poll.Receive(t, "the command", arrived)
			for _, g := range nodes {
				answers = append(answers, start(g, call.path, testbed.FrontEndKey, call.body))
			}
			for _, g := range nodes {
				awaitTwin(t, g)
			}
			release()
			first := poll.Receive(t, "the answer", answers[0])
			assert.Equal(t, http.StatusOK, first.Status, first.Body)
			assert.Contains(t, first.Body, "STAT_SUCCESS")
			for _, answer := range answers[1:] {
				again := poll.Receive(t, "the answer of a twin", answer)
				assert.Equal(t, first.Status, again.Status)
				assert.Equal(t, first.Body, again.Body)
			}
			assert.Empty(t, arrived, "further commands")
			assert.Equal(t, before+1, server.Calls(call.command))
			for _, g := range nodes {
				assert.InDelta(t, 1, scrape(t, g)[`caddy_dsapp_repeated_calls_total{outcome="answered"}`], 0)
				g.AwaitLog(t, `"logger":"dsapp.audit","msg":"repeated"`)
			}
		})
	}
}

// If a node is killed between the command and its answer, the same call on another node is told
// that the outcome is unknown, and sends no second command.
func TestTwinOfAKilledNode(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"add device", "activate", "retrieve", "approve", "reject"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes, server, _, _ := testbed.StartNodes(t, 2, nil)
			call := twinCalls(t, nodes[0], server)[name]()
			// What nodes wait for is long until here, so that a slow machine is no failure.
			for _, g := range nodes {
				g.App()["authentication_servers"].(testbed.Object)["timeout"] = "2s"
				g.Load(t)
			}
			arrived, release := hold(t, server, call.command)
			lost := start(nodes[0], call.path, testbed.FrontEndKey, call.body)
			poll.Receive(t, "the command", arrived)
			nodes[0].Kill(t)
			release()
			assert.Zero(t, poll.Receive(t, "the end of the call", lost).Status)
			again := nodes[1].Post(t, call.path, testbed.FrontEndKey, call.body)
			assert.Equal(t, http.StatusGatewayTimeout, again.Status, again.Body)
			assert.Empty(t, arrived, "a second command")
			assert.InDelta(t, 1, scrape(t, nodes[1])[`caddy_dsapp_repeated_calls_total{outcome="timeout"}`], 0)
		})
	}
}

// A twin that waits counts in both limits of requests at the same time.
func TestWaitingTwinsCount(t *testing.T) {
	t.Parallel()
	for _, limit := range []string{"requests_in_flight", "calls_in_flight"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			g, server := testbed.Start(t, nil)
			call := twinCalls(t, g, server)["retrieve"]()
			g.App()["limits"].(testbed.Object)[limit] = 2
			g.Load(t)
			arrived, release := hold(t, server, call.command)
			first := start(g, call.path, testbed.FrontEndKey, call.body)
			poll.Receive(t, "the command", arrived)
			twin := start(g, call.path, testbed.FrontEndKey, call.body)
			awaitTwin(t, g)
			third := g.Post(t, call.path, testbed.FrontEndKey, call.body)
			assert.Equal(t, http.StatusTooManyRequests, third.Status, third.Body)
			assert.InDelta(t, 1, scrape(t, g)[fmt.Sprintf(`caddy_dsapp_limit_hits_total{limit=%q}`, limit)], 0)
			release()
			for _, answer := range []<-chan testbed.Reply{first, twin} {
				assert.Equal(t, http.StatusOK, poll.Receive(t, "an answer", answer).Status)
			}
		})
	}
}
