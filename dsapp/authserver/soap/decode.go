package soap

import (
	"errors"
	"io"
	"strconv"
	"strings"
)

// Limits of single parts of an answer.
const (
	maxCode = 128 // bytes of a result code and of a Fault's code
	maxPath = 512 // bytes of a path below result
)

// Answer contains what the answers to all commands have in common.
type Answer struct {
	Codes ResultCodes
	// Stack is the error stack in the server's order. Where the server repeated values of
	// the request, they are replaced by "[…]".
	Stack []StackEntry
	// Guessed is the name of the attribute that was taken for an activation message
	// because the attribute with the configured name was absent. Otherwise it is empty.
	Guessed string
}

// Decode reads the answer from r up to its end. If it is a success, it stores the values in
// c.Answer. Prefixes, namespaces and the order of elements do not matter, as they vary
// between versions of the server.
//
// A SOAP Fault is returned as *Fault and a failure of r as *ReadError. Apart from the code of
// a Fault, no error contains text of the answer. If only the values of a success cannot be
// used, Decode returns the Answer together with an error; with all other errors the Answer
// is nil.
func (c Call) Decode(r io.Reader, d *Dialect) (*Answer, error) {
	got, err := decode(r, c.operation)
	if fault, ok := errors.AsType[*Fault](err); ok {
		redactor := c.redactor()
		fault.Code, fault.String = redactor.Replace(fault.Code), redactor.Replace(fault.String)
	}
	if err != nil {
		return nil, err
	}
	c.applyRefusalOutput(&got)
	if len(got.stack) > 0 {
		redactor := c.redactor()
		for i := range got.stack {
			got.stack[i].Description = redactor.Replace(got.stack[i].Description)
		}
	}
	a := &Answer{Codes: got.codes, Stack: got.stack}
	if a.Codes.Success() {
		a.Guessed, err = c.fill(got.items, &d.Attributes)
	}
	return a, err
}

// answer is the content of an answer before its values are assigned to outputs.
type answer struct {
	codes ResultCodes
	stack []StackEntry
	// items are in the server's order: attributes with their names (attribute list family)
	// or leaf elements with their paths below result (typed family).
	items []item
}

type item struct{ name, value string }

// add adds an item. There is room at once for those of most answers.
func (a *answer) add(it item) {
	if a.items == nil {
		a.items = make([]item, 0, 8)
	}
	a.items = append(a.items, it)
}

// decode reads the answer to an operation.
func decode(r io.Reader, operation string) (a answer, err error) {
	t, err := parse(r)
	if err != nil {
		return answer{}, err
	}
	defer t.release()
	content, err := t.content()
	if err != nil {
		return answer{}, err
	}
	if content.name() == "Fault" {
		return answer{}, content.fault()
	}
	if suffix, ok := strings.CutPrefix(content.name(), operation); !ok || suffix != "Response" && suffix != "Respond" {
		return answer{}, errors.New("answer of another operation")
	}
	if err := content.each(a.part); err != nil {
		return answer{}, err
	}
	if a.codes == (ResultCodes{}) {
		return answer{}, errors.New("answer without resultCodes")
	}
	return a, nil
}

// content returns the only element in the body of the envelope.
func (t *tree) content() (content node, err error) {
	bodies, elements := 0, 0
	_ = t.root().each(func(part node) error {
		if part.name() != "Body" {
			return nil
		}
		bodies++
		return part.each(func(e node) error {
			content, elements = e, elements+1
			return nil
		})
	})
	switch {
	case bodies == 0:
		return node{}, errors.New("envelope without body")
	case bodies > 1:
		return node{}, errors.New("envelope with several bodies")
	case elements == 0:
		return node{}, errors.New("empty body")
	case elements > 1:
		return node{}, errors.New("body with several elements")
	}
	return content, nil
}

// part reads one part of an answer. Elements that it does not know, such as results, status
// and authUserResults, only wrap other parts.
func (a *answer) part(e node) error {
	switch e.name() {
	case "resultCodes":
		return a.resultCodes(e)
	case "resultAttribute":
		return e.each(a.attributes)
	case "result":
		return e.each(func(member node) error { return a.member(member, member.name()) })
	case "errorStack":
		return e.each(a.stackEntry)
	case "userattributelist":
		// These attributes describe the user. They are not part of the result.
		return nil
	}
	return e.each(a.part)
}

// resultCodes reads the four codes. Each must occur exactly once, and they must agree on
// whether they mean success.
func (a *answer) resultCodes(e node) error {
	if a.codes != (ResultCodes{}) {
		return errors.New("several resultCodes")
	}
	var texts [4]string
	for i, name := range resultCodeNames {
		err := e.each(func(code node) error {
			if code.name() != name {
				return nil
			}
			if texts[i] != "" {
				return errors.New("several " + name)
			}
			text, err := code.value()
			if texts[i] = strings.TrimSpace(text); err == nil && (texts[i] == "" || len(texts[i]) > maxCode) {
				return errors.New(name + " is empty or too long")
			}
			return err
		})
		if err != nil {
			return err
		}
		if texts[i] == "" {
			return errors.New("resultCodes without " + name)
		}
	}
	codes := ResultCodes{ReturnCodeEnum: texts[0], StatusCodeEnum: texts[1]}
	var err error
	if codes.ReturnCode, err = number(resultCodeNames[2], texts[2]); err != nil {
		return err
	}
	if codes.StatusCode, err = number(resultCodeNames[3], texts[3]); err != nil {
		return err
	}
	if !codes.agree() {
		return errors.New("resultCodes contradict each other")
	}
	a.codes = codes
	return nil
}

var resultCodeNames = []string{"returnCodeEnum", "statusCodeEnum", "returnCode", "statusCode"}

// attributes reads an attribute, whose name and value come in any order, or a list of
// attributes.
func (a *answer) attributes(e node) error {
	if e.name() != "attributes" {
		return e.each(a.attributes)
	}
	var it item
	ids, values := 0, 0
	err := e.each(func(part node) (err error) {
		switch part.name() {
		case "attributeID":
			ids++
			it.name, err = part.value()
		case "value":
			values++
			it.value, err = part.value()
		}
		return err
	})
	if err != nil {
		return err
	}
	it.name = strings.TrimSpace(it.name)
	if ids != 1 || it.name == "" {
		return errors.New("attribute without exactly one attributeID")
	}
	if values > 1 {
		return errors.New("attribute with several values")
	}
	a.add(it)
	return nil
}

// member reads the leaf elements of an element whose path below result is path.
func (a *answer) member(e node, path string) error {
	// The name of a parent is copied into the path of each of its leaves, so that long
	// names would multiply the memory that an answer takes.
	if len(path) > maxPath {
		return errors.New("element with a name that is too long")
	}
	if !e.element().children {
		a.add(item{path, e.element().text})
		return nil
	}
	return e.each(func(below node) error { return a.member(below, path+"/"+below.name()) })
}

// stackEntry reads one entry of the error stack.
func (a *answer) stackEntry(e node) error {
	if e.name() != "errors" {
		return nil
	}
	var entry StackEntry
	err := e.each(func(part node) (err error) {
		switch part.name() {
		case "errorCode":
			text, err := part.value()
			// The stack is only logged, so an empty code does not make the answer
			// unusable.
			if text = strings.TrimSpace(text); text != "" {
				entry.Code, err = number(part.name(), text)
			}
			return err
		case "errorDesc":
			entry.Description, err = part.value()
		}
		return err
	})
	a.stack = append(a.stack, entry)
	return err
}

// fault returns the *Fault of either SOAP version, or another error if it is malformed.
func (e node) fault() error {
	var code, explanation string
	err := e.each(func(part node) (err error) {
		switch part.name() {
		case "faultcode":
			code, err = part.value()
		case "faultstring":
			explanation, err = part.value()
		case "Code":
			// Only the direct child: a Subcode contains a Value, too.
			err = part.each(func(value node) (err error) {
				if value.name() == "Value" {
					code, err = value.value()
				}
				return err
			})
		case "Reason":
			err = part.each(func(reason node) error {
				text, err := reason.value()
				if reason.name() == "Text" && explanation == "" {
					explanation = text
				}
				return err
			})
		}
		return err
	})
	if err != nil {
		return err
	}
	code = strings.TrimSpace(code)
	if i := strings.LastIndexByte(code, ':'); i >= 0 {
		code = code[i+1:]
	}
	if len(code) > maxCode {
		return errors.New("Fault with a code that is too long")
	}
	f := &Fault{Code: code, String: explanation}
	// In SOAP 1.1 a code can have a suffix, as in Client.Authentication.
	switch class, _, _ := strings.Cut(code, "."); class {
	case "Client", "Sender", "VersionMismatch", "MustUnderstand", "DataEncodingUnknown":
		f.Sender = true
	}
	return f
}

// number parses an xsd:int. The error names the element but does not contain the text.
func number(name, text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0, errors.New(name + " is not an integer")
	}
	return int(n), nil
}
