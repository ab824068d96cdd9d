package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"strings"
	"time"
)

// Names of provisioning attributes. Not public, and chosen by the sandbox, are those of the
// registration ID, the activation messages, the serial number in answers to multi-device
// commands and the event reactivation counter.
const (
	fieldComponentType             = "PROVFLD_COMPONENT_TYPE"
	fieldUserID                    = "PROVFLD_USERID"
	fieldDomain                    = "PROVFLD_DOMAIN"
	fieldOrganizationalUnit        = "PROVFLD_ORGANIZATIONAL_UNIT"
	fieldStaticPassword            = "PROVFLD_STATIC_PASSWORD"
	fieldActivationType            = "PROVFLD_ACTIVATION_TYPE"
	fieldRegistrationID            = "PROVFLD_REGISTRATIONID"
	fieldDeviceCode                = "PROVFLD_DEVICE_CODE"
	fieldSignature                 = "PROVFLD_SIGNATURE"
	fieldSerialNumber              = "PROVFLD_SERIAL_NO"
	fieldActivationMessage         = "PROVFLD_ACTIVATION_MESSAGE"
	fieldInstanceActivationMessage = "PROVFLD_INSTANCE_ACTIVATION_MESSAGE"
	fieldActivationCode            = "PROVFLD_ACTIVATION_CODE"
	fieldEventReactivationCounter  = "PROVFLD_EVENT_REACTIVATION_COUNTER"
	fieldResponse                  = "PROVFLD_DP_RESPONSE"
	fieldDerivationCode            = "PROVFLD_DERIVATION_CODE"
	fieldRequestType               = "PROVFLD_REQUEST_TYPE"
)

// Framework codes in error stacks.
const (
	frameworkNotVerified    = 1
	frameworkStaticPassword = 2
	frameworkDeviceCode     = 1263
)

// Limits on values, in characters.
const (
	maxUserID         = 255
	maxStaticPassword = 128
	maxRegistrationID = 64
	maxSerialNumber   = 22
	maxSignature      = 64
	maxResponse       = 64
	maxDerivationCode = 27
	maxUnsignedInt    = 10
)

// provisioningCommands returns the subcommands of provisioningExecute. description is the
// name of the attribute for the device description, empty if there is none.
func provisioningCommands(description string) []command {
	device := []field{
		{fieldRegistrationID, stringType, true, maxRegistrationID},
		{fieldDeviceCode, stringType, true, deviceCodeDigits},
	}
	if description != "" {
		device = append(device, field{description, stringType, false, 255})
	}
	commands := []command{{
		cmd: "PROVISIONCMD_MDL_REGISTER",
		form: provisioningAttributes(
			field{fieldUserID, stringType, true, maxUserID},
			field{fieldDomain, stringType, false, maxUserID},
			field{fieldStaticPassword, stringType, true, maxStaticPassword},
			field{fieldActivationType, unsignedIntType, false, maxUnsignedInt},
		),
		handle: (*Server).mdlRegister,
	}, {
		cmd:    "PROVISIONCMD_MDL_ADD_DEVICE",
		form:   provisioningAttributes(device...),
		handle: (*Server).mdlAddDevice,
	}, {
		cmd: "PROVISIONCMD_MDL_ACTIVATE",
		form: provisioningAttributes(
			field{fieldRegistrationID, stringType, true, maxRegistrationID},
			field{fieldSignature, stringType, true, maxSignature},
		),
		handle: (*Server).mdlActivate,
	}, {
		cmd: "PROVISIONCMD_REGISTER",
		form: provisioningAttributes(
			field{fieldUserID, stringType, true, maxUserID},
			field{fieldDomain, stringType, false, maxUserID},
			field{fieldStaticPassword, stringType, false, maxStaticPassword},
			field{fieldSerialNumber, stringType, false, maxSerialNumber},
		),
		handle: (*Server).registerStandard,
	}, {
		cmd: "PROVISIONCMD_ACTIVATE",
		form: provisioningAttributes(
			field{fieldUserID, stringType, true, maxUserID},
			field{fieldDomain, stringType, false, maxUserID},
			field{fieldResponse, stringType, false, maxResponse},
			field{fieldDerivationCode, stringType, false, maxDerivationCode},
			field{fieldRequestType, unsignedIntType, false, maxUnsignedInt},
		),
		handle: (*Server).activateStandard,
	}}
	for i := range commands {
		c := &commands[i]
		c.scenario, c.operation, c.component = provisioningScenario, "provisioningExecute", fieldComponentType
	}
	return commands
}

func provisioningAttributes(fields ...field) attributeList {
	component := field{fieldComponentType, stringType, true, maxComponentType}
	return attributeList{set: "attributeSet", fields: append([]field{component}, fields...)}
}

// A registration is a pending activation.
type registration struct {
	user     *user
	license  *userLicense
	created  time.Time
	exchange *exchange              // nil unless made by dsappSRPRegister
	latest   *authenticatorInstance // of the last Activation Message 2
}

// mdlRegister checks the static password, assigns a licence to the user and adds a
// registration.
func (s *Server) mdlRegister(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	u, err := s.checkPassword(in.text[fieldUserID], in.text[fieldDomain], in.text[fieldStaticPassword])
	if err != nil {
		return nil, err
	}
	l := s.assignLicense(u)
	if l == nil {
		return nil, refuse("STAT_DIGIPASS_NOT_AVAILABLE", 0, "no licence with a free instance")
	}
	id := s.addRegistration(&registration{user: u, license: l})
	return []datum{
		{name: fieldRegistrationID, value: id},
		{name: fieldActivationMessage, value: l.activationMessage(), secret: true},
		{name: fieldSerialNumber, value: l.serial},
	}, nil
}

// mdlAddDevice verifies a device code and returns Activation Message 2. Each success uses a
// new sequence number, also for the same device code.
func (s *Server) mdlAddDevice(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	r, err := s.findRegistration(in.text[fieldRegistrationID])
	if err != nil {
		return nil, err
	}
	if r.exchange != nil && !r.exchange.proved {
		return nil, refuse("STAT_NOT_FOUND", 0, "the activation data was not fetched")
	}
	code := in.text[fieldDeviceCode]
	deviceID, err := r.license.verifyDeviceCode(code)
	if err != nil {
		return nil, refuse("STAT_DPERROR", frameworkDeviceCode, err.Error())
	}
	if r.license.exhausted() {
		return nil, refuse("STAT_DIGIPASS_NOT_AVAILABLE", 0, "all instances of the licence are used")
	}

	sequence := len(r.license.instances) + 1
	i := &authenticatorInstance{serial: instanceSerial(r.license.serial, sequence), deviceID: deviceID, description: in.text[s.description]}
	_, _ = rand.Read(i.key[:]) // never fails
	message := r.license.instanceMessage(code, sequence, i.key)
	i.confirmation = confirmation(i.key, code, message)
	r.license.instances = append(r.license.instances, i)
	r.latest = i
	return []datum{
		{name: fieldInstanceActivationMessage, value: message, secret: true},
		{name: fieldSerialNumber, value: i.serial},
	}, nil
}

// mdlActivate verifies the confirmation signature over the last Activation Message 2 and
// removes the registration. What happens after a wrong signature is not public; the
// sandbox answers STAT_OTP_INCORRECT and keeps the registration.
func (s *Server) mdlActivate(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	id := in.text[fieldRegistrationID]
	r, err := s.findRegistration(id)
	if err != nil {
		return nil, err
	}
	if r.latest == nil {
		return nil, refuse("STAT_NOT_FOUND", 0, "no device was added to this registration")
	}
	if subtle.ConstantTimeCompare([]byte(r.latest.confirmation), []byte(in.text[fieldSignature])) != 1 {
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

// findRegistration returns a registration that has not expired.
func (s *Server) findRegistration(id string) (*registration, error) {
	s.expire()
	r, ok := s.registrations[id]
	if !ok {
		return nil, refuse("STAT_NOT_FOUND", 0, "registration ID not found")
	}
	return r, nil
}

// addRegistration adds a registration and returns its identifier.
func (s *Server) addRegistration(r *registration) string {
	s.expire()
	id := newRegistrationID()
	for s.registrations[id] != nil {
		id = newRegistrationID()
	}
	r.created = s.now()
	s.registrations[id] = r
	return id
}

// expire removes expired registrations and ends expired requests.
func (s *Server) expire() {
	now := s.now()
	for id, r := range s.registrations {
		if now.Sub(r.created) >= provisioningCacheAge {
			delete(s.registrations, id)
		}
	}
	for _, p := range s.pending {
		if now.Sub(p.created) >= s.requestTimeout {
			s.end(p, timedOut)
		}
	}
}

// newRegistrationID returns 8 random letters and digits, with letters of both cases.
func newRegistrationID() string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	for {
		id := make([]byte, 0, 8)
		for len(id) < cap(id) {
			var b [1]byte
			_, _ = rand.Read(b[:]) // never fails
			// Larger values would make some characters more likely.
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
