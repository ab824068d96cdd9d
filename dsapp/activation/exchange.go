package activation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Challenge is the server's answer to the client's public value.
type Challenge struct {
	// ServerPublic and Salt are texts of the profile.
	ServerPublic, Salt string
	// Contended says that a handshake of another address or application waits for its
	// proof. It is true at most once in ContentionInterval for each identifier, registered
	// or not. It is for the operator and must not reach the client.
	Contended bool
}

// Origin is where a call of an exchange comes from.
type Origin struct {
	// Address is the client's address in the form in which rate limits count it, such as
	// "192.0.2.1" or "2001:db8::/64". The store gets only a keyed hash of it.
	Address string
	// Application is the name of the application that the API key belongs to. The store
	// gets only a keyed hash of it.
	Application string
	// Profile is the name of the profile of the application; empty for the first one of
	// Config.Profiles. For the application, registrations of another profile are unknown.
	Profile string
}

// Begin starts an exchange: it takes the client's public value A, stores a handshake and
// returns B and the salt. The new handshake replaces a waiting one of the same address, or
// the oldest if MaxHandshakes others wait. Identifiers without an exchange, and those of
// another profile than that of the caller, get an answer of the same form.
//
// The error is an *InvalidError for an A that the profile does not accept, ErrBusy, or wraps
// ErrUnavailable.
func (s *Service) Begin(ctx context.Context, identifier form.Identifier, clientPublic form.ClientPublic, from Origin) (_ Challenge, err error) {
	start := time.Now()
	p, err := s.offer(from.Profile)
	if err != nil {
		return Challenge{}, err
	}
	defer func() { s.observeStep(ctx, p, StepEphemeralKey, start, StepAnswered, err) }()
	a, err := p.ParsePublic(string(clientPublic))
	if err != nil {
		return Challenge{}, &InvalidError{Member: memberPublic, Problem: err.Error()}
	}
	id := string(identifier)
	v, err := s.open(ctx)
	if err != nil {
		return Challenge{}, err
	}
	h, c, err := s.begin(ctx, v, p, id, a, from)
	if err != nil {
		return Challenge{}, err
	}
	if c.Contended, err = v.store.PutHandshake(ctx, id, h); err != nil {
		return Challenge{}, s.storeError(ctx, id, "storing handshake", err)
	}
	return c, nil
}

// begin computes handshake and answer of the first call.
func (s *Service) begin(ctx context.Context, v openStore, p *offer, identifier string, clientPublic []byte, from Origin) (Handshake, Challenge, error) {
	secret, err := s.simulationSecret(ctx, v)
	if err != nil {
		return Handshake{}, Challenge{}, err
	}
	d, err := p.decoyFor(v.ring)
	if err != nil {
		return Handshake{}, Challenge{}, err
	}
	record, found, err := s.load(ctx, v.store, identifier)
	if err != nil {
		return Handshake{}, Challenge{}, err
	}

	leave, err := s.gate.enter()
	if err != nil {
		return Handshake{}, Challenge{}, err
	}
	defer leave()

	h := Handshake{
		// All handshakes of an identifier without a record have the same generation, as
		// those of a record have.
		Generation:     Generation(tag(secret, tagGeneration, identifier, "")),
		Source:         tag(secret, tagSource, identifier, from.Address),
		Application:    tag(secret, tagApplication, identifier, from.Application),
		Lifetime:       s.handshakeLifetime,
		Simulated:      !found || record.Kind == KindSimulated,
		RecordLifetime: s.registrationLifetime,
	}
	if found {
		h.Generation = record.Generation
	}
	j := beginJob{
		profile: p, ring: v.ring, secret: secret, identifier: identifier, clientPublic: clientPublic,
		credential: d.credential, label: handshakeLabel(identifier, h.Generation),
	}
	if found && record.usable() {
		j.registered, j.credential = true, sealedValue{recordLabel(sealedVerifier, record), record.Verifier}
	}
	if err := s.gate.compute(ctx, &j); err != nil {
		return Handshake{}, Challenge{}, err
	}
	if errors.Is(j.err, seal.ErrUnopened) {
		return Handshake{}, Challenge{}, s.unopenedError(ctx, identifier, sealedVerifier)
	}
	h.State = j.handshake
	return h, j.challenge, j.err
}

// Prove ends an exchange: it verifies the client's evidence M1 and, if it is right, returns
// the server's evidence and the encrypted activation data. Evidence of the right form uses
// up a handshake and reserves an attempt before it is verified; right evidence gives the
// attempt back. The handshake is that of the caller's address or, if there is none, the
// newest, because a phone may change its network between the calls.
//
// The error is an *InvalidError for evidence that the profile does not accept, or ErrBusy;
// nothing was used up then. It is ErrRefused or a *BurnedError for every other refusal, or
// wraps ErrUnavailable.
func (s *Service) Prove(ctx context.Context, identifier form.Identifier, evidence form.ClientEvidence, from Origin) (_ Proof, err error) {
	start := time.Now()
	p, err := s.offer(from.Profile)
	if err != nil {
		return Proof{}, err
	}
	defer func() { s.observeStep(ctx, p, StepActivationData, start, StepProven, err) }()
	m1, err := p.ParseEvidence(string(evidence))
	if err != nil {
		return Proof{}, &InvalidError{Member: memberEvidence, Problem: err.Error()}
	}
	id := string(identifier)
	v, err := s.open(ctx)
	if err != nil {
		return Proof{}, err
	}
	secret, err := s.simulationSecret(ctx, v)
	if err != nil {
		return Proof{}, err
	}
	d, err := p.decoyFor(v.ring)
	if err != nil {
		return Proof{}, err
	}
	j := verifyJob{profile: p, ring: v.ring, handshake: d.handshake, decoy: d.handshake, identifier: id, evidence: m1}
	a, err := s.attempt(ctx, v, j, tag(secret, tagSource, id, from.Address))
	if err != nil {
		return Proof{}, err
	}
	if a.proven {
		defer a.session.Clear()
	}

	// The reserved attempt is settled even if the client has gone.
	settling, cancel := detached(ctx)
	defer cancel()
	record, settled, err := v.store.Settle(settling, id, Settlement{
		Generation:     a.generation,
		Token:          a.token,
		Proven:         a.proven,
		MaxAttempts:    s.maxAttempts,
		MaxActivations: s.maxActivations,
	})
	switch {
	case a.failed != nil:
		return Proof{}, a.failed
	case a.unopened:
		return Proof{}, s.unopenedError(ctx, id, sealedHandshake)
	case err != nil:
		return Proof{}, s.storeError(ctx, id, "settling proof", err)
	case !settled || !a.proven:
		s.logger.InfoContext(ctx, "proof refused", slog.String("registration", id), slog.String("reason", a.reason()))
		return Proof{}, s.refused(settling, v, id, a)
	}
	return s.deliver(ctx, v.ring, record, a.outcome)
}

// attempt is the verification of evidence, against a handshake or against the decoy.
type attempt struct {
	outcome
	token      Token
	generation Generation
	// taken says whether there was a handshake to take.
	taken bool
	// failed is the error if nothing was computed.
	failed error
}

// attempt takes the handshake of an identifier for a source and does the job with it, or with
// the decoy if there is none.
func (s *Service) attempt(ctx context.Context, v openStore, j verifyJob, source Tag) (attempt, error) {
	leave, err := s.gate.enter()
	if err != nil {
		return attempt{}, err
	}
	defer leave()
	if err := ctx.Err(); err != nil {
		return attempt{}, fmt.Errorf("%w: taking handshake: %w", ErrUnavailable, context.Cause(ctx))
	}
	// From here on the attempt may be reserved. It is verified and settled even if the
	// client goes, so that it does not stay in flight.
	ctx, cancel := detached(ctx)
	defer cancel()
	a := attempt{token: random16()}
	h, taken, err := v.store.Take(ctx, j.identifier, a.token, source, s.maxAttempts)
	if err != nil {
		return attempt{}, s.storeError(ctx, j.identifier, "taking handshake", err)
	}
	if taken {
		a.taken, a.generation = true, h.Generation
		j.handshake = sealedValue{handshakeLabel(j.identifier, h.Generation), h.State}
	}
	a.failed = s.gate.compute(ctx, &j)
	a.outcome = j.outcome
	return a, nil
}

// BurnedError is the ErrRefused of a proof that burned its registration by using up the last
// attempt. Its text is that of ErrRefused. Several proofs that are refused at the same time
// may have it.
type BurnedError struct {
	// Admission identifies the registration. It admits nothing.
	Admission
}

// Error returns the text of ErrRefused.
func (e *BurnedError) Error() string { return ErrRefused.Error() }

// Unwrap returns ErrRefused.
func (e *BurnedError) Unwrap() error { return ErrRefused }

// refused returns the error of a refused proof. It looks the registration up after every
// refusal, so that all take the same time. Only for a registration that was just burned it
// does more. A failing look-up does not change the refusal.
func (s *Service) refused(ctx context.Context, v openStore, identifier string, a attempt) error {
	record, found, err := s.load(ctx, v.store, identifier)
	if err != nil {
		s.logger.WarnContext(ctx, "a proof was refused; whether this burned its registration is not known",
			slog.String("registration", identifier), slog.Any("error", err))
		return ErrRefused
	}
	if !found || !a.taken || record.Generation != a.generation || !record.burned() {
		return ErrRefused
	}
	registration, err := s.admission(ctx, v.ring, record)
	if err != nil {
		// The error was logged. What is known is enough for the event.
		registration = Admission{Identifier: form.Identifier(identifier), Generation: record.Generation, Kind: record.Kind}
	}
	return &BurnedError{Admission: registration}
}

// reason returns why a proof was refused, for the log.
func (a attempt) reason() string {
	switch {
	case !a.taken:
		return "no handshake or no attempt left"
	case a.otherProfile:
		return "the registration, or the first call, is of another profile than that of the application"
	case !a.genuine:
		return "no registration with an exchange"
	case !a.proven:
		return "wrong evidence"
	default:
		return "no activation left or registration gone"
	}
}

// deliver encrypts the activation data of a settled proof for the phone.
func (s *Service) deliver(ctx context.Context, ring *seal.Keyring, record Record, o outcome) (Proof, error) {
	plaintext, err := ring.Open(recordLabel(sealedData, record), record.Data)
	if err != nil {
		return Proof{}, s.unopenedError(ctx, record.Identifier, sealedData)
	}
	defer clear(plaintext)
	p := Proof{Evidence: o.serverEvidence}
	ok, err := p.sealData(o.session, record.Kind, plaintext)
	if err != nil {
		return Proof{}, err
	}
	if !ok {
		return Proof{}, s.unopenedError(ctx, record.Identifier, sealedData)
	}
	return p, nil
}
