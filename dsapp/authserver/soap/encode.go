package soap

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"slices"
	"strings"
	"unicode/utf8"
)

// Version is one of the two SOAP versions.
type Version struct {
	envelope    string
	ContentType string
	// Action says that the version has the SOAPAction header.
	Action bool
}

// The SOAP versions.
var (
	V11 = Version{"http://schemas.xmlsoap.org/soap/envelope/", "text/xml; charset=utf-8", true}
	V12 = Version{"http://www.w3.org/2003/05/soap-envelope", "application/soap+xml; charset=utf-8", false}
)

// FieldError is a value that no command can carry.
type FieldError struct {
	// Field is the name of the attribute or element.
	Field string
	// Problem says what is wrong, without the value.
	Problem string
}

func (e *FieldError) Error() string { return e.Field + " " + e.Problem }

// Encode writes the request. A required field without a value and a character that
// XML cannot carry give a *FieldError.
func (c Call) Encode(d *Dialect) ([]byte, error) {
	// Room for the longest escapes, so that no outgrown buffer with a secret in
	// it is left behind.
	size := 1024
	for i := range c.fields {
		size += 128 + 6*len(c.value(&c.fields[i], d))
	}
	w := &bytes.Buffer{}
	w.Grow(size)
	w.WriteString(xml.Header)
	w.WriteString(`<soapenv:Envelope xmlns:soapenv="` + d.Version.envelope + `"` +
		` xmlns:xsd="http://www.w3.org/2001/XMLSchema"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"` +
		` xmlns:` + c.scenario.prefix + `="` + c.scenario.namespace + `"><soapenv:Body>`)
	operation := c.scenario.prefix + ":" + c.operation
	openTag(w, operation)
	var err error
	if c.typed() {
		err = c.writeElements(w, d)
	} else {
		err = c.writeAttributes(w, d)
	}
	if err != nil {
		clear(w.Bytes())
		return nil, err
	}
	closeTag(w, operation)
	w.WriteString("</soapenv:Body></soapenv:Envelope>")
	return w.Bytes(), nil
}

// writeAttributes writes the parameters of the attribute list family.
func (c Call) writeAttributes(w *bytes.Buffer, d *Dialect) error {
	if c.cmd != "" {
		openTag(w, "cmd")
		w.WriteString(c.cmd)
		closeTag(w, "cmd")
	}
	openTag(w, c.set)
	for i := range c.fields {
		f := &c.fields[i]
		name := c.inputName(f, &d.Attributes)
		if name == "" {
			continue
		}
		value := c.value(f, d)
		if err := f.check(name, value); err != nil {
			return err
		}
		if value == "" {
			continue
		}
		w.WriteString(`<attributes><value xsi:type="` + cmp.Or(f.kind, xsdString) + `">`)
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
func (c Call) writeElements(w *bytes.Buffer, d *Dialect) error {
	open := ""
	for i := range c.fields {
		f := &c.fields[i]
		value := c.value(f, d)
		if err := f.check(f.name, value); err != nil {
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

// value is what the field sends; empty if nothing.
func (c Call) value(f *field, d *Dialect) string {
	switch {
	case f.of != nil:
		return f.of(c.Request)
	case f.fixed != "":
		return f.fixed
	}
	return c.scenario.component(&d.ComponentTypes)
}

// check refuses a value that the field, under its full name, cannot carry.
func (f *field) check(name, value string) error {
	if value == "" && !f.optional {
		return &FieldError{name, "is missing"}
	}
	if !LegalText(value) {
		return &FieldError{name, "holds a character that XML cannot carry"}
	}
	return nil
}

// blotter replaces the values of the request in texts of the server, which is free
// to repeat them.
func (c Call) blotter() *strings.Replacer {
	var sent []string
	for i := range c.fields {
		if f := &c.fields[i]; f.of != nil && f.of(c.Request) != "" {
			sent = append(sent, f.of(c.Request))
		}
	}
	// A value that holds another goes first.
	slices.SortFunc(sent, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	pairs := make([]string, 0, 2*len(sent))
	for _, value := range sent {
		pairs = append(pairs, value, "[…]")
	}
	return strings.NewReplacer(pairs...)
}

// LegalText reports whether s is UTF-8 that consists of characters of XML 1.0, §2.2.
func LegalText(s string) bool {
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
