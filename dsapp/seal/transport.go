package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
)

// Item names one protected value of an exchange. Each has keys of its own.
type Item string

// The items of an exchange.
const (
	// LicenseActivationMessage is Activation Message 1 of a multi-device licence.
	LicenseActivationMessage Item = "licenseActivationMessage"
	// ActivationCode is the activation code of a standard licence.
	ActivationCode Item = "activationCode"
	// EventReactivationCounter is the event counter of a standard licence.
	EventReactivationCounter Item = "eventReactivationCounter"
)

const (
	keySize     = 32
	counterSize = 8
	macSize     = sha256.Size
)

// Errors of Transport.Seal.
var (
	// ErrSealedBefore means that the Transport has sealed this item already.
	ErrSealedBefore = errors.New("item was sealed before in this exchange")
	// ErrUnknownItem means that the item is not one of this package.
	ErrUnknownItem = errors.New("unknown item")
	// ErrEmpty means that there is nothing to seal.
	ErrEmpty = errors.New("nothing to seal")
)

// Ciphertext is a sealed item. Its three parts travel as separate members.
type Ciphertext struct {
	Data    []byte // as long as the plaintext
	Counter []byte // 8 bytes, the first half of the CTR initial block
	MAC     []byte // 32 bytes, over Counter and Data
}

// Transport seals and opens the items of one exchange with AES-256-CTR and
// HMAC-SHA-256, encrypt-then-MAC. It is safe for concurrent use.
type Transport struct {
	key  []byte
	salt [sha256.Size]byte

	mu     sync.Mutex
	sealed map[Item]bool
}

// NewTransport returns a Transport for the exchange that ended with the given
// session key. The public values, both padded to the length of the group's
// prime, bind its keys to that exchange. The Transport refers to key and makes
// no copy: the caller wipes key when done.
func NewTransport(key, clientPublic, serverPublic []byte) *Transport {
	t := &Transport{key: key, sealed: make(map[Item]bool)}
	h := sha256.New()
	h.Write(clientPublic)
	h.Write(serverPublic)
	h.Sum(t.salt[:0])
	return t
}

// Seal encrypts plaintext under a random counter and authenticates the result.
// Each item is sealed at most once, so that no key ever protects two messages.
// The errors are ErrUnknownItem, ErrEmpty and ErrSealedBefore.
func (t *Transport) Seal(item Item, plaintext []byte) (Ciphertext, error) {
	if !item.known() {
		return Ciphertext{}, ErrUnknownItem
	}
	if len(plaintext) == 0 {
		return Ciphertext{}, ErrEmpty
	}
	if !t.claim(item) {
		return Ciphertext{}, ErrSealedBefore
	}
	encryption, authentication, err := t.keys(item)
	if err != nil {
		return Ciphertext{}, err
	}
	defer clear(encryption)
	defer clear(authentication)

	c := Ciphertext{Data: make([]byte, len(plaintext)), Counter: make([]byte, counterSize)}
	rand.Read(c.Counter)
	if err := crypt(c.Data, plaintext, encryption, c.Counter); err != nil {
		return Ciphertext{}, err
	}
	c.MAC = mac(authentication, c)
	return c, nil
}

// Open verifies c in constant time and only then decrypts it. The only error is
// ErrUnopened.
func (t *Transport) Open(item Item, c Ciphertext) ([]byte, error) {
	if !item.known() || len(c.Data) == 0 || len(c.Counter) != counterSize || len(c.MAC) != macSize {
		return nil, ErrUnopened
	}
	encryption, authentication, err := t.keys(item)
	if err != nil {
		return nil, ErrUnopened
	}
	defer clear(encryption)
	defer clear(authentication)

	if !hmac.Equal(mac(authentication, c), c.MAC) {
		return nil, ErrUnopened
	}
	plaintext := make([]byte, len(c.Data))
	if err := crypt(plaintext, c.Data, encryption, c.Counter); err != nil {
		return nil, ErrUnopened
	}
	return plaintext, nil
}

func (t *Transport) claim(item Item) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sealed[item] {
		return false
	}
	t.sealed[item] = true
	return true
}

// keys derives the encryption and the MAC key of an item (RFC 5869).
func (t *Transport) keys(item Item) (encryption, authentication []byte, err error) {
	encryption, err = hkdf.Key(sha256.New, t.key, t.salt[:], "DSAPP-SRP v1 "+string(item)+" encryption", keySize)
	if err != nil {
		return nil, nil, fmt.Errorf("deriving encryption key: %w", err)
	}
	authentication, err = hkdf.Key(sha256.New, t.key, t.salt[:], "DSAPP-SRP v1 "+string(item)+" mac", keySize)
	if err != nil {
		return nil, nil, fmt.Errorf("deriving MAC key: %w", err)
	}
	return encryption, authentication, nil
}

func (i Item) known() bool {
	return i == LicenseActivationMessage || i == ActivationCode || i == EventReactivationCounter
}

// crypt applies AES-CTR (NIST SP 800-38A). The initial block is the counter
// followed by eight zero bytes, which count the blocks.
func crypt(dst, src, key, counter []byte) error {
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("preparing cipher: %w", err)
	}
	var initial [aes.BlockSize]byte
	copy(initial[:], counter)
	cipher.NewCTR(block, initial[:]).XORKeyStream(dst, src)
	return nil
}

// mac covers the counter and the data; the counter has a fixed length, so the
// boundary between them is unambiguous.
func mac(key []byte, c Ciphertext) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(c.Counter)
	h.Write(c.Data)
	return h.Sum(nil)
}
