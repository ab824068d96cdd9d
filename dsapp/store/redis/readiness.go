package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

const (
	// idleInterval is the time without a call after which Watch makes one.
	idleInterval = time.Second
	// failureLifetime is how long a failure counts if the server is not called again. The
	// nodes of a cluster change, and the server of a failure may be gone.
	failureLifetime = 5 * time.Second
)

// errNotAsked is the error of Ready before the first answer.
var errNotAsked = errors.New("no server has answered yet")

// readiness knows from the calls that were made whether the servers work.
type readiness struct {
	now func() time.Time

	mu sync.Mutex
	// failures has the servers whose last call failed, by their address.
	failures map[string]*failure
	// since is when the last failure ended. It is zero before the first answer.
	since time.Time
	// created is when readiness began to observe, lastCall is the end of the last call.
	created, lastCall time.Time
}

// failure is a server whose last call failed.
type failure struct {
	err         error
	since, last time.Time
	// refused says that the server answered that it cannot do what a script asked for. An
	// answer to a command that only reads does not show that it can again.
	refused bool
}

func newReadiness(now func() time.Time) *readiness {
	return &readiness{now: now, failures: make(map[string]*failure), created: now()}
}

// record records how a call ended that was sent to the server at an address.
func (r *readiness) record(ctx context.Context, address string, c *call, err error) {
	refused := err != nil && answered(err)
	switch {
	case refused && !meansNotReady(err):
		err = nil
	case err != nil && !refused && !breaker.IsOpen(err) && !errors.Is(err, errTooFewReplicas) && outcome(ctx, err) != breaker.Failed:
		return // it says nothing about the server
	}
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lastCall = now
	f := r.failures[address]
	switch {
	case err != nil && f == nil:
		r.failures[address] = &failure{unavailable(err), now, now, refused && c.lua != nil}
	case err != nil:
		f.last, f.refused = now, refused && c.lua != nil
		if !breaker.IsOpen(err) {
			f.err = unavailable(err)
		}
	case f == nil:
		if r.since.IsZero() {
			r.since = now
		}
	case !f.refused || c.lua != nil:
		delete(r.failures, address)
		r.since = now
	}
}

// meansNotReady reports whether an error that a server sent says that the server does not
// do what the store needs. Other such errors are about one call, or tell the client to
// send it elsewhere.
func meansNotReady(err error) bool {
	server, _ := errors.AsType[goredis.Error](err)
	for _, code := range []string{
		"LOADING ", "NOAUTH ", "WRONGPASS ", "NOPERM ", "OOM ", "MISCONF ", "READONLY ", "NOREPLICAS ",
		"CLUSTERDOWN ", "MASTERDOWN ", "BUSY ", "ERR max number of clients", "ERR The user executing the script",
	} {
		// Redis 6 puts a text before the error of a command in a script.
		if strings.Contains(server.Error(), code) {
			return true
		}
	}
	return false
}

// state returns the result of Store.Ready.
func (r *readiness) state() (since time.Time, err error) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	for address, f := range r.failures {
		switch {
		case now.Sub(f.last) > failureLifetime:
			delete(r.failures, address)
			r.since = now
		case err == nil || f.since.Before(since):
			since, err = f.since, f.err
		}
	}
	switch {
	case err != nil:
		return since, err
	case r.since.IsZero():
		return r.created, errNotAsked
	}
	return r.since, nil
}

// idle returns how long it is until no call has ended for idleInterval.
func (r *readiness) idle() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastCall.Add(idleInterval).Sub(r.now())
}

// Ready returns an error if the last call of a server failed. since is when the present
// state began. It calls no server itself, see Watch. A server that is not called for some
// seconds after a failure does not count any more.
func (s *Store) Ready() (since time.Time, err error) { return s.readiness.state() }

// Watch reads one key from a server whenever nothing was called for a second, so that Ready
// knows the state of an idle store, until ctx ends. In a cluster it asks the masters in
// random order.
func (s *Store) Watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait := s.readiness.idle()
		if wait <= 0 {
			wait = s.readOnce(ctx)
		}
		timer.Reset(wait)
	}
}

// readOnce reads a key that does not exist. It returns the time until the next read. GET
// would answer nil, which is otherwise the answer of a Sentinel.
func (s *Store) readOnce(ctx context.Context) time.Duration {
	key := s.prefix + ":{" + rand.Text() + "}:ready"
	_, err := s.send(ctx, call{args: []any{"HEXISTS", key, "r"}})
	if open, ok := errors.AsType[*breaker.OpenError](err); ok {
		return open.RetryAfter
	}
	return idleInterval
}
