package srp

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// TestClientText: NewClient checks identity and password.
func TestClientText(t *testing.T) {
	t.Parallel()
	const good = "Tb048aX1"
	tests := []struct {
		identity, password string
		want               error
	}{
		{"", good, ErrIdentityMissing},
		{"abc", good, ErrIdentityLength},
		{strings.Repeat("a", 65), good, ErrIdentityLength},
		{"caf\u00e9s", good, ErrIdentityNotASCII},
		{good, "", ErrPasswordMissing},
		{good, "abc", ErrPasswordLength},
		{good, strings.Repeat("a", 65), ErrPasswordLength},
		{good, "caf\u00e9s", ErrPasswordNotASCII},
		{good, "\x80aaa", ErrPasswordNotASCII},
		{"abcd", "abcd", nil},
		{strings.Repeat("a", 64), strings.Repeat("a", 64), nil},
	}
	for _, test := range tests {
		c, err := rfcProfile().NewClient(test.identity, test.password)
		if !errors.Is(err, test.want) || (c == nil) != (err != nil) {
			t.Errorf("NewClient(%q, %q): error %v, want %v", test.identity, test.password, err, test.want)
		}
	}
}

// TestClientProveRefuses: Prove refuses every unusable answer, and cannot be called again.
func TestClientProveRefuses(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	salt := bytesFor("salt", 0)[:SaltSize]
	good := p.pad([]byte{9})
	top := bytes.Repeat([]byte{0xFF}, p.Size())
	next := bytes.Clone(p.prime)
	next[len(next)-1]++
	tests := []struct {
		name         string
		salt, public []byte
		want         error
	}{
		{"no salt", nil, good, ErrSaltMissing},
		{"short salt", salt[1:], good, ErrSaltLength},
		{"long salt", append(bytes.Clone(salt), 0), good, ErrSaltLength},
		{"no B", salt, nil, ErrServerPublicMissing},
		{"short B", salt, good[1:], ErrServerPublicInvalid},
		{"long B", salt, append([]byte{0}, good...), ErrServerPublicTooLong},
		{"B = 0", salt, make([]byte, p.Size()), ErrServerPublicInvalid},
		{"B = N", salt, p.prime, ErrServerPublicInvalid},
		{"B = N+1", salt, next, ErrServerPublicInvalid},
		{"B = 2^bits-1", salt, top, ErrServerPublicInvalid},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, err := p.NewClient("e3wfISG9", "Tb048aX1")
			if err != nil {
				t.Fatal(err)
			}
			m, err := c.Prove(test.salt, test.public)
			if !errors.Is(err, test.want) || m != nil {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if m, err := c.Prove(salt, good); err == nil || m != nil {
				t.Error("a second answer is taken")
			}
			if key, err := c.Confirm(make([]byte, EvidenceSize)); err == nil || key != nil {
				t.Error("a key was given")
			}
		})
	}
}

// TestClientConfirm: Confirm returns K once, and for the right M2 only.
func TestClientConfirm(t *testing.T) {
	t.Parallel()
	p := profiles[0]
	r := oracleOf(p).exchange("e3wfISG9", "Tb048aX1", bytesFor("salt", 0)[:SaltSize], bytesFor("a", 0), bytesFor("b", 0))
	wrong := bytes.Clone(r.M2)
	wrong[0] ^= 1
	tests := []struct {
		name     string
		evidence []byte
		want     error
	}{
		{"none", nil, ErrServerEvidenceMissing},
		{"short", r.M2[1:], ErrServerEvidenceLength},
		{"long", append(bytes.Clone(r.M2), 0), ErrServerEvidenceLength},
		{"wrong", wrong, ErrServerEvidenceMismatch},
		{"M1", r.M1, ErrServerEvidenceMismatch},
	}
	prepare := func(t *testing.T) *Client {
		c, err := p.newClient(r.identity, r.password, bytes.NewReader(r.a.FillBytes(make([]byte, PrivateSize))))
		if err != nil {
			t.Fatal(err)
		}
		if key, err := c.Confirm(r.M2); err == nil || key != nil {
			t.Error("M2 is taken before M1 was made")
		}
		if _, err := c.Prove(r.salt, oracleOf(p).fixed(r.B)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := prepare(t)
			if key, err := c.Confirm(test.evidence); !errors.Is(err, test.want) || key != nil {
				t.Errorf("error %v, want %v", err, test.want)
			}
			if key, err := c.Confirm(r.M2); err == nil || key != nil {
				t.Error("a second evidence is taken")
			}
		})
	}
	c := prepare(t)
	if key, err := c.Confirm(r.M2); err != nil || !bytes.Equal(key, r.K) {
		t.Errorf("K = %X, %v", key, err)
	}
	if key, err := c.Confirm(r.M2); err == nil || key != nil {
		t.Error("K is given twice")
	}
}

// TestClientForgetsSecrets: after its last step a client has cleared a, the password and K.
func TestClientForgetsSecrets(t *testing.T) {
	t.Parallel()
	p := rfcProfile()
	salt := bytesFor("salt", 0)[:SaltSize]
	c, err := p.NewClient("e3wfISG9", "Tb048aX1")
	if err != nil {
		t.Fatal(err)
	}
	if isZero(c.private[:]) {
		t.Error("a is 0 from the start")
	}
	if _, err := c.Prove(salt, p.pad([]byte{9})); err != nil {
		t.Fatal(err)
	}
	key := c.key
	if _, err := c.Confirm(make([]byte, len(c.expected))); !errors.Is(err, ErrServerEvidenceMismatch) {
		t.Fatal(err)
	}
	if !isZero(c.private[:]) || c.password != "" || c.key != nil || !isZero(key) {
		t.Error("a secret is still there")
	}
}
