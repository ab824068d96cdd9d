package activation

import (
	"context"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// Inspection is what an operator may see of a registration. It holds no secret.
type Inspection struct {
	form.Subject
	// State is without the sealed members of the record.
	State

	// MaxAttempts and MaxActivations are the configured limits.
	MaxAttempts, MaxActivations int
}

// Inspect returns what is stored about a registration, also a burned one. It changes nothing.
// The error is ErrUnknown for an identifier that nobody registered, or wraps ErrUnavailable.
func (s *Service) Inspect(ctx context.Context, identifier form.Identifier) (Inspection, error) {
	v, err := s.open(ctx)
	if err != nil {
		return Inspection{}, err
	}
	state, found, err := v.store.Inspect(ctx, string(identifier))
	if err != nil {
		return Inspection{}, s.storeError(ctx, string(identifier), "inspecting registration", err)
	}
	if !found || state.Kind == KindSimulated {
		return Inspection{}, ErrUnknown
	}
	x := Inspection{State: state, MaxAttempts: s.maxAttempts, MaxActivations: s.maxActivations}
	x.Subject, err = s.openSubject(ctx, v.ring, state.Record)
	x.Facts = nil
	return x, err
}

// Burn ends a registration, so that nothing can be done with it any more, and returns which
// one it was. The identifier stays taken for the lifetime of the registration and
// TombstoneLifetime. Calls that were admitted before go on. It works even if ctx has ended.
// The error is ErrUnknown for an identifier that nobody registered, or wraps ErrUnavailable.
func (s *Service) Burn(ctx context.Context, identifier form.Identifier) (Admission, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	v, err := s.open(ctx)
	if err != nil {
		return Admission{}, err
	}
	record, found, err := v.store.Burn(ctx, string(identifier), s.maxAttempts)
	if err != nil {
		return Admission{}, s.storeError(ctx, string(identifier), "burning registration", err)
	}
	if !found {
		return Admission{}, ErrUnknown
	}
	a := Admission{Identifier: identifier, Generation: record.Generation, Kind: record.Kind}
	// It is burned, also if nobody can read whose it was, which raises an alarm.
	a.Subject, _ = s.openSubject(ctx, v.ring, record)
	return a, nil
}
