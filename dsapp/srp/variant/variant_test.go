package variant

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// Every group has a prime of its length, and its generator is a square exactly if it is called
// weak. TestPrimesOfRFC3526 says which numbers most primes are.
func TestGroups(t *testing.T) {
	t.Parallel()
	for _, g := range Groups {
		n, ok := new(big.Int).SetString(g.Prime, 16)
		if !ok || n.BitLen() != g.Bits || len(g.Prime) != g.Bits/4 {
			t.Fatalf("%s: not a number of %d bits", g.Name, g.Bits)
		}
		if square := big.Jacobi(big.NewInt(int64(g.Generator)), n) == 1; square != (g.Weak != "") {
			t.Errorf("%s: generator is a square: %t, weak %q", g.Name, square, g.Weak)
		}
	}
}

// The primes agree with their definition in RFC 3526, 2^n - 2^(n-64) - 1 + 2^64 * ([2^(n-130) pi]
// + c), which makes them safe primes. The one of RFC 5054 with 2048 bits is tested in package
// srp.
func TestPrimesOfRFC3526(t *testing.T) {
	t.Parallel()
	one := big.NewInt(1)
	for name, c := range map[string]int64{"rfc3526-2048": 124476, "rfc3526-3072": 1690314, "rfc3526-4096": 240904, "rfc3526-6144": 929484, "rfc3526-8192": 4743158} {
		g, _ := FindGroup(name)
		bits := uint(g.Bits)
		n := new(big.Int).Lsh(one, bits)
		n.Sub(n, new(big.Int).Lsh(one, bits-64))
		n.Sub(n, one)
		middle := piShifted(bits - 130)
		middle.Add(middle, big.NewInt(c))
		n.Add(n, middle.Lsh(middle, 64))
		if strings.ToUpper(n.Text(16)) != g.Prime {
			t.Errorf("%s: N differs from RFC 3526", name)
		}
	}
}

// piShifted returns [2^n pi] by Machin's formula, pi = 16 atan(1/5) - 4 atan(1/239).
func piShifted(n uint) *big.Int {
	const guard = 64
	atan := func(x int64) *big.Int {
		power := new(big.Int).Lsh(big.NewInt(1), n+guard)
		power.Quo(power, big.NewInt(x))
		sum := new(big.Int)
		for k := int64(1); power.Sign() != 0; k += 2 {
			term := new(big.Int).Quo(power, big.NewInt(k))
			if k%4 == 1 {
				sum.Add(sum, term)
			} else {
				sum.Sub(sum, term)
			}
			power.Quo(power, big.NewInt(x*x))
		}
		return sum
	}
	pi := new(big.Int).Mul(big.NewInt(16), atan(5))
	pi.Sub(pi, new(big.Int).Mul(big.NewInt(4), atan(239)))
	return pi.Rsh(pi, guard)
}

// Every option of Variant is in one dimension, so that the dimensions are the whole space, and
// the first choice is that of the default profile.
func TestDimensionsCoverTheOptions(t *testing.T) {
	t.Parallel()
	var v Variant
	for i, d := range Dimensions {
		d.Set(&v, []string{"x"})
		if slices.ContainsFunc(Dimensions[:i], func(e Dimension) bool { return e.Name == d.Name }) {
			t.Errorf("%s is listed twice", d.Name)
		}
		if want := d.Get(Presets[DefaultPreset]); !slices.Equal(d.Choices[0], want) {
			t.Errorf("%s: the first choice is %q, the default %q", d.Name, d.Choices[0], want)
		}
		for j, c := range d.Choices {
			if slices.ContainsFunc(d.Choices[:j], func(e []string) bool { return slices.Equal(c, e) }) {
				t.Errorf("%s: %q is listed twice", d.Name, c)
			}
		}
	}
	for field, value := range reflect.ValueOf(v).Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "preset" {
			continue
		}
		if value.IsZero() {
			t.Errorf("%s is in no dimension", name)
		}
		if !slices.ContainsFunc(Dimensions, func(d Dimension) bool { return d.Name == name }) {
			t.Errorf("%s has another name in its dimension", name)
		}
	}
}

// Presets are complete and accepted variants, and their choices are among those of the
// dimensions.
func TestPresets(t *testing.T) {
	t.Parallel()
	for name := range Presets {
		v, err := Variant{Preset: name}.Complete()
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if warnings := v.Warnings(); warnings != nil {
			t.Errorf("%s: %q", name, warnings)
		}
		for _, d := range Dimensions {
			if c := d.Get(v); len(c) > 0 && !slices.ContainsFunc(d.Choices, func(e []string) bool { return slices.Equal(c, e) }) {
				t.Errorf("%s: %s %q is no choice", name, d.Name, c)
			}
		}
	}
}

// Whatever weakens the protocol is refused with the option and the reason, and nothing else.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		v    Variant
		want string // "" if accepted
	}{
		{Variant{}, ""},
		{Variant{Preset: "nimbus", Hash: "sha1", KeyDerivation: "hash"}, ""},
		{Variant{Preset: "pysrp"}, "preset: must be bouncycastle, fast-srp-hap, nimbus, rfc5054, secure-remote-password or tssrp6a"},
		{Variant{Group: "rfc5054-1024"}, "group: must be rfc5054-2048"},
		{Variant{Group: "rfc3526-2048"}, "group: rfc3526-2048 has a generator that is a square"},
		{Variant{Hash: "md5"}, "hash: must be sha256, sha1, sha384 or sha512"},
		{Variant{Multiplier: Template{"3"}}, "k: must be a hash of N and g: k = 3"},
		{Variant{Multiplier: Template{"1"}}, "k: must be a hash of N and g: k = 1"},
		{Variant{Multiplier: Template{"N"}}, "k: must contain g"},
		{Variant{Multiplier: Template{"N", "A"}}, "k: part 2 must be one of N or g"},
		{Variant{Scrambler: Template{"B"}}, "u: must contain A: a thief"},
		{Variant{Exponent: Template{"inner"}}, "x: must contain s"},
		{Variant{Exponent: Template{"s", "I"}}, "x: must contain P or H(P)"},
		{Variant{Exponent: Template{"s", "P"}}, ""}, // M1 has the identity
		{Variant{Exponent: Template{"s", "P"}, ClientEvidence: Template{"A", "B", "S"}}, "x: must contain I or H(I)"},
		{Variant{Preset: "nimbus", Inner: Template{"P"}}, "x: must contain I or H(I)"},
		{Variant{KeyInput: Template{"S", "S"}}, "key_input: must be S in one of its forms"},
		{Variant{KeyInput: Template{"A"}}, "key_input: part 1 must be one of S"},
		{Variant{ClientEvidence: Template{"X", "H(I)", "s", "A", "B"}}, "m1: must contain K or S"},
		{Variant{ClientEvidence: Template{"P", "K"}}, "m1: part 1 must be one of"},
		{Variant{ClientEvidence: Template{"S"}}, "m1: must contain A: without A and B it can be the session key itself"},
		{Variant{ClientEvidence: Template{"A", "K"}, KeyDerivation: "hash"}, "m1: must contain B"},
		{Variant{KeyFunction: "none", KeyInput: Template{"S.hex"}, KeyDerivation: "none"}, "key_derivation: must be \"hkdf\" or \"hash\": K is a text"},
		{Variant{ServerEvidence: Template{"A", "K"}}, "m2: must contain M1: the server must prove itself after the client"},
		{Variant{ServerEvidence: Template{"A", "M1"}}, "m2: must contain K or S"},
		{Variant{MACInput: Template{"counter"}}, "mac: must contain data"},
		{Variant{MACInput: Template{"data"}}, ""},
		{Variant{Hash: "sha1", KeyDerivation: "none"}, "key_derivation: must be \"hkdf\" or \"hash\": K has 20 bytes"},
		{Variant{HKDFInfo: "täg"}, "hkdf_info: must have 1 to 128"},
		{Variant{CounterLayout: "middle"}, "counter: must be first, last or block"},
		{Variant{Inner: Template{"I", ":", "P"}}, "inner: part 2 is no known member; write a text after ="},
		{Variant{Inner: Template{"I", "=", "P"}}, "inner: part 2 must have 1 to 64 characters after ="},
		{Variant{Inner: Template{"I", "P.lower"}}, "inner: part 2 must be P, in one of the forms full"},
		{Variant{Inner: make(Template, 17)}, "inner: has more than 16 parts"},
	} {
		v, err := test.v.Complete()
		if err == nil {
			err = v.Check()
		}
		if test.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", test.v, err)
			}
			continue
		}
		if wrong, ok := errors.AsType[*option.Error](err); !ok || !strings.HasPrefix(wrong.Error(), test.want) {
			t.Errorf("%+v: %v, want %s", test.v, err, test.want)
		}
	}
}

// An option that is given and has no meaning is found. Presets may have it.
func TestUnused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		v    Variant
		want string
	}{
		{Variant{}, ""},
		{Variant{Preset: "nimbus", KeyDerivation: "hash"}, ""},
		{Variant{KeyDerivation: "hkdf", HKDFSalt: "none", HKDFInfo: "<purpose>"}, ""},
		{Variant{KeyDerivation: "hash", HKDFSalt: "none"}, "hkdf_salt: has no meaning beside the other options"},
		{Variant{KeyDerivation: "none", HKDFInfo: "<purpose>"}, "hkdf_info: has no meaning beside the other options"},
		{Variant{Exponent: Template{"s", "I", "P"}, Inner: Template{"I", "P"}}, "inner: has no meaning beside the other options"},
		{Variant{Exponent: Template{"s", "inner.minimal"}, Inner: Template{"I", "P"}}, ""},
		{Variant{Preset: "pysrp"}, "preset: must be bouncycastle, fast-srp-hap, nimbus, rfc5054, secure-remote-password or tssrp6a"},
	} {
		got := ""
		if err := test.v.Unused(); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%+v: %q, want %q", test.v, got, test.want)
		}
	}
}

// The operator is told what is accepted but not advisable.
func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		v    Variant
		want int
	}{
		{Variant{Hash: "sha1"}, 1},
		{Variant{Group: "rfc5054-6144"}, 1},
		{Variant{MACInput: Template{"data"}}, 1},
		{Variant{KeyDerivation: "hash"}, 2},
		{Variant{HKDFInfo: "<purpose>"}, 1},
		{Variant{HKDFInfo: "<item>"}, 1},
	} {
		c, err := test.v.Complete()
		if err != nil || c.Check() != nil {
			t.Fatal(err)
		}
		if w := c.Warnings(); len(w) != test.want {
			t.Errorf("%+v: %q", test.v, w)
		}
	}
}

// The digest changes with every option, and only with what they mean.
func TestDigest(t *testing.T) {
	t.Parallel()
	digest := func(v Variant) string {
		c, err := v.Complete()
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(c.Digest())
	}
	seen := map[string]string{digest(Variant{}): "the default"}
	if digest(Variant{Preset: "fast-srp-hap", Hash: "sha256"}) != digest(Variant{}) {
		t.Error("equal variants have two digests")
	}
	for _, d := range Dimensions {
		for _, c := range d.Choices[1:] {
			var v Variant
			d.Set(&v, c)
			if other, ok := seen[digest(v)]; ok {
				t.Errorf("%s %q has the digest of %s", d.Name, c, other)
			}
			seen[digest(v)] = d.Name + " " + strings.Join(c, " ")
		}
	}
}

// Random points of the space are either refused with a reason or accepted, and their
// configuration survives JSON.
func TestRandomPoints(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for range 2000 {
		var v Variant
		for _, d := range Dimensions {
			d.Set(&v, d.Choices[random.IntN(len(d.Choices))])
		}
		c, err := v.Complete()
		if err != nil {
			t.Fatal(err)
		}
		if c.Check() != nil {
			continue
		}
		accepted++
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var again Variant
		if err := json.Unmarshal(encoded, &again); err != nil || !reflect.DeepEqual(again, v) {
			t.Errorf("%+v became %+v, %v", v, again, err)
		}
	}
	if accepted < 200 {
		t.Errorf("only %d points are accepted", accepted)
	}
}

// A template that is parsed is written with the words that its parts name, and no other one is
// accepted. Errors never repeat a long word.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"s inner", "A.minimal B.DIGITS S.padded", "I =: P", "X H(I) s A B K", "= =x", "A. .A A.A"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words := strings.Split(s, " ")
		parts, err := Template(words).Parse()
		if err != nil {
			if len(err.Error()) > 200 {
				t.Errorf("long error %q", err)
			}
			return
		}
		for i, p := range parts {
			word := string(in(p.Member, p.Form))
			if p.Member == "" {
				word = "=" + p.Text
			}
			if word != words[i] {
				t.Errorf("%q was parsed as %q", words[i], word)
			}
		}
		v := Variant{ClientEvidence: words, ServerEvidence: words, Exponent: words, Multiplier: words}
		if c, err := v.Complete(); err == nil {
			_ = c.Check()
		}
	})
}
