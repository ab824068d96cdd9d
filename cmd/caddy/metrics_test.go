package main

import (
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// series are the values of the gateway's metrics by name and labels, as they are exported.
type series map[string]float64

// scrape reads the metrics on the admin endpoint. It fails the test if a series occurs twice.
func scrape(t *testing.T, g *testbed.Gateway) series {
	t.Helper()
	text, err := g.AskAdmin(t.Context(), "/metrics")
	require.NoError(t, err)
	got := make(series)
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "caddy_dsapp_") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		require.NoError(t, err, line)
		require.NotContains(t, got, line[:i])
		got[line[:i]] = value
	}
	return got
}

// prefixed returns the names of the series that begin so, sorted.
func (s series) prefixed(prefix string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s)), func(name string) bool { return !strings.HasPrefix(name, prefix) })
}

// untilMoved waits until series have moved by exactly so much since an earlier scrape. A
// request is counted after its answer was sent.
func untilMoved(t *testing.T, g *testbed.Gateway, before series, want map[string]float64) {
	t.Helper()
	for name, by := range want {
		poll.Until(t, fmt.Sprintf("%s to move by %v", name, by), func() bool { return scrape(t, g)["caddy_dsapp_"+name]-before["caddy_dsapp_"+name] == by })
	}
}

// checkConventions runs promtool, which prints what breaks the conventions of Prometheus.
func checkConventions(t *testing.T, g *testbed.Gateway) {
	t.Helper()
	text, err := g.AskAdmin(t.Context(), "/metrics")
	require.NoError(t, err)
	var own strings.Builder
	for line := range strings.Lines(text) {
		if strings.Contains(line, "caddy_dsapp_") {
			own.WriteString(line)
		}
	}
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(own.String())
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Empty(t, string(out))
}

// What happens moves the series that docs/operation.md documents for it.
func TestMetricsCount(t *testing.T) {
	t.Parallel()
	g, server := testbed.Start(t, testbed.AddOtherApplication)
	before := scrape(t, g)
	a := g.ActivatedDevice(t)
	untilMoved(t, g, before, map[string]float64{
		`requests_total{code="200",service="provisioning/DSAPPSRPRegister",status="STAT_SUCCESS"}`:          1,
		`requests_total{code="200",service="provisioning/MdlActivate",status="STAT_SUCCESS"}`:               1,
		`request_duration_seconds_count{service="provisioning/MdlActivate"}`:                                1,
		`exchange_steps_total{outcome="answered",profile="rfc5054-2048-sha256",step="ephemeral_key"}`:       1,
		`exchange_steps_total{outcome="proven",profile="rfc5054-2048-sha256",step="activation_data"}`:       1,
		`exchange_step_duration_seconds_count{profile="rfc5054-2048-sha256",step="activation_data"}`:        1,
		`audit_events_total{action="activated"}`:                                                            1,
		`upstream_attempts_total{command="PROVISIONCMD_MDL_REGISTER",outcome="success",upstream="primary"}`: 1,
		`upstream_attempt_duration_seconds_count{command="PROVISIONCMD_MDL_REGISTER",upstream="primary"}`:   1,
		`store_calls_total{call="create",outcome="ok"}`:                                                     1,
		`store_call_duration_seconds_count{call="take"}`:                                                    1,
		`exchanges_computing`: 0, `exchanges_waiting`: 0, `upstream_connections{upstream="primary"}`: 0, `requests_in_flight`: 0,
	})
	after := scrape(t, g)
	assert.Positive(t, after[`caddy_dsapp_sealed_values_opened_total{key="first"}`])
	assert.Zero(t, after[`caddy_dsapp_sealed_values_opened_total{key="older"}`])
	assert.Positive(t, after["caddy_dsapp_store_ready"])
	assert.Positive(t, after[`caddy_dsapp_upstream_breaker_state{state="closed",upstream="primary"}`])
	assert.Zero(t, after[`caddy_dsapp_upstream_breaker_state{state="open",upstream="primary"}`])
	assert.Zero(t, after[`caddy_dsapp_upstream_drained{upstream="primary"}`])
	assert.Positive(t, after["caddy_dsapp_store_file_size_bytes"])
	assert.Len(t, after.prefixed(`caddy_dsapp_exchange_info{kernel="`), 1)

	before = after
	registered := g.Register(t)
	status, answer := g.Exchange(t, registered.Identifier, "a wrong password")
	require.Equal(t, http.StatusOK, status, answer)
	untilMoved(t, g, before, map[string]float64{
		`requests_total{code="200",service="provisioning/DSAPPSRPGenerateActivationData",status="STAT_INVCREDENTIALS"}`: 1,
		`exchange_steps_total{outcome="refused",profile="rfc5054-2048-sha256",step="activation_data"}`:                  1,
		`audit_events_total{action="proof_refused"}`:                                                                    1,
		`store_calls_total{call="settle",outcome="refused"}`:                                                            1,
		`store_registrations`: 1,
	})

	before = scrape(t, g)
	key, _ := testbed.Ask(t, server, testbed.Login, a)
	g.MustRetrieve(t, testbed.Login, testbed.FrontEndKey, a.SerialNumber, key)
	assert.Equal(t, testbed.NoSupport, testbed.Answer(g.Cancel(t, testbed.Login, testbed.OtherFrontEndKey, a.SerialNumber, key)))
	untilMoved(t, g, before, map[string]float64{
		`ownership_decisions_total{verdict="claimed"}`:                                                    1,
		`ownership_decisions_total{verdict="foreign"}`:                                                    1,
		`requests_total{code="200",service="authentication/push/cancelAuthUser",status="STAT_NOSUPPORT"}`: 1,
		`audit_events_total{action="cancel_refused"}`:                                                     1,
	})

	g.App()["limits"].(testbed.Object)["failed_keys_per_minute"] = 1
	g.Load(t)
	before = scrape(t, g)
	g.Call(t, testbed.ServerTimePath, "a wrong key", "")
	g.Call(t, testbed.ServerTimePath, "a wrong key", "")
	untilMoved(t, g, before, map[string]float64{
		`limit_hits_total{limit="failed_keys"}`:                                                        1,
		`requests_total{code="401",service="provisioning/getServerTime",status="STAT_INVCREDENTIALS"}`: 1,
		`requests_total{code="429",service="provisioning/getServerTime",status="STAT_ERROR"}`:          1,
	})
	checkConventions(t, g)
}

// A failover counts an attempt at each instance. The breaker of the lost one opens.
func TestMetricsOfFailover(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	primary := testbed.StartServer(t, certs)
	backup := testbed.StartReplica(t, certs, primary)
	g := testbed.StartGateway(t, certs, primary.URL, func(dsapp testbed.Object) {
		testbed.AddBackup(dsapp, backup.URL)
		servers := dsapp["authentication_servers"].(testbed.Object)
		servers["probe_interval"] = 0
		servers["breaker"] = testbed.Object{"failures": 2, "cooldown": "10m"}
	})
	primary.Stop()
	before := scrape(t, g)
	for range 3 {
		g.Register(t)
	}
	untilMoved(t, g, before, map[string]float64{
		`upstream_attempts_total{command="PROVISIONCMD_MDL_REGISTER",outcome="not_sent",upstream="primary"}`:     2,
		`upstream_attempts_total{command="PROVISIONCMD_MDL_REGISTER",outcome="breaker_open",upstream="primary"}`: 1,
		`upstream_attempts_total{command="PROVISIONCMD_MDL_REGISTER",outcome="success",upstream="backup"}`:       3,
		`upstream_breaker_state{state="open",upstream="primary"}`:                                                1,
		`upstream_breaker_state{state="closed",upstream="primary"}`:                                              -1,
		`upstream_breaker_state{state="open",upstream="backup"}`:                                                 0,
	})
	checkConventions(t, g)

	// The series of an instance end with the last configuration that has it.
	servers := g.App()["authentication_servers"].(testbed.Object)
	servers["instances"] = []testbed.Object{{"name": "renamed", "url": backup.URL}}
	g.Load(t)
	poll.Until(t, "the series of the old instances to vanish", func() bool {
		return !slices.ContainsFunc(slices.Collect(maps.Keys(scrape(t, g))), func(name string) bool {
			return strings.Contains(name, `"primary"`) || strings.Contains(name, `"backup"`)
		})
	})
	before = scrape(t, g)
	g.Register(t)
	untilMoved(t, g, before, map[string]float64{
		`upstream_attempts_total{command="PROVISIONCMD_MDL_REGISTER",outcome="success",upstream="renamed"}`: 1,
	})
}

// A lost Redis server is seen in the calls of the store and in whether it is ready.
func TestMetricsOfLostRedis(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		store := testbed.RedisStore(redis.Addr())
		store["timeout"], store["dial_timeout"] = "1s", "1s"
		dsapp["store"] = store
	})
	// Then the store has its keys: without them no other call of it is made.
	g.AwaitLog(t, `"the store is ready"`)
	redis.Stop()
	before := scrape(t, g)
	status, _ := g.Call(t, testbed.RegisterPath, testbed.BackEndKey,
		fmt.Sprintf(`{"userID":%q,"domain":%q,"staticPassword":%q}`, testbed.UserID, testbed.Domain, testbed.StaticPassword))
	require.Equal(t, http.StatusServiceUnavailable, status)
	untilMoved(t, g, before, map[string]float64{
		`store_calls_total{call="reserve",outcome="unavailable"}`:                                1,
		`requests_total{code="503",service="provisioning/DSAPPSRPRegister",status="STAT_COMMS"}`: 1,
	})
	poll.Until(t, "the store not to be ready", func() bool {
		got := scrape(t, g)
		ready, ok := got["caddy_dsapp_store_ready"]
		return ok && ready == 0
	})
	assert.Empty(t, scrape(t, g).prefixed("caddy_dsapp_store_file"))
}

// Reloads, and configurations that are rejected, neither lose nor double a value.
func TestMetricsSurviveReloads(t *testing.T) {
	t.Parallel()
	g, _ := testbed.Start(t, nil)
	g.ActivatedDevice(t)
	// What the gateway does by itself after a reload.
	own := func(name string) bool {
		return strings.Contains(name, "simulation_secret") || strings.Contains(name, "sealed_values_opened")
	}
	counted := func() series {
		got := scrape(t, g)
		maps.DeleteFunc(got, func(name string, _ float64) bool {
			return own(name) || !strings.Contains(name, "_total") && !strings.Contains(name, "_count")
		})
		return got
	}
	names := func() []string {
		return slices.DeleteFunc(scrape(t, g).prefixed(""), func(name string) bool { return own(name) || strings.Contains(name, "_bucket") })
	}
	request := `caddy_dsapp_requests_total{code="200",service="provisioning/MdlActivate",status="STAT_SUCCESS"}`
	poll.Until(t, "the activation to be counted", func() bool { return counted()[request] == 1 })
	want, all := counted(), names()
	require.Greater(t, len(want), 20)
	for range testbed.Length(100, 300) {
		g.Load(t)
	}
	assert.Equal(t, want, counted())

	// The admin endpoint keeps the registry of a rejected configuration.
	instances := g.App()["authentication_servers"].(testbed.Object)
	for _, wrong := range []testbed.Object{
		with(g.App(), testbed.Object{"authentication_servers": with(instances, testbed.Object{"deployment": "no-such-deployment"})}),
		with(g.App(), testbed.Object{"no such option": 1}),
		with(g.App(), testbed.Object{"authentication_servers": with(instances, testbed.Object{"instances": []testbed.Object{{"name": "rejected", "url": "https://127.0.0.1:1/"}}, "timeout": "1ns"})}),
	} {
		right := g.App()
		g.Config["apps"].(testbed.Object)["dsapp"] = wrong
		status, answer := g.TryLoad(t)
		require.Equal(t, http.StatusBadRequest, status, answer)
		g.Config["apps"].(testbed.Object)["dsapp"] = right
		assert.Equal(t, want, counted())
		assert.Equal(t, all, names(), "after %s", answer)
	}
	before := scrape(t, g)
	g.Call(t, testbed.ServerTimePath, testbed.FrontEndKey, "")
	untilMoved(t, g, before, map[string]float64{`requests_total{code="200",service="provisioning/getServerTime",status="STAT_SUCCESS"}`: 1})
	g.Load(t)
	checkConventions(t, g)
}

// Whatever clients and authentication servers send, it adds no series and is in none.
func TestMetricsAreBounded(t *testing.T) {
	t.Parallel()
	const rounds = 40
	g, server := testbed.Start(t, nil)
	hostile := func(i int) {
		value := fmt.Sprintf("HOSTILE%d", i)
		server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			_ = testbed.ReadCommand(r)
			w.Header().Set("Content-Type", "text/xml")
			_, _ = fmt.Fprintf(w, `%s<ns:authUserResponse xmlns:ns="x"><results><resultCodes><returnCodeEnum>RET_FAILURE</returnCodeEnum><statusCodeEnum>STAT_%s</statusCodeEnum>`+
				`<returnCode>-1</returnCode><statusCode>%d</statusCode></resultCodes></results></ns:authUserResponse>%s`,
				testbed.EnvelopeStart, value, i+1, testbed.EnvelopeEnd)
			return true
		})
		for _, key := range []string{testbed.FrontEndKey, value} {
			g.Call(t, testbed.LoginPath, key, fmt.Sprintf(`{"userID":%q,"password":%q}`, value, value))
			g.Call(t, "/rest/"+value, key, value)
			g.Call(t, testbed.ActivationDataPath, key, fmt.Sprintf(`{"registrationIdentifier":%q,"clientEvidenceMessage":%q}`, value, strings.Repeat("0", 64)))
			g.Call(t, testbed.Login.CancelPath, key, fmt.Sprintf(`{"serialNumber":"VDS%07d","challengeKey":%q}`, i, value))
		}
	}
	hostile(0)
	settled := func() series {
		var got series
		poll.Until(t, "all requests to be counted", func() bool {
			got = scrape(t, g)
			return got["caddy_dsapp_requests_in_flight"] == 0
		})
		return got
	}
	before := settled().prefixed("")
	for i := range rounds {
		hostile(i + 1)
	}
	after := settled()
	assert.Equal(t, before, after.prefixed(""))
	for name := range after {
		assert.NotContains(t, name, "HOSTILE")
		assert.NotContains(t, name, "VDS")
	}
	assert.GreaterOrEqual(t, after[`caddy_dsapp_requests_total{code="200",service="authentication/authUser",status="other"}`], float64(rounds))
}
