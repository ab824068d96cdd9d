package embedded

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/expiring"
)

// handshakeSweep is how many identifiers whose handshakes have ended are forgotten
// on the way when a handshake is put: more than one, so that they cannot pile up.
const handshakeSweep = 4

// handshakes keeps the handshakes in memory. They do not survive a restart: the
// phone repeats the first call.
type handshakes struct {
	mu sync.Mutex
	// genuine are those of identifiers with a registration, simulated all others.
	genuine, simulated pool
	maxSimulated       int
}

func newHandshakes(maxSimulated int) *handshakes {
	return &handshakes{genuine: newPool(), simulated: newPool(), maxSimulated: maxSimulated}
}

// put keeps a handshake as activation.Store says, and reports what that does.
// Registered says whether the identifier has a registration. Without one, the
// handshakes that end first make room at the cap.
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

// take removes the identifier's handshake for source and returns it with the
// remaining lifetime, if there is one.
func (hs *handshakes) take(identifier string, source activation.Tag, now time.Time) (activation.Handshake, bool) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	from, w := hs.remove(identifier, now)
	h, ok := w.take(source, now)
	from.put(identifier, w)
	return h, ok
}

// forget forgets everything about the identifier.
func (hs *handshakes) forget(identifier string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.genuine.remove(identifier)
	hs.simulated.remove(identifier)
}

// sweep forgets every identifier whose handshakes have ended.
func (hs *handshakes) sweep(now time.Time) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.genuine.expire(now, hs.genuine.Len())
	hs.simulated.expire(now, hs.simulated.Len())
}

// remove removes what is kept of the identifier and returns it without what has
// ended, and where it was. The caller holds mu.
func (hs *handshakes) remove(identifier string, now time.Time) (*pool, waiting) {
	from := &hs.genuine
	if _, _, ok := from.Get(identifier); !ok {
		from = &hs.simulated
	}
	w := from.remove(identifier)
	if !now.Before(w.quiet) {
		w.quiet = time.Time{}
	}
	w.handshakes = slices.DeleteFunc(w.handshakes, func(k kept) bool { return !now.Before(k.end) })
	return from, w
}

// waiting is what is kept of one identifier.
type waiting struct {
	// handshakes in the order in which they were put.
	handshakes []kept
	// quiet is until when contention is not told again, zero if it was not told.
	quiet time.Time
}

// kept is a handshake with its end.
type kept struct {
	activation.Handshake

	end time.Time
}

// put adds a handshake and reports whether contention is to be told.
func (w *waiting) put(h activation.Handshake, now time.Time) (contended bool) {
	contended = w.quiet.IsZero() && slices.ContainsFunc(w.handshakes, func(k kept) bool {
		return k.Source != h.Source || k.Application != h.Application
	})
	if contended {
		w.quiet = now.Add(activation.ContentionInterval)
	}
	w.handshakes = slices.DeleteFunc(w.handshakes, func(k kept) bool { return k.Source == h.Source })
	if len(w.handshakes) >= activation.MaxHandshakes {
		w.handshakes = slices.Delete(w.handshakes, 0, 1)
	}
	w.handshakes = append(w.handshakes, kept{h, now.Add(h.Lifetime)})
	return contended
}

// take removes the handshake of source or, if there is none, the last one.
func (w *waiting) take(source activation.Tag, now time.Time) (activation.Handshake, bool) {
	if len(w.handshakes) == 0 {
		return activation.Handshake{}, false
	}
	i := slices.IndexFunc(w.handshakes, func(k kept) bool { return k.Source == source })
	if i < 0 {
		i = len(w.handshakes) - 1
	}
	h := w.handshakes[i]
	h.Lifetime = h.end.Sub(now)
	w.handshakes = slices.Delete(w.handshakes, i, i+1)
	return h.Handshake, true
}

// size is what counts towards a cap: also that something was told is kept.
func (w *waiting) size() int { return max(1, len(w.handshakes)) }

// end is when nothing of w is of use any more.
func (w *waiting) end() time.Time {
	end := w.quiet
	for _, k := range w.handshakes {
		if k.end.After(end) {
			end = k.end
		}
	}
	return end
}

// pool holds what is kept of identifiers, and knows its size.
type pool struct {
	*expiring.Map[waiting]

	size int
}

func newPool() pool { return pool{Map: expiring.New[waiting]()} }

func (p *pool) put(identifier string, w waiting) {
	if len(w.handshakes) == 0 && w.quiet.IsZero() {
		return
	}
	p.size += w.size()
	p.Put(identifier, w, w.end())
}

// remove returns what is kept of identifier, which may be nothing.
func (p *pool) remove(identifier string) waiting {
	w, _, ok := p.Get(identifier)
	if ok {
		p.size -= w.size()
		p.Delete(identifier)
	}
	return w
}

// expire removes up to limit identifiers of which everything has ended.
func (p *pool) expire(now time.Time, limit int) {
	for range limit {
		identifier, end, ok := p.First()
		if !ok || now.Before(end) {
			return
		}
		p.remove(identifier)
	}
}

// makeRoom removes what ends first until the size is no more than limit.
func (p *pool) makeRoom(limit int) {
	for p.size > limit {
		identifier, _, ok := p.First()
		if !ok {
			return
		}
		p.remove(identifier)
	}
}
