package caddymodule

import (
	"cmp"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/gateway"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// Activation says how phones are activated.
type Activation struct {
	// Who carries out the exchange with the phone: the `gateway`, or with `relay`
	// an authentication server, for phones that carry the vendor's SDK. With
	// `relay` the gateway passes on what both say and remembers only which instance
	// has a registration: of the options below, only `registration_lifetime`,
	// `max_attempts`, `unknown`, `hide_unknown_users` and `gateway_id` are accepted
	// then, and how often a phone may try to prove its password is up to the
	// authentication server. Do not change it while registrations are pending.
	// Default: `gateway`.
	Exchange string `json:"exchange,omitempty"`

	// The choices of the exchange that phones must share: group, hash, sizes and
	// how activation data is sealed. One of `rfc5054-2048-sha256`,
	// `rfc5054-3072-sha256` and `rfc5054-4096-sha256`; the larger ones cost more
	// time on both sides. Default: `rfc5054-2048-sha256`.
	Profile string `json:"profile,omitempty"`

	// How long a registration can be used. The authentication server forgets it
	// after its own time, 10 minutes unless it was changed: raise both together.
	// From `1s` to `24h`. Default: `10m`.
	RegistrationLifetime caddy.Duration `json:"registration_lifetime,omitempty"`

	// How long the phone may take between the two calls of an exchange. Of one
	// registration, exchanges of four client addresses can be between their calls; a
	// fifth takes the place of the oldest. From `1s` to `1h`. Default: `2m`.
	HandshakeLifetime caddy.Duration `json:"handshake_lifetime,omitempty"`

	// How many wrong proofs burn a registration, and how many calls of the final
	// service it admits. A registration without an exchange of the gateway's own, by
	// `MdlRegister` or with `relay`, admits calls of the final service, and calls
	// that add a device, until the authentication server refused that many of each.
	// 1 to 100. More make guessing the activation password easier. Default: 3.
	MaxAttempts int `json:"max_attempts,omitempty"`

	// How many times the activation data of one registration is handed out, each
	// time after an exchange of its own. A phone that lost the answer needs
	// another. 1 to 1000. Default: 3.
	MaxActivations int `json:"max_activations,omitempty"`

	// What to do when a device is added or an activation completed under an
	// identifier that the store does not know, and with `relay` in every other call
	// under such an identifier: `refuse`, or `forward` to let an authentication
	// server decide. With `forward` the authentication server sees calls of phones
	// that proved nothing. Standard licences that the gateway registered itself are
	// always refused: for whom they are is not known then. Default: `refuse`, with
	// `relay` it is `forward`.
	Unknown string `json:"unknown,omitempty"`

	// Whether refused one-time passwords and approved logins are all answered alike,
	// with `STAT_INVCREDENTIALS`. Otherwise the authentication server's own status is
	// relayed, such as `STAT_USER_UNKNOWN`, which tells who has a phone's API key which
	// users exist. The audit log has that status in both cases. Answers that a
	// pending login is not there and that the server is broken stay as they are, and
	// how long an answer takes may still tell. So may refused signatures and
	// notification IDs, which are relayed. Clients of another gateway may read
	// those statuses. Default: false.
	HideUnknownUsers bool `json:"hide_unknown_users,omitempty"`

	// The last field of activation images, unless with `relay` an authentication
	// server tells another. It has at most 255 characters, no semicolon and no
	// control characters.
	// Default: empty. Accepts placeholders.
	GatewayID string `json:"gateway_id,omitempty"`

	// The form of activation passwords.
	Password Password `json:"password,omitzero"`
}

// Password is the form of generated passwords. The shorter it is, the likelier a
// guess within the allowed attempts.
type Password struct {
	// The number of characters: 4 to 64, with digits only 6 to 64. Default: 8.
	Length int `json:"length,omitempty"`

	// `alphanumeric` (digits and letters of both cases without those that look
	// alike), `numeric`, or the characters themselves: at least 10 different ones
	// of printable ASCII without space and semicolon. Default: `alphanumeric`.
	Alphabet string `json:"alphabet,omitempty"`
}

const profiles = "rfc5054-2048-sha256, rfc5054-3072-sha256 or rfc5054-4096-sha256"

// config returns the settings of the exchange.
func (a *Activation) config() (activation.Config, error) {
	if err := a.checkRelay(); err != nil {
		return activation.Config{}, err
	}
	profile, err := srp.LookupProfile(cmp.Or(a.Profile, srp.DefaultProfile))
	if err != nil {
		return activation.Config{}, option.Errorf("profile", "must be "+profiles)
	}
	// The others serve what is pending from before a reload.
	exchanges := []activation.Profile{profile}
	for _, p := range srp.Profiles() {
		exchanges = append(exchanges, p)
	}
	return activation.Config{
		Profiles:             exchanges,
		RegistrationLifetime: time.Duration(a.RegistrationLifetime),
		HandshakeLifetime:    time.Duration(a.HandshakeLifetime),
		MaxAttempts:          a.MaxAttempts,
		MaxActivations:       a.MaxActivations,
		Password:             activation.PasswordRule{Length: a.Password.Length, Alphabet: a.Password.Alphabet},
	}, nil
}

// checkRelay refuses options of the gateway's own exchange where there is none.
func (a *Activation) checkRelay() error {
	if gateway.Exchange(a.Exchange) != gateway.ExchangeRelay {
		return nil
	}
	for _, o := range []struct {
		name string
		used bool
	}{
		{"profile", a.Profile != ""},
		{"handshake_lifetime", a.HandshakeLifetime != 0},
		{"max_activations", a.MaxActivations != 0},
		{"password", a.Password != Password{}},
	} {
		if o.used {
			return option.Errorf(o.name, "means nothing with exchange %q, which leaves that to the authentication server", gateway.ExchangeRelay)
		}
	}
	return nil
}
