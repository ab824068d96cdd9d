package embedded

import (
	"bytes"
	"context"

	bolt "go.etcd.io/bbolt"
)

// Answer implements repeat.Store.
func (s *Store) Answer(ctx context.Context, identifier string) (_ []byte, err error) {
	defer s.observe.Begin(ctx, "answer").End(nil, &err)
	now := s.now()
	return view(ctx, s, func(tx *bolt.Tx) ([]byte, error) {
		e, err := lookup(tx, identifier, now)
		if err != nil || e == nil || !e.live(now) {
			return nil, err
		}
		return bytes.Clone(bucket(tx, bucketAnswers).Get([]byte(identifier))), nil
	})
}

// setAnswer stores the answer of a registration, or removes it if answer is nil.
func (t *transaction) setAnswer(identifier string, answer []byte) error {
	if answer == nil {
		return t.dropAnswer(identifier)
	}
	return bucket(t.tx, bucketAnswers).Put([]byte(identifier), answer)
}

// dropAnswer removes the answer of a registration, if there is one.
func (t *transaction) dropAnswer(identifier string) error {
	return bucket(t.tx, bucketAnswers).Delete([]byte(identifier))
}
