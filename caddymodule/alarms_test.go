package caddymodule

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
)

const (
	prometheusDir = "../deploy/prometheus"
	// runbook is where the alarms say that their sections are.
	runbook = "https://github.com/dsapp-gateway/dsapp-gateway/blob/main/docs/operation.md"
)

// alarm is an alerting rule.
type alarm struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

func readAlarms(t *testing.T) []alarm {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(prometheusDir, "rules.yaml"))
	require.NoError(t, err)
	var file struct{ Groups []struct{ Rules []alarm } }
	require.NoError(t, yaml.Unmarshal(text, &file))
	require.Len(t, file.Groups, 1)
	return file.Groups[0].Rules
}

// panelQuery is a query of the dashboard.
type panelQuery struct{ panel, expr, legend string }

func readDashboard(t *testing.T) (queries []panelQuery) {
	t.Helper()
	text, err := os.ReadFile("../deploy/grafana/dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr, LegendFormat string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &dashboard))
	taken := make(map[[2]int]string)
	ids := make(map[int]string)
	for _, p := range dashboard.Panels {
		assert.Empty(t, ids[p.ID], p.Title)
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				assert.Less(t, x, 24, p.Title)
				assert.Empty(t, taken[[2]int{x, y}], "%s overlaps", p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		assert.Equal(t, p.Type != "row", len(p.Targets) > 0, p.Title)
		for _, target := range p.Targets {
			queries = append(queries, panelQuery{p.Title, target.Expr, target.LegendFormat})
		}
	}
	require.NotEmpty(t, queries)
	return queries
}

// promtool runs promtool, which must succeed.
func promtool(t *testing.T, arguments ...string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "promtool", arguments...).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// Prometheus accepts the example of its configuration with the rules, and the queries of the
// dashboard. Each alarm does not fire for a healthy node; it fires when it should, and ends.
func TestAlarmRules(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", "--lint-fatal", filepath.Join(prometheusDir, "rules.yaml"))
	promtool(t, "check", "config", "--lint-fatal", filepath.Join(prometheusDir, "prometheus.yaml"))
	promtool(t, "test", "rules", filepath.Join(prometheusDir, "rules_test.yaml"))

	rules := "groups:\n  - name: dashboard\n    rules:\n"
	for i, q := range readDashboard(t) {
		expr := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".+", "$upstream", ".+").Replace(q.expr)
		rules += fmt.Sprintf("      - {record: panel%d, expr: '%s'}\n", i, expr)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	require.NoError(t, os.WriteFile(path, []byte(rules), 0o600))
	promtool(t, "check", "rules", "--lint-fatal", path)
}

// Each alarm has a severity and a duration, says what happened and what to do, leads to a
// section of docs/operation.md, and has a test of its own.
func TestAlarmsSayWhatToDo(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../docs/operation.md")
	require.NoError(t, err)
	_, chapter, found := strings.Cut(string(document), "\n## Something is wrong\n")
	require.True(t, found)
	chapter, _, _ = strings.Cut(chapter, "\n## ")
	var sections []string
	for _, heading := range regexp.MustCompile("(?m)^### (.+)$").FindAllStringSubmatch(chapter, -1) {
		sections = append(sections, strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-"))
	}
	tests, err := os.ReadFile(filepath.Join(prometheusDir, "rules_test.yaml"))
	require.NoError(t, err)
	for _, a := range readAlarms(t) {
		assert.Contains(t, []string{"critical", "warning"}, a.Labels["severity"], a.Alert)
		assert.NotEmpty(t, a.For, a.Alert)
		assert.Contains(t, a.Annotations["summary"], "{{ $labels.instance }}", a.Alert)
		assert.NotEmpty(t, a.Annotations["description"], a.Alert)
		page, section, _ := strings.Cut(a.Annotations["runbook_url"], "#")
		assert.Equal(t, runbook, page, a.Alert)
		assert.Contains(t, sections, section, a.Alert)
		assert.Contains(t, chapter, "`"+a.Alert+"`", "the chapter does not name the alarm")
		assert.Contains(t, string(tests), "\n  - name: "+a.Alert+"\n")
		assert.Equal(t, 3, strings.Count(string(tests), `alertname="`+a.Alert+`",alertstate="firing"}'`), "%s: quiet, fires, ends", a.Alert)
	}
}

// constants returns the values of the constants of a type of strings.
func constants(t *testing.T, dir, typeName string) (values []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if of, ok := spec.Type.(*ast.Ident); ok && of.Name == typeName {
				for _, v := range spec.Values {
					if literal, ok := v.(*ast.BasicLit); ok {
						values = append(values, strings.Trim(literal.Value, `"`))
					}
				}
			}
			return true
		})
	}
	require.NotEmpty(t, values, typeName)
	return values
}

// auditActions returns what the label action can be.
func auditActions(t *testing.T) []string {
	t.Helper()
	return append(constants(t, "../dsapp/gateway", "AuditAction"), constants(t, "../dsapp/seal", "Event")...)
}

// Rare events have a series from the start: otherwise no rule sees the first of them.
func TestRareEventsStartAtZero(t *testing.T) {
	t.Parallel()
	m := newMetricSet()
	for _, tt := range []struct {
		of   prometheus.Collector
		want []string
	}{
		{m.limitHits.total, constants(t, "../dsapp/restapi", "Limit")},
		{m.decisions.total, constants(t, "../dsapp/gateway", "Verdict")},
		{m.audited.total, auditActions(t)},
	} {
		series := make(chan prometheus.Metric, 100)
		tt.of.Collect(series)
		close(series)
		var got []string
		for s := range series {
			var x dto.Metric
			require.NoError(t, s.Write(&x))
			assert.Zero(t, x.GetCounter().GetValue())
			got = append(got, x.GetLabel()[0].GetValue())
		}
		assert.ElementsMatch(t, tt.want, got)
	}
}

// labelValues are the values of the labels whose values are from fixed sets, by metric and
// label.
func labelValues(t *testing.T) map[string][]string {
	t.Helper()
	source, err := os.ReadFile("../dsapp/restapi/status.go")
	require.NoError(t, err)
	codes := []string{labelNone}
	for code := range 600 {
		if name := strings.ReplaceAll(http.StatusText(code), " ", ""); name != "" && strings.Contains(string(source), "http.Status"+name) {
			codes = append(codes, strconv.Itoa(code))
		}
	}
	statuses := []string{labelNone, labelOther}
	for _, s := range restapi.Statuses() {
		statuses = append(statuses, s.Name)
	}
	return map[string][]string{
		"requests_total code":                       codes,
		"requests_total status":                     statuses,
		"limit_hits_total limit":                    constants(t, "../dsapp/restapi", "Limit"),
		"exchange_steps_total step":                 constants(t, "../dsapp/activation", "Step"),
		"exchange_steps_total outcome":              constants(t, "../dsapp/activation", "StepOutcome"),
		"ownership_decisions_total verdict":         constants(t, "../dsapp/gateway", "Verdict"),
		"repeated_calls_total outcome":              constants(t, "../dsapp/gateway", "RepeatOutcome"),
		"audit_events_total action":                 auditActions(t),
		"upstream_attempts_total outcome":           constants(t, "../dsapp/authserver", "AttemptOutcome"),
		"upstream_attempt_duration_seconds command": {soap.AuthUser.String()},
		"upstream_breaker_state state":              constants(t, "../dsapp/breaker", "State"),
		"node_state state":                          constants(t, ".", "healthState"),
		"store_calls_total outcome":                 constants(t, "../dsapp/activation", "StoreOutcome"),
		"sealed_values_opened_total key":            {"first", "older"},
	}
}

var (
	selector  = regexp.MustCompile(`\b(caddy_dsapp_[a-z_]+|up|ALERTS)\b(?:\{([^}]*)\})?`)
	condition = regexp.MustCompile(`^(\w+)(=~|!~|!=|=)"(.*)"$`)
	grouping  = regexp.MustCompile(`\bby \(([^)]*)\)`)
	template  = regexp.MustCompile(`\{\{ ?(?:\$labels\.)?(\w+) ?\}\}`)
)

// problems returns what an expression, and the texts with labels of its results, name and the
// gateway does not export.
func problems(exported, values map[string][]string, expr string, texts ...string) (found []string) {
	missing := func(format string, args ...any) {
		found = append(found, fmt.Sprintf("there is no "+format, args...))
	}
	var labels []string // of the metrics of the expression
	selectors := selector.FindAllStringSubmatch(grouping.ReplaceAllString(expr, ""), -1)
	if len(selectors) == 0 {
		missing("metric in %s", expr)
	}
	for _, m := range selectors {
		name := strings.TrimSuffix(strings.TrimPrefix(m[1], metricsPrefix), "_bucket")
		own, ok := exported[name]
		if !ok {
			missing("metric %s", m[1])
			continue
		}
		own = append([]string{"instance", "job"}, own...)
		if strings.HasSuffix(m[1], "_bucket") {
			own = append(own, "le")
		}
		labels = append(labels, own...)
		if m[2] == "" {
			continue
		}
		for text := range strings.SplitSeq(m[2], ",") {
			c := condition.FindStringSubmatch(text)
			if c == nil || !slices.Contains(own, c[1]) {
				missing("label %s of %s", text, m[1])
				continue
			}
			known, fixed := values[name+" "+c[1]]
			for value := range strings.SplitSeq(c[3], "|") {
				matches := func(v string) bool { return v == value }
				if strings.Contains(c[2], "~") {
					matches = regexp.MustCompile("^(?:" + value + ")$").MatchString
				}
				if fixed && !slices.ContainsFunc(known, matches) {
					missing("value %s of %s of %s", value, c[1], m[1])
				}
			}
			if !fixed && !slices.Contains([]string{"instance", "job", "upstream", "alertname", "alertstate"}, c[1]) {
				missing("set of the values of %s of %s", c[1], m[1])
			}
		}
	}
	left := labels
	for i, m := range grouping.FindAllStringSubmatch(expr, -1) {
		if i == 0 {
			left = nil
		}
		for label := range strings.SplitSeq(m[1], ", ") {
			left = append(left, label)
			if !slices.Contains(labels, label) {
				missing("label %s to group by in %s", label, expr)
			}
		}
	}
	for _, text := range texts {
		for _, m := range template.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(left, m[1]) {
				missing("label %s in the result of %s", m[1], expr)
			}
		}
	}
	return found
}

// exportedLabels returns the labels of every metric, without the prefix of the names, and of
// what Prometheus itself adds.
func exportedLabels() map[string][]string {
	exported := map[string][]string{"up": nil, "ALERTS": {"alertname", "alertstate", "upstream", "limit"}}
	for name, labels := range describedMetrics() {
		exported[strings.TrimPrefix(name, metricsPrefix)] = labels
	}
	return exported
}

// The alarms and the dashboard name only metrics, labels and values of labels that the gateway
// exports.
func TestAlarmsAndDashboardNameWhatIsExported(t *testing.T) {
	t.Parallel()
	exported, values := exportedLabels(), labelValues(t)
	for _, a := range readAlarms(t) {
		assert.Empty(t, problems(exported, values, a.Expr, a.Annotations["summary"], a.Annotations["description"]), a.Alert)
	}
	shown := make(map[string]bool)
	for _, q := range readDashboard(t) {
		assert.Empty(t, problems(exported, values, q.expr, q.legend), q.panel)
		for _, m := range selector.FindAllStringSubmatch(q.expr, -1) {
			shown[strings.TrimSuffix(strings.TrimPrefix(m[1], metricsPrefix), "_bucket")] = true
		}
	}
	for name := range exported {
		assert.True(t, shown[name], "the dashboard does not show %s", name)
	}
}

// What the test above finds, so that it does not pass because it looks at nothing.
func TestProblemsOfQueries(t *testing.T) {
	t.Parallel()
	exported, values := exportedLabels(), labelValues(t)
	for _, tt := range []struct {
		expr, text string
		problems   int
	}{
		{`sum by (job, instance) (rate(caddy_dsapp_requests_total{code=~"5..",status!="STAT_SUCCESS"}[5m])) > 1`, "{{ $labels.instance }} {{job}}", 0},
		{`histogram_quantile(0.9, sum by (le, step) (caddy_dsapp_exchange_step_duration_seconds_bucket))`, "{{step}}", 0},
		{`caddy_dsapp_store_ready == 0`, "{{ $labels.instance }}", 0},
		{`caddy_dsapp_nothing`, "", 1},
		{`caddy_dsapp_requests_total{verdict="foreign"}`, "", 1},
		{`caddy_dsapp_ownership_decisions_total{verdict=~"foreign|strange"}`, "", 1},
		{`caddy_dsapp_requests_total{code="299"}`, "", 1},
		{`caddy_dsapp_requests_total{service="authentication/authUser"}`, "", 1},
		{`sum by (upstream) (caddy_dsapp_requests_total)`, "{{code}}", 2},
		{`vector(1)`, "", 1},
	} {
		assert.Len(t, problems(exported, values, tt.expr, tt.text), tt.problems, tt.expr)
	}
}
