package srp

import (
	"crypto/rand"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// sources parses the files of the package that are not tests.
func sources(t *testing.T) (*token.FileSet, map[string]*ast.File) {
	t.Helper()
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	set, files := token.NewFileSet(), map[string]*ast.File{}
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = f
	}
	if len(files) == 0 {
		t.Fatal("no sources found")
	}
	return set, files
}

// TestNoMathBig: production code does not import math/big, which is not constant time. Its
// only source of randomness is crypto/rand.
func TestNoMathBig(t *testing.T) {
	t.Parallel()
	_, files := sources(t)
	for name, f := range files {
		for _, i := range f.Imports {
			if slices.Contains([]string{`"math/big"`, `"math/rand"`, `"math/rand/v2"`}, i.Path.Value) {
				t.Errorf("%s imports %s", name, i.Path.Value)
			}
		}
	}
}

// TestNoSecretBranches: in the functions that handle the bits of secrets, no condition, index
// or slice bound depends on them. The rest of the arithmetic is in bigmod and in assembly,
// which are constant time.
func TestNoSecretBranches(t *testing.T) {
	t.Parallel()
	set, files := sources(t)
	secrets := map[string][]string{
		// The secret parameters of functions, by name. Several kernels have functions of the
		// same name.
		"powerG":                {"e"},
		"power":                 {"base", "e"},
		"product":               {"x", "y"},
		"sum":                   {"x", "y"},
		"toBytes":               {"x"},
		"digit":                 {"e"},
		"read":                  {"j"},
		"less":                  {"x", "y"},
		"digest":                {"parts"},
		"setTexts":              {"password"},
		"powerWide":             {"base", "low", "high"},
		"powerGWide":            {"low", "high"},
		"hexDigit":              {"value"},
		"Verifier":              {"password"},
		"passwordExponent":      {"password"},
		"isZero":                {"b"},
		"setKeyAndEvidence":     {"s"},
		"serverPremasterSecret": {"x"},
		"clientPremasterSecret": {"a"},
		"serverPublic":          {"v", "b"},
		// Words of the kernels radix64 and adx.
		"multiply":   {"x", "y"},
		"square":     {"x"},
		"reduce":     {"t"},
		"addProduct": {"z", "x", "y"},
		"subtract":   {"x", "y", "mask"},
		"add":        {"x", "y"},
		"setWords":   {"b"},
		"putWords":   {"x"},
		// Digits of the kernel ifma.
		"setDigits":      {"b"},
		"putDigits":      {"x"},
		"fill":           {"base"},
		"subtractDigits": {"x", "y"},
		"reduceDigits":   {"z"},
	}
	found := map[string]bool{}
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || secrets[fn.Name.Name] == nil || fn.Body == nil {
				continue
			}
			found[fn.Name.Name] = true
			for _, n := range secretUses(fn, secrets[fn.Name.Name]) {
				t.Errorf("%s: %s has a branch or address that depends on a secret", set.Position(n.Pos()), fn.Name.Name)
			}
		}
	}
	if len(found) != len(secrets) {
		t.Errorf("%d of %d functions found", len(found), len(secrets))
	}
}

// TestSecretUses: secretUses finds uses of secrets, and only those.
func TestSecretUses(t *testing.T) {
	t.Parallel()
	tests := map[string]int{
		`if e > 0 { return 1 }`:                  1,
		`switch e { case 1: return 2 }`:          1,
		`switch { case e > 1: return 2 }`:        1,
		`for e > 0 { e-- }`:                      1,
		`for range e { t[0]++ }`:                 1,
		`x := e >> 1; y := x & 1; return t[y]`:   1,
		`var x = e; return len(t[:x])`:           1,
		`t[0] = e; if t[1] > 0 { return 1 }`:     1,
		`b := e > 1 && t[0] > 0; _ = b`:          1,
		`t[0] = e & 15; return t[0] ^ e`:         0,
		`for i := range t { t[i] = e >> 1 }`:     0,
		`for i := 0; i < 4; i++ { t[i] = -e }`:   0,
		`if len(t) > 3 { return 0 }; return e`:   0,
		`if u := uint(len(t)); u > 3 { t[0]=u }`: 0,
	}
	for body, want := range tests {
		f, err := parser.ParseFile(token.NewFileSet(), "", "package p; func f(e uint, t []uint) uint {"+body+"; return 0}", 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(secretUses(f.Decls[0].(*ast.FuncDecl), []string{"e"})); got != want {
			t.Errorf("%s: %d uses, want %d", body, got, want)
		}
	}
}

// secretUses returns the conditions, indices, slice bounds and operands of && and || in a
// function that depend on the given variables or on values computed from them. The length
// of a secret is not secret.
func secretUses(fn *ast.FuncDecl, names []string) []ast.Node {
	tainted := map[string]bool{}
	for _, n := range names {
		tainted[n] = true
	}
	secret := func(n ast.Node) (yes bool) {
		if n == nil {
			return false
		}
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "len" {
					return false
				}
			case *ast.Ident:
				yes = yes || tainted[n.Name]
			}
			return !yes
		})
		return yes
	}
	// taint marks the variable behind an expression, such as t of t[i].
	taint := func(e ast.Expr) (changed bool) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.CallExpr:
				e = x.Fun
			case *ast.SelectorExpr:
				e = x.X
			case *ast.Ident:
				changed = x.Name != "_" && !tainted[x.Name]
				tainted[x.Name] = tainted[x.Name] || changed
				return changed
			default:
				return false
			}
		}
	}
	for again := true; again; {
		again = false
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			var left, right []ast.Expr
			switch n := n.(type) {
			case *ast.AssignStmt:
				left, right = n.Lhs, n.Rhs
			case *ast.ValueSpec:
				for _, name := range n.Names {
					left = append(left, name)
				}
				right = n.Values
			case *ast.RangeStmt:
				if n.Value != nil {
					left, right = []ast.Expr{n.Value}, []ast.Expr{n.X}
				}
			}
			for i, l := range left {
				r := right
				if len(left) == len(right) {
					r = right[i : i+1]
				}
				if slices.ContainsFunc(r, func(e ast.Expr) bool { return secret(e) }) && taint(l) {
					again = true
				}
			}
			return true
		})
	}

	var uses []ast.Node
	report := func(at ast.Node, parts ...ast.Node) {
		for _, p := range parts {
			if p != nil && secret(p) {
				uses = append(uses, at)
				return
			}
		}
	}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			report(n, n.Cond)
		case *ast.ForStmt:
			report(n, expr(n.Cond))
		case *ast.SwitchStmt:
			report(n, expr(n.Tag))
		case *ast.CaseClause:
			for _, e := range n.List {
				report(n, e)
			}
		case *ast.RangeStmt:
			// The number of turns is the length of an array or slice, which is
			// not secret, or an integer, which may be.
			if id, ok := n.X.(*ast.Ident); ok && n.Value == nil && n.Key == nil && tainted[id.Name] {
				uses = append(uses, n)
			}
		case *ast.IndexExpr:
			report(n, n.Index)
		case *ast.SliceExpr:
			report(n, expr(n.Low), expr(n.High), expr(n.Max))
		case *ast.BinaryExpr:
			if n.Op == token.LAND || n.Op == token.LOR {
				report(n, n.X, n.Y)
			}
		}
		return true
	})
	return uses
}

// expr returns e as a node that is nil if e is.
func expr(e ast.Expr) ast.Node {
	if e == nil {
		return nil
	}
	return e
}

// TestInstructionCounts: exponentiations and both steps of the server execute the same number
// of instructions, within 0.1 %, whatever the secrets are. TestTrace, TestNoSecretBranches
// and TestSameWork cover some of this where instructions cannot be counted.
func TestInstructionCounts(t *testing.T) {
	// Not parallel: the garbage collector would run on this thread more often.
	c, err := newCounter()
	if err != nil {
		t.Logf("NOT CHECKED: this system does not count instructions (%v)", err)
		return
	}
	defer c.close()

	patterns := []string{"0", "1", "2^255", "all ones", "random"}
	for _, p := range profiles {
		for name, k := range kernelsOf(p) {
			o, m := oracleOf(p), makerOf(k)
			base := m.fromBytes(o.fixed(o.operands()[len(o.operands())-1]))
			z := m.made(func(element) {})
			power, powerG := map[string]func(){}, map[string]func(){}
			for _, pattern := range patterns {
				e := padded(exponents()[pattern])
				power[pattern] = func() { m.c.power(z, base, &e) }
				powerG[pattern] = func() { m.c.powerG(z, &e) }
			}
			c.same(t, p.name+"/"+name+"/base^e", power)
			c.same(t, p.name+"/"+name+"/g^e", powerG)
		}

		x, right := honestExchange(t, p)
		wrong := slices.Clone(right)
		wrong[0] ^= 1
		simulated := x
		simulated.verifier = p.simulatedVerifier(bytesFor("secret", 0), x.identity)
		c.same(t, p.name+"/step 1", map[string]func(){
			"real":      func() { _, _ = p.newEphemeral(x.verifier, rand.Reader) },
			"simulated": func() { _, _ = p.newEphemeral(simulated.verifier, rand.Reader) },
		})
		c.same(t, p.name+"/step 2", map[string]func(){
			"right":     func() { p.verify(x, right) },
			"wrong":     func() { p.verify(x, wrong) },
			"simulated": func() { p.verify(simulated, wrong) },
		})
	}
}

// same requires that all functions have the same count, by the median of several.
func (c *counter) same(t *testing.T, name string, functions map[string]func()) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const rounds = 11
	counts := map[string]uint64{}
	low, high := ^uint64(0), uint64(0)
	for pattern, f := range functions {
		all := make([]uint64, rounds)
		for i := range all {
			all[i] = c.count(t, f)
		}
		slices.Sort(all)
		counts[pattern] = all[rounds/2]
		low, high = min(low, counts[pattern]), max(high, counts[pattern])
	}
	t.Logf("%s: %d to %d instructions", name, low, high)
	if high-low > low/1000 {
		t.Errorf("%s: instruction counts differ: %v", name, counts)
	}
}
