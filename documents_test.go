package dsappgateway

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the documents name exists: tests, files, make targets, identifiers of packages, and
// what links lead to.
func TestDocuments(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob("docs/*.md")
	if err != nil || len(documents) < 3 {
		t.Fatalf("documents %q, %v", documents, err)
	}
	s := readSources(t)
	for _, name := range append(documents, "README.md", "CONTRIBUTING.md") {
		for i, line := range strings.Split(s.text(t, name), "\n") {
			for _, problem := range s.problems(t, name, line) {
				t.Errorf("%s:%d: %s", name, i+1, problem)
			}
		}
	}
}

// What the test above finds, so that it does not pass because it looks at nothing.
func TestProblemsOfDocuments(t *testing.T) {
	t.Parallel()
	s := readSources(t)
	for _, test := range []struct {
		line     string
		problems int
	}{
		{"as `TestDocuments`, `FuzzPath` and `BenchmarkRefused` show", 0},
		{"as `TestNothing`, `FuzzNothing` and `BenchmarkNothing` show", 3},
		{"see [a](architecture.md), [b](architecture.md#packages), [c](#rules-that-hold-everywhere), [d](https://example.com/x)", 0},
		{"see [a](nothing.md), [b](architecture.md#nothing), [c](#nothing)", 3},
		{"in `dsapp/srp`, `dsapp/gateway/<operation>.go`, `internal/…`, `go run ./cmd/caddy dsapp`, `.ci/run`, `commands.go`", 0},
		{"in `dsapp/nothing`, `dsapp/gateway/<operation>.c`, `go run ./cmd/nothing`, `.ci/nothing`, `nothing.go`", 5},
		{"with `make test` and `make bench-srp README=1`", 0},
		{"with `make nothing`", 1},
		{"a `gateway.CancelRequest`, `caddy.UsagePool`", 0},
		{"a `gateway.Nothing`", 1},
	} {
		if got := s.problems(t, "docs/architecture.md", test.line); len(got) != test.problems {
			t.Errorf("%s: problems %q, want %d", test.line, got, test.problems)
		}
	}
}

// sources is what the documents can be about.
type sources struct {
	files []string // all, with slashes
	tests map[string]bool
	// identifiers are the words in the production files of each package, by the last
	// element of its path.
	identifiers map[string]map[string]bool
}

func readSources(t *testing.T) *sources {
	t.Helper()
	s := &sources{tests: map[string]bool{}, identifiers: map[string]map[string]bool{}}
	testFunction := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	word := regexp.MustCompile(`\w+`)
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", "bin", "node_modules"}, d.Name()) {
				return fs.SkipDir
			}
			s.files = append(s.files, name)
			return nil
		}
		s.files = append(s.files, name)
		switch {
		case strings.HasSuffix(name, "_test.go"):
			for _, m := range testFunction.FindAllStringSubmatch(s.text(t, name), -1) {
				s.tests[m[1]] = true
			}
		case strings.HasSuffix(name, ".go") && !strings.HasPrefix(name, "cmd/"):
			dir := path.Base(path.Dir(name))
			if s.identifiers[dir] == nil {
				s.identifiers[dir] = map[string]bool{}
			}
			for _, w := range word.FindAllString(s.text(t, name), -1) {
				s.identifiers[dir][w] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (*sources) text(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	testName   = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	link       = regexp.MustCompile(`\]\(([^)#]*)#?([^)]*)\)`)
	codeSpan   = regexp.MustCompile("`([^`]+)`")
	makeTarget = regexp.MustCompile(`^make ([a-z-]+)`)
	identifier = regexp.MustCompile(`^([a-z]+)\.([A-Z]\w*)`)
	sourceFile = regexp.MustCompile(`^[\w<>.]+\.(go|md)$`)
	variable   = regexp.MustCompile(`<\w+>|…`)
)

// problems returns what a line of a document names and does not exist. In paths, <word> and …
// stand for any name.
func (s *sources) problems(t *testing.T, document, line string) (problems []string) {
	t.Helper()
	missing := func(format string, args ...any) {
		problems = append(problems, "there is no "+fmt.Sprintf(format, args...))
	}
	for _, name := range testName.FindAllString(line, -1) {
		if !s.tests[name] {
			missing("%s", name)
		}
	}
	for _, m := range link.FindAllStringSubmatch(line, -1) {
		target, heading := document, m[2]
		if m[1] != "" {
			target = path.Join(path.Dir(document), m[1])
		}
		switch {
		case strings.Contains(m[1], "://"):
		case !slices.Contains(s.files, target):
			missing("file %s", target)
		case heading != "" && !slices.Contains(anchors(s.text(t, target)), heading):
			missing("heading %s in %s", heading, target)
		}
	}
	for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
		span := m[1]
		if m := makeTarget.FindStringSubmatch(span); m != nil && !strings.Contains(s.text(t, "Makefile"), "\n"+m[1]+":") {
			missing("target %s in the Makefile", m[1])
		}
		if m := identifier.FindStringSubmatch(span); m != nil && s.identifiers[m[1]] != nil && !s.identifiers[m[1]][m[2]] {
			missing("%s in package %s", m[2], m[1])
		}
		for word := range strings.FieldsSeq(span) {
			if !s.hasPath(strings.TrimPrefix(word, "./")) {
				missing("file %s", word)
			}
		}
	}
	return problems
}

// hasPath returns false for a path of this repository without a file, and for the name of a source
// file that is in no folder. Other words are no paths.
func (s *sources) hasPath(word string) bool {
	first, _, isPath := strings.Cut(word, "/")
	pattern := variable.ReplaceAllString(strings.TrimSuffix(word, "/"), "*")
	switch {
	case isPath && slices.Contains(s.files, first):
	case sourceFile.MatchString(word):
		return slices.ContainsFunc(s.files, func(file string) bool {
			matched, _ := path.Match(pattern, path.Base(file))
			return matched
		})
	default:
		return true
	}
	return slices.ContainsFunc(s.files, func(file string) bool {
		matched, _ := path.Match(pattern, file)
		return matched
	})
}

// anchors returns the names under which links find the headings of a text: in lower case, with
// hyphens for spaces and without punctuation.
func anchors(text string) (names []string) {
	punctuation := regexp.MustCompile(`[^\pL\pN_ -]`)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		names = append(names, strings.ReplaceAll(punctuation.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return names
}
