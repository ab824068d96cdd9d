package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// derivation derives a key of keySize bytes with HKDF-SHA-256. It is a function so that
// nothing that prints a Keyring prints a key.
type derivation func(salt []byte, info string) ([]byte, error)

func newDerivation(key []byte) derivation {
	key = bytes.Clone(key)
	return func(salt []byte, info string) ([]byte, error) {
		return hkdf.Key(sha256.New, key, salt, info, keySize)
	}
}

// purposePrefix begins the info of a key that is derived for a purpose.
const purposePrefix = "dsapp-gateway "

// Derive returns a Keyring for one purpose. Its keys are derived from those of k, so that
// neither opens what the other one sealed, and come in the same order. It calls k.Opened as k
// does.
func (k *Keyring) Derive(purpose string) (*Keyring, error) {
	keys := make([][]byte, len(k.ids))
	for i, id := range k.ids {
		key, err := k.keys[id].hkdf(nil, purposePrefix+purpose)
		if err != nil {
			return nil, err
		}
		keys[i] = key
	}
	derived, err := NewKeyring(keys...)
	if err != nil {
		return nil, err
	}
	derived.Opened = k.Opened
	return derived, nil
}

// Digest returns the HMAC-SHA-256 of the parts, each after its length, under a key derived
// from the first key.
func (k *Keyring) Digest(parts ...string) [sha256.Size]byte {
	text := make([]byte, 0, usualDigested)
	for _, part := range parts {
		text = binary.BigEndian.AppendUint32(text, uint32(len(part)))
		text = append(text, part...)
	}
	h := k.digests.Get().(hash.Hash)
	h.Write(text)
	sum := [sha256.Size]byte(h.Sum(text[:0]))
	h.Reset()
	k.digests.Put(h)
	return sum
}

// usualDigested is room for what most calls of Digest are for, in bytes.
const usualDigested = 256

// newDigest returns the hash of Digest for a key.
func newDigest(first derivation) hash.Hash {
	// HKDF fails only for keys that are much longer.
	key, _ := first(nil, purposePrefix+"digest")
	return hmac.New(sha256.New, key)
}
