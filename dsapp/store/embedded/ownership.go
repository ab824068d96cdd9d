package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// Owner implements ownership.Store.
func (s *Store) Owner(ctx context.Context, kind ownership.Kind, key string) (_ ownership.Claim, _ bool, err error) {
	defer s.observe.Begin(ctx, "owner").End(nil, &err)
	return s.owner(ctx, kind, key)
}

func (s *Store) owner(ctx context.Context, kind ownership.Kind, key string) (ownership.Claim, bool, error) {
	now := s.now()
	c, err := view(ctx, s, func(tx *bolt.Tx) (*claim, error) {
		return lookupClaim(tx, claimKey(kind, key), now)
	})
	if err != nil || c == nil {
		return ownership.Claim{}, false, readError(err)
	}
	return ownership.Claim{Key: key, Token: c.token, Owner: c.owner}, true, nil
}

// readError adds ownership.ErrDamaged to the error of reading a claim, if the claim is
// damaged.
func readError(err error) error {
	if errors.Is(err, activation.ErrDamaged) {
		return fmt.Errorf("%w: %w", ownership.ErrDamaged, err)
	}
	return err
}

// Pending implements ownership.Store.
func (s *Store) Pending(ctx context.Context, kind ownership.Kind, serialNumber string) (_ []ownership.Claim, err error) {
	defer s.observe.Begin(ctx, "pending").End(nil, &err)
	return s.pending(ctx, kind, serialNumber)
}

func (s *Store) pending(ctx context.Context, kind ownership.Kind, serialNumber string) ([]ownership.Claim, error) {
	now := s.now()
	claims, err := view(ctx, s, func(tx *bolt.Tx) ([]ownership.Claim, error) {
		return pendingClaims(tx, kind, serialNumber, now)
	})
	return claims, readError(err)
}

// pendingClaims returns the live claims that are listed for a device, ordered by key.
func pendingClaims(tx *bolt.Tx, kind ownership.Kind, serialNumber string, now time.Time) ([]ownership.Claim, error) {
	var claims []ownership.Claim
	device := deviceKey(kind, serialNumber)
	for _, pendingKey := range pendingKeys(tx, device) {
		if len(pendingKey) <= len(device)+indexPrefix {
			return nil, errCorrupt
		}
		key := string(pendingKey[len(device)+indexPrefix:])
		c, err := lookupClaim(tx, claimKey(kind, key), now)
		if err != nil {
			return nil, err
		}
		if c != nil {
			claims = append(claims, ownership.Claim{Key: key, Token: c.token, Owner: c.owner})
		}
	}
	slices.SortFunc(claims, func(a, b ownership.Claim) int { return strings.Compare(a.Key, b.Key) })
	return claims, nil
}

// Claim implements ownership.Store.
func (s *Store) Claim(ctx context.Context, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration) (claimed bool, err error) {
	defer s.observe.Begin(ctx, "claim").End(&claimed, &err)
	return s.claim(ctx, kind, c, serialNumber, lifetime)
}

func (s *Store) claim(ctx context.Context, kind ownership.Kind, c ownership.Claim, serialNumber string, lifetime time.Duration) (bool, error) {
	for _, identifier := range []string{c.Key, serialNumber} {
		if err := checkIdentifier(identifier); err != nil {
			return false, err
		}
	}
	// The caller may change its slice when it stops waiting, before this is written.
	next := claim{token: c.Token, serialNumber: serialNumber, owner: bytes.Clone(c.Owner)}
	name := claimKey(kind, c.Key)
	return update(ctx, s, func(t *transaction) (bool, error) {
		current, err := lookupClaim(t.tx, name, t.now)
		if err != nil {
			return false, err
		}
		if current != nil {
			return current.token == next.token, nil
		}
		next.ends = t.now.Add(lifetime).UnixNano()
		return true, t.putClaim(name, deviceKey(kind, serialNumber), c.Key, &next)
	})
}

// Release implements ownership.Store. It does not need the serial number: the claim has it.
func (s *Store) Release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, _ string) (err error) {
	defer s.observe.Begin(ctx, "release").End(nil, &err)
	return s.release(ctx, kind, key, token)
}

func (s *Store) release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token) error {
	return change(ctx, s, func(t *transaction) error {
		name := claimKey(kind, key)
		c, err := lookupClaim(t.tx, name, t.now)
		if err != nil || c == nil || c.token != token {
			return err
		}
		return t.dropClaim(indexKey(name, c.ends))
	})
}

// lookupClaim returns the claim with a key of bucketClaims, or nil if there is none or it has
// ended.
func lookupClaim(tx *bolt.Tx, name string, now time.Time) (*claim, error) {
	b := bucket(tx, bucketClaims).Get([]byte(name))
	if b == nil {
		return nil, nil
	}
	c, err := decodeClaim(b)
	if err != nil {
		return nil, err
	}
	if !c.live(now) {
		return nil, nil
	}
	return c, nil
}

// putClaim stores c under name, replaces a claim that has ended, and adds c to the list of
// the device. If the list is full, the claim that ends first leaves the list.
func (t *transaction) putClaim(name string, device []byte, key string, c *claim) error {
	if b := bucket(t.tx, bucketClaims).Get([]byte(name)); b != nil {
		ended, err := decodeClaim(b)
		if err != nil {
			return err
		}
		if err := t.dropClaim(indexKey(name, ended.ends)); err != nil {
			return err
		}
	}
	t.changed++
	listed := pendingKeys(t.tx, device)
	for _, pendingKey := range listed[:max(0, len(listed)-ownership.MaxPending+1)] {
		if err := bucket(t.tx, bucketPending).Delete(pendingKey); err != nil {
			return err
		}
	}
	pendingKey := append(appendMoment(slices.Clip(device), c.ends), key...)
	if err := bucket(t.tx, bucketPending).Put(pendingKey, nil); err != nil {
		return err
	}
	if err := bucket(t.tx, bucketEnds).Put(indexKey(name, c.ends), pendingKey); err != nil {
		return err
	}
	return bucket(t.tx, bucketClaims).Put([]byte(name), c.encode())
}

// dropClaim removes the claim with a key of bucketEnds. It does not decode the claim, so that
// a damaged one is removed as well when its lifetime has ended.
func (t *transaction) dropClaim(index []byte) error {
	t.changed++
	ends := bucket(t.tx, bucketEnds)
	if err := bucket(t.tx, bucketPending).Delete(ends.Get(index)); err != nil {
		return err
	}
	if err := ends.Delete(index); err != nil {
		return err
	}
	return bucket(t.tx, bucketClaims).Delete(index[indexPrefix:])
}

// pendingKeys returns the keys of bucketPending that belong to a device, in the order in
// which the claims end.
func pendingKeys(tx *bolt.Tx, device []byte) [][]byte {
	var found [][]byte
	c := bucket(tx, bucketPending).Cursor()
	for k, _ := c.Seek(device); bytes.HasPrefix(k, device); k, _ = c.Next() {
		found = append(found, bytes.Clone(k))
	}
	return found
}

// claimKey returns the key of a claim in bucketClaims. A kind contains no slash.
func claimKey(kind ownership.Kind, key string) string { return string(kind) + "/" + key }

// deviceKey returns the prefix of a device's keys in bucketPending. It contains the length of
// the serial number, so that none is the prefix of another.
func deviceKey(kind ownership.Kind, serialNumber string) []byte {
	b := append([]byte(kind), '/')
	b = binary.BigEndian.AppendUint16(b, uint16(len(serialNumber)))
	return append(b, serialNumber...)
}

var _ ownership.Store = (*Store)(nil)
