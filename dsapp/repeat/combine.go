package repeat

import (
	"context"

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

// Ownership returns store. If ctx has a Call, its first look-up marks the call.
func Ownership(ctx context.Context, store ownership.Store) ownership.Store {
	if c := In(ctx); c != nil && store != nil {
		return markingOwnership{store, c}
	}
	return store
}

// markingOwnership is an ownership.Store whose first look-up marks a call.
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

// Activation returns store. If ctx has a Call, the first admission marks the call. Of a call
// that was found nothing is admitted.
func Activation(ctx context.Context, store activation.Store) activation.Store {
	if c := In(ctx); c != nil && store != nil {
		return markingActivation{store, c}
	}
	return store
}

// markingActivation is an activation.Store whose first admission marks a call. If that fails,
// it may have admitted the call, so that it is not tried again.
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

var (
	_ ownership.Store  = markingOwnership{}
	_ activation.Store = markingActivation{}
)
