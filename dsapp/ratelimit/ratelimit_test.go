package ratelimit

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/internal/clock"
)

// withClock returns a Limiter and the clock that it goes by.
func withClock(perMinute, maxSources int) (*Limiter, *clock.Clock) {
	c := clock.New()
	l := New(perMinute, maxSources)
	l.now = c.Now
	return l, c
}

// admitted returns how many of n events Allow admits now.
func admitted(l *Limiter, s Source, n int) int {
	count := 0
	for range n {
		if ok, _ := l.Allow(s); ok {
			count++
		}
	}
	return count
}

func mustBlock(t *testing.T, l *Limiter, s Source, want bool) {
	t.Helper()
	if blocked, retry := l.Blocked(s); blocked != want || (retry > 0) != want {
		t.Errorf("Blocked(%s) = %t, %v, want %t", s, blocked, retry, want)
	}
}

// Allow admits a burst of as many events as per minute, then an even rate.
func TestAllowAdmitsABurstThenTheRate(t *testing.T) {
	t.Parallel()
	l, c := withClock(60, 10)
	if n := admitted(l, ApplicationSource("a"), 100); n != 60 {
		t.Errorf("admitted %d at once, want 60", n)
	}
	if ok, retry := l.Allow(ApplicationSource("a")); ok || retry != time.Second {
		t.Errorf("Allow = %t, %v, want refused for 1s", ok, retry)
	}
	c.Advance(999 * time.Millisecond)
	if ok, retry := l.Allow(ApplicationSource("a")); ok || retry != time.Millisecond {
		t.Errorf("Allow = %t, %v, want refused for 1ms", ok, retry)
	}
	c.Advance(time.Millisecond)
	if n := admitted(l, ApplicationSource("a"), 5); n != 1 {
		t.Errorf("admitted %d after one second, want 1", n)
	}
	c.Advance(time.Hour)
	if n := admitted(l, ApplicationSource("a"), 100); n != 60 {
		t.Errorf("admitted %d after an hour, want 60", n)
	}
}

func TestSourcesAreIndependent(t *testing.T) {
	t.Parallel()
	l, _ := withClock(2, 10)
	admitted(l, ApplicationSource("a"), 5)
	if n := admitted(l, ApplicationSource("b"), 5); n != 2 {
		t.Errorf("admitted %d of another key, want 2", n)
	}
}

// Refused events do not delay the next admission.
func TestRefusedEventsTakeNoToken(t *testing.T) {
	t.Parallel()
	l, c := withClock(60, 10)
	admitted(l, ApplicationSource("a"), 1000)
	c.Advance(time.Second)
	if ok, _ := l.Allow(ApplicationSource("a")); !ok {
		t.Error("refused after the announced second")
	}
}

func TestOffAdmitsEverythingAndKeepsNothing(t *testing.T) {
	t.Parallel()
	for _, perMinute := range []int{0, -1} {
		l, _ := withClock(perMinute, 10)
		if n := admitted(l, ApplicationSource("a"), 1000); n != 1000 {
			t.Errorf("limit %d admitted %d of 1000", perMinute, n)
		}
		for range 1000 {
			l.Record(ApplicationSource("a"))
		}
		mustBlock(t, l, ApplicationSource("a"), false)
		if n := len(l.buckets); n != 0 {
			t.Errorf("limit %d keeps %d buckets", perMinute, n)
		}
	}
}

// Blocked takes no token, Record takes one.
func TestBlockedTakesNothingRecordDoes(t *testing.T) {
	t.Parallel()
	l, c := withClock(3, 10)
	for range 100 {
		mustBlock(t, l, ApplicationSource("a"), false)
	}
	if n := len(l.buckets); n != 0 {
		t.Errorf("looking made %d buckets", n)
	}
	for range 3 {
		mustBlock(t, l, ApplicationSource("a"), false)
		l.Record(ApplicationSource("a"))
	}
	mustBlock(t, l, ApplicationSource("a"), true)
	mustBlock(t, l, ApplicationSource("b"), false)
	if _, retry := l.Blocked(ApplicationSource("a")); retry != 20*time.Second {
		t.Errorf("retry after %v, want 20s", retry)
	}
	c.Advance(20 * time.Second)
	mustBlock(t, l, ApplicationSource("a"), false)
	l.Record(ApplicationSource("a"))
	mustBlock(t, l, ApplicationSource("a"), true)
}

// Record takes tokens from an empty bucket, but never more than one burst.
func TestRecordGoesIntoBoundedDebt(t *testing.T) {
	t.Parallel()
	l, c := withClock(60, 10)
	for range 60 + 10 {
		l.Record(ApplicationSource("a"))
	}
	if _, retry := l.Blocked(ApplicationSource("a")); retry != 11*time.Second {
		t.Errorf("retry after %v, want 11s", retry)
	}
	for range 10_000 {
		l.Record(ApplicationSource("a"))
	}
	_, retry := l.Blocked(ApplicationSource("a"))
	if retry != 61*time.Second {
		t.Errorf("retry after %v, want 61s", retry)
	}
	c.Advance(retry)
	mustBlock(t, l, ApplicationSource("a"), false)
}

// SetLimit scales the tokens of all buckets, so that no source is unblocked.
func TestSetLimitKeepsTheShare(t *testing.T) {
	t.Parallel()
	l, c := withClock(60, 10)
	admitted(l, ApplicationSource("empty"), 60)
	admitted(l, ApplicationSource("half"), 30)
	admitted(l, ApplicationSource("untouched"), 1)
	c.Advance(time.Second)
	for range 90 {
		l.Record(ApplicationSource("debt"))
	}

	l.SetLimit(600)
	if n := admitted(l, ApplicationSource("half"), 1000); n != 310 {
		t.Errorf("half: admitted %d, want 310", n)
	}
	if n := admitted(l, ApplicationSource("untouched"), 1000); n != 600 {
		t.Errorf("untouched: admitted %d, want 600", n)
	}
	if n := admitted(l, ApplicationSource("empty"), 1000); n != 10 {
		t.Errorf("empty: admitted %d, want 10", n)
	}
	if n := admitted(l, ApplicationSource("new"), 1000); n != 600 {
		t.Errorf("new: admitted %d, want 600", n)
	}
	if _, retry := l.Blocked(ApplicationSource("debt")); retry != 30*time.Second+100*time.Millisecond {
		t.Errorf("debt: retry after %v, want 30.1s", retry)
	}

	l.SetLimit(6)
	if _, retry := l.Blocked(ApplicationSource("debt")); retry != 40*time.Second {
		t.Errorf("debt: retry after %v, want 40s", retry)
	}
	c.Advance(10 * time.Second)
	if n := admitted(l, ApplicationSource("empty"), 10); n != 1 {
		t.Errorf("empty: admitted %d at the new rate, want 1", n)
	}
}

func TestSetLimitToTheSameChangesNothing(t *testing.T) {
	t.Parallel()
	l, _ := withClock(7, 10)
	admitted(l, ApplicationSource("a"), 3)
	l.SetLimit(7)
	if n := admitted(l, ApplicationSource("a"), 10); n != 4 {
		t.Errorf("admitted %d, want 4", n)
	}
}

func TestSetLimitOffAndOnStartsAnew(t *testing.T) {
	t.Parallel()
	l, _ := withClock(2, 10)
	admitted(l, ApplicationSource("a"), 2)
	l.SetLimit(0)
	if n := admitted(l, ApplicationSource("a"), 100); n != 100 {
		t.Errorf("admitted %d of 100 while off", n)
	}
	mustBlock(t, l, ApplicationSource("a"), false)
	l.SetLimit(2)
	if n := admitted(l, ApplicationSource("a"), 100); n != 2 {
		t.Errorf("admitted %d, want 2", n)
	}
}

// A full bucket is evicted before the least recently used one.
func TestEvictsAFullBucketBeforeTheOldest(t *testing.T) {
	t.Parallel()
	l, c := withClock(60, 3)
	admitted(l, ApplicationSource("drained"), 60)
	admitted(l, ApplicationSource("idle"), 1)
	c.Advance(time.Second)
	admitted(l, ApplicationSource("busy"), 60)
	admitted(l, ApplicationSource("new"), 1)
	if _, ok := l.buckets[ApplicationSource("idle")]; ok {
		t.Error("the full bucket is still there")
	}
	if n := admitted(l, ApplicationSource("drained"), 60); n != 1 {
		t.Errorf("drained: admitted %d, want the 1 of one second", n)
	}
	// Now all three lack tokens; "busy" was used longest ago.
	admitted(l, ApplicationSource("newer"), 1)
	if _, ok := l.buckets[ApplicationSource("busy")]; ok {
		t.Error("the oldest bucket is still there")
	}
	if n := len(l.buckets); n != 3 || l.recent.Len() != 3 {
		t.Errorf("%d buckets, %d in the list, want 3", n, l.recent.Len())
	}
}

// A blocked source that keeps trying is not evicted.
func TestBlockedSourceThatKeepsTryingIsNotEvicted(t *testing.T) {
	t.Parallel()
	l, _ := withClock(2, 4)
	for range 3 {
		l.Record(ApplicationSource("a"))
	}
	for i := range 100 {
		mustBlock(t, l, ApplicationSource("a"), true)
		for range 2 {
			l.Record(ApplicationSource(strconv.Itoa(i)))
		}
	}
	mustBlock(t, l, ApplicationSource("a"), true)
}

// Many sources with one event each do not evict an empty bucket.
func TestFloodDoesNotEvictAnEmptyBucket(t *testing.T) {
	t.Parallel()
	l, c := withClock(60, 100)
	for range 120 {
		l.Record(ApplicationSource("attacker"))
	}
	for i := range 1500 {
		c.Advance(20 * time.Millisecond)
		l.Record(ApplicationSource(strconv.Itoa(i)))
	}
	mustBlock(t, l, ApplicationSource("attacker"), true)
}

func TestMaxSourcesBelowOneKeepsOne(t *testing.T) {
	t.Parallel()
	l, _ := withClock(2, 0)
	admitted(l, ApplicationSource("a"), 2)
	admitted(l, ApplicationSource("b"), 2)
	if n := len(l.buckets); n != 1 {
		t.Errorf("%d buckets, want 1", n)
	}
}

// For any sequence of waits and events, at most burst + rate × time events are admitted in
// any window that starts with an event. An event is admitted after the time that was
// returned, but not 10 ns earlier.
func TestNeverAdmitsMoreThanBurstPlusRate(t *testing.T) {
	t.Parallel()
	const margin = 10 * time.Nanosecond
	rapid.Check(t, func(t *rapid.T) {
		perMinute := rapid.IntRange(1, 1000).Draw(t, "perMinute")
		l, c := withClock(perMinute, 4)
		twoPhase := rapid.Bool().Draw(t, "two-phase")
		try := func() (bool, time.Duration) {
			if !twoPhase {
				return l.Allow(ApplicationSource("a"))
			}
			blocked, retry := l.Blocked(ApplicationSource("a"))
			if !blocked {
				l.Record(ApplicationSource("a"))
			}
			return !blocked, retry
		}
		var times []time.Time
		for range rapid.IntRange(1, 30).Draw(t, "rounds") {
			c.Advance(time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "wait")))
			for range rapid.IntRange(1, 2*perMinute).Draw(t, "events") {
				ok, retry := try()
				if ok {
					times = append(times, c.Now())
					continue
				}
				if rapid.IntRange(0, 9).Draw(t, "obey") != 0 {
					break
				}
				if retry > margin {
					c.Advance(retry - margin)
					if early, _ := try(); early {
						t.Fatalf("admitted too early, before the announced %v", retry)
					}
					c.Advance(2 * time.Millisecond)
				} else {
					c.Advance(retry)
				}
				if ok, again := try(); !ok {
					t.Fatalf("refused after the announced %v, again for %v", retry, again)
				}
				times = append(times, c.Now())
				break
			}
		}
		// Events i to j are j-i+1 within times[j]-times[i]: above the limit for
		// some i exactly if above it for the i with the least lead.
		lead := func(i int) float64 { return float64(i) - float64(perMinute)*times[i].Sub(times[0]).Minutes() }
		least := 0.0
		for j := range times {
			least = min(least, lead(j))
			if n := lead(j) + 1 - least; n > float64(perMinute)+1e-6 {
				t.Fatalf("event %d: %.3f above the rate, burst %d", j, n, perMinute)
			}
		}
	})
}

// The limit holds for concurrent calls of all methods.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	l, _ := withClock(50, 8)
	var count atomic.Int64
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				if ok, _ := l.Allow(ApplicationSource("shared")); ok {
					count.Add(1)
				}
				key := ApplicationSource(strconv.Itoa(g*i%5 + 1))
				l.Record(key)
				l.Blocked(key)
				l.SetLimit(50)
			}
		})
	}
	wg.Wait()
	if n := count.Load(); n != 50 {
		t.Errorf("admitted %d, want 50", n)
	}
}

// The limit can be changed concurrently with all other methods.
func TestConcurrentSetLimit(t *testing.T) {
	t.Parallel()
	l, _ := withClock(50, 8)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				l.Allow(ApplicationSource(strconv.Itoa(i % 20)))
				l.Record(ApplicationSource(strconv.Itoa(i % 20)))
				l.Blocked(ApplicationSource(strconv.Itoa(i % 20)))
				l.SetLimit((g + i) % 4 * 20)
			}
		})
	}
	wg.Wait()
	l.SetLimit(1)
	if n := admitted(l, ApplicationSource("later"), 5); n != 1 {
		t.Errorf("admitted %d, want 1", n)
	}
}

func BenchmarkAllow(b *testing.B) {
	const maxSources = 1 << 16
	for family, source := range map[string]func(i int) Source{
		"IPv4": v4,
		"IPv6": func(i int) Source { return v6(i, 0) },
	} {
		sources := make([]Source, 2*maxSources)
		for i := range sources {
			sources[i] = source(i)
		}
		for _, bm := range []struct {
			name    string
			sources int
		}{{"one source", 1}, {"all kept", maxSources}, {"evicting", 2 * maxSources}} {
			b.Run(family+", "+bm.name, func(b *testing.B) {
				l := New(60, maxSources)
				for _, s := range sources[:bm.sources] {
					l.Allow(s)
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					l.Allow(sources[i%bm.sources])
					i++
				}
			})
		}
		b.Run(family+", parallel", func(b *testing.B) {
			l := New(60, maxSources)
			var next atomic.Int64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				i := int(next.Add(1)) * 7919
				for pb.Next() {
					l.Allow(sources[i%maxSources])
					i++
				}
			})
		})
	}
}

func BenchmarkSetLimit(b *testing.B) {
	const maxSources = 1 << 16
	l := New(60, maxSources)
	for i := range maxSources {
		l.Allow(ApplicationSource(strconv.Itoa(i)))
	}
	limit := 60
	for b.Loop() {
		limit = 120 - limit + 1
		l.SetLimit(limit)
	}
}
