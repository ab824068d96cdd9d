package caddymodule

import (
	"crypto/sha256"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
)

// keyUses has the time of the last use of each API key since the process started. It
// outlives configurations, so that a reload does not make every key look unused.
var keyUses keyUseTimes

// keyUseTimes are times by the hash of the key. Only configured keys get into it.
type keyUseTimes struct {
	times sync.Map // [sha256.Size]byte to *atomic.Int64, nanoseconds since 1970
}

// used records a use of the key now.
func (k *keyUseTimes) used(hash [sha256.Size]byte) {
	last, ok := k.times.Load(hash)
	if !ok {
		last, _ = k.times.LoadOrStore(hash, new(atomic.Int64))
	}
	last.(*atomic.Int64).Store(time.Now().UnixNano())
}

// last returns the time of the last use, or the zero time if there was none.
func (k *keyUseTimes) last(hash [sha256.Size]byte) time.Time {
	last, ok := k.times.Load(hash)
	if !ok {
		return time.Time{}
	}
	return time.Unix(0, last.(*atomic.Int64).Load())
}

// authenticated is called for every request with a valid key.
func authenticated(r *http.Request, key apikey.Key) {
	keyUses.used(key.Hash)
	setUser(r, key)
}
