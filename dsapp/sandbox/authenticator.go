package sandbox

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Sizes of the values and messages of an authenticator, in bytes unless the name has
// another unit, and labels for their keys. The sizes for a standard licence are the largest
// that the interface allows.
const (
	oneTimePasswordDigits  = 6
	loginSignatureDigits   = 16
	signatureDigits        = 7
	derivationCodeDigits   = 26
	activationCodeSize     = 2071 // 4,142 hex digits
	reactivationDigits     = 91
	nonceSize              = 16
	channelOverhead        = headerSize + 1 + nonceSize + instanceTagSize
	maxNotificationID      = 535 - channelOverhead // 1,070 hex digits when wrapped
	maxRequestKey          = 64
	informationFlags       = 0x0901
	oneTimePasswordLabel   = "sandbox one-time password"
	derivationCodeLabel    = "sandbox derivation code"
	requestSignatureLabel  = "sandbox request signature"
	activationCodeLabel    = "sandbox activation code"
	activationPaddingLabel = "sandbox activation code padding"
	channelEncryptionLabel = "sandbox channel encryption"
	channelMACLabel        = "sandbox channel mac"
	requestContent         = "request"
	wrappedKeyContent      = "key"
	notificationIDContent  = "notification ID"
	keyAlphabet            = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// Kind is the kind of a pending request.
type Kind string

// The kinds of pending requests.
const (
	KindLogin     Kind = "login"
	KindSignature Kind = "signature"
)

// Request is the content of a request message: a login or signature for the user to
// approve.
type Request struct {
	Kind   Kind           `json:"kind"`
	Key    string         `json:"key"` // challenge key or request key
	UserID string         `json:"userID"`
	Domain string         `json:"domain"`
	Title  string         `json:"title"`
	Fields []RequestField `json:"fields,omitempty"`
}

// RequestField is one data field of a Request.
type RequestField struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Authenticator is the device's side of an activated authenticator, made by
// Device.Authenticator or ActivateStandard. It does not use the vendor's algorithm. Its JSON
// form contains the secret, so that a simulated phone can be stored in a file. An
// Authenticator is not safe for concurrent use.
type Authenticator struct {
	// SerialNumber of the authenticator instance, for example VDS1000120-1, or of a standard
	// licence, for example VDS1000121.
	SerialNumber string `json:"serialNumber"`
	UserID       string `json:"userID"`
	Domain       string `json:"domain"`
	// Secret is shared with the authentication server.
	Secret []byte `json:"secret"`
	// Counter is the event counter of the next one-time password.
	Counter uint64 `json:"counter"`
}

// Open decrypts a request message in hex digits of either case. It returns an error if the
// message is altered or for another authenticator.
func (a *Authenticator) Open(requestMessage string) (Request, error) {
	request, _, err := a.channel().openRequest(requestMessage)
	return request, err
}

// Sign returns the signature that approves the request in a request message: 16 decimal
// digits for a login, 7 for a signature. The errors are those of Open.
func (a *Authenticator) Sign(requestMessage string) (string, error) {
	request, content, err := a.channel().openRequest(requestMessage)
	if err != nil {
		return "", err
	}
	return signRequest(a.Secret, request.Kind, content), nil
}

// WrapKey returns an encrypted information message with the key of a request to cancel, in
// upper-case hex digits. A key is 1 to 64 letters and digits.
func (a *Authenticator) WrapKey(key string) (string, error) {
	if !validKey(key) {
		return "", errors.New("key is not 1 to 64 letters and digits")
	}
	return a.channel().seal(informationFlags, wrappedKeyContent, []byte(key))
}

// WrapNotificationID returns an encrypted information message with the ID of the device in
// the push service, in upper-case hex digits. The ID has 1 to 497 bytes. The simulated
// server sends push notifications only to authenticators with a notification ID.
func (a *Authenticator) WrapNotificationID(id string) (string, error) {
	if id == "" || len(id) > maxNotificationID {
		return "", fmt.Errorf("notification ID is not 1 to %d bytes", maxNotificationID)
	}
	return a.channel().seal(informationFlags, notificationIDContent, []byte(id))
}

// OneTimePassword returns the next one-time password, of 6 decimal digits, and increments
// Counter.
func (a *Authenticator) OneTimePassword() string {
	password := oneTimePassword(a.Secret, a.Counter)
	a.Counter++
	return password
}

// DerivationCode returns the code, of 26 decimal digits, that can confirm the activation of
// a standard licence instead of a one-time password.
func (a *Authenticator) DerivationCode() string {
	return derivationCode(a.Secret, a.SerialNumber)
}

func (a *Authenticator) channel() secureChannel {
	return secureChannel{a.SerialNumber, a.Secret}
}

// ActivateStandard returns the authenticator of a standard licence with an activation code
// (4,142 hex digits of either case) and an event reactivation counter (91 decimal digits).
// userID and domain are its user, whom the activation code does not contain.
func ActivateStandard(activationCode, eventReactivationCounter, userID, domain string) (*Authenticator, error) {
	l, err := parseActivationCode(activationCode)
	if err != nil {
		return nil, err
	}
	counter, err := parseReactivationCounter(eventReactivationCounter)
	if err != nil {
		return nil, err
	}
	return &Authenticator{SerialNumber: l.serial, UserID: userID, Domain: domain, Secret: l.secret[:], Counter: counter}, nil
}

// Authenticator returns the authenticator of an activated device. It returns an error before
// ActivateInstance has succeeded. userID and domain are its user, whom the activation
// messages do not contain.
func (d *Device) Authenticator(userID, domain string) (*Authenticator, error) {
	if d.sequence == 0 {
		return nil, errOrder
	}
	secret := d.key
	return &Authenticator{SerialNumber: d.InstanceSerial(), UserID: userID, Domain: domain, Secret: secret[:]}, nil
}

// signRequest returns the signature over the content of a request message.
func signRequest(secret []byte, kind Kind, content []byte) string {
	digits := signatureDigits
	if kind == KindLogin {
		digits = loginSignatureDigits
	}
	return decimal(derive(secret, requestSignatureLabel, []byte(kind), content), digits)
}

func oneTimePassword(secret []byte, counter uint64) string {
	return decimal(derive(secret, oneTimePasswordLabel, binary.BigEndian.AppendUint64(nil, counter)), oneTimePasswordDigits)
}

func derivationCode(secret []byte, serial string) string {
	high := decimal(derive(secret, derivationCodeLabel, []byte(serial), []byte{0}), derivationCodeDigits/2)
	return high + decimal(derive(secret, derivationCodeLabel, []byte(serial), []byte{1}), derivationCodeDigits/2)
}

// activationCode returns the activation code of a standard licence in upper-case hex.
func (l license) activationCode() string {
	m := make([]byte, activationCodeSize)
	putHeader(m, l.serial)
	n := headerSize + copy(m[headerSize:], l.secret[:])
	end := len(m) - instanceTagSize
	xorStream(derive(l.secret[:], activationPaddingLabel), m[n:end], m[n:end])
	tag := derive(l.secret[:], activationCodeLabel, m[:end])
	copy(m[end:], tag[:])
	return upperHex(m)
}

func parseActivationCode(digits string) (license, error) {
	m, err := decodeHex(digits, activationCodeSize)
	if err != nil {
		return license{}, fmt.Errorf("activation code: %w", err)
	}
	l := license{secret: [secretSize]byte(m[headerSize:])}
	end := len(m) - instanceTagSize
	tag := derive(l.secret[:], activationCodeLabel, m[:end])
	if subtle.ConstantTimeCompare(tag[:instanceTagSize], m[end:]) != 1 {
		return license{}, errors.New("activation code is altered")
	}
	if l.serial, err = parseHeader(m); err != nil {
		return license{}, fmt.Errorf("activation code: %w", err)
	}
	return l, nil
}

// reactivationCounter returns the event reactivation counter: the event counter in
// 91 decimal digits.
func reactivationCounter(counter uint64) string {
	return fmt.Sprintf("%0*d", reactivationDigits, counter)
}

func parseReactivationCounter(digits string) (uint64, error) {
	if len(digits) != reactivationDigits || !isDecimal(digits) {
		return 0, fmt.Errorf("event reactivation counter is not %d decimal digits", reactivationDigits)
	}
	counter, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, errors.New("event reactivation counter is out of range")
	}
	return counter, nil
}

// A secureChannel encrypts and decrypts messages between the server and one
// authenticator.
type secureChannel struct {
	serial string // of the authenticator
	secret []byte
}

// seal returns a message in upper-case hex digits: header, sequence number of the
// authenticator, nonce, encrypted content, tag. A message of one kind cannot be opened as
// one of another kind.
func (c secureChannel) seal(flags uint16, kind string, content []byte) (string, error) {
	licenseSerial, sequence, err := splitSerial(c.serial)
	if err != nil {
		return "", err
	}
	m := make([]byte, channelOverhead+len(content))
	putHeader(m, licenseSerial)
	binary.BigEndian.PutUint16(m, flags)
	m[headerSize] = byte(sequence)
	start, end := headerSize+1+nonceSize, len(m)-instanceTagSize
	_, _ = rand.Read(m[headerSize+1 : start]) // never fails
	xorStream(derive(c.secret, channelEncryptionLabel, []byte(kind), m[:start]), m[start:end], content)
	tag := derive(c.secret, channelMACLabel, []byte(kind), m[:end])
	copy(m[end:], tag[:])
	return upperHex(m), nil
}

// open returns the content of a message that seal made for the same authenticator, in hex
// digits of either case.
func (c secureChannel) open(flags uint16, kind, digits string) ([]byte, error) {
	m, err := hex.DecodeString(digits)
	if err != nil {
		return nil, errors.New("secure-channel message is not an even number of hex digits")
	}
	if len(m) < channelOverhead || binary.BigEndian.Uint16(m) != flags {
		return nil, errors.New("secure-channel message is too short or of another type")
	}
	start, end := headerSize+1+nonceSize, len(m)-instanceTagSize
	tag := derive(c.secret, channelMACLabel, []byte(kind), m[:end])
	if subtle.ConstantTimeCompare(tag[:instanceTagSize], m[end:]) != 1 {
		return nil, errors.New("secure-channel message is altered or for another authenticator")
	}
	xorStream(derive(c.secret, channelEncryptionLabel, []byte(kind), m[:start]), m[start:end], m[start:end])
	return m[start:end], nil
}

// content returns the plaintext of the request message, over which the signature is made.
func (r Request) content() ([]byte, error) { return json.Marshal(r) }

func (c secureChannel) sealRequest(content []byte) (string, error) {
	return c.seal(messageFlags, requestContent, content)
}

func (c secureChannel) openRequest(message string) (Request, []byte, error) {
	content, err := c.open(messageFlags, requestContent, message)
	if err != nil {
		return Request{}, nil, err
	}
	var r Request
	if err := json.Unmarshal(content, &r); err != nil {
		return Request{}, nil, errors.New("request message holds no request")
	}
	return r, content, nil
}

// splitSerial splits the serial number of an authenticator. The sequence number is 0 for a
// standard licence.
func splitSerial(serial string) (licenseSerial string, sequence int, err error) {
	licenseSerial, suffix, ok := strings.Cut(serial, "-")
	if ok {
		sequence, err = strconv.Atoi(suffix)
		if err != nil || sequence < 1 || sequence > maxSequence || strconv.Itoa(sequence) != suffix {
			return "", 0, errors.New("serial number with an invalid sequence number")
		}
	}
	if len(licenseSerial) != serialPrefixLetters+serialNumberDigits ||
		strings.Trim(licenseSerial[:serialPrefixLetters], serialAlphabet) != "" ||
		!isDecimal(licenseSerial[serialPrefixLetters:]) {
		return "", 0, errors.New("serial number is not 3 letters or digits and 7 digits")
	}
	return licenseSerial, sequence, nil
}

func validKey(key string) bool {
	return key != "" && len(key) <= maxRequestKey && strings.Trim(key, keyAlphabet) == ""
}
