package srp

import (
	"bytes"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// formulas are the templates of a variant, parsed.
type formulas struct {
	multiplier, inner, exponent, scrambler, keyInput, m1, m2, mac []part
	// hashesPassword and hashesIdentity say whether H(P) and H(I) are needed.
	hashesPassword, hashesIdentity bool
	// wide says that hashes are longer than an exponent of a kernel.
	wide bool
}

// part is an element of a template: a member in a form, or a text if that is not nil.
type part struct {
	member int // index in members
	form   variant.Form
	text   []byte
}

// members has the values of members that are known so far, numbers with the length of N.
type members [memberCount][]byte

// The indices of members.
const (
	memberN = iota
	memberG
	memberA
	memberB
	memberS
	memberKey
	memberSalt
	memberIdentity
	memberPassword
	memberIdentityHash
	memberPasswordHash
	memberInner
	memberX
	memberPaddedX
	memberM1
	memberCounter
	memberData
	memberCount
)

// memberIndex has the indices of members by their names.
var memberIndex = map[variant.Member]int{
	variant.N: memberN, variant.G: memberG, variant.A: memberA, variant.B: memberB, variant.S: memberS, variant.K: memberKey,
	variant.Salt: memberSalt, variant.Identity: memberIdentity, variant.Password: memberPassword,
	variant.IdentityHash: memberIdentityHash, variant.PasswordHash: memberPasswordHash, variant.Inner: memberInner,
	variant.X: memberX, variant.PaddedX: memberPaddedX, variant.M1: memberM1, variant.Counter: memberCounter, variant.Data: memberData,
}

// newFormulas parses the templates of a variant that was checked.
func newFormulas(v variant.Variant) formulas {
	var f formulas
	for _, t := range []struct {
		from variant.Template
		to   *[]part
	}{
		{v.Multiplier, &f.multiplier},
		{v.Inner, &f.inner},
		{v.Exponent, &f.exponent},
		{v.Scrambler, &f.scrambler},
		{v.KeyInput, &f.keyInput},
		{v.ClientEvidence, &f.m1},
		{v.ServerEvidence, &f.m2},
		{v.MACInput, &f.mac},
	} {
		if len(t.from) == 0 {
			continue // inner, if x does not contain it
		}
		parsed, err := t.from.Parse()
		if err != nil {
			panic("srp: template that was checked: " + err.Error())
		}
		for _, p := range parsed {
			f.hashesPassword = f.hashesPassword || p.Member == variant.PasswordHash
			f.hashesIdentity = f.hashesIdentity || p.Member == variant.IdentityHash
			*t.to = append(*t.to, part{member: memberIndex[p.Member], form: p.Form, text: []byte(p.Text)})
		}
	}
	return f
}

// value returns the bytes of a part. Those in another form than the full one are in memory of
// the workspace that the next call overwrites.
//
// The forms without zeros take a time that depends on the number of zeros, as the length of
// their result does.
func (w *workspace) value(p part) []byte {
	if len(p.text) > 0 {
		return p.text
	}
	b := w.g.constants[p.member]
	if b == nil {
		b = w.members[p.member]
	}
	switch p.form {
	case variant.Minimal:
		return bytes.TrimLeft(b, "\x00")
	case variant.Signed:
		b = bytes.TrimLeft(b, "\x00")
		if len(b) > 0 && b[0]&0x80 != 0 {
			return append(append(w.form[:0], 0), b...)
		}
		return b
	case variant.Padded:
		if len(b) >= len(w.number) {
			return b
		}
		w.form = w.form[:len(w.number)]
		clear(w.form)
		copy(w.form[len(w.form)-len(b):], b)
		return w.form
	case variant.Hex, variant.UpperHex, variant.Digits, variant.UpperDigits:
		return w.hexadecimal(b, p.form)
	case variant.Lower:
		return []byte(strings.ToLower(string(b)))
	case variant.Upper:
		return []byte(strings.ToUpper(string(b)))
	default:
		return b
	}
}

// hexadecimal returns the digits of b in one of the forms of digits.
func (w *workspace) hexadecimal(b []byte, form variant.Form) []byte {
	letters := byte('a')
	if form == variant.UpperHex || form == variant.UpperDigits {
		letters = 'A'
	}
	w.form = w.form[:0]
	for _, v := range b {
		w.form = append(w.form, hexDigit(v>>4, letters), hexDigit(v&0xF, letters))
	}
	if form == variant.Digits || form == variant.UpperDigits {
		return bytes.TrimLeft(w.form, "0")
	}
	return w.form
}

// hexDigit returns the digit of a value below 16. letters is the digit for 10. Its time does
// not depend on the value.
func hexDigit(value, letters byte) byte {
	// All ones if value is 10 or more.
	mask := byte(int8(9-value) >> 7)
	return '0' + value + mask&(letters-'0'-10)
}

// digestOf sets b to the hash of a template.
func (w *workspace) digestOf(b []byte, template []part) {
	w.hash.Reset()
	for _, p := range template {
		w.hash.Write(w.value(p))
	}
	w.hash.Sum(b[:0])
}

// exponentOf sets the exponent whose low half is low and whose high half is high to the hash
// of a template.
func (w *workspace) exponentOf(low, high *[PrivateSize]byte, template []part) {
	clear(low[:])
	clear(high[:])
	w.digestOf(w.digested, template)
	n := len(w.digested)
	split := max(0, n-PrivateSize)
	copy(high[PrivateSize-split:], w.digested[:split])
	copy(low[PrivateSize-(n-split):], w.digested[split:])
}

// setKey sets w.key to the session key of w.members[memberS].
func (w *workspace) setKey() {
	n := len(w.digested)
	switch w.g.p.variant.KeyFunction {
	case variant.KeyHash:
		w.key = w.key[:n]
		w.digestOf(w.key, w.g.p.keyInput)
	case variant.KeyNone:
		w.key = append(w.key[:0], w.value(w.g.p.keyInput[0])...)
	case variant.KeyMGF1:
		w.key = w.key[:2*n]
		input := w.value(w.g.p.keyInput[0])
		w.digest(w.key[:n], input, []byte{0, 0, 0, 0})
		w.digest(w.key[n:], input, []byte{0, 0, 0, 1})
	case variant.KeyInterleave:
		w.key = w.key[:2*n]
		w.interleave(w.key, w.value(w.g.p.keyInput[0]))
	}
}

// interleave sets key to the interleaved hashes of the bytes of s at even and at odd places
// (RFC 2945, section 3.1). Zero bytes that s begins with are left out, and one more if the
// rest is odd in number.
func (w *workspace) interleave(key, s []byte) {
	s = bytes.TrimLeft(s, "\x00")
	s = s[len(s)%2:]
	half := w.half[:len(s)/2]
	for parity := range 2 {
		for i := range half {
			half[i] = s[2*i+parity]
		}
		w.digest(w.digested, half)
		for i, v := range w.digested {
			key[2*i+parity] = v
		}
	}
}

// constants returns the members that are the same in each exchange.
func (p *Profile) constants() members {
	var m members
	m[memberN], m[memberG] = p.prime, p.pad([]byte{p.generator})
	m[memberX] = p.groupHash([]byte{p.generator})
	m[memberPaddedX] = p.groupHash(m[memberG])
	return m
}

// groupHash returns H(N) xor H(g) for a form of g.
func (p *Profile) groupHash(g []byte) []byte {
	b := p.digest(p.prime)
	for i, x := range p.digest(g) {
		b[i] ^= x
	}
	return b
}

// keySize is the greatest length of a session key: the digits of a number.
func (f *field) keySize() int { return 2 * f.Size() }

// formSize is the greatest length of a value in a form: the digits of a session key.
func (f *field) formSize() int { return 2 * f.keySize() }
