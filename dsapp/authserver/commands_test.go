package authserver

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

// method is an exported command with a success of the server as the reference
// shows it.
type method struct {
	// call carries out the command, on the named instance where that is possible.
	call func(ctx context.Context, s *Servers, instance string) (any, error)
	// sent is what the command must hold.
	sent []string
	// answer is the body of a success, without the operation's element. "CODES"
	// stands for the result codes.
	operation, answer string
	// want is the outcome on an instance.
	want func(instance string) any
}

// attributes is an answer of the attribute list family.
func attributes(list ...string) string {
	return `<results xsi:type="T:Results">CODES<resultAttribute>` + strings.Join(list, "") + `</resultAttribute><errorStack/></results>`
}

// result is an answer of the typed family.
func result(members string) string {
	return `<status>CODES<errorStack></errorStack></status><result>` + members + `</result>`
}

const statusOnly = `<status>CODES<errorStack/></status>`

var (
	encryptedMessage = Encrypted{Data: strings.Repeat("C7", 4234), Counter: "73BD6BC4C912DAD3B4F1460FF50268D9", MAC: strings.Repeat("5a", 32)}
	encryptedItem    = `<encryptedData>` + encryptedMessage.Data + `</encryptedData><encryptedCounter>` + encryptedMessage.Counter +
		`</encryptedCounter><mac>` + encryptedMessage.MAC + `</mac>`
)

// methods are all commands by their names in the reference.
var methods = map[string]method{
	"MDL_REGISTER": {
		call:      func(ctx context.Context, s *Servers, _ string) (any, error) { return s.MDLRegister(ctx, request) },
		sent:      []string{"<cmd>PROVISIONCMD_MDL_REGISTER</cmd>", secret},
		operation: "provisioningExecute",
		answer: attributes(attribute("PROVFLD_REGISTRATIONID", "aB3dE6gH"), attribute("PROVFLD_ACTIVATION_MESSAGE", "0A1B"),
			attribute("PROVFLD_SERIAL_NO", "VDS1234567")),
		want: func(instance string) any { return MDLRegistered{instance, "aB3dE6gH", "0A1B", "VDS1234567"} },
	},
	"MDL_ADD_DEVICE": {
		call: func(ctx context.Context, s *Servers, instance string) (any, error) {
			return s.MDLAddDevice(ctx, instance, MDLAddDevice{RegistrationID: "aB3dE6gH", DeviceCode: "0123"})
		},
		sent:      []string{"<cmd>PROVISIONCMD_MDL_ADD_DEVICE</cmd>", "aB3dE6gH", "0123"},
		operation: "provisioningExecute",
		answer:    attributes(attribute("PROVFLD_INSTANCE_ACTIVATION_MESSAGE", "0A1B"), attribute("PROVFLD_SERIAL_NO", "VDS1234567-1")),
		want:      func(instance string) any { return MDLDevice{instance, "0A1B", "VDS1234567-1"} },
	},
	"MDL_ACTIVATE": {
		call: func(ctx context.Context, s *Servers, instance string) (any, error) {
			return s.MDLActivate(ctx, instance, MDLActivate{RegistrationID: "aB3dE6gH", Signature: "0123"})
		},
		sent:      []string{"<cmd>PROVISIONCMD_MDL_ACTIVATE</cmd>", "aB3dE6gH", "0123"},
		operation: "provisioningExecute",
		answer:    attributes(attribute("PROVFLD_USERID", "jane"), attribute("PROVFLD_SERIAL_NO", "VDS1234567")),
		want:      func(instance string) any { return Activated{instance, "jane", "", "VDS1234567"} },
	},
	"REGISTER": {
		call: func(ctx context.Context, s *Servers, _ string) (any, error) {
			return s.Register(ctx, Register{UserID: "jane", Domain: "mydomain.com", StaticPassword: secret, SerialNumber: "VDS1234567"})
		},
		sent: []string{
			"<cmd>PROVISIONCMD_REGISTER</cmd>", ">jane<", ">mydomain.com<", secret, ">VDS1234567</value><attributeID>PROVFLD_SERIAL_NO<",
		},
		operation: "provisioningExecute",
		answer: attributes(attribute("PROVFLD_USERID", "jane"), attribute("PROVFLD_SERIAL_NO", "VDS1234567"),
			`<attributes><attributeOptions><masked>true</masked></attributeOptions><value>0123-45 67</value><attributeID>PROVFLD_ACTIVATION_CODE</attributeID></attributes>`,
			attribute("PROVFLD_EVENT_REACTIVATION_COUNTER", "007")),
		want: func(instance string) any { return Registered{instance, "VDS1234567", "0123-45 67", "007"} },
	},
	"ACTIVATE": {
		call: func(ctx context.Context, s *Servers, instance string) (any, error) {
			return s.Activate(ctx, instance, Activate{UserID: "jane", Domain: "mydomain.com", Response: "123456"})
		},
		sent:      []string{"<cmd>PROVISIONCMD_ACTIVATE</cmd>", ">jane<", ">mydomain.com<", ">123456</value><attributeID>PROVFLD_DP_RESPONSE<"},
		operation: "provisioningExecute",
		answer:    attributes(),
		want:      func(instance string) any { return Activated{Instance: instance} },
	},
	"dsappSRPRegister": {
		call: func(ctx context.Context, s *Servers, _ string) (any, error) {
			return s.DSAPPSRPRegister(ctx, DSAPPSRPRegister{UserID: "jane", Domain: "mydomain.com", StaticPassword: secret, SerialNumber: "VDS1234567"})
		},
		sent: []string{
			"<user><userID>jane</userID><domain>mydomain.com</domain></user><credential><staticPassword>" + secret + "</staticPassword></credential>" +
				"<serialNumber>VDS1234567</serialNumber>",
		},
		operation: "dsappSRPRegister",
		answer: result(`<registrationID>aB3dE6gH</registrationID><activationPassword>Tb048aX1</activationPassword><user><userID>jane</userID></user>` +
			`<serialNumber>VDS1234567</serialNumber><digipassGatewayID>gw</digipassGatewayID>`),
		want: func(instance string) any {
			return DSAPPSRPRegistered{instance, "aB3dE6gH", "Tb048aX1", "VDS1234567", "gw"}
		},
	},
	"dsappSRPGenerateEphemeralKey": {
		call: func(ctx context.Context, s *Servers, instance string) (any, error) {
			return s.DSAPPSRPGenerateEphemeralKey(ctx, instance, DSAPPSRPEphemeralKey{RegistrationID: "aB3dE6gH", ClientPublic: "0a1B"})
		},
		sent:      []string{"<registrationID>aB3dE6gH</registrationID><clientEphemeralPublicKey>0a1B</clientEphemeralPublicKey>"},
		operation: "dsappSRPGenerateEphemeralKey",
		answer:    result(`<serverEphemeralPublicKey>00bC</serverEphemeralPublicKey><salt>00FF</salt>`),
		want:      func(instance string) any { return DSAPPSRPChallenge{instance, "00bC", "00FF"} },
	},
	"dsappSRPGenerateActivationData": {
		call: func(ctx context.Context, s *Servers, instance string) (any, error) {
			return s.DSAPPSRPGenerateActivationData(ctx, instance, DSAPPSRPEvidence{RegistrationID: "aB3dE6gH", ClientEvidence: "0a1B"})
		},
		sent:      []string{"<registrationID>aB3dE6gH</registrationID><clientEvidenceMessage>0a1B</clientEvidenceMessage>"},
		operation: "dsappSRPGenerateActivationData",
		answer:    result(`<mdl><activationMessage>` + encryptedItem + `</activationMessage></mdl><serverEvidenceMessage>cD</serverEvidenceMessage>`),
		want: func(instance string) any {
			return DSAPPSRPActivationData{Instance: instance, ServerEvidence: "cD", ActivationMessage: &encryptedMessage}
		},
	},
	"dsappSRPActivate": {
		call: func(ctx context.Context, s *Servers, instance string) (any, error) {
			return s.DSAPPSRPActivate(ctx, instance, DSAPPSRPActivate{RegistrationID: "aB3dE6gH", DerivationCode: "01234"})
		},
		sent:      []string{"<registrationID>aB3dE6gH</registrationID><credential><derivationCode>01234</derivationCode></credential>"},
		operation: "dsappSRPActivate",
		answer:    result(`<user><userID>jane</userID><domain>mydomain.com</domain></user><serialNumber>VDS1234567</serialNumber>`),
		want:      func(instance string) any { return Activated{instance, "jane", "mydomain.com", "VDS1234567"} },
	},
	"updateDevicePNID": {
		call: func(ctx context.Context, s *Servers, _ string) (any, error) {
			return s.UpdateDevicePNID(ctx, UpdateDevicePNID{UserID: "jane", Domain: "mydomain.com", SerialNumber: "VDS1234567-1", DevicePNID: "0901"})
		},
		sent: []string{
			"<user><userID>jane</userID><domain>mydomain.com</domain></user><serialNumber>VDS1234567-1</serialNumber><devicePNID>0901</devicePNID>",
		},
		operation: "updateDevicePNID",
		answer:    statusOnly,
		want:      func(instance string) any { return UpdatedDevicePNID{instance} },
	},
	"getPreparedSecureChallenge": {
		call: func(ctx context.Context, s *Servers, _ string) (any, error) {
			return s.GetPreparedSecureChallenge(ctx, Retrieve{SerialNumber: "VDS1234567-1", Key: "0123456789"})
		},
		sent:      []string{"<serialNumber>VDS1234567-1</serialNumber><challengeKey>0123456789</challengeKey>"},
		operation: "getPreparedSecureChallenge",
		answer:    result(`<RequestMessage>00C1</RequestMessage>`),
		want:      func(instance string) any { return Retrieved{instance, "00C1"} },
	},
	"getPreparedSignatureRequest": {
		call: func(ctx context.Context, s *Servers, _ string) (any, error) {
			return s.GetPreparedSignatureRequest(ctx, Retrieve{SerialNumber: "VDS1234567-1", Key: "0123456789"})
		},
		sent:      []string{"<serialNumber>VDS1234567-1</serialNumber><requestKey>0123456789</requestKey>"},
		operation: "getPreparedSignatureRequest",
		answer:    result(`<requestMessage>0041</requestMessage>`),
		want:      func(instance string) any { return Retrieved{instance, "0041"} },
	},
	"cancelAuthUser": {
		call: func(ctx context.Context, s *Servers, instance string) (any, error) {
			return s.CancelAuthUser(ctx, at(instance).instances, Cancel{SerialNumber: "VDS1234567-1", KeyMessage: "0901C3", Probe: true})
		},
		sent:      []string{"<serialNumber>VDS1234567-1</serialNumber><challengeKeyMessage>0901C3</challengeKeyMessage>"},
		operation: "cancelAuthUser",
		answer:    statusOnly,
		want:      func(instance string) any { return Cancelled{instance} },
	},
	"cancelAuthSignatureRequest": {
		call: func(ctx context.Context, s *Servers, instance string) (any, error) {
			return s.CancelAuthSignatureRequest(ctx, at(instance).instances, Cancel{SerialNumber: "VDS1234567-1", KeyMessage: "0901C3", Probe: true})
		},
		sent:      []string{"<serialNumber>VDS1234567-1</serialNumber><requestKeyMessage>0901C3</requestKeyMessage>"},
		operation: "cancelAuthSignatureRequest",
		answer:    statusOnly,
		want:      func(instance string) any { return Cancelled{instance} },
	},
	"authUser (OTP)": {
		call: func(ctx context.Context, s *Servers, instance string) (any, error) {
			return s.AuthUser(ctx, instance, AuthUser{UserID: "jane", Password: "012345"})
		},
		sent: []string{
			"<aut:authUser><credentialAttributeSet>", ">jane</value><attributeID>CREDFLD_USERID<",
			`<value xsi:type="xsd:unsignedInt">0</value><attributeID>CREDFLD_PASSWORD_FORMAT<`, ">012345</value><attributeID>CREDFLD_PASSWORD<",
		},
		operation: "authUser",
		answer: `<authUserResults>` + attributes(attribute("CREDFLD_USERID", "jane"), attribute("CREDFLD_DOMAIN", "mydomain.com"),
			attribute("CREDFLD_ORGANIZATIONAL_UNIT", "Sales"), attribute("CREDFLD_SERIAL_NO", "VDS1234567-1")) + `</authUserResults>`,
		want: func(instance string) any {
			return Authenticated{instance, "jane", "mydomain.com", "Sales", "VDS1234567-1"}
		},
	},
	"authUser (completing)": {
		call: func(ctx context.Context, s *Servers, instance string) (any, error) {
			return s.AuthUser(ctx, instance, AuthUser{UserID: "jane", Domain: "mydomain.com", ChallengeKey: "0123456789", Password: "0123456789012345"})
		},
		sent: []string{
			">mydomain.com</value><attributeID>CREDFLD_DOMAIN<", ">0123456789</value><attributeID>CREDFLD_CHALLENGE_KEY<",
			">0123456789012345</value><attributeID>CREDFLD_PASSWORD<",
		},
		operation: "authUser",
		answer:    `<authUserResults>` + attributes(attribute("CREDFLD_USERID", "jane")) + `</authUserResults>`,
		want:      func(instance string) any { return Authenticated{Instance: instance, UserID: "jane"} },
	},
	"authSignature": {
		call: func(ctx context.Context, s *Servers, instance string) (any, error) {
			return s.AuthSignature(ctx, instance, AuthSignature{UserID: "jane", Domain: "mydomain.com", RequestKey: "0123456789", Signature: "3833791"})
		},
		sent: []string{
			"<sig:authSignature><attributeSet>", ">jane</value><attributeID>SIGNFLD_USERID<", ">mydomain.com</value><attributeID>SIGNFLD_DOMAIN<",
			">0123456789</value><attributeID>SIGNFLD_REQUEST_KEY<", ">3833791</value><attributeID>SIGNFLD_SIGNATURE<", "<dataFieldList><dataField>",
		},
		operation: "authSignature",
		answer: attributes(attribute("SIGNFLD_USERID", "jane"), attribute("SIGNFLD_DOMAIN", "mydomain.com"),
			attribute("SIGNFLD_ORGANIZATIONAL_UNIT", "Sales"), attribute("SIGNFLD_SERIAL_NO", "VDS1234567-1")),
		want: func(instance string) any {
			return Authenticated{instance, "jane", "mydomain.com", "Sales", "VDS1234567-1"}
		},
	},
}

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
		if refusal, ok := errors.AsType[*Refusal](err); !ok || refusal.Codes != (ResultCodes{"RET_FAILURE", "STAT_INVPARAM", -1, -2}) {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.ValueOf(got).IsZero() {
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
	if _, err := s.Activate(t.Context(), "", Activate{UserID: "jane", DerivationCode: "01234"}); err != nil {
		t.Fatal(err)
	}
	want := `<attributes><value xsi:type="xsd:string">01234</value><attributeID>PROVFLD_DERIVATION_CODE</attributeID></attributes>` +
		`<attributes><value xsi:type="xsd:unsignedInt">0</value><attributeID>PROVFLD_REQUEST_TYPE</attributeID></attributes>`
	if !strings.Contains(sent, want) || strings.Contains(sent, "DP_RESPONSE") {
		t.Error(sent)
	}
	if _, err := s.Activate(t.Context(), "", Activate{UserID: "jane", Response: "123456"}); err != nil {
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
			if !ok || refusal.Codes != (ResultCodes{"RET_FAILURE", "STAT_INVCREDENTIALS", -1, 1000}) || refusal.Instance != "primary" {
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

// Outputs keep to their lengths and characters, which the reference gives.
func TestOutputLimits(t *testing.T) {
	t.Parallel()
	code, counter := "PROVFLD_ACTIVATION_CODE", "PROVFLD_EVENT_REACTIVATION_COUNTER"
	digits := strings.Repeat("0", 100_000)
	for name, test := range map[string]struct {
		id      commandID
		items   []item
		problem string
	}{
		"activation code, longest":       {register, []item{{code, digits[:4142]}}, ""},
		"activation code, too long":      {register, []item{{code, digits[:4143]}}, code + " is too long"},
		"activation code, not ASCII":     {register, []item{{code, "123\u00e9"}}, code + " has a character"},
		"activation code, control":       {register, []item{{code, "12\t3"}}, code + " has a character"},
		"activation code, all printable": {register, []item{{code, " !09AZaz~"}}, ""},
		"activation code, missing":       {register, []item{{counter, "1"}}, "without " + code},
		"counter, longest":               {register, []item{{code, "1"}, {counter, digits[:91]}}, ""},
		"counter, too long":              {register, []item{{code, "1"}, {counter, digits[:92]}}, counter + " is too long"},
		"counter, not ASCII":             {register, []item{{code, "1"}, {counter, "1\u00e9"}}, counter + " has a character"},
		"serial number, too long":        {register, []item{{code, "1"}, {"PROVFLD_SERIAL_NO", digits[:1025]}}, "PROVFLD_SERIAL_NO is too long"},
		"user, 1024 characters":          {authUser, []item{{"CREDFLD_USERID", strings.Repeat("é", 1024)}}, ""},
		"user, too long":                 {authUser, []item{{"CREDFLD_USERID", strings.Repeat("é", 1025)}}, "CREDFLD_USERID is too long"},
		"request message, longest":       {getPreparedSignatureRequest, []item{{"requestMessage", digits[:16384]}}, ""},
		"request message, too long":      {getPreparedSignatureRequest, []item{{"requestMessage", digits[:16385]}}, "requestMessage is too long"},
		"request message, no hex":        {getPreparedSecureChallenge, []item{{"RequestMessage", "0G"}}, "requestMessage is not in hex"},
		"request message, empty":         {getPreparedSecureChallenge, []item{{"RequestMessage", ""}}, "without requestMessage"},
		"public key, no hex": {
			dsappSRPGenerateEphemeralKey, []item{{"serverEphemeralPublicKey", "xy"}, {"salt", "00"}}, "serverEphemeralPublicKey is not in hex",
		},
		"salt, no hex":        {dsappSRPGenerateEphemeralKey, []item{{"serverEphemeralPublicKey", "00"}, {"salt", "xy"}}, "salt is not in hex"},
		"salt, missing":       {dsappSRPGenerateEphemeralKey, []item{{"serverEphemeralPublicKey", "00"}}, "without salt"},
		"public key, longest": {dsappSRPGenerateEphemeralKey, []item{{"serverEphemeralPublicKey", digits[:65536]}, {"salt", "00"}}, ""},
		"public key, too long": {
			dsappSRPGenerateEphemeralKey, []item{{"serverEphemeralPublicKey", digits[:65537]}, {"salt", "00"}}, "serverEphemeralPublicKey is too long",
		},
		"no registration identifier": {dsappSRPRegister, []item{{"activationPassword", "x"}}, "without registrationID"},
		"no activation password":     {dsappSRPRegister, []item{{"registrationID", "x"}}, "without activationPassword"},
		"older registration":         {dsappSRPRegister, []item{{"registrationID", "x"}, {"activationPassword", "x"}}, ""},
	} {
		_, _, err := commands[test.id].results(&answer{codes: succeeded, items: test.items}, &testAttributes)
		switch {
		case test.problem == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// activationData reads a result of the second call of an exchange.
func activationData(members string) (values, error) {
	c := &commands[dsappSRPGenerateActivationData]
	got, err := decode(strings.NewReader(envelope(`<dsappSRPGenerateActivationDataResponse><status>`+success+`</status><result>`+members+
		`<serverEvidenceMessage>EE</serverEvidenceMessage></result></dsappSRPGenerateActivationDataResponse>`)), c.operation)
	if err != nil {
		return nil, err
	}
	out, _, err := c.results(got, &testAttributes)
	return out, err
}

// The encrypted items are found under every name that fits what is documented
// about them, and their values stay as they are.
func TestActivationData(t *testing.T) {
	t.Parallel()
	const item = "<encryptedData>dA</encryptedData><encryptedCounter>0C</encryptedCounter><mac>Aa</mac>"
	want := &Encrypted{"dA", "0C", "Aa"}
	for name, test := range map[string]struct {
		members                string
		message, code, counter *Encrypted
	}{
		"multi-device":       {"<mdl><activationMessage>" + item + "</activationMessage></mdl>", want, nil, nil},
		"no element between": {"<mdl>" + item + "</mdl>", want, nil, nil},
		"element of another name, empty other licence": {
			"<standard/><mdl><encryptedLicense>" + item + "</encryptedLicense><x>00</x></mdl>", want, nil, nil,
		},
		"names of the REST service": {
			"<mdl><m><encryptedLicenseActivationMessage>dA</encryptedLicenseActivationMessage><encryptedCounter>0C</encryptedCounter><mac>Aa</mac></m></mdl>",
			want, nil, nil,
		},
		"initial vector": {"<mdl><m><InitialVector>0C</InitialVector><message>dA</message><MAC>Aa</MAC></m></mdl>", want, nil, nil},
		"counter":        {"<mdl><m><mac>Aa</mac><Counter>0C</Counter><data>dA</data></m></mdl>", want, nil, nil},
		"other members": {
			"<MDL><m>" + item + "<type>hex</type><vectorLength>16</vectorLength><code>ff</code></m><other><a>00</a></other></MDL>", want, nil, nil,
		},
		"other text":     {"<mdl><m><mac>Aa</mac><counter>0C</counter><kind>x</kind><data>dA</data></m></mdl>", want, nil, nil},
		"repeated value": {"<mdl><m>" + item + "<mac>Aa</mac></m></mdl>", want, nil, nil},
		"standard": {
			"<standard><activationCode>" + item + "</activationCode><eventReactivationCounter>" + strings.ReplaceAll(item, "dA", "dB") +
				"</eventReactivationCounter></standard>",
			nil, want, &Encrypted{"dB", "0C", "Aa"},
		},
		"standard, other order and names": {
			"<mdl></mdl><standard><ERCounter><mac>01</mac><vector>02</vector><value>03</value></ERCounter><code>" + item + "</code></standard>",
			nil, want, &Encrypted{"03", "02", "01"},
		},
		"counter as data": {
			"<standard><c>" + item + "</c><eventCounter><encryptedEventCounter>03</encryptedEventCounter><encryptedCounter>02</encryptedCounter><mac>01</mac>" +
				"</eventCounter></standard>",
			nil, want, &Encrypted{"03", "02", "01"},
		},
		"standard without counter": {"<standard><activationCode>" + item + "</activationCode></standard>", nil, want, nil},
		"long": {
			"<mdl><m>" + strings.ReplaceAll(item, "dA", strings.Repeat("A", 65536)) + "</m></mdl>",
			&Encrypted{strings.Repeat("A", 65536), "0C", "Aa"}, nil, nil,
		},
	} {
		out, err := activationData(test.members)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, got := range []struct {
			name string
			want *Encrypted
		}{{activationMessageItem, test.message}, {activationCodeItem, test.code}, {eventCounterItem, test.counter}} {
			if e := encrypted(out, got.name); !reflect.DeepEqual(e, got.want) {
				t.Errorf("%s: %s is %+v", name, got.name, e)
			}
		}
	}
}

// Activation data that cannot be told apart or is incomplete is refused.
func TestActivationDataRefuses(t *testing.T) {
	t.Parallel()
	const item = "<encryptedData>dA</encryptedData><encryptedCounter>0C</encryptedCounter><mac>Aa</mac>"
	for name, test := range map[string]struct{ members, problem string }{
		"nothing":            {"", "without activation data"},
		"other element":      {"<other>" + item + "</other>", "without activation data"},
		"at the top":         {item, "without activation data"},
		"counter alone":      {"<standard><counter>" + item + "</counter></standard>", "without activation data"},
		"both licences":      {"<mdl><m>" + item + "</m></mdl><standard><code>" + item + "</code></standard>", "two types of licence"},
		"counter of another": {"<mdl><m>" + item + "</m></mdl><standard><counter>" + item + "</counter></standard>", "two types of licence"},
		"two messages":       {"<mdl><a>" + item + "</a><b>" + item + "</b></mdl>", "several mdl/activationMessage"},
		"two codes":          {"<standard><a>" + item + "</a><b>" + item + "</b></standard>", "several standard/activationCode"},
		"no data":            {"<mdl><m><encryptedCounter>0C</encryptedCounter><mac>Aa</mac></m></mdl>", "without mdl/activationMessage/encryptedData"},
		"no counter":         {"<mdl><m><encryptedData>dA</encryptedData><mac>Aa</mac></m></mdl>", "without mdl/activationMessage/encryptedCounter"},
		"no MAC":             {"<mdl><m><encryptedData>dA</encryptedData><encryptedCounter>0C</encryptedCounter></m></mdl>", "without activation data"},
		"empty MAC":          {"<mdl><m><encryptedData>dA</encryptedData><encryptedCounter>0C</encryptedCounter><mac/></m></mdl>", "without activation data"},
		"two data":           {"<mdl><m><a>dA</a><b>dB</b><counter>0C</counter><mac>Aa</mac></m></mdl>", "different values of mdl/activationMessage/encryptedData"},
		"two counters":       {"<mdl><m><a>dA</a><counter>0C</counter><vector>0D</vector><mac>Aa</mac></m></mdl>", "different values"},
		"two MACs":           {"<mdl><m>" + item + "<mac>Bb</mac></m></mdl>", "different values of mdl/activationMessage/mac"},
		"data no hex":        {"<mdl><m>" + strings.Replace(item, "dA", "sesame", 1) + "</m></mdl>", "encryptedData is not in hex"},
		"counter no hex":     {"<mdl><m>" + strings.Replace(item, "0C", "sesame", 1) + "</m></mdl>", "encryptedCounter is not in hex"},
		"MAC no hex":         {"<mdl><m>" + strings.Replace(item, "Aa", "sesame", 1) + "</m></mdl>", "mac is not in hex"},
		"too long":           {"<mdl><m>" + strings.Replace(item, "dA", strings.Repeat("A", 65537), 1) + "</m></mdl>", "encryptedData is too long"},
	} {
		_, err := activationData(test.members)
		if err == nil || !strings.Contains(err.Error(), test.problem) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever a server calls the members, the outcome is activation data of one
// type of licence with complete items in hex digits, or an error.
func FuzzActivationData(f *testing.F) {
	f.Add("<mdl><activationMessage><encryptedData>dA</encryptedData><encryptedCounter>0C</encryptedCounter><mac>Aa</mac></activationMessage></mdl>")
	f.Add("<standard><activationCode><a>dA</a><vector>0C</vector><mac>Aa</mac></activationCode><counter><a>0</a><counter>1</counter><mac>2</mac></counter></standard>")
	f.Add("<mdl><a>0</a><b>1</b><mac>2</mac></mdl><standard/>")
	f.Fuzz(func(t *testing.T, members string) {
		out, err := activationData(members)
		if err != nil {
			return
		}
		message, code, counter := encrypted(out, activationMessageItem), encrypted(out, activationCodeItem), encrypted(out, eventCounterItem)
		if (message == nil) == (code == nil) || message != nil && counter != nil {
			t.Errorf("%v, %v, %v", message, code, counter)
		}
		for _, e := range []*Encrypted{message, code, counter} {
			if e != nil && !(isHex(e.Data) && isHex(e.Counter) && isHex(e.MAC)) {
				t.Errorf("%+v", e)
			}
		}
	})
}
