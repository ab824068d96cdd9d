package solve

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // phones that have nothing else are to be recognised
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"math/big"
	"slices"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// hashFunction is a hash of variants.
type hashFunction struct {
	name string
	size int
	new  func() hash.Hash
}

var hashFunctions = []hashFunction{
	{"sha256", sha256.Size, sha256.New},
	{"sha1", sha1.Size, sha1.New},
	{"sha384", sha512.Size384, sha512.New384},
	{"sha512", sha512.Size, sha512.New},
}

// hashesOf returns the hashes with a size in bytes.
func hashesOf(size int) (found []hashFunction) {
	for _, h := range hashFunctions {
		if h.size == size {
			found = append(found, h)
		}
	}
	return found
}

// hashNamed returns the hash with a name, which package variant has checked.
func hashNamed(name string) hashFunction {
	return hashFunctions[slices.IndexFunc(hashFunctions, func(h hashFunction) bool { return h.name == name })]
}

// group is a group with numbers.
type group struct {
	variant.Group
	n, g *big.Int
	size int // of N in bytes
}

func newGroup(g variant.Group) group {
	n, ok := new(big.Int).SetString(g.Prime, 16)
	if !ok {
		panic("solve: prime of " + g.Name)
	}
	return group{g, n, big.NewInt(int64(g.Generator)), g.Bits / 8}
}

func (g group) exp(base, exponent *big.Int) *big.Int { return new(big.Int).Exp(base, exponent, g.n) }

// pad returns the bytes of a number below N, padded to the length of N.
func (g group) pad(x *big.Int) []byte { return x.FillBytes(make([]byte, g.size)) }

// values has the members of an exchange, numbers with the length of N, and the hash of its
// templates.
type values struct {
	group   group
	hash    hashFunction
	members map[variant.Member][]byte
}

// newValues returns the members that are known before anything is computed. A and B must be
// below N.
func newValues(c *Capture, g group, h hashFunction) *values {
	v := &values{group: g, hash: h}
	n, generator := g.pad(g.n), g.pad(g.g)
	xor := func(g []byte) []byte {
		b := v.digest(n)
		for i, x := range v.digest(g) {
			b[i] ^= x
		}
		return b
	}
	v.members = map[variant.Member][]byte{
		variant.N: n, variant.G: generator,
		variant.X: xor(g.g.Bytes()), variant.PaddedX: xor(generator),
		variant.Identity: []byte(c.Identity), variant.Password: []byte(c.Password), variant.Salt: c.Salt,
		variant.IdentityHash: v.digest([]byte(c.Identity)), variant.PasswordHash: v.digest([]byte(c.Password)),
		variant.A: g.pad(number(c.ClientPublic)), variant.B: g.pad(number(c.ServerPublic)),
	}
	return v
}

func number(b []byte) *big.Int { return new(big.Int).SetBytes(b) }

func (v *values) digest(parts ...[]byte) []byte {
	h := v.hash.new()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// join returns the byte strings of a template, one after the other.
func (v *values) join(template []variant.Part) []byte {
	var joined []byte
	for _, p := range template {
		joined = append(joined, v.part(p)...)
	}
	return joined
}

func (v *values) hashed(template []variant.Part) []byte { return v.digest(v.join(template)) }

// part returns the byte string of a part.
func (v *values) part(p variant.Part) []byte {
	if p.Member == "" {
		return []byte(p.Text)
	}
	b := v.members[p.Member]
	minimal := bytes.TrimLeft(b, "\x00")
	switch p.Form {
	case variant.Minimal:
		return minimal
	case variant.Signed:
		if len(minimal) > 0 && minimal[0] >= 0x80 {
			return append([]byte{0}, minimal...)
		}
		return minimal
	case variant.Padded:
		return append(make([]byte, max(0, v.group.size-len(b))), b...)
	case variant.Hex:
		return []byte(hex.EncodeToString(b))
	case variant.UpperHex:
		return bytes.ToUpper([]byte(hex.EncodeToString(b)))
	case variant.Digits:
		return bytes.TrimLeft([]byte(hex.EncodeToString(b)), "0")
	case variant.UpperDigits:
		return bytes.ToUpper(bytes.TrimLeft([]byte(hex.EncodeToString(b)), "0"))
	case variant.Lower:
		return bytes.ToLower(b)
	case variant.Upper:
		return bytes.ToUpper(b)
	default:
		return b
	}
}

// parse returns the parts of a template of package variant, or of one that was checked.
func parse(template []string) []variant.Part {
	if len(template) == 0 {
		return nil
	}
	parts, err := variant.Template(template).Parse()
	if err != nil {
		panic("solve: template " + strings.Join(template, " ") + ": " + err.Error())
	}
	return parts
}

// exponent returns x.
func (v *values) exponent(inner, x []variant.Part) *big.Int {
	if inner != nil {
		v.members[variant.Inner] = v.hashed(inner)
	}
	return number(v.hashed(x))
}

// base returns B - k*g^x, where gx is g^x.
func (v *values) base(k, gx *big.Int) *big.Int {
	z := new(big.Int).Mul(k, gx)
	z.Sub(number(v.members[variant.B]), z)
	return z.Mod(z, v.group.n)
}

// key returns K by one of the key functions. input is S in its form.
func (v *values) key(function string, input []byte) []byte {
	switch function {
	case variant.KeyNone:
		return input
	case variant.KeyMGF1:
		return append(v.digest(input, []byte{0, 0, 0, 0}), v.digest(input, []byte{0, 0, 0, 1})...)
	case variant.KeyInterleave:
		input = bytes.TrimLeft(input, "\x00")
		input = input[len(input)%2:]
		var halves [2][]byte
		for i, b := range input {
			halves[i%2] = append(halves[i%2], b)
		}
		even, odd := v.digest(halves[0]), v.digest(halves[1])
		key := make([]byte, 0, 2*len(even))
		for i := range even {
			key = append(key, even[i], odd[i])
		}
		return key
	default:
		return v.digest(input)
	}
}

// serverEvidence is M2, the server's evidence, as a member of values.
const serverEvidence variant.Member = "M2"

// finish computes K, M1 and M2 from S.
func (v *values) finish(with variant.Variant) {
	v.members[variant.K] = v.key(with.KeyFunction, v.part(parse(with.KeyInput)[0]))
	v.members[variant.M1] = v.hashed(parse(with.ClientEvidence))
	v.members[serverEvidence] = v.hashed(parse(with.ServerEvidence))
}

// itemKeySize is the size in bytes of the keys of an item.
const itemKeySize = 32

// itemKeys derives the keys of an item from K, or nil if K is too short.
func (v *values) itemKeys(choice variant.Variant, item string, key []byte) (encryption, authentication []byte) {
	switch choice.KeyDerivation {
	case variant.DeriveHash:
		digest := sha256.Sum256(key)
		return digest[:], digest[:]
	case variant.DeriveNone:
		if len(key) < itemKeySize {
			return nil, nil
		}
		return key[:itemKeySize], key[:itemKeySize]
	}
	var salt []byte
	switch choice.HKDFSalt {
	case variant.SaltTranscript:
		digest := sha256.Sum256(append(bytes.Clone(v.members[variant.A]), v.members[variant.B]...))
		salt = digest[:]
	case variant.SaltSalt:
		salt = v.members[variant.Salt]
	}
	derive := func(purpose string) []byte {
		info := strings.NewReplacer("<item>", item, "<purpose>", purpose).Replace(choice.HKDFInfo)
		key, err := hkdf.Key(sha256.New, key, salt, info, itemKeySize)
		if err != nil {
			panic("solve: HKDF: " + err.Error()) // the size is far below its limit
		}
		return key
	}
	return derive("encryption"), derive("mac")
}

// decrypt returns the plaintext of an item, or nil if the counter has the wrong size for the
// layout.
func decrypt(layout string, key []byte, i Item) []byte {
	want := aes.BlockSize / 2
	if layout == variant.CounterBlock {
		want = aes.BlockSize
	}
	if len(i.Counter) != want {
		return nil
	}
	var initial [aes.BlockSize]byte
	if layout == variant.CounterLast {
		copy(initial[aes.BlockSize-want:], i.Counter)
	} else {
		copy(initial[:], i.Counter)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("solve: AES: " + err.Error()) // the key has the right size
	}
	plaintext := make([]byte, len(i.Data))
	cipher.NewCTR(block, initial[:]).XORKeyStream(plaintext, i.Data)
	return plaintext
}

// authenticate returns the MAC of an item.
func authenticate(template []variant.Part, key []byte, i Item) []byte {
	v := &values{members: map[variant.Member][]byte{variant.Counter: i.Counter, variant.Data: i.Data}}
	h := hmac.New(sha256.New, key)
	h.Write(v.join(template))
	return h.Sum(nil)
}
