package srp

import (
	"bytes"
	"math/big"
	"slices"
	"sync"
	"testing"
)

// kernelsOf returns every kernel that can serve a profile, by name. All of them
// must pass the tests of this file.
func kernelsOf(p *Profile) map[string]kernel {
	kernels := map[string]kernel{"portable": newPortable(p.prime, p.generator)}
	for _, i := range implementations {
		if i.supported(8 * p.Size()) {
			kernels[i.name] = i.new(p.prime, p.generator)
		}
	}
	return kernels
}

// forKernels runs a test for every kernel of every profile.
func forKernels(t *testing.T, test func(t *testing.T, k kernel, o oracle)) {
	t.Helper()
	for _, p := range allProfiles() {
		for name, k := range kernelsOf(p) {
			t.Run(p.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				test(t, k, oracleOf(p))
			})
		}
	}
}

// operands are numbers that carries go wrong at, and some that look random.
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

// exponents are the patterns that an exponentiation could treat differently, and
// exponents that read every digit from every window.
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

// TestKernelBytes: numbers survive the way in and out, padded.
func TestKernelBytes(t *testing.T) {
	t.Parallel()
	forKernels(t, func(t *testing.T, k kernel, o oracle) {
		for _, x := range o.operands() {
			if got := k.toBytes(k.fromBytes(o.fixed(x))); !bytes.Equal(got, o.fixed(x)) {
				t.Errorf("%x became %x", x, got)
			}
		}
	})
}

// TestKernelRefuses: a number that is not reduced, or too long, is a fault of the
// caller that is not computed with.
func TestKernelRefuses(t *testing.T) {
	t.Parallel()
	forKernels(t, func(t *testing.T, k kernel, o oracle) {
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

// TestKernelProducts compares products and sums of all pairs with math/big, and
// requires that operands stay as they are.
func TestKernelProducts(t *testing.T) {
	t.Parallel()
	forKernels(t, func(t *testing.T, k kernel, o oracle) {
		for _, x := range o.operands() {
			for _, y := range o.operands() {
				a, b := k.fromBytes(o.fixed(x)), k.fromBytes(o.fixed(y))
				a0, b0 := slices.Clone(a), slices.Clone(b)
				product, sum := k.product(a, b), k.sum(a, b)
				if want := o.mod(new(big.Int).Mul(x, y)); number(k.toBytes(product)).Cmp(want) != 0 {
					t.Fatalf("%x * %x = %x", x, y, k.toBytes(product))
				}
				if want := o.mod(new(big.Int).Add(x, y)); number(k.toBytes(sum)).Cmp(want) != 0 {
					t.Fatalf("%x + %x = %x", x, y, k.toBytes(sum))
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
		if want := o.mod(new(big.Int).Mul(x, x)); number(k.toBytes(k.product(a, a))).Cmp(want) != 0 {
			t.Error("wrong square of one element")
		}
	})
}

// TestKernelPower compares base^e with math/big.
func TestKernelPower(t *testing.T) {
	t.Parallel()
	forKernels(t, func(t *testing.T, k kernel, o oracle) {
		bases := o.operands()
		for _, base := range []*big.Int{bases[0], bases[1], bases[2], bases[5], bases[len(bases)-1]} {
			for _, name := range []string{"0", "1", "2^255", "all ones", "random", "digits from 7"} {
				e := exponents()[name]
				x, secret := k.fromBytes(o.fixed(base)), padded(e)
				before := slices.Clone(x)
				got := k.power(x, &secret)
				if number(k.toBytes(got)).Cmp(o.exp(base, number(e))) != 0 {
					t.Errorf("%x ^ %s = %x", base, name, k.toBytes(got))
				}
				clear(got)
				if !slices.Equal(x, before) || !bytes.Equal(secret[:], e) {
					t.Fatal("an operand was changed")
				}
			}
		}
	})
}

// TestKernelPowerG compares g^e with math/big, over every entry of the table, and
// requires that clearing a result does not reach the table.
func TestKernelPowerG(t *testing.T) {
	t.Parallel()
	forKernels(t, func(t *testing.T, k kernel, o oracle) {
		for name, e := range exponents() {
			secret := padded(e)
			for range 2 {
				got := k.powerG(&secret)
				if number(k.toBytes(got)).Cmp(o.exp(o.g, number(e))) != 0 {
					t.Errorf("g ^ %s = %x", name, k.toBytes(got))
				}
				clear(got)
			}
			if !bytes.Equal(secret[:], e) {
				t.Fatal("the exponent was changed")
			}
		}
	})
}

// TestKernelConcurrent: one kernel serves many exchanges at once.
func TestKernelConcurrent(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	o := oracleOf(p)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			compare(t, p, o.exchange("e3wfISG9", "Tb048aX1", bytesFor("salt", n)[:SaltSize], bytesFor("a", n), bytesFor("b", n)))
		})
	}
	all.Wait()
}

// watchingKernel counts what protocol code asks of a kernel and keeps what it
// was given back.
type watchingKernel struct {
	kernel
	products, sums, powers, powersG int
	elements                        []element
	numbers                         [][]byte
}

func (k *watchingKernel) keep(x element) element {
	k.elements = append(k.elements, x)
	return x
}

func (k *watchingKernel) fromBytes(b []byte) element { return k.keep(k.kernel.fromBytes(b)) }

func (k *watchingKernel) toBytes(x element) []byte {
	b := k.kernel.toBytes(x)
	k.numbers = append(k.numbers, b)
	return b
}

func (k *watchingKernel) product(x, y element) element {
	k.products++
	return k.keep(k.kernel.product(x, y))
}

func (k *watchingKernel) sum(x, y element) element {
	k.sums++
	return k.keep(k.kernel.sum(x, y))
}

func (k *watchingKernel) power(base element, e *[PrivateSize]byte) element {
	k.powers++
	return k.keep(k.kernel.power(base, e))
}

func (k *watchingKernel) powerG(e *[PrivateSize]byte) element {
	k.powersG++
	return k.keep(k.kernel.powerG(e))
}

var _ kernel = (*watchingKernel)(nil)

// watched returns a profile of 1024 bits and the watching kernel it uses.
func watched() (*Profile, *watchingKernel) {
	p := newProfile("watched", prime1024, 2, rfcProfile().hash)
	g := *p.group()
	k := &watchingKernel{kernel: g.kernel}
	g.kernel = k
	p.group = func() *group { return &g }
	return p, k
}

// left returns the numbers that nobody has cleared, and forgets all.
func (k *watchingKernel) left() (left []*big.Int) {
	for _, x := range k.elements {
		if slices.ContainsFunc(x, func(w uint) bool { return w != 0 }) {
			left = append(left, number(k.kernel.toBytes(x)))
		}
	}
	for _, b := range k.numbers {
		if !isZero(b) {
			left = append(left, number(b))
		}
	}
	*k = watchingKernel{kernel: k.kernel}
	return left
}

// TestSecretsCleared: of everything that is computed, only public values and
// results are still in memory after a call.
func TestSecretsCleared(t *testing.T) {
	t.Parallel()
	p, k := watched()
	expect := func(call string, public ...[]byte) {
		t.Helper()
		for _, x := range k.left() {
			if !slices.ContainsFunc(public, func(b []byte) bool { return number(b).Cmp(x) == 0 }) {
				t.Errorf("%s leaves a secret in memory", call)
			}
		}
	}
	salt := bytesFor("salt", 0)[:SaltSize]
	v := p.Verifier("e3wfISG9", "Tb048aX1", salt)
	expect("Verifier", v)
	c, err := p.NewClient("e3wfISG9", "Tb048aX1")
	if err != nil {
		t.Fatal(err)
	}
	expect("NewClient", c.Public())
	e, err := p.ServerEphemeral(v)
	if err != nil {
		t.Fatal(err)
	}
	expect("ServerEphemeral", e.Public)
	evidence, err := c.Prove(salt, e.Public)
	if err != nil {
		t.Fatal(err)
	}
	expect("Prove", e.Public)
	x := Exchange{
		Identity: "e3wfISG9", Salt: salt, Verifier: v, ClientPublic: c.Public(),
		Private: e.Private, ServerPublic: e.Public,
	}
	for _, m := range [][]byte{evidence, salt} {
		p.ServerVerify(x, m)
		expect("ServerVerify", x.ClientPublic)
	}
}

// TestSameWork: the second step does all its arithmetic whatever the evidence
// is, and for a simulated verifier as for a real one.
func TestSameWork(t *testing.T) {
	t.Parallel()
	p, k := watched()
	x, right := honest(t, p)
	simulated := x
	simulated.Verifier = p.SimulatedVerifier(bytesFor("secret", 0), x.Identity)
	wrong := bytes.Clone(right)
	wrong[0] ^= 1
	for name, c := range map[string]struct {
		x        Exchange
		evidence []byte
	}{
		"right": {x, right}, "wrong": {x, wrong}, "none": {x, nil}, "short": {x, right[1:]}, "long": {x, append(wrong, 0)},
		"simulated": {simulated, right},
	} {
		k.left()
		p.ServerVerify(c.x, c.evidence)
		if k.products != 1 || k.powers != 2 || k.sums != 0 || k.powersG != 0 {
			t.Errorf("%s evidence: %d products, %d powers", name, k.products, k.powers)
		}
	}
}
