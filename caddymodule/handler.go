package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler serves the REST services of the `dsapp` app. It has no options of its
// own: any number of handlers on any site serve the same gateway.
//
// Every request that reaches it must carry an API key. The name of the key's
// application is then `{http.auth.user.id}`. A request whose path is none of the
// services goes on to the next handler, with its body and its Authorization field as
// they came, so that a `reverse_proxy` to another gateway can serve the rest. If
// there is none, the answer is 404.
//
// Without a next handler, scope it with matchers, e.g. to the path `/rest/*`. With
// one, put no path matcher in front of it: a path such as `/rest;a=b/…` would go around
// it to a server that may read it as a service. The handler itself answers 404 to
// such paths, and passes none of them on.
//
// Requests in TLS early data are answered with 425. If the server has the protocol
// `h3` and some clients do not repeat requests then, set its `allow_0rtt` to false.
//
// The answers to all other requests are the handler's own, errors included:
// their form is part of the protocol.
type Handler struct {
	app *App
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.dsapp_gateway",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds the app.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := ctx.AppIfConfigured(appName)
	if err != nil {
		return err
	}
	h.app = app.(*App)
	return nil
}

// ServeHTTP answers a request or gives it to next.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return h.app.serve(w, r, next)
}

var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
