package ownership

import (
	"context"
	"time"
)

// Kind is what a request asks of the user.
type Kind string

// The kinds of requests. A key names one request of its kind, however it reached
// the phone.
const (
	Login     Kind = "login"
	Signature Kind = "signature"
)

// Token names one claim, so that its repetition is recognised: 16 random bytes.
type Token [16]byte

// Claim is the ownership of one request as a store keeps it.
type Claim struct {
	// Key is the plain challenge key or request key: 1 to 64 of 0-9, A-Z and a-z.
	Key string
	// Token of this claim.
	Token Token
	// Owner tells who retrieved the request and where it is; sealed.
	Owner []byte
}

// MaxPending is how many claims a store lists for one device and kind. The claim
// that ends first gives way to one more.
const MaxPending = 16

// Store keeps claims, and for every device a list of its claims. Claims are what
// counts; the list may lack a claim, and after an outage it may have one too
// many. Every method is one round trip on a networked store. All methods may be
// called concurrently, also by several gateway nodes on one store.
//
// An error means that the operation could not be carried out or that its outcome
// is unknown; that there is no claim, or another's, is never an error.
type Store interface {
	// Owner returns the live claim to a request, and whether there is one.
	Owner(ctx context.Context, kind Kind, key string) (Claim, bool, error)

	// Pending returns the live claims that are listed for a device, at most
	// MaxPending, ordered by key.
	Pending(ctx context.Context, kind Kind, serialNumber string) ([]Claim, error)

	// Claim keeps c for the lifetime and lists it for the device, unless a live
	// claim to the request with another token exists: then it returns false, and
	// the device's list is as before. Repeating a Claim with the same token
	// succeeds and does not prolong its life.
	Claim(ctx context.Context, kind Kind, c Claim, serialNumber string, lifetime time.Duration) (bool, error)

	// Release removes the claim to a request, from the device's list too, if it
	// has that token.
	Release(ctx context.Context, kind Kind, key string, token Token, serialNumber string) error
}
