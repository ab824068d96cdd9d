package ownership

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Verdict says what to do with a call.
type Verdict string

// The verdicts.
const (
	// Forward means that the authentication server decides.
	Forward Verdict = "forward"
	// AlreadyOwned means that the request was retrieved before, so that it does not exist
	// for other callers.
	AlreadyOwned Verdict = "already_owned"
	// Foreign means that the caller may not cancel the request, because it has another
	// owner or, with RefuseUnknown, no known one.
	Foreign Verdict = "foreign"
	// PlainKey means that cancellations by a plain key are refused.
	PlainKey Verdict = "plain_key"
)

// Decision says what to do with one call about a request.
//
// Instead of a decision there is an error if the owner has to be known and is not: a claim
// cannot be read, the store fails for a cancellation that depends on the owner, or the
// caller's context has ended.
type Decision struct {
	Verdict Verdict
	// Known says whether an owner was found.
	Known bool
	// Instances to forward to, in order, each once. If there is none, any instance may
	// hold the request.
	Instances []string
	// StoreErr is the error of the store if it could not be asked for the owner, else
	// nil. The decision is then that for a request without an owner.
	StoreErr error

	// release is the claim for Release to remove, nil for none.
	release *openedClaim
}

// Caller is the application and device that cancel a request.
type Caller struct {
	// Application is the name of the caller's key.
	Application string
	// SerialNumber of the device.
	SerialNumber string
}

// operation is what a call does with a request.
type operation int

const (
	retrieving operation = iota
	completing
	// cancelling is about the request with a plain key.
	cancelling
	// cancellingWrapped is about one of a device's requests, it is not known which.
	cancellingWrapped
)

// openedClaim is a claim with its owner opened.
type openedClaim struct {
	kind  Kind
	key   string
	token Token
	owner Owner
}

// decide decides about a call. found is the claim to the request or, for
// cancellingWrapped, all claims of the caller's device.
func decide(op operation, found []openedClaim, c Caller, unknown UnknownRequests) Decision {
	if len(found) == 0 {
		if op >= cancelling && unknown == RefuseUnknown {
			return Decision{Verdict: Foreign}
		}
		return Decision{Verdict: Forward}
	}
	switch op {
	case retrieving:
		return Decision{Verdict: AlreadyOwned, Known: true}
	case completing:
		return Decision{Verdict: Forward, Known: true, Instances: []string{found[0].owner.Instance}, release: &found[0]}
	}
	d := Decision{Verdict: Foreign, Known: true}
	for _, h := range found {
		if h.owner.Application != c.Application || h.owner.SerialNumber != c.SerialNumber {
			continue
		}
		d.Verdict = Forward
		if !slices.Contains(d.Instances, h.owner.Instance) {
			d.Instances = append(d.Instances, h.owner.Instance)
		}
	}
	// Of several requests, only the authentication server knows which one the wrapped key
	// means.
	if d.Verdict == Forward && len(found) == 1 {
		d.release = &found[0]
	}
	return d
}

// decision decides with the claims that were found, or without them if err says that the
// store failed. A plain key proves nothing about its sender. Without the owner a
// cancellation by a plain key is therefore not forwarded: otherwise anybody could cancel
// during an outage, which an attacker can cause by load. A wrapped key was made by the
// device, which the authentication server verifies.
func (s *Service) decision(ctx context.Context, op operation, found []openedClaim, c Caller, err error) (Decision, error) {
	d := decide(op, found, c, s.unknown)
	if err == nil {
		return d, nil
	}
	err = fmt.Errorf("%w: asking for owner: %w", ErrUnavailable, err)
	if errors.Is(err, errUnreadable) || op == cancelling || d.Verdict != Forward || ctx.Err() != nil {
		return Decision{}, err
	}
	d.StoreErr = err
	return d, nil
}
