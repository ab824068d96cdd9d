package srp

import (
	"bytes"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// loose is a kernel with several elements for one number. What it computes with
// them need not be reduced, so it must take all of them as operands.
type loose interface {
	kernel
	// radix is the Montgomery radix R: the element of a number is that times R,
	// modulo N.
	radix() *big.Int
	// bound is what elements are below.
	bound() *big.Int
	// raw returns the element with the value x, below the bound.
	raw(x *big.Int) element
	// value returns the value of an element. It panics for what is none.
	value(x element) *big.Int
}

func (k *radix64) radix() *big.Int {
	return new(big.Int).Lsh(big.NewInt(1), uint(8*wordSize*len(k.prime)))
}
func (k *radix64) bound() *big.Int          { return k.radix() }
func (k *radix64) raw(x *big.Int) element   { return fixedWords(x, 8*wordSize*len(k.prime)) }
func (k *radix64) value(x element) *big.Int { return bigOf(x) }

var _ loose = (*radix64)(nil)

// everyKernel returns the kernels that this machine can run in the group of a
// profile, those too that another one serves faster, by name.
func everyKernel(p *Profile) map[string]kernel {
	kernels := map[string]kernel{
		"portable": newPortable(p.prime, p.generator),
		"radix64":  newRadix64(p.prime, p.generator),
	}
	for _, i := range implementations {
		if kernels[i.name] == nil && i.supported(8*p.Size()) {
			kernels[i.name] = i.new(p.prime, p.generator)
		}
	}
	return kernels
}

// everyGroup returns what everyKernel does for each of allProfiles, made when
// first needed.
func everyGroup() []func() map[string]kernel {
	var groups []func() map[string]kernel
	for _, p := range allProfiles() {
		groups = append(groups, sync.OnceValue(func() map[string]kernel { return everyKernel(p) }))
	}
	return groups
}

// program is what calculators are made to do. Each byte is an operation: the upper
// two bits tell which, the others name the registers of result and operands.
type program []byte

// The operations of a program.
const (
	opProduct = iota
	opSquare
	opSum
	// opBytes lets an operand leave as bytes and come back, with everything wiped
	// in between.
	opBytes
)

const (
	registers = 4
	// longestProgram is how much of a program is run.
	longestProgram = 24
)

// run has a kernel and math/big carry out the program and then, for an exponent of
// PrivateSize bytes, both powers. After each step it compares the results, and
// requires that they are elements and that nothing else has changed. It starts with
// the given elements of numbers, and changes neither.
func (p program) run(k kernel, o oracle, start []element, numbers []*big.Int, exponent []byte) error {
	c := k.calculator()
	numbers = slices.Clone(numbers)
	x := newElements(k, registers)
	for i := range x {
		copy(x[i], start[i])
	}
	buffer := make([]byte, o.size())
	step := func(what string, z int, want *big.Int, do func()) error {
		before := make([]element, registers)
		for i := range x {
			before[i] = slices.Clone(x[i])
		}
		do()
		numbers[z] = o.mod(want)
		before[z] = slices.Clone(x[z])
		c.toBytes(buffer, x[z])
		if !bytes.Equal(buffer, o.fixed(numbers[z])) {
			return fmt.Errorf("%s is %x, want %x", what, buffer, numbers[z])
		}
		if l, ok := k.(loose); ok && l.value(x[z]).Cmp(l.bound()) >= 0 {
			return fmt.Errorf("%s is the element %x, which is too large", what, l.value(x[z]))
		}
		for i := range x {
			if !slices.Equal(x[i], before[i]) {
				return fmt.Errorf("%s changed register %d", what, i)
			}
		}
		return nil
	}

	for i, b := range p[:min(len(p), longestProgram)] {
		var err error
		op, z, a, b := b>>6, int(b>>4%registers), int(b>>2%registers), int(b%registers)
		name := func(operation string) string {
			return fmt.Sprintf("step %d: %s of registers %d, %d (%x, %x), into %d,", i, operation, a, b, numbers[a], numbers[b], z)
		}
		switch op {
		case opProduct:
			err = step(name("product"), z, new(big.Int).Mul(numbers[a], numbers[b]), func() { c.product(x[z], x[a], x[b]) })
		case opSquare:
			err = step(name("square"), z, new(big.Int).Mul(numbers[a], numbers[a]), func() { c.product(x[z], x[a], x[a]) })
		case opSum:
			err = step(name("sum"), z, new(big.Int).Add(numbers[a], numbers[b]), func() { c.sum(x[z], x[a], x[b]) })
		case opBytes:
			err = step(name("bytes"), z, new(big.Int).Set(numbers[a]), func() {
				c.toBytes(buffer, x[a])
				c.wipe()
				c.fromBytes(x[z], buffer)
			})
		}
		if err != nil {
			return err
		}
	}
	if len(exponent) != PrivateSize {
		return nil
	}
	e, secret := number(exponent), [PrivateSize]byte(exponent)
	z := int(exponent[PrivateSize-1] % registers)
	if err := step("power of the generator", 3, o.exp(o.g, e), func() { c.powerG(x[3], &secret) }); err != nil {
		return err
	}
	if err := step("power", z, o.exp(numbers[0], e), func() { c.power(x[z], x[0], &secret) }); err != nil {
		return err
	}
	if !bytes.Equal(secret[:], exponent) {
		return fmt.Errorf("exponent %x became %x", exponent, secret)
	}
	return step("product of powers", z, new(big.Int).Mul(numbers[z], numbers[3]), func() { c.product(x[z], x[z], x[3]) })
}

// differences runs the program with every kernel: with the numbers a, b and -a,
// and where the kernel is loose also with elements that have the values of a and b,
// N, which is another element of 0, and the largest.
func (p program) differences(o oracle, kernels map[string]kernel, a, b, exponent []byte) error {
	x, y := number(a), number(b)
	for _, name := range slices.Sorted(maps.Keys(kernels)) {
		k := kernels[name]
		one := big.NewInt(1)
		numbers := []*big.Int{new(big.Int).Mod(x, o.n), new(big.Int).Mod(y, o.n), new(big.Int).Neg(x), one}
		o.mod(numbers[2])
		start := newElements(k, registers)
		c := k.calculator()
		for i := range start {
			c.fromBytes(start[i], o.fixed(numbers[i]))
		}
		if err := p.run(k, o, start, numbers, exponent); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}

		l, ok := k.(loose)
		if !ok {
			continue
		}
		inverse := new(big.Int).ModInverse(l.radix(), o.n)
		values := []*big.Int{new(big.Int).Mod(x, l.bound()), new(big.Int).Mod(y, l.bound()), o.n, new(big.Int).Sub(l.bound(), one)}
		for i, v := range values {
			start[i] = l.raw(v)
			numbers[i] = o.mod(new(big.Int).Mul(v, inverse))
		}
		if err := p.run(k, o, start, numbers, exponent); err != nil {
			return fmt.Errorf("%s, elements that are not reduced: %w", name, err)
		}
	}
	return nil
}

// kernelEdges are numbers that carries go wrong at: the ends of the ranges,
// powers of two and runs of ones at the borders of digits of 52 and of 64 bits and
// beside them, and numbers whose low or high digits are all zero. The elements of
// loose kernels have digits, too: each of these numbers is there once more as what
// has it as an element.
func kernelEdges(o oracle, kernels map[string]kernel) []*big.Int {
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
	done := map[string]bool{}
	for _, k := range kernels {
		l, ok := k.(loose)
		if !ok || done[l.radix().String()] {
			continue
		}
		done[l.radix().String()] = true
		inverse := new(big.Int).ModInverse(l.radix(), o.n)
		for _, x := range edges[:plain] {
			edges = append(edges, o.mod(new(big.Int).Mul(x, inverse)))
		}
	}
	return edges
}

// edgeExponents are exponents with all digits alike, with one digit, and one with
// all digits there are.
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

// chain is a program in which every operation gets operands from others, and
// results that take the place of one or both operands.
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

// TestKernelEdges: all kernels and math/big agree at all edges, and in a few of
// their powers.
func TestKernelEdges(t *testing.T) {
	t.Parallel()
	for _, p := range allProfiles() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			o, kernels, powers := oracleOf(p), everyKernel(p), edgeExponents()
			edges := kernelEdges(o, kernels)
			for i := 0; i < len(edges); i += 2 {
				var e []byte
				if i%36 == 0 {
					e = powers[i/36%len(powers)]
				}
				if err := chain.differences(o, kernels, edges[i].Bytes(), edges[(i+1)%len(edges)].Bytes(), e); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestKernelPrograms: all kernels and math/big agree in whatever operations follow
// each other, on edges and on numbers that look random.
func TestKernelPrograms(t *testing.T) {
	t.Parallel()
	groups := everyGroup()
	rapid.Check(t, func(t *rapid.T) {
		which := rapid.IntRange(0, len(groups)-1).Draw(t, "group")
		o, kernels := oracleOf(allProfiles()[which]), groups[which]()
		operand := rapid.OneOf(
			rapid.Map(rapid.SampledFrom(kernelEdges(o, kernels)), (*big.Int).Bytes),
			rapid.SliceOfN(rapid.Byte(), 1, o.size()+1),
		)
		a, b := operand.Draw(t, "a"), operand.Draw(t, "b")
		steps := program(rapid.SliceOfN(rapid.Byte(), 1, longestProgram).Draw(t, "program"))
		var e []byte
		// Powers take most of the time.
		if rapid.IntRange(0, 11).Draw(t, "power") == 0 {
			e = rapid.OneOf(rapid.SampledFrom(edgeExponents()), rapid.SliceOfN(rapid.Byte(), PrivateSize, PrivateSize)).Draw(t, "exponent")
		}
		if err := steps.differences(o, kernels, a, b, e); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzKernels compares all kernels that this machine can run with each other,
// by way of math/big: chains of operations on any operands, reduced or not. Only
// exponents of PrivateSize bytes are computed with, since powers take most of the
// time.
func FuzzKernels(f *testing.F) {
	groups := everyGroup()
	for which, p := range allProfiles() {
		o := oracleOf(p)
		edges, powers := kernelEdges(o, groups[which]()), edgeExponents()
		// Some of those that TestKernelEdges has.
		for i := range 12 {
			e := powers[i%len(powers)]
			if i%4 > 0 {
				e = nil
			}
			f.Add(byte(which), edges[i].Bytes(), edges[len(edges)-1-7*i].Bytes(), []byte(chain), e)
		}
	}
	f.Fuzz(func(t *testing.T, which byte, a, b, steps, exponent []byte) {
		i := int(which) % len(groups)
		o := oracleOf(allProfiles()[i])
		size := o.size() + 1
		if err := program(steps).differences(o, groups[i](), a[:min(len(a), size)], b[:min(len(b), size)], exponent); err != nil {
			t.Fatalf("%s: %v", allProfiles()[i].name, err)
		}
	})
}
