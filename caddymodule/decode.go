package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// decodeConfig decodes the JSON configuration of a module into to, which points to a struct
// type without an UnmarshalJSON method. Errors begin with the path of the option and say
// what is accepted there.
func decodeConfig(data []byte, to any) error {
	if err := checkConfig(data, reflect.TypeOf(to).Elem(), ""); err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

// checkConfig checks that data, which is at path, can be decoded into a value of type t.
func checkConfig(data []byte, t reflect.Type, path string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if bytes.Equal(bytes.TrimSpace(data), []byte("null")) {
		return nil
	}
	switch parts := !reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()); {
	case parts && t.Kind() == reflect.Struct:
		var members map[string]json.RawMessage
		if json.Unmarshal(data, &members) != nil {
			return withPath(path, errors.New("must be an object"))
		}
		fields := configFields(t)
		for _, name := range sortedNames(members) {
			field, ok := fields[name]
			if !ok {
				return withPath(path, unknownName("unknown field", name, sortedNames(fields)))
			}
			if err := checkConfig(members[name], field, strings.TrimPrefix(path+"."+name, ".")); err != nil {
				return err
			}
		}
		return nil
	case parts && t.Kind() == reflect.Slice:
		var elements []json.RawMessage
		if json.Unmarshal(data, &elements) != nil {
			return withPath(path, errors.New("must be a list"))
		}
		for i, element := range elements {
			if err := checkConfig(element, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	default:
		return checkValue(data, t, path)
	}
}

// checkValue checks a value that is neither an object nor a list of options.
func checkValue(data []byte, t reflect.Type, path string) error {
	if json.Unmarshal(data, reflect.New(t).Interface()) == nil {
		return nil
	}
	what := "another type"
	switch {
	case t == reflect.TypeFor[caddy.Duration]():
		what = durationForm
	case t.Kind() == reflect.String:
		what = "a text"
	case t.Kind() == reflect.Bool:
		what = "true or false"
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64:
		what = wholeNumberForm(t.Bits())
	}
	return withPath(path, errors.New("must be "+what))
}

// durationForm is what options that are a duration accept.
const durationForm = `a duration such as "30s", with the units ns, us, ms, s, m, h and d`

// wholeNumberForm returns what options that are a number accept.
func wholeNumberForm(bits int) string {
	return fmt.Sprintf("a whole number of at most %d bits", bits)
}

// configFields returns the types of the fields of a struct by their JSON names.
func configFields(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type)
	for field := range t.Fields() {
		if field.Anonymous && field.Type.Kind() == reflect.Struct && field.Tag == "" {
			maps.Copy(fields, configFields(field.Type))
		}
		if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name != "" && name != "-" {
			fields[name] = field.Type
		}
	}
	return fields
}

// withPath adds the path of the option to err.
func withPath(path string, err error) error {
	if path == "" {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// unknownName returns the error for a name that is not among the known ones. It suggests the
// most similar known name or lists all of them.
func unknownName(what, name string, known []string) error {
	if nearest := nearestName(name, known); nearest != "" {
		return fmt.Errorf("%s %q, did you mean %q?", what, name, nearest)
	}
	return fmt.Errorf("%s %q, known are %s", what, name, strings.Join(known, ", "))
}

// nearestName returns the known name that is most similar to name, or an empty text if none
// is similar.
func nearestName(name string, known []string) string {
	nearest, least := "", len(name)/3+1
	for _, k := range known {
		if d := editDistance(name, k); d < least {
			nearest, least = k, d
		}
	}
	return nearest
}

// editDistance returns the Levenshtein distance of a and b, ignoring case.
func editDistance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal, row[j+1] = row[j+1], min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
