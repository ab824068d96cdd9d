// Command licences prints the licences of all modules in the given Go binaries, and that of Go
// itself. It fails if a module has none.
package main

import (
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// module is a module in a binary.
type module struct{ path, version string }

func run(w io.Writer, binaries []string) error {
	if len(binaries) == 0 {
		return errors.New("usage: licences BINARY …")
	}
	modules := map[module]bool{}
	for _, name := range binaries {
		info, err := buildinfo.ReadFile(name)
		if err != nil {
			return err
		}
		for _, m := range info.Deps {
			modules[module{m.Path, m.Version}] = true
		}
	}
	root, err := exec.CommandContext(context.Background(), "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("asking for the folder of Go: %w", err)
	}
	if err := write(w, "Go", strings.TrimSpace(string(root))); err != nil {
		return err
	}
	for _, m := range slices.SortedFunc(maps.Keys(modules), func(a, b module) int {
		return strings.Compare(a.path+a.version, b.path+b.version)
	}) {
		dir, err := download(m)
		if err != nil {
			return err
		}
		if err := write(w, m.path+" "+m.version, dir); err != nil {
			return err
		}
	}
	return nil
}

// download returns the folder with the sources of a module.
func download(m module) (dir string, err error) {
	out, err := exec.CommandContext(context.Background(), "go", "mod", "download", "-json", m.path+"@"+m.version).Output() //nolint:gosec // a module of our binary
	if err != nil {
		return "", fmt.Errorf("downloading %s: %w", m.path, err)
	}
	var found struct{ Dir string }
	if err := json.Unmarshal(out, &found); err != nil {
		return "", fmt.Errorf("downloading %s: %w", m.path, err)
	}
	return found.Dir, nil
}

// licence matches the names of files with a licence, or with a notice that it demands to pass on.
var licence = regexp.MustCompile(`(?i)^(?:un)?(?:licen[cs]e|copying|notice|patents)`)

// write writes the licences in a folder under the name of its module.
func write(w io.Writer, name, dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	found := 0
	for _, f := range files {
		if f.IsDir() || !licence.MatchString(f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		found++
		if _, err := fmt.Fprintf(w, "==== %s: %s\n\n%s\n\n", name, f.Name(), strings.TrimSpace(string(text))); err != nil {
			return err
		}
	}
	if found == 0 {
		return fmt.Errorf("%s has no licence in %s", name, dir)
	}
	return nil
}
