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
	envelope string // namespace
	// ContentType is the Content-Type of a request.
	ContentType string
	// Action says that a request has a SOAPAction header.
	Action bool
}

// The SOAP versions.
var (
	V11 = Version{"http://schemas.xmlsoap.org/soap/envelope/", "text/xml; charset=utf-8", true}
	V12 = Version{"http://www.w3.org/2003/05/soap-envelope", "application/soap+xml; charset=utf-8", false}
)

// FieldError says which value of a request cannot be sent, and why.
type FieldError struct {
	// Field is the name of the attribute or element.
	Field string
	// Problem says what is wrong. It does not contain the value.
	Problem string
}

func (e *FieldError) Error() string { return e.Field + " " + e.Problem }

// Encode returns the request as XML. The error is a *FieldError: a required value is missing,
// or a value contains a character that XML cannot represent.
func (c Call) Encode(d *Dialect) ([]byte, error) {
	// The buffer has room for the longest escapes. If it grew, a copy of a secret would
	// stay behind in memory.
	size := 1024
	for i := range c.fields {
		size += 128 + 6*len(c.value(&c.fields[i], d))
	}
	w := &bytes.Buffer{}
	w.Grow(size)
	w.WriteString(xml.Header)
	write(w, `<soapenv:Envelope xmlns:soapenv="`, d.Version.envelope,
		`" xmlns:xsd="http://www.w3.org/2001/XMLSchema"`+
			` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"`+
			` xmlns:`, c.scenario.prefix, `="`, c.scenario.namespace, `"><soapenv:Body>`)
	write(w, "<", c.scenario.prefix, ":", c.operation, ">")
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
	write(w, "</", c.scenario.prefix, ":", c.operation, "></soapenv:Body></soapenv:Envelope>")
	return w.Bytes(), nil
}

// writeAttributes writes the fields of a command of the attribute list family.
func (c Call) writeAttributes(w *bytes.Buffer, d *Dialect) error {
	if c.cmd != "" {
		openTag(w, "cmd")
		w.WriteString(c.cmd)
		closeTag(w, "cmd")
	}
	openTag(w, c.attributeSet)
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
		write(w, `<attributes><value xsi:type="`, cmp.Or(f.xsiType, xsdString), `">`)
		writeText(w, value)
		write(w, "</value><attributeID>", name, "</attributeID></attributes>")
	}
	closeTag(w, c.attributeSet)
	if c.dataFields {
		w.WriteString("<dataFieldList><dataField><key>k</key><value>v</value></dataField></dataFieldList>")
	}
	return nil
}

// writeElements writes the fields of a command of the typed family. Successive fields with
// the same parent share its element.
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

// value returns what is sent for a field, or the empty string if nothing is.
func (c Call) value(f *field, d *Dialect) string {
	switch {
	case f.valueIn != nil:
		return f.valueIn(c.Request)
	case f.constant != "":
		return f.constant
	}
	return c.scenario.component(&d.ComponentTypes)
}

// check returns a *FieldError about name, the field's full name, if value cannot be sent.
func (f *field) check(name, value string) error {
	if value == "" && !f.optional {
		return &FieldError{name, "is missing"}
	}
	if !IsXMLText(value) {
		return &FieldError{name, "contains a character that XML cannot represent"}
	}
	return nil
}

// redactor replaces the values of the request in texts of the server, which may repeat them.
func (c Call) redactor() *strings.Replacer {
	var sent []string
	for i := range c.fields {
		if f := &c.fields[i]; f.valueIn != nil && f.valueIn(c.Request) != "" {
			sent = append(sent, f.valueIn(c.Request))
		}
	}
	// Long values come first, so that a value is replaced as a whole even if it contains
	// another one.
	slices.SortFunc(sent, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	pairs := make([]string, 0, 2*len(sent))
	for _, value := range sent {
		pairs = append(pairs, value, "[…]")
	}
	return strings.NewReplacer(pairs...)
}

// IsXMLText reports whether s is valid UTF-8 and consists of characters that XML 1.0 allows
// (section 2.2).
func IsXMLText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !isXMLChar(r) {
			return false
		}
	}
	return true
}

// isXMLChar reports whether XML 1.0 permits a character.
func isXMLChar(r rune) bool {
	switch {
	case r < ' ':
		return r == '\t' || r == '\n' || r == '\r'
	case utf8.ValidRune(r):
		return r != 0xFFFE && r != 0xFFFF
	}
	return false
}

func openTag(w *bytes.Buffer, name string)  { write(w, "<", name, ">") }
func closeTag(w *bytes.Buffer, name string) { write(w, "</", name, ">") }

// write writes texts that contain nothing to escape, without joining them before.
func write(w *bytes.Buffer, texts ...string) {
	for _, text := range texts {
		w.WriteString(text)
	}
}

// writeText writes s so that a parser reads it unchanged: it also escapes quotes and line
// ends. What needs no escapes is not copied before.
func writeText(w *bytes.Buffer, s string) {
	if !strings.ContainsAny(s, "\"'&<>\t\n\r") {
		w.WriteString(s)
		return
	}
	// Writing to a bytes.Buffer never fails.
	_ = xml.EscapeText(w, []byte(s))
}
