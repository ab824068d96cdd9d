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
	// formatVersion is the layout of the buckets. Entries carry a version of
	// their own.
	formatVersion = 1
	// lockTimeout bounds the wait for another process that has the file open.
	lockTimeout = 5 * time.Second
)

// The buckets of the file.
const (
	// bucketMeta holds single values.
	bucketMeta = "meta"
	// bucketEntries holds every record under its identifier.
	bucketEntries = "registrations"
	// bucketRemovals holds an index key for every entry: its moment of removal
	// followed by its identifier. The value tells whether it is simulated.
	bucketRemovals = "removals"
	// bucketSimulated holds the same keys for simulated records only.
	bucketSimulated = "simulated"
	// bucketClaims holds every claim under its kind and key.
	bucketClaims = "claims"
	// bucketEnds holds an index key for every claim: its end followed by its kind
	// and key. The value is its place in bucketPending.
	bucketEnds = "ends"
	// bucketPending lists claims by device: kind and serial number, then the end,
	// then the key. It has no values.
	bucketPending = "pending"
)

// buckets are all of them. Files written before there were claims lack the last
// three.
func buckets() []string {
	return []string{bucketMeta, bucketEntries, bucketRemovals, bucketSimulated, bucketClaims, bucketEnds, bucketPending}
}

// The keys of bucketMeta.
const (
	keyFormat = "format"
	keySecret = "simulation secret"
	keyProbe  = "probe"
)

func bucket(tx *bolt.Tx, name string) *bolt.Bucket { return tx.Bucket([]byte(name)) }

// openFile opens or creates the file and its folder. Of a file that is there
// everything was read before it is opened for writing.
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
		// The file must not vanish from its folder in a power failure.
		return syncFolder(folder)
	})
}

// prepare checks the format of the file and makes the buckets that it lacks.
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

// checkFormat refuses what stands under keyFormat in files that are not for this
// program.
func checkFormat(value []byte) error {
	if len(value) != 4 {
		return errForeign
	}
	if v := binary.BigEndian.Uint32(value); v != formatVersion {
		return &FileError{fmt.Sprintf("the file has format %d, this program knows format %d: run the version that wrote it, or move the file aside", v, formatVersion)}
	}
	return nil
}

// secret returns the sealed simulation secret, nil if there is none.
func secret(tx *bolt.Tx) []byte {
	return bytes.Clone(bucket(tx, bucketMeta).Get([]byte(keySecret)))
}

// lookup returns the entry of identifier, nil if there is none or it is due for
// removal.
func lookup(tx *bolt.Tx, identifier string, now time.Time) (*entry, error) {
	b := bucket(tx, bucketEntries).Get([]byte(identifier))
	if b == nil {
		return nil, nil
	}
	e, err := readEntry(b)
	if err != nil || now.UnixNano() >= e.removal() {
		return nil, err
	}
	return e, nil
}

// transaction is a write transaction on the file at one moment.
type transaction struct {
	tx  *bolt.Tx
	now time.Time
	// changed counts the values written or deleted.
	changed int
	// simulated counts the simulated records.
	simulated, maxSimulated int
}

// entry returns the entry of identifier, nil if there is none.
func (t *transaction) entry(identifier string) (*entry, error) {
	return lookup(t.tx, identifier, t.now)
}

// put stores e under identifier. One simulated record more than the cap makes
// room for itself by the removal of those that end first.
func (t *transaction) put(identifier string, e *entry) error {
	if err := t.delete(identifier); err != nil {
		return err
	}
	t.changed++
	if err := bucket(t.tx, bucketEntries).Put([]byte(identifier), e.encode()); err != nil {
		return err
	}
	index := indexKey(identifier, e.removal())
	if !isSimulated(e) {
		return bucket(t.tx, bucketRemovals).Put(index, []byte{0})
	}
	t.simulated++
	for _, name := range []string{bucketRemovals, bucketSimulated} {
		if err := bucket(t.tx, name).Put(index, []byte{1}); err != nil {
			return err
		}
	}
	for range evictions {
		if t.simulated <= t.maxSimulated {
			break
		}
		first, _ := bucket(t.tx, bucketSimulated).Cursor().First()
		if err := t.drop(bytes.Clone(first)); err != nil {
			return err
		}
	}
	return nil
}

// delete removes the entry of identifier, due or not, if there is one.
func (t *transaction) delete(identifier string) error {
	b := bucket(t.tx, bucketEntries).Get([]byte(identifier))
	if b == nil {
		return nil
	}
	e, err := decode(b)
	if err != nil {
		return err
	}
	return t.drop(indexKey(identifier, e.removal()))
}

// drop removes the entry of an index key. It does not look at the entry, so that
// one that cannot be decoded goes too when its time has come.
func (t *transaction) drop(index []byte) error {
	t.changed++
	if bytes.Equal(bucket(t.tx, bucketRemovals).Get(index), []byte{1}) {
		t.simulated--
		if err := bucket(t.tx, bucketSimulated).Delete(index); err != nil {
			return err
		}
	}
	if err := bucket(t.tx, bucketRemovals).Delete(index); err != nil {
		return err
	}
	return bucket(t.tx, bucketEntries).Delete(index[indexPrefix:])
}

// expire removes up to limit entries and as many claims that are due, and reports
// whether there may be more.
func (t *transaction) expire(limit int) (bool, error) {
	var more bool
	for _, kind := range []struct {
		index string
		drop  func(index []byte) error
	}{{bucketRemovals, t.drop}, {bucketEnds, t.dropClaim}} {
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

// due returns up to limit keys of an index whose moment has come.
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

// set stores a value of bucketMeta.
func (t *transaction) set(key string, value []byte) error {
	t.changed++
	return bucket(t.tx, bucketMeta).Put([]byte(key), value)
}

// touch makes sure that the transaction is written though it changes nothing.
func (t *transaction) touch() error { return t.set(keyProbe, []byte{1}) }

// indexPrefix is the length of the moment at the front of an index key.
const indexPrefix = 8

// indexKey orders entries and claims by their moment of removal.
func indexKey(identifier string, removal int64) []byte {
	return append(appendMoment(nil, removal), identifier...)
}

// appendMoment appends a moment so that it sorts by time. It is never before 1970
// in the file: such a moment would sort behind all others.
func appendMoment(b []byte, moment int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(max(0, moment)))
}

// syncFolder makes new names in a folder durable, where folders can be synced.
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
