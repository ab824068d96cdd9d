package apikey

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"testing"
	"time"
)

// Lookup does the same work for every key. Its syntax tree shows that: it goes
// through the whole set, inside the loop there is neither a branch nor an
// operator that compares, and nothing is called but what crypto/subtle has;
// before the loop is nothing that knows the keys, after it one question of what
// was found in all.
func TestLookupDoesTheSameWork(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "apikey.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var body *ast.BlockStmt
	for _, d := range file.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "Lookup" {
			body = fn.Body
		}
	}
	if body == nil {
		t.Fatal("no Lookup")
	}
	at := slices.IndexFunc(body.List, func(s ast.Stmt) bool { _, ok := s.(*ast.RangeStmt); return ok })
	if at < 0 {
		t.Fatal("no loop")
	}
	loop := body.List[at].(*ast.RangeStmt)
	if got := source(loop.X); got != "s.keys" {
		t.Errorf("the loop goes through %s", got)
	}
	for _, s := range body.List[:at] {
		ast.Inspect(s, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok && source(e) == "s.keys" {
				t.Error("the keys are looked at before the loop")
			}
			return true
		})
		if _, ok := s.(*ast.AssignStmt); !ok {
			t.Errorf("%T before the loop", s)
		}
	}
	ast.Inspect(loop.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if name := source(n.Fun); name != "subtle.ConstantTimeCompare" && name != "subtle.ConstantTimeSelect" {
				t.Errorf("call of %s inside the loop", name)
			}
		case *ast.AssignStmt:
			if n.Tok != token.ASSIGN && n.Tok != token.DEFINE && n.Tok != token.OR_ASSIGN {
				t.Errorf("operator %s inside the loop", n.Tok)
			}
		case *ast.BinaryExpr:
			t.Errorf("operator %s inside the loop", n.Op)
		case *ast.BlockStmt, *ast.ExprStmt, *ast.DeclStmt:
		case ast.Stmt:
			t.Errorf("%T inside the loop", n)
		}
		return true
	})
	after := body.List[at+1:]
	if len(after) != 2 {
		t.Fatalf("%d statements after the loop", len(after))
	}
	question, ok := after[0].(*ast.IfStmt)
	if !ok || question.Init != nil || question.Else != nil || source(question.Cond) != "found & fits != 1" {
		t.Errorf("after the loop stands %s", source(after[0]))
	}
}

// source writes an expression without its positions.
func source(n ast.Node) string {
	switch n := n.(type) {
	case *ast.Ident:
		return n.Name
	case *ast.BasicLit:
		return n.Value
	case *ast.SelectorExpr:
		return source(n.X) + "." + n.Sel.Name
	case *ast.BinaryExpr:
		return source(n.X) + " " + n.Op.String() + " " + source(n.Y)
	case *ast.IfStmt:
		return "if " + source(n.Cond)
	}
	return fmt.Sprintf("%T", n)
}

// probes are keys that a set of the given size is asked for: one that every hash
// of the set is equal to up to its last bytes, one that differs from all in the
// first byte, and the first and the last one of the set.
func probes(tb testing.TB, size int) (s *Set, presented map[string]string) {
	tb.Helper()
	const near = "EXAMPLE-KEY-THAT-IS-NEAR"
	hash := Hash(near)
	far := ""
	for i := 0; far == ""; i++ {
		if candidate := fmt.Sprintf("EXAMPLE-KEY-%012d", i); Hash(candidate)[0] != hash[0] {
			far = candidate
		}
	}
	keys := make([]Key, 0, size)
	for i := range size {
		k := Key{Name: "app", Class: FrontEnd, Hash: hash}
		k.Hash[30], k.Hash[31] = k.Hash[30]^byte(i+1), k.Hash[31]^byte((i+1)>>8)
		keys = append(keys, k)
	}
	const first, last = "EXAMPLE-KEY-THAT-IS-FIRST", "EXAMPLE-KEY-THAT-IS-LAST"
	keys[0].Hash, keys[size-1].Hash = Hash(first), Hash(last)
	s, err := NewSet(keys)
	if err != nil {
		tb.Fatal(err)
	}
	return s, map[string]string{"wrong at the end": near, "wrong at the beginning": far, "first key": first, "last key": last, "no key": ""}
}

// Time does not tell which key was presented, or how much of one: a loop that
// ends with the key it looks for would take many times as long for the last
// of this set as for the first. Compared are the fastest of many short batches in
// turns, which load from elsewhere only makes fewer.
func TestTimeDoesNotTellKeys(t *testing.T) {
	// Not parallel: other tests of the package would take turns with it.
	const size, rounds, batch, tolerance = 128, 100, 8, 1.5
	s, presented := probes(t, size)
	fastest := make(map[string]time.Duration)
	for range rounds {
		for name, key := range presented {
			start := time.Now()
			for range batch {
				s.Lookup(key)
			}
			if took := time.Since(start); fastest[name] == 0 || took < fastest[name] {
				fastest[name] = took
			}
		}
	}
	low, high := time.Duration(1<<62), time.Duration(0)
	for _, took := range fastest {
		low, high = min(low, took), max(high, took)
	}
	t.Logf("%d lookups among %d keys: %v", batch, size, fastest)
	if float64(high) > tolerance*float64(low) {
		t.Errorf("times differ: %v", fastest)
	}
}

// What TestTimeDoesNotTellKeys compares, to be looked at in detail.
func BenchmarkLookupOf(b *testing.B) {
	s, presented := probes(b, 256)
	for name, key := range presented {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.Lookup(key)
			}
		})
	}
}

// Whatever is presented as a key, Lookup finds what a map finds.
func FuzzLookup(f *testing.F) {
	known := map[string]string{frontKey: "front", backKey: "back", string(make([]byte, MaxKeyLength)): "longest"}
	keys := make([]Key, 0, len(known))
	for text, name := range known {
		keys = append(keys, Key{Name: name, Class: FrontEnd, Hash: Hash(text)})
	}
	s, err := NewSet(keys)
	if err != nil {
		f.Fatal(err)
	}
	for text := range known {
		hash := Hash(text)
		for _, near := range []string{text, text + "\x00", text[:len(text)-1], " " + text, string(hash[:]), fmt.Sprintf("%x", hash)} {
			f.Add(near)
		}
	}
	f.Add("")
	f.Add("\xff\xfe")
	f.Fuzz(func(t *testing.T, key string) {
		k, found := s.Lookup(key)
		if want, isKnown := known[key]; found != isKnown || k.Name != want {
			t.Fatalf("%q is that of %q, %t, want %q, %t", key, k.Name, found, want, isKnown)
		}
	})
}
