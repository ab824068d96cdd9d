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

// settleTime is the time after which releases that were delayed have been made, if the server is not very
// slow: about 10 times the delay.
const settleTime = 100 * time.Millisecond

// Owner implements ownership.Store.
func (s *Store) Owner(ctx context.Context, kind ownership.Kind, key string) (_ ownership.Claim, _ bool, err error) {
	defer s.observe.Begin(ctx, "owner").End(nil, &err)
	// For a missing key, GETRANGE returns an empty string, GET an error of go-redis.
	sent, err := s.send(ctx, call{args: []any{"GETRANGE", s.claimKey(kind, key), 0, -1}})
	if err != nil {
		return ownership.Claim{}, false, readError(unavailable(err))
	}
	text, err := sent[0].answer.Text()
	if err != nil {
		return ownership.Claim{}, false, readError(unavailable(err))
	}
	return decodeClaim(key, text)
}

// Pending implements ownership.Store.
func (s *Store) Pending(ctx context.Context, kind ownership.Kind, serialNumber string) ([]ownership.Claim, error) {
	claims, err := s.listed(ctx, kind, serialNumber)
	if err != nil {
		return nil, err
	}
	return s.settled(ctx, claims, kind, serialNumber), nil
}

// settled returns the claims of a device, of which claims have just been read. Some of several may have been
// released a moment ago by a node that delays releases, so several are read again a little later.
func (s *Store) settled(ctx context.Context, claims []ownership.Claim, kind ownership.Kind, serialNumber string) []ownership.Claim {
	if len(claims) < 2 || s.settle == 0 {
		return claims
	}
	select {
	case <-time.After(s.settle):
	case <-ctx.Done():
		return claims
	}
	again, err := s.listed(ctx, kind, serialNumber)
	if err != nil {
		return claims
	}
	return again
}

// listed returns the claims in the list of a device.
func (s *Store) listed(ctx context.Context, kind ownership.Kind, serialNumber string) (_ []ownership.Claim, err error) {
	defer s.observe.Begin(ctx, "pending").End(nil, &err)
	a, err := s.run(ctx, s.scripts.listedClaims.call(1, s.deviceKey(kind, serialNumber), ownership.MaxPending))
	if err != nil {
		return nil, readError(err)
	}
	return decodeClaims(a.values)
}

// Claim implements ownership.Store. The claim and the list of the device are in different
// slots, so two scripts write them at the same time. If another owner has the request, a
// second round trip removes the claim from the list.
func (s *Store) Claim(ctx context.Context, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration) (claimed bool, err error) {
	defer s.observe.Begin(ctx, "claim").End(&claimed, &err)
	ends := endsIn(lifetime)
	return s.claim(ctx, s.scripts.claim.call(1, s.claimKey(kind, c.Key), c.Token[:], c.Owner, ends), kind, c, serialNumber, ends)
}

// claim makes a claim with the call x, and lists it. It ends after so many milliseconds.
func (s *Store) claim(ctx context.Context, x call, kind ownership.Kind, c ownership.Claim, serialNumber string, ends int64) (bool, error) {
	device, entry := s.deviceKey(kind, serialNumber), listedEntry(c.Key, c.Token)
	a, err := s.run(ctx, x, s.scripts.listClaim.call(1, device, entry, c.Owner, ends, maxListed))
	if err != nil {
		return false, err
	}
	if !a.ok {
		// If this fails, the claim stays in the list until its lifetime ends.
		_, _ = s.run(ctx, s.scripts.unlistClaim.call(1, device, entry))
		return false, nil
	}
	return true, nil
}

// Release implements ownership.Store.
func (s *Store) Release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, serialNumber string) error {
	return s.makeLater(ctx, "release", nil, s.scripts.release.call(1, s.claimKey(kind, key), token[:]), s.unlistCall(kind, key, token, serialNumber))
}

// unlistCall is the call that removes a claim from the list of its device.
func (s *Store) unlistCall(kind ownership.Kind, key string, token ownership.Token, serialNumber string) call {
	return s.scripts.unlistClaim.call(1, s.deviceKey(kind, serialNumber), listedEntry(key, token))
}

// decodeClaim returns the claim in the value under its key, and whether there is one.
func decodeClaim(key, text string) (ownership.Claim, bool, error) {
	if text == "" {
		return ownership.Claim{}, false, nil
	}
	token, owner, ok := cutToken(text)
	if !ok {
		return ownership.Claim{}, false, readError(activation.ErrDamaged)
	}
	return ownership.Claim{Key: key, Token: token, Owner: owner}, true, nil
}

// decodeClaims returns the claims in the entries of a device's list.
func decodeClaims(entries []any) ([]ownership.Claim, error) {
	claims := make([]ownership.Claim, len(entries))
	for i, entry := range entries {
		text, _ := entry.(string)
		c, ok := decodeListed(text)
		if !ok {
			return nil, readError(activation.ErrDamaged)
		}
		claims[i] = c
	}
	slices.SortFunc(claims, func(a, b ownership.Claim) int { return strings.Compare(a.Key, b.Key) })
	return claims, nil
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
