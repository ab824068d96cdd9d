// Package profile is an example of a profile from outside: a module for Caddy that adds a variant
// of the exchange to DSAPP Gateway.
//
// Its phones stretch the activation password before they give it to their SRP library, so that a
// stolen verifier makes guessing expensive. Everything else is the gateway's own arithmetic with
// formulas that package variant describes.
package profile

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/caddymodule"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

func init() { caddy.RegisterModule(new(Stretched)) }

// iterations is how often the password is hashed.
const iterations = 100_000

// Stretched is the module `dsapp.profiles.stretched`. In a configuration:
//
//	"profile": {"module": "stretched"}
type Stretched struct {
	// The prime and its generator, as for `srp6a`. Default: `rfc5054-2048`.
	Group string `json:"group,omitempty"`

	profile *Profile
}

// CaddyModule returns the Caddy module information.
func (*Stretched) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "dsapp.profiles.stretched", New: func() caddy.Module { return new(Stretched) }}
}

// Provision makes the profile.
func (s *Stretched) Provision(caddy.Context) error {
	p, err := srp.New("stretched", variant.Variant{Group: s.Group})
	s.profile = &Profile{p}
	return err
}

// Profile returns the profile.
func (s *Stretched) Profile() activation.Profile { return s.profile }

// Profile is an activation.Profile: that of package srp, for stretched passwords. What is different
// from it is written anew, and the digest with it: the gateway tells by it who has written what.
type Profile struct{ *srp.Profile }

// Digest changes with every choice of the profile.
func (p *Profile) Digest() []byte {
	digest := sha256.Sum256(fmt.Appendf(nil, "stretched %d %x", iterations, p.Profile.Digest()))
	return digest[:]
}

// Credential returns the credential of a password. A registration makes it once. In an exchange
// nothing is stretched, so that unknown identifiers cost the same.
func (p *Profile) Credential(secret []byte, identifier, password string) []byte {
	return p.Profile.Credential(secret, identifier, Stretch(identifier, password))
}

// Stretch returns what phones give to their SRP library instead of the password: 64 digits.
func Stretch(identifier, password string) string {
	key, err := pbkdf2.Key(sha256.New, password, []byte(identifier), iterations, 32)
	if err != nil {
		panic("profile: " + err.Error()) // the sizes are constant
	}
	return hex.EncodeToString(key)
}

// The compiler checks that both are what the gateway asks for.
var (
	_ caddymodule.Profile = (*Stretched)(nil)
	_ caddy.Provisioner   = (*Stretched)(nil)
	_ activation.Profile  = (*Profile)(nil)
)
