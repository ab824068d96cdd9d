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

// maxListed is how many claims the list of a device holds. Those beyond
// ownership.MaxPending are room for claims that turn out to be another's, so that
// they push nothing out.
const maxListed = 2 * ownership.MaxPending

// Owner implements ownership.Store.
func (s *Store) Owner(ctx context.Context, kind ownership.Kind, key string) (ownership.Claim, bool, error) {
	request := s.request(kind, key)
	// Unlike GET, this has no answer that go-redis takes for an error.
	answers, err := s.send(ctx, call{keys: []string{request}, args: []any{"GETRANGE", request, 0, -1}})
	if err != nil {
		return ownership.Claim{}, false, unread(unavailable(err))
	}
	text, err := answers[0].Text()
	if err != nil {
		return ownership.Claim{}, false, unread(unavailable(err))
	}
	if text == "" {
		return ownership.Claim{}, false, nil
	}
	token, owner, ok := cutToken(text)
	if !ok {
		return ownership.Claim{}, false, unread(activation.ErrDamaged)
	}
	return ownership.Claim{Key: key, Token: token, Owner: owner}, true, nil
}

// Pending implements ownership.Store.
func (s *Store) Pending(ctx context.Context, kind ownership.Kind, serialNumber string) ([]ownership.Claim, error) {
	a, err := s.run(ctx, s.scripts.listed, []string{s.device(kind, serialNumber)}, ownership.MaxPending)
	if err != nil {
		return nil, unread(err)
	}
	claims := make([]ownership.Claim, len(a.values))
	for i, value := range a.values {
		text, _ := value.(string)
		c, ok := decodeListed(text)
		if !ok {
			return nil, unread(activation.ErrDamaged)
		}
		claims[i] = c
	}
	slices.SortFunc(claims, func(a, b ownership.Claim) int { return strings.Compare(a.Key, b.Key) })
	return claims, nil
}

// Claim implements ownership.Store. The claim and the list are in different slots,
// so they are written by two scripts at the same time: a claim that turns out to
// be another's leaves the list by a second round trip.
func (s *Store) Claim(ctx context.Context, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration) (bool, error) {
	request, device := []string{s.request(kind, c.Key)}, []string{s.device(kind, serialNumber)}
	entry, ends := listedEntry(c.Key, c.Token), milliseconds(max(lifetime, time.Millisecond))
	replies, err := s.runAll(ctx,
		call{script: s.scripts.claim, keys: request, args: []any{c.Token[:], c.Owner, ends}},
		call{script: s.scripts.list, keys: device, args: []any{entry, c.Owner, ends, maxListed}})
	if err != nil {
		return false, err
	}
	if !replies[0].ok {
		// If this fails, the list has one claim too many for its lifetime.
		_, _ = s.run(ctx, s.scripts.unlist, device, entry)
		return false, nil
	}
	return true, nil
}

// Release implements ownership.Store.
func (s *Store) Release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, serialNumber string) error {
	_, err := s.runAll(ctx,
		call{script: s.scripts.release, keys: []string{s.request(kind, key)}, args: []any{token[:]}},
		call{script: s.scripts.unlist, keys: []string{s.device(kind, serialNumber)}, args: []any{listedEntry(key, token)}})
	return err
}

// unread is the error of a claim that was not read, also if that is because no Store
// can have written it.
func unread(err error) error {
	if errors.Is(err, activation.ErrDamaged) {
		return fmt.Errorf("%w: %w", ownership.ErrDamaged, err)
	}
	return err
}

func (s *Store) request(kind ownership.Kind, key string) string {
	return s.prefix + ":own:" + string(kind) + ":{" + key + "}"
}

func (s *Store) device(kind ownership.Kind, serialNumber string) string {
	return s.prefix + ":dev:" + string(kind) + ":{" + serialNumber + "}"
}

var _ ownership.Store = (*Store)(nil)
