package restapi

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

// fullLimiter is an InFlightLimiter that admits nothing.
type fullLimiter struct{}

func (fullLimiter) Enter(ratelimit.Source) (ratelimit.Place, bool) { return ratelimit.Place{}, false }

// inFlightLimit is an InFlightLimiter with one limit for all sources.
type inFlightLimit struct {
	counter ratelimit.InFlight
	limit   int
}

func (p *inFlightLimit) Enter(s ratelimit.Source) (ratelimit.Place, bool) {
	return p.counter.Enter(s, p.limit)
}

// Every call counts towards its limit. If the limit is exceeded, the operation is not
// called.
func TestLimits(t *testing.T) {
	t.Parallel()
	address := netip.MustParseAddr("2001:db8:0:1:2:3:4:5")
	for _, s := range table() {
		var failed, exchanged, proved, registered, called fakeLimiter
		g := newTestServer(t, func(c *Config) {
			c.Limits = Limits{FailedKeys: &failed, Exchanges: &exchanged, Proofs: &proved, Registrations: &registered, Calls: &called}
			c.ClientIP = func(*http.Request) netip.Addr { return address }
			keys, err := apikey.NewSet([]apikey.Key{
				{Name: "mobile-app", Class: apikey.FrontEnd, Hash: apikey.Hash(frontKey)},
				{Name: "bank-site", Class: apikey.BackEnd, Hash: apikey.Hash(backKey), Allow: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}},
			})
			if err != nil {
				t.Fatal(err)
			}
			c.Keys = keys
		}, nil)
		limit := func(f *fakeLimiter, source string, counted bool) {
			t.Helper()
			f.over, f.after, f.counted = true, 1500*time.Millisecond, nil
			defer func() { f.over = false }()
			calls := g.ops.calls
			got := g.call(s.Path, keyFor(s), bodies[s.Path])
			if !counted {
				if got.status != http.StatusOK {
					t.Errorf("%s: answer is %+v", s.Path, got)
				}
				return
			}
			wantFailure(t, got, s.Version, 429, "STAT_ERROR", -1, -1)
			name := map[*fakeLimiter]Limit{
				&failed: LimitFailedKeys, &exchanged: LimitExchanges, &proved: LimitExchanges, &registered: LimitRegistrations, &called: LimitCalls,
			}[f]
			if got.header.Get("Retry-After") != "2" || g.ops.calls != calls || g.last().Outcome != Limited || g.last().Limit != name {
				t.Errorf("%s: answer is %+v, limit %q", s.Path, got, g.last().Limit)
			}
			if f != &failed && !slices.Equal(f.counted, []string{source}) {
				t.Errorf("%s: counted %q, want %q", s.Path, f.counted, source)
			}
		}
		limit(&exchanged, "2001:db8:0:1::/64", s.Operation == gateway.OpGenerateEphemeralKey)
		limit(&proved, "2001:db8:0:1::/64", s.Operation == gateway.OpGenerateActivationData)
		limit(&registered, "bank-site", s.Operation == gateway.OpRegisterActivation || s.Operation == gateway.OpRegisterOffline)
		limit(&called, "2001:db8:0:1::/64", s.quota == calls || s.Operation == gateway.OpServerTime)
		limit(&failed, "2001:db8:0:1::/64", true)
		if len(failed.counted) != 0 {
			t.Errorf("%s: a right key was counted as failed", s.Path)
		}
		// A refused request counts, but not towards the limit of the service.
		for _, refused := range []struct {
			status int
			body   string
			edit   func(*http.Request)
		}{
			{400, "not JSON", func(*http.Request) {}},
			{405, bodies[s.Path], func(r *http.Request) { r.Method = http.MethodPut }},
			{413, strings.Repeat(" ", DefaultMaxBodySize+1), func(*http.Request) {}},
			{415, "{}", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }},
			{404, "{}", func(r *http.Request) { r.URL.Path += "/x" }},
			{404, "{}", func(r *http.Request) { r.URL.Path += "/." }},
		} {
			exchanged.counted, proved.counted, registered.counted, called.counted = nil, nil, nil, nil
			if got := g.call(s.Path, keyFor(s), refused.body, refused.edit); got.status != refused.status {
				t.Errorf("%s: answer is %+v, want status %d", s.Path, got, refused.status)
			}
			wantCalled, wantRegistered := []string{"2001:db8:0:1::/64"}, []string(nil)
			if keyFor(s) == backKey {
				wantCalled, wantRegistered = nil, []string{"bank-site"}
			}
			if !slices.Equal(called.counted, wantCalled) || !slices.Equal(registered.counted, wantRegistered) || len(exchanged.counted)+len(proved.counted) != 0 {
				t.Errorf("%s with status %d: counted %q and %q", s.Path, refused.status, called.counted, registered.counted)
			}
			called.over, registered.over = true, true
			if got := g.call(s.Path, keyFor(s), refused.body, refused.edit); got.status != 429 {
				t.Errorf("%s: answer is %+v, want 429 for %d", s.Path, got, refused.status)
			}
			called.over, registered.over = false, false
		}
		g.call(s.Path, "EXAMPLE-WRONG-KEY", bodies[s.Path])
		g.call(s.Path, "", bodies[s.Path])
		// A request without a key does not count.
		if want := []string{"2001:db8:0:1::/64"}; !slices.Equal(failed.counted, want) {
			t.Errorf("%s: counted %q, want %q", s.Path, failed.counted, want)
		}
		// Calls of back ends that complete activations do not count.
		if s.quota == calls && slices.Contains(s.Classes, apikey.BackEnd) {
			called.over, called.counted = true, nil
			if got := g.call(s.Path, backKey, bodies[s.Path]); got.status != http.StatusOK || len(called.counted) != 0 {
				t.Errorf("%s with a back-end key: answer is %+v, counted %q", s.Path, got, called.counted)
			}
		}
	}
}

// After too many wrong keys no further key from that address is looked up.
func TestFailedKeysLimiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		address := netip.MustParseAddr("192.0.2.1")
		g := newTestServer(t, func(c *Config) {
			c.Limits.FailedKeys = ratelimit.New(3, 100)
			c.ClientIP = func(*http.Request) netip.Addr { return address }
		}, nil)
		for range 3 {
			if got := g.call(timePath, "EXAMPLE-WRONG-KEY", ""); got.status != http.StatusUnauthorized {
				t.Fatalf("answer is %+v", got)
			}
		}
		for _, key := range []string{"EXAMPLE-WRONG-KEY", frontKey} {
			if got := g.call(timePath, key, ""); got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
				t.Errorf("answer is %+v", got)
			}
		}
		address = netip.MustParseAddr("192.0.2.2")
		if got := g.call(timePath, frontKey, ""); got.status != http.StatusOK {
			t.Errorf("answer is %+v", got)
		}
	})
}

// After the time in Retry-After, and not before, a call is admitted. The limit is one
// for all services of its kind and holds for one address.
func TestRetryAfterIsTrue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		address := netip.MustParseAddr("192.0.2.1")
		const perMinute = 60
		g := newTestServer(t, func(c *Config) {
			c.Limits = Limits{Calls: ratelimit.New(perMinute, 100)}
			c.ClientIP = func(*http.Request) netip.Addr { return address }
		}, nil)
		call := func(path string) reply { return g.call(path, frontKey, bodies[path]) }
		const loginPath, ephemeralKeyPath = "/rest/auth/online", "/rest/activation/DSAPPSRPGenerateEphemeralKey"
		for range perMinute {
			if got := call(loginPath); got.status != http.StatusOK {
				t.Fatalf("answer is %+v", got)
			}
		}
		got := call(loginPath)
		wantFailure(t, got, V1, 429, "STAT_ERROR", -1, -1)
		if got.header.Get("Retry-After") != "1" {
			t.Fatalf("Retry-After is %q", got.header.Get("Retry-After"))
		}
		if got := call(activatePath); got.status != http.StatusTooManyRequests {
			t.Errorf("answer is %+v", got)
		}
		if got := call(ephemeralKeyPath); got.status != http.StatusOK {
			t.Errorf("%s: answer is %+v", ephemeralKeyPath, got)
		}
		address = netip.MustParseAddr("192.0.2.2")
		if got := call(activatePath); got.status != http.StatusOK {
			t.Errorf("answer is %+v", got)
		}
		address = netip.MustParseAddr("192.0.2.1")
		time.Sleep(time.Second - time.Millisecond)
		if got := call(activatePath); got.status != http.StatusTooManyRequests {
			t.Errorf("answer before the time to wait is over is %+v", got)
		}
		time.Sleep(time.Millisecond)
		if got := call(activatePath); got.status != http.StatusOK {
			t.Errorf("answer after the time to wait is %+v", got)
		}
	})
}

// Concurrent requests count per address until they are answered, except those of back
// ends from accepted addresses. Those that an authentication server carries out count
// towards a second limit. Retry-After is 1 second.
func TestInFlight(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, key, path string
		relayed         bool
		limits          func(full, free *inFlightLimit) Limits
		limit           Limit // empty if the request counts nowhere
	}{
		{"front end", frontKey, activatePath, false, func(full, free *inFlightLimit) Limits { return Limits{RequestsInFlight: full, CallsInFlight: free} }, LimitRequestsInFlight},
		{"no key", "", activatePath, false, func(full, free *inFlightLimit) Limits { return Limits{RequestsInFlight: full, CallsInFlight: free} }, LimitRequestsInFlight},
		{"elsewhere", frontKey, "/elsewhere", false, func(full, free *inFlightLimit) Limits { return Limits{RequestsInFlight: full, CallsInFlight: free} }, LimitRequestsInFlight},
		{"back end", backKey, activatePath, false, func(full, _ *inFlightLimit) Limits { return Limits{RequestsInFlight: full, CallsInFlight: full} }, ""},
		{"back end from elsewhere", farKey, activatePath, false, func(full, free *inFlightLimit) Limits { return Limits{RequestsInFlight: full, CallsInFlight: free} }, LimitRequestsInFlight},
		{"call", frontKey, activatePath, false, func(full, free *inFlightLimit) Limits { return Limits{RequestsInFlight: free, CallsInFlight: full} }, LimitCallsInFlight},
		{"time", frontKey, "/rest/v2/provisioning/getServerTime", false, func(full, free *inFlightLimit) Limits { return Limits{RequestsInFlight: free, CallsInFlight: full} }, ""},
		{"exchange", frontKey, "/rest/activation/DSAPPSRPGenerateEphemeralKey", false, func(full, free *inFlightLimit) Limits { return Limits{RequestsInFlight: free, CallsInFlight: full} }, ""},
		{"relayed exchange", frontKey, "/rest/activation/DSAPPSRPGenerateEphemeralKey", true, func(full, free *inFlightLimit) Limits { return Limits{RequestsInFlight: free, CallsInFlight: full} }, LimitCallsInFlight},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			full, free := &inFlightLimit{limit: 1}, &inFlightLimit{limit: 1}
			g := newTestServer(t, func(config *Config) { config.Limits, config.RelayedExchange = c.limits(full, free), c.relayed }, nil)
			before := g.call(c.path, c.key, bodies[c.path]).status
			place, ok := full.Enter(new(ratelimit.AddressMapper).Source(netip.MustParseAddr("127.0.0.1")))
			if !ok {
				t.Fatal("something is still counted")
			}
			got := g.call(c.path, c.key, bodies[c.path])
			switch {
			case c.limit == "" && got.status != before:
				t.Errorf("answer is %+v, want %d as before", got, before)
			case c.limit != "" && (got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") != "1" || g.last().Limit != c.limit):
				t.Errorf("answer is %+v, limit %q", got, g.last().Limit)
			}
			place.Leave()
			if got := g.call(c.path, c.key, bodies[c.path]); got.status != before {
				t.Errorf("answer is %+v, want %d as before", got, before)
			}
		})
	}
}

// A call that exceeds the limit of concurrent calls does not count towards the limit per
// minute, since the client will repeat it.
func TestTooManyInFlightDoNotCount(t *testing.T) {
	t.Parallel()
	called := &fakeLimiter{}
	g := newTestServer(t, func(c *Config) { c.Limits = Limits{CallsInFlight: fullLimiter{}, Calls: called} }, nil)
	if got := g.call(activatePath, frontKey, bodies[activatePath]); got.status != http.StatusTooManyRequests || len(called.counted) != 0 {
		t.Errorf("answer is %+v, counted %q", got, called.counted)
	}
}

// A request is no longer counted as concurrent afterwards, whatever its result is.
func TestNothingStaysInFlight(t *testing.T) {
	t.Parallel()
	requests, calls := &inFlightLimit{limit: 1}, &inFlightLimit{limit: 1}
	panicking := false
	g := newTestServer(t, func(c *Config) {
		c.Limits = Limits{RequestsInFlight: requests, CallsInFlight: calls}
	}, func(h *Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_ = h.Serve(w, r, func(http.ResponseWriter, *http.Request) (bool, error) {
				if panicking {
					panic(http.ErrAbortHandler)
				}
				return false, errors.New("next")
			})
		}
	})
	for range 3 {
		g.ops.panic = nil
		for _, body := range []string{bodies[activatePath], "[]", ""} {
			if got := g.call(activatePath, frontKey, body); got.status == http.StatusTooManyRequests {
				t.Fatalf("answer is %+v", got)
			}
		}
		g.ops.panic = "panic"
		if got := g.call(activatePath, frontKey, bodies[activatePath]); got.status != http.StatusInternalServerError {
			t.Fatalf("answer is %+v", got)
		}
		g.ops.panic = http.ErrAbortHandler
		if got, aborted := g.tryDo(newRequest(activatePath, frontKey, bodies[activatePath])); !aborted {
			t.Fatalf("answer is %+v", got)
		}
		for _, panicking = range []bool{false, true} {
			g.observations = nil
			got, aborted := g.tryDo(newRequest("/elsewhere", frontKey, "{}"))
			if aborted != panicking || got.status == http.StatusTooManyRequests {
				t.Fatalf("answer is %+v, aborted %t", got, aborted)
			}
			if o := g.last(); len(g.observations) != 1 || o.Outcome != PassedOn {
				t.Fatalf("observed %+v", g.observations)
			}
		}
	}
}
