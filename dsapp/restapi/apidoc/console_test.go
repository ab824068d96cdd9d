package apidoc

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/clients/typescript"
)

var console = sync.OnceValues(func() (*Reference, error) {
	return NewReference(&Console{Modules: map[string][]byte{"device.js": []byte("export {};\n")}})
})

// getConsole returns the answer of a reference with a console.
func getConsole(t *testing.T, target string) (content string, header http.Header) {
	t.Helper()
	f, err := console()
	if err != nil {
		t.Fatal(err)
	}
	got := getFrom(t, f, http.MethodGet, target, nil)
	if got.Code != http.StatusOK {
		t.Fatalf("%s: %d", target, got.Code)
	}
	return got.Body.String(), got.Header()
}

// The console loads its modules from beside it and nothing else, and its policy allows no other
// script, no other style and no other calls than those of its origin.
func TestConsoleIsSelfContained(t *testing.T) {
	t.Parallel()
	page, header := getConsole(t, "/a/b/console.html")
	var scripts, ids, links, labelled []string
	for _, e := range elements(t, page) {
		ids = append(ids, e.attributes["id"])
		for name, value := range e.attributes {
			switch {
			case e.name == "script" && name == "src":
				scripts = append(scripts, value+" is a "+e.attributes["type"])
			case name == "href" && e.name == "a":
				links = append(links, value)
			case e.name == "link" && name == "href" && strings.HasPrefix(value, "data:"):
			case name == "href", name == "src", name == "srcset", name == "style", name == "action", strings.HasPrefix(name, "on"):
				t.Errorf("%s has %s=%q", e.name, name, value)
			}
		}
		labelled = append(labelled, e.attributes["for"])
		switch e.name {
		case "form", "input", "textarea":
			if e.attributes["autocomplete"] != "off" {
				t.Errorf("a browser may keep what is typed into %s %s", e.name, e.attributes["id"])
			}
		}
	}
	if want := []string{"console.js is a module", "device.js is a module"}; !slices.Equal(scripts, want) {
		t.Errorf("scripts are %q, want %q", scripts, want)
	}
	for _, link := range links {
		if id, here := strings.CutPrefix(link, "#"); link != "./" && !(here && slices.Contains(ids, id)) {
			t.Errorf("the link %s leads nowhere", link)
		}
	}
	for _, e := range elements(t, page) {
		switch e.name {
		case "input", "select", "textarea":
			if !slices.Contains(labelled, e.attributes["id"]) {
				t.Errorf("%s %s has no label", e.name, e.attributes["id"])
			}
		}
	}

	_, rest, _ := strings.Cut(page, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; script-src 'self'; connect-src 'self'; " +
		"img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got := header.Get("Content-Security-Policy"); got != want {
		t.Errorf("policy is %s, want %s", got, want)
	}
}

// The console asks for a front-end key in a password field, and neither for a back-end key nor
// for a static password, and its modules use nothing in which a browser keeps values.
func TestConsoleKeepsNothing(t *testing.T) {
	t.Parallel()
	page, _ := getConsole(t, "/console.html")
	var passwords []string
	for _, e := range elements(t, page) {
		if e.attributes["type"] == "password" {
			passwords = append(passwords, e.attributes["id"])
		}
		if e.name == "label" && regexp.MustCompile(`(?i)back-end|static`).MatchString(e.text) {
			t.Errorf("the console asks for %q", e.text)
		}
	}
	if !slices.Equal(passwords, []string{"apiKey"}) {
		t.Errorf("password fields are %q", passwords)
	}
	kept := regexp.MustCompile(`localStorage|sessionStorage|indexedDB|document\.cookie|caches\.|serviceWorker|history\.|\.innerHTML|insertAdjacentHTML|eval\(`)
	for _, name := range []string{"console.js", "dsapp.js"} {
		script, _ := getConsole(t, "/"+name)
		if found := kept.FindString(script); found != "" {
			t.Errorf("%s uses %s", name, found)
		}
	}
}

// The modules beside the console are the TypeScript client and those that it was given, served
// as scripts. The reference links to the console then.
func TestConsoleFiles(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"dsapp.js": string(typescript.Client), "device.js": "export {};\n"} {
		script, header := getConsole(t, "/a/"+name)
		if script != want {
			t.Errorf("%s is another", name)
		}
		if got := header.Get("Content-Type"); got != "text/javascript; charset=utf-8" || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: header is %v", name, header)
		}
	}
	if page, _ := getConsole(t, "/"); !strings.Contains(page, `href="console.html"`) {
		t.Error("the reference has no link to the console")
	}
	if page, _ := readPage(t); strings.Contains(page, "console") {
		t.Error("the reference without a console mentions it")
	}
}
