package authserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

// probeOperation is what a probe is called where commands have their names.
const probeOperation = "probe"

// unanswered tells what a command that was sent and not answered says about the
// instance.
func (c *command) unanswered(caller context.Context, reason error) breaker.Outcome {
	if caller.Err() != nil || c.waits && errors.Is(reason, ErrTimeout) {
		return breaker.Unjudged
	}
	return breaker.Failed
}

// judge ends a call of the breaker and logs if that opens or closes it. got and
// err are what came of the command.
func (in *instance) judge(ctx context.Context, call breaker.Call, outcome breaker.Outcome, got *answer, err error) {
	in.changed(ctx, in.state.breaker.End(call, outcome, in.breaker), func() error {
		if err == nil {
			return fmt.Errorf("status %s", got.codes.StatusCodeEnum)
		}
		return err
	})
}

// changed logs a change of the breaker.
func (in *instance) changed(ctx context.Context, c breaker.Change, cause func() error) {
	switch c {
	case breaker.Opened:
		in.logger.LogAttrs(ctx, slog.LevelWarn, "circuit breaker of instance opened", slog.String("instance", in.name),
			slog.Duration("cooldown", in.breaker.Cooldown), slog.String("cause", short(cause().Error())))
	case breaker.Closed:
		in.logger.LogAttrs(ctx, slog.LevelInfo, "circuit breaker of instance closed", slog.String("instance", in.name))
	case breaker.Unchanged:
	}
}

// Watch probes every instance that has a Probe at the given interval, until ctx
// ends. An instance that answered a command in the meantime is not probed. One
// that two probes in a row cannot reach gets no more commands until it can be
// reached again and the next command works: that costs no command the time that a
// connection takes to fail.
func (s *Servers) Watch(ctx context.Context, interval time.Duration) {
	var watching sync.WaitGroup
	for _, in := range s.instances {
		if in.probe != nil {
			watching.Go(func() { in.watch(ctx, interval) })
		}
	}
	watching.Wait()
}

func (in *instance) watch(ctx context.Context, interval time.Duration) {
	next := time.NewTimer(interval)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		in.check(ctx)
		wait := interval
		if retryAfter := in.state.breaker.RetryAfter(); retryAfter > 0 {
			// The probe is to be the first to try, not a command.
			wait = min(wait, retryAfter)
		}
		next.Reset(wait)
	}
}

// check probes the instance unless that is needless.
func (in *instance) check(ctx context.Context) {
	answered := in.state.answered.Swap(false)
	call, err := in.state.breaker.Begin(in.breaker)
	if err != nil {
		return // a command tries
	}
	outcome := breaker.Unjudged
	defer func() { in.state.breaker.End(call, outcome, in.breaker) }()
	if answered && !call.Trial() {
		return
	}
	seen := in.state.reach.began()
	err = in.probe(ctx)
	if err != nil && !call.Trial() && ctx.Err() == nil {
		err = in.probe(ctx)
	}
	switch {
	case ctx.Err() != nil:
	case err == nil:
		// Whether commands work again, a command has to show.
		in.state.reach.ended(seen, true, func() { in.logReached(ctx, probeOperation) })
	default:
		in.state.reach.ended(seen, false, func() { in.logLost(ctx, probeOperation, err) })
		if call.Trial() {
			outcome = breaker.Failed
		} else if !in.state.answered.Load() {
			in.changed(ctx, in.state.breaker.Trip(in.breaker), func() error { return err })
		}
	}
}
