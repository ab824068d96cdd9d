package caddymodule

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
)

// The events for which operators configure handlers of Caddy's app `events`, beside
// gateway.AuditRegistrationBurned, seal.EventUnopened and seal.EventDamaged, which have the
// same names as in the audit log.
const (
	eventBreakerOpened = "breaker_opened"
	eventBreakerClosed = "breaker_closed"
	eventStoreLost     = "store_lost"
	eventStoreBack     = "store_back"
)

const (
	// maxQueuedEvents is how many events can wait for handlers.
	maxQueuedEvents = 256
	// flushTimeout is how long a stop waits for the handlers of the waiting events.
	flushTimeout = time.Second
	// storeCheckInterval is the time between two checks of the store. Two in a row have to
	// fail before the store counts as lost: when a configuration starts, the store may need
	// a moment until it is open.
	storeCheckInterval = time.Second
	lostAfterChecks    = 2
)

// event is an event that waits for its handlers.
type event struct {
	name string
	data map[string]any
	// reached is not nil in a mark, which is no event: it is closed when all that was queued
	// before has been delivered.
	reached chan struct{}
}

// eventQueue has the events that wait. It belongs to the process, so that a reload loses none:
// each configuration delivers while it runs, and always to the handlers of the latest one. A
// handler that never returns thus delays events only until the next reload.
var eventQueue = make(chan event, maxQueuedEvents)

// storeLost says that the loss of the store was told and its return was not. It belongs to the
// process, so that a reload tells neither again.
var storeLost atomic.Bool

// emitEvent queues an event, with the texts that are not empty and the ID of the request that
// ctx belongs to. It does not wait: if the queue is full or no configuration runs, the event
// is dropped and counted.
func emitEvent(ctx context.Context, name string, texts ...text) {
	data := make(map[string]any)
	if c := correlationOf(ctx); c != nil {
		data[requestIDField] = c.requestID
	}
	for _, t := range texts {
		if t.value != "" {
			data[t.name] = t.value
		}
	}
	if startedApps.latest() != nil {
		select {
		case eventQueue <- event{name: name, data: data}:
			return
		default:
		}
	}
	metrics.eventsDropped.Inc()
}

// emitBreakerChange emits that the breaker of an instance opened or closed.
func emitBreakerChange(ctx context.Context, b authserver.BreakerChange) {
	name := eventBreakerClosed
	if b.Opened {
		name = eventBreakerOpened
	}
	emitEvent(ctx, name, text{"instance", b.Instance})
}

// deliverEvents delivers the queued events, one after the other, until ctx ends.
func deliverEvents(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-eventQueue:
			e.deliver()
		}
	}
}

// deliver calls the handlers that the latest configuration has for the event.
func (e event) deliver() {
	if e.reached != nil {
		close(e.reached)
		return
	}
	a := startedApps.latest()
	if a == nil || a.ctx.Err() != nil {
		metrics.eventsDropped.Inc()
		return
	}
	defer func() {
		// A defect of a handler must not end the process.
		if p := recover(); p != nil {
			a.logger.Error("panic in the handler of an event", slog.String("event", e.name), slog.String("type", fmt.Sprintf("%T", p)))
		}
	}()
	a.events.Emit(a.ctx, e.name, e.data)
}

// flushEvents waits until all events that are in the queue have been delivered, at most for
// flushTimeout.
func flushEvents() {
	timeout := time.After(flushTimeout)
	mark := event{reached: make(chan struct{})}
	select {
	case eventQueue <- mark:
	case <-timeout:
		return
	}
	select {
	case <-mark.reached:
	case <-timeout:
	}
}

// watchStore emits that the store is lost and that it works again, until ctx ends.
func (a *App) watchStore(ctx context.Context) {
	checks := time.NewTicker(storeCheckInterval)
	defer checks.Stop()
	failed := 0 // in a row
	for {
		select {
		case <-ctx.Done():
			return
		case <-checks.C:
		}
		// The stores of two configurations can differ while one replaces the other.
		if startedApps.latest() != a {
			continue
		}
		if a.checkStore().OK {
			failed = 0
			a.emitStore(eventStoreBack, false)
		} else if failed++; failed >= lostAfterChecks {
			a.emitStore(eventStoreLost, true)
		}
	}
}

// emitStore emits that the store was lost or is back, unless that was told before.
func (a *App) emitStore(name string, lost bool) {
	if storeLost.CompareAndSwap(!lost, lost) {
		emitEvent(context.Background(), name, text{"backend", a.store.(caddy.Module).CaddyModule().ID.Name()})
	}
}
