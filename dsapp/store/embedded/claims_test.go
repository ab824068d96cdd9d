package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

var errStopped = errors.New("stopped")

// storeAt opens the store at path, without sweeps.
func storeAt(t testing.TB, path string, now func() time.Time) *Store {
	t.Helper()
	s, err := Open(path, Options{Now: now}.WithoutSweeps())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// made makes a claim to a login, which has to succeed.
func (s *Store) made(t *testing.T, key string, token byte, serialNumber string, lifetime time.Duration) {
	t.Helper()
	c := ownership.Claim{Key: key, Token: ownership.Token{token}, Owner: []byte("owner of " + key)}
	if won, err := s.Claim(t.Context(), ownership.Login, c, serialNumber, lifetime); err != nil || !won {
		t.Fatalf("claim %s: %v, error %v", key, won, err)
	}
}

// listed returns the keys of the claims that are listed for a device.
func (s *Store) listed(t *testing.T, serialNumber string) []string {
	t.Helper()
	listed, err := s.Pending(t.Context(), ownership.Login, serialNumber)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, c := range listed {
		keys = append(keys, c.Key)
	}
	return keys
}

// archivedKeys returns the keys of bucketClaims.
func (s *Store) archivedKeys(t *testing.T) []string {
	t.Helper()
	var keys []string
	err := s.db.View(func(tx *bolt.Tx) error {
		return bucket(tx, bucketClaims).ForEach(func(k, _ []byte) error {
			keys = append(keys, string(k))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// Random claims, releases, ends, archivings that succeed or are interrupted, and ends of the process agree
// with a map, whatever is in which file.
func TestClaimsAgreeWithMap(t *testing.T) {
	t.Parallel()
	type owned struct {
		token        byte
		serialNumber string
		ends         time.Time
	}
	keys, devices := []string{"1", "11", "2", "a"}, []string{"device-1", "device-11"}
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Unix(1_800_000_000, 0)
		clock := func() time.Time { return now }
		path := filepath.Join(t.TempDir(), "dsapp.db")
		s := storeAt(t, path, clock)
		defer func() { _ = s.Close() }()
		model := map[string]owned{}
		live := func(key string) (owned, bool) {
			o, found := model[key]
			return o, found && now.Before(o.ends)
		}
		tokens := byte(0)
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				for _, key := range keys {
					want, owns := live(key)
					got, found, err := s.Owner(t.Context(), ownership.Login, key)
					if err != nil || found != owns || found && (got.Token != ownership.Token{want.token} || got.Key != key || string(got.Owner) != "owner") {
						rt.Fatalf("owner of %s: found %v of token %d, error %v, the map says %v of token %d", key, found, got.Token[0], err, owns, want.token)
					}
				}
				for _, device := range devices {
					var want []string
					for _, key := range keys {
						if o, owns := live(key); owns && o.serialNumber == device {
							want = append(want, key)
						}
					}
					if got := s.listed(t, device); !slices.Equal(got, want) {
						rt.Fatalf("pending of %s: %v, the map says %v", device, got, want)
					}
				}
			},
			"claim": func(rt *rapid.T) {
				key, device := rapid.SampledFrom(keys).Draw(rt, "key"), rapid.SampledFrom(devices).Draw(rt, "device")
				lifetime := time.Duration(rapid.IntRange(1, 60).Draw(rt, "minutes")) * time.Minute
				tokens++
				c := ownership.Claim{Key: key, Token: ownership.Token{tokens}, Owner: []byte("owner")}
				won, err := s.Claim(t.Context(), ownership.Login, c, device, lifetime)
				_, owns := live(key)
				if err != nil || won == owns {
					rt.Fatalf("claim of %s: %v, error %v, the map says %v", key, won, err, !owns)
				}
				if won {
					model[key] = owned{tokens, device, now.Add(lifetime)}
				}
			},
			"release": func(rt *rapid.T) {
				key := rapid.SampledFrom(keys).Draw(rt, "key")
				token := model[key].token
				if rapid.IntRange(0, 3).Draw(rt, "another token") == 0 {
					token++
				} else {
					delete(model, key)
				}
				if err := s.Release(t.Context(), ownership.Login, key, ownership.Token{token}, rapid.SampledFrom(devices).Draw(rt, "device")); err != nil {
					rt.Fatal(err)
				}
			},
			"time passes": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 20).Draw(rt, "minutes")) * time.Minute)
			},
			"archive": func(rt *rapid.T) {
				if err := s.claims.archive(s.archive); err != nil {
					rt.Fatal(err)
				}
			},
			"archive and turn": func(rt *rapid.T) {
				if err := errors.Join(s.claims.archive(s.archive), s.claims.turn()); err != nil {
					rt.Fatal(err)
				}
			},
			"archive and stop": func(rt *rapid.T) {
				err := s.claims.archive(func(from *segment, batch []archived) error { return errors.Join(s.archive(from, batch), errStopped) })
				if !errors.Is(err, errStopped) {
					rt.Fatal(err)
				}
			},
			"sweep": func(rt *rapid.T) {
				if err := s.Sweep(); err != nil {
					rt.Fatal(err)
				}
			},
			"end the process": func(rt *rapid.T) {
				copied := copyOf(t, path)
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				path = copied
				s = storeAt(t, path, clock)
			},
		})
	})
}

// While claims are archived all the time, each is found until it is released, and not any more then, and a
// request has one owner at a time.
func TestClaimsWhileArchiving(t *testing.T) {
	t.Parallel()
	s := storeAt(t, filepath.Join(t.TempDir(), "dsapp.db"), time.Now)
	s.db.NoSync = true
	var flows, archiving sync.WaitGroup
	stop := make(chan struct{})
	archiving.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := s.Archive(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	const keys = 3
	var owners [keys]sync.Mutex
	for i := range 8 {
		flows.Go(func() {
			for n := range 150 {
				k := (i + n) % keys
				key, device := fmt.Sprint(k), fmt.Sprintf("device-%d", i)
				c := ownership.Claim{Key: key, Token: ownership.Token{byte(i), byte(n), 1}, Owner: []byte(device)}
				won, err := s.Claim(t.Context(), ownership.Login, c, device, time.Hour)
				if err != nil {
					t.Error(err)
				}
				if !won {
					continue
				}
				if !owners[k].TryLock() {
					t.Error("a request has two owners")
					return
				}
				for range 20 {
					if got, found, err := s.Owner(t.Context(), ownership.Login, key); err != nil || !found || got.Token != c.Token {
						t.Errorf("found %v, error %v", found, err)
					}
					if got := s.listed(t, device); !slices.Equal(got, []string{key}) {
						t.Errorf("listed: %v, want %s", got, key)
					}
				}
				owners[k].Unlock()
				if err := s.Release(t.Context(), ownership.Login, key, c.Token, device); err != nil {
					t.Error(err)
				}
				if got, found, err := s.Owner(t.Context(), ownership.Login, key); err != nil || found && got.Token == c.Token {
					t.Errorf("released, and found %v, error %v", found, err)
				}
				for range 5 {
					if got := s.listed(t, device); slices.Contains(got, key) {
						t.Errorf("released, and listed: %v", got)
					}
				}
			}
		})
	}
	flows.Wait()
	close(stop)
	archiving.Wait()
	if err := s.Archive(); err != nil {
		t.Fatal(err)
	}
	if keys := s.archivedKeys(t); keys != nil {
		t.Errorf("archived: %v", keys)
	}
}

// A segment is archived and emptied when the active one has its size, or its age and the least size. What
// was released or has ended meanwhile is not written to the archive, and removed from memory.
func TestClaimsTurn(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	s := storeAt(t, filepath.Join(t.TempDir(), "dsapp.db"), func() time.Time { return now })
	c := s.claims
	c.min, c.full = 1_000, 10_000
	active := func(want int, why string) {
		t.Helper()
		if err := s.archiveClaims(); err != nil {
			t.Fatal(err)
		}
		if c.active != want {
			t.Fatalf("segment %d, want %d: %s", c.active, want, why)
		}
	}
	fill := func(prefix string, size int64) {
		t.Helper()
		for i := 0; c.pair[c.active].size < size; i++ {
			key := fmt.Sprint(prefix, i)
			s.made(t, key, 1, key, time.Minute)
			if i%2 == 0 {
				if err := s.Release(t.Context(), ownership.Login, key, ownership.Token{1}, key); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	s.made(t, "long", 1, "device-1", time.Hour)
	now = now.Add(claimsAge)
	active(0, "it is small")
	fill("a", c.min)
	active(1, "it is old")
	fill("b", c.min)
	active(1, "it is new")
	fill("c", c.full)
	active(0, "it is full")
	// The claims of the first segment that have not ended.
	if got := s.archivedKeys(t); len(got) < 2 || !slices.Contains(got, "login/long") || len(got) > 10 {
		t.Errorf("archived: %v", got)
	}
	now = now.Add(claimsAge)
	fill("d", c.min)
	archivedBefore := len(s.archivedKeys(t))
	active(1, "it is old")
	if got := s.archivedKeys(t); len(got) != archivedBefore {
		t.Errorf("archived: %v, although everything has ended", got)
	}
	if n := len(c.pair[0].places) + len(c.pair[1].places); n > 20 || len(c.devices) > n {
		t.Errorf("%d records and %d devices in memory", n, len(c.devices))
	}
	if got := s.listed(t, "device-1"); !slices.Equal(got, []string{"long"}) {
		t.Errorf("listed: %v", got)
	}
}

// While the archive cannot be written, the segments grow up to their limit. Then claims fail with the
// store's error, releases go on, and nothing is lost. When it can be written, claims succeed again.
func TestClaimsCannotBeArchived(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	s := storeAt(t, filepath.Join(t.TempDir(), "dsapp.db"), func() time.Time { return now })
	c := s.claims
	c.min, c.full, c.max = 2_000, 2_000, 20_000
	fails := func(*segment, []archived) error { return errStopped }
	turn := func(move func(*segment, []archived) error) error {
		if !c.due() {
			return nil
		}
		if err := c.archive(move); err != nil {
			return err
		}
		return c.turn()
	}
	var err error
	made := 0
	for ; err == nil; made++ {
		_ = turn(fails)
		_, err = s.Claim(t.Context(), ownership.Login, ownership.Claim{Key: fmt.Sprint(made), Token: ownership.Token{1}}, "device", time.Hour)
	}
	if made--; !errors.Is(err, activation.ErrUnavailable) || !errors.Is(err, errClaimsFull) || made < 50 {
		t.Fatalf("%d claims, error %v", made, err)
	}
	for i := range made {
		if i%10 > 0 {
			continue
		}
		if err := s.Release(t.Context(), ownership.Login, fmt.Sprint(i), ownership.Token{1}, "device"); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range c.pair {
		if info, err := f.file.Stat(); err != nil || info.Size() > c.max || info.Size() != f.size {
			t.Errorf("a segment of %d bytes, error %v", info.Size(), err)
		}
	}
	if err := turn(s.archive); err != nil {
		t.Fatal(err)
	}
	s.made(t, "new", 1, "device", time.Hour)
	for i := range made {
		if _, found, err := s.Owner(t.Context(), ownership.Login, fmt.Sprint(i)); err != nil || found != (i%10 > 0) {
			t.Errorf("claim %d: found %v, error %v", i, found, err)
		}
	}
}

// The list of a device has the claims that end last, wherever they are, and the newest one.
func TestPendingOfArchivedAndRecent(t *testing.T) {
	t.Parallel()
	s := storeAt(t, filepath.Join(t.TempDir(), "dsapp.db"), time.Now)
	var want []string
	for i := range ownership.MaxPending {
		key := fmt.Sprintf("%02d", i)
		s.made(t, key, 1, "device-1", time.Hour+time.Duration(i)*time.Minute)
		want = append(want, key)
		if i == ownership.MaxPending/2 {
			if err := s.Archive(); err != nil {
				t.Fatal(err)
			}
		}
	}
	is := func() {
		t.Helper()
		if got := s.listed(t, "device-1"); !slices.Equal(got, want) {
			t.Errorf("listed: %v, want %v", got, want)
		}
	}
	is()
	// The archived one that ends first gives way, though the new one ends before it.
	s.made(t, "new", 1, "device-1", time.Minute)
	want = append(want[1:], "new")
	is()
	// A recent one gives way if it ends first.
	s.made(t, "newer", 1, "device-1", 3*time.Hour)
	want[len(want)-1] = "newer"
	is()
	for _, key := range []string{"00", "new"} {
		if err := s.Release(t.Context(), ownership.Login, key, ownership.Token{1}, "device-1"); err != nil {
			t.Fatal(err)
		}
	}
	is()
	if err := s.Archive(); err != nil {
		t.Fatal(err)
	}
	is()
	// Those that are released leave their places to others, in the archive as well.
	for _, key := range want[:10] {
		if err := s.Release(t.Context(), ownership.Login, key, ownership.Token{1}, "device-1"); err != nil {
			t.Fatal(err)
		}
	}
	want = want[10:]
	for i := range 10 {
		key := fmt.Sprintf("z%d", i)
		s.made(t, key, 1, "device-1", 2*time.Minute)
		want = append(want, key)
	}
	is()
	if err := s.claims.archive(s.archive); err != nil {
		t.Fatal(err)
	}
	is()
	if err := s.Archive(); err != nil {
		t.Fatal(err)
	}
	is()
}

// Calls fail for a claim that cannot be read from its segment, and the store is opened with the claims
// before a place that is damaged. A segment of something else is refused.
func TestDamagedClaims(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	s := storeAt(t, path, time.Now)
	for i := range 3 {
		s.made(t, fmt.Sprint(i), 1, fmt.Sprint("device-", i), time.Hour)
	}
	whole := copyOf(t, path)
	content, err := os.ReadFile(whole + ".claims0")
	if err != nil {
		t.Fatal(err)
	}
	at := s.claims.pair[0].places[claimDigest("login/1")].at
	if _, err := s.claims.pair[0].file.WriteAt([]byte("damaged"), at); err != nil {
		t.Fatal(err)
	}
	_, found, err := s.Owner(t.Context(), ownership.Login, "1")
	if found || !errors.Is(err, ownership.ErrDamaged) || !errors.Is(err, activation.ErrUnavailable) {
		t.Errorf("owner: found %v, error %v", found, err)
	}
	if listed, err := s.Pending(t.Context(), ownership.Login, "device-1"); listed != nil || !errors.Is(err, ownership.ErrDamaged) {
		t.Errorf("pending: %d, error %v", len(listed), err)
	}
	if won, err := s.Claim(t.Context(), ownership.Login, ownership.Claim{Key: "1", Token: ownership.Token{2}}, "device-1", time.Hour); won || err != nil {
		t.Errorf("another claim: %v, error %v", won, err)
	}
	for _, i := range []int{0, 2} {
		if _, found, err := s.Owner(t.Context(), ownership.Login, fmt.Sprint(i)); err != nil || !found {
			t.Errorf("claim %d: found %v, error %v", i, found, err)
		}
	}
	// It does not keep the others from the archive.
	if err := s.Archive(); err != nil {
		t.Fatal(err)
	}
	if got := s.archivedKeys(t); !slices.Equal(got, []string{"login/0", "login/2"}) {
		t.Errorf("archived: %v", got)
	}

	size := (len(content) - segmentHeader) / 3
	for _, damaged := range []struct {
		content []byte
		sound   int
	}{
		{content, 3},
		{content[:len(content)-1], 2},
		{content[:segmentHeader+size+5], 1},
		{content[:segmentHeader-1], 0},
		{nil, 0},
		{make([]byte, len(content)), 0},
		{slices.Concat(content[:segmentHeader+size], []byte{1}, content[segmentHeader+size+1:]), 1},
		{append(bytes.Clone(content), make([]byte, 5000)...), 3},
	} {
		if err := os.WriteFile(whole+".claims0", damaged.content, 0o600); err != nil {
			t.Fatal(err)
		}
		s := storeAt(t, whole, time.Now)
		for i := range 3 {
			if _, found, err := s.Owner(t.Context(), ownership.Login, fmt.Sprint(i)); err != nil || found != (i < damaged.sound) {
				t.Errorf("%d bytes, claim %d: found %v, error %v, want %d", len(damaged.content), i, found, err, damaged.sound)
			}
		}
		s.made(t, "new", 1, "device", time.Hour)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(whole+".claims0", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(whole+".calls0", whole+".claims1"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(whole, Options{}); !errors.Is(err, errNoSegment) {
		t.Errorf("a segment of calls: error %v", err)
	}
}

// Claims that an earlier version stored are found, and are in nobody else's list, until they are released,
// which lasts.
func TestClaimsOfEarlierVersions(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	s := storeAt(t, path, time.Now)
	names := []string{"kept", "released"}
	err := s.db.Update(func(tx *bolt.Tx) error {
		x := &transaction{tx: tx, now: time.Now()}
		for _, key := range names {
			c := claim{token: ownership.Token{1}, ends: time.Now().Add(time.Hour).UnixNano(), serialNumber: "device-1", owner: []byte("owner")}
			if err := x.putClaim(&request{c, ownership.Login, key}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.listed(t, "device-1"); !slices.Equal(got, names) {
		t.Errorf("listed: %v", got)
	}
	for token, want := range map[byte]bool{1: true, 2: false} {
		if won, err := s.Claim(t.Context(), ownership.Login, ownership.Claim{Key: "kept", Token: ownership.Token{token}}, "device-2", time.Hour); err != nil || won != want {
			t.Errorf("token %d: %v, error %v", token, won, err)
		}
	}
	if err := s.Release(t.Context(), ownership.Login, "released", ownership.Token{1}, "device-1"); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		if got := s.listed(t, "device-1"); !slices.Equal(got, names[:1]) {
			t.Errorf("listed: %v", got)
		}
		if _, found, err := s.Owner(t.Context(), ownership.Login, "released"); err != nil || found {
			t.Errorf("released: found %v, error %v", found, err)
		}
	}
	check()
	s = storeAt(t, copyOf(t, path), time.Now)
	check()
	if err := s.Archive(); err != nil {
		t.Fatal(err)
	}
	check()
	if got := s.archivedKeys(t); !slices.Equal(got, []string{"login/kept"}) {
		t.Errorf("archived: %v", got)
	}
}

// A second process waits for the segments, also if the file of bbolt was moved aside.
func TestClaimsAreLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsapp.db")
	first, err := openClaims(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan error)
	go func() {
		second, err := openClaims(path, time.Now)
		if err == nil {
			err = second.close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Errorf("it did not wait, error %v", err)
	case <-time.After(2 * lockInterval):
	}
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

// A record that cannot be read does not keep the others from being archived, and its claim is refused, not
// taken for absent.
func TestUnreadableClaim(t *testing.T) {
	t.Parallel()
	s := storeAt(t, filepath.Join(t.TempDir(), "dsapp.db"), time.Now)
	s.made(t, "1", 1, "device-1", time.Hour)
	s.made(t, "2", 2, "device-2", time.Hour)
	_, p, _ := s.claims.last(claimDigest(claimKey(ownership.Login, "2")))
	if err := s.claims.pair[s.claims.active].file.Truncate(p.at); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Owner(t.Context(), ownership.Login, "2"); !errors.Is(err, ownership.ErrDamaged) {
		t.Errorf("error %v", err)
	}
	for range 2 {
		if err := s.Archive(); err != nil {
			t.Fatal(err)
		}
	}
	if keys := s.archivedKeys(t); !slices.Equal(keys, []string{"login/1"}) {
		t.Errorf("%q are archived", keys)
	}
}

// A claim that takes the place of an archived one that cannot be decoded is listed once.
func TestClaimAfterDamagedArchive(t *testing.T) {
	t.Parallel()
	s := storeAt(t, filepath.Join(t.TempDir(), "dsapp.db"), time.Now)
	s.made(t, "1", 1, "device-1", time.Hour)
	if err := s.Archive(); err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), ownership.Login, "1", ownership.Token{1}, "device-1"); err != nil {
		t.Fatal(err)
	}
	s.made(t, "1", 2, "device-1", 2*time.Hour)
	if err := s.db.Update(func(tx *bolt.Tx) error {
		return bucket(tx, bucketClaims).Put([]byte(claimKey(ownership.Login, "1")), []byte("damaged"))
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Archive(); err != nil {
		t.Fatal(err)
	}
	if listed := s.listed(t, "device-1"); !slices.Equal(listed, []string{"1"}) {
		t.Errorf("listed %q", listed)
	}
}
