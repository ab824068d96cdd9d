package restapi

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// Every operation is told the client's address as the limits count it: an IPv6
// address stands for its network.
func TestCallerSource(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"127.0.0.1": "127.0.0.1", "::ffff:127.0.0.1": "127.0.0.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
	} {
		g := newRig(t, func(c *Config) {
			c.ClientIP = func(*http.Request) netip.Addr { return netip.MustParseAddr(address) }
		}, nil)
		for _, path := range []string{"/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey", "/rest/v2/provisioning/DSAPPSRPGenerateActivationData"} {
			g.ops.caller = gateway.Caller{}
			if got := g.call(path, frontKey, bodies[path]); got.status != http.StatusOK {
				t.Fatalf("answer is %+v", got)
			}
			if caller := (gateway.Caller{Application: "mobile-app", Source: want}); g.ops.caller != caller {
				t.Errorf("%s from %s: caller is %+v, want %+v", path, address, g.ops.caller, caller)
			}
		}
	}
}
