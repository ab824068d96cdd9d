// Package apikey checks API keys: which application a key belongs to, which class of
// services it may call, and from which addresses.
package apikey

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/option"
)

// Class determines which services may be called with a key.
type Class string

// The classes of keys.
const (
	// FrontEnd keys are held by mobile applications.
	FrontEnd Class = "front_end"
	// BackEnd keys are held by the solution's own servers.
	BackEnd Class = "back_end"
)

// Length limits of an API key, in bytes.
const (
	MinKeyLength = 16
	MaxKeyLength = 256
)

// maxNameLength is the longest name of a key's holder, in bytes.
const maxNameLength = 64

// Key is one API key. It has only the hash of the key itself, which neither fmt nor
// log/slog nor encoding/json prints.
type Key struct {
	// Name of the application that holds the key. Several keys may have the same name, so
	// that a key can be replaced while the old one is still in use.
	Name string
	// Class of the key; the same for all keys of one name.
	Class Class
	// Hash is the SHA-256 of the key.
	Hash [sha256.Size]byte
	// Allow lists the address ranges the key is accepted from. Empty: from
	// anywhere for FrontEnd, from loopback addresses only for BackEnd.
	Allow []netip.Prefix
	// Profile is the name of the profile of the activation exchange that a FrontEnd
	// application has; the same for all keys of one name.
	Profile string
}

var (
	_ fmt.Formatter  = Key{}
	_ fmt.Stringer   = Key{}
	_ slog.LogValuer = Key{}
)

// Permits reports whether the key is accepted from addr. An IPv4-mapped IPv6
// address counts as the IPv4 address, a zone is ignored, and an invalid address
// is never permitted.
func (k Key) Permits(addr netip.Addr) bool {
	if !addr.IsValid() {
		return false
	}
	addr = addr.Unmap().WithZone("")
	if len(k.Allow) == 0 {
		return k.Class == FrontEnd || addr.IsLoopback()
	}
	return slices.ContainsFunc(k.Allow, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// String returns name and class of the key.
func (k Key) String() string {
	return fmt.Sprintf("%s (%s)", k.Name, k.Class)
}

// Format writes name and class of the key for every verb. With String alone, verbs such as
// %d and %#v would print the hash.
func (k Key) Format(s fmt.State, _ rune) {
	_, _ = io.WriteString(s, k.String())
}

// LogValue returns name and class of the key.
func (k Key) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", k.Name), slog.String("class", string(k.Class)))
}

// MarshalText returns name and class of the key. It keeps the hash out of JSON logs of
// values that contain a Key.
func (k Key) MarshalText() ([]byte, error) {
	return []byte(k.String()), nil
}

// Hash returns the SHA-256 of an API key, as Key holds it.
func Hash(key string) [sha256.Size]byte {
	return sha256.Sum256([]byte(key))
}

// ParseHash decodes the SHA-256 of an API key from 64 hexadecimal digits of either case.
// The error says what the digits must be, and never contains them.
func ParseHash(digits string) ([sha256.Size]byte, error) {
	var h [sha256.Size]byte
	if len(digits) != hex.EncodedLen(len(h)) {
		return [sha256.Size]byte{}, errors.New("must have 64 hexadecimal digits")
	}
	if _, err := hex.Decode(h[:], []byte(digits)); err != nil {
		// The cause is dropped because it quotes a digit.
		return [sha256.Size]byte{}, errors.New("must consist of hexadecimal digits")
	}
	return h, nil
}

// ValidateKey checks that key can be used as an API key: MinKeyLength to
// MaxKeyLength visible ASCII characters without a colon, which cannot be part of
// the user name of HTTP Basic authentication (RFC 7617, section 2). The error says what
// the key must be, and never contains it.
func ValidateKey(key string) error {
	if len(key) < MinKeyLength || len(key) > MaxKeyLength {
		return fmt.Errorf("must have %d to %d characters", MinKeyLength, MaxKeyLength)
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' || key[i] == ':' {
			return errors.New("must consist of visible ASCII characters other than a colon")
		}
	}
	return nil
}

// KeyError is an error about one of the keys given to NewSet. It contains neither the key
// nor its hash, and names other keys by their index in brackets.
type KeyError struct {
	// Index of the key, counted from 0.
	Index int
	// Option is the error about `name`, `class`, `profile`, an element of `allow`, or `hash`, which
	// stands for the option that the key was configured with.
	Option option.Error
}

// Error returns index, option and problem.
func (e *KeyError) Error() string { return fmt.Sprintf("keys[%d].%s", e.Index, &e.Option) }

var _ error = (*KeyError)(nil)

// Set is an immutable set of API keys.
type Set struct {
	keys []Key
}

// NewSet returns a set of the given keys. It refuses an empty set, names that are
// not 1 to 64 printable ASCII characters without a colon, unknown classes,
// different classes or profiles under one name, profiles of back-end keys, missing and repeated hashes, and ranges that
// are invalid or have bits set beyond their length. An error about one of the keys is a
// *KeyError.
func NewSet(keys []Key) (*Set, error) {
	if len(keys) == 0 {
		return nil, errors.New("at least one key is required")
	}
	s := &Set{keys: make([]Key, 0, len(keys))}
	for i, k := range keys {
		wrong := func(name, format string, args ...any) error {
			return &KeyError{i, option.Error{Name: name, Problem: fmt.Sprintf(format, args...)}}
		}
		if k.Name == "" {
			return nil, wrong("name", "is required")
		}
		if !validName(k.Name) {
			return nil, wrong("name", "must be 1 to %d printable ASCII characters without a colon", maxNameLength)
		}
		if k.Class != FrontEnd && k.Class != BackEnd {
			return nil, wrong("class", "must be %q or %q", FrontEnd, BackEnd)
		}
		// The zero value is a field that was not set. The hash of an empty key would
		// admit everybody with an empty user name.
		if k.Hash == [sha256.Size]byte{} || k.Hash == Hash("") {
			return nil, wrong("hash", "is missing, or that of an empty key")
		}
		if k.Class == BackEnd && k.Profile != "" {
			return nil, wrong("profile", "is for keys of the class %q; the profile of a registration is a member of the call", FrontEnd)
		}
		for j, other := range s.keys {
			if k.Hash == other.Hash {
				return nil, wrong("hash", "is the same key as [%d], %q", j, other.Name)
			}
			if k.Name == other.Name && k.Class != other.Class {
				return nil, wrong("class", "is not the one of [%d], which has the same name %q", j, k.Name)
			}
			if k.Name == other.Name && k.Profile != other.Profile {
				return nil, wrong("profile", "is not the one of [%d], which has the same name %q", j, k.Name)
			}
		}
		allow := make([]netip.Prefix, len(k.Allow))
		for j, p := range k.Allow {
			var err error
			if allow[j], err = normalize(p); err != nil {
				return nil, wrong(fmt.Sprintf("allow[%d]", j), "%s", err)
			}
		}
		k.Allow = allow
		s.keys = append(s.keys, k)
	}
	return s, nil
}

// Keys returns the keys of the set in their order.
func (s *Set) Keys() []Key { return slices.Clone(s.keys) }

// Lookup returns the entry of the presented key. Its running time depends on the number of
// keys in the set and on the length of the presented key, not on whether, how far and
// which key matches. Keys longer than MaxKeyLength never match.
func (s *Set) Lookup(key string) (Key, bool) {
	fits := subtle.ConstantTimeLessOrEq(len(key), MaxKeyLength)
	hash := Hash(key[:min(len(key), MaxKeyLength)])
	found, index := 0, 0
	for i := range s.keys {
		equal := subtle.ConstantTimeCompare(hash[:], s.keys[i].Hash[:])
		found |= equal
		index = subtle.ConstantTimeSelect(equal, i, index)
	}
	if found&fits != 1 {
		return Key{}, false
	}
	return s.keys[index], true
}

func validName(name string) bool {
	if len(name) > maxNameLength || strings.Contains(name, ":") {
		return false
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return false
		}
	}
	return true
}

// normalize checks a range. It converts a range of IPv4-mapped addresses to an IPv4 range,
// since Permits compares unmapped addresses.
func normalize(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return p, errors.New("is an invalid address range")
	}
	if masked := p.Masked(); masked != p {
		return p, fmt.Errorf("has bits set beyond its length; the range is %s", masked)
	}
	if !p.Addr().Is4In6() {
		return p, nil
	}
	if p.Bits() < 96 {
		return p, fmt.Errorf("range %s mixes IPv4-mapped and other addresses", p)
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96), nil
}
