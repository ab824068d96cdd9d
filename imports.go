// Package dsappgateway makes the gateway available to Caddy. Importing it registers the
// modules of package caddymodule and the commands for operators. To build a Caddy with the
// gateway, give xcaddy the path of this package.
package dsappgateway

import (
	// These packages register their modules and commands.
	_ "github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	_ "github.com/dsapp-gateway/dsapp-gateway/caddymodule/operatorcmd"
)
