package authserver

import (
	"bytes"
	"encoding/xml"
	"strconv"
	"strings"
	"unicode/utf8"
)

// values are what a command sends or an answer holds, by field or output name.
// An empty value is the same as none.
type values map[string]string

// soapVersion is one of the two SOAP versions.
type soapVersion struct {
	envelope    string
	contentType string
	// action says that the version has the SOAPAction header.
	action bool
}

var (
	soap11 = soapVersion{"http://schemas.xmlsoap.org/soap/envelope/", "text/xml; charset=utf-8", true}
	soap12 = soapVersion{"http://www.w3.org/2003/05/soap-envelope", "application/soap+xml; charset=utf-8", false}
)

// encode writes the request. A required field without a value, a value that is
// not of the field's kind and a character that XML cannot carry give a
// *FieldError.
func (c *command) encode(v soapVersion, in values, a *Attributes) ([]byte, error) {
	if err := c.checkNames(in); err != nil {
		return nil, err
	}
	// Room for the longest escapes, so that no outgrown buffer with a secret in
	// it is left behind.
	size := 1024
	for _, value := range in {
		size += 128 + 6*len(value)
	}
	w := &bytes.Buffer{}
	w.Grow(size)
	w.WriteString(xml.Header)
	w.WriteString(`<soapenv:Envelope xmlns:soapenv="` + v.envelope + `"` +
		` xmlns:xsd="http://www.w3.org/2001/XMLSchema"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"` +
		` xmlns:` + c.scenario.prefix + `="` + c.scenario.namespace + `"><soapenv:Body>`)
	operation := c.scenario.prefix + ":" + c.operation
	openTag(w, operation)
	var err error
	if c.typed() {
		err = c.writeElements(w, in)
	} else {
		err = c.writeAttributes(w, in, a)
	}
	if err != nil {
		clear(w.Bytes())
		return nil, err
	}
	closeTag(w, operation)
	w.WriteString("</soapenv:Body></soapenv:Envelope>")
	return w.Bytes(), nil
}

// checkNames refuses a value that is given under a name the command does not have.
func (c *command) checkNames(in values) error {
names:
	for name := range in {
		for _, f := range c.fields {
			if f.name == name {
				continue names
			}
		}
		return &FieldError{name, "is no field of " + c.String()}
	}
	return nil
}

// writeAttributes writes the parameters of the attribute list family.
func (c *command) writeAttributes(w *bytes.Buffer, in values, a *Attributes) error {
	if c.cmd != "" {
		openTag(w, "cmd")
		w.WriteString(c.cmd)
		closeTag(w, "cmd")
	}
	openTag(w, c.set)
	for i := range c.fields {
		f := &c.fields[i]
		name := c.inputName(f, a)
		if name == "" {
			continue
		}
		value, err := f.value(name, in)
		if err != nil {
			return err
		}
		if value == "" {
			continue
		}
		kind := f.kind
		if kind == "" {
			kind = xsdString
		}
		w.WriteString(`<attributes><value xsi:type="` + kind + `">`)
		writeText(w, value)
		w.WriteString("</value><attributeID>" + name + "</attributeID></attributes>")
	}
	closeTag(w, c.set)
	if c.dataFields {
		w.WriteString("<dataFieldList><dataField><key>k</key><value>v</value></dataField></dataFieldList>")
	}
	return nil
}

// writeElements writes the parameters of the typed family. Fields that follow
// each other and share a parent share its element.
func (c *command) writeElements(w *bytes.Buffer, in values) error {
	open := ""
	for i := range c.fields {
		f := &c.fields[i]
		value, err := f.value(f.name, in)
		if err != nil {
			return err
		}
		if value == "" {
			continue
		}
		parent, name, nested := strings.Cut(f.name, "/")
		if !nested {
			parent, name = "", f.name
		}
		if parent != open {
			if open != "" {
				closeTag(w, open)
			}
			if parent != "" {
				openTag(w, parent)
			}
			open = parent
		}
		openTag(w, name)
		writeText(w, value)
		closeTag(w, name)
	}
	if open != "" {
		closeTag(w, open)
	}
	return nil
}

// value finds and checks what the field sends; empty if nothing.
func (f *field) value(name string, in values) (string, error) {
	value := in[f.name]
	if value == "" {
		value = f.fixed
	}
	if value == "" {
		if f.optional {
			return "", nil
		}
		return "", &FieldError{name, "is missing"}
	}
	if f.kind == xsdUnsignedInt {
		if _, err := strconv.ParseUint(value, 10, 32); err != nil {
			return "", &FieldError{name, "is not an unsigned integer"}
		}
	}
	if !legalText(value) {
		return "", &FieldError{name, "holds a character that XML cannot carry"}
	}
	return value, nil
}

// legalText reports whether s is UTF-8 that consists of characters of XML 1.0, §2.2.
func legalText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		switch {
		case r == '\t', r == '\n', r == '\r':
		case r < ' ', r == 0xFFFE, r == 0xFFFF:
			return false
		}
	}
	return true
}

func openTag(w *bytes.Buffer, name string)  { w.WriteString("<" + name + ">") }
func closeTag(w *bytes.Buffer, name string) { w.WriteString("</" + name + ">") }

// writeText escapes also quotes and line ends, which a parser would change.
func writeText(w *bytes.Buffer, s string) {
	// A bytes.Buffer never fails.
	_ = xml.EscapeText(w, []byte(s))
}
