package ratelimit

import (
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
)

// Without a limit, events are neither refused nor counted, and their end does not change
// a count.
func TestInFlightOff(t *testing.T) {
	t.Parallel()
	var f InFlight
	place, ok := f.Enter(v4(1), 0)
	if !ok || len(f.counts) != 0 {
		t.Fatalf("Enter = %t, keeps %v", ok, f.counts)
	}
	if _, ok := f.Enter(v4(1), 1); !ok {
		t.Error("an event that began without a limit is counted")
	}
	place.Leave()
	if _, ok := f.Enter(v4(1), 1); ok {
		t.Error("its end was counted")
	}
}

// For any sequence of events and limits, Enter admits exactly those below the limit of the
// source and 16 times the limit of its /48. No count of 0 is kept.
func TestInFlightCounts(t *testing.T) {
	t.Parallel()
	sources := []Source{v4(1), ApplicationSource("a"), {}, v6(2, 0)}
	for subnet := range 20 {
		sources = append(sources, v6(1, subnet))
	}
	rapid.Check(t, func(t *rapid.T) {
		var f InFlight
		type entry struct {
			source, site Source
			place        Place
		}
		var in []entry
		enter := func(t *rapid.T) {
			s := rapid.SampledFrom(sources).Draw(t, "source")
			limit := rapid.IntRange(1, 3).Draw(t, "limit")
			siteSource, hasSite := s.site()
			ofSource, ofSite := 0, 0
			for _, e := range in {
				if e.source == s {
					ofSource++
				}
				if hasSite && e.site == siteSource {
					ofSite++
				}
			}
			want := ofSource < limit && ofSite < 16*limit
			place, ok := f.Enter(s, limit)
			if ok != want {
				t.Fatalf("Enter(%s, %d) = %t, want %t; in flight are %v", s, limit, ok, want, f.counts)
			}
			if ok {
				in = append(in, entry{s, siteSource, place})
			} else {
				place.Leave()
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"enter": enter,
			// So that some /48 reaches its limit.
			"enter many": func(t *rapid.T) {
				for range 40 {
					enter(t)
				}
			},
			"leave": func(t *rapid.T) {
				if len(in) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(in)-1).Draw(t, "which")
				in[i].place.Leave()
				in = append(in[:i], in[i+1:]...)
			},
		})
		for _, e := range in {
			e.place.Leave()
		}
		if len(f.counts) != 0 {
			t.Fatalf("keeps %v", f.counts)
		}
	})
}

// The limit holds for concurrent calls.
func TestInFlightConcurrently(t *testing.T) {
	t.Parallel()
	const limit = 3
	var f InFlight
	var now, admitted atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				place, ok := f.Enter(v6(1, 1), limit)
				if !ok {
					continue
				}
				admitted.Add(1)
				if n := now.Add(1); n > limit {
					t.Errorf("%d at once", n)
				}
				now.Add(-1)
				place.Leave()
			}
		})
	}
	wg.Wait()
	if len(f.counts) != 0 || admitted.Load() == 0 {
		t.Errorf("admitted %d, keeps %v", admitted.Load(), f.counts)
	}
}

// BenchmarkInFlight measures the count of one event, from its begin to its end.
func BenchmarkInFlight(b *testing.B) {
	for family, source := range map[string]Source{"IPv4": v4(1), "IPv6": v6(1, 1)} {
		b.Run(family, func(b *testing.B) {
			var f InFlight
			b.ReportAllocs()
			for b.Loop() {
				place, _ := f.Enter(source, 10)
				place.Leave()
			}
		})
	}
}
