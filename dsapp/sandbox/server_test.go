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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The answers of an activation have these bytes, with requests written down by hand.
func TestGoldenActivation(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()

	code, answer := send(t, s, text11, registerRequest)
	id := attributeValue(t, answer, "PROVFLD_REGISTRATIONID")
	am1 := attributeValue(t, answer, "PROVFLD_ACTIVATION_MESSAGE")
	want := goldenProvisioning(attr("string", id, "PROVFLD_REGISTRATIONID"), attr("string", am1, "PROVFLD_ACTIVATION_MESSAGE"),
		attr("string", "VDS1000120", "PROVFLD_SERIAL_NO"))
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
	want = goldenProvisioning(attr("string", am2, "PROVFLD_INSTANCE_ACTIVATION_MESSAGE"), attr("string", "VDS1000120-1", "PROVFLD_SERIAL_NO"))
	if code != http.StatusOK || answer != want || len(am2) != 108 {
		t.Fatalf("add device: HTTP status %d\n%s\nwant\n%s", code, answer, want)
	}

	signature, err := d.ActivateInstance(am2)
	if err != nil {
		t.Fatal(err)
	}
	code, answer = send(t, s, text11, activate(id, signature))
	want = goldenProvisioning(attr("string", "jane.doe", "PROVFLD_USERID"), attr("string", "mydomain.com", "PROVFLD_DOMAIN"),
		attr("string", "VDS1000120", "PROVFLD_SERIAL_NO"))
	if code != http.StatusOK || answer != want {
		t.Fatalf("activate: HTTP status %d\n%s\nwant\n%s", code, answer, want)
	}

	code, answer = send(t, s, text11, activate(id, signature))
	if code != http.StatusOK || answer != goldenNotFound {
		t.Fatalf("activate again: HTTP status %d\n%s\nwant\n%s", code, answer, goldenNotFound)
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

// Wrong static passwords are refused, three in a row lock the user, and a right one resets
// the count. The domain distinguishes users of one name.
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

// A registration expires after 600 s, whatever happens in between.
func TestRegistrationExpires(t *testing.T) {
	t.Parallel()
	s, c := newTestServer()
	id, am1 := startActivation(t, s)
	d := NewDevice(1)
	code, err := d.ActivateLicense(am1)
	if err != nil {
		t.Fatal(err)
	}

	c.Advance(599 * time.Second)
	_, answer := send(t, s, text11, addDevice(id, code))
	signature, err := d.ActivateInstance(attributeValue(t, answer, "PROVFLD_INSTANCE_ACTIVATION_MESSAGE"))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.State().Registrations); n != 1 {
		t.Errorf("%d registrations before expiry", n)
	}
	c.Advance(time.Second)
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

// A confirmation signature is accepted once and only for the last device. A wrong one changes
// nothing. Each device gets a sequence number.
func TestDevicesOfRegistration(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	id, am1 := startActivation(t, s)
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

// A device description is optional and accepted under the name in the options only.
func TestDeviceDescription(t *testing.T) {
	t.Parallel()
	users := []User{{Name: "jane.doe", Domain: "mydomain.com", StaticPassword: "s&cret"}}
	s := New(Options{Users: users, DescriptionAttribute: "PROVFLD_DESCRIPTION"})
	id, am1 := startActivation(t, s)
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

// Wrong device codes are refused with the framework code of device codes, and use no sequence
// number.
func TestDeviceCodeRefused(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	id, _ := startActivation(t, s)
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

// A licence serves 99 devices with one activation message, then the next licence is assigned,
// until the user or the server has no more.
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

// StateHandler answers GET only, with users, counters and devices, and without passwords and
// activation messages.
func TestStateHandler(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	id, am1 := startActivation(t, s)
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

// Concurrent registrations have different identifiers and are all counted.
func TestConcurrentRegistrations(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { startActivation(t, s) })
	}
	wg.Wait()
	if n := len(s.State().Registrations); n != 20 || s.Calls("PROVISIONCMD_MDL_REGISTER") != 20 {
		t.Errorf("%d registrations, %d calls", n, s.Calls("PROVISIONCMD_MDL_REGISTER"))
	}
}

// The sandbox does not import the client that is tested with it.
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

// A plain client can read answers over a real connection, and use the connection again.
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

// Replicas have the same users, licences and devices, but their own registrations, pending
// requests, counters, failures and variants.
func TestReplica(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	a := newPushAuthenticator(t, s)
	replica := s.Replica()
	if got := status(t, replica, authUser(password(a.OneTimePassword()))); got != "STAT_SUCCESS" {
		t.Errorf("one-time password at the replica: %s", got)
	}
	if again := newPushAuthenticator(t, replica); again.SerialNumber != "VDS1000120-2" {
		t.Errorf("the next device is %s", again.SerialNumber)
	}
	id, _ := startActivation(t, s)
	if got := status(t, replica, activate(id, "1")); got != "STAT_NOT_FOUND" {
		t.Errorf("registration of another instance: %s", got)
	}
	s.Fail("authUser", FailStatus("STAT_COMMS"))
	s.SetVariant(Variant{Prefixes: true})
	_, answer := send(t, replica, text11, authUser(password("x")))
	if !strings.Contains(answer, "STAT_OTP_INCORRECT") || !strings.Contains(answer, "<aut:") {
		t.Errorf("answer of the replica: %s", answer)
	}
	if s.Calls("authUser") != 0 || replica.Calls("authUser") != 2 {
		t.Errorf("calls %d and %d", s.Calls("authUser"), replica.Calls("authUser"))
	}
	if !slices.EqualFunc(s.State().Users, replica.State().Users, func(a, b UserState) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
		t.Error("instances tell different users")
	}
	if len(s.State().Registrations) != 1 || len(replica.State().Registrations) != 0 {
		t.Error("instances share registrations")
	}
}
