package srp

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// errVerifier is the error for a verifier that has the wrong size or is not between 1 and
// N-1. With the verifiers 0, 1 and N-1, everybody could compute S.
var errVerifier = errors.New("srp: verifier does not belong to the profile")

// Credential returns s | v, which the server stores instead of the password: the salt of
// the identity and the verifier. It must be kept as secret as the password. See Salt for
// the secret.
func (p *Profile) Credential(secret []byte, identity, password string) []byte {
	s := p.Salt(secret, identity)
	v := p.Verifier(identity, password, s)
	defer clear(v)
	return append(s, v...)
}

// SimulatedCredential returns the credential to use for an identity that is not
// registered. It is always the same for one identity and one secret, and no password
// matches it. See Salt for the secret.
func (p *Profile) SimulatedCredential(secret []byte, identity string) []byte {
	v := p.simulatedVerifier(secret, identity)
	defer clear(v)
	return append(p.Salt(secret, identity), v...)
}

// Verifier returns v = g^x for a password and a salt of SaltSize bytes.
func (p *Profile) Verifier(identity, password string, salt []byte) []byte {
	w := p.acquireWorkspace()
	defer w.release()
	w.passwordExponent(identity, password, salt)
	w.powerGWide(w.x, &w.secret, &w.secretHigh)
	v := make([]byte, p.Size())
	w.toBytes(v, w.x)
	return v
}

// StateSize returns the size in bytes of the state that Begin fills.
func (p *Profile) StateSize() int { return SaltSize + PrivateSize + 3*p.Size() }

// exchange is what the server knows when the client's evidence arrives: the identity I and
// the parts of a state, which are s, b, A, B and v in this order.
type exchange struct {
	identity string

	salt, private, clientPublic, serverPublic, verifier []byte
}

// parseState returns the parts of a state, which share its memory.
func (p *Profile) parseState(identity string, state []byte) exchange {
	x := exchange{identity: identity}
	for _, part := range []struct {
		to   *[]byte
		size int
	}{{&x.salt, SaltSize}, {&x.private, PrivateSize}, {&x.clientPublic, p.Size()}, {&x.serverPublic, p.Size()}, {&x.verifier, p.Size()}} {
		*part.to, state = state[:part.size], state[part.size:]
	}
	return x
}

// Begin answers the client's public value A, as returned by ParsePublic, with B and s, as
// two hexadecimal digits for each byte. It also fills state, StateSize bytes,
// which must be kept secret and passed to Verify once. It returns an error if the
// credential does not belong to the profile.
func (p *Profile) Begin(state, credential, clientPublic []byte) (serverPublic, salt string, err error) {
	if len(credential) != SaltSize+p.Size() {
		return "", "", errVerifier
	}
	x := p.parseState("", state)
	copy(x.salt, credential)
	copy(x.clientPublic, clientPublic)
	copy(x.verifier, credential[SaltSize:])
	if err := p.generateEphemeral(x.private, x.serverPublic, x.verifier, rand.Reader); err != nil {
		return "", "", err
	}
	return p.digits(x.serverPublic), p.digits(x.salt), nil
}

// SimulatedState fills the state of an exchange that no client has begun. No evidence is
// right for it, but Verify takes as long as for any other.
func (p *Profile) SimulatedState(state, credential []byte) error {
	a := make([]byte, p.Size())
	// Another B serves as A: both are random elements of the group.
	if err := p.generateEphemeral(make([]byte, PrivateSize), a, credential[SaltSize:], rand.Reader); err != nil {
		return err
	}
	_, _, err := p.Begin(state, credential, a)
	return err
}

// generateEphemeral sets private to a random b and public to B = k*v + g^b, which is never 0.
// It returns errVerifier for a verifier that cannot belong to the profile.
func (p *Profile) generateEphemeral(private, public, verifier []byte, random io.Reader) error {
	if !p.inRange(verifier) {
		return errVerifier
	}
	w := p.acquireWorkspace()
	defer w.release()
	for {
		if _, err := io.ReadFull(random, w.secret[:]); err != nil {
			return fmt.Errorf("srp: random private value: %w", err)
		}
		w.fromBytes(w.x, verifier)
		w.serverPublic(w.y, w.x, &w.secret)
		w.toBytes(public, w.y)
		if isZero(public) {
			// Clients must refuse it (RFC 5054, section 2.5.3).
			continue
		}
		copy(private, w.secret[:])
		return nil
	}
}

// Verify checks the client's evidence M1, as returned by ParseEvidence. If it is right,
// Verify returns the session with the client, M2 as two hexadecimal digits for each byte, and
// true. It takes the same time whether the evidence is right or not.
//
// Call it once for each state: every call is a guess of the password.
func (p *Profile) Verify(state []byte, identity string, evidence []byte) (session seal.Session, serverEvidence string, ok bool) {
	x := p.parseState(identity, state)
	key, m2, ok := p.verify(x, evidence)
	if !ok {
		return nil, "", false
	}
	return p.NewSession(key, x.salt, x.clientPublic, x.serverPublic), p.digits(m2), true
}

// verify returns K and M2 if the evidence is right. It also returns false if a member of x
// has the wrong size, if A or the verifier is out of range, and if u is 0.
func (p *Profile) verify(x exchange, evidence []byte) (key, serverEvidence []byte, ok bool) {
	if len(x.salt) != SaltSize || len(x.private) != PrivateSize || len(x.serverPublic) != p.Size() {
		return nil, nil, false
	}
	if !p.inRange(x.clientPublic) || !p.inRange(x.verifier) {
		return nil, nil, false
	}
	w := p.acquireWorkspace()
	defer w.release()
	if !w.setU(x.clientPublic, x.serverPublic) {
		return nil, nil, false
	}
	w.serverPremasterSecret(x)
	w.setKeyAndEvidence(x.identity, x.salt, x.clientPublic, x.serverPublic, w.x)
	if subtle.ConstantTimeCompare(w.m1, evidence) != 1 {
		return nil, nil, false
	}
	n := len(w.key)
	results := slices.Concat(w.key, w.m2)
	return results[:n:n], results[n:], true
}
