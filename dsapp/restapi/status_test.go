package restapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
)

var errCause = errors.New("a cause that no client may see")

// failures are the failures of operations and the answers to them.
var failures = []struct {
	name       string
	err        error
	status     int
	statusEnum string
	statusCode int
	returnCode int
	retryAfter string
	outcome    Outcome
}{
	{"refused", &gateway.Refusal{Codes: failure("STAT_INVCREDENTIALS", 1000)}, 200, "STAT_INVCREDENTIALS", 1000, -1, "", Refused},
	{"relayed", &gateway.Refusal{Codes: gateway.ResultCodes{ReturnCodeEnum: "RET_ODD", StatusCodeEnum: "STAT_ODD", ReturnCode: -77, StatusCode: 4711}}, 200, "STAT_ODD", 4711, -77, "", Refused},
	{"invalid", &gateway.InvalidError{Member: "none", Problem: "is odd"}, 400, "STAT_INVPARAM", -2, -1, "", Invalid},
	{"unavailable", &gateway.Failure{Kind: gateway.Unavailable, RetryAfter: 4100 * time.Millisecond, Err: errCause}, 503, "STAT_COMMS", -10, -1, "5", Unavailable},
	{"unavailable at once", &gateway.Failure{Kind: gateway.Unavailable, Err: errCause}, 503, "STAT_COMMS", -10, -1, "1", Unavailable},
	{"bad answer", &gateway.Failure{Kind: gateway.BadAnswer, Err: errCause}, 502, "STAT_COMMS", -10, -1, "", BadAnswer},
	{"timeout", &gateway.Failure{Kind: gateway.Timeout, Err: errCause}, 504, "STAT_COMMS", -10, -1, "", Timeout},
	{"busy", &gateway.Failure{Kind: gateway.Busy, RetryAfter: time.Second, Err: errCause}, 429, "STAT_ERROR", -1, -1, "1", Limited},
	{"internal", &gateway.Failure{Kind: gateway.Internal, Err: errCause}, 500, "STAT_ERROR", -1, -1, "", Internal},
	{"anything else", errCause, 500, "STAT_ERROR", -1, -1, "", Internal},
}

// Every failure of every operation is answered with its status and codes, in the version of
// the service.
func TestFailures(t *testing.T) {
	t.Parallel()
	for _, s := range table() {
		for _, f := range failures {
			t.Run(s.Name()+" "+f.name, func(t *testing.T) {
				t.Parallel()
				g := newTestServer(t, nil, nil)
				g.ops.err = f.err
				got := g.call(s.Path, keyFor(s), bodies[s.Path])
				wantFailure(t, got, s.Version, f.status, f.statusEnum, f.statusCode, f.returnCode)
				if retry := got.header.Get("Retry-After"); retry != f.retryAfter {
					t.Errorf("Retry-After is %q, want %q", retry, f.retryAfter)
				}
				if strings.Contains(got.body, errCause.Error()) {
					t.Errorf("the answer contains the cause: %s", got.body)
				}
				if o := g.last(); o.Outcome != f.outcome || o.HTTPStatus != f.status || o.Status != f.statusEnum {
					t.Errorf("observed %+v", o)
				}
			})
		}
	}
}

// wantFailure checks status, header and result codes of the answer to a failure.
func wantFailure(t *testing.T, got reply, v Version, status int, statusEnum string, statusCode, returnCode int) {
	t.Helper()
	if got.status != status {
		t.Errorf("status is %d, want %d", got.status, status)
	}
	wantHeaders(t, got)
	var body map[string]any
	if err := json.Unmarshal([]byte(got.body), &body); err != nil {
		t.Fatalf("body %q: %v", got.body, err)
	}
	delete(body, "errorDescription")
	want := map[string]any{"errorCode": float64(returnCode), "errorMessage": statusEnum}
	if v == V2 {
		returnEnum := "RET_FAILURE"
		if statusEnum == "STAT_ODD" {
			returnEnum = "RET_ODD"
		}
		want = map[string]any{"resultCodes": map[string]any{
			"returnCodeEnum": returnEnum, "statusCodeEnum": statusEnum, "returnCode": float64(returnCode), "statusCode": float64(statusCode),
		}}
	}
	if !reflect.DeepEqual(body, want) {
		t.Errorf("body is %v, want %v", body, want)
	}
}

func wantHeaders(t *testing.T, got reply) {
	t.Helper()
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		"Content-Length": fmt.Sprint(len(got.body)),
	} {
		if values := got.header.Values(name); len(values) != 1 || values[0] != want {
			t.Errorf("%s is %q, want %q", name, values, want)
		}
	}
}

// Requests that are refused before the operation is called are answered with the
// documented status and codes, by every service.
func TestRejections(t *testing.T) {
	t.Parallel()
	type edit = func(*http.Request)
	header := func(name, value string) edit { return func(r *http.Request) { r.Header.Set(name, value) } }
	method := func(m string) edit { return func(r *http.Request) { r.Method = m } }
	chunked := func(r *http.Request) { r.ContentLength, r.Body = -1, io.NopCloser(io.MultiReader(r.Body)) }
	large := `{"x":"` + strings.Repeat("x", DefaultMaxBodySize) + `"}`
	for _, s := range table() {
		good := bodies[s.Path]
		wrongClass := frontKey
		if keyFor(s) == frontKey {
			wrongClass = backKey
		}
		for _, c := range []struct {
			name       string
			key, body  string
			edit       edit
			status     int
			statusEnum string
			statusCode int
			outcome    Outcome
			only       func(Service) bool
		}{
			{"no key", "", good, nil, 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"wrong key", "EXAMPLE-WRONG-KEY", good, nil, 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"password", "", good, func(r *http.Request) { r.SetBasicAuth(keyFor(s), "x") }, 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"bearer", "", good, header("Authorization", "Bearer "+keyFor(s)), 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"no base64", "", good, header("Authorization", "Basic "+keyFor(s)), 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"two keys", keyFor(s), good, func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, 401, "STAT_INVCREDENTIALS", 1000, Unauthenticated, nil},
			{"wrong class", wrongClass, good, nil, 403, "STAT_PERMISSION", 1005, Forbidden, func(s Service) bool { return len(s.Classes) == 1 }},
			{"wrong source", farKey, good, nil, 403, "STAT_PERMISSION", 1005, Forbidden, func(s Service) bool { return s.Classes[0] == apikey.BackEnd }},
			{"GET", keyFor(s), "", method(http.MethodGet), 405, "STAT_INVPARAM", -2, MethodNotAllowed, nil},
			{"PUT", keyFor(s), good, method(http.MethodPut), 405, "STAT_INVPARAM", -2, MethodNotAllowed, nil},
			{"OPTIONS", keyFor(s), "", method(http.MethodOptions), 405, "STAT_INVPARAM", -2, MethodNotAllowed, nil},
			{"too large", keyFor(s), large, nil, 413, "STAT_INVPARAM", -2, TooLarge, nil},
			{"too large in chunks", keyFor(s), large, chunked, 413, "STAT_INVPARAM", -2, TooLarge, nil},
			{"no media type", keyFor(s), good, header("Content-Type", ""), 415, "STAT_INVPARAM", -2, UnsupportedMedia, func(s Service) bool { return !s.BodyOptional }},
			{"two media types", keyFor(s), good + " {}", func(r *http.Request) { r.Header.Add("Content-Type", "application/json") }, 415, "STAT_INVPARAM", -2, UnsupportedMedia, nil},
			{"text", keyFor(s), good + " {}", header("Content-Type", "text/plain"), 415, "STAT_INVPARAM", -2, UnsupportedMedia, nil},
			{"other charset", keyFor(s), good + " {}", header("Content-Type", "application/json; charset=iso-8859-1"), 415, "STAT_INVPARAM", -2, UnsupportedMedia, nil},
			{"gzip", keyFor(s), good + " {}", header("Content-Encoding", "gzip"), 415, "STAT_INVPARAM", -2, UnsupportedMedia, nil},
			{"broken media type", keyFor(s), good + " {}", header("Content-Type", "application/json; charset"), 415, "STAT_INVPARAM", -2, UnsupportedMedia, nil},
			{"empty", keyFor(s), "", nil, 400, "STAT_INVPARAM", -2, Invalid, func(s Service) bool { return !s.BodyOptional }},
			{"array", keyFor(s), "[]", nil, 400, "STAT_INVPARAM", -2, Invalid, nil},
			{"trailing", keyFor(s), "{} {}", nil, 400, "STAT_INVPARAM", -2, Invalid, nil},
			{"empty object", keyFor(s), "{}", nil, 400, "STAT_INVPARAM", -2, Invalid, func(s Service) bool { return len(s.Members) > 0 }},
		} {
			if c.only != nil && !c.only(s) {
				continue
			}
			t.Run(s.Name()+" "+c.name, func(t *testing.T) {
				t.Parallel()
				g := newTestServer(t, nil, nil)
				edits := []func(*http.Request){}
				if c.edit != nil {
					edits = append(edits, c.edit)
				}
				got := g.call(s.Path, c.key, c.body, edits...)
				wantFailure(t, got, s.Version, c.status, c.statusEnum, c.statusCode, -1)
				challenge := ""
				if c.status == 401 {
					challenge = `Basic realm="DSAPP Gateway", charset="UTF-8"`
				}
				if got := got.header.Get("WWW-Authenticate"); got != challenge {
					t.Errorf("WWW-Authenticate is %q, want %q", got, challenge)
				}
				if allow := got.header.Get("Allow"); (allow == "POST") != (c.status == 405) {
					t.Errorf("Allow is %q", allow)
				}
				if g.ops.calls != 0 {
					t.Error("the operation was called")
				}
				if o := g.last(); o.Service != s.Name() || o.Outcome != c.outcome || o.HTTPStatus != c.status || (o.Application == "") != (c.status == 401) {
					t.Errorf("observed %+v", o)
				}
			})
		}
	}
}

// Requests in unusual but valid forms are accepted.
func TestAccepted(t *testing.T) {
	t.Parallel()
	const path = "/rest/v2/provisioning/MdlActivate"
	body := bodies[path]
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	none := func(*http.Request) {}
	for name, c := range map[string]struct {
		path, body string
		edit       func(*http.Request)
	}{
		"charset":        {path, body, set("Content-Type", "application/json; charset=UTF-8")},
		"quoted charset": {path, body, set("Content-Type", `Application/JSON;charset="utf-8"`)},
		"identity":       {path, body, set("Content-Encoding", "identity")},
		"scheme in lower case": {path, body, func(r *http.Request) {
			r.Header.Set("Authorization", "basic"+strings.TrimPrefix(r.Header.Get("Authorization"), "Basic"))
		}},
		"known names that are there as well":  {"/rest/v2/authentication/authUser", `{"userID":"jane.doe","domain":"","Domain":"x","password":"1"}`, none},
		"names that are not alike":            {"/rest/v2/authentication/authUser", `{"userID":"jane.doe","demain2":"x","password":"1"}`, none},
		"byte order mark":                     {path, "\ufeff" + body, none},
		"charset without a hyphen":            {path, body, set("Content-Type", "application/json;charset=utf8")},
		"subset of UTF-8":                     {path, body, set("Content-Type", "application/json;charset=US-ASCII")},
		"unknown members":                     {path, `{"x":[{"y":null}],"registrationIdentifier":"e3wfISG9","Signature":1,"signature":"1"}`, none},
		"serial number that v1 does not have": {"/rest/push/signLogin", `{"userID":"jane.doe","challengeKey":"1","signature":"1","serialNumber":["?"]}`, none},
		"no domain":                           {"/rest/v2/signature/scan/authSignature", `{"userID":"jane.doe","requestKey":"1","signature":"1"}`, none},
		"empty domain":                        {"/rest/v2/authentication/authUser", `{"userID":"jane.doe","domain":"","password":"1"}`, none},
		"plain key on cancel":                 {"/rest/v2/authentication/push/cancelAuthUser", `{"serialNumber":"VDS1000000-1","challengeKey":"0123456789"}`, none},
		"evidence to be relayed":              {"/rest/activation/DSAPPSRPGenerateActivationData", `{"registrationID":"e3wfISG9","clientEvidenceMessage":"0"}`, none},
		"response only":                       {"/rest/v2/provisioning/DSAPPSRPActivate", `{"registrationIdentifier":"e3wfISG9","response":"1"}`, none},
		"derivation code only":                {"/rest/v2/provisioning/DSAPPSRPActivate", `{"registrationIdentifier":"e3wfISG9","derivationCode":"1f"}`, none},
		"null is missing":                     {"/rest/v2/provisioning/MdlAddDevice", `{"registrationIdentifier":"e3wfISG9","deviceCode":"1","description":null}`, none},
		"empty description":                   {"/rest/v2/provisioning/MdlAddDevice", `{"registrationIdentifier":"e3wfISG9","deviceCode":"1","description":""}`, none},
		"escaped name":                        {path, `{"registrationIdentifier":"e3wfISG9","signatur\u0065":"1"}`, none},
		"white space":                         {path, " \r\n\t" + body + "\n", none},
		"time, no body":                       {"/rest/v2/provisioning/getServerTime", "", func(r *http.Request) { r.Header.Del("Content-Type") }},
		"time, empty form":                    {"/rest/v2/provisioning/getServerTime", "", set("Content-Type", "application/x-www-form-urlencoded")},
		"time, object":                        {"/rest/v2/provisioning/getServerTime", "{}", none},
		"time, object of no type":             {"/rest/v2/provisioning/getServerTime", `{"x":1}`, func(r *http.Request) { r.Header.Del("Content-Type") }},
		"query":                               {path + "?x=y", body, none},
		"escaped path":                        {strings.Replace(path, "Mdl", "%4Ddl", 1), body, none},
		"as large as it may be":               {path, body + strings.Repeat(" ", DefaultMaxBodySize-len(body)), none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newTestServer(t, nil, nil)
			if got := g.call(c.path, frontKey, c.body, c.edit); got.status != http.StatusOK || g.ops.calls != 1 {
				t.Errorf("answer is %+v", got)
			}
		})
	}
}

// Of several errors of a request, the first in this order determines the answer.
func TestOrderOfChecks(t *testing.T) {
	t.Parallel()
	const path = "/rest/v2/provisioning/MdlRegister"
	large := strings.Repeat("x", DefaultMaxBodySize+1)
	faults := []struct {
		status int
		mend   func(r *http.Request)
	}{
		{401, func(r *http.Request) { r.SetBasicAuth(farKey, "") }},
		{403, func(r *http.Request) { r.SetBasicAuth(frontKey, "") }},
		{403, func(r *http.Request) { r.SetBasicAuth(backKey, "") }},
		{405, func(r *http.Request) { r.Method = http.MethodPost }},
		{415, func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }},
		{413, func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("{")), 1 }},
		{400, func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(strings.NewReader("{}")), 2 }},
		{400, func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(bodies[path])), int64(len(bodies[path]))
		}},
		{200, nil},
	}
	for n, f := range faults {
		g := newTestServer(t, nil, nil)
		r := newRequest(path, "", large)
		r.Method = http.MethodPut
		r.Header.Set("Content-Type", "text/plain")
		for _, mended := range faults[:n] {
			mended.mend(r)
		}
		if got := g.do(r); got.status != f.status {
			t.Errorf("after mending %d faults: status is %d, want %d", n, got.status, f.status)
		}
	}
}

// The answers to a missing, an empty and a wrong key are identical, and so are those
// to requests that an operation refuses for different reasons.
func TestRefusalsAreIdentical(t *testing.T) {
	t.Parallel()
	for _, s := range table() {
		g := newTestServer(t, nil, nil)
		body := bodies[s.Path]
		wrong := g.call(s.Path, "EXAMPLE-WRONG-KEY", body)
		for name, got := range map[string]reply{
			"no key":    g.call(s.Path, "", body),
			"empty key": g.call(s.Path, "", body, func(r *http.Request) { r.SetBasicAuth("", "") }),
		} {
			if !reflect.DeepEqual(got, wrong) || got.status != http.StatusUnauthorized {
				t.Errorf("%s: with %s %+v, with a wrong one %+v", s.Path, name, got, wrong)
			}
		}
		g.ops.err = &gateway.Refusal{Codes: failure("STAT_INVCREDENTIALS", 1000)}
		first := g.call(s.Path, keyFor(s), body)
		g.ops.err = fmt.Errorf("wrapped: %w", g.ops.err)
		if got := g.call(s.Path, keyFor(s), body); !reflect.DeepEqual(got, first) || got.status != http.StatusOK {
			t.Errorf("%s: refusals are %+v and %+v", s.Path, first, got)
		}
	}
}

// HEAD is answered like GET, without a body.
func TestHead(t *testing.T) {
	t.Parallel()
	g := newTestServer(t, nil, nil)
	r := g.clientRequest(timePath, frontKey, nil)
	r.Method = http.MethodHead
	got := g.send(g.http2(), r)
	if got.status != http.StatusMethodNotAllowed || got.body != "" || got.header.Get("Allow") != "POST" || got.header.Get("Content-Length") == "" {
		t.Errorf("answer is %+v", got)
	}
}
