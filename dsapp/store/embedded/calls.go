package embedded

import (
	"errors"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

const (
	// callsMagic begins a segment of calls. Its last digit is the version of the format.
	callsMagic = "dsapp 1\n"
	// markLimit is how far marks fill a segment, in fifths of its greatest size, so that there is room
	// for the outcomes of calls that are marked, and limit how far everything else does. The last fifth
	// is for what moves from the other segment.
	markLimit = 3
	limit     = 4
	// turnInterval is the time between two attempts to fill the other segment.
	turnInterval = time.Second
)

// errCallsFull means that the segments have no room for another record.
var errCallsFull = errors.New("too many calls that may be repeated")

// calls has the marks and outcomes of calls that may be repeated. They end within minutes, and each
// call writes two of them. A transaction of bbolt writes and syncs a dozen pages, so they are not in
// its file, but in segments: the value of a record is the outcome. What a call has written survives the
// end of the process, but not always a power failure: a machine needs longer to start again than these
// entries live. Those that live longer have an outcome from the beginning, and are synced.
//
// When the active segment is full and most of the other one has ended, what has not moves to it, and the
// other one is emptied and gets the new records. Until then the segment grows, up to its greatest size.
// Then no call can be marked, and the calls are carried out as if there were no repeats.
type calls struct {
	now func() time.Time
	// min is minSegment.
	min int64

	mu sync.Mutex
	segments
	// tried is when the other segment was last to become the active one, and next the size of the active
	// one from which on it is to be tried again.
	tried time.Time
	next  int64
}

// openCalls opens the segments of the store at path.
func openCalls(path string, now func() time.Time) (*calls, error) {
	s, err := openSegments(path+".calls", callsMagic)
	if err != nil {
		return nil, err
	}
	return &calls{now: now, min: minSegment, segments: s}, nil
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

// find returns the entry of a digest, and whether there is one that has not ended. The caller holds
// mu.
func (c *calls) find(d repeat.Digest, now time.Time) (s *segment, p place, found bool) {
	s, p, known := c.last(d)
	return s, p, known && !p.ended(now)
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
	size := c.pair[c.active].size
	due := size >= c.next || !c.fits(len(outcome), fifths)
	if size >= c.min && due && now.Sub(c.tried).Abs() >= turnInterval {
		// An attempt goes through the index of the other segment. There are few of them while the
		// segment grows.
		c.tried, c.next = now, size+size/4
		_ = c.turn(now)
	}
	if !c.fits(len(outcome), fifths) {
		return errCallsFull
	}
	return c.append(d, p, outcome)
}

// sync makes durable what was written.
func (c *calls) sync() error {
	// Both, since the segment that was written may have become the other one.
	return errors.Join(c.pair[0].file.Sync(), c.pair[1].file.Sync())
}

// turn empties the other segment, which gets the records from then on. What has not ended there moves
// first, unless it is much.
func (c *calls) turn(now time.Time) error {
	s, other := &c.pair[c.active], &c.pair[1-c.active]
	var live []digest
	var size int64
	if now.UnixNano() < other.ends {
		for d, p := range other.places {
			if _, newer := s.places[d]; !newer && !p.ended(now) {
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
	c.next = 0
	return c.alternate()
}

// close closes the files.
func (c *calls) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.segments.close()
}
