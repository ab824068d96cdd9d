package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	request := s.claimKey(kind, key)
	// For a missing key, GETRANGE returns an empty string, GET an error of go-redis.
	answers, err := s.send(ctx, call{keys: []string{request}, args: []any{"GETRANGE", request, 0, -1}})
	if err != nil {
		return ownership.Claim{}, false, readError(unavailable(err))
	}
	text, err := answers[0].Text()
	if err != nil {
		return ownership.Claim{}, false, readError(unavailable(err))
	}
	if text == "" {
		return ownership.Claim{}, false, nil
	}
	token, owner, ok := cutToken(text)
	if !ok {
		return ownership.Claim{}, false, readError(activation.ErrDamaged)
	}
	return ownership.Claim{Key: key, Token: token, Owner: owner}, true, nil
}

// Pending implements ownership.Store.
func (s *Store) Pending(ctx context.Context, kind ownership.Kind, serialNumber string) (_ []ownership.Claim, err error) {
	defer s.observe.Begin(ctx, "pending")(nil, &err)
	a, err := s.run(ctx, s.scripts.listedClaims, []string{s.deviceKey(kind, serialNumber)}, ownership.MaxPending)
	if err != nil {
		return nil, readError(err)
	}
	claims := make([]ownership.Claim, len(a.values))
	for i, value := range a.values {
		text, _ := value.(string)
		c, ok := decodeListed(text)
		if !ok {
			return nil, readError(activation.ErrDamaged)
		}
		claims[i] = c
	}
	slices.SortFunc(claims, func(a, b ownership.Claim) int { return strings.Compare(a.Key, b.Key) })
	return claims, nil
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
