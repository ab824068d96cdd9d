package seal

import (
	"bytes"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
)

// Label identifies a record. It is authenticated, but not stored in the record: a record
// only opens with the label that it was sealed with.
type Label struct {
	// Kind is the kind of record, Identifier what the record is stored under.
	Kind, Identifier string
	// Generation distinguishes records that were stored one after the other under the
	// same identifier.
	Generation [16]byte
}

// associatedData encodes the label. The length of each string precedes it, so that no two
// labels have the same encoding.
func (l Label) associatedData(version byte) []byte {
	b := make([]byte, 0, 1+4+len(l.Kind)+4+len(l.Identifier)+len(l.Generation))
	b = append(b, version)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Kind)))
	b = append(b, l.Kind...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Identifier)))
	b = append(b, l.Identifier...)
	return append(b, l.Generation[:]...)
}

// Keyring seals records with its first key and opens records sealed with any of its keys. It
// is safe for concurrent use.
type Keyring struct {
	// Opened is called for each record that Open has opened, and says whether the first key
	// did. Set it before the first use; nil for no call.
	Opened func(first bool)

	version byte // of records that Seal returns
	first   keyID
	keys    map[keyID]*sealingKey
	ids     []keyID // in the order of the keys
	// digests are the hashes of Digest that are not in use, keyed. A new one costs more than it
	// takes to digest the members of a call.
	digests sync.Pool
}

// KeyError is an error about one of the keys given to NewKeyring. It does not contain the
// key.
type KeyError struct {
	// Index is the index of the key, starting with 0.
	Index int
	// Problem says what is wrong with the key.
	Problem string
}

// Error returns the index and the problem.
func (e *KeyError) Error() string { return fmt.Sprintf("keys[%d]: %s", e.Index, e.Problem) }

var _ error = (*KeyError)(nil)

// ParseKey decodes a sealing key of exactly 64 hexadecimal digits in either case. It refuses
// a key whose bytes are all the same, which is most likely a placeholder. The error says
// what the key must be and does not contain it.
func ParseKey(digits string) ([]byte, error) {
	if len(digits) != 2*keySize {
		return nil, fmt.Errorf("must have %d hex digits", 2*keySize)
	}
	key, err := hex.DecodeString(digits)
	if err != nil {
		// The error of the decoder contains a character of the key.
		return nil, errors.New("must consist of hex digits")
	}
	if bytes.Count(key, key[:1]) == len(key) {
		return nil, errors.New("must be random: all bytes are the same")
	}
	return key, nil
}

// NewKeyring returns a Keyring with one or more different keys of 32 bytes, which it copies.
// An error about one of the keys is a *KeyError.
func NewKeyring(keys ...[]byte) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, errors.New("no sealing key")
	}
	k := &Keyring{version: versionXAES, keys: make(map[keyID]*sealingKey, len(keys))}
	if fips140.Enabled() {
		k.version = versionHKDF
	}
	for i, key := range keys {
		if len(key) != keySize {
			return nil, &KeyError{i, fmt.Sprintf("has %d bytes, need %d", len(key), keySize)}
		}
		id := keyIDOf(key)
		if _, ok := k.keys[id]; ok {
			return nil, &KeyError{i, "is the same as an earlier key"}
		}
		sealing, err := newSealingKey(key)
		if err != nil {
			return nil, &KeyError{i, err.Error()}
		}
		k.keys[id] = sealing
		k.ids = append(k.ids, id)
		if i == 0 {
			k.first = id
		}
	}
	k.digests.New = func() any { return newDigest(k.keys[k.first].hkdf) }
	return k, nil
}

// Seal returns a record with the plaintext, encrypted with the first key and bound to the
// label. The record is Overhead bytes longer than the plaintext.
func (k *Keyring) Seal(l Label, plaintext []byte) ([]byte, error) {
	key, err := k.keys[k.first].forSealing(k.version)
	if err != nil {
		return nil, fmt.Errorf("sealing record: %w", err)
	}
	record := make([]byte, 0, Overhead+len(plaintext))
	record = append(record, k.version)
	record = append(record, k.first[:]...)
	record = append(record, key.salt[:]...)
	return key.Seal(record, nil, plaintext, l.associatedData(k.version)), nil //nolint:gosec // key chooses the nonce
}

// Open returns the plaintext of a record that was sealed with the label l and any key of the
// Keyring. The only error is ErrUnopened.
func (k *Keyring) Open(l Label, record []byte) ([]byte, error) {
	r, ok := parseRecord(record)
	if !ok {
		return nil, ErrUnopened
	}
	sealing, ok := k.keys[r.id]
	if !ok {
		return nil, ErrUnopened
	}
	key, err := sealing.record(r.version, r.salt)
	if err != nil {
		return nil, ErrUnopened
	}
	plaintext, err := key.Open(nil, nil, r.sealed, l.associatedData(r.version))
	if err != nil {
		return nil, ErrUnopened
	}
	if k.Opened != nil {
		k.Opened(r.id == k.first)
	}
	return plaintext, nil
}

// Current reports whether the record has the version and the id of the key that Seal would
// give it. It does not open the record.
func (k *Keyring) Current(record []byte) bool {
	r, ok := parseRecord(record)
	return ok && r.version == k.version && r.id == k.first
}

// KeyIDs returns the ids of the keys as hexadecimal digits, in the order of the keys. An id does
// not reveal its key.
func (k *Keyring) KeyIDs() []string {
	ids := make([]string, len(k.ids))
	for i, id := range k.ids {
		ids[i] = id.String()
	}
	return ids
}

// KeyID returns the id of the key that a record was sealed with, as KeyIDs does. It does not
// open the record. It returns false for bytes that are no record.
func KeyID(record []byte) (id string, ok bool) {
	r, ok := parseRecord(record)
	return r.id.String(), ok
}

func (id keyID) String() string { return hex.EncodeToString(id[:]) }

// keyIDOf returns the id of a key, which does not reveal the key.
func keyIDOf(key []byte) keyID {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("dsapp-gateway sealing key id"))
	return keyID(h.Sum(nil)[:keyIDSize])
}
