package restapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// memberForm is the documented form of a member.
type memberForm struct {
	class    string // of characters, as a regular expression
	problem  string // text of the error about other characters
	min, max int    // characters
}

// formOf returns the form of a member of a service, written down by hand.
func formOf(path, name string, optional bool) memberForm {
	const (
		noControls = "must not contain control characters"
		alphabet   = "must consist of A-Z, a-z and 0-9"
		hexDigits  = "must consist of hexadecimal digits"
	)
	text := func(longest int) memberForm {
		return memberForm{`[^\x00-\x1F\x7F-\x{9F}\x{FFFE}\x{FFFF}]`, noControls, 1, longest}
	}
	switch name {
	case "userID", "otp":
		return text(255)
	case "domain":
		f := text(255)
		if optional {
			f.min = 0
		}
		return f
	case "staticPassword":
		return text(128)
	case "password":
		if strings.HasSuffix(path, "/MdlRegister") {
			return text(128)
		}
		return text(255)
	case "description":
		return memberForm{`[\s\S]`, "", 0, 255}
	case "licenseType":
		return memberForm{`[a-z]`, "must consist of a-z", 1, 16}
	case "profile":
		return memberForm{`[!-~]`, "must consist of printable characters of ASCII without spaces", 1, 32}
	case "serialNumber", "digipassInstanceID":
		return memberForm{`[0-9A-Za-z-]`, "must consist of A-Z, a-z, 0-9 and '-'", 1, 22}
	case "registrationIdentifier", "registrationID":
		return memberForm{`[0-9A-Za-z._-]`, "must consist of A-Z, a-z, 0-9, '.', '_' and '-'", 4, 64}
	case "deviceCode":
		return memberForm{`[0-9]`, "must consist of decimal digits", 1, 64}
	case "signature", "response":
		return memberForm{`[0-9A-Za-z]`, alphabet, 1, 64}
	case "challengeKey", "requestKey", "encryptedChallengeKey":
		f := memberForm{`[0-9A-Za-z]`, alphabet, 1, 64}
		if strings.Contains(path, "/cancel") {
			f.max = 1024
		}
		return f
	case "derivationCode":
		return memberForm{`[0-9A-Fa-f]`, hexDigits, 1, 27}
	case "clientEphemeralPublicKey":
		return memberForm{`[0-9A-Fa-f]`, hexDigits, 1, 2050}
	case "clientEvidenceMessage":
		return memberForm{`[0-9A-Fa-f]`, hexDigits, 1, 1024}
	case "encryptedNotificationID":
		return memberForm{`[0-9A-Fa-f]`, hexDigits, 1, 1070}
	}
	panic("no form of " + name + " of " + path)
}

// extraRules returns the rules for a member beside its form: whether a value complies, and
// the texts of the errors about others.
func extraRules(path, name string) (complies func(string) bool, problems []string) {
	registers := strings.HasSuffix(path, "/DSAPPSRPRegister") || strings.HasSuffix(path, "/MdlRegister")
	switch {
	case registers && (name == "userID" || name == "domain"):
		return func(s string) bool { return !strings.Contains(s, ";") && len(s) <= 255 }, []string{"must not contain a semicolon", "must not be longer than 255 bytes in UTF-8"}
	case name == "licenseType":
		return regexp.MustCompile(`\A(mdl|standard)\z`).MatchString, []string{`must be "mdl" or "standard"`}
	case strings.Contains(path, "/cancel") && strings.HasSuffix(strings.ToLower(name), "key"):
		return regexp.MustCompile(`\A(.{0,64}|([0-9A-Fa-f]{2}){16,})\z`).MatchString,
			[]string{"must be 1 to 64 characters of A-Z, a-z and 0-9, or an even number of hex digits, at least 32"}
	case name == "encryptedNotificationID":
		return regexp.MustCompile(`\A(..)*\z`).MatchString, []string{"must be an even number of hex digits, at least 2"}
	}
	return nil, nil
}

// oracle is a test oracle for the values of one member.
type oracle struct {
	memberForm

	required bool
	all      *regexp.Regexp    // matches texts of the class
	complies func(string) bool // with extraRules; nil if there are none
	problems []string          // of extraRules
}

// oraclesOf returns the oracles for the members of a service by name.
func oraclesOf(path string) map[string]oracle {
	oracles := make(map[string]oracle)
	for name := range strings.FieldsSeq(services[path].request) {
		name, optional := strings.CutSuffix(name, "?")
		f := formOf(path, name, optional)
		complies, problems := extraRules(path, name)
		oracles[name] = oracle{f, !optional, regexp.MustCompile(`\A` + f.class + `*\z`), complies, problems}
	}
	return oracles
}

// fits reports whether a member may have this value.
func (o oracle) fits(value any) bool {
	if value == nil {
		return !o.required
	}
	s, ok := value.(string)
	n := utf8.RuneCountInString(s)
	return ok && n >= o.min && n <= o.max && o.all.MatchString(s) && (o.complies == nil || o.complies(s))
}

// sentences returns every errorDescription that the member may cause.
func (o oracle) sentences(name string) []string {
	sentences := []string{
		"is missing", "must be a string", "occurs twice", "must not be empty", o.problem,
		fmt.Sprintf("must have %d to %d characters", o.min, o.max), fmt.Sprintf("must not have more than %d characters", o.max),
	}
	sentences = append(sentences, o.problems...)
	for i, s := range sentences {
		sentences[i] = name + " " + s
	}
	return sentences
}

// bodyProblems are the errorDescriptions about a whole body.
var bodyProblems = []string{
	"body must be UTF-8", "body must be a JSON object and nothing else", "body must not contain half of a surrogate pair",
	"body contains a member twice", "body is nested too deeply", "body has too many members", "body has too many elements of arrays",
}

var (
	// escapes matches the escapes of a JSON text. A surrogate pair is one match.
	escapes = regexp.MustCompile(`\\(?:[^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4})`)
	// half matches an unpaired surrogate among them.
	half = regexp.MustCompile(`\A\\u[dD][89a-fA-F][0-9a-fA-F]{2}\z`)
)

// parse decodes a body with encoding/json. It returns false unless the body is a JSON
// object that every parser reads alike.
func parse(body []byte) (map[string]any, bool) {
	body = bytes.TrimPrefix(body, []byte("\ufeff"))
	var whole any
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if !utf8.Valid(body) || d.Decode(&whole) != nil {
		return nil, false
	}
	var compact bytes.Buffer
	if json.Compact(&compact, body) != nil || countNames(compact.Bytes()) != countMembers(whole) {
		return nil, false
	}
	if slices.ContainsFunc(escapes.FindAll(body, -1), half.Match) {
		return nil, false
	}
	members, ok := whole.(map[string]any)
	return members, ok && depth(whole) <= 16 && countMembers(whole) <= 64 && countElements(whole) <= 1024
}

func countElements(value any) int {
	n := 0
	switch v := value.(type) {
	case map[string]any:
		for _, nested := range v {
			n += countElements(nested)
		}
	case []any:
		n = len(v)
		for _, nested := range v {
			n += countElements(nested)
		}
	}
	return n
}

func depth(value any) int {
	deepest := 0
	switch v := value.(type) {
	case map[string]any:
		for _, nested := range v {
			deepest = max(deepest, depth(nested))
		}
	case []any:
		for _, nested := range v {
			deepest = max(deepest, depth(nested))
		}
	default:
		return 0
	}
	return deepest + 1
}

// decodedAnswer is an answer decoded by encoding/json.
type decodedAnswer struct {
	returnCode     int
	status         string
	result         map[string]json.RawMessage
	description    string
	hasDescription bool
}

// readAnswer decodes an answer. It fails the test unless the answer has exactly the
// members of its version.
func readAnswer(tb testing.TB, v Version, body []byte) decodedAnswer {
	tb.Helper()
	var a decodedAnswer
	var whole map[string]json.RawMessage
	take := func(from map[string]json.RawMessage, name string, to any) {
		tb.Helper()
		if err := json.Unmarshal(from[name], to); err != nil {
			tb.Fatalf("%s of %s: %v", name, body, err)
		}
		delete(from, name)
	}
	if err := json.Unmarshal(body, &whole); err != nil {
		tb.Fatalf("%q: %v", body, err)
	}
	if _, a.hasDescription = whole["errorDescription"]; a.hasDescription {
		take(whole, "errorDescription", &a.description)
	}
	if v == V1 {
		take(whole, "errorCode", &a.returnCode)
		take(whole, "errorMessage", &a.status)
		a.result = whole
		return a
	}
	var codes map[string]json.RawMessage
	take(whole, "resultCodes", &codes)
	take(codes, "returnCodeEnum", new(string))
	take(codes, "statusCodeEnum", &a.status)
	take(codes, "returnCode", &a.returnCode)
	take(codes, "statusCode", new(int))
	if _, ok := whole["result"]; ok {
		take(whole, "result", &a.result)
	}
	if len(whole)+len(codes) > 0 {
		tb.Fatalf("%s has members that are not documented", body)
	}
	return a
}

// hostileBodies returns bodies that are just accepted or just refused.
func hostileBodies() []string {
	return []string{
		"", " ", "{", "}", "{}", "[]", "null", "true", "0", `""`, "\ufeff{}", "{}{}", "{} x", "{}\x00", "\xff", `{"":""}`, `{"\u0000":1}`,
		`{"userID":"a","userID":"a"}`, `{"userID":"a","\u0075serID":"a"}`, `{"x":{"y":1,"y":2}}`, `{"x":[{"y":1,"y":2}]}`, `{"x":[1,2,{"y":[]}],"x":0}`,
		`{"userID":"\ud83d\ude00","password":"\ud800"}`, `{"x":"\ud800\u0041"}`, `{"x":"\ud800\ud800"}`, `{"x":"\udc00"}`, `{"x":"\\ud800"}`, `{"x":"\ud800x\udc00"}`,
		`{"userID":"\u0000","password":"\u007f","domain":"\u0085"}`, `{"userID":"\ufffe","otp":"\uffff"}`, `{"userID":"\ufffd","otp":"\u2028"}`,
		`{"userID":null,"domain":null,"password":null}`, `{"userID":1e400}`, `{"userID":-0}`, `{"userID":{"a":1}}`, `{"userID":["a"]}`, `{"userID":false}`,
		`{"userID":"a;b","staticPassword":"';--<!&]]>"}`, `{"userID":"${jndi:ldap://x}","password":"%00%s%n","domain":"../../etc"}`,
		`{"registrationIdentifier":"....","deviceCode":"００","clientEphemeralPublicKey":"0x12","clientEvidenceMessage":"0G"}`,
		`{"registrationID":"abc","deviceCode":"","clientEphemeralPublicKey":"","clientEvidenceMessage":""}`,
		`{"registrationIdentifier":"e3wfISG9","response":"1","derivationCode":"1"}`, `{"registrationIdentifier":"e3wfISG9"}`,
		`{"serialNumber":"VDS_1","challengeKey":"-","requestKey":"-"}`, `{"serialNumber":"` + strings.Repeat("V", 23) + `","challengeKey":"` + strings.Repeat("1", 65) + `"}`,
		`{"serialNumber":"V","requestKey":"` + strings.Repeat("aF", 512) + `"}`, `{"serialNumber":"V","requestKey":"` + strings.Repeat("aF", 512) + `0"}`,
		`{"userID":"` + strings.Repeat("ü", 255) + `","password":"` + strings.Repeat("ü", 256) + `"}`, `{"userID":"` + strings.Repeat("𝄞", 255) + `","otp":"1"}`,
		`{"a":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`, `{"a":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`,
		`{"a":` + strings.Repeat(`{"a":`, 15) + "{}" + strings.Repeat("}", 15) + `}`, strings.Repeat("[", 10001),
		`{"userID":"jane","digipassInstanceID":"V","encryptedNotificationID":"0","domain":""}`,
	}
}

// For any body, every service calls its operation exactly if the body is one JSON object
// and its members have their documented forms. Otherwise the errorDescription names the
// member that has not, and contains nothing from the body.
func FuzzServices(f *testing.F) {
	for _, body := range bodies {
		f.Add([]byte(body))
	}
	for _, body := range hostileBodies() {
		f.Add([]byte(body))
	}
	h, ops := newHandler(f, nil)
	oracles := make(map[string]map[string]oracle)
	for path := range services {
		oracles[path] = oraclesOf(path)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > DefaultMaxBodySize {
			return
		}
		members, ok := parse(body)
		for path, service := range services {
			want := http.StatusOK
			wrong := slices.Clone(bodyProblems)
			switch {
			case len(body) == 0 && service.request == "":
			case !ok:
				want = http.StatusBadRequest
				for name, o := range oracles[path] {
					// A member may occur twice in a body that parse refuses.
					wrong = append(wrong, o.sentences(name)[2])
				}
			default:
				wrong = nil
				for name, o := range oracles[path] {
					if !o.fits(members[name]) {
						want = http.StatusBadRequest
						wrong = append(wrong, o.sentences(name)...)
					}
					if _, there := members[name]; !there && slices.ContainsFunc(slices.Collect(maps.Keys(members)), func(other string) bool {
						_, known := oracles[path][other]
						return !known && distance(plainName(other), plainName(name)) <= 1
					}) {
						want = http.StatusBadRequest
						wrong = append(wrong, name+" must be spelt exactly like that")
					}
				}
			}

			calls := ops.calls
			r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			r.SetBasicAuth(map[bool]string{true: backKey, false: frontKey}[service.classes == "back_end"], "")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != want {
				t.Fatalf("%s: status %d, want %d: %s", path, w.Code, want, w.Body)
			}
			if called := ops.calls > calls; called != (want == http.StatusOK) {
				t.Fatalf("%s: status %d, operation called: %t", path, w.Code, called)
			}
			a := readAnswer(t, service.shape, w.Body.Bytes())
			if want == http.StatusOK {
				if a.returnCode != 0 || a.status != "STAT_SUCCESS" || a.hasDescription {
					t.Fatalf("%s: answer %s", path, w.Body)
				}
				continue
			}
			if a.returnCode != -1 || a.status != "STAT_INVPARAM" || len(a.result) > 0 || !slices.Contains(wrong, a.description) {
				t.Fatalf("%s: answer %s, want one of %q", path, w.Body, wrong)
			}
		}
	})
}

// Only a known key as the user name of HTTP Basic authentication (RFC 7617) with an empty
// password is accepted. Every other value gets the same answer.
func FuzzAuthorization(f *testing.F) {
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, s := range []string{
		basic(frontKey + ":"), strings.ToLower(basic(frontKey + ":")[:6]) + basic(frontKey + ":")[6:], basic(backKey + ":"), basic(frontKey), basic(frontKey + "::"),
		basic(":" + frontKey), basic(frontKey + ":x"), basic(frontKey + ":\x00"), basic(":"), basic(""), basic(frontKey + "\x00:"), basic(" " + frontKey + ":"),
		basic(frontKey[:len(frontKey)-1] + ":"), basic(strings.ToLower(frontKey) + ":"), basic(strings.Repeat("k", 1<<16) + ":"), basic("\xff\xfe:"),
		"", "Basic", "Basic ", "Basic  " + basic(frontKey + ":")[6:], "Basic\t" + basic(frontKey + ":")[6:], basic(frontKey+":") + "=", basic(frontKey+":") + " ",
		strings.TrimRight(basic(frontKey+":"), "="), "Basic " + base64.URLEncoding.EncodeToString([]byte("\xff\xfe\xfd:")), basic(frontKey+":") + "\n",
		"Bearer " + frontKey, "Digest " + basic(frontKey + ":")[6:], "Basic " + frontKey, "Basic " + frontKey + ":", frontKey, "Negotiate =",
	} {
		f.Add(s)
	}
	known := map[string]string{frontKey: "mobile-app", backKey: "bank-site", farKey: "far-site"}
	var application string
	h, _ := newHandler(f, func(c *Config) { c.Observe = func(_ *http.Request, o Observation) { application = o.Application } })
	call := func(header string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/rest/v2/provisioning/getServerTime", nil)
		r.Header["Authorization"] = []string{header}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	refused := call("Basic nonsense")
	f.Fuzz(func(t *testing.T, header string) {
		want := ""
		if scheme, credentials, found := strings.Cut(header, " "); found && strings.EqualFold(scheme, "Basic") && isASCII(scheme) {
			// encoding/base64 skips line breaks, as the handler does.
			decoded, err := base64.StdEncoding.DecodeString(credentials)
			user, password, colon := strings.Cut(string(decoded), ":")
			if err == nil && colon && password == "" {
				want = known[user]
			}
		}
		w := call(header)
		if application != want {
			t.Fatalf("%q is that of %q, want %q", header, application, want)
		}
		switch status := map[string]int{"": 401, "mobile-app": 200, "bank-site": 403, "far-site": 403}[want]; {
		case w.Code != status:
			t.Fatalf("%q: status %d, want %d", header, w.Code, status)
		case status == 401 && (w.Body.String() != refused.Body.String() || fmt.Sprint(w.Header()) != fmt.Sprint(refused.Header())):
			t.Fatalf("%q: answer %v %s, want %v %s", header, w.Header(), w.Body, refused.Header(), refused.Body)
		}
		readAnswer(t, V2, w.Body.Bytes())
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf })
}

func plainName(name string) string {
	return regexp.MustCompile(`[_-]`).ReplaceAllString(strings.ToLower(name), "")
}

// distance returns the Levenshtein distance of a and b, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal, row[j+1] = row[j+1], min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// A body is read if its header declares JSON in UTF-8 in one of the usual ways, and
// answered with 415 if the header declares anything else.
func FuzzMediaType(f *testing.F) {
	for _, s := range [][2]string{
		{"application/json", ""},
		{"application/json; charset=utf-8", ""},
		{`Application/JSON ; Charset="UTF-8"`, "identity"},
		{"application/json; charset=utf-16", ""},
		{"application/json; charset=utf8", ""},
		{"application/json; charset=US-ASCII", ""},
		{"application/json; charset=utf-7", ""},
		{"application/json;charset", ""},
		{"application/json;;", ""},
		{"application/json;x=y", ""},
		{"application/json;x=utf-16", ""},
		{"text/json", ""},
		{"application/json+x", ""},
		{"application/jsonx", ""},
		{"application", ""},
		{"/", ""},
		{"", ""},
		{"application/json", "gzip"},
		{"application/json", "identity, gzip"},
		{"application/json", "IDENTITY"},
		{"application/json, application/json", ""},
		{"application/json; charset=utf-8; charset=utf-8", ""},
		{"application/json; charset*=utf-8''utf-8", ""},
		{"application/json\x00", ""},
	} {
		f.Add(s[0], s[1])
	}
	plain := regexp.MustCompile(`(?i)\A *application/json *(; *charset=("utf-?8"|utf-?8|(us-)?ascii) *)?\z`)
	other := regexp.MustCompile(`(?i)\A *application/json *; *charset="?utf-16"? *\z`)
	h, ops := newHandler(f, nil)
	f.Fuzz(func(t *testing.T, contentType, coding string) {
		r := httptest.NewRequest(http.MethodPost, "/rest/v2/provisioning/MdlActivate", strings.NewReader(bodies["/rest/v2/provisioning/MdlActivate"]))
		r.SetBasicAuth(frontKey, "")
		r.Header["Content-Type"] = []string{contentType}
		if coding != "" {
			r.Header["Content-Encoding"] = []string{coding}
		}
		calls := ops.calls
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		accepted := ops.calls > calls
		readAnswer(t, V2, w.Body.Bytes())
		if status := map[bool]int{true: 200, false: 415}[accepted]; w.Code != status {
			t.Fatalf("status %d, accepted: %t", w.Code, accepted)
		}
		identity := coding == "" || strings.EqualFold(coding, "identity")
		if !accepted && identity && plain.MatchString(contentType) {
			t.Fatal("not accepted")
		}
		media, _, _ := strings.Cut(contentType, ";")
		if accepted && (!identity || !strings.EqualFold(strings.TrimSpace(media), "application/json") || other.MatchString(contentType)) {
			t.Fatal("accepted")
		}
	})
}
