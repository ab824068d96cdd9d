package activation

import (
	"context"
	"fmt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Admission is the right to make one call that follows the exchange, with what
// is known of the registration.
type Admission struct {
	Identifier                             string
	Generation                             Generation
	Kind                                   Kind
	UserID, Domain, SerialNumber, Instance string
}

// AdmitDevice consumes the right to add one device: one for each successful
// proof of a KindMDL registration, without count for KindAffinity. The error is an
// *InvalidError for the form of the identifier, ErrRefused, also as ErrUnknown,
// or wraps ErrUnavailable.
func (s *Service) AdmitDevice(ctx context.Context, identifier string) (Admission, error) {
	if err := checkIdentifier(identifier); err != nil {
		return Admission{}, err
	}
	ring, err := s.ring(ctx)
	if err != nil {
		return Admission{}, err
	}
	record, ok, err := s.store.AdmitDevice(ctx, identifier)
	if err != nil {
		return Admission{}, fmt.Errorf("admitting device: %w", err)
	}
	if !ok {
		return Admission{}, s.refusal(ctx, identifier)
	}
	a, err := s.admission(ctx, ring, record)
	if err != nil {
		// The device was not added, so the right is not lost. Failing that too
		// changes nothing about the error to report.
		_ = s.ReturnDevice(ctx, Admission{Identifier: identifier, Generation: record.Generation})
		return Admission{}, err
	}
	return a, nil
}

// ReturnDevice gives the right of a back, for a call that was not sent. It does
// so even if ctx has ended. The error wraps ErrUnavailable.
func (s *Service) ReturnDevice(ctx context.Context, a Admission) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := s.store.ReturnDevice(ctx, a.Identifier, a.Generation); err != nil {
		return fmt.Errorf("returning device: %w", err)
	}
	return nil
}

// AdmitConfirmation counts one final call for a registration of one of the
// kinds: at most Config.MaxAttempts of them, and only after a successful proof;
// KindAffinity has neither condition. The error is an *InvalidError for the form of
// the identifier, ErrRefused, also as ErrUnknown, or wraps ErrUnavailable.
func (s *Service) AdmitConfirmation(ctx context.Context, identifier string, kinds ...Kind) (Admission, error) {
	if err := checkIdentifier(identifier); err != nil {
		return Admission{}, err
	}
	ring, err := s.ring(ctx)
	if err != nil {
		return Admission{}, err
	}
	record, ok, err := s.store.AdmitConfirmation(ctx, identifier, s.maxAttempts, kinds...)
	if err != nil {
		return Admission{}, fmt.Errorf("admitting final call: %w", err)
	}
	if !ok {
		return Admission{}, s.refusal(ctx, identifier)
	}
	return s.admission(ctx, ring, record)
}

// Complete removes the registration of a after the final call succeeded, unless
// it was replaced meanwhile. It does so even if ctx has ended. The error wraps
// ErrUnavailable.
func (s *Service) Complete(ctx context.Context, a Admission) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := s.store.Remove(ctx, a.Identifier, a.Generation); err != nil {
		return fmt.Errorf("removing registration: %w", err)
	}
	return nil
}

// refusal tells ErrUnknown from ErrRefused. It looks for every identifier alike.
func (s *Service) refusal(ctx context.Context, identifier string) error {
	record, found, err := s.store.Load(ctx, identifier)
	if err != nil {
		return fmt.Errorf("loading registration: %w", err)
	}
	if !found || record.Kind == KindSimulated {
		return ErrUnknown
	}
	return ErrRefused
}

func (s *Service) admission(ctx context.Context, ring *seal.Keyring, record Record) (Admission, error) {
	f, err := s.openFacts(ctx, ring, record)
	if err != nil {
		return Admission{}, err
	}
	return Admission{
		Identifier:   record.Identifier,
		Generation:   record.Generation,
		Kind:         record.Kind,
		UserID:       f.userID,
		Domain:       f.domain,
		SerialNumber: f.serialNumber,
		Instance:     f.instance,
	}, nil
}
