package activation

import (
	"encoding/hex"
	"fmt"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// ActivationData is what a phone gets after it has proved the password. It comes from the
// authentication server.
type ActivationData struct { //nolint:revive // the project's word for it; Data alone would be any data
	// ActivationMessage of a KindMDL registration.
	ActivationMessage form.ActivationMessage
	// ActivationCode of a KindStandard registration.
	ActivationCode form.ActivationCode
	// EventReactivationCounter of a KindStandard registration; empty if there is none.
	EventReactivationCounter form.EventCounter
}

// encode checks the data for the kind and returns it in the form in which it is sealed.
// Kinds without an exchange have no data. An activation message is stored as the bytes that its
// hex digits stand for, after an empty field: earlier versions, which store the digits in one
// field, refuse this form.
func (d ActivationData) encode(k Kind) ([]byte, error) {
	switch {
	case k != KindMDL && d.ActivationMessage != "":
		return nil, &InvalidError{Member: "activationMessage", Problem: "does not belong to a registration of kind " + string(k)}
	case k != KindStandard && d.ActivationCode != "":
		return nil, &InvalidError{Member: "activationCode", Problem: "does not belong to a registration of kind " + string(k)}
	case k != KindStandard && d.EventReactivationCounter != "":
		return nil, &InvalidError{Member: "eventReactivationCounter", Problem: "does not belong to a registration of kind " + string(k)}
	}
	switch k {
	case KindMDL:
		if d.ActivationMessage == "" {
			return nil, &InvalidError{Member: "activationMessage", Problem: "is missing"}
		}
		message := []byte(d.ActivationMessage)
		defer clear(message)
		n, err := hex.Decode(message, message)
		if err != nil {
			return nil, &InvalidError{Member: "activationMessage", Problem: "has something else than pairs of hex digits"}
		}
		return encodeFields(nil, message[:n]), nil
	case KindStandard:
		if d.ActivationCode == "" {
			return nil, &InvalidError{Member: "activationCode", Problem: "is missing"}
		}
		return encodeFields(string(d.ActivationCode), string(d.EventReactivationCounter)), nil
	default:
		return nil, nil
	}
}

// Proof is the answer to a right proof of the client.
type Proof struct {
	// Evidence is the server's evidence, a text of the profile.
	Evidence string
	// LicenseActivationMessage is set for KindMDL.
	LicenseActivationMessage *form.Sealed
	// ActivationCode is set for KindStandard.
	ActivationCode *form.Sealed
	// EventReactivationCounter is set for KindStandard if there is one.
	EventReactivationCounter *form.Sealed
}

// decodeData returns the fields of encoded data of a kind, one for each item that the phone gets.
func decodeData(k Kind, encoded []byte) ([][]byte, bool) {
	switch k {
	case KindMDL:
		if fields, ok := decodeFields(encoded, 1); ok {
			return fields, true // stored by an earlier version
		}
		fields, ok := decodeFields(encoded, 2)
		if !ok || len(fields[0]) > 0 {
			return nil, false
		}
		return [][]byte{upperHex(fields[1])}, true
	case KindStandard:
		return decodeFields(encoded, 2)
	default:
		return nil, false
	}
}

// sealData encrypts the encoded data of a registration into p and clears what it encrypted. It
// returns false if the data does not have the form of the kind.
func (p *Proof) sealData(session seal.Session, k Kind, encoded []byte) (ok bool, err error) {
	var members []**form.Sealed
	var items []seal.Item
	switch k {
	case KindMDL:
		members = []**form.Sealed{&p.LicenseActivationMessage}
		items = []seal.Item{seal.LicenseActivationMessage}
	case KindStandard:
		members = []**form.Sealed{&p.ActivationCode, &p.EventReactivationCounter}
		items = []seal.Item{seal.ActivationCode, seal.EventReactivationCounter}
	}
	fields, ok := decodeData(k, encoded)
	if !ok {
		return false, nil
	}
	for i, item := range items {
		if len(fields[i]) == 0 {
			continue
		}
		c, err := session.Seal(item, fields[i])
		clear(fields[i])
		if err != nil {
			return false, fmt.Errorf("sealing %s: %w", item, err)
		}
		*members[i] = &form.Sealed{Data: string(upperHex(c.Data)), Counter: string(upperHex(c.Counter)), MAC: string(upperHex(c.MAC))}
	}
	return true, nil
}

// upperHex returns b in upper-case hexadecimal digits.
func upperHex(b []byte) []byte {
	const digits = "0123456789ABCDEF"
	text := make([]byte, 0, 2*len(b))
	for _, c := range b {
		text = append(text, digits[c>>4], digits[c&15])
	}
	return text
}
