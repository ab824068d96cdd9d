// Package redis keeps registrations, handshakes and the ownership of requests on
// Redis (version 6 or later), for gateways of several nodes: on one server, on the
// master that Sentinels tell, or on a cluster.
//
// Keys, with dsapp standing for the key prefix and id for an identifier; kind is
// login or signature:
//
//	dsapp:{id}:reg           the registration, a hash
//	dsapp:{id}:hs            the handshakes, a hash
//	dsapp:own:kind:{key}     the claim to a request, a string
//	dsapp:dev:kind:{serial}  the claims of a device, a sorted set
//	dsapp:sim                the simulation secret, a string
//	dsapp:room:token         room for a record, a string; on a cluster dsapp:{n}:room:token
//
// Every key but dsapp:sim expires. The braces make both keys of an identifier
// fall into one slot of a cluster. All values are sealed before they get here,
// except for kinds, lifetimes, counters and the keys of requests; of the addresses
// and applications that begin exchanges there are keyed hashes.
//
// The user of the servers' access control needs these commands, for the keys that
// begin with the prefix:
//
//	eval evalsha wait time get set getrange setrange del pexpireat
//	hget hmget hset hdel hexists hincrby
//	zadd zrange zrem zrevrangebyscore zremrangebyscore zremrangebyrank
//	cluster|slots asking  (on a cluster)
//	select                (for another database than 0)
//
// and the Sentinels' user these, for the channels +switch-master and
// +replica-reconf-done:
//
//	sentinel|get-master-addr-by-name sentinel|sentinels subscribe ping
package redis

import (
	"context"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

const (
	// DefaultKeyPrefix is the default of Options.KeyPrefix.
	DefaultKeyPrefix = "dsapp"
	// DefaultMaxSimulated is the default of Options.MaxSimulated.
	DefaultMaxSimulated = 10_000
	// overflow stands for all identifiers whose simulated handshakes are beyond
	// the cap. It is not a valid identifier.
	overflow = "~"
	// takeMargin is how long an identifier is tracked for a Take whose outcome
	// stays unknown.
	takeMargin = time.Minute
	// maxWaitReplicas is the greatest Options.WaitReplicas.
	maxWaitReplicas = 16
)

// Options adjusts a Store. The zero value is ready to use.
type Options struct {
	// KeyPrefix is the first part of every key. It has no braces.
	// Default: DefaultKeyPrefix.
	KeyPrefix string
	// MaxSimulated caps the identifiers with simulated state that this Store
	// makes: a record and up to activation.MaxHandshakes handshakes each. Beyond it,
	// probing an unknown identifier costs the same commands, on one key.
	// Default: DefaultMaxSimulated.
	MaxSimulated int
	// WaitReplicas is how many replicas must have what Create, Take and Settle
	// wrote before they succeed, so that a master that fails does not take it
	// along. If fewer confirm it in half of the client's timeout, the call is
	// unavailable, and what was written stays. At most 16. Default: 0.
	WaitReplicas int
	// Report is told of a server that has stopped answering, with the reason: until
	// it answers again, calls fail at once. Then it is called once more, without an
	// error. The server is its address as the client knows it, which for Sentinels
	// is a fixed name, and empty for the nodes of a cluster that have not told yet
	// where its slots are. Default: nobody is told.
	Report func(ctx context.Context, server string, err error)
}

// Check checks the options. The error is an *option.Error.
func (o Options) Check() error {
	// It would take the place of the one that chooses the slot.
	if strings.ContainsAny(o.KeyPrefix, "{}") {
		return option.Errorf("key_prefix", "must have no braces")
	}
	return option.Number("wait_replicas", o.WaitReplicas, 0, maxWaitReplicas)
}

// Store keeps everything on Redis. It implements activation.Store and
// ownership.Store.
//
// A server that left several calls in a row without an answer is not asked for a
// moment: the errors of calls that were not made wrap a *breaker.OpenError as well.
type Store struct {
	client  goredis.UniversalClient
	prefix  string
	scripts scripts
	tracker *tracker
	guard   *guard
	// replicas is Options.WaitReplicas.
	replicas int
	now      func() time.Time
	rooms    rooms
}

// New returns a Store on client, which it does not close: one of NewClient, or
// another of the types Client and ClusterClient whose Options.MaxRetries is -1. A
// client that repeats a Take by itself would consume an attempt and be refused.
func New(client goredis.UniversalClient, opts Options) *Store {
	if opts.KeyPrefix == "" {
		opts.KeyPrefix = DefaultKeyPrefix
	}
	if opts.MaxSimulated <= 0 {
		opts.MaxSimulated = DefaultMaxSimulated
	}
	if opts.Report == nil {
		opts.Report = func(context.Context, string, error) {}
	}
	return &Store{
		client:   client,
		prefix:   opts.KeyPrefix,
		scripts:  newScripts(),
		tracker:  newTracker(opts.MaxSimulated, time.Now),
		guard:    newGuard(opts.Report, time.Now),
		replicas: opts.WaitReplicas,
		now:      time.Now,
	}
}

// Create implements activation.Store. It takes the place of a room that is reserved, which
// is made anew with the same round trip.
func (s *Store) Create(ctx context.Context, r activation.Record, replaces activation.Generation) (activation.Record, bool, error) {
	place := s.rooms.borrow()
	if place != nil {
		defer s.rooms.hold(place)
	}
	a, err := s.runAll(ctx, call{
		script: s.scripts.create,
		keys:   []string{s.registration(r.Identifier), s.handshake(r.Identifier)},
		args:   []any{r.Generation[:], replaces[:], string(r.Kind), milliseconds(r.Lifetime), r.Facts, r.Verifier, r.Data},
		room:   place,
	})
	if err != nil {
		if place != nil {
			place.proven = time.Time{}
		}
		return activation.Record{}, false, err
	}
	if a[0].ok {
		return activation.Record{}, true, nil
	}
	existing, err := a[0].record(r.Identifier)
	return existing, false, err
}

// Load implements activation.Store.
func (s *Store) Load(ctx context.Context, identifier string) (activation.Record, bool, error) {
	return s.admit(ctx, s.scripts.load, identifier)
}

// PutHandshake implements activation.Store.
func (s *Store) PutHandshake(ctx context.Context, identifier string, h activation.Handshake) (bool, error) {
	lifetime := max(h.Lifetime, time.Millisecond)
	if h.Simulated {
		// That contention was told is kept, too.
		if held, _ := s.tracker.hold(identifier, max(lifetime, activation.ContentionInterval)); !held {
			identifier = overflow
		}
	}
	a, err := s.run(ctx, s.scripts.put, []string{s.handshake(identifier)},
		encodeHandshake(h), milliseconds(lifetime), milliseconds(activation.ContentionInterval))
	// Those that share a key do not contend for one identifier.
	return a.ok && identifier != overflow, err
}

// Take implements activation.Store.
func (s *Store) Take(
	ctx context.Context, identifier string, token activation.Token, source activation.Tag, maxAttempts int,
) (activation.Handshake, bool, error) {
	// Whether the handshake is simulated is known afterwards only; until then a
	// place for the record is reserved, unless there is none.
	room, claimed := s.tracker.hold(identifier, takeMargin)
	a, err := s.run(ctx, s.scripts.take, []string{s.registration(identifier), s.handshake(identifier)},
		token[:], source[:], maxAttempts, room)
	if err != nil {
		return activation.Handshake{}, false, err
	}
	var h activation.Handshake
	if a.ok {
		if h, err = a.handshake(); err != nil {
			return activation.Handshake{}, false, err
		}
	}
	switch {
	case h.Simulated:
		s.tracker.hold(identifier, h.RecordLifetime+activation.TombstoneLifetime)
	case claimed != 0:
		s.tracker.release(identifier, claimed)
	}
	return h, a.ok, nil
}

// Settle implements activation.Store.
func (s *Store) Settle(ctx context.Context, identifier string, x activation.Settlement) (activation.Record, bool, error) {
	return s.admit(ctx, s.scripts.settle, identifier,
		x.Generation[:], x.Token[:], x.Proven, x.MaxAttempts, x.MaxActivations, milliseconds(activation.TombstoneLifetime))
}

// AdmitDevice implements activation.Store.
func (s *Store) AdmitDevice(ctx context.Context, identifier string, maxAttempts int) (activation.Record, bool, error) {
	return s.admit(ctx, s.scripts.admitDevice, identifier, maxAttempts)
}

// ReturnDevice implements activation.Store.
func (s *Store) ReturnDevice(ctx context.Context, identifier string, generation activation.Generation) error {
	return s.giveBack(ctx, identifier, generation, "n")
}

// AdmitConfirmation implements activation.Store.
func (s *Store) AdmitConfirmation(ctx context.Context, identifier string, maxAttempts int, kinds ...activation.Kind) (activation.Record, bool, error) {
	args := []any{maxAttempts}
	for _, kind := range kinds {
		args = append(args, string(kind))
	}
	return s.admit(ctx, s.scripts.admitConfirmation, identifier, args...)
}

// ReturnConfirmation implements activation.Store.
func (s *Store) ReturnConfirmation(ctx context.Context, identifier string, generation activation.Generation) error {
	return s.giveBack(ctx, identifier, generation, "c")
}

// Remove implements activation.Store.
func (s *Store) Remove(ctx context.Context, identifier string, generation activation.Generation) error {
	_, err := s.run(ctx, s.scripts.remove, []string{s.registration(identifier), s.handshake(identifier)}, generation[:])
	return err
}

// SimulationSecret implements activation.Store.
func (s *Store) SimulationSecret(ctx context.Context, candidate []byte) ([]byte, error) {
	a, err := s.run(ctx, s.scripts.secret, []string{s.prefix + ":sim"}, candidate)
	if err != nil {
		return nil, err
	}
	if len(a.values) != 1 {
		return nil, unavailable(errAnswer)
	}
	return a.bytes(0), nil
}

// ReplaceSimulationSecret implements activation.Store.
func (s *Store) ReplaceSimulationSecret(ctx context.Context, current, next []byte) (bool, error) {
	a, err := s.run(ctx, s.scripts.replaceSecret, []string{s.prefix + ":sim"}, current, next)
	return a.ok, err
}

func (s *Store) registration(identifier string) string { return s.prefix + ":{" + identifier + "}:reg" }

func (s *Store) handshake(identifier string) string { return s.prefix + ":{" + identifier + "}:hs" }

// run sends a script and reads its answer.
func (s *Store) run(ctx context.Context, x script, keys []string, args ...any) (reply, error) {
	replies, err := s.runAll(ctx, call{script: x, keys: keys, args: args})
	if err != nil {
		return reply{}, err
	}
	return replies[0], nil
}

// runAll sends scripts, all at once, and reads their answers.
func (s *Store) runAll(ctx context.Context, calls ...call) ([]reply, error) {
	answers, err := s.send(ctx, calls...)
	if err != nil {
		s.rooms.doubt()
		return nil, unavailable(err)
	}
	replies := make([]reply, len(calls))
	for i := range calls {
		values, err := answers[i].Slice()
		if err != nil {
			return nil, unavailable(err)
		}
		if replies[i], err = newReply(values); err != nil {
			return nil, unavailable(err)
		}
	}
	return replies, nil
}

// admit is run for scripts that return a record of identifier or refuse.
func (s *Store) admit(ctx context.Context, x script, identifier string, args ...any) (activation.Record, bool, error) {
	a, err := s.run(ctx, x, []string{s.registration(identifier)}, args...)
	if err != nil || !a.ok {
		return activation.Record{}, false, err
	}
	r, err := a.record(identifier)
	return r, err == nil, err
}

// giveBack takes one call out of a counter of a registration, within its bounds. It
// is not repeated: two calls would be given back for one.
func (s *Store) giveBack(ctx context.Context, identifier string, generation activation.Generation, counter string) error {
	_, err := s.run(ctx, s.scripts.giveBack, []string{s.registration(identifier)}, generation[:], counter)
	return err
}

// milliseconds rounds up, so that no lifetime becomes nothing.
func milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

var _ activation.Store = (*Store)(nil)
