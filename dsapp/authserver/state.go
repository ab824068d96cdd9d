package authserver

import (
	"sync/atomic"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// State is what is known of one authentication server: how busy it is, whether it
// can be reached and whether it works. It belongs to the server rather than to a
// configuration: Servers that follow each other share the State of an Instance, so
// that together they keep to its limits, and none begins by calling a server that
// is known to be out of order. The zero State is that of an idle server that works.
type State struct {
	load    load
	reach   reach
	breaker breaker.Breaker
	answers atomic.Uint64 // of commands
}
