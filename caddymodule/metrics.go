package caddymodule

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// metricsPrefix is the beginning of the names of all metrics.
const metricsPrefix = "caddy_dsapp_"

// Values of labels for what has none of the fixed values.
const (
	// labelNone stands for the service of a path that is none, and for the code and the
	// status of a request that the next handler answered.
	labelNone = "none"
	// labelOther stands for a status that is not documented.
	labelOther = "other"
)

// Buckets of the histograms, in seconds. Logins that wait for a person take as long as an
// authentication server lets them; an exchange computes for milliseconds.
var (
	requestBuckets = []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	stepBuckets    = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	storeBuckets   = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
)

// metrics are the metrics of the process. Caddy makes a registry for each configuration, and
// they are registered with all of them, so that a reload loses no value.
var metrics = newMetricSet()

// metricSet has all metrics. No label has a value from a client or a server: each comes from
// a fixed set or, for upstream and profile, from the configuration.
type metricSet struct {
	requests  *countedEvents
	inFlight  prometheus.Gauge
	limitHits *countedEvents

	steps    *countedEvents
	profiles configuredNames

	decisions *countedEvents
	audited   *countedEvents

	attempts  *countedEvents
	upstreams configuredNames

	repeats     *countedEvents
	storeCalls  *countedEvents
	openedFirst prometheus.Counter
	openedOlder prometheus.Counter

	eventsDropped prometheus.Counter

	statuses map[string]struct{} // the documented ones

	collectors []prometheus.Collector
}

func newMetricSet() *metricSet {
	m := &metricSet{statuses: make(map[string]struct{})}
	for _, status := range restapi.Statuses() {
		m.statuses[status.Name] = struct{}{}
	}
	m.requests = m.count("requests_total", "Requests, by service, HTTP status code and status.", "service", "code", "status")
	m.observe(m.requests, "request_duration_seconds", "Time from the end of a request's header to the end of its answer.", requestBuckets, "service")
	m.inFlight = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: metricsPrefix + "requests_in_flight", Help: "Requests in progress, including those that the next handler answers.",
	})
	m.limitHits = m.count("limit_hits_total", "Requests that were refused because they exceeded a limit.", "limit")
	m.steps = m.count("exchange_steps_total", "Calls of activation exchanges that the gateway carried out itself.", "profile", "step", "outcome")
	m.observe(m.steps, "exchange_step_duration_seconds", "Duration of calls of activation exchanges, with store and waiting.", stepBuckets, "profile", "step")
	m.decisions = m.count("ownership_decisions_total", "Decisions about the ownership of pending requests.", "verdict")
	m.repeats = m.count("repeated_calls_total", "Calls that came before, by what their client got: the answer of the first call or why there was none.", "outcome")
	m.audited = m.count("audit_events_total", "Events of the audit log, and stored values that cannot be used.", "action")
	m.attempts = m.count("upstream_attempts_total", "Attempts to carry out a command on an authentication server.", "upstream", "command", "outcome")
	m.observe(m.attempts, "upstream_attempt_duration_seconds", "Duration of attempts, with the time in the queue.", requestBuckets, "upstream", "command")
	m.storeCalls = m.count("store_calls_total", "Calls of the store.", "call", "outcome")
	m.observe(m.storeCalls, "store_call_duration_seconds", "Duration of calls of the store.", storeBuckets, "call")
	opened := m.count("sealed_values_opened_total", "Stored values that were decrypted, by whether the first or an older sealing key did.", "key")
	m.openedFirst, m.openedOlder = opened.series("first").total, opened.series("older").total
	m.eventsDropped = prometheus.NewCounter(prometheus.CounterOpts{
		Name: metricsPrefix + "events_dropped_total", Help: "Events for the handlers of operators that were not delivered because too many others waited.",
	})
	m.collectors = append(m.collectors, m.inFlight, m.eventsDropped, liveCollector{})
	m.startAtZero()
	return m
}

// startAtZero makes the series of events that can be rare. Prometheus takes the first value of
// a series for its beginning: without a 0 before it, a rule does not see the first event.
func (m *metricSet) startAtZero() {
	for _, limit := range []restapi.Limit{
		restapi.LimitFailedKeys, restapi.LimitExchanges, restapi.LimitCalls, restapi.LimitRegistrations, restapi.LimitRequestsInFlight,
		restapi.LimitCallsInFlight, restapi.LimitBusy,
	} {
		m.limitHits.series(string(limit))
	}
	for _, verdict := range []gateway.Verdict{
		gateway.VerdictOwned, gateway.VerdictUnknown, gateway.VerdictBlind, gateway.VerdictAlreadyOwned, gateway.VerdictForeign,
		gateway.VerdictRefusedPlain, gateway.VerdictRefusedUnknown, gateway.VerdictClaimed, gateway.VerdictLost, gateway.VerdictUnowned,
	} {
		m.decisions.series(string(verdict))
	}
	for _, outcome := range []gateway.RepeatOutcome{
		gateway.RepeatAnswered, gateway.RepeatUnknown, gateway.RepeatTimeout, gateway.RepeatUnreadable, gateway.RepeatAbandoned,
		gateway.RepeatUnderWay, gateway.RepeatOtherBody,
	} {
		m.repeats.series(string(outcome))
	}
	for _, action := range []gateway.AuditAction{
		gateway.AuditRegistered, gateway.AuditRegisteredOffline, gateway.AuditRegistrationRefused, gateway.AuditRegistrationLost,
		gateway.AuditIdentifierExists, gateway.AuditExchangeContended, gateway.AuditProven, gateway.AuditProofRefused, gateway.AuditRegistrationBurned,
		gateway.AuditDeviceAdded, gateway.AuditDeviceRefused, gateway.AuditActivated, gateway.AuditConfirmationRefused, gateway.AuditAuthenticated,
		gateway.AuditAuthenticationRefused, gateway.AuditRetrieved, gateway.AuditRequestLost, gateway.AuditCompleted, gateway.AuditCompletionRefused,
		gateway.AuditCancelled, gateway.AuditCancelRefused, gateway.AuditRepeated, gateway.AuditNotificationIDUpdated, gateway.AuditNotificationIDRefused,
	} {
		m.audited.series(string(action))
	}
	for _, event := range []seal.Event{seal.EventUnopened, seal.EventDamaged} {
		m.audited.series(string(event))
	}
}

// count makes the metric that counts events.
func (m *metricSet) count(name, help string, labels ...string) *countedEvents {
	e := &countedEvents{total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: metricsPrefix + name, Help: help}, labels)}
	m.collectors = append(m.collectors, e.total)
	return e
}

// observe adds the metric that says how long events took. Its labels are the first ones of that
// which counts them.
func (m *metricSet) observe(e *countedEvents, name, help string, buckets []float64, labels ...string) {
	e.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: metricsPrefix + name, Help: help, Buckets: buckets}, labels)
	e.durationLabels = len(labels)
	m.collectors = append(m.collectors, e.duration)
}

// Describe implements prometheus.Collector.
func (m *metricSet) Describe(to chan<- *prometheus.Desc) {
	for _, c := range m.collectors {
		c.Describe(to)
	}
}

// Collect implements prometheus.Collector.
func (m *metricSet) Collect(to chan<- prometheus.Metric) {
	for _, c := range m.collectors {
		c.Collect(to)
	}
}

// registerMetrics registers the metrics with the registry of a configuration, unless that was
// done already.
//
// The app and the module of the admin endpoint both do. If a configuration is rejected, the
// admin endpoint keeps the registry of that configuration, with which its app may not have
// come to register anything.
func registerMetrics(r *prometheus.Registry) error {
	err := r.Register(metrics)
	if _, done := errors.AsType[prometheus.AlreadyRegisteredError](err); done {
		return nil
	}
	return err
}

// request counts a request.
func (m *metricSet) request(o restapi.Observation) {
	service, code, status := o.Service, labelNone, labelNone
	if service == "" {
		service = labelNone
	}
	if o.Outcome != restapi.PassedOn {
		code, status = strconv.Itoa(o.HTTPStatus), o.Status
		if _, ok := m.statuses[status]; !ok {
			status = labelOther
		}
	}
	m.requests.took(o.Duration, service, code, status)
	if o.Limit != "" {
		m.limitHits.happened(string(o.Limit))
	}
}

// step counts a call of an exchange. It does not count those of a replaced configuration with a
// profile that no loaded configuration has.
func (m *metricSet) step(_ context.Context, e activation.StepEvent) {
	m.profiles.whileUsed(e.Profile, func() {
		m.steps.took(e.Duration, e.Profile, string(e.Step), string(e.Outcome))
	})
}

// repeated counts a call that came before.
func (m *metricSet) repeated(_ context.Context, e gateway.RepeatEvent) {
	m.repeats.happened(string(e.Outcome))
}

// decision counts a decision about the ownership of a request.
func (m *metricSet) decision(e gateway.OwnershipEvent) {
	m.decisions.happened(string(e.Verdict))
}

// audit counts an event of the audit log.
func (m *metricSet) audit(e gateway.AuditEvent) { m.audited.happened(string(e.Action)) }

// alarm counts a stored value that cannot be used.
func (m *metricSet) alarm(e seal.Event) { m.audited.happened(string(e)) }

// storeCall counts a call of a store.
func (m *metricSet) storeCall(_ context.Context, c activation.StoreCall) {
	m.storeCalls.took(c.Duration, c.Call, string(c.Outcome))
}

// opened counts a stored value that was decrypted.
func (m *metricSet) opened(first bool) {
	if first {
		m.openedFirst.Inc()
		return
	}
	m.openedOlder.Inc()
}

// attempt counts an attempt at an instance. It does not count those of a replaced
// configuration at an instance that no loaded configuration has.
func (m *metricSet) attempt(_ context.Context, a authserver.Attempt) {
	m.upstreams.whileUsed(a.Instance, func() {
		m.attempts.took(a.Duration, a.Instance, a.Command, string(a.Outcome))
	})
}

// releaseUpstreams removes the instances of a configuration, and the series of those that no
// other configuration has.
func (m *metricSet) releaseUpstreams(names []string) {
	m.upstreams.release(names, func(name string) { m.attempts.forget("upstream", name) })
}

// releaseProfiles removes the profiles of a configuration, and the series of those that no
// other configuration has.
func (m *metricSet) releaseProfiles(names []string) {
	m.profiles.release(names, func(name string) { m.steps.forget("profile", name) })
}

// configuredNames are the values that all loaded configurations give to a label.
type configuredNames struct {
	mu   sync.RWMutex
	uses map[string]int // by how many configurations
}

// acquire adds the names of a configuration. release removes them.
func (n *configuredNames) acquire(names []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.uses == nil {
		n.uses = make(map[string]int)
	}
	for _, name := range names {
		n.uses[name]++
	}
}

// release removes the names of a configuration. It calls forget for those that no other
// configuration has.
func (n *configuredNames) release(names []string, forget func(name string)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		if n.uses[name]--; n.uses[name] > 0 {
			continue
		}
		delete(n.uses, name)
		forget(name)
	}
}

// whileUsed calls f if a loaded configuration has the name. The name is not forgotten meanwhile.
func (n *configuredNames) whileUsed(name string, f func()) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.uses[name] > 0 {
		f()
	}
}

var _ prometheus.Collector = (*metricSet)(nil)
