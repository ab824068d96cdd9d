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
// many. The caller must leave the place once, when the event ends. If limit is 0 or less,
// every event is admitted and none is counted.
func (f *InFlight) Enter(s Source, limit int) (p Place, ok bool) {
	if limit <= 0 {
		return Place{}, true
	}
	site, hasSite := s.site()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts[s] >= limit || hasSite && f.counts[site] >= siteFactor*limit {
		return Place{}, false
	}
	if f.counts == nil {
		f.counts = make(map[Source]int)
	}
	f.counts[s]++
	if hasSite {
		f.counts[site]++
	}
	return Place{f, s}, true
}

// Place is the place of an event among the concurrent ones of its source. The zero Place
// is that of an event that is not counted.
type Place struct {
	in     *InFlight
	source Source
}

// Leave ends the count of the event. The Place of an event that is not counted does nothing.
func (p Place) Leave() {
	if p.in == nil {
		return
	}
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	p.in.end(p.source)
	if site, hasSite := p.source.site(); hasSite {
		p.in.end(site)
	}
}

// end decrements a count. It deletes a count of 0.
func (f *InFlight) end(s Source) {
	if f.counts[s] > 1 {
		f.counts[s]--
		return
	}
	delete(f.counts, s)
}
