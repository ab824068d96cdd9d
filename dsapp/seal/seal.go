// Package seal protects activation data in two places: on the wire between the
// gateway and a phone (Transport), and at rest in a store (Keyring).
package seal

import "errors"

// ErrUnopened is the only error of an Open: wrong key, altered bytes, another
// label or item, or not a sealed value at all. It says no more on purpose.
var ErrUnopened = errors.New("sealed value cannot be opened")
