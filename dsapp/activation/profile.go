package activation

import (
	"bytes"
	"context"
	"log/slog"
	"slices"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Profile is one way to do the exchange: every choice that phone and gateway must agree
// on, from the form of numbers to how activation data is sealed. Package profiletest has
// a test of what the Service relies on. Safe for concurrent use.
//
// A credential is what is kept of a password, a state what is kept between the two
// calls. They are secret bytes that mean something to their profile only, and those of
// identifiers that nobody registered have the same sizes and cost the same work. The
// Service stores them sealed, with the name of the profile, and clears its copies.
type Profile interface {
	// Name has 1 to 32 bytes. What is stored under it stays readable: other choices
	// need another name.
	Name() string
	// Prepare computes what exchanges need once in a process, and logs what the operator
	// should know of it. Without it the first exchange takes longer.
	Prepare(ctx context.Context, logger *slog.Logger)

	// ParsePublic and ParseEvidence read what the client sends. The client gets the text
	// of the error, which says what is wrong with the value, and not the value: "is
	// missing".
	ParsePublic(text string) (clientPublic []byte, err error)
	ParseEvidence(text string) (evidence []byte, err error)

	// Credential returns the credential of a password.
	//
	// The secret is 32 random bytes of the store. Whatever a credential needs besides
	// identifier and password is derived from it, so that a registration leaves nothing
	// that the client could tell it by. Nothing is derived from texts that begin with
	// "source", "application" or "generation".
	Credential(secret []byte, identifier, password string) []byte
	// SimulatedCredential returns the one that stands for an identifier nobody registered.
	SimulatedCredential(secret []byte, identifier string) []byte

	// StateSize is the size of every state in bytes.
	StateSize() int
	// Begin answers the client's public value with two texts, and fills a state. The error
	// is for a credential that no password has.
	Begin(state, credential, clientPublic []byte) (serverPublic, salt string, err error)
	// SimulatedState fills a state of an exchange that nobody has begun.
	SimulatedState(state, credential []byte) error
	// Verify checks evidence in constant time. Only when it is right does it return what
	// seals for the client, the server's evidence, and true. Nil is never right. A state
	// is good for one call.
	Verify(state []byte, identifier string, evidence []byte) (session seal.Session, serverEvidence string, ok bool)
}

// profiles are the profiles that there are. New registrations have the first.
type profiles []Profile

// nameSize is the room for a profile's name in a sealed value: with a fixed
// size, values of one profile are all of the same length.
const nameSize = 32

// named returns the name of a profile with room for a value of it, and that room.
func named(p Profile, size int) (b, value []byte) {
	b = make([]byte, nameSize+size)
	copy(b, p.Name())
	return b, b[nameSize:]
}

// cut tells of which profile the value behind its name is. The value refers to b.
func (ps profiles) cut(b []byte) (p Profile, value []byte, ok bool) {
	if len(b) < nameSize {
		return nil, nil, false
	}
	name := bytes.TrimRight(b[:nameSize], "\x00")
	i := slices.IndexFunc(ps, func(p Profile) bool { return p.Name() == string(name) })
	if i < 0 {
		return nil, nil, false
	}
	return ps[i], b[nameSize:], true
}
