package srp

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"testing"
)

// TestKnownAnswers: the known answers of all profiles agree with math/big.
func TestKnownAnswers(t *testing.T) {
	t.Parallel()
	expand := func(label string, size int) *big.Int {
		var b []byte
		for i := range (size + 31) / 32 {
			h := sha256.Sum256(append([]byte(label), byte(i)))
			b = append(b, h[:]...)
		}
		x := number(b[:size])
		return x.SetBit(x, 8*size-1, 0)
	}
	if len(knownAnswers) != len(profiles) {
		t.Errorf("%d groups have known answers, want %d", len(knownAnswers), len(profiles))
	}
	for _, p := range profiles {
		o := oracleOf(p)
		x, y := expand("self-test x", o.size()), expand("self-test y", o.size())
		h := sha256.Sum256([]byte("self-test e"))
		e := number(h[:])
		ones := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))
		digest := o.h(
			o.fixed(o.mod(new(big.Int).Mul(x, y))), o.fixed(o.mod(new(big.Int).Mul(x, x))), o.fixed(o.mod(new(big.Int).Add(x, y))),
			o.fixed(o.exp(x, e)), o.fixed(o.exp(o.g, e)), o.fixed(o.exp(o.g, ones)))
		if got := knownAnswers[fmt.Sprintf("%X", p.prime)]; got != fmt.Sprintf("%x", digest) {
			t.Errorf("%s: %s, want %x", p.name, got, digest)
		}
	}
}

// TestKernelsPass: every kernel that this processor supports passes the self-test, and the
// first of them is selected.
func TestKernelsPass(t *testing.T) {
	t.Parallel()
	for _, p := range arithmeticProfiles() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			var first string
			for _, i := range slices.Backward(allImplementations) {
				if !i.supported(8 * p.Size()) {
					continue
				}
				first = i.name
				if p.newTestedKernel(i) == nil {
					t.Fatalf("%s has failed", i.name)
				}
			}
			if p.Kernel() != first {
				t.Errorf("%s serves, want %s", p.Kernel(), first)
			}
			if failed := p.takeFailures(); failed != nil {
				t.Errorf("%v have failed", failed)
			}
		})
	}
}

// faultyKernel is a kernel with a fault.
type faultyKernel struct {
	kernel
	fault fault
}

// fault decides whether the result of an operation is to be wrong. It gets the name of the
// operation and its one or two operands as bytes.
type fault func(c faulty, operation string, operands ...[]byte) (wrong bool)

func (k faultyKernel) calculator() calculator { return faulty{k.kernel.calculator(), k} }

type faulty struct {
	calculator
	k faultyKernel
}

// bytesOf returns x as bytes, without the fault.
func (c faulty) bytesOf(x element) []byte {
	return makerOf(c.k.kernel).toBytes(profiles[0].Size(), x)
}

// spoil makes z wrong if the fault decides so.
func (c faulty) spoil(z element, operation string, operands ...[]byte) {
	if c.k.fault(c, operation, operands...) {
		// Another number below N: its lowest bit changes unless it is N-1.
		m := makerOf(c.k.kernel)
		copy(z, m.sum(z, m.fromBytes(profiles[0].one)))
	}
}

func (c faulty) fromBytes(z element, b []byte) {
	c.calculator.fromBytes(z, b)
	c.spoil(z, "fromBytes", b)
}

func (c faulty) toBytes(b []byte, x element) {
	c.calculator.toBytes(b, x)
	if c.k.fault(c, "toBytes", bytes.Clone(b)) {
		b[len(b)-1] ^= 1
	}
}

// places says which operands are also the destination.
func places(z, x, y element) (s string) {
	if &z[0] == &x[0] {
		s += ", in place of x"
	}
	if &z[0] == &y[0] {
		s += ", in place of y"
	}
	return s
}

func (c faulty) product(z, x, y element) {
	operation := "product"
	if &x[0] == &y[0] {
		operation = "square"
	}
	operation += places(z, x, y)
	a, b := c.bytesOf(x), c.bytesOf(y)
	c.calculator.product(z, x, y)
	c.spoil(z, operation, a, b)
}

func (c faulty) sum(z, x, y element) {
	operation := "sum" + places(z, x, y)
	a, b := c.bytesOf(x), c.bytesOf(y)
	c.calculator.sum(z, x, y)
	c.spoil(z, operation, a, b)
}

func (c faulty) power(z, base element, e *[PrivateSize]byte) {
	operation := "power"
	if &z[0] == &base[0] {
		operation += ", in place"
	}
	b := c.bytesOf(base)
	c.calculator.power(z, base, e)
	c.spoil(z, operation, b, e[:])
}

func (c faulty) powerG(z element, e *[PrivateSize]byte) {
	c.calculator.powerG(z, e)
	c.spoil(z, "powerG", e[:])
}

// faults returns the faults that the self-test must find.
func faults(p *Profile) map[string]fault {
	zero := make([]byte, p.Size())
	all := map[string]fault{
		"every product, in place of y": func(_ faulty, operation string, _ ...[]byte) bool { return operation == "product, in place of y" },
		"every square, in place": func(_ faulty, operation string, _ ...[]byte) bool {
			return operation == "square, in place of x, in place of y"
		},
		"every sum, in place of y": func(_ faulty, operation string, _ ...[]byte) bool { return operation == "sum, in place of y" },
		"every power, in place":    func(_ faulty, operation string, _ ...[]byte) bool { return operation == "power, in place" },
		"a panic when numbers are equal": func(_ faulty, operation string, operands ...[]byte) bool {
			if operation == "sum" && bytes.Equal(operands[0], operands[1]) {
				panic(fmt.Sprintf("secret %x", operands[0]))
			}
			return false
		},
	}
	for _, operation := range []string{"fromBytes", "toBytes", "product", "square", "sum", "power", "powerG"} {
		all["every "+operation] = func(_ faulty, o string, _ ...[]byte) bool { return o == operation }
		all["a panic in "+operation] = func(_ faulty, o string, _ ...[]byte) bool {
			if o == operation {
				panic("secret")
			}
			return false
		}
		if operation == "powerG" {
			continue
		}
		for name, x := range map[string][]byte{"0": zero, "N-1": p.minusOne} {
			all[operation+" of "+name] = func(_ faulty, o string, operands ...[]byte) bool {
				return o == operation && bytes.Equal(operands[0], x)
			}
			if operation == "product" || operation == "sum" {
				all[operation+" with "+name] = func(_ faulty, o string, operands ...[]byte) bool {
					return o == operation && bytes.Equal(operands[1], x)
				}
			}
		}
	}
	ones := allOnes()
	for name, e := range map[string][]byte{"0": make([]byte, PrivateSize), "1": append(make([]byte, PrivateSize-1), 1), "all ones": ones[:]} {
		all["powerG for "+name] = func(_ faulty, o string, operands ...[]byte) bool {
			return o == "powerG" && bytes.Equal(operands[0], e)
		}
	}
	all["power for 0"] = func(_ faulty, o string, operands ...[]byte) bool { return o == "power" && isZero(operands[1]) }
	return all
}

// TestFaultyKernels: if a kernel computes something wrong or panics, the next one is selected,
// takeFailures returns the name of the faulty one once, and exchanges are right.
func TestFaultyKernels(t *testing.T) {
	t.Parallel()
	p := profiles[0]
	sound := kernelsOf(p)["portable"]
	always := func(int) bool { return true }
	next := implementation{"next", always, func([]byte, byte) kernel {
		return faultyKernel{sound, func(faulty, string, ...[]byte) bool { return false }}
	}}
	if p.newTestedKernel(next) == nil {
		t.Fatal("a kernel without a fault has failed")
	}
	r := oracleOf(p).exchange("e3wfISG9", "Tb048aX1", bytesFor("salt", 0)[:SaltSize], bytesFor("a", 0), bytesFor("b", 0))
	kernels := map[string]func([]byte, byte) kernel{
		"none":             func([]byte, byte) kernel { return nil },
		"a panic when new": func([]byte, byte) kernel { panic("secret") },
	}
	for name, f := range faults(p) {
		kernels[name] = func([]byte, byte) kernel { return faultyKernel{sound, f} }
	}
	for name, k := range kernels {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := *p
			g := p.newGroup(p.selectKernel([]implementation{{"bad", always, k}, next}))
			changed.group = func() *group { return g }
			if changed.Kernel() != "next" {
				t.Errorf("%s serves", changed.Kernel())
			}
			if failed := changed.takeFailures(); !slices.Equal(failed, []string{"bad"}) {
				t.Errorf("%v have failed", failed)
			}
			if again := changed.takeFailures(); again != nil {
				t.Errorf("%v have failed again", again)
			}
			compare(t, &changed, r)
		})
	}
}

// TestLastResort: if all kernels fail, the portable one is selected, and a warning is logged
// for each of the others once.
func TestLastResort(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	broken := func([]byte, byte) kernel { panic("broken") }
	changed := *p
	g := p.newGroup(p.selectKernel([]implementation{
		{"first", func(int) bool { return true }, broken},
		{"second", func(int) bool { return true }, broken},
		{"third", func(bits int) bool { return bits != 1024 }, broken},
	}))
	changed.group = func() *group { return g }
	var log bytes.Buffer
	for range 2 {
		changed.Prepare(t.Context(), slog.New(slog.NewTextHandler(&log, nil)))
	}
	warning := "level=WARN msg=\"srp kernel failed its self-test and is not used; exchanges take longer\" kernel=%s profile=" + p.name + "\n"
	serving := "level=INFO msg=\"srp kernel\" kernel=portable profile=" + p.name + "\n"
	for want, times := range map[string]int{fmt.Sprintf(warning, "first"): 1, fmt.Sprintf(warning, "second"): 1, "WARN": 2, serving: 2} {
		if n := strings.Count(log.String(), want); n != times {
			t.Errorf("%d times %q in %s", n, want, &log)
		}
	}
	if changed.Kernel() != "portable" {
		t.Errorf("%s serves", changed.Kernel())
	}
	compare(t, &changed, oracleOf(p).exchange("e3wfISG9", "Tb048aX1", bytesFor("salt", 0)[:SaltSize], bytesFor("a", 0), bytesFor("b", 0)))
}

// TestKnownAnswersCount: the known answers of a prime are part of the self-test. With another
// generator they are wrong, so that no kernel passes.
func TestKnownAnswersCount(t *testing.T) {
	t.Parallel()
	p := profileWith("another generator", prime2048, 3, profiles[0].hash)
	if p.Kernel() != "portable" {
		t.Errorf("%s serves", p.Kernel())
	}
}

// BenchmarkSelfTest measures the self-test of a kernel without making the kernel.
func BenchmarkSelfTest(b *testing.B) {
	benchKernels(b, func(b *testing.B, p *Profile, i implementation) {
		k := i.new(p.prime, p.generator)
		made := implementation{i.name, i.supported, func([]byte, byte) kernel { return k }}
		for b.Loop() {
			if p.newTestedKernel(made) == nil {
				b.Fatal("the kernel has failed")
			}
		}
	})
}
