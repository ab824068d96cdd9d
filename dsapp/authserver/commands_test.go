package authserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/httpclient"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/authserver/soap"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/internal/soapanswer"
)

// sample is a command and the answer of a server that carries it out, as in the vendor's
// documentation.
type sample struct {
	// call sends the command, to the named instance if it can belong to one.
	call     func(ctx context.Context, s *Servers, instance string) (outcome, error)
	soapCall soap.Call
	// sent are parts of the request.
	sent []string
	// answer is the content of the operation's element in the answer. "CODES" stands for
	// the result codes.
	operation, answer string
	values            any
}

// outcome is the answer struct of a command and the instance that sent it.
type outcome struct {
	answer   any
	instance string
}

// want returns the outcome of a success on an instance.
func (s *sample) want(instance string) outcome { return outcome{s.values, instance} }

// isZero reports whether a command returned no values.
func (o outcome) isZero() bool { return o.instance == "" && reflect.ValueOf(o.answer).IsZero() }

// newSample returns a sample without an answer. target returns the Target of the command, given
// the name of the instance that it belongs to.
func newSample[Q, A any](c soap.Command[Q, A], request Q, target func(instance string) Target) sample {
	return sample{
		call: func(ctx context.Context, s *Servers, instance string) (outcome, error) {
			a, instance, err := Call(ctx, s, target(instance), c, request)
			return outcome{a, instance}, err
		},
		soapCall: c.Call(&request, new(A)),
	}
}

func anywhere(string) Target { return Target{} }

func searched(instance string) Target { return Target{Instances: At(instance).Instances, Search: true} }

func searchedAnywhere(string) Target { return Target{Search: true} }

// answered returns the sample with its answer. values is the answer struct.
func (s sample) answered(values any, operation, answer string, sent ...string) sample {
	s.values, s.operation, s.answer, s.sent = values, operation, answer, sent
	return s
}

// attributes returns an answer of the attribute list family.
func attributes(list ...string) string {
	return `<results xsi:type="T:Results">CODES<resultAttribute>` + strings.Join(list, "") + `</resultAttribute><errorStack/></results>`
}

// result returns an answer of the typed family.
func result(members string) string {
	return `<status>CODES<errorStack></errorStack></status><result>` + members + `</result>`
}

// The builders of answers.
const success = soapanswer.Success

var (
	failed      = soapanswer.Failed
	envelope    = soapanswer.Envelope
	attribute   = soapanswer.Attribute
	provisioned = soapanswer.Provisioned
	refused     = soapanswer.Refused
)

const statusOnly = `<status>CODES<errorStack/></status>`

var (
	encryptedMessage = form.Sealed{Data: strings.Repeat("C7", 4234), Counter: "73BD6BC4C912DAD3B4F1460FF50268D9", MAC: strings.Repeat("5a", 32)}
	encryptedItem    = `<encryptedData>` + encryptedMessage.Data + `</encryptedData><encryptedCounter>` + encryptedMessage.Counter +
		`</encryptedCounter><mac>` + encryptedMessage.MAC + `</mac>`
)

// samples are all commands by their names in the vendor's documentation.
var samples = map[string]sample{
	"MDL_REGISTER": newSample(soap.MDLRegister, request, anywhere).answered(
		soap.MDLRegistered{RegistrationID: "aB3dE6gH", ActivationMessage: "0A1B", SerialNumber: "VDS1234567"},
		"provisioningExecute", attributes(attribute("PROVFLD_REGISTRATIONID", "aB3dE6gH"), attribute("PROVFLD_ACTIVATION_MESSAGE", "0A1B"),
			attribute("PROVFLD_SERIAL_NO", "VDS1234567")),
		"<cmd>PROVISIONCMD_MDL_REGISTER</cmd>", secret),
	"MDL_ADD_DEVICE": newSample(soap.MDLAddDevice, soap.MDLAddDeviceRequest{RegistrationID: "aB3dE6gH", DeviceCode: "0123"}, At).answered(
		soap.MDLDevice{InstanceActivationMessage: "0A1B", SerialNumber: "VDS1234567-1"},
		"provisioningExecute", attributes(attribute("PROVFLD_INSTANCE_ACTIVATION_MESSAGE", "0A1B"), attribute("PROVFLD_SERIAL_NO", "VDS1234567-1")),
		"<cmd>PROVISIONCMD_MDL_ADD_DEVICE</cmd>", "aB3dE6gH", "0123"),
	"MDL_ACTIVATE": newSample(soap.MDLActivate, soap.MDLActivateRequest{RegistrationID: "aB3dE6gH", Signature: "0123"}, At).answered(
		soap.Activated{UserID: "jane", SerialNumber: "VDS1234567"},
		"provisioningExecute", attributes(attribute("PROVFLD_USERID", "jane"), attribute("PROVFLD_SERIAL_NO", "VDS1234567")),
		"<cmd>PROVISIONCMD_MDL_ACTIVATE</cmd>", "aB3dE6gH", "0123"),
	"REGISTER": newSample(soap.Register, soap.RegisterRequest{
		UserID: "jane", Domain: "mydomain.com", StaticPassword: secret, SerialNumber: "VDS1234567",
	}, anywhere).answered(
		soap.Registered{SerialNumber: "VDS1234567", ActivationCode: "0123-45 67", EventReactivationCounter: "007"},
		"provisioningExecute", attributes(attribute("PROVFLD_USERID", "jane"), attribute("PROVFLD_SERIAL_NO", "VDS1234567"),
			`<attributes><attributeOptions><masked>true</masked></attributeOptions><value>0123-45 67</value><attributeID>PROVFLD_ACTIVATION_CODE</attributeID></attributes>`,
			attribute("PROVFLD_EVENT_REACTIVATION_COUNTER", "007")),
		"<cmd>PROVISIONCMD_REGISTER</cmd>", ">jane<", ">mydomain.com<", secret, ">VDS1234567</value><attributeID>PROVFLD_SERIAL_NO<"),
	"ACTIVATE": newSample(soap.Activate, soap.ActivateRequest{UserID: "jane", Domain: "mydomain.com", Response: "123456"}, At).answered(
		soap.Activated{}, "provisioningExecute", attributes(),
		"<cmd>PROVISIONCMD_ACTIVATE</cmd>", ">jane<", ">mydomain.com<", ">123456</value><attributeID>PROVFLD_DP_RESPONSE<"),
	"dsappSRPRegister": newSample(soap.DSAPPSRPRegister, soap.DSAPPSRPRegisterRequest{
		UserID: "jane", Domain: "mydomain.com", StaticPassword: secret, SerialNumber: "VDS1234567",
	}, anywhere).answered(
		soap.DSAPPSRPRegistered{RegistrationID: "aB3dE6gH", ActivationPassword: "Tb048aX1", SerialNumber: "VDS1234567", DIGIPASSGatewayID: "gw"},
		"dsappSRPRegister", result(`<registrationID>aB3dE6gH</registrationID><activationPassword>Tb048aX1</activationPassword><user><userID>jane</userID></user>`+
			`<serialNumber>VDS1234567</serialNumber><digipassGatewayID>gw</digipassGatewayID>`),
		"<user><userID>jane</userID><domain>mydomain.com</domain></user><credential><staticPassword>"+secret+"</staticPassword></credential>"+
			"<serialNumber>VDS1234567</serialNumber>"),
	"dsappSRPGenerateEphemeralKey": newSample(soap.DSAPPSRPGenerateEphemeralKey, soap.DSAPPSRPEphemeralKeyRequest{
		RegistrationID: "aB3dE6gH", ClientPublic: "0a1B",
	}, At).answered(
		soap.DSAPPSRPChallenge{ServerPublic: "00bC", Salt: "00FF"},
		"dsappSRPGenerateEphemeralKey", result(`<serverEphemeralPublicKey>00bC</serverEphemeralPublicKey><salt>00FF</salt>`),
		"<registrationID>aB3dE6gH</registrationID><clientEphemeralPublicKey>0a1B</clientEphemeralPublicKey>"),
	"dsappSRPGenerateActivationData": newSample(soap.DSAPPSRPGenerateActivationData, soap.DSAPPSRPEvidenceRequest{
		RegistrationID: "aB3dE6gH", ClientEvidence: "0a1B",
	}, At).answered(
		soap.DSAPPSRPActivationData{ServerEvidence: "cD", ActivationMessage: &encryptedMessage},
		"dsappSRPGenerateActivationData",
		result(`<mdl><activationMessage>`+encryptedItem+`</activationMessage></mdl><serverEvidenceMessage>cD</serverEvidenceMessage>`),
		"<registrationID>aB3dE6gH</registrationID><clientEvidenceMessage>0a1B</clientEvidenceMessage>"),
	"dsappSRPActivate": newSample(soap.DSAPPSRPActivate, soap.DSAPPSRPActivateRequest{RegistrationID: "aB3dE6gH", DerivationCode: "01234"}, At).answered(
		soap.Activated{UserID: "jane", Domain: "mydomain.com", SerialNumber: "VDS1234567"},
		"dsappSRPActivate", result(`<user><userID>jane</userID><domain>mydomain.com</domain></user><serialNumber>VDS1234567</serialNumber>`),
		"<registrationID>aB3dE6gH</registrationID><credential><derivationCode>01234</derivationCode></credential>"),
	"updateDevicePNID": newSample(soap.UpdateDevicePNID, soap.UpdateDevicePNIDRequest{
		UserID: "jane", Domain: "mydomain.com", SerialNumber: "VDS1234567-1", DevicePNID: "0901",
	}, anywhere).answered(
		soap.Done{}, "updateDevicePNID", statusOnly,
		"<user><userID>jane</userID><domain>mydomain.com</domain></user><serialNumber>VDS1234567-1</serialNumber><devicePNID>0901</devicePNID>"),
	"getPreparedSecureChallenge": newSample(soap.GetPreparedSecureChallenge, retrieve, searchedAnywhere).answered(
		soap.Retrieved{RequestMessage: "00C1"}, "getPreparedSecureChallenge", result(`<RequestMessage>00C1</RequestMessage>`),
		"<serialNumber>VDS1234567-1</serialNumber><challengeKey>0123456789</challengeKey>"),
	"getPreparedSignatureRequest": newSample(soap.GetPreparedSignatureRequest, retrieve, searchedAnywhere).answered(
		soap.Retrieved{RequestMessage: "0041"}, "getPreparedSignatureRequest", result(`<requestMessage>0041</requestMessage>`),
		"<serialNumber>VDS1234567-1</serialNumber><requestKey>0123456789</requestKey>"),
	"cancelAuthUser": newSample(soap.CancelAuthUser, cancelled, searched).answered(
		soap.Done{}, "cancelAuthUser", statusOnly,
		"<serialNumber>VDS1234567-1</serialNumber><challengeKeyMessage>0901C3</challengeKeyMessage>"),
	"cancelAuthSignatureRequest": newSample(soap.CancelAuthSignatureRequest, cancelled, searched).answered(
		soap.Done{}, "cancelAuthSignatureRequest", statusOnly,
		"<serialNumber>VDS1234567-1</serialNumber><requestKeyMessage>0901C3</requestKeyMessage>"),
	"authUser (OTP)": newSample(soap.AuthUser, soap.AuthUserRequest{UserID: "jane", Password: "012345"}, At).answered(
		soap.Authenticated{UserID: "jane", Domain: "mydomain.com", OrgUnit: "Sales", SerialNumber: "VDS1234567-1"},
		"authUser", `<authUserResults>`+attributes(attribute("CREDFLD_USERID", "jane"), attribute("CREDFLD_DOMAIN", "mydomain.com"),
			attribute("CREDFLD_ORGANIZATIONAL_UNIT", "Sales"), attribute("CREDFLD_SERIAL_NO", "VDS1234567-1"))+`</authUserResults>`,
		"<aut:authUser><credentialAttributeSet>", ">jane</value><attributeID>CREDFLD_USERID<",
		`<value xsi:type="xsd:unsignedInt">0</value><attributeID>CREDFLD_PASSWORD_FORMAT<`, ">012345</value><attributeID>CREDFLD_PASSWORD<"),
	"authUser (completing)": newSample(soap.AuthUser, soap.AuthUserRequest{
		UserID: "jane", Domain: "mydomain.com", ChallengeKey: "0123456789", Password: "0123456789012345",
	}, At).answered(
		soap.Authenticated{UserID: "jane"}, "authUser", `<authUserResults>`+attributes(attribute("CREDFLD_USERID", "jane"))+`</authUserResults>`,
		">mydomain.com</value><attributeID>CREDFLD_DOMAIN<", ">0123456789</value><attributeID>CREDFLD_CHALLENGE_KEY<",
		">0123456789012345</value><attributeID>CREDFLD_PASSWORD<"),
	"authSignature": newSample(soap.AuthSignature, soap.AuthSignatureRequest{
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

// answerWith returns the answer with other result codes.
func (s *sample) answerWith(codes string) string {
	return envelope(`<x:` + s.operation + `Response xmlns:x="urn:x">` + strings.Replace(s.answer, "CODES", codes, 1) + `</x:` + s.operation + `Response>`)
}

// succeed returns a handler that answers with a success.
func (s *sample) succeed() handler {
	return answering(s.answerWith(success))
}

// Each command sends its values and returns the values of the answer unchanged, in both SOAP
// versions.
func TestCommands(t *testing.T) {
	t.Parallel()
	for name, sample := range samples {
		for _, version := range []string{"1.1", "1.2"} {
			var sent string
			in := stub("primary", sending(func(w http.ResponseWriter, r *http.Request, command string) {
				sent = command
				sample.succeed()(w, r, command)
			}))
			got, err := sample.call(t.Context(), newServers(t, Config{Instances: []Instance{in}, SOAPVersion: version}), "primary")
			if err != nil || !reflect.DeepEqual(got, sample.want("primary")) {
				t.Errorf("%s, SOAP %s: %+v, %v", name, version, got, err)
			}
			for _, part := range sample.sent {
				if !strings.Contains(sent, part) {
					t.Errorf("%s, SOAP %s: no %s in %s", name, version, part, sent)
				}
			}
		}
	}
}

// A refused command returns an error and no values.
func TestCommandsRefused(t *testing.T) {
	t.Parallel()
	for name, sample := range samples {
		in := stub("primary", sending(answering(sample.answerWith(failed("STAT_INVPARAM", -2)))))
		got, err := sample.call(t.Context(), newServers(t, Config{Instances: []Instance{in}}), "primary")
		if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Codes != soap.FailureCodes("STAT_INVPARAM", -2) {
			t.Errorf("%s: %v", name, err)
		}
		if !got.isZero() {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// ACTIVATE sends a request type with a derivation code, and none with a response.
func TestActivateBindsDevice(t *testing.T) {
	t.Parallel()
	var sent string
	sample := samples["ACTIVATE"]
	s := newServers(t, Config{Instances: []Instance{stub("primary", sending(func(w http.ResponseWriter, r *http.Request, command string) {
		sent = command
		sample.succeed()(w, r, command)
	}))}})
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

// A login that the server reports as a success with a status message is a refusal, and no other
// instance is asked.
func TestStatusMessage(t *testing.T) {
	t.Parallel()
	for name, message := range map[string]string{
		"wrong password": attribute("CREDFLD_STATUS_MESSAGE", "wrong password 012345"),
		"empty":          attribute("CREDFLD_STATUS_MESSAGE", ""),
		"no value":       `<attributes><attributeID>CREDFLD_STATUS_MESSAGE</attributeID></attributes>`,
		"long":           attribute("CREDFLD_STATUS_MESSAGE", strings.Repeat("wrong ", 1000)),
	} {
		sample := samples["authUser (OTP)"]
		sample.answer = strings.Replace(sample.answer, "<resultAttribute>", "<resultAttribute>"+message, 1)
		backup := &switchable{does: sending(sample.succeed())}
		instances := []Instance{stub("primary", sending(sample.succeed())), stub("backup", backup)}
		for _, deployment := range []Deployment{DeploymentReplicated, DeploymentShared} {
			s := newServers(t, Config{Instances: instances, Deployment: deployment})
			got, err := sample.call(t.Context(), s, "primary")
			refusal, ok := errors.AsType[*Refusal](err)
			if !ok || refusal.Codes != soap.FailureCodes("STAT_INVCREDENTIALS", 1000) || refusal.Instance != "primary" {
				t.Errorf("%s: %+v, %v", name, got, err)
				continue
			}
			if len(refusal.Stack) != 1 || strings.Contains(refusal.Stack[0].Description, "012345") {
				t.Errorf("%s: stack %+v", name, refusal.Stack)
			}
		}
		if backup.count() != 0 {
			t.Errorf("%s: the backup was asked", name)
		}
	}
}

// The header of a request fits the SOAP version and makes no transport repeat the command.
// Answers with all media types of XML are read.
func TestRequestHeader(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ version, sent, received string }{
		{"1.1", "text/xml; charset=utf-8", "text/xml"},
		{"1.1", "text/xml; charset=utf-8", "application/xml"},
		{"1.2", "application/soap+xml; charset=utf-8", "application/soap+xml; charset=UTF-8"},
	} {
		p := newPeer(t, "primary", func(w http.ResponseWriter, r *http.Request, command string) {
			if r.Method != http.MethodPost || r.URL.Path != "/soap" || r.ContentLength != int64(len(command)) {
				t.Errorf("%s %s with length %d for %d bytes", r.Method, r.URL, r.ContentLength, len(command))
			}
			action, hasAction := r.Header["Soapaction"]
			if r.Header.Get("Content-Type") != test.sent || hasAction != (test.version == "1.1") || hasAction && !slices.Equal(action, []string{`""`}) {
				t.Errorf("SOAP %s: header %v", test.version, r.Header)
			}
			if r.Header.Get("Idempotency-Key") != "" || r.Header.Get("X-Idempotency-Key") != "" {
				t.Errorf("header %v makes transports repeat commands", r.Header)
			}
			write(w, http.StatusOK, test.received, registered)
		})
		p.URL = &url.URL{Scheme: p.URL.Scheme, Host: p.URL.Host, Path: "/soap"}
		p.Transport = newClient(t, p.URL, p.Transport.(*httpclient.Client).TLSConfig(), new(net.Dialer).DialContext)
		got, err := register(t.Context(), newServers(t, Config{Instances: []Instance{p.Instance}, SOAPVersion: test.version}), request)
		if want := (registration{soap.MDLRegistered{RegistrationID: "aB3dE6gH", ActivationMessage: am1, SerialNumber: "VDS1234567"}, "primary"}); err != nil || got != want {
			t.Errorf("%+v: %+v, %v", test, got, err)
		}
	}
}

// Each command sends the component type of its family.
func TestComponentTypes(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"REGISTER": "My Provisioning", "authUser (OTP)": "My Authentication", "getPreparedSignatureRequest": "My Signature", "updateDevicePNID": "My Notification",
	} {
		var sent string
		s := newServers(t, Config{Instances: []Instance{stub("primary", sending(func(_ http.ResponseWriter, _ *http.Request, command string) { sent = command }))}})
		_, err := samples[name].call(t.Context(), s, "")
		checkFailure(t, want, err, ErrBadAnswer)
		if !strings.Contains(sent, ">"+want+"<") {
			t.Errorf("no %s in %s", want, sent)
		}
	}
}
