package sandbox

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func anyLicense(t *rapid.T) license {
	return license{
		serial: rapid.StringMatching(`[0-9A-Z]{3}[0-9]{7}`).Draw(t, "serial"),
		secret: [secretSize]byte(rapid.SliceOfN(rapid.Byte(), secretSize, secretSize).Draw(t, "secret")),
	}
}

// Any device can be activated with any licence and key: it decrypts both messages, and device
// and server compute the same confirmation signature.
func TestDeviceRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := anyLicense(t)
		id := rapid.Uint32().Draw(t, "id")
		sequence := rapid.IntRange(1, maxSequence).Draw(t, "sequence")
		key := [secretSize]byte(rapid.SliceOfN(rapid.Byte(), secretSize, secretSize).Draw(t, "key"))
		letterCase := rapid.SampledFrom([]func(string) string{strings.ToUpper, strings.ToLower}).Draw(t, "case")

		d := NewDevice(id)
		code, err := d.ActivateLicense(letterCase(l.activationMessage()))
		if err != nil {
			t.Fatal(err)
		}
		if d.SerialNumber() != l.serial {
			t.Fatalf("serial number %q, want %q", d.SerialNumber(), l.serial)
		}
		if got, err := l.verifyDeviceCode(code); err != nil || got != id {
			t.Fatalf("device code of %d verified as %d, %v", id, got, err)
		}
		message := l.instanceMessage(code, sequence, key)
		signature, err := d.ActivateInstance(letterCase(message))
		if err != nil {
			t.Fatal(err)
		}
		if signature != confirmation(key, code, message) {
			t.Fatal("device and server disagree on the confirmation")
		}
		if want := fmt.Sprintf("%s-%d", l.serial, sequence); d.InstanceSerial() != want {
			t.Fatalf("instance serial %q, want %q", d.InstanceSerial(), want)
		}
	})
}

// Any altered digit of the messages and of the device code is detected.
func TestDeviceNoticesAnyChange(t *testing.T) {
	t.Parallel()
	l := license{serial: "VDS1000120", secret: [secretSize]byte{1, 2, 3}}
	am1 := l.activationMessage()
	code := l.deviceCode(4_294_967_295)
	am2 := l.instanceMessage(code, 7, [secretSize]byte{9})
	change := func(t *rapid.T, s, alphabet string) string {
		i := rapid.IntRange(0, len(s)-1).Draw(t, "position")
		c := rapid.SampledFrom([]byte(alphabet)).Filter(func(c byte) bool { return c != s[i] }).Draw(t, "digit")
		return s[:i] + string(c) + s[i+1:]
	}
	rapid.Check(t, func(t *rapid.T) {
		if _, err := parseActivationMessage(change(t, am1, "0123456789ABCDEF")); err == nil {
			t.Fatal("altered activation message 1 accepted")
		}
		if _, err := l.verifyDeviceCode(change(t, code, "0123456789")); !errors.Is(err, errDeviceCode) {
			t.Fatalf("altered device code: %v", err)
		}
		if _, _, err := l.openInstanceMessage(code, change(t, am2, "0123456789ABCDEF")); err == nil {
			t.Fatal("altered activation message 2 accepted")
		}
	})
}

// Messages and codes have the sizes and alphabets of the real ones, and the packed serial
// number: VDS1000120 is C3E4 0F42B8.
func TestDeviceFormats(t *testing.T) {
	t.Parallel()
	l := license{serial: "VDS1000120", secret: [secretSize]byte([]byte(strings.Repeat("k", secretSize)))}
	am1, code := l.activationMessage(), l.deviceCode(12)
	am2 := l.instanceMessage(code, 99, [secretSize]byte{})
	signature := confirmation([secretSize]byte{}, code, am2)

	if len(am1) != 4234 || len(am2) != 108 || len(code) != 26 || len(signature) != 16 {
		t.Errorf("lengths %d, %d, %d, %d, want 4234, 108, 26, 16", len(am1), len(am2), len(code), len(signature))
	}
	if !isDecimal(code + signature) {
		t.Error("device code or signature is not decimal")
	}
	for _, m := range []string{am1, am2} {
		if m != strings.ToUpper(m) || !strings.HasPrefix(m, "0041C3E40F42B8") {
			t.Errorf("message starts with %s", m[:14])
		}
	}
	// The padding must be incompressible.
	if strings.Contains(am1, strings.Repeat("0", 16)) {
		t.Error("activation message 1 holds a long run of zeros")
	}
}

// Messages of other licences and devices are refused, and so are messages in the wrong order.
func TestDeviceRefusesForeignMessages(t *testing.T) {
	t.Parallel()
	a := license{serial: "VDS1000001", secret: [secretSize]byte{1}}
	b := license{serial: "VDS1000002", secret: [secretSize]byte{2}}

	d := NewDevice(1)
	if _, err := d.ActivateInstance(a.instanceMessage(a.deviceCode(1), 1, [secretSize]byte{})); err == nil {
		t.Error("activation message 2 accepted without a licence")
	}
	code, err := d.ActivateLicense(a.activationMessage())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.verifyDeviceCode(code); !errors.Is(err, errDeviceCode) {
		t.Errorf("device code of another licence: %v", err)
	}
	for name, message := range map[string]string{
		"another licence":     b.instanceMessage(b.deviceCode(1), 1, [secretSize]byte{}),
		"another device":      a.instanceMessage(a.deviceCode(2), 1, [secretSize]byte{}),
		"sequence number 0":   a.instanceMessage(code, 0, [secretSize]byte{}),
		"sequence number 100": a.instanceMessage(code, 100, [secretSize]byte{}),
		"empty":               "",
		"not hex":             strings.Repeat("x", 108),
	} {
		if _, err := d.ActivateInstance(message); err == nil {
			t.Errorf("message for %s accepted", name)
		}
	}
	if d.InstanceSerial() != "" {
		t.Error("a refused message left an instance serial")
	}
}

// The check digit is that of published Luhn examples.
func TestLuhn(t *testing.T) {
	t.Parallel()
	for digits, want := range map[string]byte{"7992739871": '3', "1789372997": '4', "0": '0'} {
		if got := luhn(digits); got != want {
			t.Errorf("luhn(%s) = %c, want %c", digits, got, want)
		}
	}
}

// No message or code makes the parsers panic, and accepted ones are those of the licence.
func FuzzDeviceMessages(f *testing.F) {
	l := license{serial: "VDS1000120", secret: [secretSize]byte{5}}
	code := l.deviceCode(77)
	f.Add(l.activationMessage(), code, l.instanceMessage(code, 1, [secretSize]byte{6}))
	f.Add("", "07000000000000000000000000", "00")
	f.Fuzz(func(t *testing.T, am1, deviceCode, am2 string) {
		if got, err := parseActivationMessage(am1); err == nil && !strings.EqualFold(got.activationMessage(), am1) {
			// Other padding is possible; the serial number must be well-formed.
			if len(got.serial) != 10 {
				t.Errorf("serial number %q", got.serial)
			}
		}
		if id, err := l.verifyDeviceCode(deviceCode); err == nil && l.deviceCode(id) != deviceCode {
			t.Error("accepted a device code that it would not make")
		}
		if sequence, key, err := l.openInstanceMessage(code, am2); err == nil {
			raw, _ := hex.DecodeString(am2)
			if upperHex(raw) != l.instanceMessage(code, sequence, key) {
				t.Error("accepted an activation message 2 that it would not make")
			}
		}
	})
}
