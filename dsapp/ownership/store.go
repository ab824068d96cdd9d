package ownership

import (
	"context"
	"time"
)

// Kind is the kind of a request.
type Kind string

// The kinds of requests. A key names one request of its kind, whichever way the request
// reached the phone.
const (
	Login     Kind = "login"
	Signature Kind = "signature"
)

// Token identifies one claim, so that a store recognises its repetition: 16 random bytes.
type Token [16]byte

// Claim is the owner of one request as a store keeps it.
type Claim struct {
	// Key is the plain challenge key or request key: 1 to 64 of 0-9, A-Z and a-z.
	Key   string
	Token Token
	// Owner is the sealed Owner.
	Owner []byte
}

// MaxPending is how many claims a store lists for one device and kind. One more displaces
// the claim that ends first.
const MaxPending = 16

// Store keeps claims, and for every device a list of its claims. The claims are
// authoritative: the list may lack a claim, and after an outage it may have one too many.
// Every method is one round trip on a networked store. All methods are safe for concurrent
// use, also by several gateway nodes on one store.
//
// An error means that the operation could not be carried out or that its outcome is
// unknown. It is not an error if there is no claim, or the claim of somebody else.
type Store interface {
	// Owner returns the claim to a request, and whether there is one whose lifetime has
	// not passed.
	Owner(ctx context.Context, kind Kind, key string) (Claim, bool, error)

	// Pending returns the claims that are listed for a device and whose lifetime has not
	// passed: at most MaxPending, ordered by key.
	Pending(ctx context.Context, kind Kind, serialNumber string) ([]Claim, error)

	// Claim stores c for the lifetime, lists it for the device and returns true. If there
	// is a claim to the request with another token it changes nothing and returns false.
	// Repeating a Claim with the same token succeeds and does not extend its lifetime.
	Claim(ctx context.Context, kind Kind, c Claim, serialNumber string, lifetime time.Duration) (bool, error)

	// Release removes the claim to a request, also from the device's list, if it has that
	// token. A networked store may do so a moment after it returned, together with others.
	Release(ctx context.Context, kind Kind, key string, token Token, serialNumber string) error
}
