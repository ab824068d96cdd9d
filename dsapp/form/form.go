// Package form has the forms of values that come from outside. A value is parsed once,
// where it comes in. From there on its type says that it has its form, and nobody checks
// it again.
//
// A type with a rule is a string. Only Parse makes one of a text that may not comply; the
// empty value stands for an optional value that is not there. Subject and Sealed are no
// such types: they hold what others tell.
package form

import (
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Value is a type with a rule.
type Value interface {
	~string
	// Rule is that of the type, whatever the value.
	Rule() Rule
}

// Rule is what a value complies with.
type Rule struct {
	// Min and Max are the limits of the length, in characters.
	Min, Max int
	// Characters may occur.
	Characters Characters
	// also tells what is wrong with a text that complies so far, empty if nothing is.
	also func(string) string
}

// Parse returns s as a value of type T. The error is a Problem.
func Parse[T Value](s string) (T, error) {
	var value T
	if problem := value.Rule().problem(s); problem != "" {
		return value, Problem(problem)
	}
	return T(s), nil
}

// Problem completes the sentence "<value> ...", such as "must not be empty". It never
// holds the value.
type Problem string

func (p Problem) Error() string { return string(p) }

func (r Rule) problem(s string) string {
	if !utf8.ValidString(s) {
		return "must be valid UTF-8"
	}
	if strings.ContainsFunc(s, func(c rune) bool { return !r.Characters.allowed(c) }) {
		return r.Characters.problem
	}
	if problem := r.LengthProblem(utf8.RuneCountInString(s)); problem != "" {
		return problem
	}
	if r.also == nil {
		return ""
	}
	return r.also(s)
}

// LengthProblem tells what is wrong with a length in characters, empty if nothing is.
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

// Characters are those that may occur in a text.
type Characters struct {
	// Pattern is a regular expression for one of them.
	Pattern string
	problem string
	allowed func(rune) bool
}

var (
	// text is what can be forwarded unchanged: most control characters and the two
	// noncharacters have no form in XML 1.0.
	text = Characters{
		Pattern: `[^\u0000-\u001F\u007F-\u009F\uFFFE\uFFFF]`,
		problem: "must not contain control characters",
		allowed: func(r rune) bool { return !unicode.IsControl(r) && r != '\uFFFE' && r != '\uFFFF' },
	}
	anything     = Characters{Pattern: `[\s\S]`, allowed: func(rune) bool { return true }}
	identifier   = class(`A-Za-z0-9._-`, "must consist of A-Z, a-z, 0-9, '.', '_' and '-'")
	serial       = class(`A-Za-z0-9-`, "must consist of A-Z, a-z, 0-9 and '-'")
	alphanumeric = class(`A-Za-z0-9`, "must consist of A-Z, a-z and 0-9")
	lowercase    = class(`a-z`, "must consist of a-z")
	hexadecimal  = class(`0-9A-Fa-f`, "must consist of hexadecimal digits")
	decimal      = class(`0-9`, "must consist of decimal digits")
	printable    = class(` -~`, "must consist of printable characters of ASCII")
)

// class returns the ASCII characters in a class such as "a-z_-". A hyphen at the end
// stands for itself.
func class(class, problem string) Characters {
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
	return Characters{
		Pattern: "[" + class + "]",
		problem: problem,
		allowed: func(r rune) bool { return r < utf8.RuneSelf && allowed[r] },
	}
}

// isHex reports whether s is an even number of hex digits.
func isHex(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil
}
