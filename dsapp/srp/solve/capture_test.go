package solve

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// example is a capture with all members.
const example = `{"identity":"e3wfISG9","password":"Tb048aX1","salt":"0A0b","a":"123","A":"abcdef","B":"0abcde","group":"rfc5054-2048","S":"1","K":"00ff",
"M1":"0000000000000000000000000000000000000000","M2":"1111111111111111111111111111111111111111",
"items":[{"item":"activationCode","data":"00","counter":"0102030405060708","mac":"ff","plaintext":"x"}]}`

// Each capture that is no capture is refused with the member and the reason.
func TestRefusedCaptures(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ old, replacement, want string }{
		{`{"identity"`, `["identity"`, "is not a JSON object"},
		{`"x"}]}`, `"x"}]}{}`, "is not a JSON object"},
		{`"x"}]}`, `"x"}]`, "is not a JSON object"},
		{`"S":"1"`, `"S":"1","S":"1"`, "has a member twice"},
		{`"S":"1"`, `"s":"1"`, "has a member that is none of group, identity"},
		{`"password":"Tb048aX1",`, ``, "password is missing"},
		{`"a":"123",`, ``, "a is missing"},
		{`"Tb048aX1"`, `"Tb048aXä"`, "password must have up to 128 printable ASCII characters"},
		{`"123"`, `123`, "a must be a text that is not empty"},
		{`"123"`, `""`, "a must be a text that is not empty"},
		{`"123"`, `null`, "a must be a text that is not empty"},
		{`"123"`, `"12g"`, "a must have hexadecimal digits"},
		{`"0A0b"`, `"0A0"`, "salt must have hexadecimal digits, two for each byte"},
		{`"0A0b"`, `"` + strings.Repeat("00", 65) + `"`, "salt must have up to 64 bytes"},
		{`"00ff"`, `"` + strings.Repeat("00", 4097) + `"`, "K must have up to 4096 bytes"},
		{`"M1":"00`, `"M1":"`, "M1 must have 20, 32, 48 or 64 bytes"},
		{`"M2":"11`, `"M2":"`, "M2 must have 20, 32, 48 or 64 bytes"},
		{`rfc5054-2048`, `rfc5054-1024`, "group is not the name of a known group"},
		{`[{"item"`, `{"item"`, "is not a JSON object"},
		{`"items":[{"item":"activationCode","data":"00","counter":"0102030405060708","mac":"ff","plaintext":"x"}]`, `"items":1`, "items must be a list"},
		{`"items":[`, `"items":[{},`, "items[0]: item is missing"},
		{`"items":[`, `"items":[` + strings.Repeat(`1,`, 8), "items has more than 8 elements"},
		{`"counter":"0102030405060708"`, `"counter":"` + strings.Repeat("00", 17) + `"`, "items[0]: counter must have up to 16 bytes"},
		{`"mac":"ff"`, `"MAC":"ff"`, "items[0]: has a member that is none of item, plaintext, data, counter, mac"},
	} {
		encoded := strings.Replace(example, test.old, test.replacement, 1)
		if encoded == example {
			t.Errorf("%s is not in the example", test.old)
		}
		c, err := ParseCapture([]byte(encoded))
		if err == nil || !strings.HasPrefix(err.Error(), test.want) || !reflect.DeepEqual(c, Capture{}) && strings.HasPrefix(test.want, "a ") {
			t.Errorf("%s: %v, want %s", test.replacement, err, test.want)
		}
	}
	encode := func(members map[string]json.RawMessage) []byte {
		encoded, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	for _, without := range []string{"S", "K", "M1"} {
		var members map[string]json.RawMessage
		if err := json.Unmarshal([]byte(example), &members); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"S", "K", "M1"} {
			if name != without {
				delete(members, name)
			}
		}
		if _, err := ParseCapture(encode(members)); err != nil {
			t.Errorf("with %s alone: %v", without, err)
		}
		delete(members, without)
		if _, err := ParseCapture(encode(members)); err == nil || !strings.Contains(err.Error(), "must have M1, K or S") {
			t.Errorf("with none: %v", err)
		}
	}
	if _, err := ParseCapture(make([]byte, MaxCaptureSize+1)); err == nil {
		t.Error("a large file is accepted")
	}
}

// A capture is not printed by any verb, and its case is that of B.
func TestCaptureIsNotPrinted(t *testing.T) {
	t.Parallel()
	c, err := ParseCapture([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if !c.LowerCase {
		t.Error("the case of B is lost")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, c) + fmt.Sprintf(verb, c.Items[0]) + fmt.Sprintf(verb, c.Items); strings.Contains(got, "Tb048aX1") || strings.Contains(got, "e3wfISG9") || strings.Contains(got, "activationCode") {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

// A capture that is accepted survives its JSON form, and no error repeats a value.
func FuzzParseCapture(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(`{"identity":"e3wfISG9"`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, encoded []byte) {
		c, err := ParseCapture(encoded)
		if err != nil {
			if len(err.Error()) > 200 {
				t.Errorf("long error %q", err)
			}
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		d, err := ParseCapture(again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		d.LowerCase = c.LowerCase // B may have no letters
		if !reflect.DeepEqual(c, d) {
			t.Errorf("%s became %s", encoded, again)
		}
		for _, v := range []variant.Variant{{}, {Preset: "tssrp6a", KeyDerivation: "none", Group: "rfc3526-2048"}} {
			complete, err := v.Complete()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = Compare(c, complete)
		}
	})
}
