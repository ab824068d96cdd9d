package redis

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
)

// For any answer of a server, reading it as a record or handshake does not panic. It returns
// what the answer contains, or an error.
func FuzzReply(f *testing.F) {
	generation := bytes.Repeat([]byte("g"), 16)
	state := append(bytes.Repeat([]byte("s"), 32), append(bytes.Clone(generation), "1600000;state"...)...)
	f.Add(uint8(7), uint8(0), int64(1), generation, []byte("mdl"), []byte("facts"), []byte("verifier"), int64(600000), []byte("data"))
	f.Add(uint8(6), uint8(0), int64(0), generation, []byte(""), []byte(""), []byte(""), int64(-1), []byte(""))
	f.Add(uint8(3), uint8(2), int64(1), state, []byte{}, []byte{}, []byte{}, int64(120000), []byte{})
	f.Add(uint8(3), uint8(0), int64(1), generation, []byte("120000"), []byte{}, []byte{}, int64(1), []byte{})
	f.Add(uint8(0), uint8(0), int64(1), generation, []byte{}, []byte{}, []byte{}, int64(1), []byte{})
	f.Add(uint8(1), uint8(1), int64(1), generation, []byte{}, []byte{}, []byte{}, int64(1), []byte{})
	f.Add(uint8(7), uint8(255), int64(2), generation, []byte("mdl"), []byte("\x00"), []byte("\xff"), int64(1<<62), []byte("\r\n"))
	f.Add(uint8(6), uint8(0), int64(1), generation[1:], []byte("mdl"), []byte("facts"), []byte("verifier"), int64(1), []byte{})
	f.Add(uint8(6), uint8(0), int64(1), append(generation, 'g'), []byte("mdl"), []byte("facts"), []byte("verifier"), int64(1), []byte{})
	f.Fuzz(func(t *testing.T, n, odd uint8, first int64, generation, kind, facts, verifier []byte, ms int64, data []byte) {
		values := []any{first, string(generation), string(kind), string(facts), string(verifier), ms, string(data), nil}
		if odd&2 != 0 {
			// This is the form of an answer with a handshake.
			values[2] = ms
		}
		if i := int(odd >> 4); odd&1 != 0 && i < len(values) {
			// This value has another type.
			values[i] = []any{nil}
		}
		values = values[:min(int(n), len(values))]
		r, err := newReply(values)
		number, isNumber := int64(0), false
		if len(values) > 0 {
			number, isNumber = values[0].(int64)
		}
		if isNumber != (err == nil) || r.ok != (number == 1) {
			t.Fatalf("%q: %t, %v", values, r.ok, err)
		}
		if err != nil {
			return
		}
		text := func(i int) []byte {
			s, _ := values[i].(string)
			return []byte(s)
		}

		x, err := r.record("id-1")
		if want := (len(values) == 6 || len(values) == 7) && len(text(1)) == 16; want != (err == nil) {
			t.Fatalf("%q as a record: %v", values, err)
		}
		if err == nil {
			lifetime, _ := values[5].(int64)
			if x.Identifier != "id-1" || !bytes.Equal(x.Generation[:], text(1)) || string(x.Kind) != string(text(2)) || !bytes.Equal(x.Facts, text(3)) ||
				!bytes.Equal(x.Verifier, text(4)) || x.Lifetime != time.Duration(lifetime)*time.Millisecond || len(values) == 7 && !bytes.Equal(x.Data, text(6)) {
				t.Fatalf("%q is read as %+v", values, x)
			}
		} else if !errors.Is(err, activation.ErrUnavailable) || x.Kind != "" || x.Facts != nil {
			t.Fatalf("%q is read as %+v, %v", values, x, err)
		}

		h, err := r.handshake()
		if err != nil {
			if !errors.Is(err, activation.ErrUnavailable) || h.State != nil {
				t.Fatalf("%q is read as %+v, %v", values, h, err)
			}
			return
		}
		rest, isState := bytes.CutPrefix(text(1), slices.Concat(h.Source[:], h.Application[:], h.Generation[:]))
		_, sealed, separated := bytes.Cut(rest, []byte(";"))
		if len(values) != 3 || !isState || !separated || !bytes.Equal(sealed, h.State) || h.Simulated != (rest[0] == '1') {
			t.Fatalf("%q is read as %+v", values, h)
		}
	})
}
