package dsappgateway

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The changelog has its newest version first, each with a date and a link, and the commands that
// name the version of a build name this one.
func TestVersions(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	changelog := read("CHANGELOG.md")
	headings := regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(changelog, -1)
	form := regexp.MustCompile(`^\[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$`)
	var newest string
	for _, h := range headings {
		if h[1] == "[Unreleased]" {
			continue
		}
		m := form.FindStringSubmatch(h[1])
		if m == nil {
			t.Fatalf("heading %q is none of a version", h[1])
		}
		if !strings.Contains(changelog, "\n["+m[1]+"]: https://") {
			t.Errorf("version %s has no link", m[1])
		}
		if newest == "" {
			newest = m[1]
		}
	}
	named := regexp.MustCompile(regexp.QuoteMeta(module) + `@v([\w.-]+)`)
	for _, name := range []string{"docs/getting-started.md", "xcaddy.Dockerfile"} {
		found := named.FindAllStringSubmatch(read(name), -1)
		if len(found) == 0 {
			t.Errorf("%s names no version", name)
		}
		for _, m := range found {
			if m[1] != newest {
				t.Errorf("%s builds version %s, CHANGELOG.md ends with %s", name, m[1], newest)
			}
		}
	}
}
