package restapi

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxDepth limits how deeply objects and arrays of a request may be nested. No service
	// needs more than one level.
	maxDepth = 16
	// maxMembers limits the number of members of all objects of a request together. No
	// service has more than six.
	maxMembers = 64
	// usualMembers is room for the members of most requests.
	usualMembers = 8
	// maxElements limits the number of elements of all arrays of a request together. No
	// service has an array.
	maxElements = 1024
	// maxString is the length of the longest JSON string that can be the value of a
	// member, in bytes: each character as two escapes of six bytes.
	maxString = 12*maxMember + 2
)

// requestError is an error about a request. Its text may name a member of the service and
// contains nothing else from the request.
type requestError struct {
	member  string // empty for an error about the whole body
	problem string
}

func (e *requestError) Error() string {
	if e.member == "" {
		return "body " + e.problem
	}
	return e.member + " " + e.problem
}

func bodyError(problem string) error { return &requestError{problem: problem} }

// duplicateError is a name that occurs twice in the body's object. An answer may contain
// the name only if it is that of a member of the service.
type duplicateError struct{ name string }

func (e *duplicateError) Error() string { return errTwice.Error() }

// Errors about the whole body.
var (
	errNotUTF8   = bodyError("must be UTF-8")
	errNotObject = bodyError("must be a JSON object and nothing else")
	errSurrogate = bodyError("must not contain half of a surrogate pair")
	errTwice     = bodyError("contains a member twice")
	errTooDeep   = bodyError("is nested too deeply")
	errTooMany   = bodyError("has too many members")
	errTooLong   = bodyError("has too many elements of arrays")
)

// members are the members of a request in their order. Their names are unique.
type members []member

// member is a member of a request: its name, with escapes resolved, and its value, a valid
// JSON text. Both refer to the body where they can.
type member struct{ name, value []byte }

// find returns the value of a member, or nil if there is none.
func (m members) find(name string) []byte {
	for i := range m {
		if string(m[i].name) == name {
			return m[i].value
		}
	}
	return nil
}

// decodeObject decodes a body that is one JSON object (RFC 8259). It is stricter than the
// RFC: names, with their escapes resolved, must be unique in every object, and escaped
// surrogates must be paired. Parsers differ in both, and other servers must read the same
// that is checked here.
//
// It reads the body once and stops at the first error, so that its cost is proportional
// to the length of the body. A byte order mark at the beginning is skipped.
func decodeObject(body []byte) (members, error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	if !utf8.Valid(body) {
		return nil, errNotUTF8
	}
	s := scanner{text: body}
	if s.next() != '{' {
		return nil, errNotObject
	}
	decoded := make(members, 0, usualMembers)
	err := s.object(1, func(name []byte) error {
		// maxMembers keeps the search short.
		if slices.ContainsFunc(decoded, func(m member) bool { return bytes.Equal(m.name, name) }) {
			return &duplicateError{string(name)}
		}
		s.next()
		start := s.at
		if err := s.value(1); err != nil {
			return err
		}
		decoded = append(decoded, member{name, s.text[start:s.at]})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if s.next(); s.at < len(s.text) {
		return nil, errNotObject
	}
	return decoded, nil
}

// unquote returns the value of a valid JSON string. Without escapes, it is a part of text.
func unquote(text []byte) []byte {
	text = text[1 : len(text)-1]
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	value := make([]byte, 0, len(text))
	for len(text) > 0 {
		if text[0] != '\\' {
			n := bytes.IndexByte(text, '\\')
			if n < 0 {
				n = len(text)
			}
			value, text = append(value, text[:n]...), text[n:]
			continue
		}
		unit, ok := codeUnit(text)
		if !ok {
			value, text = append(value, escaped[text[1]]), text[2:]
			continue
		}
		text = text[6:]
		if utf16.IsSurrogate(unit) {
			low, _ := codeUnit(text)
			unit, text = utf16.DecodeRune(unit, low), text[6:]
		}
		value = utf8.AppendRune(value, unit)
	}
	return value
}

// escaped maps the letters of two-character escapes to their characters.
var escaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// codeUnit returns the value of an escape \uXXXX at the beginning of a text.
func codeUnit(text []byte) (unit rune, ok bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	for _, c := range text[2:6] {
		digit := hexDigit(c)
		if digit < 0 {
			return 0, false
		}
		unit = unit<<4 | digit
	}
	return unit, true
}

// scanner checks a JSON text in UTF-8 from left to right. It cannot be used after an
// error.
type scanner struct {
	text              []byte
	at                int
	members, elements int // of all objects and arrays so far
}

// next skips white space and returns the byte that follows, 0 at the end.
func (s *scanner) next() byte {
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// value reads the next value. depth is the number of objects and arrays around it.
func (s *scanner) value(depth int) error {
	switch s.next() {
	case '{':
		// maxMembers keeps the search short.
		var names [][]byte
		return s.object(depth+1, func(name []byte) error {
			if slices.ContainsFunc(names, func(other []byte) bool { return bytes.Equal(name, other) }) {
				return errTwice
			}
			names = append(names, name)
			return s.value(depth + 1)
		})
	case '[':
		return s.items(depth+1, ']', func() error {
			if s.elements++; s.elements > maxElements {
				return errTooLong
			}
			return s.value(depth + 1)
		})
	case '"':
		return s.string()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

// object reads an object from its opening brace on. It calls member with each name;
// member reads the value.
func (s *scanner) object(depth int, member func(name []byte) error) error {
	return s.items(depth, '}', func() error {
		if s.members++; s.members > maxMembers {
			return errTooMany
		}
		if s.next() != '"' {
			return errNotObject
		}
		start := s.at
		if err := s.string(); err != nil {
			return err
		}
		name := unquote(s.text[start:s.at])
		if s.next() != ':' {
			return errNotObject
		}
		s.at++
		return member(name)
	})
}

// items reads an object or array from its opening to its closing bracket. It calls item
// to read each member or element.
func (s *scanner) items(depth int, closing byte, item func() error) error {
	if depth > maxDepth {
		return errTooDeep
	}
	s.at++
	if s.next() == closing {
		s.at++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		switch s.next() {
		case ',':
			s.at++
		case closing:
			s.at++
			return nil
		default:
			return errNotObject
		}
	}
}

// string reads a string from its quotation mark on.
func (s *scanner) string() error {
	for s.at++; s.at < len(s.text); s.at++ {
		for len(s.text)-s.at >= 8 && ordinary(binary.LittleEndian.Uint64(s.text[s.at:])) {
			s.at += 8
		}
		if s.at == len(s.text) {
			break
		}
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		case c < ' ':
			return errNotObject
		}
	}
	return errNotObject
}

// ordinary reports whether none of eight bytes is a quotation mark, a backslash or a
// control character. It subtracts from all bytes at once: the highest bit of a byte
// below 128 is set afterwards if the byte was smaller.
func ordinary(eight uint64) bool {
	const each, highest = 0x0101010101010101, 0x8080808080808080
	smaller := func(x, than uint64) uint64 { return (x - each*than) & ^x & highest }
	return smaller(eight, ' ')|smaller(eight^each*'"', 1)|smaller(eight^each*'\\', 1) == 0
}

// escape reads an escape from its backslash to its last byte.
func (s *scanner) escape() error {
	unit, ok := codeUnit(s.text[s.at:])
	if !ok {
		s.at++
		if s.at == len(s.text) || escaped[s.text[s.at]] == 0 {
			return errNotObject
		}
		return nil
	}
	s.at += 5
	if utf16.IsSurrogate(unit) {
		low, ok := codeUnit(s.text[s.at+1:])
		if !ok || utf16.DecodeRune(unit, low) == utf8.RuneError {
			return errSurrogate
		}
		s.at += 6
	}
	return nil
}

// literal reads true, false or null.
func (s *scanner) literal(name string) error {
	if !bytes.HasPrefix(s.text[s.at:], []byte(name)) {
		return errNotObject
	}
	s.at += len(name)
	return nil
}

// number reads a number.
func (s *scanner) number() error {
	s.skip('-')
	if whole := s.digits(); whole == 0 || whole > 1 && s.text[s.at-whole] == '0' {
		return errNotObject
	}
	if s.skip('.') && s.digits() == 0 {
		return errNotObject
	}
	if s.skip('e') || s.skip('E') {
		_ = s.skip('+') || s.skip('-')
		if s.digits() == 0 {
			return errNotObject
		}
	}
	return nil
}

// skip skips the next byte if it is c, and reports whether it is.
func (s *scanner) skip(c byte) bool {
	if s.at == len(s.text) || s.text[s.at] != c {
		return false
	}
	s.at++
	return true
}

// digits skips decimal digits and returns their number.
func (s *scanner) digits() int {
	start := s.at
	for s.at < len(s.text) && s.text[s.at] >= '0' && s.text[s.at] <= '9' {
		s.at++
	}
	return s.at - start
}
