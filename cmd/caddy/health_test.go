package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// awaitHealth waits until the health check of the site has an answer, and returns how long
// that took.
func awaitHealth(t *testing.T, g *testbed.Gateway, status int, word string) time.Duration {
	t.Helper()
	began := time.Now()
	poll.Until(t, "the health check to say "+word, func() bool {
		gotStatus, got := g.Health(t.Context())
		return gotStatus == status && got == word
	})
	return time.Since(began)
}

// nodeHealth is the answer of the readiness check on the admin endpoint.
type nodeHealth struct {
	State  string
	Ready  bool
	Checks []struct {
		Name, Detail string
		OK           bool
	}
}

// adminHealth asks the admin endpoint, and checks that the status fits.
func adminHealth(t *testing.T, g *testbed.Gateway) nodeHealth {
	t.Helper()
	status, body, err := g.CallAdmin(t.Context(), http.MethodGet, "/dsapp/health/ready")
	require.NoError(t, err)
	var h nodeHealth
	require.NoError(t, json.Unmarshal([]byte(body), &h), body)
	assert.Equal(t, h.Ready, status == http.StatusOK, body)
	return h
}

// check returns whether a check passes, and its detail.
func (h nodeHealth) check(t *testing.T, name string) (ok bool, detail string) {
	t.Helper()
	for _, c := range h.Checks {
		if c.Name == name {
			return c.OK, c.Detail
		}
	}
	require.Fail(t, "no such check", name)
	return false, ""
}

// postAdmin sends a POST request to the admin endpoint and returns the status.
func postAdmin(t *testing.T, g *testbed.Gateway, path string) int {
	t.Helper()
	status, body, err := g.CallAdmin(t.Context(), http.MethodPost, path)
	require.NoError(t, err)
	t.Log(path, status, body)
	return status
}

// A node whose store fails is unready if the configuration requires the store, and degraded
// if it does not, which is the default with Redis. It is ready again when the store is. Only
// the admin endpoint tells why.
func TestHealthOfRedis(t *testing.T) {
	t.Parallel()
	for _, required := range []bool{true, false} {
		name, status, word := "report", http.StatusOK, "degraded"
		if required {
			name, status, word = "require", http.StatusServiceUnavailable, "unready"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redis := redistest.Start(t)
			certs := testbed.Certificates(t)
			g := testbed.Configure(t, certs, testbed.StartServer(t, certs).URL, func(dsapp testbed.Object) {
				dsapp["store"] = testbed.RedisStore(redis.Addr())
				if required {
					dsapp["health"] = testbed.Object{"store": "require"}
				}
			})

			redis.Stop()
			g.Start(t)
			t.Logf("started without the store: %s after %v", word, awaitHealth(t, g, status, word))
			redis.Restart(t)
			t.Logf("the store started: ready after %v", awaitHealth(t, g, http.StatusOK, "ready"))
			assert.Equal(t, "ready", adminHealth(t, g).State)

			redis.Stop()
			t.Logf("the store stopped: %s after %v", word, awaitHealth(t, g, status, word))
			h := adminHealth(t, g)
			assert.Equal(t, word, h.State)
			ok, detail := h.check(t, "store")
			assert.False(t, ok)
			// The first loss that is seen may be a connection that ended.
			assert.Contains(t, detail, "store unavailable")
			// What needs no store goes on.
			code, answer := g.Call(t, testbed.ServerTimePath, testbed.FrontEndKey, "")
			assert.Equal(t, http.StatusOK, code, answer)

			redis.Restart(t)
			t.Logf("the store restarted: ready after %v", awaitHealth(t, g, http.StatusOK, "ready"))
			ok, detail = adminHealth(t, g).check(t, "store")
			assert.True(t, ok, detail)
		})
	}
}

// The health check needs no key, counts for no limit, and has no other methods than GET and
// HEAD.
func TestHealthCheckCountsForNothing(t *testing.T) {
	t.Parallel()
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["limits"] = testbed.Object{"failed_keys_per_minute": 1, "calls_per_minute": 1, "requests_in_flight": 1}
	})
	awaitHealth(t, g, http.StatusOK, "ready")
	for range 20 {
		status, word := g.Health(t.Context())
		assert.Equal(t, http.StatusOK, status, word)
	}
	status, answer := g.Call(t, testbed.ServerTimePath, testbed.FrontEndKey, "")
	assert.Equal(t, http.StatusOK, status, answer)
	status, _ = g.Call(t, testbed.HealthPath, "", "")
	assert.Equal(t, http.StatusMethodNotAllowed, status)
	status, body, err := g.CallAdmin(t.Context(), http.MethodGet, "/dsapp/health/live")
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, status, body)
	status, body, err = g.CallAdmin(t.Context(), http.MethodGet, "/dsapp/drain")
	require.NoError(t, err)
	assert.Equal(t, http.StatusMethodNotAllowed, status, body)
}

// A node is unready while the breakers of all instances are open, or with "all", of one. It
// is ready again, without a command, when a probe has reached an instance.
func TestHealthOfInstances(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{false, true} {
		certs := testbed.Certificates(t)
		primary := testbed.StartServer(t, certs)
		backup := testbed.StartReplica(t, certs, primary)
		g := testbed.StartGateway(t, certs, primary.URL, func(dsapp testbed.Object) {
			testbed.AddBackup(dsapp, backup.URL)
			servers := dsapp["authentication_servers"].(testbed.Object)
			servers["breaker"] = testbed.Object{"failures": 1, "cooldown": "2s"}
			servers["probe_interval"] = "100ms"
			if all {
				dsapp["health"] = testbed.Object{"instances": "all"}
			}
		})
		awaitHealth(t, g, http.StatusOK, "ready")
		backup.Stop()
		status, word := http.StatusOK, "degraded"
		if all {
			status, word = http.StatusServiceUnavailable, "unready"
		}
		awaitHealth(t, g, status, word)
		h := adminHealth(t, g)
		ok, detail := h.check(t, "instance backup")
		assert.False(t, ok)
		assert.Contains(t, detail, "circuit breaker")
		ok, _ = h.check(t, "instance primary")
		assert.True(t, ok)
		if all {
			// A drained instance does not count.
			require.Equal(t, http.StatusOK, postAdmin(t, g, "/dsapp/instances/backup/drain"))
			awaitHealth(t, g, http.StatusOK, "ready")
			continue
		}
		// The primary answers probes and no commands.
		primary.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "out of order", http.StatusInternalServerError)
			return true
		})
		status, answer := g.Call(t, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
		assert.NotEqual(t, http.StatusOK, status, answer)
		awaitHealth(t, g, http.StatusServiceUnavailable, "unready")
		primary.Intercept(nil)
		awaitHealth(t, g, http.StatusOK, "degraded")
		// While a probe tries the instance, its breaker lets no command through.
		poll.Until(t, "a registration", func() bool {
			status, _ := g.Call(t, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
			return status == http.StatusOK
		})
	}
}

// A drained node goes on serving. That it is drained survives a reload and not a restart.
func TestDrainedNode(t *testing.T) {
	t.Parallel()
	g, _ := testbed.Start(t, nil)
	awaitHealth(t, g, http.StatusOK, "ready")
	require.Equal(t, http.StatusOK, postAdmin(t, g, "/dsapp/drain"))
	for range 2 {
		status, word := g.Health(t.Context())
		assert.Equal(t, http.StatusServiceUnavailable, status)
		assert.Equal(t, "draining", word)
		assert.Equal(t, "draining", adminHealth(t, g).State)
		g.Serves(t)
		g.Load(t)
	}
	require.Equal(t, http.StatusOK, postAdmin(t, g, "/dsapp/undrain"))
	awaitHealth(t, g, http.StatusOK, "ready")
	require.Equal(t, http.StatusOK, postAdmin(t, g, "/dsapp/drain"))
	g.Kill(t)
	g.Start(t)
	awaitHealth(t, g, http.StatusOK, "ready")
}

// A drained instance gets no registration and no one-time password, but what lives on it goes
// on. That it is drained survives a reload.
func TestDrainedInstance(t *testing.T) {
	t.Parallel()
	gateways, primary, backup, _ := testbed.StartNodes(t, 1, nil)
	g := gateways[0]
	device := g.ActivatedDevice(t)
	begun := g.Register(t)
	key, outcome := testbed.Ask(t, primary, testbed.Login, device)
	require.Equal(t, http.StatusNotFound, postAdmin(t, g, "/dsapp/instances/tertiary/drain"))
	require.Equal(t, http.StatusOK, postAdmin(t, g, "/dsapp/instances/primary/drain"))
	g.Load(t)
	_, detail := adminHealth(t, g).check(t, "instance primary")
	assert.Equal(t, "drained", detail)

	registrations, logins := primary.Calls("PROVISIONCMD_MDL_REGISTER"), primary.Calls("authUser")
	fresh := g.Register(t)
	assert.Positive(t, backup.Calls("PROVISIONCMD_MDL_REGISTER"))
	assert.Equal(t, registrations, primary.Calls("PROVISIONCMD_MDL_REGISTER"))
	g.Call(t, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
	assert.Equal(t, 1, backup.Calls("authUser"))
	assert.Equal(t, logins, primary.Calls("authUser"))

	for _, r := range []testbed.Registration{begun, fresh} {
		_, err := g.Phone().Activate(t.Context(), r.Identifier, r.Password)
		require.NoError(t, err)
	}
	message := g.MustRetrieve(t, testbed.Login, testbed.FrontEndKey, device.SerialNumber, key)
	assert.Equal(t, 1, backup.Calls(testbed.Login.RetrieveCommand), "the drained instance is asked last")
	signature, err := device.Sign(message)
	require.NoError(t, err)
	status, answer := g.Complete(t, testbed.Login, key, signature)
	assert.Equal(t, http.StatusOK, status, answer)
	require.NoError(t, outcome())

	require.Equal(t, http.StatusOK, postAdmin(t, g, "/dsapp/instances/primary/undrain"))
	g.Register(t)
	assert.Equal(t, registrations+1, primary.Calls("PROVISIONCMD_MDL_REGISTER"))
}

// A node that stops is draining for the shutdown delay. It serves until then, and a request
// under way gets its answer.
func TestHealthDuringStop(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	g := testbed.Configure(t, certs, server.URL, nil)
	site := g.Config["apps"].(testbed.Object)["http"].(testbed.Object)
	site["shutdown_delay"], site["grace_period"] = "5s", poll.Patience.String()
	g.Start(t)
	awaitHealth(t, g, http.StatusOK, "ready")
	waiting, _, release := server.HoldLogins(testbed.UserID)
	defer release()
	answered := make(chan int, 1)
	go func() {
		status, _, _ := g.Try(t.Context(), testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
		answered <- status
	}()
	poll.Until(t, "the login to wait", func() bool { return waiting() == 1 })

	exited := g.Terminate(t)
	t.Logf("draining after %v", awaitHealth(t, g, http.StatusServiceUnavailable, "draining"))
	h := adminHealth(t, g)
	assert.Equal(t, "draining", h.State)
	status, body, err := g.CallAdmin(t.Context(), http.MethodGet, "/dsapp/health/live")
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, status, body)
	g.Serves(t)
	g.RegisterFor(t, testbed.Object{"userID": testbed.ActivationUser(0)})
	release()
	assert.NotZero(t, poll.Receive(t, "the answer to the login", answered))
	poll.Receive(t, "the end of the process", exited)
	assert.NotContains(t, g.Logs.String(), "server graceful shutdown")
}

// Two nodes behind a load balancer that checks their health are restarted one after the
// other. No request is lost. If the environment names the binary of an earlier version, the
// nodes are upgraded from it; between the two restarts they have different versions.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	redis := redistest.Start(t)
	var nodes []*testbed.Gateway
	for range 2 {
		g := testbed.Configure(t, certs, server.URL, func(dsapp testbed.Object) {
			testbed.AddOtherApplication(dsapp)
			dsapp["store"] = testbed.RedisStore(redis.Addr())
			dsapp["authentication_servers"].(testbed.Object)["max_queue"] = 1000
		})
		g.LogLevel("WARN")
		delete(g.HTTPServer(), "logs")
		site := g.Config["apps"].(testbed.Object)["http"].(testbed.Object)
		site["shutdown_delay"], site["grace_period"] = testbed.DetectionTime.String(), poll.Patience.String()
		g.Binary = os.Getenv("DSAPP_PREVIOUS")
		g.Start(t)
		awaitHealth(t, g, http.StatusOK, "ready")
		nodes = append(nodes, g)
	}
	balancer := testbed.StartBalancer(t, nodes...)
	ledger := testbed.NewLedger(t, "rolling restart")
	load := testbed.StartLoad(t, ledger, testbed.LoadOptions{Gateways: []*testbed.Gateway{balancer.Gateway}, Server: server})
	load.Turns(t, 2)
	for i, g := range nodes {
		exited := g.Terminate(t)
		balancer.Await(t, i, "DOWN")
		load.Turns(t, 1)
		poll.Receive(t, "the end of the process", exited)
		g.Binary = ""
		g.Start(t)
		balancer.Await(t, i, "UP")
		load.Turns(t, 1)
	}
	load.Stop()
	ledger.Close(t)
	for _, g := range nodes {
		assert.NotContains(t, strings.ToLower(g.Logs.String()), `"panic`)
	}
}
