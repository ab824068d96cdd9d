// Package sandboxcmd adds the commands `caddy dsapp sandbox` and `caddy dsapp phone` to
// Caddy. They are for development and demonstrations. Do not import this package into a
// Caddy that serves real users.
package sandboxcmd

import (
	"crypto/tls"
	"crypto/x509"
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

	defaultListen       = "localhost:11080"
	defaultGatewayURL   = "https://localhost:11080"
	defaultListenServer = "localhost:18888"
	defaultServerURL    = "https://localhost:18888/"
)

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
}

// flags adds the flags of every such command.
func (p *connectionOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.dir, "dir", defaultDir(), "directory of the sandbox")
	f.StringVar(&p.authority, "ca", "", "PEM file of another CA to trust, such as the gateway's own, in addition to certificates/ca.pem in --dir")
	f.StringVar(&p.gateway, "gateway", defaultGatewayURL, "URL of the gateway")
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
			return nil, fmt.Errorf("%s does not exist: start the sandbox, or name its directory with --dir or the CA of the gateway with --ca", file)
		}
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", file)
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
