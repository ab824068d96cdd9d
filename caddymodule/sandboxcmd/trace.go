package sandboxcmd

import (
	"fmt"
	"io"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/sandbox"
)

// trace prints the calls of a phone and their results.
type trace struct {
	out   io.Writer
	count int
}

func (t *trace) step(s sandbox.Step) {
	t.count++
	fmt.Fprintf(t.out, "%d. %s\n", t.count, s.Call)
	t.members("sent", s.Sent)
	if s.HTTPStatus == 0 {
		t.line("received", "no answer")
	} else {
		t.line("received", fmt.Sprintf("HTTP status %d", s.HTTPStatus))
	}
	t.members("", s.Received)
	for _, what := range s.Verified {
		t.line("verified", what)
	}
	fmt.Fprintln(t.out)
}

func (t *trace) members(label string, members []sandbox.Member) {
	width := 0
	for _, m := range members {
		width = max(width, len(m.Name))
	}
	for _, m := range members {
		t.line(label, fmt.Sprintf("%-*s  %s", width, m.Name, m.Value))
		label = ""
	}
}

func (t *trace) line(label, text string) {
	fmt.Fprintf(t.out, "   %-9s %s\n", label, text)
}
