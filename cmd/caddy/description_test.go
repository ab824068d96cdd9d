package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// Keys of every sandbox.
const (
	sandboxFrontEnd = "sandbox-front-end"
	sandboxBackEnd  = "sandbox-back-end"
)

// startSandbox starts a sandbox. It returns a client of its gateway and the file with its CA.
func startSandbox(t *testing.T) (g *testbed.Gateway, authority string) {
	t.Helper()
	dir := t.TempDir()
	readyFile := filepath.Join(dir, "ready.json")
	runSandbox(t, testbed.Environment(t.TempDir()), dir, "--listen", "localhost:0", "--ready-file", readyFile)
	var content []byte
	poll.Until(t, "the ready file", func() (found bool) {
		var err error
		content, err = os.ReadFile(readyFile)
		return err == nil
	})
	var ready struct{ Gateway, CA string }
	require.NoError(t, json.Unmarshal(content, &ready))
	return &testbed.Gateway{URL: ready.Gateway, Client: testbed.Watched(testbed.NewClient(t, ready.CA, ""))}, ready.CA
}

// The command prints the document that is checked in.
func TestOpenAPICommand(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("../../docs/openapi.json")
	require.NoError(t, err)
	got, code := testbed.Run(t, testbed.Environment(t.TempDir()), "dsapp", "openapi")
	assert.Zero(t, code, got)
	assert.Equal(t, string(want), got)
}

// The sandbox takes every example of the description for a well-formed request and answers as
// the description says. It carries out those that need nothing that was drawn before.
func TestExamplesOfDescription(t *testing.T) {
	t.Parallel()
	g, _ := startSandbox(t)
	succeeds := []string{testbed.RegisterPath, testbed.OfflinePath, testbed.EphemeralKeyPath, testbed.ServerTimePath, "/rest/activation/DSAPPSRPGenerateEphemeralKey"}
	items := testbed.Described(t).Paths.Map()
	assert.Len(t, items, 31)
	for path, item := range items {
		key := sandboxFrontEnd
		if alternatives := *item.Post.Security; len(alternatives) == 1 && alternatives[0]["backEndKey"] != nil {
			key = sandboxBackEnd
		}
		for name, example := range item.Post.RequestBody.Value.Content["application/json"].Examples {
			body, err := json.Marshal(example.Value.Value)
			require.NoError(t, err)
			got := g.Post(t, path, key, string(body))
			assert.Equal(t, http.StatusOK, got.Status, "%s %s: %s", path, name, got.Body)
			for _, p := range succeeds {
				if p == path {
					assert.Contains(t, got.Body, "STAT_SUCCESS", "%s %s", path, name)
				}
			}
		}
	}
}

// Every curl command of docs/services.md works with the sandbox as it stands: the request is
// well-formed.
func TestCommandsOfServices(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/services.md")
	require.NoError(t, err)
	commands := regexp.MustCompile("(?s)```sh\n(curl .*?)```").FindAllStringSubmatch(string(page), -1)
	assert.Len(t, commands, 31)
	g, authority := startSandbox(t)
	for _, c := range commands {
		shell := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(c[1], "curl ", "curl -sS --write-out ' %{http_code}' ", 1))
		shell.Env = append(testbed.Environment(t.TempDir()), "CA="+authority, "GATEWAY="+g.URL)
		out, err := shell.CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Regexp(t, `STAT_.* 200$`, string(out), c[1])
	}
}

// A client that openapi-typescript generates from the description compiles and activates a
// device of the sandbox. It needs npm packages and half a minute, so only `make openapi` runs it.
func TestGeneratedClient(t *testing.T) {
	if os.Getenv("DSAPP_GENERATOR") == "" {
		t.Skip("DSAPP_GENERATOR is not set: run make openapi")
	}
	t.Parallel()
	source, err := filepath.Abs("testdata/generated-client")
	require.NoError(t, err)
	document, err := filepath.Abs("../../docs/openapi.json")
	require.NoError(t, err)
	dir := t.TempDir()
	for _, name := range []string{"activate.ts", "package.json", "tsconfig.json"} {
		content, err := os.ReadFile(filepath.Join(source, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	require.NoError(t, os.Symlink(filepath.Join(source, "node_modules"), filepath.Join(dir, "node_modules")))
	for _, arguments := range [][]string{{"openapi-typescript", document, "--output", "api.ts"}, {"tsc"}} {
		cmd := exec.CommandContext(t.Context(), filepath.Join("node_modules", ".bin", arguments[0]), arguments[1:]...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}

	g, authority := startSandbox(t)
	cmd := exec.CommandContext(t.Context(), "node", "activate.js")
	cmd.Dir = dir
	cmd.Env = append(testbed.Environment(t.TempDir()), "NODE_EXTRA_CA_CERTS="+authority, "GATEWAY_URL="+g.URL,
		"FRONT_END_KEY="+sandboxFrontEnd, "BACK_END_KEY="+sandboxBackEnd, "USER_ID=jane.doe", "DOMAIN=mydomain.com", "STATIC_PASSWORD=sandbox")
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	device := sandbox.NewDevice(1)
	for _, answer := range []func(message string) (string, error){device.ActivateLicense, device.ActivateInstance} {
		require.True(t, lines.Scan(), "no message for the device")
		code, err := answer(lines.Text())
		require.NoError(t, err)
		_, err = io.WriteString(in, code+"\n")
		require.NoError(t, err)
	}
	require.True(t, lines.Scan(), "no result")
	assert.Equal(t, "jane.doe mydomain.com "+device.SerialNumber(), lines.Text())
	require.NoError(t, cmd.Wait(), complaints.String())
}
