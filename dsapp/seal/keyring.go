package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/xaesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// A record is version | key id | salt | nonce | ciphertext | tag.
const (
	keyIDSize  = 8
	nonceSize  = 24 // salt and nonce
	tagSize    = 16
	headerSize = 1 + keyIDSize

	keySize = 32

	// saltSize is the size of the salt, from which the key of the record is derived. With 12
	// bytes the format is that of C2SP XAES-256-GCM.
	saltSize = 12
)

// The versions of a record. Every Keyring opens both; which one it seals depends on whether Go
// runs in FIPS 140-3 mode.
const (
	// versionXAES is XAES-256-GCM (c2sp.org/XAES-256-GCM).
	versionXAES = 1
	// versionHKDF is AES-256-GCM with a nonce that the cryptographic module of Go chooses. The
	// key of the record is derived from the sealing key and the salt with HKDF-SHA-256. All of
	// it is done by that module, in services that FIPS 140-3 approves.
	versionHKDF = 2
)

// recordKeyInfo is the info of HKDF in records of versionHKDF.
const recordKeyInfo = "dsapp-gateway sealed record"

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
	keys    map[keyID]sealingKey
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
	k := &Keyring{version: versionXAES, keys: make(map[keyID]sealingKey, len(keys))}
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
		xaes, err := newXAES(key)
		if err != nil {
			return nil, &KeyError{i, err.Error()}
		}
		k.keys[id] = sealingKey{derive: newDerivation(key), xaes: xaes}
		k.ids = append(k.ids, id)
		if i == 0 {
			k.first = id
		}
	}
	k.digests.New = func() any { return newDigest(k.keys[k.first].derive) }
	return k, nil
}

// Seal returns a record with the plaintext, encrypted with the first key and bound to the
// label. The record is Overhead bytes longer than the plaintext.
func (k *Keyring) Seal(l Label, plaintext []byte) ([]byte, error) {
	sealed, err := k.keys[k.first].seal(k.version, plaintext, l.associatedData(k.version))
	if err != nil {
		return nil, fmt.Errorf("sealing record: %w", err)
	}
	record := make([]byte, 0, headerSize+len(sealed))
	record = append(record, k.version)
	record = append(record, k.first[:]...)
	return append(record, sealed...), nil
}

// Open returns the plaintext of a record that was sealed with the label l and any key of the
// Keyring. The only error is ErrUnopened.
func (k *Keyring) Open(l Label, record []byte) ([]byte, error) {
	version, id, sealed, ok := parseRecord(record)
	if !ok {
		return nil, ErrUnopened
	}
	key, ok := k.keys[id]
	if !ok {
		return nil, ErrUnopened
	}
	plaintext, err := key.open(version, sealed, l.associatedData(version))
	if err != nil {
		return nil, ErrUnopened
	}
	if k.Opened != nil {
		k.Opened(id == k.first)
	}
	return plaintext, nil
}

// Current reports whether the record has the version and the id of the key that Seal would
// give it. It does not open the record.
func (k *Keyring) Current(record []byte) bool {
	version, id, _, ok := parseRecord(record)
	return ok && version == k.version && id == k.first
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
	_, parsed, _, ok := parseRecord(record)
	return parsed.String(), ok
}

func (id keyID) String() string { return hex.EncodeToString(id[:]) }

// parseRecord returns the version of a record, the id of its key, and its salt, nonce,
// ciphertext and tag.
func parseRecord(record []byte) (version byte, id keyID, sealed []byte, ok bool) {
	if len(record) < Overhead || record[0] != versionXAES && record[0] != versionHKDF {
		return 0, keyID{}, nil, false
	}
	return record[0], keyID(record[1:headerSize]), record[headerSize:], true
}

// keyIDOf returns the id of a key, which does not reveal the key.
func keyIDOf(key []byte) keyID {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("dsapp-gateway sealing key id"))
	return keyID(h.Sum(nil)[:keyIDSize])
}

// sealingKey seals and opens with one key.
type sealingKey struct {
	derive derivation
	xaes   tink.AEAD
}

// seal returns salt, nonce, ciphertext and tag.
func (k sealingKey) seal(version byte, plaintext, associatedData []byte) ([]byte, error) {
	if version == versionXAES {
		return k.xaes.Encrypt(plaintext, associatedData)
	}
	salt := make([]byte, saltSize, nonceSize+len(plaintext)+tagSize)
	_, _ = rand.Read(salt) // it does not fail
	a, err := k.record(salt)
	if err != nil {
		return nil, err
	}
	return a.Seal(salt, nil, plaintext, associatedData), nil //nolint:gosec // the nonce is chosen by a
}

// open is the inverse of seal. With GODEBUG=fips140=only, XAES-256-GCM, which FIPS 140-3 does not
// know, still opens what was sealed before that mode was switched on.
func (k sealingKey) open(version byte, sealed, associatedData []byte) (plaintext []byte, err error) {
	if version == versionXAES {
		fips140.WithoutEnforcement(func() { plaintext, err = k.xaes.Decrypt(sealed, associatedData) })
		return plaintext, err
	}
	a, err := k.record(sealed[:saltSize])
	if err != nil {
		return nil, err
	}
	return a.Open(nil, nil, sealed[saltSize:], associatedData)
}

// record returns AES-256-GCM for the record of versionHKDF with a salt.
func (k sealingKey) record(salt []byte) (cipher.AEAD, error) {
	key, err := k.derive(salt, recordKeyInfo)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// newXAES returns XAES-256-GCM with a key of 32 bytes.
func newXAES(key []byte) (a tink.AEAD, err error) {
	fips140.WithoutEnforcement(func() { a, err = xaesOf(key) })
	return a, err
}

func xaesOf(key []byte) (tink.AEAD, error) {
	parameters, err := xaesgcm.NewParameters(xaesgcm.VariantNoPrefix, saltSize)
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
