package dsappgateway

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The programs that check test vectors. They share no code with the gateway.
var checkers = map[string]string{"Node": "node docs/vectors/check.mjs", "Python": "python3 docs/vectors/check.py"}

// runChecker returns what a checker prints, and whether it found all vectors right.
func runChecker(t *testing.T, command string, files ...string) (string, bool) {
	t.Helper()
	words := append(strings.Fields(command), files...)
	out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput()
	if len(out) == 0 {
		t.Fatalf("%s: %v", command, err)
	}
	return string(out), err == nil
}

// The published vectors agree with implementations in other languages that have nothing but the
// formulas of docs/protocol.md.
func TestVectors(t *testing.T) {
	t.Parallel()
	for name, command := range checkers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if out, ok := runChecker(t, command); !ok || !strings.Contains(out, " 0 wrong") {
				t.Errorf("%s", out)
			}
		})
	}
}

// The checkers notice every altered member of a vector, so that they do not pass because they look
// at nothing.
func TestAlteredVectors(t *testing.T) {
	t.Parallel()
	published, err := os.ReadFile("docs/vectors/rfc5054-2048-sha256.json")
	if err != nil {
		t.Fatal(err)
	}
	var file map[string]any
	if err := json.Unmarshal(published, &file); err != nil {
		t.Fatal(err)
	}
	// Vectors of different forms, each with the members that nothing follows from.
	exemplars := map[string][]string{
		"multi-device licence": nil, "standard licence": nil,
		"wrong password": {"licenseType"}, "B is 0": {"licenseType", "inputs"},
	}
	dir := t.TempDir()
	var files, want []string
	write := func(name string, variant, group any, vectors []any) {
		b, err := json.Marshal(map[string]any{"variant": variant, "group": group, "vectors": vectors})
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(dir, name))
		if err := os.WriteFile(files[len(files)-1], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var altered []any
	for _, v := range file["vectors"].([]any) {
		vector := v.(map[string]any)
		name := vector["name"].(string)
		unchecked, ok := exemplars[name]
		if !ok {
			continue
		}
		parts := maps.Clone(vector)
		for _, member := range append([]string{"name", "purpose", "draws"}, unchecked...) {
			delete(parts, member)
		}
		for path, other := range alterations(parts) {
			other := other.(map[string]any)
			for _, member := range unchecked {
				other[member] = vector[member]
			}
			other["name"] = name + ", altered " + path
			want = append(want, fmt.Sprintf("altered.json: %s: ", other["name"]))
			altered = append(altered, other)
		}
	}
	write("altered.json", file["variant"], file["group"], altered)
	for path, group := range alterations(file["group"]) {
		name := "group" + path + ".json"
		want = append(want, name+": ")
		write(name, file["variant"], group, file["vectors"].([]any)[:1])
	}
	for path, variant := range alterations(file["variant"]) {
		if path == ".hex_case" {
			continue // of answers, which are in upper case in the files
		}
		name := "variant" + path + ".json"
		want = append(want, name+": ")
		write(name, variant, file["group"], file["vectors"].([]any)[:1])
	}
	if len(want) < 100 {
		t.Fatalf("only %d alterations", len(want))
	}

	for name, command := range checkers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, ok := runChecker(t, command, files...)
			if ok {
				t.Errorf("ends with 0")
			}
			for _, line := range want {
				if !strings.Contains("\n"+out, "\n"+line) {
					t.Errorf("does not report %s", line)
				}
			}
		})
	}
}

// alterations returns copies of a value in each of which another string or number is altered, by
// its place.
func alterations(value any) map[string]any {
	found := map[string]any{}
	switch v := value.(type) {
	case map[string]any:
		for name, member := range v {
			for path, other := range alterations(member) {
				altered := maps.Clone(v)
				altered[name] = other
				found["."+name+path] = altered
			}
		}
	case []any:
		for i, member := range v {
			for path, other := range alterations(member) {
				altered := slices.Clone(v)
				altered[i] = other
				found[fmt.Sprintf(".%d%s", i, path)] = altered
			}
		}
	case string:
		last := "0"
		if strings.HasSuffix(v, last) {
			last = "1"
		}
		found[""] = v[:len(v)-1] + last
	case float64:
		found[""] = v + 1
	}
	return found
}

// The prime that docs/protocol.md prints for people to copy is that of the default profile.
func TestPrimeOfDefaultProfile(t *testing.T) {
	t.Parallel()
	var file struct{ Group struct{ N string } }
	published, err := os.ReadFile("docs/vectors/rfc5054-2048-sha256.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(published, &file); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.ReplaceAll(string(page), "\n", ""), "```"+file.Group.N+"```") {
		t.Error("docs/protocol.md has another prime")
	}
}
