package soap

import (
	"encoding/xml"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// requestElement is an element as encoding/xml reads it.
type requestElement struct {
	XMLName xml.Name
	Attrs   []xml.Attr       `xml:",any,attr"`
	Text    string           `xml:",chardata"`
	Nodes   []requestElement `xml:",any"`
}

func (n *requestElement) child(t interface{ Fatalf(string, ...any) }, local string) *requestElement {
	for i := range n.Nodes {
		if n.Nodes[i].XMLName.Local == local {
			return &n.Nodes[i]
		}
	}
	t.Fatalf("no %s in %s", local, n.XMLName.Local)
	return nil
}

func (n *requestElement) xsiType() string {
	for _, a := range n.Attrs {
		if a.Name == (xml.Name{Space: "http://www.w3.org/2001/XMLSchema-instance", Local: "type"}) {
			return a.Value
		}
	}
	return ""
}

var testDialect = Dialect{
	Version:        V11,
	ComponentTypes: ComponentTypes{"My Gateway", "My Gateway", "My Gateway", "My Gateway"},
	Attributes: Attributes{
		ActivationMessage:         "PROVFLD_ACTIVATION_MESSAGE",
		InstanceActivationMessage: "PROVFLD_INSTANCE_ACTIVATION_MESSAGE",
		EventReactivationCounter:  "PROVFLD_EVENT_REACTIVATION_COUNTER",
		DeviceDescription:         "PROVFLD_DESCRIPTION",
	},
}

// testDialects returns testDialect in both SOAP versions.
func testDialects() map[string]*Dialect {
	v12 := testDialect
	v12.Version = V12
	return map[string]*Dialect{"1.1": &testDialect, "1.2": &v12}
}

// samples contains every command with as many fields as possible.
var samples = []Call{
	MDLRegister.Call(&MDLRegisterRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: `p<&>"'d`}, nil),
	MDLAddDevice.Call(&MDLAddDeviceRequest{RegistrationID: "aB3dE6gH", DeviceCode: "01234567890123456789012345", Description: "Jane's phone"}, nil),
	MDLActivate.Call(&MDLActivateRequest{RegistrationID: "aB3dE6gH", Signature: "0123456789012345"}, nil),
	Register.Call(&RegisterRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: "secret", SerialNumber: "VDS1234567"}, nil),
	Activate.Call(&ActivateRequest{UserID: "jane.doe", DerivationCode: "0123456789"}, nil),
	DSAPPSRPRegister.Call(&DSAPPSRPRegisterRequest{
		ActivationType: "0", UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: "secret", SerialNumber: "VDS1234567",
	}, nil),
	DSAPPSRPGenerateEphemeralKey.Call(&DSAPPSRPEphemeralKeyRequest{RegistrationID: "aB3dE6gH", ClientPublic: "0A1B2C"}, nil),
	DSAPPSRPGenerateActivationData.Call(&DSAPPSRPEvidenceRequest{RegistrationID: "aB3dE6gH", ClientEvidence: "0A1B2C"}, nil),
	DSAPPSRPActivate.Call(&DSAPPSRPActivateRequest{RegistrationID: "aB3dE6gH", Response: "123456"}, nil),
	UpdateDevicePNID.Call(&UpdateDevicePNIDRequest{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1234567-1", DevicePNID: "0901C3E4"}, nil),
	AuthUser.Call(&AuthUserRequest{UserID: "jane.doe", Domain: "mydomain.com", ChallengeKey: "0123456789", Password: "123456"}, nil),
	GetPreparedSecureChallenge.Call(&RetrieveRequest{SerialNumber: "VDS1234567-1", Key: "0123456789"}, nil),
	CancelAuthUser.Call(&CancelRequest{SerialNumber: "VDS1234567-1", KeyMessage: "0901C3E4"}, nil),
	AuthSignature.Call(&AuthSignatureRequest{UserID: "jane.doe", Domain: "mydomain.com", RequestKey: "0123456789", Signature: "0123456789012345"}, nil),
	GetPreparedSignatureRequest.Call(&RetrieveRequest{SerialNumber: "VDS1234567-1", Key: "0123456789"}, nil),
	CancelAuthSignatureRequest.Call(&CancelRequest{SerialNumber: "VDS1234567-1", KeyMessage: "0901C3E4"}, nil),
}

// Requests do not change: each command in each version is equal to its golden file.
func TestEncodeGolden(t *testing.T) {
	t.Parallel()
	for _, c := range samples {
		for version, d := range testDialects() {
			got, err := c.Encode(d)
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

// encoding/xml finds these rules kept in each request: only the envelope, its body and the
// operation are in a namespace, no element is empty, and each value of an attribute has an
// xsi:type and precedes the attribute's name.
func TestEncodeStructure(t *testing.T) {
	t.Parallel()
	for _, c := range samples {
		for _, d := range testDialects() {
			request, err := c.Encode(d)
			if err != nil {
				t.Fatal(err)
			}
			var envelope requestElement
			if err := xml.Unmarshal(request, &envelope); err != nil {
				t.Fatalf("%s: %v", c, err)
			}
			if envelope.XMLName != (xml.Name{Space: d.Version.envelope, Local: "Envelope"}) {
				t.Errorf("%s: envelope is %v", c, envelope.XMLName)
			}
			if len(envelope.Nodes) != 1 || envelope.Nodes[0].XMLName != (xml.Name{Space: d.Version.envelope, Local: "Body"}) {
				t.Fatalf("%s: envelope contains %v", c, envelope.Nodes)
			}
			body := envelope.Nodes[0]
			if len(body.Nodes) != 1 || body.Nodes[0].XMLName != (xml.Name{Space: c.scenario.namespace, Local: c.operation}) {
				t.Fatalf("%s: body contains %v", c, body.Nodes)
			}
			var below func(n *requestElement)
			below = func(n *requestElement) {
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

// No element is written for an absent optional value, nor for a parent without children.
func TestEncodeOptional(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		call Call
		left string
	}{
		"attribute": {MDLRegister.Call(&MDLRegisterRequest{UserID: "1", StaticPassword: "1"}, nil), "DOMAIN"},
		"element":   {DSAPPSRPRegister.Call(&DSAPPSRPRegisterRequest{UserID: "1", StaticPassword: "1"}, nil), "domain"},
		"parent":    {DSAPPSRPActivate.Call(&DSAPPSRPActivateRequest{RegistrationID: "1"}, nil), "credential"},
		"in a pair": {UpdateDevicePNID.Call(&UpdateDevicePNIDRequest{UserID: "1", SerialNumber: "1", DevicePNID: "1"}, nil), "domain"},
	} {
		request, err := test.call.Encode(&testDialect)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(request), test.left) {
			t.Errorf("%s: %s contains %s", name, request, test.left)
		}
	}
}

// A description is sent only if the name of its attribute is configured.
func TestEncodeUnconfiguredAttribute(t *testing.T) {
	t.Parallel()
	d := testDialect
	d.Attributes = Attributes{}
	request, err := MDLAddDevice.Call(&MDLAddDeviceRequest{RegistrationID: "1", DeviceCode: "1", Description: "Jane's phone"}, nil).Encode(&d)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(request), "phone") {
		t.Errorf("%s contains the description", request)
	}
}

// A value that cannot be sent is refused with the name of its field. The error does not contain the
// value, here "sesame".
func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	register := func(userID, password string) Call {
		return MDLRegister.Call(&MDLRegisterRequest{UserID: form.RegisteredUser(userID), StaticPassword: form.StaticPassword(password)}, nil)
	}
	for name, test := range map[string]struct {
		call          Call
		want, problem string
	}{
		"missing":          {register("", "sesame"), "PROVFLD_USERID", "missing"},
		"missing element":  {UpdateDevicePNID.Call(&UpdateDevicePNIDRequest{SerialNumber: "1", DevicePNID: "sesame"}, nil), "user/userID", "missing"},
		"missing type":     {AuthUser.Call(&AuthUserRequest{UserID: "1", Password: "sesame"}, nil), "CREDFLD_COMPONENT_TYPE", "missing"},
		"NUL":              {register("1", "sesame\x00"), "PROVFLD_STATIC_PASSWORD", "character"},
		"escape character": {register("1", "\x1bsesame"), "PROVFLD_STATIC_PASSWORD", "character"},
		"not UTF-8":        {register("sesame\xff", "1"), "PROVFLD_USERID", "character"},
		"surrogate":        {register("sesame\xed\xa0\x80", "1"), "PROVFLD_USERID", "character"},
		"U+FFFE":           {DSAPPSRPRegister.Call(&DSAPPSRPRegisterRequest{UserID: "sesame\uFFFE", StaticPassword: "1"}, nil), "user/userID", "character"},
	} {
		d := testDialect
		d.ComponentTypes.Authentication = ""
		_, err := test.call.Encode(&d)
		refused, ok := errors.AsType[*FieldError](err)
		if !ok {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if refused.Field != test.want || !strings.Contains(refused.Problem, test.problem) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v contains the value", name, err)
		}
	}
}

// A value that contains another one is replaced as a whole.
func TestBlot(t *testing.T) {
	t.Parallel()
	c := MDLRegister.Call(&MDLRegisterRequest{UserID: "jane", Domain: "jane.doe", StaticPassword: "jane.doe.7"}, nil)
	got := c.redactor().Replace("user jane: jane.doe.7 is wrong in jane.doe at My Gateway")
	if want := "user […]: […] is wrong in […] at My Gateway"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// xmlText draws text that XML can represent, with many of the characters that need escaping.
func xmlText() *rapid.Generator[string] {
	special := rapid.SampledFrom([]rune("<>&\"'\t\n\r ]-\u0085\u2028\uFEFF\uFFFD\u00e9\U0001F511"))
	letter := rapid.Rune().Filter(func(r rune) bool { return IsXMLText(string(r)) })
	return rapid.StringOfN(rapid.OneOf(special, letter), 1, 40, -1)
}

// encoding/xml reads every value unchanged, in both families.
func TestEncodeRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		user, domain, password := xmlText().Draw(t, "user"), xmlText().Draw(t, "domain"), xmlText().Draw(t, "password")

		request, err := MDLRegister.Call(&MDLRegisterRequest{UserID: form.RegisteredUser(user), Domain: form.RegisteredDomain(domain), StaticPassword: form.StaticPassword(password)}, nil).Encode(&testDialect)
		if err != nil {
			t.Fatal(err)
		}
		var envelope requestElement
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

		request, err = DSAPPSRPRegister.Call(&DSAPPSRPRegisterRequest{UserID: form.RegisteredUser(user), Domain: form.RegisteredDomain(domain), StaticPassword: form.StaticPassword(password)}, nil).Encode(testDialects()["1.2"])
		if err != nil {
			t.Fatal(err)
		}
		envelope = requestElement{}
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
