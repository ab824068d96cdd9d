package solve

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/variant"
)

// Capture is one recorded exchange. It holds the password and the client's secret value: only
// exchanges of test users may be recorded. Its String reveals nothing.
//
// Its JSON form is an object. Numbers and byte strings are hexadecimal digits of either case,
// and all members but the first five are optional:
//
//	identity    registration identifier, 1 to 128 printable ASCII characters
//	password    activation password, the same
//	salt        1 to 64 bytes, as the phone got them
//	a           the client's secret value, a number
//	A           the client's public value, a number
//	B           the server's public value, a number, with the digits that the phone got
//	group       name of the group, if it is known
//	S           the secret that both sides compute, a number
//	K           the session key, 1 to 4096 bytes
//	M1          the client's evidence, 20, 32, 48 or 64 bytes
//	M2          the server's evidence, the same
//	items       what the server sent encrypted: a list of objects with
//	  item        the name, such as licenseActivationMessage
//	  data        the ciphertext, 1 to 65536 bytes
//	  counter     1 to 16 bytes
//	  mac         1 to 64 bytes, optional
//	  plaintext   the text before it was encrypted, optional
//
// One of S, K and M1 has to be there. Numbers have up to 1024 bytes and may lack leading zeros.
type Capture struct {
	Group              string
	Identity, Password string
	Salt               []byte
	Private            []byte // a
	ClientPublic       []byte // A
	ServerPublic       []byte // B
	Premaster          []byte // S
	Key                []byte // K
	ClientEvidence     []byte // M1
	ServerEvidence     []byte // M2
	Items              []Item
	// LowerCase says that B has lower-case digits.
	LowerCase bool
}

// Item is an encrypted value of a capture.
type Item struct {
	Name               string
	Data, Counter, MAC []byte
	Plaintext          string
}

// MaxCaptureSize is the greatest size in bytes of the JSON form of a capture.
const MaxCaptureSize = 1 << 20

// The greatest sizes of members in bytes, and the greatest number of items.
const (
	maxText   = 128
	maxSalt   = 64
	maxNumber = 1024
	maxKey    = 4096
	maxData   = 1 << 16
	maxMAC    = 64
	maxItems  = 8
)

// String returns a text without any value of the capture.
func (Capture) String() string { return "recorded exchange" }

// GoString is String.
func (c Capture) GoString() string { return c.String() }

// LogValue is String.
func (c Capture) LogValue() slog.Value { return slog.StringValue(c.String()) }

// String returns a text without any value of the item.
func (i Item) String() string { return "encrypted item" }

// GoString is String.
func (i Item) GoString() string { return i.String() }

// LogValue is String.
func (i Item) LogValue() slog.Value { return slog.StringValue(i.String()) }

// binary is a member of hexadecimal digits.
type binary struct {
	name string
	// least and most are the limits of its size in bytes. A member with the least size 0 is
	// optional. A number may have an odd number of digits.
	least, most int
	number      bool
	field       *[]byte
}

// binaries are the members of hexadecimal digits, in the order of an exchange.
func (c *Capture) binaries() []binary {
	return []binary{
		{"salt", 1, maxSalt, false, &c.Salt},
		{"a", 1, maxNumber, true, &c.Private},
		{"A", 1, maxNumber, true, &c.ClientPublic},
		{"B", 1, maxNumber, true, &c.ServerPublic},
		{"S", 0, maxNumber, true, &c.Premaster},
		{"K", 0, maxKey, false, &c.Key},
		{"M1", 0, maxMAC, false, &c.ClientEvidence},
		{"M2", 0, maxMAC, false, &c.ServerEvidence},
	}
}

func (i *Item) binaries() []binary {
	return []binary{
		{"data", 1, maxData, false, &i.Data},
		{"counter", 1, 16, false, &i.Counter},
		{"mac", 0, maxMAC, false, &i.MAC},
	}
}

// word is a member that is a text.
type word struct {
	name        string
	least, most int
	field       *string
}

// ParseCapture reads the JSON form. Unknown, missing and doubled members are errors. An error
// names the member and never contains a value.
func ParseCapture(encoded []byte) (Capture, error) {
	var c Capture
	if len(encoded) > MaxCaptureSize {
		return c, fmt.Errorf("has more than %d bytes", MaxCaptureSize)
	}
	members, err := parseObject(encoded)
	if err != nil {
		return c, err
	}
	items := members["items"]
	delete(members, "items")
	words := []word{{"group", 0, maxText, &c.Group}, {"identity", 1, maxText, &c.Identity}, {"password", 1, maxText, &c.Password}}
	if err := readMembers(members, words, c.binaries()); err != nil {
		return Capture{}, err
	}
	if err := c.readItems(items); err != nil {
		return Capture{}, err
	}
	if err := c.check(); err != nil {
		return Capture{}, err
	}
	c.LowerCase = lowerCase(members["B"])
	return c, nil
}

// check checks what concerns several members, or the meaning of one.
func (c *Capture) check() error {
	if c.Group != "" {
		if _, ok := variant.FindGroup(c.Group); !ok {
			return errors.New("group is not the name of a known group; leave it out if the group is not known")
		}
	}
	for _, evidence := range []binary{{name: "M1", field: &c.ClientEvidence}, {name: "M2", field: &c.ServerEvidence}} {
		if n := len(*evidence.field); n > 0 && hashesOf(n) == nil {
			return fmt.Errorf("%s must have 20, 32, 48 or 64 bytes, as many as a hash; write leading zeros, too", evidence.name)
		}
	}
	if c.Premaster == nil && c.Key == nil && c.ClientEvidence == nil {
		return errors.New("must have M1, K or S: without one of them nothing can be found")
	}
	return nil
}

func (c *Capture) readItems(encoded json.RawMessage) error {
	if encoded == nil {
		return nil
	}
	var list []json.RawMessage
	if json.Unmarshal(encoded, &list) != nil || list == nil {
		return errors.New("items must be a list")
	}
	if len(list) > maxItems {
		return fmt.Errorf("items has more than %d elements", maxItems)
	}
	for n, element := range list {
		var i Item
		members, err := parseObject(element)
		if err == nil {
			err = readMembers(members, []word{{"item", 1, maxText, &i.Name}, {"plaintext", 0, maxData, &i.Plaintext}}, i.binaries())
		}
		if err != nil {
			return fmt.Errorf("items[%d]: %w", n, err)
		}
		c.Items = append(c.Items, i)
	}
	return nil
}

// parseObject returns the members of an object.
func parseObject(encoded []byte) (map[string]json.RawMessage, error) {
	notObject := errors.New("is not a JSON object")
	d := json.NewDecoder(bytes.NewReader(encoded))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, notObject
	}
	members := map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, notObject
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, notObject
		}
		text, _ := name.(string)
		if _, ok := members[text]; ok {
			return nil, errors.New("has a member twice")
		}
		members[text] = value
	}
	if _, err := d.Token(); err != nil || len(bytes.TrimSpace(encoded[d.InputOffset():])) > 0 {
		return nil, notObject
	}
	return members, nil
}

// readMembers reads members into the fields that they are for.
func readMembers(members map[string]json.RawMessage, words []word, binaries []binary) error {
	known := make([]string, 0, len(words)+len(binaries))
	for _, w := range words {
		known = append(known, w.name)
		text, err := memberText(members, w.name, w.least > 0)
		if err != nil {
			return err
		}
		if len(text) > w.most || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("%s must have up to %d printable ASCII characters; record an exchange with such ones", w.name, w.most)
		}
		*w.field = text
	}
	for _, b := range binaries {
		known = append(known, b.name)
		digits, err := memberText(members, b.name, b.least > 0)
		if err != nil {
			return err
		}
		if digits == "" {
			continue
		}
		if b.number && len(digits)%2 == 1 {
			digits = "0" + digits
		}
		if *b.field, err = hex.DecodeString(digits); err != nil {
			return fmt.Errorf("%s must have hexadecimal digits, two for each byte", b.name)
		}
		if len(*b.field) > b.most {
			return fmt.Errorf("%s must have up to %d bytes", b.name, b.most)
		}
	}
	for name := range members {
		if !slices.Contains(known, name) {
			return fmt.Errorf("has a member that is none of %s", strings.Join(known, ", "))
		}
	}
	return nil
}

// memberText returns the text of a member.
func memberText(members map[string]json.RawMessage, name string, required bool) (string, error) {
	encoded, ok := members[name]
	if !ok {
		if required {
			return "", fmt.Errorf("%s is missing", name)
		}
		return "", nil
	}
	var text *string
	if json.Unmarshal(encoded, &text) != nil || text == nil || *text == "" {
		return "", fmt.Errorf("%s must be a text that is not empty; leave it out if it was not recorded", name)
	}
	return *text, nil
}

// lowerCase reports whether digits have lower-case letters and no others.
func lowerCase(digits []byte) bool {
	return bytes.ContainsAny(digits, "abcdef") && !bytes.ContainsAny(digits, "ABCDEF")
}

// MarshalJSON returns the JSON form, which has all values.
func (c Capture) MarshalJSON() ([]byte, error) {
	object := func(words []word, binaries []binary) map[string]any {
		members := map[string]any{}
		for _, w := range words {
			if *w.field != "" {
				members[w.name] = *w.field
			}
		}
		for _, b := range binaries {
			if digits := hex.EncodeToString(*b.field); digits != "" {
				if !c.LowerCase {
					digits = strings.ToUpper(digits)
				}
				members[b.name] = digits
			}
		}
		return members
	}
	capture := object([]word{{name: "group", field: &c.Group}, {name: "identity", field: &c.Identity}, {name: "password", field: &c.Password}}, c.binaries())
	var items []any
	for _, i := range c.Items {
		items = append(items, object([]word{{name: "item", field: &i.Name}, {name: "plaintext", field: &i.Plaintext}}, i.binaries()))
	}
	if items != nil {
		capture["items"] = items
	}
	return json.Marshal(capture)
}
