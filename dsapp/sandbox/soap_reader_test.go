package sandbox

import (
	"encoding/xml"
	"strings"
	"testing"
)

// readXML accepts and refuses these documents.
func TestReadXML(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		document string
		problem  string // part of the error, empty if accepted
	}{
		"plain":                    {`<a/>`, ""},
		"declaration":              {`<?xml version="1.0" encoding="UTF-8"?><a/>`, ""},
		"byte order mark":          {"\xEF\xBB\xBF<a/>", ""},
		"comment":                  {`<!-- x --><a><!-- y --></a>`, ""},
		"character data section":   {`<a><![CDATA[<&>]]></a>`, ""},
		"declared prefix":          {`<p:a xmlns:p="urn:p"><p:b/></p:a>`, ""},
		"empty":                    {``, "ends too early"},
		"open element":             {`<a><b></b>`, "ends too early"},
		"wrong end tag":            {`<a></b>`, "closed by another"},
		"same name, other prefix":  {`<p:a xmlns:p="urn:p" xmlns:q="urn:p"></q:a>`, "closed by another"},
		"end tag alone":            {`</a>`, "without a start tag"},
		"two roots":                {`<a/><b/>`, "more than one root"},
		"text before":              {`x<a/>`, "outside the root"},
		"text after":               {`<a/>x`, "outside the root"},
		"text beside elements":     {`<a>x<b/></a>`, "beside elements"},
		"doctype":                  {`<!DOCTYPE a><a/>`, "document type"},
		"entity":                   {`<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>`, "document type"},
		"unknown entity":           {`<a>&e;</a>`, "not well-formed"},
		"processing instruction":   {`<a><?php x?></a>`, "processing instructions"},
		"late declaration":         {`<a/><?xml version="1.0"?>`, "processing instructions"},
		"undeclared prefix":        {`<p:a/>`, "not declared"},
		"undeclared attr prefix":   {`<a p:b=""/>`, "not declared"},
		"undeclared type prefix":   {`<a xmlns:i="` + xsiNamespace + `" i:type="x:string"/>`, "not declared"},
		"prefix out of scope":      {`<a><b xmlns:p="urn:p"/><p:c/></a>`, "not declared"},
		"prefix declared twice":    {`<a xmlns:p="urn:p" xmlns:p="urn:q"/>`, "declared twice"},
		"prefix undeclared again":  {`<a xmlns:p=""/>`, "against the rules"},
		"attribute twice":          {`<a b="" b=""/>`, "given twice"},
		"attribute twice by alias": {`<a xmlns:p="urn:p" xmlns:q="urn:p" p:b="" q:b=""/>`, "given twice"},
		"two colons in type":       {`<a xmlns:i="` + xsiNamespace + `" xmlns:x="urn:x" i:type="x:y:z"/>`, "malformed"},
		"not UTF-8":                {"<a>\xff</a>", "not well-formed"},
		"other encoding":           {`<?xml version="1.0" encoding="ISO-8859-1"?><a/>`, "not well-formed"},
		"depth at the limit":       {strings.Repeat("<a>", maxDepth) + strings.Repeat("</a>", maxDepth), ""},
		"too deep":                 {strings.Repeat("<a>", maxDepth+1) + strings.Repeat("</a>", maxDepth+1), "deeply"},
		"too many elements":        {"<a>" + strings.Repeat("<b/>", maxElements) + "</a>", "too many"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := readXML([]byte(c.document))
			if c.problem == "" && err != nil {
				t.Fatalf("refused: %v", err)
			}
			if c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)) {
				t.Fatalf("error %v, want one about %q", err, c.problem)
			}
		})
	}
}

// The default namespace applies to elements and type names, not to attributes, and ends with
// its element.
func TestReadXMLNamespaces(t *testing.T) {
	t.Parallel()
	root, err := readXML([]byte(`<a xmlns="urn:d" xmlns:i="` + xsiNamespace + `" b="1">` +
		`<c xmlns="" i:type="local"/><d xmlns:p="urn:p" i:type="p:typ"/><e i:type="plain">t<!-- x -->u</e></a>`))
	if err != nil {
		t.Fatal(err)
	}
	if root.name != (xml.Name{Space: "urn:d", Local: "a"}) || root.attr(xml.Name{Local: "b"}) != "1" {
		t.Errorf("root %v, attributes %v", root.name, root.attrs)
	}
	c, d, e := root.children[0], root.children[1], root.children[2]
	if c.name.Space != "" || c.xsiType != (xml.Name{Local: "local"}) {
		t.Errorf("c is %v of type %v", c.name, c.xsiType)
	}
	if d.name.Space != "urn:d" || d.xsiType != (xml.Name{Space: "urn:p", Local: "typ"}) {
		t.Errorf("d is %v of type %v", d.name, d.xsiType)
	}
	if e.xsiType != (xml.Name{Space: "urn:d", Local: "plain"}) || e.text.String() != "tu" {
		t.Errorf("e has type %v and text %q", e.xsiType, e.text.String())
	}
}

// No request makes the reader or the forms panic, and every error is one that can be answered.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(registerRequest), false)
	f.Add([]byte(strings.ReplaceAll(registerRequest, soap11Namespace, soap12Namespace)), true)
	f.Add([]byte(request("PROVISIONCMD_MDL_ADD_DEVICE", attr("string", "x", "PROVFLD_DEVICE_CODE"))), false)
	f.Add([]byte(`<!DOCTYPE a><a/>`), false)
	f.Add([]byte(`<a xmlns="urn:a"><b:c/></a>`), true)
	for _, body := range commandRequests() {
		f.Add([]byte(body), false)
	}
	s := New(Options{})
	f.Fuzz(func(t *testing.T, body []byte, newer bool) {
		version := soap11
		if newer {
			version = soap12
		}
		c, children, err := s.findCommand(version, body)
		if err == nil {
			if c == nil {
				t.Fatal("neither a command nor an error")
			}
			_, err = c.form.read(children)
		}
		switch err.(type) {
		case nil, *fault, *refusal:
		default:
			t.Fatalf("error of type %T", err)
		}
		if _, answer := s.answer(version, c, "", nil, err); xml.Unmarshal([]byte(answer), new(struct{})) != nil {
			t.Fatalf("answer is not well-formed: %s", answer)
		}
	})
}
