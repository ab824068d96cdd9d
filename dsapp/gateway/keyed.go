package gateway

import (
	"context"
	"errors"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

// Keys finds the registration that a call with the same idempotency key has made.
type Keys interface {
	Begin(ctx context.Context, r repeat.KeyRequest) (*repeat.KeyCall, error)
}

var _ Keys = (*repeat.Keys)(nil)

// keyed carries out an operation that registers, unless the caller has used its idempotency key
// before: it then returns what became of that call. event is the audit event of a repeat.
func keyed[R any](ctx context.Context, g *Gateway, c Caller, op Operation, event AuditEvent, do func(context.Context) (R, error)) (R, error) {
	if g.keys == nil || c.IdempotencyKey == "" {
		return do(ctx)
	}
	var none R
	for {
		call, err := g.keys.Begin(ctx, repeat.KeyRequest{
			Application: c.Application, Operation: string(op), Key: string(c.IdempotencyKey), Body: c.Body,
		})
		if err != nil {
			return none, &Failure{Kind: Unavailable, RetryAfter: retryAfter(err), Err: err}
		}
		if call.First() {
			// The call does not end with its client, which will ask for its outcome. That of a
			// success is kept with the registration.
			result, err := do(call.Into(context.WithoutCancel(ctx)))
			if err != nil {
				what, failed := settle(ctx, call, result, err)
				g.logCleanup(ctx, op, what, failed)
			}
			return result, err
		}
		text, err := call.Outcome(ctx)
		if err == nil && text == nil {
			// The registration is over.
			continue
		}
		outcome, result, err := readKeyed[R](text, err)
		if outcome != "" {
			g.repeated(ctx, RepeatEvent{Operation: op, Outcome: outcome})
		}
		if outcome == RepeatAnswered {
			event.Action, event.Registration = AuditRepeated, form.Identifier(call.Registration())
			g.audit(ctx, c, op, event)
		}
		return result, err
	}
}

// readKeyed returns the outcome in text, or that of looking for it with err. The RepeatOutcome is
// empty if it is not known what became of the first call.
func readKeyed[R any](text []byte, err error) (RepeatOutcome, R, error) {
	var none R
	switch {
	case errors.Is(err, repeat.ErrUnderWay):
		return RepeatUnderWay, none, &Failure{Kind: UnderWay, RetryAfter: retryBusy, Err: err}
	case errors.Is(err, repeat.ErrOtherBody):
		return RepeatOtherBody, none, &Failure{Kind: KeyReused, Err: err}
	case errors.Is(err, repeat.ErrNoOutcome):
		return RepeatUnknown, none, &Failure{Kind: Timeout, Err: err}
	case errors.Is(err, activation.ErrUnavailable):
		return "", none, &Failure{Kind: Unavailable, RetryAfter: retryAfter(err), Err: err}
	}
	return readOutcome[R](text, err)
}

// answering returns what activation.Registration.Answer is in an operation with this result: nil
// without an idempotency key.
func answering[R any](ctx context.Context, result func(activation.Registered) R) func(activation.Registered) ([]byte, error) {
	call := repeat.KeyIn(ctx)
	if call == nil {
		return nil
	}
	return func(registered activation.Registered) ([]byte, error) {
		text, err := outcomeOf(result(registered), nil)
		if err != nil {
			return nil, err
		}
		return call.SealAnswer(text)
	}
}
