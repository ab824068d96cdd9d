package ownership

import (
	"errors"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// ownerVersion is the first byte of an encoded owner.
const ownerVersion = 1

// maxName is the longest name in an encoded owner, in bytes.
const maxName = 255

// sealedOwner is what a sealed value is, as its label says.
const sealedOwner = "ownership"

// Owner is who retrieved a request, and where it is. No member is empty or longer
// than 255 bytes.
type Owner struct {
	// Application is the name of the key with which it was retrieved.
	Application string
	// SerialNumber of the device.
	SerialNumber string
	// Instance of the authentication server that holds the request.
	Instance string
}

// label binds a sealed owner to its claim: it cannot be moved to another request.
func label(kind Kind, c Claim) seal.Label {
	return seal.Label{Kind: sealedOwner, Identifier: string(kind) + "/" + c.Key, Generation: c.Token}
}

// encode returns o as bytes: a version, then every member behind its length.
func (o Owner) encode() ([]byte, error) {
	b := []byte{ownerVersion}
	for _, name := range []string{o.Application, o.SerialNumber, o.Instance} {
		if name == "" || len(name) > maxName {
			return nil, errors.New("application, serial number and instance must have 1 to 255 bytes")
		}
		b = append(b, byte(len(name)))
		b = append(b, name...)
	}
	return b, nil
}

// decodeOwner reads what encode wrote and nothing else.
func decodeOwner(b []byte) (Owner, bool) {
	if len(b) == 0 || b[0] != ownerVersion {
		return Owner{}, false
	}
	var o Owner
	rest := b[1:]
	for _, name := range []*string{&o.Application, &o.SerialNumber, &o.Instance} {
		if len(rest) == 0 || rest[0] == 0 {
			return Owner{}, false
		}
		size := int(rest[0])
		if rest = rest[1:]; len(rest) < size {
			return Owner{}, false
		}
		*name, rest = string(rest[:size]), rest[size:]
	}
	return o, len(rest) == 0
}
