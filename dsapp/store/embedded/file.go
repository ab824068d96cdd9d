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

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

const (
	// formatVersion is the version of the layout of the buckets. Entries, parts and claims have
	// versions of their own. A file of inlineFormat gets the present format when it is opened; its
	// entries stay as they are until they change or end.
	formatVersion = 2
	inlineFormat  = 1
	// lockTimeout is how long Open waits for another process that has the file open.
	lockTimeout = 5 * time.Second
)

// The buckets of the file.
const (
	// bucketMeta holds single values.
	bucketMeta = "meta"
	// bucketEntries holds every entry. The key is its identifier.
	bucketEntries = "registrations"
	// bucketSealed has the parts of every entry that is not simulated, under an index key: the
	// time of its removal and its identifier. New ones come last and the first are removed
	// first, so that both concern few pages. The parts of an entry that was removed before its
	// time may still be there.
	bucketSealed = "sealed"
	// bucketSimulated has an index key for every simulated entry.
	bucketSimulated = "simulated"
	// bucketRemovals has an index key for every entry of inlineVersion.
	bucketRemovals = "removals"
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

// buckets returns the names of all buckets. Files of earlier versions lack some of them.
func buckets() []string {
	return []string{bucketMeta, bucketEntries, bucketSealed, bucketSimulated, bucketRemovals, bucketClaims, bucketEnds, bucketPending, bucketRepeats, bucketRepeatEnds}
}

// The keys of bucketMeta.
const (
	keyFormat = "format"
	keySecret = "simulation secret"
	keyProbe  = "probe"
)

func bucket(tx *bolt.Tx, name string) *bolt.Bucket { return tx.Bucket([]byte(name)) }

// openFile opens or creates the file and its folder, and returns what it holds. It reads an
// existing file completely before it opens it for writing.
func openFile(path string) (*bolt.DB, *os.File, Contents, error) {
	var found counter
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, nil, Contents{}, err
	}
	size, err := verify(path, lockTimeout, false, found.visit)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return nil, nil, Contents{}, err
	}
	db, file, err := openBolt(path, bolt.Options{Timeout: lockTimeout, FreelistType: bolt.FreelistArrayType}, func(db *bolt.DB, _ *os.File) error {
		if err := prepare(db); err != nil || !fresh {
			return err
		}
		// Without this, the new file could be gone from its folder after a power failure.
		return syncFolder(folder)
	})
	return db, file, found.contents(size), err
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
		format, err := checkFormat(meta.Get([]byte(keyFormat)))
		if err != nil {
			return err
		}
		complete = format == formatVersion
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

// checkFormat returns the number in a value of keyFormat. It returns an error for a format that
// this program does not support.
func checkFormat(value []byte) (uint32, error) {
	if len(value) != 4 {
		return 0, errForeign
	}
	v := binary.BigEndian.Uint32(value)
	if v != formatVersion && v != inlineFormat {
		return 0, &FileError{fmt.Sprintf("the file has format %d, this program knows formats %d and %d: run the version that wrote it, or move the file aside",
			v, inlineFormat, formatVersion)}
	}
	return v, nil
}

// secret returns the sealed simulation secret, or nil if there is none.
func secret(tx *bolt.Tx) []byte {
	return bytes.Clone(bucket(tx, bucketMeta).Get([]byte(keySecret)))
}

// lookup returns the entry of identifier, without parts that are stored apart, or nil if there is
// none or it counts as removed.
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

// lookupWhole is lookup with the parts.
func lookupWhole(tx *bolt.Tx, identifier string, now time.Time) (*entry, error) {
	e, err := lookup(tx, identifier, now)
	if err != nil || e == nil || e.inline || isSimulated(e) {
		return e, err
	}
	p, g, err := decodeParts(bucket(tx, bucketSealed).Get(indexKey(identifier, e.removeAt())))
	if err == nil && g != e.generation {
		err = errCorrupt
	}
	if err != nil {
		return nil, err
	}
	e.parts = p
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
	// needsPages says that the pages of what has ended are needed: see Store.needsPages.
	needsPages bool
}

// entry returns the entry of identifier, or nil if there is none.
func (t *transaction) entry(identifier string) (*entry, error) {
	return lookup(t.tx, identifier, t.now)
}

// whole is entry with the parts.
func (t *transaction) whole(identifier string) (*entry, error) {
	return lookupWhole(t.tx, identifier, t.now)
}

// stored returns the entry of identifier, expired or not, or nil if there is none.
func (t *transaction) stored(identifier string) (*entry, error) {
	b := bucket(t.tx, bucketEntries).Get([]byte(identifier))
	if b == nil {
		return nil, nil
	}
	return decodeEntry(b)
}

// put stores e under identifier. It stores the parts only if they are new, or if e was burned, which
// changes the time of the removal; e needs them then. If there are more simulated entries than
// maxSimulated after it, those that end first are removed.
func (t *transaction) put(identifier string, e *entry) error {
	before, err := t.stored(identifier)
	if err != nil {
		return err
	}
	t.changed++
	if before == nil || before.inline || before.generation != e.generation || before.removeAt() != e.removeAt() {
		if before != nil {
			if err := t.unlist(identifier, before); err != nil {
				return err
			}
		}
		if err := t.list(identifier, e); err != nil {
			return err
		}
	}
	if err := bucket(t.tx, bucketEntries).Put([]byte(identifier), e.encode()); err != nil {
		return err
	}
	for range maxEvictions {
		if t.simulated <= t.maxSimulated {
			break
		}
		first, _ := bucket(t.tx, bucketSimulated).Cursor().First()
		if err := t.dropEntry(bucketSimulated, bytes.Clone(first)); err != nil {
			return err
		}
	}
	return nil
}

// list adds an entry to its index.
func (t *transaction) list(identifier string, e *entry) error {
	index := indexKey(identifier, e.removeAt())
	if isSimulated(e) {
		t.simulated++
		return bucket(t.tx, bucketSimulated).Put(index, []byte{1})
	}
	t.registrations++
	sealed := bucket(t.tx, bucketSealed)
	// New ones come last: pages that are full are not written again.
	sealed.FillPercent = 1
	return sealed.Put(index, e.parts.encode(e.generation))
}

// unlist removes an entry from its indexes.
func (t *transaction) unlist(identifier string, e *entry) error {
	index := indexKey(identifier, e.removeAt())
	t.uncount(e)
	for name, listed := range map[string]bool{bucketSimulated: isSimulated(e), bucketRemovals: e.inline, bucketSealed: !isSimulated(e) && !e.inline} {
		if !listed {
			continue
		}
		if err := bucket(t.tx, name).Delete(index); err != nil {
			return err
		}
	}
	return nil
}

// uncount counts an entry less.
func (t *transaction) uncount(e *entry) {
	if isSimulated(e) {
		t.simulated--
	} else {
		t.registrations--
	}
}

// delete removes the entry of identifier, if there is one, expired or not. Its parts may stay until
// their time comes.
func (t *transaction) delete(identifier string) error {
	e, err := t.stored(identifier)
	if err != nil || e == nil {
		return err
	}
	t.changed++
	if t.needsPages || e.inline || isSimulated(e) {
		err = t.unlist(identifier, e)
	} else {
		t.uncount(e)
	}
	if err != nil {
		return err
	}
	return bucket(t.tx, bucketEntries).Delete([]byte(identifier))
}

// dropEntry removes an index key whose time has come, and the entry that it is for. An entry that
// cannot be decoded is removed as well: it is refused until then.
func (t *transaction) dropEntry(name string, index []byte) error {
	t.changed++
	identifier := string(index[indexPrefix:])
	e, err := t.stored(identifier)
	if err != nil {
		e = &entry{}
		if name == bucketSimulated {
			e.kind = activation.KindSimulated
		}
	}
	if err != nil || e != nil && bytes.Equal(indexKey(identifier, e.removeAt()), index) {
		t.uncount(e)
		if err := bucket(t.tx, bucketEntries).Delete([]byte(identifier)); err != nil {
			return err
		}
	}
	return bucket(t.tx, name).Delete(index)
}

// expire removes up to limit entries, claims and kept outcomes that have expired, if their pages
// are needed, and reports whether there may be more.
func (t *transaction) expire(limit int) (bool, error) {
	if !t.needsPages {
		return false, nil
	}
	var more bool
	for _, name := range []string{bucketSealed, bucketSimulated, bucketRemovals, bucketEnds, bucketRepeatEnds} {
		due := t.due(name, limit)
		for _, index := range due {
			var err error
			switch name {
			case bucketEnds:
				err = t.dropClaim(index)
			case bucketRepeatEnds:
				err = t.dropRepeat(index)
			default:
				err = t.dropEntry(name, index)
			}
			if err != nil {
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
