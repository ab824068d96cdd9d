package operatorcmd

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/solve"
	"github.com/dsapp-gateway/dsapp-gateway/internal/output"
	"github.com/dsapp-gateway/dsapp-gateway/internal/poll"
)

// profileCommand runs `caddy dsapp profile` with arguments and returns what it prints and its exit
// code.
func profileCommand(ctx context.Context, out *output.Buffer, arguments ...string) int {
	c := newProfileCommand()
	c.SetOut(out)
	c.SetErr(out)
	c.SetArgs(arguments)
	return caddymodule.ExitCode(c.ExecuteContext(ctx))
}

func profile(t *testing.T, arguments ...string) (string, int) {
	t.Helper()
	out := new(output.Buffer)
	code := profileCommand(t.Context(), out, arguments...)
	return out.String(), code
}

// captureFile writes a recorded exchange of a third-party library to a private file.
func captureFile(t *testing.T, name string, edit func(members map[string]any)) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "dsapp", "srp", "solve", "testdata", name))
	require.NoError(t, err)
	var members map[string]any
	require.NoError(t, json.Unmarshal(content, &members))
	if edit != nil {
		edit(members)
	}
	return writeJSON(t, "capture.json", members)
}

func writeJSON(t *testing.T, name string, value any) string {
	t.Helper()
	encoded, err := json.Marshal(value)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, encoded, 0o600))
	return file
}

// wantNoValues fails if the text has a value of the capture.
func wantNoValues(t *testing.T, text, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, value := range regexp.MustCompile(`"([^"]{8,})"`).FindAllStringSubmatch(string(content), -1) {
		if value[1] != "licenseActivationMessage" && value[1] != "plaintext" && value[1] != "identity" && value[1] != "password" {
			assert.NotContains(t, strings.ToUpper(text), strings.ToUpper(value[1]))
		}
	}
}

// The command prints the value for the configuration, what it found in each stage, and no value of
// the capture. Its exit code says whether every option is settled.
func TestProfileSolve(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		file string
		edit func(map[string]any)
		code int
		want []string
	}{
		"built in": {"fast-srp-hap-2048.json", nil, 0, []string{`"rfc5054-2048-sha256"`, "m1 = X H(I) s A B K", "Tested: "}},
		"module":   {"fast-srp-hap-plain-2048.json", nil, 0, []string{`"module": "srp6a"`, "m1 = A B S", "instead of A B S", "% of exchanges"}},
		"partial": {"fast-srp-hap-plain-2048.json", func(m map[string]any) { delete(m, "M2"); delete(m, "items"); delete(m, "K") }, caddymodule.ExitFinding, []string{
			"Nothing recorded decides key_function, key_input, m2, key_derivation", "record K", "record M2",
		}},
		"wrong M2": {"fast-srp-hap-2048.json", func(m map[string]any) { m["M2"] = strings.Repeat("00", 32) }, caddymodule.ExitFinding, []string{"M2 is computed in no known way", "Tested: "}},
		"wrong A":  {"fast-srp-hap-2048.json", func(m map[string]any) { m["A"] = "1234" }, caddymodule.ExitFinding, []string{"A is g^a in no known group", "not reached", "No profile is found."}},
		"no M1":    {"fast-srp-hap-2048.json", func(m map[string]any) { delete(m, "salt") }, caddymodule.ExitFailed, []string{"salt is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := captureFile(t, test.file, test.edit)
			out, code := profile(t, "solve", file)
			assert.Equal(t, test.code, code, out)
			for _, want := range test.want {
				assert.Contains(t, out, want)
			}
			wantNoValues(t, out, file)
			if code == caddymodule.ExitFailed {
				return
			}
			text, again := profile(t, "solve", "--json", file)
			assert.Equal(t, test.code, again)
			var s solved
			require.NoError(t, json.Unmarshal([]byte(strings.TrimSuffix(text, "Error: see above\n")), &s), text)
			assert.Len(t, s.Stages, 8)
			assert.Equal(t, strings.Contains(out, "Tested: "), s.Tested)
			wantNoValues(t, text, file)
			if s.Profile == nil {
				return
			}
			// What is printed is a profile that the gateway takes, and that the capture agrees with.
			config := writeJSON(t, "profile.json", s.Configuration)
			out, code = profile(t, "check", "--profile", config, file)
			assert.Equal(t, name == "wrong M2", code != 0, out)
		})
	}
}

// A capture that others can use, or that is no capture, is refused without a value of it.
func TestProfileRefusesCaptures(t *testing.T) {
	t.Parallel()
	public := captureFile(t, "fast-srp-hap-2048.json", nil)
	require.NoError(t, os.Chmod(public, 0o644))
	for _, command := range [][]string{{"solve"}, {"check", "--profile", writeJSON(t, "profile.json", "rfc5054-2048-sha256")}} {
		for file, want := range map[string]string{
			public: "can be used by others, and it holds a password: `chmod 600` it",
			captureFile(t, "fast-srp-hap-2048.json", func(m map[string]any) { m["passwort"] = "Tb048aX1" }): "has a member that is none of",
			filepath.Join(t.TempDir(), "none"): "no such file",
		} {
			out, code := profile(t, append(command, file)...)
			assert.Equal(t, caddymodule.ExitFailed, code)
			assert.Contains(t, out, want)
			assert.NotContains(t, out, "Tb048aX1")
		}
	}
}

// The comparison says where the phone and each configured profile part. It prints values only if
// it is asked to.
func TestProfileCheck(t *testing.T) {
	t.Parallel()
	file := captureFile(t, "fast-srp-hap-plain-2048.json", nil)
	plain := map[string]any{"module": "srp6a", "name": "plain", "m1": []string{"A", "B", "S"}}
	config := func(activation any) string {
		return writeJSON(t, "caddy.json", map[string]any{"apps": map[string]any{"dsapp": map[string]any{"activation": activation}}})
	}
	for name, test := range map[string]struct {
		flags []string
		code  int
		want  string
	}{
		"the same":         {[]string{"--profile", writeJSON(t, "p.json", plain)}, 0, "All recorded values are those of the profile."},
		"another":          {[]string{"--profile", writeJSON(t, "p.json", "rfc5054-2048-sha256")}, caddymodule.ExitFinding, "Phone and profile part at M1."},
		"a module":         {[]string{"--profile", writeJSON(t, "p.json", map[string]any{"module": "rfc5054"})}, caddymodule.ExitFinding, "profile rfc5054-2048-sha256"},
		"another group":    {[]string{"--profile", writeJSON(t, "p.json", "rfc5054-3072-sha256")}, caddymodule.ExitFinding, "Phone and profile part at A."},
		"a configuration":  {[]string{"--config", config(map[string]any{"profile": plain})}, 0, "profile plain"},
		"the default":      {[]string{"--config", config(map[string]any{})}, caddymodule.ExitFinding, "profile rfc5054-2048-sha256"},
		"several":          {[]string{"--config", config(map[string]any{"profiles": []any{"rfc5054-2048-sha256", plain}})}, 0, "part at M1"},
		"no app":           {[]string{"--config", writeJSON(t, "caddy.json", map[string]any{})}, caddymodule.ExitFailed, "has no app dsapp"},
		"an unknown name":  {[]string{"--profile", writeJSON(t, "p.json", "rfc5054")}, caddymodule.ExitFailed, "unknown profile"},
		"a foreign module": {[]string{"--profile", writeJSON(t, "p.json", map[string]any{"module": "bank"})}, caddymodule.ExitFailed, "only the modules rfc5054 and srp6a can be compared"},
		"a wrong option":   {[]string{"--profile", writeJSON(t, "p.json", map[string]any{"module": "srp6a", "m1": []string{"A"}})}, caddymodule.ExitFailed, "m1: must contain K or S"},
		"no object":        {[]string{"--profile", writeJSON(t, "p.json", 1)}, caddymodule.ExitFailed, "must be a name or an object in JSON"},
		"nothing":          {nil, caddymodule.ExitFailed, "name one with --profile or --config"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, code := profile(t, append([]string{"check", file}, test.flags...)...)
			assert.Equal(t, test.code, code, out)
			assert.Contains(t, out, test.want)
			wantNoValues(t, out, file)
		})
	}
	out, _ := profile(t, "check", "--values", file, "--profile", writeJSON(t, "p.json", plain))
	c, err := solve.ReadFile(file)
	require.NoError(t, err)
	assert.Contains(t, out, strings.ToUpper(hex.EncodeToString(c.Key)))
}

// startRecorder starts `caddy dsapp profile record` and returns its address, its output, and a
// function that waits for its end and returns its exit code.
func startRecorder(t *testing.T, flags ...string) (string, *output.Buffer, func() int) {
	t.Helper()
	out, done := new(output.Buffer), make(chan int, 1)
	flags = append([]string{"record", "--listen", "127.0.0.1:0", "--registration-identifier", "e3wfISG9", "--activation-password", "Tb048aX1"}, flags...)
	go func() { done <- profileCommand(t.Context(), out, flags...) }()
	address := ""
	poll.Until(t, "the recorder to listen", func() bool {
		m := regexp.MustCompile(`Listening on (http://\S+) `).FindStringSubmatch(out.String())
		if m != nil {
			address = m[1]
		}
		return m != nil
	})
	return address, out, func() int { return poll.Receive(t, "the recorder to end", done) }
}

// post makes a call of version 2 and returns the result, and whether it was a success.
func post(t *testing.T, address, service string, members map[string]string) (map[string]string, bool) {
	t.Helper()
	body, err := json.Marshal(members)
	require.NoError(t, err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/rest/v2/provisioning/"+service, bytes.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth("key-of-debug-phone", "")
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct {
		ResultCodes struct{ StatusCodeEnum string }
		Result      map[string]string
	}
	_ = json.NewDecoder(resp.Body).Decode(&answer) // a refusal by net/http is no JSON
	return answer.Result, answer.ResultCodes.StatusCodeEnum == "STAT_SUCCESS"
}

// A debug phone whose formulas nobody knows is recorded, and its capture gives the profile. With
// that the recorder carries out the whole exchange. Whoever is not the test user is refused.
func TestProfileRecord(t *testing.T) {
	t.Parallel()
	p, err := srp.LookupProfile(srp.DefaultProfile)
	require.NoError(t, err)
	upper := func(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }
	dir := t.TempDir()

	begin := func(address string) (a, evidence []byte, phone *srp.Client) {
		phone, err := p.NewClient("e3wfISG9", "Tb048aX1")
		require.NoError(t, err)
		a = phone.Private()
		result, ok := post(t, address, "DSAPPSRPGenerateEphemeralKey", map[string]string{"registrationIdentifier": "e3wfISG9", "clientEphemeralPublicKey": upper(phone.Public())})
		require.True(t, ok)
		salt, err := hex.DecodeString(result["salt"])
		require.NoError(t, err)
		public, err := hex.DecodeString(result["serverEphemeralPublicKey"])
		require.NoError(t, err)
		evidence, err = phone.Prove(salt, public)
		require.NoError(t, err)
		return a, evidence, phone
	}
	prove := func(address string, evidence []byte) (map[string]string, bool) {
		return post(t, address, "DSAPPSRPGenerateActivationData", map[string]string{"registrationIdentifier": "e3wfISG9", "clientEvidenceMessage": upper(evidence)})
	}

	address, out, ended := startRecorder(t, "--output", dir, "--zero", "salt,B")
	for service, members := range map[string]map[string]string{
		"DSAPPSRPGenerateEphemeralKey":   {"registrationIdentifier": "somebody", "clientEphemeralPublicKey": "1234"},
		"DSAPPSRPGenerateActivationData": {"registrationIdentifier": "e3wfISG9", "clientEvidenceMessage": upper(make([]byte, 32))},
		"MdlActivate":                    {"registrationIdentifier": "e3wfISG9", "signature": "123456"},
		"DSAPPSRPRegister":               {"userID": "jane.doe", "staticPassword": "sandbox"},
	} {
		_, ok := post(t, address, service, members)
		assert.False(t, ok, service)
	}
	_, ok := post(t, address, "DSAPPSRPGenerateEphemeralKey", map[string]string{"registrationIdentifier": "e3wfISG9", "clientEphemeralPublicKey": "1"})
	assert.False(t, ok)
	a, evidence, _ := begin(address)
	_, ok = prove(address, evidence)
	assert.False(t, ok)
	assert.Equal(t, 0, ended(), out)
	assert.Contains(t, out.String(), "Add the member a from the log of the phone")
	assert.NotContains(t, out.String(), "Tb048aX1")
	assert.NotContains(t, out.String(), "e3wfISG9")

	file := filepath.Join(dir, "capture-1.json")
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	var members map[string]any
	require.NoError(t, json.Unmarshal(content, &members))
	assert.True(t, strings.HasPrefix(members["salt"].(string), "00") && strings.HasPrefix(members["B"].(string), "00"))
	members["a"] = hex.EncodeToString(a)
	printed, code := profile(t, "solve", writeJSON(t, "capture.json", members))
	assert.Equal(t, caddymodule.ExitFinding, code) // M2 and what follows is not recorded
	assert.Contains(t, printed, `"rfc5054-2048-sha256"`)
	assert.NotContains(t, printed, "B begins with a zero byte")

	found := writeJSON(t, "profile.json", "rfc5054-2048-sha256")
	dir = t.TempDir()
	address, out, ended = startRecorder(t, "--output", dir, "--profile", found, "--zero", "S", "--count", "2")
	_, evidence, phone := begin(address)
	result, ok := prove(address, evidence)
	assert.True(t, ok)
	m2, err := hex.DecodeString(result["serverEvidenceMessage"])
	require.NoError(t, err)
	_, err = phone.Confirm(m2)
	require.NoError(t, err)
	assert.NotEmpty(t, result["encryptedLicenseActivationMessage"])
	_, ok = post(t, address, "MdlAddDevice", map[string]string{"registrationIdentifier": "e3wfISG9", "deviceCode": "12345678901234567890123456"})
	assert.False(t, ok)
	begin(address)
	_, ok = prove(address, make([]byte, 32))
	assert.False(t, ok)
	assert.Equal(t, 0, ended(), out)
	for _, want := range []string{"The phone computes M1 by the profile.", "The phone has accepted M2", "The phone does not compute M1 by the profile.", "capture-2.json"} {
		assert.Contains(t, out.String(), want)
	}
}

// Wrong flags of the recorder are refused before it listens.
func TestProfileRecordRefusesFlags(t *testing.T) {
	t.Parallel()
	user := []string{"--registration-identifier", "e3wfISG9", "--activation-password", "Tb048aX1"}
	for _, test := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--registration-identifier", "e3wfISG9"}, "--activation-password must have 4 to 64"},
		{[]string{"--registration-identifier", "e3w", "--activation-password", "Tb048aX1"}, "--registration-identifier must have 4 to 64"},
		{append(user, "--count", "0"), "--count must be 1 to 32"},
		{append(user, "--message", ""), "--message must not be empty"},
		{append(user, "--private", "xyz"), "--private must have hexadecimal digits"},
		{append(user, "--zero", "S"), "without a profile, S cannot be made to begin with a zero byte"},
		{append(user, "--listen", "0.0.0.0:0"), "needs --certificate"},
		{append(user, "--listen", "127.0.0.1:0", "--certificate", "none", "--certificate-key", "none"), "no such file"},
		{append(user, "--certificate", "none"), "certificate-key"},
	} {
		out, code := profile(t, append([]string{"record"}, test.flags...)...)
		assert.Equal(t, caddymodule.ExitFailed, code, out)
		assert.Contains(t, out, test.want)
	}
}
