package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

const (
	// segmentMagic begins a segment. Its last digit is the version of the format.
	segmentMagic = "dsapp 1\n"
	// segmentHeader is the size of what precedes the records of a segment: the magic, and a
	// number that is greater than that of the other segment if this one was begun later.
	segmentHeader = len(segmentMagic) + 8
	// recordHeader is the size of what precedes a record: the CRC-32C of the rest, and the length
	// of the outcome. The digest, the end in nanoseconds of Unix time, the token and the outcome
	// follow.
	recordHeader = 8
	recordSize   = recordHeader + len(repeat.Digest{}) + 8 + len(repeat.Token{})
	// minSegment is the size from which on a segment can be full, and maxSegment the size that it
	// never exceeds. In fifths of that, markLimit is how far marks fill a segment, so that there is
	// room for the outcomes of calls that are marked, and limit how far everything else does. The
	// last fifth is for what moves from the other segment.
	minSegment = 1 << 20
	maxSegment = 128 << 20
	markLimit  = 3
	limit      = 4
	// turnInterval is the time between two attempts to fill the other segment.
	turnInterval = time.Second
	// lockInterval is the time between two attempts to lock a segment.
	lockInterval = 50 * time.Millisecond
)

var (
	// errCallsFull means that the segments have no room for another record.
	errCallsFull = errors.New("too many calls that may be repeated")
	errNoSegment = errors.New("the file does not hold calls that may be repeated: name another file for the store, or move this one aside")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// calls has the marks and outcomes of calls that may be repeated. They end within minutes, and each
// call writes two of them. A transaction of bbolt writes and syncs a dozen pages, so they are not in
// its file: two more files, the segments, get one record for each change, in one write, and memory
// has where it is. What a call has written survives the end of the process, but not always a power
// failure: a machine needs longer to start again than these entries live. Those that live longer have
// an outcome from the beginning, and are synced.
//
// One segment gets all new records. When it is full and most of the other one has ended, what has not
// moves to it, and the other one is emptied and gets the new records. Until then the segment grows, up
// to maxSegment. Then no call can be marked, and the calls are carried out as if there were no repeats.
type calls struct {
	now func() time.Time
	// min and max are minSegment and maxSegment.
	min, max int64

	mu       sync.Mutex
	segments [2]segment
	// active is the index of the segment that gets new records.
	active int
	// tried is when the other one was last to become it.
	tried  time.Time
	closed bool
	buffer []byte // for records
}

// segment is one of the files.
type segment struct {
	file   *os.File
	number uint64
	size   int64
	// ends is when the last of its entries ends, in nanoseconds of Unix time.
	ends int64
	// places has the last record of each digest. Its values have no pointers, so that the
	// garbage collector does not read it.
	places map[repeat.Digest]place
}

// place is where a record is, and what it says. A record without an end says that there is no entry
// any more.
type place struct {
	token repeat.Token
	ends  int64
	at    int64 // of the outcome
	size  int   // of the outcome
}

// openCalls opens the segments of the store at path. It waits for a Store that has them open although
// its file was moved aside. A record that was written in part, or is damaged, ends its segment.
func openCalls(path string, now func() time.Time) (_ *calls, err error) {
	c := &calls{now: now, min: minSegment, max: maxSegment}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	for i := range c.segments {
		name := fmt.Sprintf("%s.calls%d", path, i)
		s := &c.segments[i]
		if s.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return nil, err
		}
		// Until it is locked, another Store may write to it.
		if err = s.lock(); err == nil {
			err = s.read()
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if c.segments[1].number > c.segments[0].number {
		c.active = 1
	}
	return c, nil
}

// lock locks the file, which lockTimeout limits.
func (s *segment) lock() error {
	for end := time.Now().Add(lockTimeout); ; time.Sleep(lockInterval) {
		locked, err := lockFile(s.file)
		if err == nil && !locked && time.Now().After(end) {
			err = ErrLocked
		}
		if locked || err != nil {
			return err
		}
	}
}

// read reads the records of a segment and cuts off what is none.
func (s *segment) read() error {
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	content := make([]byte, min(info.Size(), maxSegment))
	if _, err := io.ReadFull(s.file, content); err != nil {
		return err
	}
	if err := s.load(content); err != nil {
		return err
	}
	if s.size == 0 {
		return s.empty(0)
	}
	return s.file.Truncate(s.size)
}

// load notes the records in the content of a segment. Its size is then where the next record is to be
// written, or 0 if the content is too short to have any.
func (s *segment) load(content []byte) error {
	s.places = map[repeat.Digest]place{}
	// After a power failure, the file can have its size and not its content.
	if len(content) < segmentHeader || len(bytes.Trim(content[:segmentHeader], "\x00")) == 0 {
		return nil
	}
	if string(content[:len(segmentMagic)]) != segmentMagic {
		return errNoSegment
	}
	s.number, s.size = binary.BigEndian.Uint64(content[len(segmentMagic):]), int64(segmentHeader)
	for {
		d, p, ok := s.decode(content[s.size:])
		if !ok {
			return nil
		}
		s.put(d, p)
	}
}

// decode decodes the record at the beginning of b, which is where the next record is to be written.
func (s *segment) decode(b []byte) (d repeat.Digest, p place, ok bool) {
	if len(b) < recordSize {
		return d, p, false
	}
	size := binary.BigEndian.Uint32(b[4:])
	if uint64(size) > uint64(len(b)-recordSize) {
		return d, p, false
	}
	p.size = int(size)
	if crc32.Checksum(b[4:recordSize+p.size], castagnoli) != binary.BigEndian.Uint32(b) {
		return d, p, false
	}
	r := reader{rest: b[recordHeader:]}
	copy(d[:], r.take(len(d)))
	p.ends, p.at = int64(r.uint64()), s.size+int64(recordSize)
	copy(p.token[:], r.take(len(p.token)))
	return d, p, true
}

// put notes a record that was written.
func (s *segment) put(d repeat.Digest, p place) {
	s.places[d] = p
	s.size, s.ends = p.at+int64(p.size), max(s.ends, p.ends)
}

// empty begins a segment anew.
func (s *segment) empty(number uint64) error {
	s.number, s.size, s.ends = number, 0, 0
	clear(s.places)
	if err := s.file.Truncate(0); err != nil {
		return err
	}
	if _, err := s.file.WriteAt(binary.BigEndian.AppendUint64([]byte(segmentMagic), number), 0); err != nil {
		return err
	}
	s.size = int64(segmentHeader)
	return nil
}

// adopt takes over what earlier versions have stored in the file of bbolt, as far as it can.
func (c *calls) adopt(tx *bolt.Tx) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	repeats, ends := bucket(tx, bucketRepeats), bucket(tx, bucketRepeatEnds).Cursor()
	for index, _ := ends.Seek(appendMoment(nil, now.UnixNano())); index != nil; index, _ = ends.Next() {
		if len(index) != indexPrefix+len(repeat.Digest{}) {
			continue
		}
		d := repeat.Digest(index[indexPrefix:])
		kept, err := decodeKept(repeats.Get(d[:]))
		if _, _, known := c.last(d); known || err != nil {
			continue
		}
		if c.write(d, place{token: kept.Token, ends: kept.ends}, kept.Outcome, now, limit) != nil {
			break
		}
	}
	return nil
}

// last returns the last record of a digest with its segment, and whether there is one. The caller
// holds mu.
func (c *calls) last(d repeat.Digest) (*segment, place, bool) {
	for _, i := range []int{c.active, 1 - c.active} {
		if p, known := c.segments[i].places[d]; known {
			return &c.segments[i], p, true
		}
	}
	return nil, place{}, false
}

// find returns the entry of a digest, and whether there is one that has not ended. The caller holds
// mu.
func (c *calls) find(d repeat.Digest, now time.Time) (s *segment, p place, found bool) {
	s, p, known := c.last(d)
	return s, p, known && now.UnixNano() < p.ends
}

// kept returns the entry of a digest, and whether there is one.
func (c *calls) kept(d repeat.Digest) (repeat.Entry, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.entry(d, c.now())
}

// entry is kept for callers that hold mu.
func (c *calls) entry(d repeat.Digest, now time.Time) (repeat.Entry, bool, error) {
	if c.closed {
		return repeat.Entry{}, false, errClosed
	}
	s, p, found := c.find(d, now)
	if !found {
		return repeat.Entry{}, false, nil
	}
	e := repeat.Entry{Token: p.token}
	if p.size == 0 {
		return e, true, nil
	}
	// What cannot be read is found when the outcome is opened: the call was carried out, so that it
	// must not count as a new one.
	e.Outcome = make([]byte, p.size)
	_, _ = s.file.ReadAt(e.Outcome, p.at)
	return e, true, nil
}

// mark returns the entry of the digest of m, or stores m if there is none.
func (c *calls) mark(m repeat.Mark) (repeat.Entry, bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	e, found, err := c.entry(m.Digest, now)
	if err != nil || found {
		return e, found, err
	}
	return repeat.Entry{}, false, c.write(m.Digest, place{token: m.Token, ends: now.Add(m.Lifetime).UnixNano()}, m.Outcome, now, markLimit)
}

// keep stores the outcome of the call with the token of m, unless there is an entry of another.
func (c *calls) keep(m repeat.Mark, outcome []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if _, p, found := c.find(m.Digest, now); found && p.token != m.Token {
		return nil
	}
	return c.write(m.Digest, place{token: m.Token, ends: now.Add(m.Lifetime).UnixNano()}, outcome, now, limit)
}

// forget removes the entry of a digest if it has that token.
func (c *calls) forget(d repeat.Digest, token repeat.Token) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if _, p, found := c.find(d, now); !found || p.token != token {
		return nil
	}
	return c.write(d, place{token: token}, nil, now, limit)
}

// write appends a record unless the active segment is filled up to so many fifths. If that segment is
// full, it tries to turn. If that fails, the segment is written further, and the next attempt comes
// after turnInterval. The caller holds mu.
func (c *calls) write(d repeat.Digest, p place, outcome []byte, now time.Time, fifths int64) error {
	if c.closed {
		return errClosed
	}
	if c.segments[c.active].size >= c.min && now.Sub(c.tried).Abs() >= turnInterval {
		c.tried = now
		_ = c.turn(now)
	}
	if c.segments[c.active].size+int64(recordSize+len(outcome)) > c.max/5*fifths {
		return errCallsFull
	}
	return c.append(d, p, outcome)
}

// sync makes durable what was written.
func (c *calls) sync() error {
	// Both, since the segment that was written may have become the other one.
	return errors.Join(c.segments[0].file.Sync(), c.segments[1].file.Sync())
}

// turn empties the other segment, which gets the records from then on. What has not ended there moves
// first, unless it is much.
func (c *calls) turn(now time.Time) error {
	s, other := &c.segments[c.active], &c.segments[1-c.active]
	var live []repeat.Digest
	var size int64
	if now.UnixNano() < other.ends {
		for d, p := range other.places {
			if _, newer := s.places[d]; !newer && now.UnixNano() < p.ends {
				live, size = append(live, d), size+int64(recordSize+p.size)
			}
		}
	}
	if size > s.size/4 {
		return nil
	}
	for _, d := range live {
		p := other.places[d]
		outcome := make([]byte, p.size)
		if _, err := other.file.ReadAt(outcome, p.at); err != nil {
			return err
		}
		if err := c.append(d, p, outcome); err != nil {
			return err
		}
	}
	if len(live) > 0 {
		// What was durable stays so.
		if err := s.file.Sync(); err != nil {
			return err
		}
	}
	if err := other.empty(s.number + 1); err != nil {
		return err
	}
	c.active = 1 - c.active
	return nil
}

// append appends a record to the active segment.
func (c *calls) append(d repeat.Digest, p place, outcome []byte) error {
	s := &c.segments[c.active]
	b := binary.BigEndian.AppendUint32(append(c.buffer[:0], 0, 0, 0, 0), uint32(len(outcome)))
	b = append(b, d[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.ends))
	b = append(append(b, p.token[:]...), outcome...)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	c.buffer = b
	// What a write leaves that fails is written over by the next one.
	if _, err := s.file.WriteAt(b, s.size); err != nil {
		return err
	}
	p.at, p.size = s.size+int64(recordSize), len(outcome)
	s.put(d, p)
	return nil
}

// close closes the files.
func (c *calls) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for _, s := range c.segments {
		if s.file != nil {
			errs = append(errs, s.file.Close())
		}
	}
	return errors.Join(errs...)
}
