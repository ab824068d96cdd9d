package apidoc

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/restapi"
)

// reference is generated once, because that takes long under the race detector.
var reference = sync.OnceValues(func() (*Reference, error) { return NewReference(nil) })

// get returns the answer of the reference to a request.
func get(t *testing.T, method, target string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	f, err := reference()
	if err != nil {
		t.Fatal(err)
	}
	return getFrom(t, f, method, target, header)
}

func getFrom(t *testing.T, f *Reference, method, target string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, http.NoBody)
	r.Header = header
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

// readPage returns the page and its header.
func readPage(t *testing.T) (page string, header http.Header) {
	t.Helper()
	got := get(t, http.MethodGet, "/", nil)
	if got.Code != http.StatusOK {
		t.Fatal(got.Code)
	}
	return got.Body.String(), got.Header()
}

// element is one element of the page.
type element struct {
	name       string
	attributes map[string]string
	text       string // of the element and all within it
}

var rawText = regexp.MustCompile(`(?s)<(style|script)>.*?</(style|script)>`)

// elements parses a page strictly: all elements are closed and all attributes are quoted.
func elements(t *testing.T, page string) []*element {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(rawText.ReplaceAllString(page, "")))
	var all, open []*element
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal("the page is not well-formed: ", err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := &element{name: token.Name.Local, attributes: map[string]string{}}
			for _, a := range token.Attr {
				e.attributes[a.Name.Local] = a.Value
			}
			all, open = append(all, e), append(open, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			for _, e := range open {
				e.text += string(token)
			}
		}
	}
}

// The page has every service, member, status and HTTP status, with the limits of members, and
// what to do after each refusal.
func TestPageIsComplete(t *testing.T) {
	t.Parallel()
	page, _ := readPage(t)
	byID := map[string]*element{}
	var text string
	for _, e := range elements(t, page) {
		if id := e.attributes["id"]; id != "" {
			if byID[id] != nil {
				t.Errorf("two elements have the ID %s", id)
			}
			byID[id] = e
		}
		if e.name == "body" {
			text = e.text
		}
	}
	for _, s := range restapi.Services() {
		if !strings.Contains(text, "POST "+s.Path+" ") {
			t.Errorf("the page lacks %s", s.Path)
		}
		if byID[operationID(&s)] == nil {
			t.Errorf("nothing has the ID %s", operationID(&s))
		}
		for _, want := range []string{s.Purpose, s.Details} {
			if !strings.Contains(text, want) {
				t.Errorf("the page lacks %q", want)
			}
		}
		for _, m := range s.Members {
			if m.Example != "" && !strings.Contains(text, "Example: "+m.Example) || !strings.Contains(text, m.Text+" Format: "+ruleOf(m).Describe()) {
				t.Errorf("%s: the page lacks the member %s", s.Path, m.Name)
			}
		}
		for _, r := range s.Results {
			if !strings.Contains(text, r.Name+" "+string(r.Kind)) {
				t.Errorf("%s: the page lacks the member %s", s.Path, r.Name)
			}
		}
		for _, r := range s.Refusals {
			if row := byID[r.Status]; row == nil || !strings.Contains(row.text, r.Then) {
				t.Errorf("the row of %s lacks %q", r.Status, r.Then)
			}
		}
	}
	for _, s := range restapi.Statuses() {
		if row := byID[s.Name]; row == nil || !strings.Contains(row.text, s.When) {
			t.Errorf("the page lacks %s", s.Name)
		}
	}
	for _, a := range restapi.Answers() {
		if byID["http-"+strconv.Itoa(a.HTTPStatus)] == nil || !strings.Contains(text, a.When+a.Then) {
			t.Errorf("the page lacks HTTP status %d", a.HTTPStatus)
		}
	}
}

// Services that the page shows together have the same members and answers.
func TestServicesShownTogether(t *testing.T) {
	t.Parallel()
	type group struct {
		operation  string
		deprecated bool
	}
	first := map[group]restapi.Service{}
	for _, s := range restapi.Services() {
		g := group{string(s.Operation), s.Deprecated}
		f, ok := first[g]
		if !ok {
			first[g] = s
			continue
		}
		if f.Version != s.Version || !reflect.DeepEqual(f.Results, s.Results) || len(f.Members) != len(s.Members) {
			t.Errorf("%s and %s differ", f.Path, s.Path)
			continue
		}
		for i := range f.Members {
			if f.Members[i].Name != s.Members[i].Name || ruleOf(f.Members[i]).Describe() != ruleOf(s.Members[i]).Describe() || f.Members[i].Meaning != s.Members[i].Meaning {
				t.Errorf("%s and %s differ in %s", f.Path, s.Path, s.Members[i].Name)
			}
		}
	}
}

// The page loads nothing, its links lead to its own parts and to the document beside it, and its
// policy allows no other style and script than those that it has.
func TestPageIsSelfContained(t *testing.T) {
	t.Parallel()
	page, header := readPage(t)
	var links, ids []string
	for _, e := range elements(t, page) {
		ids = append(ids, e.attributes["id"])
		for name, value := range e.attributes {
			switch {
			case e.name == "a" && name == "href":
				links = append(links, value)
			case e.name == "link" && name == "href" && strings.HasPrefix(value, "data:"):
			case name == "href", name == "src", name == "srcset", name == "style", name == "action", strings.HasPrefix(name, "on"):
				t.Errorf("%s has %s=%q", e.name, name, value)
			}
		}
	}
	for _, link := range links {
		if id, here := strings.CutPrefix(link, "#"); link != openAPIName && !(here && slices.Contains(ids, id)) {
			t.Errorf("the link %s leads nowhere", link)
		}
	}
	for _, address := range regexp.MustCompile(`(?i)[a-z]*://[^\s<"']*|url\([^)]*|@import`).FindAllString(page, -1) {
		if !strings.HasPrefix(address, baseURL) && address != "http://www.w3.org/2000/svg" {
			t.Errorf("the page has the address %s", address)
		}
	}

	source := func(name string) string {
		m := regexp.MustCompile(`(?s)<`+name+`>(.*?)</`+name+`>`).FindAllStringSubmatch(page, -1)
		if len(m) != 1 {
			t.Fatalf("the page has %d elements %s", len(m), name)
		}
		sum := sha256.Sum256([]byte(m[0][1]))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	want := "default-src 'none'; style-src " + source("style") + "; script-src " + source("script") +
		"; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got := header.Get("Content-Security-Policy"); got != want {
		t.Errorf("policy is %s, want %s", got, want)
	}
}

// The reference answers GET and HEAD at any path. Clients can keep what they got as long as it is
// still the same.
func TestReferenceOverHTTP(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		method, target string
		status         int
		contentType    string
		location       string
	}{
		{http.MethodGet, "/", 200, "text/html; charset=utf-8", ""},
		{http.MethodGet, "/a/b/", 200, "text/html; charset=utf-8", ""},
		{http.MethodGet, "/?q=1", 200, "text/html; charset=utf-8", ""},
		{http.MethodHead, "/", 200, "text/html; charset=utf-8", ""},
		{http.MethodGet, "/openapi.json", 200, "application/json", ""},
		{http.MethodGet, "/a/b/openapi.json", 200, "application/json", ""},
		{http.MethodHead, "/openapi.json", 200, "application/json", ""},
		{http.MethodGet, "/a/docs", 308, "", "./docs/"},
		{http.MethodGet, "//example.com", 404, "text/plain; charset=utf-8", ""},
		{http.MethodGet, "/a/javascript:b", 308, "", "./javascript:b/"},
		{http.MethodGet, "/a/b%2F%5Cc", 404, "text/plain; charset=utf-8", ""},
		{http.MethodGet, "//example.com/%2e%2e", 404, "text/plain; charset=utf-8", ""},
		{http.MethodGet, "/page.js", 404, "text/plain; charset=utf-8", ""},
		{http.MethodGet, "/console.html", 404, "text/plain; charset=utf-8", ""},
		{http.MethodGet, "/console.js", 404, "text/plain; charset=utf-8", ""},
		{http.MethodGet, "/dsapp.js", 404, "text/plain; charset=utf-8", ""},
		{http.MethodGet, "/favicon.ico", 404, "text/plain; charset=utf-8", ""},
		{http.MethodPost, "/", 405, "text/plain; charset=utf-8", ""},
		{http.MethodPut, "/openapi.json", 405, "text/plain; charset=utf-8", ""},
		{http.MethodOptions, "/", 405, "text/plain; charset=utf-8", ""},
	} {
		got := get(t, test.method, test.target, nil)
		h := got.Header()
		if got.Code != test.status || h.Get("Content-Type") != test.contentType || h.Get("Location") != test.location {
			t.Errorf("%s %s: %d %q %q", test.method, test.target, got.Code, h.Get("Content-Type"), h.Get("Location"))
		}
		if test.method == http.MethodHead && got.Body.Len() > 0 {
			t.Errorf("%s %s has a body", test.method, test.target)
		}
		if got.Code == http.StatusMethodNotAllowed && h.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow is %q", test.method, test.target, h.Get("Allow"))
		}
		if got.Code != http.StatusOK {
			continue
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "no-cache" ||
			!strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'; ") {
			t.Errorf("%s %s: header is %v", test.method, test.target, h)
		}
		for tag, want := range map[string]int{h.Get("ETag"): http.StatusNotModified, `"another"`: http.StatusOK} {
			if again := get(t, test.method, test.target, http.Header{"If-None-Match": {tag}}); again.Code != want {
				t.Errorf("%s %s with %s: %d", test.method, test.target, tag, again.Code)
			}
		}
	}
}

// The document is the same that `caddy dsapp openapi` prints.
func TestReferenceHasDocument(t *testing.T) {
	t.Parallel()
	want, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if get(t, http.MethodGet, "/openapi.json", nil).Body.String() != string(want) {
		t.Error("the document is another")
	}
}

// A shell understands the examples of the page: each calls its service with the key of its class
// and with the example of the request.
func TestExamplesInShell(t *testing.T) {
	t.Parallel()
	page, _ := readPage(t)
	var script strings.Builder
	script.WriteString("curl() { printf '%s\\0' \"$@\"; printf '\\n'; }\nFRONT_END_KEY=front\nBACK_END_KEY=back\n")
	for _, e := range elements(t, page) {
		if e.name == "code" && strings.HasPrefix(e.text, "curl ") {
			script.WriteString(e.text + "\n")
		}
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script.String()).Output()
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string][]string{}
	for call := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00\n"), "\x00\n") {
		arguments := strings.Split(call, "\x00")
		calls[arguments[1]] = arguments
	}
	for _, s := range restapi.Services() {
		body, err := json.Marshal(requestExample(&s))
		if err != nil {
			t.Fatal(err)
		}
		key := "front:"
		if keys(&s) == "back-end" {
			key = "back:"
		}
		got := calls[baseURL+s.Path]
		if len(got) != 8 {
			t.Errorf("%s: the example is %q", s.Path, got)
			continue
		}
		var sent, want any
		if err := errors.Join(json.Unmarshal([]byte(got[7]), &sent), json.Unmarshal(body, &want)); err != nil {
			t.Errorf("%s: %v", s.Path, err)
		}
		if got[3] != key || got[5] != "Content-Type: application/json" || !reflect.DeepEqual(sent, want) {
			t.Errorf("%s: the example is %q", s.Path, got)
		}
	}
	if n := len(restapi.Services()); len(calls) != n {
		t.Errorf("%d examples for %d services", len(calls), n)
	}
	if strings.Contains(html.UnescapeString(page), "ZgotmplZ") {
		t.Error("the template has refused a value")
	}
}
