package sandbox

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Sizes of the simulated messages, in bytes unless the name has another unit, and labels
// for their keys. Activation Message 1 has the largest size that the interface allows, so
// that tests find whatever cannot carry it.
const (
	secretSize              = 32
	headerSize              = 7
	activationMessageSize   = 2117 // 4,234 hex digits
	instanceTagSize         = 14
	instanceMessageSize     = headerSize + 1 + secretSize + instanceTagSize // 108 hex digits
	deviceCodeDigits        = 26
	deviceCodeMACDigits     = 13
	confirmationDigits      = 16
	maxSequence             = 99
	simulatedDeviceType     = 7
	serialPrefixLetters     = 3
	serialNumberDigits      = 7
	largestSerialNumber     = 9_999_999
	serialRadix             = 40
	serialPrefix            = "VDS"
	messageFlags            = 0x0041
	serialAlphabet          = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	licenseMessageLabel     = "sandbox license message"
	licensePaddingLabel     = "sandbox license padding"
	deviceCodeLabel         = "sandbox device code"
	instanceEncryptionLabel = "sandbox instance encryption"
	instanceMACLabel        = "sandbox instance mac"
	confirmationLabel       = "sandbox confirmation"
)

var (
	errDeviceCode = errors.New("device code is not valid for this licence")
	errOrder      = errors.New("the licence has to be activated first")
)

// A license is the content of Activation Message 1.
type license struct {
	serial string // 3 letters or digits, 7 digits
	secret [secretSize]byte
}

// activationMessage returns Activation Message 1 in upper-case hex digits. It depends only
// on the licence, since all devices of a licence get the same message.
func (l license) activationMessage() string {
	m := make([]byte, activationMessageSize)
	putHeader(m, l.serial)
	n := headerSize + copy(m[headerSize:], l.secret[:])
	end := len(m) - sha256.Size
	key := derive(l.secret[:], licensePaddingLabel)
	xorStream(key, m[n:end], m[n:end])
	tag := derive(l.secret[:], licenseMessageLabel, m[:end])
	copy(m[end:], tag[:])
	return upperHex(m)
}

// parseActivationMessage parses Activation Message 1 in hex digits of either case.
func parseActivationMessage(digits string) (license, error) {
	m, err := decodeHex(digits, activationMessageSize)
	if err != nil {
		return license{}, fmt.Errorf("activation message 1: %w", err)
	}

	l := license{secret: [secretSize]byte(m[headerSize:])}
	end := len(m) - sha256.Size
	tag := derive(l.secret[:], licenseMessageLabel, m[:end])
	if subtle.ConstantTimeCompare(tag[:], m[end:]) != 1 {
		return license{}, errors.New("activation message 1 is altered")
	}

	if l.serial, err = parseHeader(m); err != nil {
		return license{}, fmt.Errorf("activation message 1: %w", err)
	}
	return l, nil
}

// deviceCode returns the code by which a device requests an instance of the licence: 2
// digits type, 10 digits identity, 13 digits proof that the device has the licence, 1 check
// digit.
func (l license) deviceCode(id uint32) string {
	payload := fmt.Sprintf("%02d%010d", simulatedDeviceType, id)
	mac := derive(l.secret[:], deviceCodeLabel, []byte(payload))
	digits := payload + decimal(mac, deviceCodeMACDigits)
	return digits + string(luhn(digits))
}

// verifyDeviceCode verifies a device code and returns the identity of the device.
func (l license) verifyDeviceCode(code string) (uint32, error) {
	if len(code) != deviceCodeDigits || !isDecimal(code) {
		return 0, fmt.Errorf("%w: not %d decimal digits", errDeviceCode, deviceCodeDigits)
	}
	if last := len(code) - 1; luhn(code[:last]) != code[last] {
		return 0, fmt.Errorf("%w: wrong check digit", errDeviceCode)
	}
	if typ := code[:2]; typ != fmt.Sprintf("%02d", simulatedDeviceType) {
		return 0, fmt.Errorf("%w: unknown device type", errDeviceCode)
	}
	id, err := strconv.ParseUint(code[2:12], 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%w: device identity out of range", errDeviceCode)
	}
	if subtle.ConstantTimeCompare([]byte(l.deviceCode(uint32(id))), []byte(code)) != 1 {
		return 0, fmt.Errorf("%w: made for another licence", errDeviceCode)
	}
	return uint32(id), nil
}

// instanceMessage returns Activation Message 2 in upper-case hex digits: the key of an
// authenticator instance, encrypted for the device with the code. Each sequence number must
// be used once per licence, since the encryption key depends on it.
func (l license) instanceMessage(code string, sequence int, key [secretSize]byte) string {
	m := make([]byte, instanceMessageSize)
	putHeader(m, l.serial)
	m[headerSize] = byte(sequence)
	end := len(m) - instanceTagSize
	xorStream(l.instanceKey(instanceEncryptionLabel, code, m[headerSize]), m[headerSize+1:end], key[:])
	tag := derive(l.secret[:], instanceMACLabel, []byte(code), m[:end])
	copy(m[end:], tag[:])
	return upperHex(m)
}

// openInstanceMessage decrypts Activation Message 2 for the device with the code.
func (l license) openInstanceMessage(code, digits string) (sequence int, key [secretSize]byte, err error) {
	m, err := decodeHex(digits, instanceMessageSize)
	if err != nil {
		return 0, key, fmt.Errorf("activation message 2: %w", err)
	}

	end := len(m) - instanceTagSize
	tag := derive(l.secret[:], instanceMACLabel, []byte(code), m[:end])
	if subtle.ConstantTimeCompare(tag[:instanceTagSize], m[end:]) != 1 {
		return 0, key, errors.New("activation message 2 is altered or for another device")
	}
	serial, err := parseHeader(m)
	if err != nil {
		return 0, key, fmt.Errorf("activation message 2: %w", err)
	}
	if serial != l.serial {
		return 0, key, errors.New("activation message 2 is for another licence")
	}
	sequence = int(m[headerSize])
	if sequence < 1 || sequence > maxSequence {
		return 0, key, errors.New("activation message 2: sequence number out of range")
	}

	xorStream(l.instanceKey(instanceEncryptionLabel, code, m[headerSize]), key[:], m[headerSize+1:end])
	return sequence, key, nil
}

func (l license) instanceKey(label, code string, sequence byte) [sha256.Size]byte {
	return derive(l.secret[:], label, []byte(code), []byte{sequence})
}

// confirmation returns the signature, of 16 digits, by which a device proves that it has
// decrypted Activation Message 2.
func confirmation(key [secretSize]byte, code, message string) string {
	mac := derive(key[:], confirmationLabel, []byte(code), []byte(strings.ToUpper(message)))
	return decimal(mac, confirmationDigits)
}

// instanceSerial returns the serial number of an authenticator instance.
func instanceSerial(license string, sequence int) string {
	return license + "-" + strconv.Itoa(sequence)
}

// Device is a simulated device that can be activated. It does not use the vendor's
// algorithm. The zero Device is that with identity 0. A Device is not safe for concurrent
// use.
type Device struct {
	id       uint32
	license  license
	code     string
	sequence int
	key      [secretSize]byte // of the authenticator instance
}

// NewDevice returns a device without a licence.
func NewDevice(id uint32) *Device { return &Device{id: id} }

// ActivateLicense processes Activation Message 1 (4,234 hex digits of either case) and
// returns the device code: 26 decimal digits, the last of which is a check digit.
func (d *Device) ActivateLicense(message string) (deviceCode string, err error) {
	l, err := parseActivationMessage(message)
	if err != nil {
		return "", err
	}
	d.license, d.code, d.sequence = l, l.deviceCode(d.id), 0
	return d.code, nil
}

// ActivateInstance processes Activation Message 2 (108 hex digits of either case) and
// returns the confirmation signature: 16 decimal digits. It returns an error before
// ActivateLicense has succeeded, and for the message of another device.
func (d *Device) ActivateInstance(message string) (signature string, err error) {
	if d.code == "" {
		return "", errOrder
	}
	sequence, key, err := d.license.openInstanceMessage(d.code, message)
	if err != nil {
		return "", err
	}
	d.sequence, d.key = sequence, key
	return confirmation(key, d.code, message), nil
}

// SerialNumber returns the serial number of the licence, empty before ActivateLicense.
func (d *Device) SerialNumber() string { return d.license.serial }

// InstanceSerial returns the serial number of the authenticator instance, for example
// VDS1000120-1, empty before ActivateInstance.
func (d *Device) InstanceSerial() string {
	if d.sequence == 0 {
		return ""
	}
	return instanceSerial(d.license.serial, d.sequence)
}

// putHeader writes the flags and the serial number in packed form: three characters in
// radix 40, then the number in 3 bytes.
func putHeader(m []byte, serial string) {
	binary.BigEndian.PutUint16(m, messageFlags)
	prefix := 0
	for i := range serialPrefixLetters {
		prefix = prefix*serialRadix + strings.IndexByte(serialAlphabet, serial[i])
	}
	binary.BigEndian.PutUint16(m[2:], uint16(prefix))
	number, _ := strconv.Atoi(serial[serialPrefixLetters:])
	m[4], m[5], m[6] = byte(number>>16), byte(number>>8), byte(number)
}

// parseHeader returns the serial number of a message of at least 7 bytes.
func parseHeader(m []byte) (string, error) {
	if binary.BigEndian.Uint16(m) != messageFlags {
		return "", errors.New("unknown message flags")
	}
	prefix := int(binary.BigEndian.Uint16(m[2:]))
	var letters [serialPrefixLetters]byte
	for i := range letters {
		digit := prefix % serialRadix
		if digit >= len(serialAlphabet) {
			return "", errors.New("serial number with an unknown character")
		}
		letters[len(letters)-1-i] = serialAlphabet[digit]
		prefix /= serialRadix
	}
	number := int(m[4])<<16 | int(m[5])<<8 | int(m[6])
	if prefix != 0 || number > largestSerialNumber {
		return "", errors.New("serial number out of range")
	}
	return fmt.Sprintf("%s%0*d", letters[:], serialNumberDigits, number), nil
}

// derive returns HMAC-SHA-256 over the label and the parts, each with its length in front,
// so that different lists of parts have different inputs.
func derive(secret []byte, label string, parts ...[]byte) [sha256.Size]byte {
	h := hmac.New(sha256.New, secret)
	for _, part := range append([][]byte{[]byte(label)}, parts...) {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// xorStream encrypts or decrypts with AES-256-CTR and a zero counter. Each key must be used
// once.
func xorStream(key [sha256.Size]byte, dst, src []byte) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("aes: " + err.Error()) // only a wrong key size
	}
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(dst, src)
}

// decimal returns the last n decimal digits of a hash, n at most 19.
func decimal(mac [sha256.Size]byte, n int) string {
	digits := fmt.Sprintf("%020d", binary.BigEndian.Uint64(mac[:]))
	return digits[len(digits)-n:]
}

// luhn returns the check digit that completes decimal digits.
func luhn(digits string) byte {
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 0 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return byte('0' + (10-sum%10)%10)
}

func isDecimal(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

func decodeHex(digits string, size int) ([]byte, error) {
	if len(digits) != 2*size {
		return nil, fmt.Errorf("not %d hex digits", 2*size)
	}
	m, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("not %d hex digits", 2*size)
	}
	return m, nil
}

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }
