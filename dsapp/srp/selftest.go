package srp

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"filippo.io/bigmod"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// newTestedKernel returns a new kernel for the group, or nil if it fails its self-test.
func (f *field) newTestedKernel(i implementation) (k kernel) {
	defer func() {
		// The value of a panic could contain secrets, so it is not logged.
		if recover() != nil {
			k = nil
		}
	}()
	k = i.new(f.prime, f.generator)
	t := newKernelTest(f, k)
	for _, check := range []func(){t.checkKnownAnswers, t.checkCarries, func() { t.checkPowers(t.checkOperations()) }, t.checkTable} {
		if check(); t.failed {
			return nil
		}
	}
	return k
}

// knownAnswers has, for each prime, the SHA-256 of
//
//	x*y | x*x | x+y | x^e | g^e | g^(2^256-1)
//
// modulo the prime, each padded to its size. x consists of the hashes of "self-test x"
// followed by a byte that counts from 0, cut to the size of the prime, with its top bit
// cleared; y in the same way of "self-test y". e is the hash of "self-test e". All hashes
// are SHA-256.
var knownAnswers = map[string]string{
	primeOf("rfc5054-2048"): "2750cb83a5368825f0f283ae383421e1c76a158085233cab0354c6b8ac669310",
	primeOf("rfc5054-3072"): "420febc0b202cd9a6f9b699ed16a73e3431bf4c68c1d619440410a632ef2c127",
	primeOf("rfc5054-4096"): "4a6b0b7e0b54f46ee3ed4af8bf8497c273263efd5ccf51ac761c52ad6a9f28be",
}

// primeOf returns the hexadecimal digits of the prime of a group.
func primeOf(name string) string {
	g, ok := variant.FindGroup(name)
	if !ok {
		panic("srp: unknown group " + name)
	}
	return g.Prime
}

// kernelTest is the self-test of a kernel. It does every operation with the kernel and
// with bigmod and compares the results. The first exchange waits for it, so it is to take a
// few milliseconds for a kernel in assembly: it needs no table of the portable kernel and
// uses few powers by bigmod.
type kernelTest struct {
	p *field
	k kernel
	c calculator
	m *bigmod.Modulus
	// failed is true once a result was wrong.
	failed bool
}

// testNumber is a number in the form of the kernel and in that of bigmod.
type testNumber struct {
	element element
	nat     *bigmod.Nat
}

func newKernelTest(p *field, k kernel) *kernelTest {
	m, err := bigmod.NewModulus(p.prime)
	if err != nil {
		panic("srp: " + err.Error())
	}
	return &kernelTest{p: p, k: k, c: k.calculator(), m: m}
}

// number returns the number with the given bytes modulo the prime.
func (t *kernelTest) number(b []byte) testNumber {
	n := t.nat(b)
	x := testNumber{newElements(t.k, 1)[0], n}
	t.c.fromBytes(x.element, n.Bytes(t.m))
	t.check(x)
	return x
}

// nat returns the number with the given bytes modulo the prime, by bigmod.
func (t *kernelTest) nat(b []byte) *bigmod.Nat {
	n, err := bigmod.NewNat().SetOverflowingBytes(b, t.m)
	if err != nil {
		panic("srp: " + err.Error())
	}
	return n
}

// small returns a number below 256.
func (t *kernelTest) small(x byte) testNumber { return t.number(t.p.pad([]byte{x})) }

func (t *kernelTest) random() testNumber {
	b := make([]byte, t.p.Size())
	rand.Read(b)
	return t.number(b)
}

// check compares the two forms of x.
func (t *kernelTest) check(x testNumber) {
	t.failed = t.failed || !bytes.Equal(t.bytes(x), x.nat.Bytes(t.m))
}

// bytes returns the number that the kernel has for x.
func (t *kernelTest) bytes(x testNumber) []byte {
	b := make([]byte, t.p.Size())
	t.c.toBytes(b, x.element)
	return b
}

// product sets z to x*y and checks it, as the other operations do. z may be x or y.
func (t *kernelTest) product(z, x, y testNumber) {
	t.c.product(z.element, x.element, y.element)
	n := copyOf(x.nat, t.m).Mul(y.nat, t.m)
	copy(z.nat.Bits(), n.Bits())
	t.check(z)
}

// sum sets z to x+y.
func (t *kernelTest) sum(z, x, y testNumber) {
	t.c.sum(z.element, x.element, y.element)
	n := copyOf(x.nat, t.m).Add(y.nat, t.m)
	copy(z.nat.Bits(), n.Bits())
	t.check(z)
}

// power sets z to base^e and checks that it is the given number.
func (t *kernelTest) power(z, base testNumber, e *[PrivateSize]byte, number *bigmod.Nat) {
	t.c.power(z.element, base.element, e)
	copy(z.nat.Bits(), number.Bits())
	t.check(z)
}

// powerOf returns base^e as computed by the kernel only.
func (t *kernelTest) powerOf(base testNumber, e *[PrivateSize]byte) testNumber {
	z := testNumber{element: newElements(t.k, 1)[0]}
	t.c.power(z.element, base.element, e)
	return t.number(t.bytes(z))
}

// checkPowerG checks that the kernel computes g^e as the given number.
func (t *kernelTest) checkPowerG(e *[PrivateSize]byte, want testNumber) {
	z := testNumber{newElements(t.k, 1)[0], want.nat}
	t.c.powerG(z.element, e)
	t.check(z)
}

// checkKnownAnswers checks the answers of knownAnswers. Only the groups of tests have none.
func (t *kernelTest) checkKnownAnswers() {
	want, ok := knownAnswers[fmt.Sprintf("%X", t.p.prime)]
	if !ok {
		return
	}
	x, y := t.number(t.expand("self-test x")), t.number(t.expand("self-test y"))
	e, ones := sha256.Sum256([]byte("self-test e")), allOnes()
	z := testNumber{element: newElements(t.k, 1)[0]}
	h := sha256.New()
	for _, compute := range []func(){
		func() { t.c.product(z.element, x.element, y.element) },
		func() { t.c.product(z.element, x.element, x.element) },
		func() { t.c.sum(z.element, x.element, y.element) },
		func() { t.c.power(z.element, x.element, &e) },
		func() { t.c.powerG(z.element, &e) },
		func() { t.c.powerG(z.element, &ones) },
	} {
		compute()
		h.Write(t.bytes(z))
	}
	t.failed = t.failed || fmt.Sprintf("%x", h.Sum(nil)) != want
}

// expand returns x or y of knownAnswers.
func (t *kernelTest) expand(label string) []byte {
	var b []byte
	for i := byte(0); len(b) < t.p.Size(); i++ {
		h := sha256.Sum256(append([]byte(label), i))
		b = append(b, h[:]...)
	}
	b[0] &= 0x7F
	return b[:t.p.Size()]
}

func allOnes() (e [PrivateSize]byte) {
	for i := range e {
		e[i] = 0xFF
	}
	return e
}

// checkOperations checks products, squares and sums of all pairs of 0, 1, N-1 and random
// numbers. Then it computes with the results in place, whose elements are not always
// reduced, and returns the last one.
func (t *kernelTest) checkOperations() testNumber {
	x := []testNumber{t.small(0), t.small(1), t.number(t.p.minusOne), t.random(), t.random()}
	z := t.random()
	for _, a := range x {
		for _, b := range x {
			t.product(z, a, b)
			t.sum(z, a, b)
		}
	}
	for range 8 {
		for _, y := range x[2:] {
			t.sum(z, y, z)
			t.product(z, y, z)
			for range 3 {
				t.sum(z, z, z)
			}
		}
		t.product(z, z, z)
	}
	for _, y := range x {
		t.check(y)
	}
	return z
}

// checkCarries checks numbers whose elements have long runs of zeros or ones. In these a
// carry passes through many digits, across words, registers and masks, which random
// numbers hardly ever cause.
func (t *kernelTest) checkCarries() {
	size := 8 * t.p.Size()
	// The inverse of 2 is (N-1)/2 + 1.
	half := make([]byte, len(t.p.prime))
	carry := byte(0)
	for i, b := range t.p.prime {
		half[i], carry = b>>1|carry<<7, b&1
	}
	inverse := bigmod.NewNat().Exp(t.nat(half).Add(t.nat(t.p.one), t.m), binary.BigEndian.AppendUint16(nil, uint16(t.k.radixBits())), t.m)

	for e := range size - 2 {
		if e%(8*52) > 52 || e%52 != 0 && e%(8*64) != 0 {
			continue
		}
		// power has bit e. gap has bit e and random bits well below it. run has all bits
		// from e up, except for the highest one. All have the second highest bit: a kernel
		// may add N to an element that is smaller.
		power, gap, run := make([]byte, t.p.Size()), make([]byte, t.p.Size()), make([]byte, t.p.Size())
		lowest := len(power) - 1 - e/8
		power[lowest] = 1 << (e % 8)
		gap[lowest] = power[lowest]
		rand.Read(gap[min(lowest+8, len(gap)):])
		for i := range lowest {
			run[i] = 0xFF
		}
		run[lowest] = -power[lowest]
		run[0] &= 0x7F
		power[0] |= 0x40
		gap[0] |= 0x40
		for _, element := range [][]byte{power, gap, run} {
			t.number(t.nat(element).Mul(inverse, t.m).Bytes(t.m))
		}
	}
}

// checkTable checks that g^(dd...d), with the digit d everywhere, is g^(11...1) to the power
// of d. This reads every entry of the table of powers.
func (t *kernelTest) checkTable() {
	var e [PrivateSize]byte
	want, step := t.small(1), testNumber{}
	for d := range windowSize {
		for i := range e {
			e[i] = byte(d<<windowBits | d)
		}
		if d == 1 {
			step = t.powerOf(t.small(t.p.generator), &e)
		}
		if d > 0 {
			t.product(want, want, step)
		}
		t.checkPowerG(&e, want)
	}
}

// checkPowers checks powers of x, the result of many operations, and of 0, N-1 and g: those
// that are known in advance, one with an exponent of 64 bits by bigmod, and powers of g by
// comparing power and powerG.
func (t *kernelTest) checkPowers(x testNumber) {
	var zero, one, e [PrivateSize]byte
	one[PrivateSize-1] = 1
	ones := allOnes()
	rand.Read(e[:])
	var short [PrivateSize]byte
	copy(short[PrivateSize-8:], e[:])

	z := t.small(0)
	t.power(z, x, &zero, t.small(1).nat)
	t.power(z, t.number(t.p.minusOne), &ones, t.number(t.p.minusOne).nat)
	t.power(z, t.small(0), &ones, t.small(0).nat)
	t.power(x, x, &short, bigmod.NewNat().Exp(copyOf(x.nat, t.m), short[PrivateSize-8:], t.m))

	g := t.small(t.p.generator)
	t.checkPowerG(&one, g)
	t.checkPowerG(&e, t.powerOf(g, &e))
}
