package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// Servers that nothing is sent to any more are forgotten, so that their number is
// bounded, and those in use are not.
func TestGuardForgets(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	bs := newBreakers(nil, func() time.Time { return now })
	used := bs.breaker("10.0.0.1:6379")
	for range 10 {
		bs.breaker("10.0.0.2:6379")
		now = now.Add(breakerLifetime / 5)
		if bs.breaker("10.0.0.1:6379") != used {
			t.Fatal("a server in use was forgotten")
		}
	}
	now = now.Add(breakerLifetime)
	if bs.breaker("10.0.0.1:6379") == used {
		t.Error("a server that is gone was not forgotten")
	}
	if got := bs.byAddress.Len(); got != 1 {
		t.Errorf("%d servers are remembered, want 1", got)
	}
	for i := range 2 * maxBreakers {
		bs.breaker(fmt.Sprint(i))
	}
	if got := bs.byAddress.Len(); got != maxBreakers {
		t.Errorf("%d servers are remembered, want %d", got, maxBreakers)
	}
}

// See the table.
func TestOutcome(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	// Its time is up, and it does not know yet.
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
		{t.Context(), context.DeadlineExceeded, breaker.Failed}, // that of an attempt to connect
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

// past is a context whose deadline is over and that has not ended yet.
type past struct{ context.Context }

func (past) Deadline() (time.Time, bool) { return time.Now(), true }
