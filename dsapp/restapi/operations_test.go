package restapi

import (
	"net/http"
	"net/netip"
	"slices"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// Every member reaches its field of the operation's request, and only that.
func TestRequestsReachOperations(t *testing.T) {
	t.Parallel()
	want := map[gateway.Operation]any{
		gateway.OpRegisterActivation:     gateway.RegisterActivationRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: "a static password", LicenseType: "mdl", SerialNumber: "VDS1000003", Profile: "rfc5054-2048-sha256"},
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
		t.Run(s.Path, func(t *testing.T) {
			t.Parallel()
			g := newTestServer(t, nil, nil)
			if got := g.call(s.Path, keyFor(s), bodies[s.Path]); got.status != http.StatusOK {
				t.Fatalf("answer is %+v", got)
			}
			expected := want[s.Operation]
			if d, ok := expected.(gateway.AddDeviceRequest); ok && s.Version == V1 {
				d.Description = ""
				expected = d
			}
			if g.ops.request != expected {
				t.Errorf("request is %+v, want %+v", g.ops.request, expected)
			}
			application := map[string]string{frontKey: "mobile-app", backKey: "bank-site"}[keyFor(s)]
			if g.ops.caller.Application != application || !slices.Equal(g.authenticated, []string{application}) {
				t.Errorf("caller is %q, authenticated %q, want %q", g.ops.caller.Application, g.authenticated, application)
			}
			if want := (Observation{Service: s.Name(), Application: application, Outcome: Success, HTTPStatus: 200, Status: "STAT_SUCCESS"}); g.last() != want {
				t.Errorf("observed %+v, want %+v", g.last(), want)
			}
		})
	}
}

// Operations get the source that the limits count the client's address for.
func TestCallerSource(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"127.0.0.1": "127.0.0.1", "::ffff:127.0.0.1": "127.0.0.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
	} {
		g := newTestServer(t, func(c *Config) {
			c.ClientIP = func(*http.Request) netip.Addr { return netip.MustParseAddr(address) }
		}, nil)
		for _, path := range []string{"/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey", "/rest/v2/provisioning/DSAPPSRPGenerateActivationData"} {
			g.ops.caller = gateway.Caller{}
			if got := g.call(path, frontKey, bodies[path]); got.status != http.StatusOK {
				t.Fatalf("answer is %+v", got)
			}
			if caller := (gateway.Caller{Application: "mobile-app", Source: want}); g.ops.caller != caller {
				t.Errorf("%s from %s: caller is %+v, want %+v", path, address, g.ops.caller, caller)
			}
		}
	}
}
