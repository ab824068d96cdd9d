package srp

import (
	"bytes"
	"crypto/rand"
	"errors"
	"hash"
	"math"
	"math/big"
	"math/bits"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"unsafe"
)

// allImplementations are implementations and, last, the portable one.
var allImplementations = append(slices.Clone(implementations), implementation{
	name:      "portable",
	supported: func(int) bool { return true },
	new:       func(prime []byte, generator byte) kernel { return newPortable(prime, generator) },
})

// runs reports whether this processor can run the kernel for a profile, whether or not the
// kernel would be selected: radix64 supports all sizes, and is selected for some.
func (i implementation) runs(p *Profile) bool {
	return i.name == "radix64" || i.supported(8*p.Size())
}

// kernelsOf returns every kernel that this processor can run for a profile, by name,
// whether or not it would be selected.
func kernelsOf(p *Profile) map[string]kernel { return madeKernels[string(p.prime)]() }

// madeKernels makes the kernels of each prime once, since their tables take time.
var madeKernels = func() map[string]func() map[string]kernel {
	made := map[string]func() map[string]kernel{}
	for _, p := range allProfiles() {
		made[string(p.prime)] = sync.OnceValue(func() map[string]kernel {
			kernels := map[string]kernel{}
			for _, i := range allImplementations {
				if i.runs(p) {
					kernels[i.name] = i.new(p.prime, p.generator)
				}
			}
			return kernels
		})
	}
	return made
}()

// servedBy returns the profile p with the kernel k.
func (p *Profile) servedBy(k kernel, name string) *Profile {
	changed := *p
	g := p.newGroupWith(k, name)
	changed.group = func() *group { return g }
	return &changed
}

// forEachProfileKernel runs a test for a profile with the kernel that it selects, and with
// each kernel that this processor can run.
func forEachProfileKernel(t *testing.T, p *Profile, test func(t *testing.T, p *Profile)) {
	t.Helper()
	t.Run("as selected", func(t *testing.T) {
		t.Parallel()
		test(t, p)
	})
	for _, i := range allImplementations {
		if !i.runs(p) {
			continue
		}
		t.Run(i.name, func(t *testing.T) {
			t.Parallel()
			test(t, p.servedBy(kernelsOf(p)[i.name], i.name))
		})
	}
}

// maker has the operations of a kernel, with new elements and bytes as results.
type maker struct {
	kernel
	c calculator
}

func makerOf(k kernel) maker { return maker{k, k.calculator()} }

// made returns a new element set by compute.
func (m maker) made(compute func(z element)) element {
	z := newElements(m.kernel, 1)[0]
	compute(z)
	return z
}

func (m maker) fromBytes(b []byte) element {
	return m.made(func(z element) { m.c.fromBytes(z, b) })
}

func (m maker) toBytes(size int, x element) []byte {
	b := make([]byte, size)
	m.c.toBytes(b, x)
	return b
}

func (m maker) product(x, y element) element {
	return m.made(func(z element) { m.c.product(z, x, y) })
}

func (m maker) sum(x, y element) element {
	return m.made(func(z element) { m.c.sum(z, x, y) })
}

func (m maker) power(base element, e *[PrivateSize]byte) element {
	return m.made(func(z element) { m.c.power(z, base, e) })
}

func (m maker) powerG(e *[PrivateSize]byte) element {
	return m.made(func(z element) { m.c.powerG(z, e) })
}

// forEachKernel runs a test for every kernel of every profile.
func forEachKernel(t *testing.T, test func(t *testing.T, k maker, o oracle)) {
	t.Helper()
	for _, p := range arithmeticProfiles() {
		for name, k := range kernelsOf(p) {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				test(t, makerOf(k), oracleOf(p))
			})
		}
	}
}

// operands returns numbers that are likely to reveal wrong carries, and some random ones.
func (o oracle) operands() []*big.Int {
	one := big.NewInt(1)
	bits := uint(o.n.BitLen())
	x := []*big.Int{
		big.NewInt(0), one, big.NewInt(2), o.g,
		new(big.Int).Sub(o.n, big.NewInt(2)), new(big.Int).Sub(o.n, one), new(big.Int).Rsh(o.n, 1),
		new(big.Int).Lsh(one, bits-1), new(big.Int).Sub(new(big.Int).Lsh(one, bits-1), one),
		new(big.Int).Lsh(one, 64), new(big.Int).Sub(new(big.Int).Lsh(one, 64), one),
	}
	for n := range 8 {
		var b []byte
		for i := range o.size() / 32 {
			b = append(b, bytesFor("operand", 100*n+i)...)
		}
		x = append(x, o.mod(number(b)))
	}
	return x
}

// exponents returns patterns that an exponentiation could treat differently, and exponents
// that read every digit from every window.
func exponents() map[string][]byte {
	e := map[string][]byte{
		"0":        make([]byte, PrivateSize),
		"1":        append(make([]byte, PrivateSize-1), 1),
		"2^255":    append([]byte{0x80}, make([]byte, PrivateSize-1)...),
		"all ones": bytes.Repeat([]byte{0xFF}, PrivateSize),
		"random":   bytesFor("exponent", 0),
	}
	for d := range byte(windowSize) {
		rotated := make([]byte, PrivateSize)
		for i := range rotated {
			high, low := (2*byte(i)+d)%windowSize, (2*byte(i)+1+d)%windowSize
			rotated[i] = high<<windowBits | low
		}
		e["digits from "+string("0123456789abcdef"[d])] = rotated
	}
	return e
}

// TestKernelBytes: toBytes is the inverse of fromBytes.
func TestKernelBytes(t *testing.T) {
	t.Parallel()
	forEachKernel(t, func(t *testing.T, k maker, o oracle) {
		for _, x := range o.operands() {
			if got := k.toBytes(o.size(), k.fromBytes(o.fixed(x))); !bytes.Equal(got, o.fixed(x)) {
				t.Errorf("%x became %x", x, got)
			}
		}
	})
}

// TestKernelRefuses: fromBytes panics for a number that is not below N or too long.
func TestKernelRefuses(t *testing.T) {
	t.Parallel()
	forEachKernel(t, func(t *testing.T, k maker, o oracle) {
		for _, b := range [][]byte{o.fixed(o.n), bytes.Repeat([]byte{0xFF}, o.size()), append([]byte{1}, o.fixed(o.g)...)} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%d bytes are taken", len(b))
					}
				}()
				k.fromBytes(b)
			}()
		}
	})
}

// TestKernelProducts: products and sums agree with math/big, and operands are not changed.
func TestKernelProducts(t *testing.T) {
	t.Parallel()
	forEachKernel(t, func(t *testing.T, k maker, o oracle) {
		for _, x := range o.operands() {
			for _, y := range o.operands() {
				a, b := k.fromBytes(o.fixed(x)), k.fromBytes(o.fixed(y))
				a0, b0 := slices.Clone(a), slices.Clone(b)
				product, sum := k.product(a, b), k.sum(a, b)
				if want := o.mod(new(big.Int).Mul(x, y)); number(k.toBytes(o.size(), product)).Cmp(want) != 0 {
					t.Fatalf("%x * %x = %x", x, y, k.toBytes(o.size(), product))
				}
				if want := o.mod(new(big.Int).Add(x, y)); number(k.toBytes(o.size(), sum)).Cmp(want) != 0 {
					t.Fatalf("%x + %x = %x", x, y, k.toBytes(o.size(), sum))
				}
				clear(product)
				clear(sum)
				if !slices.Equal(a, a0) || !slices.Equal(b, b0) {
					t.Fatal("an operand was changed")
				}
			}
		}
		x := o.operands()[len(o.operands())-1]
		a := k.fromBytes(o.fixed(x))
		if want := o.mod(new(big.Int).Mul(x, x)); number(k.toBytes(o.size(), k.product(a, a))).Cmp(want) != 0 {
			t.Error("wrong square of one element")
		}
	})
}

// TestKernelPower: base^e agrees with math/big.
func TestKernelPower(t *testing.T) {
	t.Parallel()
	forEachKernel(t, func(t *testing.T, k maker, o oracle) {
		bases := o.operands()
		for _, base := range []*big.Int{bases[0], bases[1], bases[2], bases[5], bases[len(bases)-1]} {
			for _, name := range []string{"0", "1", "2^255", "all ones", "random", "digits from 7"} {
				e := exponents()[name]
				x, secret := k.fromBytes(o.fixed(base)), padded(e)
				before := slices.Clone(x)
				got := k.power(x, &secret)
				if number(k.toBytes(o.size(), got)).Cmp(o.exp(base, number(e))) != 0 {
					t.Errorf("%x ^ %s = %x", base, name, k.toBytes(o.size(), got))
				}
				clear(got)
				if !slices.Equal(x, before) || !bytes.Equal(secret[:], e) {
					t.Fatal("an operand was changed")
				}
			}
		}
	})
}

// TestKernelPowerG: g^e agrees with math/big, for every entry of the table of powers, and
// clearing a result does not change the table.
func TestKernelPowerG(t *testing.T) {
	t.Parallel()
	forEachKernel(t, func(t *testing.T, k maker, o oracle) {
		for name, e := range exponents() {
			secret := padded(e)
			for range 2 {
				got := k.powerG(&secret)
				if number(k.toBytes(o.size(), got)).Cmp(o.exp(o.g, number(e))) != 0 {
					t.Errorf("g ^ %s = %x", name, k.toBytes(o.size(), got))
				}
				clear(got)
			}
			if !bytes.Equal(secret[:], e) {
				t.Fatal("the exponent was changed")
			}
		}
	})
}

// TestKernelConcurrent: a kernel can be used by several exchanges at the same time.
func TestKernelConcurrent(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	o := oracleOf(p)
	forEachProfileKernel(t, p, func(t *testing.T, p *Profile) {
		var all sync.WaitGroup
		for n := range 8 {
			all.Go(func() {
				for m := range 3 {
					compare(t, p, o.exchange("e3wfISG9", "Tb048aX1", bytesFor("salt", n)[:SaltSize], bytesFor("a", 10*n+m), bytesFor("b", n)))
				}
			})
		}
		all.Wait()
	})
}

// TestAllocations: the functions of the server allocate their results only. bigmod allocates
// more memory for more than 2048 bits.
func TestAllocations(t *testing.T) {
	// Not parallel, since other tests allocate memory. A garbage collection would empty the
	// pool of workspaces, including one because of GOMEMLIMIT.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	if raceDetector {
		t.Log("NOT CHECKED: under the race detector sync.Pool drops some items")
		return
	}
	for _, p := range allProfiles() {
		for name, k := range kernelsOf(p) {
			p := p.servedBy(k, name)
			x, right := honestExchange(t, p)
			wrong := make([]byte, len(right))
			for call, c := range map[string]struct {
				want float64
				f    func()
			}{
				"Verifier":            {1, func() { p.Verifier(x.identity, "Tb048aX1", x.salt) }},
				"ephemeral":           {1, func() { _, _ = p.newEphemeral(x.verifier, rand.Reader) }},
				"verify":              {1, func() { p.verify(x, right) }},
				"verify, not allowed": {0, func() { p.verify(x, wrong) }},
			} {
				got := testing.AllocsPerRun(3, c.f)
				if name == "portable" && p.Size() > 256 {
					t.Logf("%s/portable: %s takes %v pieces of memory", p.name, call, got)
					continue
				}
				if got != c.want {
					t.Errorf("%s/%s: %s takes %v pieces of memory, want %v", p.name, name, call, got, c.want)
				}
			}
		}
	}
}

// TestAllocationsParse: ParsePublic allocates its result only.
func TestAllocationsParse(t *testing.T) {
	p := profiles[0]
	digits := strings.Repeat("7", 2*p.Size())
	if n := testing.AllocsPerRun(10, func() { _, _ = p.ParsePublic(digits) }); n != 1 {
		t.Errorf("ParsePublic takes %v pieces of memory", n)
	}
}

// watchingCalculator counts the calls of each operation.
type watchingCalculator struct {
	calculator
	products, sums, powers, powersG, wipes int
}

func (c *watchingCalculator) product(z, x, y element) {
	c.products++
	c.calculator.product(z, x, y)
}

func (c *watchingCalculator) sum(z, x, y element) {
	c.sums++
	c.calculator.sum(z, x, y)
}

func (c *watchingCalculator) power(z, base element, e *[PrivateSize]byte) {
	c.powers++
	c.calculator.power(z, base, e)
}

func (c *watchingCalculator) powerG(z element, e *[PrivateSize]byte) {
	c.powersG++
	c.calculator.powerG(z, e)
}

func (c *watchingCalculator) wipe() {
	c.wipes++
	c.calculator.wipe()
}

var _ calculator = (*watchingCalculator)(nil)

// watch collects the workspaces that a profile makes.
type watch struct{ workspaces []*workspace }

// watched returns the profile p with the kernel k, and its workspaces.
func watched(p *Profile, k kernel) (*Profile, *watch) {
	changed := p.servedBy(k, "watched")
	kept := &watch{}
	g := changed.group()
	newWorkspace := g.workspaces.New
	g.workspaces.New = func() any {
		w := newWorkspace().(*workspace)
		w.calculator = &watchingCalculator{calculator: w.calculator}
		kept.workspaces = append(kept.workspaces, w)
		return w
	}
	return changed, kept
}

// counts returns the counts and resets them.
func (k *watch) counts() (sum watchingCalculator) {
	for _, w := range k.workspaces {
		c := w.calculator.(*watchingCalculator)
		sum.products += c.products
		sum.sums += c.sums
		sum.powers += c.powers
		sum.powersG += c.powersG
		sum.wipes += c.wipes
		*c = watchingCalculator{calculator: c.calculator}
	}
	return sum
}

// holds reports whether v contains a word or byte other than 0, up to the capacity of
// slices. It ignores kernels and groups, which are public, and hashes.
func holds(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		public := []reflect.Type{reflect.TypeFor[kernel](), reflect.TypeFor[hash.Hash]()}
		if v.IsNil() || v.Type() == reflect.TypeFor[*group]() || slices.ContainsFunc(public, v.Type().Implements) {
			return false
		}
		return holds(v.Elem())
	case reflect.Struct:
		for _, field := range v.Fields() {
			if holds(field) {
				return true
			}
		}
	case reflect.Slice:
		v = v.Slice(0, v.Cap())
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			if holds(v.Index(i)) {
				return true
			}
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint64:
		return v.Uint() != 0
	}
	return false
}

// TestWipe: the operations leave secrets in the memory of a calculator, and wipe clears them.
func TestWipe(t *testing.T) {
	t.Parallel()
	forEachKernel(t, func(t *testing.T, k maker, o oracle) {
		secret := o.fixed(o.operands()[len(o.operands())-1])
		e := padded(bytesFor("exponent", 0))
		z := k.fromBytes(secret)
		for name, operation := range map[string]func(){
			"fromBytes": func() { k.c.fromBytes(z, secret) },
			"product":   func() { k.c.product(z, z, z) },
			"power":     func() { k.c.power(z, z, &e) },
			"powerG":    func() { k.c.powerG(z, &e) },
		} {
			k.c.wipe()
			operation()
			if !holds(reflect.ValueOf(k.c)) {
				t.Errorf("%s leaves nothing, so this test proves nothing", name)
			}
			k.c.wipe()
			if holds(reflect.ValueOf(k.c)) {
				t.Errorf("%s leaves a secret in memory", name)
			}
		}
		k.c.sum(z, z, z)
		k.c.toBytes(secret, z)
		k.c.wipe()
		if holds(reflect.ValueOf(k.c)) {
			t.Error("sum or toBytes leaves a secret in memory")
		}
	})
}

// TestSecretsCleared: every call clears its workspace, also when it fails or panics.
func TestSecretsCleared(t *testing.T) {
	t.Parallel()
	for name, k := range kernelsOf(rfcProfile()) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, kept := watched(rfcProfile(), k)
			calls := 0
			expect := func(call string) {
				t.Helper()
				calls++
				if wipes := kept.counts().wipes; wipes != 1 {
					t.Errorf("%s wipes %d times", call, wipes)
				}
				for _, w := range kept.workspaces {
					if holds(reflect.ValueOf(w)) {
						t.Errorf("%s leaves something in memory", call)
					}
					if !reflect.DeepEqual(w.hash, p.hash()) {
						t.Errorf("%s leaves something in the hash", call)
					}
				}
			}
			salt := bytesFor("salt", 0)[:SaltSize]
			v := p.Verifier("e3wfISG9", "Tb048aX1", salt)
			expect("Verifier")
			c, err := p.NewClient("e3wfISG9", "Tb048aX1")
			if err != nil {
				t.Fatal(err)
			}
			expect("NewClient")
			e, err := p.newEphemeral(v, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			expect("ephemeral")
			evidence, err := c.Prove(salt, e.public)
			if err != nil {
				t.Fatal(err)
			}
			expect("Prove")
			x := exchange{
				identity: "e3wfISG9", salt: salt, verifier: v, clientPublic: c.Public(),
				private: e.private, serverPublic: e.public,
			}
			for _, m := range [][]byte{evidence, salt} {
				p.verify(x, m)
				expect("verify")
			}
			if _, err := p.newEphemeral(v, iotest.ErrReader(errors.New("no random bytes"))); err == nil {
				t.Error("a pair was made without random bytes")
			}
			expect("ephemeral without random bytes")
			func() {
				defer func() {
					if recover() == nil {
						t.Error("no panic")
					}
				}()
				_, _ = p.newEphemeral(v, nil)
			}()
			expect("a panic")
		})
	}
}

// TestHolds: holds finds a single bit in each part of a workspace.
func TestHolds(t *testing.T) {
	t.Parallel()
	p, _ := watched(rfcProfile(), rfcProfile().group().kernel)
	w := p.acquireWorkspace()
	if holds(reflect.ValueOf(w)) {
		t.Error("a new workspace holds something")
	}
	w.text = make([]byte, 8)[:0]
	for name, b := range map[string][]byte{
		"secret": w.secret[:], "u": w.u[:], "number": w.number, "key": w.key, "m1": w.m1, "m2": w.m2, "inner": w.inner, "text": w.text[:8],
	} {
		b[len(b)-1] = 1
		if !holds(reflect.ValueOf(w)) {
			t.Errorf("a bit in %s is not found", name)
		}
		b[len(b)-1] = 0
	}
	for _, x := range []element{w.x, w.y, w.z} {
		x[len(x)-1] = 1 << (bits.UintSize - 1)
		if !holds(reflect.ValueOf(w)) {
			t.Error("a bit in an element is not found")
		}
		x[len(x)-1] = 0
	}
	w.hash.Write([]byte{1})
	w.hash.Reset()
	if reflect.DeepEqual(w.hash, p.hash()) {
		t.Error("Reset alone clears the hash")
	}
	w.release()
	if holds(reflect.ValueOf(w)) || !reflect.DeepEqual(w.hash, p.hash()) {
		t.Error("something is left")
	}
}

// TestSameWork: verify does the same arithmetic for right and wrong evidence, and for real and
// simulated verifiers.
func TestSameWork(t *testing.T) {
	t.Parallel()
	p, kept := watched(rfcProfile(), rfcProfile().group().kernel)
	x, right := honestExchange(t, p)
	simulated := x
	simulated.verifier = p.simulatedVerifier(bytesFor("secret", 0), x.identity)
	wrong := bytes.Clone(right)
	wrong[0] ^= 1
	for name, c := range map[string]struct {
		x        exchange
		evidence []byte
	}{
		"right": {x, right}, "wrong": {x, wrong}, "none": {x, nil}, "short": {x, right[1:]}, "long": {x, append(wrong, 0)},
		"simulated": {simulated, right},
	} {
		kept.counts()
		p.verify(c.x, c.evidence)
		if n := kept.counts(); n.products != 1 || n.powers != 2 || n.sums != 0 || n.powersG != 0 {
			t.Errorf("%s evidence: %d products, %d powers", name, n.products, n.powers)
		}
	}
}

// TestElementsAligned: elements whose size is a multiple of 64 bytes are aligned to 64 bytes.
func TestElementsAligned(t *testing.T) {
	t.Parallel()
	forEachKernel(t, func(t *testing.T, k maker, _ oracle) {
		size := k.words() * bits.UintSize / 8
		for n := range 20 {
			for i, x := range newElements(k.kernel, n) {
				if at := uintptr(unsafe.Pointer(&x[0])); size%64 == 0 && at%64 != 0 {
					t.Errorf("element %d of %d begins %d bytes after a boundary", i, n, at%64)
				}
			}
		}
	})
}
