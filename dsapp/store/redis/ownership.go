package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// maxListed is how many claims the list of a device holds at most. Claim adds a claim to the
// list before it knows whether another owner has the request. The space beyond
// ownership.MaxPending keeps such claims from displacing others.
const maxListed = 2 * ownership.MaxPending

// Owner implements ownership.Store.
func (s *Store) Owner(ctx context.Context, kind ownership.Kind, key string) (_ ownership.Claim, _ bool, err error) {
	defer s.observe.Begin(ctx, "owner")(nil, &err)
	answers, err := s.send(ctx, s.ownerCall(kind, key))
	if err != nil {
		return ownership.Claim{}, false, readError(unavailable(err))
	}
	return ownerAnswer(answers[0], key)
}

// Pending implements ownership.Store.
func (s *Store) Pending(ctx context.Context, kind ownership.Kind, serialNumber string) (_ []ownership.Claim, err error) {
	defer s.observe.Begin(ctx, "pending")(nil, &err)
	replies, err := s.runAll(ctx, s.pendingCall(kind, serialNumber))
	if err != nil {
		return nil, readError(err)
	}
	return pendingAnswer(replies[0])
}

// Claim implements ownership.Store. The claim and the list of the device are in different
// slots, so two scripts write them at the same time. If another owner has the request, a
// second round trip removes the claim from the list.
func (s *Store) Claim(ctx context.Context, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration) (claimed bool, err error) {
	defer s.observe.Begin(ctx, "claim")(&claimed, &err)
	request, device := []string{s.claimKey(kind, c.Key)}, []string{s.deviceKey(kind, serialNumber)}
	entry, ends := listedEntry(c.Key, c.Token), milliseconds(max(lifetime, time.Millisecond))
	replies, err := s.runAll(ctx,
		call{script: s.scripts.claim, keys: request, args: []any{c.Token[:], c.Owner, ends}},
		call{script: s.scripts.listClaim, keys: device, args: []any{entry, c.Owner, ends, maxListed}})
	if err != nil {
		return false, err
	}
	if !replies[0].ok {
		// If this fails, the claim stays in the list until its lifetime ends.
		_, _ = s.run(ctx, s.scripts.unlistClaim, device, entry)
		return false, nil
	}
	return true, nil
}

// Release implements ownership.Store.
func (s *Store) Release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, serialNumber string) (err error) {
	defer s.observe.Begin(ctx, "release")(nil, &err)
	_, err = s.runAll(ctx,
		call{script: s.scripts.release, keys: []string{s.claimKey(kind, key)}, args: []any{token[:]}},
		call{script: s.scripts.unlistClaim, keys: []string{s.deviceKey(kind, serialNumber)}, args: []any{listedEntry(key, token)}})
	return err
}

// readError adds ownership.ErrDamaged to the error of reading a claim, if the claim is
// damaged.
func readError(err error) error {
	if errors.Is(err, activation.ErrDamaged) {
		return fmt.Errorf("%w: %w", ownership.ErrDamaged, err)
	}
	return err
}

func (s *Store) claimKey(kind ownership.Kind, key string) string {
	return s.prefix + ":own:" + string(kind) + ":{" + key + "}"
}

func (s *Store) deviceKey(kind ownership.Kind, serialNumber string) string {
	return s.prefix + ":dev:" + string(kind) + ":{" + serialNumber + "}"
}

var _ ownership.Store = (*Store)(nil)
