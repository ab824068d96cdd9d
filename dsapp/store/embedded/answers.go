package embedded

import (
	"context"
	"crypto/sha256"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

// The answer of a registration is kept as that of a call, in bucketRepeats, and under a digest of
// the identifier. It ends with the lifetime of the registration and is removed with it.

// Answer implements repeat.Store.
func (s *Store) Answer(ctx context.Context, identifier string) (_ []byte, err error) {
	defer s.observe.Begin(ctx, "answer")(nil, &err)
	now := s.now()
	kept, err := view(ctx, s, func(tx *bolt.Tx) (*keptEntry, error) { return lookupKept(tx, answerDigest(identifier), now) })
	if err != nil || kept == nil {
		return nil, err
	}
	return kept.Outcome, nil
}

// setAnswer stores the answer of a registration, or removes it if answer is nil.
func (t *transaction) setAnswer(identifier string, answer []byte, lifetime time.Duration) error {
	if answer == nil {
		return t.dropAnswer(identifier)
	}
	return t.putKept(repeat.Mark{Digest: answerDigest(identifier), Lifetime: lifetime}, answer)
}

// dropAnswer removes the answer of a registration, if there is one.
func (t *transaction) dropAnswer(identifier string) error {
	digest := answerDigest(identifier)
	kept, err := lookupKept(t.tx, digest, t.now)
	if err != nil || kept == nil {
		return err
	}
	return t.dropRepeat(indexKey(string(digest[:]), kept.ends))
}

func answerDigest(identifier string) repeat.Digest {
	return sha256.Sum256([]byte("answer " + identifier))
}
