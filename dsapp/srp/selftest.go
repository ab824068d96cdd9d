package srp

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"filippo.io/bigmod"
)

// serving returns the first of the implementations that serves the group and passes
// its test, and the names of those that did not pass. The portable one, which the others are
// compared with, is left if none does.
func (p *Profile) serving(from []implementation) (k kernel, name string, failed []string) {
	for _, i := range from {
		if !i.supported(8 * p.Size()) {
			continue
		}
		if k := p.tested(i); k != nil {
			return k, i.name, failed
		}
		failed = append(failed, i.name)
	}
	return newPortable(p.prime, p.generator), "portable", failed
}

// tested returns a kernel that has passed its test, or nil.
func (p *Profile) tested(i implementation) (k kernel) {
	defer func() {
		// What a panic says could hold numbers: nobody shall see it.
		if recover() != nil {
			k = nil
		}
	}()
	k = i.new(p.prime, p.generator)
	t := newKernelTest(p, k)
	t.known()
	t.carries()
	t.powers(t.operations())
	t.table()
	if t.wrong {
		return nil
	}
	return k
}

// knownAnswers are the SHA-256, by prime, of
//
//	x*y | x*x | x+y | x^e | g^e | g^(2^256-1)
//
// modulo the prime, each padded. x and y are as many bytes as the prime has of the
// hashes of "self-test x" and "self-test y", each with one byte more that counts
// from 0, without the top bit. e is the hash of "self-test e".
var knownAnswers = map[string]string{
	prime2048: "2750cb83a5368825f0f283ae383421e1c76a158085233cab0354c6b8ac669310",
	prime3072: "420febc0b202cd9a6f9b699ed16a73e3431bf4c68c1d619440410a632ef2c127",
	prime4096: "4a6b0b7e0b54f46ee3ed4af8bf8497c273263efd5ccf51ac761c52ad6a9f28be",
}

// kernelTest compares a kernel with bigmod, by numbers that are kept in both. It is
// to take some milliseconds for a kernel in assembly, and not many more for another,
// so there is no table of the portable kernel and little exponentiation by bigmod.
type kernelTest struct {
	p *Profile
	k kernel
	c calculator
	m *bigmod.Modulus
	// wrong tells that something differed.
	wrong bool
}

// twin is a number as the kernel has it, and as bigmod has it.
type twin struct {
	element element
	nat     *bigmod.Nat
}

func newKernelTest(p *Profile, k kernel) *kernelTest {
	m, err := bigmod.NewModulus(p.prime)
	if err != nil {
		panic("srp: " + err.Error())
	}
	return &kernelTest{p: p, k: k, c: k.calculator(), m: m}
}

// of returns the number with the given bytes, less any multiple of the prime.
func (t *kernelTest) of(b []byte) twin {
	n := t.nat(b)
	x := twin{newElements(t.k, 1)[0], n}
	t.c.fromBytes(x.element, n.Bytes(t.m))
	t.same(x)
	return x
}

// nat returns the number as bigmod has it alone.
func (t *kernelTest) nat(b []byte) *bigmod.Nat {
	n, err := bigmod.NewNat().SetOverflowingBytes(b, t.m)
	if err != nil {
		panic("srp: " + err.Error())
	}
	return n
}

// small returns a number below 256.
func (t *kernelTest) small(x byte) twin { return t.of(t.p.pad([]byte{x})) }

func (t *kernelTest) random() twin {
	b := make([]byte, t.p.Size())
	rand.Read(b)
	return t.of(b)
}

// same compares the two numbers of x.
func (t *kernelTest) same(x twin) {
	t.wrong = t.wrong || !bytes.Equal(t.bytes(x), x.nat.Bytes(t.m))
}

// bytes returns x as the kernel has it.
func (t *kernelTest) bytes(x twin) []byte {
	b := make([]byte, t.p.Size())
	t.c.toBytes(b, x.element)
	return b
}

// product sets z to x*y. Like the other operations it compares the results. z may
// be x or y.
func (t *kernelTest) product(z, x, y twin) {
	t.c.product(z.element, x.element, y.element)
	n := copyOf(x.nat, t.m).Mul(y.nat, t.m)
	copy(z.nat.Bits(), n.Bits())
	t.same(z)
}

// sum sets z to x+y.
func (t *kernelTest) sum(z, x, y twin) {
	t.c.sum(z.element, x.element, y.element)
	n := copyOf(x.nat, t.m).Add(y.nat, t.m)
	copy(z.nat.Bits(), n.Bits())
	t.same(z)
}

// power sets z to base^e, which is the given number.
func (t *kernelTest) power(z, base twin, e *[PrivateSize]byte, number *bigmod.Nat) {
	t.c.power(z.element, base.element, e)
	copy(z.nat.Bits(), number.Bits())
	t.same(z)
}

// powerOf returns what the kernel alone says that base^e is.
func (t *kernelTest) powerOf(base twin, e *[PrivateSize]byte) twin {
	z := twin{element: newElements(t.k, 1)[0]}
	t.c.power(z.element, base.element, e)
	return t.of(t.bytes(z))
}

// powerG compares g^e with what power has found it to be.
func (t *kernelTest) powerG(e *[PrivateSize]byte, found twin) {
	z := twin{newElements(t.k, 1)[0], found.nat}
	t.c.powerG(z.element, e)
	t.same(z)
}

// known computes the known answers. Only tests have groups without.
func (t *kernelTest) known() {
	want, ok := knownAnswers[fmt.Sprintf("%X", t.p.prime)]
	if !ok {
		return
	}
	x, y := t.of(t.expand("self-test x")), t.of(t.expand("self-test y"))
	e, ones := sha256.Sum256([]byte("self-test e")), allOnes()
	z := twin{element: newElements(t.k, 1)[0]}
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
	t.wrong = t.wrong || fmt.Sprintf("%x", h.Sum(nil)) != want
}

// expand returns the number of the known answers that the label is for.
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

// operations compares products, squares and sums of all pairs of numbers at the
// edges and random ones, and then goes on from result to result in place: those are
// not always reduced. It returns the last one.
func (t *kernelTest) operations() twin {
	x := []twin{t.small(0), t.small(1), t.of(t.p.minusOne), t.random(), t.random()}
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
		t.same(y)
	}
	return z
}

// carries compares numbers whose elements have long runs of zeros or ones. Carries
// go through those from digit to digit, over the borders of words, registers and
// masks, as they hardly ever do for other numbers.
func (t *kernelTest) carries() {
	size := 8 * t.p.Size()
	// The inverse of 2 is (N-1)/2 + 1.
	half := make([]byte, len(t.p.prime))
	carry := byte(0)
	for i, b := range t.p.prime {
		half[i], carry = b>>1|carry<<7, b&1
	}
	inverse := bigmod.NewNat().Exp(t.nat(half).Add(t.nat(t.p.one), t.m), binary.BigEndian.AppendUint16(nil, uint16(t.k.radix())), t.m)

	for e := range size - 2 {
		if e%(8*52) > 52 || e%52 != 0 && e%(8*64) != 0 {
			continue
		}
		// The bit e; that and anything some way below; all from e to the last but one,
		// which all have, for a product can make a small element N more.
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
			t.of(t.nat(element).Mul(inverse, t.m).Bytes(t.m))
		}
	}
}

// table compares g^(11...1) to the power of every digit with g to the exponent that
// has that digit everywhere, so that every entry of the table of powers is read.
func (t *kernelTest) table() {
	var e [PrivateSize]byte
	want, step := t.small(1), twin{}
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
		t.powerG(&e, want)
	}
}

// powers compares powers of x, which a chain of operations made, and of numbers at the
// edges: with bigmod for an exponent of 64 bits, with what is known beforehand, and
// the two ways to powers of the generator with each other.
func (t *kernelTest) powers(x twin) {
	var zero, one, e [PrivateSize]byte
	one[PrivateSize-1] = 1
	ones := allOnes()
	rand.Read(e[:])
	var short [PrivateSize]byte
	copy(short[PrivateSize-8:], e[:])

	z := t.small(0)
	t.power(z, x, &zero, t.small(1).nat)
	t.power(z, t.of(t.p.minusOne), &ones, t.of(t.p.minusOne).nat)
	t.power(z, t.small(0), &ones, t.small(0).nat)
	t.power(x, x, &short, bigmod.NewNat().Exp(copyOf(x.nat, t.m), short[PrivateSize-8:], t.m))

	g := t.small(t.p.generator)
	t.powerG(&one, g)
	t.powerG(&e, t.powerOf(g, &e))
}
