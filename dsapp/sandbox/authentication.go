package sandbox

import (
	"cmp"
	"context"
	"crypto/subtle"
)

// PushKeyword is the password that requests a push login: authUser then blocks until the
// device answers.
const PushKeyword = "push"

// loginTitle is the title of a login that was requested without one.
const loginTitle = "Login"

// Names of authentication attributes.
const (
	credComponentType      = "CREDFLD_COMPONENT_TYPE"
	credUserID             = "CREDFLD_USERID"
	credDomain             = "CREDFLD_DOMAIN"
	credOrganizationalUnit = "CREDFLD_ORGANIZATIONAL_UNIT"
	credSerialNumber       = "CREDFLD_SERIAL_NO"
	credChallengeKey       = "CREDFLD_CHALLENGE_KEY"
	credChallengeMessage   = "CREDFLD_CHALLENGE_MESSAGE"
	credTransactionTitle   = "CREDFLD_TRANSACTION_TITLE"
	credRequestMessage     = "CREDFLD_REQUEST_MESSAGE"
	credPasswordFormat     = "CREDFLD_PASSWORD_FORMAT"
	credPassword           = "CREDFLD_PASSWORD"
	credStatusMessage      = "CREDFLD_STATUS_MESSAGE"
)

// combinedPassword is the password format for one string in clear.
const combinedPassword = "0"

// maxWrappedKey is the maximum length of a wrapped or plain key, in characters.
const maxWrappedKey = 2048

func authenticationCommands() []command {
	user := func(further ...field) []field {
		return append([]field{
			{credComponentType, stringType, true, maxComponentType},
			{credUserID, stringType, true, maxUserID},
			{credDomain, stringType, false, maxUserID},
		}, further...)
	}
	commands := []command{{
		operation: "authUser",
		component: credComponentType,
		form: attributeList{set: "credentialAttributeSet", wrapper: "authUserResults", fields: user(
			field{credSerialNumber, stringType, false, maxSerialNumber},
			field{credChallengeKey, stringType, false, maxRequestKey},
			field{credChallengeMessage, stringType, false, maxFieldText},
			field{credPasswordFormat, unsignedIntType, true, maxUnsignedInt},
			field{credPassword, stringType, false, maxStaticPassword},
		)},
		handle: (*Server).authUser,
	}, {
		operation: "getSecureChallenge",
		answer:    "getSecureChallengeRespond", // spelled like this in the interface
		component: credComponentType,
		form: attributeList{set: "credentialAttributeSet", fields: user(
			field{credChallengeMessage, stringType, true, maxFieldText},
			field{credTransactionTitle, stringType, false, maxFieldText},
		)},
		handle: (*Server).getSecureChallenge,
	}, {
		operation: "getPreparedSecureChallenge",
		component: "componentType",
		form:      keyForm("challengeKey", maxRequestKey),
		handle: func(s *Server, _ context.Context, in values) ([]datum, error) {
			message, err := s.retrieve(KindLogin, in.text["serialNumber"], in.text["challengeKey"])
			return []datum{{name: "RequestMessage", value: message}}, err // spelled like this in the interface
		},
	}, {
		operation: "cancelAuthUser",
		component: "componentType",
		form:      keyForm("challengeKeyMessage", maxWrappedKey),
		handle: func(s *Server, _ context.Context, in values) ([]datum, error) {
			return nil, s.cancel(KindLogin, in.text["serialNumber"], in.text["challengeKeyMessage"])
		},
	}}
	for i := range commands {
		commands[i].scenario = authenticationScenario
	}
	return commands
}

// keyForm returns the form of requests by which a device retrieves or cancels.
func keyForm(key string, limit int) typedForm {
	return typedForm{
		{name: "componentType", required: true, max: maxComponentType},
		{name: "serialNumber", required: true, max: maxSerialNumber},
		{name: key, required: true, max: limit},
	}
}

// authUser verifies a one-time password, completes a pending login (with challenge key and
// password), requests a push login (with PushKeyword) or waits for a login whose key the
// device scans (with challenge key, without password).
func (s *Server) authUser(ctx context.Context, in values) ([]datum, error) {
	if in.text[credPasswordFormat] != combinedPassword {
		return nil, refuse("STAT_INVPARAM", 0, "the sandbox knows one password format, 0")
	}
	key, hasKey := in.text[credChallengeKey]
	password, hasPassword := in.text[credPassword]
	if !hasKey && !hasPassword {
		return nil, refuse("STAT_INVPARAM", 0, "attribute missing: "+credPassword)
	}

	s.mu.Lock()
	u, err := s.unlockedUser(in.text[credUserID], in.text[credDomain])
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	var p *pendingRequest // to wait for
	var used *authenticatorInstance
	switch {
	case hasKey:
		if p, err = s.findRequestOf(u, KindLogin, key); err == nil && hasPassword {
			if err = s.complete(p, password); err == nil {
				p, used = nil, p.signer
			}
		}
	case password == PushKeyword:
		title := cmp.Or(in.text[credChallengeMessage], loginTitle)
		p, err = s.pushRequest(u, in.text[credSerialNumber], KindLogin, title, nil)
	default:
		used, err = u.authenticate(in.text[credSerialNumber], password)
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if p != nil {
		used, err = s.await(ctx, p)
		if err != nil && !hasKey && ctx.Err() == nil {
			// This is how a push login with PushKeyword fails.
			return append(loggedIn(u, nil), datum{name: credStatusMessage, value: "wrong password"}), nil
		}
		if err != nil {
			return nil, err
		}
	}
	return loggedIn(u, used), nil
}

// loggedIn returns the data of a login. used is nil for a static password.
func loggedIn(u *user, used *authenticatorInstance) []datum {
	data := []datum{{name: credUserID, value: u.Name}, {name: credDomain, value: u.Domain}}
	if u.OrganizationalUnit != "" {
		data = append(data, datum{name: credOrganizationalUnit, value: u.OrganizationalUnit})
	}
	if used != nil {
		data = append(data, datum{name: credSerialNumber, value: used.serial})
	}
	return data
}

// authenticate verifies a one-time password and returns its authenticator. serial selects
// one if it is not empty. For a user without authenticators, authenticate verifies the
// static password and returns nil.
func (u *user) authenticate(serial, password string) (*authenticatorInstance, error) {
	authenticators := u.authenticators()
	if len(authenticators) == 0 {
		if subtle.ConstantTimeCompare([]byte(u.StaticPassword), []byte(password)) != 1 {
			return nil, u.recordFailure("STAT_LOCAL_PASSWORD_MISMATCH", frameworkStaticPassword, "static password is wrong")
		}
		u.wrongPasswords = 0
		return nil, nil
	}
	for _, i := range authenticators {
		if (serial == "" || i.serial == serial) && i.verify(password) {
			u.wrongPasswords = 0
			return i, nil
		}
	}
	return nil, u.recordFailure("STAT_OTP_INCORRECT", frameworkNotVerified, "one-time password is wrong")
}

// getSecureChallenge prepares a login whose key a device will scan.
func (s *Server) getSecureChallenge(_ context.Context, in values) ([]datum, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.unlockedUser(in.text[credUserID], in.text[credDomain])
	if err != nil {
		return nil, err
	}
	title := cmp.Or(in.text[credTransactionTitle], loginTitle)
	p, message, err := s.prepareRequest(u, "", KindLogin, title, []RequestField{{"message", in.text[credChallengeMessage]}})
	if err != nil {
		return nil, err
	}
	return []datum{
		{name: credUserID, value: u.Name},
		{name: credDomain, value: u.Domain},
		{name: credChallengeKey, value: p.request.Key},
		{name: credSerialNumber, value: p.candidates[0].serial},
		{name: credRequestMessage, value: message},
	}, nil
}
