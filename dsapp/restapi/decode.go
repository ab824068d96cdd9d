package restapi

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"slices"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxDepth is how deep objects and arrays of a request may be nested. No service
	// has more than one level.
	maxDepth = 16
	// maxMembers is how many members all objects of a request may have together. No
	// service knows more than six.
	maxMembers = 64
	// maxElements is how many elements all arrays of a request may have together. No
	// service knows an array.
	maxElements = 1024
	// maxString is how long the text of a string is at most that a member can take, in
	// bytes: each character of the longest member takes two escapes of six.
	maxString = 12*maxMember + 2
)

// requestError is a request that cannot be understood. Its text names a member
// of the service, or none, and never holds anything else that came with the request.
type requestError struct {
	member  string // empty if the body as a whole is meant
	problem string
}

func (e *requestError) Error() string {
	if e.member == "" {
		return "body " + e.problem
	}
	return e.member + " " + e.problem
}

func bodyError(problem string) error { return &requestError{problem: problem} }

// duplicateError is a name that occurs twice in the body's object. The name is
// the client's: only the service knows whether it may be repeated in an answer.
type duplicateError struct{ name string }

func (e *duplicateError) Error() string { return errTwice.Error() }

// What is wrong with a body as a whole.
var (
	errNotUTF8   = bodyError("must be UTF-8")
	errNotObject = bodyError("must be a JSON object and nothing else")
	errSurrogate = bodyError("must not contain half of a surrogate pair")
	errTwice     = bodyError("contains a member twice")
	errTooDeep   = bodyError("is nested too deeply")
	errTooMany   = bodyError("has too many members")
	errTooLong   = bodyError("has too many elements of arrays")
)

// composite stands for an object or an array, which no member takes.
type composite struct{}

// overlong stands for a string that is longer than any member takes.
type overlong struct{}

// decodeObject reads a body that is one JSON object (RFC 8259) and returns its
// members: a string, overlong, json.Number, bool, composite or nil each. Names are compared
// exactly and after their escapes are resolved. Stricter than the RFC asks for,
// names must be unique in every object and escaped surrogates paired, since
// parsers differ on both, and what is checked here must be what others read.
//
// It reads the body once and stops at the first violation, so that no body costs
// much more than its bytes. A byte order mark in front of it is skipped.
func decodeObject(body []byte) (map[string]any, error) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	if !utf8.Valid(body) {
		return nil, errNotUTF8
	}
	s := scanner{text: body}
	members := make(map[string]any)
	if s.next() != '{' {
		return nil, errNotObject
	}
	err := s.object(1, func(name string) error {
		if _, duplicate := members[name]; duplicate {
			return &duplicateError{name}
		}
		first, start := s.next(), s.at
		if err := s.value(1); err != nil {
			return err
		}
		members[name] = decodeValue(first, s.text[start:s.at])
		return nil
	})
	if err != nil {
		return nil, err
	}
	if s.next(); s.at < len(s.text) {
		return nil, errNotObject
	}
	return members, nil
}

// decodeValue returns the value of a valid text that begins with first.
func decodeValue(first byte, text []byte) any {
	switch first {
	case '{', '[':
		return composite{}
	case '"':
		if len(text) > maxString {
			return overlong{}
		}
		return unquote(text)
	case 't', 'f':
		return first == 't'
	case 'n':
		return nil
	default:
		return json.Number(text)
	}
}

// unquote returns the value of a valid string.
func unquote(text []byte) string {
	text = text[1 : len(text)-1]
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text)
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
	return string(value)
}

// escaped are the characters that escapes of one letter stand for.
var escaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// codeUnit reads the escape \uXXXX at the beginning of a text.
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

// scanner checks a JSON text in UTF-8 from left to right. Its errors are final.
type scanner struct {
	text []byte
	at   int
	// How many members and elements all objects and arrays had so far.
	members, elements int
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

// value reads the next value, of an object or array of the given depth.
func (s *scanner) value(depth int) error {
	switch s.next() {
	case '{':
		// Few enough to be looked through.
		var names []string
		return s.object(depth+1, func(name string) error {
			if slices.Contains(names, name) {
				return errTwice
			}
			names = append(names, name)
			return s.value(depth + 1)
		})
	case '[':
		return s.list(depth+1, ']', func() error {
			if s.elements++; s.elements > maxElements {
				return errTooLong
			}
			return s.value(depth + 1)
		})
	case '"':
		return s.string()
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

// object reads an object, which is at its brace. Each name is given to member,
// which reads the value.
func (s *scanner) object(depth int, member func(name string) error) error {
	return s.list(depth, '}', func() error {
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

// list reads an object or array, which is at its bracket, up to the closing one.
// Each item is read by the function.
func (s *scanner) list(depth int, closing byte, item func() error) error {
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

// string reads a string, which is at its quotation mark.
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
// control character. It subtracts from all bytes at once: the highest bit of one
// that was not set before is set then if the byte was smaller.
func ordinary(eight uint64) bool {
	const each, highest = 0x0101010101010101, 0x8080808080808080
	smaller := func(x, than uint64) uint64 { return (x - each*than) & ^x & highest }
	return smaller(eight, ' ')|smaller(eight^each*'"', 1)|smaller(eight^each*'\\', 1) == 0
}

// escape reads an escape, which is at its backslash, up to its last byte.
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

// word reads one of the literal names.
func (s *scanner) word(word string) error {
	if !bytes.HasPrefix(s.text[s.at:], []byte(word)) {
		return errNotObject
	}
	s.at += len(word)
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

// skip skips a byte if it is c, and reports whether it was.
func (s *scanner) skip(c byte) bool {
	if s.at == len(s.text) || s.text[s.at] != c {
		return false
	}
	s.at++
	return true
}

// digits skips decimal digits and returns how many there were.
func (s *scanner) digits() int {
	start := s.at
	for s.at < len(s.text) && s.text[s.at] >= '0' && s.text[s.at] <= '9' {
		s.at++
	}
	return s.at - start
}
