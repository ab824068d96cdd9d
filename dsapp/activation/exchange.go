package activation

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// Challenge is the server's answer to the client's public value.
type Challenge struct {
	// ServerPublic is B: two upper-case hex digits for each byte of the prime.
	ServerPublic string
	// Salt is 32 upper-case hex digits.
	Salt string
	// Contended says that the operator, and nobody else, should be told: a handshake
	// of another address or application waits for its proof. It is said at most once
	// in ContentionInterval for each identifier, registered or not.
	Contended bool
}

// Origin is where a call of an exchange comes from.
type Origin struct {
	// Address is that of the client in the form in which it is counted, such as
	// "192.0.2.1" or "2001:db8::/64". The store learns a keyed hash of it only.
	Address string
	// Application is the name of the holder of the key. It is kept as a keyed hash,
	// too.
	Application string
}

// Begin starts an exchange: it takes the client's public value A, keeps a
// handshake and returns B and the salt. A handshake of the same address that waited
// for its proof is replaced, and the oldest one of MaxHandshakes others.
// Identifiers without an exchange get an answer of the same form.
//
// The error is an *InvalidError for the form of A or of the identifier, ErrBusy,
// or wraps ErrUnavailable.
func (s *Service) Begin(ctx context.Context, identifier, clientPublic string, from Origin) (Challenge, error) {
	if _, err := s.profile.ParsePublic(clientPublic); err != nil {
		return Challenge{}, invalidPublic(err)
	}
	if err := checkIdentifier(identifier); err != nil {
		return Challenge{}, err
	}
	v, err := s.open(ctx)
	if err != nil {
		return Challenge{}, err
	}
	h, c, err := s.begin(ctx, v, identifier, clientPublic, from)
	if err != nil {
		return Challenge{}, err
	}
	if c.Contended, err = v.store.PutHandshake(ctx, identifier, h); err != nil {
		return Challenge{}, s.failed(ctx, identifier, "storing handshake", err)
	}
	return c, nil
}

// begin computes the server's part of the first call.
func (s *Service) begin(ctx context.Context, v vault, identifier, clientPublic string, from Origin) (Handshake, Challenge, error) {
	secret, err := s.simulationSecret(ctx, v)
	if err != nil {
		return Handshake{}, Challenge{}, err
	}
	d, err := s.decoyFor(v.ring)
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
		// The handshakes of an identifier without a record share one, as those of a
		// record do.
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
	genuine, known := 0, d.credential
	if found && record.usable() {
		genuine, known = 1, sealedValue{recordLabel(sealedVerifier, record), record.Verifier}
	}
	var c Challenge
	var failed error
	if err := s.gate.compute(ctx, func() {
		var state handshakeState
		state, failed = challenge(v.ring, known, genuine, secret, identifier, clientPublic)
		if errors.Is(failed, errOutOfRange) {
			state, failed = challenge(v.ring, d.credential, 0, secret, identifier, clientPublic)
		}
		if failed != nil {
			return
		}
		defer clear(state.verifier)
		defer clear(state.private)
		c = Challenge{ServerPublic: upperHex(state.public), Salt: upperHex(state.salt)}
		encoded := state.encode()
		defer clear(encoded)
		h.State, failed = v.ring.Seal(handshakeLabel(identifier, h.Generation), encoded)
	}); err != nil {
		return Handshake{}, Challenge{}, err
	}
	if errors.Is(failed, seal.ErrUnopened) {
		return Handshake{}, Challenge{}, s.unopened(ctx, identifier, sealedVerifier)
	}
	return h, c, failed
}

// errOutOfRange is the error of challenge for an A that the configured profile
// takes and that of the registration does not, which is older then. Such an
// exchange cannot succeed.
var errOutOfRange = errors.New("client public value is out of the range of the registration's profile")

// challenge computes B from the known credential if genuine is 1, else from a
// simulated one. Both are derived and one is selected, so that the work is the
// same. The error is seal.ErrUnopened for a credential that cannot be read.
func challenge(ring *seal.Keyring, known sealedValue, genuine int, secret []byte, identifier, clientPublic string) (handshakeState, error) {
	plaintext, err := ring.Open(known.label, known.bytes)
	if err != nil {
		return handshakeState{}, err
	}
	defer clear(plaintext)
	c, ok := decodeCredential(plaintext)
	if !ok {
		return handshakeState{}, seal.ErrUnopened
	}
	p := c.profile
	a, err := p.ParsePublic(clientPublic)
	if err != nil {
		return handshakeState{}, errOutOfRange
	}
	verifier := p.SimulatedVerifier(secret, identifier)
	salt := srp.Salt(secret, p.Name(), identifier)
	subtle.ConstantTimeCopy(genuine, verifier, c.verifier)
	subtle.ConstantTimeCopy(genuine, salt, c.salt)
	e, err := p.ServerEphemeral(verifier)
	if err != nil {
		clear(verifier)
		return handshakeState{}, fmt.Errorf("computing server public value: %w", err)
	}
	return handshakeState{profile: p, genuine: genuine, salt: salt, clientPublic: a, private: e.Private, public: e.Public, verifier: verifier}, nil
}

// Prove ends an exchange: it checks the client's evidence M1 and, if it is right,
// returns the server's evidence and the sealed activation data. Evidence of the
// right form uses a handshake up and reserves an attempt before it is checked;
// a right one gives the attempt back. The handshake is that of the caller's address
// or, if that has none, the last one: a phone may change its network in between.
//
// The error is an *InvalidError for the form of the evidence or the identifier,
// ErrBusy (in both cases nothing was used up), ErrRefused for every other
// refusal, also as a *BurnedError, or wraps ErrUnavailable.
func (s *Service) Prove(ctx context.Context, identifier, evidence string, from Origin) (Proof, error) {
	m1, err := srp.ParseEvidence(evidence)
	if err != nil {
		return Proof{}, invalidEvidence(err)
	}
	if err := checkIdentifier(identifier); err != nil {
		return Proof{}, err
	}
	v, err := s.open(ctx)
	if err != nil {
		return Proof{}, err
	}
	secret, err := s.simulationSecret(ctx, v)
	if err != nil {
		return Proof{}, err
	}
	d, err := s.decoyFor(v.ring)
	if err != nil {
		return Proof{}, err
	}
	a, err := s.attempt(ctx, v, d, identifier, tag(secret, tagSource, identifier, from.Address), m1)
	if err != nil {
		return Proof{}, err
	}
	defer clear(a.session.Key)

	// An attempt is reserved: it is settled even if the client has gone.
	settling, cancel := detached(ctx)
	defer cancel()
	record, settled, err := v.store.Settle(settling, identifier, Settlement{
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
		return Proof{}, s.unopened(ctx, identifier, sealedHandshake)
	case err != nil:
		return Proof{}, s.failed(ctx, identifier, "settling proof", err)
	case !settled || !a.proven:
		s.logger.InfoContext(ctx, "proof refused", slog.String("registration", identifier), slog.String("reason", a.reason()))
		return Proof{}, s.refused(settling, v, identifier, a)
	}
	return s.deliver(ctx, v.ring, record, a.outcome)
}

// attempt is a proof that was taken, or not, and computed.
type attempt struct {
	outcome
	token      Token
	generation Generation
	taken      bool
	// failed is why nothing was computed.
	failed error
}

// attempt takes the handshake of an identifier for a source and checks evidence
// against it, or against a decoy if there is none.
func (s *Service) attempt(ctx context.Context, v vault, d *decoy, identifier string, source Tag, evidence []byte) (attempt, error) {
	leave, err := s.gate.enter()
	if err != nil {
		return attempt{}, err
	}
	defer leave()
	if err := ctx.Err(); err != nil {
		return attempt{}, fmt.Errorf("%w: taking handshake: %w", ErrUnavailable, context.Cause(ctx))
	}
	// Once the attempt may be reserved, the proof is computed and settled, so
	// that it does not stay in flight because the client has gone.
	ctx, cancel := detached(ctx)
	defer cancel()
	a := attempt{token: random16()}
	h, taken, err := v.store.Take(ctx, identifier, a.token, source, s.maxAttempts)
	if err != nil {
		return attempt{}, s.failed(ctx, identifier, "taking handshake", err)
	}
	state := d.handshake
	if taken {
		a.taken, a.generation = true, h.Generation
		state = sealedValue{handshakeLabel(identifier, h.Generation), h.State}
	}
	a.failed = s.gate.compute(ctx, func() { a.outcome = verify(v.ring, state, identifier, evidence) })
	return a, nil
}

// outcome is what the arithmetic of a proof gave.
type outcome struct {
	// unopened says that the handshake could not be read.
	unopened bool
	// genuine says that the handshake was of a registration with an exchange.
	genuine bool
	// proven says that it was and that the evidence is right; then transport and
	// session are set.
	proven    bool
	session   srp.Session
	transport *seal.Transport
}

// verify checks evidence against a sealed handshake. The work does not depend
// on whether that is real.
func verify(ring *seal.Keyring, handshake sealedValue, identifier string, evidence []byte) outcome {
	plaintext, err := ring.Open(handshake.label, handshake.bytes)
	if err != nil {
		return outcome{unopened: true}
	}
	defer clear(plaintext)
	h, ok := decodeHandshake(plaintext)
	if !ok {
		return outcome{unopened: true}
	}
	session, right := h.profile.ServerVerify(srp.Exchange{
		Identity:     identifier,
		Salt:         h.salt,
		Verifier:     h.verifier,
		ClientPublic: h.clientPublic,
		Private:      h.private,
		ServerPublic: h.public,
	}, evidence)
	o := outcome{genuine: h.genuine == 1}
	if !right || !o.genuine {
		clear(session.Key)
		return o
	}
	o.proven, o.session = true, session
	o.transport = seal.NewTransport(session.Key, h.clientPublic, h.public)
	return o
}

// BurnedError is the ErrRefused of the proof that used the last attempt at a
// registration up, for which there is no further exchange. Its text is that of
// ErrRefused. Proofs that are refused at the same time may each have it.
type BurnedError struct {
	// Admission says which registration it was. It admits nothing.
	Admission
}

// Error returns the text of ErrRefused.
func (e *BurnedError) Error() string { return ErrRefused.Error() }

// Unwrap returns ErrRefused.
func (e *BurnedError) Unwrap() error { return ErrRefused }

// refused returns the refusal of a proof. The registration is looked for after
// every refusal alike; what more is done for one that was burned can be timed
// only once. That it cannot be looked for changes nothing about the refusal.
func (s *Service) refused(ctx context.Context, v vault, identifier string, a attempt) error {
	record, found, err := s.load(ctx, v.store, identifier)
	if err != nil {
		s.logger.WarnContext(ctx, "whether a refused proof burned its registration is not known",
			slog.String("registration", identifier), slog.Any("error", err))
		return ErrRefused
	}
	if !found || !a.taken || record.Generation != a.generation || !record.burned() {
		return ErrRefused
	}
	registration, err := s.admission(ctx, v.ring, record)
	if err != nil {
		// It was logged, and the identifier is known.
		registration = Admission{Identifier: identifier, Generation: record.Generation, Kind: record.Kind}
	}
	return &BurnedError{Admission: registration}
}

// reason says for the log why a proof was refused.
func (a attempt) reason() string {
	switch {
	case !a.taken:
		return "no handshake or no attempt left"
	case !a.genuine:
		return "no registration with an exchange"
	case !a.proven:
		return "wrong evidence"
	default:
		return "no activation left or registration gone"
	}
}

// deliver seals the activation data of a settled proof for the phone.
func (s *Service) deliver(ctx context.Context, ring *seal.Keyring, record Record, o outcome) (Proof, error) {
	plaintext, err := ring.Open(recordLabel(sealedData, record), record.Data)
	if err != nil {
		return Proof{}, s.unopened(ctx, record.Identifier, sealedData)
	}
	defer clear(plaintext)
	p := Proof{Evidence: upperHex(o.session.Evidence)}
	ok, err := p.sealData(o.transport, record.Kind, plaintext)
	if err != nil {
		return Proof{}, err
	}
	if !ok {
		return Proof{}, s.unopened(ctx, record.Identifier, sealedData)
	}
	return p, nil
}

func invalidPublic(err error) error {
	problem := "is out of range"
	switch {
	case errors.Is(err, srp.ErrClientPublicMissing):
		problem = "is missing"
	case errors.Is(err, srp.ErrClientPublicTooLong):
		problem = "is too long"
	case errors.Is(err, srp.ErrClientPublicNotHex):
		problem = "is not hexadecimal"
	}
	return &InvalidError{Member: memberPublic, Problem: problem}
}

func invalidEvidence(err error) error {
	problem := "is not hexadecimal"
	switch {
	case errors.Is(err, srp.ErrClientEvidenceMissing):
		problem = "is missing"
	case errors.Is(err, srp.ErrClientEvidenceTooLong):
		problem = "is too long"
	}
	return &InvalidError{Member: memberEvidence, Problem: problem}
}
