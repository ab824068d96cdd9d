package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(new(Handler))
}

// Handler serves the REST services of the app `dsapp`. It has no options. All handlers, on
// any site, serve the same gateway.
//
// Every request that reaches the handler must have an API key. After the key was checked,
// the name of its application is in `{http.auth.user.id}`. If the path is not that of a
// service, the request goes to the next handler, with its body and its Authorization header
// unchanged; for example, a `reverse_proxy` to another gateway can serve the other paths. If
// there is no next handler, the answer is 404.
//
// Without a next handler, restrict the route by matchers, for example to the path
// `/rest/*`. With a next handler, use no path matcher on the route: a request for a path
// such as `/rest;a=b/…` would bypass the gateway and reach a server that may treat it as a
// service. The handler answers such paths with 404 and never passes them on.
//
// Requests in TLS early data are answered with status 425. If the server has the protocol
// `h3` and some clients do not repeat such requests, set its option `allow_0rtt` to false.
//
// The handler answers all other requests itself, errors included, because the form of
// errors is part of the protocol.
//
// Every answer has the header X-Request-Id with the ID of the request, which is also the
// field `request_id` of the access log and of all log lines about the request. It is the one
// that a trusted proxy sent in the same header, if that is there once and has 1 to 64 letters,
// digits, dots, underscores and hyphens. Otherwise it is `{http.request.uuid}`. The next
// handler gets the ID in the header of the request.
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

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	growStack(-1)
	return h.app.serve(w, r, next)
}

// stackRoom is the stack that most requests need at most, in bytes.
const stackRoom = 16 << 10

// growStack gives the goroutine's stack room for a request in one step. HTTP/2 and HTTP/3
// serve each request in a new goroutine, whose small stack would otherwise be copied several
// times as it grows. That took a tenth of the processor time of a request.
//
// The room is not used, as it would have to be cleared: at is negative.
//
//go:noinline
func growStack(at int) uint8 {
	if at < 0 {
		return 0
	}
	var room [stackRoom]uint8
	room[at] = 1
	return room[stackRoom-1]
}

var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
