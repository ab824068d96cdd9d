package authserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// method is a command with a success of the server as the reference shows it.
type method struct {
	// call carries out the command, on the named instance where that is possible.
	call func(ctx context.Context, s *Servers, instance string) (outcome, error)
	// of is the command with its values.
	of soap.Call
	// sent is what the command must hold.
	sent []string
	// answer is the body of a success, without the operation's element. "CODES"
	// stands for the result codes.
	operation, answer string
	told              any
}

// outcome is what a command gave, and on which instance.
type outcome struct {
	answer   any
	instance string
}

// want is the outcome on an instance.
func (m *method) want(instance string) outcome { return outcome{m.told, instance} }

// isZero reports whether a command gave nothing.
func (o outcome) isZero() bool { return o.instance == "" && reflect.ValueOf(o.answer).IsZero() }

// carryingOut is a method that calls c, which goes where target says for the named instance.
func carryingOut[Q, A any](c soap.Command[Q, A], request Q, target func(instance string) Target) method {
	return method{
		call: func(ctx context.Context, s *Servers, instance string) (outcome, error) {
			a, instance, err := Call(ctx, s, target(instance), c, request)
			return outcome{a, instance}, err
		},
		of: c.Call(&request, new(A)),
	}
}

func anywhere(string) Target { return Target{} }

func searched(instance string) Target { return Target{Instances: At(instance).Instances, Search: true} }

func searchedAnywhere(string) Target { return Target{Search: true} }

// answered completes a method.
func (m method) answered(told any, operation, answer string, sent ...string) method {
	m.told, m.operation, m.answer, m.sent = told, operation, answer, sent
	return m
}

// attributes is an answer of the attribute list family.
func attributes(list ...string) string {
	return `<results xsi:type="T:Results">CODES<resultAttribute>` + strings.Join(list, "") + `</resultAttribute><errorStack/></results>`
}

// result is an answer of the typed family.
func result(members string) string {
	return `<status>CODES<errorStack></errorStack></status><result>` + members + `</result>`
}

// success are the codes of a success.
const success = `<resultCodes><returnCodeEnum>RET_SUCCESS</returnCodeEnum><statusCodeEnum>STAT_SUCCESS</statusCodeEnum>` +
	`<returnCode>0</returnCode><statusCode>0</statusCode></resultCodes>`

// failed are the codes of a refusal.
func failed(status string, code int) string {
	return fmt.Sprintf(`<resultCodes><returnCodeEnum>RET_FAILURE</returnCodeEnum><statusCodeEnum>%s</statusCodeEnum>`+
		`<returnCode>-1</returnCode><statusCode>%d</statusCode></resultCodes>`, status, code)
}

// envelope is a SOAP 1.1 answer as the server writes it.
func envelope(body string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"` +
		` xmlns:xsd="http://www.w3.org/2001/XMLSchema"><SOAP-ENV:Body>` + body + `</SOAP-ENV:Body></SOAP-ENV:Envelope>`
}

func attribute(id, value string) string {
	return `<attributes><value xsi:type="xsd:string">` + value + `</value><attributeID>` + id + `</attributeID></attributes>`
}

// provisioned is a successful answer of provisioningExecute.
func provisioned(list ...string) string {
	return envelope(`<p:provisioningExecuteResponse xmlns:p="urn:x">` + strings.Replace(attributes(list...), "CODES", success, 1) + `</p:provisioningExecuteResponse>`)
}

// refused is an unsuccessful answer of provisioningExecute.
func refused(returnEnum, statusEnum string, returnCode, statusCode int, stack string) string {
	codes := fmt.Sprintf(`<resultCodes><returnCodeEnum>%s</returnCodeEnum><statusCodeEnum>%s</statusCodeEnum>`+
		`<returnCode>%d</returnCode><statusCode>%d</statusCode></resultCodes>`, returnEnum, statusEnum, returnCode, statusCode)
	return envelope(`<p:provisioningExecuteResponse xmlns:p="urn:x"><results>` + codes + `<resultAttribute/>` + stack + `</results></p:provisioningExecuteResponse>`)
}

const statusOnly = `<status>CODES<errorStack/></status>`

var (
	encryptedMessage = form.Sealed{Data: strings.Repeat("C7", 4234), Counter: "73BD6BC4C912DAD3B4F1460FF50268D9", MAC: strings.Repeat("5a", 32)}
	encryptedItem    = `<encryptedData>` + encryptedMessage.Data + `</encryptedData><encryptedCounter>` + encryptedMessage.Counter +
		`</encryptedCounter><mac>` + encryptedMessage.MAC + `</mac>`
)

// methods are all commands by their names in the reference.
var methods = map[string]method{
	"MDL_REGISTER": carryingOut(soap.MDLRegister, request, anywhere).answered(
		soap.MDLRegistered{RegistrationID: "aB3dE6gH", ActivationMessage: "0A1B", SerialNumber: "VDS1234567"},
		"provisioningExecute", attributes(attribute("PROVFLD_REGISTRATIONID", "aB3dE6gH"), attribute("PROVFLD_ACTIVATION_MESSAGE", "0A1B"),
			attribute("PROVFLD_SERIAL_NO", "VDS1234567")),
		"<cmd>PROVISIONCMD_MDL_REGISTER</cmd>", secret),
	"MDL_ADD_DEVICE": carryingOut(soap.MDLAddDevice, soap.MDLAddDeviceRequest{RegistrationID: "aB3dE6gH", DeviceCode: "0123"}, At).answered(
		soap.MDLDevice{InstanceActivationMessage: "0A1B", SerialNumber: "VDS1234567-1"},
		"provisioningExecute", attributes(attribute("PROVFLD_INSTANCE_ACTIVATION_MESSAGE", "0A1B"), attribute("PROVFLD_SERIAL_NO", "VDS1234567-1")),
		"<cmd>PROVISIONCMD_MDL_ADD_DEVICE</cmd>", "aB3dE6gH", "0123"),
	"MDL_ACTIVATE": carryingOut(soap.MDLActivate, soap.MDLActivateRequest{RegistrationID: "aB3dE6gH", Signature: "0123"}, At).answered(
		soap.Activated{UserID: "jane", SerialNumber: "VDS1234567"},
		"provisioningExecute", attributes(attribute("PROVFLD_USERID", "jane"), attribute("PROVFLD_SERIAL_NO", "VDS1234567")),
		"<cmd>PROVISIONCMD_MDL_ACTIVATE</cmd>", "aB3dE6gH", "0123"),
	"REGISTER": carryingOut(soap.Register, soap.RegisterRequest{
		UserID: "jane", Domain: "mydomain.com", StaticPassword: secret, SerialNumber: "VDS1234567",
	}, anywhere).answered(
		soap.Registered{SerialNumber: "VDS1234567", ActivationCode: "0123-45 67", EventReactivationCounter: "007"},
		"provisioningExecute", attributes(attribute("PROVFLD_USERID", "jane"), attribute("PROVFLD_SERIAL_NO", "VDS1234567"),
			`<attributes><attributeOptions><masked>true</masked></attributeOptions><value>0123-45 67</value><attributeID>PROVFLD_ACTIVATION_CODE</attributeID></attributes>`,
			attribute("PROVFLD_EVENT_REACTIVATION_COUNTER", "007")),
		"<cmd>PROVISIONCMD_REGISTER</cmd>", ">jane<", ">mydomain.com<", secret, ">VDS1234567</value><attributeID>PROVFLD_SERIAL_NO<"),
	"ACTIVATE": carryingOut(soap.Activate, soap.ActivateRequest{UserID: "jane", Domain: "mydomain.com", Response: "123456"}, At).answered(
		soap.Activated{}, "provisioningExecute", attributes(),
		"<cmd>PROVISIONCMD_ACTIVATE</cmd>", ">jane<", ">mydomain.com<", ">123456</value><attributeID>PROVFLD_DP_RESPONSE<"),
	"dsappSRPRegister": carryingOut(soap.DSAPPSRPRegister, soap.DSAPPSRPRegisterRequest{
		UserID: "jane", Domain: "mydomain.com", StaticPassword: secret, SerialNumber: "VDS1234567",
	}, anywhere).answered(
		soap.DSAPPSRPRegistered{RegistrationID: "aB3dE6gH", ActivationPassword: "Tb048aX1", SerialNumber: "VDS1234567", DIGIPASSGatewayID: "gw"},
		"dsappSRPRegister", result(`<registrationID>aB3dE6gH</registrationID><activationPassword>Tb048aX1</activationPassword><user><userID>jane</userID></user>`+
			`<serialNumber>VDS1234567</serialNumber><digipassGatewayID>gw</digipassGatewayID>`),
		"<user><userID>jane</userID><domain>mydomain.com</domain></user><credential><staticPassword>"+secret+"</staticPassword></credential>"+
			"<serialNumber>VDS1234567</serialNumber>"),
	"dsappSRPGenerateEphemeralKey": carryingOut(soap.DSAPPSRPGenerateEphemeralKey, soap.DSAPPSRPEphemeralKeyRequest{
		RegistrationID: "aB3dE6gH", ClientPublic: "0a1B",
	}, At).answered(
		soap.DSAPPSRPChallenge{ServerPublic: "00bC", Salt: "00FF"},
		"dsappSRPGenerateEphemeralKey", result(`<serverEphemeralPublicKey>00bC</serverEphemeralPublicKey><salt>00FF</salt>`),
		"<registrationID>aB3dE6gH</registrationID><clientEphemeralPublicKey>0a1B</clientEphemeralPublicKey>"),
	"dsappSRPGenerateActivationData": carryingOut(soap.DSAPPSRPGenerateActivationData, soap.DSAPPSRPEvidenceRequest{
		RegistrationID: "aB3dE6gH", ClientEvidence: "0a1B",
	}, At).answered(
		soap.DSAPPSRPActivationData{ServerEvidence: "cD", ActivationMessage: &encryptedMessage},
		"dsappSRPGenerateActivationData",
		result(`<mdl><activationMessage>`+encryptedItem+`</activationMessage></mdl><serverEvidenceMessage>cD</serverEvidenceMessage>`),
		"<registrationID>aB3dE6gH</registrationID><clientEvidenceMessage>0a1B</clientEvidenceMessage>"),
	"dsappSRPActivate": carryingOut(soap.DSAPPSRPActivate, soap.DSAPPSRPActivateRequest{RegistrationID: "aB3dE6gH", DerivationCode: "01234"}, At).answered(
		soap.Activated{UserID: "jane", Domain: "mydomain.com", SerialNumber: "VDS1234567"},
		"dsappSRPActivate", result(`<user><userID>jane</userID><domain>mydomain.com</domain></user><serialNumber>VDS1234567</serialNumber>`),
		"<registrationID>aB3dE6gH</registrationID><credential><derivationCode>01234</derivationCode></credential>"),
	"updateDevicePNID": carryingOut(soap.UpdateDevicePNID, soap.UpdateDevicePNIDRequest{
		UserID: "jane", Domain: "mydomain.com", SerialNumber: "VDS1234567-1", DevicePNID: "0901",
	}, anywhere).answered(
		soap.Done{}, "updateDevicePNID", statusOnly,
		"<user><userID>jane</userID><domain>mydomain.com</domain></user><serialNumber>VDS1234567-1</serialNumber><devicePNID>0901</devicePNID>"),
	"getPreparedSecureChallenge": carryingOut(soap.GetPreparedSecureChallenge, retrieve, searchedAnywhere).answered(
		soap.Retrieved{RequestMessage: "00C1"}, "getPreparedSecureChallenge", result(`<RequestMessage>00C1</RequestMessage>`),
		"<serialNumber>VDS1234567-1</serialNumber><challengeKey>0123456789</challengeKey>"),
	"getPreparedSignatureRequest": carryingOut(soap.GetPreparedSignatureRequest, retrieve, searchedAnywhere).answered(
		soap.Retrieved{RequestMessage: "0041"}, "getPreparedSignatureRequest", result(`<requestMessage>0041</requestMessage>`),
		"<serialNumber>VDS1234567-1</serialNumber><requestKey>0123456789</requestKey>"),
	"cancelAuthUser": carryingOut(soap.CancelAuthUser, cancelled, searched).answered(
		soap.Done{}, "cancelAuthUser", statusOnly,
		"<serialNumber>VDS1234567-1</serialNumber><challengeKeyMessage>0901C3</challengeKeyMessage>"),
	"cancelAuthSignatureRequest": carryingOut(soap.CancelAuthSignatureRequest, cancelled, searched).answered(
		soap.Done{}, "cancelAuthSignatureRequest", statusOnly,
		"<serialNumber>VDS1234567-1</serialNumber><requestKeyMessage>0901C3</requestKeyMessage>"),
	"authUser (OTP)": carryingOut(soap.AuthUser, soap.AuthUserRequest{UserID: "jane", Password: "012345"}, At).answered(
		soap.Authenticated{UserID: "jane", Domain: "mydomain.com", OrgUnit: "Sales", SerialNumber: "VDS1234567-1"},
		"authUser", `<authUserResults>`+attributes(attribute("CREDFLD_USERID", "jane"), attribute("CREDFLD_DOMAIN", "mydomain.com"),
			attribute("CREDFLD_ORGANIZATIONAL_UNIT", "Sales"), attribute("CREDFLD_SERIAL_NO", "VDS1234567-1"))+`</authUserResults>`,
		"<aut:authUser><credentialAttributeSet>", ">jane</value><attributeID>CREDFLD_USERID<",
		`<value xsi:type="xsd:unsignedInt">0</value><attributeID>CREDFLD_PASSWORD_FORMAT<`, ">012345</value><attributeID>CREDFLD_PASSWORD<"),
	"authUser (completing)": carryingOut(soap.AuthUser, soap.AuthUserRequest{
		UserID: "jane", Domain: "mydomain.com", ChallengeKey: "0123456789", Password: "0123456789012345",
	}, At).answered(
		soap.Authenticated{UserID: "jane"}, "authUser", `<authUserResults>`+attributes(attribute("CREDFLD_USERID", "jane"))+`</authUserResults>`,
		">mydomain.com</value><attributeID>CREDFLD_DOMAIN<", ">0123456789</value><attributeID>CREDFLD_CHALLENGE_KEY<",
		">0123456789012345</value><attributeID>CREDFLD_PASSWORD<"),
	"authSignature": carryingOut(soap.AuthSignature, soap.AuthSignatureRequest{
		UserID: "jane", Domain: "mydomain.com", RequestKey: "0123456789", Signature: "3833791",
	}, At).answered(
		soap.Authenticated{UserID: "jane", Domain: "mydomain.com", OrgUnit: "Sales", SerialNumber: "VDS1234567-1"},
		"authSignature", attributes(attribute("SIGNFLD_USERID", "jane"), attribute("SIGNFLD_DOMAIN", "mydomain.com"),
			attribute("SIGNFLD_ORGANIZATIONAL_UNIT", "Sales"), attribute("SIGNFLD_SERIAL_NO", "VDS1234567-1")),
		"<sig:authSignature><attributeSet>", ">jane</value><attributeID>SIGNFLD_USERID<", ">mydomain.com</value><attributeID>SIGNFLD_DOMAIN<",
		">0123456789</value><attributeID>SIGNFLD_REQUEST_KEY<", ">3833791</value><attributeID>SIGNFLD_SIGNATURE<", "<dataFieldList><dataField>"),
}

var (
	retrieve  = soap.RetrieveRequest{SerialNumber: "VDS1234567-1", Key: "0123456789"}
	cancelled = soap.CancelRequest{SerialNumber: "VDS1234567-1", KeyMessage: "0901C3"}
)

// with gives an answer of the method's operation with these codes in place of
// the success.
func (m *method) with(codes string) string {
	return envelope(`<x:` + m.operation + `Response xmlns:x="urn:x">` + strings.Replace(m.answer, "CODES", codes, 1) + `</x:` + m.operation + `Response>`)
}

// succeeding answers the method's command with its success.
func (m *method) succeeding() func(http.ResponseWriter, *http.Request, string) {
	return answering(m.with(success))
}

// Each command sends its values and gives what the server answered, unchanged,
// in both SOAP versions.
func TestMethods(t *testing.T) {
	t.Parallel()
	for name, m := range methods {
		for _, version := range []string{"1.1", "1.2"} {
			var sent string
			p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
				sent = command
				m.succeeding()(w, r, command)
			})
			got, err := m.call(t.Context(), newServers(t, Config{Instances: []Instance{p.Instance}, SOAPVersion: version}), "primary")
			if err != nil || !reflect.DeepEqual(got, m.want("primary")) {
				t.Errorf("%s, SOAP %s: %+v, %v", name, version, got, err)
			}
			for _, part := range m.sent {
				if !strings.Contains(sent, part) {
					t.Errorf("%s, SOAP %s: no %s in %s", name, version, part, sent)
				}
			}
		}
	}
}

// A failed command gives an error and nothing else.
func TestMethodsFail(t *testing.T) {
	t.Parallel()
	for name, m := range methods {
		p := newPeer(t, "primary", answering(m.with(failed("STAT_INVPARAM", -2))))
		got, err := m.call(t.Context(), newServers(t, Config{Instances: []Instance{p.Instance}}), "primary")
		if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Codes != soap.FailureCodes("STAT_INVPARAM", -2) {
			t.Errorf("%s: %v", name, err)
		}
		if !got.isZero() {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// The final call of a standard licence says what kind of confirmation it brings.
func TestActivateBindsDevice(t *testing.T) {
	t.Parallel()
	var sent string
	m := methods["ACTIVATE"]
	p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
		sent = command
		m.succeeding()(w, r, command)
	})
	s := newServers(t, Config{Instances: []Instance{p.Instance}})
	if _, _, err := Call(t.Context(), s, Target{}, soap.Activate, soap.ActivateRequest{UserID: "jane", DerivationCode: "01234"}); err != nil {
		t.Fatal(err)
	}
	want := `<attributes><value xsi:type="xsd:string">01234</value><attributeID>PROVFLD_DERIVATION_CODE</attributeID></attributes>` +
		`<attributes><value xsi:type="xsd:unsignedInt">0</value><attributeID>PROVFLD_REQUEST_TYPE</attributeID></attributes>`
	if !strings.Contains(sent, want) || strings.Contains(sent, "DP_RESPONSE") {
		t.Error(sent)
	}
	if _, _, err := Call(t.Context(), s, Target{}, soap.Activate, soap.ActivateRequest{UserID: "jane", Response: "123456"}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(sent, "REQUEST_TYPE") || strings.Contains(sent, "DERIVATION_CODE") {
		t.Error(sent)
	}
}

// A login that the server reports as a success with a message why it is none is
// a refusal, on that instance and for good. Only logins have such a message.
func TestStatusMessage(t *testing.T) {
	t.Parallel()
	for name, message := range map[string]string{
		"wrong password": attribute("CREDFLD_STATUS_MESSAGE", "wrong password 012345"),
		"empty":          attribute("CREDFLD_STATUS_MESSAGE", ""),
		"no value":       `<attributes><attributeID>CREDFLD_STATUS_MESSAGE</attributeID></attributes>`,
		"long":           attribute("CREDFLD_STATUS_MESSAGE", strings.Repeat("wrong ", 1000)),
	} {
		m := methods["authUser (OTP)"]
		m.answer = strings.Replace(m.answer, "<resultAttribute>", "<resultAttribute>"+message, 1)
		p, backup := newPeer(t, "primary", m.succeeding()), newPeer(t, "backup", m.succeeding())
		for _, deployment := range []Deployment{DeploymentReplicated, DeploymentShared} {
			s := newServers(t, Config{Instances: []Instance{p.Instance, backup.Instance}, Deployment: deployment})
			got, err := m.call(t.Context(), s, "primary")
			refusal, ok := errors.AsType[*Refusal](err)
			if !ok || refusal.Codes != soap.FailureCodes("STAT_INVCREDENTIALS", 1000) || refusal.Instance != "primary" {
				t.Errorf("%s: %+v, %v", name, got, err)
				continue
			}
			if len(refusal.Stack) != 1 || strings.Contains(refusal.Stack[0].Description, "012345") {
				t.Errorf("%s: stack %+v", name, refusal.Stack)
			}
		}
		if backup.arrived.Load() != 0 {
			t.Errorf("%s: the backup was asked", name)
		}
	}
	// A failure keeps its own codes.
	m := methods["authUser (OTP)"]
	m.answer = strings.Replace(m.answer, "<resultAttribute>", "<resultAttribute>"+attribute("CREDFLD_STATUS_MESSAGE", "x"), 1)
	p := newPeer(t, "primary", answering(m.with(failed("STAT_LOCKED", 1007))))
	_, err := m.call(t.Context(), newServers(t, Config{Instances: []Instance{p.Instance}}), "")
	if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Codes.StatusCode != 1007 {
		t.Errorf("%v", err)
	}
	m = methods["authSignature"]
	m.answer = strings.Replace(m.answer, "<resultAttribute>", "<resultAttribute>"+attribute("SIGNFLD_STATUS_MESSAGE", "x"), 1)
	p = newPeer(t, "primary", m.succeeding())
	if _, err := m.call(t.Context(), newServers(t, Config{Instances: []Instance{p.Instance}}), ""); err != nil {
		t.Errorf("signature: %v", err)
	}
}
