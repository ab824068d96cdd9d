package embedded

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

const (
	// claimsMagic begins a segment of claims. Its last digit is the version of the format.
	claimsMagic = "claims1\n"
	// fullClaims is the size from which on a segment is full. One that has minSegment is full at the age
	// claimsAge as well: most claims are released or have ended then.
	fullClaims = 64 << 20
	claimsAge  = 5 * time.Minute
	// claimLimit is how far claims fill a segment, in fifths of its greatest size, so that there is room
	// for their releases, which fill it up to releaseLimit.
	claimLimit   = 4
	releaseLimit = 5
	// archiveBatch is how many records one transaction of bbolt archives.
	archiveBatch = 64
	// maxAbsent is how many requests are noted of which the archive had no claim.
	maxAbsent = 1024
)

// errClaimsFull means that the segments have no room for another record, because none could be archived.
var errClaimsFull = errors.New("too many claims that could not be archived yet")

// claims has the claims of the last minutes, and which ones were released. Most claims are released within
// seconds. A transaction of bbolt writes and syncs a dozen pages, more if there are many claims, so claims
// are in segments first. The file of bbolt is the archive: it gets what a segment still has when it must be
// emptied.
//
// The last record of a request in the segments counts, whatever the archive has. Only for a request without
// one, the archive counts. When the active segment is full, everything is archived that the other one is the
// last to say: live claims are stored in the archive, and what is released or has ended is removed from it.
// A record leaves memory when that is durable, so that a claim can be found at every moment. Then the other
// segment is emptied and becomes the active one. If the process ends in between, the records are archived
// once more. That resurrects nothing: a release lies in the same segment as its claim or in the one that was
// begun later, and that is not archived before this one is emptied. If the archive cannot be written, the
// active segment grows up to its greatest size. Then claims fail.
type claims struct {
	now func() time.Time
	// min, full and age are minSegment, fullClaims and claimsAge.
	min, full int64
	age       time.Duration

	mu sync.Mutex
	segments
	// begun is when the active segment was begun or opened.
	begun time.Time
	// moves is greater than 0 and grows whenever records have left memory for the archive.
	moves uint64
	// absent has requests of which the archive had no claim lately: a request is claimed after somebody has
	// asked for its owner. A new one replaces another with the same index, see absence.
	absent [maxAbsent]absence
	// devices has the claims of each device in the order in which they were made: at most
	// ownership.MaxPending. It may have claims that are no more.
	devices map[digest][]listing
}

// listing is the place of a claim in the list of a device.
type listing struct {
	claim digest
	ends  int64
}

// absence says that the archive had no claim to a request when there had been so many moves.
type absence struct {
	request digest
	moves   uint64
}

// archived is a record that is to be archived.
type archived struct {
	digest digest
	place  place
}

// openClaims opens the segments of the store at path.
func openClaims(path string, now func() time.Time) (*claims, error) {
	s, err := openSegments(path+".claims", claimsMagic)
	if err != nil {
		return nil, err
	}
	c := &claims{
		now: now, min: minSegment, full: fullClaims, age: claimsAge,
		segments: s, begun: now(), moves: 1, devices: map[digest][]listing{},
	}
	c.listAll()
	return c, nil
}

// listAll makes the lists of the devices from the records.
func (c *claims) listAll() {
	for _, i := range []int{1 - c.active, c.active} {
		s := &c.pair[i]
		inOrder := slices.SortedFunc(c.live(s), func(a, b archived) int { return cmp.Compare(a.place.at, b.place.at) })
		for _, a := range inOrder {
			// One that is damaged is refused.
			if r, err := readRequest(s, a); err == nil {
				c.list(r.device(), a.digest, r.ends)
			}
		}
	}
}

// live yields the records of claims in some segments that are the last ones and have not ended.
func (c *claims) live(among ...*segment) iter.Seq[archived] {
	return func(yield func(archived) bool) {
		now := c.now()
		for _, s := range among {
			for d, p := range s.places {
				if in, _, _ := c.last(d); in == s && !p.ended(now) && !yield(archived{d, p}) {
					return
				}
			}
		}
	}
}

// readRequest returns the request and claim of a record.
func readRequest(s *segment, a archived) (*request, error) {
	value, err := s.value(a.digest, a.place)
	if err != nil {
		return nil, err
	}
	return decodeRequest(a, value)
}

// owner returns the claim to a request, or nil if there is none. If the archive must be asked, it returns
// moves instead.
func (c *claims) owner(d digest) (_ *request, ask uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, 0, errClosed
	}
	s, p, known := c.last(d)
	switch {
	case !known:
		return nil, c.moves, nil
	case p.ended(c.now()):
		return nil, 0, nil
	}
	r, err := readRequest(s, archived{d, p})
	return r, 0, err
}

// absence returns where it is noted that the archive has no claim to a request.
func (c *claims) absence(d digest) *absence {
	return &c.absent[binary.BigEndian.Uint16(d[:])%maxAbsent]
}

// noteAbsent notes that the archive had no claim to a request when it was asked after so many moves.
func (c *claims) noteAbsent(d digest, moves uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*c.absence(d) = absence{d, moves}
}

// pending returns the live claims in the list of a device, in the order in which they were made, and
// moves.
func (c *claims) pending(kind ownership.Kind, serialNumber string) (found []*request, moves uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, 0, errClosed
	}
	now := c.now()
	for _, l := range c.devices[deviceDigest(kind, serialNumber)] {
		s, p, _ := c.last(l.claim)
		if !c.lists(l) || p.ended(now) {
			continue
		}
		r, err := readRequest(s, archived{l.claim, p})
		if err != nil {
			return nil, 0, err
		}
		if r.serialNumber == serialNumber {
			found = append(found, r)
		}
	}
	return found, c.moves, nil
}

// moved returns moves.
func (c *claims) moved() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moves
}

// knows reports whether the segments have a record of a request, so that what the archive has does not
// count.
func (c *claims) knows(d digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, known := c.last(d)
	return known
}

// outdated reports whether what the archive has of a request does not count, and will not before it is
// archived again.
func (c *claims) outdated(d digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, p, known := c.last(d)
	return known && (s == &c.pair[c.active] || p.ended(c.now()))
}

// claim makes the claim of r, for that lifetime, if there is none, and reports whether r has the token of
// the claim that there is. If the archive must be asked first, it does nothing and returns moves. If the
// archive has no claim, the caller passes these to noteAbsent and calls it again.
func (c *claims) claim(r *request, lifetime time.Duration) (claimed bool, ask uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false, 0, errClosed
	}
	d, now := r.digest(), c.now()
	_, p, known := c.last(d)
	switch {
	case known && !p.ended(now):
		return p.token == r.token, 0, nil
	case !known && *c.absence(d) != absence{d, c.moves}:
		return false, c.moves, nil
	}
	r.ends = now.Add(lifetime).UnixNano()
	if err := c.write(d, r, claimLimit); err != nil {
		return false, 0, err
	}
	c.list(r.device(), d, r.ends)
	return true, 0, nil
}

// release removes the claim to the request of r if it has the token of r. If the archive must be asked
// first, it does nothing and returns moves. If the archive has a claim with that token, the caller calls it
// again with these.
func (c *claims) release(r *request, moves uint64) (ask uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, errClosed
	}
	d := r.digest()
	_, p, known := c.last(d)
	switch {
	case known && (p.ended(c.now()) || p.token != r.token):
		return 0, nil
	case !known && moves != c.moves:
		return c.moves, nil
	}
	if err := c.write(d, &request{kind: r.kind, key: r.key, claim: claim{token: r.token}}, releaseLimit); err != nil {
		return 0, err
	}
	c.unlist(r.device(), d)
	return 0, nil
}

// write appends a record about r unless the active segment is filled up to so many fifths.
func (c *claims) write(d digest, r *request, fifths int64) error {
	value := r.encode()
	if !c.fits(len(value), fifths) {
		return errClaimsFull
	}
	return c.append(d, place{token: r.token, ends: r.ends}, value)
}

// list adds a claim to the list of a device. If the list is full, the claim that ends first leaves it.
func (c *claims) list(device, d digest, ends int64) {
	l := slices.DeleteFunc(c.devices[device], func(l listing) bool { return l.claim == d || !c.lists(l) })
	if len(l) >= ownership.MaxPending {
		first := slices.MinFunc(l, func(a, b listing) int { return cmp.Compare(a.ends, b.ends) })
		l = slices.DeleteFunc(l, func(l listing) bool { return l == first })
	}
	c.devices[device] = append(l, listing{d, ends})
}

// unlist removes a claim from the list of a device.
func (c *claims) unlist(device, d digest) {
	c.keepListed(device, func(l listing) bool { return l.claim != d })
}

// keepListed removes from the list of a device what is not to be kept.
func (c *claims) keepListed(device digest, keep func(listing) bool) {
	l := slices.DeleteFunc(c.devices[device], func(l listing) bool { return !keep(l) })
	if len(l) == 0 {
		delete(c.devices, device)
		return
	}
	c.devices[device] = l
}

// lists reports whether the claim that was listed is in the segments.
func (c *claims) lists(l listing) bool {
	_, p, known := c.last(l.claim)
	return known && p.ends == l.ends
}

// due reports whether the active segment is full.
func (c *claims) due() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := c.pair[c.active].size
	return size >= c.full || size >= c.min && c.now().Sub(c.begun).Abs() >= c.age
}

// archive calls move with all records of the other segment that are the last ones of their requests, in
// batches, without holding mu. A batch that was moved leaves memory. Only one goroutine may call archive
// and turn.
func (c *claims) archive(move func(s *segment, batch []archived) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, other := &c.pair[c.active], &c.pair[1-c.active]
	var batch []archived
	flush := func() error {
		c.mu.Unlock()
		err := move(other, batch)
		c.mu.Lock()
		if err != nil {
			return err
		}
		for _, a := range batch {
			delete(other.places, a.digest)
		}
		c.moves++
		batch = batch[:0]
		return nil
	}
	pause := c.pauses()
	for d, p := range other.places {
		pause()
		if _, newer := s.places[d]; newer {
			delete(other.places, d)
			continue
		}
		if batch = append(batch, archived{d, p}); len(batch) < archiveBatch {
			continue
		}
		if err := flush(); err != nil {
			return err
		}
	}
	return flush()
}

// turn empties the other segment, which was archived, and makes it the active one.
func (c *claims) turn() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.alternate(); err != nil {
		return err
	}
	c.begun = c.now()
	pause := c.pauses()
	for device := range c.devices {
		c.keepListed(device, c.lists)
		pause()
	}
	return nil
}

// pauses returns a function that lets calls have mu for a moment once in a while. A loop that holds mu calls
// it each time.
func (c *claims) pauses() func() {
	seen := 0
	return func() {
		if seen++; seen%archiveBatch == 0 {
			c.mu.Unlock()
			c.mu.Lock()
		}
	}
}

// used reports whether the segments have a live claim.
func (c *claims) used() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range c.live(&c.pair[0], &c.pair[1]) {
		return true
	}
	return false
}

// each calls visit with every live claim in the segments, except those that are made meanwhile, or
// archived.
func (c *claims) each(visit func(*request) error) error {
	c.mu.Lock()
	found := slices.Collect(c.live(&c.pair[0], &c.pair[1]))
	c.mu.Unlock()
	for _, a := range found {
		r, _, err := c.owner(a.digest)
		if errors.Is(err, errCorrupt) || err == nil && r == nil {
			continue
		}
		if err == nil {
			err = visit(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// close closes the files.
func (c *claims) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.segments.close()
}

// loadClaims reads the segments of the store at path and does not change them. It returns the number of
// claims, and how many of them cannot be decoded. A file that does not exist has none.
func loadClaims(path string) (s segments, count, broken int, err error) {
	var contents [len(s.pair)][]byte
	for i := range s.pair {
		f, name := &s.pair[i], segmentName(path+".claims", i)
		f.magic = claimsMagic
		content, err := os.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s, 0, 0, err
		}
		contents[i] = content[:min(len(content), maxSegment)]
		if err := f.load(contents[i]); err != nil {
			return s, 0, 0, fmt.Errorf("%s: %w", name, err)
		}
	}
	s.choose()
	for i := range s.pair {
		for d, p := range s.pair[i].places {
			if in, _, _ := s.last(d); in != &s.pair[i] || p.ends == 0 {
				continue
			}
			count++
			if _, err := decodeRequest(archived{d, p}, contents[i][p.at:p.at+int64(p.size)]); err != nil {
				broken++
			}
		}
	}
	return s, count, broken, nil
}

// claimDigest returns the digest of the request with a key of bucketClaims.
func claimDigest(name string) digest { return sha256.Sum256([]byte(name)) }

// deviceDigest returns the digest of a device and kind.
func deviceDigest(kind ownership.Kind, serialNumber string) digest {
	return sha256.Sum256(deviceKey(kind, serialNumber))
}
