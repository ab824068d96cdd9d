package form

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// problems has a function for each type that parses a text and returns its problem, or the empty
// string.
var problems = map[string]func(string) string{
	"identifier":         problem[Identifier],
	"serial number":      problem[SerialNumber],
	"key":                problem[Key],
	"plain key":          problem[PlainKey],
	"user":               problem[UserID],
	"domain":             problem[Domain],
	"registered user":    problem[RegisteredUser],
	"registered domain":  problem[RegisteredDomain],
	"static password":    problem[StaticPassword],
	"password":           problem[Password],
	"license type":       problem[LicenseType],
	"profile name":       problem[ProfileName],
	"client public":      problem[ClientPublic],
	"client evidence":    problem[ClientEvidence],
	"device code":        problem[DeviceCode],
	"description":        problem[Description],
	"signature":          problem[Signature],
	"response":           problem[Response],
	"derivation code":    problem[DerivationCode],
	"notification id":    problem[NotificationID],
	"activation message": problem[ActivationMessage],
	"instance message":   problem[InstanceActivationMessage],
	"request message":    problem[RequestMessage],
	"activation code":    problem[ActivationCode],
	"event counter":      problem[EventCounter],
}

func problem[T Value](s string) string {
	v, err := Parse[T](s)
	if err == nil {
		if string(v) != s {
			return "was changed"
		}
		return ""
	}
	if v != "" {
		return "is not empty although: " + err.Error()
	}
	return err.Error()
}

// Parse returns a text that complies with the documented rule unchanged, and says what is wrong with
// any other.
func TestParse(t *testing.T) {
	t.Parallel()
	const (
		characters = "must consist of A-Z, a-z, 0-9, '.', '_' and '-'"
		control    = "must not contain control characters"
		letters    = "must consist of A-Z, a-z and 0-9"
		digits     = "must consist of hexadecimal digits"
		wrapped    = "must be 1 to 64 characters of A-Z, a-z and 0-9, or an even number of hex digits, at least 32"
		ascii      = "must consist of printable characters of ASCII"
		even       = "must be an even number of hex digits, at least 2"
	)
	for _, tt := range []struct{ value, text, want string }{
		{"identifier", "e3wf", ""},
		{"identifier", strings.Repeat("A.z_9-", 10) + "abcd", ""},
		{"identifier", "e3w", "must have 4 to 64 characters"},
		{"identifier", strings.Repeat("a", 65), "must have 4 to 64 characters"},
		{"identifier", "", "must not be empty"},
		{"identifier", "abcd\n", characters},
		{"identifier", "abcd\x00", characters},
		{"identifier", "{abcd}", characters},
		{"identifier", "ab:cd", characters},
		{"identifier", "ab/cd", characters},
		{"identifier", "e3wf ISG9", characters},
		{"identifier", "e3wf\u0131SG9", characters},
		{"serial number", "VDS1000120-1", ""},
		{"serial number", strings.Repeat("9", 22), ""},
		{"serial number", strings.Repeat("9", 23), "must have 1 to 22 characters"},
		{"serial number", "VDS.1", "must consist of A-Z, a-z, 0-9 and '-'"},
		{"plain key", strings.Repeat("Az9", 21) + "x", ""},
		{"plain key", strings.Repeat("A", 65), "must have 1 to 64 characters"},
		{"plain key", "a", ""},
		{"plain key", "", "must not be empty"},
		{"plain key", "a-b", letters},
		{"plain key", "8408980524 ", letters},
		{"plain key", "8408980524\n", letters},
		{"plain key", "{8408980524}", letters},
		{"plain key", "login/8408980524", letters},
		{"plain key", "８４０８", letters},
		{"plain key", "ü", letters},
		{"plain key", "\x00", letters},
		{"key", "8408980524", ""},
		{"key", strings.Repeat("g", 64), ""},
		{"key", strings.Repeat("aF", 512), ""},
		{"key", strings.Repeat("a", 65), wrapped},
		{"key", strings.Repeat("g", 66), wrapped},
		{"key", strings.Repeat("aF", 513), "must have 1 to 1024 characters"},
		{"key", "", "must not be empty"},
		{"user", "jane;doe", ""},
		{"user", strings.Repeat("ü", 255), ""},
		{"user", strings.Repeat("ü", 256), "must have 1 to 255 characters"},
		{"user", "jane\x00", control},
		{"user", "jane\uFFFE", control},
		{"user", "jane\xff", "must be valid UTF-8"},
		{"domain", "", ""},
		{"domain", strings.Repeat("d", 256), "must not have more than 255 characters"},
		{"registered user", "jane.doe", ""},
		{"registered user", "jane;doe", "must not contain a semicolon"},
		{"registered user", strings.Repeat("ü", 128), "must not be longer than 255 bytes in UTF-8"},
		{"registered user", "jane\n", control},
		{"registered domain", "", ""},
		{"registered domain", "a;b", "must not contain a semicolon"},
		{"static password", strings.Repeat("p", 128), ""},
		{"static password", strings.Repeat("p", 129), "must have 1 to 128 characters"},
		{"password", "password123456", ""},
		{"license type", "mdl", ""},
		{"license type", "standard", ""},
		{"license type", "other", `must be "mdl" or "standard"`},
		{"license type", "MDL", "must consist of a-z"},
		{"client public", "5", ""},
		{"client public", strings.Repeat("aF", 1025), ""},
		{"client public", strings.Repeat("aF", 1026), "must have 1 to 2050 characters"},
		{"client evidence", "0x", digits},
		{"device code", "0123", ""},
		{"device code", "12a", "must consist of decimal digits"},
		{"description", "Jane's phone\n", ""},
		{"description", "", ""},
		{"signature", "00a", ""},
		{"response", "a b", letters},
		{"derivation code", strings.Repeat("f", 28), "must have 1 to 27 characters"},
		{"notification id", "0a1B", ""},
		{"notification id", "0a1", even},
		{"notification id", "", "must not be empty"},
		{"activation message", strings.Repeat("aF", 2117), ""},
		{"activation message", strings.Repeat("aF", 2118), "must have 1 to 4234 characters"},
		{"activation message", "0G", digits},
		{"activation message", " 00 ", digits},
		{"activation message", "000", even},
		{"activation message", "", "must not be empty"},
		{"instance message", strings.Repeat("aF", 513), "must have 1 to 1024 characters"},
		{"request message", strings.Repeat("aF", 8192), ""},
		{"activation code", strings.Repeat("1 ~", 1380) + "12", ""},
		{"activation code", strings.Repeat("1", 4143), "must have 1 to 4142 characters"},
		{"activation code", "1\t2", ascii},
		{"activation code", "", "must not be empty"},
		{"event counter", "", ""},
		{"event counter", strings.Repeat("1", 92), "must not have more than 91 characters"},
		{"event counter", "é", ascii},
	} {
		if got := problems[tt.value](tt.text); got != tt.want {
			t.Errorf("%s %.80q: %q, want %q", tt.value, tt.text, got, tt.want)
		}
	}
}

// A wrapped key is an even number of hex digits, at least 32.
func TestWrapped(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]bool{
		"":                            false,
		"8408980524":                  false,
		strings.Repeat("a", 30):       false,
		strings.Repeat("a", 31):       false,
		strings.Repeat("a", 32):       true,
		strings.Repeat("a", 33):       false,
		strings.Repeat("aF", 40):      true,
		strings.Repeat("0", 31) + "g": false,
		strings.Repeat("0", 31) + "G": false,
		strings.Repeat("0", 31) + ":": false,
		strings.Repeat("0", 31) + "/": false,
		strings.Repeat("0", 31) + "@": false,
		strings.Repeat("0", 31) + "`": false,
		strings.Repeat("0", 30) + "ü": false,
	} {
		if got := Key(key).Wrapped(); got != want {
			t.Errorf("%q: %v, want %v", key, got, want)
		}
	}
}

// Plain and wrapped keys are those that these regular expressions match.
func FuzzKeys(f *testing.F) {
	plain := regexp.MustCompile(`\A[0-9A-Za-z]{1,64}\z`)
	wrapped := regexp.MustCompile(`\A[0-9A-Fa-f]*\z`)
	for _, key := range []string{"", "8408980524", "é", strings.Repeat("ab", 16), strings.Repeat("z", 65)} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if got, want := problem[PlainKey](key) == "", plain.MatchString(key); got != want {
			t.Errorf("%q is plain: %v, want %v", key, got, want)
		}
		if got, want := Key(key).Wrapped(), len(key) >= 32 && len(key)%2 == 0 && wrapped.MatchString(key); got != want {
			t.Errorf("%q is wrapped: %v, want %v", key, got, want)
		}
	})
}

// rules has the rule of each type.
var rules = map[string]Rule{
	"identifier": Identifier("").Rule(), "serial number": SerialNumber("").Rule(), "key": Key("").Rule(), "plain key": PlainKey("").Rule(),
	"user": UserID("").Rule(), "domain": Domain("").Rule(), "registered user": RegisteredUser("").Rule(), "registered domain": RegisteredDomain("").Rule(),
	"static password": StaticPassword("").Rule(), "password": Password("").Rule(), "license type": LicenseType("").Rule(),
	"profile name": ProfileName("").Rule(), "client public": ClientPublic("").Rule(), "client evidence": ClientEvidence("").Rule(), "device code": DeviceCode("").Rule(),
	"description": Description("").Rule(), "signature": Signature("").Rule(), "response": Response("").Rule(), "derivation code": DerivationCode("").Rule(),
	"notification id": NotificationID("").Rule(), "activation message": ActivationMessage("").Rule(),
	"instance message": InstanceActivationMessage("").Rule(), "request message": RequestMessage("").Rule(),
	"activation code": ActivationCode("").Rule(), "event counter": EventCounter("").Rule(),
}

// Parse accepts exactly the texts in UTF-8 that the rule describes: with the length, the pattern, the
// values and, for what can be stored, the number of bytes. A problem does not contain the text.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "e3wfISG9", "VDS1000120-1", strings.Repeat("aF", 40), "jane;doe", "a\x00", "\xff", "mdl", "a\n", strings.Repeat("g", 70), strings.Repeat("ü", 200)} {
		f.Add(s)
	}
	patterns := map[string]*regexp.Regexp{}
	for name, r := range rules {
		// The pattern is written for JSON Schema.
		pattern := regexp.MustCompile(`\\u([0-9A-F]{4})`).ReplaceAllString(r.Pattern(), `\x{$1}`)
		patterns[name] = regexp.MustCompile(pattern)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, parse := range problems {
			problem, r := parse(s), rules[name]
			if len(s) > 20 && strings.Contains(problem, s) {
				t.Errorf("%s: the problem %q contains the text", name, problem)
			}
			n := utf8.RuneCountInString(s)
			described := utf8.ValidString(s) && n >= r.Min && n <= r.Max && patterns[name].MatchString(s) &&
				(r.Values == nil || slices.Contains(r.Values, s)) && (!strings.HasPrefix(name, "registered") || len(s) <= MaxStoredText)
			if described != (problem == "") {
				t.Errorf("%s: %q is described: %t, problem %q", name, s, described, problem)
			}
		}
	})
}

// The pattern of each set of characters matches exactly these characters.
func TestCharacters(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Characters{
		"text": text, "anything": anything, "identifier": identifier, "serial": serial,
		"alphanumeric": alphanumeric, "lowercase": lowercase, "hexadecimal": hexadecimal, "decimal": decimal, "printable": printable, "visible": visible,
	} {
		pattern := regexp.MustCompile(`\\u([0-9A-F]{4})`).ReplaceAllString(c.Pattern, `\x{$1}`)
		re := regexp.MustCompile("^" + pattern + "$")
		for r := range rune(0x10400) {
			if r >= 0xD800 && r <= 0xDFFF {
				continue
			}
			if got, want := c.allowed(r), re.MatchString(string(r)); got != want {
				t.Fatalf("%s allows %U: %t, its pattern says %t", name, r, got, want)
			}
		}
	}
}

// Invalid UTF-8 is in no set, and the length of other texts is that in characters.
func TestCount(t *testing.T) {
	t.Parallel()
	for _, c := range []Characters{text, anything, hexadecimal, printable} {
		for _, s := range []string{"", "a", "0123456789abcdef", "ü", "0ü", "ü0", "0\xff", "\xff0", "0\xc3", "ü\xff", "\xed\xa0\x80", "\x00", "0\uFFFD"} {
			n, problem := c.count(s)
			want := c.problem
			switch {
			case !utf8.ValidString(s):
				want = "must be valid UTF-8"
			case !strings.ContainsFunc(s, func(r rune) bool { return !c.allowed(r) }):
				want = ""
			}
			if problem != want || problem == "" && n != utf8.RuneCountInString(s) || c.contain(s) != (want == "") {
				t.Errorf("%s: %q has %d characters, problem %q, want %q", c.Pattern, s, n, problem, want)
			}
		}
	}
}

// BenchmarkParse measures the values that take longest: an activation message and a name.
func BenchmarkParse(b *testing.B) {
	message := strings.Repeat("0123456789ABCDEF", 256)
	for name, parse := range map[string]func() error{
		"message": func() error { _, err := Parse[ActivationMessage](message); return err },
		"user":    func() error { _, err := Parse[RegisteredUser]("jane.doe"); return err },
		"key":     func() error { _, err := Parse[Key]("8408980524"); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := parse(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
