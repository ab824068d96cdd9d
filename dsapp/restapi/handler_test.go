package restapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var errCause = errors.New("a cause that no client may see")

// documented is what the public description of the interface says about a service,
// written down by hand. Members are parted by spaces; those with a question mark
// are optional in the request, or may be absent from the answer.
type documented struct {
	classes string
	// shape is the version of the answers.
	shape           version
	request, result string
}

const (
	registered    = "userID domain serialNumber"
	authenticates = "userID domain orgUnit serialNo?"
	sealedData    = "serverEvidenceMessage encryptedLicenseActivationMessage? encryptedCounter? mac? standard?"
)

var services = map[string]documented{
	// These two are not part of the public description.
	"/rest/v2/provisioning/DSAPPSRPRegister": {"back_end", v2, "userID domain? staticPassword licenseType? serialNumber?", "registrationIdentifier activationPassword activationImage expiresAt?"},
	"/rest/v2/provisioning/DSAPPSRPActivate": {"front_end back_end", v2, "registrationIdentifier response? derivationCode?", registered},

	"/rest/v2/provisioning/MdlRegister":                    {"back_end", v2, "userID domain? password", "registrationIdentifier activationMessageImage"},
	"/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey":   {"front_end", v2, "registrationIdentifier clientEphemeralPublicKey", "serverEphemeralPublicKey salt"},
	"/rest/v2/provisioning/DSAPPSRPGenerateActivationData": {"front_end", v2, "registrationIdentifier clientEvidenceMessage", sealedData},
	"/rest/v2/provisioning/MdlAddDevice":                   {"front_end back_end", v2, "registrationIdentifier deviceCode description?", "instanceActivationMessage"},
	"/rest/v2/provisioning/MdlActivate":                    {"front_end back_end", v2, "registrationIdentifier signature", registered},
	"/rest/v2/provisioning/getServerTime":                  {"front_end", v2, "", "serverTime"},
	"/rest/activation/DSAPPSRPGenerateEphemeralKey":        {"front_end", v1, "registrationID clientEphemeralPublicKey", "serverEphemeralPublicKey salt"},
	"/rest/activation/DSAPPSRPGenerateActivationData":      {"front_end", v1, "registrationID clientEvidenceMessage", sealedData},
	"/rest/activation/MdlAddDevice":                        {"front_end", v1, "registrationID deviceCode", "instanceActivationMessage"},
	"/rest/activation/MdlActivate":                         {"front_end", v1, "registrationID signature", ""},

	"/rest/v2/authentication/authUser":                        {"front_end", v2, "userID domain? password", authenticates},
	"/rest/v2/authentication/push/getPreparedSecureChallenge": {"front_end", v2, "serialNumber challengeKey", "requestMessage"},
	"/rest/v2/authentication/push/authUser":                   {"front_end", v2, "userID domain? challengeKey signature", authenticates},
	"/rest/v2/authentication/push/cancelAuthUser":             {"front_end", v2, "serialNumber challengeKey", ""},
	"/rest/v2/authentication/scan/getPreparedSecureChallenge": {"front_end", v2, "serialNumber challengeKey", "requestMessage"},
	"/rest/v2/authentication/scan/authUser":                   {"front_end", v2, "userID domain? challengeKey signature", authenticates},
	"/rest/v2/authentication/scan/cancelAuthUser":             {"front_end", v2, "serialNumber challengeKey", ""},
	"/rest/auth/online":                                       {"front_end", v1, "userID domain? otp", ""},
	"/rest/push/retrieveLogin":                                {"front_end", v1, "digipassInstanceID challengeKey", "encryptedLoginDetails"},
	"/rest/push/signLogin":                                    {"front_end", v1, "userID domain? challengeKey signature", ""},
	"/rest/push/cancelLogin":                                  {"front_end", v1, "digipassInstanceID encryptedChallengeKey", ""},

	"/rest/v2/signature/push/getPreparedSignatureRequest": {"front_end", v2, "requestKey serialNumber", "requestMessage"},
	"/rest/v2/signature/push/authSignature":               {"front_end", v2, "userID domain? requestKey signature", authenticates},
	"/rest/v2/signature/push/cancelAuthSignatureRequest":  {"front_end", v2, "requestKey serialNumber", ""},
	"/rest/v2/signature/scan/getPreparedSignatureRequest": {"front_end", v2, "requestKey serialNumber", "requestMessage"},
	"/rest/v2/signature/scan/authSignature":               {"front_end", v2, "userID domain? requestKey signature", authenticates},
	"/rest/v2/signature/scan/cancelAuthSignatureRequest":  {"front_end", v2, "requestKey serialNumber", ""},

	"/rest/v2/notification/push/updateNotificationID": {"front_end", v2, "userID domain digipassInstanceID encryptedNotificationID", ""},
	// Version 1 with the answers of version 2.
	"/rest/notification/updateNotificationID": {"front_end", v2, "userID domain digipassInstanceID encryptedNotificationID", ""},
}

// The services are the documented ones, each once, with the documented members.
func TestServicesAreAsDocumented(t *testing.T) {
	t.Parallel()
	got := make(map[string]documented)
	for _, s := range table() {
		if _, twice := got[s.path]; twice {
			t.Errorf("%s is in the table twice", s.path)
		}
		request, result := make([]string, 0, len(s.members)), make([]string, 0, len(s.results))
		for _, m := range s.members {
			request = append(request, mark(m.name, !m.required))
		}
		for _, m := range s.results {
			result = append(result, mark(m.name, m.optional))
		}
		got[s.path] = documented{strings.Trim(fmt.Sprint(s.classes), "[]"), s.version, sorted(request), sorted(result)}
	}
	for path, want := range services {
		want.request, want.result = sorted(strings.Fields(want.request)), sorted(strings.Fields(want.result))
		if got[path] != want {
			t.Errorf("%s is\n%+v, want\n%+v", path, got[path], want)
		}
	}
	if len(got) != len(services) {
		t.Errorf("%d services, %d are documented", len(got), len(services))
	}
}

func mark(name string, optional bool) string {
	if optional {
		return name + "?"
	}
	return name
}

func sorted(names []string) string {
	slices.Sort(names)
	return strings.Join(names, " ")
}

// What every row of the table has to have.
func TestTable(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	reached := make(map[gateway.Operation]bool)
	for _, s := range table() {
		if names[s.name()] {
			t.Errorf("%s: name %q is not unique", s.path, s.name())
		}
		names[s.name()] = true
		reached[s.operation] = true
		if s.version != versionOf(s.path) && s.path != "/rest/notification/updateNotificationID" {
			t.Errorf("%s has version %s", s.path, s.version)
		}
		members := make(map[string]bool)
		for _, m := range s.members {
			if m.name == "" || members[m.name] {
				t.Errorf("%s: member %q is missing or not unique", s.path, m.name)
			}
			members[m.name] = true
			if m.rule.Max < max(m.rule.Min, 1) || m.rule.Max > maxMember || len(m.name) > maxName-2 || m.rule.Characters.Pattern == "" {
				t.Errorf("%s: limits or format of %s", s.path, m.name)
			}
		}
		limit := calls
		switch s.operation {
		case gateway.OpGenerateEphemeralKey:
			limit = exchanges
		case gateway.OpGenerateActivationData:
			limit = proofs
		case gateway.OpRegisterActivation, gateway.OpRegisterOffline:
			limit = registrations
		case gateway.OpServerTime:
			// The one service that reaches no authentication server.
			limit = unasked
		}
		if s.quota != limit {
			t.Errorf("%s is limited as %d, want %d", s.path, s.quota, limit)
		}
		if bodies[s.path] == "" && !s.bodyOptional {
			t.Errorf("%s: the tests have no body for it", s.path)
		}
	}
	// Every operation of the gateway has a service.
	if want := reflect.TypeFor[Operations]().NumMethod(); len(reached) != want {
		t.Errorf("%d operations have a service, want %d", len(reached), want)
	}
}

// The limits of the members that are about pending requests, notifications and
// standard licences, at their edges.
func TestLimitsOfMembers(t *testing.T) {
	t.Parallel()
	digits := func(n int) string { return strings.Repeat("7", n) }
	letters := func(n int) string { return strings.Repeat("Az", n)[:n] }
	limits := map[string]struct {
		max  int
		fill func(int) string
		bad  []string
		min  int
	}{
		"plain key":  {64, letters, []string{"12 34", "12-34", "12é4", "１"}, 1},
		"any key":    {1024, func(n int) string { return strings.Repeat("0F", n)[:n] }, []string{"12 34", "12-34", "12é4", "１", letters(66), digits(65)}, 1},
		"serial":     {22, letters, []string{"VDS_1", "VDS 1", "VDSé", "VDS1000000-1;"}, 1},
		"signature":  {64, letters, []string{"12 34", "12-34", "１"}, 1},
		"user":       {255, func(n int) string { return strings.Repeat("ü", n) }, []string{"a\\u0000", "a\\n", "\\uffff"}, 1},
		"registrant": {255, letters, []string{"a\\u0000", "a\\n", "\\uffff", "a;b", strings.Repeat("ü", 128)}, 1},
		"otp":        {255, func(n int) string { return strings.Repeat("ü", n) }, []string{"a\\u0000", "a\\n", "\\uffff"}, 1},
		"pnid":       {1070, func(n int) string { return strings.Repeat("0F", n)[:n] }, []string{"0G", "0x01", "01 ", "0", "012"}, 2},
		"response":   {64, digits, []string{"12 34", "12-34", "１"}, 1},
		"derivation": {27, func(n int) string { return strings.Repeat("0f", n)[:n] }, []string{"0G", "12 34"}, 1},
		"evidence":   {1024, func(n int) string { return strings.Repeat("0f", n)[:n] }, []string{"0G", "12 34"}, 1},
	}
	where := map[string]map[string]string{}
	for path, d := range services {
		kinds := map[string]string{}
		for name := range strings.FieldsSeq(strings.ReplaceAll(d.request, "?", "")) {
			switch name {
			case "userID", "domain":
				kinds[name] = "user"
				if strings.HasSuffix(path, "Register") {
					kinds[name] = "registrant"
				}
			case "serialNumber", "digipassInstanceID":
				kinds[name] = "serial"
			case "challengeKey", "requestKey", "encryptedChallengeKey":
				kinds[name] = "plain key"
				if strings.Contains(path, "ancel") {
					kinds[name] = "any key"
				}
			case "signature":
				kinds[name] = "signature"
			case "otp":
				kinds[name] = "otp"
			case "password":
				if strings.HasSuffix(path, "/authUser") {
					kinds[name] = "otp"
				}
			case "encryptedNotificationID":
				kinds[name] = "pnid"
			case "response":
				kinds[name] = "response"
			case "derivationCode":
				kinds[name] = "derivation"
			case "clientEvidenceMessage":
				kinds[name] = "evidence"
			}
		}
		where[path] = kinds
	}
	for _, s := range table() {
		for name, kind := range where[s.path] {
			l := limits[kind]
			try := func(value string) error {
				members, err := decodeObject([]byte(bodies[s.path]))
				if err != nil {
					t.Fatal(err)
				}
				object, err := decodeObject([]byte(`{"value":"` + value + `"}`))
				if err != nil {
					t.Fatal(err)
				}
				members[name] = object["value"]
				_, err = s.prepare(members)
				return err
			}
			for _, n := range []int{l.min, l.max} {
				if err := try(l.fill(n)); err != nil {
					t.Errorf("%s: %s of %d characters: %v", s.path, name, n, err)
				}
			}
			if err := try(l.fill(l.max + 1)); err == nil {
				t.Errorf("%s: %s of %d characters is accepted", s.path, name, l.max+1)
			}
			optionalDomain := name == "domain" && strings.Contains(services[s.path].request, "domain?")
			if err := try(""); (err == nil) != optionalDomain {
				t.Errorf("%s: %s that is empty: %v", s.path, name, err)
			}
			for _, bad := range l.bad {
				if err := try(bad); err == nil {
					t.Errorf("%s: %s %q is accepted", s.path, name, bad)
				}
			}
		}
	}
}

// Every member reaches its place in the operation's request, and only there.
func TestRequestsReachOperations(t *testing.T) {
	t.Parallel()
	want := map[gateway.Operation]any{
		gateway.OpRegisterActivation:     gateway.RegisterActivationRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: "a static password", LicenseType: "mdl", SerialNumber: "VDS1000003"},
		gateway.OpRegisterOffline:        gateway.RegisterOfflineRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: "a static password"},
		gateway.OpGenerateEphemeralKey:   gateway.GenerateEphemeralKeyRequest{RegistrationIdentifier: "e3wfISG9", ClientPublic: "0BB2ea65"},
		gateway.OpGenerateActivationData: gateway.GenerateActivationDataRequest{RegistrationIdentifier: "e3wfISG9", ClientEvidence: evidence},
		gateway.OpAddDevice:              gateway.AddDeviceRequest{RegistrationIdentifier: "e3wfISG9", DeviceCode: "12345678901234567890123456", Description: "Jane's\nphone"},
		gateway.OpActivate:               gateway.ActivateRequest{RegistrationIdentifier: "e3wfISG9", Signature: "1234567890123456"},
		gateway.OpServerTime:             gateway.ServerTimeRequest{},
		gateway.OpActivateStandard:       gateway.ActivateStandardRequest{RegistrationIdentifier: "e3wfISG9", Response: "123456", DerivationCode: "123456789012345"},
		gateway.OpAuthenticate:           gateway.AuthenticateRequest{UserID: "jane.doe", Domain: "mydomain.com", Password: "123456"},
		gateway.OpRetrieveLogin:          login{gateway.RetrieveRequest{SerialNumber: "VDS1000000-1", Key: "0123456789"}},
		gateway.OpCompleteLogin:          login{gateway.CompleteRequest{UserID: "jane.doe", Domain: "mydomain.com", Key: "0123456789", Signature: "0234567890123456"}},
		gateway.OpCancelLogin:            login{gateway.CancelRequest{SerialNumber: "VDS1000000-1", Key: wrappedKey}},
		gateway.OpRetrieveSignature:      signing{gateway.RetrieveRequest{SerialNumber: "VDS1000000-1", Key: "0123456789"}},
		gateway.OpCompleteSignature:      signing{gateway.CompleteRequest{UserID: "jane.doe", Domain: "mydomain.com", Key: "0123456789", Signature: "0234567890123456"}},
		gateway.OpCancelSignature:        signing{gateway.CancelRequest{SerialNumber: "VDS1000000-1", Key: wrappedKey}},
		gateway.OpUpdateNotificationID:   gateway.UpdateNotificationIDRequest{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000000-1", NotificationID: "0901C3E40F42B811"},
	}
	for _, s := range table() {
		t.Run(s.path, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, nil, nil)
			if got := g.call(s.path, keyFor(s), bodies[s.path]); got.status != http.StatusOK {
				t.Fatalf("answer is %+v", got)
			}
			expected := want[s.operation]
			if d, ok := expected.(gateway.AddDeviceRequest); ok && s.version == v1 {
				d.Description = ""
				expected = d
			}
			if g.ops.request != expected {
				t.Errorf("request is %+v, want %+v", g.ops.request, expected)
			}
			application := map[string]string{frontKey: "mobile-app", backKey: "bank-site"}[keyFor(s)]
			if g.ops.caller.Application != application || !slices.Equal(g.users, []string{application}) {
				t.Errorf("caller is %q, authenticated %q, want %q", g.ops.caller.Application, g.users, application)
			}
			if want := (Observation{Service: s.name(), Application: application, Outcome: Success, HTTPStatus: 200, Status: "STAT_SUCCESS"}); g.last() != want {
				t.Errorf("observed %+v, want %+v", g.last(), want)
			}
		})
	}
}

// failures are the rows of the status table that an operation can cause.
var failures = []struct {
	name       string
	err        error
	status     int
	statusEnum string
	statusCode int
	returnCode int
	retryAfter string
	outcome    Outcome
}{
	{"refused", &gateway.Refusal{Codes: failure("STAT_INVCREDENTIALS", 1000)}, 200, "STAT_INVCREDENTIALS", 1000, -1, "", Refused},
	{"relayed", &gateway.Refusal{Codes: gateway.ResultCodes{ReturnCodeEnum: "RET_ODD", StatusCodeEnum: "STAT_ODD", ReturnCode: -77, StatusCode: 4711}}, 200, "STAT_ODD", 4711, -77, "", Refused},
	{"invalid", &gateway.InvalidError{Member: "none", Problem: "is odd"}, 400, "STAT_INVPARAM", -2, -1, "", Invalid},
	{"unavailable", &gateway.Failure{Kind: gateway.Unavailable, RetryAfter: 4100 * time.Millisecond, Err: errCause}, 503, "STAT_COMMS", -10, -1, "5", Unavailable},
	{"unavailable at once", &gateway.Failure{Kind: gateway.Unavailable, Err: errCause}, 503, "STAT_COMMS", -10, -1, "1", Unavailable},
	{"bad answer", &gateway.Failure{Kind: gateway.BadAnswer, Err: errCause}, 502, "STAT_COMMS", -10, -1, "", BadAnswer},
	{"timeout", &gateway.Failure{Kind: gateway.Timeout, Err: errCause}, 504, "STAT_COMMS", -10, -1, "", Timeout},
	{"busy", &gateway.Failure{Kind: gateway.Busy, RetryAfter: time.Second, Err: errCause}, 429, "STAT_ERROR", -1, -1, "1", Limited},
	{"internal", &gateway.Failure{Kind: gateway.Internal, Err: errCause}, 500, "STAT_ERROR", -1, -1, "", Internal},
	{"anything else", errCause, 500, "STAT_ERROR", -1, -1, "", Internal},
}

// Every failure of every operation has its status, codes and shape.
func TestFailures(t *testing.T) {
	t.Parallel()
	for _, s := range table() {
		for _, f := range failures {
			t.Run(s.name()+" "+f.name, func(t *testing.T) {
				t.Parallel()
				g := newRig(t, nil, nil)
				g.ops.err = f.err
				got := g.call(s.path, keyFor(s), bodies[s.path])
				wantFailure(t, got, s.version, f.status, f.statusEnum, f.statusCode, f.returnCode)
				if retry := got.header.Get("Retry-After"); retry != f.retryAfter {
					t.Errorf("Retry-After is %q, want %q", retry, f.retryAfter)
				}
				if strings.Contains(got.body, errCause.Error()) {
					t.Errorf("the cause is told: %s", got.body)
				}
				if o := g.last(); o.Outcome != f.outcome || o.HTTPStatus != f.status || o.Status != f.statusEnum {
					t.Errorf("observed %+v", o)
				}
			})
		}
	}
}

// wantFailure checks everything that every failure has in common.
func wantFailure(t *testing.T, got reply, v version, status int, statusEnum string, statusCode, returnCode int) {
	t.Helper()
	if got.status != status {
		t.Errorf("status is %d, want %d", got.status, status)
	}
	wantHeaders(t, got)
	var body map[string]any
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		t.Fatalf("body %q: %v", got.body, err)
	}
	delete(body, "errorDescription")
	want := map[string]any{"errorCode": float64(returnCode), "errorMessage": statusEnum}
	if v == v2 {
		returnEnum := "RET_FAILURE"
		if statusEnum == "STAT_ODD" {
			returnEnum = "RET_ODD"
		}
		want = map[string]any{"resultCodes": map[string]any{
			"returnCodeEnum": returnEnum, "statusCodeEnum": statusEnum, "returnCode": float64(returnCode), "statusCode": float64(statusCode),
		}}
	}
	if !reflect.DeepEqual(body, want) {
		t.Errorf("body is %v, want %v", body, want)
	}
}

func wantHeaders(t *testing.T, got reply) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		"Content-Length": fmt.Sprint(len(got.body)),
	} {
		if values := got.header.Values(name); len(values) != 1 || values[0] != want {
			t.Errorf("%s is %q, want %q", name, values, want)
		}
	}
}

// The rows of the status table that need no operation, for every service; none
// of them reaches the operation.
func TestRejections(t *testing.T) {
	t.Parallel()
	type edit = func(*http.Request)
	header := func(name, value string) edit { return func(r *http.Request) { r.Header.Set(name, value) } }
	method := func(m string) edit { return func(r *http.Request) { r.Method = m } }
	chunked := func(r *http.Request) { r.ContentLength, r.Body = -1, io.NopCloser(io.MultiReader(r.Body)) }
	large := `{"x":"` + strings.Repeat("x", DefaultMaxBodySize) + `"}`
	for _, s := range table() {
		good := bodies[s.path]
		wrongClass := frontKey
		if keyFor(s) == frontKey {
			wrongClass = backKey
		}
		for _, c := range []struct {
			name       string
			key, body  string
			edit       edit
			status     int
			statusEnum string
			statusCode int
			outcome    Outcome
			only       func(service) bool
		}{
			{"no key", "", good, nil, 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"wrong key", "EXAMPLE-WRONG-KEY", good, nil, 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"password", "", good, func(r *http.Request) { r.SetBasicAuth(keyFor(s), "x") }, 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"bearer", "", good, header("Authorization", "Bearer "+keyFor(s)), 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"no base64", "", good, header("Authorization", "Basic "+keyFor(s)), 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"two keys", keyFor(s), good, func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"wrong class", wrongClass, good, nil, 403, "STAT_PERMISSION", 1005, Forbidden, func(s service) bool { return len(s.classes) == 1 }},
			{"wrong source", farKey, good, nil, 403, "STAT_PERMISSION", 1005, Forbidden, func(s service) bool { return s.classes[0] == apikey.BackEnd }},
			{"GET", keyFor(s), "", method(http.MethodGet), 405, "STAT_INVPARAM", -2, MethodNotAllowed, nil},
			{"PUT", keyFor(s), good, method(http.MethodPut), 405, "STAT_INVPARAM", -2, MethodNotAllowed, nil},
			{"OPTIONS", keyFor(s), "", method(http.MethodOptions), 405, "STAT_INVPARAM", -2, MethodNotAllowed, nil},
			{"too large", keyFor(s), large, nil, 413, "STAT_INVPARAM", -2, TooLarge, nil},
			{"too large in chunks", keyFor(s), large, chunked, 413, "STAT_INVPARAM", -2, TooLarge, nil},
			{"no media type", keyFor(s), good, header("Content-Type", ""), 415, "STAT_INVPARAM", -2, UnsupportedMedia, func(s service) bool { return !s.bodyOptional }},
			{"text", keyFor(s), good + " {}", header("Content-Type", "text/plain"), 415, "STAT_INVPARAM", -2, UnsupportedMedia, nil},
			{"other charset", keyFor(s), good + " {}", header("Content-Type", "application/json; charset=iso-8859-1"), 415, "STAT_INVPARAM", -2, UnsupportedMedia, nil},
			{"gzip", keyFor(s), good + " {}", header("Content-Encoding", "gzip"), 415, "STAT_INVPARAM", -2, UnsupportedMedia, nil},
			{"broken media type", keyFor(s), good + " {}", header("Content-Type", "application/json; charset"), 415, "STAT_INVPARAM", -2, UnsupportedMedia, nil},
			{"empty", keyFor(s), "", nil, 400, "STAT_INVPARAM", -2, Invalid, func(s service) bool { return !s.bodyOptional }},
			{"array", keyFor(s), "[]", nil, 400, "STAT_INVPARAM", -2, Invalid, nil},
			{"trailing", keyFor(s), "{} {}", nil, 400, "STAT_INVPARAM", -2, Invalid, nil},
			{"empty object", keyFor(s), "{}", nil, 400, "STAT_INVPARAM", -2, Invalid, func(s service) bool { return len(s.members) > 0 }},
		} {
			if c.only != nil && !c.only(s) {
				continue
			}
			t.Run(s.name()+" "+c.name, func(t *testing.T) {
				t.Parallel()
				g := newRig(t, nil, nil)
				edits := []func(*http.Request){}
				if c.edit != nil {
					edits = append(edits, c.edit)
				}
				got := g.call(s.path, c.key, c.body, edits...)
				wantFailure(t, got, s.version, c.status, c.statusEnum, c.statusCode, -1)
				challenge := ""
				if c.status == 401 {
					challenge = `Basic realm="DSAPP Gateway", charset="UTF-8"`
				}
				if got := got.header.Get("WWW-Authenticate"); got != challenge {
					t.Errorf("WWW-Authenticate is %q, want %q", got, challenge)
				}
				if allow := got.header.Get("Allow"); (allow == "POST") != (c.status == 405) {
					t.Errorf("Allow is %q", allow)
				}
				if g.ops.calls != 0 {
					t.Error("the operation was called")
				}
				if o := g.last(); o.Service != s.name() || o.Outcome != c.outcome || o.HTTPStatus != c.status || (o.Application == "") != (c.status == 401) {
					t.Errorf("observed %+v", o)
				}
			})
		}
	}
}

// What is only another form of a good request is one.
func TestAccepted(t *testing.T) {
	t.Parallel()
	const path = "/rest/v2/provisioning/MdlActivate"
	body := bodies[path]
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	none := func(*http.Request) {}
	for name, c := range map[string]struct {
		path, body string
		edit       func(*http.Request)
	}{
		"charset":        {path, body, set("Content-Type", "application/json; charset=UTF-8")},
		"quoted charset": {path, body, set("Content-Type", `Application/JSON;charset="utf-8"`)},
		"identity":       {path, body, set("Content-Encoding", "identity")},
		"scheme in lower case": {path, body, func(r *http.Request) {
			r.Header.Set("Authorization", "basic"+strings.TrimPrefix(r.Header.Get("Authorization"), "Basic"))
		}},
		"known names that are there as well":  {"/rest/v2/authentication/authUser", `{"userID":"jane.doe","domain":"","Domain":"x","password":"1"}`, none},
		"names that are not alike":            {"/rest/v2/authentication/authUser", `{"userID":"jane.doe","demain2":"x","password":"1"}`, none},
		"byte order mark":                     {path, "\ufeff" + body, none},
		"charset without a hyphen":            {path, body, set("Content-Type", "application/json;charset=utf8")},
		"subset of UTF-8":                     {path, body, set("Content-Type", "application/json;charset=US-ASCII")},
		"unknown members":                     {path, `{"x":[{"y":null}],"registrationIdentifier":"e3wfISG9","Signature":1,"signature":"1"}`, none},
		"serial number that v1 does not have": {"/rest/push/signLogin", `{"userID":"jane.doe","challengeKey":"1","signature":"1","serialNumber":["?"]}`, none},
		"no domain":                           {"/rest/v2/signature/scan/authSignature", `{"userID":"jane.doe","requestKey":"1","signature":"1"}`, none},
		"empty domain":                        {"/rest/v2/authentication/authUser", `{"userID":"jane.doe","domain":"","password":"1"}`, none},
		"plain key on cancel":                 {"/rest/v2/authentication/push/cancelAuthUser", `{"serialNumber":"VDS1000000-1","challengeKey":"0123456789"}`, none},
		"evidence to be relayed":              {"/rest/activation/DSAPPSRPGenerateActivationData", `{"registrationID":"e3wfISG9","clientEvidenceMessage":"0"}`, none},
		"response only":                       {"/rest/v2/provisioning/DSAPPSRPActivate", `{"registrationIdentifier":"e3wfISG9","response":"1"}`, none},
		"derivation code only":                {"/rest/v2/provisioning/DSAPPSRPActivate", `{"registrationIdentifier":"e3wfISG9","derivationCode":"1f"}`, none},
		"null is missing":                     {"/rest/v2/provisioning/MdlAddDevice", `{"registrationIdentifier":"e3wfISG9","deviceCode":"1","description":null}`, none},
		"empty description":                   {"/rest/v2/provisioning/MdlAddDevice", `{"registrationIdentifier":"e3wfISG9","deviceCode":"1","description":""}`, none},
		"escaped name":                        {path, `{"registrationIdentifier":"e3wfISG9","signatur\u0065":"1"}`, none},
		"white space":                         {path, " \r\n\t" + body + "\n", none},
		"time, no body":                       {"/rest/v2/provisioning/getServerTime", "", func(r *http.Request) { r.Header.Del("Content-Type") }},
		"time, empty form":                    {"/rest/v2/provisioning/getServerTime", "", set("Content-Type", "application/x-www-form-urlencoded")},
		"time, object":                        {"/rest/v2/provisioning/getServerTime", "{}", none},
		"time, object of no type":             {"/rest/v2/provisioning/getServerTime", `{"x":1}`, func(r *http.Request) { r.Header.Del("Content-Type") }},
		"query":                               {path + "?x=y", body, none},
		"escaped path":                        {strings.Replace(path, "Mdl", "%4Ddl", 1), body, none},
		"as large as it may be":               {path, body + strings.Repeat(" ", DefaultMaxBodySize-len(body)), none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, nil, nil)
			if got := g.call(c.path, frontKey, c.body, c.edit); got.status != http.StatusOK || g.ops.calls != 1 {
				t.Errorf("answer is %+v", got)
			}
		})
	}
}

// What is wrong with a body is told by the name of the member, never by a value
// or by a name that is not a member's.
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
		g := newRig(t, nil, nil)
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

// What the gateway's own rules say names the member, if the service has it.
func TestInvalidMemberIsNamed(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey": "clientEphemeralPublicKey is odd",
		"/rest/activation/DSAPPSRPGenerateEphemeralKey":      "clientEphemeralPublicKey is odd",
		"/rest/v2/provisioning/getServerTime":                "request is odd",
	} {
		g := newRig(t, nil, nil)
		g.ops.err = &gateway.InvalidError{Member: gateway.MemberClientPublic, Problem: "is odd"}
		if got := g.call(path, frontKey, bodies[path]); !strings.Contains(got.body, `"errorDescription":"`+want+`"`) {
			t.Errorf("%s: answer is %s, want %q", path, got.body, want)
		}
	}
}

// Of several things wrong with a request the first in this order is answered.
func TestOrderOfChecks(t *testing.T) {
	t.Parallel()
	const path = "/rest/v2/provisioning/MdlRegister"
	large := strings.Repeat("x", DefaultMaxBodySize+1)
	faults := []struct {
		status int
		mend   func(r *http.Request)
	}{
		{401, func(r *http.Request) { r.SetBasicAuth(farKey, "") }},
		{403, func(r *http.Request) { r.SetBasicAuth(frontKey, "") }},
		{403, func(r *http.Request) { r.SetBasicAuth(backKey, "") }},
		{405, func(r *http.Request) { r.Method = http.MethodPost }},
		{415, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }},
		{413, func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("{")), 1 }},
		{400, func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("{}")), 2 }},
		{400, func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(bodies[path])), int64(len(bodies[path]))
		}},
		{200, nil},
	}
	for n, f := range faults {
		g := newRig(t, nil, nil)
		r := g.request(path, "", large)
		r.Method = http.MethodPut
		r.Header.Set("Content-Type", "text/plain")
		for _, mended := range faults[:n] {
			mended.mend(r)
		}
		if got := g.do(r); got.status != f.status {
			t.Errorf("after mending %d faults: status is %d, want %d", n, got.status, f.status)
		}
	}
}

// A body that is declared too large is refused unread.
func TestTooLargeIsNotRead(t *testing.T) {
	t.Parallel()
	h, err := New(Config{Operations: &fakeOperations{}, Keys: testKeys(t), MaxBodySize: 100})
	if err != nil {
		t.Fatal(err)
	}
	body := &countingReader{}
	r := httptest.NewRequest(http.MethodPost, "/rest/v2/provisioning/MdlActivate", body)
	r.SetBasicAuth(frontKey, "")
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = 101
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge || body.read != 0 {
		t.Errorf("status is %d after reading %d bytes", w.Code, body.read)
	}
}

type countingReader struct{ read int }

func (c *countingReader) Read(p []byte) (int, error) {
	c.read += len(p)
	return len(p), nil
}

// A body that ends early or whose reading fails is the client's fault.
func TestBodyThatCannotBeRead(t *testing.T) {
	t.Parallel()
	h, err := New(Config{Operations: &fakeOperations{}, Keys: testKeys(t)})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/rest/v2/provisioning/MdlActivate", io.MultiReader(strings.NewReader("{"), failingReader{}))
	r.SetBasicAuth(frontKey, "")
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "body could not be read") {
		t.Errorf("answer is %d %s", w.Code, w.Body)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Answers as they are on the wire, headers included.
func TestGolden(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path, key, body string
		err                   error
		standard, bare        bool
	}{
		{name: "DSAPPSRPRegister", path: "/rest/v2/provisioning/DSAPPSRPRegister", key: backKey},
		{name: "MdlRegister", path: "/rest/v2/provisioning/MdlRegister", key: backKey},
		{name: "DSAPPSRPGenerateEphemeralKey", path: "/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey"},
		{name: "DSAPPSRPGenerateActivationData", path: "/rest/v2/provisioning/DSAPPSRPGenerateActivationData"},
		{name: "DSAPPSRPGenerateActivationData-standard", path: "/rest/v2/provisioning/DSAPPSRPGenerateActivationData", standard: true},
		{name: "MdlAddDevice", path: "/rest/v2/provisioning/MdlAddDevice"},
		{name: "MdlActivate", path: "/rest/v2/provisioning/MdlActivate"},
		{name: "getServerTime", path: "/rest/v2/provisioning/getServerTime"},
		{name: "v1-DSAPPSRPGenerateEphemeralKey", path: "/rest/activation/DSAPPSRPGenerateEphemeralKey"},
		{name: "v1-DSAPPSRPGenerateActivationData", path: "/rest/activation/DSAPPSRPGenerateActivationData"},
		{name: "v1-DSAPPSRPGenerateActivationData-standard", path: "/rest/activation/DSAPPSRPGenerateActivationData", standard: true},
		{name: "v1-MdlAddDevice", path: "/rest/activation/MdlAddDevice"},
		{name: "v1-MdlActivate", path: "/rest/activation/MdlActivate"},
		{name: "DSAPPSRPActivate", path: "/rest/v2/provisioning/DSAPPSRPActivate"},
		{name: "authUser", path: "/rest/v2/authentication/authUser"},
		{name: "DSAPPSRPRegister-bare", path: "/rest/v2/provisioning/DSAPPSRPRegister", key: backKey, bare: true},
		{name: "authUser-bare", path: "/rest/v2/authentication/authUser", bare: true},
		{name: "push-getPreparedSecureChallenge", path: "/rest/v2/authentication/push/getPreparedSecureChallenge"},
		{name: "push-authUser", path: "/rest/v2/authentication/push/authUser"},
		{name: "push-cancelAuthUser", path: "/rest/v2/authentication/push/cancelAuthUser"},
		{name: "scan-getPreparedSecureChallenge", path: "/rest/v2/authentication/scan/getPreparedSecureChallenge"},
		{name: "scan-authUser", path: "/rest/v2/authentication/scan/authUser"},
		{name: "scan-cancelAuthUser", path: "/rest/v2/authentication/scan/cancelAuthUser"},
		{name: "push-getPreparedSignatureRequest", path: "/rest/v2/signature/push/getPreparedSignatureRequest"},
		{name: "push-authSignature", path: "/rest/v2/signature/push/authSignature"},
		{name: "push-authSignature-bare", path: "/rest/v2/signature/push/authSignature", bare: true},
		{name: "push-cancelAuthSignatureRequest", path: "/rest/v2/signature/push/cancelAuthSignatureRequest"},
		{name: "scan-getPreparedSignatureRequest", path: "/rest/v2/signature/scan/getPreparedSignatureRequest"},
		{name: "scan-authSignature", path: "/rest/v2/signature/scan/authSignature"},
		{name: "scan-cancelAuthSignatureRequest", path: "/rest/v2/signature/scan/cancelAuthSignatureRequest"},
		{name: "updateNotificationID", path: "/rest/v2/notification/push/updateNotificationID"},
		{name: "v1-online", path: "/rest/auth/online"},
		{name: "v1-retrieveLogin", path: "/rest/push/retrieveLogin"},
		{name: "v1-signLogin", path: "/rest/push/signLogin"},
		{name: "v1-cancelLogin", path: "/rest/push/cancelLogin"},
		{name: "v1-updateNotificationID", path: "/rest/notification/updateNotificationID"},
		{name: "v1-updateNotificationID-refused", path: "/rest/notification/updateNotificationID", err: failures[0].err},
		{name: "v1-updateNotificationID-invalid", path: "/rest/notification/updateNotificationID", body: `{"userID":"jane.doe"}`},
		{name: "v1-updateNotificationID-unauthenticated", path: "/rest/notification/updateNotificationID", key: "EXAMPLE-WRONG-KEY"},
		{name: "not-found-request", path: "/rest/v2/authentication/push/getPreparedSecureChallenge", err: &gateway.Refusal{Codes: failure("STAT_NOT_FOUND", -13)}},
		{name: "v1-not-found-request", path: "/rest/push/retrieveLogin", err: &gateway.Refusal{Codes: failure("STAT_NOT_FOUND", -13)}},
		{name: "nosupport", path: "/rest/v2/signature/scan/cancelAuthSignatureRequest", err: &gateway.Refusal{Codes: failure("STAT_NOSUPPORT", -1)}},
		{name: "v1-nosupport", path: "/rest/push/cancelLogin", err: &gateway.Refusal{Codes: failure("STAT_NOSUPPORT", -1)}},
		{name: "refused", path: "/rest/v2/provisioning/DSAPPSRPGenerateActivationData", err: failures[0].err},
		{name: "v1-refused", path: "/rest/activation/DSAPPSRPGenerateActivationData", err: failures[0].err},
		{name: "unavailable", path: "/rest/v2/provisioning/MdlAddDevice", err: failures[3].err},
		{name: "v1-unavailable", path: "/rest/activation/MdlAddDevice", err: failures[3].err},
		{name: "internal", path: "/rest/v2/provisioning/MdlAddDevice", err: errCause},
		{name: "unauthenticated", path: "/rest/v2/provisioning/MdlActivate", key: "EXAMPLE-WRONG-KEY"},
		{name: "v1-unauthenticated", path: "/rest/activation/MdlActivate", key: "EXAMPLE-WRONG-KEY"},
		{name: "forbidden", path: "/rest/v2/provisioning/MdlRegister"},
		{name: "invalid", path: "/rest/v2/provisioning/MdlActivate", body: "{}"},
		{name: "v1-invalid", path: "/rest/activation/MdlActivate", body: "{}"},
		{name: "not-found", path: "/rest/v2/provisioning/Unknown"},
		{name: "v1-not-found", path: "/rest/activation/Unknown"},
		{name: "not-found-elsewhere", path: "/unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, nil, nil)
			g.ops.err, g.ops.standard, g.ops.bare = c.err, c.standard, c.bare
			key, body := c.key, c.body
			if key == "" {
				key = frontKey
			}
			if body == "" {
				body = bodies[c.path]
			}
			got := strings.ReplaceAll(g.raw(post(c.path, key, body)), "\r\n", "\n") + "\n"
			file := filepath.Join("testdata", "answers", c.name+".http")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("answer is\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// A service without data answers with the result codes and nothing else.
func TestAnswersWithoutData(t *testing.T) {
	t.Parallel()
	want := map[version]string{
		v1: `{"errorCode":0,"errorMessage":"STAT_SUCCESS"}`,
		v2: `{"resultCodes":{"returnCodeEnum":"RET_SUCCESS","statusCodeEnum":"STAT_SUCCESS","returnCode":0,"statusCode":0}}`,
	}
	count := make(map[version]int)
	for path, d := range services {
		if d.result != "" {
			continue
		}
		count[d.shape]++
		g := newRig(t, nil, nil)
		if got := g.call(path, frontKey, bodies[path]); got.status != http.StatusOK || got.body != want[d.shape] {
			t.Errorf("%s: answer is %d %s", path, got.status, got.body)
		}
	}
	if count[v1] != 4 || count[v2] != 6 {
		t.Errorf("services without data: %v", count)
	}
}

// Nobody can tell by the answer why a key or a proof was refused.
func TestRefusalsAreIdentical(t *testing.T) {
	t.Parallel()
	for _, s := range table() {
		g := newRig(t, nil, nil)
		missing := strings.Replace(post(s.path, "", bodies[s.path]), "Authorization: Basic Og==\r\n", "", 1)
		wrong := g.raw(post(s.path, "EXAMPLE-WRONG-KEY", bodies[s.path]))
		if got := g.raw(missing); got != wrong || !strings.HasPrefix(got, "HTTP/1.1 401 ") {
			t.Errorf("%s: without a key %q, with a wrong one %q", s.path, got, wrong)
		}
		if got := g.raw(post(s.path, "", bodies[s.path])); got != wrong {
			t.Errorf("%s: with an empty key %q, with a wrong one %q", s.path, got, wrong)
		}
		g.ops.err = &gateway.Refusal{Codes: failure("STAT_INVCREDENTIALS", 1000)}
		first := g.raw(post(s.path, keyFor(s), bodies[s.path]))
		g.ops.err = fmt.Errorf("wrapped: %w", g.ops.err)
		if got := g.raw(post(s.path, keyFor(s), bodies[s.path])); got != first || !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("%s: refusals are %q and %q", s.path, first, got)
		}
	}
}

// HEAD gets what GET gets, without the body.
func TestHead(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil, nil)
	got := g.call("/rest/v2/provisioning/getServerTime", frontKey, "", func(r *http.Request) { r.Method = http.MethodHead })
	if got.status != http.StatusMethodNotAllowed || got.body != "" || got.header.Get("Allow") != "POST" || got.header.Get("Content-Length") == "" {
		t.Errorf("answer is %+v", got)
	}
}

// A path without a service goes on as it came, but only with a valid key.
func TestNext(t *testing.T) {
	t.Parallel()
	errNext := errors.New("next")
	type passed struct {
		authorization, body string
		err                 error
	}
	seen := make(chan passed, 1)
	g := newRig(t, nil, func(h *Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			err := h.Serve(w, r, func(w http.ResponseWriter, r *http.Request) (bool, error) {
				body, _ := io.ReadAll(r.Body)
				seen <- passed{authorization: r.Header.Get("Authorization"), body: string(body)}
				w.WriteHeader(http.StatusTeapot)
				return false, errNext
			})
			if err != nil {
				p := <-seen
				p.err = err
				seen <- p
			}
		}
	})
	for _, path := range []string{
		"/", "/register", "/rest/v2/provisioning/DSAPPRegister", "/rest/v2/notification/push/sendNotification", "/rest/v2/provisioning", "/rest/v2//x/",
		"/x/rest/v2/provisioning/MdlActivate", "/rest/v2/provisioning/MdlActivate/x", "/rest/v2/./provisioning/MdlActivates",
	} {
		for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodDelete} {
			r := g.request(path, frontKey, "not JSON", func(r *http.Request) { r.Method = method })
			if got := g.do(r); got.status != http.StatusTeapot {
				t.Fatalf("%s %s: answer is %+v", method, path, got)
			}
			if got, want := <-seen, (passed{r.Header.Get("Authorization"), "not JSON", errNext}); got != want {
				t.Errorf("%s %s: next got %+v, want %+v", method, path, got, want)
			}
			if want := (Observation{Application: "mobile-app", Outcome: PassedOn}); g.last() != want {
				t.Errorf("%s %s: observed %+v, want %+v", method, path, g.last(), want)
			}
		}
		for key, status := range map[string]int{"": 401, "EXAMPLE-WRONG-KEY": 401, farKey: 403} {
			got := g.call(path, key, "not JSON")
			if got.status != status {
				t.Errorf("%s with key %q: status is %d, want %d", path, key, got.status, status)
			}
		}
	}
	if len(seen) != 0 {
		t.Error("next got a request without a valid key")
	}
}

// What next does not handle is answered, and observed, as a service that is not there.
func TestNextThatDoesNotHandle(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil, func(h *Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if err := h.Serve(w, r, func(http.ResponseWriter, *http.Request) (bool, error) { return false, nil }); err != nil {
				t.Error(err)
			}
		}
	})
	wantFailure(t, g.call("/rest/v2/provisioning/Unknown", frontKey, "x"), v2, 404, "STAT_NOT_FOUND", -13, -1)
	if want := (Observation{Application: "mobile-app", Outcome: NotFound, HTTPStatus: 404, Status: "STAT_NOT_FOUND"}); g.last() != want || len(g.seen) != 1 {
		t.Errorf("observed %+v, want %+v once", g.seen, want)
	}
}

// The shape of a 404 follows the path.
func TestWriteNotFound(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil, nil)
	for path, v := range map[string]version{
		"/rest/activation/Unknown": v1, "/rest/auth": v1, "/rest/push/": v1, "/rest/notification/x": v1,
		"/rest/": v2, "/rest": v2, "/rest/v2": v2, "/rest/v3/x": v2, "/rest/authentication/x": v2, "/rest/pushed": v2,
		"/rest/v2/": v2, "/rest/v2/provisioning/Unknown": v2, "/unknown": v2, "/": v2,
	} {
		wantFailure(t, g.call(path, frontKey, "x"), v, 404, "STAT_NOT_FOUND", -13, -1)
	}
}

// A status that is concealed from the client is reported all the same.
func TestConcealedStatusIsObserved(t *testing.T) {
	t.Parallel()
	g := newRig(t, nil, nil)
	g.ops.err = &gateway.Refusal{Codes: failure("STAT_INVCREDENTIALS", 1000), Concealed: "STAT_USER_UNKNOWN"}
	got := g.call("/rest/auth/online", frontKey, bodies["/rest/auth/online"])
	if got.status != http.StatusOK || got.body != `{"errorCode":-1,"errorMessage":"STAT_INVCREDENTIALS"}` || g.last().Status != "STAT_USER_UNKNOWN" {
		t.Errorf("answer is %+v, observed %+v", got, g.last())
	}
}

// The address of the client decides on the source range, be it an IPv4 address in
// an IPv6 one or not known at all.
func TestClientIP(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]int{"192.0.2.7": 200, "::ffff:192.0.2.7": 200, "198.51.100.1": 403, "": 403} {
		g := newRig(t, func(c *Config) {
			c.ClientIP = func(*http.Request) netip.Addr {
				a, _ := netip.ParseAddr(address)
				return a
			}
		}, nil)
		const path = "/rest/v2/provisioning/MdlRegister"
		if got := g.call(path, farKey, bodies[path]); got.status != want {
			t.Errorf("from %q: status is %d, want %d", address, got.status, want)
		}
	}
}

// Which calls count against which limit, and that a limit keeps the operation
// from being called.
func TestLimits(t *testing.T) {
	t.Parallel()
	address := netip.MustParseAddr("2001:db8:0:1:2:3:4:5")
	for _, s := range table() {
		var failed, exchanged, proved, registered, called fakeLimiter
		g := newRig(t, func(c *Config) {
			c.Limits = Limits{FailedKeys: &failed, Exchanges: &exchanged, Proofs: &proved, Registrations: &registered, Calls: &called}
			c.ClientIP = func(*http.Request) netip.Addr { return address }
			keys, err := apikey.NewSet([]apikey.Key{
				{Name: "mobile-app", Class: apikey.FrontEnd, Hash: apikey.Hash(frontKey)},
				{Name: "bank-site", Class: apikey.BackEnd, Hash: apikey.Hash(backKey), Allow: []netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}},
			})
			if err != nil {
				t.Fatal(err)
			}
			c.Keys = keys
		}, nil)
		limit := func(f *fakeLimiter, source string, counted bool) {
			t.Helper()
			f.over, f.after, f.counted = true, 1500*time.Millisecond, nil
			defer func() { f.over = false }()
			calls := g.ops.calls
			got := g.call(s.path, keyFor(s), bodies[s.path])
			if !counted {
				if got.status != http.StatusOK {
					t.Errorf("%s: answer is %+v", s.path, got)
				}
				return
			}
			wantFailure(t, got, s.version, 429, "STAT_ERROR", -1, -1)
			name := map[*fakeLimiter]Limit{
				&failed: LimitFailedKeys, &exchanged: LimitExchanges, &proved: LimitExchanges, &registered: LimitRegistrations, &called: LimitCalls,
			}[f]
			if got.header.Get("Retry-After") != "2" || g.ops.calls != calls || g.last().Outcome != Limited || g.last().Limit != name {
				t.Errorf("%s: answer is %+v, limit %q", s.path, got, g.last().Limit)
			}
			if f != &failed && !slices.Equal(f.counted, []string{source}) {
				t.Errorf("%s: counted %q, want %q", s.path, f.counted, source)
			}
		}
		limit(&exchanged, "2001:db8:0:1::/64", s.operation == gateway.OpGenerateEphemeralKey)
		limit(&proved, "2001:db8:0:1::/64", s.operation == gateway.OpGenerateActivationData)
		limit(&registered, "bank-site", s.operation == gateway.OpRegisterActivation || s.operation == gateway.OpRegisterOffline)
		limit(&called, "2001:db8:0:1::/64", s.quota == calls || s.operation == gateway.OpServerTime)
		limit(&failed, "2001:db8:0:1::/64", true)
		if len(failed.counted) != 0 {
			t.Errorf("%s: a right key was counted as failed", s.path)
		}
		// A request that is not carried out counts, too, but not for the service.
		for _, refused := range []struct {
			status int
			body   string
			edit   func(*http.Request)
		}{
			{400, "not JSON", func(*http.Request) {}},
			{405, bodies[s.path], func(r *http.Request) { r.Method = http.MethodPut }},
			{413, strings.Repeat(" ", DefaultMaxBodySize+1), func(*http.Request) {}},
			{415, "{}", func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }},
			{404, "{}", func(r *http.Request) { r.URL.Path += "/x" }},
			{404, "{}", func(r *http.Request) { r.URL.Path += "/." }},
		} {
			exchanged.counted, proved.counted, registered.counted, called.counted = nil, nil, nil, nil
			if got := g.call(s.path, keyFor(s), refused.body, refused.edit); got.status != refused.status {
				t.Errorf("%s: answer is %+v, want status %d", s.path, got, refused.status)
			}
			wantCalled, wantRegistered := []string{"2001:db8:0:1::/64"}, []string(nil)
			if keyFor(s) == backKey {
				wantCalled, wantRegistered = nil, []string{"bank-site"}
			}
			if !slices.Equal(called.counted, wantCalled) || !slices.Equal(registered.counted, wantRegistered) || len(exchanged.counted)+len(proved.counted) != 0 {
				t.Errorf("%s with status %d: counted %q and %q", s.path, refused.status, called.counted, registered.counted)
			}
			called.over, registered.over = true, true
			if got := g.call(s.path, keyFor(s), refused.body, refused.edit); got.status != 429 {
				t.Errorf("%s: answer is %+v, want 429 for %d", s.path, got, refused.status)
			}
			called.over, registered.over = false, false
		}
		g.call(s.path, "EXAMPLE-WRONG-KEY", bodies[s.path])
		g.call(s.path, "", bodies[s.path])
		// Who offers no key is asked for one, and nothing counts.
		if want := []string{"2001:db8:0:1::/64"}; !slices.Equal(failed.counted, want) {
			t.Errorf("%s: counted %q, want %q", s.path, failed.counted, want)
		}
		// A bank's server that completes activations speaks for many users.
		if s.quota == calls && slices.Contains(s.classes, apikey.BackEnd) {
			called.over, called.counted = true, nil
			if got := g.call(s.path, backKey, bodies[s.path]); got.status != http.StatusOK || len(called.counted) != 0 {
				t.Errorf("%s with a back-end key: answer is %+v, counted %q", s.path, got, called.counted)
			}
		}
	}
}

// The real limiter: after too many wrong keys no further one is looked at, from
// this address only.
func TestFailedKeysLimiter(t *testing.T) {
	t.Parallel()
	address := netip.MustParseAddr("192.0.2.1")
	g := newRig(t, func(c *Config) {
		c.Limits.FailedKeys = ratelimit.New(3, 100)
		c.ClientIP = func(*http.Request) netip.Addr { return address }
	}, nil)
	const path = "/rest/v2/provisioning/getServerTime"
	for range 3 {
		if got := g.call(path, "EXAMPLE-WRONG-KEY", ""); got.status != http.StatusUnauthorized {
			t.Fatalf("answer is %+v", got)
		}
	}
	for _, key := range []string{"EXAMPLE-WRONG-KEY", frontKey} {
		if got := g.call(path, key, ""); got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" {
			t.Errorf("answer is %+v", got)
		}
	}
	address = netip.MustParseAddr("192.0.2.2")
	if got := g.call(path, frontKey, ""); got.status != http.StatusOK {
		t.Errorf("answer is %+v", got)
	}
}

// A panic is an answer, and its value stays inside.
func TestPanic(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/rest/v2/provisioning/MdlActivate", "/rest/activation/MdlActivate"} {
		g := newRig(t, nil, nil)
		g.ops.panic = fmt.Errorf("value %q", "1234567890123456")
		got := g.call(path, frontKey, bodies[path])
		wantFailure(t, got, versionOf(path), 500, "STAT_ERROR", -1, -1)
		if g.last().Outcome != Internal {
			t.Errorf("observed %+v", g.last())
		}
		g.server.Close()
		if log := g.log.String(); !strings.Contains(log, "type=*errors.errorString") || !strings.Contains(log, "fakeOperations).Activate") || strings.Contains(log, "1234567890123456") {
			t.Errorf("log is %s", log)
		}
	}
}

// The server's way to end a connection without an answer still works.
func TestAbort(t *testing.T) {
	t.Parallel()
	h, err := New(Config{Operations: &fakeOperations{panic: http.ErrAbortHandler}, Keys: testKeys(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if p := recover(); p != http.ErrAbortHandler {
			t.Errorf("panic is %v", p)
		}
	}()
	r := httptest.NewRequest(http.MethodPost, "/rest/v2/provisioning/getServerTime", nil)
	r.SetBasicAuth(frontKey, "")
	h.ServeHTTP(httptest.NewRecorder(), r)
	t.Error("no panic")
}

// A status name of an authentication server that could blow up a set of labels is
// relayed and not reported.
func TestObservedStatusIsBounded(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"STAT_LOCKED": "STAT_LOCKED", "stat": "", "STAT LOCKED": "", strings.Repeat("S", 65): "", "": "",
	} {
		g := newRig(t, nil, nil)
		g.ops.err = &gateway.Refusal{Codes: failure(name, 1)}
		got := g.call("/rest/v2/provisioning/getServerTime", frontKey, "")
		if g.last().Status != want || !strings.Contains(got.body, `"statusCodeEnum":"`+name+`"`) {
			t.Errorf("%q: observed %q, answered %s", name, g.last().Status, got.body)
		}
	}
}

// The members of every answer are those of the table, in its order.
func TestAnswersAreAsDeclared(t *testing.T) {
	t.Parallel()
	for _, s := range table() {
		for _, standard := range []bool{false, true} {
			g := newRig(t, nil, nil)
			g.ops.standard = standard
			got := g.call(s.path, keyFor(s), bodies[s.path])
			wantHeaders(t, got)
			var whole map[string]json.RawMessage
			if err := json.Unmarshal([]byte(got.body), &whole); err != nil {
				t.Fatal(err)
			}
			data := whole
			if s.version == v1 {
				delete(data, "errorCode")
				delete(data, "errorMessage")
			} else {
				data = nil
				if result, ok := whole["result"]; ok {
					if err := json.Unmarshal(result, &data); err != nil {
						t.Fatal(err)
					}
				}
			}
			wantMembers(t, s.path, data, s.results)
		}
	}
}

func wantMembers(t *testing.T, where string, data map[string]json.RawMessage, declared []resultMember) {
	t.Helper()
	for _, m := range declared {
		raw, ok := data[m.name]
		if !ok {
			if !m.optional {
				t.Errorf("%s: %s is missing", where, m.name)
			}
			continue
		}
		delete(data, m.name)
		var err error
		switch m.kind {
		case kindString:
			err = json.Unmarshal(raw, new(string))
		case kindInteger:
			err = json.Unmarshal(raw, new(int64))
		case kindTime:
			err = json.Unmarshal(raw, new(time.Time))
		case kindObject:
			var nested map[string]json.RawMessage
			err = json.Unmarshal(raw, &nested)
			wantMembers(t, where+" "+m.name, nested, m.members)
		}
		if err != nil {
			t.Errorf("%s: %s: %v", where, m.name, err)
		}
	}
	for name := range data {
		t.Errorf("%s: %s is not declared", where, name)
	}
}

// A handler that cannot work is not made.
func TestNew(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Config{
		"operations":             {Keys: testKeys(t)},
		"keys":                   {Operations: &fakeOperations{}},
		"max_body_size: must be": {Operations: &fakeOperations{}, Keys: testKeys(t), MaxBodySize: -1},
		"body_timeout: must be":  {Operations: &fakeOperations{}, Keys: testKeys(t), BodyTimeout: -1},
	} {
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}
}

// One whole request without network and operation: key, body, members, answer.
func BenchmarkServe(b *testing.B) {
	h, err := New(Config{Operations: &fakeOperations{}, Keys: testKeys(b)})
	if err != nil {
		b.Fatal(err)
	}
	const path = "/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey"
	body := []byte(`{"registrationIdentifier":"e3wfISG9","clientEphemeralPublicKey":"` + strings.Repeat("0F", 256) + `"}`)
	r := httptest.NewRequest(http.MethodPost, path, nil)
	r.SetBasicAuth(frontKey, "")
	r.Header.Set("Content-Type", "application/json")
	r.ContentLength = int64(len(body))
	b.ReportAllocs()
	for b.Loop() {
		r.Body = io.NopCloser(bytes.NewReader(body))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
