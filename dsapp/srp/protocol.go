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

// This file has the formulas of the package comment, in the order of an exchange, except
// v = g^x and A = g^a, which are calls of powerG. PAD is not visible in the code: public
// values and the results of toBytes have the size of N.

// multiplier returns k = H(N | PAD(g)).
func (p *Profile) multiplier() []byte {
	return p.digest(p.prime, p.pad([]byte{p.generator}))
}

// passwordExponent sets x = H(s | H(I | ":" | P)).
func (w *workspace) passwordExponent(x *[PrivateSize]byte, identity, password string, salt []byte) {
	w.digest(w.inner, w.concat(identity, ":", password))
	w.hashToExponent(x, salt, w.inner)
}

// serverPublic sets z to B = k*v + g^b. It changes v.
func (w *workspace) serverPublic(z, v element, b *[PrivateSize]byte) {
	w.product(v, w.g.k, v)
	w.powerG(z, b)
	w.sum(z, v, z)
}

// setU sets u = H(PAD(A) | PAD(B)). It returns false for u = 0, with which S would not depend
// on the verifier.
func (w *workspace) setU(clientPublic, serverPublic []byte) bool {
	w.hashToExponent(&w.u, clientPublic, serverPublic)
	return !isZero(w.u[:])
}

// clientPremasterSecret sets w.x to S = (B - k*g^x)^(a + u*x). It computes base^a *
// (base^u)^x, so that no exponent is longer than PrivateSize bytes. w.secret holds x.
func (w *workspace) clientPremasterSecret(serverPublic []byte, a *[PrivateSize]byte) {
	w.powerG(w.x, &w.secret)
	w.product(w.x, w.g.minusK, w.x)
	w.fromBytes(w.y, serverPublic)
	w.sum(w.x, w.y, w.x)
	w.power(w.y, w.x, a)
	w.power(w.x, w.x, &w.u)
	w.power(w.x, w.x, &w.secret)
	w.product(w.x, w.y, w.x)
}

// serverPremasterSecret sets w.x to S = (A * v^u)^b.
func (w *workspace) serverPremasterSecret(x exchange) {
	w.fromBytes(w.x, x.verifier)
	w.power(w.x, w.x, &w.u)
	w.fromBytes(w.y, x.clientPublic)
	w.product(w.x, w.y, w.x)
	copy(w.secret[:], x.private)
	w.power(w.x, w.x, &w.secret)
}

// groupHash returns H(N) xor H(g), with g as a single byte.
func (p *Profile) groupHash() []byte {
	b := p.digest(p.prime)
	for i, x := range p.digest([]byte{p.generator}) {
		b[i] ^= x
	}
	return b
}

// setKeyAndEvidence sets w.key, w.m1 and w.m2 from S:
//
//	K  = H(PAD(S))
//	M1 = H((H(N) xor H(g)) | H(I) | s | PAD(A) | PAD(B) | K)
//	M2 = H(PAD(A) | M1 | K)
func (w *workspace) setKeyAndEvidence(identity string, salt, clientPublic, serverPublic []byte, s element) {
	w.toBytes(w.number, s)
	w.digest(w.key, w.number)
	w.digest(w.inner, w.concat(identity))
	w.digest(w.m1, w.g.groupHash, w.inner, salt, clientPublic, serverPublic, w.key)
	w.digest(w.m2, clientPublic, w.m1, w.key)
}

// bind sets the salt of the key derivation to SHA-256(PAD(A) | PAD(B)), so that the derived
// keys belong to one exchange.
func (s *Session) bind(clientPublic, serverPublic []byte) {
	h := sha256.New()
	h.Write(clientPublic)
	h.Write(serverPublic)
	h.Sum(s.salt[:0])
}

// keys derives the keys of an item (HKDF, RFC 5869):
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

// xorKeyStream sets dst = AES-256-CTR(Kenc, counter | 00 00 00 00 00 00 00 00, src) (NIST SP
// 800-38A). The zero bytes are the start of the block counter.
func xorKeyStream(dst, src, key, counter []byte) error {
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

// Salt returns s = HMAC-SHA-256(secret, "salt" | profile | I), cut to SaltSize bytes. The
// secret has at least 32 random bytes. An identity has the same salt before and after its
// registration, so the salt does not reveal whether it is registered. The first byte is
// never 0, because some clients read the salt as a number and drop leading zeros. The
// capacity of the result suffices for a credential.
func (p *Profile) Salt(secret []byte, identity string) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("salt" + p.name + identity))
	salt := h.Sum(make([]byte, 0, SaltSize+p.Size()))[:SaltSize]
	salt[0] = max(salt[0], 1)
	return salt
}

// simulatedVerifier returns the verifier to use for an identity that is not registered:
// Size bytes, derived from the profile, the identity and a secret of at least 32 random
// bytes (RFC 5054, section 2.5.1.3). Nobody knows a password for it. Any number below N
// will do, since g^b hides it in B.
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
