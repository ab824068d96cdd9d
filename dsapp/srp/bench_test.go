package srp

import (
	"strings"
	"testing"

	"filippo.io/bigmod"
)

// benchName is the name of a profile without its hash.
func benchName(p *Profile) string { return strings.TrimSuffix(p.name, "-sha256") }

// BenchmarkServerStep1 is B from the verifier and a fresh b.
func BenchmarkServerStep1(b *testing.B) {
	for _, p := range profiles {
		b.Run(benchName(p), func(b *testing.B) {
			v := p.Verifier(vectorIdentity, vectorPassword, unhex(b, vectorSalt))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.ServerEphemeral(v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkServerStep2 is u, S and K, the check of M1, and M2.
func BenchmarkServerStep2(b *testing.B) {
	for _, p := range profiles {
		b.Run(benchName(p), func(b *testing.B) {
			x, evidence := honest(b, p)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := p.ServerVerify(x, evidence); !ok {
					b.Fatal("evidence is refused")
				}
			}
		})
	}
}

// BenchmarkPowerG compares g^b by the table with the general exponentiation of
// bigmod.
func BenchmarkPowerG(b *testing.B) {
	for _, p := range profiles {
		k := newPortable(p.prime, p.generator)
		e := padded(bytesFor("bench", 0))
		b.Run("table/"+benchName(p), func(b *testing.B) {
			for b.Loop() {
				k.powerG(&e)
			}
		})
		b.Run("exp/"+benchName(p), func(b *testing.B) {
			g := bigmod.NewNat().SetUint(uint(p.generator)).ExpandFor(k.modulus)
			for b.Loop() {
				bigmod.NewNat().Exp(g, e[:], k.modulus)
			}
		})
	}
}

// BenchmarkNewKernel is what the first use of a profile pays for its table.
func BenchmarkNewKernel(b *testing.B) {
	for _, p := range profiles {
		b.Run(benchName(p), func(b *testing.B) {
			for b.Loop() {
				newPortable(p.prime, p.generator)
			}
		})
	}
}
