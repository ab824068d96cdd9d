package activation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind tells what a registration admits.
type Kind string

// The kinds of registrations.
const (
	// KindMDL is a multi-device licence activated by the gateway's own exchange.
	KindMDL Kind = "mdl"
	// KindStandard is a standard licence activated by the gateway's own exchange.
	KindStandard Kind = "standard"
	// KindAffinity remembers only which instance holds the registration.
	KindAffinity Kind = "affinity"
	// KindSimulated stands for an identifier nobody registered. It exists so
	// that probing an unknown identifier leaves and reads the same state as
	// probing a known one; nothing can be activated with it.
	KindSimulated Kind = "simulated"
)

// ErrUnavailable is wrapped by every error of a Store that could not be reached,
// could not answer in time or does not accept writes. What the call would have
// done is then unknown.
var ErrUnavailable = errors.New("store unavailable")

// ErrDamaged is the ErrUnavailable of a Store that holds something which no Store
// writes: a counter that is missing, no number or beyond its bounds, a lifetime,
// kind, generation or handshake that cannot be. Nothing was done then. Such a value
// is never treated as absent or as 0: that would let whoever writes to the store
// undo registrations and attempts.
var ErrDamaged = fmt.Errorf("%w: damaged registration", ErrUnavailable)

// MaxRecord is the most bytes that Facts, Verifier and Data of a record have together.
const MaxRecord = 8192

// RoomLifetime is how long a networked store keeps the room of a record that is not
// created: longer than a call of an authentication server takes with the default timeouts.
const RoomLifetime = 2 * time.Minute

// MaxCounter is the greatest number that a Store takes for one of its counters. It
// is far above every limit that is configured.
const MaxCounter = 1_000_000

// Generation names one creation of a registration: 16 random bytes. State of an
// earlier registration under the same identifier never applies to a later one.
type Generation [16]byte

// Token names one operation, so that its repetition is recognised: 16 random bytes.
type Token [16]byte

// Tag stands for a value that a Store must not learn: a keyed hash of it.
type Tag [16]byte

// Record is a registration as a store keeps it. The store never sees clear
// data: Facts, Verifier and Data are sealed by the Service.
type Record struct {
	Identifier string
	Generation Generation
	Kind       Kind
	// Facts says who registered and where; sealed. Kept in a tombstone.
	Facts []byte
	// Verifier is the sealed credential of the password. Nil in a tombstone and for kinds
	// without an exchange.
	Verifier []byte
	// Data is the sealed activation data. Nil in a tombstone and for kinds
	// without an exchange. Only Settle returns it.
	Data []byte
	// Lifetime is how long the registration can be used, counted from now when
	// it is given to Create; the remaining time when a store returns it.
	Lifetime time.Duration
}

// MaxHandshakes is how many handshakes of one identifier are kept.
const MaxHandshakes = 4

// ContentionInterval is the time in which it is told at most once that clients
// contend for one identifier.
const ContentionInterval = time.Minute

// Handshake is the server's state between the two calls of an exchange. There is
// at most one per identifier and source.
type Handshake struct {
	// Generation of the registration that the handshake belongs to. For an
	// identifier without a record Take creates a simulated record with it.
	Generation Generation
	// Source stands for the address, and Application for the application, that the
	// first call came from.
	Source, Application Tag
	// State is sealed.
	State []byte
	// Lifetime of the handshake.
	Lifetime time.Duration
	// Simulated marks the handshake of an identifier without a record. Take
	// then creates a record of KindSimulated that lives for RecordLifetime.
	Simulated      bool
	RecordLifetime time.Duration
}

// Settlement is the outcome of a proof.
type Settlement struct {
	Generation Generation
	// Token is the one given to Take.
	Token Token
	// Proven says that the client's evidence was right.
	Proven         bool
	MaxAttempts    int
	MaxActivations int
}

// Store keeps registrations and handshakes. Every method is one atomic
// transaction and, on a networked store, one round trip. All methods may be
// called concurrently, also by several gateway nodes on one store.
//
// A record is live until its lifetime has passed. A record is burned once its
// reserved attempts reached the limit and no proof is in flight: Facts and
// counters then stay as a tombstone for TombstoneLifetime beyond the record's
// lifetime, Verifier and Data are gone. Within its lifetime a burned record is
// still live for AdmitDevice and AdmitConfirmation, so that rights already earned,
// and registrations of KindAffinity, survive burning.
//
// For KindAffinity, AdmitDevice and AdmitConfirmation count the calls that were not
// returned, each with a counter of its own: those that an authentication server
// refused, and those under way.
//
// An error means that the operation could not be carried out or its outcome is
// unknown, and wraps ErrUnavailable; a refusal is never an error.
type Store interface {
	// Reserve reserves room for one record of MaxRecord bytes until release is called,
	// which can be called again, or reports why a Create would fail at this moment. A
	// networked store keeps the room for RoomLifetime at most.
	Reserve(ctx context.Context) (release func(), err error)

	// Create stores r, in room that is reserved if there is some, unless a live record or tombstone with that identifier
	// exists that is neither simulated nor of generation replaces. It then
	// changes nothing and returns the existing record (without Data) and false.
	// Creating removes the handshakes and resets every counter. Repeating a
	// Create with the same Generation succeeds and changes nothing.
	Create(ctx context.Context, r Record, replaces Generation) (existing Record, created bool, err error)

	// Load returns the record without Data, and whether there is one. Tombstones
	// and simulated records are returned too.
	Load(ctx context.Context, identifier string) (Record, bool, error)

	// PutHandshake keeps h for the identifier. It replaces the handshake of the same
	// source or, if MaxHandshakes others wait, the oldest of them. The number of
	// simulated handshakes and records is capped: at the cap the store drops
	// simulated state, never real state.
	//
	// It reports whether the operator should be told that clients contend for the
	// identifier: a handshake of another source or application waits, and nothing
	// was told within ContentionInterval. Create and Remove forget that something
	// was told; at the cap nothing is told of identifiers without state.
	PutHandshake(ctx context.Context, identifier string, h Handshake) (contended bool, err error)

	// Take reserves one attempt for a proof from source. It takes the handshake of
	// that source or, if there is none, the one that was put last. It succeeds if
	// the record is live, that handshake is of the record's generation, and fewer
	// than maxAttempts attempts are reserved; the handshake is then removed, the
	// attempt is reserved and the proof is in flight under token. For a simulated
	// handshake without a record the record is created first. In all other cases it
	// returns false and changes nothing, except that a handshake that was refused is
	// removed. Other handshakes stay.
	Take(ctx context.Context, identifier string, token Token, source Tag, maxAttempts int) (Handshake, bool, error)

	// Settle ends the proof in flight under s.Token and s.Generation. A proven
	// one gives its attempt back and, if fewer than s.MaxActivations activations
	// were made and the record is live and of a kind with an exchange, counts an
	// activation, admits one AdmitDevice and returns the record with Data and true. In every
	// other case it returns false and nothing is given back, also not the attempt
	// of a proven one beyond s.MaxActivations. Afterwards the secrets are wiped if
	// the record is burned. Repeating a Settle with the same token returns what
	// the first one returned, as long as the record lives and no other proof was
	// settled in between.
	Settle(ctx context.Context, identifier string, s Settlement) (Record, bool, error)

	// AdmitDevice consumes the right to add one device: for KindMDL one that a
	// successful Settle admitted, for KindAffinity one of maxAttempts. It returns
	// the live record without Verifier and Data, or false for any other kind or
	// without such a right.
	AdmitDevice(ctx context.Context, identifier string, maxAttempts int) (Record, bool, error)

	// ReturnDevice gives the right consumed by AdmitDevice back, if the record
	// is still of that generation, up to what was consumed.
	ReturnDevice(ctx context.Context, identifier string, generation Generation) error

	// AdmitConfirmation counts one final call. It returns the live record
	// without Verifier and Data if its kind is one of kinds, fewer than
	// maxAttempts final calls were counted and, unless it is KindAffinity, an
	// activation was made. Otherwise it returns false and changes nothing.
	AdmitConfirmation(ctx context.Context, identifier string, maxAttempts int, kinds ...Kind) (Record, bool, error)

	// ReturnConfirmation takes back one final call counted by AdmitConfirmation,
	// if the record is still of that generation. The count never falls below 0.
	ReturnConfirmation(ctx context.Context, identifier string, generation Generation) error

	// Remove deletes the record and its handshakes if the record is of that
	// generation.
	Remove(ctx context.Context, identifier string, generation Generation) error

	// SimulationSecret returns the sealed simulation secret, after storing
	// candidate if there is none. It has no lifetime.
	SimulationSecret(ctx context.Context, candidate []byte) ([]byte, error)

	// ReplaceSimulationSecret stores next if the current value equals current,
	// byte for byte, and tells whether it did.
	ReplaceSimulationSecret(ctx context.Context, current, next []byte) (bool, error)
}

// TombstoneLifetime is how long a burned registration is remembered beyond its
// lifetime, so that its identifier cannot be told from one that still counts.
const TombstoneLifetime = 10 * time.Minute
