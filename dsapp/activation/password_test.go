package activation

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Which rules are accepted, and what they generate.
func TestPasswordRule(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		rule     PasswordRule
		length   int
		alphabet string
		problem  string
	}{
		{"default", PasswordRule{}, 8, alphanumeric, ""},
		{"alphanumeric", PasswordRule{Length: 4, Alphabet: "alphanumeric"}, 4, alphanumeric, ""},
		{"longest", PasswordRule{Length: 64}, 64, alphanumeric, ""},
		{"numeric", PasswordRule{Length: 6, Alphabet: "numeric"}, 6, digits, ""},
		{"numeric default", PasswordRule{Alphabet: "numeric"}, 8, digits, ""},
		{"custom", PasswordRule{Length: 4, Alphabet: "abcdefghi!"}, 4, "abcdefghi!", ""},
		{"all printable", PasswordRule{Alphabet: printable()}, 8, printable(), ""},

		{"negative", PasswordRule{Length: -1}, 0, "", "password: length is -1, need 4 to 64"},
		{"short", PasswordRule{Length: 3}, 0, "", "password: length is 3, need 4 to 64"},
		{"long", PasswordRule{Length: 65}, 0, "", "password: length is 65, need 4 to 64"},
		{"short numeric", PasswordRule{Length: 5, Alphabet: "numeric"}, 0, "", "password: length is 5, need 6 to 64"},
		{"short custom numeric", PasswordRule{Length: 5, Alphabet: "9876543210"}, 0, "", "password: length is 5, need 6 to 64"},
		{"few characters", PasswordRule{Alphabet: "abcdefghi"}, 0, "", "password: alphabet has 9 characters, need at least 10"},
		{"unknown name", PasswordRule{Alphabet: "digits"}, 0, "", "password: alphabet has 6 characters, need at least 10"},
		{"twice in a row", PasswordRule{Alphabet: "aabcdefghi"}, 0, "", "password: alphabet has 'a' twice"},
		{"twice", PasswordRule{Alphabet: "abcdefghija"}, 0, "", "password: alphabet has 'a' twice"},
		{"semicolon", PasswordRule{Alphabet: "abcdefghij;"}, 0, "", "password: alphabet has a semicolon"},
		{"space", PasswordRule{Alphabet: "abcdefghij "}, 0, "", "password: alphabet has a character that is not printable ASCII"},
		{"delete", PasswordRule{Alphabet: "abcdefghij\x7f"}, 0, "", "password: alphabet has a character that is not printable ASCII"},
		{"not ASCII", PasswordRule{Alphabet: "abcdefghijé"}, 0, "", "password: alphabet has a character that is not printable ASCII"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g, err := c.rule.generator()
			if c.problem != "" {
				if err == nil || err.Error() != c.problem {
					t.Errorf("got %v, want %s", err, c.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 100 {
				if p := g.draw(); len(p) != c.length || strings.Trim(p, c.alphabet) != "" {
					t.Fatalf("drew %q", p)
				}
			}
		})
	}
}

func printable() string {
	var b strings.Builder
	for c := byte('!'); c <= '~'; c++ {
		if c != ';' {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// The default alphabet has no characters that look alike.
func TestAlphabetHasNoLookAlikes(t *testing.T) {
	t.Parallel()
	if strings.ContainsAny(alphanumeric, "0Oo1Il") || checkAlphabet(alphanumeric) != nil || len(alphanumeric) != 10+26+26-6 {
		t.Errorf("alphabet %q", alphanumeric)
	}
}

// Every character is equally likely at every position. The alphabets are such
// that taking random bytes modulo their size would be far off. The bound on
// chi-square is 10 standard deviations above its mean.
func TestPasswordIsUnbiased(t *testing.T) {
	t.Parallel()
	for _, alphabet := range []string{AlphabetNumeric, AlphabetAlphanumeric, printable()} {
		g, err := PasswordRule{Length: 64, Alphabet: alphabet}.generator()
		if err != nil {
			t.Fatal(err)
		}
		counts := make(map[byte]int)
		ends := make(map[byte]int)
		const n = 4000
		for range n {
			p := g.draw()
			for i := range len(p) {
				counts[p[i]]++
			}
			ends[p[63]]++
		}
		for what, c := range map[string]struct {
			counts map[byte]int
			n      int
		}{"all positions": {counts, 64 * n}, "last position": {ends, n}} {
			want := float64(c.n) / float64(len(g.alphabet))
			var chi float64
			for i := range len(g.alphabet) {
				d := float64(c.counts[g.alphabet[i]]) - want
				chi += d * d / want
			}
			freedom := float64(len(g.alphabet) - 1)
			// The variance of chi-square is twice its degrees of freedom.
			if excess := chi - freedom; excess > 0 && excess*excess > 100*2*freedom {
				t.Errorf("%q, %s: chi-square %.0f with %.0f degrees of freedom", alphabet, what, chi, freedom)
			}
		}
	}
}

// Every accepted rule generates passwords of its length and alphabet.
func TestPasswordProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		chars := rapid.SliceOfDistinct(rapid.SampledFrom([]byte(printable()+"; \x00")), rapid.ID[byte]).Draw(t, "alphabet")
		rule := PasswordRule{Length: rapid.IntRange(-1, 70).Draw(t, "length"), Alphabet: string(chars)}
		g, err := rule.generator()
		if err != nil {
			return
		}
		p := g.draw()
		if len(p) < 4 || len(p) > 64 || rule.Length != 0 && len(p) != rule.Length || strings.ContainsAny(p, "; \x00") {
			t.Fatalf("%+v drew %q", rule, p)
		}
		if rule.Alphabet != "" && strings.Trim(p, rule.Alphabet) != "" {
			t.Fatalf("%+v drew %q", rule, p)
		}
	})
}
