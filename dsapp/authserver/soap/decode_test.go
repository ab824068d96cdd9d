package soap

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/dsapp-gateway/dsapp-gateway/internal/soapanswer"
)

// The builders of answers.
const success = soapanswer.Success

var (
	failed      = soapanswer.Failed
	envelope    = soapanswer.Envelope
	attribute   = soapanswer.Attribute
	provisioned = soapanswer.Provisioned
	refused     = soapanswer.Refused
)

var succeeded = ResultCodes{ReturnCodeEnum: "RET_SUCCESS", StatusCodeEnum: "STAT_SUCCESS"}

// All variants of answers that servers are known to write are understood.
func TestDecode(t *testing.T) {
	t.Parallel()
	pair := []item{{"PROVFLD_SERIAL_NO", "VDS1234567"}}
	for name, test := range map[string]struct {
		operation, text string
		want            answer
	}{
		"value first": {
			"provisioningExecute", provisioned(attribute("PROVFLD_SERIAL_NO", "VDS1234567")),
			answer{codes: succeeded, items: pair},
		},
		"attributeID first": {
			"provisioningExecute",
			provisioned(`<attributes><attributeID>PROVFLD_SERIAL_NO</attributeID><value>VDS1234567</value></attributes>`),
			answer{codes: succeeded, items: pair},
		},
		"masked value": {
			"provisioningExecute",
			provisioned(`<attributes><attributeOptions><masked>true</masked></attributeOptions><value xsi:type="xsd:string">VDS1234567</value><attributeID>PROVFLD_SERIAL_NO</attributeID></attributes>`),
			answer{codes: succeeded, items: pair},
		},
		"options last, indented": {
			"provisioningExecute",
			provisioned("\n <attributes>\n  <attributeID> PROVFLD_SERIAL_NO </attributeID><value>VDS1234567</value>\n<attributeOptions/></attributes>\n"),
			answer{codes: succeeded, items: pair},
		},
		"no value": {
			"provisioningExecute", provisioned(`<attributes><attributeID>PROVFLD_DOMAIN</attributeID></attributes>`),
			answer{codes: succeeded, items: []item{{"PROVFLD_DOMAIN", ""}}},
		},
		"attribute lists": {
			"userExecute",
			envelope(`<a:userExecuteResponse xmlns:a="urn:a"><results>` + success + `<resultAttribute><attributeList>` + attribute("A", "1") +
				`</attributeList><attributeList>` + attribute("A", "2") + `</attributeList></resultAttribute></results></a:userExecuteResponse>`),
			answer{codes: succeeded, items: []item{{"A", "1"}, {"A", "2"}}},
		},
		"default namespace, everything qualified": {
			"provisioningExecute",
			`<Envelope xmlns="http://www.w3.org/2003/05/soap-envelope"><Header><a><b/></a></Header><Body><provisioningExecuteResponse xmlns="urn:x"><results>` +
				success + `</results></provisioningExecuteResponse></Body></Envelope>`,
			answer{codes: succeeded},
		},
		"undeclared prefix": {
			"provisioningExecute",
			`<e:Envelope><e:Body><p:provisioningExecuteResponse><results>` + success + `</results></p:provisioningExecuteResponse></e:Body></e:Envelope>`,
			answer{codes: succeeded},
		},
		"Respond": {
			"getSecureChallenge",
			envelope(`<a:getSecureChallengeRespond xmlns:a="urn:a"><results><errorStack/><resultAttribute>` + attribute("CREDFLD_CHALLENGE_KEY", "0123456789") +
				`</resultAttribute>` + success + `</results></a:getSecureChallengeRespond>`),
			answer{codes: succeeded, items: []item{{"CREDFLD_CHALLENGE_KEY", "0123456789"}}},
		},
		"extra wrapper, user attributes": {
			"authUser",
			envelope(`<a:authUserResponse xmlns:a="urn:a"><authUserResults><userattributelist><results>` + success +
				`</results><resultAttribute>` + attribute("UATTFLD_NAME", "x") + `</resultAttribute></userattributelist><results>` + success + `<resultAttribute>` +
				attribute("CREDFLD_USERID", "jane &amp; &lt;doe&gt;") + `</resultAttribute></results></authUserResults></a:authUserResponse>`),
			answer{codes: succeeded, items: []item{{"CREDFLD_USERID", "jane & <doe>"}}},
		},
		"empty resultAttribute, several errors": {
			"provisioningExecute",
			refused("RET_FAILURE", "STAT_NOT_FOUND", -1, -13, `<errorStack><errors><errorCode>-13</errorCode><errorDesc>first</errorDesc></errors>`+
				`<errors><errorDesc>second</errorDesc><errorCode> 1263 </errorCode></errors><errors><errorCode/></errors><other>x</other></errorStack>`),
			answer{
				codes: ResultCodes{"RET_FAILURE", "STAT_NOT_FOUND", -1, -13},
				stack: []StackEntry{{-13, "first"}, {1263, "second"}, {}},
			},
		},
		"unknown codes": {
			"provisioningExecute", refused("RET_TWO_STEP", "STAT_ANYTHING", 7, 123456, ""),
			answer{codes: ResultCodes{"RET_TWO_STEP", "STAT_ANYTHING", 7, 123456}},
		},
		"typed": {
			"dsappSRPGenerateEphemeralKey",
			envelope(`<p:dsappSRPGenerateEphemeralKeyResponse xmlns:p="urn:p"><status>` + success + `<errorStack></errorStack></status>` +
				`<result><serverEphemeralPublicKey>0A1B</serverEphemeralPublicKey><salt>00FF</salt></result></p:dsappSRPGenerateEphemeralKeyResponse>`),
			answer{codes: succeeded, items: []item{{"serverEphemeralPublicKey", "0A1B"}, {"salt", "00FF"}}},
		},
		"typed, result first, nested": {
			"dsappSRPGenerateActivationData",
			envelope(`<dsappSRPGenerateActivationDataResponse><result> <mdl><activationMessage><encryptedData>AA</encryptedData><mac>BB</mac></activationMessage></mdl>` +
				`<serverEvidenceMessage>CC</serverEvidenceMessage><domain/></result><status>` + success + `</status></dsappSRPGenerateActivationDataResponse>`),
			answer{codes: succeeded, items: []item{
				{"mdl/activationMessage/encryptedData", "AA"},
				{"mdl/activationMessage/mac", "BB"},
				{"serverEvidenceMessage", "CC"},
				{"domain", ""},
			}},
		},
		"typed, no result": {
			"cancelAuthUser", envelope(`<a:cancelAuthUserResponse xmlns:a="urn:a"><status>` + success + `</status></a:cancelAuthUserResponse>`),
			answer{codes: succeeded},
		},
		"comments, byte order mark, processing instruction in the prolog": {
			"cancelAuthUser",
			"\uFEFF<?xml version='1.0' encoding='utf-8'?><?x y?><!-- a --><Envelope><Body><!-- b --><cancelAuthUserResponse><status>" +
				strings.ReplaceAll(success, "<returnCode>0", "<returnCode><!-- c -->0") + "</status></cancelAuthUserResponse></Body></Envelope>\n<!-- d -->\n",
			answer{codes: succeeded},
		},
		"CDATA and references": {
			"cancelAuthUser",
			envelope(`<cancelAuthUserResponse><status>` + strings.ReplaceAll(success, "STAT_SUCCESS", "<![CDATA[STAT]]>&#x5F;SUCCESS") + `</status></cancelAuthUserResponse>`),
			answer{codes: succeeded},
		},
	} {
		// The bytes arrive one at a time, as on a slow connection.
		got, err := decode(iotest.OneByteReader(strings.NewReader(test.text)), test.operation)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// The encoding declaration may name UTF-8 in several ways, or ASCII.
func TestDecodeNamesOfUTF8(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"UTF-8", "utf-8", "utf8", "UTF8", "us-ascii", "US-ASCII", "ascii"} {
		text := envelope(`<p:cancelAuthUserResponse xmlns:p="urn:p"><status>` + success + `</status></p:cancelAuthUserResponse>`)
		if _, err := decode(strings.NewReader(strings.Replace(text, "UTF-8", name, 1)), "cancelAuthUser"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Answers that are malformed, ambiguous, over a limit or of another operation are refused. The
// error contains none of their text, here "sesame".
func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	respond := func(s string) string {
		return envelope(`<p:cancelAuthUserResponse xmlns:p="urn:p">` + s + `</p:cancelAuthUserResponse>`)
	}
	status := func(s string) string { return respond("<status>" + s + "</status>") }
	good := status(success)
	for name, test := range map[string]struct{ text, problem string }{
		"empty":                    {"", "empty document"},
		"no XML":                   {"sesame", "text before"},
		"JSON":                     {`{"sesame": 1}`, "text before"},
		"no envelope":              {"<html><body>sesame</body></html>", "not a SOAP envelope"},
		"no body":                  {"<Envelope><sesame/></Envelope>", "without body"},
		"empty body":               {envelope(""), "empty body"},
		"text body":                {envelope("sesame"), "empty body"},
		"two bodies":               {strings.Replace(good, "</SOAP-ENV:Envelope>", "<Body/></SOAP-ENV:Envelope>", 1), "several bodies"},
		"two answers":              {strings.Replace(good, "</SOAP-ENV:Body>", "<sesame/></SOAP-ENV:Body>", 1), "several elements"},
		"another operation":        {strings.ReplaceAll(good, "cancelAuthUser", "sesame"), "another operation"},
		"operation itself":         {strings.ReplaceAll(good, "Response", ""), "another operation"},
		"no codes":                 {status(""), "without resultCodes"},
		"codes twice":              {status(success + success), "several resultCodes"},
		"member twice":             {status(strings.Replace(success, "<returnCode>", "<returnCode>0</returnCode><returnCode>", 1)), "several returnCode"},
		"no statusCode":            {status(strings.Replace(success, "<statusCode>0</statusCode>", "", 1)), "without statusCode"},
		"no statusCodeEnum":        {status(strings.Replace(success, "<statusCodeEnum>STAT_SUCCESS</statusCodeEnum>", "", 1)), "without statusCodeEnum"},
		"empty returnCodeEnum":     {status(strings.Replace(success, "RET_SUCCESS", "", 1)), "returnCodeEnum is empty"},
		"long returnCodeEnum":      {status(strings.Replace(success, "RET_SUCCESS", strings.Repeat("X", 129), 1)), "too long"},
		"returnCode no number":     {status(strings.Replace(success, "<returnCode>0", "<returnCode>sesame", 1)), "returnCode is not an integer"},
		"returnCode with fraction": {status(strings.Replace(success, "<returnCode>0", "<returnCode>0.0", 1)), "returnCode is not an integer"},
		"failure in a name":        {status(strings.Replace(success, "RET_SUCCESS", "RET_sesame", 1)), "resultCodes contradict"},
		"failure in a status":      {status(strings.Replace(success, "STAT_SUCCESS", "STAT_sesame", 1)), "resultCodes contradict"},
		"failure in a number":      {status(strings.Replace(success, "<returnCode>0", "<returnCode>-1", 1)), "resultCodes contradict"},
		"success in a number":      {status(strings.Replace(failed("STAT_sesame", -1), "<returnCode>-1", "<returnCode>0", 1)), "resultCodes contradict"},
		"success in a status code": {status(failed("STAT_sesame", 0)), "resultCodes contradict"},
		"success in a status":      {status(failed("STAT_SUCCESS", -1)), "resultCodes contradict"},
		"statusCode too large":     {status(strings.Replace(success, "<statusCode>0", "<statusCode>2147483648", 1)), "statusCode is not an integer"},
		"returnCode with elements": {status(strings.Replace(success, "<returnCode>0", "<returnCode>0<sesame/>", 1)), "element where a value"},
		"errorCode no number":      {status(success + "<errorStack><errors><errorCode>sesame</errorCode></errors></errorStack>"), "errorCode is not an integer"},
		"attribute without name":   {respond("<resultAttribute><attributes><value>sesame</value></attributes></resultAttribute>"), "attributeID"},
		"attribute with two names": {respond("<resultAttribute><attributes><attributeID>sesame</attributeID><attributeID>b</attributeID></attributes></resultAttribute>"), "attributeID"},
		"attribute with two values": {
			respond("<resultAttribute><attributes><attributeID>a</attributeID><value>sesame</value><value/></attributes></resultAttribute>"), "several values",
		},
		"cut off":              {good[:len(good)-20], "malformed XML"},
		"crossed tags":         {strings.Replace(good, "</status>", "</sesame>", 1), "malformed XML"},
		"unknown entity":       {status("&sesame;" + success), "malformed XML"},
		"control character":    {status("\x01" + success), "malformed XML"},
		"invalid UTF-8":        {status("\xff" + success), "malformed XML"},
		"UTF-16":               {"\xff\xfe<\x00a\x00/\x00>\x00", "malformed XML"},
		"Latin-1":              {strings.Replace(good, "UTF-8", "ISO-8859-1", 1), "UTF-8"},
		"XML 1.1":              {strings.Replace(good, `version="1.0"`, `version="1.1"`, 1), "1.0"},
		"DOCTYPE":              {`<!DOCTYPE a [<!ENTITY sesame "b">]>` + good[strings.Index(good, "\n"):], "document type"},
		"external DOCTYPE":     {`<!DOCTYPE a SYSTEM "file:///sesame">` + good[strings.Index(good, "\n"):], "document type"},
		"DOCTYPE inside":       {status("<!DOCTYPE sesame>" + success), "document type"},
		"instruction inside":   {status("<?sesame?>" + success), "processing instruction"},
		"instruction after":    {good + "<?sesame?>", "processing instruction"},
		"text after":           {good + "sesame", "content after"},
		"element after":        {good + "<sesame/>", "content after"},
		"too deep":             {status(success + strings.Repeat("<a>", 30) + strings.Repeat("</a>", 30)), "deeper than 32"},
		"too deep, unclosed":   {strings.Repeat("<Envelope>", 10_000), "deeper than 32"},
		"too deep, in result":  {respond("<result>" + strings.Repeat("<a>", 30)), "deeper than 32"},
		"too deep, in stack":   {respond("<errorStack><a>" + strings.Repeat("<a>", 30)), "deeper than 32"},
		"path too long":        {respond("<result><" + strings.Repeat("sesame", 100) + "/></result>"), "too long"},
		"too many elements":    {status(strings.Repeat("<a/>", 10_000)), "more than 10000 elements"},
		"too many attributes":  {status("<a" + strings.Repeat(` sesame=""`, 33) + "/>"), "more than 32 attributes"},
		"too long":             {status(success + "<a>" + strings.Repeat("sesame", 200_000) + "</a>"), "longer than"},
		"too long, after":      {good + strings.Repeat(" ", 1<<20), "longer than"},
		"Fault and garbage":    {envelope("<Fault><faultcode>sesame</faultcode></Fault>") + "x", "content after"},
		"Fault with long code": {envelope("<Fault><faultcode>" + strings.Repeat("sesame", 30) + "</faultcode></Fault>"), "too long"},
	} {
		_, err := decode(strings.NewReader(test.text), "cancelAuthUser")
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if !strings.Contains(err.Error(), test.problem) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Answers that just reach a limit are accepted.
func TestDecodeLimits(t *testing.T) {
	t.Parallel()
	for name, filling := range map[string]string{
		"depth":      strings.Repeat("<a>", 28) + strings.Repeat("</a>", 28),
		"elements":   strings.Repeat("<a/>", 10_000-9),
		"attributes": "<a" + strings.Repeat(` a=""`, 32) + "/>",
		"length":     strings.Repeat("<a>"+strings.Repeat("x", 120_000)+"</a>", 8),
	} {
		text := envelope(`<cancelAuthUserResponse><status>` + success + filling + `</status></cancelAuthUserResponse>`)
		if _, err := decode(strings.NewReader(text), "cancelAuthUser"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The code of a Fault, in both SOAP versions, decides whether it blames the sender.
func TestDecodeFault(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		want Fault
	}{
		"1.1 client": {
			`<f:Fault xmlns:f="urn:f"><faultcode>SOAP-ENV:Client</faultcode><faultstring>bad type</faultstring><detail><a>b</a></detail></f:Fault>`,
			Fault{"Client", "bad type", true},
		},
		"1.1 refined":          {`<Fault><faultstring/><faultcode>Client.Authentication</faultcode></Fault>`, Fault{"Client.Authentication", "", true}},
		"1.1 server":           {`<Fault><faultcode>x:Server</faultcode><faultstring>no</faultstring></Fault>`, Fault{"Server", "no", false}},
		"1.1 version mismatch": {`<Fault><faultcode>x:VersionMismatch</faultcode></Fault>`, Fault{"VersionMismatch", "", true}},
		"1.2 sender": {
			`<env:Fault xmlns:env="urn:e"><env:Code><env:Value>env:Sender</env:Value><env:Subcode><env:Value>m:Timeout</env:Value></env:Subcode></env:Code>` +
				`<env:Reason><env:Text xml:lang="en">bad type</env:Text><env:Text xml:lang="de">falscher Typ</env:Text></env:Reason><env:Detail/></env:Fault>`,
			Fault{"Sender", "bad type", true},
		},
		"1.2 receiver": {
			`<Fault><Reason><Text>no</Text></Reason><Code><Subcode><Value>Sender</Value></Subcode><Value>env:Receiver</Value></Code></Fault>`,
			Fault{"Receiver", "no", false},
		},
		"unknown": {`<Fault/>`, Fault{}},
	} {
		_, err := decode(strings.NewReader(envelope(test.text)), "cancelAuthUser")
		got, ok := errors.AsType[*Fault](err)
		if !ok {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if *got != test.want {
			t.Errorf("%s: %+v", name, *got)
		}
	}
}

// A failure of the reader is a *ReadError, wherever in the answer it happens.
func TestDecodeReadError(t *testing.T) {
	t.Parallel()
	text := provisioned()
	broken := errors.New("broken")
	for n := range len(text) + 1 {
		_, err := decode(io.MultiReader(strings.NewReader(text[:n]), iotest.ErrReader(broken)), "provisioningExecute")
		if _, ok := errors.AsType[*ReadError](err); !ok || !errors.Is(err, broken) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

// Outputs of the typed family are found, also if the server writes their names in another case. Absent
// outputs become empty.
func TestTypedResults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		call   Call
		result string
		want   any
	}{
		"ephemeral key": {
			DSAPPSRPGenerateEphemeralKey.Call(nil, &DSAPPSRPChallenge{}),
			"<salt>00FF</salt><unknown>1</unknown><serverEphemeralPublicKey>0A1B</serverEphemeralPublicKey>",
			&DSAPPSRPChallenge{ServerPublic: "0A1B", Salt: "00FF"},
		},
		"signature request": {
			GetPreparedSignatureRequest.Call(nil, &Retrieved{}), "<requestMessage>0041</requestMessage>", &Retrieved{RequestMessage: "0041"},
		},
		"secure challenge": {
			GetPreparedSecureChallenge.Call(nil, &Retrieved{}), "<RequestMessage>00C1</RequestMessage>", &Retrieved{RequestMessage: "00C1"},
		},
		"nested": {
			DSAPPSRPActivate.Call(nil, &Activated{Domain: "of another answer"}),
			"<user><userID>jane.doe</userID></user><serialNumber>VDS1234567</serialNumber>",
			&Activated{UserID: "jane.doe", SerialNumber: "VDS1234567"},
		},
		"nothing": {CancelAuthSignatureRequest.Call(nil, &Done{}), "", &Done{}},
	} {
		c := test.call
		text := envelope("<x:" + c.operation + `Response xmlns:x="urn:x"><status>` + success + "</status><result>" + test.result + "</result></x:" + c.operation + "Response>")
		got, err := c.Decode(strings.NewReader(text), &testDialect)
		if err != nil || got.Guessed != "" || !reflect.DeepEqual(c.Answer, test.want) {
			t.Errorf("%s: %+v, %+v, %v", name, c.Answer, got, err)
		}
	}
}

// Activation messages are found under the configured name or, without it, guessed. Values that do
// not comply are refused.
func TestActivationMessages(t *testing.T) {
	t.Parallel()
	long, other := strings.Repeat("A1", 33), strings.Repeat("b2", 33)
	configured := "PROVFLD_ACTIVATION_MESSAGE"
	id := item{"PROVFLD_REGISTRATIONID", "aB3dE6gH"}
	register, addDevice := MDLRegister.Row, MDLAddDevice.Row
	for name, test := range map[string]struct {
		command *Row
		items   []item
		message string // expected
		guessed string // expected
		problem string // expected
	}{
		"configured":                 {register, []item{id, {configured, "0a"}}, "0a", "", ""},
		"configured and another":     {register, []item{id, {"X", other}, {configured, long}}, long, "", ""},
		"longest":                    {register, []item{id, {configured, strings.Repeat("A", 4234)}}, strings.Repeat("A", 4234), "", ""},
		"too long":                   {register, []item{id, {configured, strings.Repeat("A", 4235)}}, "", "", "too long"},
		"no hex":                     {register, []item{id, {configured, "0g"}}, "", "", "hex"},
		"empty":                      {register, []item{id, {configured, ""}}, "", "", "without " + configured},
		"absent":                     {register, []item{id}, "", "", "without " + configured},
		"same twice":                 {register, []item{id, {configured, long}, {configured, long}}, long, "", ""},
		"different twice":            {register, []item{id, {configured, long}, {configured, other}}, "", "", "different values"},
		"guessed":                    {register, []item{id, {"PROVFLD_AM1", long}}, long, "PROVFLD_AM1", ""},
		"guessed among others":       {register, []item{{"SHORT", "0a"}, {"PROVFLD_AM1", long}, {"TEXT", strings.Repeat("x", 99)}, id}, long, "PROVFLD_AM1", ""},
		"64 digits are not guessed":  {register, []item{id, {"PROVFLD_AM1", long[:64]}}, "", "", "without " + configured},
		"65 digits are guessed":      {register, []item{id, {"PROVFLD_AM1", long[:65]}}, long[:65], "PROVFLD_AM1", ""},
		"guessed twice":              {register, []item{id, {"PROVFLD_AM1", long}, {"PROVFLD_AM1", "0a"}}, "", "", "different values"},
		"long name":                  {register, []item{id, {strings.Repeat("A", 65), long}}, "", "", "without " + configured},
		"two candidates":             {register, []item{id, {"A", long}, {"B", other}}, "", "", "without " + configured},
		"known attributes":           {register, []item{id, {"PROVFLD_SERIAL_NO", long}, {"PROVFLD_USERID", other}}, "", "", "without " + configured},
		"strange name":               {register, []item{id, {"a b", long}}, "", "", "without " + configured},
		"guessed, too long":          {addDevice, []item{{"PROVFLD_AM2", strings.Repeat("A", 1025)}}, "", "", "too long"},
		"no registration identifier": {register, []item{{configured, long}}, "", "", "without PROVFLD_REGISTRATIONID"},
		"second message, longest":    {addDevice, []item{{"PROVFLD_INSTANCE_ACTIVATION_MESSAGE", strings.Repeat("f", 1024)}}, strings.Repeat("f", 1024), "", ""},
		"second message, too long":   {addDevice, []item{{"PROVFLD_INSTANCE_ACTIVATION_MESSAGE", strings.Repeat("f", 1025)}}, "", "", "too long"},
	} {
		var registered MDLRegistered
		var device MDLDevice
		c := Call{Row: test.command, Answer: &registered}
		if test.command == addDevice {
			c.Answer = &device
		}
		guessed, err := c.fill(test.items, &testDialect.Attributes)
		if test.problem != "" {
			if err == nil || !strings.Contains(err.Error(), test.problem) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := registered.ActivationMessage + device.InstanceActivationMessage; got != test.message || guessed != test.guessed {
			t.Errorf("%s: %q, guessed %q", name, got, guessed)
		}
	}
}

// The answer for a standard licence contains an activation code, which the server marks as masked
// for its own audit, and a counter with a configured name.
func TestStandardLicence(t *testing.T) {
	t.Parallel()
	var got Registered
	_, err := Register.Call(nil, &got).Decode(strings.NewReader(provisioned(
		`<attributes><attributeOptions><masked>true</masked></attributeOptions><value>0123456789</value><attributeID>PROVFLD_ACTIVATION_CODE</attributeID></attributes>`,
		attribute("MY_COUNTER", "007"), attribute("PROVFLD_SERIAL_NO", "VDS1234567"))), &Dialect{Attributes: Attributes{EventReactivationCounter: "MY_COUNTER"}})
	want := Registered{SerialNumber: "VDS1234567", ActivationCode: "0123456789", EventReactivationCounter: "007"}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

// Whatever a server sends, decode returns an error or an answer that is within the limits and whose
// codes agree.
func FuzzDecode(f *testing.F) {
	f.Add(provisioned(attribute("PROVFLD_SERIAL_NO", "VDS1234567")))
	f.Add(refused("RET_FAILURE", "STAT_NOT_FOUND", -1, -13, `<errorStack><errors><errorCode>-13</errorCode><errorDesc>x</errorDesc></errors></errorStack>`))
	f.Add(envelope(`<provisioningExecuteRespond><status>` + success + `</status><result><a><b>c</b></a></result></provisioningExecuteRespond>`))
	f.Add(refused("RET_SUCCESS", "STAT_LOCKED", 0, 1007, ""))
	f.Add(refused("RET_TWO_STEP", "STAT_SUCCESS", 7, 0, ""))
	f.Add(envelope(`<Fault><faultcode>Client</faultcode><faultstring>x</faultstring></Fault>`))
	f.Add(envelope(`<Fault><Code><Value>Sender</Value></Code><Reason><Text>x</Text></Reason></Fault>`))
	f.Add(`<!DOCTYPE a><a/>`)
	f.Add(strings.Repeat("<Envelope>", 40))
	f.Add("\uFEFF<?xml version='1.0'?><a:Envelope><Body/></a:Envelope>")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := decode(strings.NewReader(text), "provisioningExecute")
		if err != nil {
			if !reflect.DeepEqual(got, answer{}) {
				t.Error("answer and error")
			}
			return
		}
		if got.codes.ReturnCodeEnum == "" || got.codes.StatusCodeEnum == "" {
			t.Errorf("incomplete codes %+v", got.codes)
		}
		successes := 0
		for _, says := range []bool{
			got.codes.ReturnCodeEnum == "RET_SUCCESS", got.codes.StatusCodeEnum == "STAT_SUCCESS", got.codes.ReturnCode == 0, got.codes.StatusCode == 0,
		} {
			if says {
				successes++
			}
		}
		if successes%4 != 0 || got.codes.Success() != (successes == 4) {
			t.Errorf("contradictory codes %+v", got.codes)
		}
		if len(got.items)+len(got.stack) > maxElements {
			t.Errorf("%d items, %d entries", len(got.items), len(got.stack))
		}
		for _, it := range got.items {
			if it.name == "" || len(it.name)+len(it.value) > maxAnswer {
				t.Errorf("item %.100q", it.name)
			}
			if !IsXMLText(it.value) {
				t.Errorf("value %.100q", it.value)
			}
		}
	})
}

// BenchmarkEncodeDecode measures a registration without the network. That of the answer to a
// one-time password is in BenchmarkParse.
func BenchmarkEncodeDecode(b *testing.B) {
	text := provisioned(
		attribute("PROVFLD_REGISTRATIONID", "aB3dE6gH"),
		attribute("PROVFLD_ACTIVATION_MESSAGE", strings.Repeat("0123456789ABCDEF", 256)),
		attribute("PROVFLD_SERIAL_NO", "VDS1234567"),
	)
	request := MDLRegisterRequest{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: `p<&>"'d`}
	var registered MDLRegistered
	c := MDLRegister.Call(&request, &registered)
	for _, stage := range []struct {
		name string
		do   func() error
	}{
		{"encode", func() error { _, err := c.Encode(&testDialect); return err }},
		{"decode", func() error { _, err := c.Decode(strings.NewReader(text), &testDialect); return err }},
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
