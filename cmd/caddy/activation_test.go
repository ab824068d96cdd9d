package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
	"github.com/dsapp-gateway/dsapp-gateway/internal/timing"
)

// A phone registered by the bank's site is activated by the four calls, in both
// versions of the services; the authentication server sees exactly one command
// for the registration and two for the device.
func TestPhoneActivates(t *testing.T) {
	t.Parallel()
	g, server := testbed.Start(t, nil)
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			registered := g.Register(t)
			assert.NotContains(t, server.URL, registered.Identifier)
			phone := g.Phone()
			phone.Version = version
			activated, err := phone.Activate(t.Context(), registered.Identifier, registered.Password)
			require.NoError(t, err)
			assert.Regexp(t, `^[A-Z]{3}[0-9]{7}-[0-9]{1,2}$`, activated.InstanceSerial)
			if version == 2 {
				assert.Equal(t, testbed.UserID, activated.UserID)
				assert.Equal(t, testbed.Domain, activated.Domain)
				assert.True(t, strings.HasPrefix(activated.InstanceSerial, activated.SerialNumber+"-"))
			}

			// The final call removed the registration.
			_, err = phone.Activate(t.Context(), registered.Identifier, registered.Password)
			require.Error(t, err)
		})
	}
	for _, cmd := range []string{"PROVISIONCMD_MDL_REGISTER", "PROVISIONCMD_MDL_ADD_DEVICE", "PROVISIONCMD_MDL_ACTIVATE"} {
		assert.Equal(t, 2, server.Calls(cmd), cmd)
	}
}

// Wrong passwords and burned, expired and unknown identifiers cannot be told apart: status,
// bytes and lengths of both answers are the same, and the salt of an identifier never changes.
func TestRefusalsAreAlike(t *testing.T) {
	t.Parallel()
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["activation"] = testbed.Object{"max_attempts": 2}
	})
	salts := make(map[string][]byte)
	check := func(t *testing.T, identifier string) {
		t.Helper()
		c, salt, public := g.BeginExchange(t, identifier, "wrong-password")
		assert.Len(t, salt, srp.SaltSize)
		assert.Len(t, public, len(c.Public()))
		if known, ok := salts[identifier]; ok {
			assert.Equal(t, known, salt, "the salt of an identifier never changes")
		}
		salts[identifier] = salt
		evidence, err := c.Prove(salt, public)
		require.NoError(t, err)
		assert.Equal(t, testbed.Refused, testbed.Answer(g.Prove(t, identifier, evidence)))
		// The handshake was used up: a proof needs another one.
		assert.Equal(t, testbed.Refused, testbed.Answer(g.Prove(t, identifier, evidence)))
	}

	registered := g.Register(t)
	for range 2 {
		check(t, registered.Identifier)
	}
	// The registration is burned: the right password does not help.
	assert.Equal(t, testbed.Refused, testbed.Answer(g.Exchange(t, registered.Identifier, registered.Password)))
	check(t, registered.Identifier)

	for range 4 {
		check(t, "never-registered")
	}

	// An expired registration has the same salt as before, and cannot be used.
	activation := g.App()["activation"].(testbed.Object)
	activation["registration_lifetime"] = "2s"
	g.Load(t)
	var short testbed.Registration
	var expires time.Time
	// Right after a reload, the configuration before can still serve an open connection.
	poll.Until(t, "a registration of the new configuration", func() bool {
		short = g.Register(t)
		var err error
		expires, err = time.Parse(time.RFC3339, short.ExpiresAt)
		require.NoError(t, err)
		return time.Until(expires) < time.Minute
	})
	_, salt, _ := g.BeginExchange(t, short.Identifier, short.Password)
	salts[short.Identifier] = salt
	poll.Until(t, "the registration to expire", func() bool { return time.Now().After(expires.Add(time.Second)) })
	assert.Equal(t, testbed.Refused, testbed.Answer(g.Exchange(t, short.Identifier, short.Password)))
	check(t, short.Identifier)

	// All of that outlives a restart.
	g.Kill(t)
	g.Start(t)
	for identifier := range salts {
		check(t, identifier)
	}
}

// The time of a call does not tell whether an identifier is registered: neither in the first
// call, nor in the second as long as proofs are counted, nor when the registration is burned.
func TestRefusalsTakeTheSameTime(t *testing.T) {
	const (
		attempts  = 100 // the greatest number that can be configured
		tolerance = 1.1
	)
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["activation"] = testbed.Object{"max_attempts": attempts}
	})
	var evidence []byte
	begin := func(identifier string) {
		c, salt, public := g.BeginExchange(t, identifier, "wrong-password")
		var err error
		evidence, err = c.Prove(salt, public)
		require.NoError(t, err)
	}
	prove := func(identifier string) {
		_, answer := g.Prove(t, identifier, evidence)
		require.Equal(t, testbed.Refused, answer)
	}
	const unknown = "Unknown1"
	known, left := "", 0
	// use counts an attempt and registers anew when there is none left.
	use := func() {
		if left == 0 {
			known, left = g.Register(t).Identifier, attempts
		}
		left--
	}
	use()
	timing.Same(t, tolerance, []timing.Sample{
		{Name: "first call, unknown", Call: func() { begin(unknown) }},
		{Name: "first call, registered", Call: func() { begin(known) }},
	})
	timing.Same(t, tolerance, []timing.Sample{
		{Name: "second call, unknown", Prepare: func() { begin(unknown) }, Call: func() { prove(unknown) }},
		{Name: "second call, registered", Prepare: func() { use(); begin(known) }, Call: func() { prove(known) }},
	})
	for ; left > 0; left-- {
		begin(known)
		prove(known)
	}
	timing.Same(t, tolerance, []timing.Sample{
		{Name: "second call, unknown", Prepare: func() { begin(unknown) }, Call: func() { prove(unknown) }},
		{Name: "second call, burned", Prepare: func() { begin(known) }, Call: func() { prove(known) }},
	})
}

// Unmodified SRP libraries, of which none knows the gateway, complete the exchange of every profile
// and of the preset that has their name, and decrypt the activation data of both types of licences.
// From what they record, caddy dsapp profile solve finds the profile. For preset nimbus the library is
// tssrp6a, a port of Nimbus SRP; TestJavaLibrariesActivate has a library in Java.
func TestThirdPartyClientActivates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		library, group string
		profile        any
	}{
		{"fast-srp-hap", "2048", "rfc5054-2048-sha256"},
		{"fast-srp-hap", "3072", "rfc5054-3072-sha256"},
		{"fast-srp-hap", "4096", "rfc5054-4096-sha256"},
		{"fast-srp-hap", "2048", testbed.Object{"module": "srp6a", "preset": "fast-srp-hap"}},
		{"secure-remote-password", "2048", testbed.Object{"module": "srp6a", "preset": "secure-remote-password"}},
		{"tssrp6a", "2048", testbed.Object{"module": "srp6a", "preset": "tssrp6a"}},
		{"nimbus", "2048", testbed.Object{"module": "srp6a", "preset": "nimbus"}},
	} {
		name, builtIn := c.profile.(string)
		if !builtIn {
			name = "preset " + c.library
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, _ := testbed.Start(t, func(dsapp testbed.Object) {
				dsapp["activation"] = testbed.Object{"profile": c.profile}
			})
			// Of several exchanges some have values with a leading zero byte.
			capture := filepath.Join(t.TempDir(), "capture.json")
			for i, license := range []string{"mdl", "standard", "mdl"} {
				registered := g.RegisterFor(t, testbed.Object{"licenseType": license})
				env := libraryEnvironment(t, g, registered)
				env = append(env, "SRP_LIBRARY="+c.library, "SRP_GROUP="+c.group)
				if i == 0 {
					env = append(env, "SRP_CAPTURE="+capture)
				}
				if i == 2 && c.library == "fast-srp-hap" && c.group == "2048" {
					// The client's own values begin with zero bytes, which it does not send.
					env = append(env, "SRP_SHORT=1")
				}
				out := runLibrary(t, filepath.Join("testdata", "srp-client"), env, "node", "activate.mjs")
				var result struct {
					OK                     bool   `json:"ok"`
					ActivationMessage      string `json:"activationMessage"`
					ActivationCode         string `json:"activationCode"`
					ServerEvidenceVerified bool   `json:"serverEvidenceVerified"`
				}
				require.NoError(t, json.Unmarshal([]byte(out), &result), out)
				assert.True(t, result.OK)
				assert.True(t, result.ServerEvidenceVerified)
				if license == "mdl" {
					assert.Regexp(t, `^([0-9A-F]{2})+$`, result.ActivationMessage)
				} else {
					assert.NotEmpty(t, result.ActivationCode)
				}
			}
			out, code := operate(t, "profile", "solve", capture)
			require.Equal(t, 0, code, out)
			if !builtIn {
				want := fmt.Sprintf(`"preset": %q`, c.library)
				if c.library == "fast-srp-hap" {
					want = `"rfc5054-2048-sha256"` // is the same
				}
				assert.Contains(t, out, want)
				return
			}
			assert.Contains(t, out, fmt.Sprintf("%q", name))
			phone := g.Phone()
			var err error
			phone.Profile, err = srp.LookupProfile(name)
			require.NoError(t, err)
			registered := g.Register(t)
			_, err = phone.Activate(t.Context(), registered.Identifier, registered.Password)
			require.NoError(t, err)
		})
	}
}

// The libraries compute the vectors of docs/vectors that their presets have, among them those in
// which A, B, S, the salt or evidence begins with a zero byte. This is what they differ in most.
func TestThirdPartyClientsComputeVectors(t *testing.T) {
	t.Parallel()
	out := runLibrary(t, filepath.Join("testdata", "srp-client"), testbed.Environment(t.TempDir()), "node", "vectors.mjs", filepath.Join("..", "..", "..", "..", "docs", "vectors"))
	assert.Equal(t, 4, strings.Count(out, ": 7 of 7 vectors"), out)
}

// Unmodified libraries in Java compute the vectors of their presets, and activate. Bouncy Castle is
// Debian's libbcprov-java. Nimbus SRP is in no package registry of Debian: its vectors were
// computed by com.nimbusds:srp6a 2.1.0, and DSAPP_NIMBUS, a path with its classes, runs it again.
func TestJavaLibrariesActivate(t *testing.T) {
	t.Parallel()
	if os.Getenv("DSAPP_CLIENTS") == "" {
		t.Skip("run by make clients")
	}
	for _, c := range []struct{ class, preset, classes string }{
		{"BouncyCastle", "bouncycastle", "/usr/share/java/bcprov.jar"},
		{"Nimbus", "nimbus", os.Getenv("DSAPP_NIMBUS")},
	} {
		t.Run(c.preset, func(t *testing.T) {
			t.Parallel()
			if c.classes == "" {
				t.Skip("DSAPP_NIMBUS is not set; TestThirdPartyClientActivates has a port of the library")
			}
			sources, build := filepath.Join("testdata", "java-libraries"), t.TempDir()
			path := build + string(filepath.ListSeparator) + c.classes
			runLibrary(t, sources, os.Environ(), "javac", "-d", build, "-cp", c.classes, "Peer.java", c.class+".java")
			vectors := filepath.Join("..", "..", "..", "..", "docs", "vectors", c.preset+".json")
			out := runLibrary(t, sources, os.Environ(), "java", "-cp", path, "Peer", c.class, "vectors", vectors)
			assert.Equal(t, "11 vectors\n", out)

			g, _ := testbed.Start(t, func(dsapp testbed.Object) {
				dsapp["activation"] = testbed.Object{"profile": testbed.Object{"module": "srp6a", "preset": c.preset}}
			})
			capture := filepath.Join(t.TempDir(), "capture.json")
			require.NoError(t, os.WriteFile(capture, nil, 0o600))
			env := append(libraryEnvironment(t, g, g.Register(t)), "SRP_CAPTURE="+capture)
			out = runLibrary(t, sources, env, "java", "-cp", path, "Peer", c.class, "activate")
			assert.Regexp(t, `^([0-9A-F]{2})+\n$`, out)
			out, code := operate(t, "profile", "solve", capture)
			require.Equal(t, 0, code, out)
			assert.Contains(t, out, fmt.Sprintf(`"preset": %q`, c.preset))
		})
	}
}

// libraryEnvironment returns the environment of a program that activates a device by an SRP library.
func libraryEnvironment(t *testing.T, g *testbed.Gateway, registered testbed.Registration) []string {
	t.Helper()
	return append(testbed.Environment(t.TempDir()),
		"GATEWAY_URL="+g.URL,
		"GATEWAY_CA="+g.Certificates.Authority,
		"GATEWAY_KEY="+testbed.FrontEndKey,
		"REGISTRATION_IDENTIFIER="+registered.Identifier,
		"ACTIVATION_PASSWORD="+registered.Password)
}

// runLibrary runs a program in a folder and returns what it prints. It must succeed.
func runLibrary(t *testing.T, folder string, env []string, program string, arguments ...string) string {
	t.Helper()
	if program == "node" {
		_, err := os.Stat(filepath.Join(folder, "node_modules", "tssrp6a"))
		require.NoError(t, err, "the npm packages are missing: run make test-tools")
	}
	cmd := exec.CommandContext(t.Context(), program, arguments...)
	cmd.Dir, cmd.Env = folder, env
	// fast-srp-hap warns of private keys that happen to be short.
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	require.NoError(t, err, "%s%s", out, complaints.String())
	return string(out)
}

// A standard licence is activated with a one-time password or by binding the
// device. Afterwards the registration is gone and the licence is in use.
func TestStandardLicenseIsActivated(t *testing.T) {
	t.Parallel()
	g, server := testbed.Start(t, nil)
	for _, bind := range []bool{false, true} {
		t.Run(fmt.Sprintf("bind %t", bind), func(t *testing.T) {
			registered := g.RegisterFor(t, testbed.Object{"licenseType": "standard"})
			// Nothing can be confirmed before the exchange.
			calls := server.Calls("PROVISIONCMD_ACTIVATE")
			_, answer := g.Call(t, "/rest/v2/provisioning/DSAPPSRPActivate", testbed.FrontEndKey,
				fmt.Sprintf(`{"registrationIdentifier":%q,"response":"123456"}`, registered.Identifier))
			assert.Equal(t, testbed.Refused, answer)
			// The services of the other type of licences refuse the registration.
			_, answer = g.Call(t, testbed.AddDevicePath, testbed.FrontEndKey,
				fmt.Sprintf(`{"registrationIdentifier":%q,"deviceCode":"12345678901234567890123456"}`, registered.Identifier))
			assert.Equal(t, testbed.Refused, answer)
			assert.Equal(t, calls, server.Calls("PROVISIONCMD_ACTIVATE"))

			activated, err := g.Phone().ActivateStandard(t.Context(), registered.Identifier, registered.Password, bind)
			require.NoError(t, err)
			assert.Equal(t, testbed.UserID, activated.UserID)
			assert.Equal(t, testbed.Domain, activated.Domain)
			assert.Equal(t, calls+1, server.Calls("PROVISIONCMD_ACTIVATE"))
			_, err = g.Phone().ActivateStandard(t.Context(), registered.Identifier, registered.Password, bind)
			require.Error(t, err)

			done, err := g.Phone().Authenticate(t.Context(), activated.Authenticator)
			require.NoError(t, err)
			assert.Equal(t, activated.InstanceSerial, done.SerialNumber)
		})
	}
	assert.Equal(t, 2, server.Calls("PROVISIONCMD_REGISTER"))
	assert.Zero(t, server.Calls("PROVISIONCMD_MDL_REGISTER"))
}

// With a relayed exchange the authentication server that made the registration carries out
// every step, whichever gateway the phone calls.
func TestRelayedExchange(t *testing.T) {
	t.Parallel()
	gateways, primary, backup, _ := testbed.StartNodes(t, 2, func(dsapp testbed.Object) {
		dsapp["activation"] = testbed.Object{"exchange": "relay"}
		dsapp["authentication_servers"].(testbed.Object)["policy"] = "round_robin"
	})
	first, second := gateways[0], gateways[1]
	for range 2 {
		registered := first.Register(t)
		activated, err := second.Phone().Activate(t.Context(), registered.Identifier, registered.Password)
		require.NoError(t, err)
		assert.Equal(t, testbed.UserID, activated.UserID)
	}
	for _, server := range []*testbed.Server{primary, backup} {
		for _, command := range []string{
			"dsappSRPRegister", "dsappSRPGenerateEphemeralKey", "dsappSRPGenerateActivationData", "PROVISIONCMD_MDL_ADD_DEVICE", "PROVISIONCMD_MDL_ACTIVATE",
		} {
			assert.Equal(t, 1, server.Calls(command), command)
		}
		assert.Zero(t, server.Calls("PROVISIONCMD_MDL_REGISTER"))
	}

	// The authentication server refuses a wrong password by itself.
	registered := first.Register(t)
	_, answer := second.Exchange(t, registered.Identifier, "wrong-password")
	assert.Contains(t, answer, "RET_FAILURE")
	assert.Equal(t, 2, primary.Calls("dsappSRPGenerateActivationData"))

	// The authentication server chooses the type of licence.
	status, answer := first.Call(t, "/rest/v2/provisioning/DSAPPSRPRegister", testbed.BackEndKey,
		fmt.Sprintf(`{"userID":%q,"domain":%q,"staticPassword":%q,"licenseType":"mdl"}`, testbed.UserID, testbed.Domain, testbed.StaticPassword))
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, answer, "licenseType")

	// A registration that was made without the gateway is forwarded.
	_, answer = second.Call(t, testbed.EphemeralKeyPath, testbed.FrontEndKey, `{"registrationIdentifier":"elsewhere","clientEphemeralPublicKey":"05"}`)
	assert.Contains(t, answer, "RET_FAILURE")
	assert.Equal(t, 4, primary.Calls("dsappSRPGenerateEphemeralKey")+backup.Calls("dsappSRPGenerateEphemeralKey"))
}

// An acknowledged registration and its failed attempts survive the kill of the process.
func TestPendingRegistrationSurvivesKill(t *testing.T) {
	t.Parallel()
	g, _ := testbed.Start(t, func(dsapp testbed.Object) {
		dsapp["activation"] = testbed.Object{"max_attempts": 3}
	})
	pending, attempted := g.Register(t), g.Register(t)
	for range 2 {
		_, answer := g.Exchange(t, attempted.Identifier, "wrong-password")
		require.Equal(t, testbed.Refused, answer)
	}
	g.Kill(t)
	g.Start(t)

	_, err := g.Phone().Activate(t.Context(), pending.Identifier, pending.Password)
	require.NoError(t, err)

	// Two of three attempts are used up: one more burns the registration.
	_, answer := g.Exchange(t, attempted.Identifier, "wrong-password")
	require.Equal(t, testbed.Refused, answer)
	_, answer = g.Exchange(t, attempted.Identifier, attempted.Password)
	assert.Equal(t, testbed.Refused, answer)
}
