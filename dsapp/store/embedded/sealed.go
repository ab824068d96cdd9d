package embedded

import (
	"context"

	bolt "go.etcd.io/bbolt"
)

// Sealed calls visit with every sealed value in the files: the parts of registrations, the
// owners of requests and the simulation secret. Handshakes, which are in memory and end
// within minutes, are left out. The value must not be kept. Calls that write wait no longer
// than usual.
func (s *Store) Sealed(ctx context.Context, visit func(value []byte)) error {
	each := func(value []byte) {
		if len(value) > 0 {
			visit(value)
		}
	}
	// The archive comes second: what leaves the segments is there already.
	err := s.claims.each(func(r *request) error {
		each(r.owner)
		return ctx.Err()
	})
	if err != nil {
		return unavailable(err)
	}
	_, err = view(ctx, s, func(tx *bolt.Tx) (struct{}, error) {
		now := s.now()
		each(secret(tx))
		err := bucket(tx, bucketEntries).ForEach(func(identifier, _ []byte) error {
			e, err := lookupWhole(tx, string(identifier), now)
			// One that is damaged cannot be used and ends by itself.
			if err != nil || e == nil {
				return ctx.Err()
			}
			each(e.facts)
			each(e.verifier)
			each(e.data)
			return ctx.Err()
		})
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, bucket(tx, bucketClaims).ForEach(func(key, value []byte) error {
			if c, err := decodeClaim(value); err == nil && c.live(now) && !s.claims.knows(claimDigest(string(key))) {
				each(c.owner)
			}
			return ctx.Err()
		})
	})
	return err
}
