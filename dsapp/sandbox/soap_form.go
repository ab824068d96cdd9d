package sandbox

import (
	"encoding/xml"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A valueType is the local part of the xsi:type of a value.
type valueType string

const (
	stringType      valueType = "string"
	unsignedIntType valueType = "unsignedInt"
)

// A field is one value of a request.
type field struct {
	name     string
	typ      valueType
	required bool
	max      int // characters
}

// An attributeList is the form in which each value is an <attributes> element with a value
// and an attributeID, in one element for all.
type attributeList struct {
	set        string // name of the element around the attributes
	dataFields presence
	fields     []field
	wrapper    string // element around the results, if there is one
}

var _ form = attributeList{}

func (a attributeList) read(children []*element) (in values, err error) {
	if len(children) == 0 || children[0].name.Local != a.set {
		return in, callerError("expected element %s first", a.set)
	}
	if in.text, err = a.readSet(children[0]); err != nil {
		return in, err
	}
	if children = children[1:]; a.dataFields != noDataFields && len(children) > 0 && children[0].name.Local == dataFieldList {
		if in.fields, err = readDataFields(children[0]); err != nil {
			return in, err
		}
		children = children[1:]
	} else if a.dataFields == requiredDataFields {
		return in, callerError("element %s is missing", dataFieldList)
	}
	if len(children) > 0 {
		return in, callerError("element %s is one too many", children[0].name.Local)
	}
	return in, nil
}

func (a attributeList) readSet(set *element) (map[string]string, error) {
	in := make(map[string]string, len(a.fields))
	given := make(map[string]bool, len(a.fields))
	for _, e := range set.children {
		if e.name.Local != "attributes" {
			return nil, callerError("%s holds an element other than attributes", a.set)
		}
		id, value, null, err := readAttribute(e)
		if err != nil {
			return nil, err
		}
		f, ok := a.field(id)
		if !ok {
			return nil, callerError("attributeID is not one that this command takes")
		}
		if value.xsiType != (xml.Name{Space: xsdNamespace, Local: string(f.typ)}) {
			return nil, callerError("value of %s needs xsi:type xsd:%s", id, f.typ)
		}
		if given[id] {
			return nil, refuse("STAT_INVPARAM", 0, "attribute given twice: "+id)
		}
		given[id] = true
		if null {
			continue
		}
		text := value.text.String()
		if f.typ == unsignedIntType {
			if _, err := strconv.ParseUint(text, 10, 32); err != nil {
				return nil, callerError("value of %s is not an xsd:%s", id, f.typ)
			}
		}
		if text == "" || utf8.RuneCountInString(text) > f.max {
			return nil, refuse("STAT_INVPARAM", 0, "attribute empty or too long: "+id)
		}
		in[id] = text
	}
	for _, f := range a.fields {
		if _, ok := in[f.name]; f.required && !ok {
			return nil, refuse("STAT_INVPARAM", 0, "attribute missing: "+f.name)
		}
	}
	return in, nil
}

func (a attributeList) field(name string) (field, bool) {
	for _, f := range a.fields {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

// readAttribute returns the parts of an <attributes> element. Its children may be in any
// order.
func readAttribute(e *element) (id string, value *element, null bool, err error) {
	var idElement, options *element
	for _, c := range e.children {
		var slot **element
		switch c.name.Local {
		case "value":
			slot = &value
		case "attributeID":
			slot = &idElement
		case "attributeOptions":
			slot = &options
		default:
			return "", nil, false, callerError("attributes holds an unknown element")
		}
		if *slot != nil {
			return "", nil, false, callerError("attributes holds %s twice", c.name.Local)
		}
		*slot = c
	}
	if value == nil || idElement == nil {
		return "", nil, false, callerError("attributes needs value and attributeID")
	}
	if len(value.children) > 0 || len(idElement.children) > 0 {
		return "", nil, false, callerError("value and attributeID hold text only")
	}
	if value.xsiType == (xml.Name{}) {
		return "", nil, false, callerError("value without xsi:type")
	}
	if options == nil {
		return idElement.text.String(), value, false, nil
	}
	for _, o := range options.children {
		switch o.name.Local {
		case "null", "negative", "masked":
		default:
			return "", nil, false, callerError("attributeOptions holds an unknown element")
		}
		on, err := strconv.ParseBool(o.text.String())
		if err != nil || len(o.children) > 0 {
			return "", nil, false, callerError("attributeOptions holds something that is not an xsd:boolean")
		}
		null = null || (on && o.name.Local == "null")
	}
	return idElement.text.String(), value, null, nil
}

func (a attributeList) write(w *writer, codes resultCodes, data []datum, stack []stackEntry) {
	if a.wrapper != "" {
		w.open(a.wrapper)
		defer w.close(a.wrapper)
	}
	w.open("results", w.p.xsi+":type", w.p.types+":"+w.scenario.resultsType)
	w.resultCodes(codes)
	w.open("resultAttribute")
	if codes.returnCode == 0 {
		for _, d := range data {
			w.attribute(d, stringType)
		}
		if w.v.Extra {
			w.attribute(datum{name: "SANDBOX_EXTRA_TEXT", value: `unknown to every client: <&>"'`}, stringType)
			w.attribute(datum{name: "SANDBOX_EXTRA_NUMBER", value: "7"}, unsignedIntType)
		}
	}
	w.close("resultAttribute")
	w.errorStack(stack)
	w.close("results")
	if w.v.Extra && a.wrapper != "" {
		w.leaf("userattributelist", "")
	}
}

// presence tells whether a request may have a dataFieldList.
type presence int

const (
	noDataFields presence = iota
	optionalDataFields
	requiredDataFields
)

const (
	dataFieldList = "dataFieldList"
	maxDataFields = 8
	maxFieldText  = 255 // characters of a key or value
)

// readDataFields reads a dataFieldList, which may be empty.
func readDataFields(list *element) ([]RequestField, error) {
	if len(list.children) > maxDataFields {
		return nil, refuse("STAT_INVPARAM", 0, "too many data fields")
	}
	fields := make([]RequestField, 0, len(list.children))
	for _, e := range list.children {
		if e.name.Local != "dataField" || len(e.children) != 2 ||
			e.children[0].name.Local != "key" || e.children[1].name.Local != "value" {
			return nil, callerError("%s holds something other than dataField with key and value", dataFieldList)
		}
		key, err := readLeaf(e.children[0], maxFieldText)
		if err != nil {
			return nil, err
		}
		value, err := readLeaf(e.children[1], maxFieldText)
		if err != nil {
			return nil, err
		}
		fields = append(fields, RequestField{key, value})
	}
	return fields, nil
}

// readLeaf returns the text of an element that must have no children.
func readLeaf(e *element, limit int) (string, error) {
	if len(e.children) > 0 {
		return "", callerError("element %s holds text only", e.name.Local)
	}
	text := e.text.String()
	if text == "" || utf8.RuneCountInString(text) > limit {
		return "", refuse("STAT_INVPARAM", 0, "element empty or too long: "+e.name.Local)
	}
	return text, nil
}

// A node is one element of a request in typedForm: a leaf with text, a group of elements,
// or a dataFieldList.
type node struct {
	name     string
	required bool
	max      int // characters of a leaf
	children []node
}

// A typedForm is the form in which each value is an element, in the order of the schema.
type typedForm []node

var _ form = typedForm{}

func (f typedForm) read(children []*element) (values, error) {
	in := values{text: make(map[string]string)}
	if err := readNodes(f, "", children, &in); err != nil {
		return values{}, err
	}
	return in, nil
}

// readNodes reads the children of one element, which has the given path.
func readNodes(nodes []node, path string, elements []*element, in *values) (err error) {
	for _, n := range nodes {
		if len(elements) == 0 || elements[0].name.Local != n.name {
			if n.required {
				return callerError("element %s is missing or not in its place", path+n.name)
			}
			continue
		}
		e := elements[0]
		elements = elements[1:]
		switch {
		case n.name == dataFieldList:
			in.fields, err = readDataFields(e)
		case n.children != nil:
			err = readNodes(n.children, path+n.name+"/", e.children, in)
		default:
			in.text[path+n.name], err = readLeaf(e, n.max)
		}
		if err != nil {
			return err
		}
	}
	if len(elements) > 0 {
		return callerError("element %s is unknown, repeated or not in its place", path+elements[0].name.Local)
	}
	return nil
}

// write writes the status and, if there is data, the result. Data of one group must be
// adjacent.
func (f typedForm) write(w *writer, codes resultCodes, data []datum, stack []stackEntry) {
	w.open("status")
	w.resultCodes(codes)
	w.errorStack(stack)
	w.close("status")
	if codes.returnCode != 0 || len(data) == 0 {
		return
	}
	w.open("result")
	var open []string
	for _, d := range data {
		path := strings.Split(d.name, "/")
		last := len(path) - 1
		common := 0
		for common < min(len(open), last) && open[common] == path[common] {
			common++
		}
		open = w.closeTo(open, common)
		for _, group := range path[common:last] {
			w.open(w.v.rename(group))
			open = append(open, group)
		}
		w.leaf(w.v.rename(path[last]), d.value)
	}
	w.closeTo(open, 0)
	if w.v.Extra {
		w.leaf("sandboxExtraText", `unknown to every client: <&>"'`)
	}
	w.close("result")
}
