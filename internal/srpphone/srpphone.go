// Package srpphone has the phone's side of package srp for the conformance tests of profiles.
package srpphone

import (
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation/profiletest"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// phone is a client that reads and writes digits.
type phone struct {
	profile            *srp.Profile
	client             *srp.Client
	salt, serverPublic []byte
	*srp.Session
}

// New returns a phone for one exchange with a profile.
func New(tb testing.TB, p *srp.Profile, identifier, password string) profiletest.Phone {
	tb.Helper()
	c, err := p.NewClient(identifier, password)
	if err != nil {
		tb.Fatal(err)
	}
	return &phone{profile: p, client: c}
}

func (p *phone) Public() string { return fmt.Sprintf("%X", p.client.Public()) }

func (p *phone) Prove(serverPublic, salt string) (evidence string, err error) {
	if p.serverPublic, err = hex.DecodeString(serverPublic); err != nil {
		return "", err
	}
	if p.salt, err = hex.DecodeString(salt); err != nil {
		return "", err
	}
	m1, err := p.client.Prove(p.salt, p.serverPublic)
	return fmt.Sprintf("%X", m1), err
}

func (p *phone) Confirm(serverEvidence string) error {
	evidence, err := hex.DecodeString(serverEvidence)
	if err != nil {
		return err
	}
	key, err := p.client.Confirm(evidence)
	p.Session = p.profile.NewSession(key, p.salt, p.client.Public(), p.serverPublic)
	return err
}
