package srp

import (
	"slices"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Credential returns what the server keeps of a password, a secret: s | v, with the
// salt of the identity.
func (p *Profile) Credential(secret []byte, identity, password string) []byte {
	s := p.Salt(secret, identity)
	v := p.Verifier(identity, password, s)
	defer clear(v)
	return append(s, v...)
}

// SimulatedCredential returns the credential that stands for an identity nobody
// registered: see SimulatedVerifier.
func (p *Profile) SimulatedCredential(secret []byte, identity string) []byte {
	v := p.SimulatedVerifier(secret, identity)
	defer clear(v)
	return append(p.Salt(secret, identity), v...)
}

// Begin answers the A that ParsePublic returned with B and s, in two upper-case
// hexadecimal digits for each byte. The state, for one Verify, is a secret:
// s | b | A | B | v. The error is for a credential that is none of the profile.
func (p *Profile) Begin(credential, clientPublic []byte) (state []byte, serverPublic, salt string, err error) {
	if len(credential) != SaltSize+p.Size() {
		return nil, "", "", errVerifier
	}
	s, v := credential[:SaltSize], credential[SaltSize:]
	e, err := p.ServerEphemeral(v)
	if err != nil {
		return nil, "", "", err
	}
	defer clear(e.Private)
	return slices.Concat(s, e.Private, clientPublic, e.Public, v), upperHex(e.Public), upperHex(s), nil
}

// SimulatedState returns the state of an exchange that nobody has begun.
func (p *Profile) SimulatedState(credential []byte) ([]byte, error) {
	if len(credential) != SaltSize+p.Size() {
		return nil, errVerifier
	}
	// A second B is as good a group element as a client's A.
	e, err := p.ServerEphemeral(credential[SaltSize:])
	if err != nil {
		return nil, err
	}
	state, _, _, err := p.Begin(credential, e.Public)
	return state, err
}

// StateSize returns the size of a state in bytes.
func (p *Profile) StateSize() int { return SaltSize + PrivateSize + 3*p.Size() }

// Verify checks the M1 that ParseEvidence returned. Only when it is right does it
// return M2, as 64 upper-case hexadecimal digits, what seals for the client, and true.
// See ServerVerify.
func (p *Profile) Verify(state []byte, identity string, evidence []byte) (session seal.Session, serverEvidence string, ok bool) {
	if len(state) != p.StateSize() {
		return nil, "", false
	}
	x := Exchange{Identity: identity}
	for _, part := range []struct {
		to   *[]byte
		size int
	}{{&x.Salt, SaltSize}, {&x.Private, PrivateSize}, {&x.ClientPublic, p.Size()}, {&x.ServerPublic, p.Size()}, {&x.Verifier, p.Size()}} {
		*part.to, state = state[:part.size], state[part.size:]
	}
	s, ok := p.ServerVerify(x, evidence)
	if !ok {
		return nil, "", false
	}
	return NewTransport(s.Key, x.ClientPublic, x.ServerPublic), upperHex(s.Evidence), true
}
