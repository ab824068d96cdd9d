package ratelimit

import "sync"

// InFlight counts concurrent events per source. The zero InFlight is ready to use. All
// methods may be called concurrently.
type InFlight struct {
	mu     sync.Mutex
	counts map[Source]int // of sources and /48s; no value is 0
}

// Enter counts an event of a source and reports whether it is admitted: the source may
// have at most limit concurrent events, and all sources of a /48 together 16 times as
// many. If ok is true, the caller must call leave once, when the event ends; else leave
// does nothing. If limit is 0 or less, every event is admitted and none is counted.
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

// end decrements a count. It deletes a count of 0.
func (f *InFlight) end(s Source) {
	if f.counts[s] > 1 {
		f.counts[s]--
		return
	}
	delete(f.counts, s)
}
