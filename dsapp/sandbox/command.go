package sandbox

import (
	"context"
	"encoding/xml"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// A command is one row of the table below: what a request of it looks like and
// what the server does with it. Everything else (transport, envelope, Faults,
// failure switches, counters) is the same for all rows.
type command struct {
	operation xml.Name
	cmd       string // subcommand of an operation that has them, else empty
	form      form
	component string // the value that carries the component type
	handle    func(s *Server, ctx context.Context, in values) ([]datum, error)
}

// name is what counters and failure switches call the command.
func (c *command) name() string {
	if c.cmd != "" {
		return c.cmd
	}
	return c.operation.Local
}

// A form is one of the request and answer styles of the interface.
type form interface {
	// read checks a request without its subcommand and gives its values. The
	// error is a *fault or a *refusal.
	read(children []*element) (values, error)
	// write writes the content of the answer's operation element.
	write(w *writer, codes resultCodes, data []datum, stack []stackEntry)
}

// values of a request by name; an optional value that was left out is missing.
type values map[string]string

// A datum is one value of an answer.
type datum struct {
	name   string
	value  string
	secret bool // marked as masked by the variant that does so
}

// A stackEntry is one entry of the error stack.
type stackEntry struct {
	code int
	text string
}

// A refusal is an answer whose result codes are not those of success.
type refusal struct {
	status string
	stack  []stackEntry
}

func (r *refusal) Error() string { return r.status }

// refuse gives a refusal with one entry in its error stack. A code of 0 stands
// for the number of the status.
func refuse(status string, code int, text string) *refusal {
	if code == 0 {
		code = codesOf(status).statusCode
	}
	return &refusal{status: status, stack: []stackEntry{{code, text}}}
}

// A fault is a request that the server did not take as one of its commands, or
// could not serve.
type fault struct {
	kind faultKind
	text string
}

func (f *fault) Error() string { return f.text }

type faultKind int

const (
	callerFault faultKind = iota
	serverFault
	versionFault
	understandFault
)

// callerError gives the Fault for a request that breaks a rule of the interface.
// The text names elements and attributes, never a value.
func callerError(format string, args ...any) *fault {
	return &fault{callerFault, fmt.Sprintf(format, args...)}
}

type resultCodes struct {
	returnCodeEnum, statusCodeEnum string
	returnCode, statusCode         int
}

// codesOf gives the result codes of a status. The numbers from 9001 are this
// sandbox's own: the real ones are not public. A client has to relay them.
func codesOf(status string) resultCodes {
	c := resultCodes{"RET_FAILURE", status, -1, 9000}
	switch status {
	case "STAT_SUCCESS":
		return resultCodes{"RET_SUCCESS", status, 0, 0}
	case "STAT_ERROR":
		c.statusCode = -1
	case "STAT_INVPARAM":
		c.statusCode = -2
	case "STAT_MEMORY":
		c.statusCode = -3
	case "STAT_COMMS":
		c.statusCode = -10
	case "STAT_LICENCE":
		c.statusCode = -11
	case "STAT_OS_FAILURE":
		c.statusCode = -12
	case "STAT_NOT_FOUND":
		c.statusCode = -13
	case "STAT_EXISTS":
		c.statusCode = -14
	case "STAT_INVCREDENTIALS":
		c.statusCode = 1000
	case "STAT_GROUPCHK":
		c.statusCode = 1002
	case "STAT_EXP_CHALLENGE":
		c.statusCode = 1004
	case "STAT_PERMISSION":
		c.statusCode = 1005
	case "STAT_LOCALAUTH":
		c.statusCode = 1006
	case "STAT_LOCKED":
		c.statusCode = 1007
	case "STAT_LOCAL_PASSWORD_MISMATCH":
		c.statusCode = 9001
	case "STAT_USER_UNKNOWN":
		c.statusCode = 9002
	case "STAT_OTP_INCORRECT":
		c.statusCode = 9003
	case "STAT_DIGIPASS_NOT_AVAILABLE":
		c.statusCode = 9004
	case "STAT_DPERROR":
		c.statusCode = 9005
	case "STAT_NOSUPPORT":
		c.statusCode = 9006
	}
	return c
}

// A valueType is the local part of the xsi:type that a value must have.
type valueType string

const (
	stringType      valueType = "string"
	unsignedIntType valueType = "unsignedInt"
)

// A field is one value that a command takes.
type field struct {
	name     string
	typ      valueType
	required bool
	max      int // characters
}

// An attributeList is the form in which every value is an <attributes> element
// with value and attributeID, collected in one set.
type attributeList struct {
	set         string // name of the element around the attributes
	resultsType string // xsi:type of the results, within typesNamespace
	fields      []field
}

var _ form = attributeList{}

func (a attributeList) read(children []*element) (values, error) {
	if len(children) != 1 || children[0].name.Local != a.set {
		return nil, callerError("expected exactly one element %s", a.set)
	}

	in := make(values, len(a.fields))
	given := make(map[string]bool, len(a.fields))
	for _, e := range children[0].children {
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

// readAttribute takes one <attributes> element apart; its children may stand
// in any order.
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
	w.open("results", w.p.xsi+":type", w.p.types+":"+a.resultsType)
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
}
