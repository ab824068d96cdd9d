package embedded_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/clock"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		writeUntilKilled(path)
		return
	}
	if os.Getenv(childTrials) != "" {
		serveTrials(os.Stdin, os.Stdout)
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, path string, opts embedded.Options) *embedded.Store {
	t.Helper()
	s, err := embedded.Open(path, opts.WithoutSweeps())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func temporary(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "dsapp.db")
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) activation.Store {
		t.Helper()
		return open(t, temporary(t), embedded.Options{MaxSimulated: storetest.MaxSimulated})
	})
}

func TestOwnershipConformance(t *testing.T) {
	t.Parallel()
	storetest.RunOwnership(t, func(t *testing.T) ownership.Store {
		t.Helper()
		return open(t, temporary(t), embedded.Options{})
	})
}

func TestRepeatConformance(t *testing.T) {
	t.Parallel()
	storetest.RunRepeats(t, func(t *testing.T) storetest.RepeatStore {
		t.Helper()
		return open(t, temporary(t), embedded.Options{})
	})
}

func record(identifier string, generation byte) activation.Record {
	return activation.Record{
		Identifier: identifier,
		Generation: activation.Generation{generation},
		Kind:       activation.KindMDL,
		Facts:      []byte("facts"),
		Verifier:   []byte("verifier"),
		Data:       []byte("data"),
		Lifetime:   10 * time.Minute,
	}
}

func create(t *testing.T, s *embedded.Store, r activation.Record) {
	t.Helper()
	if _, created, err := s.Create(t.Context(), r, activation.Generation{}); err != nil || !created {
		t.Fatalf("create: %v, error %v", created, err)
	}
}

// prove makes one exchange and returns its outcome.
func prove(t *testing.T, s *embedded.Store, r activation.Record, token byte, proven bool) bool {
	t.Helper()
	h := activation.Handshake{Generation: r.Generation, State: []byte("state"), Lifetime: time.Minute}
	if _, err := s.PutHandshake(t.Context(), r.Identifier, h); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Take(t.Context(), r.Identifier, activation.Token{token}, activation.Tag{}, 3); err != nil || !ok {
		t.Fatalf("take: %v, error %v", ok, err)
	}
	_, ok, err := s.Settle(t.Context(), r.Identifier, activation.Settlement{
		Generation: r.Generation, Token: activation.Token{token}, Proven: proven, MaxAttempts: 3, MaxActivations: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// count returns the number of keys in a bucket.
func count(t *testing.T, s *embedded.Store, name string) int {
	t.Helper()
	n := 0
	err := s.DB().View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(name)).ForEach(func(_, _ []byte) error {
			n++
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// entries checks the number of entries and simulated entries in the file and its indexes.
func entries(t *testing.T, s *embedded.Store, want, simulated int) {
	t.Helper()
	if n, r, m := count(t, s, "registrations"), count(t, s, "sealed"), count(t, s, "simulated"); n != want || r != want-simulated || m != simulated {
		t.Fatalf("file holds %d entries, the parts of %d, %d simulated; want %d, %d", n, r, m, want, simulated)
	}
}

// Everything but the handshakes survives a restart.
func TestReopen(t *testing.T) {
	t.Parallel()
	path := temporary(t)
	r := record("id-1", 1)
	func() {
		s, err := embedded.Open(path, embedded.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		create(t, s, r)
		if !prove(t, s, r, 1, true) {
			t.Fatal("a right proof was refused")
		}
		prove(t, s, r, 2, false)
		if _, err := s.PutHandshake(t.Context(), "id-1", activation.Handshake{Generation: r.Generation, Lifetime: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := s.AdmitConfirmation(t.Context(), "id-1", 1, activation.KindMDL); err != nil || !ok {
			t.Fatalf("confirmation: %v, error %v", ok, err)
		}
		if _, err := s.SimulationSecret(t.Context(), []byte("secret")); err != nil {
			t.Fatal(err)
		}
	}()

	s := open(t, path, embedded.Options{})
	got, found, err := s.Load(t.Context(), "id-1")
	if err != nil || !found || got.Generation != r.Generation || !bytes.Equal(got.Verifier, r.Verifier) {
		t.Fatalf("load: %v, error %v", found, err)
	}
	if _, ok, err := s.Take(t.Context(), "id-1", activation.Token{9}, activation.Tag{}, 3); err != nil || ok {
		t.Fatalf("a handshake survived: %v, error %v", ok, err)
	}
	if _, ok, _ := s.AdmitConfirmation(t.Context(), "id-1", 1, activation.KindMDL); ok {
		t.Fatal("the confirmation was forgotten")
	}
	if _, ok, _ := s.AdmitDevice(t.Context(), "id-1", 3); !ok {
		t.Fatal("the activation was forgotten")
	}
	prove(t, s, r, 3, false)
	prove(t, s, r, 4, false)
	if got, _, _ := s.Load(t.Context(), "id-1"); got.Verifier != nil {
		t.Fatal("the attempt before the restart was forgotten")
	}
	if secret, err := s.SimulationSecret(t.Context(), []byte("other")); err != nil || string(secret) != "secret" {
		t.Fatalf("the secret was forgotten, error %v", err)
	}
}

// A record is removed exactly at the end of its lifetime, a tombstone exactly ten minutes later.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	now := clock.New()
	s := open(t, temporary(t), embedded.Options{Now: now.Now})
	plain, burned := record("plain", 1), record("burned", 2)
	create(t, s, plain)
	create(t, s, burned)
	for i := range 3 {
		prove(t, s, burned, byte(i+1), false)
	}
	steps := []struct {
		advance       time.Duration
		plain, burned bool
		left          time.Duration
	}{
		{10*time.Minute - 1, true, true, 1},
		{1, false, true, 0},
		{activation.TombstoneLifetime - 1, false, true, 0},
		{1, false, false, 0},
	}
	for i, step := range steps {
		now.Advance(step.advance)
		_, p, err := s.Load(t.Context(), "plain")
		if err != nil || p != step.plain {
			t.Errorf("step %d: record found %v, error %v", i, p, err)
		}
		got, b, err := s.Load(t.Context(), "burned")
		if err != nil || b != step.burned || got.Lifetime != step.left {
			t.Errorf("step %d: tombstone found %v with %v left, error %v", i, b, got.Lifetime, err)
		}
	}
	entries(t, s, 2, 0)
	now.Advance(time.Minute)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	entries(t, s, 0, 0)
}

// A new record replaces an expired one completely.
func TestReplaceExpired(t *testing.T) {
	t.Parallel()
	now := clock.New()
	s := open(t, temporary(t), embedded.Options{Now: now.Now})
	create(t, s, record("id-1", 1))
	now.Advance(time.Hour)
	create(t, s, record("id-1", 2))
	entries(t, s, 1, 0)
	if got, found, err := s.Load(t.Context(), "id-1"); err != nil || !found || got.Generation != (activation.Generation{2}) {
		t.Fatalf("load: %v, error %v", found, err)
	}
}

// simulate creates a simulated record.
func simulate(t *testing.T, s *embedded.Store, identifier string, lifetime time.Duration) {
	t.Helper()
	h := activation.Handshake{
		Generation: activation.Generation{9}, State: []byte("state"), Lifetime: time.Minute, Simulated: true, RecordLifetime: lifetime,
	}
	if _, err := s.PutHandshake(t.Context(), identifier, h); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := s.Take(t.Context(), identifier, activation.Token{1}, activation.Tag{}, 3); err != nil || !ok {
		t.Fatalf("take: %v, error %v", ok, err)
	}
}

// Simulated records are durable. Beyond MaxSimulated, the one that ends first is removed. After
// MaxSimulated was lowered, their number falls with every write.
func TestSimulatedCap(t *testing.T) {
	t.Parallel()
	now := clock.New()
	path := temporary(t)
	func() {
		s, err := embedded.Open(path, embedded.Options{MaxSimulated: 5, Now: now.Now})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		create(t, s, record("real", 1))
		for i := range 8 {
			// The third one ends first, then the others in order.
			lifetime := time.Minute + time.Duration(i)*time.Second
			if i == 2 {
				lifetime = time.Minute - time.Second
			}
			simulate(t, s, fmt.Sprintf("unknown-%d", i), lifetime)
		}
		for i, want := range []bool{false, false, false, true, true, true, true, true} {
			if _, found, err := s.Load(t.Context(), fmt.Sprintf("unknown-%d", i)); err != nil || found != want {
				t.Errorf("record %d: found %v, error %v", i, found, err)
			}
		}
		entries(t, s, 6, 5)
	}()

	s := open(t, path, embedded.Options{MaxSimulated: 2, Now: now.Now})
	entries(t, s, 6, 5)
	simulate(t, s, "unknown-8", time.Hour)
	entries(t, s, 3, 2)
	for _, identifier := range []string{"real", "unknown-7", "unknown-8"} {
		if _, found, err := s.Load(t.Context(), identifier); err != nil || !found {
			t.Errorf("%s: found %v, error %v", identifier, found, err)
		}
	}
	// A registration under a simulated identifier is no longer simulated.
	create(t, s, record("unknown-8", 3))
	entries(t, s, 3, 1)
	now.Advance(2 * time.Minute)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	entries(t, s, 2, 0)
}

// MaxSimulated limits the handshakes of all identifiers without a registration, and does not
// affect others.
func TestHandshakesAreLimited(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{MaxSimulated: 5})
	create(t, s, record("real", 1))
	if _, err := s.PutHandshake(t.Context(), "real", activation.Handshake{Generation: activation.Generation{1}, Lifetime: time.Minute}); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		for _, h := range []activation.Handshake{
			{Generation: activation.Generation{7}, Lifetime: time.Minute, Simulated: true, RecordLifetime: time.Minute},
			{Generation: activation.Generation{7}, Lifetime: time.Minute},
		} {
			if _, err := s.PutHandshake(t.Context(), fmt.Sprintf("%v-%d", h.Simulated, i), h); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := s.Handshakes(); n != 6 {
		t.Fatalf("%d handshakes in memory, want 5 simulated and 1 genuine", n)
	}
	if _, ok, err := s.Take(t.Context(), "real", activation.Token{1}, activation.Tag{}, 3); err != nil || !ok {
		t.Fatalf("the genuine handshake: %v, error %v", ok, err)
	}
}

// Opening a file that is open, in the same or another process, fails with an error that says so.
func TestLocked(t *testing.T) {
	t.Parallel()
	path := temporary(t)
	open(t, path, embedded.Options{})
	_, err := embedded.Open(path, embedded.Options{})
	if err == nil || !strings.Contains(err.Error(), "another process") || !strings.Contains(err.Error(), path) {
		t.Fatalf("error %v does not explain the lock", err)
	}
}

// Open refuses files of other formats and programs with an error that names the file.
func TestOpenRefusesOtherFiles(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T, change func(tx *bolt.Tx) error) string {
		t.Helper()
		path := temporary(t)
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(change), db.Close()); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name string
		path func(t *testing.T) string
		want string
	}{
		{"a newer format", func(t *testing.T) string {
			t.Helper()
			return prepare(t, func(tx *bolt.Tx) error {
				b, err := tx.CreateBucket([]byte("meta"))
				return errors.Join(err, b.Put([]byte("format"), []byte{0, 0, 0, 3}))
			})
		}, "format 3, this program knows formats 1 and 2"},
		{"a bbolt file of another program", func(t *testing.T) string {
			t.Helper()
			return prepare(t, func(tx *bolt.Tx) error {
				_, err := tx.CreateBucket([]byte("things"))
				return err
			})
		}, "not a store of this program"},
		{"a file of another kind", func(t *testing.T) string {
			t.Helper()
			path := temporary(t)
			if err := os.WriteFile(path, bytes.Repeat([]byte("text\n"), 10_000), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, "neither of its first two pages is valid"},
		{"a folder", func(t *testing.T) string { t.Helper(); return t.TempDir() }, "is a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := tt.path(t)
			_, err := embedded.Open(path, embedded.Options{})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("error %v, want one with %q and the path", err, tt.want)
			}
		})
	}
}

// Only the owner has access to the file and to folders that Open creates.
func TestPermissions(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "b", "dsapp.db")
	open(t, path, embedded.Options{})
	for name, want := range map[string]os.FileMode{path: 0o600, path + ".calls0": 0o600, path + ".calls1": 0o600, filepath.Dir(path): 0o700, filepath.Dir(filepath.Dir(path)): 0o700} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %04o, want %04o", name, got, want)
		}
	}
}

// Close waits for running calls. Later calls fail with activation.ErrUnavailable.
func TestClose(t *testing.T) {
	t.Parallel()
	path := temporary(t)
	s, err := embedded.Open(path, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	created := make([]bool, 50)
	for i := range created {
		wg.Go(func() {
			_, ok, err := s.Create(t.Context(), record(fmt.Sprintf("id-%d", i), 1), activation.Generation{})
			if err != nil && !errors.Is(err, activation.ErrUnavailable) {
				t.Error(err)
			}
			created[i] = ok && err == nil
		})
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if _, err := s.Reserve(t.Context()); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("reserve: error %v", err)
	}
	if _, _, err := s.Load(t.Context(), "id-1"); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("load: error %v", err)
	}
	s = open(t, path, embedded.Options{})
	for i, want := range created {
		if _, found, err := s.Load(t.Context(), fmt.Sprintf("id-%d", i)); err != nil || found != want {
			t.Errorf("record %d: found %v, acknowledged %v, error %v", i, found, want, err)
		}
	}
}

// Calls fail for an entry that cannot be decoded; they do not treat it as unknown. Other entries
// are not affected. The entry is removed at the time of its removal.
func TestCorruptEntry(t *testing.T) {
	t.Parallel()
	now := clock.New()
	s := open(t, temporary(t), embedded.Options{Now: now.Now})
	create(t, s, record("id-1", 1))
	create(t, s, record("id-2", 2))
	err := s.DB().Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("registrations")).Put([]byte("id-1"), []byte("not an entry"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, found, err := s.Load(t.Context(), "id-1"); !errors.Is(err, activation.ErrDamaged) || found {
		t.Errorf("load: %v, error %v", found, err)
	} else if strings.Contains(err.Error(), "not an entry") {
		t.Errorf("error %v shows what lies in the file", err)
	}
	if _, created, err := s.Create(t.Context(), record("id-1", 3), activation.Generation{}); !errors.Is(err, activation.ErrUnavailable) || created {
		t.Errorf("create: %v, error %v", created, err)
	}
	if !prove(t, s, record("id-2", 2), 1, true) {
		t.Error("another record is concerned")
	}
	now.Advance(time.Hour)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	entries(t, s, 0, 0)
	create(t, s, record("id-1", 3))
}

// An identifier that cannot be a key is refused before it makes a transaction fail.
func TestIdentifierLength(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{})
	for _, identifier := range []string{"", strings.Repeat("x", 40_000)} {
		if _, _, err := s.Create(t.Context(), record(identifier, 1), activation.Generation{}); !errors.Is(err, activation.ErrUnavailable) {
			t.Errorf("create of %d bytes: error %v", len(identifier), err)
		}
		if _, found, err := s.Load(t.Context(), identifier); err != nil || found {
			t.Errorf("load of %d bytes: %v, error %v", len(identifier), found, err)
		}
	}
}

// When the context of a caller ends, its call returns although it still waits for a transaction,
// and the caller may change its slices.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{})
	tx, err := s.DB().Begin(true) // blocks all writes
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	first, second := record("id-1", 1), record("id-2", 2)
	first.Facts = bytes.Clone(first.Facts)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, _, err := s.Create(ctx, first, activation.Generation{}); !errors.Is(err, activation.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		clear(first.Facts)
	})
	wg.Go(func() { create(t, s, second) })
	<-ctx.Done()
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	got, found, err := s.Load(t.Context(), "id-1")
	if err != nil || found && string(got.Facts) != "facts" {
		t.Fatalf("found %v with facts that the caller changed later, error %v", found, err)
	}
	if _, found, err := s.Load(t.Context(), "id-2"); err != nil || !found {
		t.Fatalf("the other caller's record: %v, error %v", found, err)
	}
}

// Calls that wait for a transaction share the next one, and each gets its own result.
func TestCallsShareTransactions(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{})
	create(t, s, record("id-0", 1))
	tx, err := s.DB().Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	before := tx.ID()
	var wg sync.WaitGroup
	defer func() {
		_ = tx.Rollback() // of a test that failed
		wg.Wait()
	}()
	until := func(what string, waiting int, running bool) {
		t.Helper()
		poll.Until(t, what, func() bool {
			n, r := s.Waiting()
			return n == waiting && r == running
		})
	}
	// One call waits for tx, all others for its transaction.
	until("nothing runs", 0, false)
	wg.Go(func() {
		if _, created, err := s.Create(t.Context(), record("id-first", 1), activation.Generation{}); err != nil || !created {
			t.Errorf("first create: %v, error %v", created, err)
		}
	})
	until("the first call runs", 0, true)
	const n = 60
	for i := range n {
		wg.Go(func() {
			// Half of them find the identifier taken.
			_, created, err := s.Create(t.Context(), record(fmt.Sprintf("id-%d", i%2*i), byte(i+2)), activation.Generation{})
			if err != nil || created != (i%2 == 1) {
				t.Errorf("create %d: %v, error %v", i, created, err)
			}
		})
	}
	until("all calls wait", n, true)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	tx, err = s.DB().Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	if used := tx.ID() - before; used > 2 {
		t.Errorf("%d calls took %d transactions", 1+n, used)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	entries(t, s, 2+n/2, 0)
}

// If the file fails, every call fails with activation.ErrUnavailable.
func TestFileFails(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{})
	if err := s.DB().Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reserve(t.Context()); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("reserve: error %v", err)
	}
	if _, err := s.PutHandshake(t.Context(), "id-1", activation.Handshake{}); !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("put handshake: error %v", err)
	}
	if _, created, err := s.Create(t.Context(), record("id-1", 1), activation.Generation{}); !errors.Is(err, activation.ErrUnavailable) || created {
		t.Errorf("create: %v, error %v", created, err)
	}
}

// A panic in a transaction, such as bbolt's on a damaged page, makes the calls in it fail and
// nothing else.
func TestPanicInTransaction(t *testing.T) {
	t.Parallel()
	s := open(t, temporary(t), embedded.Options{})
	if err := s.Update(t.Context(), func() { panic("damaged page") }); !errors.Is(err, activation.ErrUnavailable) {
		t.Fatalf("error %v", err)
	}
	create(t, s, record("id-1", 1))
}

func BenchmarkTakeSettle(b *testing.B) {
	storetest.Benchmark(b, open(b, temporary(b), embedded.Options{}))
}
