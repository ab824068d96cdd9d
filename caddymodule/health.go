package caddymodule

import (
	"cmp"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

func init() {
	caddy.RegisterModule(new(HealthHandler))
}

// Health says when the node counts as ready to get requests. The handler `dsapp_health` and
// `/dsapp/health/ready` on the admin endpoint answer with status 200 while it is, and with
// 503 otherwise.
type Health struct {
	// Whether the node is ready only while the store works: `require`, or `report`, with
	// which the node stays ready and its state is `degraded`. What needs no store, such as
	// one-time passwords and retrievals, goes on while the store is down. With `require`
	// and a store that several nodes use, all nodes stop getting requests when the store
	// fails. Default: `require` with the `embedded` store, `report` with `redis`.
	Store string `json:"store,omitempty"`

	// How many authentication servers must work, which means that their breakers are not
	// open: `any`, at least one, or `all`. Drained instances do not count, unless all are
	// drained. With `all`, one instance that fails takes every node out of the balancer.
	// Default: `any`.
	Instances string `json:"instances,omitempty"`
}

// Values of the options of Health.
const (
	healthRequire = "require"
	healthReport  = "report"
	healthAny     = "any"
	healthAll     = "all"
)

// setDefaults fills in what is not configured, and checks the rest.
func (h *Health) setDefaults(store Store) error {
	byStore := healthRequire
	if _, ok := store.(*RedisStore); ok {
		byStore = healthReport
	}
	h.Store = cmp.Or(h.Store, byStore)
	h.Instances = cmp.Or(h.Instances, healthAny)
	return cmp.Or(
		option.Either("store", h.Store, healthRequire, healthReport),
		option.Either("instances", h.Instances, healthAny, healthAll),
	)
}

// healthState is the state of a node in one word.
type healthState string

const (
	// stateReady: everything works.
	stateReady healthState = "ready"
	// stateDegraded: the node is ready although something does not work.
	stateDegraded healthState = "degraded"
	// stateUnready: something does not work that the node needs.
	stateUnready healthState = "unready"
	// stateDraining: the node goes on serving and is to get no more requests.
	stateDraining healthState = "draining"
)

// drainedSince is when the node was drained, nil if it is not. It belongs to the process, so
// that a reload does not end it.
var drainedSince atomic.Pointer[time.Time]

// drainNode drains the node, or ends that.
func drainNode(drain bool) {
	if !drain {
		drainedSince.Store(nil)
		return
	}
	now := time.Now()
	drainedSince.CompareAndSwap(nil, &now)
}

// health returns the state of the node, from what is known anyway: it makes no call.
func (a *App) health() health {
	var h health
	drain := Check{Name: "drain", OK: !caddy.Exiting()}
	if since := drainedSince.Load(); since != nil {
		drain.OK, drain.Since = false, *since
	}
	if !drain.OK {
		drain.Detail = "the node is draining"
	}
	store := a.checkStore()
	h.Checks = append(h.Checks, drain, store)
	instances, working, failing := a.checkInstances()
	h.Checks = append(h.Checks, instances...)

	switch {
	case !drain.OK:
		h.State = stateDraining
	case !store.OK && a.Health.Store == healthRequire,
		working == 0,
		failing > 0 && a.Health.Instances == healthAll:
		h.State = stateUnready
	case !store.OK, failing > 0:
		h.State, h.Ready = stateDegraded, true
	default:
		h.State, h.Ready = stateReady, true
	}
	return h
}

// checkStore returns the check of the store.
func (a *App) checkStore() Check {
	c := Check{Name: "store", OK: true}
	var err error
	c.Since, err = a.store.Ready()
	if err == nil {
		if failed := a.prepareFailure.Load(); failed != nil {
			c.Since, err = failed.since, failed.err
		}
	}
	if err != nil {
		c.OK, c.Detail = false, err.Error()
	}
	return c
}

// checkInstances returns a check for each authentication server, and how many of those that
// count work and how many do not.
func (a *App) checkInstances() (checks []Check, working, failing int) {
	instances := a.AuthenticationServers.servers.Instances()
	drained := 0
	for _, in := range instances {
		if in.Drained {
			drained++
		}
	}
	for _, in := range instances {
		checks = append(checks, checkInstance(in))
		switch {
		case in.Drained && drained < len(instances):
		case in.Working:
			working++
		default:
			failing++
		}
	}
	return checks, working, failing
}

func checkInstance(in authserver.Status) Check {
	c := Check{Name: "instance " + in.Name, OK: in.Working, Since: in.BreakerSince}
	if in.Breaker != breaker.StateClosed {
		c.Detail = "the circuit breaker is " + string(in.Breaker)
	}
	if in.Drained {
		if c.Detail != "" {
			c.Detail += "; "
		}
		c.Detail += "drained"
	}
	return c
}

// serveLive answers that the process serves.
func serveLive(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, map[string]bool{"live": true})
}

// serveReady answers with the state of the node. Without an active configuration, the
// process has just begun to start, or it stops.
func serveReady(w http.ResponseWriter, _ *http.Request) error {
	h := health{State: stateDraining}
	if a := activeApp(); a != nil {
		h = a.health()
	} else if caddy.ActiveContext().Context != nil {
		h.State, h.Checks = stateUnready, []Check{{Name: "configuration", Detail: "the configuration has no app dsapp"}}
	}
	return writeJSON(w, h.status(), h)
}

// status returns the HTTP status for the state.
func (h health) status() int {
	if h.Ready {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

// HealthHandler answers the health checks of load balancers. It has no options and needs no
// API key.
//
// The answer is 200 with the word `ready` or `degraded`, or 503 with `unready` or `draining`.
// It is `draining` while the node is drained and while the server stops, see `shutdown_delay`
// of the app `http`. The details are on the admin endpoint. Nothing is called for an answer,
// so that checks can be as frequent as necessary.
type HealthHandler struct {
	app *App
}

// CaddyModule returns the Caddy module information.
func (*HealthHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.dsapp_health",
		New: func() caddy.Module { return new(HealthHandler) },
	}
}

// Provision finds the app.
func (h *HealthHandler) Provision(ctx caddy.Context) error {
	app, err := ctx.AppIfConfigured(appName)
	if err != nil {
		return err
	}
	h.app = app.(*App)
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *HealthHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return caddyhttp.Error(http.StatusMethodNotAllowed, nil)
	}
	state := h.app.current(w).health()
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		if stopping, _ := repl.Get("http.shutting_down"); stopping == true {
			state = health{State: stateDraining}
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(state.status())
	_, err := io.WriteString(w, string(state.State)+"\n")
	return err
}

var (
	_ caddy.Provisioner           = (*HealthHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*HealthHandler)(nil)
)
