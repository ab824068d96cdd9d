package srp_test

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation/profiletest"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// phone is a client that reads and writes digits.
type phone struct {
	profile            *srp.Profile
	client             *srp.Client
	salt, serverPublic []byte
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
	p.salt, p.serverPublic = s, b
	evidence, err := p.client.Prove(s, b)
	return fmt.Sprintf("%X", evidence), err
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

// All profiles, and those of all presets, keep the contract of activation.Profile. This test
// does not run beside others.
func TestConformance(t *testing.T) {
	subjects := srp.Profiles()
	for _, preset := range slices.Sorted(maps.Keys(variant.Presets)) {
		p, err := srp.New(preset, variant.Variant{Preset: preset})
		if err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, p)
	}
	for _, p := range subjects {
		t.Run(p.Name(), func(t *testing.T) {
			withIdentifier := slices.Contains(p.Variant().ClientEvidence, "H(I)")
			profiletest.Run(t, profiletest.Subject{Profile: p, Prime: new(big.Int).SetBytes(srp.PrimeOf(p)), EvidenceWithoutIdentifier: !withIdentifier, NewPhone: func(tb testing.TB, identifier, password string) profiletest.Phone {
				tb.Helper()
				c, err := p.NewClient(identifier, password)
				if err != nil {
					tb.Fatal(err)
				}
				return &phone{profile: p, client: c}
			}})
		})
	}
}
