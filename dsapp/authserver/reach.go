package authserver

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
)

// reach remembers whether an instance can be reached, so that only a change is
// logged. The zero reach is that of an instance that can be.
type reach struct {
	mu sync.Mutex
	// changes is odd while the instance cannot be reached.
	changes atomic.Uint64
}

// began gives what a command needs to tell later how it fared.
func (r *reach) began() (seen uint64) { return r.changes.Load() }

// ended records whether a command reached the instance, and calls log if that is
// a change. A command that was under way during another change is no change: it
// may have met what was before.
func (r *reach) ended(seen uint64, reached bool, log func()) {
	if reached == (seen%2 == 0) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changes.Load() != seen {
		return
	}
	// The next change is logged after this one.
	log()
	r.changes.Add(1)
}

// logLost logs that there was no connection for an operation.
func (in *instance) logLost(ctx context.Context, operation string, cause error) {
	in.logger.LogAttrs(ctx, slog.LevelWarn, "instance cannot be reached",
		slog.String("operation", operation), slog.String("instance", in.name), slog.String("cause", short(cause.Error())))
}

// logReached logs that an operation found the server again after that.
func (in *instance) logReached(ctx context.Context, operation string) {
	in.logger.LogAttrs(ctx, slog.LevelInfo, "instance reached again",
		slog.String("operation", operation), slog.String("instance", in.name))
}
