package repeat

import (
	"context"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// callKey is the key of the Call in a context.
type callKey struct{}

// Into returns a context with which the store's first look-up for the call also marks it, in
// the same round trip. The look-up is made through Ownership or Activation.
func (c *Call) Into(ctx context.Context) context.Context { return context.WithValue(ctx, callKey{}, c) }

// In returns the Call of a context, or nil.
func In(ctx context.Context) *Call {
	c, _ := ctx.Value(callKey{}).(*Call)
	return c
}

// Ownership returns store. If ctx has a Call, its first look-up marks the call, and the claim or
// release that follows a Conclude keeps the outcome.
func Ownership(ctx context.Context, store ownership.Store) ownership.Store {
	if c := In(ctx); c != nil && store != nil {
		return markingOwnership{store, c}
	}
	return store
}

// markingOwnership is an ownership.Store whose first look-up marks a call, and whose last change
// keeps its outcome.
//
// A success of the authentication server must not be lost, whatever fails and whenever: the owner
// of a request is stored with the outcome or before it, because with the outcome alone the phone
// would have the request and no owner. A claim is removed with the outcome or without it: a claim
// that stays ends by itself. After an error, a change that is made again is made alone. The Call is
// not settled then, and its outcome is kept alone. A store that makes a change later does so itself.
type markingOwnership struct {
	ownership.Store

	call *Call
}

// Owner implements ownership.Store. Without the mark, the look-up is made alone.
func (o markingOwnership) Owner(ctx context.Context, kind ownership.Kind, key string) (ownership.Claim, bool, error) {
	if o.call.asks() {
		e, present, c, owned, err := o.call.store.MarkOwner(ctx, o.call.mark, kind, key)
		o.call.note(e, present, true, err)
		if err == nil {
			return c, owned, nil
		}
	}
	return o.Store.Owner(ctx, kind, key)
}

// Pending implements ownership.Store. Without the mark, the look-up is made alone.
func (o markingOwnership) Pending(ctx context.Context, kind ownership.Kind, serialNumber string) ([]ownership.Claim, error) {
	if o.call.asks() {
		e, present, claims, err := o.call.store.MarkPending(ctx, o.call.mark, kind, serialNumber)
		o.call.note(e, present, true, err)
		if err == nil {
			return claims, nil
		}
	}
	return o.Store.Pending(ctx, kind, serialNumber)
}

// Claim implements ownership.Store. If another caller has the request, the call failed for certain,
// and its mark is removed.
func (o markingOwnership) Claim(
	ctx context.Context, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration,
) (won bool, err error) {
	if !o.call.concluded() {
		return o.Store.Claim(ctx, kind, c, serialNumber, lifetime)
	}
	err = o.call.settle(func(m Mark, outcome []byte) error {
		won, err = o.call.store.KeepClaim(ctx, m, outcome, kind, c, serialNumber, lifetime)
		return err
	})
	return won, err
}

// Release implements ownership.Store.
func (o markingOwnership) Release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, serialNumber string) error {
	if !o.call.concluded() {
		return o.Store.Release(ctx, kind, key, token, serialNumber)
	}
	return o.call.settle(func(m Mark, outcome []byte) error {
		return o.call.store.KeepRelease(ctx, m, outcome, kind, key, token, serialNumber)
	})
}

// Activation returns store. If ctx has a Call, the first admission marks the call, and the removal
// that follows a Conclude keeps the outcome. Of a call that was found nothing is admitted. If ctx
// has a KeyCall, what is created is noted under its key.
func Activation(ctx context.Context, store activation.Store) activation.Store {
	if c := KeyIn(ctx); c != nil && store != nil {
		return keyedActivation{store, c}
	}
	if c := In(ctx); c != nil && store != nil {
		return markingActivation{store, c}
	}
	return store
}

// markingActivation is an activation.Store whose first admission marks a call, and whose removal
// keeps its outcome. If the admission fails, it may have admitted the call, so that it is not tried
// again. A registration that was not removed ends by itself.
type markingActivation struct {
	activation.Store

	call *Call
}

// AdmitDevice implements activation.Store.
func (a markingActivation) AdmitDevice(ctx context.Context, identifier string, maxAttempts int) (activation.Record, bool, error) {
	if !a.call.asks() {
		return a.Store.AdmitDevice(ctx, identifier, maxAttempts)
	}
	e, present, r, admitted, err := a.call.store.MarkDevice(ctx, a.call.mark, identifier, maxAttempts)
	a.call.note(e, present, admitted, err)
	return r, admitted, err
}

// AdmitConfirmation implements activation.Store.
func (a markingActivation) AdmitConfirmation(
	ctx context.Context, identifier string, maxAttempts int, kinds ...activation.Kind,
) (activation.Record, bool, error) {
	if !a.call.asks() {
		return a.Store.AdmitConfirmation(ctx, identifier, maxAttempts, kinds...)
	}
	e, present, r, admitted, err := a.call.store.MarkConfirmation(ctx, a.call.mark, identifier, maxAttempts, kinds...)
	a.call.note(e, present, admitted, err)
	return r, admitted, err
}

// Remove implements activation.Store.
func (a markingActivation) Remove(ctx context.Context, identifier string, generation activation.Generation) error {
	if !a.call.concluded() {
		return a.Store.Remove(ctx, identifier, generation)
	}
	return a.call.settle(func(m Mark, outcome []byte) error {
		return a.call.store.KeepRemove(ctx, m, outcome, identifier, generation)
	})
}

var (
	_ ownership.Store  = markingOwnership{}
	_ activation.Store = markingActivation{}
)
