package activation

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// maxCreates is how often storing a registration is tried while its drawn identifier is
// taken, or while the registration that it replaces changes.
const maxCreates = 8

// Registration is a pending activation to be stored.
type Registration struct {
	// Identifier is that of the authentication server. For KindStandard it may be empty:
	// then the Service draws one.
	Identifier form.Identifier
	// Kind is KindMDL, KindStandard or KindAffinity.
	Kind Kind
	// Subject has at least a user and an instance. No member is longer than form.MaxStoredText
	// bytes.
	form.Subject
	// Profile is the name of the profile of the exchange; empty for the first one of
	// Config.Profiles. KindAffinity has none.
	Profile form.ProfileName
	// Data is what the phone will get; empty for KindAffinity.
	Data ActivationData
	// Answer returns the sealed answer to whoever registers, which is kept with the registration;
	// nil for none.
	Answer func(Registered) ([]byte, error)
	// Started is when the lifetime began. That is before the call of the authentication
	// server, so that the server's own registration does not end first.
	Started time.Time
}

// Registered is the result of Register.
type Registered struct {
	Identifier form.Identifier
	// Password is the activation password, which is not stored. Empty for KindAffinity.
	Password string
	// ExpiresAt is Registration.Started plus the registration lifetime.
	ExpiresAt time.Time
}

// Register stores a registration, and draws its activation password if its kind has an
// exchange. It replaces a registration under the same identifier if that has the same
// instance, user and domain, or is simulated.
//
// The error is an *InvalidError for values that cannot be registered, ErrExists, ErrExpired
// or wraps ErrUnavailable.
func (s *Service) Register(ctx context.Context, r Registration) (Registered, error) {
	data, err := r.check()
	if err != nil {
		return Registered{}, err
	}
	defer clear(data)
	expires := r.Started.Add(s.registrationLifetime)
	if s.remainingLifetime(r.Started) <= 0 {
		return Registered{}, ErrExpired
	}
	v, err := s.open(ctx)
	if err != nil {
		return Registered{}, err
	}

	identifier := r.Identifier
	for range maxCreates {
		if r.Identifier == "" {
			identifier = form.Identifier(generator{alphabet: alphanumeric, length: drawnIdentifierLength}.draw())
		}
		record, password, err := s.newRecord(ctx, v, string(identifier), r, data)
		if err != nil {
			return Registered{}, err
		}
		registered := Registered{Identifier: identifier, Password: password, ExpiresAt: expires}
		if r.Answer != nil {
			if record.Answer, err = r.Answer(registered); err != nil {
				return Registered{}, err
			}
		}
		created, err := s.create(ctx, v, record, r)
		if err != nil {
			return Registered{}, err
		}
		if created {
			return registered, nil
		}
	}
	return Registered{}, errors.New("all drawn registration identifiers are taken")
}

// remainingLifetime returns what is left of the lifetime of a registration.
func (s *Service) remainingLifetime(started time.Time) time.Duration {
	return s.registrationLifetime - max(0, s.now().Sub(started))
}

// newRecord makes the sealed record of a registration and its password.
func (s *Service) newRecord(ctx context.Context, v openStore, identifier string, r Registration, data []byte) (Record, string, error) {
	record := Record{Identifier: identifier, Generation: random16(), Kind: r.Kind}
	plainFacts := encodeSubject(r.Subject)
	defer clear(plainFacts)
	var err error
	if record.Facts, err = v.ring.Seal(recordLabel(sealedFacts, record), plainFacts); err != nil {
		return Record{}, "", err
	}
	if r.Kind == KindAffinity {
		return record, "", nil
	}
	secret, err := s.simulationSecret(ctx, v)
	if err != nil {
		return Record{}, "", err
	}
	password := s.password.draw()
	profile, err := s.offer(string(r.Profile))
	if err != nil {
		return Record{}, "", err
	}
	j := credentialJob{profile: profile, secret: secret, identifier: identifier, password: password}
	if err := s.gate.compute(ctx, &j); err != nil {
		return Record{}, "", err
	}
	defer clear(j.credential)
	plaintext, value := withName(j.profile, len(j.credential))
	defer clear(plaintext)
	copy(value, j.credential)
	if record.Verifier, err = v.ring.Seal(recordLabel(sealedVerifier, record), plaintext); err != nil {
		return Record{}, "", err
	}
	if record.Data, err = v.ring.Seal(recordLabel(sealedData, record), data); err != nil {
		return Record{}, "", err
	}
	return record, password, nil
}

// create stores record, and replaces an existing one if it may. It returns false if the
// drawn identifier is taken.
func (s *Service) create(ctx context.Context, v openStore, record Record, r Registration) (bool, error) {
	var replaces Generation
	for range maxCreates {
		if record.Lifetime = s.remainingLifetime(r.Started); record.Lifetime <= 0 {
			return false, ErrExpired
		}
		existing, created, err := v.store.Create(ctx, record, replaces)
		if err != nil {
			return false, s.storeError(ctx, record.Identifier, "storing registration", err)
		}
		if created {
			return true, nil
		}
		if r.Identifier == "" {
			return false, nil
		}
		f, err := s.openSubject(ctx, v.ring, existing)
		if err != nil {
			return false, err
		}
		if !mayReplace(r.Subject, f) {
			break
		}
		replaces = existing.Generation
	}
	s.logger.WarnContext(ctx, "registration refused: its identifier belongs to another user, domain or instance", slog.String("registration", record.Identifier))
	return false, ErrExists
}

// openSubject opens the subject of a stored registration.
func (s *Service) openSubject(ctx context.Context, ring *seal.Keyring, record Record) (form.Subject, error) {
	plaintext, err := ring.Open(recordLabel(sealedFacts, record), record.Facts)
	if err != nil {
		return form.Subject{}, s.unopenedError(ctx, record.Identifier, sealedFacts)
	}
	defer clear(plaintext)
	f, ok := decodeSubject(plaintext)
	if !ok {
		return form.Subject{}, s.unopenedError(ctx, record.Identifier, sealedFacts)
	}
	return f, nil
}

// check returns the encoded activation data if r can be registered.
func (r Registration) check() ([]byte, error) {
	switch r.Kind {
	case KindMDL, KindStandard, KindAffinity:
	default:
		return nil, &InvalidError{Member: "kind", Problem: "cannot be registered"}
	}
	if r.Identifier == "" && r.Kind != KindStandard {
		return nil, &InvalidError{Member: memberIdentifier, Problem: "is missing"}
	}
	if r.Started.IsZero() {
		return nil, &InvalidError{Member: "started", Problem: "is missing"}
	}
	return r.Data.encode(r.Kind)
}
