package srp

import (
	"bytes"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// redundant is a kernel with several elements for one number, whose operations accept all of
// them.
type redundant interface {
	kernel
	// bound returns the number that all elements are below.
	bound() *big.Int
	// raw returns the element with the value x, below the bound.
	raw(x *big.Int) element
	// value returns the value of an element. It panics if x is no element.
	value(x element) *big.Int
}

// radixOf returns the Montgomery radix.
func radixOf(k kernel) *big.Int { return new(big.Int).Lsh(big.NewInt(1), uint(k.radixBits())) }

func (k *radix64) bound() *big.Int          { return radixOf(k) }
func (k *radix64) raw(x *big.Int) element   { return fixedWords(x, 8*wordSize*len(k.prime)) }
func (k *radix64) value(x element) *big.Int { return bigOf(x) }

var _ redundant = (*radix64)(nil)

// program is a sequence of operations on registers, one in each byte: the upper two bits
// are the operation, the others the registers of the result and the operands.
type program []byte

// The operations of a program. opPower and opPowerG only occur in steps with an exponent.
const (
	opProduct = iota
	opSquare
	opSum
	// opBytes converts an operand to bytes and back, and wipes the calculator in between.
	opBytes
	opPower
	opPowerG
)

const (
	registers = 4
	// longestProgram is the number of operations that are executed.
	longestProgram = 24
)

// step sets register z by an operation on registers a and b.
type step struct{ op, z, a, b byte }

func (s step) String() string {
	name := [...]string{"product", "square", "sum", "bytes", "power", "power of the generator"}[s.op]
	return fmt.Sprintf("%s of registers %d, %d into %d", name, s.a, s.b, s.z)
}

// steps returns the operations of the program and, for an exponent of PrivateSize bytes, both
// powers and their product.
func (p program) steps(exponent []byte) []step {
	var steps []step
	for _, b := range p[:min(len(p), longestProgram)] {
		steps = append(steps, step{b >> 6, b >> 4 % registers, b >> 2 % registers, b % registers})
	}
	if len(exponent) == PrivateSize {
		z := exponent[PrivateSize-1] % registers
		steps = append(steps, step{op: opPowerG, z: 3}, step{op: opPower, z: z}, step{opProduct, z, z, 3})
	}
	return steps
}

// numbers are the values of the registers. They are never changed in place.
type numbers [registers]*big.Int

// after returns the values after a step.
func (n numbers) after(s step, o oracle, e *big.Int) numbers {
	switch a, b := n[s.a], n[s.b]; s.op {
	case opProduct:
		n[s.z] = o.mod(new(big.Int).Mul(a, b))
	case opSquare:
		n[s.z] = o.mod(new(big.Int).Mul(a, a))
	case opSum:
		n[s.z] = o.mod(new(big.Int).Add(a, b))
	case opBytes:
		n[s.z] = a
	case opPower:
		n[s.z] = o.exp(a, e)
	case opPowerG:
		n[s.z] = o.exp(o.g, e)
	}
	return n
}

// compared is a kernel that is compared with others.
type compared struct {
	name string
	kernel
	c calculator
	// x are the registers, before what they were before a step.
	x, before []element
	got, want []byte
}

// check compares the value of a register with a number.
func (k *compared) check(register byte, want *big.Int) error {
	x := k.x[register]
	k.c.toBytes(k.got, x)
	if !bytes.Equal(k.got, want.FillBytes(k.want)) {
		return fmt.Errorf("register %d is %x, want %x", register, k.got, k.want)
	}
	if l, ok := k.kernel.(redundant); ok && l.value(x).Cmp(l.bound()) >= 0 {
		return fmt.Errorf("register %d has the element %x, which is too large", register, l.value(x))
	}
	return nil
}

// do executes a step.
func (k *compared) do(s step, e *[PrivateSize]byte) {
	switch z, a, b := k.x[s.z], k.x[s.a], k.x[s.b]; s.op {
	case opProduct:
		k.c.product(z, a, b)
	case opSquare:
		k.c.product(z, a, a)
	case opSum:
		k.c.sum(z, a, b)
	case opBytes:
		k.c.toBytes(k.got, a)
		k.c.wipe()
		k.c.fromBytes(z, k.got)
	case opPower:
		k.c.power(z, a, e)
	case opPowerG:
		k.c.powerG(z, e)
	}
}

// run executes the steps. It compares the registers with all[0], and the result of step i
// with all[i+1]. The result must be a valid element, and nothing else may change.
func (k *compared) run(steps []step, exponent []byte, all []numbers) error {
	for i, want := range all[0] {
		if err := k.check(byte(i), want); err != nil {
			return fmt.Errorf("%s: before the first step: %w", k.name, err)
		}
	}
	var secret [PrivateSize]byte
	copy(secret[:], exponent)
	kept := secret
	for i, s := range steps {
		for j := range k.x {
			copy(k.before[j], k.x[j])
		}
		k.do(s, &secret)
		err := k.check(s.z, all[i+1][s.z])
		copy(k.before[s.z], k.x[s.z])
		for j := range k.x {
			if err == nil && !slices.Equal(k.x[j], k.before[j]) {
				err = fmt.Errorf("register %d was changed", j)
			}
		}
		if err == nil && secret != kept {
			err = fmt.Errorf("the exponent became %x", secret)
		}
		if err != nil {
			return fmt.Errorf("%s: step %d, %v, of %x: %w", k.name, i, s, all[i], err)
		}
	}
	return nil
}

// redundantForm is the form of the elements of some redundant kernels.
type redundantForm struct {
	bound *big.Int
	// inverse is that of the Montgomery radix.
	inverse *big.Int
	kernels []*compared
}

// comparison compares the kernels of a group with math/big. It is not safe for concurrent
// use.
type comparison struct {
	name    string
	o       oracle
	kernels []*compared
	forms   []*redundantForm
	// edges are those of kernelEdges.
	edges []*big.Int
}

func newComparison(p *Profile) *comparison {
	o := oracleOf(p)
	c := &comparison{name: p.name, o: o}
	made := kernelsOf(p)
	for _, name := range slices.Sorted(maps.Keys(made)) {
		k := &compared{
			name: name, kernel: made[name], c: made[name].calculator(),
			x: newElements(made[name], registers), before: newElements(made[name], registers),
			got: make([]byte, o.size()), want: make([]byte, o.size()),
		}
		c.kernels = append(c.kernels, k)
		l, ok := k.kernel.(redundant)
		if !ok {
			continue
		}
		form := &redundantForm{bound: l.bound(), inverse: new(big.Int).ModInverse(radixOf(k), o.n)}
		i := slices.IndexFunc(c.forms, func(f *redundantForm) bool {
			return f.bound.Cmp(form.bound) == 0 && f.inverse.Cmp(form.inverse) == 0
		})
		if i < 0 {
			i, c.forms = len(c.forms), append(c.forms, form)
		}
		c.forms[i].kernels = append(c.forms[i].kernels, k)
	}
	c.edges = kernelEdges(o, c.forms)
	return c
}

// everyComparison returns a comparison for each of arithmeticProfiles.
func everyComparison() []*comparison {
	var all []*comparison
	for _, p := range arithmeticProfiles() {
		all = append(all, newComparison(p))
	}
	return all
}

// results returns the values at the start and after each step.
func (c *comparison) results(steps []step, exponent []byte, start numbers) []numbers {
	all, e := []numbers{start}, number(exponent)
	for i, s := range steps {
		all = append(all, all[i].after(s, c.o, e))
	}
	return all
}

// differences runs the program with every kernel on the numbers a, b, -a and 1. It runs
// redundant kernels again on the elements with the values a, b, N, which is another element
// of 0, and the largest possible one.
func (c *comparison) differences(p program, a, b, exponent []byte) error {
	steps, one := p.steps(exponent), big.NewInt(1)
	x, y := number(a), number(b)
	start := numbers{new(big.Int).Mod(x, c.o.n), new(big.Int).Mod(y, c.o.n), c.o.mod(new(big.Int).Neg(x)), one}
	want := c.results(steps, exponent, start)
	for _, k := range c.kernels {
		for i := range start {
			k.c.fromBytes(k.x[i], start[i].FillBytes(k.want))
		}
		if err := k.run(steps, exponent, want); err != nil {
			return err
		}
	}

	for _, f := range c.forms {
		values := numbers{new(big.Int).Mod(x, f.bound), new(big.Int).Mod(y, f.bound), c.o.n, new(big.Int).Sub(f.bound, one)}
		for i, v := range values {
			start[i] = c.o.mod(new(big.Int).Mul(v, f.inverse))
		}
		want := c.results(steps, exponent, start)
		for _, k := range f.kernels {
			for i, v := range values {
				copy(k.x[i], k.kernel.(redundant).raw(v))
			}
			if err := k.run(steps, exponent, want); err != nil {
				return fmt.Errorf("elements that are not reduced: %w", err)
			}
		}
	}
	return nil
}

// kernelEdges returns numbers that are likely to reveal wrong carries: the ends of the ranges,
// powers of two and runs of ones at and beside the borders of digits of 52 and 64 bits, and
// numbers whose low or high digits are 0. It also returns, for each form, the numbers whose
// elements have these values.
func kernelEdges(o oracle, forms []*redundantForm) []*big.Int {
	one := big.NewInt(1)
	power := func(e int) *big.Int { return new(big.Int).Lsh(one, uint(e)) }
	size := o.n.BitLen()
	edges := []*big.Int{
		new(big.Int), one, big.NewInt(2), new(big.Int).Rsh(o.n, 1),
		new(big.Int).Sub(o.n, big.NewInt(2)), new(big.Int).Sub(o.n, one),
		// All ones.
		new(big.Int).Sub(power(size), one),
		// Above N where the bound is 2N.
		new(big.Int).Add(o.n, one), new(big.Int).Sub(new(big.Int).Lsh(o.n, 1), one),
	}
	random := number(bytes.Repeat(bytesFor("edge", 0), size/256))
	for _, digit := range []int{52, 64} {
		last := size / digit * digit
		for _, border := range []int{digit, 2 * digit, 8 * digit, last - digit} {
			low := new(big.Int).Mod(random, power(border))
			edges = append(
				edges,
				power(border), power(border-1), new(big.Int).Sub(power(border), one),
				// Ones from here on, and up to here from the digit below.
				new(big.Int).Sub(power(size-1), power(border)), new(big.Int).Sub(power(border+1), power(border-digit)),
				low, new(big.Int).Sub(random, low), new(big.Int).Sub(o.n, new(big.Int).Mod(o.n, power(border))),
			)
		}
	}
	plain := len(edges)
	for _, f := range forms {
		for _, x := range edges[:plain] {
			edges = append(edges, o.mod(new(big.Int).Mul(x, f.inverse)))
		}
	}
	return edges
}

// edgeExponents returns exponents with equal digits, with one digit, and with all digits.
func edgeExponents() [][]byte {
	names := []string{"0", "1", "2^255", "all ones", "random", "digits from 0", "digits from 7"}
	var e [][]byte
	for _, name := range names {
		e = append(e, exponents()[name])
	}
	return e
}

// operation returns the operation of a program on x and y that sets z.
func operation(op, z, x, y byte) byte { return op<<6 | z<<4 | x<<2 | y }

// chain is a program whose operations use results of each other, with destinations that are
// also one or both operands.
var chain = program{
	operation(opSum, 2, 0, 2),     // a + -a: 0, or N
	operation(opProduct, 2, 2, 1), // times b
	operation(opSum, 0, 0, 0),
	operation(opProduct, 3, 0, 1),
	operation(opSum, 1, 1, 3),
	operation(opSum, 1, 1, 1),
	operation(opSquare, 3, 1, 0),
	operation(opSquare, 1, 1, 0),
	operation(opSum, 0, 2, 3),
	operation(opProduct, 0, 0, 0),
	operation(opBytes, 2, 0, 0),
	operation(opProduct, 1, 2, 1),
}

// TestKernelEdges: all kernels agree with math/big for all numbers of kernelEdges and for some
// powers of them.
func TestKernelEdges(t *testing.T) {
	t.Parallel()
	for _, p := range arithmeticProfiles() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			c, powers := newComparison(p), edgeExponents()
			for i := 0; i < len(c.edges); i += 2 {
				var e []byte
				if i%36 == 0 {
					e = powers[i/36%len(powers)]
				}
				if err := c.differences(chain, c.edges[i].Bytes(), c.edges[(i+1)%len(c.edges)].Bytes(), e); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestKernelPrograms: all kernels agree with math/big for any sequence of operations, on
// numbers of kernelEdges and random ones.
func TestKernelPrograms(t *testing.T) {
	t.Parallel()
	groups := everyComparison()
	rapid.Check(t, func(t *rapid.T) {
		c := groups[rapid.IntRange(0, len(groups)-1).Draw(t, "group")]
		operand := rapid.OneOf(
			rapid.Map(rapid.SampledFrom(c.edges), (*big.Int).Bytes),
			rapid.SliceOfN(rapid.Byte(), 1, c.o.size()+1),
		)
		a, b := operand.Draw(t, "a"), operand.Draw(t, "b")
		steps := program(rapid.SliceOfN(rapid.Byte(), 1, longestProgram).Draw(t, "program"))
		var e []byte
		// Powers take most of the time.
		if rapid.IntRange(0, 11).Draw(t, "power") == 0 {
			e = rapid.OneOf(rapid.SampledFrom(edgeExponents()), rapid.SliceOfN(rapid.Byte(), PrivateSize, PrivateSize)).Draw(t, "exponent")
		}
		if err := c.differences(steps, a, b, e); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzKernels: all kernels agree with math/big for any sequence of operations on any operands.
// Only an exponent of PrivateSize bytes adds powers, which take most of the time.
func FuzzKernels(f *testing.F) {
	groups := everyComparison()
	for which, c := range groups {
		// Some of those that TestKernelEdges has.
		for i := range 12 {
			var e []byte
			if i == 0 {
				e = edgeExponents()[len(edgeExponents())-1-which]
			}
			f.Add(byte(which), c.edges[i].Bytes(), c.edges[len(c.edges)-1-7*i].Bytes(), []byte(chain), e)
		}
	}
	f.Fuzz(func(t *testing.T, which byte, a, b, steps, exponent []byte) {
		c := groups[int(which)%len(groups)]
		size := c.o.size() + 1
		if err := c.differences(program(steps), a[:min(len(a), size)], b[:min(len(b), size)], exponent); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	})
}
