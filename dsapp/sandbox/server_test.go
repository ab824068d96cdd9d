package sandbox

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// registerRequest is a request as the interface describes it, with nothing of
// it made by the code under test.
const registerRequest = `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"
    xmlns:xsd="http://www.w3.org/2001/XMLSchema"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xmlns:prov="http://www.vasco.com/IdentikeyServer/IdentikeyTypes/Provisioning">
  <soapenv:Body>
    <prov:provisioningExecute>
      <cmd>PROVISIONCMD_MDL_REGISTER</cmd>
      <attributeSet>
        <attributes><value xsi:type="xsd:string">DIGIPASS Gateway Provisioning DP760</value><attributeID>PROVFLD_COMPONENT_TYPE</attributeID></attributes>
        <attributes><value xsi:type="xsd:string">jane.doe</value><attributeID>PROVFLD_USERID</attributeID></attributes>
        <attributes><attributeID>PROVFLD_DOMAIN</attributeID><value xsi:type="xsd:string">mydomain.com</value></attributes>
        <attributes><attributeOptions><masked>true</masked></attributeOptions><value xsi:type="xsd:string">s&amp;cret</value><attributeID>PROVFLD_STATIC_PASSWORD</attributeID></attributes>
        <attributes><value xsi:type="xsd:unsignedInt">0</value><attributeID>PROVFLD_ACTIVATION_TYPE</attributeID></attributes>
      </attributeSet>
    </prov:provisioningExecute>
  </soapenv:Body>
</soapenv:Envelope>`

const (
	text11 = "text/xml; charset=utf-8"
	text12 = "application/soap+xml; charset=utf-8"
)

func attr(typ, value, id string) string {
	return fmt.Sprintf(`<attributes><value xsi:type="xsd:%s">%s</value><attributeID>%s</attributeID></attributes>`, typ, value, id)
}

// request is a request with the component type and further attributes.
func request(cmd string, attributes ...string) string {
	return `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><e:Body>` +
		`<p:provisioningExecute xmlns:p="http://www.vasco.com/IdentikeyServer/IdentikeyTypes/Provisioning"><cmd>` + cmd + `</cmd><attributeSet>` +
		attr("string", "DIGIPASS Gateway Provisioning DP760", "PROVFLD_COMPONENT_TYPE") + strings.Join(attributes, "") +
		`</attributeSet></p:provisioningExecute></e:Body></e:Envelope>`
}

func register(user, password string) string {
	return request("PROVISIONCMD_MDL_REGISTER",
		attr("string", user, "PROVFLD_USERID"), attr("string", password, "PROVFLD_STATIC_PASSWORD"))
}

func addDevice(id, code string) string {
	return request("PROVISIONCMD_MDL_ADD_DEVICE",
		attr("string", id, "PROVFLD_REGISTRATIONID"), attr("string", code, "PROVFLD_DEVICE_CODE"))
}

func activate(id, signature string) string {
	return request("PROVISIONCMD_MDL_ACTIVATE",
		attr("string", id, "PROVFLD_REGISTRATIONID"), attr("string", signature, "PROVFLD_SIGNATURE"))
}

// A clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newTestServer(users ...User) (*Server, *clock) {
	c := &clock{now: time.Unix(1_700_000_000, 0).UTC()}
	users = append([]User{{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "s&cret"}}, users...)
	return New(Options{Users: users, Now: c.Now, SerialStart: 1000120}), c
}

// send posts a request and gives HTTP status and body.
func send(t testing.TB, h http.Handler, contentType, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// status sends a request and gives the status of its answer.
func status(t testing.TB, h http.Handler, body string) string {
	t.Helper()
	code, answer := send(t, h, text11, body)
	m := regexp.MustCompile(`<statusCodeEnum>(\w+)</statusCodeEnum>`).FindStringSubmatch(answer)
	if code != http.StatusOK || m == nil {
		t.Fatalf("HTTP status %d without result codes: %s", code, answer)
	}
	return m[1]
}

// attributeValue gives the value of an attribute in an answer of the usual form.
func attributeValue(t testing.TB, answer, id string) string {
	t.Helper()
	m := regexp.MustCompile(`<value xsi:type="xsd:string">([^<]*)</value><attributeID>` + id + `</attributeID>`).FindStringSubmatch(answer)
	if m == nil {
		t.Fatalf("no attribute %s in %s", id, answer)
	}
	return m[1]
}

// registered registers jane.doe and gives registration ID and Activation Message 1.
func registered(t testing.TB, s *Server) (id, am1 string) {
	t.Helper()
	_, answer := send(t, s, text11, registerRequest)
	return attributeValue(t, answer, "PROVFLD_REGISTRATIONID"), attributeValue(t, answer, "PROVFLD_ACTIVATION_MESSAGE")
}

const (
	goldenHead11 = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsd="http://www.w3.org/2001/XMLSchema"` +
		` xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"` +
		` xmlns:PROVISIONING-TYPES="http://www.vasco.com/IdentikeyServer/IdentikeyTypes/ProvisioningTypes.xsd"` +
		` xmlns:prov="http://www.vasco.com/IdentikeyServer/IdentikeyTypes/Provisioning"><soapenv:Body>`
	goldenTail    = `</soapenv:Body></soapenv:Envelope>`
	goldenSuccess = `<prov:provisioningExecuteResponse><results xsi:type="PROVISIONING-TYPES:ProvisioningResults">` +
		`<resultCodes><returnCodeEnum>RET_SUCCESS</returnCodeEnum><statusCodeEnum>STAT_SUCCESS</statusCodeEnum>` +
		`<returnCode>0</returnCode><statusCode>0</statusCode></resultCodes><resultAttribute>%s</resultAttribute>` +
		`<errorStack></errorStack></results></prov:provisioningExecuteResponse>`
	goldenFailure = `<prov:provisioningExecuteResponse><results xsi:type="PROVISIONING-TYPES:ProvisioningResults">` +
		`<resultCodes><returnCodeEnum>RET_FAILURE</returnCodeEnum><statusCodeEnum>%s</statusCodeEnum>` +
		`<returnCode>-1</returnCode><statusCode>%d</statusCode></resultCodes><resultAttribute></resultAttribute>` +
		`<errorStack><errors><errorCode>%d</errorCode><errorDesc>%s</errorDesc></errors></errorStack></results></prov:provisioningExecuteResponse>`
)

// Guards the bytes of every answer in its usual form, through a whole
// activation with hand-written requests.
func TestGoldenActivation(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()

	code, answer := send(t, s, text11, registerRequest)
	id := attributeValue(t, answer, "PROVFLD_REGISTRATIONID")
	am1 := attributeValue(t, answer, "PROVFLD_ACTIVATION_MESSAGE")
	want := goldenHead11 + fmt.Sprintf(goldenSuccess,
		attr("string", id, "PROVFLD_REGISTRATIONID")+attr("string", am1, "PROVFLD_ACTIVATION_MESSAGE")+
			attr("string", "VDS1000120", "PROVFLD_SERIAL_NO")) + goldenTail
	if code != http.StatusOK || answer != want {
		t.Fatalf("register: HTTP status %d\n%s\nwant\n%s", code, answer, want)
	}
	if !regexp.MustCompile(`^[0-9A-Za-z]{8}$`).MatchString(id) || id == strings.ToLower(id) || id == strings.ToUpper(id) {
		t.Errorf("registration ID %q is not 8 alphanumerics of both cases", id)
	}
	if len(am1) != 4234 || strings.Trim(am1, "0123456789ABCDEF") != "" {
		t.Errorf("activation message 1 has %d digits", len(am1))
	}

	d := NewDevice(5)
	deviceCode, err := d.ActivateLicense(am1)
	if err != nil {
		t.Fatal(err)
	}
	code, answer = send(t, s, text11, addDevice(id, deviceCode))
	am2 := attributeValue(t, answer, "PROVFLD_INSTANCE_ACTIVATION_MESSAGE")
	want = goldenHead11 + fmt.Sprintf(goldenSuccess,
		attr("string", am2, "PROVFLD_INSTANCE_ACTIVATION_MESSAGE")+attr("string", "VDS1000120-1", "PROVFLD_SERIAL_NO")) + goldenTail
	if code != http.StatusOK || answer != want || len(am2) != 108 {
		t.Fatalf("add device: HTTP status %d\n%s\nwant\n%s", code, answer, want)
	}

	signature, err := d.ActivateInstance(am2)
	if err != nil {
		t.Fatal(err)
	}
	code, answer = send(t, s, text11, activate(id, signature))
	want = goldenHead11 + fmt.Sprintf(goldenSuccess,
		attr("string", "jane.doe", "PROVFLD_USERID")+attr("string", "mydomain.com", "PROVFLD_DOMAIN")+
			attr("string", "VDS1000120", "PROVFLD_SERIAL_NO")) + goldenTail
	if code != http.StatusOK || answer != want {
		t.Fatalf("activate: HTTP status %d\n%s\nwant\n%s", code, answer, want)
	}

	code, answer = send(t, s, text11, activate(id, signature))
	want = goldenHead11 + fmt.Sprintf(goldenFailure, "STAT_NOT_FOUND", -13, -13, "registration ID not found") + goldenTail
	if code != http.StatusOK || answer != want {
		t.Fatalf("activate again: HTTP status %d\n%s\nwant\n%s", code, answer, want)
	}

	for op, want := range map[string]int{
		"provisioningExecute": 4, "PROVISIONCMD_MDL_REGISTER": 1,
		"PROVISIONCMD_MDL_ADD_DEVICE": 1, "PROVISIONCMD_MDL_ACTIVATE": 2, "authUser": 0,
	} {
		if got := s.Calls(op); got != want {
			t.Errorf("Calls(%s) = %d, want %d", op, got, want)
		}
	}
}

// Guards what the server is strict about: transport, envelope, qualification,
// types. replace changes the good request above.
func TestStrictness(t *testing.T) {
	t.Parallel()
	password := `<value xsi:type="xsd:string">s&amp;cret</value>`
	for name, c := range map[string]struct {
		old, new string
		status   int
		answer   string // part of it
	}{
		"good":                        {"", "", 200, "STAT_SUCCESS"},
		"SOAP header":                 {"<soapenv:Body>", "<soapenv:Header><x/></soapenv:Header><soapenv:Body>", 200, "STAT_SUCCESS"},
		"mandatory header block":      {"<soapenv:Body>", `<soapenv:Header><x soapenv:mustUnderstand="1"/></soapenv:Header><soapenv:Body>`, 500, "soapenv:MustUnderstand"},
		"string type misspelt":        {password, `<value xsi:type="xsd:String">s&amp;cret</value>`, 500, "needs xsi:type xsd:string"},
		"int instead of unsignedInt":  {`"xsd:unsignedInt"`, `"xsd:int"`, 500, "needs xsi:type xsd:unsignedInt"},
		"string for unsignedInt":      {`"xsd:unsignedInt"`, `"xsd:string"`, 500, "needs xsi:type xsd:unsignedInt"},
		"type of another namespace":   {password, `<value xmlns:x="urn:x" xsi:type="x:string">s&amp;cret</value>`, 500, "needs xsi:type xsd:string"},
		"type without prefix":         {password, `<value xsi:type="string">s&amp;cret</value>`, 500, "needs xsi:type xsd:string"},
		"no type":                     {password, `<value>s&amp;cret</value>`, 500, "value without xsi:type"},
		"type without namespace":      {password, `<value type="xsd:string">s&amp;cret</value>`, 500, "value without xsi:type"},
		"number is none":              {">0</value>", ">zero</value>", 500, "is not an xsd:unsignedInt"},
		"negative number":             {">0</value>", ">-1</value>", 500, "is not an xsd:unsignedInt"},
		"qualified child":             {"<cmd>PROVISIONCMD_MDL_REGISTER</cmd>", "<prov:cmd>PROVISIONCMD_MDL_REGISTER</prov:cmd>", 500, "cmd must not be namespace-qualified"},
		"default namespace":           {"<attributeSet>", `<attributeSet xmlns="urn:x">`, 500, "attributeSet must not be namespace-qualified"},
		"qualified grandchild":        {"<masked>true</masked>", "<prov:masked>true</prov:masked>", 500, "masked must not be namespace-qualified"},
		"operation of other scenario": {`IdentikeyTypes/Provisioning"`, `IdentikeyTypes/Authentication"`, 500, "not recognized"},
		"unknown cmd":                 {"MDL_REGISTER", "MDL_UNREGISTER", 500, "cmd is not a subcommand"},
		"no cmd":                      {"<cmd>PROVISIONCMD_MDL_REGISTER</cmd>", "", 500, "begins with the element cmd"},
		"unknown attribute":           {"PROVFLD_DOMAIN", "PROVFLD_REALM", 500, "not one that this command takes"},
		"attribute of another cmd":    {"PROVFLD_DOMAIN", "PROVFLD_SIGNATURE", 500, "not one that this command takes"},
		"wrong set":                   {"attributeSet>", "credentialAttributeSet>", 500, "expected element attributeSet"},
		"foreign element in the set":  {"<attributeSet>", "<attributeSet><x/>", 500, "other than attributes"},
		"foreign element":             {"<attributes><value", "<attributes><x/><value", 500, "unknown element"},
		"value twice":                 {password, password + password, 500, "value twice"},
		"no value":                    {password, "", 500, "needs value and attributeID"},
		"value with elements":         {password, `<value xsi:type="xsd:string"><x/></value>`, 500, "hold text only"},
		"unknown option":              {"<masked>true</masked>", "<x/>", 500, "attributeOptions holds an unknown"},
		"option that is no flag":      {"<masked>true</masked>", "<masked>maybe</masked>", 500, "not an xsd:boolean"},
		"unknown component type":      {"DP760", "DP761", 200, "STAT_INVPARAM"},
		"no component type":           {"<attributes><value xsi:type=\"xsd:string\">DIGIPASS Gateway Provisioning DP760</value><attributeID>PROVFLD_COMPONENT_TYPE</attributeID></attributes>", "", 200, "attribute missing: PROVFLD_COMPONENT_TYPE"},
		"no user":                     {`<attributes><value xsi:type="xsd:string">jane.doe</value><attributeID>PROVFLD_USERID</attributeID></attributes>`, "", 200, "attribute missing: PROVFLD_USERID"},
		"null password":               {"<masked>true</masked>", "<null>true</null>", 200, "attribute missing: PROVFLD_STATIC_PASSWORD"},
		"empty value":                 {"mydomain.com", "", 200, "attribute empty or too long: PROVFLD_DOMAIN"},
		"long value":                  {"mydomain.com", strings.Repeat("x", 256), 200, "attribute empty or too long: PROVFLD_DOMAIN"},
		"attribute twice":             {"PROVFLD_DOMAIN", "PROVFLD_USERID", 200, "attribute given twice: PROVFLD_USERID"},
		"doctype":                     {"<soapenv:Envelope", "<!DOCTYPE x><soapenv:Envelope", 500, "document type declarations"},
		"no envelope":                 {"soapenv:Envelope", "soapenv:Letter", 500, "not an Envelope"},
		"envelope of SOAP 1.2":        {soap11Namespace, soap12Namespace, 500, "soapenv:VersionMismatch"},
		"no body":                     {"soapenv:Body>", "soapenv:Torso>", 500, "exactly one Body"},
		"two operations":              {"</soapenv:Body>", "<x/></soapenv:Body>", 500, "exactly one operation"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newTestServer()
			body := registerRequest
			if c.old != "" {
				if body = strings.ReplaceAll(registerRequest, c.old, c.new); body == registerRequest {
					t.Fatal("the test changes nothing")
				}
			}
			code, answer := send(t, s, text11, body)
			if code != c.status || !strings.Contains(answer, c.answer) {
				t.Fatalf("HTTP status %d: %s", code, answer)
			}
			if code == 500 && !strings.Contains(answer, "<faultcode>soapenv:") {
				t.Errorf("no Fault: %s", answer)
			}
			if strings.Contains(answer, "s&amp;cret") {
				t.Error("the answer repeats the password")
			}
		})
	}
}

// Guards the HTTP side: path, method, media type, size.
func TestTransport(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	for name, c := range map[string]struct {
		method, path, contentType, body string
		status                          int
	}{
		"text/xml":           {"POST", "/", "text/xml", registerRequest, 200},
		"application/xml":    {"POST", "/", "application/xml; charset=UTF-8", registerRequest, 200},
		"other path":         {"POST", "/soap", text11, registerRequest, 404},
		"GET":                {"GET", "/", text11, "", 405},
		"PUT":                {"PUT", "/", text11, registerRequest, 405},
		"JSON":               {"POST", "/", "application/json", registerRequest, 415},
		"no content type":    {"POST", "/", "", registerRequest, 415},
		"other charset":      {"POST", "/", "text/xml; charset=iso-8859-1", registerRequest, 415},
		"too large":          {"POST", "/", text11, strings.Repeat(" ", maxRequestSize+1), 413},
		"empty":              {"POST", "/", text11, "", 500},
		"empty, SOAP 1.2":    {"POST", "/", text12, "", 400},
		"1.1 sent as 1.2":    {"POST", "/", text12, registerRequest, 500},
		"largest, malformed": {"POST", "/", text12, strings.Repeat(" ", maxRequestSize), 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
			if c.contentType != "" {
				r.Header.Set("Content-Type", c.contentType)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != c.status {
				t.Errorf("HTTP status %d, want %d: %s", w.Code, c.status, w.Body)
			}
			if allow := w.Header().Get("Allow"); (w.Code == 405) != (allow == "POST") {
				t.Errorf("HTTP status %d with Allow %q", w.Code, allow)
			}
		})
	}
}

// Guards SOAP 1.2: media type, envelope, and the form and status of Faults.
func TestSOAP12(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	good := strings.ReplaceAll(registerRequest, soap11Namespace, soap12Namespace)
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(good))
	r.Header.Set("Content-Type", `application/soap+xml; charset=utf-8; action=""`)
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != 200 || w.Header().Get("Content-Type") != text12 || !strings.Contains(w.Body.String(), `xmlns:soapenv="`+soap12Namespace+`"`) {
		t.Errorf("HTTP status %d, %s: %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}

	code, answer := send(t, s, text12, strings.ReplaceAll(good, "<cmd>", "<x/><cmd>"))
	want := `<soapenv:Fault><soapenv:Code><soapenv:Value>soapenv:Sender</soapenv:Value></soapenv:Code>` +
		`<soapenv:Reason><soapenv:Text xml:lang="en">operation provisioningExecute begins with the element cmd</soapenv:Text></soapenv:Reason></soapenv:Fault>`
	if code != 400 || !strings.Contains(answer, want) {
		t.Errorf("HTTP status %d: %s", code, answer)
	}

	s.Fail("provisioningExecute", FailFault())
	code, answer = send(t, s, text12, good)
	if code != 500 || !strings.Contains(answer, "<soapenv:Value>soapenv:Receiver</soapenv:Value>") {
		t.Errorf("HTTP status %d: %s", code, answer)
	}
}

// Guards the static password: who is refused how, that three wrong ones lock,
// that a right one starts the count anew, and that a user's domain matters.
func TestStaticPassword(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer(
		User{Name: "twin", Domain: "a", StaticPassword: "pa"},
		User{Name: "twin", Domain: "b", StaticPassword: "pb"})
	steps := []struct{ user, password, want string }{
		{"john.doe", "x", "STAT_USER_UNKNOWN"},
		{"jane.doe", "wrong", "STAT_LOCAL_PASSWORD_MISMATCH"},
		{"jane.doe", "wrong", "STAT_LOCAL_PASSWORD_MISMATCH"},
		{"jane.doe", "s&amp;cret", "STAT_SUCCESS"},
		{"jane.doe", "wrong", "STAT_LOCAL_PASSWORD_MISMATCH"},
		{"jane.doe", "wrong", "STAT_LOCAL_PASSWORD_MISMATCH"},
		{"jane.doe", "wrong", "STAT_LOCAL_PASSWORD_MISMATCH"},
		{"jane.doe", "s&amp;cret", "STAT_LOCKED"},
		{"twin", "pa", "STAT_USER_UNKNOWN"},
	}
	for i, c := range steps {
		if got := status(t, s, register(c.user, c.password)); got != c.want {
			t.Errorf("step %d: %s, want %s", i, got, c.want)
		}
	}
	inDomain := strings.ReplaceAll(register("twin", "pb"), "</attributeSet>", attr("string", "b", "PROVFLD_DOMAIN")+"</attributeSet>")
	if got := status(t, s, inDomain); got != "STAT_SUCCESS" {
		t.Errorf("user in a domain: %s", got)
	}
	otherDomain := strings.ReplaceAll(inDomain, ">b<", ">c<")
	if got := status(t, s, otherDomain); got != "STAT_USER_UNKNOWN" {
		t.Errorf("user in another domain: %s", got)
	}
}

// Guards the age of the provisioning cache: 600 s from registration, whatever
// happens in between.
func TestRegistrationExpires(t *testing.T) {
	t.Parallel()
	s, c := newTestServer()
	id, am1 := registered(t, s)
	d := NewDevice(1)
	code, err := d.ActivateLicense(am1)
	if err != nil {
		t.Fatal(err)
	}

	c.advance(599 * time.Second)
	_, answer := send(t, s, text11, addDevice(id, code))
	signature, err := d.ActivateInstance(attributeValue(t, answer, "PROVFLD_INSTANCE_ACTIVATION_MESSAGE"))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.State().Registrations); n != 1 {
		t.Errorf("%d registrations before expiry", n)
	}
	c.advance(time.Second)
	if got := status(t, s, activate(id, signature)); got != "STAT_NOT_FOUND" {
		t.Errorf("activate after 600 s: %s", got)
	}
	if got := status(t, s, addDevice(id, code)); got != "STAT_NOT_FOUND" {
		t.Errorf("add device after 600 s: %s", got)
	}
	if n := len(s.State().Registrations); n != 0 {
		t.Errorf("%d registrations after expiry", n)
	}
}

// Guards the one-time rules: a signature counts once and only for the latest
// device, a wrong one changes nothing, every device takes a sequence number.
func TestDevicesOfRegistration(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	id, am1 := registered(t, s)
	first, second := NewDevice(1), NewDevice(2)
	var signatures []string
	for i, d := range []*Device{first, second} {
		code, err := d.ActivateLicense(am1)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if got := status(t, s, activate(id, strings.Repeat("0", 16))); got != "STAT_NOT_FOUND" {
				t.Errorf("activate before add device: %s", got)
			}
		}
		_, answer := send(t, s, text11, addDevice(id, code))
		if got, want := attributeValue(t, answer, "PROVFLD_SERIAL_NO"), fmt.Sprintf("VDS1000120-%d", i+1); got != want {
			t.Errorf("serial number %s, want %s", got, want)
		}
		signature, err := d.ActivateInstance(attributeValue(t, answer, "PROVFLD_INSTANCE_ACTIVATION_MESSAGE"))
		if err != nil {
			t.Fatal(err)
		}
		signatures = append(signatures, signature)
	}

	for i, c := range []struct{ signature, want string }{
		{signatures[0], "STAT_OTP_INCORRECT"},
		{"1", "STAT_OTP_INCORRECT"},
		{signatures[1], "STAT_SUCCESS"},
		{signatures[1], "STAT_NOT_FOUND"},
	} {
		if got := status(t, s, activate(id, c.signature)); got != c.want {
			t.Errorf("signature %d: %s, want %s", i, got, c.want)
		}
	}
	devices := s.State().Users[0].Licenses[0].Devices
	want := []DeviceState{{SerialNumber: "VDS1000120-1", DeviceID: 1}, {SerialNumber: "VDS1000120-2", DeviceID: 2, Activated: true}}
	if len(devices) != 2 || devices[0] != want[0] || devices[1] != want[1] {
		t.Errorf("devices %v, want %v", devices, want)
	}
}

// Guards that a device description is taken under the name from the options
// only, and that it is not required.
func TestDeviceDescription(t *testing.T) {
	t.Parallel()
	users := []User{{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "s&cret"}}
	s := New(Options{Users: users, DescriptionAttribute: "PROVFLD_DESCRIPTION"})
	id, am1 := registered(t, s)
	code, err := NewDevice(1).ActivateLicense(am1)
	if err != nil {
		t.Fatal(err)
	}
	described := strings.ReplaceAll(addDevice(id, code), "</attributeSet>", attr("string", "my phone", "PROVFLD_DESCRIPTION")+"</attributeSet>")
	for _, body := range []string{described, addDevice(id, code)} {
		if got := status(t, s, body); got != "STAT_SUCCESS" {
			t.Errorf("add device: %s", got)
		}
	}
	devices := s.State().Users[0].Licenses[0].Devices
	if devices[0].Description != "my phone" || devices[1].Description != "" {
		t.Errorf("devices %+v", devices)
	}
	other, _ := newTestServer()
	if code, answer := send(t, other, text11, described); code != 500 || !strings.Contains(answer, "not one that this command takes") {
		t.Errorf("HTTP status %d: %s", code, answer)
	}
}

// Guards device codes: those of another licence or with a wrong digit are
// refused with the framework code of the device code, and take no number.
func TestDeviceCodeRefused(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	id, _ := registered(t, s)
	for _, code := range []string{
		"12345678901234567890123456",
		license{serial: "VDS1000120"}.deviceCode(1),
		"1234567890",
		"abcdefghijklmnopqrstuvwxyz",
	} {
		_, answer := send(t, s, text11, addDevice(id, code))
		if !strings.Contains(answer, "STAT_DPERROR") || !strings.Contains(answer, "<errorCode>1263</errorCode>") {
			t.Errorf("device code %s: %s", code, answer)
		}
		if strings.Contains(answer, code) {
			t.Error("the answer repeats the device code")
		}
	}
	if got := status(t, s, addDevice(id, strings.Repeat("1", 27))); got != "STAT_INVPARAM" {
		t.Errorf("27 digits: %s", got)
	}
	if n := len(s.State().Users[0].Licenses[0].Devices); n != 0 {
		t.Errorf("%d devices", n)
	}
}

// Guards licences: one serves 99 devices and keeps its message, the next one is
// assigned then, and there is an end to them.
func TestLicenses(t *testing.T) {
	t.Parallel()
	s := New(Options{
		Users:       []User{{Name: "u", StaticPassword: "p", Licenses: 2}, {Name: "v", StaticPassword: "p"}},
		SerialStart: 9_999_998,
	})
	var lastMessage string
	for _, serial := range []string{"VDS9999998", "VDS9999999"} {
		_, answer := send(t, s, text11, register("u", "p"))
		if got := attributeValue(t, answer, "PROVFLD_SERIAL_NO"); got != serial {
			t.Fatalf("serial number %s, want %s", got, serial)
		}
		id, am1 := attributeValue(t, answer, "PROVFLD_REGISTRATIONID"), attributeValue(t, answer, "PROVFLD_ACTIVATION_MESSAGE")
		if am1 == lastMessage {
			t.Fatal("two licences share an activation message")
		}
		if _, answer = send(t, s, text11, register("u", "p")); attributeValue(t, answer, "PROVFLD_ACTIVATION_MESSAGE") != am1 {
			t.Fatal("the message of a licence changed")
		}
		lastMessage = am1
		code, err := NewDevice(3).ActivateLicense(am1)
		if err != nil {
			t.Fatal(err)
		}
		for sequence := 1; sequence <= 99; sequence++ {
			_, answer = send(t, s, text11, addDevice(id, code))
			if got, want := attributeValue(t, answer, "PROVFLD_SERIAL_NO"), fmt.Sprintf("%s-%d", serial, sequence); got != want {
				t.Fatalf("instance serial %s, want %s", got, want)
			}
		}
		if got := status(t, s, addDevice(id, code)); got != "STAT_DIGIPASS_NOT_AVAILABLE" {
			t.Fatalf("device 100: %s", got)
		}
	}
	for _, user := range []string{"u", "v"} { // no licence left for u, no number left for v
		if got := status(t, s, register(user, "p")); got != "STAT_DIGIPASS_NOT_AVAILABLE" {
			t.Errorf("%s: %s", user, got)
		}
	}
}

// Guards the answer variants: each changes what it says and keeps the values.
func TestVariants(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		variant Variant
		want    []string
	}{
		"prefixes": {Variant{Prefixes: true}, []string{"<SOAP-ENV:Body>", "<ns1:provisioningExecuteResponse>", `<value i:type="s:string">VDS1000120</value>`, `<results i:type="ns2:ProvisioningResults">`}},
		"order":    {Variant{IDFirst: true}, []string{`<attributes><attributeID>PROVFLD_SERIAL_NO</attributeID><value xsi:type="xsd:string">VDS1000120</value></attributes>`}},
		"masked":   {Variant{Masked: true}, []string{`<attributes><attributeOptions><masked>true</masked></attributeOptions><value xsi:type="xsd:string">0041C3E4`}},
		"errors":   {Variant{Errors: 2}, []string{"STAT_SUCCESS", strings.Repeat("<errors><errorCode>0</errorCode><errorDesc>further entry of the sandbox</errorDesc></errors>", 2)}},
		"extra":    {Variant{Extra: true}, []string{"SANDBOX_EXTRA_TEXT", `<value xsi:type="xsd:unsignedInt">7</value><attributeID>SANDBOX_EXTRA_NUMBER</attributeID>`}},
		"rename":   {Variant{Rename: map[string]string{"PROVFLD_ACTIVATION_MESSAGE": "PROVFLD_AM"}}, []string{"<attributeID>PROVFLD_AM</attributeID>"}},
		"all": {Variant{Prefixes: true, IDFirst: true, Masked: true, Errors: 1, Extra: true}, []string{
			`<attributes><attributeOptions><masked>true</masked></attributeOptions><attributeID>PROVFLD_ACTIVATION_MESSAGE</attributeID><value i:type="s:string">0041C3E4`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newTestServer()
			s.SetVariant(c.variant)
			code, answer := send(t, s, text11, registerRequest)
			for _, want := range append(c.want, "VDS1000120", "RET_SUCCESS") {
				if code != 200 || !strings.Contains(answer, want) {
					t.Errorf("HTTP status %d without %s: %.2000s", code, want, answer)
				}
			}
			if _, err := readXML([]byte(answer)); err != nil {
				t.Errorf("answer: %v", err)
			}
		})
	}
}

// Guards the endpoint for developers: it is read-only, and tells users, counts
// and devices but no password and no activation message.
func TestStateHandler(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	id, am1 := registered(t, s)
	status(t, s, register("jane.doe", "wrong"))

	w := httptest.NewRecorder()
	s.StateHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/state", nil))
	content := w.Body.String()
	var state State
	if err := json.Unmarshal([]byte(content), &state); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("HTTP status %d, %v: %s", w.Code, err, content)
	}
	u := state.Users[0]
	if state.Calls["PROVISIONCMD_MDL_REGISTER"] != 2 || u.UserID != "jane.doe" || u.WrongPasswords != 1 || u.Locked {
		t.Errorf("state %+v", state)
	}
	r := state.Registrations[0]
	if r.RegistrationID != id || r.SerialNumber != "VDS1000120" || !r.ExpiresAt.Equal(time.Unix(1_700_000_600, 0)) {
		t.Errorf("registration %+v", r)
	}
	for _, secret := range []string{"s&cret", `s\u0026cret`, "wrong\"", am1[:40]} {
		if strings.Contains(content, secret) {
			t.Errorf("state tells %.10s", secret)
		}
	}

	w = httptest.NewRecorder()
	s.StateHandler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/state", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: HTTP status %d", w.Code)
	}
}

// Guards that concurrent registrations get distinct identifiers and are all
// counted.
func TestConcurrentRegistrations(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { registered(t, s) })
	}
	wg.Wait()
	if n := len(s.State().Registrations); n != 20 || s.Calls("PROVISIONCMD_MDL_REGISTER") != 20 {
		t.Errorf("%d registrations, %d calls", n, s.Calls("PROVISIONCMD_MDL_REGISTER"))
	}
}

// Guards that the simulation stays independent of the client it tests.
func TestImportsNoClient(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no source files", err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if strings.Contains(i.Path.Value, "dsapp/authserver") || strings.Contains(i.Path.Value, "caddy") {
				t.Errorf("%s imports %s", file, i.Path.Value)
			}
		}
	}
}

// Guards that an answer is read to its end by a plain client over a real
// connection, which stays usable.
func TestOverConnection(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	for range 2 {
		response, err := server.Client().Post(server.URL, text11, strings.NewReader(registerRequest))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || response.ContentLength != int64(len(answer)) || response.Header.Get("Content-Type") != text11 {
			t.Errorf("%v, length %d of %d, %s", err, len(answer), response.ContentLength, response.Header.Get("Content-Type"))
		}
	}
}
