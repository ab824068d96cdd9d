package redis

import "context"

// Answer implements repeat.Store. A registration that has ended has no key any more or, burned, no
// answer.
func (s *Store) Answer(ctx context.Context, identifier string) (_ []byte, err error) {
	defer s.observe.Begin(ctx, "answer")(nil, &err)
	// For a missing field, HMGET returns nil, HGET an error of go-redis.
	key := s.registrationKey(identifier)
	answers, err := s.send(ctx, call{keys: []string{key}, args: []any{"HMGET", key, "o"}})
	if err != nil {
		return nil, unavailable(err)
	}
	values, err := answers[0].Slice()
	if err != nil {
		return nil, unavailable(err)
	}
	if len(values) != 1 {
		return nil, unavailable(errUnexpectedAnswer)
	}
	return reply{values: values}.bytes(0), nil
}
