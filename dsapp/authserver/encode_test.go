package authserver

import (
	"encoding/xml"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// node is an element as an independent reader sees it.
type node struct {
	XMLName xml.Name
	Attrs   []xml.Attr `xml:",any,attr"`
	Text    string     `xml:",chardata"`
	Nodes   []node     `xml:",any"`
}

func (n *node) child(t interface{ Fatalf(string, ...any) }, local string) *node {
	for i := range n.Nodes {
		if n.Nodes[i].XMLName.Local == local {
			return &n.Nodes[i]
		}
	}
	t.Fatalf("no %s in %s", local, n.XMLName.Local)
	return nil
}

func (n *node) xsiType() string {
	for _, a := range n.Attrs {
		if a.Name == (xml.Name{Space: "http://www.w3.org/2001/XMLSchema-instance", Local: "type"}) {
			return a.Value
		}
	}
	return ""
}

var testAttributes = Attributes{
	ActivationMessage:         "PROVFLD_ACTIVATION_MESSAGE",
	InstanceActivationMessage: "PROVFLD_INSTANCE_ACTIVATION_MESSAGE",
	EventReactivationCounter:  "PROVFLD_EVENT_REACTIVATION_COUNTER",
	DeviceDescription:         "PROVFLD_DESCRIPTION",
}

// samples has every field of every command.
var samples = map[commandID]values{
	mdlRegister:                    {"COMPONENT_TYPE": "My Gateway", "USERID": "jane.doe", "DOMAIN": "mydomain.com", "STATIC_PASSWORD": `p<&>"'d`},
	mdlAddDevice:                   {"COMPONENT_TYPE": "My Gateway", "REGISTRATIONID": "aB3dE6gH", "DEVICE_CODE": "01234567890123456789012345", "DESCRIPTION": "Jane's phone"},
	mdlActivate:                    {"COMPONENT_TYPE": "My Gateway", "REGISTRATIONID": "aB3dE6gH", "SIGNATURE": "0123456789012345"},
	register:                       {"COMPONENT_TYPE": "My Gateway", "USERID": "jane.doe", "DOMAIN": "mydomain.com", "STATIC_PASSWORD": "secret", "SERIAL_NO": "VDS1234567"},
	activate:                       {"COMPONENT_TYPE": "My Gateway", "USERID": "jane.doe", "DERIVATION_CODE": "0123456789", "REQUEST_TYPE": "0"},
	dsappSRPRegister:               {"activationType": "0", "componentType": "My Gateway", "user/userID": "jane.doe", "user/domain": "mydomain.com", "credential/staticPassword": "secret", "serialNumber": "VDS1234567"},
	dsappSRPGenerateEphemeralKey:   {"componentType": "My Gateway", "registrationID": "aB3dE6gH", "clientEphemeralPublicKey": "0A1B2C"},
	dsappSRPGenerateActivationData: {"componentType": "My Gateway", "registrationID": "aB3dE6gH", "clientEvidenceMessage": "0A1B2C"},
	dsappSRPActivate:               {"componentType": "My Gateway", "registrationID": "aB3dE6gH", "credential/response": "123456"},
	updateDevicePNID:               {"componentType": "My Gateway", "user/userID": "jane.doe", "user/domain": "mydomain.com", "serialNumber": "VDS1234567-1", "devicePNID": "0901C3E4"},
	authUser:                       {"COMPONENT_TYPE": "My Gateway", "USERID": "jane.doe", "DOMAIN": "mydomain.com", "CHALLENGE_KEY": "0123456789", "PASSWORD": "123456"},
	getPreparedSecureChallenge:     {"componentType": "My Gateway", "serialNumber": "VDS1234567-1", "challengeKey": "0123456789"},
	cancelAuthUser:                 {"componentType": "My Gateway", "serialNumber": "VDS1234567-1", "challengeKeyMessage": "0901C3E4"},
	authSignature:                  {"COMPONENT_TYPE": "My Gateway", "USERID": "jane.doe", "DOMAIN": "mydomain.com", "REQUEST_KEY": "0123456789", "SIGNATURE": "0123456789012345"},
	getPreparedSignatureRequest:    {"componentType": "My Gateway", "serialNumber": "VDS1234567-1", "requestKey": "0123456789"},
	cancelAuthSignatureRequest:     {"componentType": "My Gateway", "serialNumber": "VDS1234567-1", "requestKeyMessage": "0901C3E4"},
}

// What goes over the wire is fixed, byte by byte, for each command and version.
func TestEncodeGolden(t *testing.T) {
	t.Parallel()
	for id := range commands {
		c := &commands[id]
		for version, v := range map[string]soapVersion{"1.1": soap11, "1.2": soap12} {
			got, err := c.encode(v, samples[commandID(id)], &testAttributes)
			if err != nil {
				t.Errorf("%s: %v", c, err)
				continue
			}
			file := filepath.Join("testdata", "requests", c.String()+"."+version+".xml")
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got)+"\n" != string(want) {
				t.Errorf("%s in SOAP %s:\n%s\nwant\n%s", c, version, got, want)
			}
		}
	}
}

// Rules that hold for each request, checked by an independent reader: only the
// envelope, its body and the operation are in a namespace, each value of an
// attribute has an xsi:type and precedes the attribute's name.
func TestEncodeStructure(t *testing.T) {
	t.Parallel()
	for id := range commands {
		c := &commands[id]
		for _, v := range []soapVersion{soap11, soap12} {
			request, err := c.encode(v, samples[commandID(id)], &testAttributes)
			if err != nil {
				t.Fatal(err)
			}
			var envelope node
			if err := xml.Unmarshal(request, &envelope); err != nil {
				t.Fatalf("%s: %v", c, err)
			}
			if envelope.XMLName != (xml.Name{Space: v.envelope, Local: "Envelope"}) {
				t.Errorf("%s: envelope is %v", c, envelope.XMLName)
			}
			if len(envelope.Nodes) != 1 || envelope.Nodes[0].XMLName != (xml.Name{Space: v.envelope, Local: "Body"}) {
				t.Fatalf("%s: envelope holds %v", c, envelope.Nodes)
			}
			body := envelope.Nodes[0]
			if len(body.Nodes) != 1 || body.Nodes[0].XMLName != (xml.Name{Space: c.scenario.namespace, Local: c.operation}) {
				t.Fatalf("%s: body holds %v", c, body.Nodes)
			}
			var below func(n *node)
			below = func(n *node) {
				for i := range n.Nodes {
					child := &n.Nodes[i]
					if child.XMLName.Space != "" {
						t.Errorf("%s: %s is in a namespace", c, child.XMLName.Local)
					}
					if len(child.Nodes) == 0 && child.Text == "" {
						t.Errorf("%s: %s is empty", c, child.XMLName.Local)
					}
					if child.XMLName.Local == "attributes" {
						if len(child.Nodes) != 2 || child.Nodes[0].XMLName.Local != "value" || child.Nodes[1].XMLName.Local != "attributeID" {
							t.Errorf("%s: attribute of %v", c, child.Nodes)
						}
						if kind := child.Nodes[0].xsiType(); !strings.HasPrefix(kind, "xsd:") {
							t.Errorf("%s: %s has xsi:type %q", c, child.Nodes[1].Text, kind)
						}
					}
					below(child)
				}
			}
			below(&body.Nodes[0])
		}
	}
}

// The server answers a number sent as a string with a Fault.
func TestEncodeUnsignedInt(t *testing.T) {
	t.Parallel()
	for id, attribute := range map[commandID]string{authUser: "CREDFLD_PASSWORD_FORMAT", activate: "PROVFLD_REQUEST_TYPE"} {
		request, err := commands[id].encode(soap11, samples[id], &testAttributes)
		if err != nil {
			t.Fatal(err)
		}
		want := `<value xsi:type="xsd:unsignedInt">0</value><attributeID>` + attribute + `</attributeID>`
		if !strings.Contains(string(request), want) {
			t.Errorf("%s lacks %s", request, want)
		}
	}
}

// An absent optional value leaves no trace, nor does the parent it would be in.
func TestEncodeOptional(t *testing.T) {
	t.Parallel()
	for id, left := range map[commandID]string{
		mdlRegister:      "DOMAIN",
		dsappSRPRegister: "domain",
		dsappSRPActivate: "credential",
		updateDevicePNID: "domain",
	} {
		c := &commands[id]
		in := values{}
		for _, f := range c.fields {
			if !f.optional {
				in[f.name] = "1"
			}
		}
		request, err := c.encode(soap11, in, &testAttributes)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(request), left) {
			t.Errorf("%s: %s holds %s", c, request, left)
		}
	}
}

// A description goes out only under a configured name.
func TestEncodeUnconfiguredAttribute(t *testing.T) {
	t.Parallel()
	request, err := commands[mdlAddDevice].encode(soap11, samples[mdlAddDevice], &Attributes{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(request), "phone") {
		t.Errorf("%s holds the description", request)
	}
}

// Whatever a command cannot carry is refused by field, without the value.
func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		id            commandID
		field, value  string
		want, problem string
	}{
		"missing":          {mdlRegister, "USERID", "", "PROVFLD_USERID", "missing"},
		"missing element":  {updateDevicePNID, "user/userID", "", "user/userID", "missing"},
		"missing type":     {mdlActivate, "COMPONENT_TYPE", "", "PROVFLD_COMPONENT_TYPE", "missing"},
		"NUL":              {mdlRegister, "STATIC_PASSWORD", "sesame\x00", "PROVFLD_STATIC_PASSWORD", "character"},
		"escape character": {mdlRegister, "STATIC_PASSWORD", "\x1bsesame", "PROVFLD_STATIC_PASSWORD", "character"},
		"not UTF-8":        {mdlRegister, "USERID", "sesame\xff", "PROVFLD_USERID", "character"},
		"surrogate":        {mdlRegister, "USERID", "sesame\xed\xa0\x80", "PROVFLD_USERID", "character"},
		"U+FFFE":           {dsappSRPRegister, "user/userID", "sesame\uFFFE", "user/userID", "character"},
		"no number":        {authUser, "PASSWORD_FORMAT", "sesame", "CREDFLD_PASSWORD_FORMAT", "integer"},
		"negative number":  {authUser, "PASSWORD_FORMAT", "-1", "CREDFLD_PASSWORD_FORMAT", "integer"},
		"unknown field":    {mdlActivate, "USERID", "sesame", "USERID", "no field"},
	} {
		in := maps.Clone(samples[test.id])
		in[test.field] = test.value
		_, err := commands[test.id].encode(soap11, in, &testAttributes)
		refused, ok := errors.AsType[*FieldError](err)
		if !ok {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if refused.Field != test.want || !strings.Contains(refused.Problem, test.problem) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v holds the value", name, err)
		}
	}
}

// legal draws text that XML can carry, with many of the characters that need care.
func legal() *rapid.Generator[string] {
	special := rapid.SampledFrom([]rune("<>&\"'\t\n\r ]-\u0085\u2028\uFEFF\uFFFD\u00e9\U0001F511"))
	letter := rapid.Rune().Filter(func(r rune) bool { return legalText(string(r)) })
	return rapid.StringOfN(rapid.OneOf(special, letter), 1, 40, -1)
}

// Every legal value arrives unchanged at a conforming XML reader, in both families.
func TestEncodeRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		user, domain, password := legal().Draw(t, "user"), legal().Draw(t, "domain"), legal().Draw(t, "password")

		request, err := commands[mdlRegister].encode(soap11, values{
			"COMPONENT_TYPE": "c", "USERID": user, "DOMAIN": domain, "STATIC_PASSWORD": password,
		}, &testAttributes)
		if err != nil {
			t.Fatal(err)
		}
		var envelope node
		if err := xml.Unmarshal(request, &envelope); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, a := range envelope.Nodes[0].Nodes[0].child(t, "attributeSet").Nodes {
			got[a.child(t, "attributeID").Text] = a.child(t, "value").Text
		}
		if got["PROVFLD_USERID"] != user || got["PROVFLD_DOMAIN"] != domain || got["PROVFLD_STATIC_PASSWORD"] != password {
			t.Fatalf("%q became %q", []string{user, domain, password}, got)
		}

		request, err = commands[dsappSRPRegister].encode(soap12, values{
			"componentType": "c", "user/userID": user, "user/domain": domain, "credential/staticPassword": password,
		}, &testAttributes)
		if err != nil {
			t.Fatal(err)
		}
		envelope = node{}
		if err := xml.Unmarshal(request, &envelope); err != nil {
			t.Fatal(err)
		}
		operation := &envelope.Nodes[0].Nodes[0]
		u := operation.child(t, "user")
		if u.child(t, "userID").Text != user || u.child(t, "domain").Text != domain ||
			operation.child(t, "credential").child(t, "staticPassword").Text != password {
			t.Fatalf("%q became %s", []string{user, domain, password}, request)
		}
	})
}
