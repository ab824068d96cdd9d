package embedded

import (
	"bytes"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/expiring"
)

// handshakeSweep is how many expired handshakes are forgotten on the way when a
// handshake is put: more than one, so that they cannot pile up.
const handshakeSweep = 4

// handshakes keeps the handshakes in memory, at most one per identifier. They do
// not survive a restart: the phone repeats the first call.
type handshakes struct {
	mu                 sync.Mutex
	genuine, simulated *expiring.Map[activation.Handshake]
	maxSimulated       int
}

func newHandshakes(maxSimulated int) *handshakes {
	return &handshakes{
		genuine:      expiring.New[activation.Handshake](),
		simulated:    expiring.New[activation.Handshake](),
		maxSimulated: maxSimulated,
	}
}

// put replaces the identifier's handshake. At the cap the simulated handshake
// that ends first makes room.
func (hs *handshakes) put(identifier string, h activation.Handshake, now time.Time) {
	h.State = bytes.Clone(h.State)
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.drop(identifier)
	hs.expire(now, handshakeSweep)
	kept := hs.genuine
	if h.Simulated {
		kept = hs.simulated
		if kept.Len() >= hs.maxSimulated {
			kept.DeleteFirst()
		}
	}
	kept.Put(identifier, h, now.Add(h.Lifetime))
}

// take removes the identifier's handshake and returns it with the remaining
// lifetime, if it has not ended.
func (hs *handshakes) take(identifier string, now time.Time) (activation.Handshake, bool) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h, end, ok := hs.genuine.Get(identifier)
	if !ok {
		h, end, ok = hs.simulated.Get(identifier)
	}
	hs.drop(identifier)
	if !ok || !now.Before(end) {
		return activation.Handshake{}, false
	}
	h.Lifetime = end.Sub(now)
	return h, true
}

// remove forgets the identifier's handshake.
func (hs *handshakes) remove(identifier string) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.drop(identifier)
}

// sweep forgets every handshake that has ended.
func (hs *handshakes) sweep(now time.Time) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.expire(now, max(hs.genuine.Len(), hs.simulated.Len()))
}

// expire forgets up to limit handshakes of each kind that have ended. The caller
// holds mu.
func (hs *handshakes) expire(now time.Time, limit int) {
	hs.genuine.Expire(now, limit)
	hs.simulated.Expire(now, limit)
}

// drop forgets the identifier's handshake. The caller holds mu.
func (hs *handshakes) drop(identifier string) {
	hs.genuine.Delete(identifier)
	hs.simulated.Delete(identifier)
}
