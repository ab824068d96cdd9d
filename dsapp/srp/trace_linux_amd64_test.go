//go:build !race

package srp

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/internal/pathtrace"
)

// These tests execute the arithmetic and the server's side of an exchange with different
// secrets, and require that the processor executes the same instructions and accesses the
// same addresses. Package pathtrace does the tracing; tracedGroup.operations lists the
// operations and their secrets. A build for the race detector has other instructions.

var traceAll = flag.Bool("trace-all", false, "trace every kernel at every size, branches and instructions, which takes many minutes")

// tracedOperation is an operation whose execution must not depend on its input.
type tracedOperation struct {
	// inputs are the names of all inputs.
	inputs []string
	// few are the inputs to use without -trace-all.
	few []string
	// approximate are inputs that may be executed differently, such as right evidence,
	// which has another result. The number of instructions must agree within 0.1 %.
	approximate []string
	// prepare returns a function that sets an input, always in the same memory, and the
	// operation.
	prepare func(t *testing.T) (set func(input string), operation func())
}

// tracedGroup is one prime with one implementation of its arithmetic.
type tracedGroup struct {
	p *Profile
	implementation
}

func (g tracedGroup) name() string { return fmt.Sprintf("%s/%d", g.implementation.name, 8*g.p.Size()) }

// isGo reports whether the kernel is in Go, whose traces have ten times as many branches
// as those of assembly.
func (g tracedGroup) isGo() bool {
	return g.implementation.name == "portable" || g.implementation.name == "radix64"
}

// tracedGroups returns the kernels that this processor supports: first each at the smallest
// size that it can compute with, then at every size that it may be selected for.
func tracedGroups() (smallest, selectable []tracedGroup) {
	// 2^512-569 is prime.
	short := profileWith("trace-512", strings.Repeat("F", 125)+"DC7", 2, sha256.New)
	for _, i := range allImplementations {
		p := rfcProfile()
		if i.name == "radix64" {
			p = short
		}
		for _, larger := range profiles {
			if i.supported(8 * larger.Size()) {
				selectable = append(selectable, tracedGroup{larger, i})
			}
		}
		if i.supported(8*p.Size()) || p == short {
			smallest = append(smallest, tracedGroup{p, i})
		}
	}
	return smallest, selectable
}

// leakyName is the name of an operation that is not constant time.
const leakyName = "math/big"

// tracedOperations returns all operations that can be traced, by name.
func tracedOperations() map[string]tracedOperation {
	operations := map[string]tracedOperation{leakyName: leakyOperation()}
	smallest, selectable := tracedGroups()
	for _, g := range append(smallest, selectable...) {
		for name, o := range g.operations() {
			operations[g.name()+"/"+name] = o
		}
	}
	return operations
}

// operations returns the operations of the kernel and the two steps of the server with it.
func (g tracedGroup) operations() map[string]tracedOperation {
	o := newOracle(hex.EncodeToString(g.p.prime), int64(g.p.generator), g.p.hash)
	inputs := exponents()
	operands := o.operands()
	for n, x := range operands {
		inputs[fmt.Sprint("operand ", n)] = o.fixed(x)
	}
	inputs["base 0"], inputs["base 1"], inputs["base N-1"] = o.fixed(operands[0]), o.fixed(operands[1]), o.fixed(operands[5])
	inputs["base"], inputs["factor"] = o.fixed(operands[len(operands)-1]), o.fixed(operands[len(operands)-2])
	numbers := []string{"operand 0", "operand 1", "operand 5", "operand 6", "operand 10", "operand 11"}
	powers := []string{"0", "random", "all ones", "1", "2^255", "digits from 3"}
	few := powers[:5]
	bases := []string{"base 0", "base 1", "base N-1"}

	// prepared returns a profile with the kernel. Only the traced process calls it, since
	// computing the tables takes time.
	prepared := func() (*Profile, *group) {
		q, made := *g.p, g.p.newGroupWith(g.new(g.p.prime, g.p.generator), g.implementation.name)
		q.group = func() *group { return made }
		return &q, made
	}
	operations := map[string]tracedOperation{
		"numbers": {inputs: numbers, few: numbers[:2], prepare: func(*testing.T) (func(string), func()) {
			_, k := prepared()
			c, z := k.calculator(), newElements(k, 4)
			x, y, result := make([]byte, o.size()), inputs["factor"], make([]byte, o.size())
			return func(input string) { copy(x, inputs[input]) }, func() {
				c.fromBytes(z[0], x)
				c.fromBytes(z[1], y)
				c.product(z[2], z[0], z[1])
				c.product(z[3], z[0], z[0])
				c.sum(z[2], z[2], z[3])
				c.sum(z[2], z[2], z[2])
				c.toBytes(result, z[2])
				c.wipe()
			}
		}},
		"base^e": {inputs: append(powers, bases...), few: append(few[:5:5], bases[0]), prepare: func(*testing.T) (func(string), func()) {
			_, k := prepared()
			c, z := k.calculator(), newElements(k, 2)
			base, e := make([]byte, o.size()), new([PrivateSize]byte)
			return func(input string) {
					copy(e[:], inputs["random"])
					copy(base, inputs["base"])
					if slices.Contains(bases, input) {
						copy(base, inputs[input])
					} else {
						copy(e[:], inputs[input])
					}
				}, func() {
					c.fromBytes(z[0], base)
					c.power(z[1], z[0], e)
					c.wipe()
				}
		}},
		"g^e": {inputs: powers, few: few, prepare: func(*testing.T) (func(string), func()) {
			_, k := prepared()
			c, z, e := k.calculator(), newElements(k, 1), new([PrivateSize]byte)
			return func(input string) { copy(e[:], inputs[input]) }, func() {
				c.powerG(z[0], e)
				c.wipe()
			}
		}},
		"step 1": {inputs: append(powers, "simulated"), few: []string{"random", "simulated", "0", "all ones"}, prepare: func(t *testing.T) (func(string), func()) {
			p, _ := prepared()
			x, _ := honestExchange(t, p)
			simulated := p.simulatedVerifier(bytesFor("secret", 0), x.identity)
			v, b, random := bytes.Clone(x.verifier), new([PrivateSize]byte), bytes.NewReader(nil)
			return func(input string) {
					copy(v, x.verifier)
					copy(b[:], inputs["random"])
					if input == "simulated" {
						copy(v, simulated)
					} else {
						copy(b[:], inputs[input])
					}
				}, func() {
					random.Reset(b[:])
					if _, err := p.newEphemeral(v, random); err != nil {
						panic(err)
					}
				}
		}},
		"step 2": {
			inputs:      []string{"wrong", "wrong at its end", "simulated", "0", "all ones", "right"},
			few:         []string{"wrong", "simulated", "wrong at its end", "right"},
			approximate: []string{"right"},
			prepare: func(t *testing.T) (func(string), func()) {
				p, _ := prepared()
				x, right := honestExchange(t, p)
				simulated := p.simulatedVerifier(bytesFor("secret", 0), x.identity)
				given, evidence, expected := x, bytes.Clone(right), false
				given.verifier, given.private = bytes.Clone(x.verifier), bytes.Clone(x.private)
				return func(input string) {
						copy(given.verifier, x.verifier)
						copy(given.private, x.private)
						copy(evidence, right)
						switch expected = input == "right"; input {
						case "right":
						case "wrong":
							evidence[0] ^= 1
						case "wrong at its end":
							evidence[len(evidence)-1] ^= 0x80
						case "simulated":
							copy(given.verifier, simulated)
						default:
							copy(given.private, inputs[input])
						}
					}, func() {
						if _, _, ok := p.verify(given, evidence); ok != expected {
							panic("verify returns the wrong result")
						}
					}
			},
		},
	}
	if g.implementation.name == "portable" && o.size() > 2048/8 {
		// bigmod allocates memory for these sizes. The path of a copy depends on whether
		// its destination is below its source.
		for name, o := range operations {
			o.approximate = o.inputs
			operations[name] = o
		}
	}
	return operations
}

// leakyOperation returns an exponentiation by math/big, which is not constant time.
func leakyOperation() tracedOperation {
	return tracedOperation{inputs: []string{"0", "random"}, prepare: func(*testing.T) (func(string), func()) {
		x, e, n := big.NewInt(3), new(big.Int), number(rfcProfile().prime)
		return func(input string) { e.SetBytes(exponents()[input]) }, func() { new(big.Int).Exp(x, e, n) }
	}}
}

// TestTraceTarget runs an operation in the process that is traced.
func TestTraceTarget(t *testing.T) {
	traced := pathtrace.Serve(func(name string) pathtrace.Function {
		set, call := tracedOperations()[name].prepare(t)
		return pathtrace.Function{Set: set, Call: call}
	})
	if !traced {
		t.Parallel()
	}
}

// trace records an operation with each input. It returns false where nothing can be
// traced.
func trace(t *testing.T, c pathtrace.Config) (r pathtrace.Result, ok bool) {
	t.Helper()
	c.Test = "TestTraceTarget"
	r, err := pathtrace.Compare(t.Context(), c)
	if errors.Is(err, pathtrace.ErrNotPermitted) {
		t.Logf("NOT CHECKED: %v", err)
		return r, false
	}
	if err != nil {
		t.Fatalf("%s: %v", c.Function, err)
	}
	return r, true
}

// traceLimit returns the largest permitted number of instructions of an operation, about
// 3 % above the present one, or 0. Operations that consist mostly of compiled code have no
// limit.
func traceLimit(name string) int {
	return map[string]int{
		"ifma/2048/base^e": 640_000,
		"ifma/2048/g^e":    138_000,
		"ifma/2048/step 1": 175_000,
		"ifma/2048/step 2": 1_316_000,
		"ifma/3072/base^e": 1_063_000,
		"ifma/3072/g^e":    230_000,
		"ifma/3072/step 1": 286_000,
		"ifma/3072/step 2": 2_179_000,
		"ifma/4096/base^e": 1_594_000,
		"ifma/4096/g^e":    348_000,
		"ifma/4096/step 1": 423_000,
		"ifma/4096/step 2": 3_258_000,
		"adx/2048/base^e":  2_577_000,
		"adx/2048/g^e":     622_000,
		"adx/2048/step 1":  670_000,
		"adx/2048/step 2":  5_201_000,
	}[name]
}

// checkTrace requires that the execution of an operation is the same for all inputs.
func checkTrace(t *testing.T, o tracedOperation, c pathtrace.Config) {
	t.Helper()
	r, ok := trace(t, c)
	if !ok {
		return
	}
	limit := 0
	if c.Detail == pathtrace.Branches && testing.CoverMode() == "" {
		limit = traceLimit(c.Function)
	}
	first := r.Instructions[0]
	t.Logf("%d instructions, %d recorded, %d inputs", first, r.Events, len(c.Inputs))
	for i, input := range c.Inputs {
		n := r.Instructions[i]
		if limit != 0 && n > limit {
			t.Errorf("%q: %d instructions, the limit is %d", input, n, limit)
		}
		switch {
		case !slices.Contains(o.approximate, input):
			if r.Differences[i] != "" {
				t.Errorf("%q, with %d instructions: %s", input, n, r.Differences[i])
			}
		case max(n, first)-min(n, first) > n/1000:
			t.Errorf("%q: %d instructions", input, n)
		default:
			t.Logf("%q: %d instructions", input, n)
		}
	}
}

// TestTrace: every kernel, and the server with it, executes exactly the same instructions
// whatever the secrets are. TestTraceAddresses adds the addresses of data.
func TestTrace(t *testing.T) {
	t.Parallel()
	smallest, selectable := tracedGroups()
	for _, i := range implementations {
		if !slices.ContainsFunc(smallest, func(g tracedGroup) bool { return g.implementation.name == i.name }) {
			t.Logf("NOT CHECKED: this machine does not have the kernel %s", i.name)
		}
	}
	if !*traceAll {
		t.Log("NOT CHECKED: more sizes and numbers, which -trace-all adds")
	}
	for n, g := range append(smallest, selectable...) {
		for name, o := range g.operations() {
			inputs := g.branchInputs(name, o, n >= len(smallest))
			if len(inputs) == 0 {
				continue
			}
			t.Run(g.name()+"/"+name, func(t *testing.T) {
				t.Parallel()
				checkTrace(t, o, pathtrace.Config{Function: g.name() + "/" + name, Inputs: inputs})
			})
		}
	}
}

// branchInputs returns the inputs with which TestTrace traces an operation, at a size that
// the kernel may be selected for or not.
func (g tracedGroup) branchInputs(name string, o tracedOperation, selectable bool) []string {
	step, assembly, first := strings.HasPrefix(name, "step"), !g.isGo(), g.p == profiles[0]
	switch ifma := g.implementation.name == "ifma"; {
	case *traceAll && !selectable:
		return o.inputs
	case *traceAll && assembly:
		return o.few
	case !assembly && (selectable || step) && !*traceAll:
		return nil
	case step && !selectable:
		// The code of the server does not depend on the size.
		return nil
	case step && !first && ifma:
		return o.few[:1] // for its limit
	case step && !first:
		return nil
	case selectable && (ifma || assembly && name == "g^e" || assembly && first && !step):
		return o.few
	}
	return o.few[:2]
}

// assemblyProducts are the routines in assembly that TestTraceAddresses skips without
// -trace-all, at the larger sizes: TestAssembly shows that their addresses are made of
// their arguments only.
var assemblyProducts = regexp.MustCompile(`\.(ifmaProduct|ifmaSquare|adxMultiply|adxSquare)\d*$`)

// TestTraceAddresses: every kernel accesses the same addresses whatever the secrets are.
func TestTraceAddresses(t *testing.T) {
	t.Parallel()
	smallest, selectable := tracedGroups()
	for n, g := range append(smallest, selectable...) {
		isSelectable := n >= len(smallest)
		for name, o := range g.operations() {
			// The results of the server are in new memory each time.
			if strings.HasPrefix(name, "step") || g.isGo() && (isSelectable || !*traceAll) {
				continue
			}
			c := pathtrace.Config{Function: g.name() + "/" + name, Inputs: o.inputs, Detail: pathtrace.Instructions}
			switch {
			case isSelectable && *traceAll:
				c.Inputs = o.few[:2]
			case isSelectable:
				c.Skip = assemblyProducts
			case g.isGo():
				c.Inputs = o.few
			}
			if !*traceAll {
				first := n == 0 || isSelectable && g.p == profiles[0]
				if name == "numbers" == isSelectable || name == "base^e" && g.implementation.name != "ifma" ||
					!first && (name == "base^e" || g.implementation.name != "ifma") {
					continue
				}
				c.Inputs = c.Inputs[:2]
			}
			t.Run(g.name()+"/"+name, func(t *testing.T) {
				t.Parallel()
				checkTrace(t, o, c)
			})
		}
	}
	if !*traceAll {
		t.Log("NOT CHECKED: most operations, which -trace-all adds")
	}
}

// TestTraceFindsLeak: the tests above find an exponentiation that is not constant time.
func TestTraceFindsLeak(t *testing.T) {
	t.Parallel()
	r, ok := trace(t, pathtrace.Config{Function: leakyName, Inputs: leakyOperation().inputs})
	if ok && !strings.HasPrefix(r.Differences[1], pathtrace.DifferentPath) {
		t.Errorf("differences: %q", r.Differences)
	}
}
