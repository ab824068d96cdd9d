package sandboxcmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// runJSON runs a command of the phone with --json and returns its report and exit code. It prints
// nothing but one JSON object to the standard output.
func runJSON(t *testing.T, arguments ...string) (report, int) {
	t.Helper()
	var out, complaints bytes.Buffer
	c := newPhoneCommand()
	c.SetOut(&out)
	c.SetErr(&complaints)
	c.SetArgs(append(arguments, "--json"))
	ctx, cancel := context.WithTimeout(t.Context(), poll.Patience)
	defer cancel()
	err := c.ExecuteContext(ctx)
	if (err == nil) != (complaints.Len() == 0) {
		t.Errorf("%v: %v, with %q on the standard error", arguments, err, &complaints)
	}
	var r report
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || d.More() {
		t.Fatalf("%v: %v: %s", arguments, err, &out)
	}
	return r, caddymodule.ExitCode(err)
}

// A quiet sandbox on free ports tells everything in its ready file, which is there as long as it
// runs. With it alone, a phone is activated, a user is unlocked, and another client completes
// with the values of the phone.
func TestReadyFile(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "ready.json")
	if err := os.WriteFile(file, []byte("that of a sandbox that was killed"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := new(output.Buffer)
	c := newSandboxCommand()
	c.SetOut(out)
	c.SetErr(out)
	c.SetArgs([]string{"--dir", dir, "--listen", anyPort, "--instances", "2", "--users", "3", "--ready-file", file, "--quiet"})
	done := make(chan error, 1)
	go func() { done <- c.ExecuteContext(ctx) }()
	var a addresses
	poll.Until(t, "the sandbox to be ready", func() bool {
		select {
		case err := <-done:
			t.Fatalf("sandbox: %v", err)
		default:
		}
		content, err := os.ReadFile(file)
		return err == nil && json.Unmarshal(content, &a) == nil
	})
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if len(a.Servers) != 2 || a.Servers[0] == a.Servers[1] || a.FrontEndKey != frontEndKey || a.BackEndKey != backEndKey ||
		a.Authority != authorityFile(dir) || a.Dir != dir || !strings.HasPrefix(a.Control, "http://localhost:") {
		t.Errorf("%+v", a)
	}
	want := []account{{userID, domain, staticPassword}, {"user-2", domain, staticPassword}, {"user-3", domain, staticPassword}}
	if !slices.Equal(a.Users, want) {
		t.Errorf("users %v", a.Users)
	}

	control := func(method, path, body string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, a.Control+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var answer bytes.Buffer
		if _, err := answer.ReadFrom(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %v, %d %s", method, path, err, resp.StatusCode, &answer)
		}
		return answer.String()
	}
	flags := []string{"--ready-file", file}
	activate := func() (report, int) { return runJSON(t, append([]string{"activate"}, flags...)...) }

	// The failures are those of the servers behind this gateway.
	control(http.MethodPost, "/control/failures", `{"operation":"PROVISIONCMD_MDL_REGISTER","kind":"fault","times":1}`)
	if r, code := activate(); code != caddymodule.ExitFinding || r.Error == nil || r.Error.HTTPStatus != 502 || r.Error.Service != "DSAPPSRPRegister" ||
		r.Error.ResultCodes.StatusCodeEnum != "STAT_COMMS" {
		t.Errorf("a Fault: %d %+v", code, r.Error)
	}
	control(http.MethodDelete, "/control/failures", "")
	control(http.MethodPost, "/control/failures", `{"kind":"refuse"}`)
	if r, code := activate(); code != caddymodule.ExitFinding || r.Error.HTTPStatus != 503 {
		t.Errorf("refused connections: %d %+v", code, r.Error)
	}
	control(http.MethodDelete, "/control/failures", "")
	control(http.MethodPatch, "/control/users", `{"userID":"jane.doe","locked":true}`)
	if r, code := activate(); code != caddymodule.ExitFinding || r.Error.ResultCodes.StatusCodeEnum != "STAT_LOCKED" {
		t.Errorf("a locked user: %d %+v", code, r.Error)
	}
	control(http.MethodPatch, "/control/users", `{"userID":"jane.doe","locked":false}`)

	activated, code := activate()
	if code != 0 || activated.Error != nil || activated.Phone == nil || len(activated.Calls) != 6 {
		t.Fatalf("%d %+v", code, activated)
	}
	for i, members := range []string{
		"staticPassword", "clientEphemeralPublicKey", "clientEvidenceMessage", "deviceCode", "signature", "encryptedNotificationID",
	} {
		var sent map[string]string
		call := activated.Calls[i]
		if err := json.Unmarshal(call.Request, &sent); err != nil || sent[members] == "" || strings.Contains(sent[members], "…") ||
			call.HTTPStatus != 200 || !strings.HasPrefix(call.URL, a.Gateway) || len(call.Answer) == 0 {
			t.Errorf("call %d: %v %+v", i, err, call)
		}
	}
	if got := activated.Calls[2].Opened["licenseActivationMessage"]; len(got) != 4234 {
		t.Errorf("activation message of %d digits", len(got))
	}

	// A prepared call is not sent, so that another client can send it, once.
	prepared, code := runJSON(t, append([]string{"authenticate", "--prepare"}, flags...)...)
	if code != 0 || prepared.Next == nil || len(prepared.Calls) != 0 || prepared.Next.HTTPStatus != 0 || prepared.Next.Answer != nil {
		t.Fatalf("%d %+v", code, prepared)
	}
	client, err := (&connectionOptions{dir: dir}).client(callTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	for _, status := range []string{"STAT_SUCCESS", "STAT_OTP_INCORRECT"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, prepared.Next.URL, bytes.NewReader(prepared.Next.Request))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.SetBasicAuth(prepared.Next.APIKey, "")
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		var answer bytes.Buffer
		_, err = answer.ReadFrom(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(answer.String(), status) {
			t.Errorf("%v, want %s: %s", err, status, &answer)
		}
	}

	cancel()
	if err := poll.Receive(t, "the sandbox to stop", done); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the ready file is left: %v", err)
	}
	if out.String() != "" {
		t.Errorf("printed %q", out)
	}
}

// The document of the sandbox names its flags, and those of the phone that scripts need.
func TestFlagsAreDocumented(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^ +--[a-z-]+`).FindAllString(newSandboxCommand().Flags().FlagUsages(), -1)
	if len(names) < 10 {
		t.Fatalf("flags %q", names)
	}
	for _, name := range append(names, "--json", "--prepare", "--device") {
		if !strings.Contains(string(document), "`"+strings.TrimSpace(name)) {
			t.Errorf("%s is not documented", name)
		}
	}
}

// The control interface listens on loopback and nowhere else.
func TestControlListensOnLoopbackOnly(t *testing.T) {
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		file := filepath.Join(t.TempDir(), "ready.json")
		_, err := run(t, newSandboxCommand(), "--dir", t.TempDir(), "--server-only", "--listen-server", anyPort, "--listen-control", address, "--ready-file", file)
		if err == nil || !strings.Contains(err.Error(), "--listen-control is not on loopback") {
			t.Errorf("%s: %v", address, err)
		}
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s: there is a ready file", address)
		}
	}
}

// The commands of the phone tell by their exit code whether they were refused, used wrongly, or got
// no answer. What is missing is named.
func TestPhoneExitCodes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority := filepath.Join(dir, "ca.pem")
	gateway := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "DSAPPSRPRegister") {
			fmt.Fprint(w, `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_LOCKED","returnCode":-1,"statusCode":1007}}`)
			return
		}
		fmt.Fprint(w, `{"resultCodes":{"returnCodeEnum":"RET_SUCCESS","statusCodeEnum":"STAT_SUCCESS","returnCode":0,"statusCode":0}}`)
	}))
	defer gateway.Close()
	writeAuthority(t, authority, gateway.Certificate())
	device := writeTestDevice(t, dir)
	ready := filepath.Join(dir, "ready.json")
	if err := writePrivate(ready, addresses{Gateway: gateway.URL, Servers: []string{"https://localhost:1/"}, Dir: dir}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		arguments string
		code      int
		want      string // in the output
	}{
		{"activate --ready-file " + ready, caddymodule.ExitFinding, "STAT_LOCKED (1007)"},
		{"authenticate --ready-file " + ready, exitNoAnswer, "userID is missing"},
		{"authenticate --gateway https://localhost:1", exitNoAnswer, "name the URL of the gateway, which the sandbox prints, with --gateway, or the sandbox's --ready-file"},
		{"sign --server https://localhost:1/", exitNoAnswer, "name its URL, which the sandbox prints, with --server, or the sandbox's --ready-file, or the key of the request with --key"},
		{"sign --ready-file " + ready, exitNoAnswer, "localhost:1/pushes"},
		{"sign --server :", caddymodule.ExitFailed, "--server: "},
		{"sign --prepare", caddymodule.ExitFailed, "--prepare needs --json"},
		{"authenticate --prepare", caddymodule.ExitFailed, "--prepare needs --json"},
		{"sign --ready-file " + ready + ".missing", caddymodule.ExitFailed, "the sandbox writes it when it runs"},
		{"sign --ready-file " + device, caddymodule.ExitFailed, "is not the ready file of a sandbox"},
		{"sign --device /does/not/exist --json", caddymodule.ExitFailed, "activate the phone first"},
		{"login --unknown", caddymodule.ExitFailed, "unknown flag: --unknown; usage: phone login [flags]"},
		{"cancel --kind transfer", caddymodule.ExitFailed, "--kind is neither"},
		{"cancel request", caddymodule.ExitFailed, "1 arguments; usage: "},
		{"activate --standard --v1", caddymodule.ExitFailed, "were all set; usage: "},
		{"activate --image 0", caddymodule.ExitFailed, "--image is not an even number"},
	} {
		arguments := append(strings.Fields(tt.arguments), "--ca", authority)
		if !strings.Contains(tt.arguments, "--device") {
			arguments = append(arguments, "--device", device)
		}
		out, err := run(t, newPhoneCommand(), arguments...)
		if code := caddymodule.ExitCode(err); code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s", tt.arguments, code, tt.code, tt.want, out)
		}
	}
}
