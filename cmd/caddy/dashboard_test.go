package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/relay"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

var dashboardDemo = flag.String("dashboard-demo", "", "run TestDashboardDemo and write what the panels of the dashboard show to this `file`")

// prometheus is a Prometheus that reads gateways.
type prometheus struct{ url string }

// startPrometheus starts Prometheus with the example of its configuration and the rules, but
// reads the nodes more often. The label instance is the name of the node.
func startPrometheus(t *testing.T, nodes map[string]*testbed.Gateway) *prometheus {
	t.Helper()
	deployed, err := filepath.Abs("../../deploy/prometheus")
	require.NoError(t, err)
	example, err := os.ReadFile(filepath.Join(deployed, "prometheus.yaml"))
	require.NoError(t, err)
	before, _, found := strings.Cut(string(example), "    static_configs:")
	require.True(t, found)
	config := strings.NewReplacer("15s", "2s", "rules.yaml", filepath.Join(deployed, "rules.yaml")).Replace(before) + "    static_configs:\n"
	for name, g := range nodes {
		config += fmt.Sprintf("      - {targets: [%q], labels: {instance: %s}}\n", g.Admin, name)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "prometheus.yaml")
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	address := freeport.Address(t)
	var log output.Buffer
	cmd := exec.CommandContext(t.Context(), "prometheus", "--config.file", path, "--storage.tsdb.path", dir, "--web.listen-address", address)
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p := &prometheus{url: "http://" + address}
	poll.Until(t, "Prometheus to read all nodes", func() bool {
		got, err := p.query(t, "/api/v1/query", url.Values{"query": {"sum(up)"}})
		return err == nil && len(got) == 1 && got[0].Value[1] == strconv.Itoa(len(nodes))
	})
	return p
}

// queried is one series of an answer of Prometheus.
type queried struct {
	Metric map[string]string
	Value  [2]any   `json:",omitempty"`
	Values [][2]any `json:",omitempty"`
}

func (p *prometheus) query(t *testing.T, path string, parameters url.Values) ([]queried, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+path+"?"+parameters.Encode(), nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct{ Result []queried }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Error != "" {
		return nil, fmt.Errorf("%s: %v %s", parameters, err, answer.Error)
	}
	return answer.Data.Result, nil
}

// awaitAlarm waits, for as long as it takes, until an alarm fires or no longer does.
func (p *prometheus) awaitAlarm(t *testing.T, name string, fires bool) {
	t.Helper()
	began := time.Now()
	for tick := time.Tick(time.Second); ; <-tick {
		got, err := p.query(t, "/api/v1/query", url.Values{"query": {fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing"}`, name)}})
		require.NoError(t, err)
		if len(got) > 0 == fires {
			t.Logf("%s: %s fires: %t, after %v, %v", time.Now().Format(time.TimeOnly), name, fires, time.Since(began).Round(time.Second), got)
			return
		}
		require.Less(t, time.Since(began), 10*time.Minute, name)
	}
}

// A real Prometheus reads nodes under load, through a server and a store that fail, a stranger,
// a node that is down and one that drains. Alarms fire and end, and every panel of the
// dashboard has something to show. It takes ten minutes.
func TestDashboardDemo(t *testing.T) {
	if *dashboardDemo == "" {
		t.Skip("run make dashboard-demo")
	}
	certs := testbed.Certificates(t)
	primary := testbed.StartServer(t, certs)
	backup := testbed.StartReplica(t, certs, primary)
	address := strings.TrimPrefix(primary.URL, "https://")
	line := relay.Start(t, address)
	redis := redistest.Start(t)
	node := func(shared bool) *testbed.Gateway {
		return testbed.StartQuietGateway(t, certs, "https://"+line.Addr(), func(dsapp testbed.Object) {
			testbed.AddBackup(dsapp, backup.URL)
			dsapp["limits"] = testbed.Object{"calls_per_minute": 6000, "exchanges_per_minute": 600}
			if shared {
				dsapp["store"] = testbed.RedisStore(redis.Addr())
				dsapp["store"].(testbed.Object)["timeout"] = "500ms"
			}
		})
	}
	node1, node2, node3 := node(true), node(true), node(false)
	p := startPrometheus(t, map[string]*testbed.Gateway{"node1": node1, "node2": node2, "node3": node3})
	began := time.Now()
	usual := slices.DeleteFunc(slices.Clone(testbed.AllScenarios), func(s testbed.Scenario) bool {
		return slices.Contains([]string{"foreign cancel", "unknown registration", "wrong activation password"}, s.Name)
	})
	for _, gateways := range [][]*testbed.Gateway{{node1, node2}, {node3}} {
		d := testbed.StartLoad(t, testbed.NewLedger(t, "dashboard"), testbed.LoadOptions{
			Gateways: gateways, Server: primary, Replicas: []*testbed.Server{backup}, Workers: 2, Scenarios: usual,
			Tolerate: func(string, int, string) bool { return true },
			Transport: func(next http.RoundTripper) http.RoundTripper {
				return roundTrip(func(r *http.Request) (*http.Response, error) {
					time.Sleep(60 * time.Millisecond) // a few phones
					return next.RoundTrip(r)
				})
			},
		})
		d.AllowCancels(1 << 20)
	}
	last := func(d time.Duration) { <-time.After(d) }

	last(time.Minute)
	line.Retarget("127.0.0.1:1")
	line.Set(relay.Reset, relay.Forward)
	p.awaitAlarm(t, "DSAPPBreakerOpen", true)
	last(20 * time.Second)
	line.Retarget(address)
	p.awaitAlarm(t, "DSAPPBreakerOpen", false)

	last(time.Minute)
	redis.Stop()
	p.awaitAlarm(t, "DSAPPStoreDown", true)
	last(20 * time.Second)
	redis.Restart(t)
	p.awaitAlarm(t, "DSAPPStoreDown", false)

	last(time.Minute)
	stranger, guesser := node1.From(t, "127.0.0.66"), node2.From(t, "127.0.0.67")
	registration := node1.Register(t)
	for attack := time.Now(); time.Since(attack) < time.Minute; last(20 * time.Millisecond) {
		stranger.Call(t, testbed.ServerTimePath, "a guessed key", "")
		for path, body := range map[string]string{testbed.EphemeralKeyPath: testbed.EphemeralKeyBody, testbed.ActivationDataPath: testbed.ActivationDataBody} {
			guesser.Call(t, path, testbed.FrontEndKey, strings.Replace(body, "Unknown1", registration.Identifier, 1))
		}
	}
	p.awaitAlarm(t, "DSAPPLimitHits", true)

	node2.Kill(t)
	last(30 * time.Second)
	node2.Start(t)
	require.Equal(t, http.StatusOK, postAdmin(t, node3, "/dsapp/drain"))
	last(30 * time.Second)
	require.Equal(t, http.StatusOK, postAdmin(t, node3, "/dsapp/undrain"))
	last(30 * time.Second)
	showPanels(t, p, began)
}

// Prometheus can read a node from the site that docs/operation.md shows.
func TestMetricsOnASite(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/operation.md")
	require.NoError(t, err)
	_, chapter, _ := strings.Cut(string(document), "\n## Dashboard and alarms\n")
	_, snippet, _ := strings.Cut(chapter, "```json\n")
	snippet, _, found := strings.Cut(snippet, "```")
	require.True(t, found)
	address := freeport.Address(t)
	var servers testbed.Object
	require.NoError(t, json.Unmarshal([]byte("{"+strings.NewReplacer("10.0.0.11:9180", address, "10.0.0.0/24", "127.0.0.0/8").Replace(snippet)+"}"), &servers))
	certs := testbed.Certificates(t)
	g := testbed.Configure(t, certs, testbed.StartServer(t, certs).URL, nil)
	maps.Copy(g.Config["apps"].(testbed.Object)["http"].(testbed.Object)["servers"].(testbed.Object), servers)
	g.Start(t)
	poll.Until(t, "metrics on the site", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/metrics", nil)
		require.NoError(t, err)
		got, err := g.Do(r)
		return err == nil && strings.Contains(got.Body, "caddy_dsapp_store_ready 1")
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// showPanels asks Prometheus what every panel of the dashboard asks, and writes the answers.
func showPanels(t *testing.T, p *prometheus, began time.Time) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/grafana/dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr, LegendFormat string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	type shown struct {
		Panel, Type, Legend string
		Results             []queried
	}
	var all []shown
	variables := strings.NewReplacer("$instance", ".+", "$upstream", ".+", "$__rate_interval", "20s")
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			got, err := p.query(t, "/api/v1/query_range", url.Values{
				"query": {variables.Replace(target.Expr)}, "step": {"5"},
				"start": {strconv.FormatInt(began.Unix(), 10)}, "end": {strconv.FormatInt(time.Now().Unix(), 10)},
			})
			require.NoError(t, err)
			assert.NotEmpty(t, got, "%s: %s", panel.Title, target.Expr)
			all = append(all, shown{panel.Title, panel.Type, target.LegendFormat, got})
		}
	}
	text, err = json.Marshal(all)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(*dashboardDemo, text, 0o600))
}
