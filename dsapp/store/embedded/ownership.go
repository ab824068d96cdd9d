package embedded

import (
	"bytes"
	"cmp"
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
	if err := s.usable(ctx); err != nil {
		return ownership.Claim{}, false, err
	}
	name := claimKey(kind, key)
	// The archive comes second: what leaves the segments is there already.
	d := claimDigest(name)
	r, ask, err := s.claims.owner(d)
	if err != nil {
		return ownership.Claim{}, false, readError(unavailable(err))
	}
	if r != nil {
		return r.owned(), true, nil
	}
	if ask == 0 {
		return ownership.Claim{}, false, nil
	}
	c, err := s.archivedClaim(ctx, name)
	if err != nil {
		return ownership.Claim{}, false, readError(err)
	}
	if c == nil {
		s.claims.noteAbsent(d, ask)
		return ownership.Claim{}, false, nil
	}
	return ownership.Claim{Key: key, Token: c.token, Owner: c.owner}, true, nil
}

// archivedClaim returns the claim with a key of bucketClaims, or nil if there is none or it has ended.
func (s *Store) archivedClaim(ctx context.Context, name string) (*claim, error) {
	now := s.now()
	return view(ctx, s, func(tx *bolt.Tx) (*claim, error) { return lookupClaim(tx, name, now) })
}

// owned returns the claim to a request.
func (r *request) owned() ownership.Claim {
	return ownership.Claim{Key: r.key, Token: r.token, Owner: r.owner}
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
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	found, recent, err := s.claimsOf(ctx, kind, serialNumber)
	if err != nil {
		return nil, readError(err)
	}
	var listed []ownership.Claim
	for _, r := range latest(found, recent) {
		listed = append(listed, r.owned())
	}
	slices.SortFunc(listed, func(a, b ownership.Claim) int { return strings.Compare(a.Key, b.Key) })
	return listed, nil
}

// claimsOf returns the claims of a device that are archived, and the recent ones.
func (s *Store) claimsOf(ctx context.Context, kind ownership.Kind, serialNumber string) (found, recent []*request, err error) {
	for {
		recent, moves, err := s.claims.pending(kind, serialNumber)
		if err != nil {
			return nil, nil, unavailable(err)
		}
		now := s.now()
		found, err := view(ctx, s, func(tx *bolt.Tx) ([]*request, error) {
			return pendingClaims(tx, kind, serialNumber, now)
		})
		if err != nil {
			return nil, nil, err
		}
		found = slices.DeleteFunc(found, func(r *request) bool { return s.claims.knows(r.digest()) })
		// What was archived in between may be in both, or be released and in the archive as it was.
		if s.claims.moved() == moves {
			return found, recent, nil
		}
	}
}

// latest returns the claims of a device that are archived and the recent ones, of which the newest comes
// last. If they are too many for a list, the newest one stays, and those that end first are left out.
func latest(archived, recent []*request) []*request {
	n := min(len(recent), 1)
	newest, others := recent[len(recent)-n:], slices.Concat(recent[:len(recent)-n], archived)
	slices.SortFunc(others, func(a, b *request) int { return cmp.Compare(b.ends, a.ends) })
	return append(newest, others[:min(len(others), ownership.MaxPending-n)]...)
}

// pendingClaims returns the live claims that are listed for a device.
func pendingClaims(tx *bolt.Tx, kind ownership.Kind, serialNumber string, now time.Time) ([]*request, error) {
	var found []*request
	device := deviceKey(kind, serialNumber)
	for _, pendingKey := range pendingKeys(tx, device) {
		key, ok := pendingRequest(device, pendingKey)
		if !ok {
			return nil, errCorrupt
		}
		c, err := lookupClaim(tx, claimKey(kind, key), now)
		if err != nil {
			return nil, err
		}
		// Another one's claim to the request can have been archived since.
		if c != nil && c.serialNumber == serialNumber {
			found = append(found, &request{*c, kind, key})
		}
	}
	return found, nil
}

// pendingRequest returns the key of the request in a key of bucketPending, and whether it has one.
func pendingRequest(device, pendingKey []byte) (string, bool) {
	n := len(device) + indexPrefix
	if len(pendingKey) <= n {
		return "", false
	}
	return string(pendingKey[n:]), true
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
	if err := s.usable(ctx); err != nil {
		return false, err
	}
	next := &request{claim{token: c.Token, serialNumber: serialNumber, owner: c.Owner}, kind, c.Key}
	for {
		claimed, ask, err := s.claims.claim(next, lifetime)
		if err != nil {
			return false, unavailable(err)
		}
		if ask == 0 {
			return claimed, nil
		}
		current, err := s.archivedClaim(ctx, next.name())
		if err != nil || current != nil {
			return err == nil && current.token == c.Token, err
		}
		s.claims.noteAbsent(next.digest(), ask)
	}
}

// Release implements ownership.Store.
func (s *Store) Release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, serialNumber string) (err error) {
	defer s.observe.Begin(ctx, "release").End(nil, &err)
	return s.release(ctx, kind, key, token, serialNumber)
}

func (s *Store) release(ctx context.Context, kind ownership.Kind, key string, token ownership.Token, serialNumber string) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	r := &request{claim{token: token, serialNumber: serialNumber}, kind, key}
	for moves := uint64(0); ; {
		ask, err := s.claims.release(r, moves)
		if err != nil {
			return unavailable(err)
		}
		if ask == 0 {
			return nil
		}
		current, err := s.archivedClaim(ctx, r.name())
		if err != nil || current == nil || current.token != token {
			return err
		}
		moves = ask
	}
}

// archiveClaims makes room in the segments of claims, if they need some.
func (s *Store) archiveClaims() error {
	if !s.claims.due() {
		return nil
	}
	if err := s.claims.archive(s.archive); err != nil {
		return err
	}
	return s.claims.turn()
}

// archive archives records of a segment that no other goroutine changes.
func (s *Store) archive(from *segment, batch []archived) error {
	select {
	case <-s.stop:
		return errClosed
	default:
	}
	var found []*request
	for _, a := range batch {
		r, err := readRequest(from, a)
		if err != nil {
			continue // it is damaged, and was refused until now
		}
		found = append(found, r)
	}
	now := s.now()
	// Usually the archive need not be written: the claims were released, and are not there.
	found, err := view(context.Background(), s, func(tx *bolt.Tx) ([]*request, error) {
		return slices.DeleteFunc(found, func(r *request) bool {
			return !r.live(now) && bucket(tx, bucketClaims).Get([]byte(r.name())) == nil
		}), nil
	})
	if err != nil || len(found) == 0 {
		return err
	}
	return change(context.Background(), s, func(t *transaction) error {
		for _, r := range found {
			if err := t.archive(r, s.claims.outdated); err != nil {
				return err
			}
		}
		return nil
	})
}

// archive replaces what the archive has of a request by the claim in r, if that is live. In the list of the
// device, claims that are outdated give way.
func (t *transaction) archive(r *request, outdated func(digest) bool) error {
	t.changed++
	name := r.name()
	if b := bucket(t.tx, bucketClaims).Get([]byte(name)); b != nil {
		// If it cannot be decoded, the rest of it is removed at its end.
		old, err := decodeClaim(b)
		if err == nil {
			err = t.dropClaim(indexKey(name, old.ends))
		} else {
			err = bucket(t.tx, bucketClaims).Delete([]byte(name))
		}
		if err != nil {
			return err
		}
	}
	if !r.live(t.now) {
		return nil
	}
	device := deviceKey(r.kind, r.serialNumber)
	for _, pendingKey := range pendingKeys(t.tx, device) {
		if key, ok := pendingRequest(device, pendingKey); ok && key != r.key && !outdated(claimDigest(claimKey(r.kind, key))) {
			continue
		}
		if err := bucket(t.tx, bucketPending).Delete(pendingKey); err != nil {
			return err
		}
	}
	return t.putClaim(r)
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

// putClaim stores a claim and adds it to the list of the device. If there are too many in the list, those
// that end first leave it.
func (t *transaction) putClaim(r *request) error {
	t.changed++
	name, device := r.name(), deviceKey(r.kind, r.serialNumber)
	pendingKey := append(appendMoment(slices.Clip(device), r.ends), r.key...)
	if err := bucket(t.tx, bucketPending).Put(pendingKey, nil); err != nil {
		return err
	}
	listed := pendingKeys(t.tx, device)
	for _, first := range listed[:max(0, len(listed)-ownership.MaxPending)] {
		if err := bucket(t.tx, bucketPending).Delete(first); err != nil {
			return err
		}
	}
	if err := bucket(t.tx, bucketEnds).Put(indexKey(name, r.ends), pendingKey); err != nil {
		return err
	}
	return bucket(t.tx, bucketClaims).Put([]byte(name), r.claim.encode())
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
