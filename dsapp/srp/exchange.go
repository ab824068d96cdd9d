package srp

import "github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"

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
// hexadecimal digits for each byte. It fills a state of StateSize bytes, a secret that is
// good for one Verify. The error is for a credential that is none of the profile.
func (p *Profile) Begin(state, credential, clientPublic []byte) (serverPublic, salt string, err error) {
	if len(credential) != SaltSize+p.Size() {
		return "", "", errVerifier
	}
	x := p.exchange(state)
	copy(x.Salt, credential)
	copy(x.Verifier, credential[SaltSize:])
	copy(x.ClientPublic, clientPublic)
	e, err := p.ServerEphemeral(x.Verifier)
	if err != nil {
		return "", "", err
	}
	defer clear(e.Private)
	copy(x.Private, e.Private)
	copy(x.ServerPublic, e.Public)
	return upperHex(x.ServerPublic), upperHex(x.Salt), nil
}

// SimulatedState fills the state of an exchange that nobody has begun.
func (p *Profile) SimulatedState(state, credential []byte) error {
	// A second B is as good a group element as a client's A.
	e, err := p.ServerEphemeral(credential[SaltSize:])
	if err != nil {
		return err
	}
	_, _, err = p.Begin(state, credential, e.Public)
	return err
}

// StateSize returns the size of a state in bytes.
func (p *Profile) StateSize() int { return SaltSize + PrivateSize + 3*p.Size() }

// exchange returns the parts of a state, which are s | b | A | B | v. They refer to it.
func (p *Profile) exchange(state []byte) (x Exchange) {
	for _, part := range []struct {
		to   *[]byte
		size int
	}{{&x.Salt, SaltSize}, {&x.Private, PrivateSize}, {&x.ClientPublic, p.Size()}, {&x.ServerPublic, p.Size()}, {&x.Verifier, p.Size()}} {
		*part.to, state = state[:part.size], state[part.size:]
	}
	return x
}

// Verify checks the M1 that ParseEvidence returned against a state. Only when it is right
// does it return what seals for the client, M2 as 64 upper-case hexadecimal digits, and
// true: see ServerVerify.
func (p *Profile) Verify(state []byte, identity string, evidence []byte) (session seal.Session, serverEvidence string, ok bool) {
	x := p.exchange(state)
	x.Identity = identity
	s, ok := p.ServerVerify(x, evidence)
	if !ok {
		return nil, "", false
	}
	return NewTransport(s.Key, x.ClientPublic, x.ServerPublic), upperHex(s.Evidence), true
}
