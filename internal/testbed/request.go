package testbed

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// RequestKind is a kind of requests that wait at an authentication server for a phone.
type RequestKind struct {
	Name      string
	KeyMember string // name of the JSON member that carries the key of a request

	// Paths of the services, and commands that the gateway sends for them.
	RetrievePath, CompletePath, CancelPath          string
	RetrieveCommand, CompleteCommand, CancelCommand string
}

// The kinds of requests.
var (
	Login = RequestKind{
		"login", "challengeKey",
		"/rest/v2/authentication/push/getPreparedSecureChallenge", "/rest/v2/authentication/push/authUser", "/rest/v2/authentication/push/cancelAuthUser",
		"getPreparedSecureChallenge", "authUser", "cancelAuthUser",
	}
	Signature = RequestKind{
		"signature", "requestKey",
		"/rest/v2/signature/push/getPreparedSignatureRequest", "/rest/v2/signature/push/authSignature", "/rest/v2/signature/push/cancelAuthSignatureRequest",
		"getPreparedSignatureRequest", "authSignature", "cancelAuthSignatureRequest",
	}
	RequestKinds = []RequestKind{Login, Signature}
)

// Ask has the bank's application server ask the test user for a login or signature, and
// waits for the push. It returns the key of the request and a function that waits for what
// the bank is told: nil if the phone approved.
func Ask(t *testing.T, o *Server, s RequestKind, a *sandbox.Authenticator) (key string, outcome func() error) {
	t.Helper()
	known := make(map[string]bool)
	for _, push := range o.Pushes(a.SerialNumber) {
		known[push.Key] = true
	}
	ctx, cancel := context.WithCancel(t.Context())
	application := o.Application()
	answered := make(chan error, 1)
	go func() {
		var err error
		if s == Login {
			_, err = application.RequestLogin(ctx, sandbox.LoginRequest{UserID: UserID, Domain: Domain, SerialNumber: a.SerialNumber, Message: "Sign in?"})
		} else {
			_, err = application.RequestSignature(ctx, sandbox.SignatureRequest{
				UserID: UserID, Domain: Domain, SerialNumber: a.SerialNumber, Title: "Transfer",
				Fields: []sandbox.RequestField{{Key: "Amount", Value: "100.00"}},
			})
		}
		answered <- err
	}()
	t.Cleanup(cancel)
	poll.Until(t, "the push", func() bool {
		for _, push := range o.Pushes(a.SerialNumber) {
			if !known[push.Key] {
				key = push.Key
				return true
			}
		}
		return false
	})
	return key, func() error {
		t.Helper()
		return poll.Receive(t, "the answer to the bank", answered)
	}
}

// Retrieve calls the retrieval service for a device.
func (g *Gateway) Retrieve(t *testing.T, s RequestKind, apiKey, serialNumber, key string) (int, string) {
	t.Helper()
	return g.Call(t, s.RetrievePath, apiKey, fmt.Sprintf(`{"serialNumber":%q,%q:%q}`, serialNumber, s.KeyMember, key))
}

// MustRetrieve retrieves a request that must be there and returns its message.
func (g *Gateway) MustRetrieve(t *testing.T, s RequestKind, apiKey, serialNumber, key string) string {
	t.Helper()
	status, answer := g.Retrieve(t, s, apiKey, serialNumber, key)
	require.Equal(t, http.StatusOK, status, answer)
	var decoded struct {
		Result struct{ RequestMessage string }
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &decoded))
	require.NotEmpty(t, decoded.Result.RequestMessage, answer)
	return decoded.Result.RequestMessage
}

// Cancel has a device reject a request.
func (g *Gateway) Cancel(t *testing.T, s RequestKind, apiKey, serialNumber, key string) (int, string) {
	t.Helper()
	return g.Call(t, s.CancelPath, apiKey, fmt.Sprintf(`{"serialNumber":%q,%q:%q}`, serialNumber, s.KeyMember, key))
}

// Complete has the test user approve a request with the signature of a device.
func (g *Gateway) Complete(t *testing.T, s RequestKind, key, signature string) (int, string) {
	t.Helper()
	return g.Call(t, s.CompletePath, FrontEndKey, fmt.Sprintf(`{"userID":%q,"domain":%q,%q:%q,"signature":%q}`, UserID, Domain, s.KeyMember, key, signature))
}

// WrapKey returns the key of a request as a device wraps it.
func WrapKey(t *testing.T, a *sandbox.Authenticator, key string) string {
	t.Helper()
	message, err := a.WrapKey(key)
	require.NoError(t, err)
	return message
}
