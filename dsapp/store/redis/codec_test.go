package redis

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// Decoding an encoded handshake returns it without its lifetime, which is not encoded. States
// may contain the bytes that separate the parts.
func TestHandshakeRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := activation.Handshake{
			Generation:     activation.Generation(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "generation")),
			Source:         activation.Tag(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "source")),
			Application:    activation.Tag(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "application")),
			State:          rapid.SliceOfN(rapid.SampledFrom([]byte(";01\x00\xff")), 1, 30).Draw(t, "state"),
			Simulated:      rapid.Bool().Draw(t, "simulated"),
			RecordLifetime: time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "lifetime")) * time.Millisecond,
		}
		got, ok := decodeHandshake(encodeHandshake(h))
		if !ok || !reflect.DeepEqual(got, h) {
			t.Fatalf("read back as %+v, %v, want %+v", got, ok, h)
		}
	})
}

// The encoding is the one that the scripts read.
func TestHandshakeLayout(t *testing.T) {
	t.Parallel()
	h := activation.Handshake{
		Generation: activation.Generation{'g'}, Source: activation.Tag{'s'}, Application: activation.Tag{'a'}, State: []byte("state"), Simulated: true, RecordLifetime: 1500*time.Millisecond + 1,
	}
	zeros := make([]byte, 15)
	want := bytes.Join([][]byte{{'s'}, zeros, {'a'}, zeros, {'g'}, zeros, []byte("11501;state")}, nil)
	if got := encodeHandshake(h); !bytes.Equal(got, want) {
		t.Fatalf("encoded as %q, want %q", got, want)
	}
}

// decodeHandshake does not panic, and encoding and decoding what it returns gives the same
// handshake.
func FuzzDecodeHandshake(f *testing.F) {
	f.Add([]byte(nil))
	const names = "0123456789abcdef0123456789abcdef0123456789abcdef"
	f.Add([]byte(names))
	f.Add([]byte(names + "0600000;state"))
	f.Add([]byte(names + "1-1;"))
	f.Add([]byte(names + "1;"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := decodeHandshake(b)
		if !ok {
			return
		}
		again, ok := decodeHandshake(encodeHandshake(h))
		if !ok || again.Source != h.Source || again.Application != h.Application || again.Generation != h.Generation || again.Simulated != h.Simulated || !bytes.Equal(again.State, h.State) {
			t.Fatalf("%q is read as %+v, written and read as %+v", b, h, again)
		}
	})
}

// Answers that no script gives are errors and cause no panic.
func TestUnexpectedAnswers(t *testing.T) {
	t.Parallel()
	for _, values := range [][]any{nil, {}, {"1"}, {nil}} {
		if _, err := newReply(values); err == nil {
			t.Errorf("%v was accepted", values)
		}
	}
	generation := string(make([]byte, 16))
	for _, values := range [][]any{
		{}, {generation}, {generation + generation + generation, int64(1)}, {"short", "mdl", "", "", int64(1)}, {nil, nil, nil, nil, nil}, {int64(1), "", "", "", ""},
	} {
		if _, err := (reply{ok: true, values: values}).record("id-1"); err == nil {
			t.Errorf("%v was read as a record", values)
		}
		if _, err := (reply{ok: true, values: values}).handshake(); err == nil {
			t.Errorf("%v was read as a handshake", values)
		}
	}
}

// Decoding an entry of a device's list returns its claim. Owners may contain the bytes that
// separate the parts.
func TestListedRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := ownership.Claim{
			Key:   rapid.StringMatching(`[0-9A-Za-z]{1,64}`).Draw(t, "key"),
			Token: ownership.Token(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "token")),
			Owner: rapid.SliceOfN(rapid.SampledFrom([]byte(";01\x00\xff")), 1, 30).Draw(t, "owner"),
		}
		got, ok := decodeListed(listedEntry(c.Key, c.Token) + string(c.Owner))
		if !ok || !reflect.DeepEqual(got, c) {
			t.Fatalf("read back as %+v, %v, want %+v", got, ok, c)
		}
	})
}

// decodeListed does not panic, and encoding the claim that it returns gives the same entry.
func FuzzDecodeListed(f *testing.F) {
	f.Add("")
	f.Add("0123456789abcdef")
	f.Add("0123456789abcdef;owner")
	f.Add("0123456789abcdef8408980524;owner")
	f.Fuzz(func(t *testing.T, s string) {
		c, ok := decodeListed(s)
		if ok && listedEntry(c.Key, c.Token)+string(c.Owner) != s {
			t.Fatalf("%q is read as %+v", s, c)
		}
	})
}
