package soap

import (
	"errors"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// minGuess is the length from which on a hex value can be taken for an
// activation message.
const minGuess = 65

// deniedCodes are those of a login that the server reported as a success with a
// message why it is none.
var deniedCodes = FailureCodes("STAT_INVCREDENTIALS", 1000)

// fill picks the command's outputs from the items of its answer. If the attribute
// of an output with a configured name is absent, the only unknown attribute that
// looks like an activation message is taken; guessed is then its name.
func (c Call) fill(items []item, a *Attributes) (guessed string, err error) {
	for i := range c.outputs {
		o := &c.outputs[i]
		name := c.outputName(o, a)
		value, found, err := c.find(items, name)
		if err != nil {
			return "", err
		}
		if !found && o.id != nil && o.kind == hexDigits {
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
		*o.in(c.Answer) = value
	}
	if c.gather != nil {
		if err := c.gather(items, c.Answer); err != nil {
			return "", err
		}
	}
	return guessed, nil
}

// check says what is wrong with a value of the output; empty if nothing.
func (o *output) check(value string) string {
	longest := o.longest
	if longest == 0 {
		longest = maxText
	}
	switch {
	case o.kind == hexDigits && value != "" && !form.IsHex(value):
		return "is not in hex digits"
	case o.kind == printable && !form.IsPrintable(value):
		return "has a character that is not printable ASCII"
	case utf8.RuneCountInString(value) > longest:
		return "is too long"
	}
	return ""
}

// deny makes a success a refusal if the answer holds the output that says so.
func (r *Row) deny(got *answer) {
	if r.denial == "" || !got.codes.Success() {
		return
	}
	for _, it := range got.items {
		if it.name == r.prefix+r.denial {
			got.codes = deniedCodes
			got.stack = append(got.stack, StackEntry{Code: deniedCodes.StatusCode, Description: it.value})
		}
	}
}

// find gives the value of the one item of that name. The server is not
// consistent in the case of element names.
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

// guess gives the name of the only attribute that the command does not know and
// that holds a long hex value; empty if there is none or more than one.
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

// knows reports whether the name is that of a field or output of the command.
func (r *Row) knows(name string, a *Attributes) bool {
	for i := range r.fields {
		if r.inputName(&r.fields[i], a) == name {
			return true
		}
	}
	for i := range r.outputs {
		if r.outputName(&r.outputs[i], a) == name {
			return true
		}
	}
	return false
}

// attributeName is what an attribute can be called. The limit of 64 is the gateway's.
var attributeName = regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`)

// ValidAttributeName reports whether s can be the name of an attribute: 1 to 64 letters,
// digits and underscores.
func ValidAttributeName(s string) bool { return attributeName.MatchString(s) }
