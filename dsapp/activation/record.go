package activation

import (
	"encoding/binary"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// The kinds of sealed values in their labels.
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

// recordLabel returns the label of a sealed value of r. It contains the kind of the record,
// so that a value cannot be used in a record of another kind.
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

// burned reports whether the record has an exchange and accepts no more proofs.
func (r Record) burned() bool {
	return (r.Kind == KindMDL || r.Kind == KindStandard) && len(r.Verifier) == 0
}

// encodeSubject returns s in the form in which it is sealed.
func encodeSubject(s form.Subject) []byte {
	return encodeFields(s.UserID, s.Domain, s.SerialNumber, s.Instance)
}

func decodeSubject(b []byte) (form.Subject, bool) {
	fields, ok := decodeFields(b, 4)
	if !ok {
		return form.Subject{}, false
	}
	return form.Subject{UserID: string(fields[0]), Domain: string(fields[1]), SerialNumber: string(fields[2]), Instance: string(fields[3])}, true
}

// encodeFields joins fields of up to 65535 bytes, each after its length in two bytes.
func encodeFields[T string | []byte](fields ...T) []byte {
	size := 0
	for _, f := range fields {
		size += 2 + len(f)
	}
	// If it grew, a copy of a secret would stay behind in memory.
	b := make([]byte, 0, size)
	for _, f := range fields {
		b = binary.BigEndian.AppendUint16(b, uint16(len(f)))
		b = append(b, f...)
	}
	return b
}

// decodeFields decodes exactly n fields of encodeFields. They refer to b.
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

// mayReplace reports whether a registration of s may replace one of t.
func mayReplace(s, t form.Subject) bool {
	return s.Instance == t.Instance && s.UserID == t.UserID && s.Domain == t.Domain
}
