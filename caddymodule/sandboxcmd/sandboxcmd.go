// Package sandboxcmd adds the commands `caddy dsapp sandbox` and `caddy dsapp phone` to
// Caddy. They are for development and demonstrations. Do not import this package into a
// Caddy that serves real users.
package sandboxcmd

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

func init() {
	caddymodule.AddSubcommand(newSandboxCommand)
	caddymodule.AddSubcommand(newPhoneCommand)
}

// The fixed values of every sandbox. None of them is a secret.
const (
	frontEndKey    = "sandbox-front-end"
	backEndKey     = "sandbox-back-end"
	userID         = "jane.doe"
	domain         = "mydomain.com"
	staticPassword = "sandbox"

	defaultListen        = "localhost:11080"
	defaultGatewayURL    = "https://localhost:11080"
	defaultListenServer  = "localhost:18888"
	defaultServerURL     = "https://localhost:18888/"
	defaultListenControl = "localhost:18880"
	anyPort              = "localhost:0"
)

// exitNoAnswer is the exit code of the commands that act as a client if a call could not be
// made or its answer cannot be used. A refusal is caddymodule.ExitFinding, and wrong use
// caddymodule.ExitFailed.
const exitNoAnswer = 3

// withExitCodes gives a command that acts as a client its exit codes.
func withExitCodes(c *cobra.Command) *cobra.Command {
	run := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		err := run(c, args)
		if code := exitCode(err); code != 0 {
			return &caddymodule.Failure{Code: code, Err: err}
		}
		return nil
	}
	return caddymodule.WithExitCodes(c, 0, 0)
}

// usageError is an error of flags or files, before any call.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func misused(format string, a ...any) error { return usageError{fmt.Errorf(format, a...)} }

// exitCode returns the exit code for err.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return caddymodule.ExitFailed
	}
	if _, ok := errors.AsType[*sandbox.RefusalError](err); ok {
		return caddymodule.ExitFinding
	}
	return exitNoAnswer
}

// addresses is the content of a ready file: what clients of a sandbox have to know.
type addresses struct {
	// Gateway and the keys are absent with --server-only.
	Gateway     string `json:"gateway,omitempty"`
	FrontEndKey string `json:"frontEndKey,omitempty"`
	BackEndKey  string `json:"backEndKey,omitempty"`
	// Servers are the URLs of the simulated authentication servers.
	Servers []string `json:"authenticationServers"`
	// Control is the URL of the control interface. It and Users are absent with
	// --gateway-only.
	Control string `json:"control,omitempty"`
	// Authority is the PEM file with the certificate of the CA.
	Authority string    `json:"ca"`
	Dir       string    `json:"dir"`
	Users     []account `json:"users,omitempty"`
}

// account is a user of a sandbox at its start.
type account struct {
	UserID         string `json:"userID"`
	Domain         string `json:"domain"`
	StaticPassword string `json:"staticPassword"`
}

// defaultDir returns the directory of the sandbox's files. It is always the same, so that a
// restarted sandbox has its registrations and the phone finds the CA.
func defaultDir() string {
	return filepath.Join(caddy.AppDataDir(), "dsapp-sandbox")
}

func certificateDir(dir string) string { return filepath.Join(dir, "certificates") }

func authorityFile(dir string) string { return filepath.Join(certificateDir(dir), "ca.pem") }

// connectionOptions tell commands that act as a client how to reach a sandbox.
type connectionOptions struct {
	dir       string
	authority string
	gateway   string
	server    string
	readyFile string
}

// flags adds the flags of every such command.
func (p *connectionOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.dir, "dir", defaultDir(), "directory of the sandbox")
	f.StringVar(&p.authority, "ca", "", "PEM file of another CA to trust, such as the gateway's own, in addition to certificates/ca.pem in --dir")
	f.StringVar(&p.gateway, "gateway", defaultGatewayURL, "URL of the gateway")
	f.StringVar(&p.readyFile, "ready-file", "", "ready file of the sandbox, with the values of --dir, --gateway and --server that are not given")
}

// readAddresses takes from the ready file what the flags do not say.
func (p *connectionOptions) readAddresses(changed func(flag string) bool) error {
	if p.readyFile == "" {
		return nil
	}
	content, err := os.ReadFile(p.readyFile)
	if err != nil {
		return misused("--ready-file: %w; the sandbox writes it when it runs", err)
	}
	var a addresses
	if err := json.Unmarshal(content, &a); err != nil || a.Dir == "" || len(a.Servers) == 0 {
		return misused("--ready-file: %s is not the ready file of a sandbox", p.readyFile)
	}
	for _, v := range []struct {
		flag, value string
		to          *string
	}{
		{"dir", a.Dir, &p.dir},
		{"gateway", a.Gateway, &p.gateway},
		{"server", a.Servers[0], &p.server},
	} {
		if !changed(v.flag) && v.value != "" {
			*v.to = v.value
		}
	}
	return nil
}

// serverFlag adds the flag of the commands that call the authentication server.
func (p *connectionOptions) serverFlag(c *cobra.Command) {
	c.Flags().StringVar(&p.server, "server", defaultServerURL, "URL of the simulated authentication server")
}

// client returns a client that trusts only the CA of the sandbox and that of --ca. A timeout
// of 0 means none.
func (p *connectionOptions) client(timeout time.Duration) (*http.Client, error) {
	pool, err := p.authorities()
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
		},
		Timeout: timeout,
	}, nil
}

// authorities returns the CA of the sandbox and that of --ca. With --ca, the CA of the sandbox
// may be missing, because the gateway may run without a sandbox.
func (p *connectionOptions) authorities() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	files := []string{authorityFile(p.dir)}
	if p.authority != "" {
		files = append(files, p.authority)
	}
	for i, file := range files {
		pem, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			if i < len(files)-1 {
				continue
			}
			return nil, misused("%s does not exist: start the sandbox, or name its directory with --dir or the CA of the gateway with --ca", file)
		}
		if err != nil {
			return nil, usageError{err}
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, misused("%s holds no certificate", file)
		}
	}
	return pool, nil
}

// withHint adds advice to a refusal with the status that the simulated authentication server
// returns for an unknown phone.
func withHint(err error, status string) error {
	var refused *sandbox.RefusalError
	if !errors.As(err, &refused) || refused.ResultCodes.StatusCodeEnum != status {
		return err
	}
	return fmt.Errorf("%w (the simulated authentication server does not know this phone; it forgets everything when it stops: "+
		"activate a phone first, with `dsapp phone activate`)", err)
}
