package form

import (
	"fmt"
	"strings"
)

// Identifier names a registration.
type Identifier string

// Rule is 4 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.
func (Identifier) Rule() Rule { return Rule{Min: 4, Max: 64, Characters: identifier} }

// SerialNumber is that of a licence or of a device.
type SerialNumber string

// Rule is 1 to 22 of A-Z, a-z, 0-9 and '-'.
func (SerialNumber) Rule() Rule { return Rule{Min: 1, Max: 22, Characters: serial} }

// Key names a pending request: plain, or wrapped by the device in a secure-channel
// message that only the authentication server can read.
type Key string

// Lengths of keys in characters.
const (
	maxPlain   = 64
	minWrapped = 32
	maxWrapped = 1024
)

// Rule is that of a PlainKey or an even number of hex digits, at least 32.
func (Key) Rule() Rule {
	return Rule{Min: 1, Max: maxWrapped, Characters: alphanumeric, also: func(s string) string {
		if len(s) <= maxPlain || Key(s).Wrapped() {
			return ""
		}
		return fmt.Sprintf("must be 1 to %d characters of A-Z, a-z and 0-9, or an even number of hex digits, at least %d", maxPlain, minWrapped)
	}}
}

// Wrapped reports whether the device wrapped the key.
func (k Key) Wrapped() bool { return len(k) >= minWrapped && isHex(string(k)) }

// PlainKey is the plain key of a pending request.
type PlainKey string

// Rule is 1 to 64 of A-Z, a-z and 0-9.
func (PlainKey) Rule() Rule { return Rule{Min: 1, Max: maxPlain, Characters: alphanumeric} }

// UserID names a user within a domain.
type UserID string

// Domain is that of a user; the empty one is the authentication server's own.
type Domain string

// maxName is the longest name of a user or a domain: the authentication server keeps no
// more.
const maxName = 255

// MaxStoredText is the longest text that a registration keeps, in bytes.
const MaxStoredText = 255

// Rule is 1 to 255 characters of text.
func (UserID) Rule() Rule { return Rule{Min: 1, Max: maxName, Characters: text} }

// Rule is up to 255 characters of text.
func (Domain) Rule() Rule { return Rule{Max: maxName, Characters: text} }

// RegisteredUser is a user's name in a registration and its activation image, which parts
// its fields by semicolons.
type RegisteredUser string

// RegisteredDomain is the domain of a RegisteredUser.
type RegisteredDomain string

// Rule is 1 to 255 bytes of text without semicolons.
func (RegisteredUser) Rule() Rule { return kept(UserID("").Rule()) }

// Rule is up to 255 bytes of text without semicolons.
func (RegisteredDomain) Rule() Rule { return kept(Domain("").Rule()) }

func kept(r Rule) Rule {
	r.also = StoredTextProblem
	return r
}

// StoredTextProblem tells why a text cannot be kept in a registration, empty if it can.
func StoredTextProblem(s string) string {
	if len(s) > MaxStoredText {
		return fmt.Sprintf("must not be longer than %d bytes in UTF-8", MaxStoredText)
	}
	return ImageFieldProblem(s)
}

// ImageSeparator parts the fields of an activation image, which have no escape for it.
const ImageSeparator = ";"

// ImageFieldProblem tells why a text cannot be a field of an activation image, empty if it can.
func ImageFieldProblem(s string) string {
	if strings.Contains(s, ImageSeparator) {
		return "must not contain a semicolon"
	}
	return Rule{Max: len(s), Characters: text}.problem(s)
}

// StaticPassword authenticates a user for a registration.
type StaticPassword string

// Rule is 1 to 128 characters of text.
func (StaticPassword) Rule() Rule { return Rule{Min: 1, Max: 128, Characters: text} }

// Password verifies a user online: a one-time password, behind a static one with some
// policies.
type Password string

// Rule is 1 to 255 characters of text.
func (Password) Rule() Rule { return Rule{Min: 1, Max: 255, Characters: text} }

// LicenseType is the type of the licence that a registration is for.
type LicenseType string

// The licence types.
const (
	// LicenseMDL is a multi-device licence.
	LicenseMDL LicenseType = "mdl"
	// LicenseStandard is a licence for one device.
	LicenseStandard LicenseType = "standard"
)

// Rule is one of the licence types.
func (LicenseType) Rule() Rule {
	return Rule{Min: 1, Max: 16, Characters: lowercase, also: func(s string) string {
		if t := LicenseType(s); t == LicenseMDL || t == LicenseStandard {
			return ""
		}
		return fmt.Sprintf("must be %q or %q", LicenseMDL, LicenseStandard)
	}}
}

// ClientPublic is A of an exchange as it came, to be relayed: a number in hex.
type ClientPublic string

// Rule is 1 to 1026 hex digits: room for the largest group and a sign. The exchange knows
// the limit of its own.
func (ClientPublic) Rule() Rule { return Rule{Min: 1, Max: 1026, Characters: hexadecimal} }

// ClientEvidence is M1 of an exchange as it came, to be relayed: a number in hex.
type ClientEvidence string

// Rule is 1 to 1024 hex digits. The gateway's own exchange takes no more than 66.
func (ClientEvidence) Rule() Rule { return Rule{Min: 1, Max: 1024, Characters: hexadecimal} }

// DeviceCode is what a device shows when it is added to a licence.
type DeviceCode string

// Rule is 1 to 64 digits.
func (DeviceCode) Rule() Rule { return Rule{Min: 1, Max: 64, Characters: decimal} }

// Description is that of a device.
type Description string

// Rule is up to 255 characters.
func (Description) Rule() Rule { return Rule{Max: 255, Characters: anything} }

// Signature is a device's confirmation or approval.
type Signature string

// Rule is 1 to 64 of A-Z, a-z and 0-9.
func (Signature) Rule() Rule { return Rule{Min: 1, Max: 64, Characters: alphanumeric} }

// Response is a one-time password that completes the activation of a standard licence.
type Response string

// Rule is 1 to 64 of A-Z, a-z and 0-9.
func (Response) Rule() Rule { return Rule{Min: 1, Max: 64, Characters: alphanumeric} }

// DerivationCode binds a standard licence to a device.
type DerivationCode string

// Rule is 1 to 27 hex digits.
func (DerivationCode) Rule() Rule { return Rule{Min: 1, Max: 27, Characters: hexadecimal} }

// NotificationID is a push notification ID that the device wrapped.
type NotificationID string

// Rule is an even number of hex digits, 2 to 1070.
func (NotificationID) Rule() Rule { return wholeBytes(1070) }

// ActivationMessage is Activation Message 1 of a multi-device licence.
type ActivationMessage string

// Rule is an even number of hex digits, 2 to 4234.
func (ActivationMessage) Rule() Rule { return wholeBytes(4234) }

// InstanceActivationMessage is Activation Message 2 for a device.
type InstanceActivationMessage string

// Rule is an even number of hex digits, 2 to 1024.
func (InstanceActivationMessage) Rule() Rule { return wholeBytes(1024) }

// RequestMessage is what an authentication server tells a device in its secure channel.
type RequestMessage string

// Rule is an even number of hex digits, 2 to 16384.
func (RequestMessage) Rule() Rule { return wholeBytes(16 << 10) }

func wholeBytes(longest int) Rule {
	return Rule{Min: 1, Max: longest, Characters: hexadecimal, also: func(s string) string {
		if isHex(s) {
			return ""
		}
		return "must be an even number of hex digits, at least 2"
	}}
}

// ActivationCode is that of a standard licence.
type ActivationCode string

// Rule is 1 to 4142 printable characters of ASCII.
func (ActivationCode) Rule() Rule { return Rule{Min: 1, Max: 4142, Characters: printable} }

// EventCounter is the event reactivation counter of a standard licence.
type EventCounter string

// Rule is up to 91 printable characters of ASCII.
func (EventCounter) Rule() Rule { return Rule{Max: 91, Characters: printable} }
