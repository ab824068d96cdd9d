package configref

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

type object = map[string]any

const dialect = "https://json-schema.org/draft/2020-12/schema"

// schema returns docs/config.schema.json: whole configurations of Caddy, of which it describes
// the app and the handlers of the gateway, and leaves the rest to Caddy.
func (r *reference) schema() (string, error) {
	definitions := object{}
	var handlers []any
	for _, s := range r.sections {
		definition := s.schema()
		if name, ok := strings.CutPrefix(s.title, "handler "); ok {
			in(definition, "properties")["handler"] = object{"const": name}
			handlers = append(handlers, choose("handler", name, s.title))
		}
		if path, name, ok := strings.Cut(s.title, ": "); ok {
			in(definition, "properties")[r.inlineKey(path)] = object{"const": name}
		}
		definitions[s.title] = definition
	}
	tls, err := tlsSchema()
	if err != nil {
		return "", err
	}
	definitions[tlsTitle] = tls
	definitions["duration"] = object{
		"description": "A duration such as 30s; a number counts nanoseconds.",
		"type":        []string{"string", "integer"}, "pattern": `^([0-9]*\.?[0-9]+(ns|us|µs|μs|ms|s|m|h|d))+$|^0$`,
	}
	// A route of Caddy's can have routes itself.
	definitions["routes"] = object{"type": "array", "items": object{"properties": object{"handle": object{"type": "array", "items": object{
		"properties": object{"routes": ref("routes")}, "allOf": handlers,
	}}}}}
	encoded, err := json.MarshalIndent(object{
		"$schema": dialect, "$id": "https://github.com/dsapp-gateway/dsapp-gateway/blob/main/docs/config.schema.json",
		"title":       "Caddy with DSAPP Gateway",
		"description": "A configuration of Caddy in JSON, with the app dsapp. Written by `go generate ./internal/configref`.",
		"type":        "object",
		"properties": object{"apps": object{"type": "object", "properties": object{
			"dsapp": ref(r.sections[0].title),
			"http": object{"properties": object{"servers": object{"additionalProperties": object{
				"properties": object{"routes": ref("routes")},
			}}}},
		}}},
		"$defs": definitions,
	}, "", "\t")
	return string(encoded) + "\n", err
}

// inlineKey returns the member that names the module which stands at a path.
func (r *reference) inlineKey(path string) string {
	for _, s := range r.sections {
		for _, o := range s.options {
			if o.path == path {
				return o.inlineKey
			}
		}
	}
	return ""
}

// schema returns that of the objects of a section.
func (s section) schema() object {
	properties := object{"@id": object{"type": "string", "description": "A name for the object in Caddy's admin API."}}
	for _, o := range s.options {
		properties[o.member] = o.schema()
	}
	return object{"type": "object", "description": strings.TrimSpace(s.comment), "properties": properties, "additionalProperties": false}
}

// schema returns that of the values of an option.
func (o option) schema() object {
	described := func(s object) object {
		s["description"] = strings.TrimSpace(o.comment)
		return s
	}
	switch {
	case o.namespace != "" && o.typ == reflect.TypeFor[[]json.RawMessage]():
		return described(object{"type": "array", "minItems": 1, "items": o.modules()})
	case o.namespace != "":
		return described(o.modules())
	}
	if o.isTLS() {
		return described(ref(tlsTitle))
	}
	if o.typ.Kind() == reflect.Slice && partOf(o.typ) != nil {
		return described(object{"type": "array", "items": ref(o.path)})
	}
	if partOf(o.typ) != nil {
		return described(ref(o.path))
	}
	s := valueSchema(o.typ)
	if choices := o.choices(); choices != nil {
		s = object{"enum": choices}
	}
	if least, most, ok := o.bounds(); ok {
		s["minimum"], s["maximum"] = least, most
	}
	return described(s)
}

// modules returns the schema of what one of several modules accepts.
func (o option) modules() object {
	s := object{"type": "object", "required": []string{o.inlineKey}}
	var names []string
	var each []any
	for _, m := range caddy.GetModules(o.namespace) {
		names = append(names, m.ID.Name())
		each = append(each, choose(o.inlineKey, m.ID.Name(), o.sectionsOf+": "+m.ID.Name()))
	}
	s["properties"] = object{o.inlineKey: object{"enum": names}}
	if strings.HasPrefix(o.namespace, ourNamespace+".") {
		s["allOf"] = each
	}
	if len(o.words) > 0 {
		return object{"anyOf": []object{{"enum": o.words}, s}}
	}
	return s
}

// choose returns a schema that applies a definition to the objects whose member has a value.
func choose(member, value, definition string) object {
	return object{
		"if":   object{"required": []string{member}, "properties": object{member: object{"const": value}}},
		"then": ref(definition),
	}
}

// tlsSchema returns the schema of Caddy's options about TLS.
func tlsSchema() (object, error) {
	if _, err := tlsMembers(); err != nil {
		return nil, err
	}
	properties := object{}
	for _, f := range fields(reflect.TypeFor[reverseproxy.TLSConfig]()) {
		about := tlsOptions[f.member]
		if about.refused {
			continue
		}
		s := valueSchema(f.Type)
		if f.Type == reflect.TypeFor[json.RawMessage]() {
			s = object{"type": "object", "required": []string{"provider"}}
		}
		s["description"] = about.about
		properties[f.member] = s
	}
	return object{"type": "object", "properties": properties, "additionalProperties": false}, nil
}

func valueSchema(t reflect.Type) object {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == duration:
		return ref("duration")
	case isNumber(t):
		return object{"type": "integer"}
	case t.Kind() == reflect.Bool:
		return object{"type": "boolean"}
	case t.Kind() == reflect.Slice:
		return object{"type": "array", "items": valueSchema(t.Elem())}
	}
	return object{"type": "string"}
}

func ref(definition string) object {
	return object{"$ref": fmt.Sprintf("#/$defs/%s", strings.NewReplacer("~", "~0", "/", "~1", " ", "%20", "[", "%5B", "]", "%5D").Replace(definition))}
}

func in(o object, member string) object { return o[member].(object) }
