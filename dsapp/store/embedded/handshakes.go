package embedded

import (
	"bytes"
	"container/heap"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// handshakeSweep is how many expired handshakes are forgotten on the way when a
// handshake is put: more than one, so that they cannot pile up.
const handshakeSweep = 4

// handshakes keeps the handshakes in memory, at most one per identifier. They do
// not survive a restart: the phone repeats the first call.
type handshakes struct {
	mu           sync.Mutex
	byIdentifier map[string]*handshake
	// genuine and simulated order them by their end.
	genuine, simulated byEnd
	maxSimulated       int
}

// handshake is one handshake in memory.
type handshake struct {
	activation.Handshake

	identifier string
	expires    time.Time
	index      int // in its heap
}

func newHandshakes(maxSimulated int) *handshakes {
	return &handshakes{byIdentifier: map[string]*handshake{}, maxSimulated: maxSimulated}
}

// put replaces the identifier's handshake. At the cap the simulated handshake
// that ends first makes room.
func (hs *handshakes) put(identifier string, h activation.Handshake, now time.Time) {
	h.State = bytes.Clone(h.State)
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.drop(hs.byIdentifier[identifier])
	hs.expire(now, handshakeSweep)
	if h.Simulated && len(hs.simulated) >= hs.maxSimulated {
		hs.drop(hs.simulated[0])
	}
	x := &handshake{Handshake: h, identifier: identifier, expires: now.Add(h.Lifetime)}
	hs.byIdentifier[identifier] = x
	heap.Push(hs.order(x), x)
}

// take removes the identifier's handshake and returns it with the remaining
// lifetime, if it has not ended.
func (hs *handshakes) take(identifier string, now time.Time) (activation.Handshake, bool) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	x := hs.byIdentifier[identifier]
	hs.drop(x)
	if x == nil || !now.Before(x.expires) {
		return activation.Handshake{}, false
	}
	h := x.Handshake
	h.Lifetime = x.expires.Sub(now)
	return h, true
}

// remove forgets the identifier's handshake.
func (hs *handshakes) remove(identifier string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.drop(hs.byIdentifier[identifier])
}

// sweep forgets every handshake that has ended.
func (hs *handshakes) sweep(now time.Time) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.expire(now, len(hs.byIdentifier))
}

// expire drops up to limit handshakes of each order that have ended. The caller
// holds mu.
func (hs *handshakes) expire(now time.Time, limit int) {
	for _, order := range []*byEnd{&hs.genuine, &hs.simulated} {
		for range limit {
			if len(*order) == 0 || now.Before((*order)[0].expires) {
				break
			}
			hs.drop((*order)[0])
		}
	}
}

// drop forgets x, if there is one. The caller holds mu.
func (hs *handshakes) drop(x *handshake) {
	if x == nil {
		return
	}
	heap.Remove(hs.order(x), x.index)
	delete(hs.byIdentifier, x.identifier)
}

func (hs *handshakes) order(x *handshake) *byEnd {
	if x.Simulated {
		return &hs.simulated
	}
	return &hs.genuine
}

// byEnd is a heap of handshakes; the one that ends first comes first.
type byEnd []*handshake

// Len implements heap.Interface.
func (b byEnd) Len() int { return len(b) }

// Less implements heap.Interface.
func (b byEnd) Less(i, j int) bool { return b[i].expires.Before(b[j].expires) }

// Swap implements heap.Interface.
func (b byEnd) Swap(i, j int) {
	b[i], b[j] = b[j], b[i]
	b[i].index, b[j].index = i, j
}

// Push implements heap.Interface.
func (b *byEnd) Push(x any) {
	h := x.(*handshake)
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
