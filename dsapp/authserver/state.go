package authserver

import (
	"sync/atomic"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// State is what the gateway knows of one authentication server: the commands in progress,
// whether it can be reached, and its circuit breaker. It belongs to the server and not to a
// configuration: when a new configuration replaces an old one, the Servers of both use the
// same State. Together they keep to the limits, and the new ones do not call a server that
// the old ones found broken. The zero value is the State of an idle server that works.
type State struct {
	limiter      limiter
	reachability reachability
	breaker      breaker.Breaker
	answers      atomic.Uint64 // how many commands the server answered
}
