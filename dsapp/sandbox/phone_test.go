package sandbox

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

const (
	testIdentifier = "e3wfISG9"
	testPassword   = "Tb048aX1"
	frontEndKey    = "front-key"
	backEndKey     = "back-key"
)

// A script is a gateway that performs one activation in one version of the REST services,
// implemented with the primitives of srp and seal. change may alter the members of an answer.
type script struct {
	t       *testing.T
	flat    bool
	profile *srp.Profile
	license license
	change  func(service string, members map[string]any)

	calls        []string
	registration map[string]string // members of DSAPPSRPRegister
	clientPublic string
	state        []byte // of the exchange
	code         string
	key          [secretSize]byte // of the authenticator instance
	expected     string           // confirmation

	// Only for a standard licence: the activation data, and a check of the last call.
	standard func(seal.Session) map[string]any
	confirm  func(members map[string]string)
}

func newScript(t *testing.T, flat bool) *script {
	profile, err := srp.LookupProfile(srp.DefaultProfile)
	if err != nil {
		t.Fatal(err)
	}
	return &script{t: t, flat: flat, profile: profile, license: license{"VDS1000120", [secretSize]byte{8}}}
}

func (g *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	prefix, identifier, key := "/rest/v2/provisioning/", "registrationIdentifier", frontEndKey
	if g.flat {
		prefix, identifier = "/rest/activation/", "registrationID"
	}
	service, ok := strings.CutPrefix(r.URL.Path, prefix)
	if service == "DSAPPSRPRegister" {
		key = backEndKey
	}
	user, password, basic := r.BasicAuth()
	if !ok || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || !basic || user != key || password != "" {
		g.t.Errorf("%s %s, %s, basic %v", r.Method, r.URL.Path, r.Header.Get("Content-Type"), basic)
	}
	g.calls = append(g.calls, service)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		g.t.Error(err)
	}
	var in map[string]string
	if err := json.Unmarshal(body, &in); err != nil {
		g.t.Error(err)
	}
	if service != "DSAPPSRPRegister" && in[identifier] != testIdentifier {
		g.t.Errorf("%s: members %v", service, in)
	}

	members := g.answer(service, in)
	if g.change != nil {
		g.change(service, members)
	}
	w.Header().Set("Content-Type", "application/json")
	status := http.StatusOK
	if n, ok := members["HTTP"]; ok {
		status = n.(int)
		delete(members, "HTTP")
	}
	w.WriteHeader(status)
	if raw, ok := members["RAW"]; ok {
		_, _ = io.WriteString(w, raw.(string))
		return
	}
	answer := map[string]any{"errorCode": 0, "errorMessage": "STAT_SUCCESS"}
	if g.flat {
		maps.Copy(answer, members)
	} else {
		answer = map[string]any{"result": members, "resultCodes": map[string]any{
			"returnCodeEnum": "RET_SUCCESS", "statusCodeEnum": "STAT_SUCCESS", "returnCode": 0, "statusCode": 0,
		}}
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		g.t.Error(err)
	}
}

func (g *script) answer(service string, in map[string]string) map[string]any {
	switch service {
	case "DSAPPSRPRegister":
		g.registration = in
		image := "01;01;" + in["userID"] + ";" + in["domain"] + ";" + testIdentifier + ";" + testPassword + ";GATEWAY01"
		return map[string]any{
			"registrationIdentifier": testIdentifier, "activationPassword": testPassword,
			"activationImage": upperHex([]byte(image)), "expiresAt": "2030-01-02T03:04:05Z",
		}
	case "DSAPPSRPGenerateEphemeralKey":
		g.clientPublic = in["clientEphemeralPublicKey"]
		public, err := g.profile.ParsePublic(g.clientPublic)
		if err != nil {
			g.t.Error(err)
		}
		credential := g.profile.Credential([]byte("secret"), testIdentifier, testPassword)
		g.state = make([]byte, g.profile.StateSize())
		serverPublic, salt, err := g.profile.Begin(g.state, credential, public)
		if err != nil {
			g.t.Error(err)
		}
		return map[string]any{"serverEphemeralPublicKey": serverPublic, "salt": salt}
	case "DSAPPSRPGenerateActivationData":
		evidence, err := g.profile.ParseEvidence(in["clientEvidenceMessage"])
		if err != nil {
			g.t.Error(err)
		}
		session, serverEvidence, ok := g.profile.Verify(g.state, testIdentifier, evidence)
		if !ok {
			return map[string]any{"RAW": `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_INVCREDENTIALS","returnCode":-1,"statusCode":1000}}`}
		}
		if g.standard != nil {
			return map[string]any{"serverEvidenceMessage": serverEvidence, "standard": g.standard(session)}
		}
		c, err := session.Seal(seal.LicenseActivationMessage, []byte(g.license.activationMessage()))
		if err != nil {
			g.t.Error(err)
		}
		return map[string]any{
			"serverEvidenceMessage": serverEvidence, "mac": upperHex(c.MAC),
			"encryptedLicenseActivationMessage": upperHex(c.Data), "encryptedCounter": upperHex(c.Counter),
		}
	case "DSAPPSRPActivate":
		g.confirm(in)
		return map[string]any{"userID": "jane.doe", "domain": "mydomain.com", "serialNumber": "VDS1000120"}
	case "MdlAddDevice":
		g.code = in["deviceCode"]
		if _, err := g.license.verifyDeviceCode(g.code); err != nil {
			g.t.Error(err)
		}
		if description, ok := in["description"]; ok == g.flat || (ok && description != "my phone") {
			g.t.Errorf("description %q, %v", description, ok)
		}
		g.key = [secretSize]byte{4}
		message := g.license.instanceMessage(g.code, 3, g.key)
		g.expected = confirmation(g.key, g.code, message)
		return map[string]any{"instanceActivationMessage": message}
	case "MdlActivate":
		if in["signature"] != g.expected {
			g.t.Error("wrong confirmation signature")
		}
		if g.flat {
			return map[string]any{}
		}
		return map[string]any{"userID": "jane.doe", "domain": "mydomain.com", "serialNumber": "VDS1000120"}
	default:
		g.t.Errorf("unknown service %s", service)
		return map[string]any{}
	}
}

// start returns a phone for the script, and the steps that it reports.
func (g *script) start() (*Phone, *[]Step) {
	server := httptest.NewServer(g)
	g.t.Cleanup(server.Close)
	steps := &[]Step{}
	p := &Phone{
		BaseURL: server.URL + "/", APIKey: frontEndKey, Client: server.Client(), DeviceID: 42, Description: "my phone",
		Trace: func(s Step) { *steps = append(*steps, s) },
	}
	if g.flat {
		p.Version = 1
	}
	return p, steps
}

// An activation makes four calls, in both versions, with these members. Steps contain
// harmless values and no secrets, except in what they say in full.
func TestPhoneActivates(t *testing.T) {
	t.Parallel()
	for name, flat := range map[string]bool{"version 1": true, "version 2": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newScript(t, flat)
			g.change = func(_ string, members map[string]any) { members["novel"] = "surprise" }
			p, steps := g.start()
			got, err := p.Activate(t.Context(), testIdentifier, testPassword)
			if err != nil {
				t.Fatal(err)
			}
			want := Activation{
				UserID: "jane.doe", Domain: "mydomain.com", SerialNumber: "VDS1000120", InstanceSerial: "VDS1000120-3",
				Authenticator: &Authenticator{SerialNumber: "VDS1000120-3", UserID: "jane.doe", Domain: "mydomain.com", Secret: g.key[:]},
			}
			if flat {
				want.UserID, want.Domain = "", ""
				want.Authenticator.UserID, want.Authenticator.Domain = "", ""
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("activated %+v, want %+v", got, want)
			}
			if id, err := g.license.verifyDeviceCode(g.code); err != nil || id != 42 {
				t.Errorf("device %d, %v", id, err)
			}

			calls := []string{"DSAPPSRPGenerateEphemeralKey", "DSAPPSRPGenerateActivationData", "MdlAddDevice", "MdlActivate"}
			if !reflect.DeepEqual(g.calls, calls) {
				t.Errorf("calls %v", g.calls)
			}
			var shown strings.Builder
			for i, s := range *steps {
				sent := 2
				if s.Call == "MdlAddDevice" && !flat {
					sent = 3 // with the description
				}
				if s.Call != calls[i] || s.HTTPStatus != 200 || len(s.Sent) != sent {
					t.Errorf("step %d: %+v", i, s)
				}
				if len(s.Received) < 2 || (len(s.Verified) == 0 && !(flat && s.Call == "MdlActivate")) {
					t.Errorf("step %d tells too little: %+v", i, s)
				}
				var request map[string]string
				if err := json.Unmarshal(s.Full.Request, &request); err != nil || len(request) != sent || !json.Valid(s.Full.Answer) ||
					s.Full.APIKey != frontEndKey || !strings.HasSuffix(s.Full.URL, "/"+s.Call) {
					t.Errorf("step %d in full: %v %+v", i, err, s.Full)
				}
				if opened := s.Full.Opened["licenseActivationMessage"]; (opened == g.license.activationMessage()) != (i == 1) {
					t.Errorf("step %d has opened %.20s", i, opened)
				}
				for _, m := range append(s.Sent, s.Received...) {
					shown.WriteString(m.Name + "=" + m.Value + "\n")
				}
			}
			if !strings.Contains(shown.String(), "deviceCode="+g.code) || !strings.Contains(shown.String(), "VDS1000120") && !flat {
				t.Errorf("steps lack harmless values: %s", shown.String())
			}
			for _, secret := range []string{testPassword, g.expected, "surprise", g.license.activationMessage()[:20], g.clientPublic} {
				if strings.Contains(shown.String(), secret) {
					t.Errorf("steps tell %.20s", secret)
				}
			}
		})
	}
}

// The phone detects a wrong answer to each of the four calls, returns the right kind of error
// and makes no further call.
func TestPhoneVerifies(t *testing.T) {
	t.Parallel()
	flip := func(v any) string {
		b, _ := hex.DecodeString(v.(string))
		b[len(b)-1] ^= 1
		return upperHex(b)
	}
	other := license{"VDS1000121", [secretSize]byte{1}}
	for name, c := range map[string]struct {
		service    string
		change     func(map[string]any)
		unverified bool
		text       string // part of the error
	}{
		"B is 0":           {"DSAPPSRPGenerateEphemeralKey", func(m map[string]any) { m["serverEphemeralPublicKey"] = strings.Repeat("0", 512) }, true, "server public"},
		"B is short":       {"DSAPPSRPGenerateEphemeralKey", func(m map[string]any) { m["serverEphemeralPublicKey"] = "0A" }, true, "server public"},
		"B is no hex":      {"DSAPPSRPGenerateEphemeralKey", func(m map[string]any) { m["serverEphemeralPublicKey"] = "xy" }, false, "serverEphemeralPublicKey is not"},
		"salt is short":    {"DSAPPSRPGenerateEphemeralKey", func(m map[string]any) { m["salt"] = "0A" }, true, "salt"},
		"salt is missing":  {"DSAPPSRPGenerateEphemeralKey", func(m map[string]any) { delete(m, "salt") }, false, "salt is missing"},
		"salt is a number": {"DSAPPSRPGenerateEphemeralKey", func(m map[string]any) { m["salt"] = 7 }, false, "salt is not a string"},
		"salt is null":     {"DSAPPSRPGenerateEphemeralKey", func(m map[string]any) { m["salt"] = nil }, false, "salt is not a string"},
		"M2 is wrong":      {"DSAPPSRPGenerateActivationData", func(m map[string]any) { m["serverEvidenceMessage"] = flip(m["serverEvidenceMessage"]) }, true, "server evidence"},
		"M2 is missing":    {"DSAPPSRPGenerateActivationData", func(m map[string]any) { delete(m, "serverEvidenceMessage") }, false, "serverEvidenceMessage is missing"},
		"MAC is wrong":     {"DSAPPSRPGenerateActivationData", func(m map[string]any) { m["mac"] = flip(m["mac"]) }, true, "activation data"},
		"counter is wrong": {"DSAPPSRPGenerateActivationData", func(m map[string]any) { m["encryptedCounter"] = flip(m["encryptedCounter"]) }, true, "activation data"},
		"data is wrong": {"DSAPPSRPGenerateActivationData", func(m map[string]any) {
			m["encryptedLicenseActivationMessage"] = flip(m["encryptedLicenseActivationMessage"])
		}, true, "activation data"},
		"data is missing": {"DSAPPSRPGenerateActivationData", func(m map[string]any) { delete(m, "encryptedLicenseActivationMessage") }, false, "encryptedLicenseActivationMessage is missing"},
		"AM2 is foreign": {"MdlAddDevice", func(m map[string]any) {
			m["instanceActivationMessage"] = other.instanceMessage(other.deviceCode(42), 1, [secretSize]byte{})
		}, true, "activation message 2"},
		"AM2 is missing":     {"MdlAddDevice", func(m map[string]any) { delete(m, "instanceActivationMessage") }, false, "instanceActivationMessage is missing"},
		"serial is foreign":  {"MdlActivate", func(m map[string]any) { m["serialNumber"] = "VDS1000121" }, true, "serialNumber"},
		"domain is missing":  {"MdlActivate", func(m map[string]any) { delete(m, "domain") }, false, "domain is missing"},
		"answer is no JSON":  {"MdlAddDevice", func(m map[string]any) { m["RAW"] = "<html>" }, false, "not a JSON object"},
		"answer is an array": {"MdlAddDevice", func(m map[string]any) { m["RAW"] = "[]" }, false, "not a JSON object"},
		"no result codes":    {"MdlAddDevice", func(m map[string]any) { m["RAW"] = "{}" }, false, "resultCodes is missing"},
		"empty result codes": {"MdlAddDevice", func(m map[string]any) { m["RAW"] = `{"resultCodes":{}}` }, false, "contradict"},
		"no result": {"MdlAddDevice", func(m map[string]any) {
			m["RAW"] = `{"resultCodes":{"returnCodeEnum":"RET_SUCCESS","statusCodeEnum":"STAT_SUCCESS","returnCode":0,"statusCode":0}}`
		}, false, "instanceActivationMessage is missing"},
		"endless answer": {"MdlAddDevice", func(m map[string]any) { m["RAW"] = strings.Repeat(" ", maxAnswerSize+1) }, false, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newScript(t, false)
			g.change = func(service string, members map[string]any) {
				if service == c.service {
					c.change(members)
				}
			}
			p, steps := g.start()
			got, err := p.Activate(t.Context(), testIdentifier, testPassword)
			if err == nil || errors.Is(err, ErrUnverified) != c.unverified || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want one about %q", err, c.text)
			}
			if got != (Activation{}) {
				t.Errorf("activated %+v", got)
			}
			last := (*steps)[len(*steps)-1]
			if last.Call != c.service || g.calls[len(g.calls)-1] != c.service {
				t.Errorf("went on to %s", g.calls[len(g.calls)-1])
			}
		})
	}
}

// A refusal has HTTP status and result codes, in both versions, also if the answer is not
// JSON.
func TestPhoneRefused(t *testing.T) {
	t.Parallel()
	codes := `{"resultCodes":{"returnCodeEnum":"RET_FAILURE","statusCodeEnum":"STAT_NOT_FOUND","returnCode":-1,"statusCode":-13}`
	for name, c := range map[string]struct {
		flat   bool
		status int
		raw    string
		want   RefusalError
	}{
		"200":          {false, 200, codes + `}`, RefusalError{"MdlAddDevice", 200, ResultCodes{"RET_FAILURE", "STAT_NOT_FOUND", -1, -13}, ""}},
		"400":          {false, 400, codes + `,"errorDescription":"deviceCode is missing"}`, RefusalError{"MdlAddDevice", 400, ResultCodes{"RET_FAILURE", "STAT_NOT_FOUND", -1, -13}, "deviceCode is missing"}},
		"502, no JSON": {false, 502, "Bad Gateway", RefusalError{"MdlAddDevice", 502, ResultCodes{}, ""}},
		"version 1":    {true, 200, `{"errorCode":-1,"errorMessage":"STAT_NOT_FOUND"}`, RefusalError{"MdlAddDevice", 200, ResultCodes{StatusCodeEnum: "STAT_NOT_FOUND", ReturnCode: -1}, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newScript(t, c.flat)
			g.change = func(service string, members map[string]any) {
				if service == "MdlAddDevice" {
					members["HTTP"], members["RAW"] = c.status, c.raw
				}
			}
			p, steps := g.start()
			_, err := p.Activate(t.Context(), testIdentifier, testPassword)
			var refused *RefusalError
			if !errors.As(err, &refused) || *refused != c.want {
				t.Fatalf("error %v, want %v", err, &c.want)
			}
			if text := err.Error(); !strings.Contains(text, "MdlAddDevice") || !strings.Contains(text, c.want.ResultCodes.StatusCodeEnum) ||
				!strings.Contains(text, c.want.Description) {
				t.Errorf("error says too little: %s", text)
			}
			if last := (*steps)[len(*steps)-1]; last.HTTPStatus != c.status || len(last.Verified) != 0 {
				t.Errorf("last step %+v", last)
			}
		})
	}
}

// The text of a refusal has an error code for version 1, else a status code.
func TestRefusalError(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]RefusalError{
		"S was refused: HTTP status 502":                                 {"S", 502, ResultCodes{}, ""},
		"S was refused: HTTP status 200, STAT_NOT_FOUND (-13)":           {"S", 200, ResultCodes{"RET_FAILURE", "STAT_NOT_FOUND", -1, -13}, ""},
		"S was refused: HTTP status 200, STAT_NOT_FOUND (error code -1)": {"S", 200, ResultCodes{StatusCodeEnum: "STAT_NOT_FOUND", ReturnCode: -1}, ""},
		"S was refused: HTTP status 400, STAT_X (1): a is missing":       {"S", 400, ResultCodes{"RET_FAILURE", "STAT_X", -1, 1}, "a is missing"},
	} {
		if got := e.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The server refuses a wrong activation password. Unusable settings cause an error without a
// call.
func TestPhoneWrongInput(t *testing.T) {
	t.Parallel()
	g := newScript(t, false)
	p, _ := g.start()
	var refused *RefusalError
	if _, err := p.Activate(t.Context(), testIdentifier, "Tb048aX2"); !errors.As(err, &refused) || refused.ResultCodes.StatusCode != 1000 {
		t.Errorf("wrong password: %v", err)
	}
	if len(g.calls) != 2 {
		t.Errorf("calls %v", g.calls)
	}

	g.calls = nil
	if _, err := p.Activate(t.Context(), testIdentifier, "abc"); err == nil {
		t.Error("password of 3 characters accepted")
	}
	p.Version = 3
	if _, err := p.Activate(t.Context(), testIdentifier, testPassword); err == nil {
		t.Error("unknown version accepted")
	}
	if len(g.calls) != 0 {
		t.Errorf("calls %v", g.calls)
	}
}

// A user is registered with the back-end key and these members. The activation image is
// checked, and the step contains neither password nor image.
func TestRegisterUser(t *testing.T) {
	t.Parallel()
	user := UserRegistration{UserID: "jane.doe", Domain: "mydomain.com", StaticPassword: "s3cret!", LicenseType: "standard", SerialNumber: "VDS1000120"}
	g := newScript(t, false)
	p, steps := g.start()
	r, err := p.RegisterUser(t.Context(), backEndKey, user)
	if err != nil {
		t.Fatal(err)
	}
	if r.RegistrationIdentifier != testIdentifier || r.ActivationPassword != testPassword || r.ExpiresAt.Year() != 2030 {
		t.Errorf("registered %+v", r)
	}
	if want := map[string]string{
		"userID": "jane.doe", "domain": "mydomain.com", "staticPassword": "s3cret!", "licenseType": "standard", "serialNumber": "VDS1000120",
	}; !maps.Equal(g.registration, want) {
		t.Errorf("sent %v", g.registration)
	}
	for _, m := range append((*steps)[0].Sent, (*steps)[0].Received...) {
		for _, secret := range []string{user.StaticPassword, testPassword, upperHex([]byte(testPassword))} {
			if strings.Contains(m.Value, secret) {
				t.Errorf("member %s tells a secret", m.Name)
			}
		}
	}

	for name, change := range map[string]func(map[string]any){
		"other user": func(m map[string]any) {
			m["activationImage"] = upperHex([]byte("01;01;john;mydomain.com;" + testIdentifier + ";" + testPassword + ";"))
		},
		"other password": func(m map[string]any) { m["activationPassword"] = "Tb048aX2" },
		"other version":  func(m map[string]any) { m["activationImage"] = "30" },
	} {
		g.change = func(_ string, members map[string]any) { change(members) }
		if _, err := p.RegisterUser(t.Context(), backEndKey, user); !errors.Is(err, ErrUnverified) {
			t.Errorf("%s: %v", name, err)
		}
	}
	g.change = func(_ string, members map[string]any) { members["expiresAt"] = "soon" }
	if _, err := p.RegisterUser(t.Context(), backEndKey, user); err == nil || !strings.Contains(err.Error(), "expiresAt") {
		t.Errorf("bad time: %v", err)
	}
}

// No answer of a gateway makes the phone panic, and every accepted answer has a status.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"resultCodes":{"returnCodeEnum":"RET_SUCCESS","statusCodeEnum":"STAT_SUCCESS","returnCode":0,"statusCode":0},"result":{"salt":"00"}}`), false)
	f.Add([]byte(`{"errorCode":0,"errorMessage":"STAT_SUCCESS","salt":"00"}`), true)
	f.Add([]byte(`{"resultCodes":null,"result":null}`), false)
	f.Add([]byte(`{"resultCodes":{"returnCodeEnum":"RET_SUCCESS","statusCodeEnum":"STAT_SUCCESS","returnCode":0,"statusCode":0},"result":{"standard":{"data":{}}}}`), false)
	f.Add([]byte(`null`), true)
	f.Fuzz(func(t *testing.T, content []byte, flat bool) {
		a := answer{service: "x"}
		if a.decode(content, flat) != nil {
			return
		}
		if a.codes.StatusCodeEnum == "" {
			t.Error("accepted an answer without a status")
		}
		_, _ = a.text("salt")
		_, _ = a.hex("salt")
		_, _ = a.object("salt")
	})
}
