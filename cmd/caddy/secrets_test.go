package main

import (
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
)

// No secret appears in a log at DEBUG, in the configuration that the admin
// endpoint shows, in the body of a failure or, in clear, in the store.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	certs := certificates(t)
	server := startOAS(t, certs)
	redis := redistest.Start(t, "--user", "gateway", "on", ">a-redis-password-0", "~*", "&*", "+@all")
	for _, backend := range []string{"embedded", "redis"} {
		t.Run(backend, func(t *testing.T) {
			dir := t.TempDir()
			g := startGateway(t, certs, server.URL, func(dsapp object) {
				dsapp["store"] = object{"backend": "embedded", "path": filepath.Join(dir, "dsapp.db")}
				if backend == "redis" {
					secret := filepath.Join(dir, "redis-password")
					require.NoError(t, os.WriteFile(secret, []byte("a-redis-password-0\n"), 0o600))
					dsapp["store"] = object{
						"backend": "redis", "addresses": []string{redis.Addr()}, "username": "gateway", "password": "{file." + secret + "}",
					}
				}
			})

			secrets := map[string]string{
				"front-end key": frontEndKey, "back-end key": backEndKey, "sealing key": sealingKey,
				"static password": staticPassword, "wrong static password": "another static password",
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

			// Every service, with success; what the phone learns is secret.
			registered := g.Register(t)
			secrets["activation password"] = registered.Password
			secrets["activation image"] = registered.Image
			phone := g.Phone()
			phone.Trace = func(s sandbox.Step) {}
			_, err := phone.Activate(t.Context(), registered.Identifier, registered.Password)
			require.NoError(t, err)

			second := g.Register(t)
			secrets["second activation password"] = second.Password
			c, salt, public := begin(t, g, second.Identifier, second.Password)
			evidence, err := c.Prove(salt, public)
			require.NoError(t, err)
			_, answer := prove(t, g, second.Identifier, evidence)
			var proof struct {
				Result struct{ ServerEvidenceMessage, EncryptedLicenseActivationMessage, Mac string }
			}
			require.NoError(t, json.Unmarshal([]byte(answer), &proof))
			serverEvidence := proof.Result.ServerEvidenceMessage
			secrets["evidence"], secrets["server evidence"] = upperHex(evidence), serverEvidence
			secrets["sealed activation message"] = proof.Result.EncryptedLicenseActivationMessage
			key, err := c.Confirm(decode(t, serverEvidence))
			require.NoError(t, err)
			secrets["session key"] = upperHex(key)
			profile, err := srp.LookupProfile(srp.DefaultProfile)
			require.NoError(t, err)
			secrets["verifier"] = upperHex(profile.Verifier(second.Identifier, second.Password, salt))

			offline := call("/rest/v2/provisioning/MdlRegister", backEndKey, `{"userID":"jane.doe","domain":"mydomain.com","password":"a static password"}`)
			var decoded struct {
				Result struct{ ActivationMessageImage string }
			}
			require.NoError(t, json.Unmarshal([]byte(offline), &decoded))
			secrets["activation message"] = decoded.Result.ActivationMessageImage
			require.NotEmpty(t, decoded.Result.ActivationMessageImage)

			// Every way to fail.
			call(registerPath, backEndKey, strings.Replace(userBody, "a static", "another static", 1))
			call(registerPath, backEndKey, `{"userID":"jane.doe;","staticPassword":"a static password"}`)
			call(registerPath, backEndKey, `{"userID":"jane.doe","staticPassword":["a static password"]}`)
			call(registerPath, backEndKey, `{"userID":"jane.doe","staticPassword":"a static password","staticPassword":"a static password"}`)
			call(registerPath, backEndKey, userBody+"a static password")
			call(registerPath, frontEndKey, userBody)
			call(serverTimePath, "no-such-front-end-key", "")
			call(activationDataPath, frontEndKey, `{"registrationIdentifier":"`+second.Identifier+`","clientEvidenceMessage":"`+upperHex(evidence)+`"}`)
			call(ephemeralKeyPath, frontEndKey, `{"registrationIdentifier":"`+second.Identifier+`","clientEphemeralPublicKey":"`+upperHex(key)+`X"}`)
			call("/rest/v2/unknown?password=a%20static%20password", frontEndKey, userBody)
			server.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				// A server that echoes what it got.
				w.Header().Set("Content-Type", "text/xml; charset=utf-8")
				_, _ = io.Copy(w, r.Body)
				return true
			})
			call(registerPath, backEndKey, userBody)
			server.Intercept(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
			call(registerPath, backEndKey, userBody)
			server.Intercept(nil)
			require.NotEmpty(t, failures)

			resp, err := http.Get("http://" + g.Admin + "/config/")
			require.NoError(t, err)
			defer resp.Body.Close()
			config, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Contains(t, string(config), "{env.TEST_FRONT_END_KEY}")

			places := map[string]string{
				"log": g.Logs.String(), "configuration": string(config), "failures": strings.Join(failures, "\n"),
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
						"": secret, " in lower case": strings.ToLower(secret), " as bytes": raw(secret),
						" in an Authorization header": strings.TrimPrefix(basic(secret+":"), "Basic "),
					} {
						// Not an assertion that would print both.
						if s != "" && strings.Contains(text, s) {
							t.Errorf("the %s%s is in the %s", name, form, place)
						}
					}
				}
			}
		})
	}
}

func decode(t *testing.T, digits string) []byte {
	t.Helper()
	b := []byte(raw(digits))
	require.NotEmpty(t, b)
	return b
}

// dump returns everything that a Redis server holds.
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
