package caddymodule

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
)

// describedMetrics returns the sorted labels of every metric.
func describedMetrics() map[string][]string {
	descs := make(chan *prometheus.Desc)
	go func() {
		metrics.Describe(descs)
		close(descs)
	}()
	described := make(map[string][]string)
	for d := range descs {
		parts := regexp.MustCompile(`fqName: "(.*?)".*variableLabels: \{(.*?)\}`).FindStringSubmatch(d.String())
		labels := strings.Split(parts[2], ",")
		slices.Sort(labels)
		described[parts[1]] = labels
	}
	return described
}

// The table in docs/operation.md has every metric with its labels, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/operation.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(caddy_dsapp_[a-z_]+)` \\| ([^|]*)\\|").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = strings.NewReplacer("`", "", " ", "").Replace(row[2])
	}
	exported := make(map[string]string)
	for name, labels := range describedMetrics() {
		exported[name] = strings.Join(labels, ",")
	}
	if !maps.Equal(documented, exported) {
		t.Errorf("documented: %v\nexported: %v", documented, exported)
	}
}

// The series of an instance end with the last configuration that has it. Attempts that end
// later make no new ones.
func TestUpstreamsEndWithConfigurations(t *testing.T) {
	t.Parallel()
	m := newMetricSet()
	attempt := authserver.Attempt{Instance: "primary", Command: "authUser", Outcome: authserver.AttemptSuccess}
	for _, step := range []struct {
		do   func()
		want int
	}{
		{func() {}, 0},
		{func() { m.upstreams.acquire([]string{"primary", "backup"}) }, 1},
		{func() { m.upstreams.acquire([]string{"primary"}) }, 1},
		{func() { m.releaseUpstreams([]string{"primary", "backup"}) }, 1},
		{func() { m.releaseUpstreams([]string{"primary"}) }, 0},
		{func() { m.upstreams.acquire([]string{"primary"}) }, 1},
	} {
		step.do()
		m.attempt(t.Context(), attempt)
		series := make(chan prometheus.Metric, 9)
		m.attempts.Collect(series)
		m.attemptDuration.Collect(series)
		if len(series) != 2*step.want {
			t.Fatalf("%d series, want %d", len(series), 2*step.want)
		}
	}
}

// BenchmarkMetrics counts all that happens with one retrieval. The processor time of the whole
// request is that of BenchmarkForwarded in cmd/caddy.
func BenchmarkMetrics(b *testing.B) {
	m := newMetricSet()
	m.upstreams.acquire([]string{"primary"})
	b.ReportAllocs()
	for b.Loop() {
		m.inFlight.Inc()
		for _, call := range []string{"owner", "claim"} {
			observer := activation.StoreObserver(m.storeCall)
			done, err := true, error(nil)
			observer.Begin(b.Context(), call).End(&done, &err)
		}
		m.attempt(b.Context(), authserver.Attempt{Instance: "primary", Command: "getPreparedSecureChallenge", Outcome: authserver.AttemptSuccess, Duration: time.Millisecond})
		m.decision(gateway.OwnershipEvent{Verdict: gateway.VerdictClaimed})
		m.audit(gateway.AuditEvent{Action: gateway.AuditRetrieved})
		m.opened(true)
		m.request(restapi.Observation{
			Service: "authentication/push/getPreparedSecureChallenge", HTTPStatus: 200, Status: "STAT_SUCCESS", Outcome: restapi.Success, Duration: time.Millisecond,
		})
		m.inFlight.Dec()
	}
}
