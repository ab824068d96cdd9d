package redis

import (
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/expiring"
)

// tracker knows the identifiers under which this process may have put simulated
// state until the moment when its keys are gone, so that their number stays
// bounded: probing unknown identifiers must not fill the server.
type tracker struct {
	limit int
	now   func() time.Time

	mu    sync.Mutex
	holds *expiring.Map[claim]
	last  claim
}

// claim is one call of hold.
type claim uint64

func newTracker(limit int, now func() time.Time) *tracker {
	return &tracker{limit: limit, now: now, holds: expiring.New[claim]()}
}

// hold keeps identifier for d, or longer if it is held longer already. It reports
// whether it is held, which it is not if there is no room. The claim is 0 unless
// it was this call that began to hold it.
func (tr *tracker) hold(identifier string, d time.Duration) (held bool, c claim) {
	now := tr.now()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.holds.Expire(now, tr.holds.Len())
	_, end, before := tr.holds.Get(identifier)
	if !before && tr.holds.Len() >= tr.limit {
		return false, 0
	}
	tr.last++
	if until := now.Add(d); until.After(end) {
		end = until
	}
	tr.holds.Put(identifier, tr.last, end)
	if before {
		return true, 0
	}
	return true, tr.last
}

// release forgets identifier if nobody else has held it since the claim.
func (tr *tracker) release(identifier string, c claim) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if last, _, ok := tr.holds.Get(identifier); ok && last == c {
		tr.holds.Delete(identifier)
	}
}
