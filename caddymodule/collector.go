package caddymodule

import (
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"sync"
)

const (
	defaultGCPercent = 100
	// gcPercent has the garbage collector run when the heap is five times what is in use. A
	// gateway keeps little: collecting at twice that takes a twentieth of its processor time
	// and saves some 20 MiB.
	gcPercent = 400
)

// tuneCollectorOnce limits the change to one for the process, so that a reload does not undo
// what somebody else has set meanwhile.
var tuneCollectorOnce sync.Once

// tuneCollector has the garbage collector run less often, if the operator has not set GOGC and
// nothing else in the process has changed it. There must be a memory limit, which Caddy's
// command `run` derives from that of the container or the machine: near it the collector runs
// as often as it takes.
func tuneCollector(logger *slog.Logger) {
	if os.Getenv("GOGC") != "" || debug.SetMemoryLimit(-1) == math.MaxInt64 {
		return
	}
	if before := debug.SetGCPercent(gcPercent); before != defaultGCPercent {
		debug.SetGCPercent(before)
		return
	}
	logger.Info("the garbage collector runs less often; set GOGC to choose", slog.Int("gc_percent", gcPercent))
}
