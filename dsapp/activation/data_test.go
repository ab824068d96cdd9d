package activation

import (
	"errors"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// Activation data of the documented form reaches the phone unchanged. Everything else is
// refused.
func FuzzActivationData(f *testing.F) {
	for _, s := range [][3]string{
		{"", "", ""},
		{"00", "", ""},
		{"0", "", ""},
		{"0a1B2c3D4e5F60718293A4B5C6D7E8F9", "", ""},
		{"0G", "", ""},
		{"0x00", "", ""},
		{strings.Repeat("aF", 2117), "", ""},
		{strings.Repeat("aF", 2118), "", ""},
		{"", "1234-5678", "000042"},
		{"", "1234-5678", ""},
		{"", "", "000042"},
		{"", strings.Repeat("~", 4142), strings.Repeat(" ", 91)},
		{"", strings.Repeat("~", 4143), ""},
		{"", "1", strings.Repeat("1", 92)},
		{"", "a\x00", ""},
		{"", "é", ""},
		{"", "a", "\n"},
		{"", "\x7f", ""},
		{"00", "1", "1"},
		{"é", "é", "é"},
		{strings.Repeat("0", 70000), "", ""},
	} {
		f.Add(s[0], s[1], s[2])
	}
	hexadecimal := regexp.MustCompile(`\A(?:[0-9A-Fa-f]{2})+\z`)
	printable := regexp.MustCompile(`\A[ -~]*\z`)
	f.Fuzz(func(t *testing.T, message, code, counter string) {
		var d ActivationData
		var noMessage, noCode, noCounter error
		d.ActivationMessage, noMessage = form.Parse[form.ActivationMessage](message)
		d.ActivationCode, noCode = form.Parse[form.ActivationCode](code)
		d.EventReactivationCounter, noCounter = form.Parse[form.EventCounter](counter)
		if formed := len(message) <= 4234 && hexadecimal.MatchString(message); formed != (noMessage == nil) {
			t.Fatalf("message: %v, want it accepted: %t", noMessage, formed)
		}
		if formed := code != "" && len(code) <= 4142 && printable.MatchString(code); formed != (noCode == nil) {
			t.Fatalf("code: %v, want it accepted: %t", noCode, formed)
		}
		if formed := len(counter) <= 91 && printable.MatchString(counter); formed != (noCounter == nil) {
			t.Fatalf("counter: %v, want it accepted: %t", noCounter, formed)
		}
		if message != "" && noMessage != nil || code != "" && noCode != nil || noCounter != nil {
			return
		}
		for kind, want := range map[Kind]bool{
			KindMDL:      message != "" && code == "" && counter == "",
			KindStandard: message == "" && code != "",
			KindAffinity: message == "" && code == "" && counter == "",
		} {
			encoded, err := d.encode(kind)
			if want != (err == nil) {
				t.Fatalf("%s: %v, want it accepted: %t", kind, err, want)
			}
			if err != nil {
				if invalid, ok := errors.AsType[*InvalidError](err); !ok || encoded != nil || !strings.Contains("activationMessage activationCode eventReactivationCounter", invalid.Member) {
					t.Fatalf("%s: %v with %x", kind, err, encoded)
				}
				continue
			}
			transport := func() *srp.Session {
				return srp.NewSession(make([]byte, 32), make([]byte, 256), make([]byte, 256))
			}
			var p Proof
			ok, err := p.sealData(transport(), kind, encoded)
			if err != nil || ok != (kind != KindAffinity) {
				t.Fatalf("%s: sealed: %t, %v", kind, ok, err)
			}
			for item, x := range map[seal.Item]struct {
				sealed *form.Sealed
				want   string
			}{
				seal.LicenseActivationMessage: {p.LicenseActivationMessage, strings.ToUpper(message)},
				seal.ActivationCode:           {p.ActivationCode, code},
				seal.EventReactivationCounter: {p.EventReactivationCounter, counter},
			} {
				if (x.sealed == nil) != (x.want == "") {
					t.Fatalf("%s: sealed %v, want %q", item, x.sealed, x.want)
				}
				if x.sealed == nil {
					continue
				}
				got, err := transport().Open(item, seal.Ciphertext{Data: number(t, x.sealed.Data), Counter: number(t, x.sealed.Counter), MAC: number(t, x.sealed.MAC)})
				if err != nil || string(got) != x.want {
					t.Fatalf("%s: opened to %q, %v, want %q", item, got, err, x.want)
				}
			}
		}
	})
}

// number decodes upper-case hexadecimal digits by way of a number.
func number(t *testing.T, digits string) []byte {
	t.Helper()
	n, ok := new(big.Int).SetString(digits, 16)
	if !ok || strings.ToUpper(digits) != digits || len(digits)%2 != 0 {
		t.Fatalf("%q is not upper-case hex", digits)
	}
	return n.FillBytes(make([]byte, len(digits)/2))
}

// An activation message is stored as bytes. Earlier versions store its digits as the only field: they
// refuse the new form, and this version reads theirs.
func TestStoredActivationMessage(t *testing.T) {
	t.Parallel()
	const message = "0a1B2c3D4e5F6071"
	stored, err := ActivationData{ActivationMessage: message}.encode(KindMDL)
	if err != nil {
		t.Fatal(err)
	}
	if want := 4 + len(message)/2; len(stored) != want {
		t.Errorf("%d bytes, want %d", len(stored), want)
	}
	if _, ok := decodeFields(stored, 1); ok {
		t.Error("an earlier version takes the bytes for digits")
	}
	for name, encoded := range map[string][]byte{"bytes": stored, "digits": encodeFields(strings.ToUpper(message))} {
		fields, ok := decodeData(KindMDL, encoded)
		if !ok || len(fields) != 1 || string(fields[0]) != strings.ToUpper(message) {
			t.Errorf("%s: %q, %t", name, fields, ok)
		}
	}
	for _, other := range [][]byte{nil, encodeFields("1", "2"), encodeFields("", "", ""), {0}} {
		if fields, ok := decodeData(KindMDL, other); ok {
			t.Errorf("%x is read as %q", other, fields)
		}
	}
}
