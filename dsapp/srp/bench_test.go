package srp

import (
	"bytes"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/bigmod"
)

var exchanges = flag.String("exchanges", "", "write one exchange of each group to this `folder`, for other programs to repeat")

// benchName is the name of a profile without its hash.
func benchName(p *Profile) string { return strings.TrimSuffix(p.name, "-sha256") }

// benchExchange returns the exchange that is measured.
func benchExchange(p *Profile) transcript {
	return oracleOf(p).exchange("e3wfISG9", "Tb048aX1", bytesFor("salt", 0)[:SaltSize], bytesFor("a", 0), bytesFor("b", 0))
}

// serverSide returns the exchange of r from the server's point of view.
func serverSide(p *Profile, r transcript) exchange {
	o := oracleOf(p)
	return exchange{
		identity: r.identity, salt: r.salt, verifier: o.fixed(r.v), clientPublic: o.fixed(r.A),
		private: r.b.FillBytes(make([]byte, PrivateSize)), serverPublic: o.fixed(r.B),
	}
}

// tableless is the portable kernel as it would be without the table of powers of
// the generator. Nothing but benchmarks uses it.
type tableless struct {
	*portable
	generator byte
}

func (k tableless) calculator() calculator {
	return &tablelessCalculator{
		portableCalculator: k.portable.calculator().(*portableCalculator),
		g:                  bigmod.NewNat().SetUint(uint(k.generator)).ExpandFor(k.modulus),
	}
}

type tablelessCalculator struct {
	*portableCalculator
	g *bigmod.Nat
}

func (c *tablelessCalculator) powerG(z element, e *[PrivateSize]byte) {
	copy(z, c.x.Exp(c.g, e[:], c.k.modulus).Bits())
}

// measured are the implementations to measure with a profile, the fastest first:
// those that can serve it, and bigmod alone.
func measured(p *Profile) []implementation {
	can := slices.DeleteFunc(slices.Clone(allImplementations), func(i implementation) bool { return !i.supported(8 * p.Size()) })
	return append(can, implementation{
		name:      "bigmod",
		supported: func(int) bool { return true },
		new: func(prime []byte, generator byte) kernel {
			return tableless{newPortable(prime, generator), generator}
		},
	})
}

// withKernel returns a profile that does with the kernel what p does with the one
// chosen for it, from the test of the kernel on.
func withKernel(p *Profile, i implementation) (*Profile, error) {
	changed := *p
	changed.group = sync.OnceValue(func() *group { return changed.newGroup([]implementation{i}) })
	if name := changed.Kernel(); name != i.name {
		return nil, fmt.Errorf("served by %s: %v", name, changed.takeFailures())
	}
	return &changed, nil
}

// repeats runs the server's side of r and compares its results.
func (p *Profile) repeats(r transcript) error {
	x := serverSide(p, r)
	e, err := p.newEphemeral(x.verifier, bytes.NewReader(x.private))
	if err != nil {
		return err
	}
	if !bytes.Equal(e.public, x.serverPublic) {
		return errors.New("another B")
	}
	key, m2, ok := p.verify(x, r.M1)
	if !ok {
		return errors.New("another M1")
	}
	if !bytes.Equal(key, r.K) || !bytes.Equal(m2, r.M2) {
		return errors.New("another K or M2")
	}
	return nil
}

// TestMeasured: every kernel that is measured computes what the oracle does. The
// exchanges can be written down, so that programs to compare with compute the
// same.
func TestMeasured(t *testing.T) {
	t.Parallel()
	for _, p := range arithmeticProfiles()[1:] {
		r := benchExchange(p)
		kernels := maps.Clone(kernelsOf(p))
		kernels["bigmod"] = tableless{kernels["portable"].(*portable), p.generator}
		for name, k := range kernels {
			if err := p.servedBy(k, name).repeats(r); err != nil {
				t.Errorf("%s/%s: %v", p.name, name, err)
			}
		}
		if *exchanges == "" {
			continue
		}
		x := serverSide(p, r)
		var text strings.Builder
		for _, member := range []struct {
			name  string
			value []byte
		}{
			{"N", p.prime},
			{"g", []byte{p.generator}},
			{"I", []byte(x.identity)},
			{"s", x.salt},
			{"v", x.verifier},
			{"A", x.clientPublic},
			{"b", x.private},
			{"B", x.serverPublic},
			{"K", r.K},
			{"M1", r.M1},
			{"M2", r.M2},
		} {
			fmt.Fprintf(&text, "%s %X\n", member.name, member.value)
		}
		if err := os.WriteFile(filepath.Join(*exchanges, benchName(p)), []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// benchServer measures a step of the server for every profile: as it is
// served, and under the name of each kernel that this machine has. What is
// measured computes the right results before it is.
func benchServer(b *testing.B, step func(b *testing.B, p *Profile, r transcript)) {
	for _, p := range profiles {
		exchange := sync.OnceValue(func() transcript { return benchExchange(p) })
		bench := func(name string, use func() (*Profile, error)) {
			prepared := sync.OnceValues(func() (*Profile, error) {
				p, err := use()
				if err != nil {
					return nil, err
				}
				return p, p.repeats(exchange())
			})
			b.Run(name, func(b *testing.B) {
				p, err := prepared()
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				step(b, p, exchange())
			})
		}
		bench(benchName(p), func() (*Profile, error) { return p, nil })
		for _, i := range measured(p) {
			bench(benchName(p)+"/"+i.name, func() (*Profile, error) { return withKernel(p, i) })
		}
	}
}

// BenchmarkServerStep1 is B from the verifier and a fresh b.
func BenchmarkServerStep1(b *testing.B) {
	benchServer(b, func(b *testing.B, p *Profile, r transcript) {
		v := serverSide(p, r).verifier
		for b.Loop() {
			if _, err := p.newEphemeral(v, rand.Reader); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkServerStep2 is u, S and K, the check of M1, and M2.
func BenchmarkServerStep2(b *testing.B) {
	benchServer(b, func(b *testing.B, p *Profile, r transcript) {
		x := serverSide(p, r)
		for b.Loop() {
			if _, _, ok := p.verify(x, r.M1); !ok {
				b.Fatal("evidence is refused")
			}
		}
	})
}

// benchKernels measures one operation of every kernel.
func benchKernels(b *testing.B, operation func(b *testing.B, p *Profile, i implementation)) {
	for _, p := range profiles {
		for _, i := range measured(p) {
			b.Run(benchName(p)+"/"+i.name, func(b *testing.B) {
				b.ReportAllocs()
				operation(b, p, i)
			})
		}
	}
}

// BenchmarkPower is base^e.
func BenchmarkPower(b *testing.B) {
	benchKernels(b, func(b *testing.B, p *Profile, i implementation) {
		k := i.new(p.prime, p.generator)
		c, x := k.calculator(), newElements(k, 2)
		c.fromBytes(x[0], oracleOf(p).fixed(benchExchange(p).A))
		e := padded(bytesFor("bench", 0))
		for b.Loop() {
			c.power(x[1], x[0], &e)
		}
	})
}

// BenchmarkPowerG is g^e.
func BenchmarkPowerG(b *testing.B) {
	benchKernels(b, func(b *testing.B, p *Profile, i implementation) {
		k := i.new(p.prime, p.generator)
		c, z := k.calculator(), newElements(k, 1)[0]
		e := padded(bytesFor("bench", 0))
		for b.Loop() {
			c.powerG(z, &e)
		}
	})
}

// BenchmarkNewKernel is what the first use of a profile pays for a table.
func BenchmarkNewKernel(b *testing.B) {
	benchKernels(b, func(b *testing.B, p *Profile, i implementation) {
		for b.Loop() {
			i.new(p.prime, p.generator)
		}
	})
}
