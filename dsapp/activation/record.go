package activation

import (
	"encoding/binary"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// What a sealed value is, as its label says.
const (
	sealedFacts     = "facts"
	sealedVerifier  = "verifier"
	sealedData      = "data"
	sealedHandshake = "handshake"
	sealedSecret    = "sim"
)

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
