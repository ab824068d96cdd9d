// Package configref writes the reference of the configuration, docs/configuration.md, and its JSON
// Schema, docs/config.schema.json. Both follow from the types that Caddy decodes the configuration
// into, from the comments of their fields, and from the comments of the methods
// UnmarshalCaddyfile, which have the usage of each option in a Caddyfile.
//
// The package reads the source tree, and only tests use it: no gateway contains it.
package configref

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
)

//go:generate go test . -run ^TestWritten -update

// ourNamespace begins the names of the Caddy modules whose options are listed here.
const ourNamespace = "dsapp"

// section is an object of the configuration: the app, a part of it, a module or a handler.
type section struct {
	title   string
	typ     reflect.Type
	comment string
	options []option
}

// option is one option.
type option struct {
	path      string // in JSON, from the section on
	member    string // its last element
	typ       reflect.Type
	comment   string
	caddyfile string // its usage, empty if a Caddyfile cannot say it

	// What the comment says, empty if it says nothing.
	preset       string   // the default, or "required"
	span         string   // the range, as a text
	least, most  string   // the range of a number or of a duration
	words        []string // all values; of a module, the names that can stand for it
	placeholders bool

	// What a guest module is chosen from.
	namespace, inlineKey string
	// sectionsOf is the path of the option whose sections describe the modules: that of the
	// first option for the namespace.
	sectionsOf string
}

// isTLS is true for Caddy's options about TLS.
func (o option) isTLS() bool { return o.typ == reflect.TypeFor[*reverseproxy.TLSConfig]() }

// reference has all sections. The first one is the app.
type reference struct {
	sections []section
	sources  sources
	// modules has the first option for each namespace.
	modules map[string]option
}

// load reads the configuration from the types and from their sources. Its error lists every
// option without a comment, a default, a range or a usage.
func load(root string) (*reference, error) {
	r := &reference{sources: sources{root: root, packages: map[string]*comments{}}, modules: map[string]option{}}
	app := reflect.TypeFor[caddymodule.App]()
	usage, err := r.sources.usage(app)
	if err != nil {
		return nil, err
	}
	problems := r.add("dsapp", "", app, usage)
	for _, m := range caddy.GetModules("http.handlers") {
		if !strings.HasPrefix(m.ID.Name(), ourNamespace) {
			continue
		}
		t := reflect.TypeOf(m.New()).Elem()
		if usage, err = r.sources.usage(t); err != nil {
			return nil, err
		}
		problems = append(problems, r.add("handler "+m.ID.Name(), "", t, usage)...)
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%s", strings.Join(problems, "\n"))
	}
	return r, nil
}

// add adds the section for the type t at a path, and those of its parts. usage has the usages
// below the path.
func (r *reference) add(title, path string, t reflect.Type, usage *usage) (problems []string) {
	here := len(r.sections)
	r.sections = append(r.sections, section{title: title, typ: t, comment: r.sources.typeComment(t)})
	var options []option
	for _, f := range fields(t) {
		o := option{path: join(path, f.member), member: f.member, typ: f.Type, comment: r.sources.fieldComment(f.owner, f.Name)}
		tag, isModule := f.Tag.Lookup("caddy")
		o.readModule(tag)
		o.read()
		below := usage.find(f.member)
		o.caddyfile = below.text
		if part := partOf(f.Type); part != nil {
			if f.Type.Kind() == reflect.Slice {
				o.path += "[]"
			}
			problems = append(problems, r.add(o.path, o.path, part, below)...)
		}
		if first, ok := r.modules[o.namespace]; isModule && ok {
			o.sectionsOf, o.words = first.path, first.words
		} else if isModule {
			o.sectionsOf = o.path
			r.modules[o.namespace] = o
			problems = append(problems, r.addModules(o)...)
		}
		problems = append(problems, o.problems(title)...)
		options = append(options, o)
	}
	r.sections[here].options = options
	return problems
}

// addModules adds a section for each of our modules that can stand at o.
func (r *reference) addModules(o option) (problems []string) {
	if !strings.HasPrefix(o.namespace, ourNamespace+".") {
		return nil
	}
	for _, m := range caddy.GetModules(o.namespace) {
		t := reflect.TypeOf(m.New()).Elem()
		usage, err := r.sources.usage(t)
		if err != nil {
			return append(problems, err.Error())
		}
		problems = append(problems, r.add(fmt.Sprintf("%s: %s", o.path, m.ID.Name()), o.path, t, usage)...)
	}
	return problems
}

// problems returns what is missing in the comments about o.
func (o option) problems(section string) (problems []string) {
	missing := func(what string) {
		problems = append(problems, fmt.Sprintf("option %s of %s: %s", o.path, section, what))
	}
	if o.comment == "" {
		missing("the field has no comment")
		return problems
	}
	if o.preset == "" && partOf(o.typ) == nil {
		missing(`the comment has neither "Default: …" nor "Required."`)
	}
	if o.span == "" && (isNumber(o.typ) || o.typ == duration) {
		missing("the comment has no range such as \"1 to 100\", \"At most 100\" or \"From `1s` to `24h`\"")
	}
	if o.caddyfile == "" && !o.isTLS() {
		missing("it has no usage in the comment of UnmarshalCaddyfile")
	}
	return problems
}

var (
	duration = reflect.TypeFor[caddy.Duration]()

	flow         = regexp.MustCompile(`\s+`)
	presetText   = regexp.MustCompile(`Default: (.+?)(?:\.$|\. |; then )`)
	durationSpan = regexp.MustCompile("From `(\\w+)` to `(\\w+)`")
	numberSpan   = regexp.MustCompile(`\b(-?\d+) to (\d+)\b`)
	openSpan     = regexp.MustCompile("(?:\\b\\d+ to `\\w+`|At most `\\w+`(?: minus 1)?|[Mm]ust not be 0)")
	mostOnly     = regexp.MustCompile(`\bAt most (\d+)\b`)
	required     = regexp.MustCompile(`(?:^|\. )([^.]*\b[Rr]equired\b[^.]*)\.`)
	zero         = regexp.MustCompile(`\bor 0\b|\b0 means\b`)
	oneOf        = regexp.MustCompile("One of ((?:`[^`]+`(?:, | and | or )?)+)")
	word         = regexp.MustCompile("`([^`]+)`")
)

// read takes out of the comment what tables show.
func (o *option) read() {
	text := strings.TrimSpace(flow.ReplaceAllString(o.comment, " "))
	o.placeholders = strings.Contains(text, "Accepts placeholders")
	if m := required.FindStringSubmatch(text); m != nil {
		o.preset = strings.ToLower(m[1])
	}
	if m := presetText.FindStringSubmatch(text); m != nil {
		o.preset = m[1]
	}
	if m := oneOf.FindStringSubmatch(text); m != nil && (o.typ.Kind() == reflect.String || o.namespace != "") {
		for _, w := range word.FindAllStringSubmatch(m[1], -1) {
			o.words = append(o.words, w[1])
		}
	}
	switch {
	case o.typ == duration || o.typ.Kind() == reflect.Pointer && o.typ.Elem() == duration:
		if m := durationSpan.FindStringSubmatch(text); m != nil {
			o.least, o.most = m[1], m[2]
			o.span = fmt.Sprintf("`%s` to `%s`", o.least, o.most)
			if strings.Contains(text, "0 means") {
				o.span += ", or 0"
			}
		}
	case isNumber(o.typ):
		if m := numberSpan.FindStringSubmatch(text); m != nil {
			o.least, o.most = m[1], m[2]
		} else if m := mostOnly.FindStringSubmatch(text); m != nil {
			o.least, o.most = "0", m[1]
		} else {
			o.span = strings.ToLower(openSpan.FindString(text))
			return
		}
		if zero.MatchString(text) {
			o.least = "0"
		}
		o.span = o.least + " to " + o.most
	case o.typ.Kind() == reflect.Bool:
		o.span = "true, false"
	}
}

// readModule reads the tag with which Caddy finds the module that stands at an option.
func (o *option) readModule(tag string) {
	for pair := range strings.FieldsSeq(tag) {
		switch name, value, _ := strings.Cut(pair, "="); name {
		case "namespace":
			o.namespace = value
		case "inline_key":
			o.inlineKey = value
		}
	}
}

// choices returns the values of an option of which a Caddyfile or the comment lists all.
func (o option) choices() []string {
	if o.typ.Kind() != reflect.String {
		return nil
	}
	_, argument, _ := strings.Cut(o.caddyfile, " ")
	if strings.Contains(argument, "|") && !strings.ContainsAny(argument, " <[{") {
		return strings.Split(argument, "|")
	}
	return o.words
}

// bounds returns the range of a number.
func (o option) bounds() (least, most int64, known bool) {
	least, err := strconv.ParseInt(o.least, 10, 64)
	most, err2 := strconv.ParseInt(o.most, 10, 64)
	return least, most, err == nil && err2 == nil
}

// field is a field with a JSON name, and the type that declares it.
type field struct {
	reflect.StructField

	member string
	owner  reflect.Type
}

// fields returns the fields with JSON names of a struct and of the structs that it embeds.
func fields(t reflect.Type) (found []field) {
	for f := range t.Fields() {
		member, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case member != "" && member != "-":
			found = append(found, field{f, member, t})
		case f.Anonymous && member == "" && f.Type.Kind() == reflect.Struct:
			found = append(found, fields(f.Type)...)
		}
	}
	return found
}

// partOf returns the struct of this module that a field or the elements of its list have.
func partOf(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() == reflect.Struct && inModule(t.PkgPath()) && !reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return t
	}
	return nil
}

func isNumber(t reflect.Type) bool {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t != duration && t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64
}

func join(path, member string) string { return strings.TrimPrefix(path+"."+member, ".") }

// tlsOptions are Caddy's options about TLS by their JSON names.
var tlsOptions = map[string]struct {
	caddyfile, about string
	refused          bool
}{
	"ca":                          {"tls_trust_pool <module> { … }", "where the trusted certificate authorities are; in JSON, `provider` names the module, such as `file` with `pem_files`", false},
	"client_certificate_file":     {"tls_client_auth <certificate_file> <key_file>", "the certificate that the gateway presents", false},
	"client_certificate_key_file": {"tls_client_auth <certificate_file> <key_file>", "its key", false},
	"server_name":                 {"tls_server_name <name>", "the name in the certificate of the server, if it is not the host of its address", false},
	"handshake_timeout":           {"tls_timeout <duration>", "how long a handshake may take; not with Redis", false},
	"curves":                      {"tls_curves <curves...>", "the elliptic curves of the key exchange", false},
	"renegotiation":               {"tls_renegotiation never|once|freely", "whether a server may negotiate anew", false},
	"insecure_skip_verify":        {"tls_insecure_skip_verify", "does not verify the server: everybody on the network can then act as the server", false},
	"root_ca_pool":                {"", "deprecated by Caddy: use `ca`", false},
	"root_ca_pem_files":           {"", "deprecated by Caddy: use `ca`", false},
	"client_certificate_automate": {"", "refused", true},
	"except_ports":                {"", "refused", true},
}

// tlsMembers returns the names of Caddy's options about TLS, and an error if they are not
// those of tlsOptions.
func tlsMembers() ([]string, error) {
	var members []string
	for _, f := range fields(reflect.TypeFor[reverseproxy.TLSConfig]()) {
		if _, ok := tlsOptions[f.member]; !ok {
			return nil, fmt.Errorf("tlsOptions lacks %s, which Caddy has", f.member)
		}
		members = append(members, f.member)
	}
	for _, name := range slices.Sorted(maps.Keys(tlsOptions)) {
		if !slices.Contains(members, name) {
			return nil, fmt.Errorf("tlsOptions has %s, which Caddy has not", name)
		}
	}
	return members, nil
}
