package sandbox

import (
	"encoding/xml"
	"strconv"
	"strings"
)

// Variant chooses among the answer forms that a client has to understand. The
// zero value is the usual form. Variants can be combined.
type Variant struct {
	// Prefixes uses other namespace prefixes throughout.
	Prefixes bool
	// IDFirst writes attributeID before value.
	IDFirst bool
	// Masked marks the activation messages with attributeOptions/masked.
	Masked bool
	// Errors is the number of additional entries in the error stack, of
	// successful answers too.
	Errors int
	// Extra adds attributes that no client knows to successful answers.
	Extra bool
	// Rename replaces attribute identifiers in answers: the names of some
	// are not public, and a server may use others than the defaults.
	Rename map[string]string
}

const (
	soap11Namespace = "http://schemas.xmlsoap.org/soap/envelope/"
	soap12Namespace = "http://www.w3.org/2003/05/soap-envelope"

	typesNamespace        = "http://www.vasco.com/IdentikeyServer/IdentikeyTypes/"
	provisioningNamespace = typesNamespace + "Provisioning"
)

// A soapVersion is the version that the media type of a request announces.
type soapVersion struct {
	envelope    string // namespace
	contentType string // of answers
	// Codes of a Fault by kind, and the HTTP status of one the caller caused.
	caller, server string
	callerStatus   int
}

var (
	soap11 = soapVersion{soap11Namespace, "text/xml; charset=utf-8", "Client", "Server", 500}
	soap12 = soapVersion{soap12Namespace, "application/soap+xml; charset=utf-8", "Sender", "Receiver", 400}
)

func (v soapVersion) faultCode(k faultKind) string {
	switch k {
	case callerFault:
		return v.caller
	case versionFault:
		return "VersionMismatch"
	case understandFault:
		return "MustUnderstand"
	default:
		return v.server
	}
}

// prefixes of an answer.
type prefixes struct{ envelope, operation, types, xsd, xsi string }

// A writer writes one answer.
type writer struct {
	strings.Builder
	p prefixes
	v Variant
}

func newWriter(v Variant) *writer {
	w := &writer{v: v, p: prefixes{"soapenv", "prov", "PROVISIONING-TYPES", "xsd", "xsi"}}
	if v.Prefixes {
		w.p = prefixes{"SOAP-ENV", "ns1", "ns2", "s", "i"}
	}
	return w
}

// envelope writes a whole message; header may be empty, body writes the content
// of the Body.
func (w *writer) envelope(version soapVersion, namespace, header string, body func()) {
	w.WriteString(xml.Header)
	envelope := w.p.envelope + ":Envelope"
	w.open(envelope,
		"xmlns:"+w.p.envelope, version.envelope,
		"xmlns:"+w.p.xsd, xsdNamespace,
		"xmlns:"+w.p.xsi, xsiNamespace,
		"xmlns:"+w.p.types, typesNamespace+"ProvisioningTypes.xsd",
		"xmlns:"+w.p.operation, namespace)
	if header != "" {
		w.open(w.p.envelope + ":Header")
		w.WriteString(header)
		w.close(w.p.envelope + ":Header")
	}
	w.open(w.p.envelope + ":Body")
	body()
	w.close(w.p.envelope + ":Body")
	w.close(envelope)
}

func (w *writer) fault(version soapVersion, f *fault) {
	name := w.p.envelope + ":Fault"
	code := w.p.envelope + ":" + version.faultCode(f.kind)
	w.open(name)
	if version.envelope == soap11Namespace {
		w.leaf("faultcode", code)
		w.leaf("faultstring", f.text)
	} else {
		w.open(w.p.envelope + ":Code")
		w.leaf(w.p.envelope+":Value", code)
		w.close(w.p.envelope + ":Code")
		w.open(w.p.envelope + ":Reason")
		w.leaf(w.p.envelope+":Text", f.text, "xml:lang", "en")
		w.close(w.p.envelope + ":Reason")
	}
	w.close(name)
}

func (w *writer) resultCodes(c resultCodes) {
	w.open("resultCodes")
	w.leaf("returnCodeEnum", c.returnCodeEnum)
	w.leaf("statusCodeEnum", c.statusCodeEnum)
	w.leaf("returnCode", strconv.Itoa(c.returnCode))
	w.leaf("statusCode", strconv.Itoa(c.statusCode))
	w.close("resultCodes")
}

func (w *writer) attribute(d datum, typ valueType) {
	if name, ok := w.v.Rename[d.name]; ok {
		d.name = name
	}
	w.open("attributes")
	if d.secret && w.v.Masked {
		w.open("attributeOptions")
		w.leaf("masked", "true")
		w.close("attributeOptions")
	}
	if w.v.IDFirst {
		w.leaf("attributeID", d.name)
	}
	w.leaf("value", d.value, w.p.xsi+":type", w.p.xsd+":"+string(typ))
	if !w.v.IDFirst {
		w.leaf("attributeID", d.name)
	}
	w.close("attributes")
}

func (w *writer) errorStack(stack []stackEntry) {
	w.open("errorStack")
	for i := range len(stack) + w.v.Errors {
		e := stackEntry{0, "further entry of the sandbox"}
		if i < len(stack) {
			e = stack[i]
		}
		w.open("errors")
		w.leaf("errorCode", strconv.Itoa(e.code))
		w.leaf("errorDesc", e.text)
		w.close("errors")
	}
	w.close("errorStack")
}

// open writes a start tag with attributes given as name, value, name, value ...
func (w *writer) open(name string, attributes ...string) {
	w.WriteString("<" + name)
	for i := 0; i < len(attributes); i += 2 {
		w.WriteString(" " + attributes[i] + `="`)
		w.text(attributes[i+1])
		w.WriteString(`"`)
	}
	w.WriteString(">")
}

func (w *writer) close(name string) { w.WriteString("</" + name + ">") }

func (w *writer) leaf(name, text string, attributes ...string) {
	w.open(name, attributes...)
	w.text(text)
	w.close(name)
}

func (w *writer) text(s string) {
	_ = xml.EscapeText(&w.Builder, []byte(s)) // a Builder does not fail
}
