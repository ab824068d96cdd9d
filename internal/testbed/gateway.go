//go:build linux

package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// Gateway is a process of the binary with one gateway.
type Gateway struct {
	URL    string         // without a path
	Admin  string         // address of the admin endpoint
	Config Object         // of the next Start or Load
	Env    []string       // variables of the next Start, beside those of every gateway
	Binary string         // of the next Start, if it is not the one that Main has built
	Logs   *output.Buffer // what the processes have printed

	Certificates sandbox.Certificates
	Client       *http.Client // makes the calls

	cmd    *exec.Cmd
	exited chan struct{}
}

// Start runs the process and waits until it serves.
func (g *Gateway) Start(t testing.TB) {
	t.Helper()
	g.cmd = g.Command(t)
	require.NoError(t, g.cmd.Start())
	exited := make(chan struct{})
	g.exited = exited
	cmd := g.cmd
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", g.Logs)
		}
	})
	poll.Until(t, "gateway to serve", func() bool {
		select {
		case <-exited:
			require.Fail(t, "gateway exited", "%s", g.Logs)
		default:
		}
		// Not a path of the gateway, so that its limits do not count the call.
		_, _, err := g.Try(t.Context(), "/", "", "")
		return err == nil
	})
}

// Kill ends the process with a signal that it cannot handle.
func (g *Gateway) Kill(t *testing.T) {
	t.Helper()
	require.NoError(t, g.cmd.Process.Kill())
	<-g.exited
	g.Client.CloseIdleConnections()
}

// Terminate asks the process to stop. The channel is closed when it has exited.
func (g *Gateway) Terminate(t *testing.T) (exited <-chan struct{}) {
	t.Helper()
	require.NoError(t, g.cmd.Process.Signal(syscall.SIGTERM))
	return g.exited
}

// Health returns the status and the word of the health check on the site. The status is 0 if
// there is no answer.
func (g *Gateway) Health(ctx context.Context) (status int, word string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+HealthPath, nil)
	if err != nil {
		return 0, err.Error()
	}
	got, err := g.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	return got.Status, strings.TrimSpace(got.Body)
}

// Load loads g.Config, which must be accepted.
func (g *Gateway) Load(t *testing.T) {
	t.Helper()
	status, body := g.TryLoad(t)
	require.Equal(t, http.StatusOK, status, body)
}

// TryLoad loads g.Config and returns the status and the body of the answer.
func (g *Gateway) TryLoad(t *testing.T) (int, string) {
	t.Helper()
	config, err := json.Marshal(g.Config)
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+g.Admin+"/load", bytes.NewReader(config))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	// An unchanged configuration is loaded again, too.
	r.Header.Set("Cache-Control", "must-revalidate")
	resp, err := askAdmin(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

// askAdmin sends a request to an admin endpoint, and sends it again if there is no answer:
// Caddy replaces the endpoint with every configuration, which can end a connection to the
// one before. All requests of tests can be repeated.
func askAdmin(r *http.Request) (*http.Response, error) {
	r.Close = true
	for attempt := 1; ; attempt++ {
		resp, err := http.DefaultClient.Do(r)
		if err == nil || r.Context().Err() != nil || attempt == 10 {
			return resp, err
		}
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// Accesses returns the statuses of all requests from an address, in the order of the access
// log.
func (g *Gateway) Accesses(t *testing.T, address string) (statuses []int) {
	t.Helper()
	for line := range strings.Lines(g.Logs.String()) {
		if !strings.Contains(line, `"http.log.access`) || !strings.HasSuffix(line, "\n") {
			continue
		}
		var access struct {
			Request struct {
				RemoteIP string `json:"remote_ip"`
			}
			Status int
		}
		require.NoError(t, json.Unmarshal([]byte(line), &access), line)
		if access.Request.RemoteIP == address {
			statuses = append(statuses, access.Status)
		}
	}
	return statuses
}

// AwaitLog waits until the gateway has logged a text. What it logs arrives a little later than
// its answers.
func (g *Gateway) AwaitLog(t testing.TB, text string) {
	t.Helper()
	poll.Until(t, text+" in the log", func() bool { return strings.Contains(g.Logs.String(), text) })
}

// Command returns a command that runs the binary with g.Config and prints to g.Logs.
func (g *Gateway) Command(t testing.TB) *exec.Cmd {
	t.Helper()
	config, err := json.Marshal(g.Config)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "caddy.json")
	require.NoError(t, os.WriteFile(path, config, 0o600))
	env := append(Environment(t.TempDir()),
		"TEST_FRONT_END_KEY="+FrontEndKey, "TEST_BACK_END_KEY="+BackEndKey, "TEST_SEALING_KEY="+SealingKey)
	env = append(env, g.Env...)
	cmd := Program(env, g.Logs, "run", "--config", path)
	if g.Binary != "" {
		cmd.Path = g.Binary
	}
	return cmd
}

// Pid returns the ID of the process.
func (g *Gateway) Pid() int { return g.cmd.Process.Pid }

// AskAdmin returns what the admin endpoint answers to a GET request for a path.
func (g *Gateway) AskAdmin(ctx context.Context, path string) (string, error) {
	_, body, err := g.CallAdmin(ctx, http.MethodGet, path)
	return body, err
}

// CallAdmin sends a request without a body to the admin endpoint and returns the status and
// the body of the answer.
func (g *Gateway) CallAdmin(ctx context.Context, method, path string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+g.Admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := askAdmin(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
