package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// If the file of the embedded store is damaged, only what needs the store fails: other sites
// and services go on, registrations are refused with 503, the log and `dsapp store check` say
// what to do, and neither the file nor its key is changed. Once the file is moved aside,
// everything works without a restart. The same holds for a file that is cut while the gateway
// uses it.
func TestDamagedStoreFile(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	path := filepath.Join(t.TempDir(), "dsapp.db")
	g := testbed.Configure(t, certs, server.URL, func(dsapp testbed.Object) {
		dsapp["store"].(testbed.Object)["path"] = path
		delete(dsapp, "sealing_keys")
	})
	g.HTTPServer()["routes"] = append(g.HTTPServer()["routes"].([]testbed.Object), testbed.Object{
		"match":  []testbed.Object{{"path": []string{"/elsewhere"}}},
		"handle": []testbed.Object{{"handler": "static_response", "body": "another site"}},
	})
	g.Start(t)
	register := func() int {
		t.Helper()
		got := g.Post(t, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
		if got.Status == http.StatusServiceUnavailable {
			got.RetryAfter(t)
			assert.Contains(t, got.Body, "STAT_COMMS")
		}
		return got.Status
	}
	check := func() (string, int) {
		t.Helper()
		return testbed.Run(t, testbed.Environment(t.TempDir()), "dsapp", "store", "check", "--path", path)
	}
	registered := g.Register(t)
	activated, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
	require.NoError(t, err)
	g.Register(t)
	said, code := check()
	assert.Equal(t, 1, code)
	assert.Contains(t, said, "another process has the file open: stop it first")
	g.Kill(t)
	said, code = check()
	assert.Zero(t, code, said)
	assert.Contains(t, said, path+" is sound: 1 registrations, 0 claims")

	content, err := os.ReadFile(path)
	require.NoError(t, err)
	key, err := os.ReadFile(path + ".key")
	require.NoError(t, err)
	damaged := append([]byte(nil), content...)
	clear(damaged[2*os.Getpagesize():])
	require.NoError(t, os.WriteFile(path, damaged, 0o600))
	const advice = "move the file aside: what it holds lives ten minutes"
	said, code = check()
	assert.Equal(t, 1, code)
	assert.Contains(t, said, advice)

	// told reports whether the log has a line with all these texts.
	told := func(all ...string) bool {
		for line := range strings.Lines(g.Logs.String()) {
			found := true
			for _, text := range all {
				found = found && strings.Contains(line, text)
			}
			if found {
				return true
			}
		}
		return false
	}
	g.Start(t)
	poll.Until(t, "the warning", func() bool { return told(`"the store is not ready`, path, advice) })
	goesOn := func() {
		t.Helper()
		status, answer := g.Call(t, "/elsewhere", "", "")
		assert.Equal(t, http.StatusOK, status)
		assert.Equal(t, "another site", answer)
		status, answer = g.Call(t, testbed.ServerTimePath, testbed.FrontEndKey, "{}")
		assert.Equal(t, http.StatusOK, status, answer)
		require.NoError(t, g.Phone().UpdateNotificationID(t.Context(), activated.Authenticator, "another push ID"))
		_, err := g.Phone().Authenticate(t.Context(), activated.Authenticator)
		require.NoError(t, err)
		assert.Equal(t, http.StatusServiceUnavailable, register())
	}
	goesOn()
	found, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, damaged, found)
	require.NoError(t, os.Rename(path, path+".aside"))
	assert.Equal(t, http.StatusOK, register())
	found, err = os.ReadFile(path + ".key")
	require.NoError(t, err)
	assert.Equal(t, key, found)

	require.NoError(t, os.Truncate(path, int64(3*os.Getpagesize())))
	goesOn()
	poll.Until(t, "a warning with the advice", func() bool { return told(`"operation failed"`, path, "12288 bytes long", advice) })
	require.NoError(t, os.Rename(path, path+".cut"))
	assert.Equal(t, http.StatusOK, register())
}
