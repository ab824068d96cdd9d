package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// adapt adapts a Caddyfile to JSON.
func adapt(text []byte) ([]byte, []caddyconfig.Warning, error) {
	return caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": "Caddyfile"})
}

// appOf returns the app `dsapp` of a configuration, as it is and strictly decoded.
func appOf(t testing.TB, config []byte) (json.RawMessage, *App) {
	t.Helper()
	var whole struct {
		Apps map[string]json.RawMessage `json:"apps"`
	}
	require.NoError(t, json.Unmarshal(config, &whole))
	app := new(App)
	if encoded, ok := whole.Apps[appName]; ok {
		require.NoError(t, caddy.StrictUnmarshalJSON(encoded, app))
	}
	return whole.Apps[appName], app
}

const adaptedFiles = "testdata/caddyfile/*.caddyfiletest"

// Each file has a Caddyfile and, below the dashes, what it adapts to or the whole error. The
// Caddyfiles that are accepted are formatted, and what they adapt to can be loaded.
func TestCaddyfiles(t *testing.T) {
	t.Setenv("DSAPP_TEST_URL", "https://oas.example.com:8888/")
	t.Setenv("DSAPP_TEST_COMPONENT", `"Our Gateway"`)
	files, err := filepath.Glob(adaptedFiles)
	require.NoError(t, err)
	require.Greater(t, len(files), 40)
	here, err := os.Getwd()
	require.NoError(t, err)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)), func(t *testing.T) {
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			input, want, found := strings.Cut(string(content), "----------\n")
			require.True(t, found, "no line of dashes")

			adapted, warnings, err := adapt([]byte(input))
			var got string
			if err != nil {
				got = strings.ReplaceAll(err.Error(), here+"/", "") + "\n"
				assert.NotContains(t, got, marker, "the error shows a secret")
			} else {
				var indented bytes.Buffer
				require.NoError(t, json.Indent(&indented, adapted, "", "\t"))
				got = indented.String() + "\n"
				assert.Empty(t, warnings)
				appOf(t, adapted)
			}
			assert.Equal(t, strings.HasPrefix(filepath.Base(file), "error_"), err != nil, "accepted or not: %v", err)
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(input+"----------\n"+got), 0o644))
				return
			}
			assert.Equal(t, want, got, "-update rewrites %s", file)
		})
	}
}

// No error about a Caddyfile shows a secret, whatever mistake is made with it.
func TestCaddyfileErrorsHideSecrets(t *testing.T) {
	t.Parallel()
	const secret = "quitesecretindeed"
	for option, in := range map[string]string{
		"sealing_keys": "%s", "key": "api_key phones {\n%s\n}", "key_sha256": "api_key phones {\n%s\n}",
		"password": "store redis {\n%s\n}", "sentinel_password": "store redis {\n%s\n}",
	} {
		for _, mistake := range []string{
			"%[1]s %[2]s\n%[2]s", "%[1]s\n%[2]s", "%[2]s", "%[2]s %[1]s", "%[1]s %[2]s {\n%[2]s\n}", "%[1]s {\n%[2]s\n}", "%[1]s %[2]s }",
			"%[1]s %[2]s \"\"", "%[1]s %[2]s\n%[1]s", "%[1]s:%[2]s", "%[1]s=%[2]s", "unknown %[2]s",
		} {
			text := inBlock("", inBlock(appName, fmt.Sprintf(in, fmt.Sprintf(mistake, option, secret))))
			_, _, err := adapt([]byte(text))
			require.Error(t, err, text)
			assert.NotContains(t, err.Error(), secret, text)
		}
	}
}

// inexpressible are the JSON options without an option in a Caddyfile.
var inexpressible = map[string]string{
	"root_ca_pool":                "deprecated by Caddy; tls_trust_pool inline",
	"root_ca_pem_files":           "deprecated by Caddy; tls_trust_pool file",
	"client_certificate_automate": "refused",
	"except_ports":                "refused",
	"store.tls.handshake_timeout": "refused",
}

// A Caddyfile can say all that JSON can: for each JSON option, one of the files above sets it.
func TestCaddyfileHasEveryOption(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(adaptedFiles)
	require.NoError(t, err)
	set := make(map[string]bool)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		if _, adapted, _ := strings.Cut(string(content), "----------\n"); strings.HasPrefix(adapted, "{") {
			var app any
			encoded, _ := appOf(t, []byte(adapted))
			if encoded != nil {
				require.NoError(t, json.Unmarshal(encoded, &app))
				jsonPaths("", app, set)
			}
		}
	}
	options := make(map[string]bool)
	optionPaths("", reflect.TypeFor[App](), options)
	for _, m := range caddy.GetModules(storeNamespace) {
		optionPaths("store", reflect.TypeOf(m.New()), options)
	}
	for _, m := range caddy.GetModules(profileNamespace) {
		optionPaths("activation.profile", reflect.TypeOf(m.New()), options)
	}
	assert.Greater(t, len(options), 80)
	for path := range options {
		last := path[strings.LastIndexByte(path, '.')+1:]
		if inexpressible[path] == "" && inexpressible[last] == "" {
			assert.True(t, set[path], "no Caddyfile in testdata/caddyfile sets %s", path)
		}
	}
}

// jsonPaths adds the paths of all members of a decoded value, without indices of lists.
func jsonPaths(path string, v any, to map[string]bool) {
	to[path] = true
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			jsonPaths(strings.TrimPrefix(path+"."+name, "."), member, to)
		}
	case []any:
		for _, element := range v {
			jsonPaths(path, element, to)
		}
	}
}

// optionPaths adds the paths of all options of a type of the configuration.
func optionPaths(path string, t reflect.Type, to map[string]bool) {
	for (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice) && t != reflect.TypeFor[json.RawMessage]() {
		t = t.Elem()
	}
	if path != "" {
		to[path] = true
	}
	if t.Kind() == reflect.Struct {
		for name, field := range configFields(t) {
			optionPaths(strings.TrimPrefix(path+"."+name, "."), field, to)
		}
	}
}

// The Caddyfile and the JSON of the example configure the same gateway, and `caddy fmt` leaves
// the Caddyfile as it is.
func TestExamplesAreEqual(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../Caddyfile.example")
	require.NoError(t, err)
	assert.Equal(t, string(caddyfile.Format(text)), string(text))
	adapted, warnings, err := adapt(text)
	require.NoError(t, err)
	assert.Empty(t, warnings)
	example, err := os.ReadFile("../caddy.json.example")
	require.NoError(t, err)
	_, fromCaddyfile := appOf(t, adapted)
	_, fromJSON := appOf(t, example)
	assert.JSONEq(t, string(encode(t, fromJSON)), string(encode(t, fromCaddyfile)))
}

// Whatever the block `dsapp` holds, parsing it does not panic, errors name the line, and what is
// accepted can be decoded strictly and is the same afterwards.
func FuzzCaddyfile(f *testing.F) {
	files, err := filepath.Glob(adaptedFiles)
	require.NoError(f, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(f, err)
		input, _, _ := strings.Cut(string(content), "----------\n")
		if _, block, found := strings.Cut(input, appName); found {
			f.Add(block)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := caddyfile.Tokenize([]byte(appName+text), "Caddyfile")
		if err != nil {
			return
		}
		app := new(App)
		if err := app.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			assert.Contains(t, err.Error(), "at Caddyfile:")
			return
		}
		encoded := encode(t, app)
		decoded := new(App)
		require.NoError(t, caddy.StrictUnmarshalJSON(encoded, decoded))
		assert.JSONEq(t, string(encoded), string(encode(t, decoded)))
		if app.StoreRaw == nil {
			return
		}
		var store map[string]any
		require.NoError(t, json.Unmarshal(app.StoreRaw, &store))
		info, err := caddy.GetModule(storeNamespace + "." + store["backend"].(string))
		require.NoError(t, err)
		delete(store, "backend")
		require.NoError(t, caddy.StrictUnmarshalJSON(encode(t, store), info.New()))
	})
}

// Every Caddyfile in the documents is accepted and formatted. Some of them are a part of the
// block `dsapp`.
func TestDocumentedCaddyfiles(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob("../docs/*.md")
	require.NoError(t, err)
	block := regexp.MustCompile("(?ms)^( *)```caddyfile\n(.*?)^ *```$")
	found := 0
	for _, document := range append(documents, "../README.md") {
		content, err := os.ReadFile(document)
		require.NoError(t, err)
		for _, m := range block.FindAllSubmatch(content, -1) {
			found++
			text := strings.TrimPrefix(strings.ReplaceAll("\n"+string(m[2]), "\n"+string(m[1]), "\n"), "\n")
			first, _, _ := strings.Cut(text, " ")
			if slices.Contains(blocksWith[first], appName) {
				text, first = inBlock(appName, text), appName
			}
			switch {
			case first == appName:
				text = inBlock("", text)
			case !strings.HasPrefix(text, "{"):
				text = inBlock("", inBlock(appName, "store embedded")) + "\n" + text
			}
			_, warnings, err := adapt([]byte(text))
			require.NoError(t, err, "%s:\n%s", document, text)
			assert.Empty(t, warnings, "%s:\n%s", document, text)
		}
	}
	assert.Greater(t, found, 5)
}

// inBlock puts a text into the block of a directive.
func inBlock(directive, text string) string {
	indented := strings.ReplaceAll("\n"+strings.TrimSuffix(text, "\n"), "\n", "\n\t")
	return strings.TrimPrefix(directive+" {", " ") + indented + "\n}\n"
}

// The comments in caddyfile.go list all options of the Caddyfile.
func TestCaddyfileOptionsAreListed(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("caddyfile.go")
	require.NoError(t, err)
	for option := range blocksWith {
		assert.Regexp(t, `(?m)^//\t *`+option+`\b`, string(source))
	}
}
