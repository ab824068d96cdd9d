package restapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"
)

// maxDepth is how deep objects and arrays of a request may be nested. No service
// has more than one level.
const maxDepth = 16

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

// composite stands for an object or an array, which no member takes.
type composite struct{}

// decodeObject reads a body that is one JSON object (RFC 8259) and returns its
// members: a string, json.Number, bool, composite or nil each. Names are compared
// exactly and after their escapes are resolved. Stricter than the RFC asks for,
// names must be unique in every object and escaped surrogates paired, since
// parsers differ on both, and what is checked here must be what others read.
func decodeObject(body []byte) (map[string]any, error) {
	if !utf8.Valid(body) {
		return nil, bodyError("must be UTF-8")
	}
	if !json.Valid(body) {
		return nil, bodyError("must be a JSON object and nothing else")
	}
	if !surrogatesPaired(body) {
		return nil, bodyError("must not contain half of a surrogate pair")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, bodyError("must be a JSON object and nothing else")
	}
	members := make(map[string]any)
	// One set of names per open object, nil per open array.
	open := []map[string]struct{}{make(map[string]struct{})}
	name, named := "", false
	for len(open) > 0 {
		token, err := d.Token()
		if err != nil {
			return nil, bodyError("must be a JSON object and nothing else")
		}
		names := open[len(open)-1]
		if token == json.Delim('}') || token == json.Delim(']') {
			open, named = open[:len(open)-1], false
			continue
		}
		if names != nil && !named {
			n := token.(string)
			if _, duplicate := names[n]; duplicate {
				if len(open) > 1 {
					return nil, bodyError("contains a member twice")
				}
				return nil, &duplicateError{name: n}
			}
			names[n] = struct{}{}
			named = true
			if len(open) == 1 {
				name = n
			}
			continue
		}
		named = false
		var value any = token
		switch token {
		case json.Delim('{'):
			value = composite{}
			open = append(open, make(map[string]struct{}))
		case json.Delim('['):
			value = composite{}
			open = append(open, nil)
		}
		if len(open) > maxDepth {
			return nil, bodyError("is nested too deeply")
		}
		if value == (composite{}) && len(open) == 2 || value != (composite{}) && len(open) == 1 {
			members[name] = value
		}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, bodyError("must be a JSON object and nothing else")
	}
	return members, nil
}

// duplicateError is a name that occurs twice in the body's object. The name is
// the client's: only the service knows whether it may be repeated in an answer.
type duplicateError struct{ name string }

func (e *duplicateError) Error() string { return "body contains a member twice" }

// surrogatesPaired reports whether every escaped surrogate of a valid JSON text
// is part of a pair. encoding/json would silently replace it.
func surrogatesPaired(text []byte) bool {
	for i := bytes.IndexByte(text, '\\'); i >= 0 && i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		i++ // The escape's letter; a valid text has one.
		if text[i] != 'u' {
			continue
		}
		unit := codeUnit(text[i+1:])
		i += 4
		switch {
		case unit >= 0xDC00 && unit <= 0xDFFF:
			return false
		case unit >= 0xD800 && unit <= 0xDBFF:
			rest := text[i+1:]
			if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
				return false
			}
			if low := codeUnit(rest[2:]); low < 0xDC00 || low > 0xDFFF {
				return false
			}
			i += 6
		}
	}
	return true
}

// codeUnit reads the four hex digits of an escape.
func codeUnit(digits []byte) uint64 {
	unit, err := strconv.ParseUint(string(digits[:4]), 16, 16)
	if err != nil {
		return 0
	}
	return unit
}
