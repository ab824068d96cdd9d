package embedded

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/activation"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/ownership"
)

// blobs returns byte strings as decoding does: nil if they are empty.
func blobs() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		b := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")
		if len(b) == 0 {
			return nil
		}
		return b
	})
}

func drawEntry(t *rapid.T) *entry {
	blob := blobs()
	var tokens []activation.Token
	for i := range rapid.IntRange(0, 5).Draw(t, "in flight") {
		tokens = append(tokens, activation.Token{byte(i), rapid.Byte().Draw(t, "token")})
	}
	return &entry{
		generation:    activation.Generation(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "generation")),
		kind:          activation.Kind(rapid.StringN(0, 12, -1).Draw(t, "kind")),
		expires:       rapid.Int64().Draw(t, "expires"),
		burned:        rapid.Bool().Draw(t, "burned"),
		reserved:      rapid.Uint32().Draw(t, "reserved"),
		inFlight:      tokens,
		activations:   rapid.Uint32().Draw(t, "activations"),
		devices:       rapid.Uint32().Draw(t, "devices"),
		confirmations: rapid.Uint32().Draw(t, "confirmations"),
		settled:       rapid.Bool().Draw(t, "settled"),
		proven:        rapid.Bool().Draw(t, "proven"),
		last:          activation.Token(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "last")),
		facts:         blob.Draw(t, "facts"),
		verifier:      blob.Draw(t, "verifier"),
		data:          blob.Draw(t, "data"),
	}
}

// Decoding an encoded entry returns it. A truncated or extended encoding is an error.
func TestEntryRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := drawEntry(t)
		b := e.encode()
		got, err := decodeEntry(b)
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("read back as %+v, error %v, want %+v", got, err, e)
		}
		if _, err := decodeEntry(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]); err == nil {
			t.Fatal("a shortened entry was decoded")
		}
		if _, err := decodeEntry(append(b, 0)); err == nil {
			t.Fatal("a prolonged entry was decoded")
		}
	})
}

// A decoded entry shares no memory with its encoding, which ends with the transaction.
func TestEntrySharesNoMemory(t *testing.T) {
	t.Parallel()
	e := &entry{kind: "mdl", facts: []byte("facts"), verifier: []byte("verifier"), data: []byte("data"), inFlight: []activation.Token{{1}}}
	b := e.encode()
	got, err := decodeEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !reflect.DeepEqual(got, e) {
		t.Fatal("the entry changed with the memory it was read from")
	}
}

// The layout of version 1 must not change, because files of earlier versions must stay readable.
func TestEntryLayout(t *testing.T) {
	t.Parallel()
	e := &entry{
		generation: activation.Generation{0xaa}, kind: "mdl", expires: 0x0102030405060708, burned: true,
		reserved: 1, activations: 2, devices: 3, confirmations: 4, settled: true, last: activation.Token{0xbb},
		inFlight: []activation.Token{{0xcc}}, facts: []byte("F"), data: []byte("DD"),
	}
	zeros := make([]byte, 15)
	want := bytes.Join([][]byte{
		{1, 3},
		{0xaa},
		zeros,
		{1, 2, 3, 4, 5, 6, 7, 8},
		{0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4},
		{0xbb},
		zeros,
		{0, 0, 0, 1, 0xcc},
		zeros,
		{0, 0, 0, 3},
		[]byte("mdl"),
		{0, 0, 0, 1},
		[]byte("F"),
		{0, 0, 0, 0},
		{0, 0, 0, 2},
		[]byte("DD"),
	}, nil)
	if got := e.encode(); !bytes.Equal(got, want) {
		t.Fatalf("encoded as %x, want %x", got, want)
	}
}

// Decoding does not panic, and what it accepts has only one encoding.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{1, 0})
	f.Add([]byte{2, 0})
	f.Add((&entry{}).encode())
	f.Add((&entry{kind: "mdl", facts: []byte("facts"), inFlight: []activation.Token{{1}, {2}}, burned: true}).encode())
	huge := (&entry{}).encode()
	copy(huge[58:62], []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(huge)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil {
			return
		}
		if !bytes.Equal(e.encode(), b) {
			t.Fatalf("%x is read as an entry that is written as %x", b, e.encode())
		}
	})
}

// Decoding an encoded claim returns it. A truncated or extended encoding is an error.
func TestClaimRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := &claim{
			token:        ownership.Token(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "token")),
			ends:         rapid.Int64().Draw(t, "ends"),
			serialNumber: rapid.StringN(0, 40, -1).Draw(t, "serial number"),
			owner:        blobs().Draw(t, "owner"),
		}
		b := c.encode()
		got, err := decodeClaim(b)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("read back as %+v, error %v, want %+v", got, err, c)
		}
		if _, err := decodeClaim(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]); err == nil {
			t.Fatal("a shortened claim was decoded")
		}
		if _, err := decodeClaim(append(b, 0)); err == nil {
			t.Fatal("a prolonged claim was decoded")
		}
		clear(b)
		if !reflect.DeepEqual(got, c) {
			t.Fatal("the claim changed with the memory it was read from")
		}
	})
}

// The layout of version 1 must not change, because files of earlier versions must stay readable.
func TestClaimLayout(t *testing.T) {
	t.Parallel()
	c := &claim{token: ownership.Token{0xaa}, ends: 0x0102030405060708, serialNumber: "VDS-1", owner: []byte("OO")}
	want := bytes.Join([][]byte{
		{1},
		{0xaa},
		make([]byte, 15),
		{1, 2, 3, 4, 5, 6, 7, 8},
		{0, 0, 0, 5},
		[]byte("VDS-1"),
		{0, 0, 0, 2},
		[]byte("OO"),
	}, nil)
	if got := c.encode(); !bytes.Equal(got, want) {
		t.Fatalf("encoded as %x, want %x", got, want)
	}
}

// Decoding does not panic, and what it accepts has only one encoding.
func FuzzDecodeClaim(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{1})
	f.Add((&entry{}).encode())
	f.Add((&claim{}).encode())
	f.Add((&claim{token: ownership.Token{1}, ends: 1, serialNumber: "VDS-1", owner: []byte("owner")}).encode())
	other := (&claim{owner: []byte("owner")}).encode()
	other[0] = 2
	f.Add(other)
	huge := (&claim{}).encode()
	copy(huge[25:29], []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(huge)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeClaim(b)
		if err != nil {
			return
		}
		if !bytes.Equal(c.encode(), b) {
			t.Fatalf("%x is read as a claim that is written as %x", b, c.encode())
		}
	})
}
