package restapi

import (
	"crypto/sha256"
	"net/http"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
)

// KeyField is the header field by which a client names a request of a service with Keyed, as
// draft-ietf-httpapi-idempotency-key-header describes it.
const KeyField = "Idempotency-Key"

// readKey reads the idempotency key of a request with this body, if the service takes keys and the
// request has one.
func (x *request) readKey(body []byte) error {
	if !x.service.Keyed {
		return nil
	}
	key, err := idempotencyKey(x.r.Header)
	if err == nil && key != "" {
		x.idempotencyKey, x.body = key, sha256.Sum256(body)
	}
	return err
}

// idempotencyKey returns the key in a header, empty if there is none. The draft has it in double
// quotes; without them it is the same key.
func idempotencyKey(header http.Header) (form.IdempotencyKey, error) {
	values := header.Values(KeyField)
	switch len(values) {
	case 0:
		return "", nil
	case 1:
	default:
		return "", &requestError{member: KeyField, problem: "occurs twice"}
	}
	text := values[0]
	if rest, opened := strings.CutPrefix(text, `"`); opened {
		if unquoted, closed := strings.CutSuffix(rest, `"`); closed {
			text = unquoted
		}
	}
	key, err := form.Parse[form.IdempotencyKey](text)
	if err != nil {
		return "", &requestError{member: KeyField, problem: err.Error()}
	}
	return key, nil
}
