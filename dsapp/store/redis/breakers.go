package redis

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

const (
	// breakerFailures is how many calls in a row have to fail before the breaker of their
	// server opens. It is more than one phone's calls lose with one connection, and small
	// enough that only the first phones of an outage wait for timeouts.
	breakerFailures = 5
	// breakerCooldown is the time between two calls to a server whose breaker is open. It
	// is also the most that the breaker adds to the length of an outage or failover.
	breakerCooldown = time.Second
	// maxBreakers limits the number of breakers. A cluster is recommended to have no more
	// than 1000 nodes.
	maxBreakers = 1000
	// slotLookup takes the place of an address for calls that ask any node of a cluster
	// for its slots.
	slotLookup = ""
)

var breakerSettings = breaker.Settings{Failures: breakerFailures, Cooldown: breakerCooldown}

// breakers has one circuit breaker per server. Without it, every call to a server that is
// down would wait for the timeouts, hold a connection and fail.
type breakers struct {
	report func(ctx context.Context, server string, err error)

	// servers has the servers by their address. It is copied to be changed, because every call
	// reads it and few add a server.
	servers atomic.Pointer[map[string]*server]
	// adding is held to change servers, added counts the servers that were ever added.
	adding sync.Mutex
	added  atomic.Int64
}

// server is a server that was called.
type server struct {
	breaker breaker.Breaker
	// called is breakers.added at the last call.
	called atomic.Int64
}

func newBreakers(report func(ctx context.Context, server string, err error)) *breakers {
	bs := &breakers{report: report}
	bs.servers.Store(&map[string]*server{})
	return bs
}

// breaker returns the breaker of the server at an address.
func (bs *breakers) breaker(address string) *breaker.Breaker {
	s := (*bs.servers.Load())[address]
	if s == nil {
		s = bs.add(address)
	}
	if added := bs.added.Load(); s.called.Load() != added {
		s.called.Store(added)
	}
	return &s.breaker
}

// add adds the server at an address, unless another call has. If there are too many, it removes the
// one that was not called for the longest: nodes leave a cluster.
func (bs *breakers) add(address string) *server {
	bs.adding.Lock()
	defer bs.adding.Unlock()
	servers := maps.Clone(*bs.servers.Load())
	if s := servers[address]; s != nil {
		return s
	}
	if len(servers) >= maxBreakers {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(servers)), func(a, b string) int {
			return cmp.Compare(servers[a].called.Load(), servers[b].called.Load())
		})
		delete(servers, oldest)
	}
	s := new(server)
	servers[address] = s
	bs.servers.Store(&servers)
	s.called.Store(bs.added.Add(1))
	return s
}

// call calls f, which talks to the server at an address and returns why it got no answer.
// An error that the server sent is an answer. If the breaker is open, call returns a
// *breaker.OpenError without calling f.
func (bs *breakers) call(ctx context.Context, address string, f func() error) error {
	b := bs.breaker(address)
	c, err := b.Begin(breakerSettings)
	if err != nil {
		return err
	}
	err = f()
	switch b.End(c, outcome(ctx, err), breakerSettings) {
	case breaker.Opened:
		bs.report(ctx, address, unavailable(err))
	case breaker.Closed:
		bs.report(ctx, address, nil)
	}
	return err
}

// outcome returns what the error of a call says about its server.
func outcome(ctx context.Context, err error) breaker.Outcome {
	switch deadline, limited := ctx.Deadline(); {
	case answered(err):
		return breaker.Worked
	case ctx.Err() != nil, limited && !time.Now().Before(deadline):
		// The caller stopped waiting. The connection has the context's deadline and may
		// notice that it has passed before the context does.
		return breaker.Inconclusive
	case errors.Is(err, goredis.ErrClosed), errors.Is(err, errUnsupportedClient):
		return breaker.Inconclusive
	case errors.Is(err, goredis.ErrPoolTimeout), errors.Is(err, goredis.ErrPoolExhausted):
		// All connections are in use. The calls on them tell about the server.
		return breaker.Inconclusive
	}
	return breaker.Failed
}

// answered reports whether the server answered a call that returned err. Nil errors and
// errors that the server sent are answers. goredis.Nil is not: only Sentinels send it, when
// they do not know the server.
func answered(err error) bool {
	if err == nil {
		return true
	}
	_, sent := errors.AsType[goredis.Error](err)
	return sent && !errors.Is(err, goredis.Nil)
}
