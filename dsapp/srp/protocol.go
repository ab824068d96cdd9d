package srp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Here are the formulas that a phone and the gateway must agree on, in the order of an
// exchange and in the notation of the package's description: all but v = g^x and
// A = g^a, which are a call of powerG. Public values and numbers of kernels have the
// size of N already.

// multiplier returns k = H(N | PAD(g)).
func (p *Profile) multiplier() []byte {
	return p.digest(p.prime, p.pad([]byte{p.generator}))
}

// passwordExponent sets x = H(s | H(I | ":" | P)).
func (w *workspace) passwordExponent(x *[PrivateSize]byte, identity, password string, salt []byte) {
	w.digest(w.inner, w.textOf(identity, ":", password))
	w.exponent(x, salt, w.inner)
}

// serverPublic sets z to B = k*v + g^b. It changes v.
func (w *workspace) serverPublic(z, v element, b *[PrivateSize]byte) {
	w.product(v, w.g.k, v)
	w.powerG(z, b)
	w.sum(z, v, z)
}

// scramble sets u = H(PAD(A) | PAD(B)), and tells whether it can be used: with u = 0,
// S would not depend on the verifier.
func (w *workspace) scramble(clientPublic, serverPublic []byte) bool {
	w.exponent(&w.u, clientPublic, serverPublic)
	return !isZero(w.u[:])
}

// clientSecret sets x to S = (B - k*g^x)^(a + u*x), as base^a * (base^u)^x so that
// every exponent has PrivateSize bytes.
func (w *workspace) clientSecret(serverPublic []byte, a *[PrivateSize]byte) {
	w.powerG(w.x, &w.secret)
	w.product(w.x, w.g.minusK, w.x)
	w.fromBytes(w.y, serverPublic)
	w.sum(w.x, w.y, w.x)
	w.power(w.y, w.x, a)
	w.power(w.x, w.x, &w.u)
	w.power(w.x, w.x, &w.secret)
	w.product(w.x, w.y, w.x)
}

// serverSecret sets x to S = (A * v^u)^b.
func (w *workspace) serverSecret(x exchange) {
	w.fromBytes(w.x, x.verifier)
	w.power(w.x, w.x, &w.u)
	w.fromBytes(w.y, x.clientPublic)
	w.product(w.x, w.y, w.x)
	copy(w.secret[:], x.private)
	w.power(w.x, w.x, &w.secret)
}

// label returns H(N) xor H(g), with g as a single byte.
func (p *Profile) label() []byte {
	b := p.digest(p.prime)
	for i, x := range p.digest([]byte{p.generator}) {
		b[i] ^= x
	}
	return b
}

// prove sets, of S,
//
//	K  = H(PAD(S))
//	M1 = H((H(N) xor H(g)) | H(I) | s | PAD(A) | PAD(B) | K)
//	M2 = H(PAD(A) | M1 | K)
func (w *workspace) prove(identity string, salt, clientPublic, serverPublic []byte, s element) {
	w.toBytes(w.number, s)
	w.digest(w.key, w.number)
	w.digest(w.inner, w.textOf(identity))
	w.digest(w.m1, w.g.label, w.inner, salt, clientPublic, serverPublic, w.key)
	w.digest(w.m2, clientPublic, w.m1, w.key)
}

// bind sets the salt of the keys to SHA-256(PAD(A) | PAD(B)), so that they belong to
// one exchange.
func (s *Session) bind(clientPublic, serverPublic []byte) {
	h := sha256.New()
	h.Write(clientPublic)
	h.Write(serverPublic)
	h.Sum(s.salt[:0])
}

// keys returns the keys of an item (RFC 5869):
//
//	Kenc = HKDF-SHA-256(K, salt, "DSAPP-SRP v1 <item> encryption")
//	Kmac = HKDF-SHA-256(K, salt, "DSAPP-SRP v1 <item> mac")
func (s *Session) keys(item seal.Item) (encryption, authentication []byte, err error) {
	for _, k := range []struct {
		to      *[]byte
		purpose string
	}{{&encryption, "encryption"}, {&authentication, "mac"}} {
		if *k.to, err = hkdf.Key(sha256.New, s.key, s.salt[:], "DSAPP-SRP v1 "+string(item)+" "+k.purpose, itemKeySize); err != nil {
			return nil, nil, fmt.Errorf("deriving %s key: %w", k.purpose, err)
		}
	}
	return encryption, authentication, nil
}

// crypt sets dst = AES-256-CTR(Kenc, counter | 00 00 00 00 00 00 00 00, src) (NIST SP
// 800-38A). The zero bytes count the blocks.
func crypt(dst, src, key, counter []byte) error {
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("preparing cipher: %w", err)
	}
	var initial [aes.BlockSize]byte
	copy(initial[:], counter)
	cipher.NewCTR(block, initial[:]).XORKeyStream(dst, src)
	return nil
}

// mac returns HMAC-SHA-256(Kmac, counter | ciphertext). The counter has a fixed length,
// so the boundary between them is unambiguous.
func mac(key []byte, c seal.Ciphertext) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(c.Counter)
	h.Write(c.Data)
	return h.Sum(nil)
}

// Salt returns s = HMAC-SHA-256(secret, "salt" | profile | I), cut to SaltSize bytes,
// of a secret of at least 32 random bytes. It is the same for a registered identity
// and for one that is not, so a salt tells nothing. The first byte is never 0: some
// clients read the salt as a number and would lose it. There is room for a verifier
// behind it.
func (p *Profile) Salt(secret []byte, identity string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("salt" + p.name + identity))
	salt := h.Sum(make([]byte, 0, SaltSize+p.Size()))[:SaltSize]
	salt[0] = max(salt[0], 1)
	return salt
}

// simulatedVerifier returns the verifier that stands for an identifier nobody
// registered: Size bytes that depend on the profile, the identity and a secret
// of at least 32 random bytes, and that nobody knows a password for (RFC 5054,
// section 2.5.1.3). Any number below N serves, since g^b hides it in B.
func (p *Profile) simulatedVerifier(secret []byte, identity string) []byte {
	v, err := hkdf.Expand(sha256.New, secret, "verifier"+p.name+identity, p.Size())
	if err != nil {
		// The size is far below the limit of HKDF.
		panic("srp: " + err.Error())
	}
	// The top bit of N is set, so clearing it here leaves a number below N.
	v[0] &= 0x7F
	return v
}
