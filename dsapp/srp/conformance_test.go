package srp_test

import (
	"maps"
	"math/big"
	"slices"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation/profiletest"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
	"github.com/dsapp-gateway/dsapp-gateway/internal/srpphone"
)

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
			profiletest.Run(t, profiletest.Subject{
				Profile: p, Prime: new(big.Int).SetBytes(srp.PrimeOf(p)), EvidenceWithoutIdentifier: !withIdentifier,
				NewPhone: func(tb testing.TB, identifier, password string) profiletest.Phone {
					tb.Helper()
					return srpphone.New(tb, p, identifier, password)
				},
			})
		})
	}
}
