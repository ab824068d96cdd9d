// Package ratelimit limits how often something may happen per key, with a
// bounded number of token buckets in memory.
package ratelimit

import (
	"container/list"
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// probes is how many of the least recently used buckets are looked at for one
// that can be dropped without forgetting anything.
const probes = 16

// Limiter keeps one token bucket per key. A bucket starts full, holds as many
// tokens as the limit has per minute, and is refilled evenly.
//
// There are two ways to use it. Where every event counts, call Allow. Where only
// some outcome counts, such as a wrong key, call Blocked before the event and
// Record after that outcome.
//
// At most maxKeys buckets are kept. When one more is needed, the first full one
// among the 16 least recently used is dropped, which forgets nothing; if there is
// none, the least recently used one is. All methods may be called concurrently.
type Limiter struct {
	now func() time.Time // time.Now, but for tests

	mu        sync.Mutex
	perMinute int
	maxKeys   int
	buckets   map[string]*list.Element
	recent    *list.List // of *bucket, most recently used first
}

type bucket struct {
	key    string
	tokens *rate.Limiter
}

// New returns a Limiter that admits perMinute events per minute and key, and as
// many at once. With perMinute 0 or less it admits everything. It keeps state for
// at most maxKeys keys, and for one if maxKeys is less.
func New(perMinute, maxKeys int) *Limiter {
	return &Limiter{
		now:       time.Now,
		perMinute: max(perMinute, 0),
		maxKeys:   max(maxKeys, 1),
		buckets:   make(map[string]*list.Element),
		recent:    list.New(),
	}
}

// Allow takes a token from the bucket of key and reports whether there was one.
// If not, it returns the time after which there will be one.
func (l *Limiter) Allow(key string) (ok bool, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.perMinute == 0 {
		return true, 0
	}
	now := l.now()
	b := l.obtain(key, now)
	if b.AllowN(now, 1) {
		return true, 0
	}
	return false, untilNext(b, now)
}

// Blocked reports whether the bucket of key is empty, and if so the time after
// which it will not be. It takes nothing.
func (l *Limiter) Blocked(key string) (blocked bool, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.buckets[key]
	if !ok {
		return false, 0
	}
	// A source that keeps trying while it is blocked must not become the
	// oldest one and be forgotten.
	l.recent.MoveToFront(e)
	retryAfter = untilNext(e.Value.(*bucket).tokens, l.now())
	return retryAfter > 0, retryAfter
}

// Record takes a token from the bucket of key even if there is none. Events that
// passed Blocked at the same time are thereby paid for afterwards. The debt ends
// at one burst: after its last event a source stays blocked for at most a minute
// and the time that one token takes.
func (l *Limiter) Record(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.perMinute == 0 {
		return
	}
	now := l.now()
	if b := l.obtain(key, now); b.TokensAt(now) >= float64(1-b.Burst()) {
		b.ReserveN(now, 1)
	}
}

// SetLimit changes the limit for all keys. Every bucket, or its debt, stays
// filled to the same share, so a source that is blocked stays blocked. With
// perMinute 0 or less everything is admitted and forgotten.
func (l *Limiter) SetLimit(perMinute int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	perMinute = max(perMinute, 0)
	if perMinute == l.perMinute {
		return
	}
	l.perMinute = perMinute
	if perMinute == 0 {
		clear(l.buckets)
		l.recent.Init()
		return
	}
	now := l.now()
	for e := l.recent.Front(); e != nil; e = e.Next() {
		b := e.Value.(*bucket)
		share := 1 - b.tokens.TokensAt(now)/float64(b.tokens.Burst())
		b.tokens = l.fresh()
		used := int(math.Ceil(share * float64(perMinute)))
		// One reservation cannot exceed the burst, a bucket in debt lacks more.
		b.tokens.ReserveN(now, min(used, perMinute))
		b.tokens.ReserveN(now, max(used-perMinute, 0))
	}
}

// obtain returns the bucket of key, marks it as just used, and makes a full one
// if there is none.
func (l *Limiter) obtain(key string, now time.Time) *rate.Limiter {
	if e, ok := l.buckets[key]; ok {
		l.recent.MoveToFront(e)
		return e.Value.(*bucket).tokens
	}
	if len(l.buckets) >= l.maxKeys {
		l.evict(now)
	}
	b := &bucket{key: key, tokens: l.fresh()}
	l.buckets[key] = l.recent.PushFront(b)
	return b.tokens
}

func (l *Limiter) fresh() *rate.Limiter {
	return rate.NewLimiter(rate.Limit(float64(l.perMinute)/time.Minute.Seconds()), l.perMinute)
}

func (l *Limiter) evict(now time.Time) {
	victim := l.recent.Back()
	for e, i := victim, 0; e != nil && i < probes; e, i = e.Prev(), i+1 {
		if b := e.Value.(*bucket).tokens; b.TokensAt(now) >= float64(b.Burst()) {
			victim = e
			break
		}
	}
	l.recent.Remove(victim)
	delete(l.buckets, victim.Value.(*bucket).key)
}

// untilNext returns the time until b holds a token, 0 if it holds one now. It
// is rounded to the nanosecond; b itself forgives up to one.
func untilNext(b *rate.Limiter, now time.Time) time.Duration {
	missing := max(1-b.TokensAt(now), 0)
	return time.Duration(math.Round(missing / float64(b.Limit()) * float64(time.Second)))
}

// AddressKey returns the key of a client address. An IPv6 address stands for its
// /64, since one subscriber commonly has a whole one; an IPv4-mapped address for
// the IPv4 address. All invalid addresses share one key.
func AddressKey(addr netip.Addr) string {
	addr = addr.Unmap()
	if !addr.Is6() {
		return addr.String()
	}
	return netip.PrefixFrom(addr.WithZone(""), 64).Masked().String()
}
