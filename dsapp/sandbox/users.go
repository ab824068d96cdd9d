package sandbox

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
)

// oneTimePasswordWindow is the number of one-time passwords that are accepted next.
const oneTimePasswordWindow = 20

// maxPushes is the number of push notifications that are kept per device.
const maxPushes = 20

type user struct {
	User
	wrongPasswords int // in a row: static or one-time passwords, or signatures
	licenses       []*userLicense
}

func (u *user) locked() bool { return u.wrongPasswords >= maxWrongPasswords }

// recordFailure counts a wrong password or signature and returns the refusal. Three in a row
// lock the user until the control interface unlocks it. On a real server, a policy sets the
// number.
func (u *user) recordFailure(status string, code int, text string) error {
	u.wrongPasswords++
	return refuse(status, code, text)
}

// authenticators returns the activated authenticators in the order of their creation.
func (u *user) authenticators() []*authenticatorInstance {
	var found []*authenticatorInstance
	for _, l := range u.licenses {
		for _, i := range l.instances {
			if i.activated {
				found = append(found, i)
			}
		}
	}
	return found
}

// withSecureChannel returns the activated authenticators that have a secure channel, which
// those of standard licences have not. serial selects one if it is not empty.
func (u *user) withSecureChannel(serial string) []*authenticatorInstance {
	var found []*authenticatorInstance
	for _, i := range u.authenticators() {
		if !i.standard && (serial == "" || i.serial == serial) {
			found = append(found, i)
		}
	}
	return found
}

type userLicense struct {
	license
	standard  bool
	instances []*authenticatorInstance // of a standard licence: exactly one
}

// exhausted reports whether all sequence numbers of the licence are used. Each Activation
// Message 2 uses one, whether its device confirms it or not.
func (l *userLicense) exhausted() bool { return len(l.instances) == maxSequence }

// An authenticatorInstance is the server's side of one authenticator of a licence.
type authenticatorInstance struct {
	serial         string
	standard       bool
	deviceID       uint32
	description    string
	key            [secretSize]byte
	confirmation   string
	activated      bool
	counter        uint64 // of the next one-time password
	notificationID string
	pushes         []Push
}

func (i *authenticatorInstance) channel() secureChannel { return secureChannel{i.serial, i.key[:]} }

// verify reports whether a one-time password is right. Each is accepted once.
func (i *authenticatorInstance) verify(password string) bool {
	for counter := i.counter; counter < i.counter+oneTimePasswordWindow; counter++ {
		if subtle.ConstantTimeCompare([]byte(oneTimePassword(i.key[:], counter)), []byte(password)) == 1 {
			i.counter = counter + 1
			return true
		}
	}
	return false
}

// findUser returns the user with a name in a domain, or nil. The domain may be empty if the
// name exists in one domain only, as the sandbox has no default domain.
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

// unlockedUser returns a user who exists and is not locked.
func (s *Server) unlockedUser(name, domain string) (*user, error) {
	u := s.findUser(name, domain)
	if u == nil {
		return nil, refuse("STAT_USER_UNKNOWN", 0, "user not found")
	}
	if u.locked() {
		return nil, refuse("STAT_LOCKED", 0, "user is locked")
	}
	return u, nil
}

// checkPassword returns a user after checking the static password.
func (s *Server) checkPassword(name, domain, password string) (*user, error) {
	u, err := s.unlockedUser(name, domain)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(u.StaticPassword), []byte(password)) != 1 {
		return nil, u.recordFailure("STAT_LOCAL_PASSWORD_MISMATCH", frameworkStaticPassword, "static password is wrong")
	}
	u.wrongPasswords = 0
	return u, nil
}

// assignLicense returns a multi-device licence of the user that is not exhausted, else a new
// one if the user may have another, else nil.
func (s *Server) assignLicense(u *user) *userLicense {
	assigned := 0
	for _, l := range u.licenses {
		if l.standard {
			continue
		}
		if !l.exhausted() {
			return l
		}
		assigned++
	}
	allowed := u.Licenses
	if allowed == 0 && u.StandardLicenses == 0 {
		allowed = 1
	}
	if assigned >= allowed {
		return nil
	}
	return s.newLicense(u, false)
}

// assignStandard returns a standard licence of the user that is not activated, else a new
// one if the user may have another, else the user's first one, to be reactivated, or
// nil.
func (s *Server) assignStandard(u *user) *userLicense {
	var first *userLicense
	assigned := 0
	for _, l := range u.licenses {
		if !l.standard {
			continue
		}
		if !l.instances[0].activated {
			return l
		}
		if first == nil {
			first = l
		}
		assigned++
	}
	if assigned < u.StandardLicenses {
		if l := s.newLicense(u, true); l != nil {
			return l
		}
	}
	return first
}

// newLicense adds a licence to the user and returns it, or nil if there are no more serial
// numbers.
func (s *Server) newLicense(u *user, standard bool) *userLicense {
	if s.nextSerial < 1 || s.nextSerial > largestSerialNumber {
		return nil
	}
	l := &userLicense{standard: standard}
	l.serial = fmt.Sprintf("%s%0*d", serialPrefix, serialNumberDigits, s.nextSerial)
	_, _ = rand.Read(l.secret[:]) // never fails
	if standard {
		l.instances = []*authenticatorInstance{{serial: l.serial, standard: true, key: l.secret}}
	}
	s.nextSerial++
	u.licenses = append(u.licenses, l)
	return l
}
