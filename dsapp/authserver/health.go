package authserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/breaker"
)

const (
	// probeOperation stands in logs where the name of a command would stand.
	probeOperation = "probe"
	// trialsPerCommand says how often a command gets the trial of an open breaker, if
	// probes keep failing: one trial in so many.
	trialsPerCommand = 4
	// secondProbeDelay is the time between a failed probe and the second one that decides
	// whether the breaker opens.
	secondProbeDelay = time.Second
)

// endBreakerCall tells the breaker the outcome of an attempt. It logs and reports if that
// opens or closes it.
func (in *instance) endBreakerCall(ctx context.Context, call breaker.Call, c *soap.Row, r *attemptResult) {
	in.tellBreakerChange(ctx, in.state.breaker.End(call, r.outcome, in.breaker), func() error {
		if r.reason == nil {
			return fmt.Errorf("status %s", r.answer.Codes.StatusCodeEnum)
		}
		if _, ok := errors.AsType[*soap.Fault](r.cause); ok {
			// logAttempt logs the texts of a Fault.
			return errors.New("SOAP Fault")
		}
		return r.err(in.name, c)
	})
}

// tellBreakerChange logs and reports that the breaker opened or closed. cause returns why it
// opened.
func (in *instance) tellBreakerChange(ctx context.Context, c breaker.Change, cause func() error) {
	switch c {
	case breaker.Opened:
		in.logger.LogAttrs(ctx, slog.LevelWarn, "circuit breaker of instance opened", slog.String("instance", in.name),
			slog.Duration("cooldown", in.breaker.Cooldown), slog.String("cause", truncate(cause().Error())))
	case breaker.Closed:
		in.logger.LogAttrs(ctx, slog.LevelInfo, "circuit breaker of instance closed", slog.String("instance", in.name))
	case breaker.Unchanged:
		return
	}
	in.breakerChanged(ctx, BreakerChange{Instance: in.name, Opened: c == breaker.Opened})
}

// Watch probes every instance that has a Probe at the given interval, until ctx ends. It
// skips an instance that has answered a command since the last probe. If two probes in a row
// fail, the breaker of the instance opens, so that no command has to wait for a connection
// that fails. The breaker closes when a probe has reached the instance again and the next
// command has succeeded.
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
	failedTrials := 0 // in a row
	answers := in.state.answers.Load()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		before := answers
		answers = in.state.answers.Load()
		if in.probeOnce(ctx, answers != before) {
			failedTrials++
		} else {
			failedTrials = 0
		}
		wait := interval
		if retryAfter := in.state.breaker.RetryAfter(); retryAfter > 0 {
			// The next trial is usually a probe, so that no command fails. Now and then
			// it is left to a command, as commands may work although probes fail.
			if wait = min(wait, retryAfter); failedTrials%trialsPerCommand == trialsPerCommand-1 {
				wait += in.breaker.Cooldown
			}
		}
		next.Reset(wait)
	}
}

// probeOnce probes the instance, unless it has answered commands and its breaker is closed.
// It reports whether the probe was the trial of an open breaker and failed. After a probe has
// reached the instance again, the next trial is left to a command.
func (in *instance) probeOnce(ctx context.Context, answered bool) (failedTrial bool) {
	answers := in.state.answers.Load()
	var call breaker.Call
	var err error
	outcome := breaker.Inconclusive
	if !in.state.breaker.AwaitsCall() {
		if call, err = in.state.breaker.Begin(in.breaker); err != nil {
			return false // a command is the trial
		}
		defer func() { in.state.breaker.End(call, outcome, in.breaker) }()
	}
	if answered && !call.Trial() {
		return false
	}
	seen := in.state.reachability.begin()
	err = in.probe(ctx)
	if err != nil && !call.Trial() && sleep(ctx, secondProbeDelay) {
		err = in.probe(ctx)
	}
	switch {
	case ctx.Err() != nil:
	case err == nil:
		// Only a command can show that commands work again.
		outcome = breaker.Reached
		in.state.reachability.record(seen, true, func() { in.logReachable(ctx, probeOperation) })
	default:
		in.state.reachability.record(seen, false, func() { in.logUnreachable(ctx, probeOperation, err) })
		if call.Trial() {
			outcome = breaker.Failed
		} else if in.state.answers.Load() == answers {
			in.tellBreakerChange(ctx, in.state.breaker.Trip(in.breaker), func() error { return err })
		}
	}
	return outcome == breaker.Failed
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
