package apikey

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/internal/timing"
)

// Lookup does the same work for every key, by its syntax tree: a loop over the whole set
// has no branches, no comparing operators and only calls of crypto/subtle. The code before
// the loop does not use the keys, and the code after it has one condition.
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
	condition, ok := after[0].(*ast.IfStmt)
	if !ok || condition.Init != nil || condition.Else != nil || source(condition.Cond) != "found & fits != 1" {
		t.Errorf("after the loop stands %s", source(after[0]))
	}
}

// source returns the source text of simple expressions and statements.
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

// lookupCases returns a set of the given size and keys to look up: one whose hash equals
// all hashes of the set but for the last two bytes, one whose hash differs from them in
// the first byte, the first and the last key of the set, and an empty one.
func lookupCases(tb testing.TB, size int) (s *Set, presented map[string]string) {
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

// Lookup takes the same time for every key. A loop that ends at the matching key would
// take many times as long for the last key of this set as for the first.
func TestLookupTakesTheSameTime(t *testing.T) {
	// Not parallel, so that no other test of the package runs at the same time.
	const size, batch, tolerance = 128, 8, 1.5
	s, presented := lookupCases(t, size)
	var samples []timing.Sample
	for name, key := range presented {
		samples = append(samples, timing.Sample{Name: name, Call: func() {
			for range batch {
				s.Lookup(key)
			}
		}})
	}
	timing.Same(t, tolerance, samples)
}

func BenchmarkLookupOf(b *testing.B) {
	s, presented := lookupCases(b, 256)
	for name, key := range presented {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.Lookup(key)
			}
		})
	}
}

// Lookup finds the same as a map, for any text.
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
