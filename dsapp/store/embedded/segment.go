package embedded

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"
)

const (
	// segmentHeader is the size of what precedes the records of a segment: eight bytes that say what it
	// holds, the magic, and a number that is greater than that of the other segment if this one was begun
	// later.
	segmentHeader = magicSize + 8
	magicSize     = 8
	// recordHeader is the size of what precedes a record: the CRC-32C of the rest, and the length of the
	// value. The digest, the end in nanoseconds of Unix time, the token and the value follow.
	recordHeader = 8
	recordSize   = recordHeader + len(digest{}) + 8 + len(place{}.token)
	// minSegment is the size from which on a segment can be full, and maxSegment the size that it never
	// exceeds.
	minSegment = 1 << 20
	maxSegment = 128 << 20
	// lockInterval is the time between two attempts to lock a segment.
	lockInterval = 50 * time.Millisecond
)

var (
	errNoSegment = errors.New("the file holds something else: name another file for the store, or move this one aside")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// digest is a SHA-256 of what a record is about.
type digest = [32]byte

// segments are two files beside that of bbolt. They get one record for each change, in one write, and
// memory has where it is. One of them, the active one, gets all new records, until the other one is
// emptied and becomes the active one. What was written survives the end of the process, but not always a
// power failure. The caller sees to it that no two calls of the methods run at the same time.
type segments struct {
	pair [2]segment
	// active is the index of the segment that gets new records.
	active int
	// max is maxSegment.
	max    int64
	closed bool
	buffer []byte // for records
}

// segment is one of the files.
type segment struct {
	magic  string
	file   *os.File
	number uint64
	size   int64
	// ends is when the last of its records ends, in nanoseconds of Unix time.
	ends int64
	// places has the last record of each digest. Its values have no pointers, so that the
	// garbage collector does not read it.
	places map[digest]place
}

// place is where a record is, and what it says. A record without an end says that what earlier records
// said is no more.
type place struct {
	token [16]byte
	ends  int64
	at    int64 // of the value
	size  int   // of the value
}

// ended reports whether the record says nothing any more at that time.
func (p place) ended(now time.Time) bool { return now.UnixNano() >= p.ends }

// segmentName returns the name of a segment.
func segmentName(prefix string, i int) string { return fmt.Sprintf("%s%d", prefix, i) }

// openSegments opens the segments whose names begin with prefix, and their contents with magic. It waits
// for a Store that has them open although its file was moved aside. A record that was written in part, or
// is damaged, ends its segment.
func openSegments(prefix, magic string) (s segments, err error) {
	s.max = maxSegment
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	for i := range s.pair {
		name, f := segmentName(prefix, i), &s.pair[i]
		f.magic = magic
		if f.file, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return s, err
		}
		// Until it is locked, another Store may write to it.
		if err = f.lock(); err == nil {
			err = f.read()
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w", name, err)
		}
	}
	s.choose()
	return s, nil
}

// choose makes the segment active that was begun later.
func (s *segments) choose() {
	s.active = 0
	if s.pair[1].number > s.pair[0].number {
		s.active = 1
	}
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
	s.places = map[digest]place{}
	// After a power failure, the file can have its size and not its content.
	if len(content) < segmentHeader || len(bytes.Trim(content[:segmentHeader], "\x00")) == 0 {
		return nil
	}
	if string(content[:magicSize]) != s.magic {
		return errNoSegment
	}
	s.number, s.size = binary.BigEndian.Uint64(content[magicSize:]), int64(segmentHeader)
	for {
		d, p, ok := decodeRecord(content[s.size:])
		if !ok {
			return nil
		}
		p.at = s.size + int64(recordSize)
		s.put(d, p)
	}
}

// decodeRecord decodes the record at the beginning of b. Its place is not known to be anywhere.
func decodeRecord(b []byte) (d digest, p place, ok bool) {
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
	p.ends = int64(r.uint64())
	copy(p.token[:], r.take(len(p.token)))
	return d, p, true
}

// put notes a record that was written.
func (s *segment) put(d digest, p place) {
	s.places[d] = p
	s.size, s.ends = p.at+int64(p.size), max(s.ends, p.ends)
}

// value returns the value of a record. It returns errCorrupt if it cannot be read, or if the file has
// something else at its place.
func (s *segment) value(d digest, p place) ([]byte, error) {
	b := make([]byte, recordSize+p.size)
	if _, err := s.file.ReadAt(b, p.at-int64(recordSize)); err != nil {
		return nil, errCorrupt
	}
	found, there, ok := decodeRecord(b)
	there.at = p.at
	if !ok || found != d || there != p {
		return nil, errCorrupt
	}
	return b[recordSize:], nil
}

// empty begins a segment anew.
func (s *segment) empty(number uint64) error {
	s.number, s.size, s.ends = number, 0, 0
	clear(s.places)
	if err := s.file.Truncate(0); err != nil {
		return err
	}
	if _, err := s.file.WriteAt(binary.BigEndian.AppendUint64([]byte(s.magic), number), 0); err != nil {
		return err
	}
	s.size = int64(segmentHeader)
	return nil
}

// last returns the last record of a digest with its segment, and whether there is one.
func (s *segments) last(d digest) (*segment, place, bool) {
	for _, i := range []int{s.active, 1 - s.active} {
		if p, known := s.pair[i].places[d]; known {
			return &s.pair[i], p, true
		}
	}
	return nil, place{}, false
}

// fits reports whether a record with a value of that size fits into the active segment, of which so many
// fifths may be filled.
func (s *segments) fits(size int, fifths int64) bool {
	return s.pair[s.active].size+int64(recordSize+size) <= s.max/5*fifths
}

// append appends a record to the active segment.
func (s *segments) append(d digest, p place, value []byte) error {
	a := &s.pair[s.active]
	b := binary.BigEndian.AppendUint32(append(s.buffer[:0], 0, 0, 0, 0), uint32(len(value)))
	b = append(b, d[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.ends))
	b = append(append(b, p.token[:]...), value...)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	s.buffer = b
	// What a write leaves that fails is written over by the next one.
	if _, err := a.file.WriteAt(b, a.size); err != nil {
		return err
	}
	p.at, p.size = a.size+int64(recordSize), len(value)
	a.put(d, p)
	return nil
}

// alternate empties the other segment, which gets the records from then on.
func (s *segments) alternate() error {
	if err := s.pair[1-s.active].empty(s.pair[s.active].number + 1); err != nil {
		return err
	}
	s.active = 1 - s.active
	return nil
}

// close closes the files.
func (s *segments) close() error {
	s.closed = true
	var errs []error
	for _, f := range s.pair {
		if f.file != nil {
			errs = append(errs, f.file.Close())
		}
	}
	return errors.Join(errs...)
}
