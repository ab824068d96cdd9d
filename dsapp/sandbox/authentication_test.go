package sandbox

import (
	"testing"
)

// Each one-time password is accepted once, and some may be skipped. The answer names the
// authenticator. Three wrong ones lock the user for all commands. The static password is
// accepted before the first device is activated.
func TestOneTimePasswords(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	_, answer := send(t, s, text11, authUser(password("s&amp;cret")))
	wantAnswer(t, "static password", answer, golden("aut", `<aut:authUserResponse><authUserResults>`+
		goldenResults("CREDENTIAL-TYPES:CredentialResults",
			attr("string", "jane.doe", "CREDFLD_USERID"), attr("string", "mydomain.com", "CREDFLD_DOMAIN"))+
		`</authUserResults></aut:authUserResponse>`))
	expect := func(what, password, want string) {
		t.Helper()
		if got := status(t, s, authUser(attr("string", password, "CREDFLD_PASSWORD"))); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	expect("wrong static password", "x", "STAT_LOCAL_PASSWORD_MISMATCH")

	first, second := newPushAuthenticator(t, s), newPushAuthenticator(t, s)
	expect("static password with a device", "s&amp;cret", "STAT_OTP_INCORRECT")
	for _, a := range []*Authenticator{first, second} {
		otp := a.OneTimePassword()
		_, answer := send(t, s, text11, authUser(password(otp)))
		if got := attributeValue(t, answer, "CREDFLD_SERIAL_NO"); got != a.SerialNumber {
			t.Errorf("serial number %s, want %s", got, a.SerialNumber)
		}
		expect("the same again", otp, "STAT_OTP_INCORRECT")
	}
	for range 19 {
		first.OneTimePassword()
	}
	late := first.OneTimePassword()
	if got := status(t, s, authUser(password(late), attr("string", second.SerialNumber, "CREDFLD_SERIAL_NO"))); got != "STAT_OTP_INCORRECT" {
		t.Errorf("one-time password of another authenticator: %s", got)
	}
	expect("19 skipped", late, "STAT_SUCCESS")
	for range 20 {
		first.OneTimePassword()
	}
	expect("20 skipped", first.OneTimePassword(), "STAT_OTP_INCORRECT")
	expect("wrong", "x", "STAT_OTP_INCORRECT")
	expect("wrong", "x", "STAT_OTP_INCORRECT")
	expect("locked", second.OneTimePassword(), "STAT_LOCKED")
	for name, body := range map[string]string{
		"getSecureChallenge": scanLogin(), "genRequest": scanSignature(), "authSignature": completeSignature("1", "1"),
		"authSignatureRequest": pushSignature(""), "MDL_REGISTER": registerRequest, "completing authUser": completeLogin("1", "1"),
	} {
		if got := status(t, s, body); got != "STAT_LOCKED" {
			t.Errorf("%s of a locked user: %s", name, got)
		}
	}
}
