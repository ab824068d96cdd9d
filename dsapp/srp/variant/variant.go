// Package variant describes the variants of SRP-6a that public libraries compute, as data: which
// values each formula joins, in which order and form. Package srp computes them.
//
// A [Variant] is one of them. [Dimensions] lists what variants can differ in, with the choices
// that libraries are known to make, so that programs can go through all of them. [Presets] are
// the variants of named libraries.
package variant

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// Variant is every choice of an exchange that phone and gateway must agree on. An empty
// option has the value of the preset.
//
// The formulas that all variants share are, modulo the prime N:
//
//	v = g^x
//	A = g^a
//	B = k*v + g^b
//	S = (B - k*g^x)^(a + u*x) = (A * v^u)^b
//
// Hashes that are used as numbers are big-endian and unsigned. B has always the length of N.
type Variant struct {
	// The library whose choices apply where no other option is given: `rfc5054` (the
	// formulas of the profile `rfc5054-2048-sha256`), `bouncycastle`, `nimbus`,
	// `fast-srp-hap`, `secure-remote-password` or `tssrp6a`. `nimbus` and `tssrp6a` stand
	// for these libraries with the identity in `x`, which their users have to select.
	// Default: `rfc5054`.
	Preset string `json:"preset,omitempty"`

	// The prime and its generator: `rfc5054-2048`, `rfc5054-3072`, `rfc5054-4096`,
	// `rfc5054-6144` or `rfc5054-8192`. There is fast arithmetic for up to 4096 bits only:
	// with 6144 bits an exchange costs 30 ms of processor time, with 8192 bits 60 ms, which
	// is up to 300 times as much as with 2048 bits. Default: `rfc5054-2048`.
	Group string `json:"group,omitempty"`

	// The hash of all formulas: `sha1`, `sha256`, `sha384` or `sha512`. Use `sha1` only for
	// phones that have nothing else; the gateway warns of it when it starts. Default:
	// `sha256`.
	Hash string `json:"hash,omitempty"`

	// What the multiplier `k` is the hash of: a sequence of `N`, `g` and texts. `g` is
	// padded to the length of N, `g.minimal` is a single byte. Default: `N g`.
	Multiplier Template `json:"k,omitempty"`

	// What the member `inner` of `x` is the hash of: a sequence of `I`, `P`, `H(I)`, `H(P)`,
	// `s` and texts. It has a meaning only if `inner` is in `x`. Default: `I =: P`.
	Inner Template `json:"inner,omitempty"`

	// What the private exponent `x` is the hash of: a sequence of `s`, `inner`, `I`, `P`,
	// `H(I)`, `H(P)` and texts. It must contain the salt and the password. The identity must
	// be in it or in `m1`. Default: `s inner`.
	Exponent Template `json:"x,omitempty"`

	// What `u` is the hash of: a sequence of `A`, `B` and texts. Default: `A B`.
	Scrambler Template `json:"u,omitempty"`

	// How the session key `K` is computed from `key_input`: `hash`; `none`, so that K is
	// the input itself; `mgf1`, two hashes, of the input with the bytes 00000000 and
	// 00000001; or `interleave`, by RFC 2945, section 3.1. Default: `hash`.
	KeyFunction string `json:"key_function,omitempty"`

	// The form of `S` in the session key: `S`, `S.minimal` and so on. Forms without leading
	// zeros make the time for the hash depend on the number of these, of a value that is new
	// in each exchange. Default: `S`.
	KeyInput Template `json:"key_input,omitempty"`

	// What the client's evidence `M1` is the hash of: a sequence of `X`, `Xp`, `H(I)`, `I`,
	// `s`, `N`, `g`, `A`, `B`, `S`, `K` and texts. It must contain `A`, `B`, and `K` or `S`.
	// Default: `X H(I) s A B K`.
	ClientEvidence Template `json:"m1,omitempty"`

	// What the server's evidence `M2` is the hash of: the same members and `M1`. It must
	// contain `M1`, and `K` or `S`. Default: `A M1 K`.
	ServerEvidence Template `json:"m2,omitempty"`

	// The case of the hexadecimal digits of `B`, `s` and `M2` in answers: `upper` or
	// `lower`. Both are accepted in requests. Default: `upper`.
	HexCase string `json:"hex_case,omitempty"`

	// How the keys of AES-256 and of the MAC are derived from `K`: `hkdf`, by
	// HKDF-SHA-256 with `hkdf_salt` and `hkdf_info`; `hash`, the SHA-256 of K for both; or
	// `none`, the first 32 bytes of K for both. Default: `hkdf`.
	KeyDerivation string `json:"key_derivation,omitempty"`

	// The salt of HKDF: `transcript`, the SHA-256 of A and B with the length of N; `salt`,
	// the salt of the exchange; or `none`. It has a meaning only with `key_derivation` `hkdf`.
	// Default: `transcript`.
	HKDFSalt string `json:"hkdf_salt,omitempty"`

	// The info of HKDF, 1 to 128 printable ASCII characters. `<item>` stands for the item,
	// such as `licenseActivationMessage`, and `<purpose>` for `encryption` or `mac`. It has a
	// meaning only with `key_derivation` `hkdf`. Default: `DSAPP-SRP v1 <item> <purpose>`.
	HKDFInfo string `json:"hkdf_info,omitempty"`

	// Where the random counter is in the initial block of AES-256-CTR: `first`, 8 bytes
	// before 8 zero bytes; `last`, 8 bytes after 8 zero bytes; or `block`, all 16 bytes.
	// Default: `first`.
	CounterLayout string `json:"counter,omitempty"`

	// What the MAC, HMAC-SHA-256, is computed over: a sequence of `counter`, `data` (the
	// ciphertext) and texts. It must contain `data`. Without `counter` an altered counter
	// is not noticed. Default: `counter data`.
	MACInput Template `json:"mac,omitempty"`
}

// Values of options.
const (
	KeyHash       = "hash"
	KeyNone       = "none"
	KeyMGF1       = "mgf1"
	KeyInterleave = "interleave"

	UpperCase = "upper"
	LowerCase = "lower"

	DeriveHKDF = "hkdf"
	DeriveHash = "hash"
	DeriveNone = "none"

	SaltTranscript = "transcript"
	SaltSalt       = "salt"
	SaltNone       = "none"

	CounterFirst = "first"
	CounterLast  = "last"
	CounterBlock = "block"
)

// Presets are the variants of libraries, by their names. Members that are empty are those of
// DefaultPreset.
var Presets = map[string]Variant{
	DefaultPreset: {
		Group: "rfc5054-2048", Hash: "sha256",
		Multiplier: Template{"N", "g"}, Inner: Template{"I", "=:", "P"}, Exponent: Template{"s", "inner"}, Scrambler: Template{"A", "B"},
		KeyFunction: KeyHash, KeyInput: Template{"S"},
		ClientEvidence: Template{"X", "H(I)", "s", "A", "B", "K"}, ServerEvidence: Template{"A", "M1", "K"},
		HexCase: UpperCase, KeyDerivation: DeriveHKDF, HKDFSalt: SaltTranscript, HKDFInfo: "DSAPP-SRP v1 <item> <purpose>",
		CounterLayout: CounterFirst, MACInput: Template{"counter", "data"},
	},
	"bouncycastle": {
		ClientEvidence: Template{"A", "B", "S"}, ServerEvidence: Template{"A", "M1.padded", "S"},
	},
	"nimbus": {
		Exponent: Template{"s.minimal", "inner"}, KeyInput: Template{"S.minimal"},
		ClientEvidence: Template{"A.minimal", "B.minimal", "S.minimal"}, ServerEvidence: Template{"A.minimal", "M1.minimal", "S.minimal"},
	},
	"fast-srp-hap":           {},
	"secure-remote-password": {Multiplier: Template{"N", "g.minimal"}, HexCase: LowerCase},
	"tssrp6a": {
		Hash: "sha512", Exponent: Template{"s.minimal", "inner"}, KeyFunction: KeyNone, KeyInput: Template{"S.minimal"},
		ClientEvidence: Template{"A.minimal", "B.minimal", "S.minimal"}, ServerEvidence: Template{"A.minimal", "M1.minimal", "S.minimal"},
	},
}

// DefaultPreset is the preset of a variant that names none.
const DefaultPreset = "rfc5054"

// hashSizes has the hashes with their sizes in bytes.
var hashSizes = map[string]int{"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}

// Complete returns the variant with the values of its preset where an option is empty, and
// without the name of the preset. Two variants that compute the same are equal then, unless
// they say the same in different ways. The error is an *option.Error.
func (v Variant) Complete() (Variant, error) {
	name := cmp.Or(v.Preset, DefaultPreset)
	preset, ok := Presets[name]
	if !ok {
		return Variant{}, option.Errorf("preset", "must be %s", list(slices.Sorted(maps.Keys(Presets))))
	}
	for _, d := range Dimensions {
		for _, from := range []Variant{preset, Presets[DefaultPreset]} {
			if len(d.Get(v)) == 0 {
				d.Set(&v, d.Get(from))
			}
		}
	}
	v.Preset = ""
	if !slices.ContainsFunc(v.Exponent, func(word string) bool { return word == string(Inner) || strings.HasPrefix(word, string(Inner)+".") }) {
		v.Inner = nil
	}
	if v.KeyDerivation != DeriveHKDF {
		v.HKDFSalt, v.HKDFInfo = "", ""
	}
	return v, nil
}

// Unused returns an *option.Error for an option that is given and has no meaning beside the others:
// Complete ignores it.
func (v Variant) Unused() error {
	c, err := v.Complete()
	if err != nil {
		return err
	}
	for _, d := range Dimensions {
		if len(d.Get(v)) > 0 && len(d.Get(c)) == 0 {
			return option.Errorf(d.Name, "has no meaning beside the other options")
		}
	}
	return nil
}

// Digest identifies the completed variant: 32 bytes that change with every option.
func (v Variant) Digest() []byte {
	encoded, err := json.Marshal(v)
	if err != nil {
		panic("variant: " + err.Error()) // there are texts only
	}
	digest := sha256.Sum256(encoded)
	return digest[:]
}

// FindGroup returns the group with a name.
func FindGroup(name string) (Group, bool) {
	i := slices.IndexFunc(Groups, func(g Group) bool { return g.Name == name })
	if i < 0 {
		return Group{}, false
	}
	return Groups[i], true
}

// list joins words for an error.
func list(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// rule is what a template may contain and must contain.
type rule struct {
	name     string
	template Template
	members  []Member
	// needs has sets of members: one of each must be there. why says why.
	needs []need
}

type need struct {
	oneOf []Member
	why   string
}

// rules are those of the templates of a completed variant.
func (v Variant) rules() []rule {
	proof := need{[]Member{K, S}, "without the session key everybody can compute it"}
	evidence := []Member{X, PaddedX, IdentityHash, Identity, Salt, N, G, A, B, S, K}
	return []rule{
		{"k", v.Multiplier, []Member{N, G}, []need{
			{[]Member{N}, "the multiplier must depend on the group"}, {[]Member{G}, "the multiplier must depend on the group"},
		}},
		{"inner", v.Inner, []Member{Identity, Password, IdentityHash, PasswordHash, Salt}, nil},
		{"x", v.Exponent, []Member{Salt, Inner, Identity, Password, IdentityHash, PasswordHash}, []need{
			{[]Member{Salt}, "without the salt equal passwords have equal verifiers"},
		}},
		{"u", v.Scrambler, []Member{A, B}, []need{
			{[]Member{A}, "a thief of the verifier could choose A for a known u"}, {[]Member{B}, "a thief of the verifier could choose A for a known u"},
		}},
		{"key_input", v.KeyInput, []Member{S}, []need{{[]Member{S}, "the session key must be computed from S"}}},
		{"m1", v.ClientEvidence, evidence, []need{
			proof, {[]Member{A}, "without A and B it can be the session key itself"}, {[]Member{B}, "without A and B it can be the session key itself"},
		}},
		{"m2", v.ServerEvidence, append(slices.Clone(evidence), M1), []need{
			proof, {[]Member{M1}, "the server must prove itself after the client, or it would let everybody test passwords"},
		}},
		{"mac", v.MACInput, []Member{Counter, Data}, []need{{[]Member{Data}, "the MAC must protect the ciphertext"}}},
	}
}

// constants are multipliers of older versions of the protocol.
var constants = map[string]string{
	"1": "k = 1 (SRP-3) lets an attacker test two passwords in each exchange",
	"3": "k = 3 (SRP-6) lets whoever knows the logarithm of 3 test two passwords in each exchange",
}

// Check returns an error if the completed variant is none, or is weaker than SRP-6a: an
// *option.Error that says why.
func (v Variant) Check() error {
	if err := v.checkWords(); err != nil {
		return err
	}
	group, _ := FindGroup(v.Group)
	if group.Weak != "" {
		return option.Errorf("group", "%s %s", group.Name, group.Weak)
	}
	if len(v.Multiplier) == 1 && constants[v.Multiplier[0]] != "" {
		return option.Errorf("k", "must be a hash of N and g: %s", constants[v.Multiplier[0]])
	}
	parsed := map[string][]Part{}
	for _, r := range v.rules() {
		if r.name == "inner" && r.template == nil {
			continue
		}
		parts, err := r.check()
		if err != nil {
			return option.In(r.name, err)
		}
		parsed[r.name] = parts
	}
	private := slices.Concat(parsed["x"], parsed["inner"])
	if !contains(private, Password, PasswordHash) {
		return option.Errorf("x", "must contain P or H(P), or inner with it: the password has to be in it")
	}
	if !contains(slices.Concat(private, parsed["m1"]), Identity, IdentityHash) {
		return option.Errorf("x", "must contain I or H(I), or inner with it, unless m1 does: whoever can write to the store could give one user the verifier and salt of another")
	}
	if len(parsed["key_input"]) != 1 {
		return option.Errorf("key_input", "must be S in one of its forms")
	}
	return v.checkSealing()
}

// check returns the parts of the template if they keep the rule.
func (r rule) check() ([]Part, error) {
	parts, err := r.template.Parse()
	if err != nil {
		return nil, err
	}
	for i, p := range parts {
		if p.Member != "" && !slices.Contains(r.members, p.Member) {
			return nil, fmt.Errorf("part %d must be one of %s, or a text after =", i+1, names(r.members))
		}
	}
	for _, n := range r.needs {
		if !contains(parts, n.oneOf...) {
			return nil, fmt.Errorf("must contain %s: %s", names(n.oneOf), n.why)
		}
	}
	return parts, nil
}

func names(members []Member) string {
	return list(words(members...))
}

// checkWords checks the options that are one of several words.
func (v Variant) checkWords() error {
	for _, d := range Dimensions {
		if !d.Word {
			continue
		}
		value := d.Get(v)
		if len(value) == 0 && v.KeyDerivation != DeriveHKDF {
			continue // of HKDF
		}
		if !slices.ContainsFunc(d.Choices, func(c []string) bool { return slices.Equal(c, value) }) {
			known := make([]string, len(d.Choices))
			for i, c := range d.Choices {
				known[i] = c[0]
			}
			return option.Errorf(d.Name, "must be %s", list(known))
		}
	}
	return nil
}

func (v Variant) checkSealing() error {
	if v.KeyDerivation == DeriveHKDF && (len(v.HKDFInfo) > maxInfo || !printable(v.HKDFInfo)) {
		return option.In("hkdf_info", errors.New("must have 1 to 128 printable ASCII characters"))
	}
	if size, fixed := v.KeySize(); v.KeyDerivation == DeriveNone && fixed && size < 32 {
		return option.Errorf("key_derivation", "must be %q or %q: K has %d bytes, which are too few for the keys", DeriveHKDF, DeriveHash, size)
	}
	if v.KeyDerivation == DeriveNone && v.KeyFunction == KeyNone {
		// As digits, S has half as many random bits in each byte.
		if _, form, _ := strings.Cut(v.KeyInput[0], "."); slices.Contains([]Form{Hex, UpperHex, Digits, UpperDigits}, Form(form)) {
			return option.Errorf("key_derivation", "must be %q or %q: K is a text, of which the first 32 characters are too few for the keys", DeriveHKDF, DeriveHash)
		}
	}
	return nil
}

const maxInfo = 128

// HashSize is the size in bytes of the hash, and of M1 and M2.
func (v Variant) HashSize() int { return hashSizes[v.Hash] }

// KeySize is the size of K in bytes. It returns false if K is S, whose size depends on its
// form.
func (v Variant) KeySize() (size int, fixed bool) {
	switch v.KeyFunction {
	case KeyNone:
		return 0, false
	case KeyHash:
		return v.HashSize(), true
	default:
		return 2 * v.HashSize(), true
	}
}

// Warnings says what the operator should know of a variant that is accepted.
func (v Variant) Warnings() (warnings []string) {
	for _, w := range []struct {
		applies bool
		text    string
	}{
		{v.Hash == "sha1", "SHA-1 is being retired; use another hash as soon as all phones have one"},
		{groupBits(v.Group) > FastBits, fmt.Sprintf("there is no fast arithmetic for groups of more than %d bits; each exchange costs several times as much", FastBits)},
		{!slices.Contains(v.MACInput, string(Counter)), "the MAC does not protect the counter"},
		{v.KeyDerivation != DeriveHKDF || !strings.Contains(v.HKDFInfo, "<item>"), "all items of an answer have the same keys; whoever can alter answers can exchange activation code and event counter"},
		{v.KeyDerivation != DeriveHKDF || !strings.Contains(v.HKDFInfo, "<purpose>"), "an item is encrypted and authenticated with the same key"},
	} {
		if w.applies {
			warnings = append(warnings, w.text)
		}
	}
	return warnings
}

// FastBits is the size in bits of the largest group with fast arithmetic.
const FastBits = 4096

// groupBits returns the bits of the group with a name, 0 if there is none.
func groupBits(name string) int {
	g, _ := FindGroup(name)
	return g.Bits
}
