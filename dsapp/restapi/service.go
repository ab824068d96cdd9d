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

// Service is one row of the table.
type Service struct {
	// Path is the complete path of the URL.
	Path string
	// Version is that of the answers. It follows from the path but for one service.
	Version Version
	// Classes are the key classes that may call the service.
	Classes   []apikey.Class
	Operation gateway.Operation
	// Channel is how the key of a pending request reaches the phone; empty for other services.
	Channel Channel
	// BodyOptional means that the body may be empty, and of any media type then.
	BodyOptional bool
	// Keyed means that a client may name the request by an idempotency key, see KeyField, so that
	// it can repeat the request.
	Keyed bool
	// Deprecated means that a service of version 2 replaces this one.
	Deprecated bool

	Description
	Members []Member
	// ExactlyOne are optional members of which a request has exactly one.
	ExactlyOne []string
	Results    []Result

	quota quota
	// prepare checks the members of a request and returns the function that carries it
	// out.
	prepare func(members) (run, error)
}

// Channel is how the key of a pending request reaches a phone.
type Channel string

// The channels.
const (
	// Push is a push notification.
	Push Channel = "push"
	// Scan is an image that the phone scans.
	Scan Channel = "scan"
)

// run carries out a checked request and returns the members of its answer.
type run func(ctx context.Context, o Operations, c gateway.Caller) ([]field, error)

// quota tells which of the Limits counts the calls of a service. The zero value is
// invalid, so that no row of the table can lack one.
type quota int

const (
	_ quota = iota
	// exchanges and proofs count the first and the second calls of activation exchanges
	// per client address.
	exchanges
	proofs
	// registrations counts registrations per application.
	registrations
	// calls counts the calls of all other services together, per client address, for
	// front-end keys only.
	calls
	// localCalls are counted with calls, but no authentication server is involved.
	localCalls
)

// usesServers reports whether an authentication server carries the service out.
func (q quota) usesServers(relayedExchange bool) bool {
	switch q {
	case exchanges, proofs:
		return relayedExchange
	default:
		return q != localCalls
	}
}

// Name returns the name of the service in logs and metrics.
func (s *Service) Name() string {
	return strings.TrimPrefix(strings.TrimPrefix(s.Path, "/rest/"), "v2/")
}

// maxMember is the length limit of the longest member, in characters.
const maxMember = 2050

// Meaning says what a member is for.
type Meaning struct {
	// Text is one or a few sentences.
	Text string
	// Example is a value; empty for a member that examples leave out.
	Example string
}

// Member describes one member of a request. All members are strings.
type Member struct {
	Name     string
	Required bool
	Rule     form.Rule
	Meaning
}

// value returns the member's value in a request, and whether the member is present. A
// member that is null counts as missing.
func (m *Member) value(request members) (value string, present bool, err error) {
	text := request.find(m.Name)
	switch {
	case text == nil || text[0] == 'n':
		if m.Required {
			return "", false, &requestError{member: m.Name, problem: "is missing"}
		}
		return "", false, nil
	case text[0] != '"':
		return "", false, &requestError{member: m.Name, problem: "must be a string"}
	case len(text) > maxString:
		return "", false, &requestError{member: m.Name, problem: m.Rule.LengthProblem(maxMember + 1)}
	}
	value = string(unquote(text))
	if m.Required && value == "" {
		return "", false, &requestError{member: m.Name, problem: "must not be empty"}
	}
	return value, true, nil
}

// checkSpelling returns an error if a member is missing while the request has an unknown
// member with a similar name. As unknown members are ignored, a request with a misspelt
// optional member would otherwise be carried out without it.
func (s *Service) checkSpelling(request members) error {
	var unknown []string // normalized names
	for _, sent := range request {
		if !slices.ContainsFunc(s.Members, func(m Member) bool { return m.Name == string(sent.name) }) {
			unknown = append(unknown, normalizeName(string(sent.name)))
		}
	}
	if unknown == nil {
		return nil
	}
	for _, m := range s.Members {
		if request.find(m.Name) != nil {
			continue
		}
		normalized := normalizeName(m.Name)
		if slices.ContainsFunc(unknown, func(name string) bool { return similar(name, normalized) }) {
			return &requestError{member: m.Name, problem: "must be spelt exactly like that"}
		}
	}
	return nil
}

// maxName is the length to which normalizeName cuts names, in bytes. No name of a member
// is that long, even with one more character.
const maxName = 32

// normalizeName returns a name in lower case without '_' and '-'. Long names are cut.
func normalizeName(name string) string {
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

// similar reports whether a and b differ in at most one character that is changed, added
// or left out.
func similar(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	prefix := 0
	for prefix < len(a) && a[prefix] == b[prefix] {
		prefix++
	}
	switch len(b) - len(a) {
	case 0:
		return prefix == len(a) || a[prefix+1:] == b[prefix+1:]
	case 1:
		return a[prefix:] == b[prefix+1:]
	}
	return false
}

// Kind is the type of a member of an answer.
type Kind string

// The kinds.
const (
	KindString  Kind = "string"
	KindInteger Kind = "integer"
	KindTime    Kind = "date-time"
	KindObject  Kind = "object"
)

// Result describes one member of an answer.
type Result struct {
	Name     string
	Kind     Kind
	Optional bool     // may be absent
	Members  []Result // of KindObject
	Meaning
}

// inputMember binds a member to a field of the operation's request type Q.
type inputMember[Q any] struct {
	Member
	set func(q *Q, value string) error
}

// required returns the binding of a required member.
func required[Q any, T form.Value](name string, means Meaning, field func(*Q) *T) inputMember[Q] {
	i := optional(name, means, field)
	i.Required = true
	return i
}

// optional returns the binding of an optional member.
func optional[Q any, T form.Value](name string, means Meaning, field func(*Q) *T) inputMember[Q] {
	var value T
	return inputMember[Q]{Member{Name: name, Rule: value.Rule(), Meaning: means}, func(q *Q, value string) (err error) {
		*field(q), err = form.Parse[T](value)
		if err != nil {
			return &requestError{member: name, problem: err.Error()}
		}
		return nil
	}}
}

// outputMember binds a member of an answer to its value in the operation's result type
// R. The member is left out if value returns false.
type outputMember[R any] struct {
	Result
	value func(R) (content, bool)
}

// define returns s with the members of its requests and answers, and with the operation
// that carries it out.
func define[Q, R any](s Service, call func(Operations, context.Context, gateway.Caller, Q) (R, error), request []inputMember[Q], result []outputMember[R]) Service {
	s.Description = describe(s.Operation)
	s.Deprecated = !strings.HasPrefix(s.Path, "/rest/v2/")
	for _, m := range request {
		s.Members = append(s.Members, m.Member)
	}
	for _, m := range result {
		s.Results = append(s.Results, m.Result)
	}
	s.prepare = func(sent members) (run, error) {
		var q Q
		known := 0
		for i := range request {
			value, present, err := request[i].value(sent)
			if err != nil {
				return nil, err
			}
			if !present {
				continue
			}
			known++
			if err := request[i].set(&q, value); err != nil {
				return nil, err
			}
		}
		if known < len(sent) {
			if err := s.checkSpelling(sent); err != nil {
				return nil, err
			}
		}
		return func(ctx context.Context, o Operations, c gateway.Caller) ([]field, error) {
			r, err := call(o, ctx, c, q)
			if err != nil {
				return nil, err
			}
			fields := make([]field, 0, len(result))
			for _, m := range result {
				if value, ok := m.value(r); ok {
					fields = append(fields, field{m.Name, m.Kind, value})
				}
			}
			return fields, nil
		}, nil
	}
	return s
}
