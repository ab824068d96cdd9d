//go:build linux

package testbed

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// Usage is what a process uses of the machine.
type Usage struct {
	Goroutines, Descriptors int
	Memory, Peak            int // resident, in KiB
}

// Usage asks the process and the kernel what the process uses.
func (g *Gateway) Usage() (Usage, error) {
	var u Usage
	ctx, cancel := context.WithTimeout(context.Background(), poll.Patience)
	defer cancel()
	profile, err := g.AskAdmin(ctx, "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return u, err
	}
	if _, err := fmt.Sscanf(profile, "goroutine profile: total %d", &u.Goroutines); err != nil {
		return u, fmt.Errorf("profile of goroutines: %w", err)
	}

	process := fmt.Sprintf("/proc/%d/", g.Pid())
	descriptors, err := os.ReadDir(process + "fd")
	if err != nil {
		return u, err
	}
	u.Descriptors = len(descriptors)
	status, err := os.ReadFile(process + "status")
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		to := map[string]*int{"VmRSS": &u.Memory, "VmHWM": &u.Peak}[name]
		if to == nil {
			continue
		}
		if *to, err = strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB"))); err != nil {
			return u, fmt.Errorf("%s: %w", name, err)
		}
	}
	return u, nil
}

// restingUsage returns the usage when it has not fallen for a while: what was just closed
// is not gone at once.
func (g *Gateway) restingUsage(t *testing.T) Usage {
	t.Helper()
	var least Usage
	same := 0
	poll.Until(t, "gateway to rest", func() bool {
		u, err := g.Usage()
		if err != nil {
			return false
		}
		if least == (Usage{}) || u.Goroutines < least.Goroutines || u.Descriptors < least.Descriptors {
			least, same = u, 0
			return false
		}
		same++
		return same == 20
	})
	return least
}

// ProcessorTime returns the time of the processor that a process has used so far.
func ProcessorTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	require.NoError(t, err)
	var total time.Duration
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		require.NoError(t, err)
		var ran time.Duration
		_, err = fmt.Sscan(string(text), &ran)
		require.NoError(t, err)
		total += ran
	}
	return total
}

// Heap returns the memory that the process has reserved for its objects, in bytes, whether
// it has written to it or not.
func (g *Gateway) Heap(t *testing.T) int {
	t.Helper()
	profile, err := g.AskAdmin(t.Context(), "/debug/pprof/heap?debug=1")
	require.NoError(t, err)
	_, rest, _ := strings.Cut(profile, "# HeapInuse = ")
	digits, _, _ := strings.Cut(rest, "\n")
	inUse, err := strconv.Atoi(digits)
	require.NoError(t, err)
	return inUse
}
