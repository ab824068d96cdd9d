// Package soapanswer builds answers of an authentication server in XML, as tests need them.
package soapanswer

import (
	"fmt"
	"strings"
)

// Success are the result codes of a success.
const Success = `<resultCodes><returnCodeEnum>RET_SUCCESS</returnCodeEnum><statusCodeEnum>STAT_SUCCESS</statusCodeEnum>` +
	`<returnCode>0</returnCode><statusCode>0</statusCode></resultCodes>`

// Codes returns any result codes.
func Codes(returnEnum, statusEnum string, returnCode, statusCode int) string {
	return fmt.Sprintf(`<resultCodes><returnCodeEnum>%s</returnCodeEnum><statusCodeEnum>%s</statusCodeEnum>`+
		`<returnCode>%d</returnCode><statusCode>%d</statusCode></resultCodes>`, returnEnum, statusEnum, returnCode, statusCode)
}

// Failed returns the result codes of a refusal.
func Failed(status string, code int) string { return Codes("RET_FAILURE", status, -1, code) }

// Envelope returns a SOAP 1.1 answer as the server writes it.
func Envelope(body string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" xmlns:SOAP-ENC="http://schemas.xmlsoap.org/soap/encoding/"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema"` +
		` xmlns:PROV-TYPES="http://www.vasco.com/IdentikeyServer/IdentikeyTypes/Provisioning">` +
		`<SOAP-ENV:Body>` + body + `</SOAP-ENV:Body></SOAP-ENV:Envelope>`
}

// Attribute returns one value of an answer of the attribute list family.
func Attribute(id, value string) string {
	return `<attributes><value xsi:type="xsd:string">` + value + `</value><attributeID>` + id + `</attributeID></attributes>`
}

// Provisioned returns a successful answer of provisioningExecute.
func Provisioned(attributes ...string) string {
	return Envelope(`<PROV-TYPES:provisioningExecuteResponse><results xsi:type="PROVISIONING-TYPES:ProvisioningResults">` + Success +
		`<resultAttribute>` + strings.Join(attributes, "") + `</resultAttribute><errorStack/></results></PROV-TYPES:provisioningExecuteResponse>`)
}

// Refused returns an answer of provisioningExecute without values and with an error stack.
func Refused(returnEnum, statusEnum string, returnCode, statusCode int, stack string) string {
	return Envelope(`<p:provisioningExecuteResponse xmlns:p="urn:x"><results>` + Codes(returnEnum, statusEnum, returnCode, statusCode) +
		`<resultAttribute/>` + stack + `</results></p:provisioningExecuteResponse>`)
}
