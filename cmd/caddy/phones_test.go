package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

var clients = filepath.Join("..", "..", "clients")

// A phone of another language: a program that reads commands and answers each with a line.
type foreignPhone struct {
	commands io.Writer
	answers  *bufio.Reader
}

// startPhone starts a phone with an API key for a gateway. It repeats a call whose answer is lost so
// many times. The program takes all this from its environment.
func startPhone(t *testing.T, g *testbed.Gateway, key, profile string, repeats int, program ...string) foreignPhone {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program[0], program[1:]...)
	cmd.Env = append(testbed.Environment(t.TempDir()),
		"GATEWAY_URL="+g.URL, "GATEWAY_KEY="+key, "GATEWAY_PROFILE="+profile, fmt.Sprintf("GATEWAY_REPEATS=%d", repeats),
		"GATEWAY_CA="+g.Certificates.Authority, "NODE_EXTRA_CA_CERTS="+g.Certificates.Authority)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return foreignPhone{in, bufio.NewReader(out)}
}

// do has the phone carry out a command and returns its answer.
func (p foreignPhone) do(t *testing.T, format string, values ...any) string {
	t.Helper()
	_, err := fmt.Fprintf(p.commands, format+"\n", values...)
	require.NoError(t, err)
	answer, err := p.answers.ReadString('\n')
	require.NoError(t, err, answer)
	return strings.TrimSpace(answer)
}

// testForeignPhone activates a phone through the gateway, with both types of licences, and has it
// answer logins and signatures. It tells a refusal from an outage.
func testForeignPhone(t *testing.T, program ...string) {
	t.Helper()
	const profile = "rfc5054-2048-sha256"
	g, server := testbed.Start(t, nil)
	phone := startPhone(t, g, testbed.FrontEndKey, profile, 0, program...)

	registered := g.Register(t)
	assert.Contains(t, phone.do(t, "activate %s wrong-password", registered.Identifier), "error refused")
	assert.Contains(t, phone.do(t, "activate no identifier"), "error input")
	serial, ok := strings.CutPrefix(phone.do(t, "activate %s %s", registered.Identifier, registered.Password), "ok ")
	require.True(t, ok, serial)
	assert.Regexp(t, `^VDS[0-9]{7}-[0-9]+$`, serial)

	device := &sandbox.Authenticator{SerialNumber: serial, UserID: testbed.UserID, Domain: testbed.Domain}
	for _, kind := range testbed.RequestKinds {
		key, outcome := testbed.Ask(t, server, kind, device)
		assert.Equal(t, "ok "+testbed.UserID, phone.do(t, "approve %s %s", kind.Name, key))
		require.NoError(t, outcome())
		key, outcome = testbed.Ask(t, server, kind, device)
		assert.Contains(t, phone.do(t, "reject %s %s", kind.Name, key), "ok ")
		require.Error(t, outcome())
		assert.Contains(t, phone.do(t, "approve %s %s", kind.Name, key), "error refused")
	}

	stranger := startPhone(t, g, "no key", profile, 0, program...)
	assert.Contains(t, stranger.do(t, "activate %s %s", registered.Identifier, registered.Password), "error unauthorized")

	registered = g.RegisterFor(t, testbed.Object{"licenseType": "standard"})
	assert.Regexp(t, `^ok VDS[0-9]{7}$`, phone.do(t, "activate %s %s", registered.Identifier, registered.Password))

	server.Stop()
	// A call on a connection that has just been closed has an unknown outcome, and so has a repeat of it.
	calls := 0
	poll.Until(t, "the gateway to find no server", func() bool {
		calls++
		return strings.Contains(phone.do(t, "approve signature nothing%d", calls), "error unavailable")
	})
	g.Kill(t)
	assert.Contains(t, phone.do(t, "activate %s %s", registered.Identifier, registered.Password), "error unknown")
}

// testForeignProfiles activates a phone with other profiles. The vectors have all of them.
func testForeignProfiles(t *testing.T, program ...string) {
	t.Helper()
	for profile, config := range map[string]any{
		"rfc5054-3072-sha256": "rfc5054-3072-sha256", "rfc5054-4096-sha256": "rfc5054-4096-sha256",
		"tssrp6a": testbed.Object{"module": "srp6a", "preset": "tssrp6a"},
	} {
		t.Run(profile, func(t *testing.T) {
			t.Parallel()
			g, _ := testbed.Start(t, func(dsapp testbed.Object) {
				dsapp["activation"] = testbed.Object{"profile": config}
			})
			registered := g.Register(t)
			phone := startPhone(t, g, testbed.FrontEndKey, profile, 0, program...)
			assert.Contains(t, phone.do(t, "activate %s %s", registered.Identifier, registered.Password), "ok VDS")
		})
	}
}

// startCutting starts a proxy in front of a gateway that cuts the first two answers of each service,
// the first one before its first byte and the second one within it, and returns the gateway as a phone
// sees it. Of the two calls of an exchange, which begins anew, it cuts the first answer only; that of a
// service that is not repeated never.
func startCutting(t *testing.T, g *testbed.Gateway) *testbed.Gateway {
	t.Helper()
	var mu sync.Mutex
	calls := map[string]int{}
	proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		calls[r.URL.Path]++
		number := calls[r.URL.Path]
		mu.Unlock()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		key, _, _ := r.BasicAuth()
		got, err := g.TryPost(t.Context(), r.URL.Path, key, string(body))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		repeated := r.URL.Path != testbed.NotificationPath
		exchange := strings.Contains(r.URL.Path, "DSAPPSRPGenerate")
		if number == 1 && repeated {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(got.Body)))
		w.WriteHeader(got.Status)
		if number == 2 && repeated && !exchange {
			_, _ = io.WriteString(w, got.Body[:len(got.Body)/2])
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, got.Body)
	}))
	certificate, err := tls.LoadX509KeyPair(g.Certificates.Certificate, g.Certificates.Key)
	require.NoError(t, err)
	proxy.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	proxy.StartTLS()
	t.Cleanup(proxy.Close)
	seen := *g
	seen.URL = proxy.URL
	return &seen
}

// testRepeats has a phone activate itself and answer requests while answers are cut. It does not
// notice, and each command reaches the authentication server once.
func testRepeats(t *testing.T, program ...string) {
	t.Helper()
	g, server := testbed.Start(t, nil)
	phone := startPhone(t, startCutting(t, g), testbed.FrontEndKey, "rfc5054-2048-sha256", 3, program...)
	registered := g.Register(t)
	serial, ok := strings.CutPrefix(phone.do(t, "activate %s %s", registered.Identifier, registered.Password), "ok ")
	require.True(t, ok, serial)
	device := &sandbox.Authenticator{SerialNumber: serial, UserID: testbed.UserID, Domain: testbed.Domain}
	key, outcome := testbed.Ask(t, server, testbed.Login, device)
	assert.Equal(t, "ok "+testbed.UserID, phone.do(t, "approve %s %s", testbed.Login.Name, key))
	require.NoError(t, outcome())
	key, outcome = testbed.Ask(t, server, testbed.Signature, device)
	assert.Contains(t, phone.do(t, "reject %s %s", testbed.Signature.Name, key), "ok ")
	require.Error(t, outcome())
	for command, want := range map[string]int{
		"PROVISIONCMD_MDL_ADD_DEVICE": 1, "PROVISIONCMD_MDL_ACTIVATE": 1, testbed.Login.RetrieveCommand: 1,
		testbed.Login.CompleteCommand:     2, // the bank asks for the login by the same command
		testbed.Signature.RetrieveCommand: 1, testbed.Signature.CancelCommand: 1,
	} {
		assert.Equal(t, want, server.Calls(command), command)
	}
}

// The TypeScript client repeats calls whose answers are cut.
func TestTypeScriptClientRepeats(t *testing.T) {
	t.Parallel()
	testRepeats(t, "node", filepath.Join(clients, "typescript", "examples", "phone.mjs"))
}

// The Java client repeats calls whose answers are cut.
func TestJavaClientRepeats(t *testing.T) {
	t.Parallel()
	testRepeats(t, javaPhone(t)...)
}

// javaPhone returns the program of the phone in Java. It needs a JDK, which make clients installs.
func javaPhone(t *testing.T) []string {
	t.Helper()
	if os.Getenv("DSAPP_CLIENTS") == "" {
		t.Skip("run by make clients")
	}
	build := filepath.Join(clients, "java", "build")
	return []string{"java", "-cp", filepath.Join(build, "main") + string(filepath.ListSeparator) + filepath.Join(build, "test"), "io.github.dsappgateway.phone.Phone"}
}

// The TypeScript client activates and answers requests. What is tested is clients/typescript/dist,
// which is checked in; make clients checks that it is what the sources compile to.
func TestTypeScriptClient(t *testing.T) {
	t.Parallel()
	program := []string{"node", filepath.Join(clients, "typescript", "examples", "phone.mjs")}
	testForeignPhone(t, program...)
	testForeignProfiles(t, program...)
}

// The Java client activates and answers requests.
func TestJavaClient(t *testing.T) {
	t.Parallel()
	program := javaPhone(t)
	testForeignPhone(t, program...)
	testForeignProfiles(t, program...)
}
