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

	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

var exchanges = flag.String("exchanges", "", "write one exchange of each group to this `folder`, for other programs to repeat")

// benchName is the name of a profile without its hash.
func benchName(p *Profile) string { return strings.TrimSuffix(p.name, "-sha256") }

// benchExchange returns the exchange that the benchmarks compute.
func benchExchange(p *Profile) transcript {
	return oracleOf(p).exchange("e3wfISG9", "Tb048aX1", bytesFor("salt", 0)[:SaltSize], bytesFor("a", 0), bytesFor("b", 0))
}

// serverSide returns what the server knows of the exchange r.
func serverSide(p *Profile, r transcript) exchange {
	o := oracleOf(p)
	return exchange{
		identity: r.identity, salt: r.salt, verifier: o.fixed(r.v), clientPublic: o.fixed(r.A),
		private: r.b.FillBytes(make([]byte, PrivateSize)), serverPublic: o.fixed(r.B),
	}
}

// tableless is the portable kernel without its table of powers of the generator, for
// comparison in benchmarks.
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

// measured returns the implementations to measure with a profile, the fastest first: those
// that can be selected for it, and bigmod without a table.
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

// withKernel returns the profile p with another kernel, which must pass the self-test.
func withKernel(p *Profile, i implementation) (*Profile, error) {
	changed := *p
	changed.group = sync.OnceValue(func() *group { return changed.newGroup(changed.selectKernel([]implementation{i})) })
	if name := changed.Kernel(); name != i.name {
		return nil, fmt.Errorf("served by %s: %v", name, changed.takeFailures())
	}
	return &changed, nil
}

// repeats runs the server's side of the exchange r and compares the results.
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

// TestMeasured: every kernel that is measured agrees with the oracle. The flag -exchanges
// writes the exchanges to files, for the programs of _bench to compute the same.
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

// benchServer measures a step of the server for every profile, with the selected kernel and
// with each kernel of this processor. It checks the results before it measures.
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

// BenchmarkServerStep1 measures B for a verifier and a random b.
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

// BenchmarkServerStep2 measures u, S, K, the check of M1, and M2.
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

// BenchmarkCalls measures the whole first and second call of the default group and of those that
// only the portable kernel serves.
func BenchmarkCalls(b *testing.B) {
	for _, group := range []string{"rfc5054-2048", "rfc5054-6144", "rfc5054-8192"} {
		p := named(group, group)
		client, err := p.NewClient("e3wfISG9", "Tb048aX1")
		if err != nil {
			b.Fatal(err)
		}
		credential := p.Credential(bytesFor("secret", 0), "e3wfISG9", "Tb048aX1")
		state := make([]byte, p.StateSize())
		begin := func(b *testing.B) (serverPublic, salt string) {
			if serverPublic, salt, err = p.Begin(state, credential, client.Public()); err != nil {
				b.Fatal(err)
			}
			return serverPublic, salt
		}
		b.Run(group+"/first", func(b *testing.B) {
			for b.Loop() {
				begin(b)
			}
		})
		b.Run(group+"/second", func(b *testing.B) {
			serverPublic, salt := begin(b)
			m1, err := client.Prove(digits.Decode(b, salt), digits.Decode(b, serverPublic))
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, _, ok := p.Verify(bytes.Clone(state), "e3wfISG9", m1); !ok {
					b.Fatal("evidence is refused")
				}
			}
		})
	}
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

// BenchmarkPower measures base^e.
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

// BenchmarkPowerG measures g^e.
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

// BenchmarkNewKernel measures making a kernel with its table.
func BenchmarkNewKernel(b *testing.B) {
	benchKernels(b, func(b *testing.B, p *Profile, i implementation) {
		for b.Loop() {
			i.new(p.prime, p.generator)
		}
	})
}
