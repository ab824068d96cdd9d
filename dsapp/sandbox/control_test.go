package sandbox

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// controlCall calls the control interface and returns the HTTP status and the answer.
func controlCall(t testing.TB, h http.Handler, method, path, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "http://localhost:18880"+path, strings.NewReader(body)))
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %s: content type %s", method, path, got)
	}
	return w.Code, w.Body.String()
}

// Each kind of failure makes commands of its operation fail, as often as was asked for, on the
// instance that was asked for.
func TestControlFailures(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body      string
		effective bool
		check     func(result) bool
	}{
		"cut":    {`{"operation":"PROVISIONCMD_MDL_REGISTER","kind":"cut","times":1}`, true, func(r result) bool { return r.status == 200 && r.err != nil }},
		"fault":  {`{"operation":"provisioningExecute","kind":"fault","times":1}`, false, func(r result) bool { return r.status == 500 }},
		"status": {`{"kind":"status","status":"STAT_LOCKED","times":1,"instance":1}`, false, func(r result) bool { return strings.Contains(r.body, "STAT_LOCKED") }},
		"delay":  {`{"kind":"delay","delay":"1ms","times":1}`, true, func(r result) bool { return strings.Contains(r.body, "STAT_SUCCESS") }},
		"refuse": {`{"kind":"refuse","times":1}`, false, func(r result) bool { return r.err != nil && r.status == 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newTestServer()
			replica := s.Replica()
			h := ControlHandler(s, replica)
			server := httptest.NewUnstartedServer(s)
			server.Config.ConnState = s.RefuseConnections
			server.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
			server.StartTLS()
			t.Cleanup(server.Close)

			code, listed := controlCall(t, h, http.MethodPost, "/control/failures", c.body)
			var failures []FailureState
			if err := json.Unmarshal([]byte(listed), &failures); err != nil || code != 200 || failures[0].Kind != name || failures[0].Times != 1 {
				t.Errorf("%d %v: %s", code, err, listed)
			}
			if want := 2 - strings.Count(c.body, "instance"); len(failures) != want {
				t.Errorf("failures of %d instances, want %d", len(failures), want)
			}
			if r := post(t.Context(), server); !c.check(r) {
				t.Errorf("status %d, error %v: %.300s", r.status, r.err, r.body)
			}
			if n := len(s.State().Registrations); (n == 1) != c.effective {
				t.Errorf("%d registrations", n)
			}
			if r := post(t.Context(), server); !strings.Contains(r.body, "STAT_SUCCESS") {
				t.Errorf("after one time: status %d, error %v: %.300s", r.status, r.err, r.body)
			}
			if _, listed := controlCall(t, h, http.MethodDelete, "/control/failures", ""); listed != "[]\n" {
				t.Errorf("after their end: %s", listed)
			}
		})
	}
}

// A failure without times lasts until it is ended. One that hangs ends with its caller.
func TestControlEndsFailures(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	h := ControlHandler(s)
	controlCall(t, h, http.MethodPost, "/control/failures", `{"kind":"status","status":"STAT_ERROR"}`)
	for range 3 {
		if got := status(t, s, registerRequest); got != "STAT_ERROR" {
			t.Errorf("status %s", got)
		}
	}
	// That of an operation precedes that of all.
	controlCall(t, h, http.MethodPost, "/control/failures", `{"operation":"PROVISIONCMD_MDL_REGISTER","kind":"status","status":"STAT_LICENCE"}`)
	if got := status(t, s, registerRequest); got != "STAT_LICENCE" {
		t.Errorf("status %s", got)
	}
	if code, listed := controlCall(t, h, http.MethodGet, "/control/failures", ""); code != 200 || strings.Count(listed, `"kind"`) != 2 {
		t.Errorf("%d %s", code, listed)
	}
	controlCall(t, h, http.MethodDelete, "/control/failures", "")
	if got := status(t, s, registerRequest); got != "STAT_SUCCESS" {
		t.Errorf("status %s", got)
	}
}

// A delayed command is carried out after its delay, and not if its caller is gone by then.
func TestDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := newServerWithDevice(t)
		controlCall(t, ControlHandler(s), http.MethodPost, "/control/failures", `{"operation":"authUser","kind":"delay","delay":"2s"}`)
		began := time.Now()
		if got := status(t, s, authUser(password("000000"))); got != "STAT_OTP_INCORRECT" || time.Since(began) != 2*time.Second {
			t.Errorf("%s after %s", got, time.Since(began))
		}
	})
}

// Users are added, locked and unlocked, for all instances.
func TestControlUsers(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	h := ControlHandler(s, s.Replica())
	code, added := controlCall(t, h, http.MethodPost, "/control/users", `{"userID":"new","domain":"d","staticPassword":"p","licenses":2,"standardLicenses":0}`)
	if code != 200 || !strings.Contains(added, `"userID": "new"`) {
		t.Errorf("%d %s", code, added)
	}
	if _, err := s.checkPassword("new", "d", "p"); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		change, want string
	}{
		{`{"userID":"jane.doe","locked":true}`, "STAT_LOCKED"},
		{`{"userID":"jane.doe","domain":"mydomain.com","locked":false}`, "STAT_SUCCESS"},
	} {
		if code, answer := controlCall(t, h, http.MethodPatch, "/control/users", c.change); code != 200 || strings.Contains(answer, `"locked": true`) != (c.want == "STAT_LOCKED") {
			t.Errorf("%d %s", code, answer)
		}
		if got := status(t, s, registerRequest); got != c.want {
			t.Errorf("%s: %s", c.change, got)
		}
	}
	var users []UserState
	if _, listed := controlCall(t, h, http.MethodGet, "/control/users", ""); json.Unmarshal([]byte(listed), &users) != nil || len(users) != 2 || users[0].UserID != "jane.doe" {
		t.Errorf("users %s", listed)
	}
}

// A reset makes everything as it was at the start, but gives no serial number twice.
func TestControlReset(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, a := newServerWithDevice(t)
		replica := s.Replica()
		h := ControlHandler(s, replica)
		waiting := startBlockedCall(t, replica, pushSignature(a.SerialNumber))
		controlCall(t, h, http.MethodPost, "/control/users", `{"userID":"new","domain":"d","staticPassword":"p"}`)
		controlCall(t, h, http.MethodPatch, "/control/users", `{"userID":"jane.doe","locked":true}`)
		controlCall(t, h, http.MethodPost, "/control/failures", `{"kind":"hang"}`)
		code, answer := controlCall(t, h, http.MethodPost, "/control/reset", "")
		if code != 200 {
			t.Errorf("%d %s", code, answer)
		}
		if got := waiting.result(t); !strings.Contains(got, "STAT_EXP_CHALLENGE") {
			t.Errorf("the waiting call: %s", got)
		}
		var state State
		if err := json.Unmarshal([]byte(answer), &state); err != nil || len(state.Users) != 2 || len(state.Calls) != 0 || len(state.Requests) != 0 ||
			state.Users[0].Locked || len(state.Users[0].Licenses) != 0 || len(replica.State().Requests) != 0 {
			t.Errorf("%v: %s", err, answer)
		}
		if again := newPushAuthenticator(t, replica); again.SerialNumber == a.SerialNumber {
			t.Errorf("serial number %s again", again.SerialNumber)
		}
	})
}

// A wrong call changes nothing, and its answer says what is accepted.
func TestControlRefuses(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	h := ControlHandler(s)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/control/other", "", 404, "/control/failures, /control/users, /control/reset"},
		{"PUT", "/control/users", "{}", 405, "GET or POST or PATCH"},
		{"POST", "/control/failures", "", 400, "not a JSON object"},
		{"POST", "/control/failures", "null", 400, "not a JSON object"},
		{"POST", "/control/failures", `{"kind":"hang"}{}`, 400, "not a JSON object"},
		{"POST", "/control/failures", `{"kind":"` + strings.Repeat("x", maxControlBody) + `"}`, 400, "too large"},
		{"POST", "/control/failures", `{"kind":"hang","Times":1}`, 400, `\"Times\" is no member; there are instance, operation, kind, status, delay, times`},
		{"POST", "/control/failures", `{"kind":"hang","times":"1"}`, 400, "times is a JSON string; it has to be an integer"},
		{"POST", "/control/failures", `{"kind":"hang","times":0}`, 400, "times is not 1 or more"},
		{"POST", "/control/failures", `{"kind":1}`, 400, "kind is a JSON number; it has to be a string"},
		{"POST", "/control/failures", `{"kind":"crash"}`, 400, `kind \"crash\" is unknown; there are refuse, hang, delay, cut, fault, status`},
		{"POST", "/control/failures", `{}`, 400, "is unknown; there are refuse"},
		{"POST", "/control/failures", `{"kind":"hang","operation":"getServerTime"}`, 400, "is unknown; there are PROVISIONCMD_ACTIVATE,"},
		{"POST", "/control/failures", `{"kind":"refuse","operation":"authUser"}`, 400, "refuse takes no operation"},
		{"POST", "/control/failures", `{"kind":"status"}`, 400, "needs status"},
		{"POST", "/control/failures", `{"kind":"hang","status":"STAT_LOCKED"}`, 400, "the others have none"},
		{"POST", "/control/failures", `{"kind":"status","status":"STAT_LOCKD"}`, 400, "is unknown; there are STAT_ERROR,"},
		{"POST", "/control/failures", `{"kind":"status","status":"STAT_SUCCESS"}`, 400, "is unknown"},
		{"POST", "/control/failures", `{"kind":"delay"}`, 400, "needs delay"},
		{"POST", "/control/failures", `{"kind":"delay","delay":"2"}`, 400, "such as 500ms or 2s"},
		{"POST", "/control/failures", `{"kind":"delay","delay":"-2s"}`, 400, "such as 500ms or 2s"},
		{"POST", "/control/failures", `{"kind":"hang","instance":2}`, 400, "instance is not from 1 to 1"},
		{"POST", "/control/failures", `{"kind":"hang","instance":0}`, 400, "instance is not from 1 to 1"},
		{"POST", "/control/users", `{"userID":"a","domain":"d"}`, 400, "staticPassword is not 1 to 255 bytes"},
		{"POST", "/control/users", `{"userID":"a;b","domain":"d","staticPassword":"p"}`, 400, "userID is not"},
		{"POST", "/control/users", `{"userID":"a","domain":"d","staticPassword":"p","licenses":101}`, 400, "licenses is not from 0 to 100"},
		{"POST", "/control/users", `{"userID":"a","domain":"d","staticPassword":"p","licenses":0,"standardLicenses":0}`, 400, "both 0"},
		{"POST", "/control/users", `{"userID":"jane.doe","domain":"mydomain.com","staticPassword":"p"}`, 409, "exists"},
		{"PATCH", "/control/users", `{"userID":"jane.doe"}`, 400, "locked is missing"},
		{"PATCH", "/control/users", `{"userID":"jane.doe","locked":"no"}`, 400, "it has to be true or false"},
		{"PATCH", "/control/users", `{"userID":"nobody","locked":true}`, 404, "no such user"},
	} {
		code, answer := controlCall(t, h, c.method, c.path, c.body)
		if code != c.status || !strings.Contains(answer, `"error"`) || !strings.Contains(answer, c.want) {
			t.Errorf("%s %s %.80s: %d %s", c.method, c.path, c.body, code, answer)
		}
	}
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.Host = "bank.example:18880" },
		func(r *http.Request) { r.Header.Set("Origin", "https://bank.example") },
		func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
	} {
		r := httptest.NewRequest(http.MethodPost, "http://localhost:18880/control/failures", strings.NewReader(`{"kind":"hang"}`))
		change(r)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `"error"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if _, listed := controlCall(t, h, http.MethodGet, "/control/failures", ""); listed != "[]\n" || len(s.State().Users) != 1 {
		t.Errorf("a refused call left %s", listed)
	}
	for _, host := range []string{"localhost", "127.0.0.1:1", "[::1]:1", "[::1]"} {
		if !isLoopback(host) {
			t.Errorf("%s is not loopback", host)
		}
	}
}

// The document of the sandbox names every call, kind and operation.
func TestControlIsDocumented(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("../../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	s, _ := newTestServer()
	names := s.operations()
	for _, c := range controlCalls {
		names = append(names, c.method+" "+c.path)
	}
	for _, k := range controlKinds {
		names = append(names, k.name)
	}
	for _, name := range names {
		if !strings.Contains(string(document), "`"+name+"`") {
			t.Errorf("%s is not documented", name)
		}
	}
}

// No body of a call has the control interface fail, or answer with anything but JSON.
func FuzzControl(f *testing.F) {
	for _, seed := range []string{`{"kind":"hang"}`, `{"userID":"a","domain":"d","staticPassword":"p"}`, `{"userID":"jane.doe","locked":true}`, `[`, `{"kind":null}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		s, _ := newTestServer()
		h := ControlHandler(s)
		for _, c := range controlCalls {
			code, answer := controlCall(t, h, c.method, c.path, body)
			if !json.Valid([]byte(answer)) || code != 200 && code != 400 && code != 404 && code != 409 {
				t.Errorf("%s %s %q: %d %s", c.method, c.path, body, code, answer)
			}
		}
	})
}
