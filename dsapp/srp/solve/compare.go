package solve

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/big"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// Compared is a value of an exchange as a variant gives it.
type Compared struct {
	// Name is that of the member, or names an item and its member.
	Name string
	// Value is what the variant gives. It is secret.
	Value []byte
	// Recorded says that the capture has the value, and Equal that it is the same.
	Recorded, Equal bool
}

// String returns a text without the value.
func (c Compared) String() string { return c.Name }

// GoString is String.
func (c Compared) GoString() string { return c.Name }

// LogValue is String.
func (c Compared) LogValue() slog.Value { return slog.StringValue(c.Name) }

// Compare computes the values of a capture with a completed variant, in the order in which they
// depend on each other: A, k, u, x, S, K, M1, M2 and those of the items. Each is computed from the
// computed ones before it, except that B is the recorded one. The first that is recorded and not
// equal tells where phone and variant part. An error says what cannot be computed.
func Compare(c Capture, v variant.Variant) ([]Compared, error) {
	known, ok := variant.FindGroup(v.Group)
	if !ok {
		return nil, errors.New("its group is not known")
	}
	g := newGroup(known)
	if public := number(c.ServerPublic); public.Sign() == 0 || public.Cmp(g.n) >= 0 {
		return nil, errors.New("the recorded B is not between 0 and the prime of the group")
	}
	if number(c.ClientPublic).Cmp(g.n) >= 0 {
		return nil, errors.New("the recorded A is not below the prime of the group")
	}
	e := newExchange(&c, g, v)
	m := e.members
	list := []Compared{e.number("A", number(m[variant.A]), c.ClientPublic)}
	list = append(list, e.number("k", e.k, nil), e.number("u", e.u, nil), e.number("x", e.x, nil), e.number("S", number(m[variant.S]), c.Premaster))
	for _, b := range []struct {
		member   variant.Member
		recorded []byte
	}{{variant.K, c.Key}, {variant.M1, c.ClientEvidence}, {serverEvidence, c.ServerEvidence}} {
		list = append(list, compared(string(b.member), m[b.member], b.recorded))
	}
	for n, i := range c.Items {
		encryption, authentication := e.itemKeys(v, i.Name, m[variant.K])
		if encryption == nil {
			return nil, errors.New("the session key is too short for the key derivation")
		}
		name := fmt.Sprintf("items[%d].", n)
		plaintext := decrypt(v.CounterLayout, encryption, i)
		if plaintext == nil {
			return nil, fmt.Errorf("the counter of items[%d] has another size than those of the profile", n)
		}
		list = append(list,
			compared(name+"mac", authenticate(parse(v.MACInput), authentication, i), i.MAC),
			compared(name+"plaintext", plaintext, []byte(i.Plaintext)))
	}
	return list, nil
}

// compared compares bytes.
func compared(name string, value, recorded []byte) Compared {
	return Compared{name, value, len(recorded) > 0, len(recorded) > 0 && bytes.Equal(value, recorded)}
}

// exchange is the phone's side of an exchange with one variant.
type exchange struct {
	*values
	k, u, x *big.Int
}

// number compares numbers, whose leading zeros do not count.
func (exchange) number(name string, value *big.Int, recorded []byte) Compared {
	return Compared{name, value.Bytes(), recorded != nil, recorded != nil && number(recorded).Cmp(value) == 0}
}

// newExchange computes the exchange of a capture from a, B, the salt and the texts.
func newExchange(c *Capture, g group, v variant.Variant) exchange {
	e := exchange{values: newValues(c, g, hashNamed(v.Hash))}
	m, a := e.members, number(c.Private)
	m[variant.A] = g.pad(g.exp(g.g, a))
	e.k = number(e.hashed(parse(v.Multiplier)))
	e.u = number(e.hashed(parse(v.Scrambler)))
	e.x = e.exponent(parse(v.Inner), parse(v.Exponent))
	base := e.base(e.k, g.exp(g.g, e.x))
	exponent := new(big.Int).Mul(e.u, e.x)
	m[variant.S] = g.pad(g.exp(base, exponent.Add(exponent, a)))
	e.finish(v)
	return e
}

// errDisagrees means that Try failed, which is a defect of this program.
var errDisagrees = errors.New("the gateway's own code does not agree with the formulas of the solver: this is a defect of the program, please report it")

// Try makes a gateway's profile of the variant and has it carry out an exchange with a phone that
// has the identity, the password and the a of the capture: the gateway must accept the phone's
// M1, and the phone the gateway's M2 and what it encrypts.
func Try(c Capture, v variant.Variant) error {
	p, err := srp.New("solved", v)
	if err != nil {
		return err
	}
	v = p.Variant()
	known, _ := variant.FindGroup(v.Group)
	g := newGroup(known)
	secret := make([]byte, 32)
	rand.Read(secret)
	credential := p.Credential(secret, c.Identity, c.Password)
	state := make([]byte, p.StateSize())
	public := g.exp(g.g, number(c.Private))
	serverPublic, _, err := p.Begin(state, credential, g.pad(public))
	if err != nil {
		return err
	}
	phone := c
	phone.Salt = credential[:srp.SaltSize]
	phone.ClientPublic = public.Bytes()
	if phone.ServerPublic, err = hex.DecodeString(serverPublic); err != nil {
		return err
	}
	e := newExchange(&phone, g, v)
	session, evidence, ok := p.Verify(state, c.Identity, e.members[variant.M1])
	if !ok {
		return errDisagrees
	}
	defer session.Clear()
	if decoded, err := p.ParseEvidence(evidence); err != nil || !bytes.Equal(decoded, e.members[serverEvidence]) {
		return errDisagrees
	}
	message := []byte("0123456789ABCDEF")
	sealed, err := session.Seal(seal.LicenseActivationMessage, message)
	if err != nil {
		return err
	}
	i := Item{Data: sealed.Data, Counter: sealed.Counter}
	encryption, authentication := e.itemKeys(v, string(seal.LicenseActivationMessage), e.members[variant.K])
	if encryption == nil || !bytes.Equal(decrypt(v.CounterLayout, encryption, i), message) || !bytes.Equal(authenticate(parse(v.MACInput), authentication, i), sealed.MAC) {
		return errDisagrees
	}
	return nil
}
