package srp_test

import (
	"encoding/hex"
	"fmt"
	"math/big"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation/profiletest"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// phone is a client that reads and writes digits.
type phone struct {
	client       *srp.Client
	serverPublic []byte
	*srp.Session
}

func (p *phone) Public() string { return fmt.Sprintf("%X", p.client.Public()) }

func (p *phone) Prove(serverPublic, salt string) (string, error) {
	b, err := hex.DecodeString(serverPublic)
	if err != nil {
		return "", err
	}
	s, err := hex.DecodeString(salt)
	if err != nil {
		return "", err
	}
	p.serverPublic = b
	evidence, err := p.client.Prove(s, b)
	return fmt.Sprintf("%X", evidence), err
}

func (p *phone) Confirm(serverEvidence string) error {
	evidence, err := hex.DecodeString(serverEvidence)
	if err != nil {
		return err
	}
	key, err := p.client.Confirm(evidence)
	p.Session = srp.NewSession(key, p.client.Public(), p.serverPublic)
	return err
}

// All profiles keep the contract of activation.Profile. This test does not run beside
// others.
func TestConformance(t *testing.T) {
	for _, p := range srp.Profiles() {
		t.Run(p.Name(), func(t *testing.T) {
			profiletest.Run(t, profiletest.Subject{Profile: p, Prime: new(big.Int).SetBytes(srp.PrimeOf(p)), NewPhone: func(tb testing.TB, identifier, password string) profiletest.Phone {
				tb.Helper()
				c, err := p.NewClient(identifier, password)
				if err != nil {
					tb.Fatal(err)
				}
				return &phone{client: c}
			}})
		})
	}
}
