package caddymodule

import (
	"encoding/json"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// Activation configures how phones are activated.
type Activation struct {
	// Who carries out the exchange with the phone that proves the activation password.
	//
	// `gateway`: the gateway does.
	//
	// `relay`: an authentication server does, for phones that use the vendor's SDK. The
	// gateway passes the messages on and remembers only which instance has a registration.
	// The authentication server then decides how often a phone may try to prove its
	// password. Of the options below, only `registration_lifetime`, `max_attempts`,
	// `unknown`, `hide_unknown_users` and `gateway_id` are accepted.
	//
	// Do not change this option while registrations are pending. Default: `gateway`.
	Exchange string `json:"exchange,omitempty"`

	// The cryptographic parameters of the exchange, which must be the same in the phones:
	// group, hash, formulas, and the encryption of activation data. One of
	// `rfc5054-2048-sha256`, `rfc5054-3072-sha256` and `rfc5054-4096-sha256`, or a module:
	// `srp6a` for phones with another SRP library, or one of your own. Larger groups need
	// more time on both sides. Default: `rfc5054-2048-sha256`.
	ProfileRaw json.RawMessage `json:"profile,omitempty" caddy:"namespace=dsapp.profiles inline_key=module"`

	// Several profiles at once, instead of `profile`: up to 8 with different names, each
	// written as `profile` is. The first is that of registrations and front-end applications
	// that name none. Others are chosen by the member `profile` of `DSAPPSRPRegister` and by
	// the option `profile` of an API key. Default: `profile` alone.
	//
	// A registration belongs to the profile that it was made with. If that is taken away, or
	// if one of its options changes, the registration is unknown to every application, and
	// the user has to register again.
	ProfilesRaw []json.RawMessage `json:"profiles,omitempty" caddy:"namespace=dsapp.profiles inline_key=module"`

	// How long a registration can be used. The authentication server has its own time,
	// after which it forgets a registration: 10 minutes unless it was changed. Change
	// both together. From `1s` to `24h`. Default: `10m`.
	RegistrationLifetime caddy.Duration `json:"registration_lifetime,omitempty"`

	// How long a phone may take between the two calls of an exchange. A registration can
	// have one exchange between its calls for each of up to four client addresses. A
	// fifth one replaces the oldest. From `1s` to `1h`. Default: `2m`.
	HandshakeLifetime caddy.Duration `json:"handshake_lifetime,omitempty"`

	// How many wrong proofs make a registration unusable, and how many final calls a
	// registration admits. A registration without an exchange of the gateway (by
	// `MdlRegister` or with `relay`) admits final calls, and calls that add a device, until
	// the authentication server has refused this number of each. 1 to 100. A larger number
	// makes it easier to guess activation passwords. Default: 3.
	MaxAttempts int `json:"max_attempts,omitempty"`

	// How many times the gateway hands out the activation data of a registration. Each
	// time needs a successful exchange, for example of a phone that lost the answer.
	// 1 to 1000. Default: 3.
	MaxActivations int `json:"max_activations,omitempty"`

	// What to do with calls that add a device or complete an activation under an
	// identifier that the store does not know, and with `relay` also with the calls of the
	// exchange: `refuse`, or `forward` to let an authentication server decide. With
	// `forward`, calls of phones that have proved nothing reach the authentication
	// server. Calls for standard licences that the gateway registered itself are always
	// refused, because without the registration their user is not known. Default:
	// `refuse`; with `relay` the default is `forward`.
	Unknown string `json:"unknown,omitempty"`

	// Whether all refused one-time passwords and approved logins get the same status,
	// `STAT_INVCREDENTIALS`. Otherwise the gateway relays the status of the authentication
	// server, such as `STAT_USER_UNKNOWN`; then whoever has a front-end key can find out
	// which users exist. Set it to true unless clients need these statuses. The audit log
	// has the status of the authentication server in both cases.
	//
	// It does not hide everything: answers that a pending login does not exist and that
	// the server is out of order remain different, refused signatures and notification IDs
	// are relayed, and the time for an answer can still reveal whether a user exists.
	// Default: false.
	HideUnknownUsers bool `json:"hide_unknown_users,omitempty"`

	// The last field of activation images. With `relay`, the value of an authentication
	// server takes precedence. At most 255 characters, without semicolons and control
	// characters. Default: empty. Accepts placeholders.
	GatewayID string `json:"gateway_id,omitempty"`

	// The form of activation passwords.
	Password Password `json:"password,omitzero"`

	// profiles are those in use. There are none with `relay`.
	profiles []activation.Profile
}

// Password configures generated activation passwords. Shorter passwords from fewer
// characters are easier to guess within `max_attempts`.
type Password struct {
	// The number of characters: 4 to 64; with digits only, 6 to 64. Default: 8.
	Length int `json:"length,omitempty"`

	// The characters: `alphanumeric` (digits and letters of both cases without those that
	// look alike), `numeric`, or a text of at least 10 different characters of printable
	// ASCII without space and semicolon. Default: `alphanumeric`.
	Alphabet string `json:"alphabet,omitempty"`
}

const profiles = "rfc5054-2048-sha256, rfc5054-3072-sha256 or rfc5054-4096-sha256"

// config returns the settings for package activation.
func (a *Activation) config(ctx caddy.Context) (activation.Config, error) {
	if err := a.checkRelay(); err != nil {
		return activation.Config{}, err
	}
	profiles, err := a.loadProfiles(ctx)
	if err != nil {
		return activation.Config{}, err
	}
	if gateway.Exchange(a.Exchange) != gateway.ExchangeRelay {
		a.profiles = profiles
	}
	return activation.Config{
		Profiles:             profiles,
		RegistrationLifetime: time.Duration(a.RegistrationLifetime),
		HandshakeLifetime:    time.Duration(a.HandshakeLifetime),
		MaxAttempts:          a.MaxAttempts,
		MaxActivations:       a.MaxActivations,
		Password:             activation.PasswordRule{Length: a.Password.Length, Alphabet: a.Password.Alphabet},
	}, nil
}

// checkRelay returns an error if an option of the gateway's own exchange is set and the
// exchange is `relay`.
func (a *Activation) checkRelay() error {
	if gateway.Exchange(a.Exchange) != gateway.ExchangeRelay {
		return nil
	}
	for _, o := range []struct {
		name string
		used bool
	}{
		{"profile", a.ProfileRaw != nil},
		{"profiles", a.ProfilesRaw != nil},
		{"handshake_lifetime", a.HandshakeLifetime != 0},
		{"max_activations", a.MaxActivations != 0},
		{"password", a.Password != Password{}},
	} {
		if o.used {
			return meaninglessError(o.name)
		}
	}
	return nil
}

// meaninglessError returns the error about an option that does nothing if the exchange is relayed.
func meaninglessError(name string) error {
	return option.Errorf(name, "means nothing with exchange %q, which leaves that to the authentication server", gateway.ExchangeRelay)
}
