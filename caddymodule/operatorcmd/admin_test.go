package operatorcmd

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
)

// answers are what a gateway answers, by method and path.
var answers = map[string]string{
	"GET /dsapp/status": `{"version":"v1.2.3","caddy":"v2.11.9","started":"2026-03-01T10:00:00Z","loaded":"2026-03-01T11:00:00Z",
		"exchange":"gateway","deployment":"replicated","store":"redis","instances":2,"keys":3,"state":"degraded","ready":true,"checks":[
		{"name":"drain","ok":true},{"name":"store","ok":true,"since":"2026-03-01T10:00:01Z"},
		{"name":"instance backup","ok":false,"detail":"the circuit breaker is open","since":"2026-03-01T12:00:00Z"}]}`,
	"GET /dsapp/instances": `[{"name":"primary","url":"https://oas1:8888","state":"working","breaker":"closed","in_use":3,"queued":0,"last_reached":"2026-03-01T12:00:00Z"},
		{"name":"backup","url":"https://oas2:8888","state":"failing","breaker":"open","in_use":0,"queued":12,"last_lost":"2026-03-01T12:00:01Z"}]`,
	"GET /dsapp/requests?serial_number=VDS1000000-1": `[{"kind":"login","key":"8408…","application":"mobile-app","instance":"primary"}]`,
	"POST /dsapp/drain":                      `{"drained":true}`,
	"POST /dsapp/undrain":                    `{"drained":false}`,
	"POST /dsapp/instances/primary/drain":    `{"instance":"primary","drained":true}`,
	"GET /dsapp/registrations/e3wfISG9":      `{"identifier":"e3wfISG9","kind":"mdl","state":"proven","expires":"2026-03-01T10:10:00Z","instance":"primary","attempts":1,"max_attempts":3,"in_flight":0,"activations":1,"max_activations":3,"devices":1,"confirmations":0}`,
	"DELETE /dsapp/registrations/e3wfISG9":   `{"identifier":"e3wfISG9","burned":true}`,
	"GET /dsapp/keys":                        `[{"name":"mobile-app","class":"front_end","allow":["0.0.0.0/0","::/0"],"hash":"0123abcd","last_used":"2026-03-01T10:10:00Z"},{"name":"bank-site","class":"back_end","allow":["10.0.0.0/8"],"hash":"89abcdef"}]`,
	"GET /dsapp/seal-usage":                  `{"keys":[{"key":"sealing_keys[0]","id":"0011223344556677","values":12},{"key":"sealing_keys[1]","id":"8899aabbccddeeff","values":0}],"unknown":2}`,
	"GET /dsapp/registrations/NoSuchRegistr": `404 {"error":"there is no such registration"}`,
	"GET /dsapp/registrations/down":          `503 {"error":"the store cannot be used"}`,
}

// gatewayAnswering serves the answers and returns the address.
func gatewayAnswering(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.Method+" "+r.URL.RequestURI()]
		switch {
		case !ok:
			http.NotFound(w, r)
		case strings.HasPrefix(answer, "404 "):
			http.Error(w, answer[4:], http.StatusNotFound)
		case strings.HasPrefix(answer, "503 "):
			http.Error(w, answer[4:], http.StatusServiceUnavailable)
		default:
			_, _ = w.Write([]byte(answer))
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// operator runs `caddy dsapp` with arguments and returns what it prints and its exit code.
func operator(t *testing.T, input string, arguments ...string) (string, int) {
	t.Helper()
	root := &cobra.Command{Use: "dsapp"}
	for _, a := range adminCommands {
		root.AddCommand(a.command())
	}
	root.AddCommand(newRegistrationsCommand(), newKeysCommand())
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetIn(strings.NewReader(input))
	root.SetArgs(arguments)
	err := root.ExecuteContext(t.Context())
	return out.String(), caddymodule.ExitCode(err)
}

// The tables are those of testdata/tables.golden. UPDATE_GOLDEN=1 writes that file.
func TestTables(t *testing.T) {
	t.Parallel()
	address := gatewayAnswering(t)
	var got strings.Builder
	for _, tt := range []struct {
		arguments string
		code      int
	}{
		{"status", 0},
		{"health", 0},
		{"instances", 0},
		{"requests VDS1000000-1", 0},
		{"registrations show e3wfISG9", 0},
		{"registrations burn e3wfISG9", 0},
		{"registrations show NoSuchRegistr", 1},
		{"registrations show down", 2},
		{"drain", 0},
		{"undrain", 0},
		{"drain primary", 0},
		{"drain nobody", 2},
		{"keys list", 0},
		{"seal-usage", 1},
	} {
		out, code := operator(t, "", append(strings.Fields(tt.arguments), "--address", address)...)
		assert.Equal(t, tt.code, code, tt.arguments)
		got.WriteString("$ caddy dsapp " + tt.arguments + "\n" + strings.ReplaceAll(out, address, "ADDRESS") + "\n")
	}
	const golden = "testdata/tables.golden"
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.MkdirAll(filepath.Dir(golden), 0o750))
		require.NoError(t, os.WriteFile(golden, []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), got.String())
}

// With --json the commands print the answer itself. The exit codes are the same.
func TestJSON(t *testing.T) {
	t.Parallel()
	address := gatewayAnswering(t)
	for arguments, key := range map[string]string{"status": "GET /dsapp/status", "instances": "GET /dsapp/instances", "keys list": "GET /dsapp/keys"} {
		out, code := operator(t, "", append(strings.Fields(arguments), "--json", "--address", address)...)
		assert.Equal(t, 0, code)
		assert.JSONEq(t, answers[key], out)
	}
	_, code := operator(t, "", "seal-usage", "--json", "--address", address)
	assert.Equal(t, caddymodule.ExitFinding, code)
}

// A key is hashed without its end of line. A key that cannot be one is refused and not shown.
func TestKeysHash(t *testing.T) {
	t.Parallel()
	for _, input := range []string{"sandbox-front-end", "sandbox-front-end\n", "sandbox-front-end\r\nmore"} {
		out, code := operator(t, input, "keys", "hash")
		assert.Equal(t, 0, code)
		assert.Equal(t, fmt.Sprintf("%x\n", sha256.Sum256([]byte("sandbox-front-end"))), out)
	}
	for _, input := range []string{"", "SECRET", "SECRET:SECRET:SECRET:SECRET", strings.Repeat("SECRET", 1000)} {
		out, code := operator(t, input, "keys", "hash")
		assert.Equal(t, caddymodule.ExitFailed, code)
		assert.NotContains(t, out, "SECRET")
	}
}

// Findings are one line each; a note is no finding.
func TestPrintFindings(t *testing.T) {
	t.Parallel()
	problem := caddymodule.Finding{Check: "dns", Subject: "instance primary", Problem: "does not resolve"}
	note := caddymodule.Finding{Check: "redis", Subject: "a:1", Problem: "not checked", Note: true}
	for _, tt := range []struct {
		all        []caddymodule.Finding
		text, json string
		code       int
	}{
		{nil, "no problem found\n", `{"ok":true,"findings":[]}`, 0},
		{[]caddymodule.Finding{note}, "note: redis  a:1: not checked\nno problem found\n", `{"ok":true,"findings":[{"check":"redis","subject":"a:1","problem":"not checked","note":true}]}`, 0},
		{[]caddymodule.Finding{problem}, "dns  instance primary: does not resolve\n", `{"ok":false,"findings":[{"check":"dns","subject":"instance primary","problem":"does not resolve"}]}`, caddymodule.ExitFinding},
	} {
		var text, encoded bytes.Buffer
		assert.Equal(t, tt.code, caddymodule.ExitCode(printFindings(&text, tt.all, false)))
		assert.Equal(t, tt.code, caddymodule.ExitCode(printFindings(&encoded, tt.all, true)))
		assert.Equal(t, tt.text, text.String())
		assert.JSONEq(t, tt.json, encoded.String())
	}
}
