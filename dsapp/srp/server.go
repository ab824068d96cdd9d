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

// errVerifier is returned for a verifier that no password of this profile has.
// 0, 1 and N-1 are among them: with those, S would be known to everybody.
var errVerifier = errors.New("srp: verifier does not belong to the profile")

// Credential returns what the server keeps of a password, to be kept as secret as that:
// s | v, with the salt of the identity.
func (p *Profile) Credential(secret []byte, identity, password string) []byte {
	s := p.Salt(secret, identity)
	v := p.Verifier(identity, password, s)
	defer clear(v)
	return append(s, v...)
}

// SimulatedCredential returns the credential that stands for an identity nobody
// registered: see simulatedVerifier.
func (p *Profile) SimulatedCredential(secret []byte, identity string) []byte {
	v := p.simulatedVerifier(secret, identity)
	defer clear(v)
	return append(p.Salt(secret, identity), v...)
}

// Verifier returns v = g^x for a password and a salt of SaltSize bytes.
func (p *Profile) Verifier(identity, password string, salt []byte) []byte {
	w := p.begin()
	defer w.end()
	w.passwordExponent(&w.secret, identity, password, salt)
	w.powerG(w.x, &w.secret)
	v := make([]byte, p.Size())
	w.toBytes(v, w.x)
	return v
}

// StateSize returns the size of a state in bytes.
func (p *Profile) StateSize() int { return SaltSize + PrivateSize + 3*p.Size() }

// exchange is what the server knows when the client's evidence arrives.
type exchange struct {
	// identity is I.
	identity string
	// The others are the parts of a state, in this order: s, b, A, B and v.
	salt, private, clientPublic, serverPublic, verifier []byte
}

// exchange returns the parts of a state. They refer to it.
func (p *Profile) exchange(identity string, state []byte) exchange {
	x := exchange{identity: identity}
	for _, part := range []struct {
		to   *[]byte
		size int
	}{{&x.salt, SaltSize}, {&x.private, PrivateSize}, {&x.clientPublic, p.Size()}, {&x.serverPublic, p.Size()}, {&x.verifier, p.Size()}} {
		*part.to, state = state[:part.size], state[part.size:]
	}
	return x
}

// Begin answers the A that ParsePublic returned with B and s, in two upper-case
// hexadecimal digits for each byte. It fills a state of StateSize bytes, a secret that is
// good for one Verify. The error is for a credential that is none of the profile.
func (p *Profile) Begin(state, credential, clientPublic []byte) (serverPublic, salt string, err error) {
	if len(credential) != SaltSize+p.Size() {
		return "", "", errVerifier
	}
	x := p.exchange("", state)
	copy(x.salt, credential)
	copy(x.clientPublic, clientPublic)
	copy(x.verifier, credential[SaltSize:])
	if err := p.ephemeral(x.private, x.serverPublic, x.verifier, rand.Reader); err != nil {
		return "", "", err
	}
	return upperHex(x.serverPublic), upperHex(x.salt), nil
}

// SimulatedState fills the state of an exchange that nobody has begun.
func (p *Profile) SimulatedState(state, credential []byte) error {
	a := make([]byte, p.Size())
	// A second B is as good a group element as a client's A.
	if err := p.ephemeral(make([]byte, PrivateSize), a, credential[SaltSize:], rand.Reader); err != nil {
		return err
	}
	_, _, err := p.Begin(state, credential, a)
	return err
}

// ephemeral sets the server's pair for one exchange with the holder of the verifier: a
// fresh b and B = k*v + g^b. B is reduced and never 0. A verifier that cannot be one of
// the profile is an error.
func (p *Profile) ephemeral(private, public, verifier []byte, random io.Reader) error {
	if !p.inside(verifier) {
		return errVerifier
	}
	w := p.begin()
	defer w.end()
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

// Verify checks the M1 that ParseEvidence returned against a state. Only when it is right
// does it return what seals for the client, M2 as 64 upper-case hexadecimal digits, and
// true. The work is the same for every evidence.
//
// A state is good for one call: more evidence on the same b would be more guesses.
func (p *Profile) Verify(state []byte, identity string, evidence []byte) (session seal.Session, serverEvidence string, ok bool) {
	x := p.exchange(identity, state)
	key, m2, ok := p.verify(x, evidence)
	if !ok {
		return nil, "", false
	}
	return NewSession(key, x.clientPublic, x.serverPublic), upperHex(m2), true
}

// verify returns K and M2 if the evidence is right. It returns false as well when a
// member of x has the wrong size, when A or the verifier is out of range, and when u is 0.
func (p *Profile) verify(x exchange, evidence []byte) (key, serverEvidence []byte, ok bool) {
	if len(x.salt) != SaltSize || len(x.private) != PrivateSize || len(x.serverPublic) != p.Size() {
		return nil, nil, false
	}
	if !p.inside(x.clientPublic) || !p.inside(x.verifier) {
		return nil, nil, false
	}
	w := p.begin()
	defer w.end()
	if !w.scramble(x.clientPublic, x.serverPublic) {
		return nil, nil, false
	}
	w.serverSecret(x)
	w.prove(x.identity, x.salt, x.clientPublic, x.serverPublic, w.x)
	if subtle.ConstantTimeCompare(w.m1, evidence) != 1 {
		return nil, nil, false
	}
	n := len(w.key)
	results := slices.Concat(w.key, w.m2)
	return results[:n:n], results[n:], true
}
