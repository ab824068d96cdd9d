package activation

import (
	"context"
	"fmt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Admission is the right to make one call that follows the exchange, and says which
// registration it is for.
type Admission struct {
	Identifier form.Identifier
	Generation Generation
	Kind       Kind
	form.Subject
}

// Locate returns a KindAffinity registration whose lifetime has not passed, for the calls
// of an exchange that the authentication server carries out itself. It changes nothing. The
// error is ErrRefused or ErrUnknown, or wraps ErrUnavailable.
func (s *Service) Locate(ctx context.Context, identifier form.Identifier) (Admission, error) {
	v, err := s.open(ctx)
	if err != nil {
		return Admission{}, err
	}
	record, found, err := s.load(ctx, v.store, string(identifier))
	if err != nil {
		return Admission{}, err
	}
	if !found || record.Kind != KindAffinity || record.Lifetime <= 0 {
		return Admission{}, refusal(record, found)
	}
	return s.admission(ctx, v.ring, record)
}

// AdmitDevice consumes the right to add one device. A KindMDL registration has one such
// right for each successful proof, a KindAffinity registration has Config.MaxAttempts. The
// error is ErrRefused or ErrUnknown, or wraps ErrUnavailable.
func (s *Service) AdmitDevice(ctx context.Context, identifier form.Identifier) (Admission, error) {
	consume := func(ctx context.Context, store Store) (Record, bool, error) {
		return store.AdmitDevice(ctx, string(identifier), s.maxAttempts)
	}
	return s.admit(ctx, string(identifier), "admitting device", consume, s.ReturnDevice)
}

// ReturnDevice gives back the right consumed by AdmitDevice. For KindMDL it is meant for a
// call that was not sent, for KindAffinity for every call that the authentication server
// did not refuse. It works even if ctx has ended. The error wraps ErrUnavailable.
func (s *Service) ReturnDevice(ctx context.Context, a Admission) error {
	return s.callDetached(ctx, a, "returning device", Store.ReturnDevice)
}

// AdmitConfirmation counts one final call for a registration of one of the kinds. It admits
// at most Config.MaxAttempts of them and, except for KindAffinity, only after a successful
// proof. The error is ErrRefused or ErrUnknown, or wraps ErrUnavailable.
func (s *Service) AdmitConfirmation(ctx context.Context, identifier form.Identifier, kinds ...Kind) (Admission, error) {
	count := func(ctx context.Context, store Store) (Record, bool, error) {
		return store.AdmitConfirmation(ctx, string(identifier), s.maxAttempts, kinds...)
	}
	return s.admit(ctx, string(identifier), "admitting final call", count, s.ReturnConfirmation)
}

// ReturnConfirmation undoes the counting by AdmitConfirmation. For KindAffinity it is meant
// for every call that the authentication server did not refuse, for other kinds for a call
// that was not sent. It works even if ctx has ended. The error wraps ErrUnavailable.
func (s *Service) ReturnConfirmation(ctx context.Context, a Admission) error {
	return s.callDetached(ctx, a, "returning final call", Store.ReturnConfirmation)
}

// Complete removes the registration of a after the final call succeeded, unless it has been
// replaced. It works even if ctx has ended. The error wraps ErrUnavailable.
func (s *Service) Complete(ctx context.Context, a Admission) error {
	return s.callDetached(ctx, a, "removing registration", Store.Remove)
}

// admit has the store admit a call, and opens the subject of the registration.
func (s *Service) admit(
	ctx context.Context,
	identifier, what string,
	consume func(ctx context.Context, store Store) (Record, bool, error),
	giveBack func(context.Context, Admission) error,
) (Admission, error) {
	v, err := s.open(ctx)
	if err != nil {
		return Admission{}, err
	}
	record, ok, err := consume(ctx, v.store)
	if err != nil {
		return Admission{}, s.storeError(ctx, identifier, what, err)
	}
	if !ok {
		// Every refusal is followed by this look-up, so that all take the same time.
		record, found, err := s.load(ctx, v.store, identifier)
		if err != nil {
			return Admission{}, err
		}
		return Admission{}, refusal(record, found)
	}
	a, err := s.admission(ctx, v.ring, record)
	if err != nil {
		// The call is not made, so it must not use up the right. If giving it back fails
		// too, the first error is still the one to report.
		_ = giveBack(ctx, Admission{Identifier: form.Identifier(identifier), Generation: record.Generation})
		return Admission{}, err
	}
	return a, nil
}

// callDetached makes a store call for an admitted call that has ended, even if ctx has
// ended.
func (s *Service) callDetached(
	ctx context.Context, a Admission, what string, do func(store Store, ctx context.Context, identifier string, generation Generation) error,
) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	// The call needs no keys.
	store, _, err := s.opener(ctx)
	if store == nil {
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
	}
	if err := do(store, ctx, string(a.Identifier), a.Generation); err != nil {
		return s.storeError(ctx, string(a.Identifier), what, err)
	}
	return nil
}

// load returns the record of an identifier, and whether there is one.
func (s *Service) load(ctx context.Context, store Store, identifier string) (Record, bool, error) {
	record, found, err := store.Load(ctx, identifier)
	if err != nil {
		return Record{}, false, s.storeError(ctx, identifier, "loading registration", err)
	}
	return record, found, nil
}

// refusal returns ErrUnknown if there is no record or only a simulated one, else
// ErrRefused.
func refusal(record Record, found bool) error {
	if !found || record.Kind == KindSimulated {
		return ErrUnknown
	}
	return ErrRefused
}

func (s *Service) admission(ctx context.Context, ring *seal.Keyring, record Record) (Admission, error) {
	f, err := s.openSubject(ctx, ring, record)
	if err != nil {
		return Admission{}, err
	}
	return Admission{
		Identifier: form.Identifier(record.Identifier),
		Generation: record.Generation,
		Kind:       record.Kind,
		Subject:    f,
	}, nil
}
