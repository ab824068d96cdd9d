package caddymodule

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// APIKey is a key that clients present to the gateway: as the user name of HTTP Basic
// authentication, with an empty password.
//
// Generate keys at random, for example with `openssl rand -hex 32`. They are compared by a
// fast hash, so short or memorable keys could be guessed.
type APIKey struct {
	// The application that holds the key: 1 to 64 printable ASCII characters without a
	// colon. Several keys can have the same name. To replace a key, add the new one under
	// the same name, move the application to it, and remove the old one. Handlers and
	// access logs have the name in `{http.auth.user.id}`. Required.
	Name string `json:"name,omitempty"`

	// The services that the key can use: `front_end` for those of mobile applications,
	// `back_end` for those of the bank's own systems. All keys with the same name have the
	// same class. Required.
	//
	// A back-end key registers users for activation. Never put one into a mobile
	// application.
	Class string `json:"class,omitempty"`

	// The key: 16 to 256 visible ASCII characters without a colon. Use a placeholder such
	// as `{file./run/secrets/front_end_key}` to keep it out of the configuration. Exactly
	// one of this and `key_sha256` is required. Accepts placeholders.
	Key string `json:"key,omitempty"`

	// The SHA-256 hash of the key as 64 hexadecimal digits, for configurations that must
	// not contain the key itself: `printf %s "$KEY" | sha256sum`. Required if there is no
	// `key`. Accepts placeholders.
	KeySHA256 string `json:"key_sha256,omitempty"`

	// The IP addresses and CIDR ranges from which the key is accepted. They are compared
	// with the client's address as Caddy determines it; behind a proxy, configure
	// `trusted_proxies`. Default: every address for front-end keys, loopback addresses
	// only for back-end keys.
	Allow []string `json:"allow,omitempty"`

	// The profile that the application has: the name of one of `activation.profiles`. In the
	// exchange, registrations of another profile are unknown to the application. All keys with the same
	// name have the same profile. Only for front-end keys. Default: the first profile.
	Profile string `json:"profile,omitempty"`
}

// resolve resolves placeholders and parses the values. profiles are the names of the profiles,
// none if the exchange is relayed. apikey.NewSet checks the rest.
func (k *APIKey) resolve(profiles []string) (apikey.Key, error) {
	hash, err := k.hash()
	if err != nil {
		return apikey.Key{}, err
	}
	profile := k.Profile
	switch {
	case profile != "" && len(profiles) == 0:
		return apikey.Key{}, meaninglessError("profile")
	case profile != "" && !slices.Contains(profiles, profile):
		return apikey.Key{}, option.In("profile", unknownName("activation has no profile", profile, profiles))
	case profile == "" && apikey.Class(k.Class) == apikey.FrontEnd && len(profiles) > 0:
		profile = profiles[0]
	}
	allow := make([]netip.Prefix, len(k.Allow))
	for i, expression := range k.Allow {
		if allow[i], err = caddyhttp.CIDRExpressionToPrefix(expression); err != nil {
			return apikey.Key{}, option.Errorf(fmt.Sprintf("allow[%d]", i), "must be an IP address or a CIDR range")
		}
	}
	return apikey.Key{Name: k.Name, Class: apikey.Class(k.Class), Hash: hash, Allow: allow, Profile: profile}, nil
}

// hash returns the SHA-256 hash of the key.
func (k *APIKey) hash() (hash [32]byte, err error) {
	if (k.Key == "") == (k.KeySHA256 == "") {
		return hash, option.Errorf("key", "exactly one of key and key_sha256 is required")
	}
	if k.KeySHA256 != "" {
		digits, err := resolveSecret(k.KeySHA256)
		if err == nil {
			hash, err = apikey.ParseHash(digits)
		}
		return hash, option.In("key_sha256", err)
	}
	key, err := resolveSecret(k.Key)
	if err == nil {
		err = apikey.ValidateKey(key)
	}
	return apikey.Hash(key), option.In("key", err)
}

// keyOption returns the name of the option with the key.
func (k *APIKey) keyOption() string {
	if k.KeySHA256 != "" {
		return "key_sha256"
	}
	return "key"
}

// newKeySet resolves and checks all keys. profiles are the names of the profiles.
func newKeySet(configured []APIKey, profiles []string) (*apikey.Set, error) {
	keys := make([]apikey.Key, len(configured))
	for i := range configured {
		var err error
		if keys[i], err = configured[i].resolve(profiles); err != nil {
			return nil, option.In(fmt.Sprintf("api_keys[%d]", i), err)
		}
	}
	set, err := apikey.NewSet(keys)
	if wrong, ok := errors.AsType[*apikey.KeyError](err); ok {
		if wrong.Option.Name == "hash" {
			wrong.Option.Name = configured[wrong.Index].keyOption()
		}
		return nil, option.In(fmt.Sprintf("api_keys[%d]", wrong.Index), &wrong.Option)
	}
	return set, option.In("api_keys", err)
}
