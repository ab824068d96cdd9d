package ownership

import (
	"context"
	"fmt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// Owned is a pending request with its owner.
type Owned struct {
	Kind Kind
	// Key is the plain key. Whoever knows it may be able to cancel the request.
	Key string
	Owner
}

// Owned returns the pending requests that a device has retrieved, at most MaxPending of each
// kind, ordered by kind and key. The error wraps ErrUnavailable.
func (s *Service) Owned(ctx context.Context, serialNumber form.SerialNumber) ([]Owned, error) {
	var owned []Owned
	for _, kind := range []Kind{Login, Signature} {
		claims, err := s.claimsOf(ctx, kind, string(serialNumber))
		if err != nil {
			return nil, fmt.Errorf("%w: listing the requests of a device: %w", ErrUnavailable, err)
		}
		for _, c := range claims {
			owned = append(owned, Owned{Kind: kind, Key: c.key, Owner: c.owner})
		}
	}
	return owned, nil
}
