package srp

import (
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"slices"
)

// ParsePublic reads the client's public value A, a number in hexadecimal digits:
// see parseNumber. It returns Size bytes. A is taken only as 1 < A < N-1 and never
// reduced: A = 0 (mod N) would make S = 0 without a password (RFC 5054, section
// 2.5.4), and powers of 1 and -1 are as predictable.
func (p *Profile) ParsePublic(digits string) ([]byte, error) {
	b, err := parseNumber(digits, p.Size())
	if err != nil {
		return nil, err
	}
	if !p.inside(b) {
		return nil, ErrOutOfRange
	}
	return b, nil
}

// ParseEvidence reads the client's evidence M1, which many libraries write as a
// number in hexadecimal digits: see parseNumber. It returns EvidenceSize bytes.
func (*Profile) ParseEvidence(digits string) ([]byte, error) {
	return parseNumber(digits, EvidenceSize)
}

// parseNumber reads a number from hexadecimal digits, of either case and possibly an
// odd number, and returns size bytes. It may lack its leading zeros, and may have one
// byte of 0 beyond its full length, where libraries put the sign.
func parseNumber(digits string, size int) ([]byte, error) {
	if digits == "" {
		return nil, ErrMissing
	}
	if len(digits) > 2*(size+1) {
		return nil, ErrTooLong
	}
	if len(digits)%2 != 0 {
		digits = "0" + digits
	}
	b := make([]byte, 1+size)
	if _, err := hex.Decode(b[1+size-len(digits)/2:], []byte(digits)); err != nil {
		return nil, ErrNotHex
	}
	if b[0] != 0 {
		return nil, ErrTooLong
	}
	return b[1:], nil
}

// upperHex writes what a client gets, which always has all of its digits.
func upperHex(b []byte) string { return fmt.Sprintf("%X", b) }

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
