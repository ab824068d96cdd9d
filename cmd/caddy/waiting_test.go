package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// loginFlood counts the answers to logins by push keyword that nobody confirms. Many phones
// with the public key begin one after the other.
type loginFlood struct {
	late, refused, other atomic.Int64
}

// startFlood starts a flood of clients with so many logins each, until stop is called or the
// test ends.
func startFlood(t *testing.T, g *testbed.Gateway, user string, clients, each int) (f *loginFlood, stop func()) {
	t.Helper()
	f = new(loginFlood)
	ctx, cancel := context.WithCancel(t.Context())
	var logins sync.WaitGroup
	stop = func() {
		cancel()
		logins.Wait()
	}
	t.Cleanup(stop)
	source := netip.MustParseAddr("127.0.0.1")
	for range clients {
		source = source.Next()
		phone := g.From(t, source.String())
		for range each {
			logins.Go(func() {
				for ctx.Err() == nil {
					floodLogin(ctx, phone, user, f)
				}
			})
		}
	}
	return f, stop
}

// floodLogin makes one login of a flood.
func floodLogin(ctx context.Context, g *testbed.Gateway, user string, f *loginFlood) {
	status, _, err := g.Try(ctx, testbed.LoginPath, testbed.FrontEndKey, fmt.Sprintf(`{"userID":%q,"domain":%q,"password":"push"}`, user, testbed.Domain))
	if err != nil {
		if ctx.Err() == nil {
			f.other.Add(1)
		}
		return
	}
	switch status {
	case http.StatusGatewayTimeout:
		f.late.Add(1)
	case http.StatusServiceUnavailable:
		f.refused.Add(1)
		select { // as a client does that comes back later
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
		}
	default:
		f.other.Add(1)
	}
}

// Logins that nobody confirms, of many phones with the public key, delay only other logins:
// registrations, activations, retrievals, approvals, signatures and cancels are answered as
// without them, and the breaker does not open.
func TestWaitingLoginsHoldUpNobody(t *testing.T) {
	t.Parallel()
	const (
		waiting       = 10 // the default of max_waiting
		clients, each = 10, 7
		attacker      = "no.such.person"
		timeout       = 10 * time.Second
	)
	certs := testbed.Certificates(t)
	server := testbed.Serve(t, certs, sandbox.New(sandbox.Options{Users: []sandbox.User{
		{Name: testbed.UserID, Domain: testbed.Domain, StaticPassword: testbed.StaticPassword, Licenses: 10_000},
	}}))
	g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
		servers := dsapp["authentication_servers"].(testbed.Object)
		servers["timeout"] = timeout.String()
		servers["max_queue"] = 20
	})
	a := g.ActivatedDevice(t)
	now, most, _ := server.HoldLogins(attacker)
	began := time.Now()
	flood, stop := startFlood(t, g, attacker, clients, each)
	poll.Until(t, "the logins to use up what they may", func() bool { return now() >= waiting && flood.refused.Load() > 0 })
	// Later, new logins can arrive before the server has noticed that the gateway gave the
	// first ones up.
	if highest := most(); time.Since(began) < timeout {
		assert.EqualValues(t, waiting, highest)
	}

	rounds := 0
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	for ; rounds < 3 || flood.late.Load() < 2*waiting; rounds++ {
		<-pace.C
		g.ActivatedDevice(t)
		for _, s := range testbed.RequestKinds {
			key, outcome := testbed.Ask(t, server, s, a)
			signature, err := a.Sign(g.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key))
			require.NoError(t, err)
			status, answer := g.Complete(t, s, key, signature)
			testbed.Expect(http.StatusOK, "STAT_SUCCESS", 0).Check(t, testbed.Reply{Status: status, Body: answer})
			require.NoError(t, outcome())

			key, _ = testbed.Ask(t, server, s, a)
			g.MustRetrieve(t, s, testbed.FrontEndKey, a.SerialNumber, key)
			assert.Equal(t, testbed.Success, testbed.Answer(g.Cancel(t, s, testbed.FrontEndKey, a.SerialNumber, testbed.WrapKey(t, a, key))))
		}
	}
	assert.NotContains(t, g.Logs.String(), breakerOpened)
	assert.Zero(t, flood.other.Load())
	// A one-time password cannot be told from a push keyword: it needs one of the same places,
	// and may get it when there is hardly any time left.
	status, answer := g.Call(t, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
	assert.Contains(t, []int{http.StatusOK, http.StatusServiceUnavailable, http.StatusGatewayTimeout}, status, answer)
	t.Logf("%d rounds, %d logins timed out, %d were refused", rounds, flood.late.Load(), flood.refused.Load())

	stop()
	// The gateway notices a little later that the clients have left.
	poll.Until(t, "a one-time password to be verified", func() bool {
		status, _ := g.Call(t, testbed.LoginPath, testbed.FrontEndKey, testbed.LoginBody)
		return status == http.StatusOK
	})
}
