package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/namespace"
)

// The tests of this package run the real binary, over real TLS, in front of a
// simulated authentication server that lives in the test process.

const (
	frontEndKey    = "test-front-end-key"
	backEndKey     = "test-back-end-key"
	sealingKey     = "5e41179a1b8ff3a3c1b0f2a96dd7f5d2a44e3d0c8b1a6f7e9d2c3b4a59687706"
	userID         = "jane.doe"
	domain         = "mydomain.com"
	staticPassword = "a static password"

	deadline = 30 * time.Second
)

// caddyBinary is built once by TestMain.
var caddyBinary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if !namespace.Inside() {
		code, err := runInOwnNamespaces()
		if err == nil {
			return code
		}
		reloadsReset = err
	} else if err := setUpNetwork(); err != nil {
		fmt.Fprintln(os.Stderr, "network of the tests:", err)
		return 1
	}

	dir, err := os.MkdirTemp("", "dsapp-gateway-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)

	caddyBinary = filepath.Join(dir, "caddy")
	build := exec.Command("go", "build", "-o", caddyBinary, ".")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building caddy:", err)
		return 1
	}
	return m.Run()
}

// oas is a simulated authentication server behind real TLS.
type oas struct {
	*sandbox.Server
	URL string

	client *http.Client
	stop   func()

	mu          sync.Mutex
	intercept   func(w http.ResponseWriter, r *http.Request) bool
	connections map[net.Conn]struct{} // that are open
}

// Intercept lets f see every command first; the simulated server handles it
// only if f returns false. Nil ends it.
func (o *oas) Intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.intercept = f
}

func (o *oas) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	f := o.intercept
	o.mu.Unlock()
	if f != nil && f(w, r) {
		return
	}
	o.Server.ServeHTTP(w, r)
}

// note keeps the list of open connections.
func (o *oas) note(c net.Conn, state http.ConnState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch state {
	case http.StateNew:
		o.connections[c] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(o.connections, c)
	case http.StateActive, http.StateIdle:
	}
}

// Stop makes the server unreachable.
func (o *oas) Stop() { o.stop() }

// Application is the bank's application server in front of this server.
func (o *oas) Application() *sandbox.ApplicationServer {
	return &sandbox.ApplicationServer{URL: o.URL, Client: o.client}
}

func certificates(t testing.TB) sandbox.Certificates {
	t.Helper()
	c, err := sandbox.NewCertificates(t.TempDir(), "localhost", "127.0.0.1")
	require.NoError(t, err)
	return c
}

func startOAS(t testing.TB, certs sandbox.Certificates) *oas {
	t.Helper()
	users := append([]sandbox.User{
		{Name: userID, Domain: domain, StaticPassword: staticPassword, Licenses: 10, StandardLicenses: 10},
	}, loadUsers()...)
	return serveOAS(t, certs, sandbox.New(sandbox.Options{Users: users}))
}

// startReplica starts an instance with the users and devices of o and its own
// pending requests and registrations.
func startReplica(t *testing.T, certs sandbox.Certificates, o *oas) *oas {
	t.Helper()
	return serveOAS(t, certs, o.Replica())
}

func serveOAS(t testing.TB, certs sandbox.Certificates, s *sandbox.Server) *oas {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certs.Certificate, certs.Key)
	require.NoError(t, err)
	o := &oas{Server: s, client: client(t, certs.Authority, ""), connections: make(map[net.Conn]struct{})}
	server := httptest.NewUnstartedServer(o)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Config.ConnState = o.note
	server.StartTLS()
	o.stop = sync.OnceFunc(func() {
		server.CloseClientConnections()
		server.Close()
	})
	t.Cleanup(o.stop)
	o.URL = server.URL
	return o
}

// object is a JSON object.
type object = map[string]any

// gateway is a running caddy with one gateway.
type gateway struct {
	URL    string
	Admin  string
	Config object
	Logs   *logs

	certs  sandbox.Certificates
	client *http.Client
	cmd    *exec.Cmd
	exited chan struct{}
}

// configure makes a configuration for a gateway in front of server; edit may
// change its "dsapp" app.
func configure(t testing.TB, certs sandbox.Certificates, server string, edit func(dsapp object)) *gateway {
	t.Helper()
	g := &gateway{
		URL:   "https://" + freeport.Address(t),
		Admin: freeport.Address(t),
		Logs:  new(logs),
		certs: certs,
	}
	dsapp := object{
		"api_keys": []object{
			{"name": "mobile-app", "class": "front_end", "key": "{env.TEST_FRONT_END_KEY}"},
			{"name": "bank-site", "class": "back_end", "key": "{env.TEST_BACK_END_KEY}"},
		},
		"sealing_keys": []string{"{env.TEST_SEALING_KEY}"},
		"store":        object{"backend": "embedded", "path": filepath.Join(t.TempDir(), "dsapp.db")},
		"authentication_servers": object{
			"instances": []object{{"name": "primary", "url": server}},
			"tls":       object{"ca": object{"provider": "file", "pem_files": []string{certs.Authority}}},
			"timeout":   "5s",
		},
		"limits": object{
			"failed_keys_per_minute": 0, "exchanges_per_minute": 0, "registrations_per_minute": 0, "calls_per_minute": 0,
			"requests_in_flight": 0, "calls_in_flight": 0,
		},
	}
	if edit != nil {
		edit(dsapp)
	}
	g.Config = object{
		"admin": object{"listen": g.Admin, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{
			"level": "DEBUG", "encoder": object{"format": "json"},
		}}},
		"apps": object{
			"http": object{"grace_period": "10s", "servers": object{"gateway": object{
				"listen":          []string{strings.TrimPrefix(g.URL, "https://")},
				"protocols":       []string{"h1", "h2"},
				"automatic_https": object{"disable": true},
				"logs":            object{},
				"routes": []object{{
					"match":  []object{{"path": []string{"/rest/*"}}},
					"handle": []object{{"handler": "dsapp_gateway"}},
				}},
				"tls_connection_policies": []object{{}},
			}}},
			"tls": object{"certificates": object{"load_files": []object{
				{"certificate": certs.Certificate, "key": certs.Key},
			}}},
			"dsapp": dsapp,
		},
	}
	g.client = client(t, certs.Authority, "")
	return g
}

func startGateway(t testing.TB, certs sandbox.Certificates, server string, edit func(dsapp object)) *gateway {
	t.Helper()
	g := configure(t, certs, server, edit)
	g.Start(t)
	return g
}

// Start runs the process and waits until it serves.
func (g *gateway) Start(t testing.TB) {
	t.Helper()
	config, err := json.Marshal(g.Config)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "caddy.json")
	require.NoError(t, os.WriteFile(path, config, 0o600))

	g.cmd = exec.Command(caddyBinary, "run", "--config", path)
	g.cmd.Env = append(environment(t.TempDir()),
		"TEST_FRONT_END_KEY="+frontEndKey, "TEST_BACK_END_KEY="+backEndKey, "TEST_SEALING_KEY="+sealingKey)
	g.cmd.Stdout, g.cmd.Stderr = g.Logs, g.Logs
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
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
	poll(t, "gateway to serve", func() bool {
		select {
		case <-exited:
			require.Fail(t, "gateway exited", "%s", g.Logs)
		default:
		}
		// Outside of the gateway's paths, so that nothing is counted.
		_, _, err := g.try(t.Context(), "/", "", "")
		return err == nil
	})
}

// Kill ends the process without any notice.
func (g *gateway) Kill(t *testing.T) {
	t.Helper()
	require.NoError(t, g.cmd.Process.Kill())
	<-g.exited
	g.client.CloseIdleConnections()
}

// Load reloads the process with g.Config.
func (g *gateway) Load(t *testing.T) {
	t.Helper()
	status, body := g.load(t)
	require.Equal(t, http.StatusOK, status, body)
}

func (g *gateway) load(t *testing.T) (int, string) {
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

// askAdmin sends a request to an admin endpoint, which Caddy replaces with every
// configuration: a connection to the old one can be reset or closed without an
// answer. Another attempt does no harm.
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

// Call posts a body and returns the status and the answer.
func (g *gateway) Call(t testing.TB, path, key, body string) (int, string) {
	t.Helper()
	status, answer, err := g.try(t.Context(), path, key, body)
	require.NoError(t, err)
	return status, answer
}

func (g *gateway) try(ctx context.Context, path, key, body string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.SetBasicAuth(key, "")
	}
	status, _, answer, err := g.Do(r)
	return status, answer, err
}

// Do sends any request.
func (g *gateway) Do(r *http.Request) (int, http.Header, string, error) {
	resp, err := g.client.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(answer), err
}

// httpServer is the configuration of the HTTP server.
func (g *gateway) httpServer() object {
	return g.Config["apps"].(object)["http"].(object)["servers"].(object)["gateway"].(object)
}

// from is the gateway as a client at another address of this machine sees it.
func (g *gateway) from(t *testing.T, address string) *gateway {
	t.Helper()
	other := *g
	transport := g.client.Transport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext
	t.Cleanup(transport.CloseIdleConnections)
	other.client = &http.Client{Transport: transport, Timeout: deadline}
	return &other
}

// registration is what the bank's site gets for one user.
type registration struct {
	Identifier string `json:"registrationIdentifier"`
	Password   string `json:"activationPassword"`
	Image      string `json:"activationImage"`
	ExpiresAt  string `json:"expiresAt"`
}

// Register plays the bank's site.
func (g *gateway) Register(t *testing.T) registration {
	t.Helper()
	return g.RegisterFor(t, nil)
}

// RegisterFor is Register with more members in the request.
func (g *gateway) RegisterFor(t *testing.T, more object) registration {
	t.Helper()
	request := object{"userID": userID, "domain": domain, "staticPassword": staticPassword}
	maps.Copy(request, more)
	body, err := json.Marshal(request)
	require.NoError(t, err)
	status, answer := g.Call(t, "/rest/v2/provisioning/DSAPPSRPRegister", backEndKey, string(body))
	require.Equal(t, http.StatusOK, status, answer)
	var decoded struct {
		Result registration `json:"result"`
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &decoded))
	require.NotEmpty(t, decoded.Result.Identifier, answer)
	return decoded.Result
}

// Phone is a simulated phone in front of the gateway.
func (g *gateway) Phone() *sandbox.Phone {
	return &sandbox.Phone{BaseURL: g.URL, APIKey: frontEndKey, Client: g.client}
}

// logs collects what a process prints.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// poll waits until a condition that other processes bring about holds.
func poll(t testing.TB, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			require.Fail(t, "timed out waiting for "+what)
		}
	}
}

// environment is the test's own without what could change the outcome.
func environment(home string) []string {
	env := []string{"HOME=" + home, "XDG_DATA_HOME=" + home, "XDG_CONFIG_HOME=" + home}
	for _, name := range []string{"PATH", "GOCACHE", "GOMODCACHE", "GOFLAGS", "GOPROXY", "GOPATH", "TMPDIR"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// command runs the binary with arguments to its end and returns its output.
func command(t *testing.T, env []string, arguments ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, caddyBinary, arguments...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// client trusts the certificates in a PEM file. An empty name is that of the URL.
func client(t testing.TB, authority, name string) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(authority)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pem))
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: pool, ServerName: name, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
		},
		Timeout: deadline,
	}
}

// raw gives the bytes that hex digits stand for, or nothing.
func raw(digits string) string {
	b, err := hex.DecodeString(digits)
	if err != nil {
		return ""
	}
	return string(b)
}
