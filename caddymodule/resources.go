package caddymodule

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

// drainTimeout is how long requests of a replaced configuration can keep a resource
// open that no other configuration uses. It is longer than one call of an
// authentication server with the default timeouts. A request that makes several calls
// can take longer; it opens the resource again.
const drainTimeout = time.Minute

// errResourceClosed is returned if a resource is closed before its value is used.
var errResourceClosed = errors.New("closed with the configuration that used it")

// errNotOpen is returned for a resource that was not used yet.
var errNotOpen = errors.New("not open yet")

// pooled is a value of a resource.
type pooled interface {
	io.Closer

	// Ready returns since when the value is ready to be used, or since when it is not
	// and why. It answers at once.
	Ready() (since time.Time, err error)
}

// damageReporter is a value that can become unusable. It is then closed, and opened again
// when it is needed.
type damageReporter interface{ Damaged() bool }

// resource is a pooled value that is opened on first use and closed once. All
// configurations that have a lease with the same key share it.
type resource[T pooled] struct {
	open    func() (T, error)
	opening singleflight.Group

	mu     sync.Mutex
	value  T
	opened bool
	closed bool
	// notOpenSince is when the value was closed or found damaged, and openErr is why the
	// last attempt to open it failed.
	notOpenSince time.Time
	openErr      error
}

// get returns the value and opens it if necessary. Concurrent callers wait for the same
// attempt to open it, each until its own ctx ends; the attempt does not depend on
// their contexts. The next call after a failed attempt makes another attempt.
func (r *resource[T]) get(ctx context.Context) (T, error) {
	if value, done, err := r.current(); done {
		return value, err
	}
	attempt := r.opening.DoChan("", func() (any, error) { return r.openOnce() })
	var none T
	select {
	case result := <-attempt:
		if result.Err != nil {
			return none, result.Err
		}
		return result.Val.(T), nil
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// current returns the value if it is open, and an error if the resource is closed. done
// is false if the value has to be opened.
func (r *resource[T]) current() (value T, done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return value, true, errResourceClosed
	}
	if l, ok := any(r.value).(damageReporter); ok && r.opened && l.Damaged() {
		return value, false, nil
	}
	return r.value, r.opened, nil
}

func (r *resource[T]) openOnce() (T, error) {
	// Another attempt may have opened it in the meantime.
	if value, done, err := r.current(); done {
		return value, err
	}
	var none T
	// A lost value may still hold a lock.
	if err := r.closeValue(); err != nil {
		return none, err
	}
	value, err := r.open()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.openErr = err
	if err != nil {
		return none, err
	}
	if r.closed {
		return none, errors.Join(errResourceClosed, value.Close())
	}
	r.value, r.opened = value, true
	return value, nil
}

// ready returns since when the value is open and ready, or since when it is not and why. It
// does not open it.
func (r *resource[T]) ready() (since time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opened {
		return r.value.Ready()
	}
	return r.notOpenSince, cmp.Or(r.openErr, errNotOpen)
}

// closeValue closes the value if it is open.
func (r *resource[T]) closeValue() error {
	r.mu.Lock()
	value, opened := r.value, r.opened
	if opened {
		r.opened, r.notOpenSince, r.openErr = false, time.Now(), nil
	}
	r.mu.Unlock()
	if !opened {
		return nil
	}
	return value.Close()
}

// Destruct implements caddy.Destructor. The pool calls it when no lease refers to the
// resource any more.
func (r *resource[T]) Destruct() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	return r.closeValue()
}

// lease is one configuration's reference to a resource in a pool.
//
// Caddy cleans up a replaced configuration while requests of it are still being served.
// A lease therefore keeps its reference after release until the last of these requests
// has ended, at most for drainTimeout. A newer configuration with the same key gets the
// same resource meanwhile, without opening it again.
//
// A request that comes after that, or takes longer, acquires a new reference and opens
// the resource again if necessary.
type lease[T pooled] struct {
	pool *caddy.UsagePool
	key  string
	open func() (T, error)

	mu         sync.Mutex
	resource   *resource[T] // nil if the lease has no reference
	requests   int
	released   bool
	drainTimer *time.Timer
}

// newLease acquires a reference to the resource with a key. If no other configuration
// has opened the resource, the first use calls open. open must depend only on what the
// key identifies, and must return within a bounded time.
func newLease[T pooled](pool *caddy.UsagePool, key string, open func() (T, error)) (*lease[T], error) {
	l := &lease[T]{pool: pool, key: key, open: open}
	if err := l.acquire(); err != nil {
		return nil, err
	}
	return l, nil
}

// beginRequest counts a request that may use the resource. Each call must be followed
// by one call of endRequest.
func (l *lease[T]) beginRequest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
}

// endRequest ends a request that beginRequest counted.
func (l *lease[T]) endRequest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests--
	if l.released && l.requests == 0 {
		l.returnToPool()
	}
}

// get returns the value of the resource and opens it if necessary.
func (l *lease[T]) get(ctx context.Context) (T, error) {
	l.mu.Lock()
	if l.resource == nil {
		if err := l.acquire(); err != nil {
			l.mu.Unlock()
			var none T
			return none, err
		}
		l.startDrainTimer()
	}
	r := l.resource
	l.mu.Unlock()
	return r.get(ctx)
}

// opened returns the value of the resource, and false if it is not open. It does not open it.
func (l *lease[T]) opened() (value T, open bool) {
	l.mu.Lock()
	r := l.resource
	l.mu.Unlock()
	if r == nil {
		return value, false
	}
	value, open, err := r.current()
	return value, open && err == nil
}

// Ready returns since when the value is open and ready, or since when it is not and why. It
// does not open it.
func (l *lease[T]) Ready() (since time.Time, err error) {
	l.mu.Lock()
	r := l.resource
	l.mu.Unlock()
	if r == nil {
		return time.Time{}, errResourceClosed
	}
	return r.ready()
}

// release ends the configuration's own use of the resource. The lease gives its
// reference back with the end of its last request, or after drainTimeout. release does
// not wait for that. It does nothing if l is nil or has been released.
func (l *lease[T]) release() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return
	}
	l.released = true
	if l.requests == 0 {
		l.returnToPool()
		return
	}
	l.startDrainTimer()
}

// acquire gets a reference from the pool. The caller holds l.mu, or nobody else knows l.
func (l *lease[T]) acquire() error {
	value, _, err := l.pool.LoadOrNew(l.key, func() (caddy.Destructor, error) {
		return &resource[T]{open: l.open, notOpenSince: time.Now()}, nil
	})
	if err != nil {
		return err
	}
	l.resource = value.(*resource[T])
	return nil
}

// startDrainTimer gives the reference back after drainTimeout. The caller holds l.mu.
func (l *lease[T]) startDrainTimer() {
	l.drainTimer = time.AfterFunc(drainTimeout, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.returnToPool()
	})
}

// returnToPool gives the reference back to the pool. It does so in the background,
// because that may close the resource, which neither a reload nor a request should wait
// for. The caller holds l.mu.
func (l *lease[T]) returnToPool() {
	if l.resource == nil {
		return
	}
	l.resource = nil
	if l.drainTimer != nil {
		l.drainTimer.Stop()
		l.drainTimer = nil
	}
	go func() {
		if _, err := l.pool.Delete(l.key); err != nil {
			caddy.Log().Named(appName).Error("closing a store of a replaced configuration failed", zap.Error(err))
		}
	}()
}

var _ caddy.Destructor = (*resource[pooled])(nil)
