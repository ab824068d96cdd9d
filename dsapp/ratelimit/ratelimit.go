// Package ratelimit limits how often something may happen per source, and how
// often at the same time, with a bounded number of counters in memory.
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
	// probes is how many of the least recently used buckets are looked at for one
	// that can be dropped without forgetting anything.
	probes = 16
	// siteShare is the part of the buckets that the sources of one /48 may have:
	// one in so many.
	siteShare = 64
)

// Limiter keeps one token bucket per source. A bucket starts full, holds as many
// tokens as the limit has per minute, and is refilled evenly. The /48 that an IPv6
// address is in has a bucket, too, which holds 16 times as many and is refilled 16
// times as fast. An event takes a token from both.
//
// There are two ways to use it. Where every event counts, call Allow. Where only
// some outcome counts, such as a wrong key, call Blocked before the event and
// Record after that outcome.
//
// At most maxSources buckets of sources are kept, and of these at most 1/64, but
// one at least, of sources in the same /48. When one more is needed, the first full
// one among the 16 least recently used is dropped, which forgets nothing; if there
// is none, the least recently used one is. A source whose /48 has buckets while no
// more may be kept displaces one of these and none of others. As many buckets of
// /48s are kept, and no bucket of a /48 is dropped while one of its sources has a
// bucket. All methods may be called concurrently.
type Limiter struct {
	now func() time.Time // time.Now, but for tests

	mu         sync.Mutex
	perMinute  int
	maxSources int
	buckets    map[Source]*bucket // of sources
	recent     *list.List         // of these, most recently used first
	sites      map[Source]*bucket // of /48s
	idle       *list.List         // of these those without members, most recently used first
}

// bucket is that of a source or of a /48. Lists hold *bucket.
type bucket struct {
	source Source
	tokens *rate.Limiter
	place  *list.Element // in recent or idle; nil for a /48 with members

	site   *bucket       // of the /48 that the source is in; nil if there is none
	inSite *list.Element // in the members of site

	members *list.List // of a /48: the buckets of its sources, most recently used first
}

// maxLimit keeps the arithmetic of the buckets far from overflow.
const maxLimit = 1_000_000

// CheckLimit checks a limit, per minute or in flight, that the configuration gives in
// the option named name: 0, for none, to 1000000. The error is an *option.Error.
func CheckLimit(name string, limit int) error { return option.Number(name, limit, 0, maxLimit) }

// New returns a Limiter that admits perMinute events per minute and source, and as
// many at once. With perMinute 0 or less it admits everything. It keeps state for
// at most maxSources sources, and for one if maxSources is less.
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

// Allow takes a token from the bucket of s, and from that of its /48, and reports
// whether there was one in each. If not, it takes none and returns the time after
// which there will be.
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

// Blocked reports whether the bucket of s or that of its /48 is empty, and if so
// the time after which neither will be. It takes nothing.
func (l *Limiter) Blocked(s Source) (blocked bool, retryAfter time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, site := l.find(s)
	now := l.now()
	retryAfter = max(b.untilNext(now), site.untilNext(now))
	return retryAfter > 0, retryAfter
}

// Record takes a token from the bucket of s, and from that of its /48, even if
// there is none. Events that passed Blocked at the same time are thereby paid for
// afterwards. The debt ends at one burst: after its last event a source stays
// blocked for at most a minute and the time that one token takes.
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

// SetLimit changes the limit for all sources. Every bucket, or its debt, stays
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

// find returns the buckets of s and of its /48, nil if there are none, and marks
// them as just used. A source that keeps trying while it is blocked must not become
// the oldest one and be forgotten.
func (l *Limiter) find(s Source) (b, site *bucket) {
	if b = l.buckets[s]; b != nil {
		l.recent.MoveToFront(b.place)
		if b.site != nil {
			b.site.members.MoveToFront(b.inSite)
		}
		return b, b.site
	}
	if of, ok := s.site(); ok {
		if site = l.sites[of]; site != nil && site.place != nil {
			l.idle.MoveToFront(site.place)
		}
	}
	return nil, site
}

// add makes a full bucket for s, which has none, and one for its /48 if need be.
func (l *Limiter) add(s Source, now time.Time) *bucket {
	of, hasSite := s.site()
	l.makeRoom(l.sites[of], now)
	b := &bucket{source: s, tokens: newTokens(l.perMinute)}
	b.place = l.recent.PushFront(b)
	l.buckets[s] = b
	if !hasSite {
		return b
	}
	b.site = l.sites[of]
	switch {
	case b.site == nil:
		// Not all that are kept have members: there are fewer other sources.
		if len(l.sites) >= l.maxSources {
			oldest := victim(l.idle, now)
			l.idle.Remove(oldest.place)
			delete(l.sites, oldest.source)
		}
		b.site = &bucket{source: of, tokens: newTokens(siteFactor * l.perMinute), members: list.New()}
		l.sites[of] = b.site
	case b.site.place != nil:
		l.idle.Remove(b.site.place)
		b.site.place = nil
	}
	b.inSite = b.site.members.PushFront(b)
	return b
}

// makeRoom drops a bucket if there is no room for one of a further source. site is
// the bucket of its /48, nil if there is none.
func (l *Limiter) makeRoom(site *bucket, now time.Time) {
	full := len(l.buckets) >= l.maxSources
	from := l.recent
	if site != nil && site.members.Len() > 0 && (full || site.members.Len() >= max(l.maxSources/siteShare, 1)) {
		from = site.members
	} else if !full {
		return
	}
	b := victim(from, now)
	l.recent.Remove(b.place)
	delete(l.buckets, b.source)
	if b.site == nil {
		return
	}
	b.site.members.Remove(b.inSite)
	if b.site.members.Len() == 0 {
		b.site.place = l.idle.PushFront(b.site)
	}
}

// victim returns the bucket of a list, which is not empty, that goes first.
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

// untilNext returns the time until b holds a token, 0 if it holds one now or is no
// bucket. It is rounded to the nanosecond.
func (b *bucket) untilNext(now time.Time) time.Duration {
	if b == nil {
		return 0
	}
	missing := max(1-b.tokens.TokensAt(now), 0)
	return time.Duration(math.Round(missing / float64(b.tokens.Limit()) * float64(time.Second)))
}

// take takes a token even if there is none, but no more than a burst of them. If b
// is no bucket, it does nothing.
func (b *bucket) take(now time.Time) {
	if b != nil && b.tokens.TokensAt(now) >= float64(1-b.tokens.Burst()) {
		b.tokens.ReserveN(now, 1)
	}
}

// setLimit changes the limit and keeps the share that b is filled to.
func (b *bucket) setLimit(perMinute int, now time.Time) {
	share := 1 - b.tokens.TokensAt(now)/float64(b.tokens.Burst())
	b.tokens = newTokens(perMinute)
	used := int(math.Ceil(share * float64(perMinute)))
	// One reservation cannot exceed the burst, a bucket in debt lacks more.
	b.tokens.ReserveN(now, min(used, perMinute))
	b.tokens.ReserveN(now, max(used-perMinute, 0))
}
