package apikey

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const (
	frontKey = "EXAMPLE-FRONT-KEY"
	backKey  = "EXAMPLE-BACK-KEY"
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(texts))
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// The value was computed with `printf %s EXAMPLE-FRONT-KEY | sha256sum`.
const frontHash = "6b7dc9c3e4850c26543a161781de9cae1408fef1b20b522d51d6a128512d07dc"

// Operators compute key_sha256 with other tools, so Hash must be plain SHA-256.
func TestHashIsSHA256OfTheKeyBytes(t *testing.T) {
	t.Parallel()
	h := Hash(frontKey)
	if got := hex.EncodeToString(h[:]); got != frontHash {
		t.Errorf("Hash = %s, want %s", got, frontHash)
	}
	for _, digits := range []string{frontHash, strings.ToUpper(frontHash)} {
		parsed, err := ParseHash(digits)
		if err != nil || parsed != h {
			t.Errorf("ParseHash(%q) = %x, %v", digits, parsed, err)
		}
	}
}

func TestParseHashRefuses(t *testing.T) {
	t.Parallel()
	for _, digits := range []string{
		"", "00", frontHash[1:], frontHash + "0", frontHash + "00", " " + frontHash[1:],
		"0x" + frontHash[2:], strings.Repeat("g", 64), strings.Repeat("é", 32),
	} {
		h, err := ParseHash(digits)
		if err == nil {
			t.Errorf("ParseHash(%q) accepted", digits)
			continue
		}
		if h != [32]byte{} {
			t.Errorf("ParseHash(%q) returned bytes beside the error", digits)
		}
	}
}

// The error of ParseHash contains no digit: the text may be a key in the wrong option.
func TestParseHashErrorDoesNotQuoteTheInput(t *testing.T) {
	t.Parallel()
	_, err := ParseHash(strings.Repeat("~", 64))
	if err == nil || strings.Contains(err.Error(), "~") {
		t.Errorf("error = %v", err)
	}
}

func FuzzParseHash(f *testing.F) {
	for _, s := range []string{"", "zz", frontHash, strings.ToUpper(frontHash), strings.Repeat("g", 64)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, digits string) {
		h, err := ParseHash(digits)
		if err != nil {
			return
		}
		if got := hex.EncodeToString(h[:]); got != strings.ToLower(digits) {
			t.Errorf("ParseHash(%q) = %s", digits, got)
		}
	})
}

func TestValidateKey(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, key string
		ok        bool
	}{
		{"sandbox front-end key", "sandbox-front-end", true},
		{"sandbox back-end key", "sandbox-back-end", true},
		{"shortest", strings.Repeat("k", 16), true},
		{"longest", strings.Repeat("k", 256), true},
		{"all visible ASCII", `!"#$%&'()*+,-./0123456789;<=>?@AZ[\]^_az{|}~` + "`", true},
		{"empty", "", false},
		{"too short", strings.Repeat("k", 15), false},
		{"too long", strings.Repeat("k", 257), false},
		{"colon", "EXAMPLE:FRONT:KEY", false},
		{"space", "EXAMPLE FRONT KEY", false},
		{"trailing newline", frontKey + "\n", false},
		{"control", "EXAMPLE\x00FRONT-KEY", false},
		{"delete", "EXAMPLE\x7fFRONT-KEY", false},
		{"not ASCII", "EXAMPLE-FRÖNT-KEY", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := ValidateKey(tt.key)
			if (err == nil) != tt.ok {
				t.Fatalf("ValidateKey = %v, want accepted %t", err, tt.ok)
			}
			if err != nil && tt.key != "" && strings.Contains(err.Error(), tt.key) {
				t.Errorf("error quotes the key: %v", err)
			}
		})
	}
}

// Every key that ValidateKey accepts can be the user name of HTTP Basic authentication, and
// is found in a set.
func FuzzValidateKey(f *testing.F) {
	for _, s := range []string{"", frontKey, "EXAMPLE:FRONT:KEY", strings.Repeat("k", 257), frontKey + "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if ValidateKey(key) != nil {
			return
		}
		if user, password, ok := strings.Cut(key+":", ":"); !ok || user != key || password != "" {
			t.Errorf("%q does not survive as a user name", key)
		}
		s, err := NewSet([]Key{{Name: "app", Class: FrontEnd, Hash: Hash(key)}})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Lookup(key); !ok {
			t.Errorf("%q not found", key)
		}
		if _, ok := s.Lookup(key + "x"); ok {
			t.Errorf("%q found with a byte too many", key)
		}
	})
}

func TestNewSetRefuses(t *testing.T) {
	t.Parallel()
	front := Key{Name: "app", Class: FrontEnd, Hash: Hash(frontKey)}
	for _, tt := range []struct {
		name string
		keys []Key
		want []string
	}{
		{"no key", nil, []string{"at least one key"}},
		{"empty name", []Key{{Class: FrontEnd, Hash: Hash(frontKey)}}, []string{"keys[0].name: is required"}},
		{"long name", []Key{{Name: strings.Repeat("n", 65), Class: FrontEnd, Hash: Hash(frontKey)}}, []string{"keys[0].name: "}},
		{"colon in the name", []Key{{Name: "a:b", Class: FrontEnd, Hash: Hash(frontKey)}}, []string{"keys[0].name: "}},
		{"control in the name", []Key{{Name: "a\nb", Class: FrontEnd, Hash: Hash(frontKey)}}, []string{"keys[0].name: "}},
		{"name not ASCII", []Key{{Name: "café", Class: FrontEnd, Hash: Hash(frontKey)}}, []string{"keys[0].name: "}},
		{"no class", []Key{{Name: "app", Hash: Hash(frontKey)}}, []string{"keys[0].class: "}},
		{"unknown class", []Key{front, {Name: "site", Class: "admin", Hash: Hash(backKey)}}, []string{"keys[1].class: must be"}},
		{"no hash", []Key{{Name: "app", Class: FrontEnd}}, []string{"keys[0].hash: ", "missing"}},
		{"hash of nothing", []Key{{Name: "app", Class: FrontEnd, Hash: Hash("")}}, []string{"keys[0].hash: ", "missing"}},
		{"one key twice", []Key{front, {Name: "site", Class: BackEnd, Hash: Hash(frontKey)}}, []string{"keys[1].hash: ", `same key as [0], "app"`}},
		{"one key twice, one name", []Key{front, front}, []string{"keys[1].hash: ", "same key as [0]"}},
		{"two classes", []Key{front, {Name: "app", Class: BackEnd, Hash: Hash(backKey)}}, []string{"keys[1].class: ", `[0], which has the same name "app"`}},
		{"invalid range", []Key{{Name: "app", Class: FrontEnd, Hash: Hash(frontKey), Allow: make([]netip.Prefix, 1)}}, []string{"keys[0].allow[0]: "}},
		{"bits beyond the length", []Key{{Name: "app", Class: FrontEnd, Hash: Hash(frontKey), Allow: prefixes("10.0.0.0/8", "10.0.0.7/8")}}, []string{"keys[0].allow[1]: has bits set beyond its length; the range is 10.0.0.0/8"}},
		{"half-mapped range", []Key{{Name: "app", Class: FrontEnd, Hash: Hash(frontKey), Allow: prefixes("::ffff:10.0.0.0/90")}}, []string{"keys[0].allow[0]: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := NewSet(tt.keys)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not contain %q", err, want)
				}
			}
			for _, k := range []string{frontKey, backKey, frontHash} {
				if strings.Contains(err.Error(), k) {
					t.Errorf("error %q quotes a key or its hash", err)
				}
			}
		})
	}
}

// An old and a new key can have the same name.
func TestRotationKeepsTheName(t *testing.T) {
	t.Parallel()
	s, err := NewSet([]Key{
		{Name: "app", Class: FrontEnd, Hash: Hash("old-key-of-the-app")},
		{Name: "app", Class: FrontEnd, Hash: Hash("new-key-of-the-app"), Allow: prefixes("10.0.0.0/8")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"old-key-of-the-app", "new-key-of-the-app"} {
		if k, ok := s.Lookup(key); !ok || k.Name != "app" || k.Class != FrontEnd {
			t.Errorf("Lookup = %v, %t", k, ok)
		}
	}
}

func TestLookupRefuses(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("k", MaxKeyLength)
	s, err := NewSet([]Key{
		{Name: "app", Class: FrontEnd, Hash: Hash(frontKey)},
		{Name: "site", Class: BackEnd, Hash: Hash(backKey)},
		{Name: "long", Class: FrontEnd, Hash: Hash(longest)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := s.Lookup(longest); !ok || k.Name != "long" {
		t.Errorf("longest key: %v, %t", k, ok)
	}
	hash := Hash(frontKey)
	for name, key := range map[string]string{
		"empty":                        "",
		"prefix":                       frontKey[:len(frontKey)-1],
		"extended":                     frontKey + "x",
		"other case":                   strings.ToLower(frontKey),
		"name":                         "app",
		"hash itself":                  string(hash[:]),
		"hash in hex":                  frontHash,
		"beginning is the longest key": longest + "k",
		"huge":                         strings.Repeat("k", 1<<20),
	} {
		if k, ok := s.Lookup(key); ok || k.Name != "" {
			t.Errorf("%s: %v, %t", name, k, ok)
		}
	}
}

// Lookup finds the same as a map, for any set and key.
func TestLookupAgreesWithAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringMatching(`[!-9;-~]{16,40}`)
		texts := rapid.SliceOfNDistinct(key, 1, 20, rapid.ID).Draw(t, "keys")
		names := make(map[string]string)
		keys := make([]Key, 0, len(texts))
		for i, text := range texts {
			names[text] = fmt.Sprintf("app-%d", i)
			keys = append(keys, Key{Name: names[text], Class: FrontEnd, Hash: Hash(text)})
		}
		s, err := NewSet(keys)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range append(texts, key.Draw(t, "other")) {
			k, ok := s.Lookup(text)
			if want, known := names[text]; ok != known || k.Name != want {
				t.Fatalf("Lookup(%q) = %q, %t, want %q, %t", text, k.Name, ok, want, known)
			}
		}
	})
}

// The caller's slices are copied: changing them later does not change the set.
func TestSetDoesNotShareTheCallersSlices(t *testing.T) {
	t.Parallel()
	keys := []Key{{Name: "site", Class: BackEnd, Hash: Hash(backKey), Allow: prefixes("10.0.0.0/8")}}
	s, err := NewSet(keys)
	if err != nil {
		t.Fatal(err)
	}
	keys[0].Allow[0] = netip.MustParsePrefix("0.0.0.0/0")
	keys[0].Hash = Hash(frontKey)
	k, ok := s.Lookup(backKey)
	if !ok || k.Permits(netip.MustParseAddr("192.0.2.1")) {
		t.Errorf("the set follows the caller's slice: %t", ok)
	}
}

func TestPermits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		class Class
		allow []string
		addr  string
		want  bool
	}{
		{FrontEnd, nil, "192.0.2.1", true},
		{FrontEnd, nil, "2001:db8::1", true},
		{FrontEnd, nil, "127.0.0.1", true},
		{FrontEnd, []string{"10.0.0.0/8"}, "10.1.2.3", true},
		{FrontEnd, []string{"10.0.0.0/8"}, "127.0.0.1", false},
		{BackEnd, nil, "127.0.0.1", true},
		{BackEnd, nil, "127.255.255.254", true},
		{BackEnd, nil, "::1", true},
		{BackEnd, nil, "::ffff:127.0.0.1", true},
		{BackEnd, nil, "192.0.2.1", false},
		{BackEnd, nil, "::ffff:192.0.2.1", false},
		{BackEnd, nil, "::", false},
		{BackEnd, nil, "0.0.0.0", false},
		{BackEnd, nil, "::127.0.0.1", false},
		{BackEnd, nil, "2001:db8::1", false},
		{BackEnd, []string{"10.0.0.0/8"}, "10.255.0.1", true},
		{BackEnd, []string{"10.0.0.0/8"}, "::ffff:10.255.0.1", true},
		{BackEnd, []string{"10.0.0.0/8"}, "11.0.0.1", false},
		{BackEnd, []string{"10.0.0.0/8"}, "127.0.0.1", false},
		{BackEnd, []string{"10.0.0.0/8"}, "10.9.9.9", true},
		{BackEnd, []string{"10.0.0.0/8", "2001:db8::/32"}, "2001:db8:1::5", true},
		{BackEnd, []string{"2001:db8::/32"}, "2001:db9::1", false},
		{BackEnd, []string{"fe80::/10"}, "fe80::1%eth0", true},
		{BackEnd, []string{"::ffff:10.0.0.0/104"}, "10.1.2.3", true},
		{BackEnd, []string{"::ffff:10.0.0.0/104"}, "11.1.2.3", false},
		{BackEnd, []string{"::/0"}, "10.1.2.3", false},
		{BackEnd, []string{"::/0"}, "::ffff:10.1.2.3", false},
		{BackEnd, []string{"0.0.0.0/0"}, "10.1.2.3", true},
		{BackEnd, []string{"0.0.0.0/0"}, "2001:db8::1", false},
	} {
		t.Run(fmt.Sprintf("%s %v %s", tt.class, tt.allow, tt.addr), func(t *testing.T) {
			t.Parallel()
			s, err := NewSet([]Key{{Name: "k", Class: tt.class, Hash: Hash(frontKey), Allow: prefixes(tt.allow...)}})
			if err != nil {
				t.Fatal(err)
			}
			k, _ := s.Lookup(frontKey)
			if got := k.Permits(netip.MustParseAddr(tt.addr)); got != tt.want {
				t.Errorf("Permits = %t, want %t", got, tt.want)
			}
			if k.Permits(netip.Addr{}) {
				t.Error("permits an invalid address")
			}
		})
	}
}

// A key without a class is accepted from loopback addresses only.
func TestPermitsWithoutClassIsLoopbackOnly(t *testing.T) {
	t.Parallel()
	if (Key{}).Permits(netip.MustParseAddr("192.0.2.1")) {
		t.Error("a key without class is accepted from anywhere")
	}
}

// No way of printing or logging a key prints its hash or its ranges.
func TestKeyPrintsNameAndClassOnly(t *testing.T) {
	t.Parallel()
	k := Key{Name: "app", Class: FrontEnd, Hash: Hash(frontKey), Allow: prefixes("10.0.0.0/8")}
	const want = "app (front_end)"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%t"} {
		if got := fmt.Sprintf(verb, k); got != want {
			t.Errorf("%s prints %q", verb, got)
		}
		if got := fmt.Sprintf(verb, []Key{k}); !strings.Contains(got, want) {
			t.Errorf("%s of a slice prints %q", verb, got)
		}
	}
	var buf bytes.Buffer
	for _, l := range []*slog.Logger{slog.New(slog.NewTextHandler(&buf, nil)), slog.New(slog.NewJSONHandler(&buf, nil))} {
		l.Info("one", "key", k)
		l.Info("pointer", "key", &k)
		l.Info("several", "keys", []Key{k})
		l.Info("inside", "caller", struct{ Key Key }{k})
	}
	data, err := json.Marshal(map[string]Key{"key": k})
	if err != nil {
		t.Fatal(err)
	}
	out := buf.String() + string(data)
	hash := Hash(frontKey)
	for _, leak := range []string{
		frontHash, strings.ToUpper(frontHash), "10.0.0.0",
		fmt.Sprintf("%d %d %d", hash[0], hash[1], hash[2]),
		fmt.Sprintf("%d,%d,%d", hash[0], hash[1], hash[2]),
	} {
		if strings.Contains(out, leak) {
			t.Errorf("output contains %q:\n%s", leak, out)
		}
	}
	if !strings.Contains(out, "key.name=app key.class=front_end") {
		t.Errorf("name and class are missing:\n%s", out)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		keys := make([]Key, 0, n)
		for i := range n {
			keys = append(keys, Key{Name: "app", Class: FrontEnd, Hash: Hash(fmt.Sprintf("key-of-the-app-%d", i))})
		}
		s, err := NewSet(keys)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Lookup("key-of-the-app-0")
			}
		})
	}
}
