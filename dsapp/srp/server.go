package srp

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"
)

// errVerifier is returned for a verifier that no password of this profile has.
// 0, 1 and N-1 are among them: with those, S would be known to everybody.
var errVerifier = errors.New("srp: verifier does not belong to the profile")

// Verifier returns v = g^x for a password and a salt of SaltSize bytes: Size
// bytes to be kept as secret as the password.
func (p *Profile) Verifier(identity, password string, salt []byte) []byte {
	w := p.begin()
	defer w.end()
	w.passwordExponent(&w.secret, identity, password, salt)
	w.powerG(w.x, &w.secret)
	v := make([]byte, p.Size())
	w.toBytes(v, w.x)
	return v
}

// Ephemeral is the pair that the server makes for one exchange.
type Ephemeral struct {
	// Private is b, PrivateSize bytes: a secret, used for one ServerVerify and
	// then cleared by its owner.
	Private []byte
	// Public is B, Size bytes.
	Public []byte
}

// ServerEphemeral makes the server's pair for one exchange with the holder of
// the verifier: a fresh b and B = k*v + g^b. B is reduced and never 0. A verifier
// that cannot be one of the profile is an error.
func (p *Profile) ServerEphemeral(verifier []byte) (Ephemeral, error) {
	return p.serverEphemeral(verifier, rand.Reader)
}

func (p *Profile) serverEphemeral(verifier []byte, random io.Reader) (Ephemeral, error) {
	if !p.inside(verifier) {
		return Ephemeral{}, errVerifier
	}
	w := p.begin()
	defer w.end()
	pair := make([]byte, PrivateSize+p.Size())
	private, public := pair[:PrivateSize:PrivateSize], pair[PrivateSize:]
	for {
		if _, err := io.ReadFull(random, w.secret[:]); err != nil {
			return Ephemeral{}, fmt.Errorf("srp: random private value: %w", err)
		}
		w.fromBytes(w.x, verifier)
		w.serverPublic(w.y, w.x, &w.secret)
		w.toBytes(public, w.y)
		if isZero(public) {
			// Clients must refuse it (RFC 5054, section 2.5.3).
			continue
		}
		copy(private, w.secret[:])
		return Ephemeral{Private: private, Public: public}, nil
	}
}

// Exchange is what the server knows when the client's evidence arrives.
type Exchange struct {
	// Identity is I.
	Identity string
	// Salt is s, SaltSize bytes.
	Salt []byte
	// Verifier is v, Size bytes.
	Verifier []byte
	// ClientPublic is A as ParsePublic returned it, Size bytes.
	ClientPublic []byte
	// Private and ServerPublic are the server's Ephemeral of this exchange,
	// PrivateSize and Size bytes.
	Private, ServerPublic []byte
}

// Session is the result of an exchange in which the client proved that it knows
// the password.
type Session struct {
	// Key is K, KeySize bytes: a secret.
	Key []byte
	// Evidence is M2, EvidenceSize bytes, to be shown to the client.
	Evidence []byte
}

// ServerVerify checks the client's evidence M1. Only when it is right does it
// return the session, and true. The work is the same for every evidence. It returns
// false as well when a member of x has the wrong size, when A or the verifier is
// out of range, and when u is 0.
//
// An exchange is good for one call: more evidence on the same b would be more
// guesses.
func (p *Profile) ServerVerify(x Exchange, evidence []byte) (Session, bool) {
	if len(x.Salt) != SaltSize || len(x.Private) != PrivateSize || len(x.ServerPublic) != p.Size() {
		return Session{}, false
	}
	if !p.inside(x.ClientPublic) || !p.inside(x.Verifier) {
		return Session{}, false
	}
	w := p.begin()
	defer w.end()
	if !w.scramble(x.ClientPublic, x.ServerPublic) {
		return Session{}, false
	}
	w.serverSecret(x)
	w.prove(x.Identity, x.Salt, x.ClientPublic, x.ServerPublic, w.x)
	if subtle.ConstantTimeCompare(w.m1, evidence) != 1 {
		return Session{}, false
	}
	n := len(w.key)
	results := slices.Concat(w.key, w.m2)
	return Session{Key: results[:n:n], Evidence: results[n:]}, true
}
