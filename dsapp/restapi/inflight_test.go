package restapi

import (
	"errors"
	"net/http"
	"net/netip"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

// noPlace admits nothing.
type noPlace struct{}

// Enter refuses.
func (noPlace) Enter(ratelimit.Source) (func(), bool) { return func() {}, false }

// places is a limiter of what is in flight for the tests of one source.
type places struct {
	counter ratelimit.InFlight
	limit   int
}

// Enter is that of the counter.
func (p *places) Enter(s ratelimit.Source) (func(), bool) { return p.counter.Enter(s, p.limit) }

// What is under way counts per address until it is answered: all requests but those
// of back ends at their place, and again those that are with a server. One too many
// is told to come again at once.
func TestInFlight(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, key, path string
		relayed         bool
		limits          func(full, free *places) Limits
		limit           Limit // empty if the request counts nowhere
	}{
		{"front end", frontKey, activatePath, false, func(full, free *places) Limits { return Limits{RequestsInFlight: full, CallsInFlight: free} }, LimitRequestsInFlight},
		{"no key", "", activatePath, false, func(full, free *places) Limits { return Limits{RequestsInFlight: full, CallsInFlight: free} }, LimitRequestsInFlight},
		{"elsewhere", frontKey, "/elsewhere", false, func(full, free *places) Limits { return Limits{RequestsInFlight: full, CallsInFlight: free} }, LimitRequestsInFlight},
		{"back end", backKey, activatePath, false, func(full, _ *places) Limits { return Limits{RequestsInFlight: full, CallsInFlight: full} }, ""},
		{"back end from elsewhere", farKey, activatePath, false, func(full, free *places) Limits { return Limits{RequestsInFlight: full, CallsInFlight: free} }, LimitRequestsInFlight},
		{"call", frontKey, activatePath, false, func(full, free *places) Limits { return Limits{RequestsInFlight: free, CallsInFlight: full} }, LimitCallsInFlight},
		{"time", frontKey, "/rest/v2/provisioning/getServerTime", false, func(full, free *places) Limits { return Limits{RequestsInFlight: free, CallsInFlight: full} }, ""},
		{"exchange", frontKey, "/rest/activation/DSAPPSRPGenerateEphemeralKey", false, func(full, free *places) Limits { return Limits{RequestsInFlight: free, CallsInFlight: full} }, ""},
		{"relayed exchange", frontKey, "/rest/activation/DSAPPSRPGenerateEphemeralKey", true, func(full, free *places) Limits { return Limits{RequestsInFlight: free, CallsInFlight: full} }, LimitCallsInFlight},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			full, free := &places{limit: 1}, &places{limit: 1}
			g := newRig(t, func(config *Config) { config.Limits, config.RelayedExchange = c.limits(full, free), c.relayed }, nil)
			before := g.call(c.path, c.key, bodies[c.path]).status
			leave, ok := full.Enter(new(ratelimit.AddressMapper).Source(netip.MustParseAddr("127.0.0.1")))
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
			leave()
			if got := g.call(c.path, c.key, bodies[c.path]); got.status != before {
				t.Errorf("answer is %+v, want %d as before", got, before)
			}
		})
	}
}

// A call that is one too many in flight takes nothing of what may be called in a
// minute: whoever obeys and comes again would use that up.
func TestTooManyInFlightDoNotCount(t *testing.T) {
	t.Parallel()
	called := &fakeLimiter{}
	g := newRig(t, func(c *Config) { c.Limits = Limits{CallsInFlight: noPlace{}, Calls: called} }, nil)
	if got := g.call(activatePath, frontKey, bodies[activatePath]); got.status != http.StatusTooManyRequests || len(called.counted) != 0 {
		t.Errorf("answer is %+v, counted %q", got, called.counted)
	}
}

// Whatever a request comes to, it is no longer in flight afterwards.
func TestNothingStaysInFlight(t *testing.T) {
	t.Parallel()
	requests, calls := &places{limit: 1}, &places{limit: 1}
	panicking := false
	g := newRig(t, func(c *Config) {
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
		if resp, err := g.server.Client().Do(g.request(activatePath, frontKey, bodies[activatePath])); err == nil {
			_ = resp.Body.Close()
			t.Fatalf("answer is %+v", resp)
		}
		for _, panicking = range []bool{false, true} {
			g.seen = nil
			resp, err := g.server.Client().Do(g.request("/elsewhere", frontKey, "{}"))
			if err == nil {
				_ = resp.Body.Close()
			}
			if panicking != (err != nil) || err == nil && resp.StatusCode == http.StatusTooManyRequests {
				t.Fatalf("answer is %+v, error %v", resp, err)
			}
			if o := g.last(); len(g.seen) != 1 || o.Outcome != PassedOn {
				t.Fatalf("observed %+v", g.seen)
			}
		}
	}
}
