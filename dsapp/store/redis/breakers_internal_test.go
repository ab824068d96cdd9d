package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// The number of breakers is bounded. Of many servers, the breakers of those that are not called any
// more are removed, and those in use are kept.
func TestBreakersAreRemoved(t *testing.T) {
	t.Parallel()
	bs := newBreakers(nil)
	gone, used := bs.breaker("10.0.0.1:6379"), bs.breaker("10.0.0.2:6379")
	for i := range 3 * maxBreakers {
		bs.breaker(fmt.Sprint(i))
		if bs.breaker("10.0.0.2:6379") != used {
			t.Fatal("the breaker of a server in use was removed")
		}
		if got := len(*bs.servers.Load()); got > maxBreakers {
			t.Fatalf("%d breakers, want at most %d", got, maxBreakers)
		}
	}
	if bs.breaker("10.0.0.1:6379") == gone {
		t.Error("the breaker of a server that is not called was kept")
	}
}

// While a server does not answer, one of many concurrent callers waits for it per cooldown, and
// the others fail at once. When it answers again, calls work within one cooldown. Each change
// is reported once.
func TestOneCallTries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const timeout = 100 * time.Millisecond
		var reports []error
		bs := newBreakers(func(_ context.Context, _ string, err error) { reports = append(reports, err) })
		answers := false
		sent := 0
		call := func() error {
			return bs.call(t.Context(), "server", func() error {
				sent++
				if answers {
					return nil
				}
				time.Sleep(timeout)
				return io.EOF
			})
		}
		start := time.Now()
		for range breakerFailures {
			if err := call(); !errors.Is(err, io.EOF) {
				t.Fatalf("error %v", err)
			}
		}
		if got := time.Since(start); got != breakerFailures*timeout {
			t.Errorf("%d calls took %v", breakerFailures, got)
		}
		const tries = 9
		sent = 0
		var callers sync.WaitGroup
		for range 16 {
			callers.Go(func() {
				for begin := time.Now(); time.Since(begin) < tries*(breakerCooldown+timeout); time.Sleep(timeout / 10) {
					if err := call(); !breaker.IsOpen(err) && !errors.Is(err, io.EOF) {
						t.Errorf("error %v", err)
					}
				}
			})
			synctest.Wait()
		}
		callers.Wait()
		if sent != tries {
			t.Errorf("%d calls were sent in %d cooldowns", sent, tries)
		}
		answers, start = true, time.Now()
		for call() != nil {
			time.Sleep(timeout / 10)
		}
		if got := time.Since(start); got > breakerCooldown {
			t.Errorf("a server that answers again is called after %v", got)
		}
		if len(reports) != 2 || reports[0] == nil || reports[1] != nil {
			t.Errorf("reports %v", reports)
		}
	})
}

// Errors of the connection are failures of the server. Errors that the server sent are answers.
// Errors of the caller or of the client say nothing about the server.
func TestOutcome(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(time.Hour))
	t.Cleanup(cancel)
	for _, tt := range []struct {
		ctx  context.Context
		err  error
		want breaker.Outcome
	}{
		{t.Context(), nil, breaker.Worked},
		{t.Context(), serverError("OOM command not allowed"), breaker.Worked},
		{t.Context(), fmt.Errorf("greeting: %w", serverError("NOAUTH Authentication required.")), breaker.Worked},
		{t.Context(), io.EOF, breaker.Failed},
		{t.Context(), context.DeadlineExceeded, breaker.Failed}, // of an attempt to connect
		{t.Context(), goredis.ErrPoolTimeout, breaker.Inconclusive},
		{t.Context(), goredis.ErrPoolExhausted, breaker.Inconclusive},
		{t.Context(), fmt.Errorf("redis: all sentinels specified in configuration are unreachable: %w", goredis.Nil), breaker.Failed},
		{t.Context(), errors.New("redis: can't parse reply"), breaker.Failed},
		{t.Context(), goredis.ErrClosed, breaker.Inconclusive},
		{ended, io.EOF, breaker.Inconclusive},
		{ended, serverError("READONLY"), breaker.Worked},
		{late, io.EOF, breaker.Failed},
		{past{t.Context()}, io.EOF, breaker.Inconclusive},
	} {
		if got := outcome(tt.ctx, tt.err); got != tt.want {
			t.Errorf("%v: outcome %d, want %d", tt.err, got, tt.want)
		}
	}
}

// past is a context whose deadline has passed and that has not ended yet.
type past struct{ context.Context }

func (past) Deadline() (time.Time, bool) { return time.Now(), true }
