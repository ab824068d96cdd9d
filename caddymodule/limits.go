package caddymodule

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
)

// Limits protect the gateway and the registrations it keeps. What they count, they
// count on each node by itself, and keep counting across reloads.
type Limits struct {
	// The largest request body that is read, in bytes: 1 to 16777216, which is
	// 16 MiB. Default: 65536.
	MaxBodySize int64 `json:"max_body_size,omitempty"`

	// How long the body of a request may take to arrive, whether it comes slowly or
	// not at all; then the answer is status 408. A shorter `read_timeout` of the
	// server applies instead. From `10ms` to `10m`. Default: `30s`.
	BodyTimeout caddy.Duration `json:"body_timeout,omitempty"`

	// How many calls of activation exchanges are computed at once: 1 to 100000, or
	// 0 for one on every CPU that Go uses. Sixteen times as many wait for them;
	// further ones are answered with status 429. Default: 0.
	MaxExchanges int `json:"max_exchanges,omitempty"`

	// How many requests with a wrong API key one client address may make per minute
	// before all its requests are answered with status 429 for a while. Those without
	// any key do not count: many clients send one first and wait to be asked for it.
	// An IPv6 address counts as its /64 here and below, and all addresses of a /48
	// together may have 16 times the limit of one. Behind a proxy, set the server's
	// `trusted_proxies`: all clients are one address otherwise.
	// 0: no limit. At most 1000000. Default: 30.
	FailedKeysPerMinute *int `json:"failed_keys_per_minute,omitempty"`

	// How many activation exchanges one client address may make per minute: the
	// first and the second calls are counted each by themselves.
	// 0: no limit, so that whoever knows identifiers can burn registrations as
	// fast as the gateway computes. At most 1000000. Default: 60.
	ExchangesPerMinute *int `json:"exchanges_per_minute,omitempty"`

	// How many registrations one application may make per minute. Other requests with
	// its back-end key count if they are refused before anything was looked up.
	// 0: no limit. At most 1000000. Default: 600.
	RegistrationsPerMinute *int `json:"registrations_per_minute,omitempty"`

	// How many calls of the other services that reach an authentication server one
	// client address may make per minute with keys of front ends: one-time
	// passwords, retrieving, completing and cancelling logins and signatures,
	// notification IDs, adding devices and final calls of activations, all
	// together. Requests that are refused before anything was looked up and those for
	// the time count, too. Whoever takes the key out of a mobile application can lock users by
	// wrong calls; this is what slows them down. It does not count per application,
	// because all phones share that key and one could stop the others; nor with
	// keys of back ends, where one server speaks for many users. Networks with many
	// phones behind one address need a higher limit. 0: no limit. At most 1000000.
	// Default: 600.
	CallsPerMinute *int `json:"calls_per_minute,omitempty"`

	// How many requests of one client address may be under way at the same time, whatever
	// they are for; further ones are answered with status 429. It bounds the memory
	// that bodies take that do not come. Requests with the key of a back end that is
	// accepted from there do not count; those that go on to the next handler do, until it
	// has answered. 0: no limit. At most 1000000. Default: 64.
	RequestsInFlight *int `json:"requests_in_flight,omitempty"`

	// How many of these may be with an authentication server. It keeps one client
	// from using up the servers' connections with calls that take long, such as
	// logins that wait for a person. Networks with many phones behind one address
	// need a higher limit. 0: no limit. At most 1000000. Default: 8.
	CallsInFlight *int `json:"calls_in_flight,omitempty"`

	// The prefixes by which a NAT64 or a stateless translator in front of the gateway
	// writes the IPv4 addresses of clients, such as `2001:db8:122::/48`, with the
	// layout of RFC 6052 and a length of 32, 40, 48, 56, 64 or 96. Such an address
	// counts as the IPv4 address in it; without its prefix here all clients that it
	// stands for share the limits of a few IPv6 addresses. Give only prefixes whose
	// addresses nobody but the translator can send from: whoever can counts as any
	// IPv4 address. They must not overlap. `64:ff9b::/96` is always known.
	// Default: none.
	NAT64Prefixes []string `json:"nat64_prefixes,omitempty"`
}

const (
	defaultFailedKeysPerMinute    = 30
	defaultExchangesPerMinute     = 60
	defaultRegistrationsPerMinute = 600
	defaultCallsPerMinute         = 600
	defaultRequestsInFlight       = 64
	defaultCallsInFlight          = 8

	// maxCountedSources bounds the memory of one kind of counter to a few MiB.
	maxCountedSources = 50_000
)

// counts are the limits of what is counted of one configuration: per minute, and at
// the same time.
type counts struct {
	failedKeys, exchanges, registrations, calls int
	requestsInFlight, callsInFlight             int
}

// counts returns the limits with their defaults.
func (l *Limits) counts() (*counts, error) {
	c := new(counts)
	for _, v := range []struct {
		name       string
		configured *int
		preset     int
		out        *int
	}{
		{"failed_keys_per_minute", l.FailedKeysPerMinute, defaultFailedKeysPerMinute, &c.failedKeys},
		{"exchanges_per_minute", l.ExchangesPerMinute, defaultExchangesPerMinute, &c.exchanges},
		{"registrations_per_minute", l.RegistrationsPerMinute, defaultRegistrationsPerMinute, &c.registrations},
		{"calls_per_minute", l.CallsPerMinute, defaultCallsPerMinute, &c.calls},
		{"requests_in_flight", l.RequestsInFlight, defaultRequestsInFlight, &c.requestsInFlight},
		{"calls_in_flight", l.CallsInFlight, defaultCallsInFlight, &c.callsInFlight},
	} {
		*v.out = valueOr(v.configured, v.preset)
		if err := ratelimit.CheckLimit(v.name, *v.out); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// valueOr is what is configured, which may be 0, or the default.
func valueOr(configured *int, preset int) int {
	if configured == nil {
		return preset
	}
	return *configured
}

// addresses returns what tells whom the limits count an address for.
func (l *Limits) addresses() (*ratelimit.AddressMapper, error) {
	prefixes := make([]netip.Prefix, len(l.NAT64Prefixes))
	for i, text := range l.NAT64Prefixes {
		var err error
		if prefixes[i], err = netip.ParsePrefix(text); err != nil {
			return nil, option.Errorf(fmt.Sprintf("nat64_prefixes[%d]", i), "must be a CIDR range such as 2001:db8:122::/48")
		}
	}
	return ratelimit.NewAddressMapper(prefixes...)
}

// counters are the limiters of the whole process: what they counted is not lost
// with a reload. The limits per minute are those of the configuration that started
// last and was not stopped since.
type counters struct {
	failedKeys, exchanges, proofs, registrations, calls *ratelimit.Limiter
	requestsInFlight, callsInFlight                     ratelimit.InFlight

	mu      sync.Mutex // so that what is in force is the latest
	started succession[*counts]
}

func newCounters(r *counts) *counters {
	return &counters{
		failedKeys:    ratelimit.New(r.failedKeys, maxCountedSources),
		exchanges:     ratelimit.New(r.exchanges, maxCountedSources),
		proofs:        ratelimit.New(r.exchanges, maxCountedSources),
		registrations: ratelimit.New(r.registrations, maxCountedSources),
		calls:         ratelimit.New(r.calls, maxCountedSources),
	}
}

// start puts the limits of a configuration into force.
func (c *counters) start(r *counts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started.add(r)
	c.apply(r)
}

// stop ends them. A configuration that could not be started completely thereby
// leaves the limits of the one before.
func (c *counters) stop(r *counts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.started.remove(r)
	if latest := c.started.last(); latest != nil {
		c.apply(latest)
	}
}

func (c *counters) apply(r *counts) {
	c.failedKeys.SetLimit(r.failedKeys)
	c.exchanges.SetLimit(r.exchanges)
	c.proofs.SetLimit(r.exchanges)
	c.registrations.SetLimit(r.registrations)
	c.calls.SetLimit(r.calls)
}

// inFlight is a counter with the limit of one configuration.
type inFlight struct {
	counter *ratelimit.InFlight
	limit   int
}

// Enter implements restapi.InFlightLimiter.
func (f inFlight) Enter(s ratelimit.Source) (leave func(), ok bool) {
	return f.counter.Enter(s, f.limit)
}

// Destruct has nothing to close.
func (c *counters) Destruct() error { return nil }

// counterPool holds the one set of counters while there is a configuration.
var counterPool = caddy.NewUsagePool()

const countersKey = "counters"

// acquireCounters takes a reference that counterPool.Delete(countersKey) returns.
func acquireCounters(r *counts) (*counters, error) {
	value, _, err := counterPool.LoadOrNew(countersKey, func() (caddy.Destructor, error) {
		return newCounters(r), nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*counters), nil
}

var (
	_ caddy.Destructor        = (*counters)(nil)
	_ restapi.InFlightLimiter = inFlight{}
)
