package restapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// service is one row of the table.
type service struct {
	// path is the whole path of the URL.
	path string
	// version is that of the answers. One service has another one in its path.
	version version
	// classes are the key classes that may call the service.
	classes   []apikey.Class
	operation gateway.Operation
	quota     quota
	// bodyOptional accepts an empty body of any media type.
	bodyOptional bool

	members []member
	results []resultMember
	// prepare checks the members of a request and returns what carries it out.
	prepare func(members map[string]any) (run, error)
}

// run carries out a checked request and returns the members of the answer.
type run func(ctx context.Context, o Operations, c gateway.Caller) ([]field, error)

// quota is the limit that counts the calls of a service. Each row of the table
// names one: the zero value is none of them.
type quota int

const (
	_ quota = iota
	// exchanges and proofs count the first and the second calls of an exchange
	// per client address, whichever application they are made with.
	exchanges
	proofs
	// registrations are counted per application.
	registrations
	// calls counts all other services together, per client address, for keys of
	// front ends only.
	calls
	// unasked counts with calls; no authentication server is asked.
	unasked
)

// atServers reports whether an authentication server carries the service out.
func (q quota) atServers(relayedExchange bool) bool {
	switch q {
	case exchanges, proofs:
		return relayedExchange
	default:
		return q != unasked
	}
}

// name is what logs and metrics call the service.
func (s *service) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(s.path, "/rest/"), "v2/")
}

// maxMember is the length of the longest member, in characters.
const maxMember = 1070

// member describes one member of a request. All members are strings.
type member struct {
	name     string
	target   gateway.Member
	required bool
	// min and max are the limits of the length, in characters; max is not above
	// maxMember.
	min, max int
	format   format
}

// format is a rule on the characters of a member.
type format struct {
	// pattern is the rule as a regular expression for one character.
	pattern string
	// problem completes the sentence "<member> ...".
	problem string
	// allowed tells whether a character may occur.
	allowed func(rune) bool
}

// The formats.
var (
	// text is what can be forwarded unchanged: most control characters and the
	// two noncharacters have no form in XML 1.0.
	text = format{
		pattern: `[^\u0000-\u001F\u007F-\u009F\uFFFE\uFFFF]`,
		problem: "must not contain control characters",
		allowed: func(r rune) bool { return !unicode.IsControl(r) && r != '\uFFFE' && r != '\uFFFF' },
	}
	anything     = format{pattern: `[\s\S]`, allowed: func(rune) bool { return true }}
	identifier   = characters(`A-Za-z0-9._-`, "must consist of A-Z, a-z, 0-9, '.', '_' and '-'")
	serial       = characters(`A-Za-z0-9-`, "must consist of A-Z, a-z, 0-9 and '-'")
	alphanumeric = characters(`A-Za-z0-9`, "must consist of A-Z, a-z and 0-9")
	lowercase    = characters(`a-z`, "must consist of a-z")
	hexadecimal  = characters(`0-9A-Fa-f`, "must consist of hexadecimal digits")
	decimal      = characters(`0-9`, "must consist of decimal digits")
)

// characters returns the format of the ASCII characters in a class such as
// "a-z_-". A hyphen at the end stands for itself.
func characters(class, problem string) format {
	var allowed [utf8.RuneSelf]bool
	for i := 0; i < len(class); i++ {
		last := class[i]
		if i+2 < len(class) && class[i+1] == '-' {
			last = class[i+2]
		}
		for c := int(class[i]); c <= int(last); c++ {
			allowed[c] = true
		}
		if last != class[i] {
			i += 2
		}
	}
	return format{
		pattern: "[" + class + "]",
		problem: problem,
		allowed: func(r rune) bool { return r < utf8.RuneSelf && allowed[r] },
	}
}

// take returns the member's value among those of a request; a member that is
// null counts as missing.
func (m *member) take(members map[string]any) (string, error) {
	switch value := members[m.name].(type) {
	case nil:
		if m.required {
			return "", &requestError{member: m.name, problem: "is missing"}
		}
		return "", nil
	case string:
		return value, m.check(value)
	case overlong:
		return "", m.wrongLength(maxMember + 1)
	default:
		return "", &requestError{member: m.name, problem: "must be a string"}
	}
}

// check tells what is wrong with a value; nil if nothing is.
func (m *member) check(value string) error {
	if strings.ContainsFunc(value, func(r rune) bool { return !m.format.allowed(r) }) {
		return &requestError{member: m.name, problem: m.format.problem}
	}
	if length := utf8.RuneCountInString(value); length < m.min || length > m.max {
		return m.wrongLength(length)
	}
	return nil
}

// wrongLength tells what is wrong with a length.
func (m *member) wrongLength(length int) error {
	problem := fmt.Sprintf("must have %d to %d characters", m.min, m.max)
	switch {
	case m.min == m.max:
		problem = fmt.Sprintf("must have %d characters", m.max)
	case length > m.max && m.min == 0:
		problem = fmt.Sprintf("must not have more than %d characters", m.max)
	case length == 0:
		problem = "must not be empty"
	}
	return &requestError{member: m.name, problem: problem}
}

// misspelt finds a member that is not there, but under a name that looks much like
// its own. Unknown names are ignored: without this an optional member would be, too,
// and the request carried out without it.
func (s *service) misspelt(members map[string]any) error {
	var unknown []string // their letters
	for name := range members {
		if !slices.ContainsFunc(s.members, func(m member) bool { return m.name == name }) {
			unknown = append(unknown, letters(name))
		}
	}
	if unknown == nil {
		return nil
	}
	for _, m := range s.members {
		if _, there := members[m.name]; there {
			continue
		}
		wanted := letters(m.name)
		if slices.ContainsFunc(unknown, func(name string) bool { return alike(name, wanted) }) {
			return &requestError{member: m.name, problem: "must be spelt exactly like that"}
		}
	}
	return nil
}

// maxName is above the length of the longest name of a member by more than what is
// alike, in bytes.
const maxName = 32

// letters is a name without what writers of names differ in. Of a long one it is no
// more than shows that the name is like that of no member.
func letters(name string) string {
	text := make([]byte, 0, maxName+utf8.UTFMax)
	for _, r := range name {
		if r == '_' || r == '-' {
			continue
		}
		if text = utf8.AppendRune(text, unicode.ToLower(r)); len(text) >= maxName {
			break
		}
	}
	return string(text)
}

// alike reports whether at most one character of a has to be changed, added or left
// out to get b.
func alike(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	same := 0
	for same < len(a) && a[same] == b[same] {
		same++
	}
	switch len(b) - len(a) {
	case 0:
		return same == len(a) || a[same+1:] == b[same+1:]
	case 1:
		return a[same:] == b[same+1:]
	}
	return false
}

// kind is the type of a member of an answer.
type kind string

const (
	kindString  kind = "string"
	kindInteger kind = "integer"
	kindTime    kind = "date-time"
	kindObject  kind = "object"
)

// resultMember describes one member of an answer.
type resultMember struct {
	name string
	kind kind
	// optional members are absent where they do not apply.
	optional bool
	members  []resultMember // of kindObject
}

// in binds a member to its place in a request.
type in[Q any] struct {
	member
	field func(*Q) *string
}

// out binds a member of an answer to its value: a string, an int64 or fields.
// The member is absent if value reports false.
type out[R any] struct {
	resultMember
	value func(R) (any, bool)
}

// define completes a row with its members and its operation.
func define[Q, R any](s service, call func(Operations, context.Context, gateway.Caller, Q) (R, error), request []in[Q], result []out[R]) service {
	for _, m := range request {
		s.members = append(s.members, m.member)
	}
	for _, m := range result {
		s.results = append(s.results, m.resultMember)
	}
	s.prepare = func(members map[string]any) (run, error) {
		var q Q
		for i := range request {
			value, err := request[i].take(members)
			if err != nil {
				return nil, err
			}
			*request[i].field(&q) = value
		}
		if err := s.misspelt(members); err != nil {
			return nil, err
		}
		return func(ctx context.Context, o Operations, c gateway.Caller) ([]field, error) {
			r, err := call(o, ctx, c, q)
			if err != nil {
				return nil, err
			}
			fields := make([]field, 0, len(result))
			for _, m := range result {
				if value, ok := m.value(r); ok {
					fields = append(fields, field{m.name, value})
				}
			}
			return fields, nil
		}, nil
	}
	return s
}
