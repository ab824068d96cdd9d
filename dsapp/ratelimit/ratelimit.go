// Package ratelimit limits the rate of events and the number of concurrent events per
// source, with a bounded number of counters in memory.
package ratelimit

import (
	"container/list"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

const (
	// probes is the number of least recently used buckets among which a full one is
	// searched for eviction.
	probes = 16
	// The sources of one /48 may have one in siteShare buckets.
	siteShare = 64
)

// Limiter has one token bucket per source. A bucket starts full, holds as many tokens as
// the limit per minute, and is refilled evenly. The /48 that contains an IPv6 address has
// a bucket, too, which holds 16 times as many tokens and is refilled 16 times as fast. An
// event takes a token from both.
//
// If every event counts, call Allow. If only failures count, such as wrong keys, call
// Blocked before the event and Record after a failure.
//
// At most maxSources buckets of sources are kept, and at most 1/64 of these, but at least
// one, for sources in the same /48. If another bucket is needed, the first full one among
// the 16 least recently used is evicted, which loses no information; if none is full, the
// least recently used one. If all buckets are in use, a source in a /48 that has buckets
// evicts one of these. At most maxSources buckets of /48s are kept, too. The bucket of a
// /48 is not evicted while one of its sources has a bucket. All methods may be called
// concurrently.
type Limiter struct {
	now func() time.Time // time.Now except in tests

	mu         sync.Mutex
	perMinute  int
	maxSources int
	buckets    map[Source]*bucket // of sources
	recent     *list.List         // buckets of sources, most recently used first
	sites      map[Source]*bucket // of /48s
	idle       *list.List         // buckets of /48s without members, most recently used first
}

// bucket is the token bucket of a source or of a /48. The values of all lists are of type
// *bucket.
type bucket struct {
	source  Source
	tokens  *rate.Limiter
	element *list.Element // of recent or idle; nil for a /48 with members

	// Only for a source in a /48.
	site          *bucket
	memberElement *list.Element // of site.members

	// Only for a /48: the buckets of its sources, most recently used first.
	members *list.List
}

// maxLimit keeps the arithmetic of the buckets far from overflow.
const maxLimit = 1_000_000

// CheckLimit checks a limit, per minute or of concurrent events, in the option with the
// given name of the configuration: 0, for no limit, to 1000000. The error is an
// *option.Error.
func CheckLimit(name string, limit int) error { return option.Number(name, limit, 0, maxLimit) }

// New returns a Limiter that admits perMinute events per minute and source, in bursts of
// at most as many. If perMinute is 0 or less, it admits everything. It keeps state for at
// most maxSources sources; a value below 1 counts as 1.
func New(perMinute, maxSources int) *Limiter {
	return &Limiter{
		now:        time.Now,
		perMinute:  max(perMinute, 0),
		maxSources: max(maxSources, 1),
		buckets:    make(map[Source]*bucket),
		recent:     list.New(),
		sites:      make(map[Source]*bucket),
		idle:       list.New(),
	}
}

// Allow takes a token from the bucket of s and one from that of its /48. If one of them
// is empty, it takes none, and returns false and the time until both have one.
func (l *Limiter) Allow(s Source) (ok bool, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.perMinute == 0 {
		return true, 0
	}
	now := l.now()
	b, site := l.find(s)
	if wait := max(b.untilNext(now), site.untilNext(now)); wait > 0 {
		return false, wait
	}
	if b == nil {
		b = l.add(s, now)
	}
	b.take(now)
	b.site.take(now)
	return true, 0
}

// Blocked reports whether the bucket of s or that of its /48 is empty, and if so the time
// until neither is. It takes no token.
func (l *Limiter) Blocked(s Source) (blocked bool, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, site := l.find(s)
	now := l.now()
	retryAfter = max(b.untilNext(now), site.untilNext(now))
	return retryAfter > 0, retryAfter
}

// Record takes a token from the bucket of s and one from that of its /48, also from an
// empty bucket, whose number of tokens becomes negative. So concurrent events that passed
// Blocked before any of them was recorded count, too. The number of tokens does not fall
// below that of an empty bucket by more than one burst: a source is blocked for at most
// a minute and the time of one token after its last event.
func (l *Limiter) Record(s Source) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.perMinute == 0 {
		return
	}
	now := l.now()
	b, _ := l.find(s)
	if b == nil {
		b = l.add(s, now)
	}
	b.take(now)
	b.site.take(now)
}

// SetLimit changes the limit for all sources. The tokens of every bucket, also negative
// numbers of them, are scaled with the limit, so that a blocked source stays blocked. If
// perMinute is 0 or less, everything is admitted and all buckets are dropped.
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
		clear(l.sites)
		l.idle.Init()
		return
	}
	now := l.now()
	for _, b := range l.buckets {
		b.setLimit(perMinute, now)
	}
	for _, site := range l.sites {
		site.setLimit(siteFactor*perMinute, now)
	}
}

// find returns the buckets of s and of its /48, nil if there are none, and marks them as
// used. A source that keeps trying while it is blocked must not be evicted as the least
// recently used one.
func (l *Limiter) find(s Source) (b, site *bucket) {
	if b = l.buckets[s]; b != nil {
		l.recent.MoveToFront(b.element)
		if b.site != nil {
			b.site.members.MoveToFront(b.memberElement)
		}
		return b, b.site
	}
	if siteSource, ok := s.site(); ok {
		if site = l.sites[siteSource]; site != nil && site.element != nil {
			l.idle.MoveToFront(site.element)
		}
	}
	return nil, site
}

// add creates a full bucket for s, which has none, and one for its /48 if that has none.
func (l *Limiter) add(s Source, now time.Time) *bucket {
	siteSource, hasSite := s.site()
	l.makeRoom(l.sites[siteSource], now)
	b := &bucket{source: s, tokens: newTokens(l.perMinute)}
	b.element = l.recent.PushFront(b)
	l.buckets[s] = b
	if !hasSite {
		return b
	}
	b.site = l.sites[siteSource]
	switch {
	case b.site == nil:
		// idle is not empty, since there are fewer buckets of sources than of /48s.
		if len(l.sites) >= l.maxSources {
			evicted := victim(l.idle, now)
			l.idle.Remove(evicted.element)
			delete(l.sites, evicted.source)
		}
		b.site = &bucket{source: siteSource, tokens: newTokens(siteFactor * l.perMinute), members: list.New()}
		l.sites[siteSource] = b.site
	case b.site.element != nil:
		l.idle.Remove(b.site.element)
		b.site.element = nil
	}
	b.memberElement = b.site.members.PushFront(b)
	return b
}

// makeRoom evicts a bucket if there is no room for the bucket of another source. site is
// the bucket of that source's /48, nil if there is none.
func (l *Limiter) makeRoom(site *bucket, now time.Time) {
	full := len(l.buckets) >= l.maxSources
	from := l.recent
	if site != nil && site.members.Len() > 0 && (full || site.members.Len() >= max(l.maxSources/siteShare, 1)) {
		from = site.members
	} else if !full {
		return
	}
	b := victim(from, now)
	l.recent.Remove(b.element)
	delete(l.buckets, b.source)
	if b.site == nil {
		return
	}
	b.site.members.Remove(b.memberElement)
	if b.site.members.Len() == 0 {
		b.site.element = l.idle.PushFront(b.site)
	}
}

// victim returns the bucket to evict from a list that is not empty.
func victim(from *list.List, now time.Time) *bucket {
	for e, i := from.Back(), 0; e != nil && i < probes; e, i = e.Prev(), i+1 {
		if b := e.Value.(*bucket); b.tokens.TokensAt(now) >= float64(b.tokens.Burst()) {
			return b
		}
	}
	return from.Back().Value.(*bucket)
}

func newTokens(perMinute int) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(float64(perMinute)/time.Minute.Seconds()), perMinute)
}

// untilNext returns the time until b holds a token, rounded to the nanosecond; 0 if it
// holds one now or is nil.
func (b *bucket) untilNext(now time.Time) time.Duration {
	if b == nil {
		return 0
	}
	missing := max(1-b.tokens.TokensAt(now), 0)
	return time.Duration(math.Round(missing / float64(b.tokens.Limit()) * float64(time.Second)))
}

// take takes a token unless the bucket lacks a whole burst already. It does nothing if b
// is nil.
func (b *bucket) take(now time.Time) {
	if b != nil && b.tokens.TokensAt(now) >= float64(1-b.tokens.Burst()) {
		b.tokens.ReserveN(now, 1)
	}
}

// setLimit changes the limit and scales the number of tokens.
func (b *bucket) setLimit(perMinute int, now time.Time) {
	missing := 1 - b.tokens.TokensAt(now)/float64(b.tokens.Burst())
	b.tokens = newTokens(perMinute)
	used := int(math.Ceil(missing * float64(perMinute)))
	// One reservation cannot exceed the burst, but up to two bursts may be missing.
	b.tokens.ReserveN(now, min(used, perMinute))
	b.tokens.ReserveN(now, max(used-perMinute, 0))
}
