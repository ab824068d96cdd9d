package srp

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"
)

// TestSalt: the salt is computed by the formula, and depends on all of its inputs.
func TestSalt(t *testing.T) {
	t.Parallel()
	secret := bytesFor("secret", 0)
	salt := profiles[0].Salt(secret, "e3wfISG9")
	wantBytes(t, "salt", salt, oracleHMAC(secret, []byte("saltrfc5054-2048-sha256e3wfISG9"))[:16])

	for name, other := range map[string][]byte{
		"identity": profiles[0].Salt(secret, "e3wfISG8"),
		"profile":  profiles[1].Salt(secret, "e3wfISG9"),
		"secret":   profiles[0].Salt(bytesFor("secret", 1), "e3wfISG9"),
	} {
		if bytes.Equal(salt, other) {
			t.Errorf("the salt does not depend on the %s", name)
		}
	}
	wantBytes(t, "salt again", profiles[0].Salt(secret, "e3wfISG9"), salt)
}

// TestSaltIsANumber: no salt begins with 0, so that clients can read it as a number.
func TestSaltIsANumber(t *testing.T) {
	t.Parallel()
	secret := bytesFor("secret", 0)
	one := false
	for i := range 2000 {
		salt := profiles[0].Salt(secret, fmt.Sprint("identity", i))
		if len(salt) != SaltSize || salt[0] == 0 {
			t.Fatalf("salt %X", salt)
		}
		one = one || salt[0] == 1
	}
	if !one {
		t.Error("no salt begins with 1")
	}
}

// TestSimulatedVerifier: the simulated verifier depends on all of its inputs, is below N, and
// leads to a B and a refusal as any other does.
func TestSimulatedVerifier(t *testing.T) {
	t.Parallel()
	secret := bytesFor("secret", 0)
	seen := map[string]string{}
	for _, p := range profiles {
		for n := range 20 {
			identity := fmt.Sprintf("identity%d", n)
			v := p.simulatedVerifier(secret, identity)
			if len(v) != p.Size() || v[0]&0x80 != 0 || !p.inRange(v) {
				t.Fatalf("%s: %d bytes, in range: %t", p.name, len(v), p.inRange(v))
			}
			if !bytes.Equal(v, p.simulatedVerifier(secret, identity)) {
				t.Fatal("the verifier changes")
			}
			start := string(v[:64])
			if other, ok := seen[start]; ok {
				t.Fatalf("%s and %s share a verifier", identity, other)
			}
			seen[start] = identity
		}
		a, b := p.simulatedVerifier(secret, "e3wfISG9"), p.simulatedVerifier(bytesFor("secret", 1), "e3wfISG9")
		if bytes.Equal(a, b) {
			t.Error("the verifier does not depend on the secret")
		}
	}

	p := profiles[0]
	x, evidence := honestExchange(t, p)
	x.verifier = p.simulatedVerifier(secret, x.identity)
	e, err := p.newEphemeral(x.verifier, rand.Reader)
	if err != nil || len(e.public) != p.Size() || len(e.private) != PrivateSize {
		t.Fatal(err)
	}
	x.private, x.serverPublic = e.private, e.public
	if _, _, ok := p.verify(x, evidence); ok {
		t.Error("evidence for a simulated verifier is taken")
	}
}
