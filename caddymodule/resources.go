package caddymodule

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

// drainCeiling bounds how long the requests of a replaced configuration keep a
// resource open that no other configuration uses. It is longer than a call of an
// authentication server with the default timeouts can take; a request that makes
// several in a row may outlive it and opens the resource again.
const drainCeiling = time.Minute

// errResourceClosed is what a use of a resource gets that lost the race against
// its closing.
var errResourceClosed = errors.New("closed with the configuration that used it")

// losable is a value that can become useless. It is closed then, and opened anew when
// it is needed again.
type losable interface{ Damaged() bool }

// resource is a pooled value that is opened on first use and closed once. It
// belongs to every configuration that holds a lease with its key.
type resource[T io.Closer] struct {
	open    func() (T, error)
	opening singleflight.Group

	mu     sync.Mutex
	value  T
	opened bool
	closed bool
}

// get returns the value. Unless it is open already it is opened: callers that
// come meanwhile wait for the same attempt, each no longer than its ctx. The
// attempt itself belongs to none of them. The next caller after a failed
// attempt makes another.
func (r *resource[T]) get(ctx context.Context) (T, error) {
	if value, done, err := r.current(); done {
		return value, err
	}
	attempt := r.opening.DoChan("", func() (any, error) { return r.attempt() })
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

func (r *resource[T]) current() (value T, done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return value, true, errResourceClosed
	}
	if l, ok := any(r.value).(losable); ok && r.opened && l.Damaged() {
		return value, false, nil
	}
	return r.value, r.opened, nil
}

func (r *resource[T]) attempt() (T, error) {
	// An attempt that ended a moment ago may have opened it.
	if value, done, err := r.current(); done {
		return value, err
	}
	var none T
	// What was lost may keep a lock.
	if err := r.drop(); err != nil {
		return none, err
	}
	value, err := r.open()
	if err != nil {
		return none, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return none, errors.Join(errResourceClosed, value.Close())
	}
	r.value, r.opened = value, true
	return value, nil
}

// drop closes the value if it was opened.
func (r *resource[T]) drop() error {
	r.mu.Lock()
	value, opened := r.value, r.opened
	r.opened = false
	r.mu.Unlock()
	if !opened {
		return nil
	}
	return value.Close()
}

// Destruct closes the value if it was opened. The pool calls it once no lease
// holds the resource any more.
func (r *resource[T]) Destruct() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	return r.drop()
}

// lease is the share of one configuration in a resource. It holds the resource
// from its making until release, and beyond that until the last request of the
// configuration has ended, because Caddy cleans a replaced configuration up
// while its requests are still being served. What a newer configuration leases
// under the same key meanwhile is therefore the same resource, still open.
//
// A request that comes after that, or runs longer than the ceiling, takes the
// resource out of the pool again and opens it if need be.
type lease[T io.Closer] struct {
	pool    *caddy.UsagePool
	key     string
	open    func() (T, error)
	ceiling time.Duration

	mu       sync.Mutex
	held     *resource[T] // nil while the pool's reference is given back
	requests int
	released bool
	expiry   *time.Timer
}

// newLease takes a reference to the resource named key from pool. open is called
// on first use, if no other configuration opened the resource before; it must
// depend on nothing but what key stands for and must end by itself.
func newLease[T io.Closer](pool *caddy.UsagePool, key string, open func() (T, error)) (*lease[T], error) {
	l := &lease[T]{pool: pool, key: key, open: open, ceiling: drainCeiling}
	if err := l.take(); err != nil {
		return nil, err
	}
	return l, nil
}

// begin counts a request that may use the resource. Every begin has one end.
func (l *lease[T]) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
}

// end tells that a request counted by begin is over.
func (l *lease[T]) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests--
	if l.released && l.requests == 0 {
		l.giveBack()
	}
}

// get returns the resource's value, opening it if need be.
func (l *lease[T]) get(ctx context.Context) (T, error) {
	l.mu.Lock()
	if l.held == nil {
		if err := l.take(); err != nil {
			l.mu.Unlock()
			var none T
			return none, err
		}
		l.expiry = time.AfterFunc(l.ceiling, l.expire)
	}
	held := l.held
	l.mu.Unlock()
	return held.get(ctx)
}

// release ends the configuration's own use: at once if none of its requests is
// running, else with the last of them, at the latest after the ceiling. It never
// waits. Releasing a nil lease or one that was released does nothing.
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
		l.giveBack()
		return
	}
	l.expiry = time.AfterFunc(l.ceiling, l.expire)
}

func (l *lease[T]) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.giveBack()
}

// take gets a reference from the pool. The caller holds l.mu or has l to itself.
func (l *lease[T]) take() error {
	value, _, err := l.pool.LoadOrNew(l.key, func() (caddy.Destructor, error) {
		return &resource[T]{open: l.open}, nil
	})
	if err != nil {
		return err
	}
	l.held = value.(*resource[T])
	return nil
}

// giveBack returns the reference to the pool. Closing what nobody else uses can
// take its time and is nothing a reload or a request waits for. The caller holds
// l.mu.
func (l *lease[T]) giveBack() {
	if l.held == nil {
		return
	}
	l.held = nil
	if l.expiry != nil {
		l.expiry.Stop()
		l.expiry = nil
	}
	go func() {
		if _, err := l.pool.Delete(l.key); err != nil {
			caddy.Log().Named(appName).Error("closing what a configuration used", zap.Error(err))
		}
	}()
}

var _ caddy.Destructor = (*resource[io.Closer])(nil)
