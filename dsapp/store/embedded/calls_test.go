package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

// callsAt opens the segments of a store at path.
func callsAt(t *testing.T, path string, now func() time.Time) *calls {
	t.Helper()
	c, err := openCalls(path, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	return c
}

// markOf returns the mark of call i.
func markOf(i int) repeat.Mark {
	return repeat.Mark{Digest: repeat.Digest([]byte(fmt.Sprintf("%32d", i))), Token: repeat.Token{byte(i), 1}, Lifetime: time.Minute}
}

// copyOf copies the files of the store at path, as they are when its process ends.
func copyOf(t testing.TB, path string) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "copy")
	for _, end := range []string{"", ".calls0", ".calls1", ".claims0", ".claims1"} {
		b, err := os.ReadFile(path + end)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+end, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return copied
}

// has fails unless the entry of m has that outcome.
func (c *calls) has(t *testing.T, m repeat.Mark, outcome []byte) {
	t.Helper()
	e, found, err := c.kept(m.Digest)
	if err != nil || !found || e.Token != m.Token || !bytes.Equal(e.Outcome, outcome) {
		t.Fatalf("found %v with %d bytes, error %v, want %d bytes", found, len(e.Outcome), err, len(outcome))
	}
}

// What a call has stored is there after its process has ended at any time: marks, outcomes and that
// a mark was removed.
func TestCallsSurviveTheProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	c := callsAt(t, path, time.Now)
	marked, kept, forgotten := markOf(1), markOf(2), markOf(3)
	for _, m := range []repeat.Mark{marked, kept, forgotten} {
		if _, found, err := c.mark(m); err != nil || found {
			t.Fatalf("found %v, error %v", found, err)
		}
	}
	if err := errors.Join(c.keep(kept, []byte("outcome")), c.forget(forgotten.Digest, forgotten.Token)); err != nil {
		t.Fatal(err)
	}
	c = callsAt(t, copyOf(t, path), time.Now)
	c.has(t, marked, nil)
	c.has(t, kept, []byte("outcome"))
	if _, found, err := c.kept(forgotten.Digest); found || err != nil {
		t.Errorf("a mark that was removed is there: %v, error %v", found, err)
	}
}

// A segment that is cut anywhere, or has another byte anywhere, is opened with the records before
// that place, and takes new ones.
func TestDamagedCalls(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	c := callsAt(t, path, time.Now)
	const count = 3
	outcome := []byte("an outcome")
	for i := range count {
		if err := c.keep(markOf(i), outcome); err != nil {
			t.Fatal(err)
		}
	}
	copied := copyOf(t, path)
	whole, err := os.ReadFile(copied + ".calls0")
	if err != nil {
		t.Fatal(err)
	}
	size := recordSize + len(outcome)
	if len(whole) != segmentHeader+count*size {
		t.Fatalf("%d bytes", len(whole))
	}
	check := func(content []byte, sound int) {
		t.Helper()
		if err := os.WriteFile(copied+".calls0", content, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := openCalls(copied, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		for i := range count {
			if i < sound {
				c.has(t, markOf(i), outcome)
			} else if _, found, err := c.mark(markOf(i)); found || err != nil {
				t.Fatalf("record %d of %d: found %v, error %v", i, sound, found, err)
			}
		}
		if err := c.close(); err != nil {
			t.Fatal(err)
		}
		c = callsAt(t, copied, time.Now)
		defer c.close()
		c.has(t, markOf(count-1), map[bool][]byte{true: outcome}[sound == count])
	}
	for n := range len(whole) {
		check(whole[:n], max(0, n-segmentHeader)/size)
	}
	for at := segmentHeader; at < len(whole); at++ {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 0x55
		check(damaged, (at-segmentHeader)/size)
	}
	check(append(bytes.Clone(whole), make([]byte, 5000)...), count)
	if err := os.WriteFile(copied+".calls0", bytes.Repeat([]byte("text\n"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openCalls(copied, time.Now); !errors.Is(err, errNoSegment) {
		t.Errorf("a file of another program: error %v", err)
	}
}

// The segments never exceed their limit, and nothing is lost before it ends: while they are full,
// no call can be marked, and those that are kept are found. What has ended makes room, also if something lives longer than the rest.
// After each of these, the process may end.
func TestSegmentsAlternate(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	path := filepath.Join(t.TempDir(), "dsapp.db")
	open := func(path string) *calls {
		c := callsAt(t, path, func() time.Time { return now })
		c.min, c.max = 2_000, 10_000
		return c
	}
	c := open(path)
	outcome := bytes.Repeat([]byte("x"), 300)
	type end struct {
		m  repeat.Mark
		at time.Time
	}
	var live []end
	var refused, alternated int
	long := markOf(500)
	long.Lifetime, long.Outcome = time.Hour, []byte("known at once")
	if _, _, err := c.mark(long); err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		// Full at first, then slowly enough.
		now = now.Add(map[bool]time.Duration{true: time.Second, false: 4 * time.Second}[i < 200])
		m := markOf(i)
		before := c.active
		_, found, err := c.mark(m)
		if err == nil {
			err = c.keep(m, outcome)
		}
		if c.active != before {
			alternated++
		}
		switch {
		case errors.Is(err, errCallsFull) && i < 250:
			refused++
			// A repeat of a call that is kept is none to be marked.
			if _, found, err := c.mark(live[len(live)-1].m); err != nil || !found {
				t.Fatalf("found %v in full segments, error %v", found, err)
			}
		case err != nil || found:
			t.Fatalf("call %d: found %v, error %v", i, found, err)
		default:
			live = append(live, end{m, now.Add(m.Lifetime)})
		}
		for len(live) > 0 && !now.Before(live[0].at) {
			if _, found, _ := c.kept(live[0].m.Digest); found {
				t.Fatal("an entry has no end")
			}
			live = live[1:]
		}
		if i%50 == 0 {
			c = open(copyOf(t, path))
			path = c.pair[0].file.Name()
			path = path[:len(path)-len(".calls0")]
		}
		c.has(t, long, long.Outcome)
		for _, l := range live {
			c.has(t, l.m, outcome)
		}
		for _, s := range c.pair {
			if info, err := s.file.Stat(); err != nil || info.Size() > c.max || info.Size() != s.size {
				t.Fatalf("a segment of %d bytes, error %v", info.Size(), err)
			}
		}
	}
	if refused == 0 || alternated < 10 {
		t.Errorf("%d calls refused, %d segments begun", refused, alternated)
	}
	if n := len(c.pair[0].places) + len(c.pair[1].places); n > 60 {
		t.Errorf("%d places in memory", n)
	}
}

// What earlier versions stored in the file of bbolt is found until it ends, once, and what was
// changed since then stays as it is.
func TestCallsOfEarlierVersions(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	reopen := func() *Store {
		t.Helper()
		s, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	s := reopen()
	marked, kept, ended, damaged := markOf(1), markOf(2), markOf(3), markOf(4)
	ended.Lifetime = -time.Minute
	err := s.db.Update(func(tx *bolt.Tx) error {
		for _, m := range []repeat.Mark{marked, kept, ended, damaged} {
			end := time.Now().Add(m.Lifetime).UnixNano()
			value := append(binary.BigEndian.AppendUint64(nil, uint64(end)), m.Token[:]...)
			switch m.Digest {
			case kept.Digest:
				value = append(value, "outcome"...)
			case damaged.Digest:
				value = value[:3]
			}
			if err := errors.Join(bucket(tx, bucketRepeats).Put(m.Digest[:], value), bucket(tx, bucketRepeatEnds).Put(indexKey(string(m.Digest[:]), end), nil)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	s = reopen()
	s.calls.has(t, marked, nil)
	s.calls.has(t, kept, []byte("outcome"))
	if n := len(s.calls.pair[0].places); n != 2 {
		t.Errorf("%d places, want 2", n)
	}
	if err := errors.Join(s.Forget(t.Context(), "", marked.Digest, marked.Token), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = reopen()
	s.calls.has(t, kept, []byte("outcome"))
	if _, found, err := s.calls.kept(marked.Digest); found || err != nil {
		t.Errorf("what was removed is there: %v, error %v", found, err)
	}
}

// Whatever a segment holds, it is read without a panic, and up to a place within it.
func FuzzSegment(f *testing.F) {
	c, err := openCalls(filepath.Join(f.TempDir(), "dsapp.db"), time.Now)
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(c.keep(markOf(1), []byte("outcome")), c.forget(markOf(1).Digest, markOf(1).Token)); err != nil {
		f.Fatal(err)
	}
	content, err := os.ReadFile(c.pair[0].file.Name())
	if err := errors.Join(err, c.close()); err != nil {
		f.Fatal(err)
	}
	f.Add(content)
	f.Add(content[:len(content)-1])
	f.Add([]byte(callsMagic))
	f.Fuzz(func(t *testing.T, content []byte) {
		s := segment{magic: callsMagic}
		if err := s.load(content); err != nil {
			return
		}
		if s.size > int64(len(content)) || len(s.places) > len(content)/recordSize {
			t.Fatalf("%d records up to %d of %d bytes", len(s.places), s.size, len(content))
		}
		for _, p := range s.places {
			if p.at < int64(segmentHeader+recordSize) || p.at+int64(p.size) > s.size {
				t.Fatalf("an outcome of %d bytes at %d of %d", p.size, p.at, s.size)
			}
		}
	})
}
