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
	// Forward the call; the authentication server decides.
	Forward Verdict = "forward"
	// AlreadyOwned means that the request was retrieved before: for others it is
	// no longer there.
	AlreadyOwned Verdict = "already_owned"
	// Foreign means that it is not the caller's to cancel.
	Foreign Verdict = "foreign"
	// PlainKey means that nothing is cancelled by a plain key.
	PlainKey Verdict = "plain_key"
)

// Decision is what to do with one call about a request.
//
// It comes with an error only if the call must not be answered: there is a claim
// that cannot be read, the store cannot be asked for the owner of a request that is
// cancelled by its plain key, or the caller's context has ended.
type Decision struct {
	Verdict Verdict
	// Known reports that an owner was found, for reports.
	Known bool
	// Instances to forward to, in order, none twice. If there is none, any
	// instance may hold the request.
	Instances []string
	// StoreErr is why the store could not be asked, else nil. The decision is then
	// the one for a request without an owner.
	StoreErr error

	// release is the claim that Release removes, nil for none.
	release *held
}

// Caller is who wants to cancel a request.
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
	// cancelling is that of the request with a plain key.
	cancelling
	// cancellingWrapped is that of one of a device's requests.
	cancellingWrapped
)

// held is a claim that was opened.
type held struct {
	kind  Kind
	key   string
	token Token
	owner Owner
}

// decide judges a call about the claims that were found: that to a request with
// a plain key, or all of the claimant's device.
func decide(op operation, found []held, c Caller, unknown UnknownRequests) Decision {
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
	// Of several requests, the authentication server alone knows which one the
	// key means.
	if d.Verdict == Forward && len(found) == 1 {
		d.release = &found[0]
	}
	return d
}

// conclude decides on what was found, or without it if err says that the store
// could not be asked. A plain key proves nothing about who sends it, so that a
// cancel by one is not forwarded without knowing the owner: an outage, which load
// can bring about, would let anybody cancel. A wrapped key was made by the device,
// which the authentication server checks.
func (s *Service) conclude(ctx context.Context, op operation, found []held, c Caller, err error) (Decision, error) {
	d := decide(op, found, c, s.unknown)
	if err == nil {
		return d, nil
	}
	err = fmt.Errorf("%w: asking for owner: %w", ErrUnavailable, err)
	if errors.Is(err, errUnread) || op == cancelling || d.Verdict != Forward || ctx.Err() != nil {
		return Decision{}, err
	}
	d.StoreErr = err
	return d, nil
}
