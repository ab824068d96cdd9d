package restapi

import (
	"context"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
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
	required bool
	rule     form.Rule
}

// take returns the member's value among those of a request, and whether it is there; a
// member that is null counts as missing.
func (m *member) take(members map[string]any) (value string, there bool, err error) {
	switch value := members[m.name].(type) {
	case nil:
		if m.required {
			return "", false, &requestError{member: m.name, problem: "is missing"}
		}
		return "", false, nil
	case string:
		if m.required && value == "" {
			return "", false, &requestError{member: m.name, problem: "must not be empty"}
		}
		return value, true, nil
	case overlong:
		return "", false, &requestError{member: m.name, problem: m.rule.LengthProblem(maxMember + 1)}
	default:
		return "", false, &requestError{member: m.name, problem: "must be a string"}
	}
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
	set func(q *Q, value string) error
}

// need binds a member that must be there.
func need[Q any, T form.Value](name string, field func(*Q) *T) in[Q] {
	i := may(name, field)
	i.required = true
	return i
}

// may binds a member that may be left out.
func may[Q any, T form.Value](name string, field func(*Q) *T) in[Q] {
	var value T
	return in[Q]{member{name: name, rule: value.Rule()}, func(q *Q, value string) (err error) {
		*field(q), err = form.Parse[T](value)
		if err != nil {
			return &requestError{member: name, problem: err.Error()}
		}
		return nil
	}}
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
			value, there, err := request[i].take(members)
			if err != nil {
				return nil, err
			}
			if !there {
				continue
			}
			if err := request[i].set(&q, value); err != nil {
				return nil, err
			}
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
