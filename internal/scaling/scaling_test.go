package scaling

import (
	"flag"
	"os"
	"strings"
	"testing"
)

const root = "../../"

// documents has the documents with their tables.
var documents = map[string][]string{
	root + "docs/scaling.md": {"needs", "limits", "inputs"},
	root + "README.md":       {"limits"},
}

const data = root + "docs/scaling.json"

var update = flag.Bool("update", false, "write the document")

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func current(t *testing.T) *figures {
	t.Helper()
	f, err := read([]byte(readFile(t, data)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The tables of the documents are those that the figures give. `go generate` writes them.
func TestWrittenScaling(t *testing.T) {
	t.Parallel()
	for document, tables := range documents {
		got, err := current(t).write(readFile(t, document), tables...)
		if err != nil {
			t.Fatalf("%s: %v", document, err)
		}
		if *update {
			if err := os.WriteFile(document, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got != readFile(t, document) {
			t.Errorf("%s is not what docs/scaling.json gives: run `go generate ./internal/scaling`", document)
		}
	}
}

// The formulas, computed by hand for round figures.
func TestNeed(t *testing.T) {
	t.Parallel()
	f := new(figures)
	m, a := &f.Figures, &f.Assumptions
	m.OneTimePassword.Value, m.PendingRequest.Value, m.Activation.Value, m.Logs.Value = 100, 300, 2000, 2
	m.RedisCall.Value, m.Registration.Value, m.Owner.Value = 100, 1000, 100
	a.StoreCalls.Value, a.Commands.Value, a.OneTimePasswords.Value = 5, 3, 0.5
	a.ServerTime.Value, a.ServerThreads.Value, a.Cores.Value, a.Use.Value = 100, 10, 2, 0.5
	a.RegistrationLifetime.Value, a.RequestLifetime.Value, a.Decoys.Value, a.ShardMemory.Value = 600, 300, 1e6, 1e9
	got := f.need(load{1e6, 100, 1000})
	want := need{
		cores:       1000*200e-6*2 + 100*2000e-6*2, // 0.8
		nodes:       1 + 1,
		redisCores:  (500 + 500) * 100e-6, // 0.1
		memory:      100*600*1000 + 250*300*100 + 2*1e6,
		shards:      1,
		connections: (1000 + 300) * 0.1, // 130
		servers:     26,
	}
	if got.nodes != want.nodes || got.shards != want.shards || got.servers != want.servers {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, v := range [][2]float64{
		{got.cores, want.cores}, {got.redisCores, want.redisCores}, {got.memory, want.memory}, {got.connections, want.connections},
	} {
		if v[0] < v[1]*0.999 || v[0] > v[1]*1.001 {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// More load never needs less of anything.
func TestMoreLoadNeedsMore(t *testing.T) {
	t.Parallel()
	f := current(t)
	last := f.need(load{1e6, 0, 0})
	for activations := 1.0; activations < 1e5; activations *= 2 {
		n := f.need(load{1e6, activations, 10 * activations})
		if n.nodes < last.nodes || n.shards < last.shards || n.servers < last.servers || n.memory < last.memory {
			t.Fatalf("%.0f activations/s need %+v, fewer %+v", activations, n, last)
		}
		last = n
	}
}

// Figures that are missing, unknown or without a source are refused.
func TestFiguresAreComplete(t *testing.T) {
	t.Parallel()
	text := readFile(t, data)
	for _, wrong := range []string{
		strings.Replace(text, `"value": `, `"value": -`, 1),
		strings.Replace(text, `"activation": {`, `"other": {`, 1),
		strings.Replace(text, `"source": "yours"`, `"source": ""`, 1),
		text[:len(text)/2],
	} {
		if _, err := read([]byte(wrong)); err == nil || wrong == text {
			t.Errorf("accepted %.60s…", wrong)
		}
	}
}
