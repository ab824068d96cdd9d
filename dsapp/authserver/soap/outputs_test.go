package soap

import (
	"strings"
	"testing"
)

// The length and the characters of each output are checked.
func TestOutputLimits(t *testing.T) {
	t.Parallel()
	code, counter := "PROVFLD_ACTIVATION_CODE", "PROVFLD_EVENT_REACTIVATION_COUNTER"
	digits := strings.Repeat("0", 100_000)
	register, authUser := Register.Call(nil, &Registered{}), AuthUser.Call(nil, &Authenticated{})
	signatureRequest, challenge := GetPreparedSignatureRequest.Call(nil, &Retrieved{}), GetPreparedSecureChallenge.Call(nil, &Retrieved{})
	ephemeralKey, srpRegister := DSAPPSRPGenerateEphemeralKey.Call(nil, &DSAPPSRPChallenge{}), DSAPPSRPRegister.Call(nil, &DSAPPSRPRegistered{})
	for name, test := range map[string]struct {
		call    Call
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
		"request message, longest":       {signatureRequest, []item{{"requestMessage", digits[:16384]}}, ""},
		"request message, too long":      {signatureRequest, []item{{"requestMessage", digits[:16385]}}, "requestMessage is too long"},
		"request message, no hex":        {challenge, []item{{"RequestMessage", "0G"}}, "requestMessage has a character that is not a hex digit"},
		"request message, empty":         {challenge, []item{{"RequestMessage", ""}}, "without requestMessage"},
		"public key, no hex": {
			ephemeralKey, []item{{"serverEphemeralPublicKey", "xy"}, {"salt", "00"}}, "serverEphemeralPublicKey has a character that is not a hex digit",
		},
		"salt, no hex":        {ephemeralKey, []item{{"serverEphemeralPublicKey", "00"}, {"salt", "xy"}}, "salt has a character that is not a hex digit"},
		"salt, missing":       {ephemeralKey, []item{{"serverEphemeralPublicKey", "00"}}, "without salt"},
		"public key, longest": {ephemeralKey, []item{{"serverEphemeralPublicKey", digits[:65536]}, {"salt", "00"}}, ""},
		"public key, too long": {
			ephemeralKey, []item{{"serverEphemeralPublicKey", digits[:65537]}, {"salt", "00"}}, "serverEphemeralPublicKey is too long",
		},
		"no registration identifier": {srpRegister, []item{{"activationPassword", "x"}}, "without registrationID"},
		"no activation password":     {srpRegister, []item{{"registrationID", "x"}}, "without activationPassword"},
		"older registration":         {srpRegister, []item{{"registrationID", "x"}, {"activationPassword", "x"}}, ""},
	} {
		_, err := test.call.fill(test.items, &testDialect.Attributes)
		switch {
		case test.problem == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)):
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A status message turns the success of a login into a refusal. It changes neither a refusal nor
// the answers to other commands.
func TestRefusalOutput(t *testing.T) {
	t.Parallel()
	const refusal = "<attributes><attributeID>CREDFLD_STATUS_MESSAGE</attributeID><value>locked</value></attributes>"
	locked := FailureCodes("STAT_LOCKED", 1007)
	for name, test := range map[string]struct {
		call  Call
		codes string
		items string
		want  ResultCodes
		stack int
	}{
		"login":                        {AuthUser.Call(&AuthUserRequest{}, &Authenticated{}), success, attribute("CREDFLD_USERID", "jane"), succeeded, 0},
		"login with a message":         {AuthUser.Call(&AuthUserRequest{}, &Authenticated{}), success, refusal, FailureCodes("STAT_INVCREDENTIALS", 1000), 1},
		"refused login with a message": {AuthUser.Call(&AuthUserRequest{}, &Authenticated{}), failed("STAT_LOCKED", 1007), refusal, locked, 0},
		"signature with a message": {
			AuthSignature.Call(&AuthSignatureRequest{}, &Authenticated{}), success, strings.Replace(refusal, "CREDFLD", "SIGNFLD", 1), succeeded, 0,
		},
	} {
		text := envelope("<" + test.call.operation + "Response><results>" + test.codes + "<resultAttribute>" + test.items + "</resultAttribute></results></" + test.call.operation + "Response>")
		got, err := test.call.Decode(strings.NewReader(text), &testDialect)
		if err != nil || got.Codes != test.want || len(got.Stack) != test.stack {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
