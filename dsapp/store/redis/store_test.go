package redis_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/redis"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// newClient returns a client. By default, its timeouts suffice for a busy machine.
func newClient(t testing.TB, settings redis.Settings) goredis.UniversalClient {
	t.Helper()
	settings.Timeout = cmp.Or(settings.Timeout, poll.Patience)
	settings.DialTimeout = cmp.Or(settings.DialTimeout, poll.Patience)
	client, err := redis.NewClient(settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// newStore returns a store on a server of its own.
func newStore(t testing.TB, args ...string) (*redis.Store, *redistest.Server, goredis.UniversalClient) {
	t.Helper()
	server := redistest.Start(t, args...)
	client := newClient(t, redis.Settings{Addresses: []string{server.Addr()}})
	return redis.New(client, redis.Options{}), server, client
}

func record(identifier string) activation.Record {
	r := activation.Record{
		Identifier: identifier,
		Kind:       activation.KindMDL,
		Facts:      []byte("sealed facts"),
		Verifier:   []byte("sealed verifier"),
		Data:       []byte("sealed data"),
		Lifetime:   10 * time.Minute,
	}
	_, _ = rand.Read(r.Generation[:])
	return r
}

func handshake(r activation.Record) activation.Handshake {
	return activation.Handshake{Generation: r.Generation, State: []byte("sealed state"), Lifetime: 2 * time.Minute}
}

func simulated() activation.Handshake {
	h := handshake(record(""))
	h.Simulated, h.RecordLifetime = true, 10*time.Minute
	return h
}

func settlement(r activation.Record, token activation.Token, proven bool) activation.Settlement {
	return activation.Settlement{Generation: r.Generation, Token: token, Proven: proven, MaxAttempts: 3, MaxActivations: 3}
}

func create(t testing.TB, s *redis.Store, r activation.Record) {
	t.Helper()
	if _, ok, err := s.Create(t.Context(), r, activation.Generation{}); err != nil || !ok {
		t.Fatalf("create %s: %v, error %v", r.Identifier, ok, err)
	}
}

func put(t testing.TB, s *redis.Store, identifier string, h activation.Handshake) (contended bool) {
	t.Helper()
	contended, err := s.PutHandshake(t.Context(), identifier, h)
	if err != nil {
		t.Fatalf("put handshake of %s: %v", identifier, err)
	}
	return contended
}

// take calls Take, which has to return want.
func take(t testing.TB, s *redis.Store, identifier string, token activation.Token, maxAttempts int, want bool) {
	t.Helper()
	if _, ok, err := s.Take(t.Context(), identifier, token, activation.Tag{}, maxAttempts); err != nil || ok != want {
		t.Fatalf("take of %s: %v, error %v, want %v", identifier, ok, err, want)
	}
}

// settle settles a proof, which has to succeed if it is proven.
func settle(t testing.TB, s *redis.Store, r activation.Record, token activation.Token, proven bool) {
	t.Helper()
	got, ok, err := s.Settle(t.Context(), r.Identifier, settlement(r, token, proven))
	if err != nil || ok != proven || proven && !bytes.Equal(got.Data, r.Data) {
		t.Fatalf("settle of %s: %v, error %v, want %v", r.Identifier, ok, err, proven)
	}
}

// prove makes a whole exchange with right evidence.
func prove(t testing.TB, s *redis.Store, r activation.Record, token activation.Token) {
	t.Helper()
	put(t, s, r.Identifier, handshake(r))
	take(t, s, r.Identifier, token, 3, true)
	settle(t, s, r, token, true)
}

// burn uses up the attempts of r.
func burn(t testing.TB, s *redis.Store, r activation.Record) {
	t.Helper()
	for i := range 3 {
		token := activation.Token{byte(i + 1)}
		put(t, s, r.Identifier, handshake(r))
		take(t, s, r.Identifier, token, 3, true)
		settle(t, s, r, token, false)
	}
}

const serialNumber = "VDS1000000-1"

// calls returns a call of every method of a store, in an order in which all of them succeed.
func calls(s *redis.Store, identifier string) []struct {
	name string
	call func(ctx context.Context) error
} {
	r := record(identifier)
	token := activation.Token{1}
	claim := ownership.Claim{Key: "8408980524", Token: ownership.Token{1}, Owner: []byte("sealed owner")}
	other := ownership.Claim{Key: claim.Key, Token: ownership.Token{2}, Owner: []byte("sealed owner")}
	mark := func(place string, digest byte) repeat.Mark {
		return repeat.Mark{Place: place, Digest: repeat.Digest{digest}, Token: repeat.Token{1}, Lifetime: time.Minute}
	}
	wrong := errors.New("refused")
	accepted := func(ok bool, err error) error {
		if err == nil && !ok {
			return wrong
		}
		return err
	}
	return []struct {
		name string
		call func(ctx context.Context) error
	}{
		{"Reserve", func(ctx context.Context) error { return reserve(ctx, s) }},
		{"Create", func(ctx context.Context) error {
			_, ok, err := s.Create(ctx, r, activation.Generation{})
			return accepted(ok, err)
		}},
		{"Load", func(ctx context.Context) error {
			_, ok, err := s.Load(ctx, identifier)
			return accepted(ok, err)
		}},
		{"PutHandshake", func(ctx context.Context) error {
			_, err := s.PutHandshake(ctx, identifier, handshake(r))
			return err
		}},
		{"Take", func(ctx context.Context) error {
			_, ok, err := s.Take(ctx, identifier, token, activation.Tag{}, 3)
			return accepted(ok, err)
		}},
		{"Settle", func(ctx context.Context) error {
			_, ok, err := s.Settle(ctx, identifier, settlement(r, token, true))
			return accepted(ok, err)
		}},
		{"AdmitDevice", func(ctx context.Context) error {
			_, ok, err := s.AdmitDevice(ctx, identifier, 3)
			return accepted(ok, err)
		}},
		{"ReturnDevice", func(ctx context.Context) error { return s.ReturnDevice(ctx, identifier, r.Generation) }},
		{"MarkDevice", func(ctx context.Context) error {
			_, _, _, _, err := s.MarkDevice(ctx, mark(identifier, 1), identifier, 3)
			return err
		}},
		{"AdmitConfirmation", func(ctx context.Context) error {
			_, ok, err := s.AdmitConfirmation(ctx, identifier, 3, activation.KindMDL)
			return accepted(ok, err)
		}},
		{"ReturnConfirmation", func(ctx context.Context) error { return s.ReturnConfirmation(ctx, identifier, r.Generation) }},
		{"MarkConfirmation", func(ctx context.Context) error {
			_, _, _, _, err := s.MarkConfirmation(ctx, mark(identifier, 2), identifier, 3, activation.KindMDL)
			return err
		}},
		{"Remove", func(ctx context.Context) error { return s.Remove(ctx, identifier, r.Generation) }},
		{"Claim", func(ctx context.Context) error {
			return accepted(s.Claim(ctx, ownership.Login, claim, serialNumber, 5*time.Minute))
		}},
		{"Claim of another", func(ctx context.Context) error {
			won, err := s.Claim(ctx, ownership.Login, other, serialNumber, 5*time.Minute)
			return accepted(!won, err)
		}},
		{"Owner", func(ctx context.Context) error {
			_, ok, err := s.Owner(ctx, ownership.Login, claim.Key)
			return accepted(ok, err)
		}},
		{"Pending", func(ctx context.Context) error {
			listed, err := s.Pending(ctx, ownership.Login, serialNumber)
			return accepted(len(listed) == 1, err)
		}},
		{"MarkOwner", func(ctx context.Context) error {
			_, _, _, owned, err := s.MarkOwner(ctx, mark(claim.Key, 3), ownership.Login, claim.Key)
			return accepted(owned, err)
		}},
		{"Mark", func(ctx context.Context) error {
			_, found, err := s.Mark(ctx, mark(claim.Key, 3))
			return accepted(found, err)
		}},
		{"MarkPending", func(ctx context.Context) error {
			_, _, listed, err := s.MarkPending(ctx, mark(serialNumber, 4), ownership.Login, serialNumber)
			return accepted(len(listed) == 1, err)
		}},
		{"Keep", func(ctx context.Context) error { return s.Keep(ctx, mark(claim.Key, 3), []byte("sealed outcome")) }},
		{"Kept", func(ctx context.Context) error {
			_, found, err := s.Kept(ctx, claim.Key, repeat.Digest{3})
			return accepted(found, err)
		}},
		{"Release", func(ctx context.Context) error {
			return s.Release(ctx, ownership.Login, claim.Key, claim.Token, serialNumber)
		}},
		{"Forget", func(ctx context.Context) error { return s.Forget(ctx, claim.Key, repeat.Digest{3}, repeat.Token{1}) }},
		{"KeepClaim", func(ctx context.Context) error {
			return accepted(s.KeepClaim(ctx, mark(claim.Key, 3), []byte("sealed outcome"), ownership.Login, claim, serialNumber, 5*time.Minute))
		}},
		{"KeepRelease", func(ctx context.Context) error {
			return s.KeepRelease(ctx, mark(claim.Key, 3), []byte("sealed outcome"), ownership.Login, claim.Key, claim.Token, serialNumber)
		}},
		{"KeepRemove", func(ctx context.Context) error {
			return s.KeepRemove(ctx, mark(identifier, 2), []byte("sealed outcome"), identifier, r.Generation)
		}},
		{"SimulationSecret", func(ctx context.Context) error {
			_, err := s.SimulationSecret(ctx, []byte("sealed secret"))
			return err
		}},
		{"ReplaceSimulationSecret", func(ctx context.Context) error {
			_, err := s.ReplaceSimulationSecret(ctx, []byte("sealed secret"), []byte("sealed secret"))
			return err
		}},
	}
}

// ttl returns the remaining lifetime of a key, negative if it has none.
func ttl(t *testing.T, server *redistest.Server, key string) time.Duration {
	t.Helper()
	n, err := strconv.ParseInt(server.Command(t, "PTTL", key), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(n) * time.Millisecond
}

func keys(t *testing.T, server *redistest.Server) []string {
	t.Helper()
	return strings.Fields(server.Command(t, "KEYS", "*"))
}

// All methods create only the documented keys, and every key expires but those of the secret and
// of the format.
func TestEveryKeyExpires(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	known := map[string]bool{
		"dsapp:{id-1}:reg": true, "dsapp:{id-1}:hs": true, "dsapp:{id-2}:reg": true, "dsapp:{id-2}:hs": true,
		"dsapp:own:login:{8408980524}": true, "dsapp:dev:login:{" + serialNumber + "}": true,
		"dsapp:sim": true, "dsapp:format": true, "dsapp:room": true, "dsapp:rep": true,
	}
	seen := map[string]bool{}
	check := func(after string) {
		t.Helper()
		for _, key := range keys(t, server) {
			name := key
			if strings.HasPrefix(key, "dsapp:room:") {
				name = "dsapp:room"
			}
			if strings.HasPrefix(key, "dsapp:rep:{") {
				name = "dsapp:rep"
			}
			seen[name] = true
			if !known[name] {
				t.Errorf("after %s: unknown key %s", after, key)
			}
			if left := ttl(t, server, key); (key == "dsapp:sim" || key == "dsapp:format") != (left == -time.Millisecond) {
				t.Errorf("after %s: %s has %v left", after, key, left)
			}
		}
	}
	for _, c := range calls(s, "id-1") {
		s.ExpireWrites()
		if err := c.call(t.Context()); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		check(c.name)
	}
	// Methods that need a registration or claim create nothing without one.
	server.FlushAll(t)
	for _, c := range calls(s, "id-1") {
		switch c.name {
		case "Create", "PutHandshake", "Reserve", "SimulationSecret", "Claim", "Claim of another",
			"Mark", "MarkOwner", "MarkPending", "Keep", "KeepClaim", "KeepRelease", "KeepRemove":
			continue
		}
		_ = c.call(t.Context())
		if got := keys(t, server); len(got) != 0 {
			t.Errorf("%s on an empty server created %v", c.name, got)
		}
	}
	// A simulated record.
	put(t, s, "id-2", simulated())
	check("PutHandshake")
	take(t, s, "id-2", activation.Token{1}, 3, true)
	check("Take")
	for key := range known {
		if !seen[key] {
			t.Errorf("%s was never there", key)
		}
	}
}

// A registration has the lifetime of its record, a tombstone ten minutes more, and the server
// does not keep the secrets of a tombstone.
func TestTombstone(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	r := record("id-1")
	create(t, s, r)
	const key = "dsapp:{id-1}:reg"
	if left := ttl(t, server, key); left > r.Lifetime || left < r.Lifetime-time.Minute {
		t.Errorf("record has %v left, want %v", left, r.Lifetime)
	}
	burn(t, s, r)
	want := r.Lifetime + activation.TombstoneLifetime
	if left := ttl(t, server, key); left > want || left < want-time.Minute {
		t.Errorf("tombstone has %v left, want %v", left, want)
	}
	fields := server.Command(t, "HGETALL", key)
	if strings.Contains(fields, "sealed verifier") || strings.Contains(fields, "sealed data") || !strings.Contains(fields, "sealed facts") {
		t.Errorf("tombstone holds %q", fields)
	}
	if strings.Contains(server.Command(t, "HKEYS", key), "t\x01") {
		t.Error("tombstone keeps proofs in flight")
	}
}

// The server stores sealed values byte for byte, and nothing that is derived from them.
func TestStoredFields(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	r := record("id-1")
	for _, p := range []*[]byte{&r.Facts, &r.Verifier, &r.Data} {
		*p = make([]byte, 256)
		_, _ = rand.Read(*p)
	}
	create(t, s, r)
	for field, want := range map[string][]byte{"g": r.Generation[:], "k": []byte("mdl"), "f": r.Facts, "v": r.Verifier, "d": r.Data} {
		if got := server.Command(t, "HGET", "dsapp:{id-1}:reg", field); got != string(want) {
			t.Errorf("field %s differs from what was given", field)
		}
	}
	for field := range strings.FieldsSeq("r i a n c") {
		if got := server.Command(t, "HGET", "dsapp:{id-1}:reg", field); got != "0" {
			t.Errorf("field %s is %q", field, got)
		}
	}
	if got := server.Command(t, "HLEN", "dsapp:{id-1}:reg"); got != "11" {
		t.Errorf("%s fields, want 11", got)
	}
}

// Probing unknown identifiers creates a limited number of keys, whatever their number, and
// does not affect registrations.
func TestSimulatedKeysAreLimited(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := newClient(t, redis.Settings{Addresses: []string{server.Addr()}})
	const limit = 8
	s := redis.New(client, redis.Options{MaxSimulated: limit})
	r := record("real")
	create(t, s, r)
	for i := range 50 {
		put(t, s, fmt.Sprintf("unknown-%d", i), simulated())
	}
	if got := keys(t, server); len(got) != 1+limit+1 || !strings.Contains(strings.Join(got, " "), "dsapp:{~}:hs") {
		t.Fatalf("%d keys: %v", len(got), got)
	}
	if left := ttl(t, server, "dsapp:{~}:hs"); left <= 0 {
		t.Errorf("the common key has %v left", left)
	}
	for i := range 50 {
		take(t, s, fmt.Sprintf("unknown-%d", i), activation.Token{1}, 3, i < limit)
	}
	if got := keys(t, server); len(got) != 1+limit+1 {
		t.Fatalf("%d keys: %v", len(got), got)
	}

	// A gateway node that has reached its limit creates no simulated record, although another
	// node has stored the handshake.
	other := redis.New(client, redis.Options{MaxSimulated: limit})
	for i := range limit {
		put(t, other, fmt.Sprintf("other-%d", i), simulated())
		take(t, s, fmt.Sprintf("other-%d", i), activation.Token{1}, 3, false)
	}
	if got := keys(t, server); len(got) != 1+limit+1 {
		t.Fatalf("%d keys: %v", len(got), got)
	}
	put(t, s, "real", handshake(r))
	take(t, s, "real", activation.Token{1}, 3, true)
}

// A Take that creates no simulated record does not count towards the limit of simulated records.
func TestTakesDoNotCountAsSimulated(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}}), redis.Options{MaxSimulated: 1})
	r := record("real")
	create(t, s, r)
	put(t, s, "real", handshake(r))
	take(t, s, "real", activation.Token{1}, 3, true)
	take(t, s, "unknown", activation.Token{1}, 3, false)
	put(t, s, "other", simulated())
	take(t, s, "other", activation.Token{1}, 3, true)
}

// Two gateway nodes on one server share all limits.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	first, server, _ := newStore(t)
	second := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}}), redis.Options{})
	r := record("id-1")
	create(t, first, r)
	put(t, first, "id-1", handshake(r))
	take(t, second, "id-1", activation.Token{1}, 3, true)
	settle(t, first, r, activation.Token{1}, true)
	var taken, devices atomic.Int32
	var wg sync.WaitGroup
	for i := range 20 {
		s := first
		if i%2 == 1 {
			s = second
		}
		wg.Go(func() {
			if _, err := s.PutHandshake(t.Context(), "id-1", handshake(r)); err != nil {
				t.Error(err)
			}
			if _, ok, err := s.Take(t.Context(), "id-1", activation.Token{2, byte(i)}, activation.Tag{}, 3); err != nil {
				t.Error(err)
			} else if ok {
				taken.Add(1)
			}
			if _, ok, err := s.AdmitDevice(t.Context(), "id-1", 3); err != nil {
				t.Error(err)
			} else if ok {
				devices.Add(1)
			}
		})
	}
	wg.Wait()
	if n, d := taken.Load(), devices.Load(); n > 3 || d != 1 {
		t.Fatalf("%d attempts and %d devices, want at most 3 and 1", n, d)
	}
}

// fails checks that all methods, except those in skip, fail with activation.ErrUnavailable, and
// that no error contains what was sent.
func fails(t *testing.T, s *redis.Store, skip ...string) {
	t.Helper()
	for _, c := range calls(s, "id-1") {
		if slices.Contains(skip, c.name) {
			continue
		}
		err := c.call(t.Context())
		if !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("%s: error %v does not wrap ErrUnavailable", c.name, err)
			continue
		}
		if text := err.Error(); strings.Contains(text, "sealed") || strings.Contains(text, "id-1") {
			t.Errorf("%s: error %q shows what was sent", c.name, text)
		}
	}
}

// reserve reserves room for a record and releases it.
func reserve(ctx context.Context, s *redis.Store) error {
	release, err := s.Reserve(ctx)
	if err == nil {
		release()
	}
	return err
}

// Calls to a stopped server fail, whether there was a connection or not.
func TestStoppedServer(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	if err := reserve(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	s.ExpireWrites()
	fails(t, s)
}

// Calls to a server that hangs end after the timeout or at the caller's deadline, and succeed
// again when the server answers.
func TestTimeouts(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}, Timeout: 100 * time.Millisecond}), redis.Options{})
	poll.Until(t, "a store that works", func() bool { return reserve(t.Context(), s) == nil })
	server.Freeze(t)
	s.ExpireWrites()
	fails(t, s)

	// Without the deadline, this would take longer than tests may.
	patient := redis.New(newClient(t, redis.Settings{Addresses: []string{server.Addr()}, Timeout: 10 * time.Minute}), redis.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := reserve(ctx, patient); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("at the caller's deadline: error %v", err)
	}

	server.Thaw(t)
	poll.Until(t, "the server", func() bool { return reserve(t.Context(), s) == nil })
}

// Calls that write to a replica fail with activation.ErrUnavailable.
func TestReadOnlyReplica(t *testing.T) {
	t.Parallel()
	s, _, _ := newStore(t, "--replicaof", "127.0.0.1 1")
	// The skipped methods write nothing here.
	fails(t, s, "Load", "Take", "Settle", "AdmitDevice", "ReturnDevice", "AdmitConfirmation", "ReturnConfirmation", "Remove", "ReplaceSimulationSecret", "Owner", "Pending", "Release",
		"MarkDevice", "MarkConfirmation", "Kept", "Forget")
	if err := reserve(t.Context(), s); err == nil || !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("error %v does not name the cause", err)
	}
}

// A script that a full server refuses has changed nothing. What removes something keeps the outcome
// of its call all the same.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	s, server, _ := newStore(t)
	r, replacing := record("id-1"), record("id-1")
	create(t, s, r)
	proofs := []activation.Token{{1}, {2}}
	put(t, s, "id-1", handshake(r))
	take(t, s, "id-1", proofs[0], 3, true)
	put(t, s, "id-1", handshake(r))
	removed, claim := record("id-2"), ownership.Claim{Key: "1", Token: ownership.Token{1}, Owner: []byte("sealed owner")}
	create(t, s, removed)
	if won, err := s.Claim(t.Context(), ownership.Login, claim, serialNumber, time.Minute); err != nil || !won {
		t.Fatalf("claim: %v, error %v", won, err)
	}
	server.Command(t, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	server.Command(t, "CONFIG", "SET", "maxmemory", "1")
	s.ExpireWrites()
	if err := reserve(t.Context(), s); !errors.Is(err, activation.ErrUnavailable) || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("writable: error %v", err)
	}
	if _, _, err := s.Create(t.Context(), replacing, r.Generation); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("create: error %v", err)
	}
	if _, _, err := s.Take(t.Context(), "id-1", proofs[1], activation.Tag{}, 3); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("take: error %v", err)
	}
	if _, _, err := s.Settle(t.Context(), "id-1", settlement(r, proofs[0], true)); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("settle: error %v", err)
	}
	for place, keep := range map[string]func(m repeat.Mark) error{
		claim.Key: func(m repeat.Mark) error {
			return s.KeepRelease(t.Context(), m, []byte("sealed outcome"), ownership.Login, claim.Key, claim.Token, serialNumber)
		},
		removed.Identifier: func(m repeat.Mark) error {
			return s.KeepRemove(t.Context(), m, []byte("sealed outcome"), removed.Identifier, removed.Generation)
		},
	} {
		m := repeat.Mark{Place: place, Lifetime: time.Minute}
		if err := keep(m); err != nil {
			t.Errorf("keep at %s: error %v", place, err)
		}
		if e, found, err := s.Kept(t.Context(), place, m.Digest); err != nil || !found || string(e.Outcome) != "sealed outcome" {
			t.Errorf("kept at %s: %q, error %v", place, e.Outcome, err)
		}
	}
	if got := keys(t, server); slices.ContainsFunc(got, func(key string) bool { return strings.Contains(key, ":own:") || strings.Contains(key, "id-2}:reg") }) {
		t.Errorf("a full server keeps what was removed: %q", got)
	}

	server.Command(t, "CONFIG", "SET", "maxmemory", "0")
	if got, found, err := s.Load(t.Context(), "id-1"); err != nil || !found || got.Generation != r.Generation || !bytes.Equal(got.Verifier, r.Verifier) {
		t.Errorf("load: %v, error %v", found, err)
	}
	settle(t, s, r, proofs[0], true)
	take(t, s, "id-1", proofs[1], 1, true)
}

// NewClient checks the settings and does not connect.
func TestNewClient(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var accepted atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := l.Accept(); err == nil {
			accepted.Store(true)
			conn.Close()
		}
	}()
	addresses := []string{l.Addr().String()}
	newClient(t, redis.Settings{Addresses: addresses, Password: "secret"})
	newClient(t, redis.Settings{Addresses: addresses, MasterName: "main"})
	newClient(t, redis.Settings{Addresses: addresses, Cluster: true})
	l.Close()
	<-done
	if accepted.Load() {
		t.Error("the client dialled before the first command")
	}

	for _, tt := range []struct {
		name     string
		settings redis.Settings
		want     string
	}{
		{"no address", redis.Settings{}, "addresses: exactly one"},
		{"two addresses", redis.Settings{Addresses: []string{"a:1", "b:1"}}, "addresses: exactly one"},
		{"no address of a cluster", redis.Settings{Cluster: true}, "addresses: 1 to 32"},
		{"no address of a Sentinel", redis.Settings{MasterName: "main"}, "addresses: 1 to 32"},
		{"socket of a cluster", redis.Settings{Cluster: true, Addresses: []string{"a:1", "/socket"}}, "addresses[1]: must be host:port"},
		{"socket of a Sentinel", redis.Settings{MasterName: "main", Addresses: []string{"/socket"}}, "addresses[0]: must be host:port"},
		{"cluster and Sentinels", redis.Settings{Cluster: true, MasterName: "main", Addresses: []string{"a:1"}}, "master_name: has no meaning"},
		{"user of no Sentinel", redis.Settings{Addresses: []string{"a:1"}, SentinelUsername: "SECRET"}, "sentinel_username: has no meaning without master_name"},
		{"password of no Sentinel", redis.Settings{Addresses: []string{"a:1"}, SentinelPassword: "SECRET"}, "sentinel_password: has no meaning without master_name"},
		{"database of a cluster", redis.Settings{Cluster: true, Addresses: []string{"a:1"}, DB: 1}, "db: must be 0"},
		{"no port", redis.Settings{Addresses: []string{"localhost"}}, "addresses[0]: must be host:port"},
		{"empty port", redis.Settings{Addresses: []string{"localhost:"}}, "addresses[0]: must be host:port"},
		{"port that is too large", redis.Settings{Addresses: []string{"a:65536"}}, "addresses[0]: must have a port"},
		{"port 0", redis.Settings{Addresses: []string{"a:0"}}, "addresses[0]: must have a port"},
		{"port of a cluster", redis.Settings{Cluster: true, Addresses: []string{"a:65535", "a:redis"}}, "addresses[1]: must have a port"},
		{"port of a Sentinel", redis.Settings{MasterName: "main", Addresses: []string{"a:1", "a:-1"}}, "addresses[1]: must have a port"},
		{"database", redis.Settings{Addresses: []string{"a:1"}, DB: -1}, "db: must be"},
		{"timeout", redis.Settings{Addresses: []string{"a:1"}, Timeout: -1}, "timeout: must be"},
		{"pool", redis.Settings{Addresses: []string{"a:1"}, PoolSize: -1}, "pool_size: must be"},
	} {
		if _, err := redis.NewClient(tt.settings); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: error %v, want one with %q", tt.name, err, tt.want)
		}
	}
}

// A client can use a Unix socket and a password. The error for a wrong password does not
// contain it.
func TestCredentials(t *testing.T) {
	t.Parallel()
	socket := t.TempDir() + "/redis.sock"
	server := redistest.Start(t, "--unixsocket", socket)
	server.Command(t, "CONFIG", "SET", "requirepass", "right-password")
	for _, tt := range []struct {
		password string
		ok       bool
	}{{"right-password", true}, {"other-password", false}, {"", false}} {
		s := redis.New(newClient(t, redis.Settings{Addresses: []string{socket}, Password: tt.password}), redis.Options{})
		err := reserve(t.Context(), s)
		if (err == nil) != tt.ok || err != nil && (!errors.Is(err, activation.ErrUnavailable) || tt.password != "" && strings.Contains(err.Error(), tt.password)) {
			t.Errorf("error %v, want none: %v", err, tt.ok)
		}
	}
}

// A key prefix must not contain braces.
func TestOptions(t *testing.T) {
	t.Parallel()
	for prefix, ok := range map[string]bool{"": true, "dsapp": true, "bank:dsapp": true, "{dsapp": false, "dsapp}": false} {
		if err := (redis.Options{KeyPrefix: prefix}).Check(); (err == nil) != ok {
			t.Errorf("prefix %q: error %v", prefix, err)
		}
	}
}

func BenchmarkTakeSettle(b *testing.B) {
	s, _, _ := newStore(b)
	storetest.Benchmark(b, s)
}
