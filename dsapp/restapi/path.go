package restapi

import (
	"net/url"
	"slices"
	"strings"
)

// maxDecoded is how often a path is decoded in search of what another server reads.
const maxDecoded = 4

// disguises finds paths that are no service of the gateway, but that the server
// behind it may read as one, because servers differ in what they make of dot
// segments, empty segments, parameters, case, backslashes and percent-encoding, and
// in the order in which they do it. Passed on, such a request would reach the service
// there without the checks that are made here.
//
// Whatever the order, nothing but segments can get lost on the way: empty ones, dots,
// and others only by a double dot. So the names of the service are among the segments,
// in their order; without a double dot there is no other one. It is no harm that
// with a double dot a few paths are found that no server would read so.
type disguises struct {
	// services are the segments of each service, in lower case.
	services [][]string
}

func newDisguises(services []service) disguises {
	var d disguises
	for _, s := range services {
		d.services = append(d.services, segments(s.path))
	}
	return d
}

// find reports whether another server may read the path of u as that of a service.
func (d disguises) find(u *url.URL) bool {
	path := u.EscapedPath()
	if u.Opaque != "" {
		path = u.Opaque
	}
	for range maxDecoded {
		// Some cut the parameters first, and with them what would be decoded to a slash.
		if d.match(segments(decodeAll(withoutParameters(path)))) {
			return true
		}
		decoded := decode(path)
		if decoded == path {
			return false
		}
		path = decoded
	}
	return false
}

// match reports whether segments may be those of a service.
func (d disguises) match(found []string) bool {
	up := slices.Contains(found, "..")
	return slices.ContainsFunc(d.services, func(service []string) bool {
		if !up {
			return slices.Equal(service, found)
		}
		rest := found
		for _, name := range service {
			i := slices.Index(rest, name)
			if i < 0 {
				return false
			}
			rest = rest[i+1:]
		}
		return true
	})
}

// segments splits a path, without empty segments, single dots and parameters, and
// in lower case, also of the letters beyond ASCII that have one in it.
func segments(path string) []string {
	var found []string
	for segment := range strings.FieldsFuncSeq(path, isSlash) {
		segment, _, _ = strings.Cut(segment, ";")
		if segment != "" && segment != "." {
			found = append(found, strings.ToLower(strings.ToUpper(segment)))
		}
	}
	return found
}

// withoutParameters cuts every segment at its first semicolon.
func withoutParameters(path string) string {
	if !strings.Contains(path, ";") {
		return path
	}
	inside := false
	return strings.Map(func(r rune) rune {
		inside = !isSlash(r) && (inside || r == ';')
		if inside {
			return -1
		}
		return r
	}, path)
}

func isSlash(r rune) bool { return r == '/' || r == '\\' }

// decode resolves the percent-encoding of what is well-formed of it, once.
func decode(path string) string {
	if !strings.Contains(path, "%") {
		return path
	}
	decoded := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		if path[i] == '%' && i+2 < len(path) {
			if c, err := url.PathUnescape(path[i : i+3]); err == nil {
				decoded = append(decoded, c...)
				i += 2
				continue
			}
		}
		decoded = append(decoded, path[i])
	}
	return string(decoded)
}

// decodeAll is decode as often as it changes something.
func decodeAll(path string) string {
	for range maxDecoded {
		path = decode(path)
	}
	return path
}
