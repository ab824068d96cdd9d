package soap

import (
	"bufio"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// Limits of an answer. The longest expected value is an encrypted activation message of some
// 8 kB.
const (
	maxAnswer = 1 << 20 // bytes
	// maxToken limits one tag, text or comment, in bytes. The attributes of a tag take
	// fifty times their size in memory.
	maxToken      = maxAnswer / 8
	maxDepth      = 32
	maxElements   = 10_000
	maxAttributes = 32 // XML attributes of one element
)

// element is an XML element without its namespace and its XML attributes.
type element struct {
	name     string // without prefix
	text     string // empty if there are children
	children []element
}

// value returns the text of an element that has no children.
func (e *element) value() (string, error) {
	if e.children != nil {
		return "", errors.New("element where a value is expected")
	}
	return e.text, nil
}

// each calls read for each child until one call fails.
func (e *element) each(read func(*element) error) error {
	for i := range e.children {
		if err := read(&e.children[i]); err != nil {
			return err
		}
	}
	return nil
}

// ReadError says that reading an answer failed before its end.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return "reading the answer: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ReadError) Unwrap() error { return e.Err }

// answerReader limits the size of an answer. It stores its error, because encoding/xml does
// not distinguish errors of its reader from its own.
type answerReader struct {
	r     io.Reader
	size  int // bytes read
	token int // bytes read since the last token
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
		a.err = &ReadError{err}
		return n, a.err
	}
	return n, err
}

// parser builds the tree of a document.
type parser struct {
	source   *answerReader
	decoder  *xml.Decoder
	depth    int
	elements int
	text     []byte // of the element that began last
}

// parse reads a SOAP envelope from r up to its end. A failure of r is a *ReadError. No error
// contains text of the document.
func parse(r io.Reader) (*element, error) {
	source := &answerReader{r: r}
	// Most answers are shorter than 2 KiB. The decoder's default buffer has 4 KiB.
	p := parser{source: source, decoder: xml.NewDecoder(bufio.NewReaderSize(source, 2<<10))}
	p.decoder.CharsetReader = func(charset string, text io.Reader) (io.Reader, error) {
		if !form.IsUTF8(charset) {
			return nil, errors.New("not UTF-8")
		}
		return text, nil
	}
	root, err := p.document()
	if source.err != nil {
		return nil, source.err
	}
	return root, err
}

// document reads the root element. Any other content is an error.
func (p *parser) document() (*element, error) {
	var root *element
	for {
		token, err := p.next()
		switch {
		case errors.Is(err, io.EOF) && root == nil:
			return nil, errors.New("empty document")
		case errors.Is(err, io.EOF):
			return root, nil
		case err != nil:
			return nil, err
		}
		switch t := token.(type) {
		case xml.CharData:
			switch {
			case root != nil && !isSpace(string(t)):
				return nil, errors.New("content after the envelope")
			// A byte order mark may precede the envelope.
			case root == nil && !isSpace(strings.TrimPrefix(string(t), "\uFEFF")):
				return nil, errors.New("text before the envelope")
			}
		case xml.StartElement:
			switch {
			case root != nil:
				return nil, errors.New("content after the envelope")
			case t.Name.Local != "Envelope":
				return nil, errors.New("document is not a SOAP envelope")
			}
			root = &element{name: t.Name.Local}
			if err := p.content(root); err != nil {
				return nil, err
			}
		}
	}
}

// content reads the children and the text of an element, up to its end tag.
func (p *parser) content(e *element) error {
	p.text = p.text[:0]
	for {
		token, err := p.next()
		if err != nil {
			return err
		}
		switch t := token.(type) {
		case xml.CharData:
			if e.children == nil {
				p.text = append(p.text, t...)
			}
		case xml.StartElement:
			if e.children == nil {
				e.children = make([]element, 0, 4) // most have no more
			}
			e.children = append(e.children, element{name: t.Name.Local})
			if err := p.content(&e.children[len(e.children)-1]); err != nil {
				return err
			}
		case xml.EndElement:
			if e.children == nil {
				e.text = string(p.text)
			}
			return nil
		}
	}
}

// next returns the next token: a start tag, an end tag or text.
func (p *parser) next() (xml.Token, error) {
	for {
		p.source.token = 0
		token, err := p.decoder.Token()
		if errors.Is(err, io.EOF) {
			return nil, err
		}
		// The messages of encoding/xml quote the document, so they are replaced.
		if syntax, ok := errors.AsType[*xml.SyntaxError](err); ok {
			return nil, fmt.Errorf("malformed XML at line %d", syntax.Line)
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

func isSpace(text string) bool { return strings.Trim(text, " \t\r\n") == "" }
