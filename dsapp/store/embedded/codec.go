package embedded

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// The first byte of encoded entries, parts and claims.
const (
	entryVersion = 2
	partsVersion = 1
	claimVersion = 1
	// inlineVersion is that of entries that have their parts in themselves. Files of format
	// 1 have these.
	inlineVersion = 1
)

// Bits of the second byte of an encoded entry.
const (
	flagBurned  = 1 << iota // entry.burned
	flagSettled             // entry.settled
	flagProven              // entry.proven
	flagsKnown  = flagBurned | flagSettled | flagProven
)

// errCorrupt is returned for an entry or claim that cannot be decoded or has values that no
// Store writes. The error does not contain the values.
var errCorrupt = errors.New("entry cannot be decoded")

// entry is a value of bucketEntries: what changes of a record. The rest are its parts, which are
// large and stay as they are, and therefore lie in bucketSealed.
type entry struct {
	generation activation.Generation
	kind       activation.Kind
	// expires is the end of the record's lifetime, in nanoseconds of Unix time.
	expires int64
	burned  bool

	// reserved is the number of reserved attempts.
	reserved uint32
	// inFlight has the tokens of the attempts that are not settled.
	inFlight []activation.Token
	// activations is the number of activations made.
	activations uint32
	// devices is the number of devices that may still be added. For KindAffinity it is the
	// number of calls to add a device that were refused or are in flight.
	devices uint32
	// confirmations is the number of final calls. For KindAffinity it is the number of
	// those that were refused or are in flight.
	confirmations uint32

	// settled says that an attempt was settled, last is the token of the latest, and proven
	// says that its proof was right.
	settled, proven bool
	last            activation.Token

	// inline says that the entry was read from a value of inlineVersion, which has the parts.
	inline bool
	// parts are only set if they were read, or are to be written.
	parts
}

// parts are the sealed parts of a record, a value of bucketSealed.
type parts struct{ facts, verifier, data []byte }

// valid reports whether a Store can have written the entry.
func (e *entry) valid() bool {
	switch e.kind {
	case activation.KindMDL, activation.KindStandard, activation.KindSimulated:
		if e.devices > e.activations {
			return false
		}
	case activation.KindAffinity:
	default:
		return false
	}
	return e.expires > 0 && e.removeAt() > 0 && len(e.inFlight) <= int(e.reserved) &&
		max(e.reserved, e.activations, e.devices, e.confirmations) <= activation.MaxCounter
}

// live reports whether the record's lifetime has not passed.
func (e *entry) live(now time.Time) bool { return now.UnixNano() < e.expires }

// removeAt returns the time from which on the entry counts as removed, in nanoseconds of Unix
// time.
func (e *entry) removeAt() int64 {
	if e.burned {
		return e.expires + int64(activation.TombstoneLifetime)
	}
	return e.expires
}

// record returns the entry as a record without Verifier and Data.
func (e *entry) record(identifier string, now time.Time) activation.Record {
	return activation.Record{
		Identifier: identifier,
		Generation: e.generation,
		Kind:       e.kind,
		Facts:      e.facts,
		Lifetime:   max(0, time.Duration(e.expires-now.UnixNano())),
	}
}

// encode returns the entry without its parts as bytes: version, flags and all members in a fixed
// order. Integers are big-endian. A list has its number of elements before it, a byte string its
// length.
func (e *entry) encode() []byte {
	b := make([]byte, 0, 96+len(e.inFlight)*len(e.last))
	var flags byte
	if e.burned {
		flags |= flagBurned
	}
	if e.settled {
		flags |= flagSettled
	}
	if e.proven {
		flags |= flagProven
	}
	b = append(b, entryVersion, flags)
	b = append(b, e.generation[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.expires))
	for _, n := range []uint32{e.reserved, e.activations, e.devices, e.confirmations} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = append(b, e.last[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.inFlight)))
	for _, t := range e.inFlight {
		b = append(b, t[:]...)
	}
	return appendBytes(b, []byte(e.kind))
}

// decodeEntry decodes what entry.encode returns, and values of inlineVersion, which have the three
// parts at their end. It decodes nothing else. The entry shares no memory with b, which bbolt maps
// only until the transaction ends.
func decodeEntry(b []byte) (*entry, error) {
	r := reader{rest: b}
	version, flags := r.take(1), r.take(1)
	if r.bad || version[0] != entryVersion && version[0] != inlineVersion || flags[0]&^flagsKnown != 0 {
		return nil, errCorrupt
	}
	e := &entry{
		burned:  flags[0]&flagBurned != 0,
		settled: flags[0]&flagSettled != 0,
		proven:  flags[0]&flagProven != 0,
		inline:  version[0] == inlineVersion,
	}
	copy(e.generation[:], r.take(len(e.generation)))
	e.expires = int64(r.uint64())
	for _, n := range []*uint32{&e.reserved, &e.activations, &e.devices, &e.confirmations} {
		*n = r.uint32()
	}
	copy(e.last[:], r.take(len(e.last)))
	for range r.uint32() {
		token := r.take(len(e.last))
		if r.bad {
			return nil, errCorrupt
		}
		e.inFlight = append(e.inFlight, activation.Token(token))
	}
	e.kind = activation.Kind(r.bytes())
	if e.inline {
		e.parts = r.parts()
	}
	if r.bad || len(r.rest) > 0 {
		return nil, errCorrupt
	}
	return e, nil
}

// encode returns the parts of an entry of that generation as bytes: version, generation, and each
// part after its length.
func (p parts) encode(g activation.Generation) []byte {
	b := make([]byte, 0, 32+len(p.facts)+len(p.verifier)+len(p.data))
	b = append(append(b, partsVersion), g[:]...)
	return appendBytes(b, p.facts, p.verifier, p.data)
}

// decodeParts decodes what parts.encode returns, and nothing else. The parts share no memory with
// b.
func decodeParts(b []byte) (parts, activation.Generation, error) {
	var g activation.Generation
	r := reader{rest: b}
	version := r.take(1)
	copy(g[:], r.take(len(g)))
	p := r.parts()
	if r.bad || version[0] != partsVersion || len(r.rest) > 0 {
		return parts{}, activation.Generation{}, errCorrupt
	}
	return p, g, nil
}

// appendBytes appends each byte string after its length.
func appendBytes(b []byte, all ...[]byte) []byte {
	for _, s := range all {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}

// readEntry is decodeEntry with an error for an entry that is not valid.
func readEntry(b []byte) (*entry, error) {
	e, err := decodeEntry(b)
	if err == nil && !e.valid() {
		err = errCorrupt
	}
	return e, err
}

// claim is a value of bucketClaims: the ownership of a request.
type claim struct {
	token ownership.Token
	// ends is the end of the claim's lifetime in nanoseconds of Unix time.
	ends int64
	// serialNumber is that of the device whose list has the claim.
	serialNumber string
	// owner is sealed.
	owner []byte
}

// live reports whether the claim's lifetime has not passed.
func (c *claim) live(now time.Time) bool { return now.UnixNano() < c.ends }

// encode returns the claim as bytes: version, token, end, then the serial number
// and the owner with their lengths; integers big-endian.
func (c *claim) encode() []byte {
	b := make([]byte, 0, 64+len(c.serialNumber)+len(c.owner))
	b = append(b, claimVersion)
	b = append(b, c.token[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.ends))
	return appendBytes(b, []byte(c.serialNumber), c.owner)
}

// decodeClaim decodes what claim.encode returns, and nothing else. The claim shares no memory
// with b.
func decodeClaim(b []byte) (*claim, error) {
	r := reader{rest: b}
	if version := r.take(1); r.bad || version[0] != claimVersion {
		return nil, errCorrupt
	}
	c := &claim{}
	copy(c.token[:], r.take(len(c.token)))
	c.ends = int64(r.uint64())
	c.serialNumber, c.owner = string(r.bytes()), r.bytes()
	if r.bad || len(r.rest) > 0 {
		return nil, errCorrupt
	}
	return c, nil
}

// request is a request with the claim to it. A claim that does not end is none: the request was released.
type request struct {
	claim

	kind ownership.Kind
	key  string
}

// name returns the key of the claim in bucketClaims.
func (r *request) name() string { return claimKey(r.kind, r.key) }

// digest returns the digest of the request.
func (r *request) digest() digest { return claimDigest(r.name()) }

// device returns the digest of the device whose list has the claim.
func (r *request) device() digest { return deviceDigest(r.kind, r.serialNumber) }

// encode returns the value of a record of claims: version, then kind, key, serial number and owner with
// their lengths. The record has the token and the end.
func (r *request) encode() []byte {
	b := make([]byte, 0, 48+len(r.key)+len(r.serialNumber)+len(r.owner))
	b = append(b, claimVersion)
	return appendBytes(b, []byte(r.kind), []byte(r.key), []byte(r.serialNumber), r.owner)
}

// decodeRequest decodes what request.encode returns, and nothing else, as the value of a record about the
// request with its digest. The request shares no memory with b.
func decodeRequest(a archived, b []byte) (*request, error) {
	in := reader{rest: b}
	if version := in.take(1); in.bad || version[0] != claimVersion {
		return nil, errCorrupt
	}
	r := &request{kind: ownership.Kind(in.bytes()), key: string(in.bytes())}
	r.claim = claim{token: a.place.token, ends: a.place.ends, serialNumber: string(in.bytes()), owner: in.bytes()}
	if in.bad || len(in.rest) > 0 || r.digest() != a.digest {
		return nil, errCorrupt
	}
	return r, nil
}

// reader reads values from the beginning of rest. When rest is too short for a value, bad is
// set, and all values from then on are zero.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.rest) {
		r.bad = true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// bytes returns a copy of a byte string, or nil if it is empty.
func (r *reader) bytes() []byte {
	b := r.take(int(r.uint32()))
	if len(b) == 0 {
		return nil
	}
	return append([]byte(nil), b...)
}

// parts returns three byte strings as the parts of an entry.
func (r *reader) parts() parts { return parts{facts: r.bytes(), verifier: r.bytes(), data: r.bytes()} }
