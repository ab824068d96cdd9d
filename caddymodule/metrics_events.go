package caddymodule

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// countedEvents are the metrics of one kind of event. They keep the series that they have found:
// Prometheus locks and hashes all labels to find one, and a request has some ten events.
type countedEvents struct {
	total *prometheus.CounterVec
	// duration is nil for events that take no time. Its labels are the first durationLabels
	// of those of total.
	duration       *prometheus.HistogramVec
	durationLabels int

	// found is copied for each change, so that reading it needs no lock.
	found    atomic.Pointer[map[eventLabels]eventSeries]
	changing sync.Mutex
}

// eventLabels are the values of the labels of an event. Those that it does not have are empty.
type eventLabels [3]string

// eventSeries are the series of the events with the same labels.
type eventSeries struct {
	total    prometheus.Counter
	duration prometheus.Observer // nil for events that take no time
}

// happened counts an event.
func (e *countedEvents) happened(labels ...string) { e.series(labels...).total.Inc() }

// took counts an event with its duration.
func (e *countedEvents) took(d time.Duration, labels ...string) {
	s := e.series(labels...)
	s.total.Inc()
	s.duration.Observe(d.Seconds())
}

// series returns the series with the values of all labels. It makes those that do not exist.
func (e *countedEvents) series(labels ...string) eventSeries {
	var key eventLabels
	copy(key[:], labels)
	if found := e.found.Load(); found != nil {
		if s, ok := (*found)[key]; ok {
			return s
		}
	}
	values := slices.Clone(labels)
	s := eventSeries{total: e.total.WithLabelValues(values...)}
	if e.duration != nil {
		s.duration = e.duration.WithLabelValues(values[:e.durationLabels]...)
	}
	e.change(func(found map[eventLabels]eventSeries) { found[key] = s })
	return s
}

// forget removes the series of which the first label, with that name, has the value. No event
// with it may happen meanwhile.
func (e *countedEvents) forget(name, value string) {
	labels := prometheus.Labels{name: value}
	e.total.DeletePartialMatch(labels)
	e.duration.DeletePartialMatch(labels)
	e.change(func(found map[eventLabels]eventSeries) {
		maps.DeleteFunc(found, func(l eventLabels, _ eventSeries) bool { return l[0] == value })
	})
}

// change changes a copy of what was found.
func (e *countedEvents) change(change func(found map[eventLabels]eventSeries)) {
	e.changing.Lock()
	defer e.changing.Unlock()
	next := make(map[eventLabels]eventSeries)
	if found := e.found.Load(); found != nil {
		maps.Copy(next, *found)
	}
	change(next)
	e.found.Store(&next)
}
