package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"sync/atomic"
)

// A record is version | key id | salt | nonce | ciphertext | tag. It is encrypted with AES-256-GCM,
// under a key that is derived from the sealing key and the salt. The version says how.
const (
	keyIDSize  = 8
	saltSize   = 12
	nonceSize  = 12
	tagSize    = 16
	headerSize = 1 + keyIDSize

	keySize = 32
)

// The versions of a record. Every Keyring opens both; which one it seals depends on whether Go
// runs in FIPS 140-3 mode.
const (
	// versionXAES derives the key as XAES-256-GCM does (c2sp.org/XAES-256-GCM). Salt and nonce
	// are the nonce of that specification.
	versionXAES = 1
	// versionHKDF derives the key with HKDF-SHA-256, so that all of it is done by the
	// cryptographic module of Go, in services that FIPS 140-3 approves.
	versionHKDF = 2
)

// recordKeyInfo is the info of HKDF in records of versionHKDF.
const recordKeyInfo = "dsapp-gateway sealed record"

// Overhead is how many bytes longer a record is than its plaintext.
const Overhead = headerSize + saltSize + nonceSize + tagSize

// saltUses is how many records a sealing key seals with one salt. Deriving a key takes longer than
// encrypting with it. The nonces are random: two of so many are the same with a probability of 2^-57.
const saltUses = 1 << 20

type (
	keyID [keyIDSize]byte
	salt  [saltSize]byte
)

// parsedRecord has the parts of a record.
type parsedRecord struct {
	version byte
	id      keyID
	salt    salt
	sealed  []byte // nonce, ciphertext and tag
}

// parseRecord returns the parts of a record, and false for bytes that are none.
func parseRecord(record []byte) (parsedRecord, bool) {
	if len(record) < Overhead || record[0] != versionXAES && record[0] != versionHKDF {
		return parsedRecord{}, false
	}
	rest := record[headerSize:]
	return parsedRecord{record[0], keyID(record[1:]), salt(rest), rest[saltSize:]}, true
}

// sealingKey seals and opens with one key. It is safe for concurrent use.
type sealingKey struct {
	hkdf derivation
	xaes func(salt) []byte
	// last is the key of the records that are being sealed, or nil.
	last atomic.Pointer[recordKey]
}

// recordKey is AES-256-GCM for the records of a version with a salt. It chooses the nonces.
type recordKey struct {
	cipher.AEAD

	version byte
	salt    salt
	uses    atomic.Uint32 // of the salt, for sealing
}

func newSealingKey(key []byte) (*sealingKey, error) {
	xaes, err := newXAES(key)
	if err != nil {
		return nil, err
	}
	return &sealingKey{hkdf: newDerivation(key), xaes: xaes}, nil
}

// forSealing returns the key for the next record.
func (k *sealingKey) forSealing(version byte) (*recordKey, error) {
	if r := k.last.Load(); r != nil && r.version == version && r.uses.Add(1) <= saltUses {
		return r, nil
	}
	var s salt
	rand.Read(s[:])
	r, err := k.record(version, s)
	if err != nil {
		return nil, err
	}
	r.uses.Store(1)
	k.last.Store(r)
	return r, nil
}

// record derives the key of the records with a salt. Opening a record always does: the time that it
// takes must not tell a genuine record of another node from one that was made here to look like it.
func (k *sealingKey) record(version byte, s salt) (*recordKey, error) {
	var key []byte
	if version == versionXAES {
		key = k.xaes(s)
	} else {
		var err error
		if key, err = k.hkdf(s[:], recordKeyInfo); err != nil {
			return nil, err
		}
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &recordKey{AEAD: a, version: version, salt: s}, nil
}

// newXAES returns the derivation of c2sp.org/XAES-256-GCM: that of NIST SP 800-108 in counter mode,
// with AES-CMAC of messages of one block. It is a function so that nothing that prints a Keyring
// prints a key.
func newXAES(key []byte) (func(salt) []byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	// The subkey of CMAC for whole blocks is the encrypted zero, doubled in GF(2^128).
	var zero [aes.BlockSize]byte
	block.Encrypt(zero[:], zero[:])
	high, low := binary.BigEndian.Uint64(zero[:8]), binary.BigEndian.Uint64(zero[8:])
	subkeyHigh, subkeyLow := high<<1|low>>63, low<<1^high>>63*0x87
	return func(s salt) []byte {
		derived := make([]byte, keySize)
		for i := range keySize / aes.BlockSize {
			message := derived[i*aes.BlockSize:][:aes.BlockSize]
			copy(message, []byte{0, byte(i + 1), 'X', 0})
			copy(message[4:], s[:])
			binary.BigEndian.PutUint64(message, binary.BigEndian.Uint64(message)^subkeyHigh)
			binary.BigEndian.PutUint64(message[8:], binary.BigEndian.Uint64(message[8:])^subkeyLow)
			block.Encrypt(message, message)
		}
		return derived
	}, nil
}
