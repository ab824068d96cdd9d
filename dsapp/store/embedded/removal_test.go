package embedded_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/embedded"
	"github.com/dsapp-gateway/dsapp-gateway/internal/clock"
)

// The parts of a record that has ended stay for some time: a call that began before, and a clock that
// is set back a little, find no damaged record.
func TestPartsStay(t *testing.T) {
	t.Parallel()
	now := clock.New()
	s := open(t, temporary(t), embedded.Options{Now: now.Now})
	create(t, s, record("id-1", 1))
	now.Advance(record("", 1).Lifetime)
	for range 8 {
		if _, _, err := s.Settle(t.Context(), "nobody", activation.Settlement{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(t, s, "sealed"); got != 1 {
		t.Errorf("the parts of %d records", got)
	}
	now.Advance(-time.Second)
	if _, _, err := s.Load(t.Context(), "id-1"); err != nil {
		t.Error(err)
	}
	now.Advance(time.Hour)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	entries(t, s, 0, 0)
}

// Later writes remove a limited number of expired entries each, and a sweep removes all, as well
// as expired handshakes.
func TestRemoval(t *testing.T) {
	t.Parallel()
	now := clock.New()
	s := open(t, temporary(t), embedded.Options{Now: now.Now})
	const n = 300
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r := record(fmt.Sprintf("id-%03d", i), 1)
			r.Answer = []byte("answer")
			if _, created, err := s.Create(t.Context(), r, activation.Generation{}); err != nil || !created {
				t.Errorf("create: %v, error %v", created, err)
			}
			if _, err := s.PutHandshake(t.Context(), r.Identifier, activation.Handshake{Generation: r.Generation, Lifetime: time.Minute}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	entries(t, s, n, 0)
	if got := s.Handshakes(); got != n {
		t.Fatalf("%d handshakes, want %d", got, n)
	}
	now.Advance(time.Hour)
	for range 40 {
		create(t, s, record("later", 1))
		if err := s.Remove(t.Context(), "later", activation.Generation{1}); err != nil {
			t.Fatal(err)
		}
	}
	create(t, s, record("later", 1))
	left := count(t, s, "registrations")
	if left >= n {
		t.Fatalf("%d entries left of %d after some writes", left, n)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	entries(t, s, 1, 0)
	if n := count(t, s, "answers"); n != 0 {
		t.Errorf("%d answers left", n)
	}
	if got := s.Handshakes(); got != 0 {
		t.Fatalf("%d handshakes left", got)
	}
}

// When many records end at once, no call writes more than twice the pages that it writes otherwise,
// and all calls together hardly more, until enough pages are free.
func TestMassExpiryCost(t *testing.T) {
	t.Parallel()
	now := clock.New()
	s := open(t, temporary(t), embedded.Options{Now: now.Now})
	n := 0
	name := func() string { n++; return fmt.Sprintf("%016X", uint64(n)*0x9E3779B97F4A7C15) }
	r := record("", 1)
	r.Data, r.Lifetime = make([]byte, 2000), time.Hour
	for records := 5000; records > 0; records = 32 {
		if err := s.Fill(records, name, r, []byte("owner")); err != nil {
			t.Fatal(err)
		}
		if s.DB().Stats().FreePageN < 500 {
			break
		}
	}
	s.DB().NoSync = true
	calls := func(n int) (mean, most int64) {
		t.Helper()
		for range n {
			before := s.DB().Stats()
			mustClaim(t, s, claim(name(), 1), name(), time.Hour)
			if err := s.Archive(); err != nil {
				t.Fatal(err)
			}
			after := s.DB().Stats()
			written := after.TxStats.GetWrite() - before.TxStats.GetWrite()
			mean, most = mean+written, max(most, written)
		}
		return mean / int64(n), most
	}
	mean, most := calls(200)
	now.Advance(2 * time.Hour)
	free := s.DB().Stats().FreePageN
	meanAfter, mostAfter := calls(200)
	if s.DB().Stats().FreePageN < free+300 {
		t.Errorf("%d free pages, then %d", free, s.DB().Stats().FreePageN)
	}
	if meanAfter > mean*5/4 || mostAfter > 2*most {
		t.Errorf("%d and at most %d pages before, %d and at most %d after", mean, most, meanAfter, mostAfter)
	}
}

// When many records end at once, the list of free pages stays short, because every transaction
// writes it. What lies in the file counts as removed, and later records use its pages instead of new
// ones.
func TestMassExpiry(t *testing.T) {
	t.Parallel()
	const n = 2000
	now := clock.New()
	s := open(t, temporary(t), embedded.Options{Now: now.Now})
	s.DB().NoSync = true
	fill := func(round string) {
		t.Helper()
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				r := record(fmt.Sprintf("%s-%04d", round, i), 1)
				r.Data = make([]byte, 2000)
				if _, created, err := s.Create(t.Context(), r, activation.Generation{}); err != nil || !created {
					t.Errorf("create: %v, error %v", created, err)
				}
			})
		}
		wg.Wait()
	}
	fill("first")
	used := func() (bytes int64) {
		t.Helper()
		err := s.DB().View(func(tx *bolt.Tx) error {
			bytes = tx.Size()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	before := used()
	now.Advance(time.Hour)
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if free := s.DB().Stats().FreePageN; free < 900 || free > 1300 {
		t.Errorf("%d free pages", free)
	}
	if left := count(t, s, "sealed"); left == 0 || left == n {
		t.Errorf("the parts of %d records are left", left)
	}
	if _, found, err := s.Load(t.Context(), "first-1999"); err != nil || found {
		t.Errorf("an expired record: found %v, error %v", found, err)
	}
	for round := range 3 {
		fill(fmt.Sprintf("later %d", round))
		now.Advance(time.Hour)
	}
	if after := used(); after > before*3/2 {
		t.Errorf("the pages in use grew from %d to %d bytes", before, after)
	}
	if free := s.DB().Stats().FreePageN; free > 2000 {
		t.Errorf("%d free pages", free)
	}
}
