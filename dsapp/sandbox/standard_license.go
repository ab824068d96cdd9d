package sandbox

import (
	"context"
	"crypto/subtle"
)

// registerStandard checks the static password and returns the activation data of a
// standard licence. An activated licence can be registered again to reactivate it. The
// device then continues with the event counter in the data.
func (s *Server) registerStandard(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	u, err := s.checkPassword(in.text[fieldUserID], in.text[fieldDomain], in.text[fieldStaticPassword])
	if err != nil {
		return nil, err
	}
	var l *userLicense
	if serial, ok := in.text[fieldSerialNumber]; ok {
		if l = u.findLicense(serial); l == nil || !l.standard {
			return nil, refuse("STAT_NOT_FOUND", 0, "the user has no standard licence with this serial number")
		}
	} else if l = s.assignStandard(u); l == nil {
		return nil, refuse("STAT_DIGIPASS_NOT_AVAILABLE", 0, "no standard licence")
	}
	data := []datum{{name: fieldUserID, value: u.Name}, {name: fieldDomain, value: u.Domain}}
	if u.OrganizationalUnit != "" {
		data = append(data, datum{name: fieldOrganizationalUnit, value: u.OrganizationalUnit})
	}
	return append(data,
		datum{name: fieldSerialNumber, value: l.serial},
		datum{name: fieldActivationCode, value: l.activationCode(), masked: true},
		datum{name: fieldEventReactivationCounter, value: reactivationCounter(l.instances[0].counter), secret: true},
	), nil
}

// activateStandard verifies the first one-time password or the derivation code of a
// standard licence. The data of a success is not public; the sandbox returns none.
func (s *Server) activateStandard(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	response, byResponse := in.text[fieldResponse]
	code, byCode := in.text[fieldDerivationCode]
	if byResponse == byCode {
		return nil, refuse("STAT_INVPARAM", 0, "exactly one is needed of "+fieldResponse+" and "+fieldDerivationCode)
	}
	if _, typed := in.text[fieldRequestType]; byCode && !typed {
		return nil, refuse("STAT_INVPARAM", 0, "attribute missing: "+fieldRequestType)
	}
	u, err := s.unlockedUser(in.text[fieldUserID], in.text[fieldDomain])
	if err != nil {
		return nil, err
	}
	var candidates []*authenticatorInstance
	for _, l := range u.licenses {
		if l.standard {
			candidates = append(candidates, l.instances[0])
		}
	}
	if len(candidates) == 0 {
		return nil, refuse("STAT_NOT_FOUND", 0, "the user has no standard licence")
	}
	return nil, u.confirm(candidates, response, code)
}

// confirm activates the candidate that the response or the derivation code is from.
func (u *user) confirm(candidates []*authenticatorInstance, response, code string) error {
	for _, i := range candidates {
		if response != "" && i.verify(response) ||
			code != "" && subtle.ConstantTimeCompare([]byte(derivationCode(i.key[:], i.serial)), []byte(code)) == 1 {
			i.activated = true
			u.wrongPasswords = 0
			return nil
		}
	}
	return u.recordFailure("STAT_OTP_INCORRECT", frameworkNotVerified, "one-time password or derivation code is wrong")
}

// findLicense returns the user's licence with a serial number, or nil.
func (u *user) findLicense(serial string) *userLicense {
	for _, l := range u.licenses {
		if l.serial == serial {
			return l
		}
	}
	return nil
}
