package form

import (
	"fmt"
	"strings"
)

// Identifier names a registration.
type Identifier string

// Rule is 4 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.
func (Identifier) Rule() Rule { return Rule{Min: 4, Max: 64, Characters: identifier} }

// IdempotencyKey is what a client names a call by, so that it can repeat the call.
type IdempotencyKey string

// Rule is 16 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.
func (IdempotencyKey) Rule() Rule { return Rule{Min: 16, Max: 64, Characters: identifier} }

// SerialNumber is the serial number of a licence or of a device.
type SerialNumber string

// Rule is 1 to 22 of A-Z, a-z, 0-9 and '-'.
func (SerialNumber) Rule() Rule { return Rule{Min: 1, Max: 22, Characters: serial} }

// Key names a pending request: a challenge key or request key as plain text, or wrapped,
// that is, inside a secure-channel message of the device, which only the authentication
// server can read.
type Key string

// Lengths of keys in characters.
const (
	maxPlain   = 64
	minWrapped = 32
	maxWrapped = 1024
)

// Rule is the rule of PlainKey, or an even number of hex digits, 32 to 1024.
func (Key) Rule() Rule { return keyRule }

var keyRule = Rule{
	Min: 1, Max: maxWrapped, Characters: alphanumeric,
	Condition: fmt.Sprintf("at most %d characters, unless it is an even number of hexadecimal digits", maxPlain),
	pattern:   fmt.Sprintf("^(%s{1,%d}|(%s{2})+)$", alphanumeric.Pattern, maxPlain, hexadecimal.Pattern),
	further: func(s string) string {
		if len(s) <= maxPlain || Key(s).Wrapped() {
			return ""
		}
		return fmt.Sprintf("must be 1 to %d characters of A-Z, a-z and 0-9, or an even number of hex digits, at least %d", maxPlain, minWrapped)
	},
}

// Wrapped reports whether the key is wrapped: an even number of hex digits, at least 32.
func (k Key) Wrapped() bool { return len(k) >= minWrapped && len(k)%2 == 0 && IsHex(string(k)) }

// PlainKey is the challenge key or request key of a pending request as plain text.
type PlainKey string

// Rule is 1 to 64 of A-Z, a-z and 0-9.
func (PlainKey) Rule() Rule { return Rule{Min: 1, Max: maxPlain, Characters: alphanumeric} }

// UserID is the name of a user within a domain.
type UserID string

// Domain is the domain of a user. If it is empty, the authentication server uses its
// default domain.
type Domain string

// maxName is the greatest length of the name of a user or a domain in the records of the
// authentication server, in characters.
const maxName = 255

// MaxStoredText is the greatest length of a text in a stored registration, in bytes.
const MaxStoredText = 255

// Rule is 1 to 255 characters of text.
func (UserID) Rule() Rule { return Rule{Min: 1, Max: maxName, Characters: text} }

// Rule is up to 255 characters of text.
func (Domain) Rule() Rule { return Rule{Max: maxName, Characters: text} }

// RegisteredUser is a user ID that can be stored in a registration and written into an
// activation image, whose fields are separated by semicolons.
type RegisteredUser string

// RegisteredDomain is the domain of a RegisteredUser. It can be stored and written in the
// same way.
type RegisteredDomain string

// Rule is 1 to 255 bytes of text without semicolons.
func (RegisteredUser) Rule() Rule { return registeredUserRule }

// Rule is up to 255 bytes of text without semicolons.
func (RegisteredDomain) Rule() Rule { return registeredDomainRule }

var (
	registeredUserRule   = storable(UserID("").Rule())
	registeredDomainRule = storable(Domain("").Rule())
)

func storable(r Rule) Rule {
	r.Condition = fmt.Sprintf("no semicolon and at most %d bytes in UTF-8", MaxStoredText)
	r.pattern = "^[^" + ImageSeparator + strings.TrimPrefix(text.Pattern, "[^") + "*$"
	r.further = StoredTextProblem
	return r
}

// StoredTextProblem returns why a text cannot be stored in a registration, or the empty
// string if it can.
func StoredTextProblem(s string) string {
	if len(s) > MaxStoredText {
		return fmt.Sprintf("must not be longer than %d bytes in UTF-8", MaxStoredText)
	}
	return ImageFieldProblem(s)
}

// ImageSeparator separates the fields of an activation image. There is no way to escape it
// within a field.
const ImageSeparator = ";"

// ImageFieldProblem returns why a text cannot be a field of an activation image, or the
// empty string if it can.
func ImageFieldProblem(s string) string {
	if strings.Contains(s, ImageSeparator) {
		return "must not contain a semicolon"
	}
	return Rule{Max: len(s), Characters: text}.problem(s)
}

// StaticPassword is the password with which a user registers.
type StaticPassword string

// Rule is 1 to 128 characters of text.
func (StaticPassword) Rule() Rule { return Rule{Min: 1, Max: 128, Characters: text} }

// Password is what a user logs in with: a one-time password, which some policies of the
// authentication server require to follow the static password.
type Password string

// Rule is 1 to 255 characters of text.
func (Password) Rule() Rule { return Rule{Min: 1, Max: 255, Characters: text} }

// LicenseType is the type of licence that a registration asks for.
type LicenseType string

// The licence types.
const (
	// LicenseMDL is a multi-device licence (MDL).
	LicenseMDL LicenseType = "mdl"
	// LicenseStandard is a licence for one device.
	LicenseStandard LicenseType = "standard"
)

// Rule is one of the licence types.
func (LicenseType) Rule() Rule { return licenseTypeRule }

var licenseTypeRule = Rule{
	Min: 1, Max: 16, Characters: lowercase, Values: []string{string(LicenseMDL), string(LicenseStandard)},
	further: func(s string) string {
		if t := LicenseType(s); t == LicenseMDL || t == LicenseStandard {
			return ""
		}
		return fmt.Sprintf("must be %q or %q", LicenseMDL, LicenseStandard)
	},
}

// ProfileName is the name of a profile, a variant of the activation exchange.
type ProfileName string

// Rule is 1 to 32 printable characters of ASCII without spaces.
func (ProfileName) Rule() Rule { return Rule{Min: 1, Max: 32, Characters: visible} }

// ClientPublic is the client's ephemeral public key of an SRP exchange, called A, in hex.
// It is relayed as it was received.
type ClientPublic string

// Rule is 1 to 2050 hex digits, enough for a number of 8192 bits and a leading zero byte.
// The gateway's own exchange has a limit of its own.
func (ClientPublic) Rule() Rule { return Rule{Min: 1, Max: 2050, Characters: hexadecimal} }

// ClientEvidence is the client's evidence message of an SRP exchange, called M1, in hex. It
// is relayed as it was received.
type ClientEvidence string

// Rule is 1 to 1024 hex digits. The gateway's own exchange accepts at most
// two more than the evidence has.
func (ClientEvidence) Rule() Rule { return Rule{Min: 1, Max: 1024, Characters: hexadecimal} }

// DeviceCode is the code with which a device is added to a multi-device licence.
type DeviceCode string

// Rule is 1 to 64 digits.
func (DeviceCode) Rule() Rule { return Rule{Min: 1, Max: 64, Characters: decimal} }

// Description describes a device.
type Description string

// Rule is up to 255 characters of any kind.
func (Description) Rule() Rule { return Rule{Max: 255, Characters: anything} }

// Signature is the code with which a device confirms its activation or approves a request.
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

// NotificationID is a push notification ID inside a secure-channel message of the device.
type NotificationID string

// Rule is an even number of hex digits, 2 to 1070.
func (NotificationID) Rule() Rule { return notificationIDRule }

// ActivationMessage is Activation Message 1, which activates a multi-device licence on a
// device.
type ActivationMessage string

// Rule is an even number of hex digits, 2 to 4234.
func (ActivationMessage) Rule() Rule { return activationMessageRule }

// InstanceActivationMessage is Activation Message 2, which gives a device its own instance
// of a multi-device licence.
type InstanceActivationMessage string

// Rule is an even number of hex digits, 2 to 1024.
func (InstanceActivationMessage) Rule() Rule { return instanceActivationMessageRule }

// RequestMessage is the secure-channel message with which an authentication server sends a
// pending request to a device.
type RequestMessage string

// Rule is an even number of hex digits, 2 to 16384.
func (RequestMessage) Rule() Rule { return requestMessageRule }

var (
	notificationIDRule            = hexBytes(1070)
	activationMessageRule         = hexBytes(4234)
	instanceActivationMessageRule = hexBytes(1024)
	requestMessageRule            = hexBytes(16 << 10)
)

// hexBytes returns the rule of bytes in hex, at least one, at most longest digits.
func hexBytes(longest int) Rule {
	return Rule{
		Min: 1, Max: longest, Characters: hexadecimal,
		Condition: "an even number of digits", pattern: "^(" + hexadecimal.Pattern + "{2})*$",
		further: func(s string) string {
			if len(s)%2 == 0 {
				return ""
			}
			return "must be an even number of hex digits, at least 2"
		},
	}
}

// ActivationCode is the code that activates a standard licence.
type ActivationCode string

// Rule is 1 to 4142 printable characters of ASCII.
func (ActivationCode) Rule() Rule { return Rule{Min: 1, Max: 4142, Characters: printable} }

// EventCounter is the event reactivation counter of a standard licence.
type EventCounter string

// Rule is up to 91 printable characters of ASCII.
func (EventCounter) Rule() Rule { return Rule{Max: 91, Characters: printable} }
