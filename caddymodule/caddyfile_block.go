package caddymodule

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"github.com/dustin/go-humanize"
)

// block is a block of the Caddyfile that configures a T.
type block[T any] struct {
	name    string // of the option with the block
	options settings[T]
}

// settings are the options of a block by their names.
type settings[T any] map[string]setting[T]

// blocksWith has the names of the blocks that have an option. It is complete when the
// package is initialised.
var blocksWith = make(map[string][]string)

func newBlock[T any](name string, options settings[T]) block[T] {
	for option := range options {
		blocksWith[option] = append(blocksWith[option], name)
		slices.Sort(blocksWith[option])
	}
	return block[T]{name, options}
}

// setting is how one option is read into a T.
type setting[T any] struct {
	// repeatable says whether the option can be given several times.
	repeatable bool
	// secret says whether its arguments are secrets.
	secret bool
	// read reads the arguments of the option, and its block if it has one, into a T. The
	// dispenser is at the name of the option, and afterwards at the last token read.
	read func(d *caddyfile.Dispenser, to *T) error
}

// read reads the block into a T. The dispenser is before the opening brace. Without one, read
// does nothing and returns false.
func (b block[T]) read(d *caddyfile.Dispenser, to *T) (found bool, err error) {
	line := d.Line()
	given := make(map[string]caddyfile.Token)
	previous := b.name
	nesting := d.Nesting()
	for d.NextBlock(nesting) {
		token := d.Token()
		option, ok := b.options[token.Text]
		first, repeated := given[token.Text]
		switch {
		case d.ValRaw() == "{":
			return true, d.Errf("%s takes no block", previous)
		case !ok:
			return true, d.WrapErr(b.unknown(token.Text))
		case repeated && !option.repeatable:
			return true, d.Errf("%s can be given only once, and is at %s:%d already", token.Text, first.File, first.Line)
		}
		if err := option.read(d, to); err != nil {
			return true, err
		}
		given[token.Text] = token
		previous = token.Text
	}
	if d.Nesting() > nesting {
		return true, d.Errf("the block of %s, which begins on line %d, has no closing brace", b.name, line)
	}
	return d.ValRaw() == "}", nil
}

// require is read for an option that makes no sense without a block.
func (b block[T]) require(d *caddyfile.Dispenser, to *T) error {
	found, err := b.read(d, to)
	if err == nil && !found {
		return d.Errf("%s takes a block with options; known are %s", b.name, strings.Join(sortedNames(b.options), ", "))
	}
	return err
}

// readModule reads a module. The dispenser begins with its name. The block may be missing.
func (b block[T]) readModule(d *caddyfile.Dispenser, to *T) error {
	d.Next()
	if err := readNoArguments(d); err != nil {
		return err
	}
	_, err := b.read(d, to)
	return err
}

// unknown returns the error for a word that is no option of the block.
func (b block[T]) unknown(found string) error {
	known := sortedNames(b.options)
	if others := blocksWith[found]; len(others) > 0 {
		return fmt.Errorf("%s: unknown option %q, which belongs into %s; it is misplaced, or a closing brace before it is missing; known are %s",
			b.name, found, strings.Join(others, " or "), strings.Join(known, ", "))
	}
	shown := optionLike
	for _, option := range b.options {
		if option.secret {
			shown = compoundOption
		}
	}
	if nearestName(found, known) == "" && !shown.MatchString(found) {
		return fmt.Errorf("%s: unknown option (the word is not shown, it may be a secret), known are %s", b.name, strings.Join(known, ", "))
	}
	return unknownName(b.name+": unknown option", found, known)
}

// These match words that are shown in errors although they are no known options; compoundOption
// does so in blocks with secrets. Others may be secrets that began a line by mistake.
var (
	optionLike     = regexp.MustCompile(`^[a-z_]{1,30}$`)
	compoundOption = regexp.MustCompile(`^[a-z]{1,15}(_[a-z]{1,15}){1,3}$`)
)

// kind is a kind of arguments.
type kind[V any] struct {
	placeholder string // in the usage of an option
	form        string // what is accepted
	secret      bool
	parse       func(text string) (value V, ok bool)
}

var (
	// asText is not checked here, except that it must not be empty: an empty one would mean
	// the default, for example no password.
	asText = kind[string]{"<text>", "a text that is not empty", false, func(s string) (string, bool) { return s, s != "" }}

	asSecret = kind[string]{asText.placeholder, asText.form, true, asText.parse}

	asDuration = kind[caddy.Duration]{"<duration>", durationForm, false, func(s string) (caddy.Duration, bool) {
		d, err := caddy.ParseDuration(s)
		return caddy.Duration(d), err == nil
	}}

	asSize = kind[int64]{"<size>", "a size such as 64KiB or a number of bytes", false, func(s string) (int64, bool) {
		n, err := humanize.ParseBytes(s)
		return int64(n), err == nil && n <= math.MaxInt64
	}}

	asTruth = kind[bool]{"true|false", "true or false", false, func(s string) (bool, bool) { return s == "true", s == "true" || s == "false" }}

	asSwitch = kind[bool]{"on|off", "on or off", false, func(s string) (bool, bool) { return s == "on", s == "on" || s == "off" }}

	asNumber = wholeNumber[int]()
	asInt32  = wholeNumber[int32]()
)

func wholeNumber[N int | int32]() kind[N] {
	bits := reflect.TypeFor[N]().Bits()
	return kind[N]{"<number>", wholeNumberForm(bits), false, func(s string) (N, bool) {
		n, err := strconv.ParseInt(s, 10, bits)
		return N(n), err == nil
	}}
}

// asWord is the kind of one of several words.
func asWord[S ~string](words ...S) kind[string] {
	texts := make([]string, len(words))
	known := make(map[string]bool)
	for i, w := range words {
		texts[i] = string(w)
		known[string(w)] = true
	}
	last := len(texts) - 1
	form := strings.Join(texts[:last], ", ") + " or " + texts[last]
	return kind[string]{strings.Join(texts, "|"), form, false, func(s string) (string, bool) { return s, known[s] }}
}

// read parses an argument of the option name, at which the dispenser is.
func (k kind[V]) read(d *caddyfile.Dispenser, name, argument string) (V, error) {
	v, ok := k.parse(argument)
	if !ok {
		return v, d.Errf("%s must be %s, found %q", name, k.form, argument)
	}
	return v, nil
}

// one is an option with one argument.
func one[T, V any](k kind[V], set func(*T, V)) setting[T] {
	return setting[T]{secret: k.secret, read: func(d *caddyfile.Dispenser, to *T) error {
		name := d.Val()
		arguments, err := readArguments(d, 1, 1, k.placeholder)
		if err != nil {
			return err
		}
		v, err := k.read(d, name, arguments[0])
		if err == nil {
			set(to, v)
		}
		return err
	}}
}

// list is an option with one argument or more, which can be repeated. Each argument is added.
func list[T, V any](k kind[V], add func(*T, V)) setting[T] {
	return setting[T]{repeatable: true, secret: k.secret, read: func(d *caddyfile.Dispenser, to *T) error {
		name := d.Val()
		arguments, err := readArguments(d, 1, math.MaxInt, k.placeholder+"...")
		if err != nil {
			return err
		}
		for _, a := range arguments {
			v, err := k.read(d, name, a)
			if err != nil {
				return err
			}
			add(to, v)
		}
		return nil
	}}
}

// toggle is an option that is true without an argument.
func toggle[T any](set func(*T, bool)) setting[T] {
	return setting[T]{read: func(d *caddyfile.Dispenser, to *T) error {
		name := d.Val()
		arguments, err := readArguments(d, 0, 1, "["+asTruth.placeholder+"]")
		if err != nil {
			return err
		}
		v := true
		if len(arguments) > 0 {
			if v, err = asTruth.read(d, name, arguments[0]); err != nil {
				return err
			}
		}
		set(to, v)
		return nil
	}}
}

// section is an option with a block for a part of T.
func section[T, S any](of func(*T) *S, b block[S]) setting[T] {
	return setting[T]{read: func(d *caddyfile.Dispenser, to *T) error {
		if err := readNoArguments(d); err != nil {
			return err
		}
		return b.require(d, of(to))
	}}
}

// argument is a text that an element begins with.
type argument[E any] struct {
	name string
	set  func(*E, string)
}

// element is an option that adds an E: it has arguments, and a block unless b is nil.
func element[T, E any](b *block[E], add func(*T, E), arguments ...argument[E]) setting[T] {
	var usage []string
	for _, a := range arguments {
		usage = append(usage, "<"+a.name+">")
	}
	if b != nil {
		usage = append(usage, "{...}")
	}
	return setting[T]{repeatable: true, read: func(d *caddyfile.Dispenser, to *T) error {
		name := d.Val()
		given, err := readArguments(d, len(arguments), len(arguments), usage...)
		if err != nil {
			return err
		}
		var e E
		for i, a := range arguments {
			v, err := asText.read(d, "the "+a.name+" of "+name, given[i])
			if err != nil {
				return err
			}
			a.set(&e, v)
		}
		if b != nil {
			if err := b.require(d, &e); err != nil {
				return err
			}
		}
		add(to, e)
		return nil
	}}
}

// module is an option with the name of a Caddy module from a namespace, and with what that
// module accepts. The JSON of the module has its name under key.
func module[T any](namespace, key string, set func(*T, json.RawMessage)) setting[T] {
	return setting[T]{read: func(d *caddyfile.Dispenser, to *T) error {
		option := d.Val()
		if !d.NextArg() {
			return d.Errf("%s takes the name of a %s; known are %s", option, key, strings.Join(moduleNames(namespace), ", "))
		}
		name := d.Val()
		if _, err := caddy.GetModule(namespace + "." + name); err != nil {
			return d.WrapErr(unknownName(option+": unknown "+key, name, moduleNames(namespace)))
		}
		m, err := caddyfile.UnmarshalModule(d, namespace+"."+name)
		if err != nil {
			return err
		}
		encoded, err := encodeModule(m, key, name)
		set(to, encoded)
		return err
	}}
}

// encodeModule encodes a module with its name under key. Unlike caddyconfig.JSONModuleObject, it
// reports errors and keeps all digits of numbers.
func encodeModule(m any, key, name string) (json.RawMessage, error) {
	encoded, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	var members map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(encoded)))
	decoder.UseNumber()
	if err := decoder.Decode(&members); err != nil {
		return nil, err
	}
	members[key] = name
	return json.Marshal(members)
}

// moduleNames returns the names of the modules in a namespace.
func moduleNames(namespace string) []string {
	known := make(map[string]struct{})
	for _, m := range caddy.GetModules(namespace) {
		known[m.ID.Name()] = struct{}{}
	}
	return sortedNames(known)
}

type tlsPointer = *reverseproxy.TLSConfig

// tlsSettings has the options of Caddy's directive `reverse_proxy` about TLS, except those that
// clientTLS refuses and those that Caddy deprecates.
var tlsSettings = settings[reverseproxy.TLSConfig]{
	"tls":            {read: func(d *caddyfile.Dispenser, _ *reverseproxy.TLSConfig) error { return readNoArguments(d) }},
	"tls_trust_pool": module("tls.ca_pool.source", "provider", func(t *reverseproxy.TLSConfig, v json.RawMessage) { t.CARaw = v }),
	"tls_client_auth": {read: func(d *caddyfile.Dispenser, t *reverseproxy.TLSConfig) error {
		files, err := readArguments(d, 2, 2, "<certificate_file>", "<key_file>")
		if err == nil {
			t.ClientCertificateFile, t.ClientCertificateKeyFile = files[0], files[1]
		}
		return err
	}},
	"tls_server_name":          one(asText, func(t *reverseproxy.TLSConfig, v string) { t.ServerName = v }),
	"tls_curves":               list(asText, func(t *reverseproxy.TLSConfig, v string) { t.Curves = append(t.Curves, v) }),
	"tls_renegotiation":        one(asWord("never", "once", "freely"), func(t *reverseproxy.TLSConfig, v string) { t.Renegotiation = v }),
	"tls_insecure_skip_verify": toggle(func(t *reverseproxy.TLSConfig, v bool) { t.InsecureSkipVerify = v }),
}

// handshakeSettings has the option about TLS that the redis store does not have.
var handshakeSettings = settings[reverseproxy.TLSConfig]{
	"tls_timeout": one(asDuration, func(t *reverseproxy.TLSConfig, v caddy.Duration) { t.HandshakeTimeout = v }),
}

// withTLS adds options about TLS to others. Each of them switches TLS on.
func withTLS[T any](others settings[T], of func(*T) *tlsPointer, added ...settings[reverseproxy.TLSConfig]) settings[T] {
	all := maps.Clone(others)
	for _, options := range added {
		for name, s := range options {
			all[name] = setting[T]{s.repeatable, s.secret, func(d *caddyfile.Dispenser, to *T) error {
				p := of(to)
				if *p == nil {
					*p = new(reverseproxy.TLSConfig)
				}
				return s.read(d, *p)
			}}
		}
	}
	return all
}

// parseBare parses a directive without arguments and options.
func parseBare(d *caddyfile.Dispenser) error {
	d.Next() // the name of the directive
	name := d.Val()
	if err := readNoArguments(d); err != nil {
		return err
	}
	if d.Next() {
		return d.Errf("%s takes no block", name)
	}
	return nil
}

func readNoArguments(d *caddyfile.Dispenser) error {
	_, err := readArguments(d, 0, 0)
	return err
}

// readArguments reads the arguments of the option at which the dispenser is. There must be
// from least to most of them. Errors show none: they may be secrets.
func readArguments(d *caddyfile.Dispenser, least, most int, usage ...string) (arguments []string, err error) {
	name := d.Val()
	for d.NextArg() {
		if d.ValRaw() == "}" {
			return nil, d.Errf("the closing brace after %s must be on a line of its own", name)
		}
		arguments = append(arguments, d.Val())
	}
	if len(arguments) >= least && len(arguments) <= most {
		return arguments, nil
	}
	if most == 0 {
		return nil, d.Errf("%s takes no arguments, found %d", name, len(arguments))
	}
	hint := ""
	if len(arguments) > most {
		hint = "; write an argument that contains spaces in quotes"
	}
	return nil, d.Errf("wrong number of arguments: found %d, the usage is: %s %s%s", len(arguments), name, strings.Join(usage, " "), hint)
}
