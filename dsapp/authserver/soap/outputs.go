package soap

import (
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// minGuess is the length, in hex digits, of the shortest value that can be taken for an
// activation message.
const minGuess = 65

// loginRefusedCodes replace the codes of a success with which the server reports a refused
// login.
var loginRefusedCodes = FailureCodes("STAT_INVCREDENTIALS", 1000)

// fill stores the items of an answer in c.Answer. If the attribute with the configured name
// of an activation message is absent, fill takes the only unknown attribute that looks like
// an activation message, and returns its name as guessed.
func (c Call) fill(items []item, a *Attributes) (guessed string, err error) {
	for i := range c.outputs {
		o := &c.outputs[i]
		name := o.outputName(a)
		value, found, err := c.find(items, name)
		if err != nil {
			return "", err
		}
		if !found && o.configuredName != nil && o.characters == hexDigits {
			if guessed = c.guess(items, a); guessed != "" {
				if value, _, err = c.find(items, guessed); err != nil {
					return "", err
				}
			}
		}
		if o.required && value == "" {
			return "", errors.New("answer without " + name)
		}
		if problem := o.check(value); problem != "" {
			return "", errors.New(name + " " + problem)
		}
		*o.placeIn(c.Answer) = value
	}
	if c.gather != nil {
		if err := c.gather(items, c.Answer); err != nil {
			return "", err
		}
	}
	return guessed, nil
}

// check returns what is wrong with a value of the output, or the empty string.
func (o *output) check(value string) string {
	longest := o.longest
	if longest == 0 {
		longest = maxText
	}
	switch {
	case o.characters == hexDigits && value != "" && !form.IsHex(value):
		return "has a character that is not a hex digit"
	case o.characters == printable && !form.IsPrintable(value):
		return "has a character that is not printable ASCII"
	case len(value) > longest && utf8.RuneCountInString(value) > longest:
		return "is too long"
	}
	return ""
}

// applyRefusalOutput turns a success into a refusal if the answer contains the command's
// refusal output.
func (r *Row) applyRefusalOutput(got *answer) {
	if r.refusalOutput == "" || !got.codes.Success() {
		return
	}
	for _, it := range got.items {
		if it.name == r.refusalOutput {
			got.codes = loginRefusedCodes
			got.stack = append(got.stack, StackEntry{Code: loginRefusedCodes.StatusCode, Description: it.value})
		}
	}
}

// find returns the value of the item with that name. Items with the same name must have the
// same value. The case of element names does not matter, as the server is not consistent.
func (r *Row) find(items []item, name string) (value string, found bool, err error) {
	for _, it := range items {
		if it.name != name && !(r.typed() && strings.EqualFold(it.name, name)) {
			continue
		}
		if found && it.value != value {
			return "", false, errors.New("answer with different values of " + name)
		}
		value, found = it.value, true
	}
	return value, found, nil
}

// guess returns the name of the only attribute with a long hex value that is neither field
// nor output of the command. It returns the empty string if there is none or more than one.
func (r *Row) guess(items []item, a *Attributes) string {
	name := ""
	for _, it := range items {
		if len(it.value) < minGuess || !form.IsHex(it.value) || !ValidAttributeName(it.name) || r.knows(it.name, a) {
			continue
		}
		if name != "" {
			return ""
		}
		name = it.name
	}
	return name
}

// knows reports whether the command has a field or output with that name.
func (r *Row) knows(name string, a *Attributes) bool {
	for i := range r.fields {
		if r.fields[i].inputName(a) == name {
			return true
		}
	}
	for i := range r.outputs {
		if r.outputs[i].outputName(a) == name {
			return true
		}
	}
	return false
}

// attributeName matches the names of attributes. The limit of 64 is the gateway's own.
var attributeName = regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`)

// ValidAttributeName reports whether s can be the name of an attribute: 1 to 64 letters,
// digits and underscores.
func ValidAttributeName(s string) bool { return attributeName.MatchString(s) }
