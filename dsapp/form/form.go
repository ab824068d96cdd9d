// Package form defines the values that the gateway takes from outside: identifiers, serial
// numbers, user names, keys and so on. Each is a string type with a Rule that says which
// lengths and characters are allowed.
//
// Parse is called once, where a value enters the gateway. From there on, the type proves
// that the value complies with its rule, and no other package checks it again. The empty
// value of a type stands for an optional value that is absent.
//
// Subject and Sealed are plain structs without rules. They hold values that other parts of
// the gateway or an authentication server have supplied.
package form

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Value is a string type with a rule.
type Value interface {
	~string
	// Rule returns the rule of the type. It does not depend on the value.
	Rule() Rule
}

// Rule says which texts are values of a type.
type Rule struct {
	// Min and Max limit the length, in characters.
	Min, Max int
	// Characters are the allowed characters.
	Characters Characters
	// Values are the only allowed texts, if there are any.
	Values []string
	// Condition says what else is asked of a text, in words that follow "must have"; empty if
	// nothing is.
	Condition string
	// pattern is a regular expression for the whole text, if it says more than Characters. A
	// limit in bytes, which no pattern can express, is in Condition only.
	pattern string
	// further checks a text whose length and characters are right. It returns what is
	// wrong, or the empty string. It may be nil.
	further func(string) string
}

// Describe returns the rule in words, such as "1 to 22 characters; must consist of A-Z, a-z,
// 0-9 and '-'".
func (r Rule) Describe() string {
	if r.Values != nil {
		return strings.Join(r.Values, " or ")
	}
	text := fmt.Sprintf("%d to %d characters", r.Min, r.Max)
	if r.Min == 0 {
		text = fmt.Sprintf("up to %d characters", r.Max)
	}
	if r.Characters.problem != "" {
		text += "; " + r.Characters.problem
	}
	if r.Condition != "" {
		text += "; must have " + r.Condition
	}
	return text
}

// Pattern returns a regular expression for the whole text, in the syntax of JSON Schema. It
// says nothing about the length.
func (r Rule) Pattern() string {
	if r.pattern != "" {
		return r.pattern
	}
	return "^" + r.Characters.Pattern + "*$"
}

// Parse returns s as a value of type T. If s does not comply with the rule of T, the error
// is a Problem.
func Parse[T Value](s string) (T, error) {
	var value T
	if problem := value.Rule().problem(s); problem != "" {
		return value, Problem(problem)
	}
	return T(s), nil
}

// Problem is an error that says what is wrong with a value, such as "must not be empty".
// The caller puts the name of the value before it. It never contains the value.
type Problem string

func (p Problem) Error() string { return string(p) }

func (r Rule) problem(s string) string {
	length, problem := r.Characters.count(s)
	if problem == "" {
		problem = r.LengthProblem(length)
	}
	if problem != "" {
		return problem
	}
	if r.further == nil {
		return ""
	}
	return r.further(s)
}

// LengthProblem returns what is wrong with a length in characters, or the empty string if
// the length is allowed.
func (r Rule) LengthProblem(length int) string {
	switch {
	case length >= r.Min && length <= r.Max:
		return ""
	case r.Min == r.Max:
		return fmt.Sprintf("must have %d characters", r.Max)
	case length > r.Max && r.Min == 0:
		return fmt.Sprintf("must not have more than %d characters", r.Max)
	case length == 0:
		return "must not be empty"
	}
	return fmt.Sprintf("must have %d to %d characters", r.Min, r.Max)
}

// Characters is a set of characters.
type Characters struct {
	// Pattern is a regular expression for one character of the set, in the syntax of JSON
	// Schema.
	Pattern string
	problem string // of a text with other characters
	// ascii has the allowed bytes of ASCII, and others says which other characters are
	// allowed; nil for none.
	ascii  *[256]bool
	others func(rune) bool
}

// count returns the number of characters of s. If they are not all in the set, it returns what
// is wrong.
func (c Characters) count(s string) (n int, problem string) {
	for n < len(s) && c.ascii[s[n]] {
		n++
	}
	if n == len(s) {
		return n, ""
	}
	if !utf8.ValidString(s) {
		return 0, "must be valid UTF-8"
	}
	for _, r := range s[n:] {
		if !c.allowed(r) {
			return 0, c.problem
		}
		n++
	}
	return n, ""
}

// contain reports whether s is valid UTF-8 and all its characters are in the set.
func (c Characters) contain(s string) bool {
	_, problem := c.count(s)
	return problem == ""
}

// allowed reports whether a character is in the set.
func (c Characters) allowed(r rune) bool {
	if r < utf8.RuneSelf {
		return c.ascii[r]
	}
	return c.others != nil && c.others(r)
}

var (
	// text excludes what cannot be forwarded unchanged: XML 1.0 has no representation for
	// most control characters and for U+FFFE and U+FFFF.
	text = Characters{
		Pattern: `[^\u0000-\u001F\u007F-\u009F\uFFFE\uFFFF]`,
		problem: "must not contain control characters",
		ascii:   ascii(" -~"),
		others:  func(r rune) bool { return !unicode.IsControl(r) && r != '\uFFFE' && r != '\uFFFF' },
	}
	anything     = Characters{Pattern: `[\s\S]`, ascii: ascii("\x00-\x7F"), others: func(rune) bool { return true }}
	identifier   = class(`A-Za-z0-9._-`, "must consist of A-Z, a-z, 0-9, '.', '_' and '-'")
	serial       = class(`A-Za-z0-9-`, "must consist of A-Z, a-z, 0-9 and '-'")
	alphanumeric = class(`A-Za-z0-9`, "must consist of A-Z, a-z and 0-9")
	lowercase    = class(`a-z`, "must consist of a-z")
	hexadecimal  = class(`0-9A-Fa-f`, "must consist of hexadecimal digits")
	decimal      = class(`0-9`, "must consist of decimal digits")
	printable    = class(` -~`, "must consist of printable characters of ASCII")
	visible      = class(`!-~`, "must consist of printable characters of ASCII without spaces")
)

// class returns the characters of a class of ASCII.
func class(class, problem string) Characters {
	return Characters{Pattern: "[" + class + "]", problem: problem, ascii: ascii(class)}
}

// ascii returns the bytes of a class such as "a-z_-". A hyphen at the end stands for itself.
func ascii(class string) *[256]bool {
	var allowed [256]bool
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
	return &allowed
}

// IsHex reports whether s consists of hexadecimal digits, at least one.
func IsHex(s string) bool { return s != "" && hexadecimal.contain(s) }

// IsPrintable reports whether s consists of printable ASCII characters. The empty string
// does.
func IsPrintable(s string) bool { return printable.contain(s) }

// IsUTF8 reports whether a charset parameter or an XML encoding declaration names UTF-8 or
// ASCII, which is a subset of it.
func IsUTF8(charset string) bool {
	switch strings.ToLower(charset) {
	case "utf-8", "utf8", "us-ascii", "ascii":
		return true
	}
	return false
}
