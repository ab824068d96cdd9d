package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp/solve"
)

// ErrUnverified means that an answer failed a check of the phone: wrong server evidence,
// altered activation data, or a message for another licence or device.
var ErrUnverified = errors.New("answer could not be verified")

// RefusalError is an answer other than a success, of the gateway to a Phone or of the
// authentication server to an ApplicationServer.
type RefusalError struct {
	// Call is the name of the REST service or of the SOAP command.
	Call string
	// HTTPStatus is 0 for a SOAP command.
	HTTPStatus int
	// ResultCodes are those of the answer, zero if it had none. Answers of version 1 have
	// only the return code and the name of the status.
	ResultCodes ResultCodes
	// Description is the errorDescription of the answer, if any, or the text of its error
	// stack.
	Description string
}

// Error names the call, the HTTP status, the status and the description.
func (e *RefusalError) Error() string {
	var facts []string
	if e.HTTPStatus != 0 {
		facts = append(facts, fmt.Sprintf("HTTP status %d", e.HTTPStatus))
	}
	switch c := e.ResultCodes; {
	case c == ResultCodes{}:
	case c.ReturnCodeEnum == "": // version 1, which has no status code
		facts = append(facts, fmt.Sprintf("%s (error code %d)", c.StatusCodeEnum, c.ReturnCode))
	default:
		facts = append(facts, fmt.Sprintf("%s (%d)", c.StatusCodeEnum, c.StatusCode))
	}
	text := e.Call + " was refused: " + strings.Join(facts, ", ")
	if e.Description != "" {
		text += ": " + e.Description
	}
	return text
}

// ResultCodes are the result codes of an answer.
type ResultCodes struct {
	ReturnCodeEnum string `json:"returnCodeEnum"`
	StatusCodeEnum string `json:"statusCodeEnum"`
	ReturnCode     int    `json:"returnCode"`
	StatusCode     int    `json:"statusCode"`
}

// Member is one member of a request or of an answer in a Step.
type Member struct {
	Name  string
	Value string
}

// ErrHeld means that a call was made ready and not sent.
var ErrHeld = errors.New("call was not sent")

// Step describes one REST call for people to read. Except for Full, it contains no passwords,
// and only the first and last digits of keys, evidence and ciphertexts.
type Step struct {
	Call       string // name of the REST service
	Sent       []Member
	HTTPStatus int // 0 if no answer came
	Received   []Member
	Verified   []string // descriptions of the checks that succeeded
	Full       Exchange
}

// Exchange is a REST call with all values, also the secret ones.
type Exchange struct {
	URL    string
	APIKey string
	// Request and Answer are the bodies. Answer is nil if none came, or one that is not JSON.
	Request, Answer json.RawMessage
	// Opened are the values that the phone decrypted, by the names of their items.
	Opened map[string]string
}

// Phone is a simulated phone. Its fields must not be changed during use. It is safe for
// concurrent use if Trace is.
type Phone struct {
	// BaseURL of the gateway, for example https://localhost:11080.
	BaseURL string
	// APIKey is the front-end key.
	APIKey string
	// Client sends the calls, http.DefaultClient if nil.
	Client *http.Client
	// Version of the REST services, 1 or 2; 0 means 2.
	Version int
	// Profile of the SRP exchange, srp.DefaultProfile if nil.
	Profile *srp.Profile
	// Scan selects the services for keys of pending requests that were scanned, instead of
	// those for pushed keys. Version 1 has only the latter.
	Scan bool
	// DeviceID is the identity of the simulated device; 0 means a random one.
	DeviceID uint32
	// Description of the device, sent if it is not empty and Version is 2.
	Description string
	// Hold has each call made ready and traced, but not sent. The error is ErrHeld then.
	Hold bool
	// Trace, if not nil, is called after every call, also a failed one.
	Trace func(Step)
	// Capture, if not nil, is called with everything that an exchange of an activation had,
	// also the secret values, once the phone has opened the activation data.
	Capture func(solve.Capture)
}

// Activation is the result of an activation.
type Activation struct {
	// UserID and Domain are empty with version 1, whose answers lack them.
	UserID string
	Domain string
	// SerialNumber of the licence, for example VDS1000120.
	SerialNumber string
	// InstanceSerial is the serial number of the authenticator instance, for example
	// VDS1000120-1. For a standard licence it is that of the licence.
	InstanceSerial string
	// Authenticator of the device, with the same user and domain.
	Authenticator *Authenticator
}

// Activate performs the four calls of an online activation of a multi-device
// licence. The error is a *RefusalError if the gateway refuses a call, and wraps
// ErrUnverified if an answer fails a check. The remaining calls are not made then.
func (p *Phone) Activate(ctx context.Context, registrationIdentifier, activationPassword string) (Activation, error) {
	version, err := p.version()
	if err != nil {
		return Activation{}, err
	}
	device := NewDevice(p.deviceID())
	identifier := Member{version.identifier, registrationIdentifier}

	var deviceCode string
	err = p.exchange(ctx, version, identifier, activationPassword, func(a answer, t *srp.Session) (verified []string, err error) {
		deviceCode, verified, err = openLicense(a, t, device)
		return verified, err
	})
	if err != nil {
		return Activation{}, err
	}

	var signature string
	sent := []Member{identifier, {"deviceCode", deviceCode}}
	if p.Description != "" && !version.flat {
		sent = append(sent, Member{"description", p.Description})
	}
	err = p.do(ctx, p.APIKey, call{
		path: version.provisioning + "MdlAddDevice",
		flat: version.flat,
		sent: sent,
		check: func(a answer) ([]string, error) {
			message, err := a.text("instanceActivationMessage")
			if err != nil {
				return nil, err
			}
			if signature, err = device.ActivateInstance(message); err != nil {
				return nil, unverified(err)
			}
			return []string{"activation message 2 is for this device: " + device.InstanceSerial()}, nil
		},
	})
	if err != nil {
		return Activation{}, err
	}

	done := Activation{SerialNumber: device.SerialNumber(), InstanceSerial: device.InstanceSerial()}
	err = p.do(ctx, p.APIKey, call{
		path: version.provisioning + "MdlActivate",
		flat: version.flat,
		sent: []Member{identifier, {"signature", signature}},
		check: func(a answer) ([]string, error) {
			if version.flat {
				return nil, nil
			}
			return done.read(a)
		},
	})
	if err != nil {
		return Activation{}, err
	}
	if done.Authenticator, err = device.Authenticator(done.UserID, done.Domain); err != nil {
		return Activation{}, err
	}
	return done, nil
}

// ActivateStandard activates a standard licence: it performs the exchange and confirms the
// activation with the first one-time password, or with a derivation code if bind is true.
// It always uses version 2, since version 1 has no service for the confirmation. The
// errors are those of Activate.
func (p *Phone) ActivateStandard(ctx context.Context, registrationIdentifier, activationPassword string, bind bool) (Activation, error) {
	identifier := Member{version2.identifier, registrationIdentifier}
	var authenticator *Authenticator
	err := p.exchange(ctx, version2, identifier, activationPassword, func(a answer, t *srp.Session) (verified []string, err error) {
		authenticator, verified, err = openStandard(a, t)
		return verified, err
	})
	if err != nil {
		return Activation{}, err
	}

	confirmation := Member{"response", ""}
	if bind {
		confirmation = Member{"derivationCode", authenticator.DerivationCode()}
	} else {
		confirmation.Value = authenticator.OneTimePassword()
	}
	done := Activation{
		SerialNumber: authenticator.SerialNumber, InstanceSerial: authenticator.SerialNumber, Authenticator: authenticator,
	}
	err = p.do(ctx, p.APIKey, call{
		path:  version2.provisioning + "DSAPPSRPActivate",
		sent:  []Member{identifier, confirmation},
		check: done.read,
	})
	if err != nil {
		return Activation{}, err
	}
	authenticator.UserID, authenticator.Domain = done.UserID, done.Domain
	return done, nil
}

// read sets the user and the domain from the answer to the last call of an activation.
func (d *Activation) read(a answer) ([]string, error) {
	serial, err := a.text("serialNumber")
	if err != nil {
		return nil, err
	}
	if serial != d.SerialNumber {
		return nil, unverified(errors.New("serialNumber is not that of the licence"))
	}
	if d.UserID, err = a.text("userID"); err != nil {
		return nil, err
	}
	if d.Domain, err = a.text("domain"); err != nil {
		return nil, err
	}
	return []string{"the serial number is that of the licence"}, nil
}

// exchange performs the two calls of the SRP exchange, checks the server's evidence and
// calls open with the answer that has the activation data.
func (p *Phone) exchange(
	ctx context.Context, v version, identifier Member, activationPassword string,
	open func(answer, *srp.Session) (verified []string, err error),
) error {
	profile := p.Profile
	if profile == nil {
		var err error
		if profile, err = srp.LookupProfile(srp.DefaultProfile); err != nil {
			return fmt.Errorf("preparing the exchange: %w", err)
		}
	}
	client, err := profile.NewClient(identifier.Value, activationPassword)
	if err != nil {
		return fmt.Errorf("preparing the exchange: %w", err)
	}

	capture := solve.Capture{
		Group: profile.Variant().Group, Identity: identifier.Value, Password: activationPassword,
		Private: client.Private(), ClientPublic: client.Public(),
	}
	var evidence, serverPublic []byte
	err = p.do(ctx, p.APIKey, call{
		path: v.provisioning + "DSAPPSRPGenerateEphemeralKey",
		flat: v.flat,
		sent: []Member{identifier, {"clientEphemeralPublicKey", upperHex(client.Public())}},
		check: func(a answer) ([]string, error) {
			salt, err := a.hex("salt")
			if err != nil {
				return nil, err
			}
			if serverPublic, err = a.hex("serverEphemeralPublicKey"); err != nil {
				return nil, err
			}
			if evidence, err = client.Prove(salt, serverPublic); err != nil {
				return nil, unverified(err)
			}
			capture.Salt, capture.ServerPublic, capture.ClientEvidence = salt, serverPublic, evidence
			return []string{"the server's ephemeral public key is in range"}, nil
		},
	})
	if err != nil {
		return err
	}

	return p.do(ctx, p.APIKey, call{
		path: v.provisioning + "DSAPPSRPGenerateActivationData",
		flat: v.flat,
		sent: []Member{identifier, {"clientEvidenceMessage", upperHex(evidence)}},
		check: func(a answer) ([]string, error) {
			serverEvidence, err := a.hex("serverEvidenceMessage")
			if err != nil {
				return nil, err
			}
			key, err := client.Confirm(serverEvidence)
			if err != nil {
				return nil, unverified(err)
			}
			defer clear(key)
			verified, err := open(a, srp.NewSession(key, client.Public(), serverPublic))
			if p.Capture != nil && err == nil {
				capture.Key, capture.ServerEvidence, capture.Items = bytes.Clone(key), serverEvidence, *a.items
				p.Capture(capture)
			}
			return append([]string{"the server evidence shows that the server knows the activation password's verifier"}, verified...), err
		},
	})
}

// openLicense decrypts Activation Message 1, activates the device with it and returns the
// device code.
func openLicense(a answer, t *srp.Session, device *Device) (deviceCode string, verified []string, err error) {
	message, err := a.unseal(t, seal.LicenseActivationMessage, "encryptedLicenseActivationMessage")
	if err != nil {
		return "", nil, err
	}
	defer clear(message)
	verified = []string{"the MAC covers the encrypted activation message"}

	if deviceCode, err = device.ActivateLicense(string(message)); err != nil {
		return "", verified, unverified(err)
	}
	return deviceCode, append(verified, "activation message 1 is intact: "+device.SerialNumber()), nil
}

// openStandard decrypts the activation data of a standard licence and returns its
// authenticator.
func openStandard(a answer, t *srp.Session) (*Authenticator, []string, error) {
	standard, err := a.object("standard")
	if err != nil {
		return nil, nil, err
	}
	var opened [2][]byte
	for i, item := range []seal.Item{seal.ActivationCode, seal.EventReactivationCounter} {
		sealed, err := standard.object(string(item))
		if err != nil {
			return nil, nil, err
		}
		if opened[i], err = sealed.unseal(t, item, "data"); err != nil {
			return nil, nil, err
		}
		defer clear(opened[i])
	}
	verified := []string{"the MACs cover the encrypted activation code and event reactivation counter"}

	authenticator, err := ActivateStandard(string(opened[0]), string(opened[1]), "", "")
	if err != nil {
		return nil, verified, unverified(err)
	}
	return authenticator, append(verified, "the activation code is intact: "+authenticator.SerialNumber), nil
}

// UserRegistration is the request of the bank's site to register a user for online
// activation.
type UserRegistration struct {
	UserID         string
	Domain         string // may be empty
	StaticPassword string
	LicenseType    string // mdl or standard, may be empty
	SerialNumber   string // of the licence, may be empty
}

// RegisteredUser is a user's registration, which the bank's site shows to the user.
type RegisteredUser struct {
	RegistrationIdentifier string
	ActivationPassword     string
	// ActivationImage is the content, in hex, of the image for the phone to scan. It has the
	// identifier and the password.
	ActivationImage string
	ExpiresAt       time.Time
}

// RegisterUser registers a user for online activation with the back-end key, as the bank's
// site does. It always uses version 2. The errors are those of Activate.
func (p *Phone) RegisterUser(ctx context.Context, backEndKey string, u UserRegistration) (RegisteredUser, error) {
	sent := []Member{{"userID", u.UserID}}
	if u.Domain != "" {
		sent = append(sent, Member{"domain", u.Domain})
	}
	sent = append(sent, Member{"staticPassword", u.StaticPassword})
	if u.LicenseType != "" {
		sent = append(sent, Member{"licenseType", u.LicenseType})
	}
	if u.SerialNumber != "" {
		sent = append(sent, Member{"serialNumber", u.SerialNumber})
	}

	var r RegisteredUser
	err := p.do(ctx, backEndKey, call{
		path: version2.provisioning + "DSAPPSRPRegister",
		sent: sent,
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
				return nil, a.invalidMember("expiresAt", "is not a time of RFC 3339")
			}
			return r.checkImage(a, u)
		},
	})
	if err != nil {
		return RegisteredUser{}, err
	}
	return r, nil
}

// checkImage compares the activation image with the other members of the answer.
func (r RegisteredUser) checkImage(a answer, u UserRegistration) ([]string, error) {
	content, err := a.hex("activationImage")
	if err != nil {
		return nil, err
	}
	fields := strings.Split(string(content), ";")
	if len(fields) != 7 || fields[0] != "01" || fields[1] != "01" {
		return nil, unverified(errors.New("activationImage is not an activation image of version 01"))
	}
	if fields[2] != u.UserID || (u.Domain != "" && fields[3] != u.Domain) ||
		fields[4] != r.RegistrationIdentifier || fields[5] != r.ActivationPassword {
		return nil, unverified(errors.New("activationImage differs from the registration"))
	}
	return []string{"the activation image carries the same user, identifier and password"}, nil
}

// A version of the REST services.
type version struct {
	provisioning string // path of the services for activations
	identifier   string // name of the registration identifier
	flat         bool   // answers have result codes and data in one object
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
