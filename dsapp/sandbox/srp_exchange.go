package sandbox

import (
	"context"
	"crypto/rand"
	"sync"

	"github.com/dsapp-gateway/dsapp-gateway/dsapp/seal"
	"github.com/dsapp-gateway/dsapp-gateway/dsapp/srp"
)

// gatewayID is the gateway ID in answers of dsappSRPRegister.
const gatewayID = "SANDBOX"

// maxExchangeAttempts is the number of wrong proofs after which a registration is removed.
const maxExchangeAttempts = 3

// exchangeProfile returns the profile of the SRP exchange. The real one is not public; the
// sandbox uses srp.DefaultProfile.
var exchangeProfile = sync.OnceValues(func() (*srp.Profile, error) {
	return srp.LookupProfile(srp.DefaultProfile)
})

// exchangeCommands returns the commands of activations whose SRP exchange the
// authentication server carries out, and updateDevicePNID.
func exchangeCommands() []command {
	component := node{name: "componentType", required: true, max: maxComponentType}
	id := node{name: "registrationID", required: true, max: maxRegistrationID}
	commands := []command{{
		operation: "dsappSRPRegister",
		form: typedForm{
			{name: "activationType", max: maxUnsignedInt},
			component,
			userNode(false),
			{name: "credential", required: true, children: []node{{name: "staticPassword", required: true, max: maxStaticPassword}}},
			{name: "serialNumber", max: maxSerialNumber},
		},
		handle: (*Server).srpRegister,
	}, {
		operation: "dsappSRPGenerateEphemeralKey",
		form:      typedForm{component, id, {name: "clientEphemeralPublicKey", required: true, max: 1024}},
		handle:    (*Server).srpEphemeralKey,
	}, {
		operation: "dsappSRPGenerateActivationData",
		form:      typedForm{component, id, {name: "clientEvidenceMessage", required: true, max: 1024}},
		handle:    (*Server).srpActivationData,
	}, {
		operation: "dsappSRPActivate",
		form: typedForm{component, id, {name: "credential", required: true, children: []node{
			{name: "response", max: maxResponse},
			{name: "derivationCode", max: maxDerivationCode},
		}}},
		handle: (*Server).srpActivate,
	}, {
		operation: "updateDevicePNID",
		form: typedForm{
			component,
			userNode(true),
			{name: "serialNumber", required: true, max: maxSerialNumber},
			{name: "devicePNID", required: true, max: 2 * (maxNotificationID + channelOverhead)},
		},
		handle: (*Server).updateDevicePNID,
	}}
	for i := range commands {
		commands[i].scenario, commands[i].component = provisioningScenario, component.name
	}
	return commands
}

// userNode returns the element that identifies a user. domain tells whether the domain is
// required.
func userNode(domain bool) node {
	return node{name: "user", required: true, children: []node{
		{name: "userID", required: true, max: maxUserID},
		{name: "domain", required: domain, max: maxUserID},
	}}
}

// An exchange is the server's side of an SRP exchange.
type exchange struct {
	credential []byte
	attempts   int
	proved     bool
	// state of the last ephemeral key, which is used for one proof; nil if there is none.
	state []byte
}

// srpRegister checks the static password and adds a registration with a random activation
// password. A request for a user with several licences must name one.
func (s *Server) srpRegister(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	u, err := s.checkPassword(in.text["user/userID"], in.text["user/domain"], in.text["credential/staticPassword"])
	if err != nil {
		return nil, err
	}
	l, err := s.chooseLicense(u, in.text["serialNumber"])
	if err != nil {
		return nil, err
	}
	profile, err := exchangeProfile()
	if err != nil {
		return nil, err
	}
	x := &exchange{}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	password := newRegistrationID()
	id := s.addRegistration(&registration{user: u, license: l, exchange: x})
	x.credential = profile.Credential(secret, id, password)
	return []datum{
		{name: "registrationID", value: id},
		{name: "activationPassword", value: password},
		{name: "user/userID", value: u.Name},
		{name: "user/domain", value: u.Domain},
		{name: "serialNumber", value: l.serial},
		{name: "digipassGatewayID", value: gatewayID},
	}, nil
}

// chooseLicense returns the licence to activate: the one with the serial number, or, if
// that is empty, the user's only licence or a new one.
func (s *Server) chooseLicense(u *user, serial string) (*userLicense, error) {
	l := u.findLicense(serial)
	switch {
	case serial != "" && l == nil:
		return nil, refuse("STAT_NOT_FOUND", 0, "the user has no licence with this serial number")
	case serial == "" && len(u.licenses) > 1:
		return nil, refuse("STAT_INVPARAM", 0, "the user has several licences and serialNumber is missing")
	case serial == "" && len(u.licenses) == 1:
		l = u.licenses[0]
	case serial == "":
		if l = s.assignLicense(u); l == nil {
			l = s.assignStandard(u)
		}
	}
	if l == nil || l.exhausted() {
		return nil, refuse("STAT_DIGIPASS_NOT_AVAILABLE", 0, "no licence with a free instance")
	}
	return l, nil
}

// findExchange returns a registration that dsappSRPRegister made.
func (s *Server) findExchange(id string) (*registration, error) {
	r, err := s.findRegistration(id)
	if err != nil {
		return nil, err
	}
	if r.exchange == nil {
		return nil, refuse("STAT_NOT_FOUND", 0, "registration is not for an exchange")
	}
	return r, nil
}

// srpEphemeralKey begins an exchange. It replaces an earlier one of the registration.
func (s *Server) srpEphemeralKey(_ context.Context, in values) ([]datum, error) {
	profile, err := exchangeProfile()
	if err != nil {
		return nil, err
	}
	public, err := profile.ParsePublic(in.text["clientEphemeralPublicKey"])
	if err != nil {
		return nil, refuse("STAT_INVPARAM", 0, "client's ephemeral public key "+err.Error())
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	id := in.text["registrationID"]
	r, err := s.findExchange(id)
	if err != nil {
		return nil, err
	}
	state := make([]byte, profile.StateSize())
	serverPublic, salt, err := profile.Begin(state, r.exchange.credential, public)
	if err != nil {
		return nil, err
	}
	r.exchange.state = state
	return []datum{
		{name: "serverEphemeralPublicKey", value: serverPublic},
		{name: "salt", value: salt},
	}, nil
}

// srpActivationData verifies the client's evidence and returns the encrypted activation
// data. The status for wrong evidence is not public; the sandbox chose
// STAT_INVCREDENTIALS.
func (s *Server) srpActivationData(_ context.Context, in values) ([]datum, error) {
	profile, err := exchangeProfile()
	if err != nil {
		return nil, err
	}
	evidence, err := profile.ParseEvidence(in.text["clientEvidenceMessage"])
	if err != nil {
		return nil, refuse("STAT_INVPARAM", 0, "client's evidence message "+err.Error())
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	id := in.text["registrationID"]
	r, err := s.findExchange(id)
	if err != nil {
		return nil, err
	}
	x := r.exchange
	if x.state == nil {
		return nil, refuse("STAT_NOT_FOUND", 0, "no ephemeral key was generated")
	}
	session, serverEvidence, ok := profile.Verify(x.state, id, evidence)
	x.state = nil
	if !ok {
		if x.attempts++; x.attempts == maxExchangeAttempts {
			delete(s.registrations, id)
		}
		return nil, refuse("STAT_INVCREDENTIALS", frameworkNotVerified, "evidence is wrong")
	}
	x.proved = true
	defer session.Clear()

	items := []sealedItem{{"mdl/activationMessage", seal.LicenseActivationMessage, r.license.activationMessage()}}
	if r.license.standard {
		items = []sealedItem{
			{"standard/activationCode", seal.ActivationCode, r.license.activationCode()},
			{"standard/eventReactivationCounter", seal.EventReactivationCounter, reactivationCounter(r.license.instances[0].counter)},
		}
	}
	var data []datum
	for _, i := range items {
		c, err := session.Seal(i.item, []byte(i.content))
		if err != nil {
			return nil, err
		}
		data = append(data,
			datum{name: i.path + "/encryptedData", value: upperHex(c.Data)},
			datum{name: i.path + "/encryptedCounter", value: upperHex(c.Counter)},
			datum{name: i.path + "/mac", value: upperHex(c.MAC)},
		)
	}
	return append(data, datum{name: "serverEvidenceMessage", value: serverEvidence}), nil
}

type sealedItem struct {
	path    string
	item    seal.Item
	content string
}

// srpActivate confirms the activation of a standard licence and removes the registration.
func (s *Server) srpActivate(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	response, byResponse := in.text["credential/response"]
	code, byCode := in.text["credential/derivationCode"]
	if byResponse == byCode {
		return nil, callerError("credential needs exactly one of response and derivationCode")
	}
	id := in.text["registrationID"]
	r, err := s.findExchange(id)
	if err != nil {
		return nil, err
	}
	if !r.license.standard || !r.exchange.proved {
		return nil, refuse("STAT_NOT_FOUND", 0, "the activation data of a standard licence was not fetched")
	}
	if r.user.locked() {
		return nil, refuse("STAT_LOCKED", 0, "user is locked")
	}
	if err := r.user.confirm(r.license.instances, response, code); err != nil {
		return nil, err
	}
	delete(s.registrations, id)
	return []datum{
		{name: "user/userID", value: r.user.Name},
		{name: "user/domain", value: r.user.Domain},
		{name: "serialNumber", value: r.license.serial},
	}, nil
}

// updateDevicePNID sets the notification ID of a device.
func (s *Server) updateDevicePNID(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	u := s.findUser(in.text["user/userID"], in.text["user/domain"])
	if u == nil {
		return nil, refuse("STAT_USER_UNKNOWN", 0, "user not found")
	}
	devices := u.withSecureChannel(in.text["serialNumber"])
	if len(devices) == 0 {
		return nil, refuse("STAT_NOT_FOUND", 0, "the user has no activated authenticator with this serial number")
	}
	id, err := devices[0].channel().open(informationFlags, notificationIDContent, in.text["devicePNID"])
	if err != nil {
		return nil, refuse("STAT_INVDATA", 0, err.Error())
	}
	devices[0].notificationID = string(id)
	return nil, nil
}
