// Package redis stores registrations, handshakes and the ownership of requests on Redis
// (version 6 or later), for any number of gateway nodes. Redis can be one server, a master
// with replicas that Sentinels watch, or a cluster.
//
// # Keys
//
// dsapp stands for the key prefix, id for an identifier; kind is login or signature:
//
//	dsapp:{id}:reg           the registration, a hash
//	dsapp:{id}:hs            the handshakes, a hash
//	dsapp:own:kind:{key}     the claim to a request, a string
//	dsapp:dev:kind:{serial}  the claims of a device, a sorted set
//	dsapp:rep:{place}:digest the mark or the outcome of a call that may be repeated, a
//	                         string; place is what the call is about
//	dsapp:sim                the simulation secret, a string
//	dsapp:format             the format of all these, a number in decimal digits
//	dsapp:room:token         memory reserved for a record, a string; in a cluster
//	                         dsapp:{n}:room:token, one on every master
//
// Every key but dsapp:sim and dsapp:format expires. In a cluster the part in braces selects
// the slot, so that both keys of an identifier are on the same node. The type scripts
// documents the values. All values are sealed before they are given to the Store, except for kinds,
// lifetimes, counters and the keys of requests. The addresses and applications that begin
// exchanges are stored as keyed hashes.
//
// # Atomicity
//
// Every method runs one Lua script on one node and is therefore atomic, except Claim and
// Release, alone or with the outcome of a call. These run two scripts at the same time, because
// the claim and the list of the device are in different slots. If one script fails, the method
// fails although the other may have run. A method takes one round trip, and one more if the
// server does not know the script yet. With Options.Gather, several releases share one.
//
// # Lost servers
//
// Each server has a circuit breaker: after several calls in a row without an answer, calls
// fail at once, and one call a second tries the server again. A lost answer leaves open
// whether the server ran the script. The Store repeats a script once in that case if running
// it twice changes nothing; Take and the methods that count are never repeated. After a
// failure the pooled connections that may be broken are closed instead of reused. A cluster
// and Sentinels are asked for the new master then.
//
// With Options.WaitReplicas, calls whose effect must survive the loss of a master succeed
// only when that many replicas have confirmed the write.
//
// # Reserved memory
//
// A registration must not fail after the authentication server has made its part of it.
// Reserve therefore writes a placeholder of the size of the largest record, and Create
// deletes the placeholder and writes the record in one pipeline. See the type reservation.
//
// # Access control
//
// The servers' user needs these commands, for the keys that begin with the prefix:
//
//	eval evalsha wait time get set getrange setrange del pexpireat
//	hget hmget hset hdel hexists hincrby
//	zadd zrange zrem zrevrangebyscore zremrangebyscore zremrangebyrank
//	cluster|slots asking  (on a cluster)
//	select                (for another database than 0)
//	scan                  (for Sealed)
//	info                  (for Info)
//
// The Sentinels' user needs these, for the channels +switch-master and
// +replica-reconf-done:
//
//	sentinel|get-master-addr-by-name sentinel|sentinels subscribe ping
package redis

import (
	"context"
	"crypto/fips140"
	"fmt"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"golang.org/x/sync/semaphore"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

const (
	// DefaultKeyPrefix is the default of Options.KeyPrefix.
	DefaultKeyPrefix = "dsapp"
	// DefaultMaxSimulated is the default of Options.MaxSimulated.
	DefaultMaxSimulated = 10_000
	// overflowIdentifier is used instead of an identifier whose simulated handshake would
	// exceed Options.MaxSimulated. It is not a valid identifier.
	overflowIdentifier = "~"
	// pendingTakeHold is how long an identifier counts as simulated while the outcome of a
	// Take is unknown.
	pendingTakeHold = time.Minute
	// formatVersion is the format of the keys and values. A program that knows another one only
	// refuses to use them. Nodes of different versions can share a format.
	formatVersion = "1"
	// maxWaitReplicas is the greatest Options.WaitReplicas.
	maxWaitReplicas = 16
)

// Options are the options of a Store. The zero value means the defaults.
type Options struct {
	// KeyPrefix is the first part of every key. It must not contain braces.
	// Default: DefaultKeyPrefix.
	KeyPrefix string
	// MaxSimulated is the greatest number of identifiers for which this Store keeps
	// simulated state at the same time: a record and up to activation.MaxHandshakes
	// handshakes each. Above it, probing an unknown identifier runs the same commands, on
	// a key that all these identifiers share. Default: DefaultMaxSimulated.
	MaxSimulated int
	// WaitReplicas is the number of replicas that must confirm what Reserve, Create, Take,
	// Settle, AdmitDevice and AdmitConfirmation wrote before these succeed, so that the
	// write survives the loss of the master. If fewer confirm it within half of
	// Settings.Timeout, the call fails with activation.ErrUnavailable, and what was written
	// stays. At most 16. Default: 0.
	WaitReplicas int
	// Report is called with the reason when a server has stopped answering and its circuit
	// breaker opens, and with a nil error when the server answers again. The server is its
	// address, as the client knows it. For the master of Sentinels it is a fixed name. It
	// is empty for the nodes of a cluster that have not told yet which node has which
	// slots. Default: nothing is reported.
	Report func(ctx context.Context, server string, err error)
	// Observe is called at the end of each call of the Store. Default: nothing is called.
	Observe activation.StoreObserver
	// Gather is how long the changes of Release and KeepRelease are delayed, so that several are made
	// in one round trip. Both return nil at once then. If a server is slow and many are delayed
	// already, the changes of more calls are not. If the process is killed meanwhile, the changes are
	// lost; call Flush before closing the client. Default: they are not delayed.
	Gather time.Duration
	// Lost is called with the name of the method, as for Observe, and with its context if a delayed
	// change failed. Neither may call Flush. Default: nothing is called.
	Lost func(ctx context.Context, call string, err error)
}

// Check checks the options. The error is an *option.Error.
func (o Options) Check() error {
	// A cluster would take the slot from braces in the prefix.
	if strings.ContainsAny(o.KeyPrefix, "{}") {
		return option.Errorf("key_prefix", "must have no braces")
	}
	return option.Number("wait_replicas", o.WaitReplicas, 0, maxWaitReplicas)
}

// Store stores everything on Redis. It implements activation.Store and ownership.Store. Its
// methods can be called concurrently.
//
// All errors wrap activation.ErrUnavailable. Those of calls that were not made, because the
// circuit breaker of the server is open, wrap a *breaker.OpenError as well.
type Store struct {
	client    goredis.UniversalClient
	prefix    string
	scripts   scripts
	simulated *identifierTracker
	breakers  *breakers
	readiness *readiness
	// replicas is Options.WaitReplicas.
	replicas     int
	observe      activation.StoreObserver
	now          func() time.Time
	reservations reservations
	gather       time.Duration
	settle       time.Duration // how long to wait for releases that other nodes delay
	lost         func(ctx context.Context, call string, err error)
	gathered     gathered
}

// New returns a Store that uses client and does not close it. The client comes from
// NewClient, or is another Client or ClusterClient with Options.MaxRetries -1. A client that
// repeats commands by itself would repeat a Take, which then uses up an attempt and fails.
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
	if opts.Lost == nil {
		opts.Lost = func(context.Context, string, error) {}
	}
	s := &Store{
		client:    client,
		prefix:    opts.KeyPrefix,
		simulated: newTracker(opts.MaxSimulated, time.Now),
		breakers:  newBreakers(opts.Report),
		readiness: newReadiness(time.Now),
		replicas:  opts.WaitReplicas,
		observe:   opts.Observe,
		now:       time.Now,
		gather:    opts.Gather,
		lost:      opts.Lost,
		gathered:  gathered{slots: semaphore.NewWeighted(maxBatches)},
	}
	if s.gather > 0 {
		s.settle = settleTime
	}
	// Redis knows a script by its SHA-1, on which no security relies. In a strict FIPS 140-3
	// mode, Go would panic.
	fips140.WithoutEnforcement(func() { s.scripts = newScripts() })
	return s
}

// Create implements activation.Store. It uses the memory of a reservation, if there is one,
// and writes the placeholder of the reservation again in the same round trip.
func (s *Store) Create(ctx context.Context, r activation.Record, replaces activation.Generation) (_ activation.Record, created bool, err error) {
	defer s.observe.Begin(ctx, "create").End(&created, &err)
	reserved := s.reservations.takeReserved()
	if reserved != nil {
		defer s.reservations.addReserved(reserved)
	}
	c := s.scripts.create.call(2, s.registrationKey(r.Identifier), s.handshakesKey(r.Identifier),
		r.Generation[:], replaces[:], string(r.Kind), milliseconds(r.Lifetime), r.Facts, r.Verifier, r.Data, r.Answer)
	c.reservation = reserved
	a, err := s.run(ctx, c)
	if err != nil {
		if reserved != nil {
			reserved.lastDurableWrite = time.Time{}
		}
		return activation.Record{}, false, err
	}
	if a.ok {
		return activation.Record{}, true, nil
	}
	existing, err := a.record(r.Identifier)
	return existing, false, err
}

// Load implements activation.Store.
func (s *Store) Load(ctx context.Context, identifier string) (_ activation.Record, _ bool, err error) {
	defer s.observe.Begin(ctx, "load").End(nil, &err)
	return s.runForRecord(ctx, identifier, s.scripts.load.call(1, s.registrationKey(identifier)))
}

// PutHandshake implements activation.Store.
func (s *Store) PutHandshake(ctx context.Context, identifier string, h activation.Handshake) (_ bool, err error) {
	defer s.observe.Begin(ctx, "put_handshake").End(nil, &err)
	lifetime := max(h.Lifetime, time.Millisecond)
	if h.Simulated {
		// The key also stores that contention was reported, for ContentionInterval.
		if held, _ := s.simulated.hold(identifier, max(lifetime, activation.ContentionInterval)); !held {
			identifier = overflowIdentifier
		}
	}
	a, err := s.run(ctx, s.scripts.put.call(1, s.handshakesKey(identifier),
		encodeHandshake(h), milliseconds(lifetime), milliseconds(activation.ContentionInterval)))
	// Clients whose handshakes share the overflow key do not contend for one identifier.
	return a.ok && identifier != overflowIdentifier, err
}

// Take implements activation.Store.
func (s *Store) Take(
	ctx context.Context, identifier string, token activation.Token, source activation.Tag, maxAttempts int,
) (_ activation.Handshake, taken bool, err error) {
	defer s.observe.Begin(ctx, "take").End(&taken, &err)
	// Only the answer tells whether the handshake is simulated. Until then the identifier
	// counts as simulated, unless the limit is reached.
	maySimulate, ticket := s.simulated.hold(identifier, pendingTakeHold)
	a, err := s.run(ctx, s.scripts.take.call(2, s.registrationKey(identifier), s.handshakesKey(identifier),
		token[:], source[:], maxAttempts, maySimulate))
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
		s.simulated.hold(identifier, h.RecordLifetime+activation.TombstoneLifetime)
	case ticket != 0:
		s.simulated.release(identifier, ticket)
	}
	return h, a.ok, nil
}

// Settle implements activation.Store.
func (s *Store) Settle(ctx context.Context, identifier string, x activation.Settlement) (_ activation.Record, settled bool, err error) {
	defer s.observe.Begin(ctx, "settle").End(&settled, &err)
	return s.runForRecord(ctx, identifier, s.scripts.settle.call(1, s.registrationKey(identifier),
		x.Generation[:], x.Token[:], x.Proven, x.MaxAttempts, x.MaxActivations, milliseconds(activation.TombstoneLifetime)))
}

// AdmitDevice implements activation.Store.
func (s *Store) AdmitDevice(ctx context.Context, identifier string, maxAttempts int) (_ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "admit_device").End(&admitted, &err)
	return s.runForRecord(ctx, identifier, s.scripts.admitDevice.call(1, s.registrationKey(identifier), maxAttempts))
}

// ReturnDevice implements activation.Store.
func (s *Store) ReturnDevice(ctx context.Context, identifier string, generation activation.Generation) (err error) {
	defer s.observe.Begin(ctx, "return_device").End(nil, &err)
	return s.giveBack(ctx, identifier, generation, "n")
}

// AdmitConfirmation implements activation.Store.
func (s *Store) AdmitConfirmation(ctx context.Context, identifier string, maxAttempts int, kinds ...activation.Kind) (_ activation.Record, admitted bool, err error) {
	defer s.observe.Begin(ctx, "admit_confirmation").End(&admitted, &err)
	c := s.scripts.admitConfirmation.call(1, s.registrationKey(identifier), maxAttempts)
	for _, kind := range kinds {
		c.args = append(c.args, string(kind))
	}
	return s.runForRecord(ctx, identifier, c)
}

// ReturnConfirmation implements activation.Store.
func (s *Store) ReturnConfirmation(ctx context.Context, identifier string, generation activation.Generation) (err error) {
	defer s.observe.Begin(ctx, "return_confirmation").End(nil, &err)
	return s.giveBack(ctx, identifier, generation, "c")
}

// Inspect implements activation.Store.
func (s *Store) Inspect(ctx context.Context, identifier string) (activation.State, bool, error) {
	a, err := s.run(ctx, s.scripts.inspect.call(1, s.registrationKey(identifier)))
	if err != nil || !a.ok {
		return activation.State{}, false, err
	}
	x, err := a.state(identifier)
	return x, err == nil, err
}

// Burn implements activation.Store.
func (s *Store) Burn(ctx context.Context, identifier string, maxAttempts int) (activation.Record, bool, error) {
	a, err := s.run(ctx, s.scripts.burn.call(2, s.registrationKey(identifier), s.handshakesKey(identifier),
		maxAttempts, milliseconds(activation.TombstoneLifetime)))
	if err != nil || !a.ok {
		return activation.Record{}, false, err
	}
	r, err := a.record(identifier)
	return r, err == nil, err
}

// Remove implements activation.Store.
func (s *Store) Remove(ctx context.Context, identifier string, generation activation.Generation) (err error) {
	defer s.observe.Begin(ctx, "remove").End(nil, &err)
	_, err = s.run(ctx, s.scripts.remove.call(2, s.registrationKey(identifier), s.handshakesKey(identifier), generation[:]))
	return err
}

// SimulationSecret implements activation.Store. It fails if the servers have values of a format
// that this program does not know.
func (s *Store) SimulationSecret(ctx context.Context, candidate []byte) (_ []byte, err error) {
	defer s.observe.Begin(ctx, "simulation_secret").End(nil, &err)
	format, err := s.getOrSet(ctx, "format", []byte(formatVersion))
	if err != nil {
		return nil, err
	}
	if string(format) != formatVersion {
		return nil, fmt.Errorf("%w: redis: the keys %s:* have format %.20q, this program knows format %s: run the version that wrote them, or use another key_prefix",
			activation.ErrUnavailable, s.prefix, format, formatVersion)
	}
	return s.getOrSet(ctx, "sim", candidate)
}

// getOrSet returns the value of one of the keys that do not expire. If there is none, it sets it to
// candidate.
func (s *Store) getOrSet(ctx context.Context, name string, candidate []byte) ([]byte, error) {
	a, err := s.run(ctx, s.scripts.getOrSet.call(1, s.prefix+":"+name, candidate))
	if err != nil {
		return nil, err
	}
	if len(a.values) != 1 {
		return nil, unavailable(errUnexpectedAnswer)
	}
	return a.bytes(0), nil
}

// ReplaceSimulationSecret implements activation.Store.
func (s *Store) ReplaceSimulationSecret(ctx context.Context, current, next []byte) (replaced bool, err error) {
	defer s.observe.Begin(ctx, "replace_simulation_secret").End(&replaced, &err)
	a, err := s.run(ctx, s.scripts.replaceSecret.call(1, s.prefix+":sim", current, next))
	return a.ok, err
}

func (s *Store) registrationKey(identifier string) string {
	return s.prefix + ":{" + identifier + "}:reg"
}

func (s *Store) handshakesKey(identifier string) string { return s.prefix + ":{" + identifier + "}:hs" }

// run sends scripts at the same time and returns the answer of the first.
func (s *Store) run(ctx context.Context, calls ...call) (reply, error) {
	sent, err := s.send(ctx, calls...)
	if err != nil {
		s.reservations.forgetWrites()
		return reply{}, unavailable(err)
	}
	var first reply
	for i := range sent {
		a, err := scriptReply(sent[i].answer)
		if err != nil {
			return reply{}, err
		}
		if i == 0 {
			first = a
		}
	}
	return first, nil
}

// scriptReply returns the reply in the answer to a script.
func scriptReply(answer *goredis.Cmd) (reply, error) {
	values, err := answer.Slice()
	if err != nil {
		return reply{}, unavailable(err)
	}
	a, err := newReply(values)
	if err != nil {
		return reply{}, unavailable(err)
	}
	return a, nil
}

// runForRecord is run for scripts that return the record of identifier or refuse.
func (s *Store) runForRecord(ctx context.Context, identifier string, c call) (activation.Record, bool, error) {
	a, err := s.run(ctx, c)
	if err != nil || !a.ok {
		return activation.Record{}, false, err
	}
	r, err := a.record(identifier)
	return r, err == nil, err
}

// giveBack undoes one count of a counter of a registration, named by its field. The script
// is not repeatable: it would undo two.
func (s *Store) giveBack(ctx context.Context, identifier string, generation activation.Generation, counter string) error {
	_, err := s.run(ctx, s.scripts.giveBack.call(1, s.registrationKey(identifier), generation[:], counter))
	return err
}

// milliseconds returns d in milliseconds. It rounds up, so that no lifetime becomes 0.
func milliseconds(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

var _ activation.Store = (*Store)(nil)
