package variant

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Template is a sequence of byte strings that are joined, and hashed unless the option says
// otherwise. Each is written as one word:
//
//   - the name of a member, such as `A`, in its full form;
//   - the name of a member and a form, such as `A.minimal`;
//   - `=` and a text, such as `=:`, for the ASCII characters of the text.
type Template []string

// Member is a value of the exchange.
type Member string

// The members. Numbers are unsigned and big-endian.
const (
	N            Member = "N"       // the prime
	G            Member = "g"       // the generator
	A            Member = "A"       // the client's public value
	B            Member = "B"       // the server's public value
	S            Member = "S"       // the secret that both compute
	K            Member = "K"       // the session key
	Salt         Member = "s"       // the salt
	Identity     Member = "I"       // the registration identifier
	Password     Member = "P"       // the activation password
	IdentityHash Member = "H(I)"    // the hash of I
	PasswordHash Member = "H(P)"    // the hash of P
	Inner        Member = "inner"   // the hash of the template inner
	X            Member = "X"       // H(N) xor H(g), where g is a single byte
	PaddedX      Member = "Xp"      // H(N) xor H(g), where g is padded to the length of N
	M1           Member = "M1"      // the client's evidence
	Counter      Member = "counter" // the counter of an encrypted item
	Data         Member = "data"    // the ciphertext of an encrypted item
)

// Form is how a member becomes bytes.
type Form string

// The forms. Zero bytes and digits are those that a value begins with.
const (
	Full        Form = ""        // numbers padded to the length of N, everything else as it is
	Minimal     Form = "minimal" // without zero bytes
	Signed      Form = "signed"  // minimal, after a zero byte if the top bit is set
	Padded      Form = "padded"  // padded to the length of N
	Hex         Form = "hex"     // two lower-case hexadecimal digits for each byte, as text
	UpperHex    Form = "HEX"     // the same in upper case
	Digits      Form = "digits"  // lower-case hexadecimal digits without zero digits, as text
	UpperDigits Form = "DIGITS"  // the same in upper case
	Lower       Form = "lower"   // a text with its ASCII letters in lower case
	Upper       Form = "upper"   // a text with its ASCII letters in upper case
)

var (
	numberForms = []Form{Full, Minimal, Signed, Hex, UpperHex, Digits, UpperDigits}
	stringForms = []Form{Full, Minimal, Signed, Padded, Hex, UpperHex, Digits, UpperDigits}
	plainForms  = []Form{Full}
)

// forms has the forms of each member. N has no zero bytes and its top bit is set. The
// password has one form: in one case only it would be easier to guess.
var forms = map[Member][]Form{
	N: {Full, Signed, Hex, UpperHex}, G: numberForms, A: numberForms, B: numberForms, S: numberForms,
	K: stringForms, Salt: stringForms, IdentityHash: stringForms, PasswordHash: stringForms,
	Inner: stringForms, X: stringForms, PaddedX: stringForms, M1: stringForms,
	Identity: {Full, Lower, Upper}, Password: plainForms, Counter: plainForms, Data: plainForms,
}

// Part is an element of a template.
type Part struct {
	// Member is the member, or empty for a text.
	Member Member
	Form   Form
	Text   string
}

// The greatest number of parts of a template, and the greatest length of a text in it.
const (
	maxParts = 16
	maxText  = 64
)

// Parse returns the parts of the template. The error says which word is wrong and why.
func (t Template) Parse() ([]Part, error) {
	if len(t) == 0 {
		return nil, errors.New("is empty")
	}
	if len(t) > maxParts {
		return nil, fmt.Errorf("has more than %d parts", maxParts)
	}
	parts := make([]Part, len(t))
	for i, word := range t {
		p, err := parsePart(word)
		if err != nil {
			return nil, fmt.Errorf("part %d %w", i+1, err)
		}
		parts[i] = p
	}
	return parts, nil
}

func parsePart(word string) (Part, error) {
	if text, ok := strings.CutPrefix(word, "="); ok {
		if text == "" || len(text) > maxText {
			return Part{}, fmt.Errorf("must have 1 to %d characters after =", maxText)
		}
		if !printable(text) {
			return Part{}, errors.New("must have printable ASCII characters after =")
		}
		return Part{Text: text}, nil
	}
	name, form, dotted := strings.Cut(word, ".")
	member, known := Member(name), forms[Member(name)]
	if known == nil {
		return Part{}, errors.New("is no known member; write a text after =")
	}
	if dotted && form == "" || !slices.Contains(known, Form(form)) {
		return Part{}, fmt.Errorf("must be %s, in one of the forms %s", name, formNames(known))
	}
	return Part{Member: member, Form: Form(form)}, nil
}

func printable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// formNames lists forms for an error.
func formNames(known []Form) string {
	list := make([]string, len(known))
	for i, f := range known {
		if list[i] = string(f); f == Full {
			list[i] = "full (nothing after the name)"
		}
	}
	return strings.Join(list, ", ")
}

// contains reports whether a part is one of the members.
func contains(parts []Part, members ...Member) bool {
	return slices.ContainsFunc(parts, func(p Part) bool { return slices.Contains(members, p.Member) })
}
