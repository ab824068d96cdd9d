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

// provisioned returns a handler whose app is provisioned but not started. It has to serve
// requests all the same.
func provisioned(t testing.TB, dsapp object) *Handler {
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

// request returns a request from a client's address, prepared as a Caddy server does it.
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

// unreachable is a next handler that must not be called.
var unreachable = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
	return errors.New("next handler called")
})

// The client's address is the one that Caddy determined, not that of the connection.
func TestClientAddress(t *testing.T) {
	c := gatewayConfig(t)
	c["api_keys"].([]object)[1]["allow"] = []string{"10.0.0.0/8"}
	h := provisioned(t, c)
	for client, want := range map[string]int{
		"10.1.2.3":  http.StatusBadRequest, // The address is accepted; the body lacks members.
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

// The placeholder for later handlers and the access log has the application's name if the
// key is valid, and no value otherwise.
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

// The error of the next handler is returned unchanged.
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
