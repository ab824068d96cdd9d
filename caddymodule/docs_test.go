package caddymodule

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// The reference answers by the path that the client has sent, also if a handler before it has
// removed a prefix, and needs neither a key nor the app.
func TestDocsHandler(t *testing.T) {
	t.Parallel()
	d := new(DocsHandler)
	if err := d.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		sent, rewritten string
		status          int
		contentType     string
		location        string
	}{
		{"/", "/", http.StatusOK, "text/html; charset=utf-8", ""},
		{"/docs/", "/docs/", http.StatusOK, "text/html; charset=utf-8", ""},
		{"/docs/", "/", http.StatusOK, "text/html; charset=utf-8", ""},
		{"/docs/openapi.json", "/openapi.json", http.StatusOK, "application/json", ""},
		{"/docs", "/docs", http.StatusPermanentRedirect, "", "./docs/"},
		{"/docs", "", http.StatusPermanentRedirect, "", "./docs/"},
		{"/docs", "/", http.StatusPermanentRedirect, "", "./docs/"},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, test.sent, http.NoBody)
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
		r.URL.Path = test.rewritten
		if err := d.ServeHTTP(w, r, unreachable); err != nil {
			t.Fatal(err)
		}
		if h := w.Header(); w.Code != test.status || h.Get("Content-Type") != test.contentType || h.Get("Location") != test.location {
			t.Errorf("%s: %d %q %q", test.sent, w.Code, h.Get("Content-Type"), h.Get("Location"))
		}
	}
}

// The console is served only with `console`, beside the page and without a key.
func TestConsoleIsOffByDefault(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]int{`{}`: http.StatusNotFound, `{"console": false}`: http.StatusNotFound, `{"console": true}`: http.StatusOK} {
		d := new(DocsHandler)
		if err := caddy.StrictUnmarshalJSON([]byte(config), d); err != nil {
			t.Fatal(err)
		}
		if err := d.Provision(caddy.Context{}); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]int{
			"console.html": want, "console.js": want, "dsapp.js": want,
			"sandbox.js": http.StatusNotFound, "sandbox-device.js": http.StatusNotFound, // the sandbox has them
		} {
			w := httptest.NewRecorder()
			if err := d.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/docs/"+name, http.NoBody), unreachable); err != nil {
				t.Fatal(err)
			}
			if w.Code != want {
				t.Errorf("%s: %s: %d", config, name, w.Code)
			}
		}
	}
}
