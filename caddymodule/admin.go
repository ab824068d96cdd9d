package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(new(AdminAPI))
}

// AdminAPI adds the routes of the gateway, all below `/dsapp/`, to Caddy's admin endpoint.
// It has no configuration.
type AdminAPI struct{}

// adminRoute is one method of one path of the admin endpoint. The path may contain
// wildcards of http.ServeMux.
type adminRoute struct {
	method, path string
	handle       func(http.ResponseWriter, *http.Request) error
}

// adminRoutes are all routes. HEAD is allowed where GET is.
var adminRoutes = []adminRoute{
	{http.MethodGet, "/dsapp/health/live", serveLive},
	{http.MethodGet, "/dsapp/health/ready", serveReady},
	{http.MethodGet, "/dsapp/status", withApp((*App).adminStatus)},
	{http.MethodPost, "/dsapp/drain", adminDrainNode(true)},
	{http.MethodPost, "/dsapp/undrain", adminDrainNode(false)},
	{http.MethodGet, "/dsapp/instances", withApp((*App).adminInstances)},
	{http.MethodPost, "/dsapp/instances/{name}/drain", withApp(adminDrainInstance(true))},
	{http.MethodPost, "/dsapp/instances/{name}/undrain", withApp(adminDrainInstance(false))},
	{http.MethodGet, "/dsapp/registrations/{identifier}", withApp((*App).adminRegistration)},
	{http.MethodDelete, "/dsapp/registrations/{identifier}", withApp((*App).adminBurn)},
	{http.MethodGet, "/dsapp/requests", withApp((*App).adminRequests)},
	{http.MethodGet, "/dsapp/keys", withApp((*App).adminKeys)},
	{http.MethodGet, "/dsapp/seal-usage", withApp((*App).adminSealUsage)},
}

// CaddyModule returns the Caddy module information.
func (*AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.dsapp",
		New: func() caddy.Module { return new(AdminAPI) },
	}
}

// Provision registers the metrics with the registry that the admin endpoint reads.
func (*AdminAPI) Provision(ctx caddy.Context) error {
	return registerMetrics(ctx.GetMetricsRegistry())
}

// Routes implements caddy.AdminRouter.
func (*AdminAPI) Routes() []caddy.AdminRoute {
	var routes []caddy.AdminRoute
	for _, r := range adminRoutes {
		if !slices.ContainsFunc(routes, func(other caddy.AdminRoute) bool { return other.Pattern == r.path }) {
			routes = append(routes, caddy.AdminRoute{Pattern: r.path, Handler: adminHandler(r.path)})
		}
	}
	return routes
}

// adminHandler returns the handler of a path, which chooses the route by the method.
func adminHandler(path string) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		var allowed []string
		for _, route := range adminRoutes {
			if route.path != path {
				continue
			}
			if route.method == method {
				return route.handle(w, r)
			}
			allowed = append(allowed, route.method)
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return caddy.APIError{
			HTTPStatus: http.StatusMethodNotAllowed,
			Err:        fmt.Errorf("method %s is not allowed: use %s", r.Method, strings.Join(allowed, " or ")),
		}
	}
}

// activeApp returns the app of the configuration that is active. It returns nil if none is,
// or if it has no such app.
func activeApp() *App {
	app, err := caddy.ActiveContext().AppIfConfigured(appName)
	if err != nil {
		return nil
	}
	return app.(*App)
}

// writeJSON answers an admin request.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}

// health is what is known about a node.
type health struct {
	State healthState `json:"state"`
	// Ready says whether the node is to get requests.
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks,omitempty"`
}

// Check is one of the checks of which the state of a node is made.
type Check struct {
	// Name is `drain`, `store`, or `instance` and the name of an instance after a space.
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Detail says what is wrong, or what is special although nothing is wrong.
	Detail string `json:"detail,omitempty"`
	// Since is when that began, zero if it has always been so.
	Since time.Time `json:"since,omitzero"`
}

var _ caddy.AdminRouter = (*AdminAPI)(nil)
