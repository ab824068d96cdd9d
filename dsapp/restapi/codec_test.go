package restapi

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

// decodeObject and encoding/json read the same from what decodeObject accepts, which has
// no object with duplicate names. Every error has an errorDescription.
func FuzzDecodeBody(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `[]`, `null`, `{"a":"b"}`, `{"a":"b","a":"c"}`, `{"a":{"b":1,"b":2}}`, `{"a":[{"b":1},{"b":2}]}`,
		`{"a":"\ud83d\ude00"}`, `{"a":"\ud800"}`, `{"a":"\ude00\ud83d"}`, `{"a":"\\ud800"}`, `{"\u0061":1,"a":2}`,
		`{"a":1e400}`, `{"a":-0}`, `{"a":true,"b":false,"c":null}`, `{"a":"b"} `, `{"a":"b"}{}`, "\ufeff{}", "{\"a\":\"\xff\"}",
		strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat(`}`, 40), `{"a":[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}`, `{"a":"b",}`, `{"a" "b"}`, `{"a":"\x"}`,
		`{"challengeKey":0123456789}`, `{"challengeKey":123456789,"serialNumber":["VDS1000000-1"]}`, `{"requestKey":"","domain":null}`,
		`{"registrationIdentifier":"e3wfISG9","response":"123456"}`, `{"registrationIdentifier":"e3wfISG9","derivationCode":"123456789012345"}`,
	} {
		f.Add([]byte(seed))
	}
	for _, body := range bodies {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		members, err := decodeObject(body)
		if err != nil {
			if _, ok := descriptionOf(&Service{}, err); !ok {
				t.Fatalf("error %v has no description", err)
			}
			return
		}
		body = bytes.TrimPrefix(body, []byte("\ufeff"))
		var want map[string]any
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		if err := d.Decode(&want); err != nil {
			t.Fatalf("encoding/json refuses what was accepted: %v", err)
		}
		if _, err := d.Token(); err != io.EOF {
			t.Fatalf("trailing data was accepted: %v", err)
		}
		if len(members) != len(want) {
			t.Fatalf("decoded %q, want %v", members, want)
		}
		for name, value := range want {
			m := Member{Name: name, Rule: form.Rule{Max: maxMember}}
			got, present, err := m.value(members)
			text, isText := value.(string)
			var same bool
			switch {
			case value != nil && !isText:
				same = err != nil
			case err != nil:
				same = utf8.RuneCountInString(text) > maxMember
			default:
				same = got == text && present == isText
			}
			if !same {
				t.Fatalf("member %q: decoded %q, %t, %v, want %v", name, got, present, err, value)
			}
		}
		// A duplicate would be one member less after a round trip.
		var compact bytes.Buffer
		var whole any
		if json.Compact(&compact, body) != nil || json.Unmarshal(body, &whole) != nil {
			return
		}
		if got, want := countNames(compact.Bytes()), countMembers(whole); got != want {
			t.Fatalf("%d names in the text, %d in the value", got, want)
		}
		for _, s := range table() {
			// No value makes the check of a member panic.
			_, _ = s.prepare(members)
		}
	})
}

// countNames counts the colons outside of strings.
func countNames(text []byte) int {
	n, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch {
		case inString && text[i] == '\\':
			i++
		case text[i] == '"':
			inString = !inString
		case !inString && text[i] == ':':
			n++
		}
	}
	return n
}

func countMembers(value any) int {
	n := 0
	switch v := value.(type) {
	case map[string]any:
		n = len(v)
		for _, nested := range v {
			n += countMembers(nested)
		}
	case []any:
		for _, nested := range v {
			n += countMembers(nested)
		}
	}
	return n
}

// decodeObject decodes what encoding/json encodes.
func TestDecodeRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "members")
		body, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		members, err := decodeObject(body)
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for _, m := range members {
			if got[string(m.name)], _, err = (&Member{Name: string(m.name)}).value(members); err != nil {
				t.Fatal(err)
			}
		}
		// encoding/json replaces invalid UTF-8.
		var replaced map[string]string
		if err := json.Unmarshal(body, &replaced); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, replaced) {
			t.Fatalf("decoded %q, want %q", got, replaced)
		}
	})
}

// encoding/json decodes what encode encodes, in both versions.
func TestEncodeRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		codes := gateway.ResultCodes{
			ReturnCodeEnum: rapid.String().Draw(t, "return"), StatusCodeEnum: rapid.String().Draw(t, "status"),
			ReturnCode: rapid.Int().Draw(t, "return code"), StatusCode: rapid.Int().Draw(t, "status code"),
		}
		value, number, description := rapid.String().Draw(t, "value"), rapid.Int64().Draw(t, "number"), rapid.String().Draw(t, "description")
		result := []field{
			textField("text", value), {"number", KindInteger, content{number: number}}, objectField("nested", []field{textField("text", value)}),
		}
		type data struct {
			Text   string                `json:"text"`
			Number int64                 `json:"number"`
			Nested struct{ Text string } `json:"nested"`
		}
		want := data{Text: value, Number: number}
		want.Nested.Text = value

		var second struct {
			ResultCodes      gateway.ResultCodes `json:"resultCodes"`
			Result           data                `json:"result"`
			ErrorDescription string              `json:"errorDescription"`
		}
		unmarshal(t, encode(V2, codes, result, description), &second)
		if second.ResultCodes != codes || second.Result != want || second.ErrorDescription != description {
			t.Fatalf("version 2 decodes to %+v", second)
		}
		var first struct {
			ErrorCode        int    `json:"errorCode"`
			ErrorMessage     string `json:"errorMessage"`
			ErrorDescription string `json:"errorDescription"`
			data
		}
		unmarshal(t, encode(V1, codes, result, description), &first)
		if first.ErrorCode != codes.ReturnCode || first.ErrorMessage != codes.StatusCodeEnum || first.data != want || first.ErrorDescription != description {
			t.Fatalf("version 1 decodes to %+v", first)
		}
	})
}

func unmarshal(t *rapid.T, body []byte, into any) {
	t.Helper()
	// Answers comply with the gateway's own rules for names.
	if _, err := decodeObject(body); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
}

// Empty results and descriptions are left out.
func TestEncodeShapes(t *testing.T) {
	t.Parallel()
	codes := failure("STAT_X", 7)
	for _, c := range []struct {
		v           Version
		result      []field
		description string
		want        string
	}{
		{V2, nil, "", `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_X","returnCode":-1,"statusCode":7}}`},
		{V2, nil, "d", `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_X","returnCode":-1,"statusCode":7},"errorDescription":"d"}`},
		{V2, []field{textField("a", "<&>")}, "", `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_X","returnCode":-1,"statusCode":7},"result":{"a":"<&>"}}`},
		{V1, nil, "", `{"errorCode":-1,"errorMessage":"STAT_X"}`},
		{V1, []field{textField("a", "ü")}, "d", `{"errorCode":-1,"errorMessage":"STAT_X","a":"ü","errorDescription":"d"}`},
	} {
		if got := string(encode(c.v, codes, c.result, c.description)); got != c.want {
			t.Errorf("encoded %s, want %s", got, c.want)
		}
	}
}

// BenchmarkCodec measures the JSON of a one-time password: reading the request, checking it,
// and encoding the answer.
func BenchmarkCodec(b *testing.B) {
	const path = "/rest/v2/authentication/authUser"
	body := []byte(bodies[path])
	sent, err := decodeObject(body)
	if err != nil {
		b.Fatal(err)
	}
	services := table()
	service := &services[slices.IndexFunc(services, func(s Service) bool { return s.Path == path })]
	result := []field{textField("userID", "jane.doe"), textField("domain", "mydomain.com"), textField("orgUnit", ""), textField("serialNo", "VDS1000120-1")}
	for _, stage := range []struct {
		name string
		do   func() error
	}{
		{"read", func() error { _, err := decodeObject(body); return err }},
		{"check", func() error { _, err := service.prepare(sent); return err }},
		{"answer", func() error { encode(V2, responseFor(Success).codes, result, ""); return nil }},
	} {
		b.Run(stage.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := stage.do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// expensiveBodies returns bodies of the maximum size that take long to decode, by what
// they consist of.
func expensiveBodies() map[string]string {
	fill := func(open, item, end string) string {
		return open + strings.Repeat(item, (DefaultMaxBodySize-len(open)-len(end))/len(item)) + end
	}
	return map[string]string{
		"members":            fill("{", `"":0,`, "}"),
		"names":              fill(`{"`, "x", `":0}`),
		"one string":         fill(`{"userID":"`, "x", `"}`),
		"text":               fill(`{"userID":"`, "ü", `"}`),
		"escapes":            fill(`{"userID":"`, `\u00fc`, `"}`),
		"pairs":              fill(`{"userID":"`, `\ud83d\ude00`, `"}`),
		"numbers":            fill(`{"x":[0`, ",0", "]}"),
		"exponents":          fill(`{"x":[0`, ",-0.1e-1", "]}"),
		"objects":            fill(`{"x":[0`, ",{}", "]}"),
		"words":              fill(`{"x":[0`, ",null", "]}"),
		"space":              fill(`{`, " ", "}"),
		"late error":         fill(`{"x":[0`, ",[]", "]}}"),
		"members of objects": `{"x":[` + strings.Repeat(`{"`+strings.Repeat("x", 900)+`":0},`, 63) + `0]}`,
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, body := range expensiveBodies() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				_, _ = decodeObject([]byte(body))
			}
		})
	}
}
