package configref

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/dsapp-gateway/dsapp-gateway/internal/docblocks"
)

const root = "../.."

var update = flag.Bool("update", false, "write the documents")

// The reference and the schema in docs are those that the types, their comments and the usages
// give, and no option lacks a comment, a default, a range or a usage. `go generate` writes them.
func TestWrittenReference(t *testing.T) {
	t.Parallel()
	r, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, generate := range map[string]func() (string, error){"configuration.md": r.markdown, "config.schema.json": r.schema} {
		got, err := generate()
		if err != nil {
			t.Fatal(err)
		}
		file := root + "/docs/" + name
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || got != string(want) {
			t.Errorf("docs/%s is not what the options give: run `go generate ./internal/configref` (%v)", name, err)
		}
	}
}

// compile returns the schema of docs. What no other schema can be compiled for fails the test.
func compile(t *testing.T) *jsonschema.Schema {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(root, "docs", "config.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	schema, err := jsonschema.NewCompiler().Compile(file)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// configurations returns every configuration of Caddy in JSON that the tree shows, and those that
// its Caddyfiles adapt to, by where they stand.
func configurations(t *testing.T) map[string]string {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	found := map[string]string{"caddy.json.example": read(filepath.Join(root, "caddy.json.example"))}
	golden, err := filepath.Glob(filepath.Join(root, "caddymodule", "testdata", "caddyfile", "*.caddyfiletest"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range golden {
		if _, adapted, _ := strings.Cut(read(name), "----------\n"); strings.HasPrefix(adapted, "{") {
			found[filepath.Base(name)] = adapted
		}
	}
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(documents, filepath.Join(root, "README.md")) {
		for _, b := range docblocks.Read(t, name) {
			place := fmt.Sprintf("%s:%d", filepath.Base(name), b.Line)
			switch {
			case b.Language != "json":
			case strings.Contains(b.Text, `"apps"`):
				found[place] = b.Text
			case strings.Contains(b.Text, `"dsapp": {`):
				found[place] = `{"apps": {` + b.Text + "}}"
			}
		}
	}
	return found
}

func decode(t *testing.T, text string) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// The schema accepts every configuration that the tree shows: the example, those of the documents,
// and what the Caddyfiles of the tests adapt to.
func TestSchemaAcceptsConfigurations(t *testing.T) {
	t.Parallel()
	schema := compile(t)
	all := configurations(t)
	if len(all) < 10 {
		t.Errorf("found only %d configurations", len(all))
	}
	for name, text := range all {
		if err := schema.Validate(decode(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The schema refuses an unknown member in each object of the app and of its handlers, and values
// that an option does not accept.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	schema := compile(t)
	objects := 0
	for name, text := range configurations(t) {
		whole := decode(t, text).(object)
		apps, _ := whole["apps"].(object)
		each(apps["dsapp"], func(o object) {
			if _, ofCaddy := o["provider"]; ofCaddy {
				return
			}
			objects++
			o["unknown"] = true
			if schema.Validate(whole) == nil {
				t.Errorf("%s: accepted an unknown member of %v", name, o)
			}
			delete(o, "unknown")
		})
	}
	if objects < 50 {
		t.Errorf("tried only %d objects", objects)
	}
	for _, app := range []string{
		`{"activation": {"exchange": "other"}}`, `{"activation": {"max_attempts": 0}}`, `{"activation": {"max_attempts": 101}}`,
		`{"activation": {"max_attempts": "3"}}`, `{"activation": {"profile": "rfc5054-1024-sha1"}}`, `{"activation": {"registration_lifetime": "10 minutes"}}`,
		`{"activation": []}`, `{"store": {"backend": "memory"}}`, `{"store": {"path": "x"}}`, `{"store": {"backend": "embedded", "addresses": []}}`,
		`{"api_keys": {}}`, `{"api_keys": [{"name": 1}]}`, `{"authentication_servers": {"tls": {"except_ports": []}}}`, `{"limits": {"max_body_size": "64KiB"}}`,
	} {
		if schema.Validate(decode(t, `{"apps": {"dsapp": `+app+"}}")) == nil {
			t.Errorf("accepted %s", app)
		}
	}
	const route = `{"apps": {"http": {"servers": {"s": {"routes": [{"handle": [{"handler": "subroute", "routes": [{"handle": [%s]}]}]}]}}}}}`
	for handler, accepted := range map[string]bool{
		`{"handler": "dsapp_docs", "console": true}`: true, `{"handler": "reverse_proxy", "other": 1}`: true,
		`{"handler": "dsapp_docs", "console": "on"}`: false, `{"handler": "dsapp_gateway", "other": 1}`: false,
	} {
		if err := schema.Validate(decode(t, fmt.Sprintf(route, handler))); (err == nil) != accepted {
			t.Errorf("%s: %v", handler, err)
		}
	}
}

// each calls try for every object in a decoded value.
func each(v any, try func(object)) {
	switch v := v.(type) {
	case object:
		try(v)
		for _, member := range v {
			each(member, try)
		}
	case []any:
		for _, element := range v {
			each(element, try)
		}
	}
}

// Every range in the reference is what the gateway accepts: the least and the greatest value are
// accepted, and what is beyond is refused with an error that names the option.
func TestDocumentedRanges(t *testing.T) { //nolint:paralleltest // Caddy validates one configuration at a time.
	r, err := load(root)
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, s := range r.sections {
		for _, o := range s.options {
			if o.least == "" {
				continue
			}
			tried++
			least, most := any(o.least), any(o.most)
			var below, above any
			if from, to, ok := o.bounds(); ok {
				least, most, below, above = from, to, from-1, to+1
			} else {
				from, err := caddy.ParseDuration(o.least)
				to, err2 := caddy.ParseDuration(o.most)
				if err != nil || err2 != nil {
					t.Fatalf("%s: range %s", o.path, o.span)
				}
				below, above = int64(from)-1, int64(to)+1
			}
			for _, value := range []any{least, most, below, above} {
				err := validate(t, s, o, value)
				switch refused := value == below || value == above; {
				case !refused && err != nil:
					t.Errorf("%s = %v: %v", o.path, value, err)
				case refused && value != int64(0) && (err == nil || !strings.Contains(err.Error(), o.member)):
					t.Errorf("%s = %v: %v", o.path, value, err)
				}
			}
		}
	}
	if tried < 25 {
		t.Errorf("tried only %d options", tried)
	}
}

// validate validates a configuration in which one option has a value.
func validate(t *testing.T, s section, o option, value any) error {
	t.Helper()
	app := object{
		"api_keys": []object{{"name": "phones", "class": "front_end", "key": "front-end-key-of-the-tests"}},
		"store":    object{"backend": "embedded", "path": filepath.Join(t.TempDir(), "dsapp.db")},
		"authentication_servers": object{
			"instances": []object{{"name": "primary", "url": "https://oas.invalid:8888/"}},
		},
	}
	if _, backend, ok := strings.Cut(s.title, ": "); ok && backend == "redis" {
		app["store"] = object{"backend": "redis", "addresses": []string{"redis.invalid:6379"}}
		app["sealing_keys"] = []string{strings.Repeat("5e41179a1b8ff3a3", 4)}
	}
	in := app
	path := strings.Split(o.path, ".")
	for _, name := range path[:len(path)-1] {
		if in[name] == nil {
			in[name] = object{}
		}
		in = in[name].(object)
	}
	in[o.member] = value
	encoded, err := json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"storage": object{"module": "file_system", "root": t.TempDir()},
		"logging": object{"logs": object{"default": object{"writer": object{"output": "discard"}}}},
		"apps":    object{"dsapp": app},
	})
	if err != nil {
		t.Fatal(err)
	}
	var config caddy.Config
	if err := caddy.StrictUnmarshalJSON(encoded, &config); err != nil {
		return err
	}
	return caddy.Validate(&config)
}

// An option without a comment, a default, a range or a usage in a Caddyfile is reported.
func TestUndocumentedOptions(t *testing.T) {
	t.Parallel()
	usage := &usage{below: []*usage{{text: "known <number>"}}}
	for _, tt := range []struct{ member, comment, want string }{
		{"known", "What it does. 1 to 9. Default: 3.", ""},
		{"known", "", "no comment"},
		{"known", "What it does. 1 to 9.", "Default"},
		{"known", "What it does. Default: 3.", "no range"},
		{"other", "What it does. 1 to 9. Default: 3.", "no usage"},
	} {
		o := option{path: tt.member, member: tt.member, typ: reflect.TypeFor[int](), comment: tt.comment}
		o.caddyfile = usage.find(tt.member).text
		o.read()
		got := strings.Join(o.problems("x"), "\n")
		if !strings.Contains(got, tt.want) || (tt.want == "") != (got == "") {
			t.Errorf("%s, %q: %q, want %q", tt.member, tt.comment, got, tt.want)
		}
	}
}
