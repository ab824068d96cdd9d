package srp

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Minimum and maximum length of identity and password in characters.
const (
	minText = 4
	maxText = 64
)

// Client is the phone's side of one exchange. The phone sends Public, calls Prove with the
// answer, sends the evidence, and calls Confirm with the answer to that. A Client is for
// one exchange and not safe for concurrent use.
type Client struct {
	profile            *Profile
	identity, password string
	private            [PrivateSize]byte
	public             []byte
	proved             bool
	key, expected      []byte
}

// NewClient returns a client with a random a. Identity and password must have 4 to 64 ASCII
// characters; otherwise it returns one of the ErrIdentity and ErrPassword errors.
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
	w := p.acquireWorkspace()
	defer w.release()
	w.powerG(w.x, &c.private)
	c.public = make([]byte, p.Size())
	w.toBytes(c.public, w.x)
	return c, nil
}

// checkText returns the one of the three errors that applies to an identity or password,
// or nil.
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

// Public returns A as Size bytes.
func (c *Client) Public() []byte { return append([]byte(nil), c.public...) }

// Private returns a, for exchanges of test users that are recorded. After Prove it is 0.
func (c *Client) Private() []byte { return slices.Clone(c.private[:]) }

// Prove takes the server's answer, a salt of SaltSize bytes and B of Size bytes, and returns
// the evidence M1. It refuses B = 0, B >= N, and a B that makes u = 0
// (RFC 5054, section 2.5.3). The error is one of the ErrSalt and ErrServerPublic errors.
// Prove can be called once, since a must not be used with a second B.
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
	w := p.acquireWorkspace()
	defer w.release()
	if !w.setU(c.public, serverPublic) {
		return nil, ErrServerPublicInvalid
	}
	w.passwordExponent(c.identity, c.password, salt)
	c.password = ""
	w.clientPremasterSecret(serverPublic, &c.private)
	w.setKeyAndEvidence(c.identity, salt, c.public, serverPublic, w.x)
	c.key, c.expected = slices.Clone(w.key), slices.Clone(w.m2)
	return slices.Clone(w.m1), nil
}

// Confirm checks the server's evidence M2 and returns K. It can be called
// once, after Prove has succeeded; wrong evidence ends the exchange. The error for wrong
// evidence is one of the ErrServerEvidence errors.
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
