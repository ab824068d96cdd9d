package sandbox

import (
	"fmt"
	"strings"
)

// registerRequest is a request written down by hand.
const registerRequest = `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
    xmlns:xsd="http://www.w3.org/2001/XMLSchema"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xmlns:prov="http://www.vasco.com/IdentikeyServer/IdentikeyTypes/Provisioning">
  <soapenv:Body>
    <prov:provisioningExecute>
      <cmd>PROVISIONCMD_MDL_REGISTER</cmd>
      <attributeSet>
        <attributes><value xsi:type="xsd:string">DIGIPASS Gateway Provisioning DP760</value><attributeID>PROVFLD_COMPONENT_TYPE</attributeID></attributes>
        <attributes><value xsi:type="xsd:string">jane.doe</value><attributeID>PROVFLD_USERID</attributeID></attributes>
        <attributes><attributeID>PROVFLD_DOMAIN</attributeID><value xsi:type="xsd:string">mydomain.com</value></attributes>
        <attributes><attributeOptions><masked>true</masked></attributeOptions><value xsi:type="xsd:string">s&amp;cret</value><attributeID>PROVFLD_STATIC_PASSWORD</attributeID></attributes>
        <attributes><value xsi:type="xsd:unsignedInt">0</value><attributeID>PROVFLD_ACTIVATION_TYPE</attributeID></attributes>
      </attributeSet>
    </prov:provisioningExecute>
  </soapenv:Body>
</soapenv:Envelope>`

const (
	text11 = "text/xml; charset=utf-8"
	text12 = "application/soap+xml; charset=utf-8"
)

func attr(typ, value, id string) string {
	return fmt.Sprintf(`<attributes><value xsi:type="xsd:%s">%s</value><attributeID>%s</attributeID></attributes>`, typ, value, id)
}

// request returns a request with the component type and further attributes.
func request(cmd string, attributes ...string) string {
	return `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><e:Body>` +
		`<p:provisioningExecute xmlns:p="http://www.vasco.com/IdentikeyServer/IdentikeyTypes/Provisioning"><cmd>` + cmd + `</cmd><attributeSet>` +
		attr("string", "DIGIPASS Gateway Provisioning DP760", "PROVFLD_COMPONENT_TYPE") + strings.Join(attributes, "") +
		`</attributeSet></p:provisioningExecute></e:Body></e:Envelope>`
}

func register(user, password string) string {
	return request("PROVISIONCMD_MDL_REGISTER",
		attr("string", user, "PROVFLD_USERID"), attr("string", password, "PROVFLD_STATIC_PASSWORD"))
}

func addDevice(id, code string) string {
	return request("PROVISIONCMD_MDL_ADD_DEVICE",
		attr("string", id, "PROVFLD_REGISTRATIONID"), attr("string", code, "PROVFLD_DEVICE_CODE"))
}

func activate(id, signature string) string {
	return request("PROVISIONCMD_MDL_ACTIVATE",
		attr("string", id, "PROVFLD_REGISTRATIONID"), attr("string", signature, "PROVFLD_SIGNATURE"))
}

// These functions write requests by hand, without the code under test.

// envelope returns a request with the content of its operation element. prefix is that of the
// scenario.
func envelope(prefix, operation, content string) string {
	scenario := map[string]string{"aut": "Authentication", "sig": "Signature", "prov": "Provisioning"}[prefix]
	return `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
    xmlns:xsd="http://www.w3.org/2001/XMLSchema"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xmlns:` + prefix + `="http://www.vasco.com/IdentikeyServer/IdentikeyTypes/` + scenario + `">
  <soapenv:Body><` + prefix + ":" + operation + ">" + content + "</" + prefix + ":" + operation + `></soapenv:Body>
</soapenv:Envelope>`
}

const (
	pushComponent = `<componentType>Push Notification Client</componentType>`
	janeElement   = `<user><userID>jane.doe</userID><domain>mydomain.com</domain></user>`
	dummyField    = `<dataFieldList><dataField><key>k</key><value>v</value></dataField></dataFieldList>`
)

// authUser returns a request for jane.doe with further attributes.
func authUser(attributes ...string) string {
	return envelope("aut", "authUser", `<credentialAttributeSet>`+
		attr("string", "Push Notification Client", "CREDFLD_COMPONENT_TYPE")+
		attr("string", "jane.doe", "CREDFLD_USERID")+
		attr("string", "mydomain.com", "CREDFLD_DOMAIN")+
		attr("unsignedInt", "0", "CREDFLD_PASSWORD_FORMAT")+
		strings.Join(attributes, "")+`</credentialAttributeSet>`)
}

func password(p string) string { return attr("string", p, "CREDFLD_PASSWORD") }

func completeLogin(key, signature string) string {
	return authUser(attr("string", key, "CREDFLD_CHALLENGE_KEY"), password(signature))
}

func scanLogin() string {
	return envelope("aut", "getSecureChallenge", `<credentialAttributeSet>`+
		attr("string", "Push Notification Client", "CREDFLD_COMPONENT_TYPE")+
		attr("string", "jane.doe", "CREDFLD_USERID")+
		attr("string", "to the shop", "CREDFLD_CHALLENGE_MESSAGE")+`</credentialAttributeSet>`)
}

func waitForLogin(key string) string {
	return authUser(attr("string", key, "CREDFLD_CHALLENGE_KEY"))
}

func retrieveLogin(serial, key string) string {
	return envelope("aut", "getPreparedSecureChallenge",
		pushComponent+`<serialNumber>`+serial+`</serialNumber><challengeKey>`+key+`</challengeKey>`)
}

func cancelLogin(serial, key string) string {
	return envelope("aut", "cancelAuthUser",
		pushComponent+`<serialNumber>`+serial+`</serialNumber><challengeKeyMessage>`+key+`</challengeKeyMessage>`)
}

func completeSignature(key, signature string) string {
	return envelope("sig", "authSignature", `<attributeSet>`+
		attr("string", "Push Notification Client", "SIGNFLD_COMPONENT_TYPE")+
		attr("string", "jane.doe", "SIGNFLD_USERID")+
		attr("string", "mydomain.com", "SIGNFLD_DOMAIN")+
		attr("string", key, "SIGNFLD_REQUEST_KEY")+
		attr("string", signature, "SIGNFLD_SIGNATURE")+`</attributeSet>`+dummyField)
}

func scanSignature(attributes ...string) string {
	return envelope("sig", "genRequest", `<attributeSet>`+
		attr("string", "Push Notification Client", "SIGNFLD_COMPONENT_TYPE")+
		attr("string", "jane.doe", "SIGNFLD_USERID")+
		attr("string", "Payment", "SIGNFLD_TRANSACTION_TITLE")+strings.Join(attributes, "")+`</attributeSet>`+
		`<dataFieldList><dataField><key>amount</key><value>10 &amp; 20</value></dataField><dataField><key>to</key><value>Bob</value></dataField></dataFieldList>`)
}

func waitForSignature(key string) string {
	return envelope("sig", "authSignatureRequest", pushComponent+janeElement+`<requestKey>`+key+`</requestKey>`)
}

func pushSignature(serial string) string {
	if serial != "" {
		serial = `<serialNumber>` + serial + `</serialNumber>`
	}
	return envelope("sig", "authSignatureRequest", pushComponent+janeElement+serial+
		`<push><transactionTitle>Payment</transactionTitle><dataFieldList><dataField><key>amount</key><value>10</value></dataField></dataFieldList></push>`)
}

func retrieveSignature(serial, key string) string {
	return envelope("sig", "getPreparedSignatureRequest",
		pushComponent+`<serialNumber>`+serial+`</serialNumber><requestKey>`+key+`</requestKey>`)
}

func cancelSignature(serial, key string) string {
	return envelope("sig", "cancelAuthSignatureRequest",
		pushComponent+`<serialNumber>`+serial+`</serialNumber><requestKeyMessage>`+key+`</requestKeyMessage>`)
}

func updateNotificationID(serial, message string) string {
	return envelope("prov", "updateDevicePNID",
		pushComponent+janeElement+`<serialNumber>`+serial+`</serialNumber><devicePNID>`+message+`</devicePNID>`)
}

const provisioningComponent = `<componentType>DIGIPASS Gateway Provisioning DP760</componentType>`

func srpRegister(serialNumber string) string {
	return envelope("prov", "dsappSRPRegister", `<activationType>0</activationType>`+provisioningComponent+janeElement+
		`<credential><staticPassword>s&amp;cret</staticPassword></credential>`+serialNumber)
}

func srpEphemeralKey(id, public string) string {
	return envelope("prov", "dsappSRPGenerateEphemeralKey", provisioningComponent+
		`<registrationID>`+id+`</registrationID><clientEphemeralPublicKey>`+public+`</clientEphemeralPublicKey>`)
}

func srpActivationData(id, evidence string) string {
	return envelope("prov", "dsappSRPGenerateActivationData", provisioningComponent+
		`<registrationID>`+id+`</registrationID><clientEvidenceMessage>`+evidence+`</clientEvidenceMessage>`)
}

func srpActivate(id, credential string) string {
	return envelope("prov", "dsappSRPActivate", provisioningComponent+
		`<registrationID>`+id+`</registrationID><credential>`+credential+`</credential>`)
}

func registerStandard(serialNumber string) string {
	if serialNumber != "" {
		serialNumber = attr("string", serialNumber, "PROVFLD_SERIAL_NO")
	}
	return request("PROVISIONCMD_REGISTER", attr("string", "jane.doe", "PROVFLD_USERID"),
		attr("string", "mydomain.com", "PROVFLD_DOMAIN"), attr("string", "s&amp;cret", "PROVFLD_STATIC_PASSWORD"), serialNumber)
}

func activateStandard(attributes ...string) string {
	return request("PROVISIONCMD_ACTIVATE", append([]string{attr("string", "jane.doe", "PROVFLD_USERID")}, attributes...)...)
}

// commandRequests returns a valid request of every command but provisioningExecute.
func commandRequests() map[string]string {
	return map[string]string{
		"authUser":                       authUser(password("x")),
		"getSecureChallenge":             scanLogin(),
		"getPreparedSecureChallenge":     retrieveLogin("VDS1000120-1", "1"),
		"cancelAuthUser":                 cancelLogin("VDS1000120-1", "1"),
		"authSignature":                  completeSignature("1", "1"),
		"genRequest":                     scanSignature(),
		"authSignatureRequest":           waitForSignature("1"),
		"getPreparedSignatureRequest":    retrieveSignature("VDS1000120-1", "1"),
		"cancelAuthSignatureRequest":     cancelSignature("VDS1000120-1", "1"),
		"updateDevicePNID":               updateNotificationID("VDS1000120-1", "0102"),
		"dsappSRPRegister":               srpRegister("<serialNumber>VDS1000120</serialNumber>"),
		"dsappSRPGenerateEphemeralKey":   srpEphemeralKey("x", "02"),
		"dsappSRPGenerateActivationData": srpActivationData("x", strings.Repeat("0", 64)),
		"dsappSRPActivate":               srpActivate("x", "<response>1</response>"),
	}
}
