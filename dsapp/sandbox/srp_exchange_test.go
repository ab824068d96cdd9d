package sandbox

import (
	"encoding/hex"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

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

// newStandardServer gives a server whose user has standard licences only.
func newStandardServer(licenses int) *Server {
	return New(Options{
		Users: []User{{
			Name: "jane.doe", Domain: "mydomain.com", OrganizationalUnit: "sales", StaticPassword: "s&cret", StandardLicenses: licenses,
		}},
		SerialStart: 1000120,
	})
}

// begun does the first call of an exchange.
func begun(t *testing.T, s *Server, id, password string) (client *srp.Client, evidence, serverPublic []byte) {
	t.Helper()
	profile, err := srp.LookupProfile("rfc5054-2048-sha256")
	if err != nil {
		t.Fatal(err)
	}
	if client, err = profile.NewClient(id, password); err != nil {
		t.Fatal(err)
	}
	_, answer := send(t, s, text11, srpEphemeralKey(id, hex.EncodeToString(client.Public())))
	public, salt := elementValue(t, answer, "serverEphemeralPublicKey"), elementValue(t, answer, "salt")
	check(t, "dsappSRPGenerateEphemeralKey", answer, golden("prov", `<prov:dsappSRPGenerateEphemeralKeyResponse>`+typedSuccess+
		`<result><serverEphemeralPublicKey>`+public+`</serverEphemeralPublicKey><salt>`+salt+`</salt></result></prov:dsappSRPGenerateEphemeralKeyResponse>`))
	if len(salt) != 32 || len(public) != 512 {
		t.Errorf("salt of %d digits, public key of %d", len(salt), len(public))
	}
	serverPublic = unhex(t, public)
	if evidence, err = client.Prove(unhex(t, salt), serverPublic); err != nil {
		t.Fatal(err)
	}
	return client, evidence, serverPublic
}

func unhex(t *testing.T, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// encrypted gives the members of one encrypted item and how an answer writes them.
func encrypted(t *testing.T, answer, item string) (c seal.Ciphertext, written string) {
	t.Helper()
	m := regexp.MustCompile(`<` + item + `><encryptedData>([0-9A-F]+)</encryptedData><encryptedCounter>([0-9A-F]+)</encryptedCounter><mac>([0-9A-F]+)</mac></` + item + `>`).
		FindStringSubmatch(answer)
	if m == nil {
		t.Fatalf("no %s in %s", item, answer)
	}
	return seal.Ciphertext{Data: unhex(t, m[1]), Counter: unhex(t, m[2]), MAC: unhex(t, m[3])}, m[0]
}

// Guards an exchange for a multi-device licence byte for byte, with the phone's
// side of the exchange from the packages that define it: the device opens what the
// server sealed, and adds itself under the same registration.
func TestGoldenExchange(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	_, answer := send(t, s, text11, srpRegister(""))
	id, password := elementValue(t, answer, "registrationID"), elementValue(t, answer, "activationPassword")
	check(t, "dsappSRPRegister", answer, golden("prov", `<prov:dsappSRPRegisterResponse>`+typedSuccess+
		`<result><registrationID>`+id+`</registrationID><activationPassword>`+password+`</activationPassword>`+janeElement+
		`<serialNumber>VDS1000120</serialNumber><digipassGatewayID>SANDBOX</digipassGatewayID></result></prov:dsappSRPRegisterResponse>`))
	if len(id) < 8 || len(password) < 8 || id == password {
		t.Errorf("registration ID %s, activation password %s", id, password)
	}

	client, evidence, serverPublic := begun(t, s, id, password)
	d := NewDevice(1)
	if got := status(t, s, addDevice(id, license{serial: "VDS1000120"}.deviceCode(1))); got != "STAT_NOT_FOUND" {
		t.Errorf("add device before the proof: %s", got)
	}
	_, answer = send(t, s, text11, srpActivationData(id, hex.EncodeToString(evidence)))
	message, written := encrypted(t, answer, "activationMessage")
	serverEvidence := elementValue(t, answer, "serverEvidenceMessage")
	check(t, "dsappSRPGenerateActivationData", answer, golden("prov", `<prov:dsappSRPGenerateActivationDataResponse>`+typedSuccess+
		`<result><mdl>`+written+`</mdl><serverEvidenceMessage>`+serverEvidence+`</serverEvidenceMessage></result></prov:dsappSRPGenerateActivationDataResponse>`))
	key, err := client.Confirm(unhex(t, serverEvidence))
	if err != nil {
		t.Fatal(err)
	}
	am1, err := srp.NewTransport(key, client.Public(), serverPublic).Open(seal.LicenseActivationMessage, message)
	if err != nil {
		t.Fatal(err)
	}
	code, err := d.ActivateLicense(string(am1))
	if err != nil {
		t.Fatal(err)
	}
	if got := status(t, s, srpActivationData(id, hex.EncodeToString(evidence))); got != "STAT_NOT_FOUND" {
		t.Errorf("the same proof again: %s", got)
	}
	if got := status(t, s, srpActivate(id, "<response>1</response>")); got != "STAT_NOT_FOUND" {
		t.Errorf("final call for standard licences: %s", got)
	}
	_, answer = send(t, s, text11, addDevice(id, code))
	signature, err := d.ActivateInstance(attributeValue(t, answer, "PROVFLD_INSTANCE_ACTIVATION_MESSAGE"))
	if err != nil {
		t.Fatal(err)
	}
	if got := status(t, s, activate(id, signature)); got != "STAT_SUCCESS" {
		t.Errorf("activate: %s", got)
	}
	if got := status(t, s, srpEphemeralKey(id, "02")); got != "STAT_NOT_FOUND" {
		t.Errorf("exchange after the end: %s", got)
	}
}

// Guards an exchange for a standard licence byte for byte, and its final call with
// either credential.
func TestGoldenStandardExchange(t *testing.T) {
	t.Parallel()
	for name, credential := range map[string]func(*Authenticator) string{
		"response":        func(a *Authenticator) string { return "<response>" + a.OneTimePassword() + "</response>" },
		"derivation code": func(a *Authenticator) string { return "<derivationCode>" + a.DerivationCode() + "</derivationCode>" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStandardServer(1)
			_, answer := send(t, s, text11, srpRegister(""))
			id, password := elementValue(t, answer, "registrationID"), elementValue(t, answer, "activationPassword")
			client, evidence, serverPublic := begun(t, s, id, password)
			if got := status(t, s, srpActivate(id, "<response>1</response>")); got != "STAT_NOT_FOUND" {
				t.Errorf("final call before the proof: %s", got)
			}
			_, answer = send(t, s, text11, srpActivationData(id, hex.EncodeToString(evidence)))
			sealedCode, writtenCode := encrypted(t, answer, "activationCode")
			sealedCounter, writtenCounter := encrypted(t, answer, "eventReactivationCounter")
			serverEvidence := elementValue(t, answer, "serverEvidenceMessage")
			check(t, "dsappSRPGenerateActivationData", answer, golden("prov", `<prov:dsappSRPGenerateActivationDataResponse>`+typedSuccess+
				`<result><standard>`+writtenCode+writtenCounter+`</standard><serverEvidenceMessage>`+serverEvidence+
				`</serverEvidenceMessage></result></prov:dsappSRPGenerateActivationDataResponse>`))
			key, err := client.Confirm(unhex(t, serverEvidence))
			if err != nil {
				t.Fatal(err)
			}
			transport := srp.NewTransport(key, client.Public(), serverPublic)
			code, err := transport.Open(seal.ActivationCode, sealedCode)
			if err != nil {
				t.Fatal(err)
			}
			counter, err := transport.Open(seal.EventReactivationCounter, sealedCounter)
			if err != nil {
				t.Fatal(err)
			}
			a, err := ActivateStandard(string(code), string(counter), "jane.doe", "mydomain.com")
			if err != nil {
				t.Fatal(err)
			}
			if got := status(t, s, srpActivate(id, "<response>x</response>")); got != "STAT_OTP_INCORRECT" {
				t.Errorf("wrong response: %s", got)
			}
			if code, answer := send(t, s, text11, srpActivate(id, "<response>1</response><derivationCode>1</derivationCode>")); code != 500 || !strings.Contains(answer, "exactly one") {
				t.Errorf("both credentials: HTTP status %d: %s", code, answer)
			}
			_, answer = send(t, s, text11, srpActivate(id, credential(a)))
			check(t, "dsappSRPActivate", answer, golden("prov", `<prov:dsappSRPActivateResponse>`+typedSuccess+
				`<result>`+janeElement+`<serialNumber>VDS1000120</serialNumber></result></prov:dsappSRPActivateResponse>`))
			if got := status(t, s, authUser(attr("string", a.OneTimePassword(), "CREDFLD_PASSWORD"))); got != "STAT_SUCCESS" {
				t.Errorf("one-time password of the activated licence: %s", got)
			}
			if got := status(t, s, srpActivate(id, credential(a))); got != "STAT_NOT_FOUND" {
				t.Errorf("activate again: %s", got)
			}
			id, err = a.WrapNotificationID("x")
			if err != nil {
				t.Fatal(err)
			}
			for what, body := range map[string]string{
				"notification ID": updateNotificationID(a.SerialNumber, id),
				"push login":      authUser(attr("string", "push", "CREDFLD_PASSWORD")),
				"scan login":      scanLogin(),
				"scan signature":  scanSignature(attr("string", a.SerialNumber, "SIGNFLD_SERIAL_NO")),
			} {
				if got := status(t, s, body); got != "STAT_NOT_FOUND" {
					t.Errorf("%s of a standard licence: %s", what, got)
				}
			}
		})
	}
}

// Guards what an exchange refuses: wrong evidence three times ends it, evidence
// counts for one ephemeral key, keys and evidence keep to their form, other
// registrations have no exchange.
func TestExchangeRefused(t *testing.T) {
	t.Parallel()
	s, c := newTestServer()
	_, answer := send(t, s, text11, srpRegister(""))
	id := elementValue(t, answer, "registrationID")
	expect := func(what, body, want string) {
		t.Helper()
		if got := status(t, s, body); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	zero := strings.Repeat("0", 64)
	expect("evidence before the ephemeral key", srpActivationData(id, zero), "STAT_NOT_FOUND")
	expect("public key 0", srpEphemeralKey(id, "00"), "STAT_INVPARAM")
	expect("public key that is not hex", srpEphemeralKey(id, "xy"), "STAT_INVPARAM")
	expect("evidence without its leading zeros", srpActivationData(id, "00"), "STAT_NOT_FOUND")
	expect("long evidence", srpActivationData(id, zero+"000"), "STAT_INVPARAM")
	expect("unknown registration", srpEphemeralKey("unknown", "02"), "STAT_NOT_FOUND")
	offline, _ := registered(t, s)
	expect("registration without an exchange", srpEphemeralKey(offline, "02"), "STAT_NOT_FOUND")
	for range 3 {
		_, evidence, _ := begun(t, s, id, "a wrong password")
		expect("wrong evidence", srpActivationData(id, hex.EncodeToString(evidence)), "STAT_INVCREDENTIALS")
	}
	expect("after three proofs", srpEphemeralKey(id, "02"), "STAT_NOT_FOUND")

	_, answer = send(t, s, text11, srpRegister(""))
	id = elementValue(t, answer, "registrationID")
	c.advance(600 * time.Second)
	expect("after 600 s", srpEphemeralKey(id, "02"), "STAT_NOT_FOUND")
}

// Guards the choice of the licence: the user's only one, else one has to be named;
// a wrong serial number or password fails the command.
func TestExchangeLicense(t *testing.T) {
	t.Parallel()
	s := New(Options{
		Users:       []User{{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "s&cret", Licenses: 1, StandardLicenses: 1}},
		SerialStart: 1000120,
	})
	named := func(serial string) string { return srpRegister("<serialNumber>" + serial + "</serialNumber>") }
	for _, c := range []struct{ what, body, want string }{
		{"licence that is not the user's", named("VDS1000120"), "STAT_NOT_FOUND"},
		{"first", srpRegister(""), "STAT_SUCCESS"},
		{"the same", srpRegister(""), "STAT_SUCCESS"},
		{"standard licence", registerStandard(""), "STAT_SUCCESS"},
		{"several and none named", srpRegister(""), "STAT_INVPARAM"},
		{"multi-device licence", named("VDS1000120"), "STAT_SUCCESS"},
		{"standard licence named", named("VDS1000121"), "STAT_SUCCESS"},
		{"wrong password", strings.Replace(srpRegister(""), "s&amp;cret", "x", 1), "STAT_LOCAL_PASSWORD_MISMATCH"},
		{"unknown user", strings.Replace(srpRegister(""), "jane.doe", "jim", 1), "STAT_USER_UNKNOWN"},
	} {
		if got := status(t, s, c.body); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
	l := s.State().Users[0].Licenses
	if len(l) != 2 || l[0].Standard || !l[1].Standard || l[1].SerialNumber != "VDS1000121" {
		t.Errorf("licences %+v", l)
	}
}

// Guards standard licences byte for byte: registration, activation by one-time
// password, reactivation with the counter that the server has.
func TestGoldenStandard(t *testing.T) {
	t.Parallel()
	s := newStandardServer(1)
	var a *Authenticator
	for round := range 2 {
		_, answer := send(t, s, text11, registerStandard(""))
		code := attributeValue(t, answer, "PROVFLD_ACTIVATION_CODE")
		counter := attributeValue(t, answer, "PROVFLD_EVENT_REACTIVATION_COUNTER")
		want := goldenHead11 + strings.Replace(goldenSuccess, "%s",
			attr("string", "jane.doe", "PROVFLD_USERID")+attr("string", "mydomain.com", "PROVFLD_DOMAIN")+
				attr("string", "sales", "PROVFLD_ORGANIZATIONAL_UNIT")+attr("string", "VDS1000120", "PROVFLD_SERIAL_NO")+
				`<attributes><attributeOptions><masked>true</masked></attributeOptions><value xsi:type="xsd:string">`+code+
				`</value><attributeID>PROVFLD_ACTIVATION_CODE</attributeID></attributes>`+
				attr("string", counter, "PROVFLD_EVENT_REACTIVATION_COUNTER"), 1) + goldenTail
		check(t, "register", answer, want)
		if len(code) != 4142 || len(counter) != 91 {
			t.Errorf("activation code of %d digits, counter of %d", len(code), len(counter))
		}
		var err error
		if a, err = ActivateStandard(code, counter, "jane.doe", "mydomain.com"); err != nil || a.SerialNumber != "VDS1000120" {
			t.Fatalf("authenticator %+v, %v", a, err)
		}
		if (a.Counter == 0) != (round == 0) {
			t.Errorf("counter %d in round %d", a.Counter, round)
		}
		_, answer = send(t, s, text11, activateStandard(attr("string", a.OneTimePassword(), "PROVFLD_DP_RESPONSE")))
		check(t, "activate", answer, goldenHead11+strings.Replace(goldenSuccess, "%s", "", 1)+goldenTail)
		if d := s.State().Users[0].Licenses[0].Devices; len(d) != 1 || !d[0].Activated || d[0].SerialNumber != "VDS1000120" {
			t.Errorf("devices %+v", d)
		}
	}
	_, answer := send(t, s, text11, authUser(attr("string", a.OneTimePassword(), "CREDFLD_PASSWORD")))
	if got := attributeValue(t, answer, "CREDFLD_SERIAL_NO"); got != "VDS1000120" {
		t.Errorf("serial number %s", got)
	}
	_, answer = send(t, s, text11, activateStandard(
		attr("string", a.DerivationCode(), "PROVFLD_DERIVATION_CODE"), attr("unsignedInt", "0", "PROVFLD_REQUEST_TYPE")))
	check(t, "activate by derivation code", answer, goldenHead11+strings.Replace(goldenSuccess, "%s", "", 1)+goldenTail)
}

// Guards what the commands of standard licences refuse, and how licences are
// assigned: one that is not activated first, then a new one.
func TestStandardRefused(t *testing.T) {
	t.Parallel()
	s := newStandardServer(2)
	response := attr("string", "1", "PROVFLD_DP_RESPONSE")
	code := attr("string", "1", "PROVFLD_DERIVATION_CODE")
	typ := attr("unsignedInt", "0", "PROVFLD_REQUEST_TYPE")
	expect := func(what, body, want string) {
		t.Helper()
		if got := status(t, s, body); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	expect("activation before registration", activateStandard(response), "STAT_NOT_FOUND")
	expect("a licence that is not the user's", registerStandard("VDS1000120"), "STAT_NOT_FOUND")
	for range 2 {
		_, answer := send(t, s, text11, registerStandard(""))
		if got := attributeValue(t, answer, "PROVFLD_SERIAL_NO"); got != "VDS1000120" {
			t.Errorf("serial number %s", got)
		}
	}
	expect("a licence of the user", registerStandard("VDS1000120"), "STAT_SUCCESS")
	expect("multi-device licence", registerRequest, "STAT_DIGIPASS_NOT_AVAILABLE")
	expect("neither response nor code", activateStandard(), "STAT_INVPARAM")
	expect("both", activateStandard(response, code, typ), "STAT_INVPARAM")
	expect("derivation code without a type", activateStandard(code), "STAT_INVPARAM")
	expect("unknown user", strings.Replace(activateStandard(response), "jane.doe", "jim", 1), "STAT_USER_UNKNOWN")
	expect("wrong derivation code", activateStandard(code, typ), "STAT_OTP_INCORRECT")
	expect("wrong response", activateStandard(response), "STAT_OTP_INCORRECT")

	_, answer := send(t, s, text11, registerStandard("VDS1000120"))
	a, err := ActivateStandard(attributeValue(t, answer, "PROVFLD_ACTIVATION_CODE"), attributeValue(t, answer, "PROVFLD_EVENT_REACTIVATION_COUNTER"), "jane.doe", "")
	if err != nil {
		t.Fatal(err)
	}
	expect("right response", activateStandard(attr("string", a.OneTimePassword(), "PROVFLD_DP_RESPONSE")), "STAT_SUCCESS")
	_, answer = send(t, s, text11, registerStandard(""))
	if got := attributeValue(t, answer, "PROVFLD_SERIAL_NO"); got != "VDS1000121" {
		t.Errorf("serial number %s", got)
	}
	expect("no password", strings.Replace(registerStandard(""), attr("string", "s&amp;cret", "PROVFLD_STATIC_PASSWORD"), "", 1), "STAT_LOCAL_PASSWORD_MISMATCH")
	other, _ := newTestServer()
	if got := status(t, other, registerStandard("")); got != "STAT_DIGIPASS_NOT_AVAILABLE" {
		t.Errorf("user without standard licences: %s", got)
	}
}
