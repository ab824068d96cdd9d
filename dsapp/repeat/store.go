package repeat

import (
	"context"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// Token identifies one call: 16 random bytes.
type Token [16]byte

// Digest identifies a call and its repeats. It is a keyed digest of everything that the
// call consists of.
type Digest [32]byte

// Mark says that a call is under way.
type Mark struct {
	// Place is what the call is about: a registration identifier, the key of a request or a
	// serial number. A networked store keeps the mark beside what it has about that.
	Place  string
	Digest Digest
	Token  Token
	// Outcome is what is kept with the mark, sealed; nil for most marks.
	Outcome []byte
	// Lifetime is when the mark ends by itself.
	Lifetime time.Duration
}

// Entry is what a store has about a call.
type Entry struct {
	// Token is that of the call that was first.
	Token Token
	// Outcome is the sealed outcome of that call. While the call is under way, it is that of its
	// Mark.
	Outcome []byte
}

// Store keeps marks and outcomes. Every method is one round trip on a networked store, and
// atomic for each digest. All methods are safe for concurrent use, also by several gateway
// nodes on one store.
//
// An error means that the operation could not be carried out or that its outcome is unknown.
type Store interface {
	// Mark returns the entry of a digest. If there is none whose lifetime has not passed, it
	// stores m and returns false. After a lost answer a store may repeat a Mark and then
	// return the mark itself as an entry, with its token.
	Mark(ctx context.Context, m Mark) (Entry, bool, error)

	// MarkOwner does what Mark does, and ownership.Store.Owner.
	MarkOwner(ctx context.Context, m Mark, kind ownership.Kind, key string) (e Entry, found bool, c ownership.Claim, owned bool, err error)

	// MarkPending does what Mark does, and ownership.Store.Pending.
	MarkPending(ctx context.Context, m Mark, kind ownership.Kind, serialNumber string) (e Entry, found bool, claims []ownership.Claim, err error)

	// MarkDevice returns the entry of a digest. If there is none, it does what
	// activation.Store.AdmitDevice does, and stores m if the device is admitted.
	MarkDevice(ctx context.Context, m Mark, identifier string, maxAttempts int) (e Entry, found bool, r activation.Record, admitted bool, err error)

	// MarkConfirmation is MarkDevice with activation.Store.AdmitConfirmation.
	MarkConfirmation(
		ctx context.Context, m Mark, identifier string, maxAttempts int, kinds ...activation.Kind,
	) (e Entry, found bool, r activation.Record, admitted bool, err error)

	// Kept returns the entry of a digest, and whether there is one.
	Kept(ctx context.Context, place string, d Digest) (Entry, bool, error)

	// Keep stores the outcome of the call with the token of m, for the lifetime of m, unless
	// there is an entry with another token.
	Keep(ctx context.Context, m Mark, outcome []byte) error

	// KeepClaim does what ownership.Store.Claim does. If that succeeds, it does what Keep does,
	// and otherwise what Forget does. The outcome is never kept without the claim.
	KeepClaim(
		ctx context.Context, m Mark, outcome []byte, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration,
	) (claimed bool, err error)

	// KeepRelease does what Keep does, and ownership.Store.Release, both as late as Release. After
	// an error, one of them may be done.
	KeepRelease(ctx context.Context, m Mark, outcome []byte, kind ownership.Kind, key string, token ownership.Token, serialNumber string) error

	// KeepRemove does what Keep does, and activation.Store.Remove. After an error, one of them
	// may be done.
	KeepRemove(ctx context.Context, m Mark, outcome []byte, identifier string, generation activation.Generation) error

	// Forget removes the entry if it has that token.
	Forget(ctx context.Context, place string, d Digest, token Token) error

	// Answer returns the Answer of a live record, nil if there is none.
	Answer(ctx context.Context, identifier string) ([]byte, error)
}
