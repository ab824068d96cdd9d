package redis

import (
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/expiring"
)

// identifierTracker limits the number of identifiers for which this process stores
// simulated state, so that probing unknown identifiers cannot fill the server. It holds an
// identifier until the server has deleted the identifier's keys.
type identifierTracker struct {
	limit int
	now   func() time.Time

	mu   sync.Mutex
	held *expiring.Map[ticket]
	last ticket
}

// ticket identifies one call of hold.
type ticket uint64

func newTracker(limit int, now func() time.Time) *identifierTracker {
	return &identifierTracker{limit: limit, now: now, held: expiring.New[ticket]()}
}

// hold holds the identifier for at least d. It reports whether the identifier is held: it
// is not if the limit is reached and it was not held before. The ticket is 0 unless the
// identifier was not held before.
func (tr *identifierTracker) hold(identifier string, d time.Duration) (held bool, t ticket) {
	now := tr.now()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.held.Expire(now, tr.held.Len())
	_, end, before := tr.held.Get(identifier)
	if !before && tr.held.Len() >= tr.limit {
		return false, 0
	}
	tr.last++
	if until := now.Add(d); until.After(end) {
		end = until
	}
	tr.held.Put(identifier, tr.last, end)
	if before {
		return true, 0
	}
	return true, tr.last
}

// release stops holding the identifier, unless hold was called for it again after it
// returned the ticket.
func (tr *identifierTracker) release(identifier string, t ticket) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if last, _, ok := tr.held.Get(identifier); ok && last == t {
		tr.held.Delete(identifier)
	}
}
