package activation

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind is the kind of a registration.
type Kind string

// The kinds of registrations.
const (
	// KindMDL is a multi-device licence that is activated with the gateway's own exchange.
	KindMDL Kind = "mdl"
	// KindStandard is a standard licence that is activated with the gateway's own exchange.
	KindStandard Kind = "standard"
	// KindAffinity is without an exchange of the gateway: only its instance is stored.
	KindAffinity Kind = "affinity"
	// KindSimulated is the kind of an identifier that nobody registered. With it, calls
	// for unknown identifiers read and write the same state as those for known ones.
	// Nothing can be activated with it.
	KindSimulated Kind = "simulated"
)

// ErrUnavailable is wrapped by every error of a Store. It means that the store could not be
// reached, did not answer in time or does not accept writes. Whether the call was carried
// out is then unknown.
var ErrUnavailable = errors.New("store unavailable")

// ErrDamaged is the ErrUnavailable for a stored value that no Store writes: a counter that
// is missing, not a number or out of range, or an invalid lifetime, kind, generation or
// handshake. The call was not carried out then. Such a value is never treated as absent or
// as 0: otherwise whoever can write to the store could undo registrations and attempts.
var ErrDamaged = fmt.Errorf("%w: damaged registration", ErrUnavailable)

// MaxRecord is the greatest size of Facts, Verifier, Data and Answer of a record together, in
// bytes.
const MaxRecord = 12288

// RoomLifetime is how long a networked store keeps reserved room for a record that is not
// created. It is longer than a call of an authentication server with the default timeouts.
const RoomLifetime = 2 * time.Minute

// MaxCounter is the greatest valid value of a Store's counters. It is far above every limit
// that can be configured.
const MaxCounter = 1_000_000

// Generation identifies one creation of a registration: 16 random bytes. With it, state of
// an earlier registration under the same identifier never applies to a later one.
type Generation [16]byte

// Token identifies one operation, so that a store recognises its repetition: 16 random
// bytes.
type Token [16]byte

// Tag is a keyed hash of a value that a Store must not learn.
type Tag [16]byte

// Record is a registration as a store keeps it. Facts, Verifier, Data and Answer are sealed: the
// store never gets them in clear.
type Record struct {
	Identifier string
	Generation Generation
	Kind       Kind
	// Facts is the sealed subject of the registration. A tombstone keeps it.
	Facts []byte
	// Verifier is the sealed credential of the password. It is nil in a tombstone and for
	// kinds without an exchange.
	Verifier []byte
	// Data is the sealed activation data. It is nil in a tombstone and for kinds without an
	// exchange. Only Settle returns it.
	Data []byte
	// Answer is the sealed answer to the call that made the registration, nil if the call has
	// no idempotency key. A tombstone has none, and no method of Store returns it.
	Answer []byte
	// Lifetime is how long the registration can be used from now on.
	Lifetime time.Duration
}

// MaxHandshakes is how many handshakes of one identifier a store keeps.
const MaxHandshakes = 4

// ContentionInterval is the time in which a store reports contention for one identifier at
// most once.
const ContentionInterval = time.Minute

// Handshake is the server's state between the two calls of an exchange. There is at most
// one for each identifier and source.
type Handshake struct {
	// Generation of the registration that the handshake belongs to. For an identifier
	// without a record, Take creates a simulated record with it.
	Generation Generation
	// Source is the tag of the address, and Application that of the application, that the
	// first call came from.
	Source, Application Tag
	// State is sealed.
	State []byte
	// Lifetime of the handshake.
	Lifetime time.Duration
	// Simulated marks the handshake of an identifier without a record. Take then creates
	// a record of KindSimulated with RecordLifetime.
	Simulated      bool
	RecordLifetime time.Duration
}

// State is what a store tells about a record.
type State struct {
	// Record is the record without Verifier and Data.
	Record

	Burned bool
	// Attempts are those of failed proofs and of the proofs in flight, InFlight the latter
	// only.
	Attempts, InFlight int
	// Activations counts the successful proofs.
	Activations int
	// Devices is how many devices may still be added. For KindAffinity it is the number of
	// calls of AdmitDevice that were not returned.
	Devices int
	// Confirmations counts the calls of AdmitConfirmation that were not returned.
	Confirmations int
}

// Settlement is the outcome of a proof.
type Settlement struct {
	Generation Generation
	// Token is that of the Take.
	Token Token
	// Proven says that the client's evidence was right.
	Proven         bool
	MaxAttempts    int
	MaxActivations int
}

// Store keeps registrations and handshakes. Every method is one atomic transaction and, on
// a networked store, one round trip. All methods are safe for concurrent use, also by
// several gateway nodes on one store. Package storetest has the specification as a model,
// and the conformance tests.
//
// A record is live until its lifetime has passed. It is burned once its reserved attempts
// have reached the limit and no proof is in flight. A burned record loses Verifier,
// Data and Answer and stays as a tombstone with Facts and counters until TombstoneLifetime after its
// lifetime. Within its lifetime it is still live for AdmitDevice and AdmitConfirmation, so
// that rights from earlier proofs, and registrations of KindAffinity, survive burning.
//
// For KindAffinity, AdmitDevice and AdmitConfirmation each count the calls that were not
// returned: those that an authentication server refused, and those under way.
//
// An error means that the operation could not be carried out or that its outcome is unknown.
// It wraps ErrUnavailable. A refusal is not an error.
type Store interface {
	// Reserve reserves room for one record of MaxRecord bytes until release is called. It
	// fails if a Create would fail now. A networked store keeps the room for at most
	// RoomLifetime. It is safe to call release more than once.
	Reserve(ctx context.Context) (release func(), err error)

	// Create stores r, in reserved room if there is some. It removes the handshakes of the
	// identifier and resets every counter. If there is a live record or tombstone with that
	// identifier that is neither simulated nor of generation replaces, it changes nothing
	// and returns that record (without Data) and false. Repeating a Create with the same
	// Generation succeeds and changes nothing.
	Create(ctx context.Context, r Record, replaces Generation) (existing Record, created bool, err error)

	// Load returns the record without Data, and whether there is one. It also returns
	// tombstones and simulated records.
	Load(ctx context.Context, identifier string) (Record, bool, error)

	// PutHandshake stores h for the identifier. It replaces the handshake of the same source
	// or, if MaxHandshakes others wait, the oldest of them. The number of simulated
	// handshakes and records is limited: at the limit the store drops simulated state and
	// nothing else.
	//
	// It reports contention: whether a handshake of another source or application waits and
	// contention for the identifier was not reported within ContentionInterval. Create and
	// Remove end this interval. At the limit, contention for identifiers without state is
	// not reported.
	PutHandshake(ctx context.Context, identifier string, h Handshake) (contended bool, err error)

	// Take reserves one attempt for a proof from source. It removes and returns the
	// handshake of that source or, if there is none, the one that was put last. For a
	// simulated handshake without a record it creates the record first. It succeeds if the
	// record is live, the handshake is of the record's generation, and fewer than
	// maxAttempts attempts are reserved. The attempt is then reserved and the proof is in
	// flight under token. In all other cases it returns false, and the only change is that
	// the refused handshake is removed. Other handshakes stay.
	Take(ctx context.Context, identifier string, token Token, source Tag, maxAttempts int) (Handshake, bool, error)

	// Settle ends the proof in flight under s.Token and s.Generation. It succeeds if the
	// proof is proven, fewer than s.MaxActivations activations were made, and the record is
	// live and of a kind with an exchange. Then it gives the attempt back, counts an
	// activation, admits one AdmitDevice and returns the record with Data and true. In every
	// other case it returns false and the attempt stays counted. If the record is burned
	// then, Verifier, Data and Answer are wiped. Repeating a Settle with the same token returns what
	// the first one returned, as long as the record is live and no other proof was settled
	// in between.
	Settle(ctx context.Context, identifier string, s Settlement) (Record, bool, error)

	// AdmitDevice consumes the right to add one device: for KindMDL one that a successful
	// Settle admitted, for KindAffinity one of maxAttempts. It returns the live record
	// without Verifier and Data, or false if there is no such right.
	AdmitDevice(ctx context.Context, identifier string, maxAttempts int) (Record, bool, error)

	// ReturnDevice gives back the right consumed by AdmitDevice if the record is of that
	// generation. It never gives back more than was consumed.
	ReturnDevice(ctx context.Context, identifier string, generation Generation) error

	// AdmitConfirmation counts one final call and returns the live record without Verifier
	// and Data, if its kind is one of kinds, fewer than maxAttempts final calls were counted
	// and, unless it is KindAffinity, an activation was made. Otherwise it returns false and
	// changes nothing.
	AdmitConfirmation(ctx context.Context, identifier string, maxAttempts int, kinds ...Kind) (Record, bool, error)

	// ReturnConfirmation undoes one AdmitConfirmation if the record is of that generation.
	// The count never falls below 0.
	ReturnConfirmation(ctx context.Context, identifier string, generation Generation) error

	// Inspect returns the state of a record, and whether there is one. It also returns
	// tombstones and simulated records. It changes nothing.
	Inspect(ctx context.Context, identifier string) (State, bool, error)

	// Burn ends a record that is not simulated, as if every attempt of every kind had been
	// used: at least maxAttempts attempts are reserved, Verifier, Data and Answer are wiped, the
	// handshakes are removed, a proof in flight is refused, and nothing is admitted any
	// more, also not what is given back later. The tombstone stays as after the last wrong
	// proof. Burn returns the record without Verifier and Data, or false if there is none.
	// Repeating it changes nothing.
	Burn(ctx context.Context, identifier string, maxAttempts int) (Record, bool, error)

	// Remove deletes the record and its handshakes if the record is of that generation.
	Remove(ctx context.Context, identifier string, generation Generation) error

	// SimulationSecret returns the sealed simulation secret. If there is none it stores
	// candidate. The secret has no lifetime.
	SimulationSecret(ctx context.Context, candidate []byte) ([]byte, error)

	// ReplaceSimulationSecret stores next if the stored value equals current, byte for byte,
	// and reports whether it did.
	ReplaceSimulationSecret(ctx context.Context, current, next []byte) (bool, error)
}

// StoreOutcome is what came of a call of a store. It is one of a fixed set, so that it can be
// a metric label.
type StoreOutcome string

// The outcomes.
const (
	// StoreOK is a call that was carried out. That it found nothing makes no difference.
	StoreOK StoreOutcome = "ok"
	// StoreRefused is a call that was carried out and refused, such as an attempt too many.
	StoreRefused StoreOutcome = "refused"
	// StoreUnavailable is a call that could not be carried out, or of which that is unknown.
	StoreUnavailable StoreOutcome = "unavailable"
	// StoreAbandoned is a call whose caller left before its end.
	StoreAbandoned StoreOutcome = "abandoned"
	// StoreError is a call that found a value that no store writes, or had a wrong argument.
	StoreError StoreOutcome = "error"
)

// StoreCall is one call of a method of Store or of ownership.Store.
type StoreCall struct {
	// Call is the name of the method in lower case with underscores, such as "put_handshake".
	Call     string
	Outcome  StoreOutcome
	Start    time.Time
	Duration time.Duration
}

// StoreObserver is called at the end of each call of a store. It may be nil.
type StoreObserver func(ctx context.Context, c StoreCall)

// Begin begins a call.
func (o StoreObserver) Begin(ctx context.Context, call string) ObservedCall {
	if o == nil {
		return ObservedCall{}
	}
	return ObservedCall{observer: o, ctx: ctx, call: call, start: time.Now()}
}

// ObservedCall is a call of a store that a StoreObserver is told about at its end.
type ObservedCall struct {
	observer StoreObserver
	ctx      context.Context
	call     string
	start    time.Time
}

// End ends the call. It takes the addresses of the results of the method, so that a deferred call
// sees what the method returns: done, which is nil for methods that refuse nothing, is false if the
// call was refused.
func (c ObservedCall) End(done *bool, err *error) {
	if c.observer == nil {
		return
	}
	outcome := StoreOK
	switch {
	case *err == nil && done != nil && !*done:
		outcome = StoreRefused
	case *err == nil:
	case errors.Is(c.ctx.Err(), context.Canceled):
		outcome = StoreAbandoned
	case errors.Is(*err, ErrUnavailable) && !errors.Is(*err, ErrDamaged):
		outcome = StoreUnavailable
	default:
		outcome = StoreError
	}
	c.observer(c.ctx, StoreCall{Call: c.call, Outcome: outcome, Start: c.start, Duration: time.Since(c.start)})
}

// TombstoneLifetime is how long a burned registration is kept after its lifetime, so that
// clients see no difference to an unknown identifier whose attempts are still counted.
const TombstoneLifetime = 10 * time.Minute
