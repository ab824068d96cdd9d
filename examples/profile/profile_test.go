package profile

import (
	"encoding/hex"
	"fmt"
	"math/big"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation/profiletest"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// phone is the phone's side of one exchange. A profile with formulas of its own has its own client
// here.
type phone struct {
	profile            *srp.Profile
	client             *srp.Client
	salt, serverPublic []byte
	*srp.Session
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

// The profile keeps the contract of the gateway. The tests compare times, so that no other test may
// run beside them.
func TestProfile(t *testing.T) {
	module := new(Stretched)
	if err := module.Provision(caddy.Context{}); err != nil {
		t.Fatal(err)
	}
	group, _ := variant.FindGroup("rfc5054-2048")
	prime, _ := new(big.Int).SetString(group.Prime, 16)
	profiletest.Run(t, profiletest.Subject{
		Profile: module.Profile(),
		Prime:   prime,
		NewPhone: func(tb testing.TB, identifier, password string) profiletest.Phone {
			tb.Helper()
			p := module.profile.Profile
			c, err := p.NewClient(identifier, Stretch(identifier, password))
			if err != nil {
				tb.Fatal(err)
			}
			return &phone{profile: p, client: c}
		},
	})
}

// A wrong option is refused with its name.
func TestWrongGroup(t *testing.T) {
	err := (&Stretched{Group: "rfc5054-1024"}).Provision(caddy.Context{})
	if err == nil || err.Error()[:6] != "group:" {
		t.Errorf("got %v", err)
	}
}
