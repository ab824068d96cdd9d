package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// A preflight needs no key and counts for nothing: it is no failed key, it uses up no limit, and
// no metric counts it. The access log has it, with its service.
func TestPreflightCountsForNothing(t *testing.T) {
	t.Parallel()
	const origin = "https://app.example.com"
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["cors"] = testbed.Object{"origins": []string{origin}}
		dsapp["limits"] = testbed.Object{"failed_keys_per_minute": 1, "calls_per_minute": 1, "requests_in_flight": 1}
	})
	preflight := func(path, key string) testbed.Reply {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, g.URL+path, http.NoBody)
		require.NoError(t, err)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", http.MethodPost)
		if key != "" {
			r.SetBasicAuth(key, "")
		}
		got, err := g.Do(r)
		require.NoError(t, err)
		return got
	}
	before := scrape(t, g)
	for _, key := range []string{"", "a-wrong-api-key-0", testbed.FrontEndKey, "a-wrong-api-key-1"} {
		got := preflight(testbed.ServerTimePath, key)
		assert.Equal(t, http.StatusNoContent, got.Status, got.Body)
		assert.Equal(t, origin, got.Header.Get("Access-Control-Allow-Origin"))
		assert.NotEmpty(t, got.Header.Get("X-Request-Id"))
	}
	g.AwaitLog(t, `"dsapp_service":"provisioning/getServerTime"`)
	poll.Until(t, "no request to be in progress", func() bool { return scrape(t, g)["caddy_dsapp_requests_in_flight"] == 0 })
	after := scrape(t, g)
	for _, name := range append(after.prefixed("caddy_dsapp_requests_total"), after.prefixed("caddy_dsapp_limit_hits_total")...) {
		assert.InDelta(t, before[name], after[name], 0, name)
	}

	status, answer := g.Call(t, testbed.ServerTimePath, testbed.FrontEndKey, "")
	assert.Equal(t, http.StatusOK, status, answer)
	// The preflight of a service for back ends is a request without a key.
	got := preflight(testbed.RegisterPath, "")
	assert.Equal(t, http.StatusUnauthorized, got.Status)
	for name := range got.Header {
		assert.False(t, strings.HasPrefix(name, "Access-Control-") || name == "Vary", name)
	}
}
