package ownership

import (
	"errors"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// ownerVersion is the first byte of an encoded owner.
const ownerVersion = 1

// maxName is the greatest length of a member of Owner in bytes.
const maxName = 255

// sealedOwner is the kind in the labels of sealed owners.
const sealedOwner = "ownership"

// Owner says who retrieved a request and which instance holds it. Every member has 1 to
// 255 bytes.
type Owner struct {
	// Application is the name of the API key with which the request was retrieved.
	Application string
	// SerialNumber of the device.
	SerialNumber string
	// Instance of the authentication server that holds the request.
	Instance string
}

// label returns the label of a sealed owner. It binds the owner to the request and to the
// token of the claim.
func label(kind Kind, c Claim) seal.Label {
	return seal.Label{Kind: sealedOwner, Identifier: string(kind) + "/" + c.Key, Generation: c.Token}
}

// encode returns o as bytes: a version, then every member after its length in one byte.
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

// decodeOwner decodes what encode returns. It reports false for everything else.
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
