//go:build linux

package testbed

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A ledger accepts only suites of which every request has an outcome and none is
// lost or wrong.
func TestLedger(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		do   func(l *Ledger)
		want []string
	}{
		{"nothing", func(*Ledger) {}, nil},
		{"answered", func(l *Ledger) { l.Sent(); l.Answered() }, nil},
		{"refused, too", func(l *Ledger) { l.Sent(); l.Sent(); l.Refused(); l.Answered() }, nil},
		{"refused only", func(l *Ledger) { l.Sent(); l.Refused() }, []string{"nothing was answered"}},
		{"lost", func(l *Ledger) { l.Sent(); l.Sent(); l.Answered(); l.Lost("reset by %s", "peer") }, []string{"lost: reset by peer", "1 were lost and 0"}},
		{"wrong", func(l *Ledger) { l.Sent(); l.Sent(); l.Answered(); l.Wrong("status %d", 500) }, []string{"wrong: status 500", "0 were lost and 1"}},
		{"late", func(l *Ledger) {
			for range maxLate {
				l.Sent()
			}
			l.Late()
			for range maxLate - 1 {
				l.Answered()
			}
		}, nil},
		{"often late", func(l *Ledger) { l.Sent(); l.Sent(); l.Answered(); l.Late() }, []string{"1 were late"}},
		{"no outcome", func(l *Ledger) { l.Sent(); l.Sent(); l.Answered() }, []string{"2 requests were sent and 1 have an outcome"}},
		{"two outcomes", func(l *Ledger) { l.Sent(); l.Answered(); l.Refused() }, []string{"1 requests were sent and 2 have an outcome"}},
		{"broken", func(l *Ledger) { l.Sent(); l.Answered(); l.Broken("leak") }, []string{"broken: leak"}},
	} {
		l := &Ledger{name: tc.name}
		tc.do(l)
		got := l.verdict()
		if assert.Len(t, got, len(tc.want), "%s: %q", tc.name, got) {
			for i, want := range tc.want {
				assert.Contains(t, got[i], want)
			}
		}
	}

	// The counts go on where the descriptions end.
	l := new(Ledger)
	for range 3 * maxProblems {
		l.Sent()
		l.Lost("x")
	}
	assert.EqualValues(t, 3*maxProblems, l.lost.Load())
	assert.Len(t, l.problems, maxProblems)

	before := Usage{Goroutines: 100, Descriptors: 20}
	require.NoError(t, flat(before, Usage{Goroutines: 100 + moreGoroutines, Descriptors: 20 + moreDescriptors}))
	require.NoError(t, flat(before, Usage{}))
	require.ErrorContains(t, flat(before, Usage{Goroutines: 101 + moreGoroutines}), "goroutines, were 100")
	require.ErrorContains(t, flat(before, Usage{Descriptors: 21 + moreDescriptors}), "descriptors, were 20")

	out := table([]row{{name: "reload", duration: 1234 * time.Millisecond, sent: 5, answered: 4, lost: 1, peak: 1025, goroutines: "1→2", failed: true}})
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, 2)
	assert.Equal(t, []string{"reload", "1.2s", "5", "4", "0", "0", "1", "0", "2", "1→2", "FAILED"}, strings.Fields(lines[1]))
}
