// Package caddymodule makes the gateway available to Caddy: the app `dsapp`, the HTTP
// handler `dsapp_gateway` and the store modules `embedded` and `redis`. It translates
// configuration into calls of the packages below dsapp, and contains no business rules.
//
// Where to find what:
//
//   - app.go: the app. Provision builds the gateway from the configuration; onStarted
//     begins background work; serve answers requests.
//   - handler.go: the HTTP handler, which passes each request to the app.
//   - apikeys.go, activation.go, requests.go, limits.go, cors.go, servers.go: one section of
//     the options each, with its defaults. servers.go also has what outlives a reload for
//     each authentication server; transport.go and socket_*.go make its connections.
//   - profiles.go: the interface of profile modules, and those of the gateway.
//   - store.go: the interfaces of store modules; store_embedded.go and store_redis.go
//     implement them.
//   - health.go: whether the node is ready, drains, and the handler for health checks.
//   - admin.go: the routes of the admin endpoint; operator.go has what they show and do,
//     operatoranswers.go their answers, keyuse.go when API keys were used last.
//   - check.go and check_*.go: CheckConfig, which tries a configuration against the real
//     world for `caddy dsapp check`.
//   - resources.go: stores that configurations share and that close after their last
//     request.
//   - startedlist.go: which of the started configurations is in force.
//   - audit.go, log.go: the audit log, and the logger of everything else.
//   - events.go: the events that operators hook with handlers of Caddy's app `events`.
//   - requestid.go: the ID of a request, in its answer and in all its log lines;
//     trace.go: its spans.
//   - metrics.go, metrics_live.go: the metrics that count what happens, and those that
//     mirror the state of the running gateway.
//   - decode.go, placeholders.go: decoding of options, and placeholders in them.
//   - caddyfile.go: the same options in a Caddyfile, one table for each block;
//     caddyfile_block.go reads blocks by these tables.
//   - tcpmigrate.go: a warning about a kernel setting that affects reloads.
//   - collector.go: how often the garbage collector runs.
//   - command.go: the command `caddy dsapp`; its subcommands are in operatorcmd and
//     sandboxcmd.
//
// Rules for reloads:
//
//   - Provision opens no store, connects to nothing and writes nothing, because the
//     configuration may still be rejected, and because `caddy validate` runs beside a
//     gateway. Stores are opened on first use.
//   - Whatever Provision acquires, Cleanup releases, also if Provision fails halfway.
//   - Only what must survive a reload is in a caddy.UsagePool: stores, limiters and the
//     state of each authentication server.
//   - Caddy replaces a configuration while its requests are still being served. They
//     must be able to finish after Stop and Cleanup.
//   - Work that affects what other configurations share begins after all apps have
//     started, in onStarted.
//
// To add an option, add a field with a JSON name to the type of its section. Its comment
// is its documentation: effect, unit, range, default and dangers. Pass it to the package
// that acts on it. That package validates it and returns an *option.Error with its
// name; this package adds the path. Add the option to the table of its block in
// caddyfile.go and to the tests in config_test.go; internal/configref writes the reference.
package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

func init() {
	caddy.RegisterModule(new(App))
}

const (
	appName        = "dsapp"
	storeNamespace = "dsapp.stores"

	profileNamespace = "dsapp.profiles"
)

const (
	// prepareTimeout limits one attempt to prepare the store.
	prepareTimeout = 10 * time.Second
	// prepareInterval is the pause after a failed attempt.
	prepareInterval = 10 * time.Second
)

// App is a gateway between mobile applications, the bank's own systems and OneSpan
// authentication servers. Requests reach it through handlers
// `http.handlers.dsapp_gateway` on any site.
//
// Options that accept placeholders take global ones such as `{env.NAME}` and
// `{file./path}`. They are resolved when the configuration is loaded. Their values
// appear neither in the configuration that Caddy shows nor in logs. After the content
// of such a file has changed, run `caddy reload --force`.
type App struct {
	// The keys that clients present to use the services. At least one is required.
	APIKeys []APIKey `json:"api_keys,omitempty"`

	// The keys that encrypt the content of the store, 64 hexadecimal digits each, for
	// example from `openssl rand -hex 32`. The first key encrypts new values; all keys
	// decrypt. Whoever has a key and the store can read pending activation data.
	// Accepts placeholders.
	//
	// To replace a key, first append the new key on every node. Then move the new key
	// to the front on every node. The first node that starts with it in front encrypts
	// the secret that the store keeps for good with it, and logs that. Remove the old
	// key after the longest of these times: `registration_lifetime` plus 10 minutes,
	// `handshake_lifetime`, and `lifetime` of `requests`.
	//
	// Keep a backup of the keys, separate from the store. If the key that encrypted the
	// store is lost, the store cannot be used, not even for new registrations: every
	// activation service answers with status 503, and requests that were retrieved
	// before can be neither completed nor cancelled. This lasts until the key is
	// restored or the store is emptied.
	//
	// Required with the `redis` store. The `embedded` store creates a key beside its
	// file if none is configured.
	SealingKeys []string `json:"sealing_keys,omitempty"`

	// Where the gateway keeps registrations, handshakes and the ownership of pending
	// requests. Default: the `embedded` store.
	StoreRaw json.RawMessage `json:"store,omitempty" caddy:"namespace=dsapp.stores inline_key=backend"`

	// The authentication servers. Required.
	AuthenticationServers AuthenticationServers `json:"authentication_servers,omitzero"`

	// How phones are activated.
	Activation Activation `json:"activation,omitzero"`

	// How the gateway treats pending logins and signatures.
	Requests Requests `json:"requests,omitzero"`

	// Limits that protect the gateway from overload and abuse.
	Limits Limits `json:"limits,omitzero"`

	// Which web pages may call the services of phones.
	CORS CORS `json:"cors,omitzero"`

	// When the node counts as ready to get requests.
	Health Health `json:"health,omitzero"`

	// Numbers of status codes that the vendor does not publish.
	StatusCodes StatusCodes `json:"status_codes,omitzero"`

	// ctx and events are for the events of the app, see events.go.
	ctx        caddy.Context
	events     *caddyevents.App
	logger     *slog.Logger
	store      Store
	keyring    *keyringStore
	keys       *apikey.Set
	activation *activation.Service
	// profileLabels are the profiles that the metrics count for this configuration.
	profileLabels []string
	ownership     *ownership.Service
	audit         *auditLog
	loaded        time.Time // when the configuration began to run
	limiters      *limiters
	limits        *limitValues
	handler       *restapi.Handler
	stopped       atomic.Bool
	// stopPreparing and stopWatching end the background work that onStarted began.
	stopPreparing, stopWatching context.CancelFunc
	// prepareFailure is why the last attempt to prepare a store that works failed, for
	// example because its sealing key is missing. It is nil if it did not fail.
	prepareFailure atomic.Pointer[prepareFailure]
}

// prepareFailure is a failure to prepare the store.
type prepareFailure struct {
	err   error
	since time.Time
}

// startedApps has the app that serves requests that still arrive at a stopped one.
var startedApps startedList[*App]

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  appName,
		New: func() caddy.Module { return new(App) },
	}
}

// UnmarshalJSON decodes the options. Its errors begin with the path of the option.
func (a *App) UnmarshalJSON(data []byte) error {
	type options App
	return decodeConfig(data, (*options)(a))
}

// Provision checks the configuration and builds the gateway. It neither opens the store
// nor makes a connection.
func (a *App) Provision(ctx caddy.Context) error {
	logger := newLogger(ctx)
	a.ctx, a.logger = ctx, logger
	err := registerMetrics(ctx.GetMetricsRegistry())
	if err != nil {
		return err
	}
	activationConfig, err := a.Activation.config(ctx)
	if err != nil {
		return option.In("activation", err)
	}
	if a.keys, err = newKeySet(a.APIKeys, a.Activation.profileNames()); err != nil {
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
	if err := a.Health.setDefaults(a.store); err != nil {
		return option.In("health", err)
	}
	addresses, err := a.Limits.addresses()
	if err != nil {
		return option.In("limits", err)
	}
	if a.limits, err = a.Limits.values(); err != nil {
		return option.In("limits", err)
	}
	if a.limiters, err = acquireLimiters(a.limits); err != nil {
		return option.In("limits", err)
	}
	servers, err := a.AuthenticationServers.provision(ctx, logger.With(slog.String("component", "authserver")))
	if err != nil {
		return option.In("authentication_servers", err)
	}
	a.audit = &auditLog{logger: ctx.Logger().Named("audit")}
	a.keyring = &keyringStore{module: a.store, configuredKeys: sealingKeys}
	activationConfig.Open = a.keyring.openActivation
	activationConfig.MaxExchanges = a.Limits.MaxExchanges
	activationConfig.Logger = logger
	activationConfig.Alarm = a.audit.Alarm
	activationConfig.Observe = both(metrics.step, traceStep)
	if a.activation, err = activation.New(activationConfig); err != nil {
		return inSection("activation", err)
	}
	a.profileLabels = a.Activation.profileNames()
	metrics.profiles.acquire(a.profileLabels)
	a.ownership, err = ownership.New(ownership.Config{
		Open:        a.keyring.openOwnership,
		Lifetime:    time.Duration(a.Requests.Lifetime),
		Unknown:     ownership.UnknownRequests(a.Requests.Unknown),
		PlainCancel: ownership.PlainCancels(a.Requests.PlainCancel),
		Logger:      logger,
		Alarm:       a.audit.Alarm,
	})
	if err != nil {
		return option.In("requests", err)
	}
	callTimeout := cmp.Or(time.Duration(a.AuthenticationServers.Timeout), defaultCallTimeout)
	repeatConfig := repeat.Config{
		Open:     a.keyring.openRepeats,
		Lifetime: a.Requests.repeat(),
		Timeout:  callTimeout,
		Longest:  callTimeout * time.Duration(len(a.AuthenticationServers.Instances)),
		Logger:   logger,
		Alarm:    a.audit.Alarm,
	}
	repeats, err := repeat.New(repeatConfig)
	if err != nil {
		return option.In("requests", err)
	}
	repeatConfig.Lifetime = cmp.Or(activationConfig.RegistrationLifetime, activation.DefaultRegistrationLifetime)
	keys, err := repeat.NewKeys(repeatConfig)
	if err != nil {
		return err
	}
	origins, err := restapi.ParseOrigins(a.CORS.Origins)
	if err != nil {
		return option.In("cors", err)
	}
	gatewayID, err := resolve(a.Activation.GatewayID)
	if err != nil {
		return option.In("activation.gateway_id", err)
	}
	operations, err := gateway.New(gateway.Config{
		Activation:           a.activation,
		Ownership:            a.ownership,
		Servers:              servers,
		Repeats:              repeats,
		Keys:                 keys,
		Exchange:             gateway.Exchange(a.Activation.Exchange),
		GatewayID:            gatewayID,
		UnknownRegistrations: gateway.UnknownRegistrations(a.Activation.Unknown),
		HideUnknownUsers:     a.Activation.HideUnknownUsers,
		NoSupportCode:        a.StatusCodes.NoSupport,
		Decided:              a.audit.Ownership,
		Repeated:             metrics.repeated,
		Audit:                a.audit.Audit,
		Logger:               logger,
	})
	if err != nil {
		return inSection("activation", err)
	}
	a.handler, err = restapi.New(restapi.Config{
		Operations:  operations,
		Keys:        a.keys,
		MaxBodySize: a.Limits.MaxBodySize,
		BodyTimeout: time.Duration(a.Limits.BodyTimeout),
		Limits: restapi.Limits{
			FailedKeys:    a.limiters.failedKeys,
			Exchanges:     a.limiters.exchanges,
			Proofs:        a.limiters.proofs,
			Registrations: a.limiters.registrations,
			Calls:         a.limiters.calls,

			RequestsInFlight: inFlight{&a.limiters.requestsInFlight, a.limits.requestsInFlight},
			CallsInFlight:    inFlight{&a.limiters.callsInFlight, a.limits.callsInFlight},
		},
		RelayedExchange: gateway.Exchange(a.Activation.Exchange) == gateway.ExchangeRelay,
		Origins:         origins,

		ClientIP:      clientIP,
		Source:        addresses.Source,
		Authenticated: authenticated,
		Observe:       observe,
		Logger:        logger,
	})
	if err != nil {
		return option.In("limits", err)
	}
	return a.subscribeStarted(ctx)
}

// inSection adds the section of the configuration to an error about an option. Some
// options of a package are not in its usual section.
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

// loadStore loads the store module.
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

// checkBackend checks that there is a module for the configured store.
func checkBackend(store json.RawMessage) error {
	var named struct{ Backend string }
	if err := json.Unmarshal(store, &named); err != nil {
		return errors.New("must be an object with a backend")
	}
	if known := moduleNames(storeNamespace); !slices.Contains(known, named.Backend) {
		return unknownName("unknown backend", named.Backend, known)
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
	// Finds weak and repeated keys now instead of with the first registration.
	_, err := seal.NewKeyring(keys...)
	if wrong, ok := errors.AsType[*seal.KeyError](err); ok {
		return nil, option.Errorf(name(wrong.Index), "%s", wrong.Problem)
	}
	return keys, option.In("sealing_keys", err)
}

// Start implements caddy.App. It begins nothing, because background work begins when all
// apps have started, in onStarted.
func (a *App) Start() error {
	a.loaded = time.Now()
	return nil
}

// subscribeStarted registers onStarted for Caddy's event "started".
func (a *App) subscribeStarted(ctx caddy.Context) error {
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	a.events = events.(*caddyevents.App)
	return a.events.On("started", eventFunc(a.onStarted))
}

// eventFunc is a function that handles events.
type eventFunc func()

// Handle implements caddyevents.Handler.
func (f eventFunc) Handle(context.Context, caddy.Event) error {
	f()
	return nil
}

// onStarted is called when all apps have started. It applies the limits of this
// configuration and begins, in the background, to probe the authentication servers, to
// prepare and to watch the store, and to deliver events.
//
// Preparing the store can encrypt its secret with a new key. If Start did that, a
// configuration that fails to start could leave the running one without the key to its
// own store.
func (a *App) onStarted() {
	a.logger.Info("gateway started", slog.String("version", moduleVersion()), slog.String("caddy", caddyVersion()))
	if reloadResetsConnections(tcpMigrateReqFile) {
		warnOfResetsOnce.Do(func() {
			a.logger.Warn("a reload can reset connections that wait to be accepted; set net.ipv4.tcp_migrate_req to 1")
		})
	}
	tuneCollectorOnce.Do(func() { tuneCollector(a.logger) })
	startedApps.add(a)
	a.limiters.configStarted(a.limits)
	var preparing, watching context.Context
	preparing, a.stopPreparing = context.WithCancel(context.Background())
	watching, a.stopWatching = context.WithCancel(context.Background())
	go a.AuthenticationServers.watch(watching)
	go a.prepareStore(preparing)
	go a.watchStore(watching)
	go deliverEvents(watching)
}

// prepareStore prepares the store, and prepares it again when it does not work, until ctx
// ends. It logs whether the store is ready. A store that was lost is opened again by this
// also if the node gets no requests because the store is not ready.
func (a *App) prepareStore(ctx context.Context) {
	ready, warned := false, false
	for ctx.Err() == nil {
		if _, err := a.store.Ready(); err != nil || !ready {
			err := a.prepareStoreOnce(ctx)
			if ctx.Err() != nil {
				return
			}
			switch {
			case err == nil && !ready:
				a.logger.Info("the store is ready")
				ready, warned = true, false
			case err != nil && !warned:
				a.logger.Warn("the store is not ready; the gateway tries again by itself and with each request that needs the store", slog.Any("error", err))
				ready, warned = false, true
			}
			a.setPrepareFailure(err)
		}
		select {
		case <-time.After(prepareInterval):
		case <-ctx.Done():
		}
	}
}

// setPrepareFailure records how an attempt to prepare the store ended. A failure because the
// store does not work is that of the store, which knows when it is over.
func (a *App) setPrepareFailure(err error) {
	if _, notReady := a.store.Ready(); err == nil || notReady != nil {
		a.prepareFailure.Store(nil)
		return
	}
	a.prepareFailure.CompareAndSwap(nil, &prepareFailure{err, time.Now()})
}

func (a *App) prepareStoreOnce(ctx context.Context) error {
	defer a.store.Begin()()
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	return a.activation.Prepare(ctx)
}

// Stop implements caddy.App. Requests in progress go on, and while the process ends, more
// can arrive for the `shutdown_delay` of the app `http`. What they need therefore lasts
// until Cleanup, which Caddy calls when all apps have stopped: the probes of the
// authentication servers, the limits and the store.
func (a *App) Stop() error {
	a.stopped.Store(true)
	if a.stopPreparing != nil {
		a.stopPreparing()
	}
	// After a reload, the new configuration delivers the events.
	if startedApps.latest() == a {
		flushEvents()
	}
	return nil
}

// Cleanup releases what Provision acquired. Requests of this configuration can still be
// in progress or arrive later. They keep the store open as long as they need it.
func (a *App) Cleanup() error {
	startedApps.remove(a)
	if a.stopPreparing != nil {
		a.stopPreparing()
		a.stopWatching()
	}
	a.AuthenticationServers.close()
	metrics.releaseProfiles(a.profileLabels)
	a.profileLabels = nil
	if a.limiters == nil {
		return nil
	}
	a.limiters.configStopped(a.limits)
	a.limiters = nil
	_, err := limiterPool.Delete(limitersKey)
	return err
}

// serve answers a request, or passes it to next if its path is not one of a service.
func (a *App) serve(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	a = a.current(w)
	metrics.inFlight.Inc()
	defer metrics.inFlight.Dec()
	defer a.store.Begin()()
	defer a.AuthenticationServers.closeIdleConnections()
	correlated, c := correlate(w, r)
	return a.handler.Serve(w, correlated, func(w http.ResponseWriter, _ *http.Request) (bool, error) {
		// Caddy's placeholders are bound to the original request. The next server gets no
		// ID of an untrusted client.
		r.Header[requestIDHeader] = []string{c.requestID}
		passed := &passedOn{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, id: c.requestID}
		if err := next.ServeHTTP(passed, r); err != nil {
			return false, err
		}
		unhandled, _ := caddyhttp.GetVar(r.Context(), unhandledVar).(bool)
		if unhandled {
			caddyhttp.SetVar(r.Context(), unhandledVar, false)
		}
		return !unhandled, nil
	})
}

// current returns the app that is to answer a request: a, or the app of the configuration
// that has replaced the one of a. In that case it lets the connection end after the answer.
//
// A connection whose TLS handshake ends after a reload stays with the old configuration, and
// nothing closes it. Without this, removed API keys would be accepted there as long as the
// client keeps the connection.
func (a *App) current(w http.ResponseWriter) *App {
	latest := startedApps.latest()
	if !a.stopped.Load() || latest == a {
		return a
	}
	w.Header().Set("Connection", "close")
	if latest == nil {
		return a
	}
	return latest
}

// unhandledVar is the variable that Caddy sets to true if no handler of a chain
// answered the request.
const unhandledVar = "unhandled"

// clientIP returns the client's address as Caddy determines it, which takes trusted
// proxies into account. It returns the zero Addr if there is none.
func clientIP(r *http.Request) netip.Addr {
	text, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}
	}
	return address
}

// setUser sets the placeholder with the name of the application for the access log and
// later handlers.
func setUser(r *http.Request, key apikey.Key) {
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.auth.user.id", key.Name)
	}
}

// observe counts a request and describes it in the access log. A preflight is not counted:
// browsers decide how many they send.
func observe(r *http.Request, o restapi.Observation) {
	if o.Outcome != restapi.Preflight {
		metrics.request(o)
	}
	if c := correlationOf(r.Context()); c != nil {
		c.access.service, c.access.status, c.access.limit = o.Service, o.Status, string(o.Limit)
	}
}

var (
	_ caddy.App           = (*App)(nil)
	_ caddy.Provisioner   = (*App)(nil)
	_ caddy.CleanerUpper  = (*App)(nil)
	_ caddyevents.Handler = eventFunc(nil)
)
