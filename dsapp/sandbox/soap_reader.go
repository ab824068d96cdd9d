package sandbox

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of a request, far beyond what any command needs.
const (
	maxRequestSize   = 1 << 20 // bytes
	maxDepth         = 32
	maxElements      = 10_000
	maxXMLAttributes = 32 // attributes of one element
)

const (
	xmlNamespace = "http://www.w3.org/XML/1998/namespace"
	xsdNamespace = "http://www.w3.org/2001/XMLSchema"
	xsiNamespace = "http://www.w3.org/2001/XMLSchema-instance"
)

// An element is an XML element with namespaces resolved.
type element struct {
	name     xml.Name
	tag      xml.Name // prefix and local part as written
	xsiType  xml.Name // value of xsi:type, resolved; zero if absent
	attrs    []xml.Attr
	children []*element
	text     strings.Builder
	bindings map[string]string // namespace prefixes declared here
	parent   *element
}

// namespace returns the namespace of a prefix. The empty prefix is the default namespace.
func (e *element) namespace(prefix string) (string, bool) {
	if prefix == "xml" {
		return xmlNamespace, true
	}
	for ; e != nil; e = e.parent {
		if uri, ok := e.bindings[prefix]; ok {
			return uri, true
		}
	}
	return "", prefix == ""
}

// attr returns the value of an attribute, empty if there is none.
func (e *element) attr(name xml.Name) string {
	for _, a := range e.attrs {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

// readXML reads one document. It resolves namespaces itself, because values of xsi:type are
// qualified names, too, and because encoding/xml accepts undeclared prefixes. It refuses
// document type declarations, processing instructions, and text beside elements.
func readXML(data []byte) (*element, error) {
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xEF\xBB\xBF"))))
	var root, open *element
	depth, elements := 0, 0
	for first := true; ; first = false {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("not well-formed XML: %w", err)
		}

		switch t := token.(type) {
		case xml.StartElement:
			depth++
			elements++
			if depth > maxDepth || elements > maxElements {
				return nil, errors.New("too many or too deeply nested elements")
			}
			if open == nil && root != nil {
				return nil, errors.New("more than one root element")
			}
			e, err := newElement(open, t)
			if err != nil {
				return nil, err
			}
			if open == nil {
				root = e
			} else {
				open.children = append(open.children, e)
			}
			open = e
		case xml.EndElement:
			if open == nil {
				return nil, errors.New("end tag without a start tag")
			}
			if t.Name != open.tag {
				return nil, fmt.Errorf("element %s is closed by another end tag", open.name.Local)
			}
			if len(open.children) > 0 && strings.TrimSpace(open.text.String()) != "" {
				return nil, fmt.Errorf("element %s holds text beside elements", open.name.Local)
			}
			depth--
			open = open.parent
		case xml.CharData:
			if open != nil {
				open.text.Write(t)
			} else if len(bytes.TrimSpace(t)) > 0 {
				return nil, errors.New("text outside the root element")
			}
		case xml.ProcInst:
			if t.Target != "xml" || !first {
				return nil, errors.New("processing instructions are not allowed")
			}
		case xml.Directive:
			return nil, errors.New("document type declarations are not allowed")
		}
	}
	if root == nil || open != nil {
		return nil, errors.New("not well-formed XML: document ends too early")
	}
	return root, nil
}

func newElement(parent *element, t xml.StartElement) (*element, error) {
	if len(t.Attr) > maxXMLAttributes {
		return nil, errors.New("too many attributes in one element")
	}
	e := &element{parent: parent, tag: t.Name, bindings: make(map[string]string)}
	for _, a := range t.Attr {
		prefix, declares := a.Name.Local, a.Name.Space == "xmlns"
		if a.Name.Space == "" && a.Name.Local == "xmlns" {
			prefix, declares = "", true
		}
		if !declares {
			continue
		}
		if _, twice := e.bindings[prefix]; twice {
			return nil, errors.New("namespace prefix declared twice")
		}
		if prefix == "xml" || prefix == "xmlns" || (prefix != "" && a.Value == "") {
			return nil, errors.New("namespace prefix declared against the rules")
		}
		e.bindings[prefix] = a.Value
	}

	var err error
	if e.name, err = e.resolve(t.Name, true); err != nil {
		return nil, err
	}
	seen := make(map[xml.Name]bool, len(t.Attr))
	for _, a := range t.Attr {
		if a.Name.Space == "xmlns" || (a.Name.Space == "" && a.Name.Local == "xmlns") {
			continue
		}
		name, err := e.resolve(a.Name, false)
		if err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, fmt.Errorf("attribute given twice in element %s", e.name.Local)
		}
		seen[name] = true
		e.attrs = append(e.attrs, xml.Attr{Name: name, Value: a.Value})
		if name == (xml.Name{Space: xsiNamespace, Local: "type"}) {
			prefix, local, ok := strings.Cut(a.Value, ":")
			if !ok {
				prefix, local = "", a.Value
			}
			if e.xsiType, err = e.resolve(xml.Name{Space: prefix, Local: local}, true); err != nil {
				return nil, err
			}
		}
	}
	return e, nil
}

// resolve returns a name with the namespace in place of the prefix. The default namespace
// applies to elements and type names, not to attributes.
func (e *element) resolve(name xml.Name, useDefault bool) (xml.Name, error) {
	if name.Local == "" || strings.Contains(name.Local, ":") {
		return xml.Name{}, errors.New("malformed qualified name")
	}
	if name.Space == "" && !useDefault {
		return name, nil
	}
	uri, ok := e.namespace(name.Space)
	if !ok {
		return xml.Name{}, errors.New("namespace prefix is not declared")
	}
	return xml.Name{Space: uri, Local: name.Local}, nil
}
