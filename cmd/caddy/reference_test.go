package main

import (
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// runExamples runs commands that the reference shows in a shell and returns their output.
func runExamples(t *testing.T, authority string, commands ...string) string {
	t.Helper()
	shell := exec.CommandContext(t.Context(), "sh", "-e", "-c", strings.Join(commands, "\n"))
	shell.Env = append(testbed.Environment(t.TempDir()), "CURL_CA_BUNDLE="+authority)
	out, err := shell.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

const referenceKeys = "FRONT_END_KEY=sandbox-front-end\nBACK_END_KEY=sandbox-back-end"

// The sandbox serves the reference without a key and beside its services, which still need
// theirs. The keys that the reference shows are those of the sandbox.
func TestSandboxServesReference(t *testing.T) {
	t.Parallel()
	g, authority := startSandbox(t)
	for path, want := range map[string]struct {
		status      int
		contentType string
		text        string
	}{
		"/":                   {http.StatusOK, "text/html; charset=utf-8", referenceKeys},
		"/openapi.json":       {http.StatusOK, "application/json", `"openapi": "3.1.0"`},
		"/console.html":       {http.StatusOK, "text/html; charset=utf-8", "Front-end key"},
		"/console.js":         {http.StatusOK, "text/javascript; charset=utf-8", "./dsapp.js"},
		"/rest/v2":            {http.StatusUnauthorized, "application/json", "STAT_INVCREDENTIALS"},
		"/rest/openapi.json":  {http.StatusUnauthorized, "application/json", "STAT_INVCREDENTIALS"},
		"/favicon.ico":        {http.StatusUnauthorized, "application/json", "STAT_INVCREDENTIALS"},
		"/reference/page.css": {http.StatusUnauthorized, "application/json", "STAT_INVCREDENTIALS"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL+path, http.NoBody)
		require.NoError(t, err)
		got, err := g.Do(r)
		require.NoError(t, err)
		assert.Equal(t, want.status, got.Status, path)
		assert.Equal(t, want.contentType, got.Header.Get("Content-Type"), path)
		assert.Contains(t, got.Body, want.text, path)
	}
	out := runExamples(t, authority, referenceKeys,
		`curl -i -u "$FRONT_END_KEY:" -H 'Content-Type: application/json' -d '{}' `+g.URL+testbed.ServerTimePath,
		`curl -i -u "$BACK_END_KEY:" -H 'Content-Type: application/json' -d '{}' `+g.URL+testbed.OfflinePath)
	assert.Contains(t, out, "STAT_SUCCESS")
	assert.Contains(t, out, "userID is missing")
}

// In a real browser, the reference loads without a complaint and nothing else, fits a phone, and
// has what people need who read it with the keyboard, with a screen reader or without JavaScript.
// The search finds services and statuses, and what its buttons copy works in a shell.
func TestBrowserReference(t *testing.T) {
	t.Parallel()
	g, authority := startSandbox(t)
	address := g.URL + "/"
	var got struct {
		Looks []struct {
			ColorScheme, Ground              string
			Complaints, Requests, Violations []string
			Width, Widest, Rules             int
		}
		Search []struct {
			Text, Said, Focus string
			Services, Links   []string
			Opened            int
		}
		Followed struct {
			Text string
			Top  int
		}
		Copied   []struct{ Name, Said, Text string }
		Keyboard []struct {
			Key, Element       string
			Outlined, OnScreen bool
		}
		Plain      struct{ Services, Controls, Advice, Details int }
		Complaints []string
	}
	runInBrowser(t, "reference.mjs", map[string]string{"url": address}, &got)

	operations := map[string]bool{}
	for _, s := range restapi.Services() {
		operations[string(s.Operation)] = true
	}
	assert.Empty(t, got.Complaints)
	grounds := map[string]string{}
	require.Len(t, got.Looks, 4)
	for _, look := range got.Looks {
		assert.Empty(t, look.Complaints)
		assert.Equal(t, []string{address}, look.Requests)
		assert.Equal(t, look.Width, look.Widest, "the page scrolls sideways")
		assert.Empty(t, look.Violations, "%s, %d pixels", look.ColorScheme, look.Width)
		assert.Greater(t, look.Rules, 30)
		grounds[look.ColorScheme] = look.Ground
	}
	assert.NotEqual(t, grounds["light"], grounds["dark"])

	for i, want := range []struct {
		said     string
		services int
		opened   int
		among    string
	}{
		{"", len(operations), 0, "MdlActivate"},
		{"6 services, 1 status", 6, 0, "authSignature"},
		{"3 services", 3, 1, "cancelAuthUser"},
		{"7 services", 7, 4, "MdlAddDevice"},
		{"Nothing found", 0, 0, ""},
		{"", len(operations), 0, "MdlActivate"},
	} {
		s := got.Search[i]
		assert.Equal(t, want.said, s.Said, s.Text)
		assert.Len(t, s.Services, want.services, s.Text)
		assert.Equal(t, s.Services, s.Links, s.Text)
		assert.Equal(t, want.opened, s.Opened, s.Text)
		assert.Equal(t, "search", s.Focus, s.Text)
		if want.among != "" {
			assert.Contains(t, s.Services, want.among, s.Text)
		}
	}
	assert.Empty(t, got.Followed.Text)
	assert.Less(t, got.Followed.Top, 900)

	require.Len(t, got.Copied, 2)
	commands := []string{referenceKeys}
	for _, c := range got.Copied {
		assert.Contains(t, c.Name, "Copied the example of provisioning/")
		assert.Equal(t, c.Name, c.Said)
		commands = append(commands, c.Text)
	}
	out := runExamples(t, authority, commands...)
	assert.Equal(t, 2, strings.Count(out, "STAT_SUCCESS"), out)
	assert.Contains(t, out, "activationPassword")

	var path []string
	for _, k := range got.Keyboard {
		path = append(path, k.Element)
		assert.True(t, k.Outlined || k.Element == "main", "%s leads to %s, whose focus is not visible", k.Key, k.Element)
		assert.True(t, k.OnScreen, "%s leads to %s, which is not on the screen", k.Key, k.Element)
	}
	assert.Equal(t, []string{
		"Skip to the reference", "DSAPP Gateway", "search", "Before you begin", "search", "DSAPP Gateway", "Skip to the reference", "main", "OpenAPI document",
	}, path)

	assert.Equal(t, len(operations), got.Plain.Services)
	assert.Zero(t, got.Plain.Controls)
	assert.Equal(t, 1, got.Plain.Advice)
	assert.NotZero(t, got.Plain.Details)
}
