package caddymodule

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
)

const (
	deadline = 20 * time.Second

	registerPath = "/rest/v2/provisioning/DSAPPSRPRegister"
	timePath     = "/rest/v2/provisioning/getServerTime"
)

var testUser = sandbox.User{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "a static password"}

func testCertificates(t *testing.T) sandbox.Certificates {
	t.Helper()
	c, err := sandbox.NewCertificates(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// site is a running Caddy with a gateway in front of a simulated authentication
// server.
type site struct {
	URL    string
	config object
	client *http.Client
	// simulated is the authentication server, oasURL its address.
	simulated *sandbox.Server
	oasURL    string
	// While hold is set, a call that reaches the authentication server is told to
	// arrived and waits for proceed.
	hold             atomic.Bool
	arrived, proceed chan struct{}
	// generation is the handler that tells how many times load was called.
	generation object
	loads      int
}

const generationPath = "/generation"

// newSite prepares a site and stops it after the test.
func newSite(t *testing.T) *site {
	t.Helper()
	certificates := testCertificates(t)
	pem, err := os.ReadFile(certificates.Authority)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: pool, NextProtos: []string{"h2", "http/1.1"}}}
	s := &site{
		client: &http.Client{
			Transport: &http.Transport{
				DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					// For a moment after a reload, a connection can still end up with the
					// listener that is being closed, which resets it before anything is sent.
					for {
						c, err := dialer.DialContext(ctx, network, address)
						if !errors.Is(err, syscall.ECONNRESET) || ctx.Err() != nil {
							return c, err
						}
					}
				},
				ForceAttemptHTTP2: true,
			},
			Timeout: deadline,
		},
		arrived:    make(chan struct{}),
		proceed:    make(chan struct{}),
		generation: object{"handler": "static_response"},
	}

	pair, err := tls.LoadX509KeyPair(certificates.Certificate, certificates.Key)
	if err != nil {
		t.Fatal(err)
	}
	s.simulated = sandbox.New(sandbox.Options{Users: []sandbox.User{testUser}})
	oas := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.hold.Load() {
			s.arrived <- struct{}{}
			<-s.proceed
		}
		s.simulated.ServeHTTP(w, r)
	}))
	oas.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	oas.StartTLS()
	s.oasURL = oas.URL

	address := freeport.Address(t)
	s.URL = "https://" + address
	dsapp := gatewayConfig(t)
	dsapp["authentication_servers"] = object{
		"instances": []object{{"name": "primary", "url": oas.URL}},
		"tls":       object{"ca": object{"provider": "file", "pem_files": []string{certificates.Authority}}},
	}
	s.config = caddyConfig(t, dsapp)
	in(s.config, "apps")["http"] = object{"servers": object{"gateway": object{
		"listen":                  []string{address},
		"protocols":               []string{"h1", "h2"},
		"automatic_https":         object{"disable": true},
		"tls_connection_policies": []object{{}},
		"routes": []object{
			{"match": []object{{"path": []string{"/rest/*"}}}, "handle": []object{{"handler": "dsapp_gateway"}}},
			{"match": []object{{"path": []string{"/rest/other/*"}}}, "handle": []object{{
				"handler": "static_response", "status_code": 202, "body": "{http.auth.user.id} {http.request.header.Authorization} {http.request.body}",
			}}},
			{"match": []object{{"path": []string{generationPath}}}, "handle": []object{{"handler": "vars", "log_skip": true}, s.generation}},
		},
	}}}
	in(s.config, "apps")["tls"] = object{"certificates": object{"load_files": []object{
		{"certificate": certificates.Certificate, "key": certificates.Key},
	}}}
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
		oas.Close()
	})
	return s
}

// dsapp is the configuration of the app.
func (s *site) dsapp() object { return in(s.config, "apps", "dsapp") }

func (s *site) storePath() string { return in(s.dsapp(), "store")["path"].(string) }

// load loads the configuration. The client gives its idle connections up: one
// that the replaced server closes at the moment of a request fails it. Some are
// idle only a moment after the last answer, hence twice. Until a connection meets
// the new configuration, calls can still be served by the one before.
func (s *site) load(t *testing.T) {
	t.Helper()
	s.loads++
	generation := strconv.Itoa(s.loads)
	s.generation["body"] = generation
	s.client.CloseIdleConnections()
	if err := caddy.Load(encode(t, s.config), true); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the new configuration to serve", func() bool {
		s.client.CloseIdleConnections()
		_, answer, err := s.try(generationPath, "", "")
		return err == nil && answer == generation
	})
}

// call posts a body and returns status and answer.
func (s *site) call(t *testing.T, path, key, body string) (int, string) {
	t.Helper()
	status, answer, err := s.try(path, key, body)
	if err != nil {
		t.Fatal(err)
	}
	return status, answer
}

func (s *site) try(path, key, body string) (int, string, error) {
	r, err := http.NewRequest(http.MethodPost, s.URL+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(key, "")
	resp, err := s.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

const registerBody = `{"userID":"jane.doe","domain":"mydomain.com","staticPassword":"a static password"}`

type registered struct {
	Result struct {
		Identifier string `json:"registrationIdentifier"`
		Password   string `json:"activationPassword"`
	} `json:"result"`
}

func parseRegistered(t *testing.T, status int, answer string) registered {
	t.Helper()
	var r registered
	if err := json.Unmarshal([]byte(answer), &r); err != nil || status != http.StatusOK || r.Result.Identifier == "" {
		t.Fatalf("registration: status %d, %s", status, answer)
	}
	return r
}

func (s *site) register(t *testing.T) registered {
	t.Helper()
	status, answer := s.call(t, registerPath, testBackEndKey, registerBody)
	return parseRegistered(t, status, answer)
}

// phone is a phone with the application that has a key.
func (s *site) phone(key string) *sandbox.Phone {
	return &sandbox.Phone{BaseURL: s.URL, APIKey: key, Client: s.client}
}

func (s *site) activate(t *testing.T, r registered) error {
	t.Helper()
	_, err := s.phone(testFrontEndKey).Activate(t.Context(), r.Result.Identifier, r.Result.Password)
	return err
}

// authenticator registers and activates a phone.
func (s *site) authenticator(t *testing.T) *sandbox.Authenticator {
	t.Helper()
	r := s.register(t)
	activated, err := s.phone(testFrontEndKey).Activate(t.Context(), r.Result.Identifier, r.Result.Password)
	if err != nil {
		t.Fatal(err)
	}
	return activated.Authenticator
}

// prepareLogin plays the bank's application server and returns the key of a
// pending login.
func (s *site) prepareLogin(t *testing.T) string {
	t.Helper()
	bank := sandbox.ApplicationServer{URL: s.oasURL, Client: s.client}
	key, err := bank.PrepareLogin(t.Context(), sandbox.LoginRequest{UserID: testUser.Name, Domain: testUser.Domain, Message: "Log in?"})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// storeReferences tells how many configurations hold the store of a path.
func storeReferences(path string) int {
	n, _ := storePool.References("embedded " + path)
	return n
}

// waitFor waits until a condition holds that other goroutines bring about.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// A whole activation through Caddy; the store and its key appear by themselves.
func TestGatewayServes(t *testing.T) {
	s := newSite(t)
	s.load(t)
	if status, answer := s.call(t, timePath, testFrontEndKey, ""); status != http.StatusOK {
		t.Fatalf("status %d, %s", status, answer)
	}
	if err := s.activate(t, s.register(t)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.storePath() + ".key"); err != nil {
		t.Error(err)
	}
}

// What is no service goes on with everything it came with, and to a 404 of the
// gateway's form if nobody takes it.
func TestOtherPathsGoOn(t *testing.T) {
	s := newSite(t)
	s.load(t)
	status, answer := s.call(t, "/rest/other/thing", testFrontEndKey, "the body")
	want := "phones Basic " + "ZnJvbnQtZW5kLWtleS1vZi10aGUtdGVzdHM6" + " the body"
	if status != http.StatusAccepted || answer != want {
		t.Errorf("next handler: status %d, %q", status, answer)
	}
	status, answer = s.call(t, "/rest/nothing", testFrontEndKey, "{}")
	if status != http.StatusNotFound || !strings.Contains(answer, "STAT_NOT_FOUND") {
		t.Errorf("no next handler: status %d, %q", status, answer)
	}
	if status, answer = s.call(t, "/rest/other/thing", "some-other-key-nobody-has", "the body"); status != http.StatusUnauthorized {
		t.Errorf("without a key: status %d, %q", status, answer)
	}
}

// A secret behind a placeholder shows neither in the configuration that Caddy
// gives away nor in its autosaved copy.
func TestPlaceholdersStayInTheConfiguration(t *testing.T) {
	s := newSite(t)
	t.Setenv("DSAPP_TEST_KEY", "a-key-from-the-environment")
	sealing := filepath.Join(t.TempDir(), "sealing.key")
	if err := os.WriteFile(sealing, []byte(testSealingKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	admin := freeport.Address(t)
	s.config["admin"] = object{"listen": admin, "config": object{"persist": false}}
	s.dsapp()["api_keys"].([]object)[0]["key"] = "{env.DSAPP_TEST_KEY}"
	s.dsapp()["sealing_keys"] = []string{"{file." + sealing + "}"}
	s.load(t)
	if status, answer := s.call(t, timePath, "a-key-from-the-environment", ""); status != http.StatusOK {
		t.Errorf("status %d, %s", status, answer)
	}
	resp, err := http.Get("http://" + admin + "/config/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	dump, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(dump, []byte("{env.DSAPP_TEST_KEY}")) || !bytes.Contains(dump, []byte("{file.")) {
		t.Errorf("placeholders are gone: %s", dump)
	}
	for _, secret := range []string{"a-key-from-the-environment", testSealingKey} {
		if bytes.Contains(dump, []byte(secret)) {
			t.Errorf("the configuration shows %s", secret)
		}
	}
}

// A reload with the same store opens it no second time, which would block, and
// keeps registrations and handshakes; limits and keys are the new ones.
func TestReloadKeepsTheStoreOpen(t *testing.T) {
	s := newSite(t)
	s.load(t)
	r := s.register(t)
	for i := range 3 {
		in(s.dsapp(), "limits")["exchanges_per_minute"] = 100 + i
		s.load(t)
	}
	waitFor(t, "old configurations to let go", func() bool { return storeReferences(s.storePath()) == 1 })
	if err := s.activate(t, r); err != nil {
		t.Error(err)
	}
}

// A configuration that is rejected takes nothing from the running one, however
// far it got.
func TestRejectedReloadLeavesTheRunningOne(t *testing.T) {
	for name, edit := range map[string]func(c object){
		"at the keys":   func(c object) { c["api_keys"] = []object{} },
		"at the limits": func(c object) { in(c, "limits")["max_body_size"] = -1 },
		"at the server": func(c object) { in(c, "authentication_servers")["policy"] = "random" },
		"at the end":    func(c object) { in(c, "activation")["gateway_id"] = ";" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.load(t)
			r := s.register(t)
			good := encode(t, s.config)
			edit(s.dsapp())
			if err := caddy.Load(encode(t, s.config), true); err == nil {
				t.Fatal("accepted")
			}
			if err := json.Unmarshal(good, &s.config); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the rejected configuration to let go", func() bool {
				counted, _ := counterPool.References(countersKey)
				return storeReferences(s.storePath()) == 1 && counted == 1
			})
			if err := s.activate(t, r); err != nil {
				t.Error(err)
			}
		})
	}
}

// A request that runs while its configuration is replaced by one with another
// store ends as if nothing had happened, and what it stored is found again.
func TestRequestOutlivesItsConfiguration(t *testing.T) {
	s := newSite(t)
	s.hold.Store(true)
	s.load(t)
	first := s.storePath()
	type result struct {
		status int
		answer string
		err    error
	}
	done := make(chan result, 1)
	go func() {
		status, answer, err := s.try(registerPath, testBackEndKey, registerBody)
		done <- result{status, answer, err}
	}()
	<-s.arrived

	second := filepath.Join(t.TempDir(), "other.db")
	in(s.dsapp(), "store")["path"] = second
	s.load(t)
	if storeReferences(first) != 1 || storeReferences(second) != 1 {
		t.Errorf("references: %d, %d", storeReferences(first), storeReferences(second))
	}
	// Back again while the request still runs: the file is open already.
	in(s.dsapp(), "store")["path"] = first
	s.load(t)
	if storeReferences(first) != 2 {
		t.Errorf("references: %d", storeReferences(first))
	}

	s.proceed <- struct{}{}
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	r := parseRegistered(t, got.status, got.answer)
	s.hold.Store(false)
	waitFor(t, "the old configurations to let go", func() bool {
		return storeReferences(first) == 1 && storeReferences(second) == 0
	})
	if err := s.activate(t, r); err != nil {
		t.Error(err)
	}
}

// The store is closed with the last configuration: another process may have it.
func TestStopClosesTheStore(t *testing.T) {
	s := newSite(t)
	s.load(t)
	s.register(t)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the store to be let go", func() bool { return storeReferences(s.storePath()) == 0 })
	s.load(t)
	s.register(t)
}

// A store that cannot be used is an outage of what needs it, not of Caddy, and
// ends by itself.
func TestUnusableStore(t *testing.T) {
	s := newSite(t)
	broken := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(broken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	in(s.dsapp(), "store")["path"] = filepath.Join(broken, "dsapp.db")
	s.load(t)
	if status, answer := s.call(t, registerPath, testBackEndKey, registerBody); status != http.StatusServiceUnavailable {
		t.Errorf("status %d, %s", status, answer)
	}
	if status, answer := s.call(t, timePath, testFrontEndKey, ""); status != http.StatusOK {
		t.Errorf("status %d, %s", status, answer)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	s.register(t)
}

// What a client did is not forgiven by a reload, and a limit that is changed
// applies from the reload on.
func TestLimitsOutliveReloads(t *testing.T) {
	s := newSite(t)
	in(s.dsapp(), "limits")["failed_keys_per_minute"] = 2
	s.load(t)
	for range 2 {
		if status, _ := s.call(t, timePath, "a-key-that-nobody-has", ""); status != http.StatusUnauthorized {
			t.Fatalf("status %d", status)
		}
	}
	s.load(t)
	if status, _ := s.call(t, timePath, testFrontEndKey, ""); status != http.StatusTooManyRequests {
		t.Errorf("status %d after a reload", status)
	}
	in(s.dsapp(), "limits")["failed_keys_per_minute"] = 0
	s.load(t)
	if status, _ := s.call(t, timePath, testFrontEndKey, ""); status != http.StatusOK {
		t.Errorf("status %d without the limit", status)
	}
}

// The handler alone is a mistake that is told.
func TestHandlerNeedsTheApp(t *testing.T) {
	s := newSite(t)
	delete(in(s.config, "apps"), "dsapp")
	err := caddy.Load(encode(t, s.config), true)
	if err == nil || !strings.Contains(err.Error(), "dsapp: module not configured") {
		t.Errorf("err = %v", err)
	}
}

// The access log tells what the status alone does not, and the audit log who did
// what; neither has a secret.
func TestLogs(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(t.TempDir(), "log")
	s.config["logging"] = object{"logs": object{"default": object{
		"writer": object{"output": "file", "filename": path}, "encoder": object{"format": "json"}, "level": "DEBUG",
	}}}
	in(s.config, "apps", "http", "servers", "gateway")["logs"] = object{}
	s.load(t)
	r := s.register(t)
	phone := s.phone(testFrontEndKey)
	activated, err := phone.Activate(t.Context(), r.Result.Identifier, r.Result.Password)
	if err != nil {
		t.Fatal(err)
	}
	key := s.prepareLogin(t)
	if _, err := phone.Retrieve(t.Context(), sandbox.KindLogin, activated.Authenticator, key); err != nil {
		t.Fatal(err)
	}
	if err := phone.Cancel(t.Context(), sandbox.KindLogin, activated.Authenticator, key, true); err != nil {
		t.Fatal(err)
	}
	s.call(t, timePath, "a-key-that-nobody-has", "")
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var access, audit []string
	for line := range strings.Lines(string(content)) {
		var entry struct {
			Logger  string `json:"logger"`
			Message string `json:"msg"`
			Service string `json:"dsapp_service"`
			Status  string `json:"dsapp_status"`
			Verdict string `json:"dsapp_ownership"`
			User    string `json:"user_id"`
			Address string `json:"client_ip"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch {
		case strings.HasPrefix(entry.Logger, "http.log.access"):
			access = append(access, strings.TrimRight(strings.Join([]string{entry.User, entry.Service, entry.Status, entry.Verdict}, " "), " "))
		case entry.Logger == "dsapp.audit":
			audit = append(audit, entry.Message)
			if entry.Address != "127.0.0.1" {
				t.Errorf("audit log: %s by %q", entry.Message, entry.Address)
			}
		}
	}
	if want := []string{
		"bank provisioning/DSAPPSRPRegister STAT_SUCCESS",
		"phones provisioning/DSAPPSRPGenerateEphemeralKey STAT_SUCCESS",
		"phones provisioning/DSAPPSRPGenerateActivationData STAT_SUCCESS",
		"phones provisioning/MdlAddDevice STAT_SUCCESS",
		"phones provisioning/MdlActivate STAT_SUCCESS",
		"phones authentication/push/getPreparedSecureChallenge STAT_SUCCESS claimed",
		"phones authentication/push/cancelAuthUser STAT_SUCCESS owned",
		" provisioning/getServerTime STAT_INVCREDENTIALS",
	}; !slices.Equal(access, want) {
		t.Errorf("access log: %q", access)
	}
	if want := []string{"registered", "proven", "device_added", "activated", "retrieved", "cancelled"}; !slices.Equal(audit, want) {
		t.Errorf("audit log: %q", audit)
	}
	for _, secret := range []string{
		testFrontEndKey, testBackEndKey, "a-key-that-nobody-has", testUser.StaticPassword, r.Result.Password, key,
	} {
		if bytes.Contains(content, []byte(secret)) {
			t.Errorf("the log shows %q", secret)
		}
	}
}

// Errors are logged without stack traces, those of requests too, which have the
// trace that the request belongs to. Everything else about a request has all of
// its fields.
func TestErrorsAreLoggedWithoutStackTraces(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(t.TempDir(), "log")
	s.config["logging"] = object{"logs": object{"default": object{
		"writer": object{"output": "file", "filename": path}, "encoder": object{"format": "json"},
	}}}
	route := in(s.config, "apps", "http", "servers", "gateway")["routes"].([]object)[0]
	route["handle"] = append([]object{
		{"handler": "vars", "trace_id": "a trace", "span_id": "a span"},
		{"handler": "log_append", "key": "extra", "value": "a field", "early": true},
	}, route["handle"].([]object)...)
	s.dsapp()["sealing_keys"] = []string{testSealingKey}
	s.load(t)
	r := s.register(t)
	// Nothing that was stored can be opened any more.
	s.dsapp()["sealing_keys"] = []string{strings.Repeat("0123456789abcdef", 4)}
	s.load(t)
	if err := s.activate(t, r); err == nil {
		t.Error("activated")
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for line := range strings.Lines(string(content)) {
		var entry struct {
			Level      string `json:"level"`
			Logger     string `json:"logger"`
			Message    string `json:"msg"`
			Stacktrace string `json:"stacktrace"`
			Trace      string `json:"traceID"`
			Span       string `json:"spanID"`
			Extra      string `json:"extra"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if entry.Stacktrace != "" {
			t.Errorf("stack trace: %s", line)
		}
		found[strings.Join([]string{entry.Level, entry.Logger, entry.Message, entry.Trace, entry.Span, entry.Extra}, "|")] = true
	}
	for _, want := range []string{
		"error|dsapp|stored value cannot be opened with any sealing key|a trace|a span|",
		"error|dsapp.audit|record_unopened|||",
		"warn|dsapp|operation failed|||a field",
	} {
		if !found[want] {
			t.Errorf("not logged: %s", want)
		}
	}
}

// The description of a device reaches the authentication server under the
// configured name, and without one it does not.
func TestDeviceDescription(t *testing.T) {
	const attribute = "OUR_DESCRIPTION"
	for name, want := range map[string]string{attribute: "my phone", "": ""} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.simulated = sandbox.New(sandbox.Options{Users: []sandbox.User{testUser}, DescriptionAttribute: attribute})
			if name != "" {
				in(s.dsapp(), "authentication_servers", "attributes")["device_description"] = name
			}
			s.load(t)
			r := s.register(t)
			phone := s.phone(testFrontEndKey)
			phone.Description = "my phone"
			if _, err := phone.Activate(t.Context(), r.Result.Identifier, r.Result.Password); err != nil {
				t.Fatal(err)
			}
			if got := s.simulated.State().Users[0].Licenses[0].Devices[0].Description; got != want {
				t.Errorf("description %q, want %q", got, want)
			}
		})
	}
}
