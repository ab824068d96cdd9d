package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// runInBrowser runs a scenario of testdata/browser in Chromium and decodes its result. It skips
// the test unless `make browser` runs it, because it needs more than the other tests.
func runInBrowser(t *testing.T, scenario string, input, result any) {
	t.Helper()
	if os.Getenv("DSAPP_BROWSER") == "" {
		t.Skip("needs Chromium: make browser")
	}
	chromium, err := exec.LookPath("chromium")
	require.NoError(t, err)
	encoded, err := json.Marshal(input)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join("testdata", "browser", "run.mjs"), scenario)
	cmd.Env = append(testbed.Environment(t.TempDir()), "CHROMIUM="+chromium)
	cmd.Stdin = bytes.NewReader(encoded)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	require.NoError(t, err, complaints.String())
	require.NoError(t, json.Unmarshal(out, result), "%s", out)
}

// startPage starts a site with an empty page and returns its origin.
func startPage(t *testing.T) (origin string) {
	t.Helper()
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>page</title>"))
	}))
	t.Cleanup(page.Close)
	return page.URL
}

// In a real browser, the script of a page of an allowed origin uses the services for front-end
// keys. It sees every status and body, the ID of the request and when to try again, and no
// other header. The script of another page gets nothing, and its calls are not even made.
func TestBrowserCORS(t *testing.T) {
	t.Parallel()
	type call struct {
		URL         string `json:"url"`
		Key         string `json:"key"`
		Body        string `json:"body"`
		Credentials string `json:"credentials,omitempty"`
	}
	type visit struct {
		Page  string `json:"page"`
		Calls []call `json:"calls"`
	}
	type answer struct {
		Status                                    int
		Body, RequestID, RetryAfter, Other, Error string
	}
	allowed, refused := startPage(t), startPage(t)
	start := func() (*testbed.Gateway, *testbed.Server) {
		return testbed.Start(t, func(dsapp testbed.Object) {
			dsapp["cors"] = testbed.Object{"origins": []string{"capacitor://localhost", allowed}}
			dsapp["limits"] = testbed.Object{"failed_keys_per_minute": 1}
		})
	}
	g, _ := start()
	other, lost := start()
	lost.Stop()

	now := call{URL: g.URL + testbed.ServerTimePath, Key: testbed.FrontEndKey, Body: "{}"}
	var got [][]answer
	runInBrowser(t, "cors.mjs", []visit{
		{allowed, []call{
			now, now,
			{URL: g.URL + testbed.LoginPath, Key: testbed.FrontEndKey, Body: testbed.LoginBody},
			{URL: g.URL + testbed.LoginPath, Key: testbed.FrontEndKey, Body: "{}"},
			{URL: g.URL + testbed.LoginPath, Key: testbed.FrontEndKey, Body: strings.Repeat(" ", 1<<17)},
			{URL: other.URL + testbed.LoginPath, Key: testbed.FrontEndKey, Body: testbed.LoginBody},
			{URL: now.URL, Key: now.Key, Body: now.Body, Credentials: "include"},
			{URL: g.URL + testbed.RegisterPath, Key: testbed.BackEndKey, Body: testbed.RegisterBody},
			{URL: g.URL + "/rest/v2/nothing", Key: testbed.FrontEndKey, Body: "{}"},
		}},
		{refused, []call{now, {URL: g.URL + testbed.RegisterPath, Key: testbed.BackEndKey, Body: testbed.RegisterBody}}},
		{allowed, []call{
			{URL: now.URL, Key: "a-wrong-api-key-0", Body: "{}"}, now,
		}},
	}, &got)

	const blocked = "TypeError: Failed to fetch"
	for i, want := range [][]answer{
		{
			{Status: http.StatusOK, Body: "STAT_SUCCESS"},
			{Status: http.StatusOK, Body: "STAT_SUCCESS"},
			{Status: http.StatusOK, Body: "RET_FAILURE"},
			{Status: http.StatusBadRequest, Body: "userID is missing"},
			{Status: http.StatusRequestEntityTooLarge, Body: "body is too large"},
			{Status: http.StatusServiceUnavailable, Body: "STAT_COMMS", RetryAfter: "1"},
			{Error: blocked},
			{Error: blocked},
			{Error: blocked},
		},
		{{Error: blocked}, {Error: blocked}},
		{
			{Status: http.StatusUnauthorized, Body: "STAT_INVCREDENTIALS"},
			{Status: http.StatusTooManyRequests, Body: "too many requests", RetryAfter: "60"},
		},
	} {
		require.Len(t, got[i], len(want))
		for j, w := range want {
			a := got[i][j]
			assert.Contains(t, a.Body, w.Body, "visit %d, call %d", i, j)
			if w.Error == "" {
				assert.NotEmpty(t, a.RequestID, "visit %d, call %d", i, j)
			}
			assert.Equal(t, w.RetryAfter != "", a.RetryAfter != "", "visit %d, call %d", i, j)
			a.Body, a.RequestID, a.RetryAfter, w.Body, w.RetryAfter = "", "", "", "", ""
			assert.Equal(t, w, a, "visit %d, call %d", i, j)
		}
	}
	// What the browser sent to the gateway.
	sent := func(method, path string) (n int) {
		for line := range strings.Lines(g.Logs.String()) {
			if strings.Contains(line, `"logger":"http.log.access`) && strings.Contains(line, `"method":"`+method+`"`) && strings.Contains(line, `"uri":"`+path+`"`) {
				n++
			}
		}
		return n
	}
	// The two calls of the first visit and of the last one; neither that with credentials nor
	// that of the refused page.
	poll.Until(t, "the calls in the access log", func() bool { return sent(http.MethodPost, testbed.ServerTimePath) >= 4 })
	assert.Equal(t, 4, sent(http.MethodPost, testbed.ServerTimePath))
	// One for each visit, because the browser keeps the answer, and one for credentials.
	assert.Equal(t, 4, sent(http.MethodOptions, testbed.ServerTimePath))
	assert.Zero(t, sent(http.MethodPost, testbed.RegisterPath))
	assert.Zero(t, sent(http.MethodPost, "/rest/v2/nothing"))
}
