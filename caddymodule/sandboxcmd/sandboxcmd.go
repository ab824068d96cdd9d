// Package sandboxcmd adds the commands `caddy dsapp sandbox` and `caddy dsapp
// phone` to Caddy. They are for development and demonstrations: a Caddy that
// serves real users does not import this package.
package sandboxcmd

import (
	"path/filepath"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
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

	defaultListen     = "localhost:11080"
	defaultGatewayURL = "https://localhost:11080"
)

// defaultDir is where a sandbox keeps its files. It is always the same, so that
// a restarted sandbox knows its registrations and the phone finds the CA.
func defaultDir() string {
	return filepath.Join(caddy.AppDataDir(), "dsapp-sandbox")
}

func certificateDir(dir string) string { return filepath.Join(dir, "certificates") }

func authorityFile(dir string) string { return filepath.Join(certificateDir(dir), "ca.pem") }
