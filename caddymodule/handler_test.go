package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// provisioned returns a handler whose app is provisioned and never started: it
// has to serve all the same.
func provisioned(t *testing.T, dsapp object) *Handler {
	t.Helper()
	var config caddy.Config
	if err := json.Unmarshal(encode(t, caddyConfig(t, dsapp)), &config); err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&config)
	if err != nil {
		t.Fatal(err)
	}
	h, err := ctx.LoadModuleByID("http.handlers.dsapp_gateway", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		app := h.(*Handler).app
		if err := errors.Join(app.Cleanup(), app.store.(caddy.CleanerUpper).Cleanup()); err != nil {
			t.Error(err)
		}
	})
	return h.(*Handler)
}

// request is one as a Caddy server prepares it, from a client at an address.
func request(path, key, client string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader("{}"))
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.SetBasicAuth(key, "")
	}
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), &caddyhttp.Server{})
	caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, client)
	return r
}

var unreachable = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
	return errors.New("next handler called")
})

// The address that counts is the one that Caddy found, not the connection's.
func TestClientAddress(t *testing.T) {
	c := gatewayConfig(t)
	c["api_keys"].([]object)[1]["allow"] = []string{"10.0.0.0/8"}
	h := provisioned(t, c)
	for client, want := range map[string]int{
		"10.1.2.3":  http.StatusBadRequest, // past the check: the body lacks members
		"192.0.2.1": http.StatusForbidden, "127.0.0.1": http.StatusForbidden, "": http.StatusForbidden,
	} {
		w := httptest.NewRecorder()
		if err := h.ServeHTTP(w, request(registerPath, testBackEndKey, client), unreachable); err != nil {
			t.Fatal(err)
		}
		if w.Code != want {
			t.Errorf("from %q: status %d, want %d: %s", client, w.Code, want, w.Body)
		}
	}
}

// Later handlers and the access log learn the application, if the key was right.
func TestUser(t *testing.T) {
	h := provisioned(t, gatewayConfig(t))
	r := request(timePath, testFrontEndKey, "192.0.2.1")
	w := httptest.NewRecorder()
	if err := h.ServeHTTP(w, r, unreachable); err != nil || w.Code != http.StatusOK {
		t.Fatalf("status %d, %v", w.Code, err)
	}
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if user, _ := repl.GetString("http.auth.user.id"); user != "phones" {
		t.Errorf("user = %q", user)
	}

	r = request(timePath, "a-key-that-nobody-has", "192.0.2.1")
	w = httptest.NewRecorder()
	if err := h.ServeHTTP(w, r, unreachable); err != nil || w.Code != http.StatusUnauthorized {
		t.Fatalf("status %d, %v", w.Code, err)
	}
	repl = r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if user, ok := repl.Get("http.auth.user.id"); ok {
		t.Errorf("user = %v without a valid key", user)
	}
}

// What the next handler returns comes back as it is.
func TestErrorOfTheNextHandler(t *testing.T) {
	h := provisioned(t, gatewayConfig(t))
	want := caddyhttp.Error(http.StatusTeapot, errors.New("teapot"))
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return want })
	w := httptest.NewRecorder()
	err := h.ServeHTTP(w, request("/rest/other", testFrontEndKey, "192.0.2.1"), next)
	if !errors.Is(err, want) || w.Body.Len() != 0 {
		t.Errorf("err = %v, body %q", err, w.Body)
	}
}

// Cleanup can follow a Provision that got nowhere, and another Cleanup.
func TestCleanupOfNothing(t *testing.T) {
	a := new(App)
	for range 2 {
		if err := errors.Join(a.Cleanup(), new(EmbeddedStore).Cleanup()); err != nil {
			t.Error(err)
		}
	}
}
