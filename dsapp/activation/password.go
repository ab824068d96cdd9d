package activation

import (
	"crypto/rand"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// The named values of PasswordRule.Alphabet.
const (
	// AlphabetNumeric is the ten digits.
	AlphabetNumeric = "numeric"
	// AlphabetAlphanumeric is the digits and the letters of both cases without 0, O, o, 1,
	// I and l, which look alike.
	AlphabetAlphanumeric = "alphanumeric"
)

const (
	digits       = "0123456789"
	alphanumeric = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz"

	defaultPasswordLength = 8
	minPasswordLength     = 4
	minNumericLength      = 6
	maxPasswordLength     = 64
	minAlphabet           = 10

	// drawnIdentifierLength is the length of the identifiers that the Service draws.
	drawnIdentifierLength = 8
)

// PasswordRule says how activation passwords are generated. They are case sensitive.
type PasswordRule struct {
	// Length is the number of characters: 4 to 64, at least 6 if the alphabet has only
	// digits; 0 for 8.
	Length int
	// Alphabet is AlphabetNumeric, AlphabetAlphanumeric (the default) or the characters
	// themselves: at least 10 different printable ASCII characters. Space is not allowed,
	// nor the semicolon, which separates the fields of an activation image.
	Alphabet string
}

// generator draws strings of a fixed length over an alphabet of at most 256
// characters, each equally likely.
type generator struct {
	alphabet string
	length   int
}

func (r PasswordRule) generator() (generator, error) {
	g := generator{alphabet: r.Alphabet, length: r.Length}
	switch r.Alphabet {
	case AlphabetNumeric:
		g.alphabet = digits
	case AlphabetAlphanumeric, "":
		g.alphabet = alphanumeric
	default:
		if err := checkAlphabet(r.Alphabet); err != nil {
			return generator{}, err
		}
	}
	if g.length == 0 {
		g.length = defaultPasswordLength
	}
	shortest := minPasswordLength
	if strings.Trim(g.alphabet, digits) == "" {
		shortest = minNumericLength
	}
	if g.length < shortest || g.length > maxPasswordLength {
		return generator{}, option.Errorf("password", "length is %d, need %d to %d", g.length, shortest, maxPasswordLength)
	}
	return g, nil
}

func checkAlphabet(alphabet string) error {
	if len(alphabet) < minAlphabet {
		return option.Errorf("password", "alphabet has %d characters, need at least %d", len(alphabet), minAlphabet)
	}
	for i := range len(alphabet) {
		switch c := alphabet[i]; {
		case c <= ' ' || c > '~':
			return option.Errorf("password", "alphabet has a character that is not printable ASCII")
		case c == ';':
			return option.Errorf("password", "alphabet has a semicolon")
		case strings.IndexByte(alphabet[i+1:], c) >= 0:
			return option.Errorf("password", "alphabet has %q twice", c)
		}
	}
	return nil
}

// draw returns a random string. It discards bytes that would make the first characters of
// the alphabet more likely.
func (g generator) draw() string {
	n := len(g.alphabet)
	limit := 256 - 256%n
	var random, out [maxPasswordLength]byte
	defer clear(random[:])
	defer clear(out[:])
	drawn := 0
	for drawn < g.length {
		rand.Read(random[:])
		for _, b := range random {
			if int(b) < limit && drawn < g.length {
				out[drawn] = g.alphabet[int(b)%n]
				drawn++
			}
		}
	}
	return string(out[:g.length])
}
