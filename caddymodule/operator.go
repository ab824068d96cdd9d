package caddymodule

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// processStarted is about when the process started.
var processStarted = time.Now()

// withApp returns a handler that answers with what do returns for the active app.
func withApp(do func(a *App, r *http.Request) (any, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		a := activeApp()
		if a == nil {
			return caddy.APIError{
				HTTPStatus: http.StatusServiceUnavailable,
				Err:        errors.New("no configuration with the app dsapp is active: load one, or ask another process"),
			}
		}
		defer a.store.Begin()()
		answer, err := do(a, r)
		if err != nil {
			return adminError(err)
		}
		return writeJSON(w, http.StatusOK, answer)
	}
}

// adminError returns err as an answer.
func adminError(err error) error {
	if known, ok := errors.AsType[caddy.APIError](err); ok {
		return known
	}
	switch {
	case errors.Is(err, activation.ErrUnknown):
		return caddy.APIError{
			HTTPStatus: http.StatusNotFound,
			Err:        errors.New("there is no such registration: check the identifier; it may also have ended, or its activation is complete"),
		}
	case errors.Is(err, activation.ErrUnavailable), errors.Is(err, ownership.ErrUnavailable):
		return caddy.APIError{
			HTTPStatus: http.StatusServiceUnavailable,
			Err:        fmt.Errorf("the store cannot be used, try again when `caddy dsapp health` says that it works: %w", err),
		}
	}
	return err
}

// badRequest returns the answer to a request with a wrong value.
func badRequest(what string, err error) error {
	return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: fmt.Errorf("%s %w", what, err)}
}

func (a *App) adminStatus(*http.Request) (any, error) {
	h := a.health()
	return AdminStatus{
		Version: moduleVersion(), Caddy: caddyVersion(), Started: processStarted, Loaded: a.loaded,
		Exchange:   cmp.Or(a.Activation.Exchange, "gateway"),
		Deployment: cmp.Or(a.AuthenticationServers.Deployment, "replicated"),
		Store:      a.store.(caddy.Module).CaddyModule().ID.Name(),
		Instances:  len(a.AuthenticationServers.Instances), Keys: len(a.APIKeys),
		State: string(h.State), Ready: h.Ready, Checks: h.Checks,
	}, nil
}

func caddyVersion() string {
	simple, _ := caddy.Version()
	return simple
}

// moduleVersion returns the version of this module in the binary.
func moduleVersion() string {
	const path = "github.com/dsapp-gateway/dsapp-gateway"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if info.Main.Path == path {
		return info.Main.Version
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return "unknown"
}

func (a *App) adminInstances(*http.Request) (any, error) {
	all := []AdminInstance{}
	for _, in := range a.AuthenticationServers.servers.Instances() {
		state := "failing"
		switch {
		case in.Drained:
			state = "drained"
		case in.Working:
			state = "working"
		}
		all = append(all, AdminInstance{
			Name: in.Name, URL: in.URL, State: state, Breaker: string(in.Breaker), BreakerSince: in.BreakerSince,
			InUse: in.InUse, Queued: in.Queued, LastReached: in.LastReached, LastLost: in.LastLost,
		})
	}
	return all, nil
}

// adminDrainInstance returns the function that drains an instance, or ends that.
func adminDrainInstance(drain bool) func(*App, *http.Request) (any, error) {
	return func(a *App, r *http.Request) (any, error) {
		name := r.PathValue("name")
		if !a.AuthenticationServers.servers.Drain(name, drain) {
			return nil, caddy.APIError{
				HTTPStatus: http.StatusNotFound,
				Err:        fmt.Errorf("there is no instance %q: `caddy dsapp instances` lists them", name),
			}
		}
		a.audit.operator(r, drainAction("instance", drain), zap.String("instance", name))
		return map[string]any{"instance": name, "drained": drain}, nil
	}
}

// adminDrainNode returns the handler that drains the node, or ends that. It works without a
// configuration, too.
func adminDrainNode(drain bool) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		drainNode(drain)
		audit := &auditLog{logger: caddy.Log().Named(appName + ".audit")}
		if a := activeApp(); a != nil {
			audit = a.audit
		}
		audit.operator(r, drainAction("node", drain))
		return writeJSON(w, http.StatusOK, map[string]bool{"drained": drain})
	}
}

func drainAction(what string, drain bool) string {
	if drain {
		return what + "_drained"
	}
	return what + "_undrained"
}

// registrationOf returns the identifier in the path of a request.
func registrationOf(r *http.Request) (form.Identifier, error) {
	identifier, err := form.Parse[form.Identifier](r.PathValue("identifier"))
	if err != nil {
		return "", badRequest("the registration identifier", err)
	}
	return identifier, nil
}

func (a *App) adminRegistration(r *http.Request) (any, error) {
	identifier, err := registrationOf(r)
	if err != nil {
		return nil, err
	}
	x, err := a.activation.Inspect(r.Context(), identifier)
	if err != nil {
		return nil, err
	}
	// The counters of a burned registration say that everything is used up.
	counted := func(n int) int { return min(n, max(x.MaxAttempts, x.MaxActivations)) }
	return AdminRegistration{
		Identifier: x.Identifier, Kind: string(x.Kind), State: registrationState(x),
		Expires: time.Now().Add(x.Lifetime).UTC().Truncate(time.Second), Instance: x.Instance,
		Attempts: x.Attempts, MaxAttempts: x.MaxAttempts, InFlight: x.InFlight,
		Activations: x.Activations, MaxActivations: x.MaxActivations,
		Devices: counted(x.Devices), Confirmations: counted(x.Confirmations),
	}, nil
}

func registrationState(x activation.Inspection) string {
	switch {
	case x.Burned:
		return "burned"
	case x.Lifetime <= 0:
		return "ended"
	case x.Activations > 0:
		return "proven"
	}
	return "pending"
}

func (a *App) adminBurn(r *http.Request) (any, error) {
	identifier, err := registrationOf(r)
	if err != nil {
		return nil, err
	}
	burned, err := a.activation.Burn(r.Context(), identifier)
	if err != nil {
		return nil, err
	}
	a.audit.operator(r, "registration_burned_by_operator", zap.String("registration", string(identifier)),
		zap.String("user_id", burned.UserID), zap.String("domain", burned.Domain), zap.String("serial_number", burned.SerialNumber),
		zap.String("instance", burned.Instance))
	return map[string]any{"identifier": identifier, "burned": true}, nil
}

func (a *App) adminRequests(r *http.Request) (any, error) {
	serialNumber, err := form.Parse[form.SerialNumber](r.URL.Query().Get("serial_number"))
	if err != nil {
		return nil, badRequest("serial_number", err)
	}
	owned, err := a.ownership.Owned(r.Context(), serialNumber)
	if err != nil {
		return nil, err
	}
	all := []AdminRequest{}
	for _, o := range owned {
		all = append(all, AdminRequest{Kind: string(o.Kind), Key: shortened(o.Key), Application: o.Application, Instance: o.Instance})
	}
	return all, nil
}

// shortened returns the beginning of a key of a request: at most 4 characters, and at most
// half of it.
func shortened(key string) string { return key[:min(4, len(key)/2)] + "…" }

func (a *App) adminKeys(*http.Request) (any, error) {
	all := []AdminKey{}
	for _, k := range a.keys.Keys() {
		all = append(all, AdminKey{
			Name: k.Name, Class: string(k.Class), Allow: ranges(k), Hash: hex.EncodeToString(k.Hash[:4]), LastUsed: keyUses.last(k.Hash),
		})
	}
	return all, nil
}

// ranges returns the addresses from which a key is accepted.
func ranges(k apikey.Key) []string {
	allow := k.Allow
	if len(allow) == 0 && k.Class == apikey.BackEnd {
		allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	} else if len(allow) == 0 {
		allow = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	texts := make([]string, len(allow))
	for i, p := range allow {
		texts[i] = p.String()
	}
	return texts
}

func (a *App) adminSealUsage(r *http.Request) (any, error) {
	store, ring, err := a.keyring.open(r.Context())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", activation.ErrUnavailable, err)
	}
	return sealUsage(r.Context(), store, ring, len(a.SealingKeys))
}

// sealUsage counts the values in the store by the key that sealed them. The first keys of
// ring are the configured ones.
func sealUsage(ctx context.Context, store OpenStore, ring *seal.Keyring, configured int) (AdminSealing, error) {
	values := make(map[string]int)
	total := 0
	err := store.Sealed(ctx, func(value []byte) {
		if id, ok := seal.KeyID(value); ok {
			values[id]++
		}
		total++
	})
	usage := AdminSealing{Unknown: total}
	for i, id := range ring.KeyIDs() {
		name := fmt.Sprintf("sealing_keys[%d]", i)
		if i >= configured {
			name = "key file"
		}
		usage.Keys = append(usage.Keys, AdminSealingKey{Key: name, ID: id, Values: values[id]})
		usage.Unknown -= values[id]
	}
	return usage, err
}

// operator logs what an operator did. A request over a socket has neither an address nor a
// certificate.
func (l *auditLog) operator(r *http.Request, action string, fields ...zap.Field) {
	var who []zap.Field
	if address, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		who = append(who, zap.String("client_ip", address))
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		who = append(who, zap.String("certificate", r.TLS.PeerCertificates[0].Subject.String()))
	}
	for _, f := range fields {
		if f.String != "" {
			who = append(who, f)
		}
	}
	l.logger.Info(action, append([]zap.Field{zap.String("operation", "admin")}, who...)...)
}
