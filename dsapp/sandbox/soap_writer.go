package sandbox

import (
	"encoding/xml"
	"strconv"
	"strings"
)

// Variant selects one of the forms of answers that clients have to understand. The zero
// Variant is the usual form. All options can be combined.
type Variant struct {
	// Prefixes uses other namespace prefixes.
	Prefixes bool
	// IDFirst writes attributeID before value.
	IDFirst bool
	// Masked marks the activation data with attributeOptions/masked.
	Masked bool
	// Errors is the number of additional entries in the error stack, also of successful
	// answers.
	Errors int
	// Extra adds unknown attributes or elements to successful answers, and the list of user
	// attributes to those of authUser.
	Extra bool
	// Rename replaces names of attributes and elements in the data of answers. Some are not
	// public, and a server may use others than the sandbox.
	Rename map[string]string
}

func (v Variant) rename(name string) string {
	if renamed, ok := v.Rename[name]; ok {
		return renamed
	}
	return name
}

const (
	soap11Namespace = "http://schemas.xmlsoap.org/soap/envelope/"
	soap12Namespace = "http://www.w3.org/2003/05/soap-envelope"

	typesNamespace = "http://www.vasco.com/IdentikeyServer/IdentikeyTypes/"
)

// A scenario is a group of commands with its own namespaces.
type scenario struct {
	name        string // in the namespace of the operations
	prefix      string
	types       string // in the namespace of the types, without .xsd
	typesPrefix string
	resultsType string // xsi:type of attribute-list results
}

var (
	authenticationScenario = &scenario{"Authentication", "aut", "CredentialTypes", "CREDENTIAL-TYPES", "CredentialResults"}
	signatureScenario      = &scenario{"Signature", "sig", "SignatureTypes", "SIGNATURE-TYPES", "SignatureResults"}
	provisioningScenario   = &scenario{"Provisioning", "prov", "ProvisioningTypes", "PROVISIONING-TYPES", "ProvisioningResults"}
)

func (c *scenario) namespace() string { return typesNamespace + c.name }

// A soapVersion is a version of SOAP.
type soapVersion struct {
	envelope    string // namespace
	contentType string // of answers
	// Fault codes for errors of the caller and of the server, and the HTTP status of a Fault
	// with the former.
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
	case mustUnderstandFault:
		return "MustUnderstand"
	default:
		return v.server
	}
}

// prefixes are the namespace prefixes of a message.
type prefixes struct{ envelope, operation, types, xsd, xsi string }

// A writer writes one message.
type writer struct {
	strings.Builder
	scenario *scenario
	p        prefixes
	v        Variant
}

func newWriter(c *scenario, v Variant) *writer {
	w := &writer{scenario: c, v: v, p: prefixes{"soapenv", c.prefix, c.typesPrefix, "xsd", "xsi"}}
	if v.Prefixes {
		w.p = prefixes{"SOAP-ENV", "ns1", "ns2", "s", "i"}
	}
	return w
}

// envelope writes a complete message. header is the content of the Header and may be empty;
// body writes the content of the Body.
func (w *writer) envelope(version soapVersion, header string, body func()) {
	w.WriteString(xml.Header)
	envelope := w.p.envelope + ":Envelope"
	w.open(envelope,
		"xmlns:"+w.p.envelope, version.envelope,
		"xmlns:"+w.p.xsd, xsdNamespace,
		"xmlns:"+w.p.xsi, xsiNamespace,
		"xmlns:"+w.p.types, typesNamespace+w.scenario.types+".xsd",
		"xmlns:"+w.p.operation, w.scenario.namespace())
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
	d.name = w.v.rename(d.name)
	w.open("attributes")
	if d.masked || d.secret && w.v.Masked {
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

// open writes a start tag. attributes are alternately names and values.
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

// closeTo closes the innermost of the open groups until n are open.
func (w *writer) closeTo(open []string, n int) []string {
	for len(open) > n {
		w.close(w.v.rename(open[len(open)-1]))
		open = open[:len(open)-1]
	}
	return open
}

func (w *writer) leaf(name, text string, attributes ...string) {
	w.open(name, attributes...)
	w.text(text)
	w.close(name)
}

func (w *writer) text(s string) {
	_ = xml.EscapeText(&w.Builder, []byte(s)) // a Builder never fails
}
