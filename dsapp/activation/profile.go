package activation

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync/atomic"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Profile is one variant of the exchange: every choice that phone and gateway must agree on,
// from the form of numbers to the encryption of activation data. Package profiletest has
// the conformance test. A Profile is safe for concurrent use.
//
// A credential is what is stored of a password, a state what is stored between the two
// calls. Both are secret bytes that only the profile can read. Those of identifiers that
// nobody registered have the same sizes and cost the same work. The Service stores them
// sealed, with the name of the profile, and clears its copies.
type Profile interface {
	// Name has 1 to 32 printable characters of ASCII without spaces. Operators and callers
	// select the profile by it.
	Name() string
	// Digest changes with every choice of a profile whose choices can be configured. It is
	// empty if the name alone says everything. Stored values refer to name and digest, so
	// that a profile never reads what one with other choices wrote.
	Digest() []byte
	// Prepare computes what all exchanges of a process need, and logs what the operator
	// should know. Without it the first exchange takes longer.
	Prepare(ctx context.Context, logger *slog.Logger)

	// ParsePublic and ParseEvidence parse what the client sends. The client gets the text
	// of the error. It says what is wrong with the value, such as "is missing", and does
	// not contain the value.
	ParsePublic(text string) (clientPublic []byte, err error)
	ParseEvidence(text string) (evidence []byte, err error)

	// Credential returns the credential of a password.
	//
	// The secret is 32 random bytes of the store. Whatever a credential needs besides
	// identifier and password is derived from it, so that a client sees no difference
	// between registered and other identifiers. Derivations must not use texts that begin
	// with "source", "application" or "generation".
	Credential(secret []byte, identifier, password string) []byte
	// SimulatedCredential returns the credential of an identifier that nobody registered.
	SimulatedCredential(secret []byte, identifier string) []byte

	// StateSize is the size of every state in bytes.
	StateSize() int
	// Begin fills a state and returns two texts as the answer to the client's public value.
	// It fails for a credential that no password has.
	Begin(state, credential, clientPublic []byte) (serverPublic, salt string, err error)
	// SimulatedState fills the state of an exchange that nobody began.
	SimulatedState(state, credential []byte) error
	// Verify verifies evidence in constant time. If it is right, Verify returns the session
	// that encrypts for the client, the server's evidence, and true. Evidence nil is never
	// right. A state is used for one call only.
	Verify(state []byte, identifier string, evidence []byte) (session seal.Session, serverEvidence string, ok bool)
}

// nameSize is the size of what names a profile in a sealed value.
const nameSize = 32

// storedName returns what names the profile in a sealed value: its name, padded with zeros, or
// if it has a digest the hash of name and digest.
func storedName(p Profile) (stored [nameSize]byte) {
	if digest := p.Digest(); len(digest) > 0 {
		return sha256.Sum256(encodeFields(p.Name(), string(digest)))
	}
	copy(stored[:], p.Name())
	return stored
}

// withName returns a buffer for a value of the profile after what names the profile, and the
// part of the buffer for the value.
func withName(p Profile, size int) (b, value []byte) {
	b = make([]byte, nameSize+size)
	stored := storedName(p)
	copy(b, stored[:])
	return b, b[nameSize:]
}

// splitName returns the value after the name in b, which refers to b, and whether the name is
// that of p. It returns false for ok if b is too short for a name.
func splitName(p Profile, b []byte) (value []byte, own, ok bool) {
	if len(b) < nameSize {
		return nil, false, false
	}
	return b[nameSize:], storedName(p) == [nameSize]byte(b), true
}

// offer is a profile that registrations and applications can have.
type offer struct {
	Profile

	decoy atomic.Pointer[decoy]
}

// offer returns the profile with a name, or the first if the name is empty.
func (s *Service) offer(name string) (*offer, error) {
	if name == "" {
		return s.offers[0], nil
	}
	for _, o := range s.offers {
		if o.Name() == name {
			return o, nil
		}
	}
	return nil, &InvalidError{Member: memberProfile, Problem: "must be the name of a profile that the gateway offers"}
}

// Profile returns the name of the profile that a registration gets which asks for the profile
// name, or for none if that is empty. The error is an *InvalidError if there is none.
func (s *Service) Profile(name form.ProfileName) (string, error) {
	o, err := s.offer(string(name))
	if err != nil {
		return "", err
	}
	return o.Name(), nil
}
