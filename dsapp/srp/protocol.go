package srp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// This file has what all variants have in common, in the order of an exchange, except
// v = g^x and A = g^a, which are calls of powerG. What they differ in is computed by templates,
// in formulas.go. Public values and the results of toBytes have the size of N.

// multiplier returns k, the hash of N and g.
func (p *Profile) multiplier() []byte {
	w := &workspace{g: &group{p: p, constants: p.constants()}, hash: p.hash(), form: make([]byte, p.formSize()), number: make([]byte, p.Size())}
	k := make([]byte, p.EvidenceSize())
	w.digestOf(k, p.formulas.multiplier)
	return k
}

// passwordExponent sets w.secret to x.
func (w *workspace) passwordExponent(identity, password string, salt []byte) {
	w.setTexts(identity, password)
	w.hashTexts()
	w.members[memberSalt] = salt
	if w.g.p.formulas.inner != nil {
		w.digestOf(w.inner, w.g.p.formulas.inner)
		w.members[memberInner] = w.inner
	}
	w.exponentOf(&w.secret, &w.secretHigh, w.g.p.exponent)
}

// serverPublic sets z to B = k*v + g^b. It changes v.
func (w *workspace) serverPublic(z, v element, b *[PrivateSize]byte) {
	w.product(v, w.g.k, v)
	w.powerG(z, b)
	w.sum(z, v, z)
}

// setU sets u, the hash of A and B. It returns false for u = 0, with which S would not depend
// on the verifier.
func (w *workspace) setU(clientPublic, serverPublic []byte) bool {
	w.members[memberA], w.members[memberB] = clientPublic, serverPublic
	w.exponentOf(&w.u, &w.uHigh, w.g.p.scrambler)
	return !isZero(w.u[:]) || !isZero(w.uHigh[:])
}

// highest is 2^255.
var highest = [PrivateSize]byte{0x80}

// powerWide sets z to base^(high*2^256 + low). Kernels have exponents of 256 bits, so that it
// takes three powers for hashes that are longer, and one for others. It changes w.z.
func (w *workspace) powerWide(z, base element, low, high *[PrivateSize]byte) {
	if w.g.p.wide {
		w.power(w.z, base, &highest)
		w.product(w.z, w.z, w.z)
		w.power(w.z, w.z, high)
	}
	w.power(z, base, low)
	if w.g.p.wide {
		w.product(z, z, w.z)
	}
}

// powerGWide sets z to g^(high*2^256 + low). It changes w.z.
func (w *workspace) powerGWide(z element, low, high *[PrivateSize]byte) {
	if w.g.p.wide {
		w.powerG(w.z, &highest)
		w.product(w.z, w.z, w.z)
		w.power(w.z, w.z, high)
	}
	w.powerG(z, low)
	if w.g.p.wide {
		w.product(z, z, w.z)
	}
}

// clientPremasterSecret sets w.x to S = (B - k*g^x)^(a + u*x). It computes base^a *
// (base^u)^x, so that no exponent is longer than a hash. w.secret holds x.
func (w *workspace) clientPremasterSecret(serverPublic []byte, a *[PrivateSize]byte) {
	w.powerGWide(w.x, &w.secret, &w.secretHigh)
	w.product(w.x, w.g.minusK, w.x)
	w.fromBytes(w.y, serverPublic)
	w.sum(w.x, w.y, w.x)
	w.power(w.y, w.x, a)
	w.powerWide(w.x, w.x, &w.u, &w.uHigh)
	w.powerWide(w.x, w.x, &w.secret, &w.secretHigh)
	w.product(w.x, w.y, w.x)
}

// serverPremasterSecret sets w.x to S = (A * v^u)^b.
func (w *workspace) serverPremasterSecret(x exchange) {
	w.fromBytes(w.x, x.verifier)
	w.powerWide(w.x, w.x, &w.u, &w.uHigh)
	w.fromBytes(w.y, x.clientPublic)
	w.product(w.x, w.y, w.x)
	copy(w.secret[:], x.private)
	w.power(w.x, w.x, &w.secret)
}

// setKeyAndEvidence sets w.key, w.m1 and w.m2 from S.
func (w *workspace) setKeyAndEvidence(identity string, salt, clientPublic, serverPublic []byte, s element) {
	w.toBytes(w.number, s)
	w.setTexts(identity, "")
	w.hashTexts()
	m := &w.members
	m[memberSalt], m[memberA], m[memberB], m[memberS] = salt, clientPublic, serverPublic, w.number
	w.setKey()
	m[memberKey] = w.key
	w.digestOf(w.m1, w.g.p.m1)
	m[memberM1] = w.m1
	w.digestOf(w.m2, w.g.p.m2)
}

// keys derives the keys of an item.
func (s *Session) keys(item seal.Item) (encryption, authentication []byte, err error) {
	switch s.p.variant.KeyDerivation {
	case variant.DeriveHash:
		key := sha256.Sum256(s.key)
		return key[:], bytes.Clone(key[:]), nil
	case variant.DeriveNone:
		if len(s.key) < itemKeySize {
			return nil, nil, errKeyTooShort
		}
		return bytes.Clone(s.key[:itemKeySize]), bytes.Clone(s.key[:itemKeySize]), nil
	}
	for _, k := range []struct {
		to      *[]byte
		purpose string
	}{{&encryption, "encryption"}, {&authentication, "mac"}} {
		info := strings.NewReplacer("<item>", string(item), "<purpose>", k.purpose).Replace(s.p.variant.HKDFInfo)
		if *k.to, err = hkdf.Key(sha256.New, s.key, s.salt, info, itemKeySize); err != nil {
			return nil, nil, fmt.Errorf("deriving %s key: %w", k.purpose, err)
		}
	}
	return encryption, authentication, nil
}

// hkdfSalt returns the salt of HKDF for an exchange.
func (p *Profile) hkdfSalt(salt, clientPublic, serverPublic []byte) []byte {
	switch p.variant.HKDFSalt {
	case variant.SaltTranscript:
		h := sha256.New()
		h.Write(clientPublic)
		h.Write(serverPublic)
		return h.Sum(nil)
	case variant.SaltSalt:
		return bytes.Clone(salt)
	default:
		return nil
	}
}

// counterSize returns the size of a counter.
func (p *Profile) counterSize() int {
	if p.variant.CounterLayout == variant.CounterBlock {
		return aes.BlockSize
	}
	return aes.BlockSize / 2
}

// xorKeyStream sets dst to src, encrypted or decrypted by AES-256-CTR (NIST SP 800-38A). The
// initial block has zero bytes where the counter is not.
func (p *Profile) xorKeyStream(dst, src, key, counter []byte) error {
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("preparing cipher: %w", err)
	}
	var initial [aes.BlockSize]byte
	at := 0
	if p.variant.CounterLayout == variant.CounterLast {
		at = aes.BlockSize - len(counter)
	}
	copy(initial[at:], counter)
	cipher.NewCTR(block, initial[:]).XORKeyStream(dst, src)
	return nil
}

// authenticate returns HMAC-SHA-256 of the template mac. The counter has a fixed length, so
// the boundary between it and the ciphertext is unambiguous.
func (p *Profile) authenticate(key []byte, c seal.Ciphertext) []byte {
	h := hmac.New(sha256.New, key)
	for _, part := range p.mac {
		switch {
		case len(part.text) > 0:
			h.Write(part.text)
		case part.member == memberCounter:
			h.Write(c.Counter)
		default:
			h.Write(c.Data)
		}
	}
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
