package redis

import (
	"container/heap"
	"sync"
	"time"
)

// tracker knows the identifiers under which this process may have put simulated
// state, so that their number stays bounded: probing unknown identifiers must
// not fill the server.
type tracker struct {
	limit int
	now   func() time.Time

	mu    sync.Mutex
	holds map[string]*hold
	order byEnd
}

// hold is one identifier until the moment when its keys are gone.
type hold struct {
	identifier string
	until      time.Time
	index      int // in the heap
}

func newTracker(limit int, now func() time.Time) *tracker {
	return &tracker{limit: limit, now: now, holds: map[string]*hold{}}
}

// hold keeps identifier for d, or longer if it is held longer already. It reports
// whether it is held, which it is not if there is no room, and whether it was not
// held before.
func (tr *tracker) hold(identifier string, d time.Duration) (held, added bool) {
	now := tr.now()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for len(tr.order) > 0 && !now.Before(tr.order[0].until) {
		tr.drop(tr.order[0])
	}
	until := now.Add(d)
	if h := tr.holds[identifier]; h != nil {
		if until.After(h.until) {
			h.until = until
			heap.Fix(&tr.order, h.index)
		}
		return true, false
	}
	if len(tr.order) >= tr.limit {
		return false, false
	}
	h := &hold{identifier: identifier, until: until}
	tr.holds[identifier] = h
	heap.Push(&tr.order, h)
	return true, true
}

// release forgets identifier.
func (tr *tracker) release(identifier string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if h := tr.holds[identifier]; h != nil {
		tr.drop(h)
	}
}

// drop forgets h. The caller holds mu.
func (tr *tracker) drop(h *hold) {
	heap.Remove(&tr.order, h.index)
	delete(tr.holds, h.identifier)
}

// byEnd is a heap of holds; the one that ends first comes first.
type byEnd []*hold

// Len implements heap.Interface.
func (b byEnd) Len() int { return len(b) }

// Less implements heap.Interface.
func (b byEnd) Less(i, j int) bool { return b[i].until.Before(b[j].until) }

// Swap implements heap.Interface.
func (b byEnd) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].index, b[j].index = i, j
}

// Push implements heap.Interface.
func (b *byEnd) Push(x any) {
	h := x.(*hold)
	h.index = len(*b)
	*b = append(*b, h)
}

// Pop implements heap.Interface.
func (b *byEnd) Pop() any {
	last := len(*b) - 1
	h := (*b)[last]
	(*b)[last] = nil
	*b = (*b)[:last]
	return h
}

var _ heap.Interface = (*byEnd)(nil)
