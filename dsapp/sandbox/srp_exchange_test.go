package sandbox

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

// startExchange performs the first call of an exchange.
func startExchange(t *testing.T, s *Server, id, password string) (client *srp.Client, evidence, serverPublic []byte) {
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
	wantAnswer(t, "dsappSRPGenerateEphemeralKey", answer, golden("prov", `<prov:dsappSRPGenerateEphemeralKeyResponse>`+typedSuccess+
		`<result><serverEphemeralPublicKey>`+public+`</serverEphemeralPublicKey><salt>`+salt+`</salt></result></prov:dsappSRPGenerateEphemeralKeyResponse>`))
	if len(salt) != 32 || len(public) != 512 {
		t.Errorf("salt of %d digits, public key of %d", len(salt), len(public))
	}
	serverPublic = digits.Decode(t, public)
	if evidence, err = client.Prove(digits.Decode(t, salt), serverPublic); err != nil {
		t.Fatal(err)
	}
	return client, evidence, serverPublic
}

// The answers of an SRP exchange for a multi-device licence have these bytes. The device opens
// the activation data with the packages srp and seal and completes the activation.
func TestGoldenExchange(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	_, answer := send(t, s, text11, srpRegister(""))
	id, password := elementValue(t, answer, "registrationID"), elementValue(t, answer, "activationPassword")
	wantAnswer(t, "dsappSRPRegister", answer, golden("prov", `<prov:dsappSRPRegisterResponse>`+typedSuccess+
		`<result><registrationID>`+id+`</registrationID><activationPassword>`+password+`</activationPassword>`+janeElement+
		`<serialNumber>VDS1000120</serialNumber><digipassGatewayID>SANDBOX</digipassGatewayID></result></prov:dsappSRPRegisterResponse>`))
	if len(id) < 8 || len(password) < 8 || id == password {
		t.Errorf("registration ID %s, activation password %s", id, password)
	}

	client, evidence, serverPublic := startExchange(t, s, id, password)
	d := NewDevice(1)
	if got := status(t, s, addDevice(id, license{serial: "VDS1000120"}.deviceCode(1))); got != "STAT_NOT_FOUND" {
		t.Errorf("add device before the proof: %s", got)
	}
	_, answer = send(t, s, text11, srpActivationData(id, hex.EncodeToString(evidence)))
	message, written := encryptedItem(t, answer, "activationMessage")
	serverEvidence := elementValue(t, answer, "serverEvidenceMessage")
	wantAnswer(t, "dsappSRPGenerateActivationData", answer, golden("prov", `<prov:dsappSRPGenerateActivationDataResponse>`+typedSuccess+
		`<result><mdl>`+written+`</mdl><serverEvidenceMessage>`+serverEvidence+`</serverEvidenceMessage></result></prov:dsappSRPGenerateActivationDataResponse>`))
	key, err := client.Confirm(digits.Decode(t, serverEvidence))
	if err != nil {
		t.Fatal(err)
	}
	am1, err := srp.NewSession(key, client.Public(), serverPublic).Open(seal.LicenseActivationMessage, message)
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

// The answers of an SRP exchange for a standard licence have these bytes, with either
// confirmation.
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
			client, evidence, serverPublic := startExchange(t, s, id, password)
			if got := status(t, s, srpActivate(id, "<response>1</response>")); got != "STAT_NOT_FOUND" {
				t.Errorf("final call before the proof: %s", got)
			}
			_, answer = send(t, s, text11, srpActivationData(id, hex.EncodeToString(evidence)))
			sealedCode, writtenCode := encryptedItem(t, answer, "activationCode")
			sealedCounter, writtenCounter := encryptedItem(t, answer, "eventReactivationCounter")
			serverEvidence := elementValue(t, answer, "serverEvidenceMessage")
			wantAnswer(t, "dsappSRPGenerateActivationData", answer, golden("prov", `<prov:dsappSRPGenerateActivationDataResponse>`+typedSuccess+
				`<result><standard>`+writtenCode+writtenCounter+`</standard><serverEvidenceMessage>`+serverEvidence+
				`</serverEvidenceMessage></result></prov:dsappSRPGenerateActivationDataResponse>`))
			key, err := client.Confirm(digits.Decode(t, serverEvidence))
			if err != nil {
				t.Fatal(err)
			}
			transport := srp.NewSession(key, client.Public(), serverPublic)
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
			wantAnswer(t, "dsappSRPActivate", answer, golden("prov", `<prov:dsappSRPActivateResponse>`+typedSuccess+
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

// Three wrong proofs remove a registration. A proof is accepted for one ephemeral key.
// Malformed keys and proofs, and registrations without an exchange, are refused.
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
	offline, _ := startActivation(t, s)
	expect("registration without an exchange", srpEphemeralKey(offline, "02"), "STAT_NOT_FOUND")
	for range 3 {
		_, evidence, _ := startExchange(t, s, id, "a wrong password")
		expect("wrong evidence", srpActivationData(id, hex.EncodeToString(evidence)), "STAT_INVCREDENTIALS")
	}
	expect("after three proofs", srpEphemeralKey(id, "02"), "STAT_NOT_FOUND")

	_, answer = send(t, s, text11, srpRegister(""))
	id = elementValue(t, answer, "registrationID")
	c.Advance(600 * time.Second)
	expect("after 600 s", srpEphemeralKey(id, "02"), "STAT_NOT_FOUND")
}

// The user's only licence is chosen, else one must be named. Wrong serial numbers and
// passwords are refused.
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
