package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

// holdLogins lets every login of a user wait at the authentication server until the
// gateway gives up, or until they are released. It tells how many wait, and how many
// ever did at once.
func (o *oas) holdLogins(user string) (now, most func() int64, release func()) {
	var waiting, highest atomic.Int64
	released, end := context.WithCancel(context.Background())
	o.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return true
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !bytes.Contains(body, []byte(">"+user+"<")) {
			return false
		}
		n := waiting.Add(1)
		defer waiting.Add(-1)
		for old := highest.Load(); n > old && !highest.CompareAndSwap(old, n); old = highest.Load() {
		}
		select {
		case <-r.Context().Done():
		case <-released.Done():
		}
		return true
	})
	return waiting.Load, highest.Load, end
}

// loginFlood are logins by push keyword that nobody ever confirms, from many phones
// that have the public key, each of which begins anew when one ends.
type loginFlood struct {
	late, refused, other atomic.Int64
}

// flood begins a flood of clients with so many logins each. It ends with the test,
// or earlier by stop.
func (g *gateway) flood(t *testing.T, user string, clients, each int) (f *loginFlood, stop func()) {
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
		phone := g.from(t, source.String())
		for range each {
			logins.Go(func() {
				for ctx.Err() == nil {
					phone.login(ctx, user, f)
				}
			})
		}
	}
	return f, stop
}

// login carries out one login of a flood.
func (g *gateway) login(ctx context.Context, user string, f *loginFlood) {
	status, _, err := g.try(ctx, passwordPath, frontEndKey, fmt.Sprintf(`{"userID":%q,"domain":%q,"password":"push"}`, user, domain))
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

// Logins that no person ever confirms, of many phones with the public key, hold up
// other logins at most: registrations, activations, retrievals, approvals,
// signatures and cancels are answered as if they were not there, and the breaker
// does not open.
func TestWaitingLoginsHoldUpNobody(t *testing.T) {
	t.Parallel()
	const (
		waiting       = 10 // the default of max_waiting
		clients, each = 10, 7
		attacker      = "no.such.person"
		timeout       = 3 * time.Second
	)
	certs := certificates(t)
	server := serveOAS(t, certs, sandbox.New(sandbox.Options{Users: []sandbox.User{
		{Name: userID, Domain: domain, StaticPassword: staticPassword, Licenses: 10_000},
	}}))
	g := startGateway(t, certs, server.URL, func(dsapp object) {
		servers := dsapp["authentication_servers"].(object)
		servers["timeout"] = timeout.String()
		servers["max_queue"] = 20
	})
	a := g.activated(t)
	now, most, _ := server.holdLogins(attacker)
	began := time.Now()
	flood, stop := g.flood(t, attacker, clients, each)
	poll(t, "the logins to use up what they may", func() bool { return now() >= waiting && flood.refused.Load() > 0 })
	// Later the next ones can come before the server learns that nobody waits for the
	// first any more.
	if highest := most(); time.Since(began) < timeout {
		assert.EqualValues(t, waiting, highest)
	}

	rounds := 0
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	for ; rounds < 3 || flood.late.Load() < 4*waiting; rounds++ {
		<-pace.C
		g.activated(t)
		for _, s := range kinds {
			key, outcome := ask(t, server, s, a)
			signature, err := a.Sign(g.retrieved(t, s, frontEndKey, a.SerialNumber, key))
			require.NoError(t, err)
			status, answer := g.complete(t, s, key, signature)
			expectation{http.StatusOK, "STAT_SUCCESS", 0}.check(t, status, answer)
			require.NoError(t, outcome())

			key, _ = ask(t, server, s, a)
			g.retrieved(t, s, frontEndKey, a.SerialNumber, key)
			status, answer = g.cancel(t, s, frontEndKey, a.SerialNumber, wrap(t, a, key))
			expectation{http.StatusOK, "STAT_SUCCESS", 0}.check(t, status, answer)
		}
	}
	assert.NotContains(t, g.Logs.String(), breakerOpened)
	assert.Zero(t, flood.other.Load())
	// A one-time password cannot be told from a keyword: it shares their places, and may
	// get one when there is hardly any time left.
	status, answer := g.Call(t, passwordPath, frontEndKey, onlineBody)
	assert.Contains(t, []int{http.StatusOK, http.StatusServiceUnavailable, http.StatusGatewayTimeout}, status, answer)
	t.Logf("%d rounds, %d logins timed out, %d were refused", rounds, flood.late.Load(), flood.refused.Load())

	stop()
	// The gateway learns a little later that nobody waits any more.
	poll(t, "a one-time password to be verified", func() bool {
		status, _ := g.Call(t, passwordPath, frontEndKey, onlineBody)
		return status == http.StatusOK
	})
}
