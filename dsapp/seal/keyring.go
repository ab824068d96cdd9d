package seal

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

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

	// xaesSaltSize is the part of the nonce that selects the message key. With 12
	// bytes, salt and IV together are the nonce of C2SP XAES-256-GCM.
	xaesSaltSize = 12
)

// Overhead is how many bytes longer a record is than its plaintext.
const Overhead = headerSize + nonceSize + tagSize

type keyID [keyIDSize]byte

// Label says what a record is. It is authenticated with the record, not stored:
// a record opens only under the label it was sealed with.
type Label struct {
	Kind       string
	Identifier string
	Generation [16]byte
}

// associatedData encodes the label; length prefixes keep the two strings apart.
func (l Label) associatedData() []byte {
	b := make([]byte, 0, 1+4+len(l.Kind)+4+len(l.Identifier)+len(l.Generation))
	b = append(b, recordVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Kind)))
	b = append(b, l.Kind...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Identifier)))
	b = append(b, l.Identifier...)
	return append(b, l.Generation[:]...)
}

// Keyring seals records with its first key and opens those sealed with any of
// its keys. It is safe for concurrent use.
type Keyring struct {
	first keyID
	keys  map[keyID]tink.AEAD
}

// KeyError tells what is wrong with one of the keys given to NewKeyring, which it
// does not contain.
type KeyError struct {
	// Index of the key, counted from 0.
	Index int
	// Problem with the key.
	Problem string
}

// Error returns index and problem.
func (e *KeyError) Error() string { return fmt.Sprintf("keys[%d]: %s", e.Index, e.Problem) }

var _ error = (*KeyError)(nil)

// ParseKey decodes a sealing key of exactly 64 hex digits in either case. It
// refuses a key whose bytes are all the same, which is a placeholder rather than
// a key. The error is what the key must be, and never contains it.
func ParseKey(digits string) ([]byte, error) {
	if len(digits) != 2*keySize {
		return nil, fmt.Errorf("must have %d hex digits", 2*keySize)
	}
	key, err := hex.DecodeString(digits)
	if err != nil {
		// The decoder's own error quotes the offending character.
		return nil, errors.New("must consist of hex digits")
	}
	if bytes.Count(key, key[:1]) == len(key) {
		return nil, errors.New("must be random: all bytes are the same")
	}
	return key, nil
}

// NewKeyring returns a Keyring of one or more keys of 32 bytes, all different.
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
		id := identify(key)
		if _, ok := k.keys[id]; ok {
			return nil, &KeyError{i, "is the same as an earlier key"}
		}
		a, err := newAEAD(key)
		if err != nil {
			return nil, &KeyError{i, err.Error()}
		}
		k.keys[id] = a
		if i == 0 {
			k.first = id
		}
	}
	return k, nil
}

// Seal returns plaintext as a record under the first key, encrypted with
// XAES-256-GCM (c2sp.org/XAES-256-GCM) and bound to the label. The record is
// Overhead bytes longer than plaintext.
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

// Open returns the plaintext of a record that was sealed under l by any key of
// the ring. The only error is ErrUnopened.
func (k *Keyring) Open(l Label, record []byte) ([]byte, error) {
	id, sealed, ok := cut(record)
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
	return plaintext, nil
}

// Current reports whether record names the first key as the one that sealed it.
// It does not open the record.
func (k *Keyring) Current(record []byte) bool {
	id, _, ok := cut(record)
	return ok && id == k.first
}

func cut(record []byte) (id keyID, sealed []byte, ok bool) {
	if len(record) < Overhead || record[0] != recordVersion {
		return keyID{}, nil, false
	}
	return keyID(record[1:headerSize]), record[headerSize:], true
}

// identify names a key without revealing it.
func identify(key []byte) keyID {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("dsapp-gateway sealing key id"))
	return keyID(h.Sum(nil)[:keyIDSize])
}

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
