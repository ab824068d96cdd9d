package restapi

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Answers have these bytes, headers included.
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
			g := newTestServer(t, nil, nil)
			g.ops.err, g.ops.standard, g.ops.bare = c.err, c.standard, c.bare
			key, body := c.key, c.body
			if key == "" {
				key = frontKey
			}
			if body == "" {
				body = bodies[c.path]
			}
			got := strings.ReplaceAll(g.roundTripBytes(c.path, key, body), "\r\n", "\n") + "\n"
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

// The members of every answer are those of the table, with the types there.
func TestAnswersAreAsDeclared(t *testing.T) {
	t.Parallel()
	for _, s := range table() {
		for _, standard := range []bool{false, true} {
			g := newTestServer(t, nil, nil)
			g.ops.standard = standard
			got := g.call(s.Path, keyFor(s), bodies[s.Path])
			wantHeaders(t, got)
			var whole map[string]json.RawMessage
			if err := json.Unmarshal([]byte(got.body), &whole); err != nil {
				t.Fatal(err)
			}
			data := whole
			if s.Version == V1 {
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
			wantMembers(t, s.Path, data, s.Results)
		}
	}
}

func wantMembers(t *testing.T, where string, data map[string]json.RawMessage, declared []Result) {
	t.Helper()
	for _, m := range declared {
		raw, ok := data[m.Name]
		if !ok {
			if !m.Optional {
				t.Errorf("%s: %s is missing", where, m.Name)
			}
			continue
		}
		delete(data, m.Name)
		var err error
		switch m.Kind {
		case KindString:
			err = json.Unmarshal(raw, new(string))
		case KindInteger:
			err = json.Unmarshal(raw, new(int64))
		case KindTime:
			err = json.Unmarshal(raw, new(time.Time))
		case KindObject:
			var nested map[string]json.RawMessage
			err = json.Unmarshal(raw, &nested)
			wantMembers(t, where+" "+m.Name, nested, m.Members)
		}
		if err != nil {
			t.Errorf("%s: %s: %v", where, m.Name, err)
		}
	}
	for name := range data {
		t.Errorf("%s: %s is not declared", where, name)
	}
}
