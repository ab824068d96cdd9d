// Command caddy is Caddy with its standard modules, the gateway and the sandbox.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/dsapp-gateway/dsapp-gateway"
	_ "github.com/dsapp-gateway/dsapp-gateway/caddymodule/sandboxcmd"
)

func main() {
	caddycmd.Main()
}
