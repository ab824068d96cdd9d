package sandboxcmd

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/solve"
	"github.com/dsapp-gateway/dsapp-gateway/internal/freeport"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// Tests that run a sandbox share Caddy's global state. They must not run in parallel.

// start starts `caddy dsapp sandbox` and waits until it runs. It ends when the returned
// function is called, or with the test.
func start(t *testing.T, arguments ...string) (*output.Buffer, func()) {
	t.Helper()
	if !slices.Contains(arguments, "--listen-server") && !slices.Contains(arguments, "--gateway-only") {
		arguments = append(arguments, "--listen-server", anyPort)
	}
	if !slices.Contains(arguments, "--gateway-only") {
		arguments = append(arguments, "--listen-control", anyPort)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out := new(output.Buffer)
	c := newSandboxCommand()
	c.SetOut(out)
	c.SetArgs(arguments)
	done := make(chan error, 1)
	go func() {
		done <- c.ExecuteContext(ctx)
		close(done)
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := poll.Receive(t, "the sandbox to stop", done); err != nil {
			t.Errorf("sandbox: %v", err)
		}
	})
	t.Cleanup(stop)
	poll.Until(t, "the sandbox to start", func() bool {
		select {
		case err := <-done:
			t.Fatalf("sandbox: %v\n%s", err, out)
		default:
		}
		return strings.Contains(out.String(), "Ctrl-C stops it.")
	})
	return out, stop
}

// run runs a command and returns its output.
func run(t *testing.T, c *cobra.Command, arguments ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(arguments)
	ctx, cancel := context.WithTimeout(t.Context(), poll.Patience)
	defer cancel()
	err := c.ExecuteContext(ctx)
	return out.String(), err
}

// phone runs `caddy dsapp phone activate`.
func phone(t *testing.T, address, dir string, arguments ...string) (string, error) {
	t.Helper()
	return run(t, newPhoneCommand(), append([]string{"activate", "--gateway", "https://" + address, "--dir", dir}, arguments...)...)
}

var activatedLine = regexp.MustCompile(`(?m)^Activated: [A-Z]{3}[0-9]{7}-[0-9]{1,2}$`)

// The sandbox prints its addresses and keys. A phone can be activated with them, and not with
// a wrong password or key.
func TestSandboxAndPhone(t *testing.T) {
	dir, address := t.TempDir(), freeport.Address(t)
	printed, _ := start(t, "--dir", dir, "--listen", address)
	for _, want := range []string{
		"https://" + address, frontEndKey, backEndKey, userID, domain, staticPassword, authorityFile(dir),
		fmt.Sprintf("dsapp phone activate --dir %s --gateway https://%s\n", dir, address),
	} {
		if !strings.Contains(printed.String(), want) {
			t.Errorf("%q is not printed:\n%s", want, printed)
		}
	}

	// A second sandbox does not share the port with the first one, which keeps running.
	second := t.TempDir()
	if _, err := run(t, newSandboxCommand(), "--dir", second, "--listen", address); err == nil ||
		!strings.Contains(err.Error(), "cannot listen on "+address+", the address of --listen: ") {
		t.Fatalf("second sandbox: %v", err)
	}
	if files, err := os.ReadDir(second); err != nil || len(files) != 0 {
		t.Errorf("the second sandbox left %v, %v", files, err)
	}

	for _, flags := range [][]string{nil, {"--v1"}} {
		out, err := phone(t, address, dir, flags...)
		if err != nil || !activatedLine.MatchString(out) {
			t.Errorf("phone %v: %v\n%s", flags, err, out)
		}
		for _, want := range []string{"1. DSAPPSRPRegister", "5. MdlActivate", "6. updateNotificationID", "sent", "received", "verified"} {
			if !strings.Contains(out, want) {
				t.Errorf("phone %v: %q is not printed:\n%s", flags, want, out)
			}
		}
		// The password is printed once, in the sentence about the bank's site.
		told := regexp.MustCompile(`The bank's site shows its user the identifier \S+ and the activation password (\S+)\.\n`).FindStringSubmatch(out)
		if told == nil || strings.Count(out, told[1]) != 1 {
			t.Errorf("phone %v: the password is not printed once, but %v:\n%s", flags, told, out)
		}
	}

	// A recorded exchange explains itself, and its file is never replaced.
	capture := filepath.Join(dir, "capture.json")
	for _, license := range [][]string{nil, {"--standard"}} {
		if out, err := phone(t, address, dir, append(license, "--capture", capture)...); err != nil || !strings.Contains(out, "Activated: ") {
			t.Errorf("phone with a capture: %v\n%s", err, out)
		}
		recorded, err := solve.ReadFile(capture)
		if err != nil {
			t.Fatal(err)
		}
		r, err := solve.Solve(t.Context(), []solve.Capture{recorded}, solve.Options{})
		if err != nil || !r.Complete() || r.Profile.Preset != "rfc5054" {
			t.Errorf("the capture of %v gives %+v, %v", license, r, err)
		}
		if _, err := phone(t, address, dir, "--capture", capture); err == nil || !strings.Contains(err.Error(), "--capture: ") {
			t.Errorf("a capture was replaced: %v", err)
		}
		if err := os.Remove(capture); err != nil {
			t.Fatal(err)
		}
	}

	out, err := phone(t, address, dir, "--activation-password", "wrong-password")
	if err == nil || !strings.Contains(err.Error(), "DSAPPSRPGenerateActivationData was refused") || strings.Contains(out, "Activated") {
		t.Errorf("wrong password: %v\n%s", err, out)
	}
	if _, err := phone(t, address, dir, "--front-end-key", "a-key-that-nobody-has"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("wrong key: %v", err)
	}
}

// Logins and signatures can be requested, approved and rejected with the printed commands. The
// requests are on the second of two authentication servers.
func TestRequests(t *testing.T) {
	dir, address := t.TempDir(), freeport.Address(t)
	printed, _ := start(t, "--dir", dir, "--listen", address, "--instances", "2")
	found := regexp.MustCompile(`request-login (.* --server (\S+))\n`).FindStringSubmatch(printed.String())
	if found == nil {
		t.Fatalf("no command is printed that asks for a login:\n%s", printed)
	}
	flags, server := strings.Fields(found[1]), found[2]
	if servers := regexp.MustCompile(`authentication server +(\S+), (\S+) `).FindStringSubmatch(printed.String()); servers == nil || servers[2] != server {
		t.Fatalf("servers %v", servers)
	}
	p := connectionOptions{dir: dir}
	client, err := p.client(callTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	// arrived returns how many requests of the application server have arrived. Without scan,
	// it counts their push notifications.
	arrived := func(scan bool) int {
		var pushes []sandbox.Push
		var state sandbox.State
		path, to := pushesPath, any(&pushes)
		if scan {
			path, to = statePath, &state
		}
		resp, err := client.Get(strings.TrimSuffix(server, "/") + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(to); err != nil {
			t.Fatal(err)
		}
		return len(pushes) + state.Calls["authSignatureRequest"] + state.Calls["authUser"]
	}

	if out, err := phone(t, address, dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	device, err := readDevice(deviceFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		request, answer string
		want            string // in the output of the phone
		refused         string // in the error of the application server, empty if approved
	}{
		{"request-signature", "sign", "1. getPreparedSignatureRequest", ""},
		{"request-signature --title Bill --field Sum=1_EUR", "sign", "Sum  1_EUR", ""},
		{"request-login", "login", "2. authUser", ""},
		{"request-login", "login --v1", "2. signLogin", ""},
		{"request-login --serial-number " + device.SerialNumber, "login", "2. authUser", ""},
		{"request-signature", "cancel", "2. cancelAuthSignatureRequest", "was refused"},
		{"request-login", "cancel --kind login", "2. cancelAuthUser", "a push login that was rejected or not answered in time ends like this"},
		{"request-login", "cancel --kind login --plain", "2. cancelAuthUser", "was refused"},
		{"request-login", "cancel --kind login --v1", "2. cancelLogin", "was refused"},
		{"request-signature --scan", "sign", "2. authSignature", ""},
		{"request-login --scan", "login", "2. authUser", ""},
		{"request-login --scan", "cancel --kind login", "2. cancelAuthUser", "was refused"},
	} {
		scan := strings.Contains(tt.request, "--scan")
		before := arrived(scan)
		out := new(output.Buffer)
		c := newSandboxCommand()
		c.SilenceUsage = true
		c.SetOut(out)
		c.SetErr(out)
		c.SetArgs(append(strings.Fields(tt.request), flags...))
		done := make(chan error, 1)
		go func() { done <- c.ExecuteContext(t.Context()) }()
		poll.Until(t, "the request to arrive", func() bool {
			select {
			case err := <-done:
				t.Fatalf("%s: %v\n%s", tt.request, err, out)
			default:
			}
			return arrived(scan) != before
		})

		// The phone runs the printed command.
		use, options, _ := strings.Cut(tt.answer, " ")
		command := regexp.MustCompile(`dsapp phone ` + use + ` (.*)\n`).FindStringSubmatch(out.String())
		if command == nil {
			t.Fatalf("%s: no command is printed:\n%s", tt.request, out)
		}
		answered, err := run(t, newPhoneCommand(), append([]string{use}, strings.Fields(command[1]+" "+options)...)...)
		end := "Approved"
		if tt.refused != "" {
			end = "Rejected."
		}
		if err != nil || !strings.Contains(answered, tt.want) || !strings.Contains(answered, end) {
			t.Errorf("%s: %s: %v\n%s", tt.request, tt.answer, err, answered)
		}
		asked := poll.Receive(t, "the answer to the application server", done)
		switch {
		case tt.refused == "" && (asked != nil || !strings.Contains(out.String(), "Approved for jane.doe in mydomain.com by VDS")):
			t.Errorf("%s: %v\n%s", tt.request, asked, out)
		case tt.refused != "" && (asked == nil || !strings.Contains(asked.Error(), tt.refused)):
			t.Errorf("%s: %v\n%s", tt.request, asked, out)
		}
	}

	common := []string{"--dir", dir, "--gateway", "https://" + address}
	if _, err := run(t, newPhoneCommand(), append([]string{"sign", "--server", server}, common...)...); err == nil || !strings.Contains(err.Error(), "STAT_NOT_FOUND") {
		t.Errorf("a used key: %v", err)
	}
	for range 2 {
		if out, err := run(t, newPhoneCommand(), append([]string{"authenticate"}, common...)...); err != nil || !strings.Contains(out, "Logged in for jane.doe") {
			t.Errorf("one-time password: %v\n%s", err, out)
		}
	}
	if out, err := run(t, newPhoneCommand(), append([]string{"authenticate", "--v1"}, common...)...); err != nil || !strings.Contains(out, "Logged in.") {
		t.Errorf("one-time password with version 1: %v\n%s", err, out)
	}

	// A standard licence supports one-time passwords only.
	common = append(common, "--device", filepath.Join(dir, "standard.json"))
	for _, bind := range [][]string{nil, {"--bind"}} {
		if out, err := run(t, newPhoneCommand(), slices.Concat([]string{"activate", "--standard"}, bind, common)...); err != nil || !strings.Contains(out, "DSAPPSRPActivate") {
			t.Errorf("standard licence: %v\n%s", err, out)
		}
		if out, err := run(t, newPhoneCommand(), append([]string{"authenticate"}, common...)...); err != nil || !strings.Contains(out, "Logged in for jane.doe") {
			t.Errorf("one-time password of a standard licence: %v\n%s", err, out)
		}
	}
	if _, err := run(t, newPhoneCommand(), append([]string{"sign", "--server", server}, common...)...); err == nil || !strings.Contains(err.Error(), "got no push notification") {
		t.Errorf("push to a standard licence: %v", err)
	}
}

// If the authentication server runs separately, a pending registration survives a restart of the
// gateway and can be activated with its image.
func TestGatewayRestarts(t *testing.T) {
	dir, address, server := t.TempDir(), freeport.Address(t), freeport.Address(t)
	// A process can run one Caddy. The authentication server does not need one.
	start(t, "--dir", dir, "--server-only", "--listen-server", server)
	if _, err := run(t, newSandboxCommand(), "--dir", dir, "--server-only", "--listen-server", server); err == nil ||
		!strings.Contains(err.Error(), "cannot listen on "+server+", the address of --listen-server: ") {
		t.Errorf("second server: %v", err)
	}
	gateway := []string{"--dir", dir, "--gateway-only", "--server", "https://" + server + "/", "--listen", address}
	_, stop := start(t, gateway...)

	p := connectionOptions{authority: authorityFile(dir)}
	client, err := p.client(callTimeout)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+address+"/rest/v2/provisioning/DSAPPSRPRegister",
		strings.NewReader(fmt.Sprintf(`{"userID":%q,"domain":%q,"staticPassword":%q}`, userID, domain, staticPassword)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(backEndKey, "")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	resp.Body.Close()
	client.CloseIdleConnections()
	image := regexp.MustCompile(`"activationImage":"([0-9A-F]+)"`).FindStringSubmatch(body.String())
	if err != nil || image == nil {
		t.Fatalf("%v: %s", err, &body)
	}

	stop()
	if _, err := phone(t, address, dir, "--image", image[1]); err == nil {
		t.Fatal("activated without a gateway")
	}
	start(t, gateway...)
	out, err := phone(t, address, dir, "--image", image[1])
	if err != nil || !activatedLine.MatchString(out) {
		t.Errorf("%v\n%s", err, out)
	}
}

func writeAuthority(t *testing.T, file string, authority *x509.Certificate) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// writeTestDevice writes the file of an activated phone and returns its name.
func writeTestDevice(t *testing.T, dir string) string {
	t.Helper()
	file := deviceFile(dir)
	if err := writePrivate(file, &sandbox.Authenticator{SerialNumber: "VDS1000000-1", UserID: userID, Domain: domain, Secret: []byte("secret")}); err != nil {
		t.Fatal(err)
	}
	return file
}

// With --ca, the commands trust the authority of the gateway and that of the simulated
// authentication server, and no other.
func TestOtherAuthority(t *testing.T) {
	dir := t.TempDir()
	printed, _ := start(t, "--dir", dir, "--server-only")
	server := regexp.MustCompile(` --server (\S+)`).FindStringSubmatch(printed.String())
	if server == nil {
		t.Fatalf("no URL is printed:\n%s", printed)
	}
	gateway := httptest.NewUnstartedServer(http.NotFoundHandler())
	gateway.Config.ErrorLog = log.New(io.Discard, "", 0) // Some handshakes have to fail.
	gateway.StartTLS()
	defer gateway.Close()
	authority := filepath.Join(t.TempDir(), "tls.pem")
	writeAuthority(t, authority, gateway.Certificate())
	writeTestDevice(t, dir)
	const untrusted = "certificate signed by unknown authority"
	empty := t.TempDir()
	for _, tt := range []struct{ arguments, dir, want string }{
		{"authenticate --ca " + authority, dir, "HTTP status 404"},
		{"sign --ca " + authority, dir, "got no push notification"},
		{"sign --key 0123456789 --ca " + authority, dir, "HTTP status 404"},
		{"cancel --ca " + authority, dir, "got no push notification"},
		{"request-signature --ca " + authority, dir, "No applicable digipass found"},
		{"sign", dir, "got no push notification"},
		{"authenticate", dir, untrusted},
		// The certificate of --ca is sufficient without certificates in --dir.
		{"authenticate --ca " + authority, empty, "HTTP status 404"},
		{"request-login --ca " + authority, empty, untrusted},
	} {
		c, arguments := newPhoneCommand(), strings.Fields(tt.arguments)
		arguments = append(arguments, "--dir", tt.dir, "--gateway", gateway.URL)
		if strings.HasPrefix(tt.arguments, "request-") {
			c = newSandboxCommand()
		} else {
			arguments = append(arguments, "--device", deviceFile(dir))
		}
		if !strings.HasPrefix(tt.arguments, "authenticate") {
			arguments = append(arguments, "--server", server[1])
		}
		c.SilenceUsage = true
		if _, err := run(t, c, arguments...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, in %s: %v, want %q", tt.arguments, tt.dir, err, tt.want)
		}
	}
}

// If the simulated authentication server does not know the phone, because it was restarted or
// because the phone was never activated, the error says to activate the phone first.
func TestForgottenPhone(t *testing.T) {
	dir := t.TempDir()
	var address, server string
	// A restart uses new addresses, because Caddy may still be closing the old ones.
	restart := func() (stop func()) {
		address, server = freeport.Address(t), freeport.Address(t)
		_, stop = start(t, "--dir", dir, "--listen", address, "--listen-server", server)
		return stop
	}
	stop := restart()
	if out, err := phone(t, address, dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	refused := func(c *cobra.Command, arguments, status string, hinted bool) {
		t.Helper()
		c.SilenceUsage = true
		all := append(strings.Fields(arguments), "--dir", dir, "--gateway", "https://"+address)
		if strings.HasPrefix(arguments, "request-") {
			all = append(all, "--server", "https://"+server+"/")
		}
		_, err := run(t, c, all...)
		if err == nil || !strings.Contains(err.Error(), status) ||
			strings.Contains(err.Error(), "forgets everything when it stops: activate a phone first, with `dsapp phone activate`") != hinted {
			t.Errorf("%s: %v", arguments, err)
		}
	}
	// An unknown device gets the hint, other refusals do not.
	refused(newSandboxCommand(), "request-login --serial-number VDS9999999-1", "No applicable digipass found", true)
	refused(newPhoneCommand(), "authenticate --front-end-key a-key-that-nobody-has", "401", false)

	stop()
	restart()
	refused(newPhoneCommand(), "authenticate", "STAT_LOCAL_PASSWORD_MISMATCH", true)
	refused(newPhoneCommand(), "authenticate --v1", "STAT_LOCAL_PASSWORD_MISMATCH", true)
	for _, request := range []string{"request-signature", "request-login", "request-signature --scan", "request-login --scan"} {
		refused(newSandboxCommand(), request, "No applicable digipass found", true)
	}
	refused(newSandboxCommand(), "request-login --user nobody", "STAT_USER_UNKNOWN", false)
}

// The help says for which device a request to scan is. Only signatures can name a device.
func TestScanHelp(t *testing.T) {
	t.Parallel()
	for request, want := range map[string]string{
		"request-signature": "of --serial-number, or the one that was activated last",
		"request-login":     "that was activated last",
	} {
		out, err := run(t, newSandboxCommand(), request, "--help")
		if err != nil || !strings.Contains(strings.Join(strings.Fields(out), " "), want) || !strings.Contains(out, "--serial-number") {
			t.Errorf("%s: %v\n%s", request, err, out)
		}
	}
}

// Wrong flags are refused before anything starts.
func TestWrongUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		command func() *cobra.Command
		flags   string
		want    string
	}{
		{newSandboxCommand, "--server-only --gateway-only", "exclude each other"},
		{newSandboxCommand, "--gateway-only", "needs --server"},
		{newSandboxCommand, "--server https://localhost:1/", "needs --gateway-only"},
		{newSandboxCommand, "--gateway-only --server https://localhost:1/ --listen-server localhost:2", "exclude each other"},
		{newSandboxCommand, "--gateway-only --server https://localhost:1/ --instances 2", "exclude each other"},
		{newSandboxCommand, "--instances 0", "--instances must be from 1 to 9"},
		{newSandboxCommand, "--instances 10", "--instances must be from 1 to 9"},
		{newSandboxCommand, "--listen localhost", "needs a port"},
		{newSandboxCommand, "--listen :", "needs a port"},
		{newSandboxCommand, "--gateway-only --server https://localhost:1/ --listen-control localhost:2", "exclude each other"},
		{newSandboxCommand, "--gateway-only --server https://localhost:1/ --users 2", "exclude each other"},
		{newSandboxCommand, "--server-only --timeout 2s", "exclude each other"},
		{newSandboxCommand, "--users 0", "--users must be from 1 to 1000"},
		{newSandboxCommand, "--timeout 0s", "--timeout must be positive"},
		{newSandboxCommand, "bogus", "unknown command"},
		{newActivateCommand, "--registration-identifier abcd", "needs --activation-password"},
		{newActivateCommand, "--image 00 --registration-identifier abcd", "were all set"},
		{newActivateCommand, "--ca /does/not/exist", "does not exist: start the sandbox"},
		{newActivateCommand, "--ca sandboxcmd_test.go", "holds no certificate"},
		{newActivateCommand, "--bind", "--bind needs --standard"},
		{newActivateCommand, "--standard --v1", "were all set"},
		{newPhoneCommand, "sign --scan", "--scan needs --key"},
		{newPhoneCommand, "sign --v1", "push logins only"},
		{newPhoneCommand, "login --v1 --scan --key 1", "push logins only"},
		{newPhoneCommand, "cancel --v1", "push logins only"},
		{newPhoneCommand, "cancel --kind transfer", "--kind is neither signature nor login"},
		{newPhoneCommand, "sign --device /does/not/exist", "activate the phone first"},
		{newPhoneCommand, "authenticate --device /does/not/exist", "activate the phone first"},
		{newPhoneCommand, "sign --device sandboxcmd_test.go", "is not the file of an activated phone"},
		{newSandboxCommand, "request-signature --field Amount", "--field is not name=value"},
		{newSandboxCommand, "request-login --ca /does/not/exist", "does not exist: start the sandbox"},
		{newSandboxCommand, "request-login --dir /does/not/exist", "does not exist: start the sandbox"},
		{newSandboxCommand, "request-login --scan --serial-number VDS1000000-1", "were all set"},
	} {
		c := tt.command()
		c.SilenceUsage = true
		if _, err := run(t, c, strings.Fields(tt.flags)...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.flags, err)
		}
	}
}

// An unknown subcommand is an error with a suggestion. Without a subcommand, the help is
// printed.
func TestUnknownSubcommand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ arguments, want string }{
		{"dsapp sandbx", "unknown command \"sandbx\" for \"caddy dsapp\"\n\nDid you mean this?\n\tsandbox\n"},
		{"dsapp phone actvate", "unknown command \"actvate\" for \"caddy dsapp phone\"\n\nDid you mean this?\n\tactivate\n"},
		{"dsapp sandbox request-signature bogus", "1 arguments; usage: caddy dsapp sandbox request-signature [flags]"},
		{"dsapp sandbox bogus", "unknown command \"bogus\" for \"caddy dsapp sandbox\""},
		{"dsapp phone nothing-alike", "unknown command \"nothing-alike\" for \"caddy dsapp phone\""},
		{"dsapp", ""},
		{"dsapp phone", ""},
	} {
		dsapp := &cobra.Command{Use: "dsapp"}
		caddycmd.Commands()["dsapp"].CobraFunc(dsapp)
		c := &cobra.Command{Use: "caddy", SilenceUsage: true}
		c.AddCommand(dsapp)
		out, err := run(t, c, strings.Fields(tt.arguments)...)
		if tt.want == "" {
			if err != nil || !strings.Contains(out, "Available Commands:") {
				t.Errorf("%s: %v\n%s", tt.arguments, err, out)
			}
			continue
		}
		if caddymodule.ExitCode(err) != caddymodule.ExitFailed || !strings.Contains(out, "Error: "+tt.want+"\n") {
			t.Errorf("%s: %v\n%s", tt.arguments, err, out)
		}
	}
}

// The URL for a wildcard address has a host for which the certificate is valid.
func TestLocalURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		":18888":          "https://localhost:18888",
		"0.0.0.0:18888":   "https://localhost:18888",
		"[::]:18888":      "https://localhost:18888",
		"127.0.0.1:18888": "https://127.0.0.1:18888",
		"[::1]:18888":     "https://[::1]:18888",
		"gateway:18888":   "https://gateway:18888",
	} {
		if got := localURL(in); got != want {
			t.Errorf("localURL(%q) = %s", in, got)
		}
	}
}

// The simulated authentication server prints URLs at which it can be reached, also if it listens
// on a wildcard address.
func TestServerListensEverywhere(t *testing.T) {
	out, _ := start(t, "--dir", t.TempDir(), "--server-only", "--instances", "2", "--listen-server", ":0")
	if !regexp.MustCompile(`( --server https://localhost:[1-9][0-9]*/){2}\n`).MatchString(out.String()) {
		t.Errorf("no URLs of localhost are printed:\n%s", out)
	}
}

// The printed commands start the program in the same way as its user did.
func TestCommandName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"caddy":                                  "caddy",
		"./bin/caddy":                            "./bin/caddy",
		"/opt/my caddy":                          "'/opt/my caddy'",
		"/src/go-build/caddy":                    "/src/go-build/caddy",
		"/tmp/go-build1667474565/b001/exe/caddy": "go run ./cmd/caddy",
		"/root/.cache/go-build/19/" + strings.Repeat("19af", 16) + "-d/caddy": "go run ./cmd/caddy",
	} {
		if got := commandName(in); got != want {
			t.Errorf("commandName(%q) = %s", in, got)
		}
	}
}

// The content of an activation image is read, and wrong content refused.
func TestReadImage(t *testing.T) {
	t.Parallel()
	r, err := readImage(fmt.Sprintf("%X", "01;01;jane.doe;mydomain.com;Ident1;Passw0rd;GW"))
	if err != nil || r != (registration{"Ident1", "Passw0rd", "jane.doe", "mydomain.com"}) {
		t.Errorf("%+v, %v", r, err)
	}
	for _, content := range []string{"", "01;01;u;d;i;p", "01;02;u;d;i;p;g", "01;01;u;d;;p;g", "01;01;u;d;i;p;g;x"} {
		if _, err := readImage(fmt.Sprintf("%X", content)); err == nil {
			t.Errorf("%q was read", content)
		}
	}
	if _, err := readImage("0"); err == nil {
		t.Error("half a byte was read")
	}
}

// Instances listen on consecutive ports, or each on any free port.
func TestNextPort(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"localhost:18888": "localhost:18889", ":18888": ":18889", "[::1]:1": "[::1]:2", "localhost:0": "localhost:0",
	} {
		if got, err := nextPort(in); err != nil || got != want {
			t.Errorf("nextPort(%q) = %s, %v", in, got, err)
		}
	}
	for _, in := range []string{":http", "localhost", "localhost:"} {
		if got, err := nextPort(in); err == nil {
			t.Errorf("nextPort(%q) = %s", in, got)
		}
	}
}

// Only its user can read the file of a phone. A failure to write it leaves neither a part of the
// new file nor loses the old one.
func TestDeviceFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "new", "phone.json")
	for i := range uint64(2) {
		want := &sandbox.Authenticator{SerialNumber: "VDS1000000-1", UserID: userID, Domain: domain, Secret: []byte("secret"), Counter: i}
		if err := writePrivate(file, want); err != nil {
			t.Fatal(err)
		}
		if got, err := readDevice(file); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	for name, mode := range map[string]os.FileMode{filepath.Dir(file): 0o700, file: 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
		}
	}
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "phone.json", "occupied"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writePrivate(filepath.Join(taken, "phone.json"), &sandbox.Authenticator{}); err == nil {
		t.Error("replaced a directory")
	}
	if files, err := os.ReadDir(taken); err != nil || len(files) != 1 {
		t.Errorf("left %v, %v", files, err)
	}
}

// Words of printed commands are quoted where a shell needs it.
func TestQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/tmp/a-b.pem": "/tmp/a-b.pem", "": "''", "a b": "'a b'", "it's": `'it'\''s'`,
	} {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s", in, got)
		}
	}
}
