package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/internal/testbed"
)

// servicePaths are the paths of all services.
var servicePaths = func() (paths []string) {
	for directory, names := range map[string]string{
		"/rest/v2/provisioning/": "DSAPPSRPRegister MdlRegister DSAPPSRPGenerateEphemeralKey DSAPPSRPGenerateActivationData " +
			"MdlAddDevice MdlActivate DSAPPSRPActivate getServerTime",
		"/rest/v2/authentication/":      "authUser",
		"/rest/v2/authentication/push/": "getPreparedSecureChallenge authUser cancelAuthUser",
		"/rest/v2/authentication/scan/": "getPreparedSecureChallenge authUser cancelAuthUser",
		"/rest/v2/signature/push/":      "getPreparedSignatureRequest authSignature cancelAuthSignatureRequest",
		"/rest/v2/signature/scan/":      "getPreparedSignatureRequest authSignature cancelAuthSignatureRequest",
		"/rest/v2/notification/push/":   "updateNotificationID",
		"/rest/activation/":             "DSAPPSRPGenerateEphemeralKey DSAPPSRPGenerateActivationData MdlAddDevice MdlActivate",
		"/rest/auth/":                   "online",
		"/rest/push/":                   "retrieveLogin signLogin cancelLogin",
		"/rest/notification/":           "updateNotificationID",
	} {
		for name := range strings.FieldsSeq(names) {
			paths = append(paths, directory+name)
		}
	}
	slices.Sort(paths)
	return paths
}()

// behind is a server to which a gateway passes the requests that are not its own.
type behind struct {
	*httptest.Server
	mu   sync.Mutex
	seen map[string]passed // by number
}

// passed is a request as it arrives there.
type passed struct{ target, authorization, body string }

const (
	numberField = "X-Number"
	fromBehind  = "answer of the server behind"
)

// startInFront starts a gateway for all paths, with another server behind it.
func startInFront(t *testing.T) (*testbed.Gateway, *behind) {
	t.Helper()
	b := &behind{seen: make(map[string]passed)}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.mu.Lock()
		b.seen[r.Header.Get(numberField)] = passed{r.RequestURI, r.Header.Get("Authorization"), string(body)}
		b.mu.Unlock()
		fmt.Fprint(w, fromBehind)
	}))
	t.Cleanup(b.Close)
	certs := testbed.Certificates(t)
	g := testbed.Configure(t, certs, testbed.StartServer(t, certs).URL, nil)
	g.HTTPServer()["routes"] = []testbed.Object{{"handle": []testbed.Object{
		{"handler": "dsapp_gateway"},
		{"handler": "reverse_proxy", "upstreams": []testbed.Object{{"dial": strings.TrimPrefix(b.URL, "http://")}}},
	}}}
	g.Start(t)
	return g, b
}

// take returns the request with a number, if it arrived.
func (b *behind) take(number int) (passed, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.seen[strconv.Itoa(number)]
	return p, ok
}

// prober sends requests for any target.
type prober struct {
	g      *testbed.Gateway
	number int
	wires  map[string]*testbed.Wire
	stream uint32
}

// pathBody is the body of every request. Every service refuses it without asking a server.
const pathBody = `{"no": ["such", "members"]}`

// protocols are those that can carry any target.
var protocols = []string{"http/1.1", "h2"}

// post sends a request for exactly that target. It returns the number, the status and the body
// of the answer.
func (p *prober) post(t *testing.T, protocol, target string) (number, status int, body string) {
	t.Helper()
	p.number++
	w := p.wires[protocol]
	if w == nil {
		w = p.g.Dial(t, protocol)
		p.wires[protocol] = w
		if protocol == "h2" {
			w.Say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + testbed.HTTP2Frame(4, 0, 0, ""))
			p.stream = 0
		}
	}
	if protocol == "h2" {
		p.stream++
		stream := 2*p.stream - 1
		w.Say(testbed.HTTP2Frame(1, 4, stream, testbed.HTTP2Field(":method", "POST")+testbed.HTTP2Field(":scheme", "https")+testbed.HTTP2Field(":authority", "localhost")+testbed.HTTP2Field(":path", target)+
			testbed.HTTP2Field("authorization", testbed.BasicAuth(testbed.FrontEndKey+":"))+testbed.HTTP2Field("content-type", "application/json")+testbed.HTTP2Field("x-number", strconv.Itoa(p.number))) +
			testbed.HTTP2Frame(0, 1, stream, pathBody))
		status, body = w.HearStream(stream)
	} else {
		w.Say(testbed.HTTP1Request(target, testbed.FrontEndKey, pathBody, fmt.Sprintf("Content-Length: %d", len(pathBody)), numberField+": "+strconv.Itoa(p.number)))
		got := w.Hear()
		status, body = got.Status, got.Body
		if !got.Last {
			return p.number, status, body
		}
	}
	if protocol != "h2" || status == 0 || p.stream == 100 {
		w.Close()
		delete(p.wires, protocol)
	}
	return p.number, status, body
}

func newProber(g *testbed.Gateway) *prober {
	return &prober{g: g, wires: make(map[string]*testbed.Wire)}
}

// unknownService is the answer to a path that another server might take for a service.
var unknownService = testbed.Expect(http.StatusNotFound, "STAT_NOT_FOUND", -13)

// A path that is no service, but that another server might take for one, is refused. The server
// behind the gateway, which makes none of its checks, does not get it.
func TestDisguisedPathsAreRefused(t *testing.T) {
	t.Parallel()
	g, b := startInFront(t)
	p := newProber(g)
	for _, target := range []string{
		"/rest/v2/provisioning/./DSAPPSRPRegister", "/./rest/v2/provisioning/DSAPPSRPRegister", "/rest/v2/provisioning/DSAPPSRPRegister/.",
		"/rest/v2/x/../provisioning/DSAPPSRPRegister", "/../rest/v2/provisioning/DSAPPSRPRegister", "/rest/v2/provisioning/DSAPPSRPRegister/x/..",
		"/rest/v2/provisioning/DSAPPSRPRegister/../DSAPPSRPRegister", "/x/y/../../rest/auth/online",
		"/rest/v2/provisioning/%2e/DSAPPSRPRegister", "/rest/v2/x/%2e%2E/provisioning/DSAPPSRPRegister", "/rest/v2/x/.%2e/provisioning/DSAPPSRPRegister",
		"//rest/v2/provisioning/DSAPPSRPRegister", "/rest//v2/provisioning/DSAPPSRPRegister", "/rest/v2/provisioning///DSAPPSRPRegister",
		"/rest/v2/provisioning/DSAPPSRPRegister/", "/rest/v2/provisioning/DSAPPSRPRegister//", "/rest/v2/provisioning/DSAPPSRPRegister/?x=y",
		"/rest/v2/provisioning/%2FDSAPPSRPRegister", "/rest%2f%2fv2/provisioning/DSAPPSRPRegister", "/rest/v2/provisioning/DSAPPSRPRegister%2f",
		"/rest/v2/provisioning/x%2F..%2fDSAPPSRPRegister", "%2Frest/auth/online", "/%2Frest/auth/online",
		"/rest/v2/provisioning/DSAPPSRPRegister;a=b", "/rest/v2/provisioning/DSAPPSRPRegister;", "/rest;x/v2/provisioning/DSAPPSRPRegister",
		"/rest/v2;a=b;c/provisioning;/DSAPPSRPRegister;d=e,f", "/rest/v2/provisioning/;/DSAPPSRPRegister", "/rest/v2/x/..;/provisioning/DSAPPSRPRegister",
		"/;x/rest/auth/online", "/rest/v2/provisioning/DSAPPSRPRegister%3Ba=b", "/rest/v2/provisioning/DSAPPSRPRegister;a=%2f", "/rest/v2/provisioning/x;/..;y/DSAPPSRPRegister",
		"/rest/v2/provisioning/dsappsrpregister", "/REST/V2/PROVISIONING/DSAPPSRPREGISTER", "/Rest/Auth/Online", "/rest/push/%53ignLogin/..;/signlogin",
		"/rest/v2/provisioning/D%53APPSRPRegiste%72/", "/rest/v2/provisioning/DSAPPSRPReg%C4%B1ster/../DSAPPSRPRegister", "/rest/pu%C5%BFh/signLogin",
		`/rest\v2\provisioning\DSAPPSRPRegister`, `\rest\v2\provisioning\DSAPPSRPRegister`, `/rest/v2/provisioning\DSAPPSRPRegister`, `/rest/v2/x\..\provisioning/DSAPPSRPRegister`,
		"/rest/v2/provisioning%5CDSAPPSRPRegister", "/rest%5cauth%5conline",
		"https://localhost/rest/v2/provisioning/./DSAPPSRPRegister", "https://localhost//rest/auth/online", "https://localhost/rest/auth/Online",
	} {
		for _, protocol := range protocols {
			number, status, body := p.post(t, protocol, target)
			_, passed := b.take(number)
			assert.False(t, passed, "%s over %s reached the server behind", target, protocol)
			if !strings.HasPrefix(target, "/") && (status == http.StatusBadRequest || status == 0) {
				// Go's server refuses targets without a leading slash.
				continue
			}
			if assert.Equal(t, http.StatusNotFound, status, "%s over %s: %s", target, protocol, body) {
				unknownService.Check(t, testbed.Reply{Status: status, Body: body})
			}
		}
	}
	// A path that is a service once its escapes are resolved is served.
	for _, target := range []string{"/rest/v2/provisioning/%44SAPPSRPRegister", "/rest/v2/provisioning%2FDSAPPSRPRegister", "/%72est/auth/online?x=/../y", "/rest/auth/online"} {
		for _, protocol := range protocols {
			number, _, body := p.post(t, protocol, target)
			_, passed := b.take(number)
			assert.False(t, passed, "%s over %s reached the server behind", target, protocol)
			assert.Contains(t, body, "STAT_", "%s over %s", target, protocol)
		}
	}
}

// All other paths are passed on unchanged.
func TestOtherPathsAreUntouched(t *testing.T) {
	t.Parallel()
	g, b := startInFront(t)
	p := newProber(g)
	for _, target := range []string{
		"/", "//", "/x", "/x/", "/rest", "/rest/", "/rest/v2", "/rest/v2/provisioning/", "/rest/v2/provisioning/MdlRegisters", "/rest/v2/provisioning/MdlRegister2",
		"/rest/v2/provisioning/DSAPPRegister", "/rest/v2/notification/push/sendNotification", "/rest/v3/provisioning/MdlActivate", "/v2/rest/provisioning/MdlActivate",
		"/rest/v2/provisioning/MdlActivate/more", "/more/rest/v2/provisioning/MdlActivate", "/rest/v2/provisioning/more/MdlActivate", "/rest/v2/authentication/push/online",
		"/rest/v2/provisioning/Mdl/Activate", "/rest/v2/provisioning/Mdl;/Activate", "/restv2/provisioning/MdlActivate", "/rest/activation/getServerTime",
		"/x/./y//z;a=b/%2F/%20?q=/rest/auth/online", "/x?y=/rest/v2/provisioning/./MdlActivate", "/rest/auth/online2;a=b/", "/REST/AUTH/OFFLINE",
	} {
		for _, protocol := range protocols {
			number, status, body := p.post(t, protocol, target)
			got, _ := b.take(number)
			assert.Equal(t, passed{target, testbed.BasicAuth(testbed.FrontEndKey + ":"), pathBody}, got, "%s over %s: %s", target, protocol, body)
			assert.Equal(t, http.StatusOK, status)
			assert.Equal(t, fromBehind, body)
		}
	}
}

// reading is how a server interprets a path.
type reading func(path string) string

// unescaped resolves percent-encoding once, if it is valid.
func unescaped(s string) string {
	if decoded, err := url.PathUnescape(s); err == nil {
		return decoded
	}
	return s
}

// container interprets a path like a servlet container: it cuts parameters from every segment,
// then resolves dot segments and drops empty ones. Containers differ in when they resolve
// escapes, if at all, and in whether a backslash is a slash.
func container(decode string, parameters, backslash bool) reading {
	return func(path string) string {
		if decode == "first" {
			path = unescaped(path)
		}
		if backslash {
			path = strings.ReplaceAll(path, `\`, "/")
		}
		var kept []string
		for segment := range strings.SplitSeq(path, "/") {
			if parameters {
				segment, _, _ = strings.Cut(segment, ";")
			}
			if decode == "in segments" {
				segment = unescaped(segment)
			}
			switch segment {
			case "", ".":
			case "..":
				kept = kept[:max(len(kept)-1, 0)]
			default:
				kept = append(kept, segment)
			}
		}
		return "/" + strings.Join(kept, "/")
	}
}

// readings are those of single servers, and of servers behind a proxy that interprets the path
// first.
var readings = func() (all []reading) {
	var proxies []reading
	for _, parameters := range []bool{false, true} {
		for _, backslash := range []bool{false, true} {
			proxies = append(proxies, container("never", parameters, backslash))
			all = append(all, container("first", parameters, backslash), container("in segments", parameters, backslash))
		}
	}
	all = append(all, func(p string) string { return path.Clean("/" + unescaped(p)) })
	for _, server := range slices.Clone(all) {
		for _, proxy := range proxies {
			all = append(all, func(p string) string { return server(proxy(p)) })
		}
	}
	// Resolved escapes can mean something to the next server.
	for _, server := range slices.Clone(all) {
		for _, more := range proxies {
			all = append(all, func(p string) string { return more(server(p)) })
		}
	}
	return all
}()

// endsAtService reports whether any server takes a path for a service.
func endsAtService(target string) bool {
	return slices.ContainsFunc(readings, func(read reading) bool {
		end := read(target)
		return slices.ContainsFunc(servicePaths, func(service string) bool { return strings.EqualFold(service, end) })
	})
}

// disguise changes a path at a random place, but not inside of an escape.
func disguise(t *rapid.T, target string) string {
	at := rapid.IntRange(1, len(target)-1).Draw(t, "at")
	for i := max(at-2, 0); i <= at; i++ {
		if target[i] == '%' {
			return target
		}
	}
	insert := func(text string) string { return target[:at] + text + target[at:] }
	replace := func(text string) string { return target[:at] + text + target[at+1:] }
	c := target[at]
	switch rapid.SampledFrom([]string{"escape", "escape", "case", "segment", "segment", "parameter", "end", "backslash"}).Draw(t, "change") {
	case "escape":
		return replace(fmt.Sprintf(rapid.SampledFrom([]string{"%%%02x", "%%%02X"}).Draw(t, "digits"), c))
	case "case":
		if c|0x20 >= 'a' && c|0x20 <= 'z' {
			return replace(string(c ^ 0x20))
		}
	case "segment":
		if c == '/' {
			return insert(rapid.SampledFrom([]string{"/", "/.", "/x/..", "/..", "//", "/;", "/;x", "/.;x", "/x/..;y", "/x;/..", `\.`}).Draw(t, "segment"))
		}
	case "parameter":
		if c == '/' {
			return insert(rapid.SampledFrom([]string{";", ";a=b", ";a;b"}).Draw(t, "parameter"))
		}
	case "end":
		return target + rapid.SampledFrom([]string{"/", "/.", "//", "/x/..", ";", ";a", "/;a", `\`, "/../x"}).Draw(t, "end")
	case "backslash":
		if c == '/' {
			return replace(`\`)
		}
	}
	return target
}

// However the path of a service is disguised: if any server might take it for the service, the
// server behind the gateway does not get it. A path that no server takes for one, and that has
// no double dot, is passed on.
func TestDisguisedPaths(t *testing.T) {
	t.Parallel()
	g, b := startInFront(t)
	p := newProber(g)
	disguised, others := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		for range 10 {
			target := rapid.SampledFrom(servicePaths).Draw(r, "service")
			if rapid.IntRange(0, 3).Draw(r, "other") == 0 {
				target = strings.Replace(target, "/rest/", "/test/", 1)
			}
			for range rapid.IntRange(1, 6).Draw(r, "changes") {
				target = disguise(r, target)
			}
			protocol := rapid.SampledFrom(protocols).Draw(r, "protocol")
			number, status, body := p.post(t, protocol, target)
			_, passed := b.take(number)
			switch {
			case endsAtService(target):
				disguised++
				if passed || !strings.Contains(body, "STAT_") {
					r.Fatalf("%s over %s: status %d, passed on: %t, %s", target, protocol, status, passed, body)
				}
			case !strings.Contains(strings.ToLower(strings.ReplaceAll(target, "%2E", ".")), "..") && !strings.Contains(target, "%2e"):
				others++
				if !passed || body != fromBehind {
					r.Fatalf("%s over %s: status %d, passed on: %t, %s", target, protocol, status, passed, body)
				}
			}
		}
	})
	require.Positive(t, disguised)
	require.Positive(t, others)
}
