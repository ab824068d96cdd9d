package srp

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math/big"
	"sync"
)

// rfcProfile is a profile for the test vectors of RFC 5054, appendix B: 1024 bits and SHA-1.
// It uses the same code as the profiles of the package.
var rfcProfile = sync.OnceValue(func() *Profile {
	return profileWith("rfc5054-1024-sha1", prime1024, 2, sha1.New)
})

const prime1024 = "" +
	"EEAF0AB9ADB38DD69C33F80AFA8FC5E86072618775FF3C0B9EA2314C9C256576" +
	"D674DF7496EA81D3383B4813D692C6E0E0D5D8E250B98BE48E495C1D6089DAD1" +
	"5DC7D7B46154D6B6CE8EF4AD69B15D4982559B297BCF1885C529F566660E57EC" +
	"68EDBC3C05726CC02FD4CBF4976EAA9AFD5138FE8376435B9FC61D2FC0EB06E3"

// allProfiles returns the profiles of the package and the one of the RFC.
func allProfiles() []*Profile { return append([]*Profile{rfcProfile()}, profiles...) }

// arithmeticProfiles returns the profiles with which to test arithmetic: all of them, but
// under the race detector the two smallest. It makes arithmetic in Go ten times slower, and
// has nothing to detect in the larger groups that it does not in these.
func arithmeticProfiles() []*Profile {
	if raceDetector {
		return allProfiles()[:2]
	}
	return allProfiles()
}

// oracle computes the protocol by the formulas with math/big. It shares no code with the
// package.
type oracle struct {
	n, g *big.Int
	hash func() hash.Hash
	// stripped omits PAD for A, B and S, as faulty implementations do.
	stripped bool
}

func oracleOf(p *Profile) oracle {
	switch p.name {
	case "rfc5054-1024-sha1":
		return newOracle(prime1024, 2, sha1.New)
	case "rfc5054-2048-sha256":
		return newOracle(prime2048, 2, sha256.New)
	case "rfc5054-3072-sha256":
		return newOracle(prime3072, 5, sha256.New)
	case "rfc5054-4096-sha256":
		return newOracle(prime4096, 5, sha256.New)
	}
	panic("no oracle for " + p.name)
}

func newOracle(prime string, g int64, h func() hash.Hash) oracle {
	n, ok := new(big.Int).SetString(prime, 16)
	if !ok {
		panic("prime is not hexadecimal")
	}
	return oracle{n: n, g: big.NewInt(g), hash: h}
}

// transcript has all values of one exchange.
type transcript struct {
	identity, password string
	salt               []byte
	a, b               *big.Int
	x, v, k, A, B, u   *big.Int
	clientS, serverS   *big.Int
	K, M1, M2          []byte
}

func (o oracle) h(parts ...[]byte) []byte {
	h := o.hash()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func number(b []byte) *big.Int { return new(big.Int).SetBytes(b) }

// size is the number of bytes of N.
func (o oracle) size() int { return (o.n.BitLen() + 7) / 8 }

// pad is PAD, or the minimal bytes if the oracle is stripped.
func (o oracle) pad(x *big.Int) []byte {
	if o.stripped {
		return x.Bytes()
	}
	return o.fixed(x)
}

func (o oracle) fixed(x *big.Int) []byte { return x.FillBytes(make([]byte, o.size())) }

func (o oracle) exp(base, e *big.Int) *big.Int { return new(big.Int).Exp(base, e, o.n) }

func (o oracle) mod(x *big.Int) *big.Int { return x.Mod(x, o.n) }

func (o oracle) private(identity, password string, salt []byte) *big.Int {
	return number(o.h(salt, o.h([]byte(identity+":"+password))))
}

func (o oracle) multiplier() *big.Int { return number(o.h(o.n.Bytes(), o.fixed(o.g))) }

// exchange computes all values from the inputs of the two sides.
func (o oracle) exchange(identity, password string, salt, a, b []byte) transcript {
	r := transcript{identity: identity, password: password, salt: salt, a: number(a), b: number(b)}
	r.x = o.private(identity, password, salt)
	r.k = o.multiplier()
	r.v = o.exp(o.g, r.x)
	r.A = o.exp(o.g, r.a)
	r.B = o.public(r.v, r.b)
	r.u = number(o.h(o.pad(r.A), o.pad(r.B)))

	base := new(big.Int).Mul(r.k, r.v)
	base = o.mod(base.Sub(r.B, base))
	e := new(big.Int).Mul(r.u, r.x)
	r.clientS = o.exp(base, e.Add(e, r.a))
	r.serverS = o.serverS(r.A, r.v, r.u, r.b)

	r.K = o.h(o.pad(r.serverS))
	label := o.h(o.n.Bytes())
	for i, c := range o.h(o.g.Bytes()) {
		label[i] ^= c
	}
	r.M1 = o.h(label, o.h([]byte(identity)), salt, o.pad(r.A), o.pad(r.B), r.K)
	r.M2 = o.h(o.pad(r.A), r.M1, r.K)
	return r
}

func (o oracle) public(v, b *big.Int) *big.Int {
	B := new(big.Int).Mul(o.multiplier(), v)
	return o.mod(B.Add(B, o.exp(o.g, b)))
}

func (o oracle) serverS(A, v, u, b *big.Int) *big.Int {
	base := o.exp(v, u)
	return o.exp(o.mod(base.Mul(base, A)), b)
}

// bytesFor returns 32 bytes that look random and are the same in each run.
func bytesFor(label string, n int) []byte {
	d := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(label), uint64(n)))
	return d[:]
}

// The primes of the package's profiles.
var (
	prime2048 = primeOf("rfc5054-2048")
	prime3072 = primeOf("rfc5054-3072")
	prime4096 = primeOf("rfc5054-4096")
)

// profileWith returns a profile of tests with the formulas of the package and another group or
// hash.
func profileWith(name, prime string, generator byte, h func() hash.Hash) *Profile {
	return newProfile(name, newField(prime, generator), h, profiles[0].variant)
}
