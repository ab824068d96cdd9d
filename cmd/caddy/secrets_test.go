package main

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/store/storetest/redistest"
	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// No secret appears in a log at DEBUG, in the configuration of the admin endpoint, in the body
// of a failure or, in clear, in the store.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	certs := testbed.Certificates(t)
	server := testbed.StartServer(t, certs)
	redis := redistest.Start(t, "--user", "gateway", "on", ">a-redis-password-0", "~*", "&*", "+@all")
	for _, backend := range []string{"embedded", "redis"} {
		t.Run(backend, func(t *testing.T) {
			dir := t.TempDir()
			g := testbed.StartGateway(t, certs, server.URL, func(dsapp testbed.Object) {
				dsapp["store"] = testbed.Object{"backend": "embedded", "path": filepath.Join(dir, "dsapp.db")}
				if backend == "redis" {
					secret := filepath.Join(dir, "redis-password")
					require.NoError(t, os.WriteFile(secret, []byte("a-redis-password-0\n"), 0o600))
					dsapp["store"] = testbed.Object{
						"backend": "redis", "addresses": []string{redis.Addr()}, "username": "gateway", "password": "{file." + secret + "}",
					}
				}
			})

			secrets := map[string]string{
				"front-end key": testbed.FrontEndKey, "back-end key": testbed.BackEndKey, "sealing key": testbed.SealingKey,
				"static password": testbed.StaticPassword, "wrong static password": "another static password",
				"wrong key": "no-such-front-end-key", "redis password": "a-redis-password-0",
			}
			var failures []string
			call := func(path, key, body string) string {
				status, answer := g.Call(t, path, key, body)
				if status != http.StatusOK || !strings.Contains(answer, "STAT_SUCCESS") {
					failures = append(failures, answer)
				}
				return answer
			}

			// Every service succeeds once. What the phone gets is secret.
			registered := g.Register(t)
			secrets["activation password"] = registered.Password
			secrets["activation image"] = registered.Image
			phone := g.Phone()
			phone.Trace = func(s sandbox.Step) {}
			_, err := phone.Activate(t.Context(), registered.Identifier, registered.Password)
			require.NoError(t, err)

			second := g.Register(t)
			secrets["second activation password"] = second.Password
			c, salt, public := g.BeginExchange(t, second.Identifier, second.Password)
			evidence, err := c.Prove(salt, public)
			require.NoError(t, err)
			_, answer := g.Prove(t, second.Identifier, evidence)
			var proof struct {
				Result struct{ ServerEvidenceMessage, EncryptedLicenseActivationMessage, Mac string }
			}
			require.NoError(t, json.Unmarshal([]byte(answer), &proof))
			serverEvidence := proof.Result.ServerEvidenceMessage
			secrets["evidence"], secrets["server evidence"] = testbed.UpperHex(evidence), serverEvidence
			secrets["sealed activation message"] = proof.Result.EncryptedLicenseActivationMessage
			key, err := c.Confirm(digits.Decode(t, serverEvidence))
			require.NoError(t, err)
			secrets["session key"] = testbed.UpperHex(key)
			profile, err := srp.LookupProfile(srp.DefaultProfile)
			require.NoError(t, err)
			secrets["verifier"] = testbed.UpperHex(profile.Verifier(second.Identifier, second.Password, salt))

			offline := call("/rest/v2/provisioning/MdlRegister", testbed.BackEndKey, `{"userID":"jane.doe","domain":"mydomain.com","password":"a static password"}`)
			var decoded struct {
				Result struct{ ActivationMessageImage string }
			}
			require.NoError(t, json.Unmarshal([]byte(offline), &decoded))
			secrets["activation message"] = decoded.Result.ActivationMessageImage
			require.NotEmpty(t, decoded.Result.ActivationMessageImage)

			// Calls fail in every way.
			call(testbed.RegisterPath, testbed.BackEndKey, strings.Replace(testbed.RegisterBody, "a static", "another static", 1))
			call(testbed.RegisterPath, testbed.BackEndKey, `{"userID":"jane.doe;","staticPassword":"a static password"}`)
			call(testbed.RegisterPath, testbed.BackEndKey, `{"userID":"jane.doe","staticPassword":["a static password"]}`)
			call(testbed.RegisterPath, testbed.BackEndKey, `{"userID":"jane.doe","staticPassword":"a static password","staticPassword":"a static password"}`)
			call(testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody+"a static password")
			call(testbed.RegisterPath, testbed.FrontEndKey, testbed.RegisterBody)
			call(testbed.ServerTimePath, "no-such-front-end-key", "")
			call(testbed.ActivationDataPath, testbed.FrontEndKey, `{"registrationIdentifier":"`+second.Identifier+`","clientEvidenceMessage":"`+testbed.UpperHex(evidence)+`"}`)
			call(testbed.EphemeralKeyPath, testbed.FrontEndKey, `{"registrationIdentifier":"`+second.Identifier+`","clientEphemeralPublicKey":"`+testbed.UpperHex(key)+`X"}`)
			call("/rest/v2/unknown?password=a%20static%20password", testbed.FrontEndKey, testbed.RegisterBody)
			server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				// This server echoes the command.
				w.Header().Set("Content-Type", "text/xml; charset=utf-8")
				_, _ = io.Copy(w, r.Body)
				return true
			})
			call(testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
			server.Intercept(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
			call(testbed.RegisterPath, testbed.BackEndKey, testbed.RegisterBody)
			server.Intercept(nil)
			require.NotEmpty(t, failures)

			config, err := g.AskAdmin(t.Context(), "/config/")
			require.NoError(t, err)
			require.Contains(t, config, "{env.TEST_FRONT_END_KEY}")

			places := map[string]string{
				"log": g.Logs.String(), "configuration": config, "failures": strings.Join(failures, "\n"),
			}
			if backend == "redis" {
				places["store"] = dump(t, redis)
			} else {
				for _, name := range []string{"dsapp.db"} {
					content, err := os.ReadFile(filepath.Join(dir, name))
					require.NoError(t, err)
					places["store"] = string(content)
				}
			}
			require.Contains(t, places["log"], `"level":"debug"`)
			for place, text := range places {
				require.NotEmpty(t, text, place)
				for name, secret := range secrets {
					require.NotEmpty(t, secret, name)
					for form, s := range map[string]string{
						"": secret, " in lower case": strings.ToLower(secret), " as bytes": bytesOf(secret),
						" in an Authorization header": strings.TrimPrefix(testbed.BasicAuth(secret+":"), "Basic "),
					} {
						// An assertion would print both.
						if s != "" && strings.Contains(text, s) {
							t.Errorf("the %s%s is in the %s", name, form, place)
						}
					}
				}
			}
		})
	}
}

// bytesOf returns the bytes that hexadecimal digits stand for, and nothing for other text.
func bytesOf(digits string) string {
	b, err := hex.DecodeString(digits)
	if err != nil {
		return ""
	}
	return string(b)
}

// dump returns all that a Redis server holds.
func dump(t *testing.T, s *redistest.Server) string {
	t.Helper()
	var all strings.Builder
	for key := range strings.FieldsSeq(s.Command(t, "KEYS", "*")) {
		all.WriteString(key + "\n")
		switch kind := s.Command(t, "TYPE", key); kind {
		case "string":
			all.WriteString(s.Command(t, "GET", key))
		case "hash":
			all.WriteString(s.Command(t, "HGETALL", key))
		default:
			require.Fail(t, "key of an unexpected type", kind)
		}
	}
	return all.String()
}
