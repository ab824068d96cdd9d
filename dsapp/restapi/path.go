package restapi

import (
	"net/url"
	"slices"
	"strings"
)

const (
	// maxDecoded is how many times a path is percent-decoded.
	maxDecoded = 4
	// maxSlashes is the maximum number of slashes in a path with dot segments or empty
	// segments. A path with more is treated as an alias.
	maxSlashes = 64
)

// pathAliases finds aliases of services: paths that are no service of the gateway, but
// that another server may take for one. Servers differ in how, and in which order, they
// treat dot segments, empty segments, path parameters, case, backslashes,
// percent-encoding and the characters at the end of a name. If a request for an alias
// were passed on, it could reach the service on a server behind the gateway without the
// gateway's checks.
//
// In whatever order a server normalizes a path, it only removes segments: empty ones and
// dots, and others only because of a double dot or at the end. So an alias has the names
// of the service among its segments, in their order, and no others unless it has a
// double dot. This also matches a few paths, with a double dot or very many slashes,
// that no server takes for a service, which does no harm.
type pathAliases struct {
	// The paths of the services are a tree with the root 0. edges are by the names of
	// segments, in folded case.
	edges map[string][]edge
	// services tells which nodes of the tree are services.
	services []bool
}

// edge leads from a node of the tree to a child.
type edge struct{ from, to int }

func newPathAliases(services []Service) pathAliases {
	d := pathAliases{edges: make(map[string][]edge), services: make([]bool, 1)}
	for _, s := range services {
		at := 0
		for name := range strings.SplitSeq(foldCase(s.Path[1:]), "/") {
			i := slices.IndexFunc(d.edges[name], func(e edge) bool { return e.from == at })
			if i < 0 {
				i = len(d.edges[name])
				d.edges[name] = append(d.edges[name], edge{at, len(d.services)})
				d.services = append(d.services, false)
			}
			at = d.edges[name][i].to
		}
		d.services[at] = true
	}
	return d
}

// match reports whether the path of u is an alias of a service.
func (d pathAliases) match(u *url.URL) bool {
	path := u.Path
	if u.Opaque != "" {
		path = u.Opaque
	}
	// Some servers decode semicolons before they decode slashes.
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
	return d.matchDecoded(path)
}

var semicolons = strings.NewReplacer("%3b", ";", "%3B", ";")

// matchWithoutParameters is matchDecoded for a path whose parameters are removed before
// it is decoded: they may contain encoded slashes.
func (d pathAliases) matchWithoutParameters(path string) bool {
	return strings.Contains(path, ";") && d.matchDecoded(decodeAll(withoutParameters(path)))
}

// matchDecoded reports whether a decoded path is an alias of a service.
func (d pathAliases) matchDecoded(path string) bool {
	if d.matchSegments(path) {
		return true
	}
	// A server may take a decoded character for the beginning of a query or fragment, or
	// for the end of a string.
	i := strings.IndexAny(path, "?#\x00")
	return i >= 0 && d.matchSegments(path[:i])
}

// matchSegments reports whether the segments of a decoded path contain those of a service.
func (d pathAliases) matchSegments(path string) bool {
	up := strings.Contains(path, "..")
	if (up || strings.Contains(path, "/.") || strings.Contains(path, "//")) && strings.Count(path, "/") > maxSlashes {
		return true
	}
	path = foldCase(path)
	reached := make([]bool, len(d.services))
	reached[0] = true
	for segment := range strings.FieldsFuncSeq(path, isSlash) {
		segment, _, _ = strings.Cut(segment, ";")
		// Windows ignores these characters at the end of a name.
		segment = strings.TrimRight(segment, ". \t\r\n\v\f")
		if segment == "" {
			continue
		}
		found := false
		// Children come before their parents, so that one segment follows one edge only.
		for _, e := range slices.Backward(d.edges[segment]) {
			if reached[e.from] {
				reached[e.to], found = true, true
				// Without a double dot the next segment has to follow this one.
				reached[e.from] = up
			}
		}
		if !found && !up {
			return false
		}
	}
	for node, isService := range d.services {
		if isService && reached[node] {
			return true
		}
	}
	return false
}

// foldCase returns s in lower case. Letters that share an upper-case letter become equal,
// such as s and the long s of Unicode.
func foldCase(s string) string { return strings.ToLower(strings.ToUpper(s)) }

// withoutParameters removes everything from the first semicolon of each segment on.
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

// decode percent-decodes a path once. Malformed escapes stay.
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

// decodeAll percent-decodes a path maxDecoded times.
func decodeAll(path string) string {
	for range maxDecoded {
		path = decode(path)
	}
	return path
}

// hexDigit returns the value of a hexadecimal digit, -1 if c is none.
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
