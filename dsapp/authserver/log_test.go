package authserver

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// recorder keeps log records as text.
type recorder struct {
	mu    sync.Mutex
	lines []line
}

type line struct {
	level slog.Level
	text  string
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *recorder) WithGroup(string) slog.Handler            { return r }

func (r *recorder) Handle(_ context.Context, record slog.Record) error {
	text := record.Level.String() + " " + record.Message
	record.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, line{record.Level, text})
	return nil
}

// at gives the records of a level.
func (r *recorder) at(level slog.Level) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var texts []string
	for _, l := range r.lines {
		if l.level == level {
			texts = append(texts, l.text)
		}
	}
	return texts
}

// No record and no error tells a value of a command or an answer, even if the
// server repeats it in its texts.
func TestLogTellsNoValues(t *testing.T) {
	t.Parallel()
	stack := `<errorStack><errors><errorCode>-1</errorCode><errorDesc>user jane.doe@mydomain.com gave ` + secret + `</errorDesc></errors></errorStack>`
	for name, text := range map[string]string{
		"success":      strings.Replace(registered, "<errorStack/>", stack, 1),
		"refusal":      refused("RET_FAILURE", "STAT_INVCREDENTIALS", -1, 1000, stack),
		"coded fault":  refused("RET_FAILURE", "STAT_COMMS", -1, -10, stack),
		"Fault":        envelope(`<Fault><faultcode>` + secret + `</faultcode><faultstring>` + secret + ` of jane.doe</faultstring></Fault>`),
		"other answer": envelope(`<sesame>` + secret + `</sesame>`),
		"no XML":       secret,
		"guess":        strings.ReplaceAll(registered, "PROVFLD_ACTIVATION_MESSAGE", "PROVFLD_AM1"),
	} {
		records := &recorder{}
		p := newPeer(t, "primary", answering(text))
		_, err := newServers(t, Config{Instances: []Instance{p.Instance}, Logger: slog.New(records)}).MDLRegister(t.Context(), request)
		if len(records.at(slog.LevelDebug)) != 1 {
			t.Errorf("%s: %q", name, records.at(slog.LevelDebug))
		}
		said := ""
		for _, l := range records.lines {
			said += l.text + "\n"
		}
		if err != nil {
			said += err.Error()
		}
		for _, value := range []string{secret, "jane.doe", "mydomain.com", am1[:20], "aB3dE6gH", "VDS1234567"} {
			if strings.Contains(said, value) {
				t.Errorf("%s: %q in %s", name, value, said)
			}
		}
	}
}

// A value that holds another one is blotted out as a whole.
func TestBlot(t *testing.T) {
	t.Parallel()
	in := values{"COMPONENT_TYPE": "user", "USERID": "jane", "DOMAIN": "jane.doe", "STATIC_PASSWORD": "jane.doe.7"}
	// The order of a map's elements varies.
	for range 20 {
		got := commands[mdlRegister].blot(in, "user jane: jane.doe.7 is wrong in jane.doe")
		if want := "user […]: […] is wrong in […]"; got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
}

// The error stack is logged in the server's order, louder if the instance itself
// is broken; each call is logged once for debugging.
func TestLogStack(t *testing.T) {
	t.Parallel()
	stack := `<errorStack><errors><errorCode>-13</errorCode><errorDesc>first</errorDesc></errors><errors><errorCode>7</errorCode><errorDesc>x` +
		strings.Repeat("é", 400) + `</errorDesc></errors></errorStack>`
	for status, level := range map[string]slog.Level{"STAT_NOT_FOUND": slog.LevelInfo, "STAT_MEMORY": slog.LevelWarn} {
		records := &recorder{}
		p := newPeer(t, "primary", answering(refused("RET_FAILURE", status, -1, -13, stack)))
		_, err := newServers(t, Config{Instances: []Instance{p.Instance}, Logger: slog.New(records)}).MDLRegister(t.Context(), request)
		if _, ok := errors.AsType[*Refusal](err); !ok {
			t.Fatal(err)
		}
		want := level.String() + " error stack of the authentication server operation=PROVISIONCMD_MDL_REGISTER instance=primary status=" + status +
			" errors=[-13: first 7: x" + strings.Repeat("é", 255) + "…]"
		if got := records.at(level); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q", status, got)
		}
		got := records.at(slog.LevelDebug)
		if len(got) != 1 || !strings.HasPrefix(got[0], "DEBUG authentication server called operation=PROVISIONCMD_MDL_REGISTER instance=primary duration=") ||
			!strings.HasSuffix(got[0], " status="+status) {
			t.Errorf("%s: %q", status, got)
		}
	}
}

// The name of a guessed attribute is logged once, however often it is used.
func TestLogGuessOnce(t *testing.T) {
	t.Parallel()
	records := &recorder{}
	p := newPeer(t, "primary", answering(strings.ReplaceAll(registered, "PROVFLD_ACTIVATION_MESSAGE", "PROVFLD_AM1")))
	s := newServers(t, Config{Instances: []Instance{p.Instance}, Logger: slog.New(records)})
	for range 3 {
		if got, err := s.MDLRegister(t.Context(), request); err != nil || got.ActivationMessage != am1 {
			t.Errorf("%.20s, %v", got.ActivationMessage, err)
		}
	}
	if got := records.at(slog.LevelWarn); len(got) != 1 || !strings.HasSuffix(got[0], " attribute=PROVFLD_AM1") {
		t.Errorf("%q", got)
	}
}
