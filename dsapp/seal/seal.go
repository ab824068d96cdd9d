// Package seal protects activation data in two places. On the way to a phone, a Session
// encrypts its items; the exchange with the phone provides the Session (seal.go). In a
// store, a Keyring encrypts records (keyring.go, record.go), and an Alarm reports a record that cannot
// be used (alarm.go).
package seal

import "errors"

// ErrUnopened is the only error of functions that open sealed values. It does not reveal the
// reason: a wrong key, altered bytes, another label or item, or no sealed value at all.
var ErrUnopened = errors.New("sealed value cannot be opened")

// Item is the name of a value that is sealed for a phone. Each item has its own keys.
type Item string

// The items.
const (
	// LicenseActivationMessage is Activation Message 1 of a multi-device licence.
	LicenseActivationMessage Item = "licenseActivationMessage"
	// ActivationCode is the activation code of a standard licence.
	ActivationCode Item = "activationCode"
	// EventReactivationCounter is the event counter of a standard licence.
	EventReactivationCounter Item = "eventReactivationCounter"
)

// Known reports whether i is one of the items above.
func (i Item) Known() bool {
	return i == LicenseActivationMessage || i == ActivationCode || i == EventReactivationCounter
}

// Ciphertext is a sealed item. Its three parts are sent as separate members.
type Ciphertext struct {
	Data    []byte // encrypted plaintext, of the same length
	Counter []byte // initial counter of the encryption
	MAC     []byte // message authentication code over Counter and Data
}

// Session seals items for the phone of one exchange.
type Session interface {
	// Seal encrypts and authenticates an item. It returns an error if the item was sealed
	// before, so that no key ever protects two messages.
	Seal(item Item, plaintext []byte) (Ciphertext, error)
	// Clear overwrites the secrets of the session. Do not call Seal after it.
	Clear()
}
