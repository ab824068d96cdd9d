package srp

import (
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// ParsePublic parses the client's public value A from hexadecimal digits and returns it as
// Size bytes. Leading zeros may be missing, and there may be one zero byte too many. It
// refuses A unless 1 < A < N-1: for A = 0 (mod N) everybody could compute S (RFC 5054,
// section 2.5.4), and also for 1 and -1 (mod N). The error is one of ErrMissing,
// ErrTooLong, ErrNotHex and ErrOutOfRange.
func (f *field) ParsePublic(digits string) ([]byte, error) {
	b, err := parseNumber(digits, f.Size())
	if err != nil {
		return nil, err
	}
	if !f.inRange(b) {
		return nil, ErrOutOfRange
	}
	return b, nil
}

// ParseEvidence parses the client's evidence M1 from hexadecimal digits and returns it as
// as many bytes as the hash has. Many libraries write M1 as a number, so leading zeros may be missing,
// and there may be one zero byte too many. The error is one of ErrMissing, ErrTooLong and
// ErrNotHex.
func (p *Profile) ParseEvidence(digits string) ([]byte, error) {
	return parseNumber(digits, p.EvidenceSize())
}

// parseNumber parses hexadecimal digits, in either case and possibly an odd number of them,
// and returns size bytes. Leading zeros may be missing. There may be one zero byte too
// many, which libraries with signed numbers write.
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

// digits returns two hexadecimal digits for each byte, in the case of the variant.
func (p *Profile) digits(b []byte) string {
	if p.variant.HexCase == variant.LowerCase {
		return hex.EncodeToString(b)
	}
	return upperHex(b)
}

// upperHex returns two upper-case hexadecimal digits for each byte.
func upperHex(b []byte) string { return fmt.Sprintf("%X", b) }

// inRange reports whether b has Size bytes and 1 < b < N-1. Its time does not depend on the
// number.
func (f *field) inRange(b []byte) bool {
	if len(b) != f.Size() {
		return false
	}
	return less(f.one, b)&less(b, f.minusOne) == 1
}

// less returns 1 if x < y and 0 if not, for big-endian numbers of equal length. Its time
// depends on the length only.
func less(x, y []byte) int {
	borrow := 0
	for i, v := range slices.Backward(x) {
		borrow = (int(v) - int(y[i]) - borrow) >> 8 & 1
	}
	return borrow
}

// isZero reports whether all bytes of b are 0. Its time depends on the length only.
func isZero(b []byte) bool {
	var bits byte
	for _, v := range b {
		bits |= v
	}
	return subtle.ConstantTimeByteEq(bits, 0) == 1
}
