// Package poll waits for states that other goroutines or processes bring about.
package poll

import (
	"testing"
	"time"
)

// Patience is how long a test waits for something that happens at once on an idle
// machine. A test that waits this long has failed: a shorter time would only make it
// fail on a slow machine, too.
const Patience = time.Minute

const interval = 5 * time.Millisecond

// Until returns when done reports true. It fails the test after Patience, naming what
// it waited for.
func Until(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	timeout := time.After(Patience)
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			tb.Fatalf("after %v: still waiting for %s", Patience, what)
		}
	}
}

// Receive returns the next value of a channel, or the zero value if it is closed. It
// fails the test after Patience, naming what it waited for.
func Receive[T any](tb testing.TB, what string, c <-chan T) (value T) {
	tb.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	select {
	case value = <-c:
	case <-timeout.C:
		tb.Fatalf("after %v: still waiting for %s", Patience, what)
	}
	return value
}
