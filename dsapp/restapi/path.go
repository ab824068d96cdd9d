package restapi

import (
	"net/url"
	"slices"
	"strings"
)

const (
	// maxDecoded is how often a path is decoded in search of what another server reads.
	maxDecoded = 4
	// maxSlashes is how many slashes of a path with dot segments or empty ones are
	// looked at. One with more is nothing that anybody needs.
	maxSlashes = 64
)

// disguises finds paths that are no service of the gateway, but that the server
// behind it may read as one, because servers differ in what they make of dot
// segments, empty segments, parameters, case, backslashes, percent-encoding and the
// end of a name, and in the order in which they do it. Passed on, such a request would
// reach the service there without the checks that are made here.
//
// Whatever the order, nothing but segments can get lost on the way: empty ones, dots,
// and others only by a double dot or at the end. So the names of the service are among
// the segments, in their order; without a double dot there is no other one. It is no
// harm that with a double dot, or with very many slashes, a few paths are found that no
// server would read so.
type disguises struct {
	// The paths of the services are a tree. steps are its branches, by their names in
	// lower case; node 0 is the root.
	steps map[string][]step
	// services tells which nodes are services.
	services []bool
}

// step leads from one node of the tree to another.
type step struct{ from, to int }

func newDisguises(services []service) disguises {
	d := disguises{steps: make(map[string][]step), services: make([]bool, 1)}
	for _, s := range services {
		at := 0
		for name := range strings.SplitSeq(folded(s.path[1:]), "/") {
			i := slices.IndexFunc(d.steps[name], func(s step) bool { return s.from == at })
			if i < 0 {
				i = len(d.steps[name])
				d.steps[name] = append(d.steps[name], step{at, len(d.services)})
				d.services = append(d.services, false)
			}
			at = d.steps[name][i].to
		}
		d.services[at] = true
	}
	return d
}

// find reports whether another server may read the path of u as that of a service.
func (d disguises) find(u *url.URL) bool {
	path := u.Path
	if u.Opaque != "" {
		path = u.Opaque
	}
	// Some decode a semicolon before they decode a slash.
	if d.matchWithoutParameters(semicolons.Replace(u.RawPath)) {
		return true
	}
	for range maxDecoded {
		if d.matchWithoutParameters(path) {
			return true
		}
		decoded := decode(path)
		if decoded == path {
			break
		}
		path = decoded
	}
	return d.match(path)
}

var semicolons = strings.NewReplacer("%3b", ";", "%3B", ";")

// matchWithoutParameters is match for a path of which the parameters are cut before it
// is decoded, and with them what would be decoded to a slash.
func (d disguises) matchWithoutParameters(path string) bool {
	return strings.Contains(path, ";") && d.match(decodeAll(withoutParameters(path)))
}

// match reports whether a decoded path may be that of a service.
func (d disguises) match(path string) bool {
	if d.leads(path) {
		return true
	}
	// What was decoded may be passed on as it is: a query begins there, or a text ends.
	i := strings.IndexAny(path, "?#\x00")
	return i >= 0 && d.leads(path[:i])
}

// leads reports whether the segments of a path may lead to a service.
func (d disguises) leads(path string) bool {
	up := strings.Contains(path, "..")
	if (up || strings.Contains(path, "/.") || strings.Contains(path, "//")) && strings.Count(path, "/") > maxSlashes {
		return true
	}
	path = folded(path)
	reached := make([]bool, len(d.services))
	reached[0] = true
	for segment := range strings.FieldsFuncSeq(path, isSlash) {
		segment, _, _ = strings.Cut(segment, ";")
		// Windows drops what comes at the end.
		segment = strings.TrimRight(segment, ". \t\r\n\v\f")
		if segment == "" {
			continue
		}
		found := false
		// From the leaves, so that one segment is one step.
		for _, s := range slices.Backward(d.steps[segment]) {
			if reached[s.from] {
				reached[s.to], found = true, true
				// Without a double dot no other name can follow here.
				reached[s.from] = up
			}
		}
		if !found && !up {
			return false
		}
	}
	for node, is := range d.services {
		if is && reached[node] {
			return true
		}
	}
	return false
}

// folded is s in one case, also where letters beyond ASCII have the same capital.
func folded(s string) string { return strings.ToLower(strings.ToUpper(s)) }

// withoutParameters cuts every segment at its first semicolon.
func withoutParameters(path string) string {
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
		c := path[i]
		if c == '%' && i+2 < len(path) {
			high, low := hexDigit(path[i+1]), hexDigit(path[i+2])
			if high >= 0 && low >= 0 {
				c = byte(high<<4 | low)
				i += 2
			}
		}
		decoded = append(decoded, c)
	}
	return string(decoded)
}

// decodeAll is decode as often as it changes something, within limits.
func decodeAll(path string) string {
	for range maxDecoded {
		path = decode(path)
	}
	return path
}

// hexDigit is the value of a hexadecimal digit, -1 if c is none.
func hexDigit(c byte) rune {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return rune(c | 0x20 - 'a' + 10)
	default:
		return -1
	}
}
