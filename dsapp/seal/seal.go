// Package seal protects activation data: it says what is sealed for a phone, whichever
// way its exchange does that, and seals what a store keeps (Keyring).
package seal

import "errors"

// ErrUnopened is the only error of an Open: wrong key, altered bytes, another
// label or item, or not a sealed value at all. It says no more on purpose.
var ErrUnopened = errors.New("sealed value cannot be opened")

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

// Known tells whether i is one of the items.
func (i Item) Known() bool {
	return i == LicenseActivationMessage || i == ActivationCode || i == EventReactivationCounter
}

// Ciphertext is a sealed item. Its three parts travel as separate members.
type Ciphertext struct {
	Data    []byte // as long as the plaintext
	Counter []byte // what the encryption began with
	MAC     []byte // over Counter and Data
}

// Session seals for the phone whose exchange it is.
type Session interface {
	// Seal seals an item, once, so that no key ever protects two messages.
	Seal(item Item, plaintext []byte) (Ciphertext, error)
	// Clear overwrites the session's secrets. Nothing is to be sealed after it.
	Clear()
}
