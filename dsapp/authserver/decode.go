package authserver

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Limits of an answer. The longest value expected is an activation message of
// some 4 kB.
const (
	maxAnswer     = 1 << 20       // bytes
	maxToken      = maxAnswer / 8 // bytes of one tag, text or comment: the attributes of a tag take fifty times as many in memory
	maxDepth      = 32
	maxElements   = 10_000
	maxAttributes = 32  // XML attributes of one element
	maxCode       = 128 // bytes of a result code and of a Fault's code
	maxPath       = 512 // bytes of a path below result
)

// answer is what the answer of any command holds.
type answer struct {
	codes ResultCodes
	stack []StackEntry
	// items are the attributes by name (attribute list family) or the leaf
	// elements below result by path (typed family), in the server's order.
	items []item
}

type item struct{ name, value string }

// decode reads the answer of operation from r up to its end. Element names count
// without their prefixes and namespaces, and the order of elements does not
// matter: both vary between versions of the server. A SOAP Fault is returned as
// *Fault and a failure of r as *readError; no error holds text of the answer but
// the code of a Fault.
func decode(r io.Reader, operation string) (*answer, error) {
	source := &answerReader{r: r}
	p := parser{source: source, decoder: xml.NewDecoder(source), operation: operation}
	p.decoder.CharsetReader = func(charset string, text io.Reader) (io.Reader, error) {
		if !isUTF8(charset) {
			return nil, errors.New("not UTF-8")
		}
		return text, nil
	}
	err := p.document()
	switch {
	case source.err != nil:
		return nil, source.err
	case err != nil:
		return nil, err
	case p.fault != nil:
		return nil, p.fault
	case !p.hasCodes:
		return nil, errors.New("answer without resultCodes")
	}
	return &p.answer, nil
}

// readError says that an answer could not be read to its end.
type readError struct{ err error }

func (e *readError) Error() string { return "reading the answer: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// answerReader limits the size of an answer. It keeps its error, because
// encoding/xml does not tell errors of the source from its own.
type answerReader struct {
	r     io.Reader
	size  int
	token int // bytes since the last token
	err   error
}

func (a *answerReader) Read(b []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.r.Read(b)
	if a.size += n; a.size > maxAnswer {
		a.err = fmt.Errorf("answer longer than %d bytes", maxAnswer)
		return 0, a.err
	}
	if a.token += n; a.token > maxToken {
		a.err = fmt.Errorf("tag or text longer than %d bytes", maxToken)
		return 0, a.err
	}
	if err != nil && err != io.EOF {
		a.err = &readError{err}
		return n, a.err
	}
	return n, err
}

// parser walks through an answer element by element.
type parser struct {
	source    *answerReader
	decoder   *xml.Decoder
	operation string
	depth     int
	elements  int

	answer   answer
	hasCodes bool
	fault    *Fault
}

// next gives the next token, which is a start or end element or text.
func (p *parser) next() (xml.Token, error) {
	for {
		p.source.token = 0
		token, err := p.decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil, err
		}
		// The messages of encoding/xml quote the document.
		if syntax, ok := errors.AsType[*xml.SyntaxError](err); ok {
			return nil, fmt.Errorf("malformed XML in line %d", syntax.Line)
		}
		if err != nil {
			return nil, errors.New("XML is not version 1.0 in UTF-8")
		}
		switch t := token.(type) {
		case xml.Comment:
			continue
		case xml.Directive:
			return nil, errors.New("document type declaration is not allowed")
		case xml.ProcInst:
			if p.elements > 0 {
				return nil, errors.New("processing instruction is not allowed")
			}
			continue
		case xml.StartElement:
			p.depth++
			p.elements++
			if p.depth > maxDepth {
				return nil, fmt.Errorf("elements nested deeper than %d", maxDepth)
			}
			if p.elements > maxElements {
				return nil, fmt.Errorf("more than %d elements", maxElements)
			}
			if len(t.Attr) > maxAttributes {
				return nil, fmt.Errorf("element with more than %d attributes", maxAttributes)
			}
		case xml.EndElement:
			p.depth--
		}
		return token, nil
	}
}

// document reads the whole document.
func (p *parser) document() error {
	root, err := p.root()
	if err != nil {
		return err
	}
	if root != "Envelope" {
		return errors.New("document is no SOAP envelope")
	}
	bodies := 0
	err = p.children(func(name string) error {
		if name != "Body" {
			return p.skip()
		}
		if bodies++; bodies > 1 {
			return errors.New("envelope with several bodies")
		}
		return p.body()
	})
	if err != nil {
		return err
	}
	if bodies == 0 {
		return errors.New("envelope without body")
	}
	return p.end()
}

// root reads up to the document's first element and gives its name.
func (p *parser) root() (string, error) {
	for {
		token, err := p.next()
		if errors.Is(err, io.EOF) {
			return "", errors.New("empty document")
		}
		if err != nil {
			return "", err
		}
		switch t := token.(type) {
		case xml.StartElement:
			return t.Name.Local, nil
		case xml.CharData:
			// A byte order mark is no part of the text.
			if !isSpace([]byte(strings.TrimPrefix(string(t), "\uFEFF"))) {
				return "", errors.New("text before the envelope")
			}
		}
	}
}

// end makes sure that nothing follows the root element.
func (p *parser) end() error {
	for {
		token, err := p.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if text, ok := token.(xml.CharData); !ok || !isSpace(text) {
			return errors.New("content after the envelope")
		}
	}
}

// body reads the one element of the body.
func (p *parser) body() error {
	contents := 0
	err := p.children(func(name string) error {
		if contents++; contents > 1 {
			return errors.New("body with several elements")
		}
		switch name {
		case "Fault":
			return p.readFault()
		case p.operation + "Response", p.operation + "Respond":
			return p.children(p.part)
		}
		return errors.New("answer of another operation")
	})
	if err != nil {
		return err
	}
	if contents == 0 {
		return errors.New("empty body")
	}
	return nil
}

// part reads one part of an operation's answer. Elements without a meaning of
// their own, such as results, status and authUserResults, are only wrappers.
func (p *parser) part(name string) error {
	switch name {
	case "resultCodes":
		return p.resultCodes()
	case "resultAttribute":
		return p.children(p.attributes)
	case "result":
		return p.members("")
	case "errorStack":
		return p.children(p.stackEntry)
	case "userattributelist":
		// Attributes of the user, not of the result.
		return p.skip()
	}
	return p.children(p.part)
}

// resultCodes reads the four codes, which must all be there once and agree
// whether they mean success.
func (p *parser) resultCodes() error {
	if p.hasCodes {
		return errors.New("several resultCodes")
	}
	p.hasCodes = true
	seen := make(map[string]bool, 4)
	err := p.children(func(name string) error {
		if !slices.Contains(resultCodeNames, name) {
			return p.skip()
		}
		if seen[name] {
			return errors.New("several " + name)
		}
		seen[name] = true
		text, err := p.text()
		if err != nil {
			return err
		}
		text = strings.TrimSpace(text)
		if text == "" || len(text) > maxCode {
			return errors.New(name + " is empty or too long")
		}
		switch name {
		case "returnCodeEnum":
			p.answer.codes.ReturnCodeEnum = text
		case "statusCodeEnum":
			p.answer.codes.StatusCodeEnum = text
		case "returnCode":
			p.answer.codes.ReturnCode, err = number(name, text)
		case "statusCode":
			p.answer.codes.StatusCode, err = number(name, text)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range resultCodeNames {
		if !seen[name] {
			return errors.New("resultCodes without " + name)
		}
	}
	if !p.answer.codes.agree() {
		return errors.New("resultCodes contradict each other")
	}
	return nil
}

var resultCodeNames = []string{"returnCodeEnum", "statusCodeEnum", "returnCode", "statusCode"}

// attributes reads one attribute: its name and its value in any order. Other
// elements are lists of attributes.
func (p *parser) attributes(name string) error {
	if name != "attributes" {
		return p.children(p.attributes)
	}
	var it item
	ids, contents := 0, 0
	err := p.children(func(name string) (err error) {
		switch name {
		case "attributeID":
			ids++
			it.name, err = p.text()
			it.name = strings.TrimSpace(it.name)
		case "value":
			contents++
			it.value, err = p.text()
		default:
			err = p.skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	if ids != 1 || it.name == "" {
		return errors.New("attribute without exactly one attributeID")
	}
	if contents > 1 {
		return errors.New("attribute with several values")
	}
	p.answer.items = append(p.answer.items, it)
	return nil
}

// members reads the current element, whose path below result is path, down to
// its leaf elements.
func (p *parser) members(path string) error {
	var text []byte
	leaf := path != ""
	for {
		token, err := p.next()
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.CharData:
			text = append(text, t...)
		case xml.StartElement:
			leaf = false
			below := t.Name.Local
			if path != "" {
				below = path + "/" + below
			}
			// Each leaf has its path: long names of parents would multiply.
			if len(below) > maxPath {
				return errors.New("element with a name that is too long")
			}
			if err := p.members(below); err != nil {
				return err
			}
		case xml.EndElement:
			if leaf {
				p.answer.items = append(p.answer.items, item{path, string(text)})
			}
			return nil
		}
	}
}

// stackEntry reads one entry of the error stack.
func (p *parser) stackEntry(name string) error {
	if name != "errors" {
		return p.skip()
	}
	var e StackEntry
	err := p.children(func(name string) error {
		switch name {
		case "errorCode":
			text, err := p.text()
			if err != nil {
				return err
			}
			// The stack is for the log: a code that is left empty is no reason to
			// lose the result.
			if text = strings.TrimSpace(text); text != "" {
				e.Code, err = number(name, text)
			}
			return err
		case "errorDesc":
			text, err := p.text()
			e.Description = text
			return err
		}
		return p.skip()
	})
	if err != nil {
		return err
	}
	p.answer.stack = append(p.answer.stack, e)
	return nil
}

// readFault reads the Fault of either SOAP version.
func (p *parser) readFault() error {
	var code, explanation string
	err := p.children(func(name string) (err error) {
		switch name {
		case "faultcode":
			code, err = p.text()
		case "faultstring":
			explanation, err = p.text()
		case "Code":
			// A Subcode has a Value of its own, further down.
			err = p.children(func(name string) (err error) {
				if name != "Value" {
					return p.skip()
				}
				code, err = p.text()
				return err
			})
		case "Reason":
			err = p.children(func(name string) error {
				text, err := p.text()
				if name == "Text" && explanation == "" {
					explanation = text
				}
				return err
			})
		default:
			err = p.skip()
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
	// SOAP 1.1 lets codes be refined: Client.Authentication.
	class, _, _ := strings.Cut(code, ".")
	p.fault = &Fault{Code: code, String: explanation}
	switch class {
	case "Client", "Sender", "VersionMismatch", "MustUnderstand", "DataEncodingUnknown":
		p.fault.Sender = true
	}
	return nil
}

// children calls read for each child of the current element, up to the end of
// that element. Text between the children has no meaning.
func (p *parser) children(read func(name string) error) error {
	for {
		token, err := p.next()
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.StartElement:
			if err := read(t.Name.Local); err != nil {
				return err
			}
		case xml.EndElement:
			return nil
		}
	}
}

// text reads the current element, which holds nothing but text.
func (p *parser) text() (string, error) {
	var text []byte
	for {
		token, err := p.next()
		if err != nil {
			return "", err
		}
		switch t := token.(type) {
		case xml.CharData:
			text = append(text, t...)
		case xml.StartElement:
			return "", errors.New("element where a value is expected")
		case xml.EndElement:
			return string(text), nil
		}
	}
}

// skip passes over the current element.
func (p *parser) skip() error {
	return p.children(func(string) error { return p.skip() })
}

// number reads an xsd:int.
func number(name, text string) (int, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0, errors.New(name + " is no integer")
	}
	return int(n), nil
}

func isSpace(text []byte) bool {
	return strings.Trim(string(text), " \t\r\n") == ""
}
