package srp

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
)

// ParsePublic reads the client's public value A, a number in hexadecimal digits:
// see parseNumber. It returns Size bytes. A is taken only as 1 < A < N-1 and never
// reduced: A = 0 (mod N) would make S = 0 without a password (RFC 5054, section
// 2.5.4), and powers of 1 and -1 are as predictable. The error is one of the
// ErrClientPublic values.
func (p *Profile) ParsePublic(digits string) ([]byte, error) {
	if digits == "" {
		return nil, ErrClientPublicMissing
	}
	b, err := parseNumber(digits, p.Size(), ErrClientPublicTooLong, ErrClientPublicNotHex)
	if err != nil {
		return nil, err
	}
	if !p.inside(b) {
		return nil, ErrClientPublicInvalid
	}
	return b, nil
}

// ParseEvidence reads the client's evidence M1, which many libraries write as a
// number in hexadecimal digits: see parseNumber. It returns EvidenceSize bytes. The
// error is one of the ErrClientEvidence values.
func ParseEvidence(digits string) ([]byte, error) {
	if digits == "" {
		return nil, ErrClientEvidenceMissing
	}
	return parseNumber(digits, EvidenceSize, ErrClientEvidenceTooLong, ErrClientEvidenceNotHex)
}

// parseNumber reads a number from hexadecimal digits, of either case and possibly an
// odd number, and returns size bytes. It may lack its leading zeros, and may have one
// byte of 0 beyond its full length, where libraries put the sign.
func parseNumber(digits string, size int, tooLong, notHex error) ([]byte, error) {
	if len(digits) > 2*(size+1) {
		return nil, tooLong
	}
	if len(digits)%2 != 0 {
		digits = "0" + digits
	}
	b := make([]byte, 1+size)
	if _, err := hex.Decode(b[1+size-len(digits)/2:], []byte(digits)); err != nil {
		return nil, notHex
	}
	if b[0] != 0 {
		return nil, tooLong
	}
	return b[1:], nil
}

// Verifier returns v = g^x for a password and a salt of SaltSize bytes: Size
// bytes to be kept as secret as the password.
func (p *Profile) Verifier(identity, password string, salt []byte) []byte {
	w := p.begin()
	defer w.end()
	w.passwordExponent(&w.secret, identity, password, salt)
	w.powerG(w.x, &w.secret)
	v := make([]byte, p.Size())
	w.toBytes(v, w.x)
	return v
}

// SimulatedVerifier returns the verifier that stands for an identifier nobody
// registered: Size bytes that depend on the profile, the identity and a secret
// of at least 32 random bytes, and that nobody knows a password for (RFC 5054,
// section 2.5.1.3). Any number below N serves, since g^b hides it in B.
func (p *Profile) SimulatedVerifier(secret []byte, identity string) []byte {
	v, err := hkdf.Expand(sha256.New, secret, "verifier"+p.name+identity, p.Size())
	if err != nil {
		// The size is far below the limit of HKDF.
		panic("srp: " + err.Error())
	}
	// The top bit of N is set, so clearing it here leaves a number below N.
	v[0] &= 0x7F
	return v
}

// Salt returns the salt of an identity under a profile: SaltSize bytes,
// derived from a secret of at least 32 random bytes. It is the same for a
// registered identity and for one that is not, so a salt tells nothing. The first
// byte is never 0: some clients read the salt as a number and would lose it.
func Salt(secret []byte, profile, identity string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("salt" + profile + identity))
	salt := h.Sum(nil)[:SaltSize]
	salt[0] = max(salt[0], 1)
	return salt
}

// inside tells whether b is Size bytes of a number with 1 < b < N-1. Only the
// answer depends on b, not the time it takes.
func (p *Profile) inside(b []byte) bool {
	if len(b) != p.Size() {
		return false
	}
	return less(p.one, b)&less(b, p.minusOne) == 1
}

// less returns 1 if x < y and 0 if not, for big-endian numbers of equal length,
// in a time that depends on the length only.
func less(x, y []byte) int {
	borrow := 0
	for i, v := range slices.Backward(x) {
		borrow = (int(v) - int(y[i]) - borrow) >> 8 & 1
	}
	return borrow
}

// isZero tells whether b is all zeros, in a time that depends on its length only.
func isZero(b []byte) bool {
	var bits byte
	for _, v := range b {
		bits |= v
	}
	return subtle.ConstantTimeByteEq(bits, 0) == 1
}
