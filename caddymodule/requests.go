package caddymodule

import (
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/repeat"
)

// Requests configures what the gateway remembers about pending logins and signatures. For
// each request it remembers the application and the device that retrieved it, and the
// instance that has it.
type Requests struct {
	// How long the gateway remembers a request that is neither completed nor cancelled.
	// Set it to the time for which the authentication server keeps requests. After that
	// time, a request counts as unknown. From `1s` to `24h`. Default: `5m`.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`

	// What to do with a cancellation of a request that the gateway does not remember:
	// `forward` lets an authentication server decide, `refuse` answers with
	// `STAT_NOSUPPORT`.
	//
	// With `forward`, only the authentication server protects requests whose retrieval
	// could not be stored because the store was down. While the store is down,
	// cancellations are answered with status 503. The exception, with `forward`, are those
	// with a wrapped key: they are forwarded, and the authentication server checks that
	// the device made them. Default: `forward`.
	Unknown string `json:"unknown,omitempty"`

	// What to do with a cancellation that contains the plain key of the request: `forward`
	// applies the ownership of the request, `refuse` answers with `STAT_NOSUPPORT`. A
	// plain key proves nothing about the device: whoever has an API key of the
	// application, the key of the request and the serial number can cancel the request.
	// Use `refuse` if all phones wrap the key in a secure-channel message. Default:
	// `forward`.
	PlainCancel string `json:"plain_cancel,omitempty"`

	// How long the gateway keeps the answer of a call that succeeded, sealed, for the same
	// client to ask again if it did not get it: the retrieval, completion and cancellation
	// of a request, the addition of a device and the final call of an activation. The same
	// call within that time gets the same answer, and the authentication server gets
	// nothing. If the outcome of a call is unknown, the same call within that time gets the
	// same error, and is not sent again. `0s` switches this off: an answer that was lost
	// cannot be had again. From `1s` to `10m`, or `0s`. Default: `1m`.
	//
	// Within that time, whoever has an API key of the application, the key of a request and
	// the serial number of its device gets a copy of the request's message, which only the
	// device can decrypt.
	Repeat *caddy.Duration `json:"repeat,omitempty"`
}

// repeat returns how long answers are kept, 0 for not at all.
func (r Requests) repeat() time.Duration {
	if r.Repeat == nil {
		return repeat.DefaultLifetime
	}
	return time.Duration(*r.Repeat)
}

// StatusCodes are the numbers of status codes of which the vendor publishes only the names.
// Answers that the gateway relays keep the numbers of the authentication server.
type StatusCodes struct {
	// The number of `STAT_NOSUPPORT` when the gateway itself refuses to cancel a request.
	// It must not be 0, which means success. Default: -1.
	NoSupport *int32 `json:"STAT_NOSUPPORT,omitempty"`
}
