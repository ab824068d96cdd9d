package restapi

import (
	"context"
	"sync"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

const (
	frontKey = "EXAMPLE-FRONT-KEY"
	backKey  = "EXAMPLE-BACK-KEY"
	// farKey is a back-end key that is not accepted from 127.0.0.1.
	farKey = "EXAMPLE-FAR-KEY-01"
)

// fakeOperations return fixed results, and err. They panic with panic unless it is nil.
type fakeOperations struct {
	mu    sync.Mutex
	err   error
	panic any
	// standard lets activation exchanges end with the data of a standard licence.
	standard bool
	// bare leaves optional fields of results empty.
	bare    bool
	calls   int
	request any
	caller  gateway.Caller
}

func (f *fakeOperations) called(c gateway.Caller, request any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	f.caller, f.request = c, request
	if f.panic != nil {
		panic(f.panic)
	}
	return f.err
}

func (f *fakeOperations) RegisterActivation(_ context.Context, c gateway.Caller, r gateway.RegisterActivationRequest) (gateway.RegisterActivationResult, error) {
	result := gateway.RegisterActivationResult{
		RegistrationIdentifier: "e3wfISG9",
		ActivationPassword:     "Tb048aX1",
		ActivationImage:        "30313B30313B6A616E652E646F653B",
	}
	if !f.bare {
		// Not in UTC and not a whole second.
		result.ExpiresAt = time.Date(2026, 3, 4, 6, 6, 7, 999, time.FixedZone("", 3600))
	}
	return result, f.called(c, r)
}

func (f *fakeOperations) RegisterOffline(_ context.Context, c gateway.Caller, r gateway.RegisterOfflineRequest) (gateway.RegisterOfflineResult, error) {
	return gateway.RegisterOfflineResult{RegistrationIdentifier: "e3wfISG9", ActivationMessageImage: "BBED4D1C"}, f.called(c, r)
}

func (f *fakeOperations) GenerateEphemeralKey(_ context.Context, c gateway.Caller, r gateway.GenerateEphemeralKeyRequest) (gateway.GenerateEphemeralKeyResult, error) {
	return gateway.GenerateEphemeralKeyResult{ServerPublic: "661CF509", Salt: "8F1958E25B9749FDBC28362CEED92C01"}, f.called(c, r)
}

func (f *fakeOperations) GenerateActivationData(_ context.Context, c gateway.Caller, r gateway.GenerateActivationDataRequest) (gateway.GenerateActivationDataResult, error) {
	result := gateway.GenerateActivationDataResult{ServerEvidence: "E2E2", LicenseActivationMessage: &form.Sealed{Data: "DADA", Counter: "C0C0", MAC: "3A3A"}}
	if f.standard {
		result = gateway.GenerateActivationDataResult{
			ServerEvidence:           "E2E2",
			ActivationCode:           &form.Sealed{Data: "D1", Counter: "C1", MAC: "A1"},
			EventReactivationCounter: &form.Sealed{Data: "D2", Counter: "C2", MAC: "A2"},
		}
	}
	return result, f.called(c, r)
}

func (f *fakeOperations) AddDevice(_ context.Context, c gateway.Caller, r gateway.AddDeviceRequest) (gateway.AddDeviceResult, error) {
	return gateway.AddDeviceResult{InstanceActivationMessage: "AA82DD554C7A3935"}, f.called(c, r)
}

func (f *fakeOperations) Activate(_ context.Context, c gateway.Caller, r gateway.ActivateRequest) (gateway.ActivateResult, error) {
	return gateway.ActivateResult{UserID: "jörg \"j\" <doe>", Domain: "myDomain.com", SerialNumber: "VDS1000003"}, f.called(c, r)
}

func (f *fakeOperations) ActivateStandard(_ context.Context, c gateway.Caller, r gateway.ActivateStandardRequest) (gateway.ActivateResult, error) {
	return gateway.ActivateResult{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000004"}, f.called(c, r)
}

func (f *fakeOperations) Authenticate(_ context.Context, c gateway.Caller, r gateway.AuthenticateRequest) (gateway.AuthenticatedResult, error) {
	return f.authenticated("password"), f.called(c, r)
}

func (f *fakeOperations) RetrieveLogin(_ context.Context, c gateway.Caller, r gateway.RetrieveRequest) (gateway.RetrieveResult, error) {
	return gateway.RetrieveResult{RequestMessage: "2EAA8300F254C137"}, f.called(c, login{r})
}

func (f *fakeOperations) CompleteLogin(_ context.Context, c gateway.Caller, r gateway.CompleteRequest) (gateway.AuthenticatedResult, error) {
	return f.authenticated("login"), f.called(c, login{r})
}

func (f *fakeOperations) CancelLogin(_ context.Context, c gateway.Caller, r gateway.CancelRequest) (gateway.CancelResult, error) {
	return gateway.CancelResult{}, f.called(c, login{r})
}

func (f *fakeOperations) RetrieveSignature(_ context.Context, c gateway.Caller, r gateway.RetrieveRequest) (gateway.RetrieveResult, error) {
	return gateway.RetrieveResult{RequestMessage: "00C1C3E40F42B8B3"}, f.called(c, signing{r})
}

func (f *fakeOperations) CompleteSignature(_ context.Context, c gateway.Caller, r gateway.CompleteRequest) (gateway.AuthenticatedResult, error) {
	return f.authenticated("signature"), f.called(c, signing{r})
}

func (f *fakeOperations) CancelSignature(_ context.Context, c gateway.Caller, r gateway.CancelRequest) (gateway.CancelResult, error) {
	return gateway.CancelResult{}, f.called(c, signing{r})
}

func (f *fakeOperations) UpdateNotificationID(_ context.Context, c gateway.Caller, r gateway.UpdateNotificationIDRequest) (gateway.UpdateNotificationIDResult, error) {
	return gateway.UpdateNotificationIDResult{}, f.called(c, r)
}

// login and signing distinguish requests that have one type for both kinds.
type (
	login   struct{ request any }
	signing struct{ request any }
)

func (f *fakeOperations) authenticated(unit string) gateway.AuthenticatedResult {
	if f.bare {
		return gateway.AuthenticatedResult{UserID: "jane.doe"}
	}
	return gateway.AuthenticatedResult{UserID: "jane.doe", Domain: "mydomain.com", OrgUnit: unit, SerialNumber: "VDS1000120-1"}
}

func (f *fakeOperations) ServerTime(_ context.Context, c gateway.Caller, r gateway.ServerTimeRequest) (gateway.ServerTimeResult, error) {
	return gateway.ServerTimeResult{Time: 1547556827}, f.called(c, r)
}

var _ Operations = (*fakeOperations)(nil)

// fakeLimiter is a limiter that records its calls. It refuses everything while over is
// true.
type fakeLimiter struct {
	mu       sync.Mutex
	over     bool
	after    time.Duration
	counted  []string
	blocking []string
}

func (f *fakeLimiter) Allow(s ratelimit.Source) (bool, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counted = append(f.counted, s.String())
	return !f.over, f.after
}

func (f *fakeLimiter) Blocked(s ratelimit.Source) (bool, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blocking = append(f.blocking, s.String())
	return f.over, f.after
}

func (f *fakeLimiter) Record(s ratelimit.Source) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counted = append(f.counted, s.String())
}

// bodies are bodies with all members of each service, by path.
var bodies = map[string]string{
	"/rest/v2/provisioning/DSAPPSRPRegister":               `{"userID":"jane.doe","domain":"mydomain.com","staticPassword":"a static password","licenseType":"mdl","serialNumber":"VDS1000003","profile":"rfc5054-2048-sha256"}`,
	"/rest/v2/provisioning/MdlRegister":                    `{"userID":"jane.doe","domain":"mydomain.com","password":"a static password"}`,
	"/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey":   `{"registrationIdentifier":"e3wfISG9","clientEphemeralPublicKey":"0BB2ea65"}`,
	"/rest/v2/provisioning/DSAPPSRPGenerateActivationData": `{"registrationIdentifier":"e3wfISG9","clientEvidenceMessage":"` + evidence + `"}`,
	"/rest/v2/provisioning/MdlAddDevice":                   `{"registrationIdentifier":"e3wfISG9","deviceCode":"12345678901234567890123456","description":"Jane's\nphone"}`,
	"/rest/v2/provisioning/MdlActivate":                    `{"registrationIdentifier":"e3wfISG9","signature":"1234567890123456"}`,
	"/rest/v2/provisioning/getServerTime":                  ``,
	"/rest/activation/DSAPPSRPGenerateEphemeralKey":        `{"registrationID":"e3wfISG9","clientEphemeralPublicKey":"0BB2ea65"}`,
	"/rest/activation/DSAPPSRPGenerateActivationData":      `{"registrationID":"e3wfISG9","clientEvidenceMessage":"` + evidence + `"}`,
	"/rest/activation/MdlAddDevice":                        `{"registrationID":"e3wfISG9","deviceCode":"12345678901234567890123456"}`,
	"/rest/activation/MdlActivate":                         `{"registrationID":"e3wfISG9","signature":"1234567890123456"}`,

	"/rest/v2/provisioning/DSAPPSRPActivate":                  `{"registrationIdentifier":"e3wfISG9","response":"123456","derivationCode":"123456789012345"}`,
	"/rest/v2/authentication/authUser":                        `{"userID":"jane.doe","domain":"mydomain.com","password":"123456"}`,
	"/rest/v2/authentication/push/getPreparedSecureChallenge": `{"serialNumber":"VDS1000000-1","challengeKey":"0123456789"}`,
	"/rest/v2/authentication/push/authUser":                   `{"userID":"jane.doe","domain":"mydomain.com","challengeKey":"0123456789","signature":"0234567890123456"}`,
	"/rest/v2/authentication/push/cancelAuthUser":             `{"serialNumber":"VDS1000000-1","challengeKey":"` + wrappedKey + `"}`,
	"/rest/v2/authentication/scan/getPreparedSecureChallenge": `{"serialNumber":"VDS1000000-1","challengeKey":"0123456789"}`,
	"/rest/v2/authentication/scan/authUser":                   `{"userID":"jane.doe","domain":"mydomain.com","challengeKey":"0123456789","signature":"0234567890123456"}`,
	"/rest/v2/authentication/scan/cancelAuthUser":             `{"serialNumber":"VDS1000000-1","challengeKey":"` + wrappedKey + `"}`,
	"/rest/v2/signature/push/getPreparedSignatureRequest":     `{"requestKey":"0123456789","serialNumber":"VDS1000000-1"}`,
	"/rest/v2/signature/push/authSignature":                   `{"userID":"jane.doe","domain":"mydomain.com","requestKey":"0123456789","signature":"0234567890123456"}`,
	"/rest/v2/signature/push/cancelAuthSignatureRequest":      `{"requestKey":"` + wrappedKey + `","serialNumber":"VDS1000000-1"}`,
	"/rest/v2/signature/scan/getPreparedSignatureRequest":     `{"requestKey":"0123456789","serialNumber":"VDS1000000-1"}`,
	"/rest/v2/signature/scan/authSignature":                   `{"userID":"jane.doe","domain":"mydomain.com","requestKey":"0123456789","signature":"0234567890123456"}`,
	"/rest/v2/signature/scan/cancelAuthSignatureRequest":      `{"requestKey":"` + wrappedKey + `","serialNumber":"VDS1000000-1"}`,
	"/rest/v2/notification/push/updateNotificationID":         `{"userID":"jane.doe","domain":"mydomain.com","digipassInstanceID":"VDS1000000-1","encryptedNotificationID":"0901C3E40F42B811"}`,
	"/rest/auth/online":                                       `{"userID":"jane.doe","domain":"mydomain.com","otp":"123456"}`,
	"/rest/push/retrieveLogin":                                `{"digipassInstanceID":"VDS1000000-1","challengeKey":"0123456789"}`,
	"/rest/push/signLogin":                                    `{"userID":"jane.doe","domain":"mydomain.com","challengeKey":"0123456789","signature":"0234567890123456","serialNumber":"VDS1000000-1"}`,
	"/rest/push/cancelLogin":                                  `{"digipassInstanceID":"VDS1000000-1","encryptedChallengeKey":"` + wrappedKey + `"}`,
	"/rest/notification/updateNotificationID":                 `{"userID":"jane.doe","domain":"mydomain.com","digipassInstanceID":"VDS1000000-1","encryptedNotificationID":"0901C3E40F42B811"}`,
}

const wrappedKey = "D2602CE39F8CC503d2602ce39f8cc503D2602CE39F8CC503"

const evidence = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

// keyFor returns a key that may call the service.
func keyFor(s Service) string {
	if s.Classes[0] == apikey.BackEnd {
		return backKey
	}
	return frontKey
}
