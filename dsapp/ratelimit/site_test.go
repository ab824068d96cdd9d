package ratelimit

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// All /64s of a /48 together have 16 times the limit of one. A refused event creates no
// bucket. Other /48s are not affected. IPv4 addresses have no common limit.
func TestSiteHasSixteenTimesTheLimit(t *testing.T) {
	t.Parallel()
	l, c := withClock(60, 10_000)
	total := 0
	for subnet := range 100 {
		total += admitted(l, v6(1, subnet), 20)
	}
	if total != 16*60 || len(l.buckets) != 16*60/20 {
		t.Errorf("admitted %d of one /48, %d buckets", total, len(l.buckets))
	}
	if ok, retry := l.Allow(v6(1, 200)); ok || retry != time.Second/16 {
		t.Errorf("Allow = %t, %v, want refused for 62.5ms", ok, retry)
	}
	mustBlock(t, l, v6(1, 200), true)
	if n := admitted(l, v6(2, 200), 100); n != 60 {
		t.Errorf("admitted %d of another /48, want 60", n)
	}
	for i := range 100 {
		if n := admitted(l, v4(i), 20); n != 20 {
			t.Fatalf("admitted %d of an IPv4 address, want 20", n)
		}
	}
	c.Advance(time.Second)
	if n := admitted(l, v6(1, 201), 100); n != 16 {
		t.Errorf("admitted %d after a second, want 16", n)
	}
}

// An event that one of the two buckets refuses takes no token from the other one. Allow
// returns the longer of the two times.
func TestRefusedEventTakesNoTokenOfEither(t *testing.T) {
	t.Parallel()
	l, c := withClock(60, 10_000)
	own := v6(1, 0)
	admitted(l, own, 30)
	for range 1000 {
		l.Record(v6(1, 1))
	}
	// The /48 owes 30 + 1000 − 960 and refuses; 30 are left of its own.
	mustBlock(t, l, own, true)
	if n := admitted(l, own, 1000); n != 0 {
		t.Errorf("admitted %d", n)
	}
	if _, retry := l.Allow(own); retry != 71*time.Second/16 {
		t.Errorf("retry after %v, want that of the /48", retry)
	}
	c.Advance(4*time.Second + time.Second/2)
	if n := admitted(l, own, 2); n != 2 {
		t.Errorf("admitted %d, want 2", n)
	}

	l, _ = withClock(60, 10_000)
	if n := admitted(l, own, 10_000); n != 60 {
		t.Errorf("admitted %d, want 60", n)
	}
	if _, retry := l.Allow(own); retry != time.Second {
		t.Errorf("retry after %v, want that of its own", retry)
	}
	total := 0
	for subnet := range 100 {
		total += admitted(l, v6(1, 1+subnet), 60)
	}
	if total != 15*60 {
		t.Errorf("admitted %d of the rest, want 900", total)
	}
}

// The bucket of a /48 lacks at most one burst, and is scaled with the limit, as that of a
// source.
func TestDebtOfASite(t *testing.T) {
	t.Parallel()
	l, c := withClock(60, 10_000)
	for range 10 {
		for subnet := range 400 {
			l.Record(v6(1, subnet))
		}
	}
	const debt = time.Minute + time.Second/16
	if _, retry := l.Blocked(v6(1, 1000)); retry != debt {
		t.Errorf("retry after %v, want %v", retry, debt)
	}
	l.SetLimit(600)
	if _, retry := l.Blocked(v6(1, 1000)); retry != time.Minute+time.Second/160 {
		t.Errorf("retry after %v at the new rate", retry)
	}
	c.Advance(debt)
	mustBlock(t, l, v6(1, 1000), false)
	l.SetLimit(0)
	mustBlock(t, l, v6(1, 1000), false)
	if len(l.sites)+l.idle.Len() != 0 {
		t.Error("a limiter that is off keeps buckets")
	}
}

// A /48 with more sources than there is room for evicts buckets of its own sources. It
// evicts at most one empty bucket of another source.
func TestFloodFromASiteEvictsItsOwn(t *testing.T) {
	t.Parallel()
	const maxSources, share = 640, 10
	for family, source := range map[string]func(int) Source{
		"IPv4": v4,
		"IPv6": func(i int) Source { return v6(2+i, 0) },
	} {
		for taken, want := range map[int]int{0: share, 300: share, maxSources - share: share, maxSources - 3: 3, maxSources - 1: 1, maxSources: 1} {
			t.Run(fmt.Sprintf("%d maxSources taken by %s", taken, family), func(t *testing.T) {
				t.Parallel()
				l, _ := withClock(6, maxSources)
				for i := range taken {
					admitted(l, source(i), 6)
				}
				for subnet := range 4 * maxSources {
					l.Record(v6(1, subnet))
				}
				lost := max(taken+want-maxSources, 0)
				for i := lost; i < taken; i++ {
					mustBlock(t, l, source(i), true)
				}
				mustBlock(t, l, v6(1, 4*maxSources-1), true)
				mustBlock(t, l, v6(1, 0), true)
				if n := len(l.buckets); n != taken-lost+want {
					t.Errorf("%d buckets, want %d", n, taken-lost+want)
				}
			})
		}
	}
}

// Within a /48, a full bucket is evicted before the least recently used one.
func TestEvictsAFullBucketOfTheSiteFirst(t *testing.T) {
	t.Parallel()
	l, c := withClock(60, 2*siteShare)
	for range 120 {
		l.Record(v6(1, 0))
	}
	for subnet := range 50 {
		admitted(l, v6(1, 1+subnet), 1)
		c.Advance(time.Second)
	}
	if n := len(l.buckets); n != 2 {
		t.Errorf("%d buckets, want 2", n)
	}
	mustBlock(t, l, v6(1, 0), true)
}

// A blocked source that keeps trying is not evicted by others of its /48.
func TestBlockedSourceOfASiteThatKeepsTryingIsNotEvicted(t *testing.T) {
	t.Parallel()
	l, _ := withClock(2, 4*siteShare)
	for range 3 {
		l.Record(v6(1, 0))
	}
	for subnet := range 100 {
		mustBlock(t, l, v6(1, 0), true)
		if l.buckets[v6(1, 0)] == nil {
			t.Fatalf("forgotten after %d others", subnet)
		}
		for range 2 {
			l.Record(v6(1, 1+subnet))
		}
	}
}

// The bucket of a /48 stays when those of its sources were evicted, as long as there is
// room. Then a full one is evicted first, else the least recently used one.
func TestSiteOutlivesItsSources(t *testing.T) {
	t.Parallel()
	l, c := withClock(6, 4)
	record := func(site int) {
		for range 2 * 16 * 6 {
			l.Record(v6(site, 0))
		}
	}
	kept := func(sites ...int) {
		t.Helper()
		for _, site := range sites {
			if siteSource, _ := v6(site, 0).site(); l.sites[siteSource] == nil {
				t.Errorf("%s is forgotten", siteSource)
			}
		}
		if len(l.sites) != len(sites) {
			t.Errorf("%d buckets of /48s, want %d", len(l.sites), len(sites))
		}
		mustBlock(t, l, v6(1, 1), true)
	}
	record(1)
	record(2)
	admitted(l, v6(3, 0), 1)
	for i := range 4 {
		admitted(l, v4(i), 6)
	}
	if len(l.buckets) != 4 || l.idle.Len() != 3 {
		t.Errorf("%d buckets, %d /48s without members", len(l.buckets), l.idle.Len())
	}
	kept(1, 2, 3)
	c.Advance(10 * time.Second)
	record(4)
	kept(1, 2, 3, 4)
	record(5)
	kept(1, 2, 4, 5)
	record(6)
	kept(1, 4, 5, 6)
}

// The number of buckets stays bounded, however many addresses there are and however
// they are distributed, also for events that are recorded without a limit.
func TestManyAddresses(t *testing.T) {
	t.Parallel()
	const maxSources = 10 * siteShare
	l := New(6, maxSources)
	for _, phase := range []struct {
		name                   string
		source                 func(int) Source
		addresses, kept, sites int
	}{
		{"one /48", func(i int) Source { return v6(0, i) }, 10 * maxSources, maxSources / siteShare, 1},
		{"IPv4", v4, 20 * maxSources, maxSources, 1},
		{"many /48s", func(i int) Source { return v6(i, i) }, 30 * maxSources, maxSources, maxSources},
	} {
		for i := range phase.addresses {
			if s := phase.source(i); i%2 == 0 {
				l.Record(s)
			} else {
				l.Allow(s)
			}
		}
		if len(l.buckets) != phase.kept || len(l.sites) != phase.sites {
			t.Errorf("%s: %d buckets, %d of /48s, want %d and %d", phase.name, len(l.buckets), len(l.sites), phase.kept, phase.sites)
		}
		l.check(t)
	}
}

// check checks that the number of buckets is bounded, and that the lists are consistent.
func (l *Limiter) check(t interface{ Fatalf(string, ...any) }) {
	if len(l.buckets) > l.maxSources || l.recent.Len() != len(l.buckets) {
		t.Fatalf("%d buckets, %d in the list, at most %d", len(l.buckets), l.recent.Len(), l.maxSources)
	}
	if len(l.sites) > l.maxSources {
		t.Fatalf("%d buckets of /48s, at most %d", len(l.sites), l.maxSources)
	}
	members, idle := 0, 0
	for siteSource, site := range l.sites {
		n := site.members.Len()
		members += n
		if n == 0 {
			idle++
		}
		if site.source != siteSource || n > max(l.maxSources/siteShare, 1) || (n == 0) != (site.element != nil) {
			t.Fatalf("%s has %d members, idle %t", siteSource, n, site.element != nil)
		}
	}
	for s, b := range l.buckets {
		siteSource, hasSite := s.site()
		if hasSite {
			members--
		}
		if b.source != s || b.site != l.sites[siteSource] || hasSite != (b.site != nil) {
			t.Fatalf("%s is not in its /48", s)
		}
	}
	if members != 0 || idle != l.idle.Len() {
		t.Fatalf("%d members too many, %d of %d /48s idle", members, l.idle.Len(), idle)
	}
}

// While there is room for all sources, every answer is that of a model in whole
// numbers: buckets of sources and of /48s with as many tokens as the limit has per
// minute, and a further token every 10 seconds (16 for a /48).
func TestLimiterMatchesModel(t *testing.T) {
	t.Parallel()
	sources := []Source{v4(1), ApplicationSource("a"), {}}
	for site := range 2 {
		for subnet := range 20 {
			sources = append(sources, v6(site, subnet))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		const burst, refill = 6, 10 * time.Second // one token per refill
		l, c := withClock(burst, siteShare*len(sources))
		used := make(map[Source]int) // missing tokens
		wait := func(s Source) (wait time.Duration) {
			if n := used[s] - burst + 1; n > 0 {
				wait = time.Duration(n) * refill
			}
			if siteSource, ok := s.site(); ok {
				if n := used[siteSource] - 16*burst + 1; n > 0 {
					wait = max(wait, time.Duration(n)*refill/16)
				}
			}
			return wait
		}
		take := func(s Source) {
			used[s] = min(used[s]+1, 2*burst)
			if siteSource, ok := s.site(); ok {
				used[siteSource] = min(used[siteSource]+1, 2*16*burst)
			}
		}
		// Some sources have more events than others.
		draw := func(t *rapid.T) (Source, int) {
			return rapid.SampledFrom(sources).Draw(t, "source"), rapid.SampledFrom([]int{1, 2, 7}).Draw(t, "events")
		}
		allow := func(t *rapid.T) {
			s, events := draw(t)
			for range events {
				want := wait(s)
				ok, retry := l.Allow(s)
				if ok != (want == 0) || retry != want {
					t.Fatalf("Allow(%s) = %t, %v, want %v", s, ok, retry, want)
				}
				if ok {
					take(s)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"allow": allow,
			"allow many": func(t *rapid.T) {
				for range 20 {
					allow(t)
				}
			},
			"record": func(t *rapid.T) {
				s, events := draw(t)
				for range events {
					l.Record(s)
					take(s)
				}
			},
			"wait": func(t *rapid.T) {
				n := rapid.SampledFrom([]int{1, 2, 3, 9}).Draw(t, "tokens")
				c.Advance(time.Duration(n) * refill)
				for s := range used {
					if s.prefix.Bits() == siteBits {
						used[s] = max(used[s]-16*n, 0)
					} else {
						used[s] = max(used[s]-n, 0)
					}
				}
			},
			"": func(t *rapid.T) {
				for _, s := range sources {
					if blocked, retry := l.Blocked(s); retry != wait(s) || blocked != (retry > 0) {
						t.Fatalf("Blocked(%s) = %t, %v, want %v", s, blocked, retry, wait(s))
					}
				}
				l.check(t)
			},
		})
	})
}

// For any sequence of calls with little room: the number of buckets is bounded, the lists
// are consistent, no source is blocked for longer than a minute and the time of one token,
// and a flood of sources of one /48 evicts only buckets of that /48.
func TestSitesStayBounded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		maxSources := rapid.SampledFrom([]int{1, 2, 5, siteShare, 3*siteShare + 1}).Draw(t, "maxSources")
		l, c := withClock(rapid.IntRange(1, 5).Draw(t, "perMinute"), maxSources)
		source := func(t *rapid.T) Source {
			switch n := rapid.IntRange(0, 9).Draw(t, "number"); rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				return v4(n)
			case 1:
				return v6(1, n)
			default:
				return v6(n, rapid.IntRange(0, 2).Draw(t, "subnet"))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"allow":   func(t *rapid.T) { l.Allow(source(t)) },
			"record":  func(t *rapid.T) { l.Record(source(t)) },
			"blocked": func(t *rapid.T) { l.Blocked(source(t)) },
			"limit":   func(t *rapid.T) { l.SetLimit(rapid.IntRange(0, 5).Draw(t, "limit")) },
			"wait":    func(t *rapid.T) { c.Advance(time.Duration(rapid.IntRange(0, 90).Draw(t, "s")) * time.Second) },
			"flood": func(t *rapid.T) {
				if l.perMinute == 0 {
					t.Skip()
				}
				l.Record(v6(99, 0))
				var before []Source
				for s := range l.buckets {
					if siteSource, _ := s.site(); siteSource != l.buckets[v6(99, 0)].site.source {
						before = append(before, s)
					}
				}
				for subnet := range 50 {
					l.Record(v6(99, subnet))
				}
				if i := slices.IndexFunc(before, func(s Source) bool { return l.buckets[s] == nil }); i >= 0 {
					t.Fatalf("%s was dropped", before[i])
				}
			},
			"": func(t *rapid.T) {
				l.check(t)
				for s := range l.buckets {
					if blocked, retry := l.Blocked(s); blocked != (retry > 0) || retry > 121*time.Second {
						t.Fatalf("Blocked = %t, %v", blocked, retry)
					}
				}
			},
		})
	})
}
