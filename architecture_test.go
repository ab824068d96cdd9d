package dsappgateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The diagram in docs/architecture.md has every production package, and an arrow for
// every import that does not follow from other arrows. A package is production code if
// the root package or cmd/caddy needs it.
func TestArchitectureDiagram(t *testing.T) {
	t.Parallel()
	document, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, diagram, _ := strings.Cut(string(document), "```mermaid\n")
	diagram, _, _ = strings.Cut(diagram, "```")
	packages := map[string]string{} // by name in the diagram
	for _, m := range regexp.MustCompile(`(?m)^ *(\w+)\["(.+)"\]$`).FindAllStringSubmatch(diagram, -1) {
		packages[m[1]] = m[2]
	}
	drawn := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^ *(\w+) --> (\w+)$`).FindAllStringSubmatch(diagram, -1) {
		drawn[packages[m[1]]+" --> "+packages[m[2]]] = true
	}

	imports := productionImports(t)
	if got, want := slices.Sorted(maps.Values(packages)), slices.Sorted(maps.Keys(imports)); !slices.Equal(got, want) {
		t.Errorf("the diagram has the packages\n%q\nand there are\n%q", got, want)
	}
	needed := map[string]bool{}
	for from, direct := range imports {
		for _, to := range direct {
			if !slices.ContainsFunc(direct, func(other string) bool { return other != to && reaches(imports, other, to) }) {
				needed[fmt.Sprintf("%s --> %s", from, to)] = true
			}
		}
	}
	for arrow := range drawn {
		if !needed[arrow] {
			t.Errorf("the diagram has %s, which is no import or follows from other arrows", arrow)
		}
	}
	for arrow := range needed {
		if !drawn[arrow] {
			t.Errorf("the diagram lacks %s", arrow)
		}
	}
}

// productionImports returns the packages of this module that a gateway or the sandbox
// is built from, and which of them each one imports, by their folders.
func productionImports(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports", ".", "./cmd/caddy").Output()
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	folder := func(path string) (string, bool) {
		if path == module {
			return ".", true
		}
		return strings.CutPrefix(path, module+"/")
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		from, ours := folder(p.ImportPath)
		if !ours {
			continue
		}
		imports[from] = []string{}
		for _, path := range p.Imports {
			if to, ours := folder(path); ours {
				imports[from] = append(imports[from], to)
			}
		}
	}
	return imports
}

// reaches reports whether a package needs another one, directly or not.
func reaches(imports map[string][]string, from, to string) bool {
	return slices.ContainsFunc(imports[from], func(next string) bool { return next == to || reaches(imports, next, to) })
}
