package caddymodule

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/apikey"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// APIKey is one key that opens the gateway's services. It is presented as the
// user name of HTTP Basic authentication, with an empty password.
//
// Make keys with a random generator, e.g. `openssl rand -hex 32`: they are
// compared by a fast hash, so that a short or memorable key could be guessed.
type APIKey struct {
	// The application that holds the key: 1 to 64 printable ASCII characters
	// without a colon. Several keys may carry one name: to change a key, add the
	// new one under the same name, move the application, remove the old one.
	// Handlers and access logs see the name as `{http.auth.user.id}`. Required.
	Name string `json:"name,omitempty"`

	// What the key opens: `front_end` the services of mobile applications,
	// `back_end` those of the solution's own servers. The same for all keys of
	// one name. Required.
	//
	// A back-end key registers users for activation; it must never be part of a
	// mobile application.
	Class string `json:"class,omitempty"`

	// The key: 16 to 256 visible ASCII characters without a colon. Use a
	// placeholder, e.g. `{file./run/secrets/front_end_key}`, to keep it out of the
	// configuration. Either this or `key_sha256` is required.
	// Accepts placeholders.
	Key string `json:"key,omitempty"`

	// The SHA-256 of the key as 64 hexadecimal digits, for configurations that
	// must not hold the key itself: `printf %s "$KEY" | sha256sum`.
	// Accepts placeholders.
	KeySHA256 string `json:"key_sha256,omitempty"`

	// The addresses and CIDR ranges that the key is accepted from. The address
	// that counts is the client's as Caddy determines it; behind a proxy
	// configure `trusted_proxies`. Default: any for front-end keys, loopback
	// addresses only for back-end keys.
	Allow []string `json:"allow,omitempty"`
}

// resolve turns the configured key into one that apikey.NewSet checks.
func (k *APIKey) resolve() (apikey.Key, error) {
	hash, err := k.hash()
	if err != nil {
		return apikey.Key{}, err
	}
	allow := make([]netip.Prefix, len(k.Allow))
	for i, expression := range k.Allow {
		if allow[i], err = caddyhttp.CIDRExpressionToPrefix(expression); err != nil {
			return apikey.Key{}, option.Errorf(fmt.Sprintf("allow[%d]", i), "must be an IP address or a CIDR range")
		}
	}
	return apikey.Key{Name: k.Name, Class: apikey.Class(k.Class), Hash: hash, Allow: allow}, nil
}

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

// keyOption is the name of the option that holds the key.
func (k *APIKey) keyOption() string {
	if k.KeySHA256 != "" {
		return "key_sha256"
	}
	return "key"
}

// newKeySet resolves all keys.
func newKeySet(configured []APIKey) (*apikey.Set, error) {
	keys := make([]apikey.Key, len(configured))
	for i := range configured {
		var err error
		if keys[i], err = configured[i].resolve(); err != nil {
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
