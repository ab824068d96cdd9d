package sandbox

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const (
	testRequestKey = "0123456789"
	success        = `"resultCodes":{"returnCodeEnum":"RET_SUCCESS","statusCodeEnum":"STAT_SUCCESS","returnCode":0,"statusCode":0}`
	flatSuccess    = `{"errorCode":0,"errorMessage":"STAT_SUCCESS"`
	refusal1000    = `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_INVCREDENTIALS","returnCode":-1,"statusCode":1000}}`
)

func testAuthenticator() *Authenticator {
	return &Authenticator{
		SerialNumber: "VDS1000120-1", UserID: "jane.doe", Domain: "mydomain.com", Secret: []byte(strings.Repeat("s", secretSize)), Counter: 7,
	}
}

// A receivedCall is a REST call that the test gateway has received.
type receivedCall struct {
	path    string
	members map[string]string
}

// scriptedGateway returns a phone for a gateway that gives the answers in order, and the calls
// and steps that are recorded.
func scriptedGateway(t *testing.T, answers ...string) (*Phone, *[]receivedCall, *[]Step) {
	t.Helper()
	calls, steps := &[]receivedCall{}, &[]Step{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, password, basic := r.BasicAuth()
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || !basic || key != frontEndKey || password != "" {
			t.Errorf("%s %s, %s, basic %v", r.Method, r.URL.Path, r.Header.Get("Content-Type"), basic)
		}
		var members map[string]string
		if err := json.NewDecoder(r.Body).Decode(&members); err != nil {
			t.Error(err)
		}
		*calls = append(*calls, receivedCall{r.URL.Path, members})
		w.Header().Set("Content-Type", "application/json")
		if len(*calls) > len(answers) {
			t.Errorf("call %d, of %s, is one too many", len(*calls), r.URL.Path)
			return
		}
		_, _ = io.WriteString(w, answers[len(*calls)-1])
	}))
	t.Cleanup(server.Close)
	return &Phone{
		BaseURL: server.URL, APIKey: frontEndKey, Client: server.Client(),
		Trace: func(s Step) { *steps = append(*steps, s) },
	}, calls, steps
}

func sealedRequest(t *testing.T, a *Authenticator, r Request) string {
	t.Helper()
	content, err := r.content()
	if err != nil {
		t.Fatal(err)
	}
	message, err := a.channel().sealRequest(content)
	if err != nil {
		t.Fatal(err)
	}
	return message
}

// Each service for pending requests is called with its path and its names of members. Steps
// contain no secrets.
func TestPhonePendingRequests(t *testing.T) {
	t.Parallel()
	authenticated := `{` + success + `,"result":{"userID":"jane.doe","domain":"mydomain.com","orgUnit":"sales","serialNo":"VDS1000120-1"}}`
	for name, c := range map[string]struct {
		version                         int
		scan                            bool
		kind                            Kind
		retrieve, complete, cancel      string // paths
		serial, key, cancelKey          string // names
		retrieved, completed, cancelled string // answers; %s is the request message
		signature                       int    // digits
		tellsUser                       bool
	}{
		"login by push": {
			2, false, KindLogin,
			"/rest/v2/authentication/push/getPreparedSecureChallenge", "/rest/v2/authentication/push/authUser", "/rest/v2/authentication/push/cancelAuthUser",
			"serialNumber", "challengeKey", "challengeKey",
			`{` + success + `,"result":{"requestMessage":"%s"}}`, authenticated, `{` + success + `}`, 16, true,
		},
		"login by scan": {
			2, true, KindLogin,
			"/rest/v2/authentication/scan/getPreparedSecureChallenge", "/rest/v2/authentication/scan/authUser", "/rest/v2/authentication/scan/cancelAuthUser",
			"serialNumber", "challengeKey", "challengeKey",
			`{` + success + `,"result":{"requestMessage":"%s"}}`, authenticated, `{` + success + `}`, 16, true,
		},
		"signature by push": {
			0, false, KindSignature,
			"/rest/v2/signature/push/getPreparedSignatureRequest", "/rest/v2/signature/push/authSignature", "/rest/v2/signature/push/cancelAuthSignatureRequest",
			"serialNumber", "requestKey", "requestKey",
			`{` + success + `,"result":{"requestMessage":"%s"}}`, authenticated, `{` + success + `}`, 7, true,
		},
		"signature by scan": {
			2, true, KindSignature,
			"/rest/v2/signature/scan/getPreparedSignatureRequest", "/rest/v2/signature/scan/authSignature", "/rest/v2/signature/scan/cancelAuthSignatureRequest",
			"serialNumber", "requestKey", "requestKey",
			`{` + success + `,"result":{"requestMessage":"%s"}}`, authenticated, `{` + success + `}`, 7, true,
		},
		"login of version 1": {
			1, false, KindLogin,
			"/rest/push/retrieveLogin", "/rest/push/signLogin", "/rest/push/cancelLogin",
			"digipassInstanceID", "challengeKey", "encryptedChallengeKey",
			flatSuccess + `,"encryptedLoginDetails":"%s"}`, flatSuccess + `}`, flatSuccess + `}`, 16, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := testAuthenticator()
			request := Request{Kind: c.kind, Key: testRequestKey, UserID: "jane.doe", Domain: "mydomain.com", Title: "Hello"}
			message := sealedRequest(t, a, request)
			p, calls, steps := scriptedGateway(t, strings.Replace(c.retrieved, "%s", message, 1), c.completed, c.cancelled, c.cancelled)
			p.Version, p.Scan = c.version, c.scan

			pending, err := p.Retrieve(t.Context(), c.kind, a, testRequestKey)
			if err != nil {
				t.Fatal(err)
			}
			if pending.Message != message || pending.Request.Title != "Hello" {
				t.Errorf("retrieved %+v", pending)
			}
			done, err := p.Complete(t.Context(), c.kind, a, pending)
			if err != nil {
				t.Fatal(err)
			}
			want := AuthenticatedUser{}
			if c.tellsUser {
				want = AuthenticatedUser{"jane.doe", "mydomain.com", "sales", "VDS1000120-1"}
			}
			if done != want {
				t.Errorf("completed %+v", done)
			}
			if err := p.Cancel(t.Context(), c.kind, a, testRequestKey, true); err != nil {
				t.Fatal(err)
			}
			if err := p.Cancel(t.Context(), c.kind, a, testRequestKey, false); err != nil {
				t.Fatal(err)
			}

			signature, wrapped := (*calls)[1].members["signature"], (*calls)[2].members[c.cancelKey]
			if signed, err := a.Sign(message); err != nil || signature != signed || len(signature) != c.signature {
				t.Errorf("signature %q, %v", signature, err)
			}
			if key, err := a.channel().open(informationFlags, wrappedKeyContent, wrapped); err != nil || string(key) != testRequestKey {
				t.Errorf("wrapped key %q, %v", key, err)
			}
			for i, want := range []receivedCall{
				{c.retrieve, map[string]string{c.serial: a.SerialNumber, c.key: testRequestKey}},
				{c.complete, map[string]string{"userID": "jane.doe", "domain": "mydomain.com", c.key: testRequestKey, "signature": signature}},
				{c.cancel, map[string]string{c.serial: a.SerialNumber, c.cancelKey: wrapped}},
				{c.cancel, map[string]string{c.serial: a.SerialNumber, c.cancelKey: testRequestKey}},
			} {
				if got := (*calls)[i]; got.path != want.path || !maps.Equal(got.members, want.members) {
					t.Errorf("call %d: %v, want %v", i, got, want)
				}
			}

			var shown strings.Builder
			for _, s := range *steps {
				for _, m := range append(s.Sent, s.Received...) {
					shown.WriteString(m.Name + "=" + m.Value + "\n")
				}
			}
			for _, secret := range []string{message, signature, wrapped} {
				if strings.Contains(shown.String(), secret) {
					t.Errorf("steps tell %.20s", secret)
				}
			}
			for _, harmless := range []string{testRequestKey, a.SerialNumber} {
				if !strings.Contains(shown.String(), harmless) {
					t.Errorf("steps lack %s: %s", harmless, shown.String())
				}
			}
		})
	}
}

// The phone detects wrong answers about pending requests.
func TestPhoneVerifiesPendingRequests(t *testing.T) {
	t.Parallel()
	a := testAuthenticator()
	other := testAuthenticator()
	other.SerialNumber, other.Secret = "VDS1000121-1", []byte(strings.Repeat("o", secretSize))
	request := Request{Kind: KindLogin, Key: testRequestKey, UserID: "jane.doe"}
	signature, otherKey := request, request
	signature.Kind, otherKey.Key = KindSignature, "9876543210"
	retrieved := func(message string) string { return `{` + success + `,"result":{"requestMessage":"` + message + `"}}` }

	for name, c := range map[string]struct {
		answer     string
		unverified bool
		text       string
	}{
		"message of another device":  {retrieved(sealedRequest(t, other, request)), true, "another authenticator"},
		"message of another kind":    {retrieved(sealedRequest(t, a, signature)), true, "another request"},
		"message of another request": {retrieved(sealedRequest(t, a, otherKey)), true, "another request"},
		"message is no hex":          {retrieved("xyz"), true, "hex"},
		"message is missing":         {`{` + success + `,"result":{}}`, false, "requestMessage is missing"},
		"result is missing":          {`{` + success + `}`, false, "requestMessage is missing"},
		"refusal":                    {refusal1000, false, "getPreparedSecureChallenge was refused: HTTP status 200, STAT_INVCREDENTIALS (1000)"},
	} {
		p, _, _ := scriptedGateway(t, c.answer)
		pending, err := p.Retrieve(t.Context(), KindLogin, a, testRequestKey)
		if err == nil || errors.Is(err, ErrUnverified) != c.unverified || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
		if pending.Message != "" || pending.Request.Key != "" {
			t.Errorf("%s: retrieved %+v", name, pending)
		}
	}

	message := sealedRequest(t, a, request)
	for name, c := range map[string]struct {
		answer     string
		unverified bool
		text       string
	}{
		"serial of another device": {`{` + success + `,"result":{"userID":"jane.doe","domain":"","orgUnit":"","serialNo":"VDS1000120-2"}}`, true, "serialNo"},
		"orgUnit is missing":       {`{` + success + `,"result":{"userID":"jane.doe","domain":"","serialNo":"VDS1000120-1"}}`, false, "orgUnit is missing"},
		"serial is a number":       {`{` + success + `,"result":{"userID":"jane.doe","domain":"","orgUnit":"","serialNo":1}}`, false, "serialNo is not a string"},
		"refusal":                  {refusal1000, false, "authUser was refused"},
	} {
		p, calls, _ := scriptedGateway(t, c.answer)
		done, err := p.Complete(t.Context(), KindLogin, a, RetrievedRequest{message, request})
		if err == nil || errors.Is(err, ErrUnverified) != c.unverified || !strings.Contains(err.Error(), c.text) || done != (AuthenticatedUser{}) {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
		if _, ok := (*calls)[0].members["domain"]; ok {
			t.Errorf("%s: an empty domain was sent", name)
		}
	}

	// The serial number may be absent.
	p, _, _ := scriptedGateway(t, `{`+success+`,"result":{"userID":"jane.doe","domain":"d","orgUnit":""}}`)
	if done, err := p.Complete(t.Context(), KindLogin, a, RetrievedRequest{message, request}); err != nil || done != (AuthenticatedUser{UserID: "jane.doe", Domain: "d"}) {
		t.Errorf("without serialNo: %+v, %v", done, err)
	}
	if _, err := p.Complete(t.Context(), KindLogin, other, RetrievedRequest{message, request}); err == nil {
		t.Error("another device signed")
	}
}

// One-time passwords are sent under the name of the version, each once even if it is refused,
// and are not in the steps.
func TestPhoneAuthenticates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version        int
		path, name     string
		answer, refuse string
		want           AuthenticatedUser
	}{
		{
			2, "/rest/v2/authentication/authUser", "password",
			`{` + success + `,"result":{"userID":"jane.doe","domain":"mydomain.com","orgUnit":"","serialNo":"VDS1000120-1"}}`, refusal1000,
			AuthenticatedUser{UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000120-1"},
		},
		{1, "/rest/auth/online", "otp", flatSuccess + `}`, `{"errorCode":-1,"errorMessage":"STAT_INVCREDENTIALS"}`, AuthenticatedUser{}},
	} {
		a := testAuthenticator()
		p, calls, steps := scriptedGateway(t, c.answer, c.refuse)
		p.Version = c.version
		done, err := p.Authenticate(t.Context(), a)
		if err != nil || done != c.want {
			t.Errorf("version %d: %+v, %v", c.version, done, err)
		}
		var refused *RefusalError
		if done, err := p.Authenticate(t.Context(), a); !errors.As(err, &refused) || done != (AuthenticatedUser{}) {
			t.Errorf("version %d: %+v, %v", c.version, done, err)
		}
		if a.Counter != 9 {
			t.Errorf("version %d: counter %d", c.version, a.Counter)
		}
		for i, got := range *calls {
			password := oneTimePassword(a.Secret, uint64(7+i))
			want := map[string]string{"userID": "jane.doe", "domain": "mydomain.com", c.name: password}
			if got.path != c.path || !maps.Equal(got.members, want) {
				t.Errorf("version %d: call %v, want %v", c.version, got, want)
			}
			for _, m := range (*steps)[i].Sent {
				if m.Value == password {
					t.Errorf("version %d: a step tells the one-time password", c.version)
				}
			}
		}
	}
}

// The notification ID is sent wrapped, under the names of the interface. The answers have the
// form of version 2 in both versions.
func TestPhoneUpdatesNotificationID(t *testing.T) {
	t.Parallel()
	for version, path := range map[int]string{
		1: "/rest/notification/updateNotificationID",
		2: "/rest/v2/notification/push/updateNotificationID",
	} {
		a := testAuthenticator()
		p, calls, _ := scriptedGateway(t, `{`+success+`}`, refusal1000)
		p.Version = version
		if err := p.UpdateNotificationID(t.Context(), a, "ID 1"); err != nil {
			t.Errorf("version %d: %v", version, err)
		}
		if err := p.UpdateNotificationID(t.Context(), a, "ID 2"); err == nil {
			t.Errorf("version %d: no refusal", version)
		}
		if err := p.UpdateNotificationID(t.Context(), a, ""); err == nil {
			t.Errorf("version %d: an empty ID was sent", version)
		}
		got := (*calls)[0]
		wrapped := got.members["encryptedNotificationID"]
		if id, err := a.channel().open(informationFlags, notificationIDContent, wrapped); err != nil || string(id) != "ID 1" {
			t.Errorf("version %d: %q, %v", version, id, err)
		}
		want := map[string]string{
			"userID": "jane.doe", "domain": "mydomain.com", "digipassInstanceID": "VDS1000120-1", "encryptedNotificationID": wrapped,
		}
		if got.path != path || !maps.Equal(got.members, want) {
			t.Errorf("version %d: %v, want %v", version, got, want)
		}
	}
}

// Services and kinds that do not exist cause an error without a call.
func TestPhoneServicesThatDoNotExist(t *testing.T) {
	t.Parallel()
	a := testAuthenticator()
	p, _, _ := scriptedGateway(t)
	for name, c := range map[string]struct {
		version int
		scan    bool
		kind    Kind
	}{
		"signature of version 1":     {1, false, KindSignature},
		"scanned login of version 1": {1, true, KindLogin},
		"unknown kind":               {2, false, "nonsense"},
		"unknown version":            {3, false, KindLogin},
	} {
		p.Version, p.Scan = c.version, c.scan
		if _, err := p.Retrieve(t.Context(), c.kind, a, testRequestKey); err == nil {
			t.Errorf("%s: retrieved", name)
		}
		if _, err := p.Complete(t.Context(), c.kind, a, RetrievedRequest{}); err == nil {
			t.Errorf("%s: completed", name)
		}
		if err := p.Cancel(t.Context(), c.kind, a, testRequestKey, true); err == nil {
			t.Errorf("%s: cancelled", name)
		}
	}
	p.Version = 2
	if err := p.Cancel(t.Context(), KindLogin, a, "no key", true); err == nil {
		t.Error("wrapped something that is no key")
	}
	p.Version = 3
	if _, err := p.Authenticate(t.Context(), a); err == nil || a.Counter != 7 {
		t.Errorf("authenticated with version 3, or the counter moved to %d", a.Counter)
	}
	if err := p.UpdateNotificationID(t.Context(), a, "ID"); err == nil {
		t.Error("updated with version 3")
	}
}

// A held call is made ready with all its values and reported, but not sent.
func TestPhoneHolds(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer()
	a := newAuthenticator(t, s)
	next := *a
	phone, calls, steps := scriptedGateway(t)
	phone.Hold = true
	if _, err := phone.Authenticate(t.Context(), a); !errors.Is(err, ErrHeld) {
		t.Errorf("error %v", err)
	}
	want := `{"domain":"mydomain.com","password":"` + next.OneTimePassword() + `","userID":"jane.doe"}`
	step := (*steps)[0]
	if len(*calls) != 0 || len(*steps) != 1 || step.HTTPStatus != 0 || step.Full.Answer != nil || string(step.Full.Request) != want ||
		step.Full.URL != phone.BaseURL+"/rest/v2/authentication/authUser" || step.Full.APIKey != frontEndKey {
		t.Errorf("calls %v, steps %+v", *calls, *steps)
	}
}
