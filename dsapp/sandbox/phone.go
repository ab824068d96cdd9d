package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

const (
	maxAnswerSize = 1 << 20 // bytes
	// shownDigits is how much of a long or sensitive value a Step shows at either end.
	shownDigits = 4
	hidden      = "(not shown)"
)

// ErrUnverified means that an answer came and did not stand up to a check of
// the phone: wrong server evidence, altered activation data, a message for
// another licence or device.
var ErrUnverified = errors.New("answer could not be verified")

// RefusalError is an answer of the gateway that is not a success.
type RefusalError struct {
	// Call is the name of the REST service.
	Call       string
	HTTPStatus int
	// ResultCodes are those of the answer, all zero if it had none. Version 1
	// carries the return code and the name of the status only.
	ResultCodes ResultCodes
	// Description is the errorDescription of the answer, if it had one.
	Description string
}

// Error names the service, the HTTP status, the status and the description.
func (e *RefusalError) Error() string {
	text := fmt.Sprintf("%s was refused: HTTP status %d", e.Call, e.HTTPStatus)
	switch c := e.ResultCodes; {
	case c == ResultCodes{}:
	case c.ReturnCodeEnum == "": // version 1, which has no status code
		text += fmt.Sprintf(", %s (error code %d)", c.StatusCodeEnum, c.ReturnCode)
	default:
		text += fmt.Sprintf(", %s (%d)", c.StatusCodeEnum, c.StatusCode)
	}
	if e.Description != "" {
		text += ": " + e.Description
	}
	return text
}

// ResultCodes is the outcome in an answer of the gateway.
type ResultCodes struct {
	ReturnCodeEnum string `json:"returnCodeEnum"`
	StatusCodeEnum string `json:"statusCodeEnum"`
	ReturnCode     int    `json:"returnCode"`
	StatusCode     int    `json:"statusCode"`
}

// Member is one member of a request or of an answer as a Step shows it.
type Member struct {
	Name  string
	Value string
}

// Step is one REST call as it went, for people to read. Passwords never show,
// keys, evidence and ciphertexts only with their first and last digits.
type Step struct {
	Call       string // name of the REST service
	Sent       []Member
	HTTPStatus int // 0 if no answer came
	Received   []Member
	Verified   []string // what the phone checked, in words
}

// Phone is a simulated phone. Its fields are set before use; a Phone with a
// Trace that may be called concurrently is safe for concurrent use.
type Phone struct {
	// BaseURL of the gateway, for example https://localhost:11080.
	BaseURL string
	// APIKey is the front-end key.
	APIKey string
	// Client sends the calls, http.DefaultClient if nil.
	Client *http.Client
	// Version of the REST services, 1 or 2; 0 stands for 2.
	Version int
	// Profile of the SRP exchange, srp.DefaultProfile if empty.
	Profile string
	// DeviceID is the identity of the simulated device; 0 stands for a random one.
	DeviceID uint32
	// Description of the device, sent by version 2 if not empty.
	Description string
	// Trace, if not nil, gets every call after its answer was checked, failed
	// ones included.
	Trace func(Step)
}

// Activated is the outcome of an activation.
type Activated struct {
	// UserID and Domain are empty with version 1, which does not tell.
	UserID string
	Domain string
	// SerialNumber is that of the licence, for example VDS1000120.
	SerialNumber string
	// InstanceSerial is that of the authenticator instance, for example VDS1000120-1.
	InstanceSerial string
}

// Activate performs the four calls of an online activation. It fails with a
// *RefusalError if the gateway refuses a call, and with an error that wraps
// ErrUnverified if an answer does not stand up to the phone's checks; the calls
// after that are not made.
func (p *Phone) Activate(ctx context.Context, registrationIdentifier, activationPassword string) (Activated, error) {
	version, err := p.version()
	if err != nil {
		return Activated{}, err
	}
	name := p.Profile
	if name == "" {
		name = srp.DefaultProfile
	}
	profile, err := srp.LookupProfile(name)
	if err != nil {
		return Activated{}, fmt.Errorf("preparing the exchange: %w", err)
	}
	client, err := profile.NewClient(registrationIdentifier, activationPassword)
	if err != nil {
		return Activated{}, fmt.Errorf("preparing the exchange: %w", err)
	}
	device := NewDevice(p.deviceID())
	identifier := Member{version.identifier, registrationIdentifier}

	var evidence, serverPublic []byte
	err = p.do(ctx, p.APIKey, call{
		version: version,
		service: "DSAPPSRPGenerateEphemeralKey",
		sent:    []Member{identifier, {"clientEphemeralPublicKey", upperHex(client.Public())}},
		check: func(a answer) ([]string, error) {
			salt, err := a.hex("salt")
			if err != nil {
				return nil, err
			}
			if serverPublic, err = a.hex("serverEphemeralPublicKey"); err != nil {
				return nil, err
			}
			if evidence, err = client.Prove(salt, serverPublic); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrUnverified, err)
			}
			return []string{"the server's ephemeral public key is in range"}, nil
		},
	})
	if err != nil {
		return Activated{}, err
	}

	var deviceCode string
	err = p.do(ctx, p.APIKey, call{
		version: version,
		service: "DSAPPSRPGenerateActivationData",
		sent:    []Member{identifier, {"clientEvidenceMessage", upperHex(evidence)}},
		check: func(a answer) (verified []string, err error) {
			deviceCode, verified, err = openActivationData(a, client, serverPublic, device)
			return verified, err
		},
	})
	if err != nil {
		return Activated{}, err
	}

	var signature string
	sent := []Member{identifier, {"deviceCode", deviceCode}}
	if p.Description != "" && !version.flat {
		sent = append(sent, Member{"description", p.Description})
	}
	err = p.do(ctx, p.APIKey, call{
		version: version,
		service: "MdlAddDevice",
		sent:    sent,
		check: func(a answer) ([]string, error) {
			message, err := a.text("instanceActivationMessage")
			if err != nil {
				return nil, err
			}
			if signature, err = device.ActivateInstance(message); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrUnverified, err)
			}
			return []string{"activation message 2 is for this device: " + device.InstanceSerial()}, nil
		},
	})
	if err != nil {
		return Activated{}, err
	}

	done := Activated{SerialNumber: device.SerialNumber(), InstanceSerial: device.InstanceSerial()}
	err = p.do(ctx, p.APIKey, call{
		version: version,
		service: "MdlActivate",
		sent:    []Member{identifier, {"signature", signature}},
		check: func(a answer) ([]string, error) {
			if version.flat {
				return nil, nil
			}
			serial, err := a.text("serialNumber")
			if err != nil {
				return nil, err
			}
			if serial != done.SerialNumber {
				return nil, fmt.Errorf("%w: serialNumber is not that of the licence", ErrUnverified)
			}
			if done.UserID, err = a.text("userID"); err != nil {
				return nil, err
			}
			if done.Domain, err = a.text("domain"); err != nil {
				return nil, err
			}
			return []string{"the serial number is that of the licence"}, nil
		},
	})
	if err != nil {
		return Activated{}, err
	}
	return done, nil
}

// openActivationData checks the server evidence, opens Activation Message 1 and
// lets the device process it.
func openActivationData(a answer, client *srp.Client, serverPublic []byte, device *Device) (deviceCode string, verified []string, err error) {
	serverEvidence, err := a.hex("serverEvidenceMessage")
	if err != nil {
		return "", nil, err
	}
	key, err := client.Confirm(serverEvidence)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrUnverified, err)
	}
	defer clear(key)
	verified = append(verified, "the server evidence shows that the server knows the activation password's verifier")

	var sealed seal.Ciphertext
	for _, m := range []struct {
		name string
		to   *[]byte
	}{
		{"encryptedLicenseActivationMessage", &sealed.Data},
		{"encryptedCounter", &sealed.Counter},
		{"mac", &sealed.MAC},
	} {
		if *m.to, err = a.hex(m.name); err != nil {
			return "", verified, err
		}
	}
	message, err := seal.NewTransport(key, client.Public(), serverPublic).Open(seal.LicenseActivationMessage, sealed)
	if err != nil {
		return "", verified, fmt.Errorf("%w: activation data: %w", ErrUnverified, err)
	}
	defer clear(message)
	verified = append(verified, "the MAC covers the encrypted activation message")

	if deviceCode, err = device.ActivateLicense(string(message)); err != nil {
		return "", verified, fmt.Errorf("%w: %w", ErrUnverified, err)
	}
	return deviceCode, append(verified, "activation message 1 is intact: "+device.SerialNumber()), nil
}

// UserRegistration is what the bank's site knows about a user who wants to
// activate a phone.
type UserRegistration struct {
	UserID         string
	Domain         string // may be empty
	StaticPassword string
	SerialNumber   string // of a certain licence, may be empty
}

// UserRegistered is what the bank's site shows to the user.
type UserRegistered struct {
	RegistrationIdentifier string
	ActivationPassword     string
	// ActivationImage is the hex content of the image that carries both.
	ActivationImage string
	ExpiresAt       time.Time
}

// RegisterUser plays the bank's site: it registers a user for online activation
// with the back-end key. The service exists in version 2 only.
func (p *Phone) RegisterUser(ctx context.Context, backEndKey string, u UserRegistration) (UserRegistered, error) {
	sent := []Member{{"userID", u.UserID}}
	if u.Domain != "" {
		sent = append(sent, Member{"domain", u.Domain})
	}
	sent = append(sent, Member{"staticPassword", u.StaticPassword})
	if u.SerialNumber != "" {
		sent = append(sent, Member{"serialNumber", u.SerialNumber})
	}

	var r UserRegistered
	err := p.do(ctx, backEndKey, call{
		version: version2,
		service: "DSAPPSRPRegister",
		sent:    sent,
		check: func(a answer) ([]string, error) {
			for _, m := range []struct {
				name string
				to   *string
			}{
				{"registrationIdentifier", &r.RegistrationIdentifier},
				{"activationPassword", &r.ActivationPassword},
				{"activationImage", &r.ActivationImage},
			} {
				var err error
				if *m.to, err = a.text(m.name); err != nil {
					return nil, err
				}
			}
			expires, err := a.text("expiresAt")
			if err != nil {
				return nil, err
			}
			if r.ExpiresAt, err = time.Parse(time.RFC3339, expires); err != nil {
				return nil, a.bad("expiresAt", "is not a time of RFC 3339")
			}
			return r.checkImage(a, u)
		},
	})
	if err != nil {
		return UserRegistered{}, err
	}
	return r, nil
}

// checkImage compares the activation image with the members beside it.
func (r UserRegistered) checkImage(a answer, u UserRegistration) ([]string, error) {
	content, err := a.hex("activationImage")
	if err != nil {
		return nil, err
	}
	fields := strings.Split(string(content), ";")
	if len(fields) != 7 || fields[0] != "01" || fields[1] != "01" {
		return nil, fmt.Errorf("%w: activationImage is not an activation image of version 01", ErrUnverified)
	}
	if fields[2] != u.UserID || (u.Domain != "" && fields[3] != u.Domain) ||
		fields[4] != r.RegistrationIdentifier || fields[5] != r.ActivationPassword {
		return nil, fmt.Errorf("%w: activationImage differs from the registration", ErrUnverified)
	}
	return []string{"the activation image carries the same user, identifier and password"}, nil
}

// A version of the REST services.
type version struct {
	prefix     string
	identifier string // name of the registration identifier
	flat       bool   // result codes and data in one object
}

var (
	version1 = version{"/rest/activation/", "registrationID", true}
	version2 = version{"/rest/v2/provisioning/", "registrationIdentifier", false}
)

func (p *Phone) version() (version, error) {
	switch p.Version {
	case 1:
		return version1, nil
	case 0, 2:
		return version2, nil
	default:
		return version{}, errors.New("version of the REST services is neither 1 nor 2")
	}
}

func (p *Phone) deviceID() uint32 {
	if p.DeviceID != 0 {
		return p.DeviceID
	}
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint32(b[:])
}

// A call is one REST call with the checks that its answer has to pass.
type call struct {
	version version
	service string
	sent    []Member
	check   func(answer) (verified []string, err error)
}

// do performs a call and reports it to Trace.
func (p *Phone) do(ctx context.Context, key string, c call) error {
	step := Step{Call: c.service}
	for _, m := range c.sent {
		step.Sent = append(step.Sent, Member{m.Name, show(m.Name, m.Value)})
	}
	err := p.perform(ctx, key, c, &step)
	if p.Trace != nil {
		p.Trace(step)
	}
	return err
}

func (p *Phone) perform(ctx context.Context, key string, c call, step *Step) error {
	request := make(map[string]string, len(c.sent))
	for _, m := range c.sent {
		request[m.Name] = m.Value
	}
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("calling %s: %w", c.service, err)
	}
	url := strings.TrimSuffix(p.BaseURL, "/") + c.version.prefix + c.service
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("calling %s: %w", c.service, err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.SetBasicAuth(key, "")

	client := p.Client
	if client == nil {
		client = http.DefaultClient
	}
	response, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("calling %s: %w", c.service, err)
	}
	defer response.Body.Close()
	step.HTTPStatus = response.StatusCode
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerSize+1))
	if err != nil {
		return fmt.Errorf("calling %s: %w", c.service, err)
	}
	if len(content) > maxAnswerSize {
		return fmt.Errorf("calling %s: answer is larger than %d bytes", c.service, maxAnswerSize)
	}

	a, err := readAnswer(c.service, response, content, c.version.flat)
	if err != nil {
		return err
	}
	step.Received = a.shown
	if response.StatusCode != http.StatusOK || a.codes.ReturnCode != 0 {
		return &RefusalError{c.service, response.StatusCode, a.codes, a.description}
	}
	step.Verified, err = c.check(a)
	return err
}

// An answer is a decoded answer of the gateway.
type answer struct {
	service     string
	codes       ResultCodes
	description string
	data        map[string]json.RawMessage
	shown       []Member
}

// readAnswer decodes an answer. One that is no success may have any form: it is
// a refusal without result codes then.
func readAnswer(service string, r *http.Response, content []byte, flat bool) (answer, error) {
	a := answer{service: service}
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	err := errors.New("it is not JSON")
	if media == "application/json" {
		err = a.decode(content, flat)
	}
	if err == nil || r.StatusCode != http.StatusOK {
		return a, nil
	}
	return a, fmt.Errorf("answer of %s: %w", service, err)
}

func (a *answer) decode(content []byte, flat bool) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(content, &members); err != nil {
		return errors.New("it is not a JSON object")
	}
	if raw, ok := members["errorDescription"]; ok && json.Unmarshal(raw, &a.description) != nil {
		return errors.New("errorDescription is not a string")
	}

	if flat {
		if json.Unmarshal(members["errorCode"], &a.codes.ReturnCode) != nil ||
			json.Unmarshal(members["errorMessage"], &a.codes.StatusCodeEnum) != nil {
			return errors.New("errorCode or errorMessage is missing or not of its type")
		}
		if (a.codes.ReturnCode == 0) != (a.codes.StatusCodeEnum == "STAT_SUCCESS") {
			return errors.New("errorCode and errorMessage contradict each other")
		}
		a.shown = append(a.shown,
			Member{"errorCode", fmt.Sprint(a.codes.ReturnCode)}, Member{"errorMessage", a.codes.StatusCodeEnum})
		a.data = members
	} else {
		raw, ok := members["resultCodes"]
		if !ok || json.Unmarshal(raw, &a.codes) != nil {
			return errors.New("resultCodes is missing or not of its type")
		}
		if (a.codes.ReturnCode == 0) != (a.codes.ReturnCodeEnum == "RET_SUCCESS") || a.codes.StatusCodeEnum == "" {
			return errors.New("resultCodes contradict each other")
		}
		a.shown = append(a.shown,
			Member{"returnCodeEnum", a.codes.ReturnCodeEnum}, Member{"statusCodeEnum", a.codes.StatusCodeEnum})
		if raw, ok := members["result"]; ok && json.Unmarshal(raw, &a.data) != nil {
			return errors.New("result is not an object")
		}
	}
	for _, name := range shownMembers {
		var value string
		if raw, ok := a.data[name]; ok && json.Unmarshal(raw, &value) == nil {
			a.shown = append(a.shown, Member{name, show(name, value)})
		}
	}
	if a.description != "" {
		a.shown = append(a.shown, Member{"errorDescription", a.description})
	}
	return nil
}

// text gives a member that has to be a string; it may be empty.
func (a answer) text(name string) (string, error) {
	raw, ok := a.data[name]
	if !ok {
		return "", a.bad(name, "is missing")
	}
	var value *string
	if json.Unmarshal(raw, &value) != nil || value == nil {
		return "", a.bad(name, "is not a string")
	}
	return *value, nil
}

// hex gives the bytes of a member that has to be an even number of hex digits.
func (a answer) hex(name string) ([]byte, error) {
	digits, err := a.text(name)
	if err != nil {
		return nil, err
	}
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) == 0 {
		return nil, a.bad(name, "is not an even number of hex digits")
	}
	return b, nil
}

func (a answer) bad(member, problem string) error {
	return fmt.Errorf("answer of %s: %s %s", a.service, member, problem)
}

// shownMembers is the order in which a Step lists what it knows of a result.
var shownMembers = [...]string{
	"registrationIdentifier", "activationPassword", "activationImage", "expiresAt",
	"serverEphemeralPublicKey", "salt",
	"serverEvidenceMessage", "encryptedLicenseActivationMessage", "encryptedCounter", "mac",
	"instanceActivationMessage",
	"userID", "domain", "serialNumber",
}

// show gives a value as people may see it. What is not known to be harmless is
// hidden.
func show(name, value string) string {
	switch name {
	case "registrationIdentifier", "registrationID", "userID", "domain", "serialNumber",
		"expiresAt", "deviceCode", "description", "salt", "encryptedCounter":
		return value
	case "clientEphemeralPublicKey", "serverEphemeralPublicKey", "clientEvidenceMessage", "serverEvidenceMessage",
		"encryptedLicenseActivationMessage", "mac", "instanceActivationMessage", "signature":
		if len(value) <= 2*shownDigits {
			return hidden
		}
		return fmt.Sprintf("%s…%s (%d digits)", value[:shownDigits], value[len(value)-shownDigits:], len(value))
	default:
		return hidden
	}
}
