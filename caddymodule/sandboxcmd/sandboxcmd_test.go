package sandboxcmd

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/spf13/cobra"
)

// The tests share Caddy's global state and run one after the other.

const deadline = 20 * time.Second

// output is what a command prints, for a reader at the same time.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// start runs `caddy dsapp sandbox` until the returned function is called or the
// test ends, and returns when it printed that it runs.
func start(t *testing.T, arguments ...string) (*output, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out := new(output)
	c := newSandboxCommand()
	c.SetOut(out)
	c.SetArgs(arguments)
	done := make(chan error, 1)
	go func() { done <- c.ExecuteContext(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("sandbox: %v", err)
			}
		case <-time.After(deadline):
			t.Error("the sandbox does not stop")
		}
	})
	t.Cleanup(stop)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for !strings.Contains(out.String(), "Ctrl-C stops it.") {
		select {
		case <-tick.C:
		case err := <-done:
			t.Fatalf("sandbox ended: %v", err)
		case <-timeout:
			t.Fatal("the sandbox does not come up")
		}
	}
	return out, stop
}

func run(t *testing.T, c *cobra.Command, arguments ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(arguments)
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	err := c.ExecuteContext(ctx)
	return out.String(), err
}

func phone(t *testing.T, address, dir string, arguments ...string) (string, error) {
	t.Helper()
	return run(t, newPhoneCommand(), append([]string{"activate", "--gateway", "https://" + address, "--ca", authorityFile(dir)}, arguments...)...)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

var activatedLine = regexp.MustCompile(`(?m)^Activated: [A-Z]{3}[0-9]{7}-[0-9]{1,2}$`)

// The commands that the sandbox prints do what they say.
func TestSandboxAndPhone(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	printed, _ := start(t, "--dir", dir, "--listen", address)
	for _, want := range []string{
		"https://" + address, frontEndKey, backEndKey, userID, domain, staticPassword, authorityFile(dir),
		fmt.Sprintf("dsapp phone activate --gateway https://%s --ca %s\n", address, authorityFile(dir)),
	} {
		if !strings.Contains(printed.String(), want) {
			t.Errorf("%q is not printed:\n%s", want, printed)
		}
	}

	// Another sandbox does not share the port with this one, which goes on.
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
		for _, want := range []string{"1. DSAPPSRPRegister", "5. MdlActivate", "sent", "received", "verified"} {
			if !strings.Contains(out, want) {
				t.Errorf("phone %v: %q is not printed:\n%s", flags, want, out)
			}
		}
		// The password is told once, as what the site shows.
		told := regexp.MustCompile(`the site shows its user the identifier \S+ and the activation password (\S+)\.\n`).FindStringSubmatch(out)
		if told == nil || strings.Count(out, told[1]) != 1 {
			t.Errorf("phone %v: the password is not told once, but %v:\n%s", flags, told, out)
		}
	}

	out, err := phone(t, address, dir, "--activation-password", "wrong-password")
	if err == nil || !strings.Contains(err.Error(), "DSAPPSRPGenerateActivationData was refused") || strings.Contains(out, "Activated") {
		t.Errorf("wrong password: %v\n%s", err, out)
	}
	if _, err := phone(t, address, dir, "--key", "a-key-that-nobody-has"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("wrong key: %v", err)
	}
}

// A pending registration survives the gateway, with the authentication server
// running on its own, and can be activated from its image.
func TestGatewayRestarts(t *testing.T) {
	dir, address, server := t.TempDir(), freeAddress(t), freeAddress(t)
	// Both run in this process, which handles one Caddy: the server has none.
	start(t, "--dir", dir, "--server-only", "--listen-server", server)
	if _, err := run(t, newSandboxCommand(), "--dir", dir, "--server-only", "--listen-server", server); err == nil ||
		!strings.Contains(err.Error(), "cannot listen on "+server+", the address of --listen-server: ") {
		t.Errorf("second server: %v", err)
	}
	gateway := []string{"--dir", dir, "--gateway-only", "--server", "https://" + server + "/", "--listen", address}
	_, stop := start(t, gateway...)

	o := phoneOptions{authority: authorityFile(dir)}
	client, err := o.client()
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

// What cannot work is told before anything starts.
func TestWrongUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		command func() *cobra.Command
		flags   string
		want    string
	}{
		{newSandboxCommand, "--server-only --gateway-only", "exclude one another"},
		{newSandboxCommand, "--gateway-only", "needs --server"},
		{newSandboxCommand, "--server https://localhost:1/", "needs --gateway-only"},
		{newSandboxCommand, "--gateway-only --server https://localhost:1/ --listen-server localhost:2", "exclude one another"},
		{newSandboxCommand, "--listen localhost", "needs a port"},
		{newSandboxCommand, "--listen :0", "needs a port"},
		{newSandboxCommand, "bogus", "unknown command"},
		{newActivateCommand, "--registration-identifier abcd", "needs --activation-password"},
		{newActivateCommand, "--image 00 --registration-identifier abcd", "were all set"},
		{newActivateCommand, "--ca /does/not/exist", "does not exist: start the sandbox"},
		{newActivateCommand, "--ca sandboxcmd_test.go", "holds no certificate"},
	} {
		c := tt.command()
		c.SilenceUsage = true
		if _, err := run(t, c, strings.Fields(tt.flags)...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.flags, err)
		}
	}
}

// An unknown subcommand fails with a suggestion; none at all prints the help.
func TestUnknownSubcommand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ arguments, want string }{
		{"dsapp sandbx", "unknown command \"sandbx\" for \"caddy dsapp\"\n\nDid you mean this?\n\tsandbox\n"},
		{"dsapp phone actvate", "unknown command \"actvate\" for \"caddy dsapp phone\"\n\nDid you mean this?\n\tactivate\n"},
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
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: %v", tt.arguments, err)
		}
	}
}

// The URL of a wildcard address names a host that the certificate covers.
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

// The simulated authentication server names a URL at which it is reached, also
// if it listens everywhere.
func TestServerListensEverywhere(t *testing.T) {
	out, _ := start(t, "--dir", t.TempDir(), "--server-only", "--listen-server", ":0")
	if !regexp.MustCompile(`--server https://localhost:[1-9][0-9]*/ `).MatchString(out.String()) {
		t.Errorf("no URL of localhost is printed:\n%s", out)
	}
}

// The printed commands start the program as its user did.
func TestProgram(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"caddy":                                  "caddy",
		"./bin/caddy":                            "./bin/caddy",
		"/opt/my caddy":                          "'/opt/my caddy'",
		"/src/go-build/caddy":                    "/src/go-build/caddy",
		"/tmp/go-build1667474565/b001/exe/caddy": "go run ./cmd/caddy",
		"/root/.cache/go-build/19/" + strings.Repeat("19af", 16) + "-d/caddy": "go run ./cmd/caddy",
	} {
		if got := program(in); got != want {
			t.Errorf("program(%q) = %s", in, got)
		}
	}
}

func TestReadImage(t *testing.T) {
	t.Parallel()
	identifier, password, err := readImage(fmt.Sprintf("%X", "01;01;jane.doe;mydomain.com;Ident1;Passw0rd;GW"))
	if err != nil || identifier != "Ident1" || password != "Passw0rd" {
		t.Errorf("%q, %q, %v", identifier, password, err)
	}
	for _, content := range []string{"", "01;01;u;d;i;p", "01;02;u;d;i;p;g", "01;01;u;d;;p;g", "01;01;u;d;i;p;g;x"} {
		if _, _, err := readImage(fmt.Sprintf("%X", content)); err == nil {
			t.Errorf("%q was read", content)
		}
	}
	if _, _, err := readImage("0"); err == nil {
		t.Error("half a byte was read")
	}
}

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
