package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/expiring"
)

const (
	// breakerFailures is more than what one phone's calls lose along with a
	// connection, and few enough that the first phones of an outage are the only
	// ones that wait.
	breakerFailures = 5
	// breakerCooldown is how long a server that is back may be left alone, and so
	// the most that the guard adds to an outage or to a failover. One call in this
	// time is what an outage costs.
	breakerCooldown = time.Second
	// guardLifetime is how long a server is remembered that nothing is sent to any
	// more: nodes leave a cluster.
	guardLifetime = 10 * time.Minute
	// maxGuarded bounds the servers that are remembered. It is as many as a cluster
	// is recommended to have.
	maxGuarded = 1000
	// clusterTable stands for the nodes that are asked where the slots are. It is
	// no address.
	clusterTable = ""
)

// breakerSettings are those of every server.
var breakerSettings = breaker.Settings{Failures: breakerFailures, Cooldown: breakerCooldown}

// guard keeps calls away from servers that do not answer: each call would wait for
// the timeouts, hold a connection and end in the same way.
type guard struct {
	report func(ctx context.Context, server string, err error)
	now    func() time.Time

	mu       sync.Mutex
	breakers *expiring.Map[*breaker.Breaker]
}

func newGuard(report func(ctx context.Context, server string, err error), now func() time.Time) *guard {
	return &guard{report: report, now: now, breakers: expiring.New[*breaker.Breaker]()}
}

// breaker returns the breaker of the server at an address.
func (g *guard) breaker(address string) *breaker.Breaker {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.breakers.Expire(now, g.breakers.Len())
	b, _, known := g.breakers.Get(address)
	if !known {
		if g.breakers.Len() >= maxGuarded {
			g.breakers.DeleteFirst()
		}
		b = new(breaker.Breaker)
	}
	g.breakers.Put(address, b, now.Add(guardLifetime))
	return b
}

// pass lets f talk to the server at an address, or returns a *breaker.OpenError
// without doing so. The error of f tells why the server gave no answer; one that
// the server sent is an answer.
func (g *guard) pass(ctx context.Context, address string, f func() error) error {
	b := g.breaker(address)
	call, err := b.Begin(breakerSettings)
	if err != nil {
		return err
	}
	err = f()
	switch b.End(call, outcome(ctx, err), breakerSettings) {
	case breaker.Opened:
		g.report(ctx, address, unavailable(err))
	case breaker.Closed:
		g.report(ctx, address, nil)
	}
	return err
}

// outcome tells what a call's error says about its server.
func outcome(ctx context.Context, err error) breaker.Outcome {
	switch deadline, limited := ctx.Deadline(); {
	case answered(err):
		return breaker.Worked
	case ctx.Err() != nil, limited && !time.Now().Before(deadline):
		// The caller did not wait: the connection's deadline, which is that of the
		// context, may come a little before the context knows of it.
		return breaker.Inconclusive
	case errors.Is(err, goredis.ErrClosed), errors.Is(err, errClient):
		return breaker.Inconclusive
	case errors.Is(err, goredis.ErrPoolTimeout), errors.Is(err, goredis.ErrPoolExhausted):
		// Too much is asked at once. What is on the connections tells about the server.
		return breaker.Inconclusive
	}
	return breaker.Failed
}

// answered reports whether err, or that there is none, comes from the server. That
// there is nothing of a name only Sentinels answer, about the server.
func answered(err error) bool {
	if err == nil {
		return true
	}
	_, sent := errors.AsType[goredis.Error](err)
	return sent && !errors.Is(err, goredis.Nil)
}
