package authserver

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// reachability remembers whether an instance can be reached, so that only changes are
// logged. The zero value stands for an instance that can be reached.
type reachability struct {
	mu sync.Mutex
	// changes counts the changes. It is odd while the instance cannot be reached.
	changes atomic.Uint64
	// reachedAt and lostAt are the times of the last observations of each kind, in
	// nanoseconds since 1970.
	reachedAt, lostAt atomic.Int64
}

// begin returns the number of changes so far, which the command or probe that now begins
// later passes to record.
func (r *reachability) begin() (seen uint64) { return r.changes.Load() }

// record records whether a command or probe reached the instance. If that is a change, it
// calls log. If there was another change since begin, it does nothing, as the observation
// may be older than that change.
func (r *reachability) record(seen uint64, reached bool, log func()) {
	if now := time.Now().UnixNano(); reached {
		r.reachedAt.Store(now)
	} else {
		r.lostAt.Store(now)
	}
	if reached == (seen%2 == 0) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changes.Load() != seen {
		return
	}
	// Log before counting, so that the next change is logged after this one.
	log()
	r.changes.Add(1)
}

// lost reports whether the instance cannot be reached.
func (r *reachability) lost() bool { return r.changes.Load()%2 == 1 }

// logUnreachable logs that an operation got no connection to the instance.
func (in *instance) logUnreachable(ctx context.Context, operation string, cause error) {
	in.logger.LogAttrs(ctx, slog.LevelWarn, "instance cannot be reached",
		slog.String("operation", operation), slog.String("instance", in.name), slog.String("cause", truncate(cause.Error())))
}

// logReachable logs that an operation reached the instance again.
func (in *instance) logReachable(ctx context.Context, operation string) {
	in.logger.LogAttrs(ctx, slog.LevelInfo, "instance reached again",
		slog.String("operation", operation), slog.String("instance", in.name))
}
