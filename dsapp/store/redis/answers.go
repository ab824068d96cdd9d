package redis

import "context"

// Answer implements repeat.Store. A registration that has ended has no key any more or, burned, no
// answer.
func (s *Store) Answer(ctx context.Context, identifier string) (_ []byte, err error) {
	defer s.observe.Begin(ctx, "answer").End(nil, &err)
	// For a missing field, HMGET returns nil, HGET an error of go-redis.
	key := s.registrationKey(identifier)
	sent, err := s.send(ctx, call{args: []any{"HMGET", key, "o"}})
	if err != nil {
		return nil, unavailable(err)
	}
	values, err := sent[0].answer.Slice()
	if err != nil {
		return nil, unavailable(err)
	}
	if len(values) != 1 {
		return nil, unavailable(errUnexpectedAnswer)
	}
	return reply{values: values}.bytes(0), nil
}
