package restapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// documented is a service as the public documentation of the interface describes it,
// written down by hand. Members are separated by spaces. Those with a question mark are
// optional.
type documented struct {
	classes string // of keys
	// shape is the version of the answers.
	shape           Version
	request, result string
}

const (
	registered    = "userID domain serialNumber"
	authenticates = "userID domain orgUnit serialNo?"
	sealedData    = "serverEvidenceMessage encryptedLicenseActivationMessage? encryptedCounter? mac? standard?"
)

var services = map[string]documented{
	// These two are not part of the public documentation.
	"/rest/v2/provisioning/DSAPPSRPRegister": {"back_end", V2, "userID domain? staticPassword licenseType? serialNumber? profile?", "registrationIdentifier activationPassword activationImage expiresAt?"},
	"/rest/v2/provisioning/DSAPPSRPActivate": {"front_end back_end", V2, "registrationIdentifier response? derivationCode?", registered},

	"/rest/v2/provisioning/MdlRegister":                    {"back_end", V2, "userID domain? password", "registrationIdentifier activationMessageImage"},
	"/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey":   {"front_end", V2, "registrationIdentifier clientEphemeralPublicKey", "serverEphemeralPublicKey salt"},
	"/rest/v2/provisioning/DSAPPSRPGenerateActivationData": {"front_end", V2, "registrationIdentifier clientEvidenceMessage", sealedData},
	"/rest/v2/provisioning/MdlAddDevice":                   {"front_end back_end", V2, "registrationIdentifier deviceCode description?", "instanceActivationMessage"},
	"/rest/v2/provisioning/MdlActivate":                    {"front_end back_end", V2, "registrationIdentifier signature", registered},
	"/rest/v2/provisioning/getServerTime":                  {"front_end", V2, "", "serverTime"},
	"/rest/activation/DSAPPSRPGenerateEphemeralKey":        {"front_end", V1, "registrationID clientEphemeralPublicKey", "serverEphemeralPublicKey salt"},
	"/rest/activation/DSAPPSRPGenerateActivationData":      {"front_end", V1, "registrationID clientEvidenceMessage", sealedData},
	"/rest/activation/MdlAddDevice":                        {"front_end", V1, "registrationID deviceCode", "instanceActivationMessage"},
	"/rest/activation/MdlActivate":                         {"front_end", V1, "registrationID signature", ""},

	"/rest/v2/authentication/authUser":                        {"front_end", V2, "userID domain? password", authenticates},
	"/rest/v2/authentication/push/getPreparedSecureChallenge": {"front_end", V2, "serialNumber challengeKey", "requestMessage"},
	"/rest/v2/authentication/push/authUser":                   {"front_end", V2, "userID domain? challengeKey signature", authenticates},
	"/rest/v2/authentication/push/cancelAuthUser":             {"front_end", V2, "serialNumber challengeKey", ""},
	"/rest/v2/authentication/scan/getPreparedSecureChallenge": {"front_end", V2, "serialNumber challengeKey", "requestMessage"},
	"/rest/v2/authentication/scan/authUser":                   {"front_end", V2, "userID domain? challengeKey signature", authenticates},
	"/rest/v2/authentication/scan/cancelAuthUser":             {"front_end", V2, "serialNumber challengeKey", ""},
	"/rest/auth/online":                                       {"front_end", V1, "userID domain? otp", ""},
	"/rest/push/retrieveLogin":                                {"front_end", V1, "digipassInstanceID challengeKey", "encryptedLoginDetails"},
	"/rest/push/signLogin":                                    {"front_end", V1, "userID domain? challengeKey signature", ""},
	"/rest/push/cancelLogin":                                  {"front_end", V1, "digipassInstanceID encryptedChallengeKey", ""},

	"/rest/v2/signature/push/getPreparedSignatureRequest": {"front_end", V2, "requestKey serialNumber", "requestMessage"},
	"/rest/v2/signature/push/authSignature":               {"front_end", V2, "userID domain? requestKey signature", authenticates},
	"/rest/v2/signature/push/cancelAuthSignatureRequest":  {"front_end", V2, "requestKey serialNumber", ""},
	"/rest/v2/signature/scan/getPreparedSignatureRequest": {"front_end", V2, "requestKey serialNumber", "requestMessage"},
	"/rest/v2/signature/scan/authSignature":               {"front_end", V2, "userID domain? requestKey signature", authenticates},
	"/rest/v2/signature/scan/cancelAuthSignatureRequest":  {"front_end", V2, "requestKey serialNumber", ""},

	"/rest/v2/notification/push/updateNotificationID": {"front_end", V2, "userID domain digipassInstanceID encryptedNotificationID", ""},
	// Version 1 with the answers of version 2.
	"/rest/notification/updateNotificationID": {"front_end", V2, "userID domain digipassInstanceID encryptedNotificationID", ""},
}

// The table has the documented services, each once, with the documented members.
func TestServicesAreAsDocumented(t *testing.T) {
	t.Parallel()
	got := make(map[string]documented)
	for _, s := range table() {
		if _, twice := got[s.Path]; twice {
			t.Errorf("%s is in the table twice", s.Path)
		}
		request, result := make([]string, 0, len(s.Members)), make([]string, 0, len(s.Results))
		for _, m := range s.Members {
			request = append(request, mark(m.Name, !m.Required))
		}
		for _, m := range s.Results {
			result = append(result, mark(m.Name, m.Optional))
		}
		got[s.Path] = documented{strings.Trim(fmt.Sprint(s.Classes), "[]"), s.Version, sorted(request), sorted(result)}
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

// Every row of the table is complete and consistent, and every operation of the gateway
// has a service.
func TestTable(t *testing.T) {
	t.Parallel()
	names := make(map[string]bool)
	reached := make(map[gateway.Operation]bool)
	for _, s := range table() {
		if names[s.Name()] {
			t.Errorf("%s: name %q is not unique", s.Path, s.Name())
		}
		names[s.Name()] = true
		reached[s.Operation] = true
		if s.Version != versionOf(s.Path) && s.Path != "/rest/notification/updateNotificationID" {
			t.Errorf("%s has version %s", s.Path, s.Version)
		}
		members := make(map[string]bool)
		for _, m := range s.Members {
			if m.Name == "" || members[m.Name] {
				t.Errorf("%s: member %q is missing or not unique", s.Path, m.Name)
			}
			members[m.Name] = true
			if m.Rule.Max < max(m.Rule.Min, 1) || m.Rule.Max > maxMember || len(m.Name) > maxName-2 || m.Rule.Characters.Pattern == "" {
				t.Errorf("%s: limits or format of %s", s.Path, m.Name)
			}
		}
		want := calls
		switch s.Operation {
		case gateway.OpGenerateEphemeralKey:
			want = exchanges
		case gateway.OpGenerateActivationData:
			want = proofs
		case gateway.OpRegisterActivation, gateway.OpRegisterOffline:
			want = registrations
		case gateway.OpServerTime:
			want = localCalls
		}
		if s.quota != want {
			t.Errorf("%s has quota %d, want %d", s.Path, s.quota, want)
		}
		if bodies[s.Path] == "" && !s.BodyOptional {
			t.Errorf("%s: the tests have no body for it", s.Path)
		}
	}
	if want := reflect.TypeFor[Operations]().NumMethod(); len(reached) != want {
		t.Errorf("%d operations have a service, want %d", len(reached), want)
	}
}

// with returns the members with another value of one of them.
func (m members) with(name, value string) members {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	others := slices.DeleteFunc(slices.Clone(m), func(other member) bool { return string(other.name) == name })
	return append(others, member{[]byte(name), text})
}

// A member is accepted exactly if it has its documented form: every number of
// characters around its limits, of every alphabet.
func TestFormsOfMembers(t *testing.T) {
	t.Parallel()
	units := []string{"0", "7", "a", "f", "A", "F", "g", "Z", "ü", "é", "１", "-", ".", "_", ";", ":", " ", "\x00", "\n", "\x7f", "\u0085", "\ufffe", "\uffff", "𝄞"}
	for _, s := range table() {
		members, err := decodeObject([]byte(bodies[s.Path]))
		if len(s.Members) > 0 && err != nil {
			t.Fatal(err)
		}
		for name, o := range oraclesOf(s.Path) {
			lengths := []int{0, 1, 31, 32, 64, 65, 66, 128, 255, o.min - 1, o.min, o.max, o.max + 1}
			for _, unit := range units {
				for _, n := range lengths {
					for _, value := range []string{strings.Repeat(unit, max(n, 0)), strings.Repeat("0", max(n-1, 0)) + unit} {
						if _, err := s.prepare(members.with(name, value)); (err == nil) != o.fits(value) {
							t.Errorf("%s: %s of %d characters, %.20q: error %v", s.Path, name, n, value, err)
						}
					}
				}
			}
			for _, value := range []string{"mdl", "standard", "Standard"} {
				if _, err := s.prepare(members.with(name, value)); (err == nil) != o.fits(value) {
					t.Errorf("%s: %s %q: error %v", s.Path, name, value, err)
				}
			}
		}
	}
}
