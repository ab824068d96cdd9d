package embedded

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/expiring"
)

// handshakeSweep is how many expired identifiers each put removes at most. It is more than
// one, so that their number cannot grow.
const handshakeSweep = 4

// handshakes holds all handshakes in memory.
type handshakes struct {
	mu sync.Mutex
	// genuine has the identifiers with a registration, simulated all others.
	genuine, simulated pool
	maxSimulated       int
}

func newHandshakes(maxSimulated int) *handshakes {
	return &handshakes{genuine: newPool(), simulated: newPool(), maxSimulated: maxSimulated}
}

// put stores a handshake and reports contention, both as PutHandshake of activation.Store
// does. registered says whether the identifier has a registration. If it has none and
// maxSimulated is reached, the handshakes that end first are removed.
func (hs *handshakes) put(identifier string, h activation.Handshake, registered bool, now time.Time) (contended bool) {
	h.State = bytes.Clone(h.State)
	hs.mu.Lock()
	defer hs.mu.Unlock()
	_, w := hs.remove(identifier, now)
	contended = w.put(h, now)
	hs.genuine.expire(now, handshakeSweep)
	hs.simulated.expire(now, handshakeSweep)
	if registered {
		hs.genuine.put(identifier, w)
		return contended
	}
	hs.simulated.makeRoom(hs.maxSimulated - w.size())
	hs.simulated.put(identifier, w)
	return contended
}

// take removes the handshake that a proof from source uses and returns it with its remaining
// lifetime, if there is one.
func (hs *handshakes) take(identifier string, source activation.Tag, now time.Time) (activation.Handshake, bool) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	from, w := hs.remove(identifier, now)
	h, ok := w.take(source, now)
	from.put(identifier, w)
	return h, ok
}

// forget removes everything about the identifier.
func (hs *handshakes) forget(identifier string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.genuine.remove(identifier)
	hs.simulated.remove(identifier)
}

// sweep removes all expired identifiers.
func (hs *handshakes) sweep(now time.Time) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.genuine.expire(now, hs.genuine.Len())
	hs.simulated.expire(now, hs.simulated.Len())
}

// remove removes the identifier and returns its state, without what has ended, and the pool
// that it was in. The caller holds mu.
func (hs *handshakes) remove(identifier string, now time.Time) (*pool, identifierState) {
	from := &hs.genuine
	if _, _, ok := from.Get(identifier); !ok {
		from = &hs.simulated
	}
	w := from.remove(identifier)
	if !now.Before(w.quietUntil) {
		w.quietUntil = time.Time{}
	}
	w.handshakes = slices.DeleteFunc(w.handshakes, func(k storedHandshake) bool { return !now.Before(k.end) })
	return from, w
}

// identifierState is what is stored about one identifier.
type identifierState struct {
	// handshakes in the order in which they were put.
	handshakes []storedHandshake
	// quietUntil is the time until which contention is not reported again. It is zero if
	// none was reported.
	quietUntil time.Time
}

// storedHandshake is a handshake with the time of its end.
type storedHandshake struct {
	activation.Handshake

	end time.Time
}

// put adds a handshake and reports whether contention is to be reported.
func (w *identifierState) put(h activation.Handshake, now time.Time) (contended bool) {
	contended = w.quietUntil.IsZero() && slices.ContainsFunc(w.handshakes, func(k storedHandshake) bool {
		return k.Source != h.Source || k.Application != h.Application
	})
	if contended {
		w.quietUntil = now.Add(activation.ContentionInterval)
	}
	w.handshakes = slices.DeleteFunc(w.handshakes, func(k storedHandshake) bool { return k.Source == h.Source })
	if len(w.handshakes) >= activation.MaxHandshakes {
		w.handshakes = slices.Delete(w.handshakes, 0, 1)
	}
	w.handshakes = append(w.handshakes, storedHandshake{h, now.Add(h.Lifetime)})
	return contended
}

// take removes the handshake of source or, if there is none, the newest.
func (w *identifierState) take(source activation.Tag, now time.Time) (activation.Handshake, bool) {
	if len(w.handshakes) == 0 {
		return activation.Handshake{}, false
	}
	i := slices.IndexFunc(w.handshakes, func(k storedHandshake) bool { return k.Source == source })
	if i < 0 {
		i = len(w.handshakes) - 1
	}
	h := w.handshakes[i]
	h.Lifetime = h.end.Sub(now)
	w.handshakes = slices.Delete(w.handshakes, i, i+1)
	return h.Handshake, true
}

// size is what the identifier counts towards maxSimulated. It is 1 if there is only
// quietUntil.
func (w *identifierState) size() int { return max(1, len(w.handshakes)) }

// end returns the time when everything in w has ended.
func (w *identifierState) end() time.Time {
	end := w.quietUntil
	for _, k := range w.handshakes {
		if k.end.After(end) {
			end = k.end
		}
	}
	return end
}

// pool holds the states of identifiers. size is the sum of their sizes.
type pool struct {
	*expiring.Map[identifierState]

	size int
}

func newPool() pool { return pool{Map: expiring.New[identifierState]()} }

func (p *pool) put(identifier string, w identifierState) {
	if len(w.handshakes) == 0 && w.quietUntil.IsZero() {
		return
	}
	p.size += w.size()
	p.Put(identifier, w, w.end())
}

// remove removes an identifier and returns its state, which may be empty.
func (p *pool) remove(identifier string) identifierState {
	w, _, ok := p.Get(identifier)
	if ok {
		p.size -= w.size()
		p.Delete(identifier)
	}
	return w
}

// expire removes up to limit expired identifiers.
func (p *pool) expire(now time.Time, limit int) {
	for range limit {
		identifier, end, ok := p.First()
		if !ok || now.Before(end) {
			return
		}
		p.remove(identifier)
	}
}

// makeRoom removes the identifiers that end first until the size is at most limit.
func (p *pool) makeRoom(limit int) {
	for p.size > limit {
		identifier, _, ok := p.First()
		if !ok {
			return
		}
		p.remove(identifier)
	}
}
