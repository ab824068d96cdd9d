// Package sandboxcmd adds the commands `caddy dsapp sandbox` and `caddy dsapp
// phone` to Caddy. They are for development and demonstrations: a Caddy that
// serves real users does not import this package.
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

// What every sandbox has. Nothing of it is a secret.
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

// defaultDir is where a sandbox keeps its files. It is always the same, so that
// a restarted sandbox knows its registrations and the phone finds the CA.
func defaultDir() string {
	return filepath.Join(caddy.AppDataDir(), "dsapp-sandbox")
}

func certificateDir(dir string) string { return filepath.Join(dir, "certificates") }

func authorityFile(dir string) string { return filepath.Join(certificateDir(dir), "ca.pem") }

// place is where the commands that play somebody find a sandbox.
type place struct {
	dir       string
	authority string
	gateway   string
	server    string
}

// flags adds those of every such command.
func (p *place) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.dir, "dir", defaultDir(), "directory of the sandbox")
	f.StringVar(&p.authority, "ca", "", "PEM file of a CA to trust besides certificates/ca.pem in --dir, such as the gateway's own")
	f.StringVar(&p.gateway, "gateway", defaultGatewayURL, "URL of the gateway")
}

// serverFlag adds that of the commands that talk to the authentication server.
func (p *place) serverFlag(c *cobra.Command) {
	c.Flags().StringVar(&p.server, "server", defaultServerURL, "URL of the simulated authentication server")
}

// client trusts the CA of the sandbox, that of --ca and nothing else. Without a
// timeout, 0, calls end with their contexts.
func (p *place) client(timeout time.Duration) (*http.Client, error) {
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

// authorities holds the CA of the sandbox and that of --ca. With the latter the
// sandbox's own may be missing: a gateway needs no sandbox.
func (p *place) authorities() (*x509.CertPool, error) {
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

// hint adds what helps to a refusal with a status that the simulated
// authentication server has for a phone that it does not know.
func hint(err error, status string) error {
	var refused *sandbox.RefusalError
	if !errors.As(err, &refused) || refused.ResultCodes.StatusCodeEnum != status {
		return err
	}
	return fmt.Errorf("%w (the simulated authentication server knows no such phone; it forgets everything when it stops: "+
		"activate a phone first, with `dsapp phone activate`)", err)
}
