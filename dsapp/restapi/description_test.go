package restapi

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// The errorDescription names the member that is wrong. It contains no value and no unknown
// name from the body.
func TestDescriptions(t *testing.T) {
	t.Parallel()
	const hostile = "hostile-value"
	device := func(rest string) string { return `{"registrationIdentifier":"e3wfISG9",` + rest + `}` }
	add, register := "/rest/v2/provisioning/MdlAddDevice", "/rest/v2/provisioning/DSAPPSRPRegister"
	for _, c := range []struct{ path, body, want string }{
		{add, `{"deviceCode":"1"}`, "registrationIdentifier is missing"},
		{add, `{"registrationIdentifier":null,"deviceCode":"1"}`, "registrationIdentifier is missing"},
		{add, `{"RegistrationIdentifier":"e3wfISG9","deviceCode":"1"}`, "registrationIdentifier is missing"},
		{"/rest/activation/MdlAddDevice", `{"registrationIdentifier":"e3wfISG9","deviceCode":"1"}`, "registrationID is missing"},
		{add, `{"registrationIdentifier":12345,"deviceCode":"1"}`, "registrationIdentifier must be a string"},
		{add, `{"registrationIdentifier":["` + hostile + `"],"deviceCode":"1"}`, "registrationIdentifier must be a string"},
		{add, `{"registrationIdentifier":"abc","deviceCode":"1"}`, "registrationIdentifier must have 4 to 64 characters"},
		{add, `{"registrationIdentifier":"","deviceCode":"1"}`, "registrationIdentifier must not be empty"},
		{add, `{"registrationIdentifier":"` + strings.Repeat("a", 65) + `","deviceCode":"1"}`, "registrationIdentifier must have 4 to 64 characters"},
		{add, `{"registrationIdentifier":"` + hostile + `;","deviceCode":"1"}`, "registrationIdentifier must consist of A-Z, a-z, 0-9, '.', '_' and '-'"},
		{add, device(`"deviceCode":"` + hostile + `"`), "deviceCode must consist of decimal digits"},
		{add, device(`"deviceCode":"１２"`), "deviceCode must consist of decimal digits"},
		{add, device(`"deviceCode":true`), "deviceCode must be a string"},
		{add, device(`"deviceCode":"1","description":"` + strings.Repeat("ü", 256) + `"`), "description must not have more than 255 characters"},
		{add, device(`"deviceCode":"1","deviceCode":"` + hostile + `"`), "deviceCode occurs twice"},
		{add, device(`"deviceCode":"1","device\u0043ode":"` + hostile + `"`), "deviceCode occurs twice"},
		{add, device(`"` + hostile + `":1,"` + hostile + `":1`), "body contains a member twice"},
		{add, device(`"x":[{"` + hostile + `":1,"` + hostile + `":1}]`), "body contains a member twice"},
		{add, device(`"x":[{` + strings.TrimSuffix(strings.Repeat(`"`+hostile+`":1,`, 1), ",") + `}],"y":{"z":[` + strings.TrimSuffix(strings.Repeat(`{"a":1},`, 61), ",") + `]}`), "body has too many members"},
		{add, device(`"x":[` + strings.Repeat("[],", 1000) + strings.TrimSuffix(strings.Repeat(`0,`, 25), ",") + `]`), "body has too many elements of arrays"},
		{add, device(`"x":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)), "body is nested too deeply"},
		{add, device(`"deviceCode":"1",`), "body must be a JSON object and nothing else"},
		{add, `"` + hostile + `"`, "body must be a JSON object and nothing else"},
		{add, `null`, "body must be a JSON object and nothing else"},
		{add, "\ufeff\ufeff{}", "body must be a JSON object and nothing else"},
		{add, "\ufeff{}", "registrationIdentifier is missing"},
		{add, device(`"deviceCode":"1","Description":"` + hostile + `"`), "description must be spelt exactly like that"},
		{add, device(`"deviceCode":"1","des_crip-tion":"` + hostile + `"`), "description must be spelt exactly like that"},
		{add, device(`"deviceCode":"1","descriptio":"` + hostile + `"`), "description must be spelt exactly like that"},
		{add, device(`"deviceCode":"1","descriptions":"` + hostile + `"`), "description must be spelt exactly like that"},
		{register, `{"userID":"a","staticPassword":"p","Domain":"` + hostile + `"}`, "domain must be spelt exactly like that"},
		{register, `{"userID":"a","staticPassword":"p","licensetype":"standard"}`, "licenseType must be spelt exactly like that"},
		{register, `{"userID":"a","staticPassword":"p","licenceType":"standard"}`, "licenseType must be spelt exactly like that"},
		{add, device(`"deviceCode":"1"`) + hostile, "body must be a JSON object and nothing else"},
		{add, device("\"x\":\"\xff\""), "body must be UTF-8"},
		{add, device(`"x":"\ud800"`), "body must not contain half of a surrogate pair"},
		{"/rest/v2/provisioning/DSAPPSRPGenerateActivationData", `{"registrationIdentifier":"e3wfISG9","clientEvidenceMessage":""}`, "clientEvidenceMessage must not be empty"},
		{"/rest/v2/authentication/push/authUser", `{"userID":"jane.doe","challengeKey":123456789,"signature":"1"}`, "challengeKey must be a string"},
		{"/rest/v2/authentication/scan/cancelAuthUser", `{"serialNumber":"VDS1000000-1","encryptedChallengeKey":"` + hostile + `"}`, "challengeKey is missing"},
		{"/rest/v2/authentication/push/getPreparedSecureChallenge", `{"digipassInstanceID":"VDS1000000-1","challengeKey":"1"}`, "serialNumber is missing"},
		{"/rest/v2/signature/push/authSignature", `{"userID":"jane.doe","challengeKey":"1","signature":"1"}`, "requestKey is missing"},
		{"/rest/v2/authentication/authUser", `{"userID":"jane.doe","otp":"` + hostile + `"}`, "password is missing"},
		{"/rest/auth/online", `{"userID":"jane.doe","password":"` + hostile + `"}`, "otp is missing"},
		{"/rest/push/retrieveLogin", `{"serialNumber":"VDS1000000-1","challengeKey":"1"}`, "digipassInstanceID is missing"},
		{"/rest/push/cancelLogin", `{"digipassInstanceID":"VDS1000000-1","challengeKey":"` + hostile + `"}`, "encryptedChallengeKey is missing"},
		{"/rest/notification/updateNotificationID", `{"userID":"a","digipassInstanceID":"V","encryptedNotificationID":"01"}`, "domain is missing"},
		{"/rest/v2/notification/push/updateNotificationID", `{"userID":"a","domain":"","digipassInstanceID":"V","encryptedNotificationID":"01"}`, "domain must not be empty"},
		{"/rest/v2/notification/push/updateNotificationID", `{"userID":"a","domain":"d","serialNumber":"V","encryptedNotificationID":"01"}`, "digipassInstanceID is missing"},
		{"/rest/v2/provisioning/DSAPPSRPActivate", `{"registrationIdentifier":"e3wfISG9","derivationCode":"` + strings.Repeat("1", 28) + `"}`, "derivationCode must have 1 to 27 characters"},
		{"/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey", `{"registrationIdentifier":"e3wfISG9","clientEphemeralPublicKey":"0x12"}`, "clientEphemeralPublicKey must consist of hexadecimal digits"},
		{register, `{"userID":"a\u0000","staticPassword":"p"}`, "userID must not contain control characters"},
		{register, `{"userID":"a","staticPassword":""}`, "staticPassword must not be empty"},
		{register, `{"userID":"a","staticPassword":"` + strings.Repeat("p", 129) + `"}`, "staticPassword must have 1 to 128 characters"},
		{register, `{"userID":"a","staticPassword":"p","serialNumber":"VDS_1"}`, "serialNumber must consist of A-Z, a-z, 0-9 and '-'"},
		{"/rest/v2/provisioning/MdlRegister", `{"userID":"a","staticPassword":"` + hostile + `"}`, "password is missing"},
	} {
		g := newTestServer(t, nil, nil)
		key := frontKey
		if strings.HasSuffix(c.path, "Register") {
			key = backKey
		}
		got := g.call(c.path, key, c.body)
		var body struct{ ErrorDescription string }
		if err := json.Unmarshal([]byte(got.body), &body); err != nil {
			t.Fatal(err)
		}
		if got.status != http.StatusBadRequest || body.ErrorDescription != c.want {
			t.Errorf("%.80s: answer is %d %q, want %q", c.body, got.status, body.ErrorDescription, c.want)
		}
		if strings.Contains(got.body, hostile) {
			t.Errorf("%.80s: the answer repeats it: %s", c.body, got.body)
		}
	}
}

// An error about a member by the gateway has the service's name of the member, if the
// service has it.
func TestInvalidMemberIsNamed(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey": "clientEphemeralPublicKey is odd",
		"/rest/activation/DSAPPSRPGenerateEphemeralKey":      "clientEphemeralPublicKey is odd",
		"/rest/v2/provisioning/getServerTime":                "request is odd",
	} {
		g := newTestServer(t, nil, nil)
		g.ops.err = &gateway.InvalidError{Member: gateway.MemberClientPublic, Problem: "is odd"}
		if got := g.call(path, frontKey, bodies[path]); !strings.Contains(got.body, `"errorDescription":"`+want+`"`) {
			t.Errorf("%s: answer is %s, want %q", path, got.body, want)
		}
	}
}
