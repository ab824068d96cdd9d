package activation

import (
	"encoding/binary"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// What a sealed value is, as its label says.
const (
	sealedFacts     = "facts"
	sealedVerifier  = "verifier"
	sealedData      = "data"
	sealedHandshake = "handshake"
	sealedSecret    = "sim"
)

// nameSize is the room for a profile's name in a sealed value: with a fixed
// size, values of one profile are all of the same length.
const nameSize = 32

// sealedValue is a sealed value with the label it opens under.
type sealedValue struct {
	label seal.Label
	bytes []byte
}

// recordLabel is the label of one of the sealed values of r. The kind belongs to
// it, so that a record cannot be turned into one of another kind.
func recordLabel(what string, r Record) seal.Label {
	return seal.Label{Kind: string(r.Kind) + " " + what, Identifier: r.Identifier, Generation: r.Generation}
}

func handshakeLabel(identifier string, g Generation) seal.Label {
	return seal.Label{Kind: sealedHandshake, Identifier: identifier, Generation: g}
}

// usable reports whether an exchange with the record can succeed.
func (r Record) usable() bool {
	return (r.Kind == KindMDL || r.Kind == KindStandard) && len(r.Verifier) > 0 && r.Lifetime > 0
}

// burned reports whether no further proof of the record's exchange is taken.
func (r Record) burned() bool {
	return (r.Kind == KindMDL || r.Kind == KindStandard) && len(r.Verifier) == 0
}

// facts is who registered and where.
type facts struct {
	userID, domain, serialNumber, instance string
}

func (f facts) encode() []byte {
	return encodeFields(f.userID, f.domain, f.serialNumber, f.instance)
}

func decodeFacts(b []byte) (facts, bool) {
	fields, ok := decodeFields(b, 4)
	if !ok {
		return facts{}, false
	}
	return facts{userID: string(fields[0]), domain: string(fields[1]), serialNumber: string(fields[2]), instance: string(fields[3])}, true
}

// credential is what the server needs of a password. Once decoded it refers to
// the bytes it was decoded from.
type credential struct {
	profile        *srp.Profile
	salt, verifier []byte
}

func (c credential) encode() []byte {
	b := make([]byte, 0, nameSize+srp.SaltSize+c.profile.Size())
	b = appendName(b, c.profile)
	b = append(b, c.salt...)
	return append(b, c.verifier...)
}

func decodeCredential(b []byte) (credential, bool) {
	p, rest, ok := cutName(b)
	if !ok || len(rest) != srp.SaltSize+p.Size() {
		return credential{}, false
	}
	return credential{profile: p, salt: rest[:srp.SaltSize], verifier: rest[srp.SaltSize:]}, true
}

// handshakeState is the server's side of an exchange between its two calls.
// Once decoded it refers to the bytes it was decoded from.
type handshakeState struct {
	profile *srp.Profile
	// genuine is 1 if a right proof is worth something, 0 for a simulated exchange.
	genuine                                       int
	salt, clientPublic, private, public, verifier []byte
}

func (h handshakeState) encode() []byte {
	b := make([]byte, 0, nameSize+1+srp.SaltSize+srp.PrivateSize+3*h.profile.Size())
	b = appendName(b, h.profile)
	b = append(b, byte(h.genuine))
	b = append(b, h.salt...)
	b = append(b, h.private...)
	b = append(b, h.clientPublic...)
	b = append(b, h.public...)
	return append(b, h.verifier...)
}

func decodeHandshake(b []byte) (handshakeState, bool) {
	p, rest, ok := cutName(b)
	if !ok || len(rest) != 1+srp.SaltSize+srp.PrivateSize+3*p.Size() || rest[0] > 1 {
		return handshakeState{}, false
	}
	h := handshakeState{profile: p, genuine: int(rest[0])}
	rest = rest[1:]
	for _, part := range []struct {
		to   *[]byte
		size int
	}{{&h.salt, srp.SaltSize}, {&h.private, srp.PrivateSize}, {&h.clientPublic, p.Size()}, {&h.public, p.Size()}, {&h.verifier, p.Size()}} {
		*part.to, rest = rest[:part.size], rest[part.size:]
	}
	return h, true
}

func appendName(b []byte, p *srp.Profile) []byte {
	var name [nameSize]byte
	copy(name[:], p.Name())
	return append(b, name[:]...)
}

func cutName(b []byte) (p *srp.Profile, rest []byte, ok bool) {
	if len(b) < nameSize {
		return nil, nil, false
	}
	p, err := srp.LookupProfile(strings.TrimRight(string(b[:nameSize]), "\x00"))
	if err != nil {
		return nil, nil, false
	}
	return p, b[nameSize:], true
}

// encodeFields joins fields of up to 65535 bytes, each behind its length.
func encodeFields(fields ...string) []byte {
	var b []byte
	for _, f := range fields {
		b = binary.BigEndian.AppendUint16(b, uint16(len(f)))
		b = append(b, f...)
	}
	return b
}

// decodeFields undoes encodeFields for exactly n fields, which refer to b.
func decodeFields(b []byte, n int) ([][]byte, bool) {
	fields := make([][]byte, n)
	for i := range fields {
		if len(b) < 2 {
			return nil, false
		}
		size := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; len(b) < size {
			return nil, false
		}
		fields[i], b = b[:size], b[size:]
	}
	return fields, len(b) == 0
}

// sameRegistrant reports whether f may replace g.
func (f facts) sameRegistrant(g facts) bool {
	return f.instance == g.instance && f.userID == g.userID && f.domain == g.domain
}
