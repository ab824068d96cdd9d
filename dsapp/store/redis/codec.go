package redis

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// reply is the answer of a script: an array of 1 for ok or 0, and values.
type reply struct {
	ok     bool
	values []any
}

func newReply(values []any) (reply, error) {
	if len(values) == 0 {
		return reply{}, errUnexpectedAnswer
	}
	first, isNumber := values[0].(int64)
	if !isNumber {
		return reply{}, errUnexpectedAnswer
	}
	return reply{ok: first == 1, values: values[1:]}, nil
}

// bytes returns value i as bytes, or nil if it is empty.
func (r reply) bytes(i int) []byte {
	if s, _ := r.values[i].(string); s != "" {
		return []byte(s)
	}
	return nil
}

// milliseconds returns value i, a number of milliseconds.
func (r reply) milliseconds(i int) time.Duration {
	n, _ := r.values[i].(int64)
	return time.Duration(n) * time.Millisecond
}

// record returns the record in the reply: generation, kind, facts, verifier, remaining
// lifetime and, optionally, data.
func (r reply) record(identifier string) (activation.Record, error) {
	if len(r.values) != 5 && len(r.values) != 6 {
		return activation.Record{}, unavailable(errUnexpectedAnswer)
	}
	generation := r.bytes(0)
	if len(generation) != len(activation.Generation{}) {
		return activation.Record{}, unavailable(errUnexpectedAnswer)
	}
	x := activation.Record{
		Identifier: identifier,
		Generation: activation.Generation(generation),
		Kind:       activation.Kind(r.bytes(1)),
		Facts:      r.bytes(2),
		Verifier:   r.bytes(3),
		Lifetime:   r.milliseconds(4),
	}
	if len(r.values) == 6 {
		x.Data = r.bytes(5)
	}
	return x, nil
}

// state returns the state in the reply: the members of the record, then 1 or 0 for burned, and
// the counters.
func (r reply) state(identifier string) (activation.State, error) {
	var x activation.State
	if len(r.values) != 11 {
		return x, unavailable(errUnexpectedAnswer)
	}
	record, err := reply{values: r.values[:5]}.record(identifier)
	if err != nil {
		return x, err
	}
	var burned int
	for i, n := range []*int{&burned, &x.Attempts, &x.InFlight, &x.Activations, &x.Devices, &x.Confirmations} {
		value, _ := r.values[5+i].(int64)
		*n = int(value)
	}
	x.Record, x.Burned = record, burned == 1
	return x, nil
}

// handshake returns the handshake in the reply, with its remaining lifetime.
func (r reply) handshake() (activation.Handshake, error) {
	if len(r.values) != 2 {
		return activation.Handshake{}, unavailable(errUnexpectedAnswer)
	}
	h, ok := decodeHandshake(r.bytes(0))
	if !ok {
		return activation.Handshake{}, unavailable(errUnexpectedAnswer)
	}
	h.Lifetime = r.milliseconds(1)
	return h, nil
}

// encodeHandshake returns h in the form that the scripts read: source, application,
// generation (16 bytes each), 1 or 0 for simulated, the lifetime of the record in
// milliseconds in decimal, a semicolon, the state.
func encodeHandshake(h activation.Handshake) []byte {
	b := make([]byte, 0, len(h.Source)+len(h.Application)+len(h.Generation)+24+len(h.State))
	b = append(b, h.Source[:]...)
	b = append(b, h.Application[:]...)
	b = append(b, h.Generation[:]...)
	if h.Simulated {
		b = append(b, '1')
	} else {
		b = append(b, '0')
	}
	b = strconv.AppendInt(b, milliseconds(h.RecordLifetime), 10)
	b = append(b, ';')
	return append(b, h.State...)
}

// decodeHandshake decodes what encodeHandshake returns, and reports whether it could.
func decodeHandshake(b []byte) (activation.Handshake, bool) {
	var h activation.Handshake
	if len(b) <= len(h.Source)+len(h.Application)+len(h.Generation) {
		return h, false
	}
	for _, part := range [][]byte{h.Source[:], h.Application[:], h.Generation[:]} {
		b = b[copy(part, b):]
	}
	if b[0] != '0' && b[0] != '1' {
		return activation.Handshake{}, false
	}
	h.Simulated = b[0] == '1'
	lifetime, state, found := bytes.Cut(b[1:], []byte(";"))
	n, err := strconv.ParseInt(string(lifetime), 10, 64)
	if !found || err != nil {
		return activation.Handshake{}, false
	}
	h.RecordLifetime = time.Duration(n) * time.Millisecond
	if len(state) > 0 {
		h.State = state
	}
	return h, true
}

// listedEntry returns the beginning of a claim's entry in the list of a device: its token,
// its key and a semicolon. The owner follows.
func listedEntry(key string, token ownership.Token) string {
	return string(token[:]) + key + ";"
}

// decodeListed decodes an entry of a device's list, and reports whether it could.
func decodeListed(s string) (ownership.Claim, bool) {
	token, rest, ok := cutToken(s)
	key, owner, found := strings.Cut(string(rest), ";")
	if !ok || !found || key == "" {
		return ownership.Claim{}, false
	}
	return ownership.Claim{Key: key, Token: token, Owner: []byte(owner)}, true
}

// cutToken returns the token at the beginning of s and the rest, and reports whether s is
// long enough.
func cutToken(s string) (token ownership.Token, rest []byte, ok bool) {
	if len(s) < len(token) {
		return ownership.Token{}, nil, false
	}
	return ownership.Token([]byte(s[:len(token)])), []byte(s[len(token):]), true
}
