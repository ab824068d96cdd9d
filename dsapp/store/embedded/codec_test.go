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
	}
}

func drawParts(t *rapid.T) parts {
	blob := blobs()
	return parts{facts: blob.Draw(t, "facts"), verifier: blob.Draw(t, "verifier"), data: blob.Draw(t, "data")}
}

// encodeInline returns e as a value of inlineVersion, which Stores of format 1 wrote.
func encodeInline(e *entry) []byte {
	b := e.encode()
	b[0] = inlineVersion
	return appendBytes(b, e.facts, e.verifier, e.data)
}

// Decoding an encoded entry returns it. A truncated or extended encoding is an error.
func TestEntryRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := drawEntry(t)
		b := e.encode()
		if rapid.Bool().Draw(t, "inline") {
			e.inline, e.parts = true, drawParts(t)
			b = encodeInline(e)
		}
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

// Decoding encoded parts returns them and their generation. A truncated or extended encoding is an
// error. Decoded parts share no memory with their encoding.
func TestPartsRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p, g := drawParts(t), activation.Generation{rapid.Byte().Draw(t, "generation")}
		b := p.encode(g)
		got, generation, err := decodeParts(b)
		if err != nil || generation != g || !reflect.DeepEqual(got, p) {
			t.Fatalf("read back as %+v of %x, error %v, want %+v", got, generation, err, p)
		}
		if _, _, err := decodeParts(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]); err == nil {
			t.Fatal("shortened parts were decoded")
		}
		if _, _, err := decodeParts(append(b, 0)); err == nil {
			t.Fatal("prolonged parts were decoded")
		}
		clear(b)
		if !reflect.DeepEqual(got, p) {
			t.Fatal("the parts changed with the memory they were read from")
		}
	})
}

// A decoded entry shares no memory with its encoding, which ends with the transaction.
func TestEntrySharesNoMemory(t *testing.T) {
	t.Parallel()
	e := &entry{
		kind: "mdl", inFlight: []activation.Token{{1}}, inline: true,
		parts: parts{facts: []byte("facts"), verifier: []byte("verifier"), data: []byte("data")},
	}
	b := encodeInline(e)
	got, err := decodeEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if !reflect.DeepEqual(got, e) {
		t.Fatal("the entry changed with the memory it was read from")
	}
}

// The layouts must not change, because files of earlier versions must stay readable.
func TestEntryLayout(t *testing.T) {
	t.Parallel()
	e := &entry{
		generation: activation.Generation{0xaa}, kind: "mdl", expires: 0x0102030405060708, burned: true,
		reserved: 1, activations: 2, devices: 3, confirmations: 4, settled: true, last: activation.Token{0xbb},
		inFlight: []activation.Token{{0xcc}},
	}
	zeros := make([]byte, 15)
	want := bytes.Join([][]byte{
		{2, 3},
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
	}, nil)
	if got := e.encode(); !bytes.Equal(got, want) {
		t.Fatalf("encoded as %x, want %x", got, want)
	}
	// Format 1.
	want[0] = 1
	want = append(want, "\x00\x00\x00\x01F\x00\x00\x00\x00\x00\x00\x00\x02DD"...)
	e.inline, e.parts = true, parts{facts: []byte("F"), data: []byte("DD")}
	if got, err := decodeEntry(want); err != nil || !reflect.DeepEqual(got, e) {
		t.Fatalf("read as %+v, error %v, want %+v", got, err, e)
	}
	want = bytes.Join([][]byte{{1}, {0xaa}, zeros, []byte("\x00\x00\x00\x01F\x00\x00\x00\x00\x00\x00\x00\x02DD")}, nil)
	if got := e.parts.encode(e.generation); !bytes.Equal(got, want) {
		t.Fatalf("parts encoded as %x, want %x", got, want)
	}
}

// Decoding does not panic, and what it accepts has only one encoding.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{1, 0})
	f.Add([]byte{2, 0})
	f.Add((&entry{}).encode())
	f.Add((&entry{kind: "mdl", inFlight: []activation.Token{{1}, {2}}, burned: true}).encode())
	f.Add(encodeInline(&entry{kind: "mdl", parts: parts{facts: []byte("facts")}}))
	huge := (&entry{}).encode()
	copy(huge[58:62], []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(huge)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil {
			return
		}
		encoded := e.encode()
		if e.inline {
			encoded = encodeInline(e)
		}
		if !bytes.Equal(encoded, b) {
			t.Fatalf("%x is read as an entry that is written as %x", b, encoded)
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

// Whatever a record of claims holds: what is decoded is what is encoded again, and is about the request with
// the digest of the record.
func FuzzDecodeRequest(f *testing.F) {
	f.Add([]byte{})
	for _, r := range []*request{{}, {kind: ownership.Login, key: "1"}, {claim{serialNumber: "VDS-1", owner: []byte("owner")}, ownership.Signature, "2"}} {
		f.Add(r.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := reader{rest: b}
		in.take(1)
		at := archived{claimDigest(claimKey(ownership.Kind(in.bytes()), string(in.bytes()))), place{token: [16]byte{1}, ends: 2}}
		r, err := decodeRequest(at, b)
		if err != nil {
			return
		}
		if got := r.encode(); !bytes.Equal(got, b) || r.token != at.place.token || r.ends != at.place.ends {
			t.Fatalf("%x is read as a request that is written as %x", b, got)
		}
		at.digest[0]++
		if _, err := decodeRequest(at, b); err == nil {
			t.Fatal("a record about another request was decoded")
		}
	})
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
