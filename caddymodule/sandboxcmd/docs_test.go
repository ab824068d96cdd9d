package sandboxcmd

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi/apidoc"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

// answerOf returns the answer of a handler to a call.
func answerOf(t *testing.T, d *DocsHandler, r *http.Request, next caddyhttp.Handler) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	if err := d.ServeHTTP(w, r, next); err != nil {
		t.Fatal(err)
	}
	return w
}

// The bank registers the sandbox's user with a key that the page does not have. Only the page of
// the sandbox can have it act, and with nothing but what it needs.
func TestBankOfConsole(t *testing.T) {
	t.Parallel()
	d := &DocsHandler{protection: http.NewCrossOriginProtection()}
	for name, test := range map[string]struct {
		method, path, body, origin string
		want                       string // of the error, empty if the gateway is called
	}{
		"a registration":    {http.MethodPost, registerPath, `{"licenseType":"standard"}`, "same-origin", ""},
		"another origin":    {http.MethodPost, registerPath, `{"licenseType":"standard"}`, "cross-site", "another origin"},
		"another method":    {http.MethodGet, registerPath, ``, "same-origin", "POST"},
		"no body":           {http.MethodPost, registerPath, ``, "same-origin", "JSON"},
		"an unknown member": {http.MethodPost, registerPath, `{"userID":"somebody"}`, "same-origin", "JSON"},
		"a large body":      {http.MethodPost, registerPath, strings.Repeat(" ", maxBankCall) + `{}`, "same-origin", "JSON"},
		"an unknown kind":   {http.MethodPost, requestPath, `{"kind":"payment"}`, "same-origin", "login or signature"},
		"no kind":           {http.MethodPost, outcomePath, `{"key":"123456"}`, "same-origin", "login or signature"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), test.method, test.path, strings.NewReader(test.body))
		r.Header.Set("Sec-Fetch-Site", test.origin)
		var sent map[string]string
		got := answerOf(t, d, r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
			body, err := io.ReadAll(r.Body)
			if err != nil || json.Unmarshal(body, &sent) != nil || int64(len(body)) != r.ContentLength {
				t.Errorf("%s: the gateway got %q, %v", name, body, err)
			}
			if key, _, _ := r.BasicAuth(); key != backEndKey || r.URL.Path != "/rest/v2/provisioning/DSAPPSRPRegister" {
				t.Errorf("%s: the gateway got %s with the key %q", name, r.URL.Path, key)
			}
			return nil
		}))
		switch {
		case test.want == "":
			if want := map[string]string{"userID": userID, "domain": domain, "staticPassword": staticPassword, "licenseType": "standard"}; !maps.Equal(sent, want) {
				t.Errorf("%s: the gateway got %q", name, sent)
			}
		case got.Code != http.StatusBadRequest || !strings.Contains(got.Body.String(), test.want) || sent != nil:
			t.Errorf("%s: %d %s", name, got.Code, got.Body)
		}
	}
}

// The sandbox's console has the simulated device, and no key of the back end. Paths that are
// neither the reference nor the bank belong to the gateway.
func TestConsoleOfSandbox(t *testing.T) {
	t.Parallel()
	reference, err := apidoc.NewReference(newConsole())
	if err != nil {
		t.Fatal(err)
	}
	d := &DocsHandler{reference: reference}
	reached := ""
	next := caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		reached = r.URL.Path
		return nil
	})
	for _, path := range documentPaths {
		got := answerOf(t, d, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody), next)
		if got.Code != http.StatusOK || reached != "" {
			t.Errorf("%s: %d", path, got.Code)
		}
		if path != "/" && path != "/openapi.json" && strings.Contains(got.Body.String(), backEndKey) {
			t.Errorf("%s has the key of the back end", path)
		}
	}
	for _, path := range []string{"/rest/v2", "/console", "/sandbox", "/sandbox/", "/a/console.html"} {
		answerOf(t, d, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody), next)
		if reached != path {
			t.Errorf("%s does not reach the gateway", path)
		}
	}
}

// Without an activated phone there is nobody whom the bank could ask, and the page learns the
// reason. A request that nobody approved is an outcome, no error.
func TestBankWithoutPhone(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(sandbox.New(sandbox.Options{Users: []sandbox.User{
		{Name: userID, Domain: domain, StaticPassword: staticPassword, Licenses: 1},
	}}))
	t.Cleanup(server.Close)
	d := &DocsHandler{protection: http.NewCrossOriginProtection(), application: &sandbox.ApplicationServer{URL: server.URL, Client: server.Client()}}
	for _, test := range []struct {
		path, body string
		status     int
		want       string
	}{
		{requestPath, `{"kind":"login"}`, http.StatusBadGateway, "STAT_NOT_FOUND"},
		{requestPath, `{"kind":"signature"}`, http.StatusBadGateway, "STAT_NOT_FOUND"},
		{outcomePath, `{"kind":"login","key":"123456"}`, http.StatusOK, "not approved: STAT_"},
		{outcomePath, `{"kind":"signature","key":"123456"}`, http.StatusOK, "not approved: STAT_"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, test.path, strings.NewReader(test.body))
		got := answerOf(t, d, r, nil)
		if got.Code != test.status || !strings.Contains(got.Body.String(), test.want) {
			t.Errorf("%s %s: %d %s", test.path, test.body, got.Code, got.Body)
		}
	}
}
