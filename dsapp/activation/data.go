package activation

import (
	"fmt"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/form"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
)

// Greatest lengths of activation data in characters.
const (
	maxActivationMessage = 4234
	maxActivationCode    = 4142
	maxEventCounter      = 91
)

// ActivationData is what a phone receives once it has proved the password, as
// the authentication server gave it.
type ActivationData struct { //nolint:revive // the project's word for it; Data alone would be any data
	// ActivationMessage is Activation Message 1 of a KindMDL registration: an
	// even number of hex digits, at most 4234.
	ActivationMessage string
	// ActivationCode of a KindStandard registration: 1 to 4142 printable ASCII
	// characters.
	ActivationCode string
	// EventReactivationCounter of a KindStandard registration: at most 91
	// printable ASCII characters, empty if there is none.
	EventReactivationCounter string
}

// encode checks the data for the kind and returns it in the form it is sealed
// in. Kinds without an exchange have no data.
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
		if err := checkHex("activationMessage", d.ActivationMessage, maxActivationMessage); err != nil {
			return nil, err
		}
		return encodeFields(strings.ToUpper(d.ActivationMessage)), nil
	case KindStandard:
		if d.ActivationCode == "" {
			return nil, &InvalidError{Member: "activationCode", Problem: "is missing"}
		}
		if err := checkPrintable("activationCode", d.ActivationCode, maxActivationCode); err != nil {
			return nil, err
		}
		if err := checkPrintable("eventReactivationCounter", d.EventReactivationCounter, maxEventCounter); err != nil {
			return nil, err
		}
		return encodeFields(d.ActivationCode, d.EventReactivationCounter), nil
	default:
		return nil, nil
	}
}

func checkHex(member, value string, limit int) error {
	switch {
	case value == "":
		return &InvalidError{Member: member, Problem: "is missing"}
	case len(value) > limit:
		return &InvalidError{Member: member, Problem: fmt.Sprintf("has more than %d characters", limit)}
	case len(value)%2 != 0:
		return &InvalidError{Member: member, Problem: "has an odd number of hex digits"}
	}
	for i := range len(value) {
		switch c := value[i]; {
		case '0' <= c && c <= '9', 'A' <= c && c <= 'F', 'a' <= c && c <= 'f':
		default:
			return &InvalidError{Member: member, Problem: "is not hexadecimal"}
		}
	}
	return nil
}

func checkPrintable(member, value string, limit int) error {
	if len(value) > limit {
		return &InvalidError{Member: member, Problem: fmt.Sprintf("has more than %d characters", limit)}
	}
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return &InvalidError{Member: member, Problem: "has a character that is not printable ASCII"}
		}
	}
	return nil
}

// Proof is the server's answer to a right proof.
type Proof struct {
	// Evidence is what the profile gives.
	Evidence string
	// LicenseActivationMessage is set for KindMDL.
	LicenseActivationMessage *form.Sealed
	// ActivationCode is set for KindStandard.
	ActivationCode *form.Sealed
	// EventReactivationCounter is set for KindStandard if there is one.
	EventReactivationCounter *form.Sealed
}

// sealData seals the encoded data of a registration into p. It reports false if
// the data does not have the form of the kind.
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
	default:
		return false, nil
	}
	fields, ok := decodeFields(encoded, len(items))
	if !ok {
		return false, nil
	}
	for i, item := range items {
		if len(fields[i]) == 0 {
			continue
		}
		c, err := session.Seal(item, fields[i])
		if err != nil {
			return false, fmt.Errorf("sealing %s: %w", item, err)
		}
		*members[i] = &form.Sealed{Data: upperHex(c.Data), Counter: upperHex(c.Counter), MAC: upperHex(c.MAC)}
	}
	return true, nil
}

func upperHex(b []byte) string { return fmt.Sprintf("%X", b) }
