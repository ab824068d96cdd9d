package sandbox

import (
	"encoding/hex"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func anyAuthenticator(t *rapid.T) *Authenticator {
	return &Authenticator{
		SerialNumber: rapid.StringMatching(`[0-9A-Z]{3}[0-9]{7}-([1-9]|[1-8][0-9]|9[0-9])`).Draw(t, "serial"),
		UserID:       rapid.String().Draw(t, "user"),
		Domain:       rapid.String().Draw(t, "domain"),
		Secret:       rapid.SliceOfN(rapid.Byte(), secretSize, secretSize).Draw(t, "secret"),
		Counter:      rapid.Uint64().Draw(t, "counter"),
	}
}

func anyRequest(t *rapid.T) Request {
	text := rapid.StringMatching(`[ -~äß€<>&"';]{1,40}`)
	r := Request{
		Kind: rapid.SampledFrom([]Kind{KindLogin, KindSignature}).Draw(t, "kind"),
		Key:  rapid.StringMatching(`[0-9]{10}`).Draw(t, "key"), UserID: text.Draw(t, "user"), Domain: text.Draw(t, "domain"), Title: text.Draw(t, "title"),
	}
	for range rapid.IntRange(0, maxDataFields).Draw(t, "fields") {
		r.Fields = append(r.Fields, RequestField{text.Draw(t, "name"), text.Draw(t, "value")})
	}
	return r
}

// Device and server understand each other: the device decrypts request messages, both
// compute the same signature, and the server decrypts what the device has wrapped. An
// authenticator can be stored as JSON.
func TestAuthenticatorRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		original := anyAuthenticator(t)
		file, err := json.Marshal(original)
		if err != nil {
			t.Fatal(err)
		}
		a := &Authenticator{}
		if err := json.Unmarshal(file, a); err != nil || a.SerialNumber != original.SerialNumber || a.Counter != original.Counter {
			t.Fatalf("read back %+v, %v", a, err)
		}
		server := &authenticatorInstance{serial: original.SerialNumber, key: [secretSize]byte(original.Secret)}

		request := anyRequest(t)
		content, err := request.content()
		if err != nil {
			t.Fatal(err)
		}
		message, err := server.channel().sealRequest(content)
		if err != nil {
			t.Fatal(err)
		}
		letterCase := rapid.SampledFrom([]func(string) string{strings.ToUpper, strings.ToLower}).Draw(t, "case")
		got, err := a.Open(letterCase(message))
		if err != nil || !reflect.DeepEqual(got, request) {
			t.Fatalf("opened %+v, %v, want %+v", got, err, request)
		}
		signature, err := a.Sign(letterCase(message))
		if err != nil || signature != signRequest(server.key[:], request.Kind, content) {
			t.Fatalf("device and server disagree on the signature: %v", err)
		}

		wrapped, err := a.WrapKey(request.Key)
		if err != nil {
			t.Fatal(err)
		}
		if key, err := server.channel().open(informationFlags, wrappedKeyContent, letterCase(wrapped)); err != nil || string(key) != request.Key {
			t.Fatalf("unwrapped %q, %v", key, err)
		}
		id := rapid.StringN(1, -1, maxNotificationID).Draw(t, "notification ID")
		wrapped, err = a.WrapNotificationID(id)
		if err != nil || len(wrapped) > 1070 {
			t.Fatalf("%d digits, %v", len(wrapped), err)
		}
		if got, err := server.channel().open(informationFlags, notificationIDContent, letterCase(wrapped)); err != nil || string(got) != id {
			t.Fatalf("unwrapped %q, %v", got, err)
		}
	})
}

// Values have the sizes and alphabets of the real ones: signatures of 16 digits for a login
// and 7 for a transaction, headers with flags and packed serial number (VDS1000120 is C3E4
// 0F42B8), and the data of standard licences.
func TestAuthenticatorFormats(t *testing.T) {
	t.Parallel()
	a := &Authenticator{SerialNumber: "VDS1000120-1", Secret: []byte("secret")}
	for kind, digits := range map[Kind]int{KindLogin: 16, KindSignature: 7} {
		content, err := Request{Kind: kind, Key: "0123456789"}.content()
		if err != nil {
			t.Fatal(err)
		}
		message, err := a.channel().sealRequest(content)
		if err != nil || !strings.HasPrefix(message, "0041C3E40F42B801") || message != strings.ToUpper(message) {
			t.Errorf("%s: message %s, %v", kind, message, err)
		}
		if again, _ := a.channel().sealRequest(content); again == message {
			t.Error("two messages with the same content are equal")
		}
		if signature, err := a.Sign(message); err != nil || len(signature) != digits || !isDecimal(signature) {
			t.Errorf("%s: signature %s, %v", kind, signature, err)
		}
	}
	for name, wrap := range map[string]func(string) (string, error){"key": a.WrapKey, "notification ID": a.WrapNotificationID} {
		if m, err := wrap("0123456789"); err != nil || !strings.HasPrefix(m, "0901C3E40F42B801") || m != strings.ToUpper(m) || len(m) < 32 {
			t.Errorf("%s: %s, %v", name, m, err)
		}
		if _, err := wrap(""); err == nil {
			t.Errorf("empty %s accepted", name)
		}
	}
	if m, err := a.WrapNotificationID(strings.Repeat("x", 497)); err != nil || len(m) != 1070 {
		t.Errorf("longest notification ID: %d digits, %v", len(m), err)
	}
	if _, err := a.WrapNotificationID(strings.Repeat("x", 498)); err == nil {
		t.Error("notification ID that is too long accepted")
	}
	for _, key := range []string{"12;34", strings.Repeat("1", 65)} {
		if _, err := a.WrapKey(key); err == nil {
			t.Errorf("key %s accepted", key)
		}
	}
	first, second := a.OneTimePassword(), a.OneTimePassword()
	if first == second || len(first) != 6 || !isDecimal(first+second) || a.Counter != 2 {
		t.Errorf("one-time passwords %s and %s, counter %d", first, second, a.Counter)
	}
	if c := a.DerivationCode(); len(c) != 26 || !isDecimal(c) {
		t.Errorf("derivation code %s", c)
	}
	l := license{serial: "VDS1000121", secret: [secretSize]byte{1}}
	if c := l.activationCode(); len(c) != 4142 || len(reactivationCounter(7)) != 91 {
		t.Errorf("activation code of %d digits, counter of %d", len(c), len(reactivationCounter(7)))
	}
}

// An altered message, a message for another authenticator and a message of another kind are
// refused.
func TestAuthenticatorNoticesAnyChange(t *testing.T) {
	t.Parallel()
	a := &Authenticator{SerialNumber: "VDS1000120-1", Secret: []byte("one")}
	content, err := Request{Kind: KindLogin, Key: "0123456789"}.content()
	if err != nil {
		t.Fatal(err)
	}
	message, err := a.channel().sealRequest(content)
	if err != nil {
		t.Fatal(err)
	}
	l := license{serial: "VDS1000121", secret: [secretSize]byte{1}}
	code := l.activationCode()
	change := func(t *rapid.T, s string) string {
		i := rapid.IntRange(0, len(s)-1).Draw(t, "position")
		c := rapid.SampledFrom([]byte("0123456789ABCDEF")).Filter(func(c byte) bool { return c != s[i] }).Draw(t, "digit")
		return s[:i] + string(c) + s[i+1:]
	}
	rapid.Check(t, func(t *rapid.T) {
		if _, err := a.Open(change(t, message)); err == nil {
			t.Fatal("altered request message accepted")
		}
		if _, err := ActivateStandard(change(t, code), reactivationCounter(0), "u", ""); err == nil {
			t.Fatal("altered activation code accepted")
		}
	})

	other := &Authenticator{SerialNumber: "VDS1000120-1", Secret: []byte("two")}
	if _, err := other.Sign(message); err == nil {
		t.Error("another authenticator signs")
	}
	wrapped, err := a.WrapKey("0123456789")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.channel().open(informationFlags, notificationIDContent, wrapped); err == nil {
		t.Error("a key is taken for a notification ID")
	}
	if _, err := a.Open(wrapped); err == nil {
		t.Error("an information message is taken for a request")
	}
	for _, serial := range []string{"", "VDS", "VDS100012", "vds1000120", "VDS10001200", "VDS1000120-", "VDS1000120-0", "VDS1000120-100", "VDS1000120-01", "VDS1000120-1-1"} {
		if _, err := (&Authenticator{SerialNumber: serial}).WrapKey("1"); err == nil {
			t.Errorf("serial number %q accepted", serial)
		}
	}
}

// The authenticator of a standard licence continues with the event counter.
func TestActivateStandard(t *testing.T) {
	t.Parallel()
	l := license{serial: "VDS1000121", secret: [secretSize]byte{1}}
	a, err := ActivateStandard(strings.ToLower(l.activationCode()), reactivationCounter(41), "jane.doe", "mydomain.com")
	if err != nil {
		t.Fatal(err)
	}
	if a.SerialNumber != "VDS1000121" || a.UserID != "jane.doe" || a.Domain != "mydomain.com" || a.Counter != 41 {
		t.Errorf("authenticator %+v", a)
	}
	i := &authenticatorInstance{serial: l.serial, key: l.secret, counter: 41}
	if !i.verify(a.OneTimePassword()) || i.counter != 42 {
		t.Error("the first one-time password is not that of the counter")
	}
	if a.DerivationCode() != derivationCode(l.secret[:], l.serial) {
		t.Error("device and server disagree on the derivation code")
	}
	for _, counter := range []string{"", "7", strings.Repeat("9", 91), strings.Repeat("0", 90) + "x"} {
		if _, err := ActivateStandard(l.activationCode(), counter, "", ""); err == nil {
			t.Errorf("counter %q accepted", counter)
		}
	}
}

// A device has an authenticator after both activation messages, until the next licence is
// activated.
func TestDeviceAuthenticator(t *testing.T) {
	t.Parallel()
	l := license{serial: "VDS1000120", secret: [secretSize]byte{1}}
	d := NewDevice(3)
	if _, err := d.Authenticator("u", ""); err == nil {
		t.Error("authenticator of a new device")
	}
	code, err := d.ActivateLicense(l.activationMessage())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Authenticator("u", ""); err == nil {
		t.Error("authenticator before activation message 2")
	}
	key := [secretSize]byte{2}
	if _, err := d.ActivateInstance(l.instanceMessage(code, 4, key)); err != nil {
		t.Fatal(err)
	}
	a, err := d.Authenticator("u", "d")
	if err != nil || a.SerialNumber != "VDS1000120-4" || [secretSize]byte(a.Secret) != key || a.UserID != "u" || a.Domain != "d" {
		t.Errorf("authenticator %+v, %v", a, err)
	}
	if _, err := d.ActivateLicense(l.activationMessage()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Authenticator("u", ""); err == nil {
		t.Error("the authenticator of the last licence is still there")
	}
}

// No message makes the parsers panic, and accepted messages are well-formed.
func FuzzAuthenticatorMessages(f *testing.F) {
	a := &Authenticator{SerialNumber: "VDS1000120-1", Secret: []byte("secret")}
	content, err := Request{Kind: KindLogin, Key: "0123456789"}.content()
	if err != nil {
		f.Fatal(err)
	}
	message, err := a.channel().sealRequest(content)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(message, license{serial: "VDS1000120"}.activationCode(), reactivationCounter(3))
	f.Add("0041", "", "9")
	f.Fuzz(func(t *testing.T, message, code, counter string) {
		if request, err := a.Open(message); err == nil {
			if _, err := hex.DecodeString(message); err != nil || request.Kind == "" {
				t.Errorf("opened %+v", request)
			}
		}
		if s, err := ActivateStandard(code, counter, "", ""); err == nil {
			if len(s.SerialNumber) != 10 || reactivationCounter(s.Counter) != counter {
				t.Errorf("authenticator %+v", s)
			}
		}
	})
}
