package sandbox

import (
	"strings"
	"testing"
)

// newStandardServer returns a server whose user has standard licences only.
func newStandardServer(licenses int) *Server {
	return New(Options{
		Users: []User{{
			Name: "jane.doe", Domain: "mydomain.com", OrganizationalUnit: "sales", StaticPassword: "s&cret", StandardLicenses: licenses,
		}},
		SerialStart: 1000120,
	})
}

// Registration, activation and reactivation of a standard licence have these answers.
func TestGoldenStandard(t *testing.T) {
	t.Parallel()
	s := newStandardServer(1)
	var a *Authenticator
	for round := range 2 {
		_, answer := send(t, s, text11, registerStandard(""))
		code := attributeValue(t, answer, "PROVFLD_ACTIVATION_CODE")
		counter := attributeValue(t, answer, "PROVFLD_EVENT_REACTIVATION_COUNTER")
		want := goldenProvisioning(
			attr("string", "jane.doe", "PROVFLD_USERID"), attr("string", "mydomain.com", "PROVFLD_DOMAIN"),
			attr("string", "sales", "PROVFLD_ORGANIZATIONAL_UNIT"), attr("string", "VDS1000120", "PROVFLD_SERIAL_NO"),
			`<attributes><attributeOptions><masked>true</masked></attributeOptions><value xsi:type="xsd:string">`+code+
				`</value><attributeID>PROVFLD_ACTIVATION_CODE</attributeID></attributes>`,
			attr("string", counter, "PROVFLD_EVENT_REACTIVATION_COUNTER"))
		wantAnswer(t, "register", answer, want)
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
		wantAnswer(t, "activate", answer, goldenProvisioning())
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
	wantAnswer(t, "activate by derivation code", answer, goldenProvisioning())
}

// The commands of standard licences refuse wrong requests. A licence that is not activated is
// assigned before a new one.
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
