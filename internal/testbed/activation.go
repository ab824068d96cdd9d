//go:build linux

package testbed

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// Registration is what the bank's site gets for one user.
type Registration struct {
	Identifier string `json:"registrationIdentifier"`
	Password   string `json:"activationPassword"`
	Image      string `json:"activationImage"`
	ExpiresAt  string `json:"expiresAt"`
}

// Register has the bank's site register the test user.
func (g *Gateway) Register(t *testing.T) Registration {
	t.Helper()
	return g.RegisterFor(t, nil)
}

// RegisterFor is Register with more members in the request.
func (g *Gateway) RegisterFor(t *testing.T, more Object) Registration {
	t.Helper()
	request := Object{"userID": UserID, "domain": Domain, "staticPassword": StaticPassword}
	maps.Copy(request, more)
	body, err := json.Marshal(request)
	require.NoError(t, err)
	status, answer := g.Call(t, RegisterPath, BackEndKey, string(body))
	require.Equal(t, http.StatusOK, status, answer)
	var decoded struct {
		Result Registration `json:"result"`
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &decoded))
	require.NotEmpty(t, decoded.Result.Identifier, answer)
	return decoded.Result
}

// Phone returns a simulated phone that calls the gateway.
func (g *Gateway) Phone() *sandbox.Phone {
	return &sandbox.Phone{BaseURL: g.URL, APIKey: FrontEndKey, Client: g.Client}
}

// ActivatedDevice registers the test user and activates a device through the gateway, which
// then sends its notification ID.
func (g *Gateway) ActivatedDevice(t *testing.T) *sandbox.Authenticator {
	t.Helper()
	registered := g.Register(t)
	activated, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
	require.NoError(t, err)
	require.NoError(t, g.Phone().UpdateNotificationID(t.Context(), activated.Authenticator, "push-"+activated.InstanceSerial))
	return activated.Authenticator
}

// BeginExchange makes the first call of an exchange with the default profile. It returns the
// client, and the salt and the public key of the answer.
func (g *Gateway) BeginExchange(t *testing.T, identifier, password string) (c *srp.Client, salt, public []byte) {
	t.Helper()
	profile, err := srp.LookupProfile(srp.DefaultProfile)
	require.NoError(t, err)
	return g.BeginExchangeAs(t, FrontEndKey, profile, identifier, password)
}

// BeginExchangeAs is BeginExchange of an application with a profile.
func (g *Gateway) BeginExchangeAs(t *testing.T, key string, profile *srp.Profile, identifier, password string) (c *srp.Client, salt, public []byte) {
	t.Helper()
	c, err := profile.NewClient(identifier, password)
	require.NoError(t, err)
	status, answer := g.Call(t, EphemeralKeyPath, key, fmt.Sprintf(
		`{"registrationIdentifier":%q,"clientEphemeralPublicKey":%q}`, identifier, UpperHex(c.Public())))
	require.Equal(t, http.StatusOK, status, answer)
	var decoded struct {
		Result struct{ ServerEphemeralPublicKey, Salt string }
	}
	require.NoError(t, json.Unmarshal([]byte(answer), &decoded))
	salt, err = hex.DecodeString(decoded.Result.Salt)
	require.NoError(t, err)
	public, err = hex.DecodeString(decoded.Result.ServerEphemeralPublicKey)
	require.NoError(t, err)
	return c, salt, public
}

// Prove makes the second call of an exchange.
func (g *Gateway) Prove(t *testing.T, identifier string, evidence []byte) (int, string) {
	t.Helper()
	return g.ProveAs(t, FrontEndKey, identifier, evidence)
}

// ProveAs is Prove of an application.
func (g *Gateway) ProveAs(t *testing.T, key, identifier string, evidence []byte) (int, string) {
	t.Helper()
	return g.Call(t, ActivationDataPath, key, fmt.Sprintf(
		`{"registrationIdentifier":%q,"clientEvidenceMessage":%q}`, identifier, UpperHex(evidence)))
}

// Exchange makes both calls of an exchange and returns the answer to the second.
func (g *Gateway) Exchange(t *testing.T, identifier, password string) (int, string) {
	t.Helper()
	c, salt, public := g.BeginExchange(t, identifier, password)
	evidence, err := c.Prove(salt, public)
	require.NoError(t, err)
	return g.Prove(t, identifier, evidence)
}

// UpperHex returns hexadecimal digits in upper case, as phones send them.
func UpperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }
