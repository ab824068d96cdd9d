package ratelimit

import "sync"

// InFlight counts what is going on at the same time per source. The zero InFlight
// is ready to use. All methods may be called concurrently.
type InFlight struct {
	mu     sync.Mutex
	counts map[Source]int // of sources and of their /48s, above 0
}

// Enter begins something for a source and reports whether it may. The source may
// have limit of them at once, and its /48, if it has one, 16 times as many
// together. The caller ends it with leave, which must be called once, if ok is
// true; else leave does nothing. With limit 0 or less there is no limit, and nothing
// is counted.
func (f *InFlight) Enter(s Source, limit int) (leave func(), ok bool) {
	if limit <= 0 {
		return func() {}, true
	}
	site, hasSite := s.site()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts[s] >= limit || hasSite && f.counts[site] >= siteFactor*limit {
		return func() {}, false
	}
	if f.counts == nil {
		f.counts = make(map[Source]int)
	}
	f.counts[s]++
	if hasSite {
		f.counts[site]++
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.end(s)
		if hasSite {
			f.end(site)
		}
	}, true
}

// end takes one from a count. Counts of 0 are not kept.
func (f *InFlight) end(s Source) {
	if f.counts[s] > 1 {
		f.counts[s]--
		return
	}
	delete(f.counts, s)
}
