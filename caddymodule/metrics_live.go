package caddymodule

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// Metrics that mirror the state of the running gateway.
var (
	computingDesc = liveDesc("exchanges_computing", "Calls of activation exchanges and registrations that are being computed.")
	waitingDesc   = liveDesc("exchanges_waiting", "Calls of activation exchanges that were admitted and are not being computed.")
	exchangeDesc  = liveDesc("exchange_info", "The profiles in use, and the kernels that compute them.", "profile", "kernel")

	connectionsDesc = liveDesc("upstream_connections", "Commands in progress on an authentication server.", "upstream")
	queueDesc       = liveDesc("upstream_queue", "Commands that wait for a connection to an authentication server.", "upstream")
	breakerDesc     = liveDesc("upstream_breaker_state", "1 for the state in which the breaker of an authentication server is, else 0.", "upstream", "state")
	drainedDesc     = liveDesc("upstream_drained", "1 if an authentication server is drained on this node, else 0.", "upstream")

	nodeDesc = liveDesc("node_state", "1 for the state in which the node is, else 0.", "state")

	storeReadyDesc    = liveDesc("store_ready", "1 if the store works, else 0.")
	registrationsDesc = liveDesc("store_registrations", "Registrations in the embedded store, including burned and expired ones that are not removed yet.")
	fileSizeDesc      = liveDesc("store_file_size_bytes", "Size of the file of the embedded store.")
)

// liveDescs are the descriptions of all metrics of a liveCollector.
var liveDescs []*prometheus.Desc

func liveDesc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(metricsPrefix+name, help, labels, nil)
	liveDescs = append(liveDescs, d)
	return d
}

// liveCollector asks the running gateway for its state whenever metrics are read. There are
// none while no gateway runs.
type liveCollector struct{}

// Describe implements prometheus.Collector.
func (liveCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range liveDescs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (liveCollector) Collect(to chan<- prometheus.Metric) {
	a := startedApps.latest()
	if a == nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	if len(a.Activation.profiles) > 0 {
		computing, waiting := a.activation.Load()
		gauge(computingDesc, float64(computing))
		gauge(waitingDesc, float64(waiting))
	}
	for _, profile := range a.Activation.profiles {
		kernel := ""
		if named, ok := profile.(interface{ Kernel() string }); ok {
			kernel = named.Kernel()
		}
		gauge(exchangeDesc, 1, profile.Name(), kernel)
	}
	for _, in := range a.AuthenticationServers.servers.Instances() {
		gauge(connectionsDesc, float64(in.InUse), in.Name)
		gauge(queueDesc, float64(in.Queued), in.Name)
		for _, state := range []breaker.State{breaker.StateClosed, breaker.StateOpen, breaker.StateHalfOpen} {
			gauge(breakerDesc, truth(in.Breaker == state), in.Name, string(state))
		}
		gauge(drainedDesc, truth(in.Drained), in.Name)
	}
	node := a.health().State
	for _, state := range []healthState{stateReady, stateDegraded, stateUnready, stateDraining} {
		gauge(nodeDesc, truth(node == state), string(state))
	}
	gauge(storeReadyDesc, truth(a.checkStore().OK))
	if store, ok := a.store.(*EmbeddedStore); ok {
		if registrations, size, open := store.usage(); open {
			gauge(registrationsDesc, float64(registrations))
			gauge(fileSizeDesc, float64(size))
		}
	}
}

// truth is 1 for true and 0 for false.
func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

var _ prometheus.Collector = liveCollector{}
