package restapi

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// normalizations are ways in which other servers normalize a path before they compare
// it with those that they know. Some ignore case and a slash at the end then.
var normalizations = map[string]func(string) string{
	"clean": func(p string) string { return path.Clean(unescape(p)) },
	"nginx": func(p string) string { return resolve(merge(unescape(p))) },
	"parameters first": func(p string) string {
		return path.Clean(unescape(cutEach(p)))
	},
	"parameters first, encoded slashes kept": func(p string) string {
		kept := regexp.MustCompile(`(?i)%2f`).ReplaceAllString(cutEach(p), "%252f")
		return unescape(resolve(merge(unescape(kept))))
	},
	"parameters last":           func(p string) string { return cutEach(resolve(merge(unescape(p)))) },
	"parameters after decoding": func(p string) string { return path.Clean(cutEach(unescape(p))) },
	"empty segments count":      func(p string) string { return merge(resolve(unescape(p))) },
	"dots as they came":         func(p string) string { return unescape(merge(resolve(p))) },
	"backslashes":               func(p string) string { return path.Clean(strings.ReplaceAll(unescape(p), `\`, "/")) },
	"query decoded": func(p string) string {
		p, _, _ = strings.Cut(unescape(p), "?")
		return path.Clean(p)
	},
	"ends of names cut": func(p string) string {
		return resolve(merge(regexp.MustCompile(`[. ]+(/|\z)`).ReplaceAllString(unescape(p), "$1")))
	},
	"semicolons before slashes": func(p string) string {
		return path.Clean(unescape(cutEach(strings.NewReplacer("%3b", ";", "%3B", ";").Replace(p))))
	},
	"decoded twice": func(p string) string { return path.Clean(cutEach(unescape(unescape(p)))) },
}

// unescape percent-decodes a path. Malformed escapes stay.
func unescape(p string) string {
	return regexp.MustCompile(`%[0-9A-Fa-f]{2}`).ReplaceAllStringFunc(p, func(escape string) string {
		var c byte
		_, _ = fmt.Sscanf(escape, "%%%x", &c)
		return string([]byte{c})
	})
}

func merge(p string) string { return regexp.MustCompile(`/+`).ReplaceAllString(p, "/") }

// cutEach removes the parameters of each segment.
func cutEach(p string) string { return regexp.MustCompile(`;[^/]*`).ReplaceAllString(p, "") }

// resolve resolves dot segments. An empty segment is a segment like others.
func resolve(p string) string {
	var kept []string
	for segment := range strings.SplitSeq(strings.TrimPrefix(p, "/"), "/") {
		switch segment {
		case ".":
		case "..":
			kept = kept[:max(len(kept)-1, 0)]
		default:
			kept = append(kept, segment)
		}
	}
	return "/" + strings.Join(kept, "/")
}

// readByOthers returns the service that another server may take the path for, if any.
func readByOthers(u *url.URL) string {
	for name, read := range normalizations {
		got := strings.ToLower(strings.TrimRight(read(u.EscapedPath()), "/"))
		for service := range services {
			if got == strings.ToLower(service) {
				return service + " (" + name + ")"
			}
		}
	}
	return ""
}

// resembles reports whether a path contains the names of a service in their order, or
// has more slashes than are looked at.
func resembles(u *url.URL) bool {
	p := strings.ToLower(strings.ToUpper(unescape(unescape(unescape(unescape(u.EscapedPath()))))))
	if u.Opaque != "" {
		p = strings.ToLower(u.Opaque)
	}
	if strings.Count(p, "/") > 64 {
		return true
	}
	for service := range services {
		if regexp.MustCompile(strings.ReplaceAll(strings.ToLower(service)[1:], "/", `.*`)).MatchString(p) {
			return true
		}
	}
	return false
}

// A request for an alias of a service is answered with 404 and not passed on. It counts
// as a refused request.
func TestAliasPaths(t *testing.T) {
	t.Parallel()
	for _, target := range []string{
		activatePath + "/", activatePath + "//", "/" + activatePath, "//" + activatePath, activatePath + "/.", activatePath + "/x/..", activatePath + ";a=b",
		activatePath + ";/", activatePath + ";a=b/", "/rest;a=b/v2/provisioning/MdlActivate", "/rest/v2;/provisioning;x;y=z/MdlActivate", strings.ToLower(activatePath),
		strings.ToUpper(activatePath), "/rest/v2/./provisioning/MdlActivate", "/rest/v2//provisioning/MdlActivate", "/./rest/v2/provisioning/MdlActivate",
		"/../rest/v2/provisioning/MdlActivate", "/x/../rest/v2/provisioning/MdlActivate", "/rest/v2/x/../provisioning/MdlActivate", "/rest/v2/x/y/../../provisioning/MdlActivate",
		"/rest/v2/%2e/provisioning/MdlActivate", "/rest/v2/x/%2e%2E/provisioning/MdlActivate", "/rest/v2/x/.%2e/provisioning/MdlActivate", "/rest/v2/x/..;a/provisioning/MdlActivate",
		"/rest/v2/x%2f..%2fprovisioning/MdlActivate", "/rest/v2/a%2fb/../provisioning/MdlActivate", "/rest/v2%2f/provisioning/MdlActivate", activatePath + "%2f", activatePath + "%3Ba=b",
		activatePath + ";a=%2fb", activatePath + "%3Ba=%252fb", "/rest/v2/provisioning/%256ddlactivate", `/rest\v2\provisioning\MdlActivate`, "/rest/v2/provisioning%5CMdlActivate",
		`/rest/v2/x\../provisioning/MdlActivate`, "/rest//../rest/v2/provisioning/MdlActivate", "/reſt/v2/provisioning/MdlActivate", "/rest/push/RetrieveLogin", "/rest/auth/online;jsessionid=1",
		activatePath + "%3Fx=y", activatePath + "%23x", activatePath + "%00", activatePath + "%00.x", activatePath + ".", activatePath + "%20", activatePath + "%09",
		activatePath + "%3B%2Fx", "/x%3F/../rest/v2/provisioning/MdlActivate", "/rest/v2./provisioning/MdlActivate", "https:rest/v2/provisioning/MdlActivate", strings.Repeat("/", 65) + "x",
	} {
		called := &fakeLimiter{}
		h, ops := newHandler(t, func(c *Config) { c.Limits.Calls = called })
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}"))
		r.URL = u
		r.SetBasicAuth(frontKey, "")
		w := httptest.NewRecorder()
		err = h.Serve(w, r, func(http.ResponseWriter, *http.Request) (bool, error) {
			t.Errorf("%s was passed on", target)
			return true, nil
		})
		if err != nil || w.Code != http.StatusNotFound || ops.calls != 0 || len(called.counted) != 1 {
			t.Errorf("%s: answer %d, error %v, counted %q", target, w.Code, err, called.counted)
		}
	}
}

// However the path of a service is changed: if another server may take the result for a
// service, it is found to be an alias.
func TestAliasesAreFound(t *testing.T) {
	t.Parallel()
	paths := make([]string, 0, len(services))
	for p := range services {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	h, _ := newHandler(t, nil)
	rapid.Check(t, func(t *rapid.T) {
		target := rapid.SampledFrom(paths).Draw(t, "service")
		for range rapid.IntRange(1, 5).Draw(t, "changes") {
			at := rapid.IntRange(1, len(target)).Draw(t, "at")
			switch rapid.IntRange(0, 2).Draw(t, "change") {
			case 0:
				if slash := strings.IndexByte(target[at:], '/'); slash >= 0 {
					at += slash
				}
				target = target[:at] + rapid.SampledFrom([]string{
					"/", "//", "/.", "/./", "/x/..", "/x/../", "/a/b/../..", "/a%2fb/..", "/..", ";", ";a=b", ";a=/b", ";/..", "/x/..;y", "/%2e", "/x/%2e%2e", "%2f", "%2F..", "%5c", `\`, "%3b", "%3Ba", "%3B%2fx", "%3f", "%20", ".", "%252e", "%25", "/%00",
				}).Draw(t, "inserted") + target[at:]
			case 1:
				target = target[:at-1] + fmt.Sprintf("%%%02x", target[at-1]) + target[at:]
			case 2:
				target = target[:at-1] + strings.ToUpper(target[at-1:at]) + target[at:]
			}
		}
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		if _, ok := services[u.Path]; ok {
			return
		}
		if service := readByOthers(u); service != "" && !h.aliases.match(u) {
			t.Fatalf("%q is not found; others read it as %s", target, service)
		}
	})
}

// Only the documented paths, percent-decoded, are services. Requests for aliases of them
// are answered with 404. All others are passed on with their body and key unchanged, and
// answered with 404, in the version of their path, if nobody handles them.
func FuzzPath(f *testing.F) {
	for path := range services {
		f.Add(path)
	}
	const path = "/rest/v2/provisioning/MdlActivate"
	for _, target := range []string{
		"/", "*", "//", "", path + "/", "/" + path, path + "//", strings.ToLower(path), strings.ToUpper(path), path + "?x=y", path + "?", path + "#x", path + ";x=y",
		strings.Replace(path, "Mdl", "%4Ddl", 1), strings.Replace(path, "/Mdl", "%2FMdl", 1), strings.Replace(path, "Mdl", "%254Ddl", 1), path + "%00", path + "%0", path + "%zz",
		path + "%20", path + "+", "/rest/v2/./provisioning/MdlActivate", "/rest/v2/x/../provisioning/MdlActivate", "/rest/v2/provisioning/%2e%2e/provisioning/MdlActivate",
		"/rest/v2", "/rest/v2/", "/rest/", "/rest", "/rest/v2x", "/rest/v3/provisioning/MdlActivate", "/rest/v1/activation/MdlActivate", "http://example.org" + path,
		"http://user:password@example.org" + path, "/\xff", "/%ff", "/rest/push/retrieveLogin\x00", `\rest\push\retrieveLogin`, "/rest/" + strings.Repeat("a/", 1000),
	} {
		f.Add(target)
	}
	var observed Observation
	h, ops := newHandler(f, func(c *Config) { c.Observe = func(_ *http.Request, o Observation) { observed = o } })
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			// The server does not take such a request to the handler.
			return
		}
		const body = `{"registrationIdentifier":"e3wfISG9","signature":"1"}`
		request := func() *http.Request {
			r := &http.Request{Method: http.MethodPost, URL: u, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
			r.SetBasicAuth(frontKey, "")
			return r.WithContext(t.Context())
		}
		service, isService := services[u.Path]
		passed := false
		calls := ops.calls
		w := httptest.NewRecorder()
		if err := h.Serve(w, request(), func(_ http.ResponseWriter, r *http.Request) (bool, error) {
			passed = true
			key, password, ok := r.BasicAuth()
			rest, err := io.ReadAll(r.Body)
			if key != frontKey || password != "" || !ok || err != nil || string(rest) != body || r.URL.String() != u.String() {
				t.Fatalf("%q: passed on with key %q, body %q, error %v", target, key, rest, err)
			}
			return true, nil
		}); err != nil {
			t.Fatal(err)
		}
		alias := !isService && !passed
		if service := readByOthers(u); service != "" && passed {
			t.Fatalf("%q was passed on; others read it as %s", target, service)
		}
		if alias && (!resembles(u) || w.Code != http.StatusNotFound) {
			t.Fatalf("%q was answered with %d, and not passed on", target, w.Code)
		}
		if isService && passed || isService != (observed.Service != "") || !isService && ops.calls != calls {
			t.Fatalf("%q: passed on: %t, observed %+v; it is a service: %t", target, passed, observed, isService)
		}
		if isService {
			readAnswer(t, service.shape, w.Body.Bytes())
			return
		}
		w = httptest.NewRecorder()
		h.ServeHTTP(w, request())
		v := V2
		if regexp.MustCompile(`\A/rest/(activation|auth|push|notification)(/|\z)`).MatchString(u.Path) {
			v = V1
		}
		if a := readAnswer(t, v, w.Body.Bytes()); w.Code != http.StatusNotFound || a.status != "STAT_NOT_FOUND" || a.description != "unknown service" {
			t.Fatalf("%q: answer %d %s", target, w.Code, w.Body)
		}
	})
}

func BenchmarkPathAliases(b *testing.B) {
	h, _ := newHandler(b, nil)
	for name, target := range map[string]string{
		"other":      "/rest/v2/notification/push/sendNotification",
		"dots":       strings.Repeat("/x/..", 2000) + activatePath,
		"names":      strings.Repeat("/rest/v2/provisioning", 500) + "/..",
		"encoded":    "/" + strings.Repeat("%252525252e", 900) + "/..",
		"parameters": strings.Repeat("/;%2525253b", 900) + "/..",
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				h.aliases.match(u)
			}
		})
	}
}
