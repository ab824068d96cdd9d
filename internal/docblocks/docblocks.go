// Package docblocks finds the blocks of code in documents, for the tests that run them.
package docblocks

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Block is a block of code.
type Block struct {
	Heading  string // above it, without its signs
	Language string // after the fence
	Text     string // without the indentation of the fence
	Line     int    // of the fence
}

var (
	fence   = regexp.MustCompile("^( *)```(\\w*)$")
	heading = regexp.MustCompile("^#+ (.+)$")
)

// Read returns the blocks of a document in their order.
func Read(t testing.TB, name string) (blocks []Block) {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var open *Block
	var indentation, current string
	line := 0
	for text := range strings.Lines(string(content)) {
		line++
		bare := strings.TrimSuffix(text, "\n")
		m := fence.FindStringSubmatch(bare)
		switch {
		case m != nil && open == nil:
			open, indentation = &Block{Heading: current, Language: m[2], Line: line}, m[1]
		case m != nil:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.Text += strings.TrimPrefix(text, indentation)
		default:
			if m := heading.FindStringSubmatch(bare); m != nil {
				current = strings.ReplaceAll(m[1], "`", "")
			}
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block does not end", name, open.Line)
	}
	return blocks
}

// Find returns the text of the only block of a language below a heading.
func Find(t testing.TB, name, heading, language string) string {
	t.Helper()
	var found []string
	for _, b := range Read(t, name) {
		if b.Heading == heading && b.Language == language {
			found = append(found, b.Text)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s has %d blocks of %s below %q, want one", name, len(found), language, heading)
	}
	return found[0]
}
