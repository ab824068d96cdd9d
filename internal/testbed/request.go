//go:build linux

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
	kind      sandbox.Kind
	Name      string
	KeyMember string // name of the JSON member that carries the key of a request

	// Paths of the services, and commands that the gateway sends for them.
	RetrievePath, CompletePath, CancelPath          string
	RetrieveCommand, CompleteCommand, CancelCommand string
}

// The kinds of requests.
var (
	Login = RequestKind{
		sandbox.KindLogin, "login", "challengeKey",
		"/rest/v2/authentication/push/getPreparedSecureChallenge", "/rest/v2/authentication/push/authUser", "/rest/v2/authentication/push/cancelAuthUser",
		"getPreparedSecureChallenge", "authUser", "cancelAuthUser",
	}
	Signature = RequestKind{
		sandbox.KindSignature, "signature", "requestKey",
		"/rest/v2/signature/push/getPreparedSignatureRequest", "/rest/v2/signature/push/authSignature", "/rest/v2/signature/push/cancelAuthSignatureRequest",
		"getPreparedSignatureRequest", "authSignature", "cancelAuthSignatureRequest",
	}
	RequestKinds = []RequestKind{Login, Signature}
)

// bankRequest is a login or signature that the bank's application server waits for.
type bankRequest struct {
	kind     RequestKind
	key      string     // set when it was pushed
	answered chan error // gets nil if the phone approved
	cancel   context.CancelFunc

	server *Server
	device *sandbox.Authenticator
	known  map[string]bool // keys that were pushed before
}

// ask has the bank's application server ask the owner of a device for a login or signature.
func (o *Server) ask(ctx context.Context, s RequestKind, a *sandbox.Authenticator) *bankRequest {
	q := &bankRequest{kind: s, answered: make(chan error, 1), server: o, device: a, known: make(map[string]bool)}
	for _, push := range o.Pushes(a.SerialNumber) {
		q.known[push.Key] = true
	}
	ctx, q.cancel = context.WithCancel(ctx)
	go func() {
		var done sandbox.AuthenticatedUser
		var err error
		if s == Login {
			done, err = o.Application().RequestLogin(ctx, sandbox.LoginRequest{
				UserID: a.UserID, Domain: a.Domain, SerialNumber: a.SerialNumber, Message: "Sign in?",
			})
		} else {
			done, err = o.Application().RequestSignature(ctx, sandbox.SignatureRequest{
				UserID: a.UserID, Domain: a.Domain, SerialNumber: a.SerialNumber, Title: "Transfer",
				Fields: []sandbox.RequestField{{Key: "Amount", Value: "100.00"}},
			})
		}
		if err == nil && done.SerialNumber != a.SerialNumber {
			err = fmt.Errorf("completed by %s", done.SerialNumber)
		}
		q.answered <- err
	}()
	return q
}

// pushed reports whether the device has got the request.
func (q *bankRequest) pushed() bool {
	for _, push := range q.server.Pushes(q.device.SerialNumber) {
		if !q.known[push.Key] {
			q.key = push.Key
		}
	}
	return q.key != ""
}

// Ask has the bank's application server ask the owner of a device for a login or signature,
// and waits for the push. It returns the key of the request and a function that waits for
// what the bank is told: nil if the phone approved.
func Ask(t *testing.T, o *Server, s RequestKind, a *sandbox.Authenticator) (key string, outcome func() error) {
	t.Helper()
	q := o.ask(t.Context(), s, a)
	t.Cleanup(q.cancel)
	poll.Until(t, "the push", q.pushed)
	return q.key, func() error {
		t.Helper()
		return poll.Receive(t, "the answer to the bank", q.answered)
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
