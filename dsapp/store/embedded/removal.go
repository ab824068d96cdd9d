package embedded

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

const (
	// callsPerStep is how many calls that write share a step of the removal.
	callsPerStep = 4
	// scanned is how many keys a step looks at, of which it removes those that have ended.
	scanned = 64
	// indexed is how many keys of an index a step removes at most. scattered is the same for an
	// index whose keys have a value each on a page of its own.
	indexed, scattered = 32, 4
	// partsMargin is how long parts stay after their time. A call that took the time a moment ago,
	// or a clock that is set back a little, must not find an entry without its parts.
	partsMargin = time.Minute
)

// removal is how far the removal of what has ended has come. Only the goroutine of the write
// transaction uses it.
//
// A transaction writes every page anew in which it removes something. A step therefore removes
// neighbours: in one turn the first keys of an index, in the next those values of a bucket that
// have ended among keys that follow each other.
type removal struct {
	// owed is the number of calls since the last step.
	owed int
	// scan says that the next step looks at values.
	scan bool
	// scanning is the element of scans whose turn it is, and next is the key at which it goes on.
	scanning int
	next     []byte
	// found says that something was removed since the scans began with the first element, and
	// done that nothing was when they did so last.
	found, done bool
}

// scans are the buckets whose values say when they end.
var scans = []struct {
	bucket string
	ended  func(t *transaction, key, value []byte) bool
	remove func(t *transaction, key []byte) error
}{
	{bucketEntries, (*transaction).entryEnded, (*transaction).removeEntry},
	// A device's list must never have a claim of another device. It would if a claim was gone, its
	// place in the list was not, and then another device made the same claim.
	{bucketPending, (*transaction).pendingEnded, nil},
	{bucketClaims, (*transaction).claimEnded, nil},
	{bucketRepeats, (*transaction).repeatEnded, nil},
}

// indexes are the buckets with index keys. What a key is for is usually left to a scan. It is removed
// with the key if it cannot be decoded: it is refused until then.
var indexes = []struct {
	bucket string
	limit  int
	margin time.Duration
	// kept reports whether a key must stay for now.
	kept   func(t *transaction, value []byte) bool
	remove func(t *transaction, index []byte) error
}{
	{bucketSealed, indexed, partsMargin, nil, (*transaction).removeParts},
	{bucketSimulated, scattered, 0, nil, func(t *transaction, index []byte) error { return t.dropEntry(bucketSimulated, index) }},
	{bucketRemovals, scattered, 0, nil, func(t *transaction, index []byte) error { return t.dropEntry(bucketRemovals, index) }},
	{bucketEnds, indexed, 0, (*transaction).listed, (*transaction).removeEnd},
	{bucketRepeatEnds, indexed, 0, nil, (*transaction).removeRepeatEnd},
}

// expire removes some of what has ended, if its pages are needed.
func (t *transaction) expire(calls int) error {
	r := t.removal
	r.owed += calls
	for ; r.owed >= callsPerStep; r.owed -= callsPerStep {
		if !t.needsPages {
			continue
		}
		if err := t.step(); err != nil {
			return err
		}
	}
	return nil
}

// step makes a step of the removal.
func (t *transaction) step() error {
	r, before := t.removal, t.changed
	r.scan = !r.scan
	remove := t.removeFirst
	if r.scan {
		remove = t.removeScanned
	}
	err := remove()
	r.found = r.found || t.changed != before
	return err
}

// removeScanned removes what has ended among the next keys of the scans.
func (t *transaction) removeScanned() error {
	r := t.removal
	s := scans[r.scanning]
	values := bucket(t.tx, s.bucket)
	var ended [][]byte
	c := values.Cursor()
	k, v := c.Seek(r.next)
	for i := 0; k != nil && i < scanned; i++ {
		if s.ended(t, k, v) {
			ended = append(ended, bytes.Clone(k))
		}
		k, v = c.Next()
	}
	r.next = bytes.Clone(k)
	if k == nil {
		r.scanning = (r.scanning + 1) % len(scans)
	}
	for _, key := range ended {
		t.changed++
		if s.remove != nil {
			if err := s.remove(t, key); err != nil {
				return err
			}
		}
		if err := values.Delete(key); err != nil {
			return err
		}
	}
	if k == nil && r.scanning == 0 {
		r.done, r.found = !r.found && len(ended) == 0, false
	}
	return nil
}

// removeFirst removes the first keys of the index whose first key ended first.
func (t *transaction) removeFirst() error {
	next := -1
	var first []byte
	for i, x := range indexes {
		k, v := bucket(t.tx, x.bucket).Cursor().First()
		if t.due(k, x.margin) && (first == nil || bytes.Compare(k, first) < 0) && (x.kept == nil || !x.kept(t, v)) {
			next, first = i, k
		}
	}
	if next < 0 {
		return nil
	}
	x := indexes[next]
	var due [][]byte
	c := bucket(t.tx, x.bucket).Cursor()
	for k, v := c.First(); t.due(k, x.margin) && len(due) < x.limit && (x.kept == nil || !x.kept(t, v)); k, v = c.Next() {
		due = append(due, bytes.Clone(k))
	}
	for _, index := range due {
		if err := x.remove(t, index); err != nil {
			return err
		}
	}
	return nil
}

// due reports whether the time of an index key came so long ago.
func (t *transaction) due(index []byte, margin time.Duration) bool {
	return len(index) >= indexPrefix && int64(binary.BigEndian.Uint64(index)) <= t.now.Add(-margin).UnixNano()
}

func (t *transaction) entryEnded(_, value []byte) bool {
	e, err := decodeEntry(value)
	return err == nil && e.removeAt() > 0 && t.now.UnixNano() >= e.removeAt()
}

// removeEntry removes what belongs to an entry, except parts, whose time has come as well.
func (t *transaction) removeEntry(key []byte) error {
	e, err := t.stored(string(key))
	if err == nil {
		err = t.dropAnswer(string(key))
	}
	if err != nil {
		return err
	}
	if e.inline || isSimulated(e) {
		return t.unlist(string(key), e)
	}
	t.uncount(e)
	return nil
}

func (t *transaction) removeParts(index []byte) error {
	if _, err := t.stored(string(index[indexPrefix:])); err != nil {
		return t.dropEntry(bucketSealed, index)
	}
	t.changed++
	return bucket(t.tx, bucketSealed).Delete(index)
}

func (t *transaction) claimEnded(key, value []byte) bool {
	c, err := decodeClaim(value)
	if err != nil || c.live(t.now) {
		return false
	}
	kind, name, _ := bytes.Cut(key, []byte("/"))
	pending := append(appendMoment(deviceKey(ownership.Kind(kind), c.serialNumber), c.ends), name...)
	return !t.listed(pending)
}

// listed reports whether there is a key in bucketPending.
func (t *transaction) listed(pending []byte) bool {
	k, _ := bucket(t.tx, bucketPending).Cursor().Seek(pending)
	return len(pending) > 0 && bytes.Equal(k, pending)
}

func (t *transaction) removeEnd(index []byte) error {
	value := bucket(t.tx, bucketClaims).Get(index[indexPrefix:])
	if _, err := decodeClaim(value); value != nil && err != nil {
		return t.dropClaim(index)
	}
	t.changed++
	return bucket(t.tx, bucketEnds).Delete(index)
}

// pendingEnded finds the end in a key: see deviceKey. It follows the serial number.
func (t *transaction) pendingEnded(key, _ []byte) bool {
	_, rest, _ := bytes.Cut(key, []byte("/"))
	r := reader{rest: rest}
	n := r.take(2)
	if r.bad {
		return false
	}
	r.take(int(binary.BigEndian.Uint16(n)))
	return t.due(r.rest, 0)
}

func (t *transaction) repeatEnded(_, value []byte) bool {
	kept, err := decodeKept(value)
	return err == nil && t.now.UnixNano() >= kept.ends
}

func (t *transaction) removeRepeatEnd(index []byte) error {
	value := bucket(t.tx, bucketRepeats).Get(index[indexPrefix:])
	if _, err := decodeKept(value); value != nil && err != nil {
		return t.dropRepeat(index)
	}
	t.changed++
	return bucket(t.tx, bucketRepeatEnds).Delete(index)
}
