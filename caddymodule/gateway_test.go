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

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

const (
	registerPath = "/rest/v2/provisioning/DSAPPSRPRegister"
	timePath     = "/rest/v2/provisioning/getServerTime"
)

var testUser = sandbox.User{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "a static password"}

func testCertificates(t testing.TB) sandbox.Certificates {
	t.Helper()
	c, err := sandbox.NewCertificates(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// site is a running Caddy with a gateway in front of a simulated authentication server.
type site struct {
	URL    string
	config object
	client *http.Client
	// simulated is the authentication server, oasURL its URL.
	simulated *sandbox.Server
	oasURL    string
	// While hold is set, a call that reaches the authentication server sends to arrived
	// and then receives from proceed.
	hold             atomic.Bool
	arrived, proceed chan struct{}
	// generation is a handler that answers with the number of calls of load.
	generation object
	loads      int
}

const generationPath = "/generation"

// newSite prepares a site. It stops at the end of the test.
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
					// Just after a reload, a connection can still reach the old listener,
					// which resets it before anything is sent.
					for {
						c, err := dialer.DialContext(ctx, network, address)
						if !errors.Is(err, syscall.ECONNRESET) || ctx.Err() != nil {
							return c, err
						}
					}
				},
				ForceAttemptHTTP2: true,
			},
			Timeout: poll.Patience,
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
		"tls": object{
			"ca": object{"provider": "file", "pem_files": []string{certificates.Authority}}, "handshake_timeout": "1m",
		},
		"dial_timeout": "1m",
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

// dsapp returns the configuration of the app.
func (s *site) dsapp() object { return in(s.config, "apps", "dsapp") }

func (s *site) storePath() string { return in(s.dsapp(), "store")["path"].(string) }

// load loads the configuration and waits until it serves requests. Idle connections of
// the client are closed, because a request fails if the replaced server closes its
// connection at the same time. A connection can become idle just after the last answer, so
// this is repeated.
func (s *site) load(t *testing.T) {
	t.Helper()
	s.loads++
	generation := strconv.Itoa(s.loads)
	s.generation["body"] = generation
	s.client.CloseIdleConnections()
	if err := caddy.Load(encode(t, s.config), true); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the new configuration to serve requests", func() bool {
		s.client.CloseIdleConnections()
		_, answer, err := s.try(generationPath, "", "")
		return err == nil && answer == generation
	})
}

// call posts a body and returns the status and the body of the answer.
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

// holdRegistration begins a registration and returns when it has reached the
// authentication server, where it waits. finish lets it go on and activates a phone with
// its result.
func (s *site) holdRegistration(t *testing.T) (finish func(t *testing.T)) {
	t.Helper()
	type result struct {
		status int
		answer string
		err    error
	}
	done := make(chan result, 1)
	s.hold.Store(true)
	go func() {
		status, answer, err := s.try(registerPath, testBackEndKey, registerBody)
		done <- result{status, answer, err}
	}()
	<-s.arrived
	s.hold.Store(false)
	return func(t *testing.T) {
		t.Helper()
		s.proceed <- struct{}{}
		r := <-done
		if r.err != nil {
			t.Fatal(r.err)
		}
		if err := s.activate(t, parseRegistered(t, r.status, r.answer)); err != nil {
			t.Error(err)
		}
	}
}

// phone returns a phone that uses an API key.
func (s *site) phone(key string) *sandbox.Phone {
	return &sandbox.Phone{BaseURL: s.URL, APIKey: key, Client: s.client}
}

func (s *site) activate(t *testing.T, r registered) error {
	t.Helper()
	_, err := s.phone(testFrontEndKey).Activate(t.Context(), r.Result.Identifier, r.Result.Password)
	return err
}

// authenticator registers a user, activates a phone and returns its authenticator.
func (s *site) authenticator(t *testing.T) *sandbox.Authenticator {
	t.Helper()
	r := s.register(t)
	activated, err := s.phone(testFrontEndKey).Activate(t.Context(), r.Result.Identifier, r.Result.Password)
	if err != nil {
		t.Fatal(err)
	}
	return activated.Authenticator
}

// prepareLogin acts as the bank's application server. It returns the key of a pending
// login.
func (s *site) prepareLogin(t *testing.T) string {
	t.Helper()
	bank := sandbox.ApplicationServer{URL: s.oasURL, Client: s.client}
	key, err := bank.PrepareLogin(t.Context(), sandbox.LoginRequest{UserID: testUser.Name, Domain: testUser.Domain, Message: "Log in?"})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// storeReferences returns how many configurations use the store with a path.
func storeReferences(path string) int {
	n, _ := storePool.References("embedded " + path)
	return n
}

// A whole activation works through Caddy. The gateway creates the store and its key.
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

// A request for a path that is no service reaches the next handler unchanged. If there is
// none, the answer is 404 in the gateway's form.
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

// The configuration that Caddy shows contains placeholders and not the secrets behind them.
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
		t.Errorf("placeholders are missing: %s", dump)
	}
	for _, secret := range []string{"a-key-from-the-environment", testSealingKey} {
		if bytes.Contains(dump, []byte(secret)) {
			t.Errorf("the configuration shows %s", secret)
		}
	}
}

// A reload with the same store does not open it a second time, which would block, and
// keeps the registrations.
func TestReloadKeepsTheStoreOpen(t *testing.T) {
	s := newSite(t)
	s.load(t)
	r := s.register(t)
	for i := range 3 {
		in(s.dsapp(), "limits")["exchanges_per_minute"] = 100 + i
		s.load(t)
	}
	poll.Until(t, "old configurations to release the store", func() bool { return storeReferences(s.storePath()) == 1 })
	if err := s.activate(t, r); err != nil {
		t.Error(err)
	}
}

// A request that runs while its configuration is replaced by one with another store
// succeeds, and its registration can be used when the first store is configured again.
func TestRequestOutlivesItsConfiguration(t *testing.T) {
	s := newSite(t)
	s.load(t)
	first := s.storePath()
	finish := s.holdRegistration(t)
	second := filepath.Join(t.TempDir(), "other.db")
	in(s.dsapp(), "store")["path"] = second
	s.load(t)
	if storeReferences(first) != 1 || storeReferences(second) != 1 {
		t.Errorf("references: %d, %d", storeReferences(first), storeReferences(second))
	}
	// The first store is configured again while the request still has its file open.
	in(s.dsapp(), "store")["path"] = first
	s.load(t)
	if storeReferences(first) != 2 {
		t.Errorf("references: %d", storeReferences(first))
	}

	finish(t)
	poll.Until(t, "the old configurations to release their stores", func() bool {
		return storeReferences(first) == 1 && storeReferences(second) == 0
	})
}

// The store is closed with the last configuration that uses it, so that another process
// can open it.
func TestStopClosesTheStore(t *testing.T) {
	s := newSite(t)
	s.load(t)
	s.register(t)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "the store to be released", func() bool { return storeReferences(s.storePath()) == 0 })
	s.load(t)
	s.register(t)
}

// If the store cannot be opened, the configuration loads, and only services that need the
// store answer with 503. They work again without a reload.
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

// A reload keeps the counts of the limits. A changed limit applies after the reload.
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

// A handler without the app is an error.
func TestHandlerNeedsTheApp(t *testing.T) {
	s := newSite(t)
	delete(in(s.config, "apps"), "dsapp")
	err := caddy.Load(encode(t, s.config), true)
	if err == nil || !strings.Contains(err.Error(), "dsapp: module not configured") {
		t.Errorf("err = %v", err)
	}
}

// The access log has the application, service, result and ownership decision of each
// request, and the audit log has one line for each action. Neither contains a secret.
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

// Errors are logged without stack traces. Errors and audit events of requests have the IDs
// of the request, its trace and its span; other messages have all extra fields of the
// request.
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
	// Without the first key, stored values cannot be decrypted.
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
			Request    string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if entry.Stacktrace != "" {
			t.Errorf("stack trace: %s", line)
		}
		if entry.Trace != "" && entry.Request == "" {
			t.Errorf("no ID of the request: %s", line)
		}
		found[strings.Join([]string{entry.Level, entry.Logger, entry.Message, entry.Trace, entry.Span, entry.Extra}, "|")] = true
	}
	for _, want := range []string{
		"error|dsapp|stored value cannot be opened with any sealing key|a trace|a span|",
		"error|dsapp.audit|record_unopened|a trace|a span|",
		"warn|dsapp|operation failed|||a field",
	} {
		if !found[want] {
			t.Errorf("not logged: %s", want)
		}
	}
}

// The description of a device is sent to the authentication server in the configured
// attribute, and not at all if no attribute is configured.
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
