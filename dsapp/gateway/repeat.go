package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

// Repeats gives a repeated call the answer of the first one. Begin returns nil if a call is
// to be carried out as if there were no repeats.
type Repeats interface {
	Begin(ctx context.Context, r repeat.Request) *repeat.Call
}

var _ Repeats = (*repeat.Service)(nil)

// RepeatOutcome is what became of a call that came before.
type RepeatOutcome string

// The outcomes of repeats.
const (
	// RepeatAnswered gave the answer of the first call again.
	RepeatAnswered RepeatOutcome = "answered"
	// RepeatUnknown said again that the outcome of the first call is unknown.
	RepeatUnknown RepeatOutcome = "unknown"
	// RepeatTimeout waited in vain for the outcome of the first call.
	RepeatTimeout RepeatOutcome = "timeout"
	// RepeatUnreadable could not open the outcome of the first call.
	RepeatUnreadable RepeatOutcome = "unreadable"
	// RepeatAbandoned was given up by its client while it waited.
	RepeatAbandoned RepeatOutcome = "abandoned"
	// RepeatUnderWay came while the first call with its idempotency key was under way.
	RepeatUnderWay RepeatOutcome = "under_way"
	// RepeatOtherBody had the idempotency key of a call with another body.
	RepeatOtherBody RepeatOutcome = "other_body"
)

// Repeatable reports whether a client that got no answer to the operation can call it again in the
// same way: it then gets the outcome of the first call, and nothing is carried out twice.
func (o Operation) Repeatable() bool {
	switch o {
	case OpAddDevice, OpActivate, OpActivateStandard, OpRetrieveLogin, OpCompleteLogin, OpCancelLogin,
		OpRetrieveSignature, OpCompleteSignature, OpCancelSignature:
		return true
	}
	return false
}

// errFound ends an operation whose call came before.
var errFound = errors.New("the same call came before")

// errUnknownOutcome is the cause of a repeated failure.
var errUnknownOutcome = errors.New("the outcome of the same call before is unknown")

// keptOutcome is the outcome of a call as it is kept.
type keptOutcome[R any] struct {
	// Failure is the kind of an unknown outcome, empty for a success.
	Failure FailureKind `json:"failure,omitempty"`
	// Result is the result of a success.
	Result *R `json:"result,omitempty"`
}

// outcomeOf returns the text of an outcome that is kept, or nil for that of a call that failed
// for certain.
func outcomeOf[R any](result R, err error) ([]byte, error) {
	failure, failed := errors.AsType[*Failure](err)
	switch {
	case err == nil:
		return json.Marshal(keptOutcome[R]{Result: &result})
	case failed && (failure.Kind == BadAnswer || failure.Kind == Timeout || failure.Kind == Internal):
		return json.Marshal(keptOutcome[R]{Failure: failure.Kind})
	}
	return nil, nil
}

// once carries out an operation, unless the same call came before and succeeded or had an
// unknown outcome: it then returns that outcome again. The operation do must call goOn after
// its first look-up in the store, and return the error of it. event is the audit event of a
// repeat. Before its last change of the store, do may call conclude.
func once[R any](ctx context.Context, g *Gateway, c Caller, op Operation, event AuditEvent, r repeat.Request, do func(context.Context) (R, error)) (R, error) {
	if g.repeats == nil {
		return do(ctx)
	}
	r.Application, r.Operation = c.Application, string(op)
	var deadline time.Time
	for {
		call := g.repeats.Begin(ctx, r)
		if call == nil {
			return do(ctx)
		}
		result, err := do(call.Into(ctx))
		if !call.Found() {
			keepOutcome(ctx, g, op, call, result, err)
			return result, err
		}
		if deadline.IsZero() {
			deadline = call.Deadline()
		}
		text, err := call.Await(ctx, deadline)
		if err == nil && text == nil {
			// The first call failed for certain.
			continue
		}
		outcome, result, err := readOutcome[R](text, err)
		g.repeated(ctx, RepeatEvent{Operation: op, Outcome: outcome})
		if outcome == RepeatAnswered {
			event.Action = AuditRepeated
			g.audit(ctx, c, op, event)
		}
		return result, err
	}
}

// readOutcome returns the outcome in text, or that of waiting for it with err.
func readOutcome[R any](text []byte, err error) (RepeatOutcome, R, error) {
	var result R
	switch {
	case errors.Is(err, repeat.ErrTimeout):
		return RepeatTimeout, result, &Failure{Kind: Timeout, Err: err}
	case errors.Is(err, repeat.ErrUnreadable):
		return RepeatUnreadable, result, &Failure{Kind: Unavailable, RetryAfter: retryUnavailable, Err: err}
	case err != nil:
		return RepeatAbandoned, result, &Failure{Kind: Timeout, Err: err}
	}
	var kept keptOutcome[R]
	if err := json.Unmarshal(text, &kept); err != nil || kept.Failure == "" && kept.Result == nil {
		return RepeatUnreadable, result, &Failure{Kind: Unavailable, RetryAfter: retryUnavailable, Err: repeat.ErrUnreadable}
	}
	if kept.Failure != "" {
		return RepeatUnknown, result, &Failure{Kind: kept.Failure, Err: errUnknownOutcome}
	}
	return RepeatAnswered, *kept.Result, nil
}

// keepOutcome keeps a success and an unknown outcome of a marked call, and removes the mark of
// a call that failed for certain. If that fails, the mark ends by itself. It does the same, without
// a word about a failure, if the store failed to mark the call but may have the mark.
func keepOutcome[R any](ctx context.Context, g *Gateway, op Operation, call *repeat.Call, result R, err error) {
	if call.Settled() || !call.Marked() && !call.MayBeMarked() {
		return
	}
	if what, failed := settle(ctx, call, result, err); call.Marked() {
		g.logCleanup(ctx, op, what, failed)
	}
}

// markedCall is a call that has a mark in the store.
type markedCall interface {
	Keep(ctx context.Context, outcome []byte) error
	Forget(ctx context.Context) error
}

// settle keeps a success and an unknown outcome of a call, and removes the mark of one that failed for
// certain. It returns which of these it did, for the log, and the error of it.
func settle[R any](ctx context.Context, call markedCall, result R, err error) (what string, failed error) {
	text, err := outcomeOf(result, err)
	switch {
	case err == nil && text == nil:
		return "removing the mark of a call", call.Forget(ctx)
	case err == nil:
		err = call.Keep(ctx, text)
	}
	return "keeping the outcome of a call", err
}

// conclude has the change of the store that follows keep the outcome of the call of ctx.
func conclude[R any](ctx context.Context, result R, err error) {
	call := repeat.In(ctx)
	if call == nil || !call.Marked() {
		return
	}
	// A result consists of strings, which can be encoded.
	if text, err := outcomeOf(result, err); err == nil {
		call.Conclude(text)
	}
}

// goOn returns the context for the rest of an operation after its first look-up in the store,
// or errFound if the same call came before. A marked call does not end with its client, whose
// repeat waits for the outcome.
func goOn(ctx context.Context) (context.Context, error) {
	call := repeat.In(ctx)
	switch {
	case call == nil:
		return ctx, nil
	case call.Found():
		return nil, errFound
	case call.Marked():
		return context.WithoutCancel(ctx), nil
	}
	return ctx, nil
}

// markAlone marks a call whose look-up in the store did not: the one for a registration that
// the gateway does not know.
func markAlone(ctx context.Context) {
	if call := repeat.In(ctx); call != nil {
		call.Mark(ctx)
	}
}
