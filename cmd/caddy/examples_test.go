package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// examples are the example configurations, which are to be equal.
var examples = []string{"Caddyfile.example", "caddy.json.example"}

// exampleFiles makes the files that the examples name, by the documented command, with the
// keys of the tests.
func exampleFiles(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, key := range map[string]string{
		"front-end.key": testbed.FrontEndKey, "back-end.key": testbed.BackEndKey, "sealing.key": testbed.SealingKey,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(key+"\n"), 0o600))
	}
	files := exec.CommandContext(t.Context(), "make", "-s", "example-files", "EXAMPLE_DIR="+dir)
	files.Dir = filepath.Join("..", "..")
	out, err := files.CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}

// example is an example configuration on addresses of its own.
type example struct {
	*testbed.Gateway
	path string   // of the file
	env  []string // for commands with it
}

// newExample writes an example that uses the files in dir and the authentication server at a
// URL. It replaces texts, which come in pairs, in the configuration.
func newExample(t *testing.T, name, dir, server string, replacements ...string) example {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", name))
	require.NoError(t, err)
	return writeExample(t, string(text), name, dir, server, replacements...)
}

// writeExample is newExample for the text of a configuration and the name of its file.
func writeExample(t *testing.T, text, name, dir, server string, replacements ...string) example {
	t.Helper()
	address, admin := freeport.Address(t), freeport.Address(t)
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	config := strings.NewReplacer(append([]string{
		"/etc/dsapp", dir, ":11080", ":" + port, "unix//run/caddy/admin.sock|0200", admin,
	}, replacements...)...).Replace(text)
	path := filepath.Join(t.TempDir(), filepath.Base(name))
	require.NoError(t, os.WriteFile(path, []byte(config), 0o600))
	return example{
		Gateway: &testbed.Gateway{
			URL: "https://" + address, Admin: admin, Logs: new(output.Buffer),
			Client: testbed.NewClient(t, filepath.Join(dir, "tls.pem"), "gateway.example.com"),
		},
		path: path,
		env:  append(testbed.Environment(t.TempDir()), "DSAPP_OAS_URL="+server),
	}
}

// run starts the gateway and waits until it serves and the store is open.
func (e example) run(t *testing.T) {
	t.Helper()
	e.start(t)
	poll.Until(t, "gateway to serve", func() bool {
		// A first call for an unknown identifier opens the store.
		status, _, err := e.Try(t.Context(), testbed.EphemeralKeyPath, testbed.FrontEndKey, testbed.EphemeralKeyBody)
		return err == nil && status == http.StatusOK
	})
}

// start starts the gateway.
func (e example) start(t *testing.T) {
	t.Helper()
	process := testbed.Program(e.env, e.Logs, "run", "--config", e.path)
	require.NoError(t, process.Start())
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", e.path, e.Logs)
		}
	})
}

// caddy validate accepts the examples with the files that the documented command makes, without
// network, without writing anything, and while a gateway runs on the same store.
func TestExampleConfiguration(t *testing.T) {
	t.Parallel()
	dir := exampleFiles(t)
	for _, name := range examples {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newExample(t, name, dir, "https://oas.invalid:8888/")
			validate := func() {
				out, code := testbed.Run(t, e.env, "validate", "--config", e.path)
				require.Zero(t, code, out)
				assert.Contains(t, out, "Valid configuration")
			}
			before := tree(t, home(e.env))
			validate()
			assert.Equal(t, before, tree(t, home(e.env)), "validating writes nothing")
			e.run(t)
			validate()
		})
	}
}

// The same requests get the same answers from both examples, as far as these are not random.
func TestExamplesAnswerAlike(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	dir := exampleFiles(t)
	authority, err := os.ReadFile(certs.Authority)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "oas-ca.pem"), authority, 0o600))
	gateways := make([]example, len(examples))
	for i, name := range examples {
		// The bank's key is accepted from one address of this machine.
		gateways[i] = newExample(t, name, dir, server.URL, "10.0.0.0/8", "127.0.0.1")
		gateways[i].run(t)
	}

	asJSON := http.Header{"Content-Type": {"application/json"}}
	for _, request := range []struct {
		name, method, path, key, body string
		header                        http.Header
		status                        int
	}{
		{"server time", "POST", testbed.ServerTimePath, testbed.FrontEndKey, "", asJSON, 200},
		{"registration", "POST", testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody, asJSON, 200},
		{"exchange", "POST", testbed.EphemeralKeyPath, testbed.FrontEndKey, testbed.EphemeralKeyBody, asJSON, 200},
		{"refused proof", "POST", testbed.ActivationDataPath, testbed.FrontEndKey, testbed.ActivationDataBody, asJSON, 200},
		{"refused login", "POST", testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody, asJSON, 200},
		{"unknown login", "POST", "/rest/v2/authentication/push/getPreparedSecureChallenge", testbed.FrontEndKey, testbed.RetrieveBody, asJSON, 200},
		{"missing member in version 1", "POST", "/rest/push/retrieveLogin", testbed.FrontEndKey, testbed.RetrieveBody, asJSON, 400},
		{"missing member", "POST", testbed.LoginPath, testbed.FrontEndKey, "{}", asJSON, 400},
		{"no JSON", "POST", testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody, http.Header{"Content-Type": {"text/plain"}}, 415},
		{"largest body", "POST", testbed.LoginPath, testbed.FrontEndKey, `{"userID":"` + strings.Repeat("x", 65536) + `"}`, asJSON, 413},
		{"large header", "POST", testbed.ServerTimePath, testbed.FrontEndKey, "", http.Header{"Content-Type": {"application/json"}, "X-Large": {strings.Repeat("x", 15000)}}, 200},
		{"no key", "POST", testbed.ServerTimePath, "", "", asJSON, 401},
		{"wrong key", "POST", testbed.ServerTimePath, "not-the-key-of-anybody", "", asJSON, 401},
		{"key of the wrong class", "POST", testbed.RegisterPath, testbed.FrontEndKey, testbed.RegisterBody, asJSON, 403},
		{"wrong method", "GET", testbed.ServerTimePath, testbed.FrontEndKey, "", nil, 405},
		{"unknown service", "POST", "/rest/v2/provisioning/unknown", testbed.FrontEndKey, "", asJSON, 404},
		{"service in disguise", "POST", "/rest/v2//provisioning/getServerTime", testbed.FrontEndKey, "", asJSON, 404},
		{"elsewhere", "GET", "/elsewhere", "", "", nil, 404},
		{"prefix of a path", "GET", "/health/live", "", "", nil, 404},
		{"health", "GET", "/health", "", "", nil, 200},
		{"wrong method for health", "POST", "/health", "", "", nil, 405},
		{"ID of a stranger", "POST", testbed.ServerTimePath, testbed.FrontEndKey, "", http.Header{"Content-Type": {"application/json"}, "X-Request-Id": {"of-a-stranger"}}, 200},
	} {
		answers := make([]string, len(gateways))
		for i, e := range gateways {
			r, err := http.NewRequestWithContext(t.Context(), request.method, e.URL+request.path, strings.NewReader(request.body))
			require.NoError(t, err)
			maps.Copy(r.Header, request.header)
			if request.key != "" {
				r.SetBasicAuth(request.key, "")
			}
			reply, err := e.Do(r)
			require.NoError(t, err, request.name)
			assert.Equal(t, request.status, reply.Status, "%s: %s", request.name, reply.Body)
			assert.NotEqual(t, "of-a-stranger", reply.Header.Get("X-Request-Id"))
			answers[i] = withoutRandom(t, reply)
		}
		assert.Equal(t, answers[0], answers[1], "%s: answers of %s", request.name, examples)
	}
	for i, e := range gateways {
		status, answer := e.From(t, "127.0.0.77").Call(t, testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
		assert.Equal(t, http.StatusForbidden, status, answer)
		e.ActivatedDevice(t)
		e.AwaitLog(t, `"uri":"/elsewhere"`)
		assert.NotContains(t, e.Logs.String(), `"uri":"/health"`, "%s logs health checks", examples[i])
	}
}

// random matches what is different in every answer.
var random = regexp.MustCompile(`"(?:[0-9A-F]{32,}|[0-9]{4}-[^"]+Z|[0-9]{10,}|[0-9A-Za-z]{8})"|[0-9]{10,}`)

// withoutRandom returns an answer as a text, without what is random.
func withoutRandom(t *testing.T, r testbed.Reply) string {
	t.Helper()
	for _, name := range []string{"Date", "X-Request-Id", "Content-Length"} {
		r.Header.Del(name)
	}
	header, err := json.Marshal(r.Header)
	require.NoError(t, err)
	return fmt.Sprintf("%d %s\n%s", r.Status, header, random.ReplaceAllString(r.Body, `"random"`))
}

func home(env []string) string {
	for _, e := range env {
		if dir, ok := strings.CutPrefix(e, "HOME="); ok {
			return dir
		}
	}
	return ""
}

// tree lists the files below dir with their sizes.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files = append(files, fmt.Sprintf("%s %d %s", path, info.Size(), info.ModTime()))
		return nil
	}))
	return files
}
