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

// Limits protect the gateway and the registrations it keeps. Each node counts by
// itself. Counts survive reloads.
type Limits struct {
	// The largest request body that the gateway reads, in bytes: 1 to 16777216
	// (16 MiB). Larger bodies are answered with status 413. Default: 65536.
	MaxBodySize int64 `json:"max_body_size,omitempty"`

	// The time within which the whole body of a request must arrive. After that the
	// answer is status 408. If the server's `read_timeout` is shorter, it applies
	// instead. From `10ms` to `10m`. Default: `30s`.
	BodyTimeout caddy.Duration `json:"body_timeout,omitempty"`

	// How many calls of activation exchanges the gateway computes at the same time: 1
	// to 100000, or 0 for one on every CPU that Go uses. Sixteen times as many calls
	// can wait for their turn. Further calls are answered with status 429. Default: 0.
	MaxExchanges int `json:"max_exchanges,omitempty"`

	// How many requests with a wrong API key one client address may make per minute.
	// Beyond that, all requests of the address are answered with status 429 until
	// the limit admits another one. Requests without any key do not count, because many clients
	// send a first request without credentials and wait to be asked for them.
	//
	// For this and the other limits per client address, an IPv6 address counts as its
	// /64 network, and all addresses of a /48 network together have 16 times the limit
	// of one. Behind a proxy, set the server's `trusted_proxies`; without it all
	// clients count as one address.
	//
	// 0 means no limit. At most 1000000. Default: 30.
	FailedKeysPerMinute *int `json:"failed_keys_per_minute,omitempty"`

	// How many activation exchanges one client address may make per minute. First and
	// second calls of exchanges are counted separately. 0 means no limit; then whoever
	// knows identifiers can burn registrations as fast as the gateway computes. At
	// most 1000000. Default: 60.
	ExchangesPerMinute *int `json:"exchanges_per_minute,omitempty"`

	// How many registrations one application may make per minute. Other requests with
	// a back-end key of the application count as well if they are refused before
	// anything is looked up. 0 means no limit. At most 1000000. Default: 600.
	RegistrationsPerMinute *int `json:"registrations_per_minute,omitempty"`

	// How many other requests one client address may make per minute with front-end
	// keys, all services together: one-time passwords; retrieving, completing and
	// cancelling logins and signatures; notification IDs; adding devices and final
	// calls of activations; and the server time. Requests that are refused before
	// anything is looked up count, too.
	//
	// This limit slows down whoever takes the key out of a mobile application and
	// makes wrong calls in order to lock users. It does not count per application,
	// because all phones share the application's key and one phone could stop all
	// others. It does not count requests with back-end keys, because one server there
	// speaks for many users. Raise it for networks that have many phones behind one
	// address. 0 means no limit. At most 1000000. Default: 600.
	CallsPerMinute *int `json:"calls_per_minute,omitempty"`

	// How many requests of one client address may be in progress at the same time, for
	// whatever service. Further requests are answered with status 429. This bounds the
	// memory for bodies that arrive slowly. Requests with a back-end key that is
	// accepted from the client's address do not count. Requests that the gateway
	// passes on to the next handler count until that handler has answered. 0 means no
	// limit. At most 1000000. Default: 64.
	RequestsInFlight *int `json:"requests_in_flight,omitempty"`

	// How many requests of one client address, of those that count for
	// `requests_in_flight`, may wait for an authentication server at the same time.
	// This keeps one client from using up the servers' connections with slow calls,
	// such as logins that wait for a person. Raise it for networks that have many
	// phones behind one address. 0 means no limit. At most 1000000. Default: 8.
	CallsInFlight *int `json:"calls_in_flight,omitempty"`

	// The IPv6 prefixes under which a NAT64 or stateless translator in front of the
	// gateway presents IPv4 clients, such as `2001:db8:122::/48`. Prefixes have the
	// layout of RFC 6052, a length of 32, 40, 48, 56, 64 or 96, and do not overlap.
	//
	// An address with such a prefix counts as the IPv4 address that it contains. If
	// the prefix of a translator is missing here, all clients behind it share the limits of a few IPv6
	// addresses. Give only prefixes that nobody but the translator can send from:
	// whoever can send from them can count as any IPv4 address. `64:ff9b::/96` is
	// always included. Default: none.
	NAT64Prefixes []string `json:"nat64_prefixes,omitempty"`
}

const (
	defaultFailedKeysPerMinute    = 30
	defaultExchangesPerMinute     = 60
	defaultRegistrationsPerMinute = 600
	defaultCallsPerMinute         = 600
	defaultRequestsInFlight       = 64
	defaultCallsInFlight          = 8

	// maxCountedSources bounds the memory of each limiter to a few MiB.
	maxCountedSources = 50_000
)

// limitValues are the limits of one configuration with defaults applied. 0 means no
// limit.
type limitValues struct {
	// Per minute.
	failedKeys, exchanges, registrations, calls int
	// At the same time.
	requestsInFlight, callsInFlight int
}

// values returns the limits with defaults applied.
func (l *Limits) values() (*limitValues, error) {
	c := new(limitValues)
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

// valueOr returns the configured value, which may be 0, or preset if there is none.
func valueOr(configured *int, preset int) int {
	if configured == nil {
		return preset
	}
	return *configured
}

// addresses returns the rules by which client addresses are grouped for counting.
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

// limiters belong to the process, so that a reload does not forget what they counted.
// The limits per minute are those of the latest started configuration. The limits of
// requests in flight are passed with each request, see inFlight.
type limiters struct {
	failedKeys, exchanges, proofs, registrations, calls *ratelimit.Limiter
	requestsInFlight, callsInFlight                     ratelimit.InFlight

	mu      sync.Mutex // makes a change of started and its application one step
	started startedList[*limitValues]
}

func newLimiters(v *limitValues) *limiters {
	return &limiters{
		failedKeys:    ratelimit.New(v.failedKeys, maxCountedSources),
		exchanges:     ratelimit.New(v.exchanges, maxCountedSources),
		proofs:        ratelimit.New(v.exchanges, maxCountedSources),
		registrations: ratelimit.New(v.registrations, maxCountedSources),
		calls:         ratelimit.New(v.calls, maxCountedSources),
	}
}

// configStarted applies the limits of a configuration that has started.
func (l *limiters) configStarted(v *limitValues) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started.add(v)
	l.apply(v)
}

// configStopped applies the limits of the latest configuration that still runs, if
// there is one. After a failed start that is the previous configuration.
func (l *limiters) configStopped(v *limitValues) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started.remove(v)
	if latest := l.started.latest(); latest != nil {
		l.apply(latest)
	}
}

func (l *limiters) apply(v *limitValues) {
	l.failedKeys.SetLimit(v.failedKeys)
	l.exchanges.SetLimit(v.exchanges)
	l.proofs.SetLimit(v.exchanges)
	l.registrations.SetLimit(v.registrations)
	l.calls.SetLimit(v.calls)
}

// Destruct implements caddy.Destructor. Limiters have nothing to close.
func (*limiters) Destruct() error { return nil }

// inFlight combines a counter of the process with the limit of one configuration.
type inFlight struct {
	counter *ratelimit.InFlight
	limit   int
}

// Enter implements restapi.InFlightLimiter.
func (f inFlight) Enter(s ratelimit.Source) (p ratelimit.Place, ok bool) {
	return f.counter.Enter(s, f.limit)
}

// limiterPool holds the limiters under limitersKey while there is a configuration.
var limiterPool = caddy.NewUsagePool()

const limitersKey = "limiters"

// acquireLimiters takes a reference. limiterPool.Delete(limitersKey) gives it back.
func acquireLimiters(v *limitValues) (*limiters, error) {
	value, _, err := limiterPool.LoadOrNew(limitersKey, func() (caddy.Destructor, error) {
		return newLimiters(v), nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*limiters), nil
}

var (
	_ caddy.Destructor        = (*limiters)(nil)
	_ restapi.InFlightLimiter = inFlight{}
)
