package caddymodule

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The ID of a request is the one that a trusted proxy sent, if it has the right form, else
// Caddy's.
func TestRequestID(t *testing.T) {
	t.Parallel()
	const id = "Proxy.1_2-3"
	for name, c := range map[string]struct {
		sent    []string
		trusted bool
		want    string // empty: Caddy's
	}{
		"of a trusted proxy":       {[]string{id}, true, id},
		"longest":                  {[]string{strings.Repeat("x", 64)}, true, strings.Repeat("x", 64)},
		"too long":                 {[]string{strings.Repeat("x", 65)}, true, ""},
		"of an untrusted client":   {[]string{id}, false, ""},
		"sent twice":               {[]string{id, id}, true, ""},
		"two in one":               {[]string{id + ", " + id}, true, ""},
		"empty":                    {[]string{""}, true, ""},
		"line break":               {[]string{"a\nb"}, true, ""},
		"space":                    {[]string{"a b"}, true, ""},
		"other alphabet":           {[]string{"é"}, true, ""},
		"none":                     {nil, true, ""},
		"untrusted and without ID": {nil, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := request(timePath, "", "192.0.2.1")
			r.Header[requestIDHeader] = c.sent
			caddyhttp.SetVar(r.Context(), caddyhttp.TrustedProxyVarKey, c.trusted)
			w := httptest.NewRecorder()
			correlated, got := correlate(w, r)
			want := c.want
			if want == "" {
				want, _ = r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).GetString("http.request.uuid")
				require.Len(t, want, 36)
			}
			assert.Equal(t, want, got.requestID)
			assert.Equal(t, []string{want}, w.Header().Values(requestIDHeader))
			assert.Same(t, got, correlationOf(context.WithoutCancel(correlated.Context())))
		})
	}
}

// Work that belongs to no request logs no IDs.
func TestNoCorrelation(t *testing.T) {
	t.Parallel()
	assert.Empty(t, correlationOf(t.Context()).logFields())
}

// Every answer has the ID of the request exactly once: also refusals, those of the next
// handler, and those of a server behind it that sends an ID of its own.
func TestRequestIDOfAnswers(t *testing.T) {
	h := provisioned(t, gatewayConfig(t))
	proxied := caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Add(requestIDHeader, "of another server")
		w.Header().Set("X-Received", strings.Join(r.Header.Values(requestIDHeader), "|"))
		w.WriteHeader(http.StatusAccepted)
		return nil
	})
	for name, c := range map[string]struct {
		path, key string
		early     bool
		want      int
	}{
		"answered":       {path: timePath, key: testFrontEndKey, want: http.StatusOK},
		"without key":    {path: timePath, want: http.StatusUnauthorized},
		"in early data":  {path: timePath, key: testFrontEndKey, early: true, want: http.StatusTooEarly},
		"refused":        {path: registerPath, key: testFrontEndKey, want: http.StatusForbidden},
		"passed on":      {path: "/rest/other", key: testFrontEndKey, want: http.StatusAccepted},
		"not passed on":  {path: "/rest;a=b/v2/provisioning/getServerTime", key: testFrontEndKey, want: http.StatusNotFound},
		"key is unknown": {path: "/rest/other", key: "a-key-that-nobody-has", want: http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(c.path, c.key, "192.0.2.1")
			r.Header.Set(requestIDHeader, "of-the-client")
			if c.early {
				r.Header.Set("Early-Data", "1")
			}
			w := httptest.NewRecorder()
			require.NoError(t, h.ServeHTTP(w, r, proxied))
			assert.Equal(t, c.want, w.Code, w.Body)
			id, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer).GetString("http.request.uuid")
			assert.Equal(t, []string{id}, w.Header().Values(requestIDHeader))
			if c.want == http.StatusAccepted {
				assert.Equal(t, id, w.Header().Get("X-Received"))
			}
		})
	}
}
