package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// formatVersion is the version of the layout of the buckets. Entries and claims have
	// versions of their own.
	formatVersion = 1
	// lockTimeout is how long Open waits for another process that has the file open.
	lockTimeout = 5 * time.Second
)

// The buckets of the file.
const (
	// bucketMeta holds single values.
	bucketMeta = "meta"
	// bucketEntries holds every entry. The key is its identifier.
	bucketEntries = "registrations"
	// bucketRemovals has an index key for every entry: the time of its removal and its
	// identifier. The value is 1 for a simulated entry, else 0.
	bucketRemovals = "removals"
	// bucketSimulated has the index keys of simulated entries only.
	bucketSimulated = "simulated"
	// bucketClaims holds every claim. The key is its kind and the key of its request.
	bucketClaims = "claims"
	// bucketEnds has an index key for every claim: its end and its key in bucketClaims.
	// The value is its key in bucketPending.
	bucketEnds = "ends"
	// bucketPending has the lists of the devices. A key consists of kind and serial
	// number, the end of the claim and the key of its request. The values are empty.
	bucketPending = "pending"
	// bucketRepeats holds what is kept about calls that may be repeated. The key is the
	// digest of the call.
	bucketRepeats = "repeats"
	// bucketRepeatEnds has an index key for every key of bucketRepeats.
	bucketRepeatEnds = "repeat_ends"
)

// buckets returns the names of all buckets. Files of early versions lack those after
// bucketSimulated.
func buckets() []string {
	return []string{bucketMeta, bucketEntries, bucketRemovals, bucketSimulated, bucketClaims, bucketEnds, bucketPending, bucketRepeats, bucketRepeatEnds}
}

// The keys of bucketMeta.
const (
	keyFormat = "format"
	keySecret = "simulation secret"
	keyProbe  = "probe"
)

func bucket(tx *bolt.Tx, name string) *bolt.Bucket { return tx.Bucket([]byte(name)) }

// openFile opens or creates the file and its folder. It reads an existing file completely
// before it opens it for writing.
func openFile(path string) (*bolt.DB, *os.File, error) {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, nil, err
	}
	_, err := verify(path, lockTimeout, func(string, []byte, []byte) {})
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return nil, nil, err
	}
	return openBolt(path, bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistMapType}, func(db *bolt.DB, _ *os.File) error {
		if err := prepare(db); err != nil || !fresh {
			return err
		}
		// Without this, the new file could be gone from its folder after a power failure.
		return syncFolder(folder)
	})
}

// prepare checks the format of the file and creates missing buckets.
func prepare(db *bolt.DB) error {
	complete := true
	err := db.View(func(tx *bolt.Tx) error {
		if name, _ := tx.Cursor().First(); name == nil {
			complete = false
			return nil
		}
		meta := bucket(tx, bucketMeta)
		if meta == nil {
			return errForeign
		}
		if err := checkFormat(meta.Get([]byte(keyFormat))); err != nil {
			return err
		}
		for _, name := range buckets() {
			complete = complete && bucket(tx, name) != nil
		}
		return nil
	})
	if err != nil || complete {
		return err
	}
	return db.Update(func(tx *bolt.Tx) error {
		for _, name := range buckets() {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		return bucket(tx, bucketMeta).Put([]byte(keyFormat), binary.BigEndian.AppendUint32(nil, formatVersion))
	})
}

// checkFormat returns an error for a value of keyFormat that this program does not support.
func checkFormat(value []byte) error {
	if len(value) != 4 {
		return errForeign
	}
	if v := binary.BigEndian.Uint32(value); v != formatVersion {
		return &FileError{fmt.Sprintf("the file has format %d, this program knows format %d: run the version that wrote it, or move the file aside", v, formatVersion)}
	}
	return nil
}

// secret returns the sealed simulation secret, or nil if there is none.
func secret(tx *bolt.Tx) []byte {
	return bytes.Clone(bucket(tx, bucketMeta).Get([]byte(keySecret)))
}

// lookup returns the entry of identifier, or nil if there is none or it counts as removed.
func lookup(tx *bolt.Tx, identifier string, now time.Time) (*entry, error) {
	b := bucket(tx, bucketEntries).Get([]byte(identifier))
	if b == nil {
		return nil, nil
	}
	e, err := readEntry(b)
	if err != nil || now.UnixNano() >= e.removeAt() {
		return nil, err
	}
	return e, nil
}

// transaction is a write transaction.
type transaction struct {
	tx  *bolt.Tx
	now time.Time
	// changed counts the changes.
	changed int
	// simulated is the number of simulated entries.
	simulated, maxSimulated int
	// registrations is by how much the number of other entries has changed.
	registrations int
}

// entry returns the entry of identifier, or nil if there is none.
func (t *transaction) entry(identifier string) (*entry, error) {
	return lookup(t.tx, identifier, t.now)
}

// put stores e under identifier. If that makes more simulated entries than maxSimulated, it
// removes those that end first.
func (t *transaction) put(identifier string, e *entry) error {
	if err := t.delete(identifier); err != nil {
		return err
	}
	t.changed++
	if err := bucket(t.tx, bucketEntries).Put([]byte(identifier), e.encode()); err != nil {
		return err
	}
	index := indexKey(identifier, e.removeAt())
	if !isSimulated(e) {
		t.registrations++
		return bucket(t.tx, bucketRemovals).Put(index, []byte{0})
	}
	t.simulated++
	for _, name := range []string{bucketRemovals, bucketSimulated} {
		if err := bucket(t.tx, name).Put(index, []byte{1}); err != nil {
			return err
		}
	}
	for range maxEvictions {
		if t.simulated <= t.maxSimulated {
			break
		}
		first, _ := bucket(t.tx, bucketSimulated).Cursor().First()
		if err := t.dropEntry(bytes.Clone(first)); err != nil {
			return err
		}
	}
	return nil
}

// delete removes the entry of identifier, if there is one, expired or not.
func (t *transaction) delete(identifier string) error {
	b := bucket(t.tx, bucketEntries).Get([]byte(identifier))
	if b == nil {
		return nil
	}
	e, err := decodeEntry(b)
	if err != nil {
		return err
	}
	return t.dropEntry(indexKey(identifier, e.removeAt()))
}

// dropEntry removes the entry with a key of bucketRemovals. It does not decode the entry, so
// that a damaged one is removed as well when its lifetime has ended.
func (t *transaction) dropEntry(index []byte) error {
	t.changed++
	if bytes.Equal(bucket(t.tx, bucketRemovals).Get(index), []byte{1}) {
		t.simulated--
		if err := bucket(t.tx, bucketSimulated).Delete(index); err != nil {
			return err
		}
	} else {
		t.registrations--
	}
	if err := bucket(t.tx, bucketRemovals).Delete(index); err != nil {
		return err
	}
	return bucket(t.tx, bucketEntries).Delete(index[indexPrefix:])
}

// expire removes up to limit entries, claims and kept outcomes that have expired, and reports
// whether there may be more.
func (t *transaction) expire(limit int) (bool, error) {
	var more bool
	for _, kind := range []struct {
		index string
		drop  func(index []byte) error
	}{{bucketRemovals, t.dropEntry}, {bucketEnds, t.dropClaim}, {bucketRepeatEnds, t.dropRepeat}} {
		due := t.due(kind.index, limit)
		for _, index := range due {
			if err := kind.drop(index); err != nil {
				return false, err
			}
		}
		more = more || len(due) == limit
	}
	return more, nil
}

// due returns up to limit keys of an index whose time has come.
func (t *transaction) due(index string, limit int) [][]byte {
	var due [][]byte
	c := bucket(t.tx, index).Cursor()
	for k, _ := c.First(); k != nil && len(due) < limit; k, _ = c.Next() {
		if int64(binary.BigEndian.Uint64(k)) > t.now.UnixNano() {
			break
		}
		due = append(due, bytes.Clone(k))
	}
	return due
}

// setMeta stores a value in bucketMeta.
func (t *transaction) setMeta(key string, value []byte) error {
	t.changed++
	return bucket(t.tx, bucketMeta).Put([]byte(key), value)
}

// touch changes something, so that the transaction is written.
func (t *transaction) touch() error { return t.setMeta(keyProbe, []byte{1}) }

// indexPrefix is the length of the time at the beginning of an index key.
const indexPrefix = 8

// indexKey returns the index key of an entry or claim, which sorts by the time of its removal.
func indexKey(identifier string, removal int64) []byte {
	return append(appendMoment(nil, removal), identifier...)
}

// appendMoment appends a time in nanoseconds so that keys sort by it. Times before 1970 would
// sort last and are written as 0.
func appendMoment(b []byte, moment int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(max(0, moment)))
}

// syncFolder makes new names in a folder durable. On Windows folders cannot be synced.
func syncFolder(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
