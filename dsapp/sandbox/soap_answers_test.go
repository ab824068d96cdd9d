package sandbox

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

// send posts a request and returns HTTP status and body.
func send(t testing.TB, h http.Handler, contentType, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// status sends a request and returns the status of its answer.
func status(t testing.TB, h http.Handler, body string) string {
	t.Helper()
	code, answer := send(t, h, text11, body)
	m := regexp.MustCompile(`<statusCodeEnum>(\w+)</statusCodeEnum>`).FindStringSubmatch(answer)
	if code != http.StatusOK || m == nil {
		t.Fatalf("HTTP status %d without result codes: %s", code, answer)
	}
	return m[1]
}

// attributeValue returns the value of an attribute in an answer of the usual form.
func attributeValue(t testing.TB, answer, id string) string {
	t.Helper()
	m := regexp.MustCompile(`<value xsi:type="xsd:string">([^<]*)</value><attributeID>` + id + `</attributeID>`).FindStringSubmatch(answer)
	if m == nil {
		t.Fatalf("no attribute %s in %s", id, answer)
	}
	return m[1]
}

func elementValue(t testing.TB, answer, name string) string {
	t.Helper()
	m := regexp.MustCompile(`<` + name + `>([^<]*)</` + name + `>`).FindStringSubmatch(answer)
	if m == nil {
		t.Fatalf("no element %s in %s", name, answer)
	}
	return m[1]
}

// encryptedItem returns an encrypted item of an answer, decoded and as it stands there.
func encryptedItem(t *testing.T, answer, item string) (c seal.Ciphertext, written string) {
	t.Helper()
	m := regexp.MustCompile(`<` + item + `><encryptedData>([0-9A-F]+)</encryptedData><encryptedCounter>([0-9A-F]+)</encryptedCounter><mac>([0-9A-F]+)</mac></` + item + `>`).
		FindStringSubmatch(answer)
	if m == nil {
		t.Fatalf("no %s in %s", item, answer)
	}
	return seal.Ciphertext{Data: digits.Decode(t, m[1]), Counter: digits.Decode(t, m[2]), MAC: digits.Decode(t, m[3])}, m[0]
}

const (
	successCodes = `<resultCodes><returnCodeEnum>RET_SUCCESS</returnCodeEnum><statusCodeEnum>STAT_SUCCESS</statusCodeEnum>` +
		`<returnCode>0</returnCode><statusCode>0</statusCode></resultCodes>`
	typedSuccess = `<status>` + successCodes + `<errorStack></errorStack></status>`
)

// golden returns a complete answer of a scenario in its usual form.
func golden(prefix, body string) string {
	name := map[string][3]string{
		"aut":  {"CREDENTIAL-TYPES", "CredentialTypes", "Authentication"},
		"sig":  {"SIGNATURE-TYPES", "SignatureTypes", "Signature"},
		"prov": {"PROVISIONING-TYPES", "ProvisioningTypes", "Provisioning"},
	}[prefix]
	types := "http://www.vasco.com/IdentikeyServer/IdentikeyTypes/"
	return `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:` + name[0] + `="` + types + name[1] + `.xsd"` +
		` xmlns:` + prefix + `="` + types + name[2] + `"><soapenv:Body>` + body + `</soapenv:Body></soapenv:Envelope>`
}

func goldenResults(typ string, attributes ...string) string {
	return `<results xsi:type="` + typ + `">` + successCodes + `<resultAttribute>` + strings.Join(attributes, "") +
		`</resultAttribute><errorStack></errorStack></results>`
}

// goldenProvisioning is the answer to a successful provisioningExecute.
func goldenProvisioning(attributes ...string) string {
	return golden("prov", `<prov:provisioningExecuteResponse>`+
		goldenResults("PROVISIONING-TYPES:ProvisioningResults", attributes...)+`</prov:provisioningExecuteResponse>`)
}

// goldenNotFound is the answer to a provisioningExecute with an unknown registration ID.
var goldenNotFound = golden("prov", `<prov:provisioningExecuteResponse><results xsi:type="PROVISIONING-TYPES:ProvisioningResults">`+
	`<resultCodes><returnCodeEnum>RET_FAILURE</returnCodeEnum><statusCodeEnum>STAT_NOT_FOUND</statusCodeEnum>`+
	`<returnCode>-1</returnCode><statusCode>-13</statusCode></resultCodes><resultAttribute></resultAttribute>`+
	`<errorStack><errors><errorCode>-13</errorCode><errorDesc>registration ID not found</errorDesc></errors></errorStack></results></prov:provisioningExecuteResponse>`)

// The answers to a completed login and signature of the device VDS1000120-1.
var (
	goldenLogin = golden("aut", `<aut:authUserResponse><authUserResults>`+goldenResults("CREDENTIAL-TYPES:CredentialResults",
		attr("string", "jane.doe", "CREDFLD_USERID"), attr("string", "mydomain.com", "CREDFLD_DOMAIN"),
		attr("string", "sales", "CREDFLD_ORGANIZATIONAL_UNIT"), attr("string", "VDS1000120-1", "CREDFLD_SERIAL_NO"))+
		`</authUserResults></aut:authUserResponse>`)
	goldenSignature = golden("sig", `<sig:authSignatureResponse>`+goldenResults("SIGNATURE-TYPES:SignatureResults",
		attr("string", "jane.doe", "SIGNFLD_USERID"), attr("string", "mydomain.com", "SIGNFLD_DOMAIN"),
		attr("string", "sales", "SIGNFLD_ORGANIZATIONAL_UNIT"), attr("string", "VDS1000120-1", "SIGNFLD_SERIAL_NO"))+
		`</sig:authSignatureResponse>`)
	goldenSigned = golden("sig", `<sig:authSignatureRequestResponse>`+typedSuccess+
		`<result>`+janeElement+`<serialNumber>VDS1000120-1</serialNumber></result></sig:authSignatureRequestResponse>`)
)

// wantAnswer compares an answer byte by byte.
func wantAnswer(t testing.TB, what, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s:\n%s\nwant\n%s", what, got, want)
	}
}
