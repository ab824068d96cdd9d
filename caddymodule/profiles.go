package caddymodule

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

func init() {
	caddy.RegisterModule(new(RFC5054))
	caddy.RegisterModule(new(SRP6a))
}

// Profile is a module in the namespace `dsapp.profiles`: a variant of the exchange. Package
// profiletest tests whether a profile keeps its contract.
type Profile interface {
	// Profile returns the profile. It is called once, after the module was provisioned.
	Profile() activation.Profile
}

// RFC5054 is a profile with the groups of RFC 5054 and SHA-256. Its formulas are in the
// documentation of the protocol.
type RFC5054 struct {
	// The name of the profile: `rfc5054-2048-sha256`, `rfc5054-3072-sha256` or
	// `rfc5054-4096-sha256`. Larger groups need more time on both sides. Default:
	// `rfc5054-2048-sha256`.
	Name string `json:"name,omitempty"`

	profile *srp.Profile
}

// CaddyModule returns the Caddy module information.
func (*RFC5054) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  profileNamespace + ".rfc5054",
		New: func() caddy.Module { return new(RFC5054) },
	}
}

// UnmarshalJSON decodes the options. Its errors begin with the path of the option.
func (p *RFC5054) UnmarshalJSON(data []byte) error {
	type options RFC5054
	return decodeConfig(data, (*options)(p))
}

// Provision looks the profile up.
func (p *RFC5054) Provision(caddy.Context) (err error) {
	if p.profile, err = srp.LookupProfile(cmp.Or(p.Name, srp.DefaultProfile)); err != nil {
		return option.Errorf("name", "must be "+profiles)
	}
	return nil
}

// Profile returns the profile.
func (p *RFC5054) Profile() activation.Profile { return p.profile }

// SRP6a is a profile for phones with another library for SRP-6a. Its options are what such
// libraries differ in. A combination that is weaker than the protocol is refused.
//
// A template is a list of words, whose byte strings are joined and hashed. A word is the name
// of a member in its full form, a name and a form, such as `A.minimal`, or `=` and a text. The
// documentation of the protocol lists members and forms.
//
// Registrations belong to the profile that they were made with. After a change of its options,
// those that are pending are unknown to every application, and their users have to register
// again.
type SRP6a struct {
	// The name of the profile in logs and metrics: 1 to 32 characters of printable ASCII
	// without spaces. It must not be the name of a profile `rfc5054`. Default: `srp6a`.
	Name string `json:"name,omitempty"`

	variant.Variant

	profile *srp.Profile
}

// CaddyModule returns the Caddy module information.
func (*SRP6a) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  profileNamespace + ".srp6a",
		New: func() caddy.Module { return new(SRP6a) },
	}
}

// UnmarshalJSON decodes the options. Its errors begin with the path of the option.
func (p *SRP6a) UnmarshalJSON(data []byte) error {
	type options SRP6a
	return decodeConfig(data, (*options)(p))
}

// Provision checks the options.
func (p *SRP6a) Provision(caddy.Context) (err error) {
	if _, err := srp.LookupProfile(p.Name); err == nil {
		return option.Errorf("name", "must not be the name of a profile rfc5054")
	}
	if err := p.Unused(); err != nil {
		return err
	}
	p.profile, err = srp.New(cmp.Or(p.Name, "srp6a"), p.Variant)
	return err
}

// Profile returns the profile.
func (p *SRP6a) Profile() activation.Profile { return p.profile }

// profileSetting is the option `profile`, which is the name of a profile rfc5054 or a module. Given
// several times it stands for `profiles`.
func profileSetting() setting[Activation] {
	ofModule := module(profileNamespace, "module", (*Activation).addProfile)
	ofName := one(asWord(profileNames()...), func(a *Activation, v string) { a.addProfile(json.RawMessage(`"` + v + `"`)) })
	return setting[Activation]{repeatable: true, read: func(d *caddyfile.Dispenser, to *Activation) error {
		modules := moduleNames(profileNamespace)
		if !d.NextArg() {
			return d.Errf("profile takes %s, or the name of a module; known are %v", profiles, modules)
		}
		name := d.Val()
		d.Prev()
		if slices.Contains(modules, name) {
			return ofModule.read(d, to)
		}
		return ofName.read(d, to)
	}}
}

// addProfile adds the JSON of a profile: of one as the option `profile`, of several as `profiles`.
func (a *Activation) addProfile(profile json.RawMessage) {
	switch {
	case a.ProfilesRaw != nil:
		a.ProfilesRaw = append(a.ProfilesRaw, profile)
	case a.ProfileRaw != nil:
		a.ProfileRaw, a.ProfilesRaw = nil, []json.RawMessage{a.ProfileRaw, profile}
	default:
		a.ProfileRaw = profile
	}
}

// profileNames returns the names of the profiles in use.
func (a *Activation) profileNames() []string {
	names := make([]string, len(a.profiles))
	for i, p := range a.profiles {
		names[i] = p.Name()
	}
	return names
}

// loadProfiles loads the configured profiles, or else the default one.
func (a *Activation) loadProfiles(ctx caddy.Context) ([]activation.Profile, error) {
	switch {
	case a.ProfileRaw != nil && a.ProfilesRaw != nil:
		return nil, option.Errorf("profiles", "cannot be given together with profile")
	case a.ProfilesRaw != nil:
		loaded := make([]activation.Profile, len(a.ProfilesRaw))
		for i, raw := range a.ProfilesRaw {
			var err error
			if loaded[i], err = loadProfile(ctx, raw); err != nil {
				return nil, option.In(fmt.Sprintf("profiles[%d]", i), err)
			}
		}
		if len(loaded) == 0 {
			return nil, option.Errorf("profiles", "must have an element")
		}
		return loaded, nil
	case a.ProfileRaw == nil:
		p, err := srp.LookupProfile(srp.DefaultProfile)
		return []activation.Profile{p}, err
	}
	p, err := loadProfile(ctx, a.ProfileRaw)
	return []activation.Profile{p}, option.In("profile", err)
}

// loadProfile loads a profile from its name or from the JSON of its module.
func loadProfile(ctx caddy.Context, raw json.RawMessage) (activation.Profile, error) {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		p, err := srp.LookupProfile(name)
		if err != nil {
			return nil, errors.New("must be " + profiles + ", or an object with a module")
		}
		return p, nil
	}
	var named struct{ Module string }
	if json.Unmarshal(raw, &named) != nil {
		return nil, errors.New("must be a name, or an object with a module")
	}
	if known := moduleNames(profileNamespace); !slices.Contains(known, named.Module) {
		return nil, unknownName("unknown module", named.Module, known)
	}
	// Caddy loads what stands in a field with this tag.
	host := struct {
		Raw json.RawMessage `caddy:"namespace=dsapp.profiles inline_key=module"`
	}{raw}
	loaded, err := ctx.LoadModule(&host, "Raw")
	if err != nil {
		return nil, err
	}
	p, ok := loaded.(Profile)
	if !ok {
		return nil, fmt.Errorf("module %T is not a profile", loaded)
	}
	return p.Profile(), nil
}

var (
	_ caddy.Provisioner = (*RFC5054)(nil)
	_ caddy.Provisioner = (*SRP6a)(nil)
	_ Profile           = (*RFC5054)(nil)
	_ Profile           = (*SRP6a)(nil)
)
