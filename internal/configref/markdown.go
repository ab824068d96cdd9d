package configref

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// preamble is what stands before the options.
const preamble = `# Configuration

This page is generated from the comments of the options in [` + "`caddymodule`](../caddymodule)" + `; ` + "`go generate ./internal/configref`" + ` writes it anew, and
` + "`TestWrittenReference`" + ` fails while it is out of date. [Getting started](getting-started.md#configure-it) has a first configuration.

**JSON and Caddyfile.** In JSON, the options stand in the app ` + "`dsapp`" + `, and in a Caddyfile in the global option ` + "`dsapp { … }`" + `, under the same names. In a
Caddyfile an object is a block, and each element of a list of objects is an option of its own. The columns of the tables show both.

**Values.** Durations are texts such as ` + "`\"30s\"`" + ` in JSON, with the units ns, us, ms, s, m, h and d, and are written without quotes in a Caddyfile. Sizes can have
units in a Caddyfile (` + "`64KiB`" + `). Options marked with ¹ accept [placeholders](https://caddyserver.com/docs/conventions#placeholders) such as
` + "`{env.NAME}`" + ` and ` + "`{file./path}`" + `.

**When they take effect.** Every option takes effect with a reload (` + "`caddy reload`" + ` or ` + "`POST /load`" + `), and none needs a restart (` + "`TestLimitsFollowTheConfiguration`, `TestKeyRotation`" + `).
Requests under way end under the options with which they began (` + "`TestRequestsOutliveTheirConfiguration`" + `). A placeholder is resolved when a configuration is loaded; after
only the content of a file has changed, use ` + "`caddy reload --force`" + `. A registration keeps the lifetime and the profile that it was made with; after that profile was
taken away or changed, it cannot be activated any more (` + "`TestProfilesChangeUnderRegistrations`" + `). The counters of the
limits go on over a reload (` + "`TestLimitsSurviveReloads`" + `). A configuration with an error is refused as a whole and leaves nothing behind, and the old one stays in force
(` + "`TestInvalidConfigurations`, `TestRejectedConfigurationLeavesNothing`" + `). The ranges in the tables are those that the gateway accepts (` + "`TestDocumentedRanges`" + `).

**In an editor.** [config.schema.json](config.schema.json) is a JSON Schema of these options for whole configurations of Caddy: it completes names, shows the
comments, and marks unknown names and wrong values (` + "`TestSchemaAcceptsConfigurations`, `TestSchemaRefuses`" + `). For Visual Studio Code:

` + "```json\n" + `{"json.schemas": [{"fileMatch": ["caddy*.json"], "url": "./docs/config.schema.json"}]}
` + "```" + `

It knows the stores and handlers of this repository; what a module of your own adds, it does not know. ` + "`caddy validate`" + ` checks more than a schema can, and
` + "`caddy dsapp check`" + ` [tries the configuration](operation.md#trying-a-configuration).
`

const tlsTitle = "TLS"

// markdown returns docs/configuration.md.
func (r *reference) markdown() (string, error) {
	var b strings.Builder
	b.WriteString(preamble)
	for _, s := range r.sections {
		fmt.Fprintf(&b, "\n## %s\n\n%s", s.title, paragraphs(s.comment))
		if len(s.options) == 0 {
			continue
		}
		b.WriteString("\n| JSON | Caddyfile | default | values |\n|---|---|---|---|\n")
		for _, o := range s.options {
			name := code(o.path)
			if o.placeholders {
				name += "¹"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, o.inCaddyfile(), cell(o.preset), cell(o.values()))
		}
		for _, o := range s.options {
			if partOf(o.typ) == nil {
				fmt.Fprintf(&b, "\n### %s\n\n%s", code(o.path), paragraphs(o.comment))
			}
		}
	}
	members, err := tlsMembers()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&b, "\n## %s\n\nThe options about TLS in `authentication_servers.tls` and `store.tls` are [Caddy's](https://caddyserver.com/docs/json/apps/http/servers/routes/handle/reverse_proxy/transport/http/tls/).\n", tlsTitle)
	b.WriteString("In a Caddyfile they stand in the block of `authentication_servers` or `store redis`.\n\n| JSON | Caddyfile | |\n|---|---|---|\n")
	for _, name := range members {
		o := tlsOptions[name]
		usage := "–"
		if o.caddyfile != "" {
			usage = cell(code(o.caddyfile))
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", code(name), usage, cell(o.about))
	}
	return b.String(), nil
}

// inCaddyfile returns the usage of an option for a cell.
func (o option) inCaddyfile() string {
	if o.isTLS() {
		return "[`tls_…`](#" + anchor(tlsTitle) + ")"
	}
	return cell(code(o.caddyfile))
}

// values returns the values of an option for a cell.
func (o option) values() string {
	if choices := o.choices(); choices != nil {
		return "`" + strings.Join(choices, "`, `") + "`"
	}
	if o.span != "" {
		return o.span
	}
	switch {
	case o.namespace != "":
		var names []string
		for _, m := range caddy.GetModules(o.namespace) {
			names = append(names, code(m.ID.Name()))
		}
		known := strings.Join(names, ", ")
		if len(o.words) > 0 {
			known = "`" + strings.Join(o.words, "`, `") + "`, or a module: " + known
		}
		if o.typ == reflect.TypeFor[[]json.RawMessage]() {
			known = "a list, each of " + known
		}
		return known
	case o.isTLS():
		return "an object"
	case partOf(o.typ) != nil && o.typ.Kind() == reflect.Slice:
		return "a list of [objects](#" + anchor(o.path) + ")"
	case partOf(o.typ) != nil:
		return "an [object](#" + anchor(o.path) + "): " + strings.ToLower(firstSentence(o.comment))
	case o.typ.Kind() == reflect.Slice:
		return "a list of texts"
	}
	return "a text"
}

// paragraphs returns a comment whose lines the comment broke.
func paragraphs(comment string) string { return strings.TrimSpace(comment) + "\n" }

var punctuation = regexp.MustCompile(`[^a-z0-9_ -]`)

// anchor returns what links to a heading name it.
func anchor(heading string) string {
	return strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

func firstSentence(comment string) string {
	first, _, _ := strings.Cut(flow.ReplaceAllString(comment, " "), ". ")
	return strings.TrimSuffix(strings.TrimSpace(first), ".")
}

func code(text string) string { return "`" + text + "`" }

// cell returns a text as a cell of a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
