package restapi

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ratelimit"
)

const knownOrigin = "https://app.example.com"

// withOrigins configures the origin of a page and that of a web view.
func withOrigins(t testing.TB) func(*Config) {
	t.Helper()
	origins, err := ParseOrigins([]string{knownOrigin, "capacitor://localhost"})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Origins = origins }
}

// from sets the origin of a request.
func from(origins ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header["Origin"] = origins }
}

// preflight makes a request a preflight.
func preflight(r *http.Request) {
	r.Method = http.MethodOptions
	r.Header.Del("Content-Type")
	r.Header.Set("Access-Control-Request-Method", http.MethodPost)
	r.Header.Set("Access-Control-Request-Headers", "authorization,content-type")
}

// corsFields returns the fields of CORS in an answer, and Vary.
func corsFields(h http.Header) map[string]string {
	fields := make(map[string]string)
	for name, values := range h {
		if name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			fields[name] = strings.Join(values, "|")
		}
	}
	return fields
}

var (
	fieldsOfCall      = map[string]string{"Vary": "Origin", "Access-Control-Allow-Origin": knownOrigin, "Access-Control-Expose-Headers": "Retry-After, X-Request-Id"}
	fieldsOfPreflight = map[string]string{
		"Vary": "Origin", "Access-Control-Allow-Origin": knownOrigin, "Access-Control-Allow-Methods": "POST",
		"Access-Control-Allow-Headers": "Authorization, Content-Type", "Access-Control-Max-Age": "600",
	}
	fieldsOfUnknown = map[string]string{"Vary": "Origin"}
	noFields        = map[string]string{}
)

// Pages of known origins may call the services for front-end keys, and no other page may call
// any. A preflight needs no key and counts for nothing.
func TestCORSOfServices(t *testing.T) {
	t.Parallel()
	for _, s := range table() {
		var failed, counted fakeLimiter
		g := newTestServer(t, func(c *Config) {
			withOrigins(t)(c)
			c.Limits = Limits{FailedKeys: &failed, Exchanges: &counted, Proofs: &counted, Registrations: &counted, Calls: &counted, RequestsInFlight: fullLimiter{}}
		}, nil)
		front := slices.Contains(s.Classes, apikey.FrontEnd)
		for _, test := range []struct {
			name    string
			edit    []func(*http.Request)
			allowed map[string]string // at a service for front-end keys
			status  int               // there
		}{
			{"preflight", []func(*http.Request){preflight, from(knownOrigin)}, fieldsOfPreflight, 204},
			{"preflight of a web view", []func(*http.Request){preflight, from("capacitor://localhost")}, with(fieldsOfPreflight, "capacitor://localhost"), 204},
			{"preflight of another origin", []func(*http.Request){preflight, from("https://evil.example.com")}, fieldsOfUnknown, 204},
			{"preflight of a similar origin", []func(*http.Request){preflight, from(knownOrigin + ".evil.example.com")}, fieldsOfUnknown, 204},
			{"preflight of no origin", []func(*http.Request){preflight, from("null")}, fieldsOfUnknown, 204},
			{"preflight of two origins", []func(*http.Request){preflight, from(knownOrigin, knownOrigin)}, fieldsOfUnknown, 204},
		} {
			got := g.call(s.Path, "", "", test.edit...)
			want, status := test.allowed, test.status
			if !front {
				want, status = noFields, 429 // as any request without a back-end key in this test
			}
			if got.status != status || !maps.Equal(corsFields(got.header), want) || got.status == 204 && got.body != "" {
				t.Errorf("%s, %s: answer is %+v", s.Path, test.name, got)
			}
			if !front {
				continue
			}
			if len(failed.blocking)+len(failed.counted)+len(counted.counted)+g.ops.calls != 0 {
				t.Errorf("%s, %s: counted %q, %q, %q", s.Path, test.name, failed.blocking, failed.counted, counted.counted)
			}
			if want := (Observation{Service: s.Name(), Outcome: Preflight, HTTPStatus: 204}); g.last() != want {
				t.Errorf("%s, %s: observed %+v", s.Path, test.name, g.last())
			}
		}
	}
}

// with returns fields for another origin.
func with(fields map[string]string, origin string) map[string]string {
	fields = maps.Clone(fields)
	fields["Access-Control-Allow-Origin"] = origin
	return fields
}

// Every answer to a page can be read by it, whatever the status. Requests that are no
// preflights are answered as without CORS.
func TestCORSOfAnswers(t *testing.T) {
	t.Parallel()
	const front, back = "/rest/v2/provisioning/MdlActivate", "/rest/v2/provisioning/DSAPPSRPRegister"
	unavailable := &gateway.Failure{Kind: gateway.Unavailable}
	for name, test := range map[string]struct {
		path, key, body string
		err             error
		panic           any
		limits          Limits
		edit            func(*http.Request)
		status          int
		fields          map[string]string
	}{
		"success":                   {status: 200, fields: fieldsOfCall},
		"refusal":                   {err: &gateway.Refusal{}, status: 200, fields: fieldsOfCall},
		"no JSON":                   {body: "x", status: 400, fields: fieldsOfCall},
		"wrong key":                 {key: "EXAMPLE-WRONG-KEY", status: 401, fields: fieldsOfCall},
		"key of another address":    {key: farKey, status: 403, fields: fieldsOfCall},
		"method":                    {edit: func(r *http.Request) { r.Method = http.MethodPut }, status: 405, fields: fieldsOfCall},
		"OPTIONS, but no preflight": {edit: func(r *http.Request) { r.Method = http.MethodOptions }, status: 405, fields: fieldsOfCall},
		"too large":                 {body: strings.Repeat(" ", DefaultMaxBodySize+1), status: 413, fields: fieldsOfCall},
		"media type":                {edit: func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, status: 415, fields: fieldsOfCall},
		"early data":                {edit: func(r *http.Request) { r.Header.Set("Early-Data", "1") }, status: 425, fields: fieldsOfCall},
		"limit":                     {limits: Limits{Calls: &fakeLimiter{over: true}}, status: 429, fields: fieldsOfCall},
		"limit of addresses":        {limits: Limits{RequestsInFlight: fullLimiter{}}, status: 429, fields: fieldsOfCall},
		"panic":                     {panic: "x", status: 500, fields: fieldsOfCall},
		"defect":                    {err: errors.New("x"), status: 500, fields: fieldsOfCall},
		"bad answer":                {err: &gateway.Failure{Kind: gateway.BadAnswer}, status: 502, fields: fieldsOfCall},
		"unavailable":               {err: unavailable, status: 503, fields: fieldsOfCall},
		"timeout":                   {err: &gateway.Failure{Kind: gateway.Timeout}, status: 504, fields: fieldsOfCall},

		"other origin":               {edit: from("https://evil.example.com"), status: 200, fields: fieldsOfUnknown},
		"no origin":                  {edit: func(r *http.Request) { r.Header.Del("Origin") }, status: 200, fields: fieldsOfUnknown},
		"back-end service":           {path: back, key: backKey, status: 200, fields: noFields},
		"back-end service, 401":      {path: back, key: "EXAMPLE-WRONG-KEY", status: 401, fields: noFields},
		"no service":                 {path: "/rest/v2/nothing", status: 404, fields: noFields},
		"disguised service":          {path: front + "/.", status: 404, fields: noFields},
		"preflight of no service":    {path: "/rest/v2/nothing", key: "EXAMPLE-WRONG-KEY", edit: preflight, status: 401, fields: noFields},
		"preflight with a wrong key": {key: "EXAMPLE-WRONG-KEY", edit: preflight, status: 204, fields: fieldsOfPreflight},
	} {
		g := newTestServer(t, func(c *Config) {
			withOrigins(t)(c)
			c.Limits = test.limits
		}, nil)
		g.ops.err, g.ops.panic = test.err, test.panic
		path, key := test.path, test.key
		if path == "" {
			path = front
		}
		if key == "" {
			key = frontKey
		}
		body := test.body
		if body == "" {
			body = bodies[path]
		}
		edits := []func(*http.Request){from(knownOrigin)}
		if test.edit != nil {
			edits = append(edits, test.edit)
		}
		got := g.call(path, key, body, edits...)
		if got.status != test.status || !maps.Equal(corsFields(got.header), test.fields) {
			t.Errorf("%s: answer is %+v", name, got)
		}
	}
}

// Without configured origins, no answer has fields of CORS, and a preflight is a request
// without a key.
func TestNoCORS(t *testing.T) {
	t.Parallel()
	g := newTestServer(t, func(c *Config) { c.Limits.FailedKeys = ratelimit.New(3, 100) }, nil)
	for _, s := range table() {
		if got := g.call(s.Path, "", "", preflight, from(knownOrigin)); got.status != http.StatusUnauthorized || len(corsFields(got.header)) != 0 {
			t.Errorf("%s: preflight is answered with %+v", s.Path, got)
		}
		if got := g.call(s.Path, keyFor(s), bodies[s.Path], from(knownOrigin)); got.status != http.StatusOK || len(corsFields(got.header)) != 0 {
			t.Errorf("%s: answer is %+v", s.Path, got)
		}
	}
}

// Only origins that a browser can send are accepted. The error says what is wrong.
func TestParseOrigins(t *testing.T) {
	t.Parallel()
	for _, origin := range []string{
		"https://app.example.com", "https://app.example.com:8443", "https://example.com.", "http://localhost", "http://localhost:8100", "https://192.0.2.1",
		"https://[2001:db8::1]:8443", "https://xn--bcher-kva.example", "https://a_b.example", "capacitor://localhost", "ionic://localhost", "tauri://localhost",
		"chrome-extension://abcdefghijklmnopabcdefghijklmnop", "com.example.app+x-1://host:443", "https://a.example:80", "http://a.example:443",
	} {
		o, err := ParseOrigins([]string{"https://other.example", origin})
		if err != nil || !o.has(origin) || o.has(origin+"/") {
			t.Errorf("%s: %v", origin, err)
		}
	}
	for origin, want := range map[string]string{
		"":                                 "must be an origin such as",
		"*":                                "must not be *",
		"null":                             "must not be null",
		"app.example.com":                  "must be an origin such as",
		"https:app.example.com":            "must be an origin such as",
		"://app.example.com":               "must begin with a scheme",
		"1https://app.example.com":         "must begin with a scheme",
		"ht_tps://app.example.com":         "must begin with a scheme",
		"https://*.example.com":            "must have a host name",
		"https://app.example.com/":         "not even a slash",
		"https://app.example.com/path":     "must have no path",
		`https://app.example.com\path`:     "must have no path",
		"https://app.example.com?q":        "must have no path",
		"https://app.example.com#f":        "must have no path",
		"https://user@app.example.com":     "must have no user name",
		"https://App.example.com":          "must be in lower case",
		"HTTPS://app.example.com":          "must be in lower case",
		"https://[2001:DB8::1]":            "must be in lower case",
		"https://app.example.com:443":      "must not have the default port",
		"http://app.example.com:80":        "must not have the default port",
		"https://app.example.com:":         "must have a port from",
		"https://app.example.com:0":        "must have a port from",
		"https://app.example.com:08443":    "must have a port from",
		"https://app.example.com:65536":    "must have a port from",
		"https://app.example.com:x":        "must have a port from",
		"https://":                         "must have a host name",
		"https://:8443":                    "must have a host name",
		"file://":                          "must have a host name",
		"https://.":                        "must have a host name",
		"https://a..b":                     "must have a host name",
		"https://127.1":                    "must have a host name",
		"https://192.0.2.1.":               "must have a host name",
		"https://example.0x7f":             "must have a host name",
		"https://2001:db8::1":              "must have a host name",
		"https://[2001:db8:0:0:0:0:0:1]":   "must have a host name",
		"https://[::ffff:192.0.2.1]":       "must have a host name",
		"https://[fe80::1%25eth0]":         "must have a host name",
		"https://[192.0.2.1]":              "must have a host name",
		"https://[2001:db8::1":             "must have a host name",
		"https://bücher.example":           "beginning with xn--",
		"https://app.example.com ":         "must have neither spaces",
		"https://a.example,https://b.test": "must have no path",
		"https://a.example,b.test":         "must have a host name",
		"https://other.example":            "is the same as an earlier one",
	} {
		_, err := ParseOrigins([]string{"https://other.example", origin})
		wrong, ok := errors.AsType[*option.Error](err)
		if !ok || wrong.Name != "origins[1]" || !strings.Contains(wrong.Problem, want) {
			t.Errorf("%q: error %v, want %q", origin, err, want)
		}
	}
}

// An accepted origin is what the URL of a page has before its path.
func FuzzParseOrigins(f *testing.F) {
	for _, s := range []string{knownOrigin, "capacitor://localhost", "https://[2001:db8::1]:8443", "http://192.0.2.1:8100", "https://a..b", "https://a:443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseOrigins([]string{s})
		if err != nil {
			if _, ok := errors.AsType[*option.Error](err); !ok || o.has(s) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		u, err := url.Parse(s + "/path?query#fragment")
		if err != nil || u.Scheme+"://"+u.Host != s || u.Path != "/path" || u.User != nil || u.Hostname() == "" {
			t.Fatalf("%q is accepted: %+v, %v", s, u, err)
		}
	})
}
