package main

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// The number of random variants, and of those that whole gateways activate with.
const points, atGateway = 50, 6

// A phone that was written from the documentation activates with 50 random variants: with some at a
// gateway that is reloaded for each, with the others at their profiles.
func TestRandomVariants(t *testing.T) {
	t.Parallel()
	g, _ := testbed.Start(t, nil)
	phone := startPhone(t, g, testbed.FrontEndKey, "", 0, "node", filepath.Join("testdata", "variant-client", "activate.mjs"))
	activate := func(job testbed.Object) string {
		b, err := json.Marshal(job)
		require.NoError(t, err)
		return phone.do(t, "%s", b)
	}
	for i, v := range randomVariants(t) {
		complete, err := v.Complete()
		require.NoError(t, err)
		if i < atGateway {
			g.App()["activation"] = testbed.Object{"profile": module(t, complete)}
			g.Load(t)
			// A connection to the configuration before would make a registration with its profile.
			g.Client.CloseIdleConnections()
			registered := g.Register(t)
			job := testbed.Object{"variant": complete, "identifier": registered.Identifier, "password": registered.Password}
			assert.Regexp(t, `^ok ([0-9A-F]{2})+$`, activate(job), "%+v", v)
			continue
		}
		profile, err := srp.New(fmt.Sprintf("point-%d", i), v)
		require.NoError(t, err)
		site := httptest.NewServer(&profileServer{Profile: profile})
		job := testbed.Object{"url": site.URL, "variant": complete, "identifier": serverIdentifier, "password": serverPassword}
		assert.Equal(t, "ok "+serverMessage, activate(job), "%+v", v)
		if i%10 == 0 {
			job["password"] = serverPassword + "x"
			assert.Contains(t, activate(job), "error DSAPPSRPGenerateActivationData", "%+v", v)
		}
		site.Close()
	}
}

// module returns the configuration of a variant.
func module(t *testing.T, v variant.Variant) testbed.Object {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	config := testbed.Object{}
	require.NoError(t, json.Unmarshal(b, &config))
	config["module"] = "srp6a"
	return config
}

// randomVariants returns variants that are accepted. They have each choice of each dimension, except
// those of evidence, which are too many. Few have a group without fast arithmetic.
func randomVariants(t *testing.T) (found []variant.Variant) {
	t.Helper()
	random := rand.New(rand.NewPCG(2026, 11))
	has := func(v variant.Variant, d variant.Dimension, choice []string) bool {
		c, err := v.Complete()
		require.NoError(t, err)
		return slices.Equal(d.Get(c), choice)
	}
	// draw adds a variant with a choice of a dimension.
	draw := func(fixed variant.Dimension, choice []string) {
		for range 100_000 {
			var v variant.Variant
			for _, d := range variant.Dimensions {
				d.Set(&v, d.Choices[random.IntN(len(d.Choices))])
			}
			if g, _ := variant.FindGroup(v.Group); g.Bits > variant.FastBits {
				continue
			}
			fixed.Set(&v, choice)
			c, err := v.Complete()
			require.NoError(t, err)
			if c.Check() == nil && has(v, fixed, choice) {
				found = append(found, v)
				return
			}
		}
		t.Fatalf("no variant with %s %q is accepted", fixed.Name, choice)
	}
	for _, d := range variant.Dimensions {
		if len(d.Choices) > points {
			continue
		}
		for _, choice := range d.Choices {
			if g, ok := variant.FindGroup(choice[0]); ok && g.Weak != "" || slices.ContainsFunc(found, func(v variant.Variant) bool { return has(v, d, choice) }) {
				continue
			}
			draw(d, choice)
		}
	}
	hash := variant.Dimensions[1]
	for len(found) < points {
		draw(hash, hash.Choices[len(found)%len(hash.Choices)])
	}
	require.Len(t, found, points)
	random.Shuffle(points, func(i, j int) { found[i], found[j] = found[j], found[i] })
	return found
}

// A Caddy that xcaddy has built with a module from outside, examples/profile, activates by its
// profile: with the password that phones of the profile use, and not with that of others.
func TestModuleFromOutside(t *testing.T) {
	t.Parallel()
	if os.Getenv("DSAPP_OUTSIDE") == "" {
		t.Skip("run by make xcaddy")
	}
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["activation"] = testbed.Object{"profile": testbed.Object{"module": "stretched"}}
	})
	registered := g.Register(t)
	_, err := g.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
	require.Error(t, err)
	key, err := pbkdf2.Key(sha256.New, registered.Password, []byte(registered.Identifier), 100_000, 32)
	require.NoError(t, err)
	activated, err := g.Phone().Activate(t.Context(), registered.Identifier, hex.EncodeToString(key))
	require.NoError(t, err)
	assert.Equal(t, testbed.UserID, activated.UserID)
}

// The registration at a profileServer, and its activation message.
const serverIdentifier, serverPassword, serverMessage = "e3wfISG9", "Tb048aX1", "0A1B2C3D"

// profileServer serves the two calls of an exchange with a profile.
type profileServer struct {
	*srp.Profile
	state []byte
}

func (s *profileServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	result, err := s.answer(r)
	if err != nil {
		http.Error(w, fmt.Sprintf(`{"errorDescription":%q}`, err), http.StatusBadRequest)
		return
	}
	if err := json.NewEncoder(w).Encode(map[string]map[string]string{"result": result}); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (s *profileServer) answer(r *http.Request) (map[string]string, error) {
	var request struct{ ClientEphemeralPublicKey, ClientEvidenceMessage string }
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		return nil, err
	}
	if strings.HasSuffix(r.URL.Path, "DSAPPSRPGenerateEphemeralKey") {
		a, err := s.ParsePublic(request.ClientEphemeralPublicKey)
		if err != nil {
			return nil, err
		}
		s.state = make([]byte, s.StateSize())
		credential := s.Credential(make([]byte, 32), serverIdentifier, serverPassword)
		public, salt, err := s.Begin(s.state, credential, a)
		return map[string]string{"serverEphemeralPublicKey": public, "salt": salt}, err
	}
	evidence, err := s.ParseEvidence(request.ClientEvidenceMessage)
	if err != nil {
		return nil, err
	}
	session, m2, ok := s.Verify(s.state, serverIdentifier, evidence)
	if !ok {
		return nil, errors.New("wrong evidence")
	}
	defer session.Clear()
	c, err := session.Seal(seal.LicenseActivationMessage, []byte(serverMessage))
	return map[string]string{
		"serverEvidenceMessage": m2, "encryptedLicenseActivationMessage": testbed.UpperHex(c.Data),
		"encryptedCounter": testbed.UpperHex(c.Counter), "mac": testbed.UpperHex(c.MAC),
	}, err
}

// A combination that is weaker than the protocol is refused when the configuration is loaded, with
// the option and the reason, and the gateway goes on with the one before.
func TestWeakVariantsAreRefused(t *testing.T) {
	t.Parallel()
	g, _ := testbed.Start(t, nil)
	for _, c := range []struct {
		v      variant.Variant
		reason string
	}{
		{variant.Variant{ServerEvidence: variant.Template{"A", "K"}}, "m2: must contain M1: the server must prove itself after the client"},
		{variant.Variant{ClientEvidence: variant.Template{"A", "B"}}, "m1: must contain K or S: without the session key everybody can compute it"},
		{variant.Variant{Preset: "nimbus", Inner: variant.Template{"P"}}, "x: must contain I or H(I)"},
		{variant.Variant{Exponent: variant.Template{"inner"}}, "x: must contain s: without the salt equal passwords have equal verifiers"},
		{variant.Variant{Scrambler: variant.Template{"B"}}, "u: must contain A: a thief of the verifier"},
		{variant.Variant{Multiplier: variant.Template{"3"}}, "k: must be a hash of N and g: k = 3 (SRP-6)"},
		{variant.Variant{Group: "rfc3526-2048"}, "group: rfc3526-2048 has a generator that is a square"},
		{variant.Variant{MACInput: variant.Template{"counter"}}, "mac: must contain data: the MAC must protect the ciphertext"},
		{variant.Variant{Hash: "sha1", KeyDerivation: "none"}, "key_derivation: must be"},
	} {
		g.App()["activation"] = testbed.Object{"profile": module(t, c.v)}
		status, answer := g.TryLoad(t)
		assert.Equal(t, http.StatusBadRequest, status)
		var refusal struct{ Error string }
		require.NoError(t, json.Unmarshal([]byte(answer), &refusal))
		assert.Contains(t, refusal.Error, "activation.profile: loading module 'srp6a': provision dsapp.profiles.srp6a: "+c.reason)
	}
	g.ActivatedDevice(t)
}
