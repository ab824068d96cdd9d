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
	// probeOperation is what a probe is called where commands have their names.
	probeOperation = "probe"
	// probesInTurn is how many trials of an open breaker the probe takes before one
	// is left to a command.
	probesInTurn = 4
	// secondProbe is how long after the first one failed an instance is probed
	// again, before its breaker opens.
	secondProbe = time.Second
)

// settle ends a call of the breaker and logs if that opens or closes it.
func (in *instance) settle(ctx context.Context, call breaker.Call, c *soap.Row, v *verdict) {
	in.changed(ctx, in.state.breaker.End(call, v.outcome, in.breaker), func() error {
		if v.reason == nil {
			return fmt.Errorf("status %s", v.answer.Codes.StatusCodeEnum)
		}
		if _, ok := errors.AsType[*soap.Fault](v.cause); ok {
			// Its texts can repeat what the command said; they are logged elsewhere.
			return errors.New("SOAP Fault")
		}
		return v.failure(in.name, c)
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
	missed := 0 // probes that failed as a trial, in a row
	answers := in.state.answers.Load()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		before := answers
		answers = in.state.answers.Load()
		if in.check(ctx, answers != before) {
			missed++
		} else {
			missed = 0
		}
		wait := interval
		if retryAfter := in.state.breaker.RetryAfter(); retryAfter > 0 {
			// The probe is to be the first to try, not a command. But it may be the
			// probe that does not work: now and then a command gets its turn.
			if wait = min(wait, retryAfter); missed%probesInTurn == probesInTurn-1 {
				wait += in.breaker.Cooldown
			}
		}
		next.Reset(wait)
	}
}

// check probes the instance, unless it answered commands and its breaker is closed.
// It reports whether that was the trial of an open breaker and failed. Once a probe
// has found the instance again, the trial is for a command.
func (in *instance) check(ctx context.Context, answered bool) (missed bool) {
	answers := in.state.answers.Load()
	var call breaker.Call
	var err error
	outcome := breaker.Inconclusive
	if !in.state.breaker.AwaitsCall() {
		if call, err = in.state.breaker.Begin(in.breaker); err != nil {
			return false // a command tries
		}
		defer func() { in.state.breaker.End(call, outcome, in.breaker) }()
	}
	if answered && !call.Trial() {
		return false
	}
	seen := in.state.reach.began()
	err = in.probe(ctx)
	if err != nil && !call.Trial() && pause(ctx, secondProbe) {
		err = in.probe(ctx)
	}
	switch {
	case ctx.Err() != nil:
	case err == nil:
		// Whether commands work again, a command has to show.
		outcome = breaker.Reached
		in.state.reach.ended(seen, true, func() { in.logReached(ctx, probeOperation) })
	default:
		in.state.reach.ended(seen, false, func() { in.logLost(ctx, probeOperation, err) })
		if call.Trial() {
			outcome = breaker.Failed
		} else if in.state.answers.Load() == answers {
			in.changed(ctx, in.state.breaker.Trip(in.breaker), func() error { return err })
		}
	}
	return outcome == breaker.Failed
}

// pause reports false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
