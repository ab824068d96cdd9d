package seal

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/xaesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// A record is version | key id | nonce | ciphertext | tag.
const (
	recordVersion = 1
	keyIDSize     = 8
	nonceSize     = 24
	tagSize       = 16
	headerSize    = 1 + keyIDSize

	keySize = 32

	// xaesSaltSize is the size of the first part of the nonce, from which the key of the
	// message is derived. With 12 bytes the format is that of C2SP XAES-256-GCM.
	xaesSaltSize = 12
)

// Overhead is how many bytes longer a record is than its plaintext.
const Overhead = headerSize + nonceSize + tagSize

type keyID [keyIDSize]byte

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
func (l Label) associatedData() []byte {
	b := make([]byte, 0, 1+4+len(l.Kind)+4+len(l.Identifier)+len(l.Generation))
	b = append(b, recordVersion)
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

	first keyID
	keys  map[keyID]tink.AEAD
	ids   []string // in the order of the keys
	// derivations derive keys from the keys, in their order.
	derivations []func(purpose string) ([]byte, error)
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
	k := &Keyring{keys: make(map[keyID]tink.AEAD, len(keys))}
	for i, key := range keys {
		if len(key) != keySize {
			return nil, &KeyError{i, fmt.Sprintf("has %d bytes, need %d", len(key), keySize)}
		}
		id := keyIDOf(key)
		if _, ok := k.keys[id]; ok {
			return nil, &KeyError{i, "is the same as an earlier key"}
		}
		a, err := newAEAD(key)
		if err != nil {
			return nil, &KeyError{i, err.Error()}
		}
		k.keys[id] = a
		k.ids = append(k.ids, id.String())
		k.derivations = append(k.derivations, derivation(key))
		if i == 0 {
			k.first = id
		}
	}
	return k, nil
}

// Seal returns a record with the plaintext, encrypted with the first key by XAES-256-GCM
// (c2sp.org/XAES-256-GCM) and bound to the label. The record is Overhead bytes longer than
// the plaintext.
func (k *Keyring) Seal(l Label, plaintext []byte) ([]byte, error) {
	sealed, err := k.keys[k.first].Encrypt(plaintext, l.associatedData())
	if err != nil {
		return nil, fmt.Errorf("sealing record: %w", err)
	}
	record := make([]byte, 0, headerSize+len(sealed))
	record = append(record, recordVersion)
	record = append(record, k.first[:]...)
	return append(record, sealed...), nil
}

// Open returns the plaintext of a record that was sealed with the label l and any key of the
// Keyring. The only error is ErrUnopened.
func (k *Keyring) Open(l Label, record []byte) ([]byte, error) {
	id, sealed, ok := parseRecord(record)
	if !ok {
		return nil, ErrUnopened
	}
	a, ok := k.keys[id]
	if !ok {
		return nil, ErrUnopened
	}
	plaintext, err := a.Decrypt(sealed, l.associatedData())
	if err != nil {
		return nil, ErrUnopened
	}
	if k.Opened != nil {
		k.Opened(id == k.first)
	}
	return plaintext, nil
}

// Current reports whether the record has the id of the first key. It does not open the
// record.
func (k *Keyring) Current(record []byte) bool {
	id, _, ok := parseRecord(record)
	return ok && id == k.first
}

// KeyIDs returns the ids of the keys as hexadecimal digits, in the order of the keys. An id does
// not reveal its key.
func (k *Keyring) KeyIDs() []string { return slices.Clone(k.ids) }

// KeyID returns the id of the key that a record was sealed with, as KeyIDs does. It does not
// open the record. It returns false for bytes that are no record.
func KeyID(record []byte) (id string, ok bool) {
	parsed, _, ok := parseRecord(record)
	return parsed.String(), ok
}

func (id keyID) String() string { return hex.EncodeToString(id[:]) }

// parseRecord returns the id of the key of a record, and the nonce, ciphertext and tag.
func parseRecord(record []byte) (id keyID, sealed []byte, ok bool) {
	if len(record) < Overhead || record[0] != recordVersion {
		return keyID{}, nil, false
	}
	return keyID(record[1:headerSize]), record[headerSize:], true
}

// keyIDOf returns the id of a key, which does not reveal the key.
func keyIDOf(key []byte) keyID {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("dsapp-gateway sealing key id"))
	return keyID(h.Sum(nil)[:keyIDSize])
}

// newAEAD returns XAES-256-GCM with a key of 32 bytes.
func newAEAD(key []byte) (tink.AEAD, error) {
	parameters, err := xaesgcm.NewParameters(xaesgcm.VariantNoPrefix, xaesSaltSize)
	if err != nil {
		return nil, err
	}
	k, err := xaesgcm.NewKey(secretdata.NewBytesFromData(key, insecuresecretdataaccess.Token{}), 0, parameters)
	if err != nil {
		return nil, err
	}
	m := keyset.NewManager()
	id, err := m.AddKey(k)
	if err != nil {
		return nil, err
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, err
	}
	handle, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return aead.New(handle)
}
