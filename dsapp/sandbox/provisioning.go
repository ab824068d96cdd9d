package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

// Names of provisioning attributes. Those of the registration ID, the
// activation messages and the serial number in answers are not public.
const (
	fieldComponentType             = "PROVFLD_COMPONENT_TYPE"
	fieldUserID                    = "PROVFLD_USERID"
	fieldDomain                    = "PROVFLD_DOMAIN"
	fieldStaticPassword            = "PROVFLD_STATIC_PASSWORD"
	fieldActivationType            = "PROVFLD_ACTIVATION_TYPE"
	fieldRegistrationID            = "PROVFLD_REGISTRATIONID"
	fieldDeviceCode                = "PROVFLD_DEVICE_CODE"
	fieldSignature                 = "PROVFLD_SIGNATURE"
	fieldSerialNumber              = "PROVFLD_SERIAL_NO"
	fieldActivationMessage         = "PROVFLD_ACTIVATION_MESSAGE"
	fieldInstanceActivationMessage = "PROVFLD_INSTANCE_ACTIVATION_MESSAGE"
)

// Framework codes in error stacks.
const (
	frameworkNotVerified    = 1
	frameworkStaticPassword = 2
	frameworkDeviceCode     = 1263
)

// provisioningCommands gives the rows of the provisioning scenario. description
// is the attribute of the device description, empty if there is none.
func provisioningCommands(description string) []command {
	execute := xml.Name{Space: provisioningNamespace, Local: "provisioningExecute"}
	attributes := func(fields ...field) attributeList {
		component := field{fieldComponentType, stringType, true, maxComponentType}
		return attributeList{"attributeSet", "ProvisioningResults", append([]field{component}, fields...)}
	}
	device := []field{
		{fieldRegistrationID, stringType, true, 64},
		{fieldDeviceCode, stringType, true, deviceCodeDigits},
	}
	if description != "" {
		device = append(device, field{description, stringType, false, 255})
	}
	return []command{{
		operation: execute,
		cmd:       "PROVISIONCMD_MDL_REGISTER",
		component: fieldComponentType,
		form: attributes(
			field{fieldUserID, stringType, true, 255},
			field{fieldDomain, stringType, false, 255},
			field{fieldStaticPassword, stringType, true, 128},
			field{fieldActivationType, unsignedIntType, false, 10},
		),
		handle: (*Server).mdlRegister,
	}, {
		operation: execute,
		cmd:       "PROVISIONCMD_MDL_ADD_DEVICE",
		component: fieldComponentType,
		form:      attributes(device...),
		handle:    (*Server).mdlAddDevice,
	}, {
		operation: execute,
		cmd:       "PROVISIONCMD_MDL_ACTIVATE",
		component: fieldComponentType,
		form: attributes(
			field{fieldRegistrationID, stringType, true, 64},
			field{fieldSignature, stringType, true, 64},
		),
		handle: (*Server).mdlActivate,
	}}
}

type user struct {
	User
	wrongPasswords int
	licenses       []*userLicense
}

func (u *user) locked() bool { return u.wrongPasswords >= maxWrongPasswords }

type userLicense struct {
	license
	instances []*instance
}

// exhausted reports whether all sequence numbers of the licence are used. One
// is used per Activation Message 2, whether its device confirms or not.
func (l *userLicense) exhausted() bool { return len(l.instances) == maxSequence }

// An instance is one authenticator of a licence.
type instance struct {
	sequence     int
	deviceID     uint32
	description  string
	confirmation string
	activated    bool
}

// A registration is an activation that has begun and not ended.
type registration struct {
	user    *user
	license *userLicense
	created time.Time
	latest  *instance // of the last Activation Message 2
}

// mdlRegister checks the static password, gives the user a licence and begins
// an activation. How many wrong passwords lock a user is a policy of a real
// server; here it is three, and only a restart unlocks.
func (s *Server) mdlRegister(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire()

	u := s.findUser(in[fieldUserID], in[fieldDomain])
	if u == nil {
		return nil, refuse("STAT_USER_UNKNOWN", 0, "user not found")
	}
	if u.locked() {
		return nil, refuse("STAT_LOCKED", 0, "user is locked")
	}
	if subtle.ConstantTimeCompare([]byte(u.StaticPassword), []byte(in[fieldStaticPassword])) != 1 {
		u.wrongPasswords++
		return nil, refuse("STAT_LOCAL_PASSWORD_MISMATCH", frameworkStaticPassword, "static password is wrong")
	}
	u.wrongPasswords = 0

	l := s.assignLicense(u)
	if l == nil {
		return nil, refuse("STAT_DIGIPASS_NOT_AVAILABLE", 0, "no licence with a free instance")
	}
	id := newRegistrationID()
	for s.registrations[id] != nil {
		id = newRegistrationID()
	}
	s.registrations[id] = &registration{user: u, license: l, created: s.now()}
	return []datum{
		{name: fieldRegistrationID, value: id},
		{name: fieldActivationMessage, value: l.activationMessage(), secret: true},
		{name: fieldSerialNumber, value: l.serial},
	}, nil
}

// mdlAddDevice verifies a device code and gives Activation Message 2. Every
// success takes a sequence number; a repeated call takes another one.
func (s *Server) mdlAddDevice(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	r, err := s.findRegistration(in[fieldRegistrationID])
	if err != nil {
		return nil, err
	}
	code := in[fieldDeviceCode]
	deviceID, err := r.license.verifyDeviceCode(code)
	if err != nil {
		return nil, refuse("STAT_DPERROR", frameworkDeviceCode, err.Error())
	}
	if r.license.exhausted() {
		return nil, refuse("STAT_DIGIPASS_NOT_AVAILABLE", 0, "all instances of the licence are used")
	}

	i := &instance{sequence: len(r.license.instances) + 1, deviceID: deviceID, description: in[s.description]}
	var key [secretSize]byte
	_, _ = rand.Read(key[:]) // never fails
	message := r.license.instanceMessage(code, i.sequence, key)
	i.confirmation = confirmation(key, code, message)
	r.license.instances = append(r.license.instances, i)
	r.latest = i
	return []datum{
		{name: fieldInstanceActivationMessage, value: message, secret: true},
		{name: fieldSerialNumber, value: instanceSerial(r.license.serial, i.sequence)},
	}, nil
}

// mdlActivate verifies the confirmation signature over the latest Activation
// Message 2 and ends the registration. The status of a wrong one is not public;
// this sandbox answers STAT_OTP_INCORRECT and keeps the registration.
func (s *Server) mdlActivate(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	id := in[fieldRegistrationID]
	r, err := s.findRegistration(id)
	if err != nil {
		return nil, err
	}
	if r.latest == nil {
		return nil, refuse("STAT_NOT_FOUND", 0, "no device was added to this registration")
	}
	if subtle.ConstantTimeCompare([]byte(r.latest.confirmation), []byte(in[fieldSignature])) != 1 {
		return nil, refuse("STAT_OTP_INCORRECT", frameworkNotVerified, "confirmation signature is wrong")
	}
	r.latest.activated = true
	delete(s.registrations, id)
	return []datum{
		{name: fieldUserID, value: r.user.Name},
		{name: fieldDomain, value: r.user.Domain},
		{name: fieldSerialNumber, value: r.license.serial},
	}, nil
}

// findUser gives the user of a domain. Without a domain the name has to be that
// of one user only, because the sandbox has no default domain.
func (s *Server) findUser(name, domain string) *user {
	var found *user
	for _, u := range s.users {
		if u.Name != name || (domain != "" && u.Domain != domain) {
			continue
		}
		if domain != "" {
			return u
		}
		if found != nil && found.Domain != u.Domain {
			return nil
		}
		if found == nil {
			found = u
		}
	}
	return found
}

// assignLicense gives a licence of the user that can take a device, a new one
// if the user may have another, else nil.
func (s *Server) assignLicense(u *user) *userLicense {
	for _, l := range u.licenses {
		if !l.exhausted() {
			return l
		}
	}
	if len(u.licenses) >= max(u.Licenses, 1) || s.nextSerial < 1 || s.nextSerial > largestSerialNumber {
		return nil
	}
	l := &userLicense{}
	l.serial = fmt.Sprintf("%s%0*d", serialPrefix, serialNumberDigits, s.nextSerial)
	_, _ = rand.Read(l.secret[:]) // never fails
	s.nextSerial++
	u.licenses = append(u.licenses, l)
	return l
}

// findRegistration gives a registration that can still be used.
func (s *Server) findRegistration(id string) (*registration, error) {
	s.expire()
	r, ok := s.registrations[id]
	if !ok {
		return nil, refuse("STAT_NOT_FOUND", 0, "registration ID not found")
	}
	return r, nil
}

// expire drops the registrations that are past the age of the cache.
func (s *Server) expire() {
	now := s.now()
	for id, r := range s.registrations {
		if now.Sub(r.created) >= provisioningCacheAge {
			delete(s.registrations, id)
		}
	}
}

// newRegistrationID draws 8 alphanumeric characters of both cases.
func newRegistrationID() string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for {
		id := make([]byte, 0, 8)
		for len(id) < cap(id) {
			var b [1]byte
			_, _ = rand.Read(b[:]) // never fails
			// A multiple of the alphabet's length, so that no character is likelier.
			if int(b[0]) < 256-256%len(alphabet) {
				id = append(id, alphabet[int(b[0])%len(alphabet)])
			}
		}
		s := string(id)
		if s != strings.ToUpper(s) && s != strings.ToLower(s) {
			return s
		}
	}
}
