package solve

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// recorder makes captures from the descriptions of variants. It shares no code with the package:
// values are texts of hexadecimal digits, and S is computed by the server's formula.
type recorder struct {
	random *rand.Rand
	v      variant.Variant
	// digits are the members, two for each byte.
	digits map[string]string
	size   int // digits of N
}

var recorderHashes = map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}

func (r *recorder) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.random.Uint32())
	}
	return b
}

func (r *recorder) pad(digits string) string {
	return strings.Repeat("0", max(0, r.size-len(digits))) + digits
}

func (r *recorder) hash(digits ...string) string {
	h := recorderHashes[r.v.Hash]()
	b, err := hex.DecodeString(strings.Join(digits, ""))
	if err != nil {
		panic(err)
	}
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil))
}

// word returns the digits of a word of a template.
func (r *recorder) word(word string) string {
	text := func(s string) string { return hex.EncodeToString([]byte(s)) }
	if strings.HasPrefix(word, "=") {
		return text(word[1:])
	}
	name, form, _ := strings.Cut(word, ".")
	digits, ok := r.digits[name]
	if !ok {
		panic("no member " + name)
	}
	short := digits
	for strings.HasPrefix(short, "00") {
		short = short[2:]
	}
	switch form {
	case "":
		return digits
	case "minimal":
		return short
	case "signed":
		if short != "" && short[0] >= '8' {
			return "00" + short
		}
		return short
	case "padded":
		return r.pad(digits)
	case "hex":
		return text(digits)
	case "HEX":
		return text(strings.ToUpper(digits))
	case "digits":
		return text(strings.TrimLeft(digits, "0"))
	case "DIGITS":
		return text(strings.ToUpper(strings.TrimLeft(digits, "0")))
	case "lower", "upper":
		b, _ := hex.DecodeString(digits)
		if form == "lower" {
			return text(strings.ToLower(string(b)))
		}
		return text(strings.ToUpper(string(b)))
	}
	panic("no form " + form)
}

func (r *recorder) template(t variant.Template) string {
	var all []string
	for _, w := range t {
		all = append(all, r.word(w))
	}
	return r.hash(all...)
}

func big16(digits string) *big.Int {
	n, ok := new(big.Int).SetString("0"+digits, 16)
	if !ok {
		panic("no number")
	}
	return n
}

func unhex(digits string) []byte {
	b, err := hex.DecodeString(digits)
	if err != nil {
		panic(err)
	}
	return b
}

// record returns the capture of an exchange with a variant that is complete. begins, if not nil,
// says which A, B and S are wanted.
func (r *recorder) record(identity string, begins func(a, b, s string) bool) Capture {
	v := r.v
	group, _ := variant.FindGroup(v.Group)
	r.size = len(group.Prime)
	n, g := big16(group.Prime), big.NewInt(int64(group.Generator))
	password := "Tb048aX1"
	salt := r.bytes(16)
	one := hex.EncodeToString(g.Bytes())
	r.digits = map[string]string{
		"N": group.Prime, "g": r.pad(one), "s": hex.EncodeToString(salt),
		"I": hex.EncodeToString([]byte(identity)), "P": hex.EncodeToString([]byte(password)),
	}
	r.digits["N"] = strings.ToLower(group.Prime)
	d := r.digits
	d["H(I)"], d["H(P)"] = r.hash(d["I"]), r.hash(d["P"])
	xor := func(a, b string) string {
		x, y := unhex(a), unhex(b)
		for i := range x {
			x[i] ^= y[i]
		}
		return hex.EncodeToString(x)
	}
	d["X"], d["Xp"] = xor(r.hash(d["N"]), r.hash(one)), xor(r.hash(d["N"]), r.hash(d["g"]))
	if len(v.Inner) > 0 {
		d["inner"] = r.template(v.Inner)
	}
	x, k := big16(r.template(v.Exponent)), big16(r.template(v.Multiplier))
	verifier := new(big.Int).Exp(g, x, n)
	var a *big.Int
	for {
		a = new(big.Int).SetBytes(r.bytes(32))
		b := new(big.Int).SetBytes(r.bytes(32))
		d["A"] = r.pad(new(big.Int).Exp(g, a, n).Text(16))
		public := new(big.Int).Mul(k, verifier)
		public.Add(public, new(big.Int).Exp(g, b, n)).Mod(public, n)
		d["B"] = r.pad(public.Text(16))
		u := big16(r.template(v.Scrambler))
		base := new(big.Int).Exp(verifier, u, n)
		base.Mul(base, big16(d["A"]))
		d["S"] = r.pad(base.Exp(base, b, n).Text(16))
		if begins == nil || begins(d["A"], d["B"], d["S"]) {
			break
		}
	}
	input := r.word(v.KeyInput[0])
	switch v.KeyFunction {
	case "hash":
		d["K"] = r.hash(input)
	case "none":
		d["K"] = input
	case "mgf1":
		d["K"] = r.hash(input, "00000000") + r.hash(input, "00000001")
	case "interleave":
		for strings.HasPrefix(input, "00") {
			input = input[2:]
		}
		if len(input)%4 != 0 {
			input = input[2:]
		}
		var even, odd string
		for i := 0; i < len(input); i += 4 {
			even, odd = even+input[i:i+2], odd+input[i+2:i+4]
		}
		even, odd = r.hash(even), r.hash(odd)
		for i := 0; i < len(even); i += 2 {
			d["K"] += even[i:i+2] + odd[i:i+2]
		}
	}
	d["M1"] = r.template(v.ClientEvidence)
	c := Capture{
		Identity: identity, Password: password, Salt: salt, Private: a.Bytes(), ClientPublic: unhex(d["A"]), ServerPublic: unhex(d["B"]),
		Premaster: unhex(d["S"]), Key: unhex(d["K"]), ClientEvidence: unhex(d["M1"]), ServerEvidence: unhex(r.template(v.ServerEvidence)),
	}
	c.Items = []Item{r.item("licenseActivationMessage", "0041C3E4F1A2B3C4D5E6F708192A3B4C")}
	return c
}

// item returns an encrypted item of the exchange.
func (r *recorder) item(name, plaintext string) Item {
	key := unhex(r.digits["K"])
	var keys [2][]byte
	for i, purpose := range []string{"encryption", "mac"} {
		digest := sha256.Sum256(key)
		switch r.v.KeyDerivation {
		case "none":
			keys[i] = key[:32]
		case "hash":
			keys[i] = digest[:]
		default:
			var salt []byte
			switch r.v.HKDFSalt {
			case "transcript":
				digest := sha256.Sum256(unhex(r.digits["A"] + r.digits["B"]))
				salt = digest[:]
			case "salt":
				salt = unhex(r.digits["s"])
			}
			info := strings.ReplaceAll(strings.ReplaceAll(r.v.HKDFInfo, "<item>", name), "<purpose>", purpose)
			derived, err := hkdf.Key(sha256.New, key, salt, info, 32)
			if err != nil {
				panic(err)
			}
			keys[i] = derived
		}
	}
	i := Item{Name: name, Plaintext: plaintext, Data: make([]byte, len(plaintext)), Counter: r.bytes(8)}
	initial := append(append([]byte{}, i.Counter...), make([]byte, 8)...)
	switch r.v.CounterLayout {
	case "last":
		initial = append(make([]byte, 8), i.Counter...)
	case "block":
		i.Counter = r.bytes(16)
		initial = i.Counter
	}
	block, err := aes.NewCipher(keys[0])
	if err != nil {
		panic(err)
	}
	cipher.NewCTR(block, initial).XORKeyStream(i.Data, []byte(plaintext))
	r.digits["counter"], r.digits["data"] = hex.EncodeToString(i.Counter), hex.EncodeToString(i.Data)
	m := hmac.New(sha256.New, keys[1])
	for _, w := range r.v.MACInput {
		m.Write(unhex(r.word(w)))
	}
	i.MAC = m.Sum(nil)
	return i
}

// completed returns the variant with all options.
func completed(t testing.TB, v variant.Variant) variant.Variant {
	t.Helper()
	c, err := v.Complete()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
