package srp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"sync"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

const (
	itemKeySize = 32
	macSize     = sha256.Size
)

// Errors of Session.Seal.
var (
	// ErrSealedBefore means that the session has already sealed this item.
	ErrSealedBefore = errors.New("item was sealed before in this exchange")
	// ErrUnknownItem means that the item is not one of package seal.
	ErrUnknownItem = errors.New("unknown item")
	// ErrEmpty means that the plaintext is empty.
	ErrEmpty = errors.New("nothing to seal")

	// errKeyTooShort means that K has fewer bytes than the key of an item, which is possible
	// if K is S without leading zeros.
	errKeyTooShort = errors.New("session key is too short")
)

// Session seals and opens the items of one exchange: the server seals, the phone opens. It
// encrypts with AES-256-CTR and authenticates the ciphertext with HMAC-SHA-256. It is a
// seal.Session and safe for concurrent use.
type Session struct {
	p         *Profile
	key, salt []byte // salt is that of HKDF

	mu     sync.Mutex
	sealed map[seal.Item]bool
}

// NewSession returns the session of the exchange that ended with the key K. The salt and the
// public values A and B, both of the size of the prime, can bind the keys of the items to
// that exchange. The session does not copy key; Clear overwrites it.
func (p *Profile) NewSession(key, salt, clientPublic, serverPublic []byte) *Session {
	return &Session{p: p, key: key, salt: p.hkdfSalt(salt, clientPublic, serverPublic), sealed: make(map[seal.Item]bool)}
}

// NewSession is Profile.NewSession for the profiles of the package, which need no salt.
func NewSession(key, clientPublic, serverPublic []byte) *Session {
	return profiles[0].NewSession(key, nil, clientPublic, serverPublic)
}

// Seal encrypts plaintext with a random counter and authenticates the result. It seals each
// item at most once. So no key protects two messages, unless the variant has the same keys for all
// items: their random counters are then the same with a chance of 2^-64. The errors are
// ErrUnknownItem, ErrEmpty and ErrSealedBefore.
func (s *Session) Seal(item seal.Item, plaintext []byte) (seal.Ciphertext, error) {
	if !item.Known() {
		return seal.Ciphertext{}, ErrUnknownItem
	}
	if len(plaintext) == 0 {
		return seal.Ciphertext{}, ErrEmpty
	}
	if !s.claim(item) {
		return seal.Ciphertext{}, ErrSealedBefore
	}
	encryption, authentication, err := s.keys(item)
	if err != nil {
		return seal.Ciphertext{}, err
	}
	defer clear(encryption)
	defer clear(authentication)

	c := seal.Ciphertext{Data: make([]byte, len(plaintext)), Counter: make([]byte, s.p.counterSize())}
	rand.Read(c.Counter)
	if err := s.p.xorKeyStream(c.Data, plaintext, encryption, c.Counter); err != nil {
		return seal.Ciphertext{}, err
	}
	c.MAC = s.p.authenticate(authentication, c)
	return c, nil
}

// Open verifies c in constant time and then decrypts it. The only error is
// seal.ErrUnopened.
func (s *Session) Open(item seal.Item, c seal.Ciphertext) ([]byte, error) {
	if !item.Known() || len(c.Data) == 0 || len(c.Counter) != s.p.counterSize() || len(c.MAC) != macSize {
		return nil, seal.ErrUnopened
	}
	encryption, authentication, err := s.keys(item)
	if err != nil {
		return nil, seal.ErrUnopened
	}
	defer clear(encryption)
	defer clear(authentication)

	if !hmac.Equal(s.p.authenticate(authentication, c), c.MAC) {
		return nil, seal.ErrUnopened
	}
	plaintext := make([]byte, len(c.Data))
	if err := s.p.xorKeyStream(plaintext, c.Data, encryption, c.Counter); err != nil {
		return nil, seal.ErrUnopened
	}
	return plaintext, nil
}

// Clear overwrites the key. Do not seal or open anything after it.
func (s *Session) Clear() { clear(s.key) }

// claim reports whether item has not been claimed before.
func (s *Session) claim(item seal.Item) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed[item] {
		return false
	}
	s.sealed[item] = true
	return true
}
