package caddymodule

import (
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi/apidoc"
)

func init() {
	caddy.RegisterModule(new(DocsHandler))
}

// DocsHandler serves the reference of the services: a page for developers, and beside it the
// same as a document of OpenAPI, `openapi.json`. It needs no API key, and the app `dsapp` need
// not be configured. What it serves is the same on every gateway of this version: it shows
// nothing of the configuration.
//
// Put it on a route of its own with a path matcher, such as `/reference` and `/reference/*`. Paths that
// end in a slash are the page; without the slash, the answer redirects there. The examples of
// the page call the origin that the page comes from, so that the site should also have
// the handler `dsapp_gateway`. The page loads nothing from other servers.
type DocsHandler struct {
	// Whether the console is served, too, as `console.html` beside the page: a page in which a
	// browser is the phone. Default: false. It starts from the content of an activation image,
	// makes the calls of an activation to the origin that it comes from, and shows every value,
	// also the secrets. It asks for a front-end key, and neither for back-end keys nor for
	// static passwords; it stores nothing. It is for developers with users for tests: do not
	// switch it on where customers could be led to it.
	Console bool `json:"console,omitempty"`

	reference *apidoc.Reference
}

// CaddyModule returns the Caddy module information.
func (*DocsHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.dsapp_docs",
		New: func() caddy.Module { return new(DocsHandler) },
	}
}

// These generate the page and the document once for the process: they depend on nothing else
// of the configuration.
var (
	newReference = sync.OnceValues(func() (*apidoc.Reference, error) { return apidoc.NewReference(nil) })
	newConsole   = sync.OnceValues(func() (*apidoc.Reference, error) { return apidoc.NewReference(new(apidoc.Console)) })
)

// Provision generates the page and the document.
func (d *DocsHandler) Provision(caddy.Context) (err error) {
	if d.Console {
		d.reference, err = newConsole()
	} else {
		d.reference, err = newReference()
	}
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (d *DocsHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	// Other handlers may have removed a prefix of the path, which the browser does not know.
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		sent := *r
		sent.URL = original.URL
		r = &sent
	}
	d.reference.ServeHTTP(w, r)
	return nil
}

var (
	_ caddy.Provisioner           = (*DocsHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*DocsHandler)(nil)
)
