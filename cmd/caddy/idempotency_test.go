package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// registering is a registration as the bank's site sends it.
type registering struct {
	*testing.T

	path, body, key string
}

// at sends the registration to a gateway. It returns the zero Reply if there is no answer.
func (r registering) at(g *testbed.Gateway) (got testbed.Reply) {
	r.Helper()
	request, err := http.NewRequestWithContext(r.Context(), http.MethodPost, g.URL+r.path, strings.NewReader(r.body))
	require.NoError(r, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", r.key)
	request.SetBasicAuth(testbed.BackEndKey, "")
	got, _ = g.Do(request)
	return got
}

// start sends the registration in the background.
func (r registering) start(g *testbed.Gateway) <-chan testbed.Reply {
	answer := make(chan testbed.Reply, 1)
	go func() { answer <- r.at(g) }()
	return answer
}

// A registration that is repeated with its idempotency key is made once, on any node: its repeats
// get the same answer byte for byte, as long as it is pending. A key belongs to one body.
func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	const command = "PROVISIONCMD_MDL_REGISTER"
	for store, start := range map[string]func(t *testing.T) ([]*testbed.Gateway, *testbed.Server){
		"embedded": func(t *testing.T) ([]*testbed.Gateway, *testbed.Server) {
			g, server := testbed.Start(t, nil)
			return []*testbed.Gateway{g, g}, server
		},
		"redis": func(t *testing.T) ([]*testbed.Gateway, *testbed.Server) {
			nodes, server, _, _ := testbed.StartNodes(t, 2, nil)
			return nodes, server
		},
		"cluster": func(t *testing.T) ([]*testbed.Gateway, *testbed.Server) {
			cluster := redistest.StartCluster(t, 0)
			g, server := testbed.Start(t, func(dsapp testbed.Object) { dsapp["store"] = testbed.ClusterStore(cluster) })
			return []*testbed.Gateway{g, g}, server
		},
	} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			nodes, server := start(t)
			r := registering{t, testbed.RegisterPath, testbed.RegisterBody, "0123456789abcdef"}
			other := r
			other.body += " "

			arrived, release := hold(t, server, command)
			under := r.start(nodes[0])
			poll.Receive(t, "the command", arrived)
			busy := r.at(nodes[1])
			assert.Equal(t, http.StatusConflict, busy.Status, busy.Body)
			assert.Equal(t, "1", busy.Header.Get("Retry-After"))
			assert.Equal(t, http.StatusUnprocessableEntity, other.at(nodes[1]).Status)
			release()
			first := poll.Receive(t, "the answer", under)
			require.Equal(t, http.StatusOK, first.Status, first.Body)
			r.key = `"` + r.key + `"`
			for _, g := range nodes {
				again := r.at(g)
				assert.Equal(t, http.StatusOK, again.Status)
				assert.Equal(t, first.Body, again.Body)
				assert.NotEqual(t, first.Header.Get("X-Request-Id"), again.Header.Get("X-Request-Id"))
				assert.Equal(t, http.StatusUnprocessableEntity, other.at(g).Status)
				g.AwaitLog(t, `"logger":"dsapp.audit","msg":"repeated"`)
				assert.Positive(t, scrape(t, g)[`caddy_dsapp_repeated_calls_total{outcome="answered"}`])
			}
			assert.Equal(t, 1, server.Calls(command))

			var registered struct{ Result testbed.Registration }
			require.NoError(t, json.Unmarshal([]byte(first.Body), &registered))
			_, err := nodes[1].Phone().Activate(t.Context(), registered.Result.Identifier, registered.Result.Password)
			require.NoError(t, err)
			next := r.at(nodes[0])
			assert.Equal(t, http.StatusOK, next.Status, next.Body)
			assert.NotContains(t, next.Body, registered.Result.Password)
			assert.Equal(t, 2, server.Calls(command))

			offline := registering{t, testbed.OfflinePath, strings.Replace(testbed.RegisterBody, "staticPassword", "password", 1), "another-key-of-16"}
			message := offline.at(nodes[0])
			assert.Contains(t, message.Body, "activationMessageImage")
			assert.Equal(t, message.Body, offline.at(nodes[1]).Body)
			assert.Equal(t, 3, server.Calls(command))
			for _, g := range nodes {
				assert.NotContains(t, g.Logs.String(), registered.Result.Password)
			}
		})
	}
}

// If a node is killed between the command and its answer, the same registration on another node is
// not made a second time.
func TestIdempotencyKeyOfAKilledNode(t *testing.T) {
	t.Parallel()
	nodes, server, _, _ := testbed.StartNodes(t, 2, nil)
	r := registering{t, testbed.RegisterPath, testbed.RegisterBody, "0123456789abcdef"}
	arrived, release := hold(t, server, "PROVISIONCMD_MDL_REGISTER")
	lost := r.start(nodes[0])
	poll.Receive(t, "the command", arrived)
	nodes[0].Kill(t)
	release()
	assert.Zero(t, poll.Receive(t, "the end of the call", lost).Status)
	again := r.at(nodes[1])
	assert.Equal(t, http.StatusConflict, again.Status, again.Body)
	assert.Empty(t, arrived, "a second command")
}
