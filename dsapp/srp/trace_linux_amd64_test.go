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
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

var traceAll = flag.Bool("trace-all", false, "trace every kernel at every size, branches and instructions, which takes many minutes")

// traced is an operation that has to do the same for all its inputs.
type traced struct {
	inputs []string
	// few are the inputs for where time is short.
	few []string
	// other are inputs with another result. The number of instructions then agrees
	// within 0.1 %.
	other []string
	// prepare returns what sets an input, and the operation. Inputs have the same
	// place in memory each time.
	prepare func(t *testing.T) (set func(input string), operation func())
}

// tracedGroup is a kernel for one prime.
type tracedGroup struct {
	p *Profile
	implementation
}

func (g tracedGroup) name() string { return fmt.Sprintf("%s/%d", g.implementation.name, 8*g.p.Size()) }

// slow tells whether the kernel is in Go, which has ten times as many branches as
// assembly, and more instructions.
func (g tracedGroup) slow() bool {
	return g.implementation.name == "portable" || g.implementation.name == "radix64"
}

// tracedGroups are the kernels that this machine has: each at the smallest size
// that it can compute with, and then at all the sizes that it may serve.
func tracedGroups() (smallest, others []tracedGroup) {
	// 2^512-569 is prime.
	short := newProfile("trace-512", strings.Repeat("F", 125)+"DC7", 2, sha256.New)
	for _, i := range everyImplementation {
		p := rfcProfile()
		if i.name == "radix64" {
			p = short
		}
		for _, larger := range profiles {
			if i.supported(8 * larger.Size()) {
				others = append(others, tracedGroup{larger, i})
			}
		}
		if i.supported(8*p.Size()) || p == short {
			smallest = append(smallest, tracedGroup{p, i})
		}
	}
	return smallest, others
}

// tracedOperations are all operations that there are to trace, by name.
func tracedOperations() map[string]traced {
	operations := tracedControls()
	smallest, others := tracedGroups()
	for _, g := range append(smallest, others...) {
		for name, o := range g.operations() {
			operations[g.name()+"/"+name] = o
		}
	}
	return operations
}

// operations are those of a kernel and of what the server does with it.
func (g tracedGroup) operations() map[string]traced {
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

	// prepared is a profile with the kernel. Its tables are for the process alone
	// that computes.
	prepared := func() (*Profile, *group) {
		q, made := *g.p, g.p.groupWith(g.new(g.p.prime, g.p.generator), g.implementation.name)
		q.group = func() *group { return made }
		return &q, made
	}
	operations := map[string]traced{
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
			x, _ := honest(t, p)
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
					if _, err := p.pair(v, random); err != nil {
						panic(err)
					}
				}
		}},
		"step 2": {
			inputs: []string{"wrong", "wrong at its end", "simulated", "0", "all ones", "right"},
			few:    []string{"wrong", "simulated", "wrong at its end", "right"},
			other:  []string{"right"},
			prepare: func(t *testing.T) (func(string), func()) {
				p, _ := prepared()
				x, right := honest(t, p)
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
							panic("evidence is taken for what it is not")
						}
					}
			},
		},
	}
	if g.implementation.name == "portable" && o.size() > 2048/8 {
		// bigmod allocates for these sizes. Copies take another way where the new
		// memory is below what is copied.
		for name, o := range operations {
			o.other = o.inputs
			operations[name] = o
		}
	}
	return operations
}

// tracedControls are operations that the tracer must see through.
func tracedControls() map[string]traced {
	exponent := func(operation func(e *[PrivateSize]byte)) traced {
		return traced{inputs: []string{"0", "random"}, prepare: func(*testing.T) (func(string), func()) {
			e := new([PrivateSize]byte)
			return func(input string) { copy(e[:], exponents()[input]) }, func() { operation(e) }
		}}
	}
	var sink uint
	room := new([]byte)
	table := new([windowSize]uint)
	x, e, n := big.NewInt(3), new(big.Int), number(rfcProfile().prime)
	return map[string]traced{
		"control/counts": {inputs: []string{"0", "100", "200", "300"}, prepare: func(*testing.T) (func(string), func()) {
			turns := uint(0)
			return func(input string) { _, _ = fmt.Sscan(input, &turns) }, func() {
				for i := range turns {
					sink += i * sink
				}
			}
		}},
		"control/is constant": exponent(func(e *[PrivateSize]byte) {
			z := uint(1)
			for i := range windowCount {
				z = z*z*z + digit(e, i)
			}
			sink = z
		}),
		"control/skips zeros": exponent(func(e *[PrivateSize]byte) {
			z := uint(1)
			for i := range windowCount {
				z *= z
				if d := digit(e, i); d != 0 {
					for range windowBits {
						z = z*z + d
					}
				}
			}
			sink = z
		}),
		"control/looks up": exponent(func(e *[PrivateSize]byte) {
			z := uint(1)
			for i := range windowCount {
				z = z*z + table[digit(e, i)]
			}
			sink = z
		}),
		"control/allocates": exponent(func(e *[PrivateSize]byte) { *room = make([]byte, 1+int(e[0])) }),
		"control/panics": exponent(func(e *[PrivateSize]byte) {
			if digit(e, 1) != 0 {
				panic("for this exponent")
			}
		}),
		"control/exits": exponent(func(e *[PrivateSize]byte) { os.Exit(3) }),
		"control/hangs": exponent(func(e *[PrivateSize]byte) {
			for digit(e, 1) != 0 {
				sink++
			}
		}),
		// The second time it is traced.
		"control/hangs later": exponent(func(*[PrivateSize]byte) {
			for again := sink; again != 0; {
				sink++
			}
			sink = 1
		}),
		"control/big": exponent(func(b *[PrivateSize]byte) { e.Exp(x, e.SetBytes(b[:]), n) }),
	}
}

// TestTraceTarget is the process that is traced. Otherwise it does nothing.
func TestTraceTarget(t *testing.T) {
	name := os.Getenv(traceMarker)
	if name == "" {
		t.Parallel()
		return
	}
	set, operation := tracedOperations()[name].prepare(t)
	runtime.Breakpoint() // From here on this is the only thread.
	for input := range strings.SplitSeq(os.Getenv(traceInputs), ",") {
		set(input)
		// What happens once in a process happens now.
		operation()
		runtime.Breakpoint()
		operation()
		runtime.Breakpoint()
	}
}

// traceResult is what there is to say about an operation.
type traceResult struct {
	instructions []int // by input
	events       int   // with the first input
	// differences tell, by input, what happens that does not with the first one, and
	// where that begins.
	differences []string
}

// trace has a process do the operation of that name with the inputs. It tells
// whether it could.
func trace(t *testing.T, what int, name string, inputs []string) (r traceResult, ok bool) {
	t.Helper()
	limit := time.Minute
	if *traceAll {
		limit = time.Hour
	}
	r, err := traceFor(t, limit, what, name, inputs)
	if errors.Is(err, errNoTrace) {
		t.Logf("NOT CHECKED: %v", err)
		return r, false
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return r, true
}

// traceFor does so in a limited time. An error has what the process wrote.
func traceFor(t *testing.T, limit time.Duration, what int, name string, inputs []string) (r traceResult, err error) {
	t.Helper()
	log, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread stays locked, so it ends with the goroutine.
		runtime.LockOSThread()
		r, err = compareTraces(limit, what, name, inputs, log)
	}()
	<-done
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		err = fmt.Errorf("%w\n%s", err, text)
	}
	return r, err
}

// compareTraces does it in the process and on the thread that it starts.
func compareTraces(limit time.Duration, what int, name string, inputs []string, log *os.File) (r traceResult, err error) {
	p, err := startTrace(name, inputs, limit, log)
	if err != nil {
		return r, err
	}
	defer p.close()
	var record traceRecord
	for _, input := range inputs {
		n, err := p.record(what, &record)
		if err != nil {
			return r, fmt.Errorf("%q: %w", input, err)
		}
		r.instructions = append(r.instructions, n)
		difference := ""
		if differs, pc, moved := record.next(); differs {
			difference = "another way from " + p.place(pc) + " on"
			if moved && what != traceWays {
				difference = "another address in " + p.place(pc)
			}
		}
		r.differences = append(r.differences, difference)
	}
	r.events = len(record.events)
	return r, nil
}

// traceCap returns how many instructions an operation may have, about 3 % more than
// it has, or 0. Where the compiler makes most of them there is no cap.
func traceCap(name string) int {
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

// checkTrace requires that the operation does the same for all inputs.
func checkTrace(t *testing.T, what int, name string, o traced, inputs []string) {
	t.Helper()
	r, ok := trace(t, what, name, inputs)
	if !ok {
		return
	}
	limit := 0
	if what == traceWays && testing.CoverMode() == "" {
		limit = traceCap(name)
	}
	t.Logf("%d instructions, %d recorded, %d inputs", r.instructions[0], r.events, len(inputs))
	for i, input := range inputs {
		n := r.instructions[i]
		if limit != 0 && n > limit {
			t.Errorf("%q: %d instructions, and the cap is %d", input, n, limit)
		}
		switch {
		case !slices.Contains(o.other, input):
			if r.differences[i] != "" {
				t.Errorf("%q, with %d instructions: %s", input, n, r.differences[i])
			}
		case max(n, r.instructions[0])-min(n, r.instructions[0]) > n/1000:
			t.Errorf("%q: %d instructions", input, n)
		default:
			t.Logf("%q: %d instructions", input, n)
		}
	}
}

// TestTrace follows every kernel, and the server with it, branch by branch. They
// must go exactly the same way, instruction for instruction, whatever the secrets
// are. It needs no counters in hardware, which virtual machines seldom have.
//
// The way shows no addresses of data. TestTraceAddresses does.
func TestTrace(t *testing.T) {
	t.Parallel()
	smallest, others := tracedGroups()
	for _, i := range implementations {
		if !slices.ContainsFunc(smallest, func(g tracedGroup) bool { return g.implementation.name == i.name }) {
			t.Logf("NOT CHECKED: this machine does not have the kernel %s", i.name)
		}
	}
	if !*traceAll {
		t.Log("NOT CHECKED: more sizes and numbers, which -trace-all adds")
	}
	for n, g := range append(smallest, others...) {
		for name, o := range g.operations() {
			inputs := g.ways(name, o, n >= len(smallest))
			if len(inputs) == 0 {
				continue
			}
			t.Run(g.name()+"/"+name, func(t *testing.T) {
				t.Parallel()
				checkTrace(t, traceWays, g.name()+"/"+name, o, inputs)
			})
		}
	}
}

// ways returns the inputs with which to follow an operation branch by branch.
func (g tracedGroup) ways(name string, o traced, served bool) []string {
	step, assembly, first := strings.HasPrefix(name, "step"), !g.slow(), g.p == profiles[0]
	switch ifma := g.implementation.name == "ifma"; {
	case *traceAll && !served:
		return o.inputs
	case *traceAll && assembly:
		return o.few
	case !assembly && (served || step) && !*traceAll:
		return nil
	case step && !served:
		// What the server does is not up to the kernel.
		return nil
	case step && !first && ifma:
		return o.few[:1] // for its cap
	case step && !first:
		return nil
	case served && (ifma || assembly && name == "g^e" || assembly && first && !step):
		return o.few
	}
	return o.few[:2]
}

// TestTraceAddresses follows the kernels instruction by instruction. In each of
// them all registers that make addresses must be the same whatever the secrets are.
// At the sizes that are served it leaves out products in assembly, about which
// TestAssembly is, and only -trace-all does not.
func TestTraceAddresses(t *testing.T) {
	t.Parallel()
	smallest, others := tracedGroups()
	for n, g := range append(smallest, others...) {
		served := n >= len(smallest)
		for name, o := range g.operations() {
			// What the server returns has a new place each time.
			if strings.HasPrefix(name, "step") || g.slow() && (served || !*traceAll) {
				continue
			}
			what, inputs := traceSteps, o.inputs
			switch {
			case served && *traceAll:
				inputs = o.few[:2]
			case served:
				what = traceReads
			case g.slow():
				inputs = o.few
			}
			if !*traceAll {
				first := n == 0 || served && g.p == profiles[0]
				if name == "numbers" == served || name == "base^e" && g.implementation.name != "ifma" ||
					!first && (name == "base^e" || g.implementation.name != "ifma") {
					continue
				}
				inputs = inputs[:2]
			}
			t.Run(g.name()+"/"+name, func(t *testing.T) {
				t.Parallel()
				checkTrace(t, what, g.name()+"/"+name, o, inputs)
			})
		}
	}
	if !*traceAll {
		t.Log("NOT CHECKED: most operations, which -trace-all adds")
	}
}

// TestTraceControls: a tracer that saw nothing would pass the tests above. It
// counts right, both ways, sees what it is for, and comes back from what fails.
func TestTraceControls(t *testing.T) {
	t.Parallel()
	controls := tracedControls()
	expect := func(name string, what int, difference string) (instructions []int) {
		r, ok := trace(t, what, "control/"+name, controls["control/"+name].inputs)
		if ok && (!strings.HasPrefix(r.differences[1], difference) || difference == "" && r.differences[1] != "") {
			t.Errorf("%s: %q, want %q", name, r.differences[1], difference)
		}
		return r.instructions
	}
	const way, address = "another way", "another address"
	ways, steps := expect("counts", traceWays, way), expect("counts", traceSteps, way)
	if ways == nil {
		return // The system does not trace, which has been said.
	}
	turn := (ways[1] - ways[0]) / 100
	if !slices.Equal(ways, steps) || turn < 3 || turn > 10 ||
		ways[1]-ways[0] != 100*turn || ways[2]-ways[1] != 100*turn || ways[3]-ways[2] != 100*turn {
		t.Errorf("loops of 0, 100, 200 and 300 turns have %d instructions, and %d step by step", ways, steps)
	}
	t.Logf("%d instructions in a turn of a loop", turn)

	if ways, steps := expect("is constant", traceWays, ""), expect("is constant", traceSteps, ""); !slices.Equal(ways, steps) {
		t.Errorf("%d instructions, and %d step by step", ways, steps)
	}
	expect("skips zeros", traceWays, way)
	expect("skips zeros", traceSteps, way)
	expect("big", traceWays, way)
	expect("allocates", traceWays, way)
	for name, what := range map[string]error{"panics": errTraceEnd, "exits": errTraceEnd, "hangs": errTraceLimit, "hangs later": errTraceLimit} {
		limit := time.Minute
		if what == errTraceLimit {
			limit = 300 * time.Millisecond
		}
		_, err := traceFor(t, limit, traceWays, "control/"+name, controls["control/"+name].inputs)
		if !errors.Is(err, what) || name == "panics" && !strings.Contains(err.Error(), "panic: for this exponent") {
			t.Errorf("%s: %v, want %v", name, err, what)
		}
	}
	// Another address is on no other way.
	expect("looks up", traceWays, "")
	expect("looks up", traceSteps, address)
}
