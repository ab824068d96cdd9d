// Package caddymodule plugs the gateway into Caddy: an app that is the gateway,
// an HTTP handler that serves its REST services, and the stores it keeps its
// state in.
package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

func init() {
	caddy.RegisterModule(new(App))
}

const appName = "dsapp"

const (
	// prepareTimeout bounds one attempt at the preparations after a start.
	prepareTimeout = 10 * time.Second
	// prepareInterval is the pause after an attempt that failed.
	prepareInterval = 10 * time.Second
)

// App is a gateway between mobile applications, a solution's own servers and the
// authentication servers. It does nothing by itself: handlers
// `http.handlers.dsapp_gateway` on any site serve it.
//
// Fields that accept placeholders take global ones such as `{env.NAME}` and
// `{file./path}`. They are resolved when the configuration is loaded; what they
// stand for appears neither in the configuration that Caddy shows nor in logs.
// After a file they name has changed, use `caddy reload --force`.
type App struct {
	// The keys that open the services. At least one is required.
	APIKeys []APIKey `json:"api_keys,omitempty"`

	// The keys that seal what the store holds, 64 hexadecimal digits each, e.g.
	// from `openssl rand -hex 32`. The first one seals, all of them open. Whoever
	// has a key and the store can read pending activation data. Accepts
	// placeholders.
	//
	// To change the key: add the new one as the last on every node; then move it to
	// the front on every node. Each seals the secret that the store keeps anew when
	// it starts, unless another did, and the one that does logs it. Remove the old
	// key after the longest lifetime: `registration_lifetime` and 10 minutes,
	// `handshake_lifetime`, or `lifetime` of `requests`.
	//
	// Keep a backup of the keys, apart from the store. Without the key that sealed
	// it a store cannot be used at all any more, not even for new registrations:
	// every activation service answers with status 503, and what was retrieved
	// before can be neither completed nor cancelled, until the key is back or the
	// store is emptied.
	//
	// Required for stores that are shared. The embedded store makes a key beside
	// its file if none is configured.
	SealingKeys []string `json:"sealing_keys,omitempty"`

	// Where registrations, handshakes and the ownership of pending requests are
	// kept. Default: the `embedded` store.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=dsapp.stores inline_key=backend"`

	// The authentication servers. Required.
	AuthenticationServers AuthenticationServers `json:"authentication_servers,omitzero"`

	// How phones are activated.
	Activation Activation `json:"activation,omitzero"`

	// What is remembered about pending logins and signatures.
	Requests Requests `json:"requests,omitzero"`

	// Limits that protect the gateway.
	Limits Limits `json:"limits,omitzero"`

	// Numbers of statuses that the vendor does not publish.
	StatusCodes StatusCodes `json:"status_codes,omitzero"`

	logger   *slog.Logger
	store    Store
	service  *activation.Service
	counters *counters
	counts   *counts
	handler  *restapi.Handler
	stopped  atomic.Bool
	cancel   context.CancelFunc // ends what started began
}

// startedApps tells which app serves the requests of one that was stopped.
var startedApps succession[*App]

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  appName,
		New: func() caddy.Module { return new(App) },
	}
}

// UnmarshalJSON decodes the options. Errors name their paths.
func (a *App) UnmarshalJSON(data []byte) error {
	type options App
	return decodeConfig(data, (*options)(a))
}

// Provision checks the configuration and builds the gateway. It opens nothing:
// neither the store nor a connection.
func (a *App) Provision(ctx caddy.Context) error {
	logger := newLogger(ctx)
	a.logger = logger
	keys, err := newKeySet(a.APIKeys)
	if err != nil {
		return err
	}
	sealingKeys, err := resolveSealingKeys(a.SealingKeys)
	if err != nil {
		return err
	}
	if err := a.loadStore(ctx); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := a.store.CheckSealingKeys(len(sealingKeys)); err != nil {
		return option.In("sealing_keys", err)
	}
	addresses, err := a.Limits.addresses()
	if err != nil {
		return option.In("limits", err)
	}
	if a.counts, err = a.Limits.counts(); err != nil {
		return option.In("limits", err)
	}
	if a.counters, err = acquireCounters(a.counts); err != nil {
		return option.In("limits", err)
	}
	servers, err := a.AuthenticationServers.open(ctx, logger.With(slog.String("component", "authserver")))
	if err != nil {
		return option.In("authentication_servers", err)
	}
	observer := &auditLog{logger: ctx.Logger().Named("audit")}
	store := &keyedStore{module: a.store, configured: sealingKeys}
	exchange, err := a.Activation.config()
	if err != nil {
		return option.In("activation", err)
	}
	exchange.Open = store.registrations
	exchange.MaxExchanges = a.Limits.MaxExchanges
	exchange.Logger = logger
	exchange.Alarm = observer.Alarm
	if a.service, err = activation.New(exchange); err != nil {
		return inSection("activation", err)
	}
	owners, err := ownership.New(ownership.Config{
		Open:        store.claims,
		Lifetime:    time.Duration(a.Requests.Lifetime),
		Unknown:     ownership.UnknownRequests(a.Requests.Unknown),
		PlainCancel: ownership.PlainCancels(a.Requests.PlainCancel),
		Logger:      logger,
		Alarm:       observer.Alarm,
	})
	if err != nil {
		return option.In("requests", err)
	}
	gatewayID, err := resolve(a.Activation.GatewayID)
	if err != nil {
		return option.In("activation.gateway_id", err)
	}
	operations, err := gateway.New(gateway.Config{
		Activation:           a.service,
		Ownership:            owners,
		Servers:              servers,
		Exchange:             gateway.Exchange(a.Activation.Exchange),
		GatewayID:            gatewayID,
		UnknownRegistrations: gateway.UnknownRegistrations(a.Activation.Unknown),
		HideUnknownUsers:     a.Activation.HideUnknownUsers,
		NoSupportCode:        a.StatusCodes.NoSupport,
		Decided:              observer.Ownership,
		Audit:                observer.Audit,
		Logger:               logger,
	})
	if err != nil {
		return inSection("activation", err)
	}
	a.handler, err = restapi.New(restapi.Config{
		Operations:  operations,
		Keys:        keys,
		MaxBodySize: a.Limits.MaxBodySize,
		BodyTimeout: time.Duration(a.Limits.BodyTimeout),
		Limits: restapi.Limits{
			FailedKeys:    a.counters.failedKeys,
			Exchanges:     a.counters.exchanges,
			Proofs:        a.counters.proofs,
			Registrations: a.counters.registrations,
			Calls:         a.counters.calls,

			RequestsInFlight: inFlight{&a.counters.requestsInFlight, a.counts.requestsInFlight},
			CallsInFlight:    inFlight{&a.counters.callsInFlight, a.counts.callsInFlight},
		},
		RelayedExchange: gateway.Exchange(a.Activation.Exchange) == gateway.ExchangeRelay,

		ClientIP:      clientIP,
		Source:        addresses.Source,
		Authenticated: setUser,
		Observe:       setLogFields,
		Logger:        logger,
	})
	if err != nil {
		return option.In("limits", err)
	}
	return a.subscribe(ctx)
}

// inSection is the error of a package most of whose options are in section.
func inSection(section string, err error) error {
	if wrong, ok := errors.AsType[*option.Error](err); ok {
		switch wrong.Name {
		case "max_exchanges":
			section = "limits"
		case "STAT_NOSUPPORT":
			section = "status_codes"
		}
	}
	return option.In(section, err)
}

// loadStore loads the store's module.
func (a *App) loadStore(ctx caddy.Context) error {
	if a.StoreRaw == nil {
		a.StoreRaw = json.RawMessage(`{"backend": "embedded"}`)
	}
	if err := checkBackend(a.StoreRaw); err != nil {
		return err
	}
	module, err := ctx.LoadModule(a, "StoreRaw")
	if err != nil {
		return err
	}
	store, ok := module.(Store)
	if !ok {
		return fmt.Errorf("module %T is not a store", module)
	}
	a.store = store
	return nil
}

// checkBackend checks that there is a module for a store.
func checkBackend(store json.RawMessage) error {
	var named struct{ Backend string }
	if err := json.Unmarshal(store, &named); err != nil {
		return errors.New("must be an object with a backend")
	}
	known := make(map[string]struct{})
	for _, module := range caddy.GetModules("dsapp.stores") {
		known[module.ID.Name()] = struct{}{}
	}
	if _, ok := known[named.Backend]; !ok {
		return unknownName("unknown backend", named.Backend, sortedNames(known))
	}
	return nil
}

// resolveSealingKeys resolves and decodes the keys.
func resolveSealingKeys(configured []string) ([][]byte, error) {
	name := func(i int) string { return fmt.Sprintf("sealing_keys[%d]", i) }
	keys := make([][]byte, len(configured))
	for i, value := range configured {
		digits, err := resolveSecret(value)
		if err != nil {
			return nil, option.In(name(i), err)
		}
		if keys[i], err = seal.ParseKey(digits); err != nil {
			return nil, option.In(name(i), err)
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	// Refuses what would only show with the first registration.
	_, err := seal.NewKeyring(keys...)
	if wrong, ok := errors.AsType[*seal.KeyError](err); ok {
		return nil, option.Errorf(name(wrong.Index), "%s", wrong.Problem)
	}
	return keys, option.In("sealing_keys", err)
}

// Start does nothing: what a configuration does by itself begins once all of it
// has started.
func (a *App) Start() error { return nil }

// subscribe has started called.
func (a *App) subscribe(ctx caddy.Context) error {
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	return events.(*caddyevents.App).On("started", onEvent(a.started))
}

// onEvent is a handler of events.
type onEvent func()

// Handle calls the function.
func (f onEvent) Handle(context.Context, caddy.Event) error {
	f()
	return nil
}

// started is called once all apps have started. It puts the limits of this
// configuration into force, begins to probe the authentication servers and has
// what exchanges need prepared, without waiting for it. That may seal what the
// store keeps anew: had it been done before, a configuration that fails while it is
// started could leave the one that goes on running with a store that it has no key
// for.
func (a *App) started() {
	if resetsConnections(migrateRequests) {
		warnOfResets.Do(func() {
			a.logger.Warn("a reload can reset connections that wait to be accepted; set net.ipv4.tcp_migrate_req to 1")
		})
	}
	startedApps.add(a)
	a.counters.start(a.counts)
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	go a.AuthenticationServers.watch(ctx)
	go a.prepare(ctx)
}

// prepare has what exchanges need prepared, again and again until that works or
// ctx ends, and logs whether the store is ready.
func (a *App) prepare(ctx context.Context) {
	warned := false
	for ctx.Err() == nil {
		err := a.tryToPrepare(ctx)
		if err == nil {
			a.logger.Info("the store is ready")
			return
		}
		if !warned && ctx.Err() == nil {
			a.logger.Warn("the store is not ready; it is tried again, also when it is needed", slog.Any("error", err))
			warned = true
		}
		select {
		case <-time.After(prepareInterval):
		case <-ctx.Done():
		}
	}
}

func (a *App) tryToPrepare(ctx context.Context) error {
	defer a.store.Begin()()
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	return a.service.Prepare(ctx)
}

// end ends what started began. Ending it again does nothing.
func (a *App) end() {
	startedApps.remove(a)
	if a.counters != nil {
		a.counters.stop(a.counts)
	}
	if a.cancel != nil {
		a.cancel()
	}
}

// Stop ends that. Requests that are being served are not affected.
func (a *App) Stop() error {
	a.stopped.Store(true)
	a.end()
	return nil
}

// Cleanup gives up what Provision acquired. Requests of this configuration can
// still be running or even arrive: they keep the store as long as they need it.
func (a *App) Cleanup() error {
	a.end()
	a.AuthenticationServers.close()
	if a.counters == nil {
		return nil
	}
	a.counters = nil
	_, err := counterPool.Delete(countersKey)
	return err
}

// serve answers a request; next gets those for other paths.
func (a *App) serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if a.stopped.Load() {
		// A connection whose handshake ends after a reload stays with the
		// configuration before, and nothing would ever close it: keys that were
		// revoked would be good there for as long as the client likes.
		w.Header().Set("Connection", "close")
		if successor := startedApps.last(); successor != nil {
			a = successor
		}
	}
	defer a.store.Begin()()
	defer a.AuthenticationServers.ended()
	return a.handler.Serve(w, r, func(w http.ResponseWriter, r *http.Request) (bool, error) {
		if err := next.ServeHTTP(w, r); err != nil {
			return false, err
		}
		unhandled, _ := caddyhttp.GetVar(r.Context(), unhandledVar).(bool)
		if unhandled {
			caddyhttp.SetVar(r.Context(), unhandledVar, false)
		}
		return !unhandled, nil
	})
}

// unhandledVar is the variable that Caddy sets to true at the end of a chain of
// handlers none of which answered.
const unhandledVar = "unhandled"

// clientIP is the client's address as Caddy determines it, with regard to
// trusted proxies.
func clientIP(r *http.Request) netip.Addr {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return address
}

// setUser makes the application's name known to later handlers and the access log.
func setUser(r *http.Request, key apikey.Key) {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.auth.user.id", key.Name)
	}
}

// setLogFields adds to the access log what the status alone does not tell.
func setLogFields(r *http.Request, o restapi.Observation) {
	extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields)
	if !ok {
		return
	}
	if o.Service != "" {
		extra.Set(zap.String("dsapp_service", o.Service))
	}
	if o.Status != "" {
		extra.Set(zap.String("dsapp_status", o.Status))
	}
	if o.Limit != "" {
		extra.Set(zap.String("dsapp_limit", string(o.Limit)))
	}
}

var (
	_ caddy.App           = (*App)(nil)
	_ caddy.Provisioner   = (*App)(nil)
	_ caddy.CleanerUpper  = (*App)(nil)
	_ caddyevents.Handler = onEvent(nil)
)
