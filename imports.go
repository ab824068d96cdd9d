// Package dsappgateway plugs the gateway into Caddy: importing it registers the
// modules of package caddymodule, and the commands for operators. A custom build of
// Caddy needs no more than this package's path.
package dsappgateway

import (
	// The modules and commands register themselves.
	_ "github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	_ "github.com/dsapp-gateway/dsapp-gateway/caddymodule/operatorcmd"
)
