package caddymodule

import "github.com/caddyserver/caddy/v2"

// Requests says what the gateway remembers about pending logins and signatures:
// which application and device retrieved one, and from which instance.
type Requests struct {
	// How long that is remembered, unless the request is completed or cancelled
	// before. Make it as long as the authentication server keeps requests: what is
	// forgotten earlier is unknown. From `1s` to `24h`. Default: `5m`.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`

	// What to do with the cancel of a request that nothing is remembered about:
	// `forward` lets an authentication server decide, `refuse` answers with
	// `STAT_NOSUPPORT`. With `forward`, the authentication server's own check is the
	// only one for requests that went unnoticed while the store was down. While the
	// store is down, a cancel has status 503, except that with `forward` one whose
	// key is wrapped is forwarded: the authentication server checks that the device
	// made it. Default: `forward`.
	Unknown string `json:"unknown,omitempty"`

	// What to do with the cancel of a request by its plain key: `forward` judges it
	// by who retrieved the request, `refuse` answers with `STAT_NOSUPPORT`. A plain
	// key proves nothing about the device: whoever has the application's API key, the
	// request's key and the serial number can cancel. Refuse it if all phones wrap
	// keys in secure-channel messages. Default: `forward`.
	PlainCancel string `json:"plain_cancel,omitempty"`
}

// StatusCodes are the numbers of statuses that the vendor publishes by name only.
// Answers of an authentication server keep its own.
type StatusCodes struct {
	// The number of `STAT_NOSUPPORT` where the gateway itself refuses to cancel a
	// request. Not 0, which stands for success. Default: -1.
	NoSupport *int32 `json:"STAT_NOSUPPORT,omitempty"`
}
