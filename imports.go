// Package dsappgateway plugs the gateway into Caddy: importing it registers the
// modules of package caddymodule. A custom build of Caddy needs no more than
// this package's path.
package dsappgateway

import (
	// The modules register themselves.
	_ "github.com/dsapp-gateway/dsapp-gateway/caddymodule"
)
