package ownership

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Every owner can be encoded and decoded. Shortened and prolonged encodings are refused.
func TestOwnerRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.Custom(func(t *rapid.T) string {
			return string(rapid.SliceOfN(rapid.Byte(), 1, 255).Draw(t, "name"))
		})
		o := Owner{name.Draw(t, "application"), name.Draw(t, "serial number"), name.Draw(t, "instance")}
		b, err := o.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := decodeOwner(b); !ok || got != o {
			t.Fatalf("read back as %q: %v, want %q", got, ok, o)
		}
		if _, ok := decodeOwner(b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]); ok {
			t.Fatal("a shortened owner was decoded")
		}
		if _, ok := decodeOwner(append(b, 1)); ok {
			t.Fatal("a prolonged owner was decoded")
		}
	})
}

// The layout of version 1 is fixed: nodes of several versions share a store.
func TestOwnerLayout(t *testing.T) {
	t.Parallel()
	b, err := Owner{"app", "VDS-1", "primary"}.encode()
	if want := "\x01\x03app\x05VDS-1\x07primary"; err != nil || string(b) != want {
		t.Fatalf("encoded as %q, error %v, want %q", b, err, want)
	}
}

// Every member has 1 to 255 bytes. Others are neither encoded nor decoded.
func TestOwnerLimits(t *testing.T) {
	t.Parallel()
	for length, valid := range map[int]bool{0: false, 1: true, 255: true, 256: false} {
		name := strings.Repeat("x", length)
		for _, o := range []Owner{{name, "serial", "instance"}, {"application", name, "instance"}, {"application", "serial", name}} {
			b, err := o.encode()
			if (err == nil) != valid || (b != nil) != valid {
				t.Errorf("%d, %d and %d bytes: encoded as %q, error %v", len(o.Application), len(o.SerialNumber), len(o.Instance), b, err)
			}
			if err != nil && strings.Contains(err.Error(), "xxx") {
				t.Errorf("error %q shows the value", err)
			}
			if got, ok := decodeOwner(b); ok != valid || valid && got != o {
				t.Errorf("%d bytes: decoded %v", length, ok)
			}
		}
	}
	for _, b := range []string{
		"", "\x01", "\x02\x01a\x01b\x01c", "\x00\x01a\x01b\x01c",
		"\x01\x00\x01b\x01c", "\x01\x01a\x00\x01c", "\x01\x01a\x01b\x00",
		"\x01\x01a\x01b", "\x01\x01a\x01b\x02c", "\x01\xffa\x01b\x01c", "\x01\x01a\x01b\x01c\x01d",
	} {
		if o, ok := decodeOwner([]byte(b)); ok {
			t.Errorf("%q is read as %+v", b, o)
		}
	}
}

// Whatever was sealed, decoding does not panic. What is accepted has exactly one
// encoding.
func FuzzDecodeOwner(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{1})
	f.Add([]byte("\x01\x03app\x05VDS-1\x07primary"))
	f.Add([]byte("\x01\x00\x00\x00"))
	f.Add(append([]byte{1, 255}, bytes.Repeat([]byte{1}, 300)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, ok := decodeOwner(b)
		if !ok {
			return
		}
		again, err := o.encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q is read as an owner that is written as %q, error %v", b, again, err)
		}
	})
}
