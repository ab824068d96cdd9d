package srp

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Lengths of identity and password in characters.
const (
	minText = 4
	maxText = 64
)

// Client is the phone's side of one exchange: send Public, call Prove with the
// answer, send the evidence, call Confirm with the answer to that. It is good for
// one exchange and not safe for concurrent use.
type Client struct {
	profile            *Profile
	identity, password string
	private            [PrivateSize]byte
	public             []byte
	proved             bool
	key, expected      []byte
}

// NewClient returns a client with a fresh a. Identity and password have 4 to 64
// ASCII characters; otherwise the error is one of the ErrIdentity and
// ErrPassword values.
func (p *Profile) NewClient(identity, password string) (*Client, error) {
	return p.newClient(identity, password, rand.Reader)
}

func (p *Profile) newClient(identity, password string, random io.Reader) (*Client, error) {
	if err := checkText(identity, ErrIdentityMissing, ErrIdentityLength, ErrIdentityNotASCII); err != nil {
		return nil, err
	}
	if err := checkText(password, ErrPasswordMissing, ErrPasswordLength, ErrPasswordNotASCII); err != nil {
		return nil, err
	}
	c := &Client{profile: p, identity: identity, password: password}
	if _, err := io.ReadFull(random, c.private[:]); err != nil {
		return nil, fmt.Errorf("srp: random private value: %w", err)
	}
	w := p.begin()
	defer w.end()
	w.powerG(w.x, &c.private)
	c.public = make([]byte, p.Size())
	w.toBytes(c.public, w.x)
	return c, nil
}

// checkText returns which of the three errors applies to an identity or
// password, if any.
func checkText(s string, missing, length, notASCII error) error {
	if s == "" {
		return missing
	}
	if len(s) < minText || len(s) > maxText {
		return length
	}
	for i := range len(s) {
		if s[i] > 0x7F {
			return notASCII
		}
	}
	return nil
}

// Public returns A, Size bytes.
func (c *Client) Public() []byte { return append([]byte(nil), c.public...) }

// Prove takes the server's answer, a salt of SaltSize bytes and B of Size bytes,
// and returns the evidence M1, EvidenceSize bytes. B is refused if it is 0
// modulo N or not reduced, and with any B that makes u = 0 (RFC 5054, section
// 2.5.3); the error is then one of the ErrSalt and ErrServerPublic values. Prove
// can be called once, since another B would need another a.
func (c *Client) Prove(salt, serverPublic []byte) ([]byte, error) {
	if c.proved {
		return nil, errors.New("srp: the client has already proved itself")
	}
	c.proved = true
	defer clear(c.private[:])

	p := c.profile
	switch {
	case len(salt) == 0:
		return nil, ErrSaltMissing
	case len(salt) != SaltSize:
		return nil, ErrSaltLength
	case len(serverPublic) == 0:
		return nil, ErrServerPublicMissing
	case len(serverPublic) > p.Size():
		return nil, ErrServerPublicTooLong
	case len(serverPublic) < p.Size(), isZero(serverPublic), less(serverPublic, p.prime) == 0:
		return nil, ErrServerPublicInvalid
	}
	w := p.begin()
	defer w.end()
	if !w.scramble(c.public, serverPublic) {
		return nil, ErrServerPublicInvalid
	}
	w.passwordExponent(&w.secret, c.identity, c.password, salt)
	c.password = ""
	w.clientSecret(serverPublic, &c.private)
	w.prove(c.identity, salt, c.public, serverPublic, w.x)
	c.key, c.expected = slices.Clone(w.key), slices.Clone(w.m2)
	return slices.Clone(w.m1), nil
}

// Confirm checks the server's evidence M2 and returns K, KeySize bytes. It
// returns K only once; wrong evidence ends the exchange. The error is one of the
// ErrServerEvidence values, unless Prove has not succeeded before.
func (c *Client) Confirm(serverEvidence []byte) ([]byte, error) {
	if c.key == nil {
		return nil, errors.New("srp: no exchange waits for server evidence")
	}
	key, expected := c.key, c.expected
	c.key, c.expected = nil, nil

	var err error
	switch {
	case len(serverEvidence) == 0:
		err = ErrServerEvidenceMissing
	case len(serverEvidence) != len(expected):
		err = ErrServerEvidenceLength
	case subtle.ConstantTimeCompare(expected, serverEvidence) != 1:
		err = ErrServerEvidenceMismatch
	default:
		return key, nil
	}
	clear(key)
	return nil, err
}
